//! Makes Cloud Map match what this cluster wants there: its pods and what it publishes. Only the leader writes; the other
//! replicas look at the same services, to know where others have registered instances beside this cluster's.
//!
//! A service is settled when it has become dirty: what is wanted of it has changed, an operation has ended, or the minute's
//! comparison is due. So the cost is that of the changes, and of a list of all services, with how many instances each has,
//! a few times a minute. What changes is taken down in the namespace's journal, which is settled as any other service.

mod plan;
mod schedule;
mod settle;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable as _};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    schedule::Schedule,
    settle::{Present, Progress},
};
use super::{
    client::{CloudMap, describe},
    exchange, jitter,
    journal::{self, Journal},
};
use crate::model::{Attributes, ClusterId, Instances, ServiceKey, VirtualServiceKey, endpoint};

/// A burst of changes is one look.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How often a service is compared though nothing has changed here.
const COMPARE: Duration = Duration::from_secs(60);
/// Services that are settled at once.
const CONCURRENCY: usize = 8;
/// The waits after failures, the first and the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What a Cloud Map service should hold of this cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// For a publication: the service is for DiscoverInstances only and has no DNS records, and all instances are one
    /// document.
    pub api_only: bool,
    /// Instances by id, each with [`endpoint::CLUSTER`].
    pub instances: Instances,
    /// The VirtualNodes whose pods they are, by mesh and name in AWS's terms: what Amazon's controller has left of them is
    /// removed.
    pub nodes: BTreeSet<(String, String)>,
    /// For a publication, the services that it points to. As long as one of them is not there, and this cluster is to fill
    /// it, an older publication stays.
    pub after: BTreeSet<ServiceKey>,
}

/// What is in a Cloud Map service, and why that may not be all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Ids of the instances that callers find; `None` until they were seen.
    pub instances: Option<BTreeSet<String>>,
    /// Ids of the instances that Cloud Map has not added yet.
    pub starting: BTreeSet<String>,
    /// What is in the way.
    pub trouble: Option<String>,
}

/// Instances are still on their way out.
#[derive(Debug, thiserror::Error)]
#[error("Cloud Map instances are leaving")]
pub struct Leaving;

/// Registers instances. [`Writer::run`] does the work.
pub struct Writer {
    cloudmap: CloudMap,
    cluster: ClusterId,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    leading: bool,
    services: BTreeMap<ServiceKey, Entry>,
    schedule: Schedule,
    /// The services in which each subject is wanted.
    places: HashMap<Subject, Vec<ServiceKey>>,
    /// The services that wait for a change of this one.
    waiting: BTreeMap<ServiceKey, BTreeSet<ServiceKey>>,
    /// While this replica leads, the journals of the namespaces in which something is wanted.
    journals: BTreeMap<String, Journal>,
    subscribers: Vec<mpsc::UnboundedSender<ServiceKey>>,
}

/// A service that is or was wanted.
#[derive(Default)]
struct Entry {
    want: Option<Arc<Want>>,
    /// One task at a time settles a service.
    slot: Slot,
    registered: Arc<Registered>,
    /// Whether others have registered instances there too; `None` until it was looked.
    shared: Option<bool>,
    /// When the next comparison is due.
    compare: Option<Instant>,
    failures: i32,
    /// What was logged last.
    error: Option<String>,
}

/// Holds what is present in a service.
type Slot = Arc<tokio::sync::Mutex<Present>>;

/// What an instance stands for, wherever it is registered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// A pod, by namespace and name.
    Pod(String, String),
    /// A VirtualService that is published, by ARN.
    VirtualService(String),
}

impl Subject {
    fn of(attributes: &Attributes) -> Option<Self> {
        let pod = endpoint::pod_of(attributes).map(|(namespace, name)| Self::Pod(namespace, name));
        pod.or_else(|| exchange::arn_of(attributes).map(|arn| Self::VirtualService(arn.to_owned())))
    }

    fn all_of(want: Option<&Want>) -> BTreeMap<&str, Self> {
        let instances = want.into_iter().flat_map(|want| &want.instances);
        instances.filter_map(|(id, attributes)| Some((id.as_str(), Self::of(attributes)?))).collect()
    }
}

impl State {
    fn at_once(&mut self, key: &ServiceKey) {
        self.schedule.by(key, Instant::now());
    }

    /// Notes what is wanted; returns whether that is another than before.
    fn want(&mut self, key: &ServiceKey, want: Option<Want>) -> bool {
        if want.is_none() && !self.services.contains_key(key) {
            return false;
        }
        let entry = self.services.entry(key.clone()).or_default();
        if entry.want.as_deref() == want.as_ref() {
            return false;
        }
        let before = std::mem::replace(&mut entry.want, want.map(Arc::new));
        let now = entry.want.clone();
        for subject in Subject::all_of(before.as_deref()).into_values() {
            if let Some(places) = self.places.get_mut(&subject) {
                places.retain(|place| place != key);
                if places.is_empty() {
                    self.places.remove(&subject);
                }
            }
        }
        for subject in Subject::all_of(now.as_deref()).into_values() {
            // Nearly always one, of which there are as many as pods: no room for more.
            let places = self.places.entry(subject).or_default();
            if !places.contains(key) {
                places.reserve_exact(1);
                places.push(key.clone());
            }
        }
        self.schedule.by(key, Instant::now() + DEBOUNCE);
        self.wake_waiting(key);
        true
    }

    /// Keeps a journal of this namespace from now on.
    fn open_journal(&mut self, namespace: &str, cluster: &ClusterId) {
        if self.leading && !self.journals.contains_key(namespace) {
            self.journals.insert(namespace.to_owned(), Journal::new());
            self.write_journal(namespace, cluster);
        }
    }

    /// Takes down that something changes in a service.
    fn note(&mut self, key: &ServiceKey, cluster: &ClusterId) {
        if let Some(journal) = self.journals.get_mut(&key.namespace).filter(|_| !journal::is_journal(key)) {
            journal.note(&key.service);
            self.write_journal(&key.namespace, cluster);
        }
    }

    fn write_journal(&mut self, namespace: &str, cluster: &ClusterId) {
        let instances = self.journals.get(namespace).map(|journal| journal.instances(cluster));
        let want = instances.map(|instances| Want { api_only: true, instances, ..Want::default() });
        let key = journal::service_key(namespace);
        self.want(&key, want);
        // Whatever is taken down has had its wait.
        self.at_once(&key);
    }

    /// Leaves the journals to whoever leads next.
    fn end_journals(&mut self) {
        for namespace in std::mem::take(&mut self.journals).into_keys() {
            let key = journal::service_key(&namespace);
            self.services.remove(&key);
            self.schedule.remove(&key);
        }
    }

    /// Ends the journal of a namespace in which nothing of this cluster is left; returns whether nothing is.
    fn close_journal(&mut self, namespace: &str, cluster: &ClusterId) -> bool {
        let first = ServiceKey { namespace: namespace.to_owned(), service: String::new() };
        let mut services =
            self.services.range(first..).map(|(key, _)| key).take_while(|key| key.namespace == namespace);
        let nothing_left = services.all(journal::is_journal);
        if nothing_left && self.journals.remove(namespace).is_some() {
            self.write_journal(namespace, cluster);
        }
        nothing_left
    }

    fn wake_waiting(&mut self, key: &ServiceKey) {
        for waiting in self.waiting.remove(key).unwrap_or_default() {
            self.at_once(&waiting);
        }
    }

    /// Whether all that this cluster wants in a service is there, but for what Cloud Map refuses.
    fn is_filled(&self, key: &ServiceKey) -> bool {
        let Some(entry) = self.services.get(key) else { return true };
        let Some(want) = &entry.want else { return true };
        let Registered { instances: Some(present), trouble, .. } = &*entry.registered else { return false };
        let missing = want.instances.keys().filter(|id| !present.contains(*id)).count();
        missing == 0 || (trouble.is_some() && missing < want.instances.len())
    }

    /// Makes known what was seen.
    fn report(&mut self, key: &ServiceKey, registered: Registered, shared: Option<bool>) {
        let Some(entry) = self.services.get_mut(key) else { return };
        if *entry.registered == registered && entry.shared == shared {
            return;
        }
        entry.registered = Arc::new(registered);
        entry.shared = shared;
        self.notify(key);
        self.wake_waiting(key);
    }

    fn notify(&mut self, key: &ServiceKey) {
        self.subscribers.retain(|subscriber| subscriber.send(key.clone()).is_ok());
    }
}

impl Writer {
    /// A writer for this cluster, which wants nothing yet.
    pub fn new(cloudmap: CloudMap, cluster: ClusterId) -> Arc<Self> {
        Arc::new(Self { cloudmap, cluster, state: Mutex::default(), wake: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what this cluster wants of services; `None` removes all that is of this cluster. What moves from one to
    /// another must be noted at once: nothing is settled in between.
    pub fn set(&self, wants: impl IntoIterator<Item = (ServiceKey, Option<Want>)>) {
        // Whoever makes them may hold other locks.
        let wants: Vec<_> = wants.into_iter().collect();
        let mut state = self.lock();
        let mut changed = false;
        for (key, want) in wants {
            if want.is_some() {
                state.open_journal(&key.namespace, &self.cluster);
            }
            changed |= state.want(&key, want);
        }
        if changed {
            self.wake.notify_one();
        }
    }

    /// What was seen of a service; `None` if this cluster wants nothing there.
    pub fn registered(&self, key: &ServiceKey) -> Option<Arc<Registered>> {
        self.lock().services.get(key).filter(|entry| entry.want.is_some()).map(|entry| entry.registered.clone())
    }

    /// The services of this cluster's pods in which others have registered instances too, or may have.
    pub fn foreign(&self) -> BTreeSet<ServiceKey> {
        let state = self.lock();
        let of_pods = |entry: &Entry| entry.want.as_ref().is_some_and(|want| !want.api_only);
        let shared = state.services.iter().filter(|(_, entry)| entry.shared != Some(false) && of_pods(entry));
        shared.map(|(key, _)| key.clone()).collect()
    }

    /// Receives each service of which [`Self::registered`] or [`Self::foreign`] may say something new.
    pub fn changes(&self) -> mpsc::UnboundedReceiver<ServiceKey> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().subscribers.push(sender);
        receiver
    }

    /// The names of the Cloud Map namespaces of the account, each with how many have it.
    ///
    /// # Errors
    /// Cloud Map does not answer.
    pub async fn namespaces(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        let mut names = BTreeMap::new();
        for (name, _) in self.cloudmap.list_namespaces(None).await? {
            *names.entry(name).or_default() += 1;
        }
        Ok(names)
    }

    /// Looks in every namespace for what is published under these ARNs and not wanted there: what an earlier leader was to
    /// remove, nobody else has noted. Tried for a quarter of an hour. For the leader.
    pub async fn sweep(&self, arns: &BTreeSet<String>) {
        let names = || async {
            anyhow::ensure!(self.lock().leading, "another leader has not ended yet");
            self.namespaces().await
        };
        let backoff = ExponentialBuilder::default().with_max_delay(LAST_RETRY).with_max_times(20).with_jitter();
        let Ok(names) = names.retry(backoff).await else { return };
        let mut state = self.lock();
        for namespace in names.into_iter().filter_map(|(name, namesakes)| (namesakes == 1).then_some(name)) {
            for arn in arns {
                let key = exchange::service_key(&VirtualServiceKey { namespace: namespace.clone(), arn: arn.clone() });
                if !state.services.contains_key(&key) {
                    state.services.insert(key.clone(), Entry::default());
                    state.at_once(&key);
                }
            }
        }
        self.wake.notify_one();
    }

    /// Brings each of these services to what is wanted now, and removes those nobody wants, within half a minute. For the
    /// leader.
    ///
    /// # Errors
    /// [`Leaving`], or Cloud Map refuses: something is still there.
    pub async fn forget(self: &Arc<Self>, keys: &BTreeSet<ServiceKey>) -> anyhow::Result<()> {
        let backoff = ExponentialBuilder::default().with_min_delay(Duration::from_millis(200)).with_max_times(7);
        let forget = async |key: &ServiceKey| {
            self.lock().services.entry(key.clone()).or_default();
            let settle = || async {
                let progress = self.settle(key).await?;
                anyhow::ensure!(progress != Progress::Leaving, Leaving);
                anyhow::Ok(progress)
            };
            let settled = settle.retry(backoff).await.inspect_err(|_| self.lock().at_once(key));
            let progress = settled.with_context(|| format!("clearing Cloud Map service {key}"))?;
            self.after(key, Ok(progress));
            anyhow::Ok(())
        };
        for key in keys {
            forget(key).await?;
        }
        // Whoever removes the last thing may delete the namespace next.
        let namespaces: BTreeSet<_> = keys.iter().map(|key| key.namespace.as_str()).collect();
        for namespace in namespaces {
            let nothing_left = self.lock().close_journal(namespace, &self.cluster);
            if nothing_left {
                forget(&journal::service_key(namespace)).await?;
            }
        }
        Ok(())
    }

    /// Keeps Cloud Map current while `leader` says so, until `stop`.
    pub async fn run(self: Arc<Self>, mut leader: watch::Receiver<bool>, stop: CancellationToken) {
        let work = async {
            let mut under_way = BTreeSet::new();
            let mut settling = FuturesUnordered::new();
            self.lead(*leader.borrow_and_update());
            loop {
                while settling.len() < CONCURRENCY
                    && let Some(key) = self.next(&under_way)
                {
                    under_way.insert(key.clone());
                    settling.push(async {
                        let settled = self.settle(&key).await;
                        self.after(&key, settled);
                        key
                    });
                }
                let due = self.lock().schedule.next(&under_way).filter(|_| settling.len() < CONCURRENCY);
                tokio::select! {
                    alive = leader.changed() => {
                        if alive.is_err() { return }
                        settling.clear();
                        under_way.clear();
                        self.lead(*leader.borrow_and_update());
                    }
                    Some(key) = settling.next() => drop(under_way.remove(&key)),
                    () = self.wake.notified() => {}
                    () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// Begins anew, as the leader or as one that only looks: another replica may have changed everything.
    fn lead(&self, leading: bool) {
        let mut state = self.lock();
        state.leading = leading;
        state.end_journals();
        let wanted = state.services.iter().filter(|(_, entry)| entry.want.is_some());
        let namespaces: BTreeSet<_> = wanted.map(|(key, _)| key.namespace.clone()).collect();
        namespaces.iter().for_each(|namespace| state.open_journal(namespace, &self.cluster));
        let keys: Vec<_> = state.services.keys().cloned().collect();
        for key in keys {
            if let Some(entry) = state.services.get_mut(&key) {
                entry.slot = Slot::default();
                entry.registered = Arc::default();
                entry.compare = None;
            }
            state.notify(&key);
            state.at_once(&key);
        }
    }

    fn next(&self, under_way: &BTreeSet<ServiceKey>) -> Option<ServiceKey> {
        self.lock().schedule.take(Instant::now(), under_way)
    }

    /// Decides when a service is looked at again, and says what is new about failures.
    fn after(&self, key: &ServiceKey, settled: anyhow::Result<Progress>) {
        let mut state = self.lock();
        let Some(entry) = state.services.get_mut(key) else { return };
        match settled {
            Ok(Progress::Gone) if entry.want.is_none() => {
                state.services.remove(key);
                state.schedule.remove(key);
                state.wake_waiting(key);
                state.close_journal(&key.namespace, &self.cluster);
            }
            Ok(progress) => {
                // What is under way may fail yet, and as often as it is tried.
                if progress != Progress::UnderWay {
                    if entry.error.take().is_some() {
                        tracing::info!(service = %key, "Cloud Map service is settled again");
                    }
                    entry.failures = 0;
                }
                let next = entry.compare.unwrap_or_else(|| Instant::now() + COMPARE);
                state.schedule.by(key, next);
            }
            Err(error) => {
                let error = describe(&error);
                if entry.error.as_ref() != Some(&error) {
                    tracing::warn!(service = %key, error, "cannot settle Cloud Map service, trying again");
                }
                entry.error = Some(error);
                let wait = FIRST_RETRY.mul_f64(2_f64.powi(entry.failures.min(10))).min(LAST_RETRY);
                entry.failures += 1;
                state.schedule.by(key, Instant::now() + jitter(wait));
            }
        }
    }
}

#[cfg(test)]
mod tests;
