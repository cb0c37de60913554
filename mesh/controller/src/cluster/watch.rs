//! Watches: keeps local copies of the cluster's objects current.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use backon::ExponentialBuilder;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ObjectMeta,
    runtime::{WatchStreamExt as _, reflector, utils::ResetTimerBackoff, watcher},
};
use mesh_api::{BackendGroup, GatewayRoute, Mesh, VirtualGateway, VirtualNode, VirtualRouter, VirtualService};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    kinds::with_kinds,
    pods::{PodChange, Pods, WatchedPod},
    services::Service,
    snapshot::{Copies, Snapshot},
};

/// The cluster as it is known here. Cloning is cheap, every clone sees the same objects.
#[derive(Clone)]
pub struct Cluster {
    copies: Copies,
    /// The pods.
    pub pods: Pods,
    generation: watch::Receiver<u64>,
}

impl Cluster {
    /// Begins to watch and returns when everything that exists has been read, with the changes of pods from then on. The
    /// watches end with `stop`.
    ///
    /// # Errors
    /// A watch ended before it had read everything.
    pub async fn start(
        client: &Client,
        stop: &CancellationToken,
    ) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<PodChange>)> {
        let (sender, generation) = watch::channel(0);
        let sender = Arc::new(sender);
        macro_rules! copies {
            ($($field:ident: $kind:ident,)+) => {
                Copies {
                    $($field: copy::<super::Parsed<$kind>>(client, &sender, stop, of_metadata),)+
                    namespaces: copy::<Namespace>(client, &sender, stop, of_metadata),
                    services: copy::<Service>(client, &sender, stop, of_addresses),
                }
            };
        }
        let copies = with_kinds!(copies);
        let pods = Pods::default();
        let (changes, changed) = mpsc::unbounded_channel();
        let (listed, all_listed) = oneshot::channel();
        tokio::spawn(until(stop.clone(), watch_pods(client.clone(), pods.clone(), changes, listed)));
        copies.wait_until_ready().await?;
        all_listed.await?;
        Ok((Self { copies, pods, generation }, changed))
    }

    /// All objects but the pods now.
    pub fn snapshot(&self) -> Snapshot {
        self.copies.snapshot()
    }

    /// A number that grows with every change of any object but the pods, unless only its status changes. A receiver sees the latest only, so a burst costs
    /// one look.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }
}

/// Keeps a copy of all objects of one kind and counts the generation up with each change.
fn copy<K>(
    client: &Client,
    generation: &Arc<watch::Sender<u64>>,
    stop: &CancellationToken,
    digest: fn(&K) -> u64,
) -> reflector::Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let changes = watcher(Api::all(client.clone()), config())
        .backoff(pauses())
        .modify(|object: &mut K| object.managed_fields_mut().clear())
        .reflect(writer);
    let generation = generation.clone();
    let mut seen = HashMap::new();
    let counted = changes.for_each(move |event| {
        match event {
            Ok(event) if is_change(&event, &mut seen, digest) => generation.send_modify(|generation| *generation += 1),
            Ok(_) => {}
            Err(error) => report(&K::kind(&()), &error),
        }
        std::future::ready(())
    });
    tokio::spawn(until(stop.clone(), counted));
    reader
}

/// Whether an event changes what `digest` is of. `seen` keeps that of each object, by uid.
fn is_change<K: ResourceExt>(
    event: &watcher::Event<K>,
    seen: &mut HashMap<String, u64>,
    digest: fn(&K) -> u64,
) -> bool {
    match event {
        watcher::Event::Init => {
            seen.clear();
            false
        }
        watcher::Event::InitApply(object) => {
            seen.insert(object.uid().unwrap_or_default(), digest(object));
            // The copy holds what was listed only once the list is complete.
            false
        }
        watcher::Event::InitDone => true,
        watcher::Event::Apply(object) => {
            let digest = digest(object);
            seen.insert(object.uid().unwrap_or_default(), digest) != Some(digest)
        }
        watcher::Event::Delete(object) => {
            seen.remove(&object.uid().unwrap_or_default());
            true
        }
    }
}

/// Of all that is not status: a change of the spec is another generation. Most changes of status are written here, and
/// nothing follows from them.
fn of_metadata<K: Resource>(object: &K) -> u64 {
    let metadata = object.meta();
    let ObjectMeta { generation, labels, annotations, finalizers, .. } = metadata;
    let mut hasher = DefaultHasher::new();
    (generation, labels, annotations, finalizers, metadata.deletion_timestamp.is_some()).hash(&mut hasher);
    hasher.finish()
}

/// Of the addresses, which is all that is kept of a Service.
fn of_addresses(service: &Service) -> u64 {
    let mut hasher = DefaultHasher::new();
    service.addresses.hash(&mut hasher);
    hasher.finish()
}

/// Keeps the pods and passes on what changes. `listed` hears once that all have been read.
async fn watch_pods(
    client: Client,
    pods: Pods,
    changes: mpsc::UnboundedSender<PodChange>,
    listed: oneshot::Sender<()>,
) {
    let mut events = std::pin::pin!(watcher(Api::<WatchedPod>::all(client), config()).backoff(pauses()));
    let (mut listing, mut listed) = (Vec::new(), Some(listed));
    while let Some(event) = events.next().await {
        let changed = match event {
            Ok(watcher::Event::Init) => {
                listing.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(pod)) => {
                listing.push(pod.pod);
                continue;
            }
            Ok(watcher::Event::InitDone) => pods.replace(std::mem::take(&mut listing)),
            Ok(watcher::Event::Apply(pod)) => pods.apply(pod.pod).into_iter().collect(),
            Ok(watcher::Event::Delete(pod)) => pods.remove(pod.pod.key()).into_iter().collect(),
            Err(error) => {
                report("Pod", &error);
                continue;
            }
        };
        for change in changed {
            // Nobody listens any more when the controller ends.
            let _ = changes.send(change);
        }
        listed.take().map(|listed| listed.send(()));
    }
}

/// How a watch is kept: begun anew each minute. So long may one be blind whose connection has become a hole.
fn config() -> watcher::Config {
    watcher::Config::default().timeout(60)
}

/// Pauses between the attempts of a watch. kube's own begin with 0.8 s, but an API server that was told of a kind a moment
/// ago, or has just started, refuses watches for some milliseconds only.
pub fn pauses() -> ResetTimerBackoff<watcher::ExponentialBackoff> {
    const LONGEST: Duration = Duration::from_secs(30);
    let pauses = ExponentialBuilder::default().with_min_delay(Duration::from_millis(50)).with_max_delay(LONGEST);
    ResetTimerBackoff::new(pauses.with_jitter().without_max_times().into(), 4 * LONGEST)
}

/// Logs why a watch of that kind or object broke. 410, Gone: the API server no longer has what was missed, so everything is listed anew. While it fills its own copy it
/// answers 429 and asks to come again. Both are how it works.
pub fn report(of: &str, error: &watcher::Error) {
    let status = match error {
        watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    };
    if matches!(status, Some(410 | 429)) {
        tracing::debug!(of, %error, "watch begins anew");
    } else {
        tracing::warn!(of, %error, "watch failed, trying again");
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::Condition;
    use serde_json::{Value, from_value, json};
    use watcher::Event;

    #[test]
    fn a_change_of_status_alone_is_none() {
        let node = |metadata: Value, reason: &str| {
            let mut node = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "VirtualNode", "spec": {},
                "metadata": {"name": "a", "uid": "1", "generation": 1}});
            json_patch::merge(&mut node["metadata"], &metadata);
            let mut node: VirtualNode = from_value(node).unwrap();
            let (type_, reason) = ("VirtualNodeActive".to_owned(), Some(reason.to_owned()));
            let (status, last_transition_time, message) = ("True".to_owned(), None, None);
            let condition = Condition { type_, status, last_transition_time, reason, message };
            node.status.get_or_insert_default().conditions = Some(vec![condition]);
            node
        };
        let mut seen = HashMap::new();
        for (event, expected) in [
            (Event::Init, false),
            (Event::InitApply(node(json!({}), "NoPods")), false),
            (Event::InitDone, true),
            (Event::Apply(node(json!({}), "Active")), false),
            (Event::Apply(node(json!({"resourceVersion": "2"}), "Active")), false),
            (Event::Apply(node(json!({"generation": 2}), "Active")), true),
            (Event::Apply(node(json!({"generation": 2, "labels": {"a": "b"}}), "Active")), true),
            (Event::Apply(node(json!({"generation": 2, "finalizers": ["a"]}), "Active")), true),
            (Event::Apply(node(json!({"generation": 2, "finalizers": ["a"]}), "NoPods")), false),
            (Event::Apply(node(json!({"generation": 1, "uid": "2"}), "NoPods")), true),
            (Event::Delete(node(json!({"generation": 1, "uid": "2"}), "NoPods")), true),
        ] {
            assert_eq!(is_change(&event, &mut seen, of_metadata), expected, "{event:?}");
        }
    }
}
