//! What the cluster says: a local copy of every object the mesh is made of, kept current by watches.

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug, sync::Arc};

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ObjectMeta,
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use mesh_api::{Mesh, VirtualNode, VirtualRouter, VirtualService};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _},
};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{admission::membership, unserved};

/// The local copy. Cloning is cheap, every clone sees the same objects.
#[derive(Clone)]
pub struct Store {
    meshes: reflector::Store<Read<Mesh>>,
    virtual_nodes: reflector::Store<Read<VirtualNode>>,
    virtual_routers: reflector::Store<Read<VirtualRouter>>,
    virtual_services: reflector::Store<Read<VirtualService>>,
    pods: reflector::Store<Pod>,
    namespaces: reflector::Store<Namespace>,
    generation: watch::Receiver<u64>,
}

/// All objects at one moment, each kind sorted by namespace and name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub meshes: Vec<Arc<Mesh>>,
    pub virtual_nodes: Vec<Arc<VirtualNode>>,
    pub virtual_routers: Vec<Arc<VirtualRouter>>,
    pub virtual_services: Vec<Arc<VirtualService>>,
    pub pods: Vec<Arc<Pod>>,
    pub namespaces: Vec<Arc<Namespace>>,
    /// The fields that this controller does not serve, of the objects that have some, by uid. Admission refuses them, but
    /// not of what was there before it.
    pub unserved: BTreeMap<String, Vec<String>>,
}

impl Store {
    /// Begins to watch and returns when everything that exists has been read. The watches end with `stop`.
    pub async fn start(client: &Client, stop: &CancellationToken) -> anyhow::Result<Self> {
        let (sender, generation) = watch::channel(0);
        let sender = Arc::new(sender);
        let store = Self {
            meshes: watch_kind(client, &sender, stop),
            virtual_nodes: watch_kind(client, &sender, stop),
            virtual_routers: watch_kind(client, &sender, stop),
            virtual_services: watch_kind(client, &sender, stop),
            pods: watch_kind(client, &sender, stop),
            namespaces: watch_kind(client, &sender, stop),
            generation,
        };
        store.meshes.wait_until_ready().await.context("listing meshes")?;
        store.virtual_nodes.wait_until_ready().await.context("listing virtualnodes")?;
        store.virtual_routers.wait_until_ready().await.context("listing virtualrouters")?;
        store.virtual_services.wait_until_ready().await.context("listing virtualservices")?;
        store.pods.wait_until_ready().await.context("listing pods")?;
        store.namespaces.wait_until_ready().await.context("listing namespaces")?;
        Ok(store)
    }

    /// All objects now.
    pub fn snapshot(&self) -> Snapshot {
        let mut unserved = BTreeMap::new();
        Snapshot {
            meshes: read(&self.meshes, &mut unserved),
            virtual_nodes: read(&self.virtual_nodes, &mut unserved),
            virtual_routers: read(&self.virtual_routers, &mut unserved),
            virtual_services: read(&self.virtual_services, &mut unserved),
            pods: self.pods.state(),
            namespaces: self.namespaces.state(),
            unserved,
        }
        .sorted()
    }

    /// A number that grows with every change of any object. A receiver sees the latest only, so a burst costs one look.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }
}

impl Snapshot {
    /// The same objects in the order that the lookups rely on.
    pub fn sorted(mut self) -> Self {
        sort(&mut self.meshes);
        sort(&mut self.virtual_nodes);
        sort(&mut self.virtual_routers);
        sort(&mut self.virtual_services);
        sort(&mut self.pods);
        sort(&mut self.namespaces);
        self
    }

    /// The Mesh of that name in Kubernetes.
    pub fn mesh(&self, name: &str) -> Option<&Arc<Mesh>> {
        find(&self.meshes, "", name)
    }

    /// The VirtualNode of that name in Kubernetes.
    pub fn virtual_node(&self, namespace: &str, name: &str) -> Option<&Arc<VirtualNode>> {
        find(&self.virtual_nodes, namespace, name)
    }

    /// The VirtualRouter of that name in Kubernetes.
    pub fn virtual_router(&self, namespace: &str, name: &str) -> Option<&Arc<VirtualRouter>> {
        find(&self.virtual_routers, namespace, name)
    }

    /// The VirtualService of that name in Kubernetes.
    pub fn virtual_service(&self, namespace: &str, name: &str) -> Option<&Arc<VirtualService>> {
        find(&self.virtual_services, namespace, name)
    }

    /// The Pod of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        find(&self.pods, namespace, name)
    }

    /// The VirtualNode that a pod is.
    pub fn virtual_node_of(&self, pod: &Pod) -> anyhow::Result<&VirtualNode> {
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let found = membership::virtual_node_of(&self.virtual_nodes, &namespace, &name, pod.labels())?;
        found.with_context(|| format!("pod {name} is of no VirtualNode"))
    }

    /// The Namespace of that name.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        find(&self.namespaces, "", name)
    }
}

/// An object as this controller understands it, and what it does not.
#[derive(Clone, Debug)]
struct Read<K> {
    object: Arc<K>,
    unserved: Vec<String>,
}

impl<'de, K: Serialize + DeserializeOwned> Deserialize<'de> for Read<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Value::deserialize(deserializer)?;
        let object = K::deserialize(&written).map_err(D::Error::custom)?;
        let understood = serde_json::to_value(&object).map_err(D::Error::custom)?;
        let unserved = unserved::fields("spec", &written["spec"], &understood["spec"]);
        Ok(Self { object: Arc::new(object), unserved })
    }
}

impl<K: Resource<DynamicType = ()> + Clone> Resource for Read<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        Arc::make_mut(&mut self.object).meta_mut()
    }
}

/// The objects, and into `unserved` what is not understood of them.
fn read<K>(store: &reflector::Store<Read<K>>, unserved: &mut BTreeMap<String, Vec<String>>) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let read = store.state();
    let incomplete = read.iter().filter(|read| !read.unserved.is_empty());
    unserved.extend(incomplete.filter_map(|read| Some((read.uid()?, read.unserved.clone()))));
    read.iter().map(|read| read.object.clone()).collect()
}

fn key(object: &impl Resource) -> (&str, &str) {
    let meta = object.meta();
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn sort(objects: &mut [Arc<impl Resource>]) {
    objects.sort_by(|a, b| key(a.as_ref()).cmp(&key(b.as_ref())));
}

fn find<'a, K: Resource>(objects: &'a [Arc<K>], namespace: &str, name: &str) -> Option<&'a Arc<K>> {
    let index = objects.binary_search_by(|object| key(object.as_ref()).cmp(&(namespace, name))).ok()?;
    objects.get(index)
}

/// Keeps a copy of all objects of one kind and counts the generation up with each change.
fn watch_kind<K>(client: &Client, generation: &Arc<watch::Sender<u64>>, stop: &CancellationToken) -> reflector::Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let changes = watcher(Api::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(|object: &mut K| object.managed_fields_mut().clear())
        .reflect(writer);
    let generation = generation.clone();
    let stop = stop.clone();
    tokio::spawn(async move {
        let counted = changes.for_each(|event| {
            match event {
                // The copy holds what was listed only once the list is complete.
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                Ok(_) => generation.send_modify(|generation| *generation += 1),
                // 410, Gone: the API server no longer has what was missed, so everything is listed anew.
                Err(watcher::Error::WatchError(status)) if status.code == 410 => {
                    tracing::debug!(kind = %K::kind(&()), "watch begins anew");
                }
                Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "watch failed, trying again"),
            }
            std::future::ready(())
        });
        tokio::select! {
            () = counted => {}
            () = stop.cancelled() => {}
        }
    });
    reader
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_understood_of_an_object_is_kept_beside_it() {
        let node = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "VirtualNode",
            "metadata": {"name": "a", "namespace": "ns", "uid": "1"},
            "spec": {"listeners": [{"portMapping": {"port": 1, "protocol": "http"}, "tls": {"mode": "STRICT"}}]}});
        let (reader, mut writer) = reflector::store::<Read<VirtualNode>>();
        writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(node).unwrap()));
        let mut unserved = BTreeMap::new();
        assert_eq!(read(&reader, &mut unserved)[0].name_any(), "a");
        let expected = vec!["spec.listeners[0].tls: not served by this controller".to_owned()];
        assert_eq!(unserved, BTreeMap::from([("1".to_owned(), expected)]));
    }
}
