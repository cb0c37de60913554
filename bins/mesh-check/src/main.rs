//! `mesh-check`: see [`MeshCheck`].

mod finding;
mod kube;
mod machine;
mod plan;
mod preflight;
mod world;

use anyhow::Result;
use common::app_mesh::NAMESPACE;
use common::aws::AwsFlags;
use common::cluster::Cluster;
use common::namespace::NamespaceType;
use common::{Error, Session, Tool};
use finding::Finding;
use futures::future::join_all;
use plan::{Change, Want};
use pod_role::Agent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;
use world::{ClusterView, Fault, Lookup, World};

/// How long an API server may take to answer: one that cannot be reached does not refuse, it is silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// The namespaces of the flow, and the field managers that make them.
const NAMESPACES: [(&str, &[&str]); 2] = [(NAMESPACE, &["appmesh-install", "helm"]), ("k8multi", &["manifest-apply"])];

/// Reports all that is wrong with two clusters and what joins them, at once, and
/// changes nothing.
///
/// It does not stop at the first problem. Every check has a code that never
/// changes its meaning; a line says which object it is about, what was found and
/// what to do. The checks XM01xx are about what must be so before anything is
/// made: the clusters, the way to them, the caller's rights, versions, Helm, and
/// the programs of the images.
///
///   Reads   cluster
///   Owns    check {clusters, helm, identity, namespaceType, passed, programs,
///           warnings}
///   Calls   eks:DescribeCluster, eks:DescribeAddon; Kubernetes: list of nodes,
///           get of namespaces, and whether the caller may do the rest; helm
///           version
///   Exits   0 nothing is wrong, 1 something is, 2 usage, 3 input, 5 retry
///
/// Examples:
///   mesh-check -n --cluster shop --and-cluster stock
///   mesh-check -n --cluster shop --helm --program target/release/feapp |
///     jq .check.warnings
#[derive(Debug, clap::Parser)]
#[command(name = "mesh-check", version, verbatim_doc_comment)]
struct MeshCheck {
    /// The cluster to join with; repeatable
    #[arg(long, value_name = "NAME")]
    and_cluster: Vec<String>,
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

/// How pods get their role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
enum Identity {
    /// By the cluster's OpenID Connect issuer.
    Irsa,
    /// By EKS Pod Identity.
    PodIdentity,
}

/// The `check` key.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Check")]
struct Section {
    /// The clusters to join with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    clusters: Vec<String>,
    /// Whether Helm is checked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    helm: bool,
    /// How pods get their role; `irsa` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
    /// Where the names they share are found; `private-dns` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_type: Option<NamespaceType>,
    /// Codes of the checks that found nothing; found, never wished for.
    passed: BTreeSet<String>,
    /// Programs that the nodes must be able to run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    programs: Vec<String>,
    /// What may be wrong; found, never wished for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Finding>,
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
        if cluster.is_empty() && !session.flags.delete {
            return Err(Error::input("no cluster").hint("give --cluster, or cluster.name in the document").into());
        }
        // Left for the next tool. What is wrong with it, the checks say.
        let facts =
            if session.flags.delete { None } else { session.look_up_cluster(&self.aws, &cluster, None).await.ok() };
        if let Some(facts) = &facts {
            session.put_cluster(facts)?;
        }
        let or = |flags: &[String], document| if flags.is_empty() { document } else { flags.to_vec() };
        Ok(Want {
            cluster,
            facts,
            clusters: or(&self.and_cluster, section.clusters),
            helm: self.helm || section.helm,
            identity: self.identity.or(section.identity),
            namespace_type: self.namespace_type.or(section.namespace_type),
            programs: or(&self.programs, section.programs),
        })
    }

    async fn observe(&self, session: &Session, want: &Want) -> Result<Vec<Finding>> {
        if session.flags.delete {
            return Ok(Vec::new());
        }
        // What all clusters need.
        session.aws(&self.aws).await?;
        let names = std::iter::once(&want.cluster).chain(&want.clusters);
        let agents = async {
            let by_agent = want.identity == Some(Identity::PodIdentity);
            join_all(names.filter(|_| by_agent).map(|name| self.agent(session, name))).await
        };
        let others = want.clusters.iter().map(|name| (name, None));
        let clusters = std::iter::once((&want.cluster, want.facts.clone())).chain(others);
        let views = join_all(clusters.map(|(name, facts)| self.view(session, name, facts)));
        let helm = async { if want.helm { Some(machine::helm().await) } else { None } };
        let (mut clusters, helm, agents) = tokio::join!(views, helm, agents);
        clusters.iter_mut().zip(agents).for_each(|(view, agent)| view.agent = Some(agent));
        let programs = want.programs.iter().map(|path| (path.clone(), machine::architecture(path))).collect();
        let private_dns = want.namespace_type != Some(NamespaceType::Http);
        let findings = preflight::judge(&World { clusters, helm, private_dns, programs });
        findings.iter().for_each(|finding| session.stderr.line(finding));
        Ok(findings)
    }

    async fn apply(&self, _session: &Session, _want: &Want, change: Change) -> Result<()> {
        match change.0 {}
    }

    fn outcome(want: Want, have: Vec<Finding>) -> Section {
        let Want { clusters, helm, identity, namespace_type, programs, .. } = want;
        let passed = preflight::passed(&have);
        Section { clusters, helm, identity, namespace_type, passed, programs, warnings: have }
    }
}

impl MeshCheck {
    /// A cluster, as far as it can be seen.
    async fn view(&self, session: &Session, name: &str, facts: Option<Cluster>) -> ClusterView {
        let view = |lookup| ClusterView { name: name.to_owned(), lookup, agent: None };
        let found = match facts {
            Some(facts) => Ok(facts),
            None => session.look_up_cluster(&self.aws, name, None).await,
        };
        let cluster = match found {
            Ok(cluster) => cluster,
            Err(error) => {
                return view(match session.has_cluster(&self.aws, name).await {
                    Ok(true) => Lookup::Inactive(Fault::of(&error)),
                    Ok(false) => Lookup::Absent(Fault::of(&error)),
                    Err(error) => Lookup::Refused(Fault::of(&error)),
                });
            }
        };
        let looked = tokio::time::timeout(PATIENCE, self.look(session, cluster.clone())).await;
        let late = || anyhow::anyhow!("its API server {} does not answer", cluster.endpoint);
        let looked = looked.unwrap_or_else(|_| Err(late())).map_err(|error| Fault::of(&error));
        view(Lookup::Active(Box::new(cluster), looked))
    }

    async fn agent(&self, session: &Session, cluster: &str) -> Result<Agent, Fault> {
        let agent = async { pod_role::agent(session.aws(&self.aws).await?, cluster).await };
        agent.await.map_err(|error| Fault::of(&error))
    }

    async fn look(&self, session: &Session, cluster: Cluster) -> Result<world::Kubernetes> {
        let client = session.eks_access(&self.aws, cluster).await?.client(session).await?;
        kube::look(&client, &NAMESPACES).await
    }
}

fn main() -> ExitCode {
    common::main::<MeshCheck>()
}
