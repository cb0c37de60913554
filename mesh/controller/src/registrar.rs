//! Makes Cloud Map match what this cluster wants there: its pods and its published routes. Only the leader writes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use backon::{BackoffBuilder as _, ExponentialBuilder, Retryable as _};
use futures::{StreamExt as _, stream};
use tokio::{
    sync::{Mutex, Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cloudmap::{Attributes, CloudMap, Instances, Service, ServiceKey, told},
    identity::Identity,
    publish, registration,
    store::{Snapshot, Store},
};

/// Attribute of every instance this controller registers: the cluster it is of. Instances of other clusters, or of no
/// told one, are never removed.
pub const CLUSTER: &str = "appmesh.k8s.aws/cluster";

/// A burst of changes is one look.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often Cloud Map is compared though nothing has changed here.
const RESYNC: Duration = Duration::from_secs(60);
/// Calls under way at once.
const CONCURRENCY: usize = 8;

/// What a Cloud Map service should hold of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// For DiscoverInstances only, with no DNS records.
    pub api_only: bool,
    /// Instances by id, each with [`CLUSTER`].
    pub instances: Instances,
}

/// One step from what is to what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add or replace.
    Register(String, Attributes),
    /// Remove.
    Deregister(String),
}

/// The steps that bring a service's instances to what this cluster wants: first what is missing or different, then what
/// is this cluster's and not wanted any more.
pub fn plan(want: &Instances, have: &Instances, cluster: &str) -> Vec<Change> {
    let register = want.iter().filter(|(id, attributes)| !have.get(*id).is_some_and(|have| same(attributes, have)));
    let leaving = have.iter().filter(|(id, attributes)| {
        !want.contains_key(*id) && attributes.get(CLUSTER).is_some_and(|owner| owner == cluster)
    });
    let register = register.map(|(id, attributes)| Change::Register(id.clone(), attributes.clone()));
    register.chain(leaving.map(|(id, _)| Change::Deregister(id.clone()))).collect()
}

/// Cloud Map adds attributes of its own, such as AWS_INIT_HEALTH_STATUS.
fn same(want: &Attributes, have: &Attributes) -> bool {
    let given = have.iter().filter(|(key, _)| want.contains_key(*key) || !key.starts_with("AWS_"));
    want.iter().eq(given)
}

/// Instances are still on their way out.
#[derive(Debug, thiserror::Error)]
#[error("Cloud Map instances are leaving")]
pub struct Leaving;

/// The writer.
pub struct Registrar {
    cloudmap: CloudMap,
    store: Store,
    identity: Identity,
    cluster: String,
    /// One service is settled by one task at a time.
    seen: Mutex<HashMap<ServiceKey, Slot>>,
    registered: watch::Sender<BTreeMap<ServiceKey, Registered>>,
    /// Asks for another look.
    again: Arc<Notify>,
}

/// Holds what is known of a service.
type Slot = Arc<Mutex<Option<Seen>>>;

/// A Cloud Map service as it was last seen, our own changes applied.
struct Seen {
    service: Service,
    /// Of the list; `None` once we have changed something ourselves.
    revision: Option<i64>,
    instances: Instances,
    /// Those of the instances that Cloud Map has not added yet.
    starting: BTreeSet<String>,
}

impl Seen {
    fn new(service: Service, revision: Option<i64>, instances: Instances) -> Self {
        Self { service, revision, instances, starting: BTreeSet::new() }
    }
}

/// What callers find of a Cloud Map service, and why it may not be all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// `None` until it was seen.
    instances: Option<BTreeSet<String>>,
    trouble: Option<String>,
}

/// Whether a pod is an instance in Cloud Map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// `None` as long as nobody knows.
    pub there: Option<bool>,
    /// What is in the way.
    pub trouble: Option<String>,
}

/// The pods that are to be found in Cloud Map, by namespace and name.
pub type Pods = BTreeMap<(String, String), Registration>;

impl Registrar {
    /// `cluster` tells this cluster from others: the uid of its namespace kube-system.
    pub fn new(cloudmap: CloudMap, store: Store, identity: Identity, cluster: String) -> Arc<Self> {
        let (seen, registered, again) = (Mutex::default(), watch::Sender::default(), Arc::default());
        Arc::new(Self { cloudmap, store, identity, cluster, seen, registered, again })
    }

    /// Whether the ready pods are registered.
    pub fn pods(&self, snapshot: &Snapshot) -> Pods {
        let (known, mut pods) = (self.registered.borrow(), Pods::new());
        for (key, want) in registration::desired(snapshot, &self.identity.region, &self.cluster) {
            let known = known.get(&key);
            for (id, attributes) in &want.instances {
                let there = known.and_then(|known| Some(known.instances.as_ref()?.contains(id)));
                let registration = Registration { there, trouble: known.and_then(|known| known.trouble.clone()) };
                pods.extend(registration::pod_of(attributes).map(|pod| (pod, registration)));
            }
        }
        pods
    }

    /// Wakes whenever what [`Self::pods`] tells may have changed.
    pub fn registering(&self) -> watch::Receiver<BTreeMap<ServiceKey, Registered>> {
        self.registered.subscribe()
    }

    /// The account the ARNs are of.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the cluster says now.
    pub fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// The names of all Cloud Map namespaces of the account.
    pub async fn namespaces(&self) -> anyhow::Result<BTreeSet<String>> {
        Ok(self.cloudmap.list_namespaces(None).await?.into_iter().map(|(name, _)| name).collect())
    }

    /// Keeps Cloud Map current while `leader` says so, until `stop`.
    pub async fn run(self: Arc<Self>, mut leader: watch::Receiver<bool>, stop: CancellationToken) {
        let work = async {
            let mut changed = self.store.changed();
            let mut resync = interval(RESYNC);
            resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut errors = BTreeMap::new();
            let mut delays = delays();
            let mut retry = None;
            loop {
                let mut check = false;
                tokio::select! {
                    alive = changed.changed() => {
                        if alive.is_err() { return }
                        sleep(DEBOUNCE).await;
                    }
                    alive = leader.changed() => if alive.is_err() { return },
                    () = self.again.notified() => check = true,
                    _ = resync.tick() => check = true,
                    () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {}
                }
                changed.mark_unchanged();
                if !*leader.borrow_and_update() {
                    self.seen.lock().await.clear();
                    self.registered.send_replace(BTreeMap::new());
                    continue;
                }
                let failed = self.settle_all(check).await;
                report(&mut errors, failed);
                if errors.is_empty() {
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

    /// Brings each of these services to what is wanted now, and removes those nobody wants, within half a minute.
    ///
    /// # Errors
    /// Something is still there.
    pub async fn forget(&self, keys: BTreeSet<ServiceKey>) -> anyhow::Result<()> {
        let backoff = ExponentialBuilder::default().with_min_delay(Duration::from_millis(200)).with_max_times(7);
        for key in &keys {
            let settle = || async { self.settle(key, self.desired().get(key), true).await };
            settle.retry(backoff).await.with_context(|| format!("clearing Cloud Map service {key}"))?;
        }
        Ok(())
    }

    fn desired(&self) -> BTreeMap<ServiceKey, Want> {
        let snapshot = self.store.snapshot();
        let mut desired = registration::desired(&snapshot, &self.identity.region, &self.cluster);
        desired.extend(publish::desired(&snapshot, &self.identity, &self.cluster));
        desired
    }

    /// Settles all services that are or were wanted; tells what failed.
    async fn settle_all(&self, check: bool) -> BTreeMap<ServiceKey, anyhow::Error> {
        let desired = self.desired();
        let known: BTreeSet<_> = self.seen.lock().await.keys().cloned().collect();
        let keys: BTreeSet<_> = known.into_iter().chain(desired.keys().cloned()).collect();
        let settled = stream::iter(keys).map(|key| async {
            let settled = self.settle(&key, desired.get(&key), check).await;
            settled.err().map(|error| (key, error))
        });
        settled.buffer_unordered(CONCURRENCY).filter_map(std::future::ready).collect().await
    }

    /// Observe, plan, apply for one service. `check` asks Cloud Map even if nothing is known to have changed.
    async fn settle(&self, key: &ServiceKey, want: Option<&Want>, check: bool) -> anyhow::Result<()> {
        let slot = self.seen.lock().await.entry(key.clone()).or_default().clone();
        let mut seen = slot.lock().await;
        let settled = match want {
            Some(want) => self.fill(key, want, check, &slot, &mut seen).await,
            None => self.clear(key, &slot, &mut seen).await,
        };
        tell(&self.registered, key, seen.as_ref(), settled.as_ref().err().map(told));
        if settled.is_err() {
            *seen = None;
        } else if want.is_none() {
            self.seen.lock().await.remove(key);
            self.registered.send_modify(|registered| drop(registered.remove(key)));
        }
        settled
    }

    async fn fill(
        &self,
        key: &ServiceKey,
        want: &Want,
        check: bool,
        slot: &Slot,
        seen: &mut Option<Seen>,
    ) -> anyhow::Result<()> {
        if check && !self.is_current(key, seen.as_ref()).await? {
            *seen = None;
        }
        let seen = match seen {
            Some(seen) => seen,
            None => seen.insert(self.observe(key, want).await?),
        };
        let changes = plan(&want.instances, &seen.instances, &self.cluster);
        self.apply(key, changes, slot, seen).await
    }

    async fn is_current(&self, key: &ServiceKey, seen: Option<&Seen>) -> anyhow::Result<bool> {
        let Some(known) = seen.and_then(|seen| seen.revision) else { return Ok(false) };
        let Some(namespace) = self.cloudmap.namespace(&key.namespace).await? else { return Ok(false) };
        Ok(self.cloudmap.revision(&namespace, &key.service).await? == Some(known))
    }

    async fn observe(&self, key: &ServiceKey, want: &Want) -> anyhow::Result<Seen> {
        let namespace = self.cloudmap.namespace(&key.namespace).await?;
        let namespace = namespace.with_context(|| format!("Cloud Map namespace not found: {}", key.namespace))?;
        let service = match self.cloudmap.service(&namespace, &key.service).await? {
            Some(service) => service,
            None => {
                // A namespace that was deleted and made again has another id.
                let made = self.cloudmap.create_service(&namespace, &key.service, want.api_only).await;
                let made = made.inspect_err(|_| self.cloudmap.forget_namespace(&key.namespace))?;
                tracing::info!(service = %key, id = made.id, "created Cloud Map service");
                made
            }
        };
        // Before the list, so that a change in between is seen at the next check.
        let revision = self.cloudmap.revision(&namespace, &key.service).await?;
        let instances = self.cloudmap.instances(&service).await?.context("Cloud Map service was deleted meanwhile")?;
        Ok(Seen::new(service, revision, instances))
    }

    async fn apply(&self, key: &ServiceKey, changes: Vec<Change>, slot: &Slot, seen: &mut Seen) -> anyhow::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        seen.revision = None;
        let service = &seen.service;
        let applied = stream::iter(changes).map(|change| async move {
            let operation = match &change {
                Change::Register(id, attributes) => self.cloudmap.register(service, id, attributes).await,
                Change::Deregister(id) => self.cloudmap.deregister(service, id).await,
            };
            operation.map(|operation| (change, operation))
        });
        let applied: Vec<_> = applied.buffered(CONCURRENCY).collect().await;
        let mut failed = Ok(());
        for outcome in applied {
            match outcome {
                Ok((Change::Register(id, attributes), operation)) => {
                    tracing::info!(service = %key, id, "registering Cloud Map instance");
                    // One that gets other attributes can be called by its old ones until then.
                    if seen.instances.insert(id.clone(), attributes).is_none() && operation.is_some() {
                        seen.starting.insert(id.clone());
                    }
                    self.follow(key, slot, id, operation);
                }
                Ok((Change::Deregister(id), operation)) => {
                    tracing::info!(service = %key, id, "deregistering Cloud Map instance");
                    seen.instances.remove(&id);
                    self.follow(key, slot, id, operation);
                }
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// Removes this cluster's instances, and when they are gone the service, if it is empty then and of our making.
    async fn clear(&self, key: &ServiceKey, slot: &Slot, seen: &mut Option<Seen>) -> anyhow::Result<()> {
        let Some(namespace) = self.cloudmap.namespace(&key.namespace).await? else { return Ok(()) };
        let Some(service) = self.cloudmap.service(&namespace, &key.service).await? else { return Ok(()) };
        let Some(instances) = self.cloudmap.instances(&service).await? else { return Ok(()) };
        let present = plan(&Instances::new(), &instances, &self.cluster);
        if !present.is_empty() {
            // Those on their way are still listed; telling them again is no error, and needed if the first time failed.
            let seen = seen.insert(Seen::new(service, None, instances));
            self.apply(key, present, slot, seen).await?;
            return Err(Leaving.into());
        }
        if instances.is_empty() && self.cloudmap.is_ours(&service).await? {
            self.cloudmap.delete_service(&service).await?;
            tracing::info!(service = %key, id = service.id, "deleted Cloud Map service");
        }
        Ok(())
    }

    /// Cloud Map works in the background: tells when that is done, or why not, and asks for another look then.
    fn follow(&self, key: &ServiceKey, slot: &Slot, id: String, operation: Option<String>) {
        let Some(operation) = operation else { return };
        let (cloudmap, key, again) = (self.cloudmap.clone(), key.clone(), self.again.clone());
        let (slot, registered) = (slot.clone(), self.registered.clone());
        tokio::spawn(async move {
            let delays = ExponentialBuilder::default().with_min_delay(Duration::from_millis(250));
            let mut delays = delays.with_max_delay(Duration::from_secs(10)).with_max_times(10).build();
            let failed = loop {
                match (cloudmap.is_done(&operation).await, delays.next()) {
                    (Ok(true), _) => break None,
                    (Ok(false), Some(delay)) => sleep(delay).await,
                    (Ok(false), None) => break Some(format!("operation {operation} takes more than a minute")),
                    (Err(error), _) => break Some(told(&error)),
                }
            };
            let mut seen = slot.lock().await;
            if failed.is_none() {
                seen.as_mut().map(|seen| seen.starting.remove(&id));
            }
            tell(&registered, &key, seen.as_ref(), failed.clone());
            if let Some(error) = failed {
                tracing::warn!(service = %key, error, "Cloud Map has not done as told");
                again.notify_one();
            }
        });
    }
}

/// Makes known what callers find of a service. Where nothing was seen, what was there is taken to be there still.
fn tell(
    registered: &watch::Sender<BTreeMap<ServiceKey, Registered>>,
    key: &ServiceKey,
    seen: Option<&Seen>,
    trouble: Option<String>,
) {
    if seen.is_none() && trouble.is_none() {
        return;
    }
    registered.send_if_modified(|registered| {
        let known = registered.entry(key.clone()).or_default();
        let found = seen.map(|seen| seen.instances.keys().filter(|id| !seen.starting.contains(*id)).cloned().collect());
        let now = Registered { instances: found.or_else(|| known.instances.clone()), trouble };
        std::mem::replace(known, now.clone()) != now
    });
}

/// Says what is new about the failures.
fn report(errors: &mut BTreeMap<ServiceKey, String>, failed: BTreeMap<ServiceKey, anyhow::Error>) {
    let failed: BTreeMap<_, _> = failed.into_iter().map(|(key, error)| (key, told(&error))).collect();
    for (key, error) in &failed {
        if errors.get(key) != Some(error) && *error != Leaving.to_string() {
            tracing::warn!(service = %key, error, "Cloud Map is not as it should be, trying again");
        }
    }
    for (key, error) in errors.iter().filter(|(key, _)| !failed.contains_key(*key)) {
        if *error != Leaving.to_string() {
            tracing::info!(service = %key, "Cloud Map is as it should be again");
        }
    }
    *errors = failed;
}

fn delays() -> impl Iterator<Item = Duration> {
    let backoff = ExponentialBuilder::default().with_min_delay(Duration::from_secs(1)).with_max_delay(RESYNC);
    backoff.with_jitter().without_max_times().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(of: &[(&str, &[(&str, &str)])]) -> Instances {
        let attributes =
            |given: &[(&str, &str)]| given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        of.iter().map(|(id, given)| ((*id).to_owned(), attributes(given))).collect()
    }

    #[test]
    fn plans() {
        let ours = |color| [(CLUSTER, "here"), ("color", color)];
        let want = instances(&[("10.0.0.1", &ours("red"))]);
        let register = || vec![Change::Register("10.0.0.1".to_owned(), want["10.0.0.1"].clone())];
        let deregister = |id: &str| Change::Deregister(id.to_owned());
        for (case, have, expected) in [
            ("nothing there", instances(&[]), register()),
            ("as wanted", want.clone(), vec![]),
            (
                "as wanted, with what Cloud Map adds",
                instances(&[(
                    "10.0.0.1",
                    &[(CLUSTER, "here"), ("color", "red"), ("AWS_INIT_HEALTH_STATUS", "HEALTHY")],
                )]),
                vec![],
            ),
            ("another value", instances(&[("10.0.0.1", &ours("blue"))]), register()),
            (
                "one attribute too many",
                instances(&[("10.0.0.1", &[(CLUSTER, "here"), ("color", "red"), ("version", "1")])]),
                register(),
            ),
            (
                "an address that went from one node to another is replaced, never removed",
                instances(&[("10.0.0.1", &ours("blue")), ("10.0.0.2", &ours("red"))]),
                register().into_iter().chain([deregister("10.0.0.2")]).collect(),
            ),
            (
                "others' instances stay: another cluster's and upstream's",
                instances(&[
                    ("10.0.0.1", &ours("red")),
                    ("10.0.0.3", &[(CLUSTER, "there"), ("color", "red")]),
                    ("10.0.0.4", &[("color", "red")]),
                ]),
                vec![],
            ),
        ] {
            assert_eq!(plan(&want, &have, "here"), expected, "{case}");
        }
    }
}
