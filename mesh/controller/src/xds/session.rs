//! One Envoy's stream, state of the world: what to send next. Pure, so that the order can be tested.
//!
//! A change is made before it is broken: new clusters first (CDS), when Envoy has them their endpoints (EDS), then the
//! listeners (LDS) and routes (RDS) that name them, and only when those are in force the clusters that nobody names any
//! more are taken away.

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
    /// Clusters that Envoy was told before and that its routes may still name.
    retained: BTreeMap<String, Any>,
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
        if let Some(old) = self.target.replace(target.clone()) {
            self.retained.extend(old.clusters.clone());
        }
        self.retained.retain(|name, _| !target.clusters.contains_key(name));
    }

    /// What to send now. Empty while Envoy has to answer first, or has everything.
    pub fn next(&mut self) -> Vec<DiscoveryResponse> {
        let mut responses = Vec::new();
        let Some(target) = self.target.clone() else { return responses };
        if self.is_in_force(Kind::Listener) && self.is_in_force(Kind::Route) {
            self.retained.clear();
        }
        for kind in Kind::ALL {
            responses.extend(self.respond(kind));
            let wait = match kind {
                Kind::Cluster => !self.is_in_force(kind),
                // Envoy asks for the endpoints of a cluster once it has the cluster.
                Kind::Endpoint => !self.asks_for(kind, target.endpoints.keys()),
                Kind::Listener | Kind::Route => false,
            };
            if wait {
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
    fn wanted(&self, kind: Kind) -> Option<(String, Vec<Any>)> {
        let names = self.subscriptions[kind as usize].names.as_ref()?;
        let target = self.target.as_ref()?;
        let all = match kind {
            Kind::Cluster => &target.clusters,
            Kind::Endpoint => &target.endpoints,
            Kind::Listener => &target.listeners,
            Kind::Route => &target.routes,
        };
        let retained = Some(&self.retained).filter(|_| kind == Kind::Cluster);
        let asked = all.iter().chain(retained.into_iter().flatten());
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
    use envoy_types::pb::google::rpc::Status;

    fn set(names: &[(&str, &str)]) -> BTreeMap<String, Any> {
        let any = |value: &str| Any { type_url: String::new(), value: value.as_bytes().to_vec() };
        names.iter().map(|(name, value)| ((*name).to_owned(), any(value))).collect()
    }

    /// A configuration whose route goes to these clusters.
    fn to(clusters: &[(&str, &str)], endpoints: &str) -> Arc<Resources> {
        let route: String = clusters.iter().map(|(name, _)| *name).collect();
        let names: Vec<_> = clusters.iter().map(|(name, _)| (*name, endpoints)).collect();
        Arc::new(Resources {
            clusters: set(clusters),
            endpoints: set(&names),
            listeners: set(&[("egress", "")]),
            routes: set(&[("routes", &route)]),
        })
    }

    /// An Envoy that asks as the true one does; tells what it was sent, in order.
    #[derive(Default)]
    struct Envoy {
        session: Session,
        clusters: Vec<String>,
        log: Vec<String>,
        rejects: Option<Kind>,
    }

    impl Envoy {
        fn ask(&mut self, kind: Kind, names: Vec<String>, answers: Option<&DiscoveryResponse>) -> Option<Rejection> {
            let rejected = answers
                .filter(|_| self.rejects == Some(kind))
                .map(|_| Status { message: "no".to_owned(), ..Status::default() });
            self.session.hear(DiscoveryRequest {
                type_url: kind.type_url(),
                resource_names: names,
                response_nonce: answers.map(|response| response.nonce.clone()).unwrap_or_default(),
                error_detail: rejected,
                ..DiscoveryRequest::default()
            })
        }

        fn start(&mut self) {
            self.ask(Kind::Cluster, vec![], None);
            self.ask(Kind::Listener, vec![], None);
        }

        /// Goes on until nothing more is sent.
        fn settle(&mut self, target: Arc<Resources>) -> Vec<String> {
            self.session.aim(target);
            loop {
                let responses = self.session.next();
                if responses.is_empty() {
                    return std::mem::take(&mut self.log);
                }
                for response in responses {
                    self.take(&response);
                }
            }
        }

        fn take(&mut self, response: &DiscoveryResponse) {
            let Some(kind) = Kind::of(&response.type_url) else { return };
            let values: Vec<_> =
                response.resources.iter().map(|any| String::from_utf8_lossy(&any.value).into_owned()).collect();
            self.log.push(format!("{kind:?} {}", values.join(",")));
            let asked = match kind {
                Kind::Cluster => {
                    self.clusters = values;
                    vec![]
                }
                Kind::Endpoint => self.clusters.clone(),
                Kind::Listener => vec![],
                Kind::Route => vec!["routes".to_owned()],
            };
            let rejection = self.ask(kind, asked, Some(response));
            assert_eq!(rejection.is_some(), self.rejects == Some(kind));
            match kind {
                _ if rejection.is_some() => {}
                Kind::Cluster => drop(self.ask(Kind::Endpoint, self.clusters.clone(), None)),
                Kind::Listener => drop(self.ask(Kind::Route, vec!["routes".to_owned()], None)),
                _ => {}
            }
        }
    }

    #[test]
    fn a_change_is_made_before_it_is_broken() {
        let mut envoy = Envoy::default();
        envoy.start();
        assert_eq!(envoy.settle(to(&[("red", "red")], "1")), ["Cluster red", "Endpoint 1", "Listener ", "Route red"]);
        assert_eq!(envoy.settle(to(&[("red", "red")], "1")), Vec::<String>::new(), "the same again");
        assert_eq!(envoy.settle(to(&[("red", "red")], "2")), ["Endpoint 2"], "endpoints alone");
        assert_eq!(
            envoy.settle(to(&[("blue", "blue")], "2")),
            ["Cluster blue,red", "Endpoint 2", "Route blue", "Cluster blue", "Endpoint 2"],
            "red goes last"
        );
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
        assert_eq!(
            envoy.settle(to(&[("blue", "blue")], "1")),
            ["Cluster blue,red", "Endpoint 1,1", "Listener ", "Route blue", "Cluster blue", "Endpoint 1"]
        );
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
        envoy.ask(Kind::Cluster, vec![], first.first());
        assert!(envoy.session.next().is_empty(), "clusters are not in force yet");
    }
}
