//! Looks up in Cloud Map what other clusters have registered: instances of the services that are called here, and the
//! routes that are published. Every replica looks up what its own Envoys need, and nothing else.
//!
//! Where all that is found is of clusters that keep journals, a service is looked up when a journal names it, and else once
//! a minute. What somebody else has registered, or nobody, is looked up all the time.

mod reader;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    select,
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};

use self::reader::Reader;
use super::{
    client::{CloudMap, describe},
    exchange::{self, Document},
    jitter,
    journal::Hint,
};
use crate::model::{ClusterId, Instances, Published, Routing, ServiceKey, VirtualServiceKey, endpoint};

/// The waits after failures, the first and the longest.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(10);
/// A lookup that hangs is a failed one.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a first look-up may fail before its failure is the answer: an Envoy that is connected anew, to a replica that has
/// just started, keeps so long what it has.
const GRACE: Duration = Duration::from_secs(30);
/// By how much the interval grows with each lookup that finds nothing new: up to the longest, and from there on where
/// journals would tell.
const GROWTH: f64 = 1.25;
const FURTHER_GROWTH: f64 = 2.0;
/// Answers that may wait to be received.
const CAPACITY: usize = 64;

/// What Cloud Map has answered, and no failure to answer.
#[derive(Debug, thiserror::Error)]
#[error("Cloud Map namespace not found: {0}")]
struct NoNamespace(String);

/// Something to look up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lookup {
    /// The instances of a service, but for those of this cluster.
    Instances(ServiceKey),
    /// Where the requests for a VirtualService go.
    Published(VirtualServiceKey),
}

impl Lookup {
    fn service(&self) -> ServiceKey {
        match self {
            Self::Instances(key) => key.clone(),
            Self::Published(key) => exchange::service_key(key),
        }
    }

    /// The answer while nothing but failures is known for long, so that no Envoy waits for ever.
    fn unavailable(&self, why: &str) -> Answer {
        match self {
            Self::Instances(_) => Answer::Instances(Instances::new()),
            Self::Published(_) => Answer::Published(Published::Unavailable(why.to_owned())),
        }
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instances(key) => write!(f, "instances of {key}"),
            Self::Published(key) => write!(f, "routes of {key}"),
        }
    }
}

/// What a lookup has found.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Empty also if there is no such service.
    Instances(Instances),
    /// Where requests go.
    Published(Published),
}

/// How often a lookup is made.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// While something changes.
    pub shortest: Duration,
    /// While nothing changes.
    pub longest: Duration,
    /// While nothing changes, and journals would tell.
    pub rarest: Duration,
}

impl Intervals {
    /// The first of these is never longer than the others.
    pub fn new(shortest: Duration, longest: Duration, rarest: Duration) -> Self {
        let longest = longest.max(shortest);
        Self { shortest, longest, rarest: rarest.max(longest) }
    }

    fn after(self, interval: Duration) -> Duration {
        interval.mul_f64(GROWTH).min(self.longest)
    }

    /// The same where journals tell of changes.
    fn after_while_told(self, interval: Duration) -> Duration {
        if interval < self.longest { self.after(interval) } else { interval.mul_f64(FURTHER_GROWTH).min(self.rarest) }
    }
}

/// The lookups that go on. They end when this is dropped.
pub struct Pollers {
    cloudmap: CloudMap,
    cluster: ClusterId,
    intervals: Intervals,
    answers: mpsc::Sender<(Lookup, Answer)>,
    tasks: BTreeMap<Lookup, AbortHandle>,
    /// The journals, by namespace.
    journals: BTreeMap<String, watch::Receiver<reader::Known>>,
    /// Whether an Envoy needs what is looked up.
    urgent: watch::Sender<bool>,
}

impl Pollers {
    /// Pollers that look nothing up yet, and where their answers come out: each lookup's first, and each that is another
    /// than the one before. A lookup that fails keeps its last answer, and after a while answers that if there never was one.
    pub fn new(
        cloudmap: CloudMap,
        cluster: ClusterId,
        intervals: Intervals,
    ) -> (Self, mpsc::Receiver<(Lookup, Answer)>) {
        let (answers, receiver) = mpsc::channel(CAPACITY);
        let (tasks, journals, urgent) = (BTreeMap::new(), BTreeMap::new(), watch::Sender::new(false));
        (Self { cloudmap, cluster, intervals, answers, tasks, journals, urgent }, receiver)
    }

    /// Looks up these and nothing else; `urgent` if an Envoy needs one of them. An answer of a lookup that has ended may
    /// still come out.
    pub fn follow(&mut self, lookups: &BTreeSet<Lookup>, urgent: bool) {
        self.urgent.send_if_modified(|was| std::mem::replace(was, urgent) != urgent);
        self.tasks.retain(|lookup, task| {
            let keep = lookups.contains(lookup);
            if !keep {
                task.abort();
            }
            keep
        });
        let namespaces: BTreeSet<_> = lookups.iter().map(|lookup| lookup.service().namespace).collect();
        self.journals.retain(|namespace, _| namespaces.contains(namespace));
        for namespace in namespaces {
            self.journals.entry(namespace).or_insert_with_key(|namespace| {
                let (known, journals) = watch::channel(None);
                let reader = Reader {
                    cloudmap: self.cloudmap.clone(),
                    cluster: self.cluster.clone(),
                    intervals: self.intervals,
                    namespace: namespace.clone(),
                    urgent: self.urgent.subscribe(),
                };
                tokio::spawn(reader.run(known));
                journals
            });
        }
        for lookup in lookups {
            let service = lookup.service();
            let Some(journals) = self.journals.get(&service.namespace) else { continue };
            self.tasks.entry(lookup.clone()).or_insert_with(|| {
                let poller = Poller {
                    cloudmap: self.cloudmap.clone(),
                    cluster: self.cluster.clone(),
                    intervals: self.intervals,
                    lookup: lookup.clone(),
                    service,
                    journals: journals.clone(),
                    heard: None,
                    registrants: None,
                    answered: None,
                    understood: None,
                    stale: BTreeSet::new(),
                };
                tokio::spawn(poller.run(self.answers.clone())).abort_handle()
            });
        }
    }
}

impl Drop for Pollers {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}

/// Asks Cloud Map once more, and says what is new about failures; `failed` is what it has failed for last.
async fn ask<T>(
    of: &impl fmt::Display,
    failed: &mut Option<String>,
    look: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match timeout(TIMEOUT, look).await.context("no answer in time").flatten() {
        Ok(answer) => {
            if failed.take().is_some() {
                tracing::info!(%of, "Cloud Map answers again");
            }
            Ok(answer)
        }
        Err(error) => {
            let why = describe(&error);
            if failed.replace(why.clone()).as_ref() != Some(&why) {
                tracing::warn!(%of, error = why, "cannot read Cloud Map, trying again");
            }
            Err(error)
        }
    }
}

/// One lookup.
struct Poller {
    cloudmap: CloudMap,
    cluster: ClusterId,
    intervals: Intervals,
    lookup: Lookup,
    service: ServiceKey,
    journals: watch::Receiver<reader::Known>,
    /// The journals as they were before the last look.
    heard: reader::Known,
    /// The clusters that have registered something here; `None` where others have, or nobody whose journal would tell.
    registrants: Option<BTreeSet<String>>,
    answered: Option<Answer>,
    /// The last routes that were understood.
    understood: Option<Arc<Routing>>,
    /// Clusters that publish the same, and are not heard.
    stale: BTreeSet<String>,
}

impl Poller {
    async fn run(mut self, answers: mpsc::Sender<(Lookup, Answer)>) {
        let mut failed: Option<String> = None;
        let began = Instant::now();
        let mut interval = self.intervals.longest;
        loop {
            self.heard = self.journals.borrow_and_update().clone();
            let (of, was_failing) = (self.lookup.clone(), failed.is_some());
            let news = match ask(&of, &mut failed, self.look()).await {
                Ok(answer) => {
                    if was_failing {
                        interval = self.intervals.longest;
                    }
                    Some(answer).filter(|answer| self.answered.as_ref() != Some(answer))
                }
                Err(error) => {
                    if !was_failing {
                        interval = FIRST_RETRY / 2;
                    }
                    let is_certain = error.is::<NoNamespace>() || began.elapsed() >= GRACE;
                    (self.answered.is_none() && is_certain).then(|| self.lookup.unavailable(&describe(&error)))
                }
            };
            interval = match (&failed, &news) {
                (Some(_), _) => interval.mul_f64(2.0).min(LAST_RETRY.max(self.intervals.longest)),
                (None, _) if self.is_told() => self.intervals.after_while_told(interval),
                (None, Some(_)) => self.intervals.shortest,
                (None, None) => self.intervals.after(interval),
            };
            if let Some(answer) = news {
                tracing::debug!(of = %self.lookup, "Cloud Map has changed");
                self.answered = Some(answer.clone());
                if answers.send((self.lookup.clone(), answer)).await.is_err() {
                    return;
                }
            }
            match self.hint_within(jitter(interval)).await {
                Hint::Nothing => {}
                Hint::Perhaps => interval = self.intervals.longest,
                Hint::Changed => interval = self.intervals.shortest,
            }
        }
    }

    /// Whether other clusters' journals tell of all that may change here.
    fn is_told(&self) -> bool {
        self.registrants.as_ref().is_some_and(|clusters| reader::are_of(&self.heard, clusters))
    }

    /// Waits so long, or until a journal names the service. If something may have changed in any service, those who look
    /// for it do not do so all at once.
    async fn hint_within(&mut self, wait: Duration) -> Hint {
        let (mut due, mut hint) = (Instant::now() + wait, Hint::Nothing);
        loop {
            select! {
                () = sleep_until(due) => return hint,
                Ok(()) = self.journals.changed() => {
                    let journals = self.journals.borrow_and_update().clone();
                    match reader::hint(&journals, &self.service.service, &self.heard) {
                        Hint::Nothing => {}
                        Hint::Perhaps => {
                            hint = Hint::Perhaps;
                            due = due.min(Instant::now() + self.intervals.longest.mul_f64(fastrand::f64()));
                        }
                        Hint::Changed => return Hint::Changed,
                    }
                    self.heard = journals;
                }
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<Answer> {
        let ServiceKey { namespace, service } = &self.service;
        let found = self.cloudmap.namespace(namespace).await?;
        let namespace = found.ok_or_else(|| NoNamespace(namespace.clone()))?;
        let mut instances = self.cloudmap.discover(&namespace, service).await?.unwrap_or_default();
        instances.retain(|_, attributes| !endpoint::is_of(attributes, &self.cluster));
        self.registrants = self.registrants_of(&instances);
        Ok(match &self.lookup {
            Lookup::Instances(_) => Answer::Instances(instances),
            Lookup::Published(key) => Answer::Published(self.understand(&key.arn.clone(), &instances)),
        })
    }

    /// The clusters whose journals tell when other instances come or these change. Pods may come by whoever registers pods,
    /// and routes by this controller only.
    fn registrants_of(&self, instances: &Instances) -> Option<BTreeSet<String>> {
        let clusters = instances.values().map(|attributes| attributes.get(endpoint::CLUSTER).map(str::to_owned));
        let clusters: BTreeSet<_> = clusters.collect::<Option<_>>()?;
        (!clusters.is_empty() || matches!(self.lookup, Lookup::Published(_))).then_some(clusters)
    }

    fn understand(&mut self, arn: &str, instances: &Instances) -> Published {
        let (document, stale) = exchange::decode(arn, instances);
        let stale: BTreeSet<_> = stale.into_iter().map(str::to_owned).collect();
        if stale != self.stale && !stale.is_empty() {
            let clusters = stale.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            tracing::warn!(arn, clusters, "these clusters publish an older document too, which is not heard");
        }
        self.stale = stale;
        match document {
            Document::Missing => Published::Nobody,
            Document::NotUnderstood(why) => Published::NotUnderstood(why, self.understood.clone()),
            Document::Understood(routing) => {
                let known = self.understood.take().filter(|known| **known == routing);
                let routing = known.unwrap_or_else(|| Arc::new(routing));
                self.understood = Some(routing.clone());
                Published::Routing(routing)
            }
        }
    }
}

#[cfg(test)]
mod tests;
