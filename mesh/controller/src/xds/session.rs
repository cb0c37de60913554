//! Decides what a stream is sent next, whichever variant of the protocol it uses. Pure, so that the order can be tested.
//!
//! A change is made before it is broken: new clusters first (CDS) and their endpoints (EDS), when Envoy has accepted both
//! the listeners (LDS) and routes (RDS) that name them, and only when those are in force the clusters that nobody names
//! any more are removed.
//!
//! After a cluster has changed, Envoy waits for its endpoints, and after a listener has, for its routes, be they the same
//! as before. So an endpoint assignment's version includes its cluster's, and a route configuration's the listeners'.
//! This holds over a reconnect too, where Envoy shows the versions it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener, route::v3::RouteConfiguration,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use prost::Name as _;

use super::cache::{Progress, Protocol, Versioned};
use crate::envoy::{Resource, Resources};

/// A kind of resource, in the order in which a change is sent. A cluster or listener waits for its secrets, whenever Envoy
/// asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SDS
    Secret,
    /// CDS
    Cluster,
    /// EDS
    Endpoint,
    /// LDS
    Listener,
    /// RDS
    Route,
}

/// How many kinds there are.
pub const KINDS: usize = 5;

impl Kind {
    /// All of them.
    pub const ALL: [Self; KINDS] = [Self::Secret, Self::Cluster, Self::Endpoint, Self::Listener, Self::Route];

    /// The kind that Envoy asks for.
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// As Envoy asks for it.
    pub fn type_url(self) -> String {
        match self {
            Self::Secret => Secret::type_url(),
            Self::Cluster => Cluster::type_url(),
            Self::Endpoint => ClusterLoadAssignment::type_url(),
            Self::Listener => Listener::type_url(),
            Self::Route => RouteConfiguration::type_url(),
        }
    }

    /// `sds`, `cds`, `eds`, `lds` or `rds`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "sds",
            Self::Cluster => "cds",
            Self::Endpoint => "eds",
            Self::Listener => "lds",
            Self::Route => "rds",
        }
    }

    /// Whether Envoy may ask for all there are.
    fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

/// One Envoy's stream.
pub trait Session {
    /// What Envoy sends.
    type Request: Send + 'static;
    /// What Envoy is sent.
    type Response: Send + 'static;
    /// The variant of the protocol.
    const PROTOCOL: Protocol;

    /// Starts a stream.
    fn new() -> Self;
    /// The id of the node that a request comes from.
    fn node(request: &Self::Request) -> &str;
    /// Takes in a request: a subscription, an answer to a response, or both. Kinds of resources that are not supported
    /// and answers to older responses change nothing.
    fn receive(&mut self, request: Self::Request) -> Option<Answer>;
    /// Encodes a response.
    fn encode(update: Update) -> Self::Response;
    /// The state of the stream.
    fn state(&mut self) -> &mut State;
}

/// What Envoy says of a response.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has accepted it.
    Accepted(Kind),
    /// It keeps what it had.
    Rejected(Rejection),
}

/// Why Envoy does not accept what it was sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of resource.
    pub kind: Kind,
    /// The version of all resources of the kind that the response was part of.
    pub version: String,
    /// Envoy's reason.
    pub message: String,
}

/// A response in the terms of both variants of the protocol.
#[derive(Debug)]
pub struct Update {
    /// The kind of all its resources.
    pub kind: Kind,
    /// Unique in the stream.
    pub nonce: String,
    /// The version of all resources of the kind, those that are not in the response too.
    pub version: Arc<str>,
    /// The resources, each with its version.
    pub resources: Vec<(Arc<Resource>, String)>,
    /// What is to be removed.
    pub removed: Vec<String>,
}

/// The state of one stream.
pub struct State {
    protocol: Protocol,
    target: Option<Arc<Versioned>>,
    /// Clusters that Envoy was sent before and that its routes may still name, with their endpoints: Envoy may not have
    /// those yet.
    retained: Retained,
    /// Clusters to be removed as soon as no route names them any more.
    has_removals: bool,
    kinds: [Subscription; KINDS],
    nonce: u64,
}

#[derive(Default)]
struct Retained {
    clusters: Resources,
    endpoints: Resources,
}

/// What Envoy asks for.
#[derive(Clone, Debug, Default)]
struct Names {
    all: bool,
    names: BTreeSet<String>,
}

impl Names {
    fn contains(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }
}

/// What Envoy was sent of one resource, or has brought along.
#[derive(Debug, Default)]
struct Sent {
    /// Empty where it must be sent anew.
    version: String,
    nonce: u64,
}

/// What Envoy asks for and was sent of one kind.
struct Subscription {
    /// `None` until Envoy asks.
    names: Option<Names>,
    sent: BTreeMap<String, Sent>,
    /// The responses that Envoy has not answered yet, with the version of all resources of the kind.
    open: BTreeMap<u64, Arc<str>>,
    /// The nonce of the last response.
    last: Option<u64>,
    /// Resources that Envoy has rejected, or that were sent along with one: not sent again before the kind changes.
    held: BTreeSet<String>,
    /// Envoy has rejected the last response.
    is_rejected: bool,
    /// There may be something to send.
    is_stale: bool,
    progress: Progress,
}

impl Default for Subscription {
    fn default() -> Self {
        Self {
            names: None,
            sent: BTreeMap::new(),
            open: BTreeMap::new(),
            last: None,
            held: BTreeSet::new(),
            is_rejected: false,
            is_stale: true,
            progress: Progress::default(),
        }
    }
}

impl Subscription {
    /// Whether Envoy has accepted all that it asks for.
    fn is_in_force(&self) -> bool {
        let waits = self.is_stale || self.is_rejected || !self.open.is_empty() || !self.held.is_empty();
        self.names.is_some() && !waits
    }

    fn asks_for<'a>(&self, mut names: impl Iterator<Item = &'a String>) -> bool {
        names.all(|name| self.names.as_ref().is_some_and(|asked| asked.contains(name)))
    }

    /// The resource must be sent, whatever version Envoy has.
    fn forget(&mut self, name: &str) {
        if let Some(sent) = self.sent.get_mut(name) {
            sent.version.clear();
        }
        self.is_stale = true;
    }
}

impl State {
    /// The state of a new stream.
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            target: None,
            retained: Retained::default(),
            has_removals: false,
            kinds: <[Subscription; KINDS]>::default(),
            nonce: 0,
        }
    }

    /// From now on Envoy is to have this.
    pub fn update(&mut self, target: Arc<Versioned>) {
        if let Some(old) = self.target.take() {
            for kind in Kind::ALL {
                if old.snapshot.of(kind) != target.snapshot.of(kind) {
                    self.changed(kind);
                }
            }
            self.retain(&old, &target);
        }
        self.target = Some(target);
    }

    /// The resources of a kind are others than before.
    fn changed(&mut self, kind: Kind) {
        let dependent = match kind {
            Kind::Cluster => Kind::Endpoint,
            Kind::Listener => Kind::Route,
            Kind::Secret | Kind::Endpoint | Kind::Route => kind,
        };
        self.kinds[dependent as usize].is_stale = true;
        let subscription = &mut self.kinds[kind as usize];
        subscription.is_stale = true;
        subscription.is_rejected = false;
        subscription.held.clear();
    }

    /// Keeps what Envoy's routes may name until they don't.
    fn retain(&mut self, old: &Versioned, target: &Versioned) {
        let (old, target) = (&old.snapshot, &target.snapshot);
        let sent = &self.kinds[Kind::Cluster as usize].sent;
        // What Envoy has rejected it has no version of, and would reject again.
        let had = |name: &String| sent.get(name).is_some_and(|sent| !sent.version.is_empty());
        let Retained { clusters, endpoints } = &mut self.retained;
        let copy = |(name, resource): (&String, &Arc<Resource>)| (name.clone(), resource.clone());
        clusters.retain(|name, _| !target.clusters.contains_key(name));
        let gone = old.clusters.iter().filter(|(name, _)| !target.clusters.contains_key(*name) && had(name));
        clusters.extend(gone.map(copy));
        endpoints.retain(|name, _| clusters.contains_key(name));
        endpoints.extend(old.endpoints.iter().filter(|(name, _)| clusters.contains_key(*name)).map(copy));
    }

    /// What to send now. Empty while Envoy has to answer first, or has everything.
    pub fn responses(&mut self) -> Vec<Update> {
        let mut updates = Vec::new();
        let Some(target) = self.target.clone() else { return updates };
        loop {
            let can_remove = self.are_routes_in_force(&target);
            if can_remove && (self.has_removals || !self.retained.clusters.is_empty()) {
                self.retained = Retained::default();
                self.has_removals = false;
                self.kinds[Kind::Cluster as usize].is_stale = true;
            }
            for kind in Kind::ALL {
                updates.extend(self.respond(kind, &target, can_remove));
                if kind == Kind::Endpoint && !self.are_clusters_in_force(&target) {
                    break;
                }
            }
            // Listeners and routes may be in force already.
            let has_leftovers = self.has_removals || !self.retained.clusters.is_empty();
            if !has_leftovers || !self.are_routes_in_force(&target) {
                break;
            }
        }
        for kind in Kind::ALL {
            let version = self.version(kind, &target);
            let subscription = &mut self.kinds[kind as usize];
            let is_unneeded = subscription.names.is_none() && target.snapshot.of(kind).is_empty();
            if is_unneeded || subscription.is_in_force() {
                // Also what came to be so without a response, by an unsubscription or on an earlier stream.
                subscription.progress = Progress { sent: version.clone(), acknowledged: version };
            }
        }
        updates
    }

    /// Whether Envoy has accepted all that it is to have.
    pub fn is_in_force(&self) -> bool {
        self.target_in_force().is_some()
    }

    /// What Envoy is to have, if it has accepted all of it.
    pub fn target_in_force(&self) -> Option<&Arc<Versioned>> {
        let target = self.target.as_ref()?;
        let endpoints = target.snapshot.endpoints.is_empty() || self.kinds[Kind::Endpoint as usize].is_in_force();
        let is_all_there = endpoints && self.are_clusters_in_force(target) && self.are_routes_in_force(target);
        (is_all_there && !self.has_removals && self.retained.clusters.is_empty()).then_some(target)
    }

    /// How many resources Envoy asks for by name.
    pub fn names(&self) -> usize {
        self.kinds.iter().filter_map(|subscription| subscription.names.as_ref()).map(|names| names.names.len()).sum()
    }

    /// What Envoy was sent and has accepted, by kind.
    pub fn progress(&self) -> [Progress; KINDS] {
        Kind::ALL.map(|kind| self.kinds[kind as usize].progress.clone())
    }

    /// Envoy asks for the endpoints of a new cluster at once, and accepts the clusters only when it has those.
    fn are_clusters_in_force(&self, target: &Versioned) -> bool {
        let snapshot = &target.snapshot;
        let endpoints = snapshot.endpoints.keys().filter(|name| snapshot.clusters.contains_key(*name));
        self.kinds[Kind::Cluster as usize].is_in_force() && self.kinds[Kind::Endpoint as usize].asks_for(endpoints)
    }

    /// Whether nothing that Envoy does depends on former clusters any more.
    fn are_routes_in_force(&self, target: &Versioned) -> bool {
        let routes = &self.kinds[Kind::Route as usize];
        let names = &target.snapshot.routes;
        let is_routed = || names.is_empty() || routes.is_in_force() && routes.asks_for(names.keys());
        self.kinds[Kind::Listener as usize].is_in_force() && is_routed()
    }

    fn respond(&mut self, kind: Kind, target: &Versioned, can_remove: bool) -> Option<Update> {
        let subscription = &self.kinds[kind as usize];
        let names = subscription.names.as_ref().filter(|_| subscription.is_stale)?;
        let is_whole = self.protocol == Protocol::Sotw && kind.is_wildcard();
        if is_whole && subscription.is_rejected {
            return None;
        }
        // Who waits for the endpoints of a cluster that is no more must know that there are none. Routes and secrets go with
        // what names them: Envoy ignores their removal.
        let goes_by_itself = matches!(kind, Kind::Route | Kind::Secret);
        let removes = is_whole || self.protocol == Protocol::Delta && !goes_by_itself;
        let wanted: BTreeMap<_, _> = self.wanted(kind, target).filter(|(name, _)| names.contains(name)).collect();
        let is_news = |name: &str, resource: &Resource, parent: &str| {
            let is_sent = |sent: &Sent| is_version(&sent.version, resource, parent);
            !subscription.held.contains(name) && !subscription.sent.get(name).is_some_and(is_sent)
        };
        let news = wanted.iter().filter(|(name, (resource, parent))| is_news(name, resource, parent));
        let news: Vec<_> = news.map(|(name, _)| (*name).clone()).collect();
        let gone = subscription.sent.keys().filter(|name| removes && !wanted.contains_key(name));
        let mut removed: Vec<_> = gone.cloned().collect();
        // In the state of the world, clusters that may not go yet are retained, and thereby wanted.
        let is_deferred = kind == Kind::Cluster && !is_whole && !can_remove && !removed.is_empty();
        if is_deferred {
            removed.clear();
        }
        // Envoy waits for a first response, if only to know that there is nothing.
        let is_first = names.all && subscription.last.is_none() && (is_whole || subscription.sent.is_empty());
        let is_due = is_first || !news.is_empty() || !removed.is_empty();
        let is_part = |name: &String| is_due && (is_whole || news.binary_search(name).is_ok());
        let resources = wanted.into_iter().filter(|(name, _)| is_part(name));
        let resources = resources.map(|(_, (resource, parent))| (resource.clone(), version(resource, parent)));
        let resources: Vec<_> = resources.collect();
        let all = self.version(kind, target);
        self.has_removals |= is_deferred;
        let subscription = &mut self.kinds[kind as usize];
        subscription.is_stale = false;
        if !is_due {
            return None;
        }
        self.nonce += 1;
        for (resource, version) in &resources {
            subscription.sent.insert(resource.name.clone(), Sent { version: version.clone(), nonce: self.nonce });
        }
        removed.iter().for_each(|name| drop(subscription.sent.remove(name)));
        subscription.last = Some(self.nonce);
        subscription.open.insert(self.nonce, all.clone());
        subscription.progress.sent = all.clone();
        self.forget_dependents(kind, &news, &removed);
        Some(Update { kind, nonce: self.nonce.to_string(), version: all, resources, removed })
    }

    /// Envoy waits for the endpoints of the clusters that it is sent, also of those that it had rejected, and drops those
    /// of the clusters that are removed; the same with listeners and routes.
    fn forget_dependents(&mut self, kind: Kind, news: &[String], removed: &[String]) {
        match kind {
            Kind::Cluster => {
                let endpoints = &mut self.kinds[Kind::Endpoint as usize];
                for name in news {
                    endpoints.forget(name);
                }
                removed.iter().for_each(|name| drop(endpoints.sent.remove(name)));
            }
            Kind::Listener => {
                let routes = &mut self.kinds[Kind::Route as usize];
                routes.sent.values_mut().for_each(|sent| sent.version.clear());
                routes.is_stale = true;
            }
            Kind::Secret | Kind::Endpoint | Kind::Route => {}
        }
    }

    /// What Envoy should have of a kind if it asks for all: by name the resource, and the version of what it depends on.
    fn wanted<'a>(
        &'a self,
        kind: Kind,
        target: &'a Versioned,
    ) -> impl Iterator<Item = (&'a String, (&'a Arc<Resource>, &'a str))> {
        let retained = match kind {
            Kind::Cluster => Some(&self.retained.clusters),
            Kind::Endpoint => Some(&self.retained.endpoints),
            Kind::Secret | Kind::Listener | Kind::Route => None,
        };
        let clusters = [&target.snapshot.clusters, &self.retained.clusters];
        let parent = move |name: &String| match kind {
            Kind::Endpoint => clusters.iter().find_map(|clusters| clusters.get(name)).map(|it| it.version.as_str()),
            Kind::Route => Some(&**target.version(Kind::Listener)),
            Kind::Secret | Kind::Cluster | Kind::Listener => None,
        };
        let resources = target.snapshot.of(kind).iter().chain(retained.into_iter().flatten());
        resources.map(move |(name, resource)| (name, (resource, parent(name).unwrap_or_default())))
    }

    /// The version of all resources of a kind; those that are only retained are counted.
    fn version(&self, kind: Kind, target: &Versioned) -> Arc<str> {
        let version = target.version(kind);
        match self.retained.clusters.len() {
            retained @ 1.. if kind == Kind::Cluster => format!("{version}+{retained}").into(),
            _ => version.clone(),
        }
    }

    /// Takes in what Envoy says of the response with this nonce.
    pub fn answer(&mut self, kind: Kind, nonce: &str, error: Option<String>) -> Option<Answer> {
        let nonce = nonce.parse().ok()?;
        let subscription = &mut self.kinds[kind as usize];
        let version = subscription.open.remove(&nonce)?;
        let Some(message) = error else {
            subscription.progress.acknowledged = version;
            return Some(Answer::Accepted(kind));
        };
        for (name, sent) in subscription.sent.iter_mut().filter(|(_, sent)| sent.nonce == nonce) {
            // Envoy may have accepted some of them, and is sent all of them again when there is something new.
            sent.version.clear();
            subscription.held.insert(name.clone());
        }
        subscription.is_rejected |= subscription.last == Some(nonce);
        Some(Answer::Rejected(Rejection { kind, version: version.to_string(), message }))
    }

    /// Whether a request with this nonce is up to date: Envoy has seen all responses that it was sent.
    pub fn is_current(&self, kind: Kind, nonce: &str) -> bool {
        let last = self.kinds[kind as usize].last;
        nonce.is_empty() || last.is_some_and(|last| nonce.parse() == Ok(last))
    }

    /// Envoy asks for these and no others.
    pub fn subscribe_to(&mut self, kind: Kind, names: Vec<String>) {
        let subscription = &mut self.kinds[kind as usize];
        let before = subscription.names.take();
        // Who asks for nothing by name asks for all, until there was a name.
        let named_none = before.as_ref().is_none_or(|before| before.all && before.names.is_empty());
        let mut names: BTreeSet<_> = names.into_iter().collect();
        let all = kind.is_wildcard() && (names.remove("*") || names.is_empty() && named_none);
        let names = Names { all, names };
        subscription.sent.retain(|name, _| names.contains(name));
        subscription.is_stale |= before.is_none_or(|before| before.all != all || before.names != names.names);
        subscription.names = Some(names);
    }

    /// Envoy asks for these besides, and for those no more. `versions` is what it has from an earlier stream; it counts
    /// in the first request for the kind only.
    pub fn subscribe_more(
        &mut self,
        kind: Kind,
        subscribe: Vec<String>,
        unsubscribe: &[String],
        versions: impl IntoIterator<Item = (String, String)>,
    ) {
        let subscription = &mut self.kinds[kind as usize];
        let is_first = subscription.names.is_none();
        let mut names = subscription.names.take().unwrap_or_default();
        if is_first {
            names.all = kind.is_wildcard() && subscribe.is_empty();
            let brought = versions.into_iter().map(|(name, version)| (name, Sent { version, nonce: 0 }));
            subscription.sent = brought.collect();
        }
        for name in subscribe {
            let is_all = name == "*" && kind.is_wildcard();
            if is_all && !is_first {
                subscription.sent.values_mut().for_each(|sent| sent.version.clear());
            } else if !is_all {
                // Envoy may have dropped it since. Where there is none of this name, it is to know that.
                let sent = subscription.sent.entry(name.clone()).or_default();
                if !is_first {
                    sent.version.clear();
                }
                names.names.insert(name);
            }
            names.all |= is_all;
            subscription.is_stale = true;
        }
        for name in unsubscribe {
            if name == "*" {
                names.all = false;
            } else {
                names.names.remove(name);
                // Asked for by name no more, it may still be one of all.
                subscription.forget(name);
            }
        }
        subscription.sent.retain(|name, _| names.contains(name));
        subscription.is_stale |= is_first;
        subscription.names = Some(names);
    }
}

/// The version that Envoy is shown. `parent` is the version of what the resource depends on.
fn version(resource: &Resource, parent: &str) -> String {
    if parent.is_empty() { resource.version.clone() } else { format!("{}.{parent}", resource.version) }
}

/// Whether `sent` is what [`version`] makes of the resource.
fn is_version(sent: &str, resource: &Resource, parent: &str) -> bool {
    match sent.strip_prefix(&resource.version) {
        Some("") => parent.is_empty(),
        Some(rest) => !parent.is_empty() && rest.strip_prefix('.') == Some(parent),
        None => false,
    }
}
