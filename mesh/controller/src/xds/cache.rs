//! Holds what the Envoys of each connected workload are to have, and what each of their streams has been sent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{
    auth::Caller,
    session::{KINDS, Kind},
};
use crate::{envoy::Resources, model::WorkloadName};

/// What one workload's Envoys are to have now.
///
/// Envoy waits for what a resource names, so a snapshot is whole: each cluster with EDS has its endpoints, if only an
/// empty assignment, each route configuration that a listener names is there, and no other.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// SDS
    pub secrets: Resources,
    /// CDS
    pub clusters: Resources,
    /// EDS, by cluster
    pub endpoints: Resources,
    /// LDS
    pub listeners: Resources,
    /// RDS
    pub routes: Resources,
    /// Why Envoys refuse what the workload's object asks for, for their logs.
    pub refusal: Option<String>,
    /// When the change that led to it was first seen. It is no part of equality.
    pub changed: Instant,
}

impl Snapshot {
    /// The resources of a kind.
    pub fn of(&self, kind: Kind) -> &Resources {
        match kind {
            Kind::Secret => &self.secrets,
            Kind::Cluster => &self.clusters,
            Kind::Endpoint => &self.endpoints,
            Kind::Listener => &self.listeners,
            Kind::Route => &self.routes,
        }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            secrets: Resources::new(),
            clusters: Resources::new(),
            endpoints: Resources::new(),
            listeners: Resources::new(),
            routes: Resources::new(),
            refusal: None,
            changed: Instant::now(),
        }
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.refusal == other.refusal && Kind::ALL.into_iter().all(|kind| self.of(kind) == other.of(kind))
    }
}

/// A snapshot and the versions of its sets, computed once for all streams of the workload.
#[derive(Debug)]
pub struct Versioned {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    versions: [Arc<str>; KINDS],
}

impl Versioned {
    /// Computes the versions.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let versions = Kind::ALL.map(|kind| version(snapshot.of(kind)));
        Self { snapshot, versions }
    }

    /// The version of all resources of a kind together: the same on all replicas.
    pub fn version(&self, kind: Kind) -> &Arc<str> {
        &self.versions[kind as usize]
    }
}

/// Combines the versions of the resources, which are hashes of their content already.
fn version(resources: &Resources) -> Arc<str> {
    let mut hash = Sha256::new();
    for (name, resource) in resources {
        for text in [name, &resource.version] {
            hash.update(text.len().to_le_bytes());
            hash.update(text);
        }
    }
    hex::encode(&hash.finalize()[..8]).into()
}

/// The variant of the xDS protocol that a stream uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// State of the world: a response about clusters or listeners lists all of them.
    Sotw,
    /// Delta: a response lists what is new or gone.
    Delta,
}

/// What a stream has been sent of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The version that was sent last; empty where nothing was.
    pub sent: Arc<str>,
    /// The version that Envoy has accepted last; empty where it has accepted none.
    pub acknowledged: Arc<str>,
}

/// Where an Envoy is with one kind of resources, by version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// What it is to have; empty while that is not known.
    #[serde(serialize_with = "text")]
    pub current: Arc<str>,
    /// What it was sent last; empty where it was sent nothing.
    #[serde(serialize_with = "text")]
    pub sent: Arc<str>,
    /// What it has accepted last; empty where it has accepted nothing.
    #[serde(serialize_with = "text")]
    pub acknowledged: Arc<str>,
}

impl Versions {
    /// Whether it has what it is to have.
    pub fn is_current(&self) -> bool {
        !self.current.is_empty() && self.current == self.sent && self.current == self.acknowledged
    }
}

fn text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// One connected Envoy, for people who look for the reason of something.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamState {
    /// The namespace of its pod.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its workload.
    pub workload: WorkloadName,
    /// The variant of the protocol that it uses.
    pub protocol: Protocol,
    /// For how long it has been connected.
    pub connected_seconds: u64,
    /// By `cds`, `eds`, `lds` and `rds`.
    pub resources: BTreeMap<&'static str, Versions>,
    /// Why Envoy rejected its configuration the last time, if it ever did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rejection: Option<String>,
}

/// What a stream reports of itself.
#[derive(Debug, Default)]
struct Report {
    progress: [Progress; KINDS],
    last_rejection: Option<String>,
}

struct Stream {
    caller: Caller,
    protocol: Protocol,
    since: Instant,
    report: Arc<Mutex<Report>>,
}

struct Workload {
    snapshots: watch::Sender<Option<Arc<Versioned>>>,
    /// By number; never empty.
    streams: BTreeMap<u64, Stream>,
}

#[derive(Default)]
struct State {
    workloads: HashMap<WorkloadName, Workload>,
    streams: u64,
    /// What pods' Envoys were told last that they refuse.
    refusals: HashMap<Caller, String>,
}

/// The snapshots of all connected workloads.
#[derive(Default)]
pub struct Cache {
    state: Mutex<State>,
    connections: watch::Sender<()>,
}

impl Cache {
    /// Adds a stream of a workload, for as long as the subscription is held. The last one of a workload that goes takes
    /// the snapshot with it.
    pub fn subscribe(self: &Arc<Self>, workload: WorkloadName, caller: Caller, protocol: Protocol) -> Subscription {
        let report = Arc::<Mutex<Report>>::default();
        let mut state = self.state();
        state.streams += 1;
        let id = state.streams;
        let stream = Stream { caller: caller.clone(), protocol, since: Instant::now(), report: report.clone() };
        let entry = state.workloads.entry(workload.clone());
        let entry = entry.or_insert_with(|| Workload { snapshots: watch::channel(None).0, streams: BTreeMap::new() });
        entry.streams.insert(id, stream);
        let first = entry.streams.len() == 1;
        let mut snapshots = entry.snapshots.subscribe();
        drop(state);
        snapshots.mark_changed();
        if first {
            self.connections.send_replace(());
        }
        Subscription { cache: self.clone(), workload, caller, id, snapshots, report, ends_with_refusal: false }
    }

    /// From now on the workload's Envoys are to have this. Nothing happens if they are to have it already, or if the
    /// workload is not connected.
    pub fn set(&self, workload: &WorkloadName, snapshot: Arc<Snapshot>) {
        let snapshots = self.state().workloads.get(workload).map(|workload| workload.snapshots.clone());
        let Some(snapshots) = snapshots else { return };
        let is_news = |current: &Option<Arc<Versioned>>| !current.as_ref().is_some_and(|now| now.snapshot == snapshot);
        if is_news(&snapshots.borrow()) {
            snapshots.send_replace(Some(Arc::new(Versioned::new(snapshot.clone()))));
        }
    }

    /// The workloads that have streams.
    pub fn connected(&self) -> BTreeSet<WorkloadName> {
        self.state().workloads.keys().cloned().collect()
    }

    /// The workloads that have streams but no snapshot yet. A workload whose last stream has gone and that connects again
    /// is among them, however fast that was.
    pub fn waiting(&self) -> BTreeSet<WorkloadName> {
        let state = self.state();
        let waits = |(_, workload): &(&WorkloadName, &Workload)| workload.snapshots.borrow().is_none();
        state.workloads.iter().filter(waits).map(|(name, _)| name.clone()).collect()
    }

    /// Changes whenever a workload gets its first stream or loses its last.
    pub fn connections(&self) -> watch::Receiver<()> {
        self.connections.subscribe()
    }

    /// All streams, those of one workload side by side.
    pub fn streams(&self) -> Vec<StreamState> {
        let state = self.state();
        let mut streams: Vec<_> = state
            .workloads
            .iter()
            .flat_map(|(name, workload)| workload.streams.values().map(move |stream| stream.state(name, workload)))
            .collect();
        drop(state);
        let key = |stream: &StreamState| (stream.workload.clone(), stream.namespace.clone(), stream.pod.clone());
        streams.sort_by_cached_key(key);
        streams
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    fn state(&self, name: &WorkloadName, workload: &Workload) -> StreamState {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let target = workload.snapshots.borrow();
        let versions = |kind: Kind| {
            let Progress { sent, acknowledged } = report.progress[kind as usize].clone();
            let current = target.as_ref().map(|target| target.version(kind).clone()).unwrap_or_default();
            (kind.as_str(), Versions { current, sent, acknowledged })
        };
        StreamState {
            namespace: self.caller.namespace.clone(),
            pod: self.caller.pod.clone(),
            workload: name.clone(),
            protocol: self.protocol,
            connected_seconds: self.since.elapsed().as_secs(),
            resources: Kind::ALL.into_iter().map(versions).collect(),
            last_rejection: report.last_rejection.clone(),
        }
    }
}

/// A stream's place in the cache.
pub struct Subscription {
    cache: Arc<Cache>,
    workload: WorkloadName,
    caller: Caller,
    id: u64,
    snapshots: watch::Receiver<Option<Arc<Versioned>>>,
    report: Arc<Mutex<Report>>,
    ends_with_refusal: bool,
}

impl Subscription {
    /// Waits for a snapshot that was not returned yet. Those in between are left out. It may be dropped and called again.
    pub async fn next(&mut self) -> Arc<Versioned> {
        loop {
            if self.snapshots.changed().await.is_err() {
                // The cache has forgotten the workload, which it does not while this subscription is held.
                return std::future::pending().await;
            }
            if let Some(versioned) = &*self.snapshots.borrow_and_update() {
                return versioned.clone();
            }
        }
    }

    /// Notes what Envoy was sent and has accepted.
    pub fn report(&self, progress: [Progress; KINDS]) {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).progress = progress;
    }

    /// Whether Envoy must be told what it refuses. That ends the stream: so it is told once, also if it then comes back.
    pub fn must_tell(&mut self, refusal: Option<&str>) -> bool {
        let mut state = self.cache.state();
        let last = state.refusals.get(&self.caller).map(String::as_str);
        let Some(refusal) = refusal.filter(|refusal| last != Some(refusal)) else {
            if refusal.is_none() {
                state.refusals.remove(&self.caller);
            }
            return false;
        };
        state.refusals.insert(self.caller.clone(), refusal.to_owned());
        self.ends_with_refusal = true;
        true
    }

    /// Notes that Envoy has rejected its configuration.
    pub fn report_rejection(&self, message: String) {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).last_rejection = Some(message);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.cache.state();
        if !self.ends_with_refusal {
            state.refusals.remove(&self.caller);
        }
        let Some(workload) = state.workloads.get_mut(&self.workload) else { return };
        workload.streams.remove(&self.id);
        if workload.streams.is_empty() {
            state.workloads.remove(&self.workload);
            drop(state);
            self.cache.connections.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{envoy::Resource, model::WorkloadKind};
    use envoy_types::pb::google::protobuf::Any;

    fn workload(name: &str) -> WorkloadName {
        WorkloadName { mesh: "shop".to_owned(), kind: WorkloadKind::VirtualNode, name: name.to_owned() }
    }

    fn caller(pod: &str) -> Caller {
        Caller { namespace: "shop".to_owned(), pod: pod.to_owned(), uid: String::new() }
    }

    fn snapshot(version: &str) -> Arc<Snapshot> {
        let body = Any::default();
        let resource = Resource { name: "red".to_owned(), version: version.to_owned(), body };
        Arc::new(Snapshot { clusters: [("red".to_owned(), Arc::new(resource))].into(), ..Snapshot::default() })
    }

    fn names(workloads: &BTreeSet<WorkloadName>) -> Vec<&str> {
        workloads.iter().map(|workload| workload.name.as_str()).collect()
    }

    #[tokio::test]
    async fn a_stream_gets_each_new_snapshot_of_its_workload() {
        let cache = Arc::new(Cache::default());
        let mut front = cache.subscribe(workload("front"), caller("front-1"), Protocol::Delta);
        let mut back = cache.subscribe(workload("back"), caller("back-1"), Protocol::Sotw);
        assert!(!front.snapshots.has_changed().unwrap() || front.snapshots.borrow().is_none());
        cache.set(&workload("front"), snapshot("1"));
        let first = front.next().await;
        assert_eq!(first.snapshot, snapshot("1"));
        cache.set(&workload("front"), snapshot("1"));
        assert!(!front.snapshots.has_changed().unwrap(), "the same again, seen first at another time");
        cache.set(&workload("front"), snapshot("2"));
        let second = front.next().await;
        assert_eq!(second.snapshot, snapshot("2"));
        assert_ne!(first.version(Kind::Cluster), second.version(Kind::Cluster));
        assert_eq!(first.version(Kind::Route), second.version(Kind::Route));
        cache.set(&workload("back"), snapshot("3"));
        assert_eq!(back.next().await.snapshot, snapshot("3"));
        assert!(!front.snapshots.has_changed().unwrap(), "another workload's");
        let mut later = cache.subscribe(workload("front"), caller("front-2"), Protocol::Delta);
        assert_eq!(later.next().await.snapshot, snapshot("2"), "the second stream needs no new snapshot");
    }

    #[test]
    fn the_last_stream_of_a_workload_takes_the_snapshot_with_it() {
        let cache = Arc::new(Cache::default());
        let mut connections = cache.connections();
        let mut changed = move || {
            let changed = connections.has_changed().unwrap();
            connections.mark_unchanged();
            changed
        };
        cache.set(&workload("front"), snapshot("1"));
        assert!(cache.connected().is_empty() && !changed(), "nobody is connected");
        let one = cache.subscribe(workload("front"), caller("front-1"), Protocol::Delta);
        assert!(changed());
        assert_eq!(names(&cache.waiting()), ["front"]);
        cache.set(&workload("front"), snapshot("1"));
        assert_eq!((names(&cache.waiting()), names(&cache.connected())), (vec![], vec!["front"]));
        let other = cache.subscribe(workload("front"), caller("front-2"), Protocol::Delta);
        drop(one);
        assert!(!changed(), "neither the first nor the last");
        let kept = Arc::downgrade(other.snapshots.borrow().as_ref().unwrap());
        drop(other);
        assert!(changed() && cache.connected().is_empty() && kept.upgrade().is_none());
        let _again = cache.subscribe(workload("front"), caller("front-1"), Protocol::Delta);
        assert_eq!(names(&cache.waiting()), ["front"]);
    }

    #[test]
    fn an_envoy_is_told_once_what_it_refuses() {
        let cache = Arc::new(Cache::default());
        let stream = |pod: &str| cache.subscribe(workload("front"), caller(pod), Protocol::Delta);
        let mut one = stream("front-1");
        assert!(!one.must_tell(None) && one.must_tell(Some("a")));
        drop(one);
        let (mut again, mut other) = (stream("front-1"), stream("front-2"));
        assert!(!again.must_tell(Some("a")), "the stream before ended with it");
        assert!(other.must_tell(Some("a")), "another pod");
        assert!(again.must_tell(Some("b")), "another reason");
        drop(again);
        let mut again = stream("front-1");
        assert!(!again.must_tell(Some("b")));
        assert!(!again.must_tell(None) && again.must_tell(Some("b")), "it was mended since");
        drop((again, other));
        let streams = ["front-1", "front-2"].map(stream);
        drop(streams);
        assert!(cache.state().refusals.is_empty(), "their pods may have gone");
    }

    #[test]
    fn streams_are_listed_with_what_they_report() {
        let cache = Arc::new(Cache::default());
        let _back = cache.subscribe(workload("front"), caller("front-2"), Protocol::Sotw);
        let front = cache.subscribe(workload("front"), caller("front-1"), Protocol::Delta);
        let progress =
            |sent: &str, acknowledged: &str| Progress { sent: sent.into(), acknowledged: acknowledged.into() };
        front.report([progress("", ""), progress("2", "1"), progress("3", "3"), progress("", ""), progress("", "")]);
        front.report_rejection("no".to_owned());
        let mut streams = serde_json::to_value(cache.streams()).unwrap();
        streams[0]["connectedSeconds"] = 0.into();
        let none = serde_json::json!({"current": "", "sent": "", "acknowledged": ""});
        assert_eq!(
            streams[0],
            serde_json::json!({
                "namespace": "shop", "pod": "front-1", "workload": "mesh/shop/virtualNode/front", "protocol": "delta",
                "connectedSeconds": 0, "lastRejection": "no",
                "resources": {
                    "cds": {"current": "", "sent": "2", "acknowledged": "1"},
                    "eds": {"current": "", "sent": "3", "acknowledged": "3"},
                    "sds": none, "lds": none, "rds": none,
                },
            })
        );
        cache.set(&workload("front"), snapshot("1"));
        let current = cache.streams()[0].resources["cds"].current.clone();
        front.report([0; KINDS].map(|_| progress(&current, "1")));
        assert!(!cache.streams()[0].resources["cds"].is_current());
        front.report([0; KINDS].map(|_| progress(&current, &current)));
        assert!(cache.streams()[0].resources["cds"].is_current());
        assert_eq!(streams[1]["pod"], "front-2");
    }
}
