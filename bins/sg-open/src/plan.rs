//! What to change about the rules. Pure.

use common::cluster::Cluster;
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
    /// Ingress rules of the targets; with `--delete`, our rules and those the document names.
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
    /// Made by this tool, and for these two clusters.
    pub ours: bool,
}

impl Rule {
    fn admits(&self, opening: &Opening) -> bool {
        let (first, last) = self.ports;
        let port = i32::from(opening.port);
        let fits = match self.protocol.as_str() {
            "-1" => true,
            "tcp" | "6" => first == -1 || (first..=last).contains(&port),
            _ => false,
        };
        fits && self.group == opening.group && self.source.as_ref() == Some(&opening.source)
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
    Revoke { rule: String, group: String },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Open(Opening { port, group, source }) => write!(f, "open port {port} of {group} to {source}"),
            Change::Revoke { rule, group } => write!(f, "revoke rule {rule} of {group}"),
        }
    }
}

/// Every port from every group to every group, in a steady order.
fn openings(want: &Want, have: &Have) -> impl Iterator<Item = Opening> {
    let pairs = have.targets.iter().flat_map(|group| have.sources.iter().map(move |source| (group, source)));
    let opening =
        |port: u16, (group, source): (&String, &String)| Opening { port, group: group.clone(), source: source.clone() };
    want.ports.iter().flat_map(move |port| pairs.clone().map(move |pair| opening(*port, pair)))
}

/// Opens what is not open yet, whoever opened it.
pub fn plan(want: &Want, have: &Have) -> Vec<Change> {
    let closed = openings(want, have).filter(|opening| admitting(have, opening).is_none());
    closed.map(Change::Open).collect()
}

/// Revokes our rules.
pub fn plan_delete(want: &Want, have: &Have) -> Vec<Change> {
    let ours = have.rules.iter().filter(|rule| rule.ours && named(want, rule));
    ours.map(|rule| Change::Revoke { rule: rule.id.clone(), group: rule.group.clone() }).collect()
}

/// Rules the document names that others made.
pub fn left_alone(have: &Have) -> Vec<String> {
    let foreign = have.rules.iter().filter(|rule| !rule.ours);
    foreign.map(|rule| format!("rule {} of {}: not made by crossmesh", rule.id, rule.group)).collect()
}

/// What a person should know about what is used.
pub fn remarks(want: &Want, have: &Have) -> Vec<String> {
    let apart = want.from.iter().filter(|from| from.vpc != want.to.vpc).map(|from| {
        let (a, b) = (&want.to, from);
        format!("{} is in {}, {} in {}: the VPCs must be peered", a.name, a.vpc, b.name, b.vpc)
    });
    let used = openings(want, have).filter_map(|opening| {
        let rule = admitting(have, &opening).filter(|rule| !rule.ours)?;
        let Opening { port, group, source } = opening;
        Some(format!("port {port} of {group} is open to {source} by rule {}, which others made", rule.id))
    });
    apart.chain(used).collect()
}

/// The rules that admit what is wished for, each with what it admits.
pub fn admitted(want: &Want, have: &Have) -> Vec<(Opening, String)> {
    let rule = |opening: Opening| admitting(have, &opening).map(|rule| rule.id.clone()).map(|id| (opening, id));
    openings(want, have).filter_map(rule).collect()
}

/// A rule that admits it: ours before another's.
fn admitting<'a>(have: &'a Have, opening: &Opening) -> Option<&'a Rule> {
    have.rules.iter().filter(|rule| rule.admits(opening)).min_by_key(|rule| (!rule.ours, &rule.id))
}

/// Whether `--delete` means this rule.
fn named(want: &Want, rule: &Rule) -> bool {
    want.ports.is_empty() || want.ports.iter().any(|port| rule.ports == (i32::from(*port), i32::from(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        Want { to: side("c2", "vpc-1"), from: Some(side("c1", "vpc-1")), ports: ports.into(), known_rules: Vec::new() }
    }

    fn rule(id: &str, source: &str, protocol: &str, ports: (i32, i32), ours: bool) -> Rule {
        let source = Some(source.to_owned()).filter(|source| !source.is_empty());
        Rule { id: id.into(), group: "sg-2".into(), source, protocol: protocol.into(), ports, ours }
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
            assert_eq!(words(plan(&want(&[8080]), &have(rule.as_slice()))), changes, "{case}");
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
            words(plan(&want(&[80, 443]), &have)),
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
            assert_eq!(words(plan_delete(&want(ports), &have(&rules))), changes, "{ports:?}");
        }
        assert_eq!(left_alone(&have(&rules)), ["rule theirs of sg-2: not made by crossmesh"]);
    }

    #[test]
    fn our_own_rule_is_named_before_anothers() {
        let rules = [rule("a", "sg-1", "-1", (-1, -1), false), rule("b", "sg-1", "tcp", (8080, 8080), true)];
        let ids =
            |rules: &[Rule]| admitted(&want(&[8080]), &have(rules)).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
        assert_eq!(ids(&rules), ["b"]);
        assert_eq!(ids(&rules[..1]), ["a"]);
        assert_eq!(remarks(&want(&[8080]), &have(&rules)), [""; 0]);
        let used = "port 8080 of sg-2 is open to sg-1 by rule a, which others made";
        assert_eq!(remarks(&want(&[8080]), &have(&rules[..1])), [used]);
    }

    #[test]
    fn two_vpcs_are_remarked() {
        let want = Want { from: Some(side("c1", "vpc-9")), ..want(&[]) };
        assert_eq!(remarks(&want, &have(&[])), ["c2 is in vpc-1, c1 in vpc-9: the VPCs must be peered"]);
    }
}
