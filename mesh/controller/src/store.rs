//! What the cluster says: a local copy of every object the mesh is made of, kept current by watches.

use std::{fmt::Debug, sync::Arc};

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use mesh_api::{Mesh, VirtualNode, VirtualRouter, VirtualService};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admission::membership;

/// The local copy. Cloning is cheap, every clone sees the same objects.
#[derive(Clone)]
pub struct Store {
    meshes: reflector::Store<Mesh>,
    virtual_nodes: reflector::Store<VirtualNode>,
    virtual_routers: reflector::Store<VirtualRouter>,
    virtual_services: reflector::Store<VirtualService>,
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
        Snapshot {
            meshes: self.meshes.state(),
            virtual_nodes: self.virtual_nodes.state(),
            virtual_routers: self.virtual_routers.state(),
            virtual_services: self.virtual_services.state(),
            pods: self.pods.state(),
            namespaces: self.namespaces.state(),
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
