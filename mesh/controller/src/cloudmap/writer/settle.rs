//! Settles one service: observe, plan, apply, and follow what Cloud Map does in the background.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{StreamExt as _, stream};
use tokio::time::{Instant, sleep};

use super::{
    COMPARE, Registered, Slot, State, Subject, Want, Writer,
    plan::{Change, Pending, Wanted, plan, same},
};
use crate::{
    cloudmap::{
        client::{Operation, Service},
        describe,
        exchange::{self, Document},
        jitter,
    },
    model::{Attributes, Instances, ServiceKey, endpoint},
};

/// Calls under way at once for one service.
const CONCURRENCY: usize = 8;
/// After this many comparisons the instances are listed though there are as many as before: their attributes may be others,
/// or one may have taken the place of another.
const RELIST: u32 = 15;
/// How long an instance stays where it was after it is found in its new service: until callers have noticed.
const LINGER: Duration = Duration::from_secs(10);
/// Waits while an operation goes on: AWS takes seconds, and a minute or more where DNS records are made.
const FIRST_POLL: Duration = Duration::from_millis(100);
const LAST_POLL: Duration = Duration::from_secs(10);
/// An operation that takes longer is taken down when it is done, too: readers of the journal may have looked for it in vain.
pub(super) const LATE: Duration = Duration::from_secs(1);

/// How far a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What is wanted is there.
    Settled,
    /// Cloud Map is at work on what is wanted.
    UnderWay,
    /// Nothing is wanted, and something of this cluster is still there.
    Leaving,
    /// Nothing is wanted, and nothing is there.
    Gone,
}

/// What is present in a service.
#[derive(Default)]
pub struct Present {
    seen: Option<Seen>,
    /// Changes that Cloud Map has not done yet, by the instance's id.
    pending: BTreeMap<String, Pending>,
    /// Since when instances are found in their new service, by id.
    pub(super) moved: BTreeMap<String, Instant>,
}

/// A service as it was last seen, with the changes that were made since.
struct Seen {
    service: Service,
    /// Whether this is what was listed: nothing was changed here since.
    is_listed: bool,
    instances: Instances,
    /// Comparisons since the instances were listed.
    comparisons: u32,
}

impl Present {
    fn registered(&self, trouble: Option<String>, before: &Registered) -> Registered {
        let adding = |id: &String| matches!(self.pending.get(id), Some(Pending::Adding(_)));
        let Some(seen) = &self.seen else {
            return Registered { trouble, ..before.clone() };
        };
        let (starting, instances) = seen.instances.keys().cloned().partition(adding);
        Registered { instances: Some(instances), starting, trouble }
    }
}

impl Writer {
    /// Observe, plan, apply for one service.
    pub(super) async fn settle(self: &Arc<Self>, key: &ServiceKey) -> anyhow::Result<Progress> {
        let Some(slot) = self.lock().services.get(key).map(|entry| entry.slot.clone()) else {
            return Ok(Progress::Gone);
        };
        let mut present = slot.lock().await;
        let settled = self.bring(key, &slot, &mut present).await;
        if settled.is_err() {
            self.cloudmap.forget(&key.namespace, &key.service).await;
        }
        let trouble = match &settled {
            // What is tried again may be refused again: what was said of it holds until it has ended.
            Ok(Progress::UnderWay) => self.registered(key).and_then(|before| before.trouble.clone()),
            Ok(_) => None,
            Err(error) => Some(describe(error)),
        };
        self.report(key, &slot, &present, trouble);
        if settled.is_err() {
            present.seen = None;
        }
        settled
    }

    async fn bring(self: &Arc<Self>, key: &ServiceKey, slot: &Slot, present: &mut Present) -> anyhow::Result<Progress> {
        let (want, leading, compare) = {
            let mut state = self.lock();
            let leading = state.leading;
            let Some(entry) = state.services.get_mut(key) else { return Ok(Progress::Gone) };
            let compare = entry.compare.is_none_or(|at| at <= Instant::now());
            if compare {
                // The first is at any moment of the minute, so that those of many services are spread over it.
                let wait = if entry.compare.is_none() { COMPARE.mul_f64(fastrand::f64()) } else { jitter(COMPARE) };
                entry.compare = Some(Instant::now() + wait);
            }
            (entry.want.clone(), leading, compare)
        };
        // What is to be removed is looked for anew each time: nobody looks again later.
        if want.is_none() || (compare && !self.is_current(key, present.seen.as_mut()).await?) {
            present.seen = None;
        }
        if present.seen.is_none() {
            let create = want.as_ref().filter(|_| leading);
            present.seen = self.observe(key, create.map(|want| want.api_only), &present.pending).await?;
            if let (Some(seen), Some(want)) = (&mut present.seen, &want) {
                share(&want.instances, &mut seen.instances);
            }
        }
        let Some(seen) = &present.seen else {
            return Ok(if want.is_none() { Progress::Gone } else { Progress::Settled });
        };
        if !leading {
            return Ok(if want.is_none() { Progress::Gone } else { Progress::Settled });
        }
        let nothing = Want::default();
        let wanted = want.as_deref().unwrap_or(&nothing);
        if self.must_wait(key, wanted, &seen.instances) {
            return Ok(Progress::Settled);
        }
        let instances = exchange::dated(&wanted.instances, &seen.instances, SystemTime::now());
        let changes = {
            let wanted = Wanted { instances: &instances, nodes: &wanted.nodes, whole: wanted.api_only };
            let (moved, mut state) = (&mut present.moved, self.lock());
            let keep = |id: &str, attributes: &Attributes| {
                attributes.get(endpoint::CLUSTER) == Some(self.cluster.uid.as_str())
                    && keep(&mut state, key, id, attributes, moved)
            };
            plan(wanted, &seen.instances, &present.pending, &self.cluster, keep)
        };
        present.moved.retain(|id, _| !wanted.instances.contains_key(id));
        self.apply(key, changes, slot, present).await?;
        if want.is_some() {
            return Ok(if present.pending.is_empty() { Progress::Settled } else { Progress::UnderWay });
        }
        self.clear(key, present).await
    }

    /// Whether a service has as many instances as were listed. That costs one list for all services.
    async fn is_current(&self, key: &ServiceKey, seen: Option<&mut Seen>) -> anyhow::Result<bool> {
        let Some(seen) = seen.filter(|seen| seen.is_listed && seen.comparisons < RELIST) else { return Ok(false) };
        seen.comparisons += 1;
        let Some(namespace) = self.cloudmap.namespace(&key.namespace).await? else { return Ok(false) };
        Ok(self.cloudmap.instance_count(&namespace, &key.service).await? == Some(seen.instances.len()))
    }

    /// Lists a service. One that is missing is made if `create` says of which type; else nothing is there.
    async fn observe(
        &self,
        key: &ServiceKey,
        create: Option<bool>,
        pending: &BTreeMap<String, Pending>,
    ) -> anyhow::Result<Option<Seen>> {
        let Some(namespace) = self.cloudmap.namespace(&key.namespace).await? else {
            anyhow::ensure!(create.is_none(), "Cloud Map namespace not found: {}", key.namespace);
            return Ok(None);
        };
        let service = match (self.cloudmap.service(&namespace, &key.service).await?, create) {
            (Some(service), _) => service,
            (None, None) => return Ok(None),
            (None, Some(api_only)) => {
                let made = self.cloudmap.create_service(&namespace, &key.service, api_only).await?;
                tracing::info!(service = %key, id = made.id, "created Cloud Map service");
                made
            }
        };
        let Some(mut instances) = self.cloudmap.instances(&service).await? else {
            anyhow::ensure!(create.is_none(), "Cloud Map service was deleted meanwhile");
            self.cloudmap.forget(&key.namespace, &key.service).await;
            return Ok(None);
        };
        for (id, pending) in pending {
            match pending {
                Pending::Adding(attributes) | Pending::Replacing(attributes) => {
                    instances.insert(id.clone(), attributes.clone());
                }
                Pending::Removing => drop(instances.remove(id)),
            }
        }
        Ok(Some(Seen { service, is_listed: pending.is_empty(), instances, comparisons: 0 }))
    }

    /// Whether a publication has to wait: it points to a service that this cluster has not filled yet, and the publication
    /// that is there does not.
    fn must_wait(&self, key: &ServiceKey, wanted: &Want, present: &Instances) -> bool {
        if wanted.after.is_empty() {
            return false;
        }
        let Some(arn) = wanted.instances.values().find_map(|attributes| exchange::arn_of(attributes)) else {
            return false;
        };
        let own = |(_, attributes): &(&String, &Arc<Attributes>)| {
            attributes.get(endpoint::CLUSTER) == Some(self.cluster.uid.as_str())
        };
        let own = present.iter().filter(own).map(|(id, attributes)| (id.clone(), attributes.clone())).collect();
        let (Document::Understood(older), _) = exchange::decode(arn, &own) else { return false };
        let mut state = self.lock();
        let new = wanted.after.iter().filter(|service| older.services().all(|older| older != *service));
        let unfilled: Vec<_> = new.filter(|service| !state.is_filled(service)).cloned().collect();
        for service in &unfilled {
            state.waiting.entry(service.clone()).or_default().insert(key.clone());
        }
        !unfilled.is_empty()
    }

    async fn apply(
        self: &Arc<Self>,
        key: &ServiceKey,
        changes: Vec<Change>,
        slot: &Slot,
        present: &mut Present,
    ) -> anyhow::Result<()> {
        let Some(seen) = present.seen.as_mut().filter(|_| !changes.is_empty()) else { return Ok(()) };
        seen.is_listed = false;
        self.note(key);
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
            let (id, pending, operation) = match outcome {
                Ok((Change::Register(id, attributes), operation)) => {
                    tracing::info!(service = %key, id, "registering Cloud Map instance");
                    let pending = match seen.instances.insert(id.clone(), attributes.clone()) {
                        None => Pending::Adding(attributes),
                        Some(_) => Pending::Replacing(attributes),
                    };
                    (id, pending, operation)
                }
                Ok((Change::Deregister(id), operation)) => {
                    tracing::info!(service = %key, id, "deregistering Cloud Map instance");
                    seen.instances.remove(&id);
                    present.moved.remove(&id);
                    (id, Pending::Removing, operation)
                }
                Err(error) => {
                    failed = Err(error);
                    continue;
                }
            };
            if let Some(operation) = operation {
                present.pending.insert(id.clone(), pending);
                self.follow(key, slot, id, operation);
            }
        }
        failed
    }

    /// Takes down in the journal that something changes in a service.
    fn note(&self, key: &ServiceKey) {
        self.lock().note(key, &self.cluster);
        self.wake.notify_one();
    }

    /// Deletes a service that nobody wants and that is empty, if it is of this controller's making.
    async fn clear(&self, key: &ServiceKey, present: &Present) -> anyhow::Result<Progress> {
        let Some(seen) = &present.seen else { return Ok(Progress::Gone) };
        let ours = |attributes: &Arc<Attributes>| endpoint::is_of(attributes, &self.cluster);
        if !present.pending.is_empty() || seen.instances.values().any(ours) {
            return Ok(Progress::Leaving);
        }
        if seen.instances.is_empty() && self.cloudmap.is_managed(&seen.service).await? {
            self.cloudmap.delete_service(&seen.service).await?;
            self.cloudmap.forget(&key.namespace, &key.service).await;
            tracing::info!(service = %key, id = seen.service.id, "deleted Cloud Map service");
        }
        Ok(Progress::Gone)
    }

    /// Waits in the background until Cloud Map has done an operation, and makes the service due then.
    fn follow(self: &Arc<Self>, key: &ServiceKey, slot: &Slot, id: String, operation: String) {
        let (writer, key, slot) = (self.clone(), key.clone(), slot.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let done = writer.done(&key, &operation).await;
            let mut present = slot.lock().await;
            let pending = present.pending.remove(&id);
            if !writer.lock().services.get(&key).is_some_and(|entry| Arc::ptr_eq(&entry.slot, &slot)) {
                return;
            }
            match done {
                Ok(()) => {
                    if began.elapsed() > LATE {
                        writer.note(&key);
                    }
                    writer.lock().at_once(&key);
                }
                Err(reason) => {
                    let error = format!("changing instance {id}: {reason}");
                    // What was never added is not what callers find.
                    if let (Some(Pending::Adding(_)), Some(seen)) = (pending, &mut present.seen) {
                        seen.instances.remove(&id);
                    }
                    writer.report(&key, &slot, &present, Some(error.clone()));
                    present.seen = None;
                    writer.after(&key, Err(anyhow::Error::msg(error)));
                }
            }
            writer.wake.notify_one();
        });
    }

    /// Waits until Cloud Map has done an operation; fails with its reason.
    pub(super) async fn done(&self, key: &ServiceKey, operation: &str) -> Result<(), String> {
        let mut wait = FIRST_POLL;
        loop {
            // On the heap, so that nothing of a call is held between two of them: thousands of operations may go on at once.
            match Box::pin(self.cloudmap.operation(operation)).await {
                Ok(Operation::Done) => return Ok(()),
                Ok(Operation::Failed(reason)) => return Err(reason),
                Ok(Operation::Pending) => {}
                Err(error) => tracing::debug!(service = %key, operation, error = describe(&error), "asking again"),
            }
            sleep(jitter(wait)).await;
            wait = wait.mul_f64(1.5).min(LAST_POLL);
        }
    }

    /// Makes known what was seen, unless another term of leadership has begun anew meanwhile.
    fn report(&self, key: &ServiceKey, slot: &Slot, present: &Present, trouble: Option<String>) {
        let mut state = self.lock();
        let leading = state.leading;
        let Some(entry) = state.services.get(key).filter(|entry| Arc::ptr_eq(&entry.slot, slot)) else { return };
        let foreign = |attributes: &Arc<Attributes>| !endpoint::is_of(attributes, &self.cluster);
        let seen = present.seen.as_ref().map(|seen| seen.instances.values().any(foreign));
        // In a service that is not there nobody has anything, if it is not for trouble that nothing was seen.
        let shared = seen.or(entry.shared).or(trouble.is_none().then_some(false));
        // Who does not lead does not know what is under way.
        let registered = match leading {
            true => present.registered(trouble, &entry.registered),
            false => Registered::default(),
        };
        state.report(key, registered, shared);
    }
}

/// Keeps one copy of the attributes of an instance that is as it is wanted.
fn share(wanted: &Instances, seen: &mut Instances) {
    for (id, attributes) in wanted {
        if let Some(seen) = seen.get_mut(id).filter(|seen| same(attributes, seen)) {
            *seen = attributes.clone();
        }
    }
}

/// Whether an instance stays though it is not wanted where it is: what it stands for is wanted in another service, and not
/// found there yet, or only since a moment.
fn keep(
    state: &mut State,
    key: &ServiceKey,
    id: &str,
    attributes: &Attributes,
    moved: &mut BTreeMap<String, Instant>,
) -> bool {
    let Some(subject) = Subject::of(attributes) else { return false };
    let places = state.places.get(&subject).into_iter().flatten();
    let others: Vec<_> = places.filter(|place| *place != key).cloned().collect();
    if others.is_empty() {
        return false;
    }
    let missing: Vec<_> = others.into_iter().filter(|other| !is_found(state, other, &subject)).collect();
    if !missing.is_empty() {
        moved.remove(id);
        for other in missing {
            state.waiting.entry(other).or_default().insert(key.clone());
        }
        return true;
    }
    let until = *moved.entry(id.to_owned()).or_insert_with(Instant::now) + LINGER;
    state.schedule.by(key, until);
    Instant::now() < until
}

/// Whether callers find all instances that stand for a subject in a service, and the service is filled.
fn is_found(state: &State, key: &ServiceKey, subject: &Subject) -> bool {
    let Some(entry) = state.services.get(key) else { return false };
    let Some(want) = &entry.want else { return false };
    let mut ids = want.instances.iter().filter(|(_, attributes)| Subject::of(attributes).as_ref() == Some(subject));
    let present = entry.registered.instances.as_ref();
    state.is_filled(key) && ids.all(|(id, _)| present.is_some_and(|present| present.contains(id)))
}
