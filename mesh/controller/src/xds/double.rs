//! Stands in for Envoy in the tests of sessions: it asks, waits and answers as Envoy does, and fails a test where a request
//! of an application would fail.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use envoy_types::pb::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
    google::{protobuf::Any, rpc::Status},
};
use proptest::{collection::vec, prelude::*};
use prost::Message;

use super::{
    cache::{Snapshot, Versioned},
    delta::Delta,
    session::{Answer, KINDS, Kind, Session},
    sotw::Sotw,
};
use crate::envoy::{Resource, Resources};

/// Holds a session to what it owes any client, whatever that sends: each response has a nonce of its own, and there is
/// none where nothing was heard. Each pair of `heard` is a request byte for byte, and which snapshot follows it.
///
/// # Errors
/// The session does otherwise.
pub fn answers_at_most_once<S: Session<Request: Message + Default>>(
    heard: Vec<(Vec<u8>, usize)>,
) -> Result<(), TestCaseError> {
    let targets = [to(&[], ""), to(&[("a", "1")], "1"), to(&[("a", "2"), ("b", "1")], "2")];
    let (mut session, mut nonce) = (S::new(), 0);
    for (bytes, target) in heard {
        if let Ok(request) = S::Request::decode(&bytes[..]) {
            session.receive(request);
        }
        if let Some(target) = targets.get(target) {
            session.state().update(target.clone());
        }
        for update in session.state().responses() {
            let next: u64 = update.nonce.parse().unwrap();
            prop_assert!(next > nonce);
            nonce = next;
        }
        prop_assert!(session.state().responses().is_empty(), "nothing was heard since");
    }
    Ok(())
}

/// What Envoy says, in the terms of both variants of the protocol.
#[derive(Default)]
pub struct Question {
    /// All names that it asks for.
    pub names: BTreeSet<String>,
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub nonce: String,
    pub rejects: bool,
    pub versions: BTreeMap<String, String>,
}

/// What it is sent.
#[derive(Clone, Debug)]
pub struct Received {
    pub kind: Kind,
    pub nonce: String,
    /// Name, version and content.
    pub resources: Vec<(String, String, String)>,
    pub removed: Vec<String>,
}

/// A session that the double can use.
pub trait Wire: Session {
    fn request(kind: Kind, question: Question) -> Self::Request;
    fn received(response: Self::Response) -> Received;
}

fn no(rejects: bool) -> Option<Status> {
    rejects.then(|| Status { message: "no".to_owned(), ..Status::default() })
}

fn content(body: &Any) -> (String, String) {
    let text = String::from_utf8_lossy(&body.value).into_owned();
    let (name, content) = text.split_once('=').unwrap();
    (name.to_owned(), content.to_owned())
}

impl Wire for Sotw {
    fn request(kind: Kind, question: Question) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: kind.type_url(),
            resource_names: question.names.into_iter().collect(),
            response_nonce: question.nonce,
            error_detail: no(question.rejects),
            ..DiscoveryRequest::default()
        }
    }

    fn received(response: DiscoveryResponse) -> Received {
        let resource = |body: &Any| {
            let (name, content) = content(body);
            (name, String::new(), content)
        };
        Received {
            kind: Kind::of(&response.type_url).unwrap(),
            nonce: response.nonce,
            resources: response.resources.iter().map(resource).collect(),
            removed: Vec::new(),
        }
    }
}

impl Wire for Delta {
    fn request(kind: Kind, question: Question) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: kind.type_url(),
            resource_names_subscribe: question.added,
            resource_names_unsubscribe: question.removed,
            initial_resource_versions: question.versions.into_iter().collect(),
            response_nonce: question.nonce,
            error_detail: no(question.rejects),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn received(response: DeltaDiscoveryResponse) -> Received {
        let resource = |resource: &envoy_types::pb::envoy::service::discovery::v3::Resource| {
            let (name, content) = content(resource.resource.as_ref().unwrap());
            assert_eq!(name, resource.name);
            (name, resource.version.clone(), content)
        };
        Received {
            kind: Kind::of(&response.type_url).unwrap(),
            nonce: response.nonce,
            resources: response.resources.iter().map(resource).collect(),
            removed: response.removed_resources,
        }
    }
}

/// Resources of one kind: name and content, which is also the version.
pub fn set(resources: &[(&str, &str)]) -> Resources {
    let resource = |(name, content): &(&str, &str)| {
        let body = Any { type_url: String::new(), value: format!("{name}={content}").into_bytes() };
        let version = format!("v{content}");
        ((*name).to_owned(), Arc::new(Resource { name: (*name).to_owned(), version, body }))
    };
    resources.iter().map(resource).collect()
}

/// A snapshot whose route goes to all clusters, with endpoints of this content.
pub fn to(clusters: &[(&str, &str)], endpoints: &str) -> Arc<Versioned> {
    let names: Vec<_> = clusters.iter().map(|(name, _)| *name).collect();
    routed(clusters, &names, endpoints, "1")
}

/// A snapshot whose route goes to some of the clusters.
pub fn routed(clusters: &[(&str, &str)], route: &[&str], endpoints: &str, listener: &str) -> Arc<Versioned> {
    let endpoints: Vec<_> = clusters.iter().map(|(name, _)| (*name, endpoints)).collect();
    Arc::new(Versioned::new(Arc::new(Snapshot {
        clusters: set(clusters),
        endpoints: set(&endpoints),
        listeners: set(&[("egress", listener)]),
        routes: set(&[("routes", &route.join(","))]),
        ..Snapshot::default()
    })))
}

/// The double.
pub struct Envoy<S: Wire> {
    pub session: S,
    /// What is under way to the session, and from it.
    requests: VecDeque<S::Request>,
    responses: VecDeque<Received>,
    /// Clusters in use, those that wait for endpoints, and nonces of responses that are accepted once none waits.
    pub clusters: BTreeMap<String, String>,
    warming: BTreeMap<String, String>,
    unanswered: Vec<String>,
    /// By cluster in use.
    pub endpoints: BTreeMap<String, String>,
    pub listeners: BTreeMap<String, String>,
    /// Listeners that wait for routes.
    waiting: BTreeMap<String, String>,
    pub routes: BTreeMap<String, String>,
    names: [BTreeSet<String>; KINDS],
    versions: [BTreeMap<String, String>; KINDS],
    nonces: [String; KINDS],
    pub rejects: Option<Kind>,
    is_initialized: bool,
    /// Whether the routes may name only clusters that are in use.
    pub is_strict: bool,
    /// What was sent, in order.
    pub log: Vec<String>,
}

impl<S: Wire> Envoy<S> {
    /// An Envoy that has asked for clusters and listeners.
    pub fn new() -> Self {
        let mut envoy = Self {
            session: S::new(),
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            clusters: BTreeMap::new(),
            warming: BTreeMap::new(),
            unanswered: Vec::new(),
            endpoints: BTreeMap::new(),
            listeners: BTreeMap::new(),
            waiting: BTreeMap::new(),
            routes: BTreeMap::new(),
            names: Default::default(),
            versions: Default::default(),
            nonces: Default::default(),
            rejects: None,
            is_initialized: false,
            is_strict: true,
            log: Vec::new(),
        };
        envoy.ask(Kind::Cluster, Question::default());
        envoy.ask(Kind::Listener, Question::default());
        envoy
    }

    fn ask(&mut self, kind: Kind, question: Question) {
        let question = Question { names: self.names[kind as usize].clone(), ..question };
        self.requests.push_back(S::request(kind, question));
    }

    fn answer(&mut self, kind: Kind, nonce: String, rejects: bool) {
        self.ask(kind, Question { nonce, rejects, ..Question::default() });
    }

    /// Asks for more names of a kind, or for fewer. A nonce is of the last response, as in Envoy.
    fn resubscribe(&mut self, kind: Kind, added: Vec<String>, removed: Vec<String>) {
        let names = &mut self.names[kind as usize];
        names.extend(added.iter().cloned());
        removed.iter().for_each(|name| {
            names.remove(name);
        });
        for name in removed.iter().chain(&added) {
            self.versions[kind as usize].remove(name);
        }
        let is_delta = S::PROTOCOL == super::Protocol::Delta;
        let nonce = if is_delta { String::new() } else { self.nonces[kind as usize].clone() };
        if !(is_delta && added.is_empty() && removed.is_empty()) {
            self.ask(kind, Question { added, removed, nonce, ..Question::default() });
        }
    }

    /// The stream breaks, and another begins: with this controller or another, which has the same to say.
    pub fn reconnect(&mut self, target: Option<&Arc<Versioned>>) {
        self.session = S::new();
        target.into_iter().for_each(|target| self.session.state().update(target.clone()));
        self.requests.clear();
        self.responses.clear();
        self.unanswered.clear();
        self.nonces = Default::default();
        for kind in [Kind::Cluster, Kind::Endpoint, Kind::Listener, Kind::Route] {
            let added: Vec<_> = self.names[kind as usize].iter().cloned().collect();
            let versions = self.versions[kind as usize].clone();
            if matches!(kind, Kind::Cluster | Kind::Listener) || !added.is_empty() {
                self.ask(kind, Question { added, versions, ..Question::default() });
            }
        }
    }

    /// From now on Envoy is to have this.
    pub fn update(&mut self, target: &Arc<Versioned>) {
        self.session.state().update(target.clone());
        self.pull();
    }

    fn pull(&mut self) {
        let updates = self.session.state().responses();
        let kinds: Vec<_> = updates.iter().map(|update| update.kind as usize).collect();
        assert!(kinds.is_sorted() || updates.iter().any(|update| !update.removed.is_empty()), "{kinds:?}");
        for update in updates {
            let received = S::received(S::encode(update));
            let added = received.resources.iter().map(|(name, _, content)| format!(" {name}={content}"));
            let removed = received.removed.iter().map(|name| format!(" -{name}"));
            let words: String = added.chain(removed).collect();
            self.log.push(format!("{}{words}", received.kind.as_str()));
            self.responses.push_back(received);
        }
        assert!(self.session.state().responses().is_empty(), "nothing has happened since");
    }

    /// One request arrives. Returns what the session says of it.
    pub fn deliver_request(&mut self) -> Option<Answer> {
        let answer = self.requests.pop_front().and_then(|request| self.session.receive(request));
        self.pull();
        answer
    }

    /// One response arrives.
    pub fn deliver_response(&mut self) {
        if let Some(response) = self.responses.pop_front() {
            self.receive(response);
            self.check();
        }
    }

    /// Goes on until nothing is under way; returns what was sent.
    pub fn settle(&mut self) -> Vec<String> {
        while !self.requests.is_empty() || !self.responses.is_empty() {
            while !self.requests.is_empty() {
                self.deliver_request();
            }
            self.deliver_response();
        }
        std::mem::take(&mut self.log)
    }

    /// Is to have this, and gets it.
    pub fn take(&mut self, target: &Arc<Versioned>) -> Vec<String> {
        self.update(target);
        self.settle()
    }

    fn receive(&mut self, response: Received) {
        let Received { kind, nonce, resources, removed } = response;
        self.nonces[kind as usize].clone_from(&nonce);
        if self.rejects == Some(kind) {
            return self.answer(kind, nonce, true);
        }
        let versions = &mut self.versions[kind as usize];
        versions.extend(resources.iter().map(|(name, version, _)| (name.clone(), version.clone())));
        removed.iter().for_each(|name| drop(versions.remove(name)));
        let resources: BTreeMap<_, _> = resources.into_iter().map(|(name, _, content)| (name, content)).collect();
        match kind {
            Kind::Secret => panic!("it has not asked for secrets"),
            Kind::Cluster => self.receive_clusters(nonce, resources, removed),
            Kind::Endpoint => {
                for (name, content) in resources {
                    if let Some(cluster) = self.warming.remove(&name) {
                        self.clusters.insert(name.clone(), cluster);
                    }
                    if self.clusters.contains_key(&name) {
                        self.endpoints.insert(name, content);
                    }
                }
                for name in removed {
                    if let Some(cluster) = self.warming.remove(&name) {
                        self.clusters.insert(name, cluster);
                    }
                }
                self.answer(kind, nonce, false);
                self.accept_clusters();
            }
            Kind::Listener => {
                let gone = |name: &String| is_gone::<S>(name, &resources, &removed);
                self.listeners.retain(|name, _| !gone(name));
                self.waiting.retain(|name, _| !gone(name));
                for (name, content) in resources {
                    if self.listeners.get(&name) == Some(&content) {
                        self.waiting.remove(&name);
                    } else {
                        self.waiting.insert(name, content);
                    }
                }
                let added =
                    if self.names[Kind::Route as usize].is_empty() { vec!["routes".to_owned()] } else { vec![] };
                self.resubscribe(Kind::Route, added, vec![]);
                self.answer(kind, nonce, false);
            }
            Kind::Route => {
                self.routes.extend(resources);
                self.listeners.append(&mut self.waiting);
                self.answer(kind, nonce, false);
            }
        }
    }

    fn receive_clusters(&mut self, nonce: String, resources: BTreeMap<String, String>, removed: Vec<String>) {
        let gone = |name: &String| is_gone::<S>(name, &resources, &removed);
        self.clusters.retain(|name, _| !gone(name));
        self.warming.retain(|name, _| !gone(name));
        self.endpoints.retain(|name, _| !gone(name));
        for (name, content) in resources {
            if self.clusters.get(&name) == Some(&content) {
                self.warming.remove(&name);
            } else {
                self.warming.insert(name, content);
            }
        }
        let names: BTreeSet<_> = self.clusters.keys().chain(self.warming.keys()).cloned().collect();
        let asked = self.names[Kind::Endpoint as usize].clone();
        let added = names.difference(&asked).cloned().collect();
        let gone = asked.difference(&names).cloned().collect();
        if self.is_initialized {
            self.resubscribe(Kind::Endpoint, added, gone);
            self.unanswered.push(nonce);
            self.accept_clusters();
        } else {
            // The first clusters are accepted at once.
            self.is_initialized = true;
            self.answer(Kind::Cluster, nonce, false);
            self.resubscribe(Kind::Endpoint, added, gone);
        }
    }

    fn accept_clusters(&mut self) {
        if self.warming.is_empty() {
            for nonce in std::mem::take(&mut self.unanswered) {
                self.answer(Kind::Cluster, nonce, false);
            }
        }
    }

    /// No request of an application fails.
    fn check(&self) {
        let routed = self.routes.values().flat_map(|route| route.split(',')).filter(|name| !name.is_empty());
        for name in routed.filter(|_| self.is_strict) {
            assert!(self.clusters.contains_key(name), "{name} is routed to, and not there: {:?}", self.log);
        }
    }

    /// It has all of this, and nothing else, and the session knows.
    pub fn has(&mut self, target: &Versioned) {
        let contents = |resources: &Resources| -> BTreeMap<_, _> {
            resources.values().map(|resource| content(&resource.body)).collect()
        };
        let snapshot = &target.snapshot;
        assert_eq!(self.clusters, contents(&snapshot.clusters));
        assert_eq!(self.endpoints, contents(&snapshot.endpoints));
        assert_eq!(self.listeners, contents(&snapshot.listeners));
        assert_eq!(self.routes, contents(&snapshot.routes));
        assert!(self.warming.is_empty() && self.waiting.is_empty() && self.unanswered.is_empty());
        assert!(self.session.state().is_in_force());
        for (kind, progress) in Kind::ALL.into_iter().zip(self.session.state().progress()) {
            let is_asked = kind != Kind::Endpoint || !snapshot.endpoints.is_empty();
            assert!(progress.sent == progress.acknowledged && (!is_asked || progress.sent == *target.version(kind)));
        }
    }
}

/// In the state of the world what is not in a response is gone.
fn is_gone<S: Wire>(name: &String, resources: &BTreeMap<String, String>, removed: &[String]) -> bool {
    match S::PROTOCOL {
        super::Protocol::Sotw => !resources.contains_key(name),
        super::Protocol::Delta => removed.contains(name),
    }
}

/// What Envoy may be to have.
#[derive(Clone, Debug)]
struct Plan {
    clusters: Vec<(&'static str, &'static str)>,
    route: Vec<&'static str>,
    endpoints: &'static str,
    listener: &'static str,
}

impl Plan {
    fn target(&self) -> Arc<Versioned> {
        routed(&self.clusters, &self.route, self.endpoints, self.listener)
    }
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    Update(Plan),
    Request,
    Response,
    Reconnect,
}

fn plans() -> impl Strategy<Value = Plan> {
    let content = prop_oneof![Just("0"), Just("1")];
    let cluster = proptest::option::weighted(0.6, content.clone());
    let clusters = [cluster.clone(), cluster.clone(), cluster];
    (clusters, any::<[bool; 3]>(), content.clone(), content).prop_map(|(clusters, routed, endpoints, listener)| {
        let clusters = ["a", "b", "c"].into_iter().zip(clusters);
        let clusters: Vec<_> = clusters.filter_map(|(name, content)| Some((name, content?))).collect();
        let route = clusters.iter().zip(routed).filter(|(_, is_routed)| *is_routed).map(|((name, _), _)| *name);
        Plan { route: route.collect(), clusters, endpoints, listener }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => plans().prop_map(Step::Update),
        4 => Just(Step::Request),
        4 => Just(Step::Response),
        1 => Just(Step::Reconnect),
    ];
    vec(step, 0..40)
}

fn whatever_happens<S: Wire>(steps: Vec<Step>, last: &Arc<Versioned>) {
    let mut envoy = Envoy::<S>::new();
    let mut target = None;
    for step in steps {
        match step {
            Step::Update(plan) => {
                let next = plan.target();
                envoy.update(&next);
                target = Some(next);
            }
            Step::Request => drop(envoy.deliver_request()),
            Step::Response => envoy.deliver_response(),
            Step::Reconnect => {
                // In the state of the world nothing says which clusters Envoy has.
                envoy.is_strict &= S::PROTOCOL == super::Protocol::Delta;
                envoy.reconnect(target.as_ref());
            }
        }
    }
    envoy.update(last);
    envoy.settle();
    envoy.has(last);
    envoy.reconnect(Some(last));
    let sent = envoy.settle();
    envoy.has(last);
    // An Envoy without clusters looks like one that starts, and is sent none.
    let is_news = |line: &String| line != "cds" || !last.snapshot.clusters.is_empty();
    assert!(S::PROTOCOL == super::Protocol::Sotw || !sent.iter().any(is_news), "{sent:?}");
}

::tests::property! {
    #[test]
    fn requests_go_on_whatever_happens_in_the_state_of_the_world(steps in steps(), last in plans()) {
        whatever_happens::<Sotw>(steps, &last.target());
    }

    #[test]
    fn requests_go_on_whatever_happens_with_delta(steps in steps(), last in plans()) {
        whatever_happens::<Delta>(steps, &last.target());
    }
}
