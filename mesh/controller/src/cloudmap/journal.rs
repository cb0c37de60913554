//! Tells other clusters in which Cloud Map services this one has changed something, so that they look up these and not
//! each service all the time.
//!
//! In a namespace in which it has something, a cluster keeps one instance in a service of type HTTP, [`SERVICE`]. Its id is
//! the cluster's uid.
//!
//! | instance attribute | value |
//! | --- | --- |
//! | `appmesh.k8s.aws/cluster` | uid of the cluster |
//! | `appmesh.k8s.aws/clusterARN` | ARN of that EKS cluster, if it is known |
//! | `version` | 1 |
//! | `term` | of the replica that leads, another for each |
//! | `count` | how many changes there were in this term |
//! | `services.0` … `services.3` | names of the services that were changed, the last first, with commas between them, in pieces of up to 1024 characters |
//!
//! Readers compare it with what they have read before. More changes than there are names, or another term, may have been in
//! any service.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    exchange::VERSION,
    values::{self, MAX_VALUE, MAX_VALUES},
};
use crate::model::{
    Attributes, ClusterId, Instances, ServiceKey,
    endpoint::{self, CLUSTER, CLUSTER_ARN},
};

/// The Cloud Map service that holds the journals of a namespace. What is published is called otherwise: it has a mesh and a
/// VirtualService in its name.
const SERVICE: &str = "appmesh.journal";
const TERM: &str = "term";
const COUNT: &str = "count";
/// The name of the values that hold the services.
const SERVICES: &str = "services";
/// The version that is written here, and the only one that is understood.
const NEWEST: &str = "1";

/// The service that holds the journals of a namespace.
pub fn service_key(namespace: &str) -> ServiceKey {
    ServiceKey { namespace: namespace.to_owned(), service: SERVICE.to_owned() }
}

/// Whether a service holds journals.
pub fn is_journal(key: &ServiceKey) -> bool {
    key.service == SERVICE
}

/// What one cluster has changed, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    term: String,
    count: u64,
    /// The last first, as many as there is room for.
    services: VecDeque<String>,
}

impl Journal {
    /// The journal of a term that begins.
    pub fn new() -> Self {
        let term = format!("{:016x}", fastrand::u64(..));
        Self { term, count: 0, services: VecDeque::new() }
    }

    /// Takes down that something changes in this service.
    pub fn note(&mut self, service: &str) {
        self.count += 1;
        self.services.push_front(service.to_owned());
        // Each with a comma.
        while self.services.iter().map(|name| name.len() + 1).sum::<usize>() > MAX_VALUES * MAX_VALUE {
            self.services.pop_back();
        }
    }

    /// The instance that says so.
    pub fn instances(&self, of: &ClusterId) -> Instances {
        let mut attributes = BTreeMap::from([
            (CLUSTER.to_owned(), of.uid.clone()),
            (VERSION.to_owned(), NEWEST.to_owned()),
            (TERM.to_owned(), self.term.clone()),
            (COUNT.to_owned(), self.count.to_string()),
        ]);
        attributes.extend(of.arn.clone().map(|arn| (CLUSTER_ARN.to_owned(), arn)));
        let names = self.services.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        attributes.extend(values::cut(SERVICES, names.as_bytes()));
        [(of.uid.clone(), Arc::new(attributes.into()))].into()
    }
}

/// What journals say of a service. Of two, the greater counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// Nothing has changed in it.
    Nothing,
    /// Something may have changed in any service.
    Perhaps,
    /// Something changes in it.
    Changed,
}

/// What other clusters have changed in a namespace, by their uids, as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journals(BTreeMap<String, Read>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Read {
    term: String,
    count: u64,
    services: Vec<String>,
}

impl Journals {
    /// Reads the journals of other clusters. One that is not understood counts as none.
    pub fn read(instances: &Instances, here: &ClusterId) -> Self {
        let others = instances.values().filter(|attributes| !endpoint::is_of(attributes, here));
        let read = |attributes: &Arc<Attributes>| Some((attributes.get(CLUSTER)?.to_owned(), Read::of(attributes)?));
        Self(others.filter_map(read).collect())
    }

    /// Whether each of these clusters keeps a journal.
    pub fn are_of(&self, clusters: &BTreeSet<String>) -> bool {
        clusters.iter().all(|cluster| self.0.contains_key(cluster))
    }

    /// What has become of a service since these journals were read before.
    pub fn hint(&self, service: &str, before: &Self) -> Hint {
        let hints = self.0.iter().map(|(cluster, read)| read.hint(service, before.0.get(cluster)));
        let gone = before.0.keys().any(|cluster| !self.0.contains_key(cluster)).then_some(Hint::Perhaps);
        hints.chain(gone).max().unwrap_or(Hint::Nothing)
    }
}

impl Read {
    fn of(attributes: &Attributes) -> Option<Self> {
        let (version, term, count) = (attributes.get(VERSION)?, attributes.get(TERM)?, attributes.get(COUNT)?);
        let names = values::join(SERVICES, attributes);
        let names = names.split(',').filter(|name| !name.is_empty());
        let count = count.parse().ok().filter(|_| version == NEWEST)?;
        Some(Self { term: term.to_owned(), count, services: names.map(str::to_owned).collect() })
    }

    fn hint(&self, service: &str, before: Option<&Self>) -> Hint {
        let before = before.filter(|before| before.term == self.term);
        let since = before.and_then(|before| usize::try_from(self.count.checked_sub(before.count)?).ok());
        let changed = since.and_then(|since| self.services.get(..since));
        match changed.unwrap_or(&self.services).iter().any(|changed| changed == service) {
            true => Hint::Changed,
            false if changed.is_some() => Hint::Nothing,
            false => Hint::Perhaps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(uid: &str) -> ClusterId {
        ClusterId { uid: uid.to_owned(), arn: Some(format!("arn:{uid}")) }
    }

    fn read(journals: &[(&str, &Journal)]) -> Journals {
        let instances = journals.iter().flat_map(|(uid, journal)| journal.instances(&cluster(uid)));
        Journals::read(&instances.collect(), &cluster("here"))
    }

    fn noted(journal: &Journal, services: &[&str]) -> Journal {
        let mut journal = journal.clone();
        services.iter().for_each(|service| journal.note(service));
        journal
    }

    #[test]
    fn what_was_changed_since_is_named() {
        let first = noted(&Journal::new(), &["front", "back"]);
        let named = |before: &[(&str, &Journal)], now: &[(&str, &Journal)]| {
            let (before, now) = (read(before), read(now));
            ["front", "back", "other"].map(|service| now.hint(service, &before))
        };
        let (none, all) = ([Hint::Nothing; 3], [Hint::Perhaps; 3]);
        let those = [Hint::Changed, Hint::Changed, Hint::Perhaps];
        let front = [Hint::Changed, Hint::Nothing, Hint::Nothing];
        let then = noted(&first, &["front"]);
        for (case, before, now, expected) in [
            ("nothing", vec![("a", &first)], vec![("a", &first)], none),
            ("one", vec![("a", &first)], vec![("a", &then)], front),
            ("one, of another cluster", vec![("a", &first), ("b", &first)], vec![("a", &first), ("b", &then)], front),
            ("this cluster's own", vec![("here", &first)], vec![("here", &then)], none),
            ("a cluster that comes", vec![("a", &first)], vec![("a", &first), ("b", &first)], those),
            ("a cluster that goes", vec![("a", &first), ("b", &first)], vec![("a", &first)], all),
            ("another term", vec![("a", &first)], vec![("a", &noted(&Journal::new(), &["front", "back"]))], those),
            ("fewer than before", vec![("a", &then)], vec![("a", &first)], those),
        ] {
            assert_eq!(named(&before, &now), expected, "{case}");
        }
    }

    #[test]
    fn more_changes_than_there_is_room_for_may_be_anywhere() {
        let first = noted(&Journal::new(), &["front"]);
        let long = "n".repeat(127);
        let many = |count: usize| noted(&first, &vec![long.as_str(); count]);
        let instances = many(100).instances(&cluster("a"));
        let attributes = &instances["a"];
        let characters: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(characters < values::MAX_CHARACTERS, "{characters}");
        assert!(attributes.iter().all(|(_, value)| value.len() <= MAX_VALUE));
        let named = |count| read(&[("a", &many(count))]).hint("front", &read(&[("a", &first)]));
        assert_eq!([32, 33].map(named), [Hint::Nothing, Hint::Perhaps], "32 names of 127 characters have room");
    }

    #[test]
    fn a_journal_that_is_not_understood_is_none() {
        let journal = Journal::new();
        let of = |clusters: &[&str]| clusters.iter().map(|cluster| (*cluster).to_owned()).collect();
        let there = read(&[("a", &journal), ("b", &journal)]);
        assert!(there.are_of(&of(&["a", "b"])) && there.are_of(&of(&[])));
        assert!(!there.are_of(&of(&["a", "c"])));
        let instances = journal.instances(&cluster("a"));
        for (attribute, value) in [(VERSION, "2"), (COUNT, "many")] {
            let other = instances.iter().map(|(id, was)| (id.clone(), Arc::new(was.with(attribute, value)))).collect();
            assert_eq!(Journals::read(&other, &cluster("here")), Journals::default(), "{attribute}");
        }
    }
}
