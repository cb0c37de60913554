//! `sg-open`: see [`SgOpen`].

mod aws;
mod groups;
mod plan;
mod section;

use anyhow::{Context, Result};
use aws::Ec2;
use common::aws::AwsFlags;
use common::cluster::Cluster;
use common::plan::UNKNOWN;
use common::{Error, Session, Tool};
use plan::{Change, Have, Opening, Side, Want};
use section::{Peer, Rule, Section};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::ExitCode;

/// The port of the tutorial's application.
const DEFAULT_PORT: u16 = 8080;

/// Opens TCP ports of one cluster's nodes and pods to another cluster's.
///
/// The document's cluster is the one to enter; --from names the one to let in.
/// Rules go from security group to security group, one per port and pair, never
/// to addresses: the cluster security group where all nodes have it, else the
/// fewest groups that all of them have one of, and those of the pods that have
/// groups of their own and run. Where two would do, it is the one with the tag
/// kubernetes.io/cluster/NAME; where no tag decides, that is an error. Between
/// VPCs a rule can name a group only over a VPC peering or a transit gateway that
/// knows groups: that is looked for. A rule that admits the port already is used,
/// whoever made it. A rule that this tool made for these two clusters is revoked
/// by --delete, and when the document names it and the wish no longer needs it.
///
///   Reads   cluster; with --from the other cluster's document
///   Owns    ingress {from {arn, cluster, securityGroups}, ports, rules [{id,
///           port, securityGroup, source}]}
///   Calls   eks:DescribeCluster ec2:DescribeInstances
///           ec2:DescribeNetworkInterfaces ec2:DescribeSecurityGroups
///           ec2:DescribeSecurityGroupRules ec2:AuthorizeSecurityGroupIngress
///           ec2:CreateTags ec2:RevokeSecurityGroupIngress, for clusters in two
///           VPCs ec2:DescribeVpcPeeringConnections
///           ec2:DescribeTransitGatewayVpcAttachments
///   Exits   0 done, 1 failed, 2 usage, 3 input, 4 conflict, 5 retry
///
/// Examples:
///   sg-open -n --cluster prod-db --from-cluster prod-web --port 5432
///   oidc-assoc -n --cluster c2 | sg-open --from c1.json --port 8080 --port 9901
#[derive(Debug, clap::Parser)]
#[command(name = "sg-open", version, verbatim_doc_comment)]
struct SgOpen {
    /// Document of the cluster to let in
    #[arg(long, value_name = "FILE", conflicts_with = "from_cluster")]
    from: Option<PathBuf>,
    /// Name of the cluster to let in, of the same account and region
    #[arg(long, value_name = "NAME")]
    from_cluster: Option<String>,
    /// TCP port [default: 8080; with --delete, all that were opened]
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// Take over the rules that others made, where they open just such a port, so that --delete revokes them
    #[arg(long)]
    adopt: bool,
    #[command(flatten)]
    aws: AwsFlags,
}

impl Tool for SgOpen {
    type Section = Section;
    type Want = Want;

    fn key(&self) -> Vec<&str> {
        vec!["ingress"]
    }

    async fn want(&self, session: &mut Session, section: Option<Section>) -> Result<Want> {
        let section = section.unwrap_or_default();
        let cluster = session.own_cluster(&self.aws).await?;
        let wished = section.ports.into_iter().map(NonZeroU16::get);
        let mut ports = if self.ports.is_empty() { wished.collect() } else { self.ports.clone() };
        ports.sort_unstable();
        ports.dedup();
        let named = match (&self.from_cluster, section.from) {
            (Some(name), Some(from)) if *name == from.cluster => Some(from),
            (Some(name), _) => Some(Peer { cluster: name.clone(), arn: None, security_groups: Vec::new() }),
            (None, from) => from,
        };
        let from: Option<Cluster> = match (&self.from, named) {
            (None, None) if session.flags.delete => None,
            (None, None) => {
                let none = Error::input("no cluster to let in");
                return Err(none.hint("give --from, --from-cluster, or ingress.from.cluster in the document").into());
            }
            // To find its rules its ARN is enough: the cluster itself may be gone.
            (None, Some(peer)) if session.flags.delete => Some(peer.known(&cluster)?),
            (None, Some(peer)) => {
                peer.beside(&cluster)?;
                Some(session.look_up_cluster(&self.aws, &peer.cluster, Some(&cluster.region)).await?)
            }
            (Some(file), _) => {
                let peer = session.peer_cluster(&self.aws, &session.peer(file)?).await?;
                one_region(&cluster, &peer)?;
                Some(peer)
            }
        };
        if ports.is_empty() && !session.flags.delete {
            ports.push(DEFAULT_PORT);
        }
        let apart = match from.as_ref().filter(|_| !session.flags.delete) {
            Some(from) => session.apart(&session.aws(&self.aws).await?, &cluster, from).await?,
            None => None,
        };
        let apart = apart.map(plan::reachable).transpose()?;
        let known_rules = section.rules.into_iter().map(|rule| rule.id).filter(|id| id != UNKNOWN).collect();
        Ok(Want { to: cluster.into(), from: from.map(Side::from), ports, known_rules, adopt: self.adopt, apart })
    }

    async fn observe(&self, session: &Session, want: &Want) -> Result<Have> {
        let ec2 = Ec2::new(&session.aws(&self.aws).await?);
        let mut have = Have::default();
        if session.flags.delete {
            have.rules = ec2.our_rules(want).await?;
        } else {
            let from = want.from.as_ref().context("nobody to let in")?;
            (have.targets, have.sources) = futures::try_join!(ec2.groups(&want.to), ec2.groups(from))?;
            have.rules = ec2.rules(&have.targets, want).await?;
        }
        let found = |id: &String| have.rules.iter().any(|rule| rule.id == *id);
        let elsewhere: Vec<String> = want.known_rules.iter().filter(|id| !found(id)).cloned().collect();
        if !elsewhere.is_empty() {
            have.rules.extend(ec2.known_rules(&elsewhere, want).await?);
        }
        Ok(have)
    }

    async fn apply(&self, session: &Session, want: &Want, change: Change) -> Result<()> {
        let ec2 = Ec2::new(&session.aws(&self.aws).await?);
        match change {
            Change::Open(opening) => {
                let from = want.from.as_ref().context("nobody to let in")?;
                ec2.open(&opening, &want.to, from).await?;
                session.made(format!("rule for port {} from {} in {}", opening.port, opening.source, opening.group));
                Ok(())
            }
            Change::Adopt { rule, .. } => {
                let from = want.from.as_ref().context("nobody to let in")?;
                ec2.adopt(&rule, &want.to, from).await
            }
            Change::Revoke { rule, group } => ec2.revoke(&group, &rule).await,
        }
    }

    fn outcome(want: Want, have: Have) -> Section {
        Self::section(plan::admitted(&want, &have), want, have)
    }

    fn planned(want: Want, have: Have) -> Section {
        let known = |(opening, rule): (_, Option<String>)| (opening, rule.unwrap_or_else(|| UNKNOWN.to_owned()));
        let rules = plan::rules(&want, &have).map(known).collect();
        Self::section(rules, want, have)
    }
}

impl SgOpen {
    fn section(rules: Vec<(Opening, String)>, want: Want, have: Have) -> Section {
        let rule = |(Opening { port, group, source }, id)| Rule { id, port, security_group: group, source };
        Section {
            rules: rules.into_iter().map(rule).collect(),
            from: want.from.map(|from| Peer {
                cluster: from.name,
                arn: Some(from.arn).filter(|arn| !arn.is_empty()),
                security_groups: have.sources,
            }),
            ports: want.ports.into_iter().filter_map(NonZeroU16::new).collect(),
        }
    }
}

/// Refuses clusters whose security groups cannot know each other.
fn one_region(cluster: &Cluster, peer: &Cluster) -> Result<()> {
    if cluster.region == peer.region {
        return Ok(());
    }
    let apart = format!("cluster {} is in {}, cluster {} in {}", cluster.name, cluster.region, peer.name, peer.region);
    Err(Error::conflict(format!("{apart}: a rule cannot name a security group of another region")).into())
}

fn main() -> ExitCode {
    common::main::<SgOpen>()
}
