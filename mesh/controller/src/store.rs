//! What the cluster says: a local copy of every object the mesh is made of, kept current by watches.

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug, sync::Arc};

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, ObjectMeta},
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use mesh_api::{Mesh, MeshObject, VirtualNode, VirtualRouter, VirtualService};
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
    /// The objects that do not parse. Nothing else of them is known, and the others do without them.
    pub unreadable: Vec<Arc<Unreadable>>,
}

/// An object that does not parse as its kind: stored under an older schema, or past the webhook.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its kind.
    pub resource: ApiResource,
    /// Type of the condition that says whether objects of the kind are in force.
    pub condition_type: &'static str,
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its status as it stands.
    pub status: Value,
    /// Where it does not parse and why, such as `spec.listeners[0].portMapping.port: invalid value: …`.
    pub error: String,
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
        let mut snapshot =
            Snapshot { pods: self.pods.state(), namespaces: self.namespaces.state(), ..Snapshot::default() };
        snapshot.meshes = snapshot.read(&self.meshes);
        snapshot.virtual_nodes = snapshot.read(&self.virtual_nodes);
        snapshot.virtual_routers = snapshot.read(&self.virtual_routers);
        snapshot.virtual_services = snapshot.read(&self.virtual_services);
        snapshot.sorted()
    }

    /// A number that grows with every change of any object. A receiver sees the latest only, so a burst costs one look.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }
}

impl Snapshot {
    /// The objects of one kind that parse. What they have beyond this controller, and the others, go into the snapshot.
    fn read<K>(&mut self, store: &reflector::Store<Read<K>>) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        let mut objects = Vec::new();
        for read in store.state() {
            match read.as_ref() {
                Read::Readable { object, unserved } => {
                    if !unserved.is_empty() {
                        self.unserved.extend(object.uid().map(|uid| (uid, unserved.clone())));
                    }
                    objects.push(object.clone());
                }
                Read::Unreadable(unreadable) => self.unreadable.push(unreadable.clone()),
            }
        }
        objects
    }

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

/// An object of the cluster, parsed if it can be: one that cannot must not keep the others from being listed. kube's
/// DeserializeGuard is for that, but it goes through a representation that does not know serde_json's numbers of arbitrary
/// precision.
#[derive(Clone, Debug)]
pub enum Read<K> {
    /// As this controller understands it.
    Readable {
        /// The object.
        object: Arc<K>,
        /// The fields that it does not understand.
        unserved: Vec<String>,
    },
    /// Only its metadata.
    Unreadable(Arc<Unreadable>),
}

impl<K> Read<K> {
    /// The object, if it parses.
    pub fn object(self) -> Option<Arc<K>> {
        match self {
            Self::Readable { object, .. } => Some(object),
            Self::Unreadable(_) => None,
        }
    }
}

impl<'de, K: MeshObject + Serialize + DeserializeOwned> Deserialize<'de> for Read<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Value::deserialize(deserializer)?;
        match serde_path_to_error::deserialize::<_, K>(&written) {
            Ok(object) => {
                let understood = serde_json::to_value(&object).map_err(D::Error::custom)?;
                let unserved = unserved::fields("spec", &written["spec"], &understood["spec"]);
                Ok(Self::Readable { object: Arc::new(object), unserved })
            }
            Err(error) => Ok(Self::Unreadable(Arc::new(Unreadable {
                resource: ApiResource::erase::<K>(&()),
                condition_type: K::ACTIVE,
                metadata: ObjectMeta::deserialize(&written["metadata"]).map_err(D::Error::custom)?,
                status: written["status"].clone(),
                error: error.to_string(),
            }))),
        }
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
        match self {
            Self::Readable { object, .. } => object.meta(),
            Self::Unreadable(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Readable { object, .. } => Arc::make_mut(object).meta_mut(),
            Self::Unreadable(unreadable) => &mut Arc::make_mut(unreadable).metadata,
        }
    }
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

    fn snapshot(specs: Value) -> Snapshot {
        let (reader, mut writer) = reflector::store::<Read<VirtualNode>>();
        for (name, spec) in specs.as_object().unwrap() {
            let node = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "VirtualNode", "spec": spec,
                "metadata": {"name": name, "namespace": "ns", "uid": format!("uid of {name}")}});
            writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(node).unwrap()));
        }
        let mut snapshot = Snapshot::default();
        snapshot.virtual_nodes = snapshot.read(&reader);
        snapshot
    }

    #[test]
    fn what_is_not_understood_of_an_object_is_kept_beside_it() {
        let snapshot = snapshot(json!({
            "a": {"listeners": [{"portMapping": {"port": 1, "protocol": "http"}, "tls": {"mode": "STRICT"}}]}
        }));
        assert_eq!(snapshot.virtual_nodes[0].name_any(), "a");
        let expected = vec!["spec.listeners[0].tls: not served by this controller".to_owned()];
        assert_eq!(snapshot.unserved, BTreeMap::from([("uid of a".to_owned(), expected)]));
    }

    #[test]
    fn an_object_that_does_not_parse_keeps_no_other_from_being_read() {
        let snapshot = snapshot(json!({
            "bad": {"listeners": [{"portMapping": {"port": "http", "protocol": "http"}}]},
            "good": {"listeners": [{"portMapping": {"port": 1, "protocol": "http"}}]}
        }));
        let names: Vec<_> = snapshot.virtual_nodes.iter().map(|node| node.name_any()).collect();
        assert_eq!(names, ["good"]);
        let [bad] = &snapshot.unreadable[..] else { panic!("{:?}", snapshot.unreadable) };
        assert_eq!((bad.metadata.name.as_deref(), bad.condition_type), (Some("bad"), "VirtualNodeActive"));
        let expected = "spec.listeners[0].portMapping.port: invalid type: string \"http\", expected u16";
        assert_eq!(bad.error, expected);
    }
}
