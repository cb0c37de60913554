//! Finds what a cluster's nodes can run.

use anyhow::Result;
use aws_config::SdkConfig;
use aws_sdk_eks::Client;
use aws_sdk_eks::config::{Builder, Region};
use common::aws::Call;
use common::cluster::Cluster;
use futures::future::try_join_all;
use std::collections::BTreeSet;

/// The platforms of the managed node groups, `linux/amd64`. `None` when there are none, or one does not tell: then
/// any image may find a node (Fargate, Karpenter, own machine images).
pub async fn platforms(config: &SdkConfig, cluster: &Cluster) -> Result<Option<BTreeSet<String>>> {
    // The repository may be in another region.
    let region = Region::new(cluster.region.clone());
    let eks = Client::from_conf(Builder::from(config).region(region).build());
    let cluster = &cluster.name;
    let groups = eks.list_nodegroups().cluster_name(cluster).into_paginator().items().send();
    let groups = groups.try_collect().await.call("eks:ListNodegroups", cluster)?;
    let looks = groups.iter().map(async |group| {
        let answer = eks.describe_nodegroup().cluster_name(cluster).nodegroup_name(group).send().await;
        let described = answer.call("eks:DescribeNodegroup", group)?.nodegroup;
        let image = described.and_then(|group| Some(group.ami_type()?.as_str().to_owned()));
        anyhow::Ok(image.as_deref().and_then(platform).map(str::to_owned))
    });
    let found: Option<BTreeSet<String>> = try_join_all(looks).await?.into_iter().collect();
    Ok(found.filter(|platforms| !platforms.is_empty()))
}

/// Of one of EKS's machine images, by its `amiType`. Source: the EKS API's enum, whose names hold the processor.
fn platform(image: &str) -> Option<&'static str> {
    match image {
        _ if image.starts_with("WINDOWS_") => Some("windows/amd64"),
        _ if image.contains("ARM_64") => Some("linux/arm64"),
        _ if image.contains("x86_64") => Some("linux/amd64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_image_tells_its_platform() {
        for (image, expected) in [
            ("AL2023_x86_64_STANDARD", Some("linux/amd64")),
            ("AL2_x86_64_GPU", Some("linux/amd64")),
            ("AL2023_ARM_64_NVIDIA", Some("linux/arm64")),
            ("BOTTLEROCKET_ARM_64_FIPS", Some("linux/arm64")),
            ("WINDOWS_CORE_2022_x86_64", Some("windows/amd64")),
            ("CUSTOM", None),
        ] {
            assert_eq!(platform(image), expected, "{image}");
        }
    }
}
