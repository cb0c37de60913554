//! Translates manifests as the controller would, and prints what comes of them. It reads files only, and asks nobody.

use std::{
    io::{Read as _, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use clap::Args;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt as _;
use mesh_api::{Mesh, VirtualNode, VirtualRouter, VirtualService, selects};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{
    discovery::{Answer, Found, Key},
    identity::Identity,
    publish, registration,
    routes::Routes,
    store::Snapshot,
    xds::{
        config::{self, Resources},
        node_id, view,
    },
};

/// Prints what the controller makes of manifests
#[derive(Args, Debug)]
pub struct Translate {
    /// Manifest, `-` for standard input; repeatable
    #[arg(short, long = "filename", value_name = "FILE", default_value = "-")]
    filenames: Vec<PathBuf>,
    /// Manifest of another cluster that shares the Cloud Map namespaces; repeatable
    #[arg(long = "peer", value_name = "FILE")]
    peers: Vec<PathBuf>,
    /// Print Envoy's resources, by workload, instead of the model
    #[arg(long)]
    envoy: bool,
    /// Account of the meshes
    #[arg(long, value_name = "ID", default_value = "123456789012")]
    account: String,
    /// Region of the meshes
    #[arg(long, value_name = "REGION", default_value = "us-west-2")]
    region: String,
    /// Partition of the meshes
    #[arg(long, value_name = "PARTITION", default_value = "aws")]
    partition: String,
    /// Service address of the cluster's API server
    #[arg(long, value_name = "ADDRESS", default_value = "10.100.0.1")]
    api_server: IpAddr,
}

impl Translate {
    pub fn run(self) -> anyhow::Result<()> {
        let identity = Identity { partition: self.partition, region: self.region, account: self.account };
        let here = snapshot(&self.filenames)?;
        let peer = snapshot(&self.peers)?;
        let snapshot = here;
        let mut found = Found::new();
        for (cluster, snapshot) in [("here", &snapshot), ("peer", &peer)] {
            for (key, want) in registration::desired(snapshot, &identity.region, cluster) {
                let known = found.entry(Key::Instances(key)).or_insert_with(|| Answer::Instances(Arc::default()));
                if let Answer::Instances(instances) = known {
                    Arc::make_mut(instances).extend(want.instances);
                }
            }
        }
        for service in &peer.virtual_services {
            let (Some(arn), Some(routes)) = (publish::arn(service, &peer, &identity), Routes::of(service, &peer))
            else {
                continue;
            };
            for namespace in routes.namespaces() {
                found.insert(Key::Routes(namespace, arn.clone()), Answer::Routes(Some(Arc::new(routes.clone()))));
            }
        }
        for key in view::wanted(&snapshot, &found, &identity) {
            found.entry(key.clone()).or_insert_with(|| match key {
                Key::Instances(_) => Answer::Instances(Arc::default()),
                Key::Routes(..) => Answer::Routes(None),
            });
        }
        let mut printed = Map::new();
        for node in &snapshot.virtual_nodes {
            let Some(view) = view::view(node, &snapshot, &found, &identity) else { continue };
            let resources = config::resources(&view, &found, Some(self.api_server));
            printed.insert(node_id(&view.mesh, &view.node), json_of(&resources)?);
        }
        let mut out = std::io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &printed)?;
        writeln!(out)?;
        Ok(())
    }
}

fn snapshot(files: &[PathBuf]) -> anyhow::Result<Snapshot> {
    let mut documents = Vec::new();
    for file in files {
        documents.extend(read(file)?);
    }
    assemble(documents)
}

fn read(file: &Path) -> anyhow::Result<Vec<Value>> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    }
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("reading {}", file.display()))?;
    Ok(documents.into_iter().flat_map(items).collect())
}

fn items(document: Value) -> Vec<Value> {
    match document {
        Value::Null => Vec::new(),
        Value::Object(mut list)
            if list.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List")) =>
        {
            match list.remove("items") {
                Some(Value::Array(items)) => items.into_iter().flat_map(self::items).collect(),
                _ => Vec::new(),
            }
        }
        document => vec![document],
    }
}

fn assemble(documents: Vec<Value>) -> anyhow::Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    let of = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind).cloned();
    snapshot.meshes = of("Mesh").map(|mesh| typed::<Mesh>(mesh, |_| Ok(None))).collect::<anyhow::Result<_>>()?;
    snapshot.namespaces = of("Namespace")
        .map(|one| Ok(Arc::new(serde_json::from_value::<Namespace>(one)?)))
        .collect::<anyhow::Result<_>>()?;
    snapshot.pods =
        of("Pod").map(|one| Ok(Arc::new(serde_json::from_value::<Pod>(one)?))).collect::<anyhow::Result<_>>()?;
    snapshot = snapshot.sorted();
    let known = snapshot.clone();
    let mesh = move |namespace: &str| {
        let labels = known.namespace(namespace).map(|namespace| namespace.labels().clone());
        let selecting = known.meshes.iter().filter(|mesh| match &labels {
            Some(labels) => selects(mesh.spec.namespace_selector.as_ref(), labels),
            None => true,
        });
        let found: Vec<_> = selecting.collect();
        ensure!(found.len() == 1, "{} meshes for namespace {namespace}, expecting 1", found.len());
        Ok(Some(json!({"name": found[0].name_any(), "uid": found[0].uid().unwrap_or_default()})))
    };
    snapshot.virtual_nodes =
        of("VirtualNode").map(|one| typed::<VirtualNode>(one, &mesh)).collect::<anyhow::Result<_>>()?;
    snapshot.virtual_routers =
        of("VirtualRouter").map(|one| typed::<VirtualRouter>(one, &mesh)).collect::<anyhow::Result<_>>()?;
    snapshot.virtual_services =
        of("VirtualService").map(|one| typed::<VirtualService>(one, &mesh)).collect::<anyhow::Result<_>>()?;
    Ok(snapshot.sorted())
}

fn typed<K: DeserializeOwned>(
    mut object: Value,
    mesh: impl Fn(&str) -> anyhow::Result<Option<Value>>,
) -> anyhow::Result<Arc<K>> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if object["metadata"]["uid"].is_null() {
        object["metadata"]["uid"] = json!(format!("uid-of-{name}"));
    }
    if object["kind"] != "Mesh" && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!("default");
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    if object["spec"]["meshRef"].is_null()
        && let Some(mesh) = mesh(&namespace)?
    {
        object["spec"]["meshRef"] = mesh;
    }
    Ok(Arc::new(serde_json::from_value(object).with_context(|| name)?))
}

fn json_of(resources: &Resources) -> anyhow::Result<Value> {
    let pool = DescriptorPool::decode(include_bytes!("envoy.binpb").as_slice())?;
    let mut printed = Map::new();
    for (kind, resources) in [
        ("clusters", &resources.clusters),
        ("endpoints", &resources.endpoints),
        ("listeners", &resources.listeners),
        ("routes", &resources.routes),
    ] {
        let mut list = Vec::new();
        for resource in resources.values() {
            let name = resource.type_url.rsplit('/').next().unwrap_or_default();
            let descriptor = pool.get_message_by_name(name).with_context(|| format!("no descriptor of {name}"))?;
            list.push(serde_json::to_value(DynamicMessage::decode(descriptor, &*resource.value)?)?);
        }
        printed.insert(kind.to_owned(), list.into());
    }
    Ok(printed.into())
}
