//! Looks up in Cloud Map what other clusters have registered: instances of the services that are called here, and the
//! routes that are published. Every replica looks up what its own Envoys need, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    client::{CloudMap, Namespace, describe},
    exchange::{self, Document},
    jitter,
};
use crate::model::{ClusterId, Instances, Published, Routing, ServiceKey, VirtualServiceKey, endpoint};

/// After this time the instances are read though their revision is the same: changes of health and of attributes do not
/// count as revisions.
const REREAD: Duration = Duration::from_secs(60);
/// The longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_secs(10);
/// A lookup that hangs is a failed one.
const TIMEOUT: Duration = Duration::from_secs(5);
/// By how much the interval grows with each lookup that finds nothing new.
const GROWTH: f64 = 1.25;
/// Answers that may wait to be received.
const CAPACITY: usize = 64;

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

    fn empty(&self) -> Answer {
        match self {
            Self::Instances(_) => Answer::Instances(Instances::new()),
            Self::Published(_) => Answer::Published(Published::Nobody),
        }
    }

    /// The answer while nothing but failures is known, so that no Envoy waits for ever.
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
}

impl Intervals {
    fn after(self, interval: Duration) -> Duration {
        interval.mul_f64(GROWTH).min(self.longest.max(self.shortest))
    }
}

/// The lookups that go on. They end when this is dropped.
pub struct Pollers {
    cloudmap: CloudMap,
    cluster: ClusterId,
    intervals: Intervals,
    answers: mpsc::Sender<(Lookup, Answer)>,
    tasks: BTreeMap<Lookup, AbortHandle>,
}

impl Pollers {
    /// Pollers that look nothing up yet, and where their answers come out: each lookup's first, and each that is another
    /// than the one before. A lookup that fails keeps its last answer, and answers that if there never was one.
    pub fn new(
        cloudmap: CloudMap,
        cluster: ClusterId,
        intervals: Intervals,
    ) -> (Self, mpsc::Receiver<(Lookup, Answer)>) {
        let (answers, receiver) = mpsc::channel(CAPACITY);
        (Self { cloudmap, cluster, intervals, answers, tasks: BTreeMap::new() }, receiver)
    }

    /// Looks up these and nothing else. An answer of a lookup that has ended may still come out.
    pub fn follow(&mut self, lookups: &BTreeSet<Lookup>) {
        self.tasks.retain(|lookup, task| {
            let keep = lookups.contains(lookup);
            if !keep {
                task.abort();
            }
            keep
        });
        for lookup in lookups {
            self.tasks.entry(lookup.clone()).or_insert_with(|| {
                let poller = Poller {
                    cloudmap: self.cloudmap.clone(),
                    cluster: self.cluster.clone(),
                    intervals: self.intervals,
                    lookup: lookup.clone(),
                    service: lookup.service(),
                    read: None,
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

/// One lookup.
struct Poller {
    cloudmap: CloudMap,
    cluster: ClusterId,
    intervals: Intervals,
    lookup: Lookup,
    service: ServiceKey,
    /// Revision and time of the last reading.
    read: Option<(i64, Instant)>,
    answered: Option<Answer>,
    /// The last routes that were understood.
    understood: Option<Arc<Routing>>,
    /// Clusters that publish the same, and are not heard.
    stale: BTreeSet<String>,
}

impl Poller {
    async fn run(mut self, answers: mpsc::Sender<(Lookup, Answer)>) {
        let mut failed: Option<String> = None;
        let mut interval = self.intervals.shortest;
        loop {
            let answer = timeout(TIMEOUT, self.look()).await.context("no answer in time").flatten();
            let news = match answer {
                Ok(answer) => {
                    if failed.take().is_some() {
                        tracing::info!(of = %self.lookup, "Cloud Map answers again");
                        interval = self.intervals.shortest;
                    }
                    answer.filter(|answer| self.answered.as_ref() != Some(answer))
                }
                Err(error) => {
                    let error = describe(&error);
                    if failed.as_ref() != Some(&error) {
                        tracing::warn!(of = %self.lookup, error, "cannot read Cloud Map, trying again");
                    }
                    let first = self.answered.is_none().then(|| self.lookup.unavailable(&error));
                    failed = Some(error);
                    self.read = None;
                    first
                }
            };
            interval = match (&failed, &news) {
                (Some(_), _) => interval.mul_f64(2.0).min(LAST_RETRY.max(self.intervals.longest)),
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
            sleep(jitter(interval)).await;
        }
    }

    /// The answer, if it may be another than before.
    async fn look(&mut self) -> anyhow::Result<Option<Answer>> {
        let ServiceKey { namespace, service } = self.service.clone();
        let found = self.cloudmap.namespace(&namespace).await?;
        let namespace = found.with_context(|| format!("Cloud Map namespace not found: {namespace}"))?;
        let Some(revision) = self.cloudmap.revision(&namespace, &service).await? else {
            self.read = None;
            return Ok(Some(self.lookup.empty()));
        };
        if self.read.is_some_and(|(read, at)| read == revision && at.elapsed() < REREAD) {
            return Ok(None);
        }
        self.read(&namespace, &service, revision).await.map(Some)
    }

    async fn read(&mut self, namespace: &Namespace, service: &str, revision: i64) -> anyhow::Result<Answer> {
        let Some((read, mut instances)) = self.cloudmap.discover(namespace, service).await? else {
            self.read = None;
            return Ok(self.lookup.empty());
        };
        // If what was read is older than the revision, the next lookup sees a difference and reads again.
        self.read = Some((revision.min(read), Instant::now()));
        instances.retain(|_, attributes| !endpoint::is_of(attributes, &self.cluster));
        Ok(match &self.lookup {
            Lookup::Instances(_) => Answer::Instances(instances),
            Lookup::Published(key) => Answer::Published(self.understand(&key.arn.clone(), &instances)),
        })
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
