//! What users read of their objects, and the objects' end: conditions, ARNs, finalizers,
//! readiness gates. Only the leader writes.

pub mod gate;
mod patch;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{StreamExt as _, future::BoxFuture, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use mesh_api::{Arn, Mesh, MeshMember, MeshObject, VirtualNode, VirtualRouter, VirtualService, arn::MeshResource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cloudmap::told,
    publish,
    registrar::{Leaving, Pods, Registrar},
    registration,
    store::{Snapshot, Store, Unreadable},
};
use patch::{INVALID, finalizers_patch, status_patch, unreadable_patch};
use verdict::{Namespaces, Verdict};

/// As events and managed fields tell who wrote them.
const NAME: &str = "appmesh-controller";
/// Keeps a Mesh until its members are gone.
const MESH_MEMBERS: &str = "finalizers.appmesh.k8s.aws/mesh-members";
/// Amazon's controller sets it; with no App Mesh API there is nothing to clean up behind it.
const APPMESH_RESOURCES: &str = "finalizers.appmesh.k8s.aws/aws-appmesh-resources";
/// Keeps an object until what Cloud Map knows of it is gone.
const CLOUDMAP_RESOURCES: &str = "finalizers.appmesh.k8s.aws/aws-cloudmap-resources";
/// Characters of an event's note; the API server takes 1 kB.
const NOTE: usize = 1000;
/// Objects settled at once.
const CONCURRENCY: usize = 8;

/// Writes what the leader finds out.
pub struct Reporting {
    client: Client,
    store: Store,
    registrar: Arc<Registrar>,
    events: Recorder,
    /// Cloud Map's namespaces as they were last asked for.
    namespaces: Mutex<BTreeSet<String>>,
}

type Settling<'a> = BoxFuture<'a, anyhow::Result<()>>;

impl Reporting {
    /// `instance` is the pod's name, for events.
    pub fn new(client: Client, store: Store, registrar: Arc<Registrar>, instance: String) -> Self {
        let reporter = Reporter { controller: NAME.to_owned(), instance: Some(instance) };
        let events = Recorder::new(client.clone(), reporter);
        Self { client, store, registrar, events, namespaces: Mutex::default() }
    }

    /// Follows the cluster while `leader` says so, until `stop`.
    pub async fn run(self, mut leader: watch::Receiver<bool>, stop: CancellationToken) {
        let work = async {
            let (mut changed, mut registering) = (self.store.changed(), self.registrar.registering());
            let mut pending = BTreeMap::new();
            let (mut delays, mut retry) = (delays(), None);
            changed.mark_changed();
            loop {
                tokio::select! {
                    alive = changed.changed() => if alive.is_err() { return },
                    alive = registering.changed() => if alive.is_err() { return },
                    alive = leader.changed() => if alive.is_err() { return },
                    () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {}
                }
                if !*leader.borrow_and_update() {
                    retry = None;
                    continue;
                }
                if self.settle_all(&mut pending).await {
                    (delays, retry) = (self::delays(), None);
                } else {
                    retry = delays.next().map(|delay| Instant::now() + delay);
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// Settles every object; `false` if something is to be looked at again though the cluster may not change.
    async fn settle_all(&self, pending: &mut BTreeMap<String, String>) -> bool {
        let snapshot = self.store.snapshot();
        let namespaces = self.namespaces(&snapshot).await;
        self.tell_pending(&snapshot, pending).await;
        let pods = self.registrar.pods(&snapshot);
        let mut settling: Vec<Settling<'_>> = Vec::new();
        for mesh in &snapshot.meshes {
            settling.push(Box::pin(self.mesh(mesh, &snapshot)));
        }
        for node in &snapshot.virtual_nodes {
            settling.push(Box::pin(self.virtual_node(node, &snapshot, &namespaces)));
        }
        for router in &snapshot.virtual_routers {
            settling.push(Box::pin(self.virtual_router(router, &snapshot)));
        }
        for service in &snapshot.virtual_services {
            settling.push(Box::pin(self.virtual_service(service, &snapshot)));
        }
        for object in &snapshot.unreadable {
            settling.push(Box::pin(self.unreadable(object)));
        }
        for pod in &snapshot.pods {
            settling.push(Box::pin(self.pod(pod, &pods)));
        }
        let settled: Vec<_> = stream::iter(settling).buffer_unordered(CONCURRENCY).collect().await;
        for error in settled.iter().filter_map(|settled| settled.as_ref().err()) {
            tracing::warn!("not settled yet: {}", told(error));
        }
        let whole = namespaces.is_ok_and(|there| needed(&snapshot).all(|namespace| there.contains(namespace)));
        whole && settled.iter().all(Result::is_ok)
    }

    /// The names of Cloud Map's namespaces, asked again only while a node needs one that is not among them.
    async fn namespaces(&self, snapshot: &Snapshot) -> Namespaces {
        let mut known = self.namespaces.lock().await;
        if !needed(snapshot).all(|namespace| known.contains(namespace)) {
            *known = self.registrar.namespaces().await.map_err(|error| told(&error))?;
        }
        Ok(known.clone())
    }

    async fn mesh(&self, mesh: &Mesh, snapshot: &Snapshot) -> anyhow::Result<()> {
        let api = Api::all(self.client.clone());
        if mesh.metadata.deletion_timestamp.is_some() {
            let free = verdict::members(mesh, snapshot).is_empty();
            return if free { release(&api, mesh).await } else { Ok(()) };
        }
        hold(&api, mesh, MESH_MEMBERS).await?;
        let arn = self.registrar.identity().arn(&mesh.aws_name(), MeshResource::Mesh);
        let verdict = verdict::of_mesh(mesh, snapshot, self.registrar.identity());
        report(&api, mesh, Some(arn), &verdict, BTreeMap::new()).await
    }

    async fn virtual_node(
        &self,
        node: &VirtualNode,
        snapshot: &Snapshot,
        namespaces: &Namespaces,
    ) -> anyhow::Result<()> {
        let api = self.api(node);
        if node.metadata.deletion_timestamp.is_some() {
            if node.finalizers().iter().any(|finalizer| finalizer == CLOUDMAP_RESOURCES) {
                held(&api, node, registration::forget(&self.registrar, node).await).await?;
            }
            return release(&api, node).await;
        }
        hold(&api, node, CLOUDMAP_RESOURCES).await?;
        let arn = self.arn(node, snapshot, MeshResource::VirtualNode);
        let verdict = verdict::virtual_node(node, snapshot, self.registrar.identity(), namespaces);
        report(&api, node, arn, &verdict, BTreeMap::new()).await
    }

    async fn virtual_router(&self, router: &VirtualRouter, snapshot: &Snapshot) -> anyhow::Result<()> {
        let api = self.api(router);
        if router.metadata.deletion_timestamp.is_some() {
            return release(&api, router).await;
        }
        let arn = self.arn(router, snapshot, MeshResource::VirtualRouter);
        let routes = router.spec.routes.iter().flatten().filter_map(|route| {
            let arn = self.arn(router, snapshot, |name| MeshResource::Route(name, route.name.clone()))?;
            Some((route.name.clone(), arn.to_string()))
        });
        let verdict = verdict::virtual_router(router, snapshot, self.registrar.identity());
        report(&api, router, arn, &verdict, routes.collect()).await
    }

    async fn virtual_service(&self, service: &VirtualService, snapshot: &Snapshot) -> anyhow::Result<()> {
        let api = self.api(service);
        if service.metadata.deletion_timestamp.is_some() {
            if service.finalizers().iter().any(|finalizer| finalizer == CLOUDMAP_RESOURCES) {
                held(&api, service, publish::forget(&self.registrar, service).await).await?;
            }
            return release(&api, service).await;
        }
        hold(&api, service, CLOUDMAP_RESOURCES).await?;
        let arn = self.arn(service, snapshot, MeshResource::VirtualService);
        let verdict = verdict::virtual_service(service, snapshot, self.registrar.identity());
        report(&api, service, arn, &verdict, BTreeMap::new()).await
    }

    /// Reports an object that does not parse, once: in its condition and by an event. One that is being deleted goes: what
    /// it has in Cloud Map leaves because nobody asks for it any more.
    async fn unreadable(&self, object: &Unreadable) -> anyhow::Result<()> {
        let Unreadable { resource, metadata, .. } = object;
        let named = DynamicObject { metadata: metadata.clone(), ..DynamicObject::new("", resource) };
        let api: Api<DynamicObject> = match &metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        };
        if metadata.deletion_timestamp.is_some() {
            return release(&api, &named).await;
        }
        let Some(patch) = unreadable_patch(object) else { return Ok(()) };
        let event = Event {
            type_: EventType::Warning,
            reason: INVALID.to_owned(),
            note: Some(object.error.chars().take(NOTE).collect()),
            action: "Read".to_owned(),
            secondary: None,
        };
        let kind = &resource.kind;
        if let Err(error) = self.events.publish(&event, &named.object_ref(resource)).await {
            tracing::warn!(kind, name = metadata.name, %error, "cannot write an event");
        }
        tracing::warn!(kind, namespace = metadata.namespace, name = metadata.name, "does not parse: {}", object.error);
        let patch: Patch<Value> = Patch::Merge(patch);
        let written = api.patch_status(&named.name_any(), &by_us(), &patch).await;
        settled(written.map(|_| ())).with_context(|| format!("status of {kind} {}", named.name_any()))
    }

    async fn pod(&self, pod: &Pod, pods: &Pods) -> anyhow::Result<()> {
        let Some(patch) = gate::patch(pod, pods) else { return Ok(()) };
        let patch: Patch<Value> = Patch::Strategic(patch);
        let written = self.api(pod).patch_status(&pod.name_any(), &by_us(), &patch).await;
        settled(written.map(|_| ())).with_context(|| format!("readiness gate of pod {}", pod.name_any()))
    }

    fn api<K>(&self, object: &K) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), object.meta().namespace.as_deref().unwrap_or_default())
    }

    fn arn(
        &self,
        object: &impl MeshMember,
        snapshot: &Snapshot,
        resource: impl FnOnce(String) -> MeshResource,
    ) -> Option<Arn> {
        let mesh = verdict::mesh(object, snapshot).ok()?;
        Some(self.registrar.identity().arn(&mesh.aws_name(), resource(object.aws_name())))
    }

    /// Tells once by an event which members a Mesh that is being deleted waits for.
    async fn tell_pending(&self, snapshot: &Snapshot, told: &mut BTreeMap<String, String>) {
        let mut pending = BTreeMap::new();
        for mesh in snapshot.meshes.iter().filter(|mesh| mesh.metadata.deletion_timestamp.is_some()) {
            let members = verdict::members(mesh, snapshot);
            if members.is_empty() {
                continue;
            }
            let note = format!("objects pending deletion: {}", members.join(", "));
            if told.get(&mesh.name_any()) != Some(&note) {
                let event = Event {
                    type_: EventType::Warning,
                    reason: "PendingMembersDeletion".to_owned(),
                    note: Some(note.chars().take(NOTE).collect()),
                    action: "Delete".to_owned(),
                    secondary: None,
                };
                if let Err(error) = self.events.publish(&event, &mesh.object_ref(&())).await {
                    tracing::warn!(mesh = mesh.name_any(), %error, "cannot write an event");
                }
            }
            pending.insert(mesh.name_any(), note);
        }
        *told = pending;
    }
}

/// The name under which the API server records what was written.
fn by_us() -> PatchParams {
    PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() }
}

fn needed(snapshot: &Snapshot) -> impl Iterator<Item = &str> {
    snapshot.virtual_nodes.iter().filter_map(|node| verdict::cloud_map_namespace(node))
}

/// Adds a finalizer if it is not there.
async fn hold<K>(api: &Api<K>, object: &K, finalizer: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut finalizers = object.finalizers().to_vec();
    if finalizers.iter().any(|there| there == finalizer) {
        return Ok(());
    }
    finalizers.push(finalizer.to_owned());
    write_finalizers(api, object, finalizers).await
}

/// Lets a deleted object go: removes the finalizers that are this controller's to remove.
async fn release<K>(api: &Api<K>, object: &K) -> anyhow::Result<()>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let ours = [MESH_MEMBERS, APPMESH_RESOURCES, CLOUDMAP_RESOURCES];
    let others: Vec<_> = object.finalizers().iter().filter(|there| !ours.contains(&there.as_str())).cloned().collect();
    if others.len() == object.finalizers().len() {
        return Ok(());
    }
    write_finalizers(api, object, others).await
}

/// Tells in the status of a deleted object why it cannot go, and passes that on.
async fn held<K>(api: &Api<K>, object: &K, forgotten: anyhow::Result<()>) -> anyhow::Result<()>
where
    K: MeshObject + Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
{
    let Err(error) = forgotten else { return Ok(()) };
    if error.is::<Leaving>() {
        return Err(error);
    }
    report(api, object, None, &Verdict::unavailable(told(&error)), BTreeMap::new()).await?;
    Err(error)
}

async fn write_finalizers<K>(api: &Api<K>, object: &K, finalizers: Vec<String>) -> anyhow::Result<()>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let patch = finalizers_patch(object, finalizers);
    let written = api.patch(&object.name_any(), &by_us(), &Patch::Merge(patch)).await;
    settled(written.map(|_| ())).with_context(|| format!("finalizers of {}{}", api.resource_url(), object.name_any()))
}

async fn report<K>(
    api: &Api<K>,
    object: &K,
    arn: Option<Arn>,
    verdict: &Verdict,
    routes: BTreeMap<String, String>,
) -> anyhow::Result<()>
where
    K: MeshObject + Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
{
    let Some(patch) = status_patch(object, arn, verdict, routes) else { return Ok(()) };
    let patch: Patch<Value> = Patch::Merge(patch);
    let written = api.patch_status(&object.name_any(), &by_us(), &patch).await;
    settled(written.map(|_| ())).with_context(|| format!("status of {} {}", K::kind(&()), object.name_any()))
}

/// An object that is gone or was changed meanwhile is not a failure: the change comes with a new look.
fn settled(written: kube::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        written => Ok(written?),
    }
}

fn delays() -> impl Iterator<Item = Duration> {
    let backoff = ExponentialBuilder::default().with_min_delay(Duration::from_secs(1));
    backoff.with_max_delay(Duration::from_secs(15)).with_jitter().without_max_times().build()
}
