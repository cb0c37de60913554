//! `mesh-map`: see [`MeshMap`].

mod dot;
mod graph;
mod layout;
mod mermaid;
mod names;
mod ranks;
mod svg;
mod text;
mod ways;

use anyhow::{Context as _, Result};
use common::aws::{AwsFlags, OtherClusters};
use common::cluster::Cluster;
use common::kube::{Access, KubeFlags};
use common::{Document, Error, Session, View, ViewFlags};
use futures::future::try_join_all;
use graph::Graph;
use mesh_objects::{ClusterObjects, Source};
use std::path::PathBuf;
use std::process::ExitCode;

/// Draws the mesh of one or several clusters, and what is broken in red.
///
/// A picture has a box for each cluster, with its VirtualGateways and their
/// GatewayRoutes, VirtualNodes with their ready pods, VirtualServices, and
/// VirtualRouters with the share of requests that each target gets. Edges go
/// from whoever calls to whoever is called, across clusters too: an ARN leads
/// to the given cluster that has it. In red are references and ARNs that lead
/// nowhere, conditions that are False, VirtualNodes and VirtualGateways
/// without ready pods, and routes whose weights are all 0; a line on stderr
/// names each.
///
/// Clusters are those of the documents on stdin, of --cluster and
/// --and-cluster, and of --context. With --file the picture is of manifests,
/// before anything is applied, and stdin is not read. How many pods are ready
/// is known from what the controller wrote into an object's status; of
/// manifests, how many their Deployments make. Nothing is changed.
///
///   Reads   cluster, of each document for itself
///   Calls   eks:DescribeCluster for what a document does not say of its
///           cluster; Kubernetes: list of App Mesh's kinds and of namespaces
///   Exits   0 drawn, 1 failed, 2 usage, 3 input, 5 retry
///
/// Examples:
///   cat build/shop/oidc.json build/stock/oidc.json | mesh-map > mesh.mmd
///   mesh-map -n --context shop --context stock -o svg > mesh.svg
///   mesh-map --file shop=web.yaml --file stock=api.yaml -o dot | dot -Tpdf
#[derive(Debug, clap::Parser)]
#[command(name = "mesh-map", version, verbatim_doc_comment)]
struct MeshMap {
    /// The picture's language
    #[arg(short, long, value_name = "FORMAT", default_value = "mermaid")]
    output: Format,
    /// Manifests in place of a live cluster, and of which one; - is stdin; repeatable
    #[arg(long = "file", value_name = "[CLUSTER=]FILE")]
    files: Vec<Source>,
    #[command(flatten)]
    others: OtherClusters,
    /// A cluster by its context of the kubeconfig; repeatable
    #[arg(long = "context", value_name = "NAME")]
    contexts: Vec<String>,
    /// The kubeconfig of these contexts, if not the usual one
    #[arg(long, value_name = "FILE", requires = "contexts")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    aws: AwsFlags,
    #[command(flatten)]
    flags: ViewFlags,
}

/// The language of a picture.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For Markdown
    Mermaid,
    /// For Graphviz
    Dot,
    /// For browsers and documents
    Svg,
}

impl View for MeshMap {
    fn flags(&self) -> &ViewFlags {
        &self.flags
    }

    fn reads_stdin(&self) -> bool {
        let read_as_manifests = self.files.iter().any(Source::is_stdin);
        read_as_manifests || (self.files.is_empty() && !self.flags.null_input)
    }

    async fn text(&self, session: &mut Session, stdin: &[u8]) -> Result<String> {
        let documents = if self.files.is_empty() && !self.flags.null_input {
            Document::parse_each("stdin", stdin)?
        } else {
            Vec::new()
        };
        // Its region counts where no flag names one.
        if let Some(first) = documents.first() {
            session.doc = first.clone();
        }
        let mut clusters = mesh_objects::read_manifests(&self.files, stdin)?;
        clusters.extend(self.live(session, &documents).await?);
        if clusters.is_empty() {
            let hint = "give --cluster, --context or --file, or documents that have cluster.name on stdin";
            return Err(Error::input("no cluster").hint(hint).into());
        }
        let graph = Graph::of(&clusters);
        graph.problems().for_each(|problem| session.stderr.line(problem));
        Ok(match self.output {
            Format::Mermaid => mermaid::render(&graph),
            Format::Dot => dot::render(&graph),
            Format::Svg => svg::render(&graph),
        })
    }
}

impl MeshMap {
    /// Reads all live clusters at once.
    async fn live(&self, session: &Session, documents: &[Document]) -> Result<Vec<ClusterObjects>> {
        let others = self.others.aws(&self.aws);
        let mut known: Vec<(String, Option<Cluster>, &AwsFlags)> = Vec::new();
        // A name alone is that of any cluster that is known by it; two that are known are one only if their ARN is.
        let mut name = |name: String, facts: Option<Cluster>, aws| {
            let differ =
                |other: &Option<Cluster>| other.as_ref().zip(facts.as_ref()).is_some_and(|(a, b)| a.arn != b.arn);
            if known.iter().all(|(other, known, _)| *other != name || differ(known)) {
                known.push((name, facts, aws));
            }
        };
        for (index, document) in documents.iter().enumerate() {
            let of = || format!("stdin: document {}", index + 1);
            let facts: Option<Cluster> = document.read(&["cluster"]).with_context(of)?;
            let Some(facts) = facts.filter(|facts| !facts.name.is_empty()) else {
                return Err(Error::input(format!("{} has no cluster.name", of())).into());
            };
            name(facts.name.clone(), Some(session.peer_cluster(&self.aws, document).await?), &self.aws);
        }
        self.aws.cluster.iter().for_each(|cluster| name(cluster.clone(), None, &self.aws));
        self.others.and_cluster.iter().for_each(|cluster| name(cluster.clone(), None, &others));
        // `aws eks update-kubeconfig` names a context after the cluster's ARN.
        let of_contexts = self.contexts.iter().map(|context| match context.rsplit_once(":cluster/") {
            Some((_, name)) => (name.to_owned(), Some(context.clone())),
            None => (context.clone(), None),
        });
        let of_eks = known.iter().map(|(name, facts, _)| (name.clone(), facts.as_ref().map(|facts| facts.arn.clone())));
        let names = names::told_apart(&of_eks.chain(of_contexts).collect::<Vec<_>>());
        let (eks_names, context_names) = names.split_at(known.len());
        let by_eks = known.into_iter().zip(eks_names).map(async |((name, facts, aws), shown)| {
            let facts = match facts {
                Some(facts) => facts,
                None => session.look_up_cluster(aws, &name, None).await?,
            };
            let access = session.eks_access(aws, facts).await.with_context(|| format!("look at cluster {shown}"))?;
            self::read(session, shown, &access).await
        });
        let by_context = self.contexts.iter().zip(context_names).map(async |(context, shown)| {
            let flags = KubeFlags { context: Some(context.clone()), kubeconfig: self.kubeconfig.clone() };
            self::read(session, shown, &Access::Kubeconfig(flags)).await
        });
        let (mut clusters, others) = futures::try_join!(try_join_all(by_eks), try_join_all(by_context))?;
        clusters.extend(others);
        Ok(clusters)
    }
}

async fn read(session: &Session, name: &str, access: &Access) -> Result<ClusterObjects> {
    let client = access.client(session).await.with_context(|| format!("look at cluster {name}"))?;
    mesh_objects::read(name, &client).await
}

fn main() -> ExitCode {
    common::view::<MeshMap>()
}
