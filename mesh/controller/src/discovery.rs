//! What Cloud Map tells callers: the instances behind the nodes they call and the routes that other clusters publish,
//! watched as long as a backend of this cluster needs them. Every replica watches for its own streams.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use mesh_api::Arn;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cloudmap::{CloudMap, Instances, Namespace, ServiceKey},
    identity::Identity,
    publish,
    routes::Routes,
    store::Store,
    xds::view,
};

/// How often a service's revision is asked for: within the three seconds that a change of weights may take from cluster
/// to cluster, it is the longest wait.
const POLL: Duration = Duration::from_secs(1);
/// After this many polls the instances are read though their revision is the same: changes of health do not count as
/// revisions.
const REREAD: u32 = 60;
/// The longest wait after a failure.
const PATIENCE: Duration = Duration::from_secs(5);
/// A call that hangs is a failed call.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Something to watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The instances of a service.
    Instances(ServiceKey),
    /// The routes that are published in a namespace under an ARN.
    Routes(String, Arn),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instances(key) => write!(f, "instances of {key}"),
            Self::Routes(namespace, arn) => write!(f, "routes of {arn} in {namespace}"),
        }
    }
}

/// What a watch has found.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Empty also if there is no such service.
    Instances(Arc<Instances>),
    /// `None` if nobody publishes it.
    Routes(Option<Arc<Routes>>),
}

/// All answers so far. A key that is missing has not been looked up yet; one whose lookups fail keeps its last answer,
/// and has an empty one if there never was any.
pub type Found = BTreeMap<Key, Answer>;

/// The watches. Cloning is cheap.
#[derive(Clone)]
pub struct Discovery {
    found: watch::Receiver<Found>,
}

impl Discovery {
    /// Begins to watch what the store's backends need, until `stop`.
    pub fn start(cloudmap: CloudMap, store: Store, identity: Identity, stop: CancellationToken) -> Self {
        let (sender, found) = watch::channel(Found::new());
        let watched = found.clone();
        tokio::spawn(async move {
            let mut watches = Watches { cloudmap, sender: Arc::new(sender), tasks: BTreeMap::new() };
            let (mut changed, mut answered) = (store.changed(), watched.clone());
            let work = async {
                loop {
                    let wanted = view::wanted(&store.snapshot(), &answered.borrow_and_update(), &identity);
                    watches.follow(wanted);
                    let alive = tokio::select! {
                        alive = changed.changed() => alive,
                        alive = answered.changed() => alive,
                    };
                    if alive.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
            watches.follow(BTreeSet::new());
        });
        Self { found }
    }

    /// What is known now, and a sight of every change.
    pub fn found(&self) -> watch::Receiver<Found> {
        self.found.clone()
    }
}

struct Watches {
    cloudmap: CloudMap,
    sender: Arc<watch::Sender<Found>>,
    tasks: BTreeMap<Key, AbortHandle>,
}

impl Watches {
    /// Watches these and nothing else.
    fn follow(&mut self, wanted: BTreeSet<Key>) {
        let Self { cloudmap, sender, tasks } = self;
        tasks.retain(|key, task| {
            let keep = wanted.contains(key);
            if !keep {
                task.abort();
                sender.send_if_modified(|found| found.remove(key).is_some());
            }
            keep
        });
        for key in wanted {
            tasks.entry(key.clone()).or_insert_with(|| {
                let watch = Watch { cloudmap: cloudmap.clone(), key, known: None, polls: 0 };
                tokio::spawn(watch.run(sender.clone())).abort_handle()
            });
        }
    }
}

/// One watched key.
struct Watch {
    cloudmap: CloudMap,
    key: Key,
    /// Revision of the last answer.
    known: Option<i64>,
    polls: u32,
}

impl Watch {
    async fn run(mut self, sender: Arc<watch::Sender<Found>>) {
        let mut failed: Option<String> = None;
        let mut delays = delays();
        loop {
            let looked = timeout(TIMEOUT, self.look()).await;
            let wait = match looked.context("no answer in time").flatten() {
                Ok(news) => {
                    if let Some(answer) = news {
                        self.tell(&sender, answer);
                    }
                    if failed.take().is_some() {
                        tracing::info!(of = %self.key, "Cloud Map answers again");
                        delays = self::delays();
                    }
                    POLL
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    if failed.as_ref() != Some(&error) {
                        tracing::warn!(of = %self.key, error, "cannot read Cloud Map, trying again");
                    }
                    failed = Some(error);
                    self.known = None;
                    if !sender.borrow().contains_key(&self.key) {
                        self.tell(&sender, self.nothing());
                    }
                    delays.next().unwrap_or(POLL)
                }
            };
            sleep(wait).await;
        }
    }

    /// The answer if it may be another than before.
    async fn look(&mut self) -> anyhow::Result<Option<Answer>> {
        let key = match &self.key {
            Key::Instances(key) => key.clone(),
            Key::Routes(namespace, arn) => publish::key(namespace.clone(), arn),
        };
        let Some(namespace) = self.cloudmap.namespace(&key.namespace).await? else {
            self.known = None;
            anyhow::bail!("Cloud Map namespace not found: {}", key.namespace);
        };
        self.polls += 1;
        let revision = self.cloudmap.revision(&namespace, &key.service).await?;
        if revision.is_some() && revision == self.known && self.polls < REREAD {
            return Ok(None);
        }
        self.polls = 0;
        self.read(&namespace, &key.service, revision).await.map(Some)
    }

    async fn read(&mut self, namespace: &Namespace, service: &str, revision: Option<i64>) -> anyhow::Result<Answer> {
        let discovered = match revision {
            Some(_) => self.cloudmap.discover(namespace, service).await?,
            None => None,
        };
        let Some((read, instances)) = discovered else {
            self.known = None;
            return Ok(self.nothing());
        };
        let answer = match &self.key {
            Key::Instances(_) => Answer::Instances(Arc::new(instances)),
            Key::Routes(_, arn) => Answer::Routes(publish::decode(arn, &instances)?.map(Arc::new)),
        };
        // If what was read is older than the revision told before, the next poll sees a difference and reads again.
        self.known = revision.map(|told| told.min(read));
        Ok(answer)
    }

    fn nothing(&self) -> Answer {
        match self.key {
            Key::Instances(_) => Answer::Instances(Arc::default()),
            Key::Routes(..) => Answer::Routes(None),
        }
    }

    fn tell(&self, sender: &watch::Sender<Found>, answer: Answer) {
        sender.send_if_modified(|found| {
            let news = found.get(&self.key) != Some(&answer);
            if news {
                tracing::debug!(of = %self.key, "Cloud Map has changed");
                found.insert(self.key.clone(), answer);
            }
            news
        });
    }
}

fn delays() -> impl Iterator<Item = Duration> {
    let backoff = ExponentialBuilder::default().with_min_delay(POLL).with_max_delay(PATIENCE);
    backoff.with_jitter().without_max_times().build()
}
