//! Writes what users read of their objects: conditions, ARNs, readiness gates and events, and lets objects go that are
//! deleted. Only the leader writes, and only what differs.

mod condition;
mod events;
mod gate;
mod kinds;
mod patch;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use kube::{Client, Resource as _, api::ApiResource, api::ObjectMeta, runtime::events::EventType};
use mesh_api::{Arn, BackendGroup, GatewayRoute, Mesh, VirtualGateway, VirtualNode, VirtualRouter, VirtualService};
use serde::Serialize;
use serde_json::Value;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

pub use condition::PodCounts;
pub use gate::Registration;

use crate::{
    cluster::{Object, Pod, PodKey, Pods, Snapshot, Unreadable, kinds::with_kinds},
    metrics::{Kind, KindAndReason, Metrics},
    model::{ObjectKey, Problem, Reason, ServiceKey},
    translate::{Report, Translation},
};
use condition::Summary;
use events::Events;
use kinds::{APPMESH_RESOURCES, CLOUDMAP_RESOURCES, GATEWAY_MEMBERS, MESH_MEMBERS, Reported};
use patch::{Fields, Wanted};
use queue::{Outcome, Queue};
use writer::{Target, Writer, Written};

/// The name under which events and managed fields say who wrote them.
const NAME: &str = "appmesh-controller";
/// How long changes of the pods of an object are gathered: its status need not follow each pod of a rollout.
const POD_COUNTS_DELAY: Duration = Duration::from_secs(1);
/// How long an answer about Cloud Map's namespaces holds for one that is missing in it.
const NAMESPACES_AGE: Duration = Duration::from_secs(1);
/// Objects looked at at once. Those that wait for Cloud Map must not hold up the others.
const OBJECTS_AT_ONCE: usize = 16;
/// Pods looked at at once.
const PODS_AT_ONCE: usize = 8;

/// Something of an object in Cloud Map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudMapResource {
    /// The service that a VirtualNode's pods are registered in.
    Service(ServiceKey),
    /// What is published of the VirtualService of this ARN, in any namespace.
    Publication(Arn),
}

/// Whether something is out of Cloud Map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nothing is left of it but what other objects need.
    Done,
    /// Cloud Map is still removing it.
    Pending,
}

/// What status asks of Cloud Map. Errors are in words for people.
pub trait CloudMap: Send + Sync {
    /// The names of the namespaces that there are.
    fn namespaces(&self) -> BoxFuture<'_, Result<BTreeSet<String>, String>>;

    /// Removes what Cloud Map holds of an object that is being deleted, unless others need it. It is called again until
    /// it is done.
    fn remove<'a>(&'a self, resource: &'a CloudMapResource) -> BoxFuture<'a, Result<Removal, String>>;

    /// Why Cloud Map does not hold what is published of the VirtualService of this ARN, if it refuses.
    fn refusal(&self, arn: &Arn) -> Option<String>;

    /// Whether a pod is registered; `None` if it is not to be. One that waits though nobody would register it any more counts
    /// as registered.
    fn registration(&self, pod: &Pod) -> Option<Registration>;

    /// The other pods of its VirtualNode that callers find beside a pod.
    fn beside(&self, pod: &Pod) -> Vec<PodKey>;
}

/// Counts the pods of a VirtualNode or VirtualGateway.
pub type CountPods = Box<dyn Fn(&ObjectKey) -> PodCounts + Send + Sync>;

/// The cluster and what was made of it.
#[derive(Clone, Default)]
struct View {
    snapshot: Arc<Snapshot>,
    translation: Arc<Translation>,
}

/// A status that was written here and may not have come back from the API server yet.
struct Ahead {
    version: u64,
    status: Value,
}

/// When Cloud Map was last asked for its namespaces, and why it did not answer.
struct Asked {
    at: Instant,
    error: Option<String>,
}

/// Writes status.
pub struct Status {
    writer: Writer,
    events: Events,
    pods: Pods,
    cloud_map: Arc<dyn CloudMap>,
    count_pods: CountPods,
    metrics: Metrics,
    view: Mutex<View>,
    /// Problems that were counted before, so that they are counted as none once they are mended.
    counted: Mutex<HashSet<KindAndReason>>,
    ahead: Mutex<HashMap<ObjectKey, Ahead>>,
    /// The namespaces of Cloud Map, as it last answered.
    namespaces: Mutex<BTreeSet<String>>,
    asked: tokio::sync::Mutex<Option<Asked>>,
    objects: Queue<ObjectKey>,
    gates: Queue<PodKey>,
    /// How long callers of other clusters may take until they have heard of a pod.
    heard_after: Duration,
    /// The pods that callers find and that are not ready yet because others may not have heard of them.
    unheard: Mutex<HashMap<PodKey, Instant>>,
}

impl Status {
    /// `instance` is the name of this replica's pod, `heard_after` how long other clusters may take until they hear of a pod.
    pub fn new(
        client: Client,
        instance: String,
        heard_after: Duration,
        pods: Pods,
        cloud_map: Arc<dyn CloudMap>,
        count_pods: CountPods,
        metrics: Metrics,
    ) -> Self {
        Self {
            writer: Writer::new(client.clone()),
            events: Events::new(client, instance),
            pods,
            cloud_map,
            count_pods,
            metrics,
            view: Mutex::default(),
            counted: Mutex::default(),
            ahead: Mutex::default(),
            namespaces: Mutex::default(),
            asked: tokio::sync::Mutex::default(),
            objects: Queue::default(),
            gates: Queue::default(),
            heard_after,
            unheard: Mutex::default(),
        }
    }

    /// Looks at the objects that have changed, or of which something else is reported. It must be called for every change of
    /// an object but its status.
    pub fn objects_changed(&self, snapshot: Arc<Snapshot>, translation: Arc<Translation>) {
        let now = View { snapshot, translation };
        self.count(&now);
        let before = std::mem::replace(&mut *lock(&self.view), now.clone());
        self.objects.push(kinds::changed(&before, &now), Duration::ZERO);
    }

    /// Looks at these VirtualNodes and VirtualGateways, whose pods have changed.
    pub fn pods_changed(&self, owners: impl IntoIterator<Item = ObjectKey>) {
        self.objects.push(owners, POD_COUNTS_DELAY);
    }

    /// Looks at these VirtualServices, of which Cloud Map holds something else now, or refuses to.
    pub fn publications_changed(&self, services: impl IntoIterator<Item = ObjectKey>) {
        self.objects.push(services, Duration::ZERO);
    }

    /// Looks at the readiness gates of pods that have changed themselves, or whose registration has.
    pub fn gates_changed(&self, pods: impl IntoIterator<Item = PodKey>) {
        self.gates.push(pods, Duration::ZERO);
    }

    /// Writes while `leader` says so, until `stop`: everything is looked at once, then what changes.
    pub async fn run(&self, mut leader: watch::Receiver<bool>, stop: CancellationToken) {
        let work = async {
            while leader.wait_for(|leads| *leads).await.is_ok() {
                let objects = || kinds::keys(&self.view().snapshot);
                let gated = || self.pods.all().into_iter().filter(|pod| pod.gated).map(|pod| pod.key());
                tokio::select! {
                    _ = leader.wait_for(|leads| !*leads) => {}
                    () = self.objects.work(objects, OBJECTS_AT_ONCE, |key| self.look_at_object(key)) => {}
                    () = self.gates.work(gated, PODS_AT_ONCE, |key| self.look_at_pod(key)) => {}
                }
                self.objects.close();
                self.gates.close();
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    async fn look_at_object(&self, key: ObjectKey) -> Outcome {
        self.object(&key).await.unwrap_or_else(|error| {
            tracing::warn!("{error:#}, trying again");
            Outcome::Retry
        })
    }

    async fn look_at_pod(&self, key: PodKey) -> Outcome {
        let pod = self.pods.get(&key.0, &key.1);
        let registration = pod.as_ref().and_then(|pod| self.cloud_map.registration(pod));
        let wait = self.wait_to_be_heard(key, pod.as_deref(), registration.as_ref());
        if !wait.is_zero() {
            return Outcome::After(wait);
        }
        let Some(pod) = pod else { return Outcome::Done };
        let Some(patch) = gate::patch(&pod, registration.as_ref()) else { return Outcome::Done };
        match self.writer.pod(&pod, patch).await {
            Ok(Written::Object(_) | Written::Gone) => Outcome::Done,
            Ok(Written::Conflict) => Outcome::Retry,
            Err(error) => {
                tracing::warn!("{error:#}, trying again");
                Outcome::Retry
            }
        }
    }

    /// How long a pod is to wait that becomes ready beside others: Kubernetes may then take those away, and callers of
    /// another cluster that has not asked Cloud Map since would be left with none. The first pods of a VirtualNode do not wait.
    fn wait_to_be_heard(&self, key: PodKey, pod: Option<&Pod>, registration: Option<&Registration>) -> Duration {
        let is_ready =
            |(namespace, name): &PodKey| self.pods.get(namespace, name).is_some_and(|pod| gate::serves(&pod));
        let admitted = pod.zip(registration).filter(|(pod, registration)| registration.admits(pod));
        let replaces = admitted.is_some_and(|(pod, _)| self.cloud_map.beside(pod).iter().any(is_ready));
        let mut unheard = lock(&self.unheard);
        if !replaces {
            unheard.remove(&key);
            return Duration::ZERO;
        }
        let since = unheard.entry(key).or_insert_with(Instant::now);
        self.heard_after.saturating_sub(since.elapsed())
    }

    async fn object(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let view = self.view();
        macro_rules! settle {
            ($($field:ident: $kind:ident,)+) => {$(
                if key.kind == $kind::kind(&()) && let Some(object) = view.snapshot.$field.get(&key.namespace, &key.name) {
                    return self.settle(key, object, &view).await;
                }
            )+};
        }
        with_kinds!(settle);
        if let Some(object) = view.snapshot.unreadable.iter().find(|object| kinds::unreadable_key(object) == *key) {
            return self.unreadable(key, object).await;
        }
        self.events.forget(key);
        lock(&self.ahead).remove(key);
        Ok(Outcome::Done)
    }

    async fn settle<K: Reported + Serialize>(
        &self,
        key: &ObjectKey,
        object: &Object<K>,
        view: &View,
    ) -> anyhow::Result<Outcome> {
        let resource = ApiResource::erase::<K>(&());
        let target = Target { resource: &resource, metadata: object.meta() };
        let Some(report) = view.translation.reports.get(key) else { return Ok(Outcome::Done) };
        if object.meta().deletion_timestamp.is_some() {
            return self.end(key, object, &target, report, view).await;
        }
        if let Some(finalizer) = K::FINALIZER {
            match self.change_finalizers(&target, |metadata| patch::added_finalizer(metadata, finalizer)).await? {
                None | Some(Written::Object(_)) => {}
                Some(Written::Conflict) => return Ok(Outcome::Retry),
                Some(Written::Gone) => return Ok(Outcome::Done),
            }
        }
        let mut problems = report.problems.clone();
        let mut outcome = Outcome::Done;
        if let Some(namespace) = object.cloud_map_namespace()
            && let Some(problem) = self.namespace_problem(namespace).await
        {
            problems.push(problem);
            outcome = Outcome::Retry;
        }
        if let Some(CloudMapResource::Publication(arn)) = object.cloud_map_resource(report.arn.as_ref()) {
            problems.extend(self.cloud_map.refusal(&arn).map(not_published));
        }
        let pods = object.selects_pods().then(|| (self.count_pods)(key));
        problems.extend(pods.and_then(PodCounts::problem));
        let wanted = Wanted {
            condition_type: K::ACTIVE,
            summary: Summary::of(&problems),
            fields: Some(Fields { arn: (K::ARN_FIELD, report.arn.clone()), routes: report.routes.clone(), pods }),
        };
        let written = self.write_status(key, &target, status_of(object)?, &wanted).await?;
        Ok(if written == Outcome::Retry { written } else { outcome })
    }

    /// Lets an object go that is being deleted, once what depends on it is gone.
    async fn end<K: Reported + Serialize>(
        &self,
        key: &ObjectKey,
        object: &Object<K>,
        target: &Target<'_>,
        report: &Report,
        view: &View,
    ) -> anyhow::Result<Outcome> {
        let members = object.members(&view.snapshot);
        if !members.is_empty() {
            self.report_members(key, target, &members).await;
            return Ok(Outcome::Done);
        }
        let is_held = object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == CLOUDMAP_RESOURCES);
        if let Some(resource) = object.cloud_map_resource(report.arn.as_ref()).filter(|_| is_held) {
            match self.cloud_map.remove(&resource).await {
                Ok(Removal::Done) => {}
                Ok(Removal::Pending) => return Ok(Outcome::Retry),
                Err(error) => {
                    let summary = Summary::of(&[unavailable(error)]);
                    let wanted = Wanted { condition_type: K::ACTIVE, summary, fields: None };
                    self.write_status(key, target, status_of(object)?, &wanted).await?;
                    return Ok(Outcome::Retry);
                }
            }
        }
        self.release(target).await
    }

    /// Reports an object that does not parse. One that is being deleted goes: what it has in Cloud Map leaves because
    /// nobody asks for it any more.
    async fn unreadable(&self, key: &ObjectKey, object: &Unreadable) -> anyhow::Result<Outcome> {
        let target = Target { resource: &object.resource, metadata: &object.metadata };
        if object.metadata.deletion_timestamp.is_some() {
            return self.release(&target).await;
        }
        let message = format!("this controller cannot parse the object: {}", object.error);
        let problem = Problem { reason: Reason::Invalid, path: String::new(), message };
        let condition_type = object.condition_type;
        let wanted = Wanted { condition_type, summary: Summary::of(&[problem]), fields: None };
        self.write_status(key, &target, object.status.clone(), &wanted).await
    }

    /// Removes the finalizers that are this controller's to remove.
    async fn release(&self, target: &Target<'_>) -> anyhow::Result<Outcome> {
        let ours = [MESH_MEMBERS, GATEWAY_MEMBERS, APPMESH_RESOURCES, CLOUDMAP_RESOURCES];
        let written = self.change_finalizers(target, |metadata| patch::removed_finalizers(metadata, &ours)).await?;
        Ok(if written == Some(Written::Conflict) { Outcome::Retry } else { Outcome::Done })
    }

    /// Changes the finalizers of an object; `None` if they are right. What is known here may be older than the object, since
    /// nothing follows from a change of its status alone: then the API server is asked.
    async fn change_finalizers(
        &self,
        target: &Target<'_>,
        change: impl Fn(&ObjectMeta) -> Option<Value>,
    ) -> anyhow::Result<Option<Written>> {
        let Some(patch) = change(target.metadata) else { return Ok(None) };
        let written = self.writer.finalizers(target, patch).await?;
        if written != Written::Conflict {
            return Ok(Some(written));
        }
        let Some(newest) = self.writer.newest(target).await? else { return Ok(Some(Written::Gone)) };
        let Some(patch) = change(&newest) else { return Ok(None) };
        self.writer.finalizers(target, patch).await.map(Some)
    }

    /// Writes a status where it differs, and publishes an event where the condition does.
    async fn write_status(
        &self,
        key: &ObjectKey,
        target: &Target<'_>,
        known: Value,
        wanted: &Wanted,
    ) -> anyhow::Result<Outcome> {
        let present = self.newest_status(key, target.metadata, known);
        let Some(change) = patch::status_patch(&present, target.metadata.generation, wanted) else {
            return Ok(Outcome::Done);
        };
        match self.writer.status(target, change.patch).await? {
            Written::Object(mut object) => {
                let ahead =
                    Ahead { version: version(&object["metadata"]["resourceVersion"]), status: object["status"].take() };
                lock(&self.ahead).insert(key.clone(), ahead);
            }
            Written::Conflict => return Ok(Outcome::Retry),
            Written::Gone => return Ok(Outcome::Done),
        }
        if change.condition_changed {
            let Summary { active, message, .. } = &wanted.summary;
            let reason = wanted.summary.reason();
            tracing::info!(object = %key, active, reason, message, "condition has changed");
            if wanted.summary.reason.is_some() {
                let type_ = if *active { EventType::Normal } else { EventType::Warning };
                self.events.publish((key, &target.reference()), type_, &reason, message).await;
            }
        }
        Ok(Outcome::Done)
    }

    /// The status of an object as it was last written here or seen, whichever is newer.
    fn newest_status(&self, key: &ObjectKey, metadata: &ObjectMeta, known: Value) -> Value {
        let mut all_ahead = lock(&self.ahead);
        let version = metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0);
        match all_ahead.get(key) {
            Some(ahead) if ahead.version > version => ahead.status.clone(),
            Some(_) => {
                all_ahead.remove(key);
                known
            }
            None => known,
        }
    }

    /// Reports once by an event which members an object that is being deleted waits for.
    async fn report_members(&self, key: &ObjectKey, target: &Target<'_>, members: &[ObjectKey]) {
        const REASON: &str = "PendingMembersDeletion";
        let members: Vec<_> = members.iter().map(ToString::to_string).collect();
        let note = format!("objects pending deletion: {}", members.join(", "));
        if !self.events.is_published(key, REASON, &note) {
            self.events.publish((key, &target.reference()), EventType::Warning, REASON, &note).await;
        }
    }

    /// Asks for Cloud Map's namespaces, but only while one is missing, and once for all that miss one.
    async fn namespace_problem(&self, namespace: &str) -> Option<Problem> {
        let is_known = || lock(&self.namespaces).contains(namespace);
        if is_known() {
            return None;
        }
        let mut asked = self.asked.lock().await;
        if asked.as_ref().is_none_or(|asked| asked.at.elapsed() >= NAMESPACES_AGE) {
            let answer = self.cloud_map.namespaces().await;
            let answer = answer.map(|names| *lock(&self.namespaces) = names);
            *asked = Some(Asked { at: Instant::now(), error: answer.err() });
        }
        if is_known() {
            return None;
        }
        match asked.as_ref().and_then(|asked| asked.error.clone()) {
            Some(error) => Some(unavailable(error)),
            None => Some(Problem {
                reason: Reason::CloudMapNamespaceNotFound,
                path: "spec.serviceDiscovery.awsCloudMap.namespaceName".to_owned(),
                message: format!("cloudMap namespace not found: {namespace}"),
            }),
        }
    }

    /// Counts objects and problems.
    fn count(&self, View { snapshot, translation }: &View) {
        let mut problems: HashMap<KindAndReason, i64> = HashMap::new();
        let mut add = |kind: &str, reason: Reason| {
            let labels = KindAndReason { kind: kind.to_owned(), reason: reason.to_string() };
            *problems.entry(labels).or_default() += 1;
        };
        for (key, report) in &translation.reports {
            let reasons: BTreeSet<_> = report.problems.iter().map(|problem| problem.reason).collect();
            reasons.into_iter().for_each(|reason| add(&key.kind, reason));
        }
        for object in &snapshot.unreadable {
            add(&object.resource.kind, Reason::Invalid);
        }
        macro_rules! count {
            ($($field:ident: $kind:ident,)+) => {$(
                let kind = $kind::kind(&()).into_owned();
                let unreadable = snapshot.unreadable.iter().filter(|object| object.resource.kind == kind).count();
                let objects = i64::try_from(snapshot.$field.iter().len() + unreadable).unwrap_or(i64::MAX);
                self.metrics.objects.get_or_create(&Kind { kind }).set(objects);
            )+};
        }
        with_kinds!(count);
        let mut counted = lock(&self.counted);
        counted.extend(problems.keys().cloned());
        for labels in counted.iter() {
            self.metrics.problems.get_or_create(labels).set(problems.get(labels).copied().unwrap_or(0));
        }
    }

    fn view(&self) -> View {
        lock(&self.view).clone()
    }
}

fn unavailable(error: String) -> Problem {
    Problem { reason: Reason::CloudMapUnavailable, path: String::new(), message: error }
}

fn not_published(error: String) -> Problem {
    let message = format!("Cloud Map refuses what other clusters are to hear of it: {error}");
    Problem { reason: Reason::NotPublished, path: String::new(), message }
}

fn status_of<K: Serialize>(object: &Object<K>) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(&**object)?["status"].take())
}

/// Resource versions of one kind are numbers that grow.
fn version(written: &Value) -> u64 {
    written.as_str().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
