//! Reads the journals of the other clusters in one namespace, again and again: the one look-up that is made all the time,
//! however many services there are.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep},
};

use super::{Intervals, LAST_RETRY, ask};
use crate::{
    cloudmap::{
        client::CloudMap,
        jitter,
        journal::{self, Hint, Journals},
    },
    model::ClusterId,
};

/// By how much more seldom journals are read at rest while no Envoy here waits for what they tell, but only conditions.
const UNHURRIED: u32 = 5;

/// The journals of a namespace as they were read last; `None` if there are none, or if they cannot be read.
pub type Known = Option<Arc<Journals>>;

/// What is known now of a service, where so much was known before.
pub fn hint(now: &Known, service: &str, before: &Known) -> Hint {
    match (now, before) {
        (Some(now), Some(before)) => now.hint(service, before),
        (Some(now), None) => now.hint(service, &Journals::default()),
        (None, Some(_)) => Hint::Perhaps,
        (None, None) => Hint::Nothing,
    }
}

/// Whether each of these clusters keeps a journal.
pub fn are_of(known: &Known, clusters: &BTreeSet<String>) -> bool {
    known.as_ref().is_some_and(|journals| journals.are_of(clusters))
}

/// Reads the journals of a namespace.
pub struct Reader {
    pub cloudmap: CloudMap,
    pub cluster: ClusterId,
    pub intervals: Intervals,
    pub namespace: String,
    /// Whether an Envoy that is connected here needs what other clusters have.
    pub urgent: watch::Receiver<bool>,
}

impl Reader {
    /// Reads until nobody wants to know.
    pub async fn run(mut self, known: watch::Sender<Known>) {
        let (of, mut failed) = (format!("journals of {}", self.namespace), None);
        let (mut interval, mut answered) = (self.intervals.shortest, Instant::now());
        while !known.is_closed() {
            interval = match ask(&of, &mut failed, self.read()).await {
                Ok(journals) => {
                    answered = Instant::now();
                    if replace(&known, journals) { self.intervals.shortest } else { self.after(interval) }
                }
                Err(_) => {
                    // What is read next tells what was missed. But the services are looked up meanwhile, if that goes on.
                    if answered.elapsed() > self.intervals.rarest {
                        replace(&known, None);
                    }
                    interval.mul_f64(2.0).min(LAST_RETRY.max(self.intervals.longest))
                }
            };
            select! {
                () = sleep(jitter(interval)) => {}
                Ok(()) = self.urgent.changed() => interval = self.intervals.shortest,
            }
        }
    }

    /// The next interval, where a reading told nothing new.
    pub fn after(&self, interval: Duration) -> Duration {
        let unhurried = Intervals { longest: self.intervals.longest * UNHURRIED, ..self.intervals };
        if *self.urgent.borrow() { self.intervals.after(interval) } else { unhurried.after(interval) }
    }

    async fn read(&self) -> anyhow::Result<Known> {
        let key = journal::service_key(&self.namespace);
        let Some(namespace) = self.cloudmap.namespace(&key.namespace).await? else { return Ok(None) };
        let found = self.cloudmap.discover(&namespace, &key.service).await?;
        Ok(found.map(|instances| Arc::new(Journals::read(&instances, &self.cluster))))
    }
}

/// Makes known what was read; returns whether that is something else than before.
fn replace(known: &watch::Sender<Known>, read: Known) -> bool {
    known.send_if_modified(|known| {
        let differs = *known != read;
        if differs {
            *known = read;
        }
        differs
    })
}
