//! Finds what joins the VPCs of two clusters: a VPC peering, or a transit gateway that both are attached to. Whether their
//! route tables lead there is not looked at.

use crate::aws::Call;
use crate::cluster::Cluster;
use crate::{Error, Session};
use anyhow::Result;
use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, SecurityGroupReferencingSupportValue, VpcPeeringConnectionStateReasonCode};
use std::collections::BTreeMap;
use std::fmt;

/// Something that joins two VPCs.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// `pcx-…` or `tgw-…`
    pub id: String,
    /// Whether a security group's rule may name a group beyond it.
    pub knows_groups: bool,
}

/// Two clusters in two VPCs.
#[derive(Debug, Clone, PartialEq)]
pub struct Apart {
    /// Name and VPC of each.
    pub clusters: [(String, String); 2],
    /// What joins the VPCs.
    pub links: Vec<Link>,
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(one, vpc), (other, other_vpc)] = &self.clusters;
        write!(f, "cluster {one} is in {vpc}, cluster {other} in {other_vpc}")
    }
}

impl Apart {
    /// One line about what joins the VPCs.
    pub fn remark(&self) -> String {
        let links: Vec<&str> = self.links.iter().map(|link| link.id.as_str()).collect();
        format!("{self}: joined by {}", links.join(", "))
    }

    /// Refuses VPCs that nothing joins.
    ///
    /// # Errors
    /// Nothing does.
    pub fn joined(self) -> Result<Self> {
        if self.links.is_empty() {
            let message = format!("{self}, and neither a VPC peering nor a transit gateway joins them");
            let hint = "peer the VPCs, or attach both to a transit gateway, with routes to each other";
            return Err(Error::conflict(message).hint(hint).into());
        }
        Ok(self)
    }
}

impl Session {
    /// The two clusters with what joins their VPCs; `None` if they are in one VPC.
    ///
    /// # Errors
    /// EC2 does not answer.
    pub async fn apart(&self, config: &SdkConfig, one: &Cluster, other: &Cluster) -> Result<Option<Apart>> {
        if one.vpc == other.vpc {
            return Ok(None);
        }
        let ec2 = Client::new(config);
        let mut links = peerings(&ec2, &one.vpc, &other.vpc).await?;
        links.extend(transit_gateways(&ec2, &one.vpc, &other.vpc).await?);
        let clusters = [one, other].map(|cluster| (cluster.name.clone(), cluster.vpc.clone()));
        Ok(Some(Apart { clusters, links }))
    }
}

/// The active peerings of two VPCs, whichever asked for it.
async fn peerings(ec2: &Client, one: &str, other: &str) -> Result<Vec<Link>> {
    let call = ec2.describe_vpc_peering_connections().filters(filter("requester-vpc-info.vpc-id", &[one, other]));
    let pages = call.into_paginator().items();
    let found = pages.send().collect::<Result<Vec<_>, _>>().await;
    let found = found.call("ec2:DescribeVpcPeeringConnections", format!("of {one} and {other}"))?;
    let joins = found.into_iter().filter(|peering| {
        let vpcs = [peering.requester_vpc_info(), peering.accepter_vpc_info()];
        let vpcs = vpcs.map(|vpc| vpc.and_then(|vpc| vpc.vpc_id()));
        let active =
            peering.status().and_then(|status| status.code()) == Some(&VpcPeeringConnectionStateReasonCode::Active);
        active && (vpcs == [Some(one), Some(other)] || vpcs == [Some(other), Some(one)])
    });
    Ok(joins.filter_map(|it| Some(Link { id: it.vpc_peering_connection_id?, knows_groups: true })).collect())
}

/// The transit gateways that both VPCs are attached to.
async fn transit_gateways(ec2: &Client, one: &str, other: &str) -> Result<Vec<Link>> {
    let filters = vec![filter("state", &["available"]), filter("vpc-id", &[one, other])];
    let pages = ec2.describe_transit_gateway_vpc_attachments().set_filters(Some(filters)).into_paginator().items();
    let found = pages.send().collect::<Result<Vec<_>, _>>().await;
    let found = found.call("ec2:DescribeTransitGatewayVpcAttachments", format!("of {one} and {other}"))?;
    let mut gateways: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    for attachment in found {
        let support = attachment.options().and_then(|options| options.security_group_referencing_support());
        let knows_groups = support == Some(&SecurityGroupReferencingSupportValue::Enable);
        let (Some(gateway), Some(vpc)) = (attachment.transit_gateway_id, attachment.vpc_id) else { continue };
        gateways.entry(gateway).or_default().insert(vpc, knows_groups);
    }
    let both = gateways.into_iter().filter(|(_, vpcs)| vpcs.len() == 2);
    Ok(both.map(|(id, vpcs)| Link { id, knows_groups: vpcs.into_values().all(|knows| knows) }).collect())
}

fn filter(name: &str, values: &[&str]) -> Filter {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Filter::builder().name(name).set_values(Some(values)).build()
}
