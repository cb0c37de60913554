//! Queues what is to be looked at, each thing once however often it changes.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// The first and the longest delay until something that failed is looked at again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// What has come of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do until something changes.
    Done,
    /// Look again later, though nothing may change here until then.
    Retry,
    /// Look again after so long.
    After(Duration),
}

/// Things to look at, each when it is due. It is closed until somebody works on it.
pub struct Queue<T> {
    due: Mutex<Due<T>>,
    wake: Notify,
}

struct Due<T> {
    open: bool,
    order: BTreeSet<(Instant, T)>,
    times: HashMap<T, Instant>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let due = Due { open: false, order: BTreeSet::new(), times: HashMap::new() };
        Self { due: due.into(), wake: Notify::new() }
    }
}

impl<T: Clone + Ord + Hash> Queue<T> {
    /// Adds things, due after a delay. What is there already is looked at once, at the earlier time. A closed queue drops
    /// them.
    pub fn push(&self, things: impl IntoIterator<Item = T>, delay: Duration) {
        self.lock().push(things, Instant::now() + delay);
        self.wake.notify_one();
    }

    /// Opens the queue, adds `all` and looks at what is due, as many at once as `concurrency` says. It never ends by itself.
    /// A thing is looked at by one at a time.
    pub async fn work<I, F>(&self, all: impl FnOnce() -> I, concurrency: usize, look: impl Fn(T) -> F)
    where
        I: IntoIterator<Item = T>,
        F: Future<Output = Outcome>,
    {
        // Open before `all` is gathered, so that what changes meanwhile is in one or the other.
        self.lock().open = true;
        self.push(all(), Duration::ZERO);
        let mut looks = FuturesUnordered::new();
        let (mut looked_at, mut failures) = (BTreeSet::new(), HashMap::new());
        loop {
            while looks.len() < concurrency
                && let Some(thing) = self.take(&looked_at)
            {
                looked_at.insert(thing.clone());
                let look = look(thing.clone());
                looks.push(async move { (thing, look.await) });
            }
            let next = self.lock().next(&looked_at).filter(|_| looks.len() < concurrency);
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                Some((thing, outcome)) = looks.next(), if !looks.is_empty() => {
                    looked_at.remove(&thing);
                    match outcome {
                        Outcome::Done => drop(failures.remove(&thing)),
                        Outcome::After(delay) => {
                            failures.remove(&thing);
                            self.push([thing], delay);
                        }
                        Outcome::Retry => {
                            let failed: &mut u32 = failures.entry(thing.clone()).or_default();
                            let delay = backoff(*failed);
                            *failed += 1;
                            self.lock().push([thing], Instant::now() + delay);
                        }
                    }
                }
            }
        }
    }

    /// Drops everything, and what is pushed from now on.
    pub fn close(&self) {
        *self.lock() = Due { open: false, order: BTreeSet::new(), times: HashMap::new() };
    }

    fn take(&self, looked_at: &BTreeSet<T>) -> Option<T> {
        self.lock().pop(Instant::now(), looked_at)
    }

    fn lock(&self) -> MutexGuard<'_, Due<T>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Ord + Hash> Due<T> {
    fn push(&mut self, things: impl IntoIterator<Item = T>, at: Instant) {
        for thing in things.into_iter().take_while(|_| self.open) {
            match self.times.get(&thing) {
                Some(earlier) if *earlier <= at => continue,
                Some(later) => drop(self.order.remove(&(*later, thing.clone()))),
                None => {}
            }
            self.times.insert(thing.clone(), at);
            self.order.insert((at, thing));
        }
    }

    /// Takes the first thing that is due and nobody looks at.
    fn pop(&mut self, now: Instant, looked_at: &BTreeSet<T>) -> Option<T> {
        let due = self.order.iter().take_while(|(at, _)| *at <= now);
        let found = due.clone().find(|(_, thing)| !looked_at.contains(thing)).cloned()?;
        self.order.remove(&found);
        self.times.remove(&found.1);
        Some(found.1)
    }

    /// When the next thing is due that nobody looks at.
    fn next(&self, looked_at: &BTreeSet<T>) -> Option<Instant> {
        self.order.iter().find(|(_, thing)| !looked_at.contains(thing)).map(|(at, _)| *at)
    }
}

/// How long to wait after a failure that came after so many others.
fn backoff(failures: u32) -> Duration {
    RETRY.0.saturating_mul(2_u32.saturating_pow(failures)).min(RETRY.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, collections::BTreeMap};
    use tokio::sync::mpsc;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn things_are_due_in_the_order_of_their_times() {
        let mut due = Due { open: true, order: BTreeSet::new(), times: HashMap::new() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        due.push(["late", "later"], at(9));
        due.push(["late", "soon", "soon"], at(2));
        due.push(["soon"], at(5));
        let nobody = BTreeSet::new();
        assert_eq!((due.next(&nobody), due.pop(at(1), &nobody)), (Some(at(2)), None));
        let late = BTreeSet::from(["late"]);
        assert_eq!((due.next(&late), due.pop(at(2), &late)), (Some(at(2)), Some("soon")));
        assert_eq!((due.next(&late), due.pop(at(2), &late)), (Some(at(9)), None), "one looks at a thing at a time");
        assert_eq!((due.pop(at(2), &nobody), due.next(&nobody)), (Some("late"), Some(at(9))));
        assert_eq!((due.pop(at(9), &nobody), due.next(&nobody)), (Some("later"), None));
    }

    #[test]
    fn failures_are_looked_at_ever_later() {
        let seconds: Vec<_> = [0, 1, 2, 3, 4, 40].map(|failures| backoff(failures).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 8, 15, 15]);
    }

    #[tokio::test]
    async fn a_slow_look_holds_up_only_its_own_thing() {
        let queue = Queue::default();
        queue.push(["dropped"], NOW);
        let (begin, mut begun) = mpsc::unbounded_channel();
        let looks = RefCell::new(BTreeMap::<_, u32>::new());
        let work = queue.work(
            || ["slow"],
            2,
            async |thing| {
                *looks.borrow_mut().entry(thing).or_default() += 1;
                let _ = begin.send(thing);
                if thing == "slow" {
                    std::future::pending::<()>().await;
                }
                Outcome::Done
            },
        );
        let push = async {
            for _ in 0..3 {
                begun.recv().await;
                queue.push(["slow", "other"], NOW);
            }
            begun.recv().await
        };
        let last = tokio::select! { () = work => None, last = push => last };
        assert_eq!(last, Some("other"));
        assert_eq!((looks.borrow()["slow"], looks.borrow().len()), (1, 2), "a closed queue holds nothing");
    }

    #[tokio::test]
    async fn what_failed_is_looked_at_again_by_itself() {
        let queue = Queue::default();
        let (begin, mut begun) = mpsc::unbounded_channel();
        let work = queue.work(
            || ["bad", "good"],
            1,
            |thing| {
                let _ = begin.send(thing);
                std::future::ready(if thing == "bad" { Outcome::Retry } else { Outcome::Done })
            },
        );
        let looks = async {
            let mut looks = Vec::new();
            while looks.len() < 3 {
                looks.extend(begun.recv().await);
            }
            looks
        };
        let looks = tokio::select! { () = work => Vec::new(), looks = looks => looks };
        assert_eq!(looks, ["bad", "good", "bad"]);
        queue.close();
        queue.push(["bad"], NOW);
        assert_eq!(queue.lock().next(&BTreeSet::new()), None);
    }
}
