#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::*;
use crate::testing::{each_finds_its_own, of, scene};
use common::aws::network::Link;
use serde_json::json;

fn apart(scene: &mut Scene, links: &[(&str, bool)]) {
    let clusters = [("a".to_owned(), "vpc-1".to_owned()), ("b".to_owned(), "vpc-2".to_owned())];
    let links = links.iter().map(|(id, knows_groups)| Link { id: (*id).into(), knows_groups: *knows_groups }).collect();
    scene.apart = Some(Apart { clusters, links });
}

fn rule(scene: &mut Scene) -> &mut Rule {
    &mut scene.sides[1].rules.as_mut().unwrap()[0]
}

fn address(scene: &mut Scene, ip: &str) {
    scene.sides[0].pods.as_mut().unwrap()[0].status.as_mut().unwrap().pod_ips = of(json!([{"ip": ip}]));
}

fn no_endpoint(scene: &mut Scene, at: usize) {
    scene.sides[0].around.slices.as_mut().unwrap()[at].endpoints = Vec::new();
}

#[test]
fn every_check_finds_what_it_is_for() {
    each_finds_its_own(
        CHECKS,
        judge,
        &[
            (
                LINK,
                |it| apart(it, &[]),
                "clusters a and b: cluster a is in vpc-1, cluster b in vpc-2, and nothing joins them",
            ),
            (GROUPS, |it| apart(it, &[("tgw-1", false)]), "joined by tgw-1, which does not know security groups"),
            (
                RULE,
                |it| it.sides[1].rules = Some(Vec::new()),
                "port 8080 of cluster b: no rule of sg-b admits cluster a in sg-a",
            ),
            (RULE, |it| rule(it).protocol = "udp".into(), "no rule of sg-b"),
            (RULE, |it| rule(it).ports = (1, 79), "no rule of sg-b"),
            (
                PEERING,
                |it| rule(it).broken = Some("deleted".into()),
                "rule sgr-1 goes through a peering that is deleted",
            ),
            (
                WEBHOOK,
                |it| no_endpoint(it, 0),
                "Service appmesh-system/appmesh-controller-webhook-service of cluster a",
            ),
            (XDS, |it| no_endpoint(it, 1), "Service appmesh-system/appmesh-controller-xds of cluster a"),
            (ADDRESSES, |it| address(it, "10.0.2.9"), "both have the address 10.0.2.9"),
            (FAMILIES, |it| address(it, "fd00::1"), "clusters a and b: the pods of one have addresses of IPv4"),
        ],
    );
}

#[test]
fn rules_of_addresses_and_of_all_let_in() {
    for (case, change) in [
        ("a block of IPv4", Rule { source: None, addresses: Some("10.0.0.0/8".into()), ..Rule::default() }),
        ("everybody", Rule { source: None, addresses: Some("0.0.0.0/0".into()), ..Rule::default() }),
        (
            "all protocols",
            Rule { source: Some("sg-a".into()), protocol: "-1".into(), ports: (-1, -1), ..Rule::default() },
        ),
    ] {
        let mut scene = scene();
        let before = rule(&mut scene).clone();
        let protocol = if change.protocol.is_empty() { before.protocol } else { change.protocol.clone() };
        let ports = if change.ports == (0, 0) { before.ports } else { change.ports };
        *rule(&mut scene) = Rule { id: before.id, group: before.group, protocol, ports, ..change };
        assert_eq!(judge(&scene), Vec::new(), "{case}");
    }
}

#[test]
fn addresses_are_in_blocks() {
    for (ip, block, expected) in [
        ("10.1.2.3", "10.0.0.0/8", true),
        ("11.1.2.3", "10.0.0.0/8", false),
        ("10.1.2.3", "10.1.2.3/32", true),
        ("10.1.2.4", "10.1.2.3/32", false),
        ("fd00::1", "fd00::/16", true),
        ("fd01::1", "fd00::/16", false),
        ("10.1.2.3", "::/0", false),
        ("10.1.2.3", "x", false),
        ("10.1.2.3", "10.0.0.0/99", false),
    ] {
        assert_eq!(is_in(ip.parse().unwrap(), block), expected, "{ip} {block}");
    }
}
