//! `mesh-check`: see [`MeshCheck`].

mod aws;
mod checks;
mod controller;
mod diagnosis;
mod finding;
mod identity;
mod kube;
mod live;
mod machine;
mod network;
mod objects;
mod plan;
mod preflight;
mod scene;
mod section;
mod sidecars;
mod state;
#[cfg(test)]
mod testing;
mod view;
mod world;

use anyhow::Result;
use checks::Report;
use common::aws::{AwsFlags, OtherClusters};
use common::cluster::Cluster;
use common::namespace::NamespaceType;
use common::{Error, Session, Tool};
use futures::future::join_all;
use plan::{Change, Want};
use section::{Identity, Section};
use std::process::ExitCode;
use view::{agent, view};
use world::World;

/// Reports all that is wrong with two clusters and their mesh, at once, and
/// changes nothing.
///
/// It does not stop at the first problem. Every check has a code that never
/// changes its meaning; a line says which object it is about, what was found and
/// what to do. docs/troubleshooting.md has all codes. Their groups:
///
///   XM01  what must be so before anything is made: the clusters, the way to
///         them, the caller's rights, versions, Helm, the programs of the images
///   XM02  identity: how the controllers' pods get their role
///   XM03  network: rules of security groups, VPCs, endpoints
///   XM04  objects: what they name, routes, selectors, conditions
///   XM05  state: what the clusters share in Cloud Map
///   XM06  sidecars: the Envoys of the mesh's pods
///   XM07  controllers: replicas, certificates, webhooks, versions
///
/// Where there is no mesh, only XM01 is checked. What could not be looked at, for
/// want of a permission, is said in a line for each cluster, and is no failure.
/// With --file no cluster is asked: XM04 as far as manifests tell, before
/// anything is applied.
///
///   Reads   cluster
///   Owns    check {clusters, files, helm, identity, namespaceType, only, passed,
///           programs, unseen, warnings}
///   Calls   eks:DescribeCluster eks:DescribeAddon; of a mesh that stands:
///           eks:ListPodIdentityAssociations eks:DescribePodIdentityAssociation
///           iam:GetOpenIDConnectProvider iam:GetRole
///           iam:ListAttachedRolePolicies iam:ListRolePolicies iam:GetRolePolicy
///           ec2:DescribeInstances ec2:DescribeSecurityGroupRules
///           ec2:DescribeVpcPeeringConnections
///           ec2:DescribeTransitGatewayVpcAttachments
///           servicediscovery:ListNamespaces
///           servicediscovery:ListTagsForResource servicediscovery:ListServices
///           servicediscovery:ListInstances route53:GetHostedZone; Kubernetes:
///           get and list of what is checked, get of pods/proxy for metrics, and
///           whether the caller may do what the other tools do; helm version
///   Exits   0 nothing is wrong, 1 something is, 2 usage, 3 input, 5 retry
///
/// Examples:
///   mesh-check -n --cluster shop --and-cluster stock --only XM04 --only XM05
///   mesh-check -n --file web.yaml
///   mesh-check -n --cluster shop --helm --program target/release/feapp |
///     jq .check.warnings
#[derive(Debug, clap::Parser)]
#[command(name = "mesh-check", version, verbatim_doc_comment)]
struct MeshCheck {
    #[command(flatten)]
    others: OtherClusters,
    /// Manifests to check in place of clusters, and of which one they are; a folder of them, too; repeatable
    #[arg(long = "file", value_name = "[CLUSTER=]FILE")]
    files: Vec<String>,
    /// Beginning of the codes to check, such as XM01 or XM0402; repeatable [default: all]
    #[arg(long, value_name = "CODE")]
    only: Vec<String>,
    /// Where the names they share are found: in the DNS of one VPC, or in Cloud Map only [default: private-dns]
    #[arg(long, value_name = "TYPE")]
    namespace_type: Option<NamespaceType>,
    /// How pods get their role, which EKS Pod Identity needs an add-on for [default: irsa]
    #[arg(long, value_name = "HOW")]
    identity: Option<Identity>,
    /// Check Helm, too, which appmesh-install needs
    #[arg(long)]
    helm: bool,
    /// Program of an image, which the nodes must be able to run; repeatable
    #[arg(long = "program", value_name = "FILE")]
    programs: Vec<String>,
    #[command(flatten)]
    aws: AwsFlags,
}

impl Tool for MeshCheck {
    type Section = Section;
    type Want = Want;

    fn key(&self) -> Vec<&str> {
        vec!["check"]
    }

    async fn want(&self, session: &mut Session, section: Option<Section>) -> Result<Want> {
        let section = section.unwrap_or_default();
        session.doc.object(&["cluster"])?;
        let known: Option<Cluster> = session.doc.read(&["cluster"])?;
        let cluster = self.aws.cluster.clone().or(known.map(|known| known.name)).unwrap_or_default();
        let or = |flags: &[String], document| if flags.is_empty() { document } else { flags.to_vec() };
        let (files, only) = (or(&self.files, section.files), or(&self.only, section.only));
        if let Some(none) = only.iter().find(|prefix| checks::chosen(&[(*prefix).clone()]).next().is_none()) {
            return Err(Error::input(format!("no check has a code that begins with {none}")).into());
        }
        let asks = files.is_empty() && !session.flags.delete;
        if cluster.is_empty() && asks {
            let hint = "give --cluster, cluster.name in the document, or manifests with --file";
            return Err(Error::input("no cluster").hint(hint).into());
        }
        // Left for the next tool. What is wrong with it, the checks say.
        let facts = if asks { session.look_up_cluster(&self.aws, &cluster, None).await.ok() } else { None };
        if let Some(facts) = &facts {
            session.put_cluster(facts)?;
        }
        Ok(Want {
            cluster,
            files,
            only,
            facts,
            clusters: or(&self.others.and_cluster, section.clusters),
            helm: self.helm || section.helm,
            identity: self.identity.or(section.identity),
            namespace_type: self.namespace_type.or(section.namespace_type),
            programs: or(&self.programs, section.programs),
        })
    }

    async fn observe(&self, session: &Session, want: &Want) -> Result<Report> {
        if session.flags.delete {
            return Ok(Report::default());
        }
        let mut report = Report::default();
        if want.files.is_empty() {
            self.ask(session, want, &mut report).await?;
        } else {
            diagnosis::judge(&diagnosis::of_manifests(diagnosis::read(&want.files)?), &want.only, &mut report);
        }
        report.findings.sort();
        report.findings.dedup();
        report.findings.iter().for_each(|finding| session.stderr.line(finding));
        report.unseen.iter().for_each(|unseen| session.stderr.line(unseen));
        report.shown = session.stderr.is_terminal() && !session.flags.quiet && !session.flags.json;
        Ok(report)
    }

    async fn apply(&self, _session: &Session, _want: &Want, change: Change) -> Result<()> {
        match change.0 {}
    }

    fn outcome(want: Want, have: Report) -> Section {
        let Want { clusters, files, helm, identity, namespace_type, only, programs, .. } = want;
        let (passed, Report { findings, unseen, .. }) = (have.passed(), have);
        let warnings = findings;
        Section { clusters, files, helm, identity, namespace_type, only, passed, programs, unseen, warnings }
    }
}

impl MeshCheck {
    /// Looks at the clusters, and judges what is seen.
    async fn ask(&self, session: &Session, want: &Want, report: &mut Report) -> Result<()> {
        let others = self.others.aws(&self.aws);
        // What all clusters need.
        session.aws(&self.aws).await?;
        session.aws(&others).await?;
        let by = |name: &str| if name == want.cluster { &self.aws } else { &others };
        let names = std::iter::once(&want.cluster).chain(&want.clusters);
        let agents = async {
            let by_agent = want.identity == Some(Identity::PodIdentity);
            join_all(names.clone().filter(|_| by_agent).map(|name| agent(session, by(name), name))).await
        };
        let views = join_all(names.clone().map(|name| {
            let facts = want.facts.clone().filter(|_| *name == want.cluster);
            view(session, by(name), want, name, facts)
        }));
        let helm = async { if want.helm { Some(machine::helm().await) } else { None } };
        let (mut clusters, helm, agents) = tokio::join!(views, helm, agents);
        clusters.iter_mut().zip(agents).for_each(|(view, agent)| view.agent = Some(agent));
        let programs = want.programs.iter().map(|path| (path.clone(), machine::architecture(path))).collect();
        let private_dns = want.namespace_type != Some(NamespaceType::Http);
        let world = World { clusters, helm, private_dns, programs };
        diagnosis::judge_world(&world, &want.only, report);
        if want.of_a_mesh() {
            let sides =
                world.clusters.into_iter().filter_map(|view| diagnosis::standing(view, &want.only, report)).collect();
            let scene = diagnosis::of_clusters(session, by, &want.only, sides).await?;
            diagnosis::judge(&scene, &want.only, report);
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    common::main::<MeshCheck>()
}
