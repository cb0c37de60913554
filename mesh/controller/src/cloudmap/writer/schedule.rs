//! Keeps which service is looked at when.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::model::ServiceKey;

/// Services by the time at which they are due, each once.
#[derive(Debug, Default)]
pub struct Schedule {
    queue: BTreeSet<(Instant, ServiceKey)>,
    due: BTreeMap<ServiceKey, Instant>,
}

impl Schedule {
    /// Makes a service due at this time, or earlier if it is so already.
    pub fn by(&mut self, key: &ServiceKey, at: Instant) {
        match self.due.get(key) {
            Some(due) if *due <= at => return,
            Some(due) => drop(self.queue.remove(&(*due, key.clone()))),
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.queue.insert((at, key.clone()));
    }

    /// The time at which the first service is due, but for these.
    pub fn next(&self, but: &BTreeSet<ServiceKey>) -> Option<Instant> {
        self.queue.iter().find(|(_, key)| !but.contains(key)).map(|(at, _)| *at)
    }

    /// Takes out the first service that is due now, but for these.
    pub fn take(&mut self, now: Instant, but: &BTreeSet<ServiceKey>) -> Option<ServiceKey> {
        let due = self.queue.iter().take_while(|(at, _)| *at <= now).find(|(_, key)| !but.contains(key)).cloned()?;
        self.queue.remove(&due);
        self.due.remove(&due.1);
        Some(due.1)
    }

    /// Takes a service out.
    pub fn remove(&mut self, key: &ServiceKey) {
        if let Some(at) = self.due.remove(key) {
            self.queue.remove(&(at, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(service: &str) -> ServiceKey {
        ServiceKey { namespace: "n".to_owned(), service: service.to_owned() }
    }

    #[test]
    fn the_earliest_comes_first_and_each_once() {
        let (now, none) = (Instant::now(), BTreeSet::new());
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut schedule = Schedule::default();
        schedule.by(&key("a"), after(3));
        schedule.by(&key("b"), after(2));
        schedule.by(&key("a"), after(1));
        schedule.by(&key("a"), after(5));
        assert_eq!(schedule.next(&none), Some(after(1)));
        assert_eq!(schedule.take(now, &none), None);
        assert_eq!(schedule.take(after(9), &BTreeSet::from([key("a")])), Some(key("b")));
        assert_eq!(schedule.next(&BTreeSet::from([key("a")])), None);
        assert_eq!(schedule.take(after(1), &none), Some(key("a")));
        assert_eq!(schedule.take(after(9), &none), None);
        schedule.by(&key("a"), after(1));
        schedule.remove(&key("a"));
        assert_eq!(schedule.next(&none), None);
    }
}
