//! Security groups between the clusters' nodes, as EC2 holds them, compiled to nftables on the VPC's router.
//!
//! As in AWS a connection passes when a rule of the sender's groups lets it out and one of the receiver's groups lets it
//! in; answers to it pass; everything else is dropped without a word, so that the caller sees a timeout.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use roxmltree::{Document, Node};
use tokio::process::Command;

use crate::cloud::Cloud;
use crate::ec2::{ask, child, items, text};
use crate::network;

/// A node: its subnet, whose addresses all belong to the instance, and the groups it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    subnet: String,
    groups: BTreeSet<String>,
}

/// One rule of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// `tcp`, `udp`, `icmp`, or `-1` for everything.
    protocol: String,
    /// First and last port; of no meaning for `icmp` and `-1`.
    ports: (i32, i32),
    /// The other side: groups and address ranges.
    groups: Vec<String>,
    ranges: Vec<String>,
}

/// A group's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    ingress: Vec<Rule>,
    egress: Vec<Rule>,
}

/// The whole state of the firewall.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    members: BTreeMap<String, Member>,
    groups: BTreeMap<String, Group>,
}

/// Keeps the router's rules as EC2's groups are, for as long as the process lives.
pub async fn follow(cloud: &Cloud) -> Result<()> {
    let mut policy = read().await?;
    apply(&policy).await?;
    let mut calls = crate::api_log::follow(cloud.log("aws-api"), |call| call.changes("ec2"));
    tokio::spawn(async move {
        while calls.recv().await.is_some() {
            let changed = async {
                let now = read().await?;
                if now != policy {
                    apply(&now).await?;
                    policy = now;
                }
                anyhow::Ok(())
            };
            if let Err(error) = changed.await {
                tracing::warn!("firewall: {error:#}");
            }
        }
    });
    Ok(())
}

async fn read() -> Result<Policy> {
    let (instances, groups) = tokio::try_join!(ask("DescribeInstances"), ask("DescribeSecurityGroups"))?;
    Policy::parse(&instances, &groups)
}

/// `10.0.1.4` is in `10.0.1.0/24`: one node a subnet.
fn subnet_of(address: &str) -> String {
    let network = address.rsplit_once('.').map_or(address, |(network, _)| network);
    format!("{network}.0/24")
}

impl Group {
    fn parse(group: Node<'_, '_>) -> Self {
        let rules = |list| items(group, list).map(Rule::parse).collect();
        Self { ingress: rules("ipPermissions"), egress: rules("ipPermissionsEgress") }
    }
}

impl Rule {
    fn parse(permission: Node<'_, '_>) -> Self {
        let port = |name, default| text(permission, name).and_then(|port| port.parse().ok()).unwrap_or(default);
        let all = |list, name| items(permission, list).filter_map(|item| text(item, name)).map(str::to_owned).collect();
        Self {
            protocol: text(permission, "ipProtocol").unwrap_or("-1").to_owned(),
            ports: (port("fromPort", 0), port("toPort", 65_535)),
            groups: all("groups", "groupId"),
            ranges: all("ipRanges", "cidrIp"),
        }
    }
}

impl Rule {
    /// The nftables match of protocol and port; none for a protocol that is not served here.
    fn matches(&self) -> Option<String> {
        let (first, last) = self.ports;
        match self.protocol.as_str() {
            "-1" => Some(String::new()),
            "icmp" => Some("meta l4proto icmp ".to_owned()),
            protocol @ ("tcp" | "udp") if first <= 0 && last >= 65_535 => Some(format!("meta l4proto {protocol} ")),
            protocol @ ("tcp" | "udp") => Some(format!("{protocol} dport {first}-{last} ")),
            _ => None,
        }
    }
}

impl Policy {
    /// From the answers of `DescribeInstances` and `DescribeSecurityGroups`.
    fn parse(instances: &str, groups: &str) -> Result<Self> {
        let (instances, groups) = (Document::parse(instances)?, Document::parse(groups)?);
        let mut policy = Self::default();
        let reservations = items(instances.root_element(), "reservationSet");
        for instance in reservations.flat_map(|reservation| items(reservation, "instancesSet")) {
            let state = child(instance, "instanceState").and_then(|state| text(state, "name"));
            if let (Some("running"), Some(id), Some(address)) =
                (state, text(instance, "instanceId"), text(instance, "privateIpAddress"))
            {
                let groups = items(instance, "groupSet").filter_map(|group| text(group, "groupId")).map(str::to_owned);
                let member = Member { subnet: subnet_of(address), groups: groups.collect() };
                policy.members.insert(id.to_owned(), member);
            }
        }
        let groups = items(groups.root_element(), "securityGroupInfo");
        policy.groups =
            groups.filter_map(|group| Some((text(group, "groupId")?.to_owned(), Group::parse(group)))).collect();
        Ok(policy)
    }

    fn rules<'a>(&'a self, member: &'a Member, side: fn(&Group) -> &Vec<Rule>) -> impl Iterator<Item = &'a Rule> {
        member.groups.iter().filter_map(|id| self.groups.get(id)).flat_map(side)
    }

    /// The addresses of a rule's other side.
    fn others(&self, rule: &Rule) -> BTreeSet<String> {
        let members =
            self.members.values().filter(|member| rule.groups.iter().any(|group| member.groups.contains(group)));
        members.map(|member| member.subnet.clone()).chain(rule.ranges.iter().cloned()).collect()
    }

    fn lines(&self, member: &Member, side: fn(&Group) -> &Vec<Rule>, other: &str, verdict: &str) -> String {
        let mut lines = BTreeSet::new();
        for rule in self.rules(member, side) {
            if let Some(matches) = rule.matches() {
                lines.extend(
                    self.others(rule)
                        .into_iter()
                        .map(|address| format!("    ip {other} {address} {matches}{verdict}\n")),
                );
            }
        }
        lines.into_iter().collect()
    }

    /// The whole table, as `nft -f` takes it in one transaction.
    pub fn ruleset(&self) -> String {
        let (mut chains, mut out, mut into) = (String::new(), String::new(), String::new());
        for (number, member) in self.members.values().enumerate() {
            let subnet = &member.subnet;
            out += &format!("    ip saddr {subnet} jump egress{number}\n");
            into += &format!("    ip daddr {subnet} jump ingress{number}\n");
            let egress = self.lines(member, |group| &group.egress, "daddr", "goto ingress");
            let ingress = self.lines(member, |group| &group.ingress, "saddr", "accept");
            chains += &format!("  chain ingress{number} {{\n{ingress}  }}\n  chain egress{number} {{\n{egress}  }}\n");
        }
        format!(
            "table inet vpc
delete table inet vpc
table inet vpc {{
{chains}  chain ingress {{
{into}  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
{out}  }}
}}
"
        )
    }
}

async fn apply(policy: &Policy) -> Result<()> {
    network::feed(Command::new("nft"), &["-f", "-"], &policy.ruleset()).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn rule(protocol: &str, ports: (i32, i32), groups: &[&str], ranges: &[&str]) -> Rule {
        let owned = |list: &[&str]| list.iter().map(|&x| x.to_owned()).collect();
        Rule { protocol: protocol.to_owned(), ports, groups: owned(groups), ranges: owned(ranges) }
    }

    /// Two nodes as EKS makes them: everything out, from outside the own group nothing in.
    fn policy(extra: &[Rule]) -> Policy {
        let member = |subnet: &str, group: &str| Member {
            subnet: subnet.to_owned(),
            groups: BTreeSet::from([group.to_owned()]),
        };
        let group = |own: &str, extra: &[Rule]| Group {
            ingress: std::iter::once(rule("-1", (-1, -1), &[own], &[])).chain(extra.iter().cloned()).collect(),
            egress: vec![rule("-1", (-1, -1), &[], &["0.0.0.0/0"])],
        };
        Policy {
            members: BTreeMap::from([
                ("i-1".to_owned(), member("10.0.1.0/24", "sg-1")),
                ("i-2".to_owned(), member("10.0.2.0/24", "sg-2")),
            ]),
            groups: BTreeMap::from([
                ("sg-1".to_owned(), group("sg-1", &[])),
                ("sg-2".to_owned(), group("sg-2", extra)),
            ]),
        }
    }

    fn chain(ruleset: &str, name: &str) -> String {
        let start = format!("  chain {name} {{\n");
        let body = ruleset.split(&start).nth(1).unwrap_or_default();
        body.split("  }\n").next().unwrap_or_default().to_owned()
    }

    #[test]
    fn what_ec2_answers_is_understood() {
        let answer = |name: &str, body: &str| {
            format!("<{name} xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15\">{body}</{name}>")
        };
        let instance = |id: &str, address: &str, group: &str, state: &str| {
            format!(
                "<item><instancesSet><item><instanceId>{id}</instanceId><privateIpAddress>{address}</privateIpAddress>\
                <groupSet><item><groupId>{group}</groupId></item></groupSet><instanceState><name>{state}</name></instanceState></item></instancesSet></item>"
            )
        };
        let instances = [
            instance("i-1", "10.0.1.4", "sg-1", "running"),
            instance("i-2", "10.0.2.4", "sg-2", "running"),
            instance("i-3", "10.0.3.4", "sg-2", "terminated"),
        ];
        let own = |group: &str| {
            format!(
                "<item><ipProtocol>-1</ipProtocol><groups><item><groupId>{group}</groupId></item></groups><ipRanges/></item>"
            )
        };
        let port = "<item><ipProtocol>tcp</ipProtocol><fromPort>8080</fromPort><toPort>8080</toPort><groups><item><groupId>sg-1</groupId></item></groups><ipRanges/></item>";
        let group = |id: &str, extra: &str| {
            format!(
                "<item><groupId>{id}</groupId><ipPermissionsEgress><item><ipProtocol>-1</ipProtocol><groups/><ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges></item></ipPermissionsEgress>\
                <ipPermissions>{}{extra}</ipPermissions></item>",
                own(id)
            )
        };
        let instances =
            answer("DescribeInstancesResponse", &format!("<reservationSet>{}</reservationSet>", instances.concat()));
        let groups = answer(
            "DescribeSecurityGroupsResponse",
            &format!("<securityGroupInfo>{}{}</securityGroupInfo>", group("sg-1", ""), group("sg-2", port)),
        );
        let parsed = Policy::parse(&instances, &groups).unwrap();
        let mut expected = policy(&[rule("tcp", (8080, 8080), &["sg-1"], &[])]);
        for rule in expected.groups.values_mut().flat_map(|group| group.ingress.iter_mut().chain(&mut group.egress)) {
            if rule.protocol == "-1" {
                rule.ports = (0, 65_535);
            }
        }
        assert_eq!(parsed, expected);
    }

    #[test]
    fn without_a_rule_nothing_passes_between_clusters() {
        let ruleset = policy(&[]).ruleset();
        assert_eq!(chain(&ruleset, "ingress1"), "    ip saddr 10.0.2.0/24 accept\n");
        assert!(chain(&ruleset, "forward").contains("policy drop"), "{ruleset}");
    }

    #[test]
    fn a_rule_from_group_to_group_opens_its_port() {
        let ruleset = policy(&[rule("tcp", (8080, 8080), &["sg-1"], &[])]).ruleset();
        assert_eq!(
            chain(&ruleset, "ingress1"),
            "    ip saddr 10.0.1.0/24 tcp dport 8080-8080 accept\n    ip saddr 10.0.2.0/24 accept\n"
        );
        assert_eq!(chain(&ruleset, "ingress0"), "    ip saddr 10.0.1.0/24 accept\n", "only the one way");
    }

    #[test]
    fn what_may_not_leave_does_not_arrive() {
        let mut policy = policy(&[rule("-1", (-1, -1), &[], &["0.0.0.0/0"])]);
        if let Some(group) = policy.groups.get_mut("sg-1") {
            group.egress.clear();
        }
        assert_eq!(chain(&policy.ruleset(), "egress0"), "");
    }

    #[test]
    fn protocols() {
        for (rule, expected) in [
            (rule("-1", (-1, -1), &[], &[]), Some("")),
            (rule("tcp", (0, 65_535), &[], &[]), Some("meta l4proto tcp ")),
            (rule("udp", (53, 53), &[], &[]), Some("udp dport 53-53 ")),
            (rule("icmp", (-1, -1), &[], &[]), Some("meta l4proto icmp ")),
            (rule("50", (0, 0), &[], &[]), None),
        ] {
            assert_eq!(rule.matches().as_deref(), expected, "{rule:?}");
        }
    }
}
