//! Asks EC2 what several tools need to know alike.

use crate::aws::Call;
use anyhow::Result;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, Instance};

/// The most values that a filter takes. Source: DescribeSecurityGroups and DescribeSecurityGroupRules, `Filters`.
pub const MOST_VALUES: usize = 200;

/// The instances that the filters choose, to find nodes of a cluster among them.
///
/// # Errors
/// EC2 does not answer.
pub async fn instances(client: &Client, filters: Vec<Filter>, cluster: &str) -> Result<Vec<Instance>> {
    // Auto Mode's nodes are EC2 managed instances, which an account may have hidden.
    let call = client.describe_instances().include_managed_resources(true).set_filters(Some(filters));
    let pages = call.into_paginator().send().collect::<Result<Vec<_>, _>>().await;
    let pages = pages.call("ec2:DescribeInstances", format!("nodes of {cluster}"))?;
    let reservations = pages.into_iter().flat_map(|page| page.reservations.unwrap_or_default());
    Ok(reservations.flat_map(|reservation| reservation.instances.unwrap_or_default()).collect())
}

/// Whether a security group rule is about a TCP port, whoever it lets in: its protocol as EC2 names it, where `-1` is any, and
/// its first and last port, where -1 is any.
pub fn is_about_tcp(port: u16, protocol: &str, (first, last): (i32, i32)) -> bool {
    match protocol {
        "-1" => true,
        "tcp" | "6" => first == -1 || (first..=last).contains(&i32::from(port)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_about_tcp;

    #[test]
    fn a_rule_is_about_the_ports_of_its_range() {
        for (protocol, ports, expected) in [
            ("-1", (-1, -1), true),
            ("tcp", (8080, 8080), true),
            ("tcp", (8000, 8080), true),
            ("6", (8080, 8081), true),
            ("tcp", (-1, -1), true),
            ("tcp", (8081, 9000), false),
            ("tcp", (0, 8079), false),
            ("udp", (8080, 8080), false),
            ("icmp", (-1, -1), false),
        ] {
            assert_eq!(is_about_tcp(8080, protocol, ports), expected, "{protocol} {ports:?}");
        }
    }
}
