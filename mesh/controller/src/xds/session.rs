//! One Envoy's stream, state of the world: what to send next. Pure, so that the order can be tested.
//!
//! A change is made before it is broken: new clusters first (CDS) and their endpoints (EDS), when Envoy has accepted both
//! the listeners (LDS) and routes (RDS) that name them, and only when those are in force the clusters that nobody names
//! any more are taken away.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
            route::v3::RouteConfiguration,
        },
        service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
    },
    google::protobuf::Any,
};
use prost::Name as _;
use sha2::{Digest as _, Sha256};

use super::config::Resources;

/// A kind of resource, in the order in which a change is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CDS
    Cluster,
    /// EDS
    Endpoint,
    /// LDS
    Listener,
    /// RDS
    Route,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Cluster, Self::Endpoint, Self::Listener, Self::Route];

    fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// As Envoy asks for it.
    pub fn type_url(self) -> String {
        match self {
            Self::Cluster => Cluster::type_url(),
            Self::Endpoint => ClusterLoadAssignment::type_url(),
            Self::Listener => Listener::type_url(),
            Self::Route => RouteConfiguration::type_url(),
        }
    }

    /// What follows from this kind: after a cluster or listener has changed, Envoy waits for what it names, changed or
    /// not.
    fn needs_again(self) -> Option<Self> {
        match self {
            Self::Cluster => Some(Self::Endpoint),
            Self::Listener => Some(Self::Route),
            Self::Endpoint | Self::Route => None,
        }
    }
}

/// The state of one stream.
#[derive(Default)]
pub struct Session {
    target: Option<Arc<Resources>>,
    subscriptions: [Subscription; 4],
    /// Clusters that Envoy was told before and that its routes may still name, with their endpoints: Envoy may not have
    /// those yet.
    retained: Resources,
    nonce: u64,
}

#[derive(Default)]
struct Subscription {
    /// `None` until Envoy asks; empty asks for all.
    names: Option<BTreeSet<String>>,
    /// Version and nonce of the last response.
    sent: Option<(String, String)>,
    answer: Answer,
    /// Send even the same again.
    again: bool,
}

/// Envoy's answer to the last response.
#[derive(Clone, Copy, Default, PartialEq)]
enum Answer {
    #[default]
    Open,
    Accepted,
    Rejected,
}

/// Envoy does not take what it was sent, and keeps what it had.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of resource.
    pub kind: Kind,
    /// The version that is not taken.
    pub version: String,
    /// Envoy's reason.
    pub message: String,
}

impl Session {
    /// Takes what Envoy says: a subscription, an acknowledgement or, returned as a rejection, the opposite. Kinds that are
    /// not served and answers to older responses change nothing.
    pub fn hear(&mut self, request: DiscoveryRequest) -> Option<Rejection> {
        let kind = Kind::of(&request.type_url)?;
        let subscription = &mut self.subscriptions[kind as usize];
        let last = subscription.sent.as_ref().map(|(_, nonce)| nonce.as_str());
        if !request.response_nonce.is_empty() && last != Some(&request.response_nonce) {
            return None;
        }
        let mut rejection = None;
        if let Some(error) = request.error_detail {
            subscription.answer = Answer::Rejected;
            let version = subscription.sent.as_ref().map(|(version, _)| version.clone()).unwrap_or_default();
            rejection = Some(Rejection { kind, version, message: error.message });
        } else if !request.response_nonce.is_empty() {
            subscription.answer = Answer::Accepted;
        }
        subscription.names = Some(request.resource_names.into_iter().collect());
        rejection
    }

    /// From now on Envoy shall have these.
    pub fn aim(&mut self, target: Arc<Resources>) {
        let rejected = self.subscriptions[Kind::Cluster as usize].answer == Answer::Rejected;
        if let Some(old) = self.target.replace(target.clone()).filter(|_| !rejected) {
            self.retained.clusters.extend(old.clusters.clone());
            self.retained.endpoints.extend(old.endpoints.clone());
        }
        self.retained.clusters.retain(|name, _| !target.clusters.contains_key(name));
        self.retained.endpoints.retain(|name, _| !target.endpoints.contains_key(name));
    }

    /// What to send now. Empty while Envoy has to answer first, or has everything.
    pub fn next(&mut self) -> Vec<DiscoveryResponse> {
        let mut responses = Vec::new();
        let Some(target) = self.target.clone() else { return responses };
        if self.is_in_force(Kind::Listener) && self.is_in_force(Kind::Route) {
            self.retained = Resources::default();
        }
        for kind in Kind::ALL {
            responses.extend(self.respond(kind));
            // Envoy asks for the endpoints of a new cluster at once, and accepts the clusters only when it has those.
            let whole = self.is_in_force(Kind::Cluster) && self.asks_for(Kind::Endpoint, target.endpoints.keys());
            if kind == Kind::Endpoint && !whole {
                break;
            }
        }
        responses
    }

    fn respond(&mut self, kind: Kind) -> Option<DiscoveryResponse> {
        let (version, resources) = self.wanted(kind)?;
        let subscription = &mut self.subscriptions[kind as usize];
        if !subscription.again && subscription.sent.as_ref().is_some_and(|(sent, _)| *sent == version) {
            return None;
        }
        let by_name = matches!(kind, Kind::Endpoint | Kind::Route);
        if by_name && resources.is_empty() {
            return None;
        }
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        *subscription = Subscription {
            names: subscription.names.take(),
            sent: Some((version.clone(), nonce.clone())),
            answer: Answer::Open,
            again: false,
        };
        if let Some(dependent) = kind.needs_again() {
            self.subscriptions[dependent as usize].again = true;
        }
        Some(DiscoveryResponse {
            version_info: version,
            resources,
            type_url: kind.type_url(),
            nonce,
            ..DiscoveryResponse::default()
        })
    }

    /// What Envoy asks for, as it should be; `None` if it does not ask.
    fn wanted<'a>(&'a self, kind: Kind) -> Option<(String, Vec<Any>)> {
        let names = self.subscriptions[kind as usize].names.as_ref()?;
        let target = self.target.as_ref()?;
        let of_kind = |resources: &'a Resources| match kind {
            Kind::Cluster => &resources.clusters,
            Kind::Endpoint => &resources.endpoints,
            Kind::Listener => &resources.listeners,
            Kind::Route => &resources.routes,
        };
        let asked = of_kind(target).iter().chain(of_kind(&self.retained));
        let asked = asked.filter(|(name, _)| names.is_empty() || names.contains("*") || names.contains(*name));
        let resources: BTreeMap<_, _> = asked.collect();
        let mut hash = Sha256::new();
        for (name, resource) in &resources {
            for bytes in [name.as_bytes(), &resource.value] {
                hash.update(bytes.len().to_le_bytes());
                hash.update(bytes);
            }
        }
        let version = hex::encode(&hash.finalize()[..8]);
        Some((version, resources.into_values().cloned().collect()))
    }

    /// Whether Envoy has accepted what it should have.
    fn is_in_force(&self, kind: Kind) -> bool {
        let subscription = &self.subscriptions[kind as usize];
        let current = self.wanted(kind).map(|(version, _)| version);
        let sent = subscription.sent.as_ref().map(|(version, _)| version);
        current.is_some() && current.as_ref() == sent && subscription.answer == Answer::Accepted && !subscription.again
    }

    fn asks_for<'a>(&self, kind: Kind, mut names: impl Iterator<Item = &'a String>) -> bool {
        let asked = self.subscriptions[kind as usize].names.as_ref();
        names.all(|name| asked.is_some_and(|asked| asked.contains(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tests::hostile::spoiled;
    use envoy_types::pb::google::rpc::Status;
    use proptest::{collection::vec, prelude::*};
    use prost::Message as _;

    fn set(names: &[(&str, &str)]) -> BTreeMap<String, Any> {
        let any = |value: &str| Any { type_url: String::new(), value: value.as_bytes().to_vec() };
        names.iter().map(|(name, value)| ((*name).to_owned(), any(value))).collect()
    }

    /// A configuration whose route goes to these clusters.
    fn to(clusters: &[(&str, &str)], endpoints: &str) -> Arc<Resources> {
        let route: String = clusters.iter().map(|(name, _)| *name).collect();
        let endpoints: Vec<_> = clusters.iter().map(|(name, _)| (*name, format!("{name}{endpoints}"))).collect();
        let endpoints: Vec<_> = endpoints.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Arc::new(Resources {
            clusters: set(clusters),
            endpoints: set(&endpoints),
            listeners: set(&[("egress", "")]),
            routes: set(&[("routes", &route)]),
        })
    }

    /// An Envoy that asks as the true one does; tells what it was sent, in order.
    #[derive(Default)]
    struct Envoy {
        session: Session,
        clusters: Vec<String>,
        /// Clusters whose endpoints it has.
        warm: BTreeSet<String>,
        /// Accepted once all clusters are warm.
        warming: Option<DiscoveryResponse>,
        log: Vec<String>,
        rejects: Option<Kind>,
    }

    impl Envoy {
        fn ask(&mut self, kind: Kind, names: &[String], answers: Option<&DiscoveryResponse>) -> Option<Rejection> {
            let refused = Status { message: "no".to_owned(), ..Status::default() };
            self.session.hear(DiscoveryRequest {
                type_url: kind.type_url(),
                resource_names: names.to_vec(),
                response_nonce: answers.map(|response| response.nonce.clone()).unwrap_or_default(),
                error_detail: (answers.is_some() && self.rejects == Some(kind)).then_some(refused),
                ..DiscoveryRequest::default()
            })
        }

        fn start(&mut self) {
            self.ask(Kind::Cluster, &[], None);
            self.ask(Kind::Listener, &[], None);
        }

        /// Goes on until nothing more is sent.
        fn settle(&mut self, target: Arc<Resources>) -> Vec<String> {
            self.session.aim(target);
            loop {
                let responses = self.session.next();
                if responses.is_empty() {
                    return std::mem::take(&mut self.log);
                }
                responses.iter().for_each(|response| self.take(response));
            }
        }

        fn take(&mut self, response: &DiscoveryResponse) {
            let kind = Kind::of(&response.type_url).unwrap();
            let value = |any: &Any| String::from_utf8_lossy(&any.value).into_owned();
            let values: Vec<_> = response.resources.iter().map(value).collect();
            self.log.push(format!("{kind:?} {}", values.join(",")));
            let clusters = self.clusters.clone();
            match kind {
                _ if self.rejects == Some(kind) => {
                    assert!(self.ask(kind, &[], Some(response)).is_some());
                }
                Kind::Cluster => {
                    self.ask(Kind::Endpoint, &values, None);
                    self.clusters = values;
                    self.warming = Some(response.clone());
                }
                Kind::Endpoint => {
                    let has = |cluster: &&String| values.iter().any(|value| value.starts_with(*cluster));
                    self.warm.extend(clusters.iter().filter(has).cloned());
                    self.ask(kind, &clusters, Some(response));
                }
                Kind::Listener => {
                    self.ask(kind, &[], Some(response));
                    self.ask(Kind::Route, &["routes".to_owned()], None);
                }
                Kind::Route => {
                    self.ask(kind, &["routes".to_owned()], Some(response));
                }
            }
            if self.clusters.iter().all(|cluster| self.warm.contains(cluster))
                && let Some(response) = self.warming.take()
            {
                self.ask(Kind::Cluster, &[], Some(&response));
            }
        }
    }

    #[test]
    fn a_change_is_made_before_it_is_broken() {
        let mut envoy = Envoy::default();
        envoy.start();
        assert_eq!(
            envoy.settle(to(&[("red", "red")], "1")),
            ["Cluster red", "Endpoint red1", "Listener ", "Route red"]
        );
        assert_eq!(envoy.settle(to(&[("red", "red")], "1")), Vec::<String>::new(), "the same again");
        assert_eq!(envoy.settle(to(&[("red", "red")], "2")), ["Endpoint red2"], "endpoints alone");
        assert_eq!(
            envoy.settle(to(&[("blue", "blue")], "2")),
            [
                "Cluster blue,red",
                "Endpoint red2",
                "Endpoint blue2,red2",
                "Route blue",
                "Cluster blue",
                "Endpoint blue2"
            ],
            "red goes last"
        );
        let again = ["Cluster blue!", "Endpoint blue2"];
        assert_eq!(envoy.settle(to(&[("blue", "blue!")], "2")), again, "a cluster that changes is warmed anew");
    }

    #[test]
    fn a_change_while_the_one_before_is_under_way() {
        let mut envoy = Envoy::default();
        envoy.start();
        envoy.session.aim(to(&[("red", "red")], "1"));
        let responses = envoy.session.next();
        responses.iter().for_each(|response| envoy.take(response));
        let sent = envoy.settle(to(&[("blue", "blue")], "1"));
        assert!(sent.contains(&"Route blue".to_owned()), "{sent:?}");
        assert_eq!(envoy.clusters, ["blue"]);
    }

    #[test]
    fn nothing_is_sent_before_there_is_something() {
        let mut envoy = Envoy::default();
        envoy.start();
        assert!(envoy.session.next().is_empty());
    }

    #[test]
    fn what_is_rejected_is_not_sent_again_and_nothing_follows_it() {
        let mut envoy = Envoy { rejects: Some(Kind::Cluster), ..Envoy::default() };
        envoy.start();
        assert_eq!(envoy.settle(to(&[("red", "red")], "1")), ["Cluster red"]);
        envoy.rejects = None;
        let sent = ["Cluster blue", "Endpoint blue1", "Listener ", "Route blue"];
        assert_eq!(envoy.settle(to(&[("blue", "blue")], "1")), sent);
    }

    #[test]
    fn answers_to_older_responses_are_not_heard() {
        let mut envoy = Envoy::default();
        envoy.start();
        envoy.session.aim(to(&[("red", "red")], "1"));
        let first = envoy.session.next();
        envoy.session.aim(to(&[("blue", "blue")], "1"));
        let second = envoy.session.next();
        assert_eq!((first.len(), second.len()), (1, 1));
        envoy.ask(Kind::Cluster, &[], first.first());
        assert!(envoy.session.next().is_empty(), "clusters are not in force yet");
    }

    /// What Envoy may send, byte for byte.
    fn requests() -> Vec<Vec<u8>> {
        let request = |kind: Kind, nonce: &str, names: &[&str]| DiscoveryRequest {
            type_url: kind.type_url(),
            response_nonce: nonce.to_owned(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DiscoveryRequest::default()
        };
        let refused = Some(Status { code: 13, message: "no".to_owned(), ..Status::default() });
        [
            request(Kind::Cluster, "", &[]),
            request(Kind::Cluster, "1", &["*"]),
            request(Kind::Endpoint, "2", &["a", "b"]),
            request(Kind::Listener, "3", &[]),
            DiscoveryRequest { error_detail: refused, ..request(Kind::Route, "4", &["routes"]) },
        ]
        .iter()
        .map(prost::Message::encode_to_vec)
        .collect()
    }

    ::tests::property! {
        #[test]
        fn spoiled_requests_are_answered_once_or_not_at_all(heard in vec((spoiled(requests()), 0..4_usize), 0..40)) {
            let targets = [to(&[], ""), to(&[("a", "1")], "1"), to(&[("a", "2"), ("b", "1")], "2")];
            let (mut session, mut nonce) = (Session::default(), 0);
            for (bytes, target) in heard {
                if let Ok(request) = DiscoveryRequest::decode(&bytes[..]) {
                    session.hear(request);
                }
                if let Some(target) = targets.get(target) {
                    session.aim(target.clone());
                }
                let responses = session.next();
                prop_assert!(responses.len() <= Kind::ALL.len());
                for response in responses {
                    let next: u64 = response.nonce.parse().unwrap();
                    prop_assert!(next > nonce && Kind::of(&response.type_url).is_some());
                    nonce = next;
                }
                prop_assert!(session.next().is_empty(), "nothing was heard since");
            }
        }
    }
}
