//! Can any node of the cluster run the image?

use crate::image::Image;
use anyhow::Result;
use aws_sdk_eks::Client;
use common::aws::{AwsFlags, Call};
use common::{Error, Session};
use serde_json::Value;

/// Refuses an image that no managed node group can run. Without a cluster, or without managed node groups, nothing is
/// known and nothing refused.
pub async fn check(session: &Session, aws: &AwsFlags, image: &Image) -> Result<()> {
    let known = session.doc.get(&["cluster", "name"]).and_then(Value::as_str);
    let Some(cluster) = aws.cluster.as_deref().or(known) else { return Ok(()) };
    if image.architectures.is_empty() {
        return Ok(());
    }
    let eks = Client::new(session.aws(aws).await?);
    let mut nodes: Vec<&str> = Vec::new();
    let mut groups = eks.list_nodegroups().cluster_name(cluster).into_paginator().items().send();
    while let Some(group) = groups.next().await {
        let group = group.call("eks:ListNodegroups", cluster)?;
        let answer = eks.describe_nodegroup().cluster_name(cluster).nodegroup_name(&group).send().await;
        let described = answer.call("eks:DescribeNodegroup", &group)?.nodegroup;
        match described.and_then(|group| architecture(group.ami_type?.as_str())) {
            Some(architecture) => nodes.push(architecture),
            None => return Ok(()),
        }
    }
    if nodes.is_empty() || image.architectures.iter().any(|architecture| nodes.contains(&architecture.as_str())) {
        return Ok(());
    }
    nodes.sort_unstable();
    nodes.dedup();
    let (image, nodes) = (image.architectures.join(", "), nodes.join(", "));
    let refusal = Error::failed(format!("the image is for {image}, the nodes of {cluster} are {nodes}"));
    Err(refusal.hint(format!("build it for {nodes}")).into())
}

/// The architecture of an EKS AMI type, such as `AL2023_ARM_64_STANDARD`. `None` for `CUSTOM`, which can be either.
fn architecture(ami: &str) -> Option<&'static str> {
    if ami == "CUSTOM" {
        None
    } else if ami.contains("ARM_64") {
        Some("arm64")
    } else {
        Some("amd64")
    }
}

#[cfg(test)]
mod tests {
    use super::architecture;

    #[test]
    fn ami_types_tell_the_architecture() {
        let cases = [
            ("AL2_x86_64", Some("amd64")),
            ("AL2_x86_64_GPU", Some("amd64")),
            ("AL2023_ARM_64_STANDARD", Some("arm64")),
            ("BOTTLEROCKET_ARM_64", Some("arm64")),
            ("CUSTOM", None),
        ];
        for (ami, expected) in cases {
            assert_eq!(architecture(ami), expected, "{ami}");
        }
    }
}
