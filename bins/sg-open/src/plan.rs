//! Says what to change about the rules. Pure.

use anyhow::Result;
use common::Error;
use common::aws::ec2::is_about_tcp;
use common::aws::network::Apart;
use common::cluster::Cluster;
use common::plan::Effect;
use std::fmt;

/// Ports to open from one cluster to another.
#[derive(Debug, Clone)]
pub struct Want {
    /// The cluster to enter.
    pub to: Side,
    /// The cluster to let in; `None` with `--delete` means whoever was let in.
    pub from: Option<Side>,
    /// TCP ports; none with `--delete` means all.
    pub ports: Vec<u16>,
    /// Ids of the rules the document names.
    pub known_rules: Vec<String>,
    /// Take over the rules that others made, where they open just what is asked for.
    pub adopt: bool,
    /// The two clusters, if they are in two VPCs.
    pub apart: Option<Apart>,
}

/// What this tool needs to know of a cluster.
#[derive(Debug, Clone)]
pub struct Side {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// The account of its security groups.
    pub account: String,
    /// `vpc-…`; empty with `--delete`, where nobody asks.
    pub vpc: String,
    /// Its cluster security group; empty with `--delete`.
    pub security_group: String,
}

impl From<Cluster> for Side {
    fn from(cluster: Cluster) -> Self {
        let Cluster { name, arn, account, vpc, security_group, .. } = cluster;
        Self { name, arn, account, vpc, security_group }
    }
}

/// The groups of both sides and the rules that are there.
#[derive(Debug, Clone, Default)]
pub struct Have {
    /// Groups on the nodes to enter; empty with `--delete`.
    pub targets: Vec<String>,
    /// Groups on the nodes to let in; empty with `--delete`.
    pub sources: Vec<String>,
    /// Ingress rules of the targets, and those the document names; with `--delete`, our rules and those.
    pub rules: Vec<Rule>,
}

/// An ingress rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// `sgr-…`
    pub id: String,
    /// The group it is in.
    pub group: String,
    /// The group it lets in; `None` when it lets in addresses.
    pub source: Option<String>,
    /// `tcp`, `udp`, …; `-1` is any.
    pub protocol: String,
    /// First and last port; (-1, -1) is any.
    pub ports: (i32, i32),
    /// Status of the VPC peering it depends on, if that is not active: then it lets nobody in.
    pub broken: Option<String>,
    /// Whose it is, if not ours for these two clusters.
    pub foreign: Option<String>,
}

impl Rule {
    /// Whether it admits this port and no other.
    fn is_just(&self, port: u16) -> bool {
        self.protocol == "tcp" && self.ports == (i32::from(port), i32::from(port))
    }

    fn admits(&self, opening: &Opening) -> bool {
        is_about_tcp(opening.port, &self.protocol, self.ports)
            && self.group == opening.group
            && self.source.as_ref() == Some(&opening.source)
    }
}

/// A port, open from group to group.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    /// TCP port.
    pub port: u16,
    /// The group to enter.
    pub group: String,
    /// The group to let in.
    pub source: String,
}

/// One step.
#[derive(Debug, PartialEq)]
#[allow(missing_docs, reason = "its text says it")]
pub enum Change {
    Open(Opening),
    Adopt { rule: String, group: String },
    Revoke { rule: String, group: String },
}

impl common::plan::Change for Change {
    fn effect(&self) -> Effect {
        match self {
            Change::Open(_) => Effect::Add,
            Change::Adopt { .. } => Effect::Change,
            Change::Revoke { .. } => Effect::Remove,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Open(Opening { port, group, source }) => write!(f, "open port {port} of {group} to {source}"),
            Change::Adopt { rule, group } => write!(f, "take over rule {rule} of {group}"),
            Change::Revoke { rule, group } => write!(f, "revoke rule {rule} of {group}"),
        }
    }
}

/// Refuses VPCs between which no rule can name a group.
///
/// # Errors
/// Nothing joins them, or only transit gateways that do not know groups.
pub fn reachable(apart: Apart) -> Result<Apart> {
    let apart = apart.joined()?;
    if apart.links.iter().any(|link| link.knows_groups) {
        return Ok(apart);
    }
    let message = format!("{}: a rule cannot name a security group beyond it", apart.remark());
    let hint = "enable security group referencing for the transit gateway and both attachments, or peer the VPCs";
    Err(Error::conflict(message).hint(hint).into())
}

/// Every port from every group to every group, in a steady order.
fn openings(want: &Want, have: &Have) -> impl Iterator<Item = Opening> {
    let pairs = have.targets.iter().flat_map(|group| have.sources.iter().map(move |source| (group, source)));
    let opening =
        |port: u16, (group, source): (&String, &String)| Opening { port, group: group.clone(), source: source.clone() };
    want.ports.iter().flat_map(move |port| pairs.clone().map(move |pair| opening(*port, pair)))
}

/// What is not open yet.
fn closed(want: &Want, have: &Have) -> impl Iterator<Item = Opening> {
    rules(want, have).filter(|(_, rule)| rule.is_none()).map(|(opening, _)| opening)
}

impl common::plan::Want for Want {
    type Have = Have;
    type Change = Change;

    /// Opens what is not open yet, whoever opened it, and closes what we opened for an earlier wish of this document.
    fn plan(&self, have: &Self::Have) -> Result<Vec<Self::Change>> {
        let closed = closed(self, have).map(Change::Open);
        let adopt = openings(self, have).filter(|_| self.adopt).filter_map(|opening| {
            let rule = admitting(have, &opening).filter(|rule| rule.foreign.is_some() && rule.is_just(opening.port))?;
            Some(Change::Adopt { rule: rule.id.clone(), group: rule.group.clone() })
        });
        let used: Vec<String> = admitted(self, have).into_iter().map(|(_, rule)| rule).collect();
        let earlier = have
            .rules
            .iter()
            .filter(|rule| rule.foreign.is_none() && self.known_rules.contains(&rule.id) && !used.contains(&rule.id));
        Ok(closed.chain(adopt).chain(earlier.map(revoke)).collect())
    }

    /// Revokes our rules.
    fn plan_delete(&self, have: &Self::Have) -> Result<Vec<Self::Change>> {
        let named = |rule: &Rule| self.ports.is_empty() || self.ports.iter().any(|port| rule.is_just(*port));
        Ok(have.rules.iter().filter(|rule| rule.foreign.is_none() && named(rule)).map(revoke).collect())
    }

    /// What a person should know about what is used.
    fn remarks(&self, have: &Self::Have) -> Vec<String> {
        let apart = self.apart.iter().map(Apart::remark);
        let used = openings(self, have).filter_map(|opening| {
            let rule = admitting(have, &opening)?;
            let whose = rule.foreign.as_ref().filter(|_| !(self.adopt && rule.is_just(opening.port)))?;
            let adopt =
                if rule.is_just(opening.port) { "--adopt takes it over" } else { "it admits more, so it stays so" };
            let Opening { port, group, source } = opening;
            Some(format!("port {port} of {group} is open to {source} by rule {}, {whose}: {adopt}", rule.id))
        });
        let broken = openings(self, have).filter_map(|opening| {
            let rule = admitting(have, &opening)?;
            let status = rule.broken.as_ref()?;
            Some(format!("rule {} of {} lets nobody in: its VPC peering is {status}", rule.id, rule.group))
        });
        apart.chain(used).chain(broken).collect()
    }

    /// Rules the document names that others made.
    fn left_alone(&self, have: &Self::Have) -> Vec<String> {
        let foreign = have.rules.iter().filter_map(|rule| Some((rule, rule.foreign.as_ref()?)));
        foreign.map(|(rule, whose)| format!("rule {} of {}: {whose}", rule.id, rule.group)).collect()
    }
}

fn revoke(rule: &Rule) -> Change {
    Change::Revoke { rule: rule.id.clone(), group: rule.group.clone() }
}

/// What is wished for, in its order, each with the rule that admits it, if there is one.
pub fn rules(want: &Want, have: &Have) -> impl Iterator<Item = (Opening, Option<String>)> {
    openings(want, have).map(|opening| {
        let rule = admitting(have, &opening).map(|rule| rule.id.clone());
        (opening, rule)
    })
}

/// The rules that admit what is asked for, each with what it admits.
pub fn admitted(want: &Want, have: &Have) -> Vec<(Opening, String)> {
    rules(want, have).filter_map(|(opening, rule)| Some((opening, rule?))).collect()
}

/// A rule that admits it: ours before another's.
fn admitting<'a>(have: &'a Have, opening: &Opening) -> Option<&'a Rule> {
    have.rules.iter().filter(|rule| rule.admits(opening)).min_by_key(|rule| (rule.foreign.is_some(), &rule.id))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use common::aws::network::Link;
    use common::plan::Want as _;

    fn side(name: &str, vpc: &str) -> Side {
        Side {
            name: name.into(),
            arn: format!("arn:{name}"),
            account: "1".into(),
            vpc: vpc.into(),
            security_group: format!("sg-{name}"),
        }
    }

    fn want(ports: &[u16]) -> Want {
        Want {
            to: side("c2", "vpc-1"),
            from: Some(side("c1", "vpc-1")),
            ports: ports.into(),
            known_rules: Vec::new(),
            adopt: false,
            apart: None,
        }
    }

    fn rule(id: &str, source: &str, protocol: &str, ports: (i32, i32), ours: bool) -> Rule {
        let source = Some(source.to_owned()).filter(|source| !source.is_empty());
        Rule {
            id: id.into(),
            group: "sg-2".into(),
            source,
            protocol: protocol.into(),
            ports,
            broken: None,
            foreign: Some("managed by bob".to_owned()).filter(|_| !ours),
        }
    }

    fn have(rules: &[Rule]) -> Have {
        Have { targets: vec!["sg-2".into()], sources: vec!["sg-1".into()], rules: rules.into() }
    }

    fn words(changes: Vec<Change>) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_port_is_opened_unless_a_rule_admits_it() {
        let open: &[&str] = &["open port 8080 of sg-2 to sg-1"];
        let cases: [(&str, Option<Rule>, &[&str]); 13] = [
            ("no rule", None, open),
            ("ours", Some(rule("r", "sg-1", "tcp", (8080, 8080), true)), &[]),
            ("of others", Some(rule("r", "sg-1", "tcp", (8080, 8080), false)), &[]),
            ("a range", Some(rule("r", "sg-1", "tcp", (8000, 9000), false)), &[]),
            ("any port", Some(rule("r", "sg-1", "tcp", (-1, -1), false)), &[]),
            ("any traffic", Some(rule("r", "sg-1", "-1", (-1, -1), false)), &[]),
            ("by number", Some(rule("r", "sg-1", "6", (8080, 8080), false)), &[]),
            ("range beside it", Some(rule("r", "sg-1", "tcp", (8081, 9000), false)), open),
            ("udp", Some(rule("r", "sg-1", "udp", (8080, 8080), false)), open),
            ("icmp", Some(rule("r", "sg-1", "icmp", (-1, -1), false)), open),
            ("another group", Some(rule("r", "sg-3", "tcp", (8080, 8080), false)), open),
            ("addresses", Some(rule("r", "", "tcp", (8080, 8080), false)), open),
            (
                "in another group",
                Some(Rule { group: "sg-9".into(), ..rule("r", "sg-1", "tcp", (8080, 8080), true) }),
                open,
            ),
        ];
        for (case, rule, changes) in cases {
            assert_eq!(words(want(&[8080]).plan(&have(rule.as_slice())).unwrap()), changes, "{case}");
        }
    }

    #[test]
    fn every_pair_of_groups_gets_every_port() {
        let have = Have {
            targets: vec!["sg-2".into(), "sg-4".into()],
            sources: vec!["sg-1".into(), "sg-2".into()],
            rules: vec![rule("r", "sg-2", "-1", (-1, -1), false)],
        };
        assert_eq!(
            words(want(&[80, 443]).plan(&have).unwrap()),
            [
                "open port 80 of sg-2 to sg-1",
                "open port 80 of sg-4 to sg-1",
                "open port 80 of sg-4 to sg-2",
                "open port 443 of sg-2 to sg-1",
                "open port 443 of sg-4 to sg-1",
                "open port 443 of sg-4 to sg-2",
            ]
        );
    }

    #[test]
    fn only_our_rules_are_revoked() {
        let rules = [
            rule("ours", "sg-1", "tcp", (8080, 8080), true),
            rule("ours-too", "sg-1", "tcp", (9090, 9090), true),
            rule("theirs", "sg-1", "tcp", (8080, 8080), false),
        ];
        for (ports, changes) in [
            (&[8080][..], &["revoke rule ours of sg-2"][..]),
            (&[], &["revoke rule ours of sg-2", "revoke rule ours-too of sg-2"]),
            (&[1], &[]),
        ] {
            assert_eq!(words(want(ports).plan_delete(&have(&rules)).unwrap()), changes, "{ports:?}");
        }
        assert_eq!(want(&[8080]).left_alone(&have(&rules)), ["rule theirs of sg-2: managed by bob"]);
    }

    #[test]
    fn our_own_rule_is_named_before_anothers() {
        let rules = [rule("a", "sg-1", "-1", (-1, -1), false), rule("b", "sg-1", "tcp", (8080, 8080), true)];
        let ids =
            |rules: &[Rule]| admitted(&want(&[8080]), &have(rules)).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
        assert_eq!(ids(&rules), ["b"]);
        assert_eq!(ids(&rules[..1]), ["a"]);
        assert_eq!(want(&[8080]).remarks(&have(&rules)), [""; 0]);
    }

    #[test]
    fn only_a_rule_for_just_the_port_is_taken_over() {
        const USED: &str = "port 8080 of sg-2 is open to sg-1 by rule r, managed by bob: ";
        let (wide, just) = (format!("{USED}it admits more, so it stays so"), format!("{USED}--adopt takes it over"));
        let (wide, just) = (wide.as_str(), just.as_str());
        let adopt = Want { adopt: true, ..want(&[8080]) };
        for (rule, taken, remark, remark_then) in [
            (rule("r", "sg-1", "tcp", (8080, 8080), false), &["take over rule r of sg-2"][..], &[just][..], &[][..]),
            (rule("r", "sg-1", "tcp", (8080, 8081), false), &[], &[wide], &[wide]),
            (rule("r", "sg-1", "-1", (-1, -1), false), &[], &[wide], &[wide]),
            (rule("r", "sg-1", "tcp", (8080, 8080), true), &[], &[], &[]),
        ] {
            let have = have(&[rule]);
            assert_eq!(words(want(&[8080]).plan(&have).unwrap()), [""; 0], "{have:?}");
            assert_eq!(want(&[8080]).remarks(&have), remark, "{have:?}");
            assert_eq!(words(adopt.plan(&have).unwrap()), taken, "{have:?}");
            assert_eq!(adopt.remarks(&have), remark_then, "{have:?}");
        }
    }

    #[test]
    fn what_the_document_no_longer_needs_is_closed_after_the_rest_is_open() {
        let want = |ports: &[u16]| Want { known_rules: vec!["r".into(), "gone".into()], ..want(ports) };
        let group_of_old = Rule { group: "sg-9".into(), ..rule("r", "sg-1", "tcp", (8080, 8080), true) };
        let (open, revoke) = ("open port 8080 of sg-2 to sg-1", "revoke rule r of sg-2");
        for (case, ports, rules, changes) in [
            ("as wished", &[8080][..], vec![rule("r", "sg-1", "tcp", (8080, 8080), true)], &[][..]),
            (
                "another port wished for",
                &[80],
                vec![rule("r", "sg-1", "tcp", (8080, 8080), true)],
                &["open port 80 of sg-2 to sg-1", revoke],
            ),
            ("its port edited", &[8080], vec![rule("r", "sg-1", "tcp", (8081, 8081), true)], &[open, revoke]),
            ("its source edited", &[8080], vec![rule("r", "", "tcp", (8080, 8080), true)], &[open, revoke]),
            ("nodes in another group now", &[8080], vec![group_of_old], &[open, "revoke rule r of sg-9"]),
            ("of others", &[8080], vec![rule("r", "sg-1", "tcp", (8081, 8081), false)], &[open]),
            ("ours, of another document", &[8080], vec![rule("other", "sg-1", "tcp", (80, 80), true)], &[open]),
        ] {
            assert_eq!(words(want(ports).plan(&have(&rules)).unwrap()), changes, "{case}");
        }
    }

    #[test]
    fn a_rule_without_its_peering_is_remarked() {
        let broken = Rule { broken: Some("deleted".into()), ..rule("r", "sg-1", "tcp", (8080, 8080), true) };
        let remark = "rule r of sg-2 lets nobody in: its VPC peering is deleted";
        assert_eq!(want(&[8080]).remarks(&have(&[broken])), [remark]);
    }

    #[test]
    fn two_vpcs_need_a_link_that_knows_groups() {
        let pair = |name: &str, vpc: &str| (name.to_owned(), vpc.to_owned());
        let apart = |links: &[(&str, bool)]| {
            let links =
                links.iter().map(|(id, knows_groups)| Link { id: (*id).to_owned(), knows_groups: *knows_groups });
            Apart { clusters: [pair("c2", "vpc-1"), pair("c1", "vpc-9")], links: links.collect() }
        };
        let there = "cluster c2 is in vpc-1, cluster c1 in vpc-9";
        for (links, refused) in [
            (&[][..], ", and neither a VPC peering nor a transit gateway joins them"),
            (&[("tgw-1", false)], ": joined by tgw-1: a rule cannot name a security group beyond it"),
        ] {
            let error = reachable(apart(links)).unwrap_err();
            assert_eq!(error.to_string(), format!("{there}{refused}"));
            assert_eq!(common::classify(&error).0, common::Kind::Conflict);
        }
        let joined = reachable(apart(&[("tgw-1", false), ("pcx-1", true)])).unwrap();
        let want = Want { apart: Some(joined), ..want(&[]) };
        assert_eq!(want.remarks(&have(&[])), [format!("{there}: joined by tgw-1, pcx-1")]);
    }
}
