//! Translates manifests as the controller would, and prints what comes of them. It reads files only, and asks nobody.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{
    cluster::{Object, Objects, Pod, Snapshot, kinds::Selecting},
    envoy::{self, Resources, descriptors::Descriptors},
    model::{Account, ClusterId, Instances, Published, ServiceKey},
    translate::{self, AllPublished, Translated, Translation, membership},
};

/// Prints what the controller makes of manifests
///
/// Reads Kubernetes objects, as `kubectl get -o yaml` prints them or as they are applied: meshes and their members, the
/// namespaces, Services, and pods, which become endpoints. Prints the model, what is published for other clusters and what is wrong
/// with each object, as JSON. A namespace that is not among them counts as the only mesh's.
#[derive(Args, Debug)]
pub struct Translate {
    /// Manifest, `-` for standard input; repeatable
    #[arg(short, long = "filename", value_name = "FILE", default_value = "-")]
    filenames: Vec<PathBuf>,
    /// Manifest of another cluster that shares the Cloud Map namespaces; repeatable
    #[arg(long = "peer", value_name = "FILE")]
    peers: Vec<PathBuf>,
    /// Print Envoy's resources instead, of this workload (`mesh/MESH/virtualNode/NAME` or
    /// `mesh/MESH/virtualGateway/NAME`) or of all
    #[arg(long, value_name = "WORKLOAD", num_args = 0..=1, default_missing_value = "")]
    envoy: Option<String>,
    /// Account of the meshes
    #[arg(long, value_name = "ID", default_value = "123456789012")]
    account: String,
    /// Region of the meshes
    #[arg(long, value_name = "REGION", default_value = "us-west-2")]
    region: String,
    /// Partition of the meshes
    #[arg(long, value_name = "PARTITION", default_value = "aws")]
    partition: String,
    /// Service address of the cluster's API server; with one of IPv6, Envoys listen on IPv6 too
    #[arg(long, value_name = "ADDRESS", default_value = "10.100.0.1")]
    api_server: IpAddr,
}

impl Translate {
    /// Prints to `out`.
    ///
    /// # Errors
    /// A file cannot be read, or has no objects in it.
    pub fn run(self, mut out: impl Write) -> anyhow::Result<()> {
        let account = Account { partition: self.partition, region: self.region, account: self.account };
        let here = Cluster::read(&self.filenames)?;
        let peer = Cluster::read(&self.peers)?;
        let peers = translate::translate(&peer.snapshot, &account, &AllPublished::new());
        let published = published(&here, &peers, &account);
        let translation = translate::translate(&here.snapshot, &account, &published);
        let printed = match &self.envoy {
            None => translation.json(),
            Some(workload) => {
                let mut instances = here.instances("here", &translation, &account);
                for (key, of_key) in peer.instances("peer", &peers, &account) {
                    instances.entry(key).or_default().extend(of_key);
                }
                resources(&translation, workload, &instances, self.api_server)?
            }
        };
        serde_json::to_writer_pretty(&mut out, &printed)?;
        writeln!(out)?;
        Ok(())
    }
}

/// What the other cluster publishes, by all that this one looks up.
fn published(here: &Cluster, peers: &Translation, account: &Account) -> AllPublished {
    let mut published = AllPublished::new();
    // What is looked up depends on nothing that is published.
    let workloads = translate::translate(&here.snapshot, account, &published).workloads;
    for key in workloads.values().flat_map(|translated| &translated.published) {
        let same = |publication: &&translate::Publication| {
            publication.arn.to_string() == key.arn && publication.namespaces.contains(&key.namespace)
        };
        let found = peers.publications.iter().find(same);
        let found = found.map_or(Published::Nobody, |found| Published::Routing(found.routing.clone()));
        published.insert(key.clone(), found);
    }
    published
}

fn resources(
    translation: &Translation,
    only: &str,
    instances: &BTreeMap<ServiceKey, Instances>,
    api_server: IpAddr,
) -> anyhow::Result<Value> {
    let descriptors = Descriptors::load()?;
    let named = translation.workloads.iter().filter(|(name, _)| only.is_empty() || name.to_string() == only);
    let mut printed = Map::new();
    for (name, Translated { workload, .. }) in named {
        let configuration = envoy::encode(workload, Some(api_server));
        let none = Instances::new();
        let endpoints = configuration.upstreams.iter().map(|(cluster, upstream)| {
            let key = upstream.discovery.cloud_map().map(|discovery| &discovery.key);
            let instances = key.and_then(|key| instances.get(key)).unwrap_or(&none);
            (cluster.clone(), envoy::endpoint::encode(cluster, upstream, instances))
        });
        let list = |resources: &Resources| -> anyhow::Result<Value> {
            resources.values().map(|resource| descriptors.json(&resource.body)).collect()
        };
        let mut of_workload = json!({
            "clusters": list(&configuration.clusters)?,
            "endpoints": list(&endpoints.collect())?,
            "listeners": list(&configuration.listeners)?,
            "routes": list(&configuration.routes)?,
        });
        if !configuration.secrets.is_empty() {
            of_workload["secrets"] = list(&configuration.secrets)?;
        }
        printed.insert(name.to_string(), of_workload);
    }
    if printed.is_empty() && !only.is_empty() {
        let known: Vec<_> = translation.workloads.keys().map(ToString::to_string).collect();
        bail!("no workload is named {only:?}; there are: {}", known.join(", "));
    }
    Ok(printed.into())
}

/// The objects of one cluster.
#[derive(Default)]
struct Cluster {
    snapshot: Snapshot,
    pods: Vec<Pod>,
}

impl Cluster {
    fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut cluster = Self::default();
        let mut objects = Vec::new();
        for file in files {
            objects.extend(read(file).with_context(|| format!("reading {}", file.display()))?);
        }
        let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind).cloned();
        for namespace in of("Namespace") {
            let namespace: Namespace = serde_json::from_value(namespace)?;
            cluster.snapshot.namespaces.insert(namespace.name_any(), namespace.labels().clone());
        }
        cluster.pods = of("Pod")
            .map(|pod| serde_json::from_value(namespaced(pod)).context("Pod"))
            .collect::<anyhow::Result<_>>()?;
        let services = of("Service").map(|service| serde_json::from_value(namespaced(service)).map(Arc::new));
        cluster.snapshot.services = services.collect::<Result<_, _>>().context("Service")?;
        cluster.snapshot.meshes = parse(of("Mesh").map(identified))?;
        let member = |object: Value| cluster.member(namespaced(identified(object)));
        let members = |kind| of(kind).map(member).collect::<anyhow::Result<Vec<_>>>();
        let [nodes, routers, groups] = ["VirtualNode", "VirtualRouter", "BackendGroup"].map(members);
        let [services, gateways, routes] = ["VirtualService", "VirtualGateway", "GatewayRoute"].map(members);
        let (nodes, routers, groups) = (nodes?, routers?, groups?);
        let (services, gateways, routes) = (services?, gateways?, routes?);
        cluster.snapshot.virtual_nodes = parse(nodes.into_iter())?;
        cluster.snapshot.virtual_routers = parse(routers.into_iter())?;
        cluster.snapshot.backend_groups = parse(groups.into_iter())?;
        cluster.snapshot.virtual_services = parse(services.into_iter())?;
        cluster.snapshot.virtual_gateways = parse(gateways.into_iter())?;
        let routes: Vec<_> =
            routes.into_iter().map(|route| cluster.of_gateway(route)).collect::<anyhow::Result<_>>()?;
        cluster.snapshot.gateway_routes = parse(routes.into_iter())?;
        Ok(cluster)
    }

    /// A member of a mesh with its `meshRef`, which admission would fill in.
    fn member(&self, mut object: Value) -> anyhow::Result<Value> {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        if object["spec"]["meshRef"].is_null() {
            let known = self.snapshot.namespaces.contains_key(&namespace);
            let only: Vec<_> = self.snapshot.meshes.iter().collect();
            let mesh = match only[..] {
                [only] if !known => only.as_ref(),
                _ => membership::mesh_of_namespace(&self.snapshot, &namespace)?,
            };
            object["spec"]["meshRef"] = json!({"name": mesh.name_any(), "uid": mesh.uid().unwrap_or_default()});
        }
        Ok(object)
    }

    /// A GatewayRoute with its `virtualGatewayRef`, which admission would fill in.
    fn of_gateway(&self, mut route: Value) -> anyhow::Result<Value> {
        if route["spec"]["virtualGatewayRef"].is_null() {
            let text = |field: &str| route["metadata"][field].as_str().unwrap_or_default();
            let known = self.snapshot.namespaces.contains_key(text("namespace"));
            let labels = serde_json::from_value(route["metadata"]["labels"].clone()).unwrap_or_default();
            let only: Vec<_> = self.snapshot.virtual_gateways.iter().collect();
            let gateway = match only[..] {
                [only] if !known => only.as_ref(),
                _ => membership::gateway_of_route(&self.snapshot, text("namespace"), text("name"), &labels)?,
            };
            let (namespace, name, uid) = (gateway.namespace(), gateway.name_any(), gateway.uid().unwrap_or_default());
            route["spec"]["virtualGatewayRef"] = json!({"namespace": namespace, "name": name, "uid": uid});
        }
        Ok(route)
    }

    /// The instances that this cluster registers.
    fn instances(&self, uid: &str, translation: &Translation, account: &Account) -> BTreeMap<ServiceKey, Instances> {
        let cluster = ClusterId { uid: uid.to_owned(), arn: None };
        let mut instances: BTreeMap<ServiceKey, Instances> = BTreeMap::new();
        for pod in &self.pods {
            let memberships = translation.registrants.memberships(pod, &account.region, &cluster);
            for (key, id, attributes) in memberships.into_iter().filter_map(|membership| membership.instance) {
                instances.entry((*key).clone()).or_default().insert(id, attributes);
            }
        }
        instances
    }
}

fn parse<K>(objects: impl Iterator<Item = Value>) -> anyhow::Result<Objects<K>>
where
    K: mesh_api::MeshObject + Selecting + serde::Serialize + DeserializeOwned,
{
    let parse = |object: Value| {
        let parsed = Object::<K>::parse(&object).map(Arc::new);
        parsed.with_context(|| format!("{} {}", K::kind(&()), object["metadata"]["name"].as_str().unwrap_or_default()))
    };
    objects.map(parse).collect()
}

fn read(file: &Path) -> anyhow::Result<Vec<Value>> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(file)?;
    }
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let objects: Vec<_> = documents.into_iter().flat_map(items).collect();
    ensure!(objects.iter().all(|object| object["kind"].is_string()), "it has a document without kind");
    Ok(objects)
}

/// The objects of a List, or the one.
fn items(mut document: Value) -> Vec<Value> {
    if document.is_null() {
        return Vec::new();
    }
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
            items.into_iter().flat_map(self::items).collect()
        }
        _ => vec![document],
    }
}

/// As if the API server had stored it.
fn identified(mut object: Value) -> Value {
    if object["metadata"]["uid"].is_null() {
        object["metadata"]["uid"] = object["metadata"]["name"].clone();
    }
    object
}

/// In the default namespace if it names none.
fn namespaced(mut object: Value) -> Value {
    if object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!("default");
    }
    object
}
