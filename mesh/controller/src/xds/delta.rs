//! Implements the delta variant of xDS: a response lists only what is new or gone, by the version of each resource, and an
//! Envoy that connects again shows the versions it has.

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

use super::{
    cache::Protocol,
    session::{Answer, Kind, Session, State, Update},
};

/// A delta stream.
pub struct Delta(State);

impl Session for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::Delta;

    fn new() -> Self {
        Self(State::new(Self::PROTOCOL))
    }

    fn node(request: &DeltaDiscoveryRequest) -> &str {
        request.node.as_ref().map(|node| node.id.as_str()).unwrap_or_default()
    }

    fn receive(&mut self, request: DeltaDiscoveryRequest) -> Option<Answer> {
        let kind = Kind::of(&request.type_url)?;
        let answer = self.0.answer(kind, &request.response_nonce, request.error_detail.map(|error| error.message));
        let (subscribe, unsubscribe) = (request.resource_names_subscribe, request.resource_names_unsubscribe);
        self.0.subscribe_more(kind, subscribe, &unsubscribe, request.initial_resource_versions);
        answer
    }

    fn encode(update: Update) -> DeltaDiscoveryResponse {
        let resource = |(resource, version): (std::sync::Arc<crate::envoy::Resource>, String)| Resource {
            name: resource.name.clone(),
            version,
            resource: Some(resource.body.clone()),
            ..Resource::default()
        };
        DeltaDiscoveryResponse {
            system_version_info: update.version.to_string(),
            resources: update.resources.into_iter().map(resource).collect(),
            type_url: update.kind.type_url(),
            removed_resources: update.removed,
            nonce: update.nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn state(&mut self) -> &mut State {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::{
        Snapshot,
        cache::Versioned,
        double::{Envoy, answers_at_most_once, routed, set, to},
    };
    use ::tests::hostile::spoiled;
    use envoy_types::pb::google::rpc::Status;
    use proptest::collection::vec;
    use std::sync::Arc;

    #[test]
    fn a_change_is_made_before_it_is_broken() {
        let mut envoy = Envoy::<Delta>::new();
        assert!(envoy.settle().is_empty(), "there is nothing to send yet");
        let sent = envoy.take(&to(&[("red", "1")], "1"));
        assert_eq!(sent, ["cds red=1", "eds red=1", "lds egress=1", "rds routes=red"]);
        assert!(envoy.take(&to(&[("red", "1")], "1")).is_empty(), "the same again");
        assert_eq!(envoy.take(&to(&[("red", "1")], "2")), ["eds red=2"], "endpoints alone");
        let sent = envoy.take(&to(&[("blue", "1")], "2"));
        assert_eq!(sent, ["cds blue=1", "eds blue=2", "rds routes=blue", "cds -red"], "red goes last");
        let sent = envoy.take(&to(&[("blue", "2")], "2"));
        assert_eq!(sent, ["cds blue=2", "eds blue=2"], "Envoy waits for the endpoints of a cluster that has changed");
        let both = [("blue", "2"), ("red", "1")];
        assert_eq!(envoy.take(&routed(&both, &["blue"], "2", "1")), ["cds red=1", "eds red=2"]);
        let sent = envoy.take(&routed(&both, &["blue"], "2", "2"));
        assert_eq!(sent, ["lds egress=2", "rds routes=blue"], "and for the routes of a listener that has changed");
        let target = routed(&both[..1], &["blue"], "2", "2");
        assert_eq!(envoy.take(&target), ["cds -red"], "nobody names red");
        envoy.has(&target);
    }

    #[test]
    fn who_connects_again_gets_what_has_changed_meanwhile() {
        let mut envoy = Envoy::<Delta>::new();
        let before = to(&[("blue", "1"), ("red", "1")], "1");
        envoy.take(&before);
        envoy.reconnect(Some(&before));
        assert!(envoy.settle().is_empty());
        envoy.has(&before);
        let after = to(&[("blue", "1"), ("green", "1")], "1");
        envoy.reconnect(Some(&after));
        let expected = ["cds green=1", "eds -red", "eds green=1", "rds routes=blue,green", "cds -red"];
        assert_eq!(envoy.settle(), expected, "red goes last here too, with the endpoints that it has until then");
        envoy.has(&after);
        let cluster = to(&[("blue", "2"), ("green", "1")], "1");
        envoy.update(&cluster);
        // The stream breaks between the changed cluster and its endpoints, for which Envoy waits then.
        envoy.deliver_response();
        envoy.reconnect(Some(&cluster));
        envoy.log.clear();
        assert_eq!(envoy.settle(), ["eds blue=1"]);
        envoy.has(&cluster);
    }

    #[test]
    fn who_waits_for_the_endpoints_of_a_cluster_that_is_no_more_waits_in_vain_no_longer() {
        let mut envoy = Envoy::<Delta>::new();
        envoy.take(&to(&[("red", "1")], "1"));
        envoy.update(&to(&[("blue", "1"), ("red", "1")], "1"));
        envoy.deliver_response();
        let after = to(&[("red", "2")], "1");
        envoy.reconnect(Some(&after));
        envoy.log.clear();
        let sent = envoy.settle();
        assert!(sent.contains(&"eds red=1 -blue".to_owned()) && sent.last().unwrap() == "cds -blue", "{sent:?}");
        envoy.has(&after);
    }

    #[test]
    fn what_is_rejected_is_not_sent_again_and_nothing_follows_it() {
        let mut envoy = Envoy::<Delta>::new();
        envoy.rejects = Some(Kind::Cluster);
        assert_eq!(envoy.take(&to(&[("red", "1")], "1")), ["cds red=1"]);
        envoy.rejects = None;
        assert!(envoy.take(&to(&[("red", "1")], "2")).is_empty(), "the clusters are the same");
        let target = to(&[("blue", "1"), ("red", "1")], "1");
        let sent = envoy.take(&target);
        assert_eq!(sent, ["cds blue=1 red=1", "eds blue=1 red=1", "lds egress=1", "rds routes=blue,red"]);
        envoy.has(&target);
        envoy.rejects = Some(Kind::Endpoint);
        assert_eq!(envoy.take(&to(&[("blue", "1"), ("red", "1")], "2")), ["eds blue=2 red=2"]);
        envoy.rejects = None;
        let target = to(&[("blue", "1"), ("red", "1")], "1");
        assert_eq!(envoy.take(&target), ["eds blue=1 red=1"], "it may have accepted some of them");
        envoy.has(&target);
    }

    #[test]
    fn an_answer_counts_for_its_own_response() {
        let mut envoy = Envoy::<Delta>::new();
        envoy.take(&to(&[("blue", "1"), ("red", "1")], "1"));
        // Endpoints of blue are on their way when those of red are sent, and are rejected later.
        let ask = |nonce: &str, rejects: bool| DeltaDiscoveryRequest {
            type_url: Kind::Endpoint.type_url(),
            response_nonce: nonce.to_owned(),
            error_detail: rejects.then(|| Status { message: "no".to_owned(), ..Status::default() }),
            ..DeltaDiscoveryRequest::default()
        };
        envoy.update(&to(&[("blue", "1"), ("red", "1")], "2"));
        envoy.update(&to(&[("blue", "1"), ("red", "1")], "3"));
        let nonces = ["5", "6"];
        assert_eq!(envoy.session.receive(ask(nonces[1], false)), Some(Answer::Accepted(Kind::Endpoint)));
        assert!(!envoy.session.state().is_in_force(), "one is not answered yet");
        assert!(matches!(envoy.session.receive(ask(nonces[0], true)), Some(Answer::Rejected(_))));
        assert!(envoy.session.state().is_in_force(), "the later one has replaced all that was rejected");
        assert_eq!(envoy.session.receive(ask(nonces[0], true)), None, "an answer counts once");
    }

    /// Subscribes; returns what is sent then, by name.
    fn ask(session: &mut Delta, kind: Kind, subscribe: &[&str], unsubscribe: &[&str]) -> Vec<String> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        session.receive(DeltaDiscoveryRequest {
            type_url: kind.type_url(),
            resource_names_subscribe: names(subscribe),
            resource_names_unsubscribe: names(unsubscribe),
            ..DeltaDiscoveryRequest::default()
        });
        let words = |update: Update| {
            let names = update.resources.iter().map(|(it, _)| it.name.clone());
            names.chain(update.removed.iter().map(|name| format!("-{name}"))).collect::<Vec<_>>().join(" ")
        };
        session.state().responses().into_iter().map(words).collect()
    }

    #[test]
    fn a_subscription_does_not_repeat_what_is_rejected() {
        let mut envoy = Envoy::<Delta>::new();
        envoy.take(&to(&[("blue", "1"), ("red", "1")], "1"));
        envoy.rejects = Some(Kind::Endpoint);
        assert_eq!(envoy.take(&to(&[("blue", "1"), ("red", "1")], "2")), ["eds blue=2 red=2"]);
        assert_eq!(ask(&mut envoy.session, Kind::Endpoint, &["green"], &[]), ["-green"]);
    }

    #[test]
    fn subscriptions_change_by_name() {
        let mut session = Delta::new();
        session.state().update(to(&[("blue", "1"), ("red", "1")], "1"));
        assert_eq!(ask(&mut session, Kind::Endpoint, &["red"], &[]), ["red"]);
        assert_eq!(ask(&mut session, Kind::Endpoint, &["blue"], &[]), ["blue"]);
        assert_eq!(ask(&mut session, Kind::Endpoint, &["red"], &[]), ["red"], "who asks is answered");
        assert_eq!(ask(&mut session, Kind::Endpoint, &["green"], &[]), ["-green"], "if only with no");
        assert!(ask(&mut session, Kind::Endpoint, &[], &["red"]).is_empty());
        session.state().update(to(&[("blue", "1"), ("red", "1")], "2"));
        assert_eq!(ask(&mut session, Kind::Listener, &[], &[]), ["blue"], "clusters come before listeners");
        assert_eq!(
            ask(&mut session, Kind::Cluster, &["*"], &[]),
            ["blue red", "blue"],
            "with the endpoints it waits for"
        );
        assert!(ask(&mut session, Kind::Cluster, &["red"], &["*"]).contains(&"red".to_owned()));
        session.state().update(to(&[("blue", "2"), ("red", "1")], "2"));
        assert_eq!(ask(&mut session, Kind::Cluster, &[], &[]), ["blue"], "of blue it asks for the endpoints alone");
    }

    #[test]
    fn secrets_are_sent_to_who_asks_whatever_else_waits() {
        let mut session = Delta::new();
        let with = |secret: &str| {
            let secrets = set(&[("certificate", secret)]);
            Arc::new(Versioned::new(Arc::new(Snapshot { secrets, ..(*to(&[("red", "1")], "1").snapshot).clone() })))
        };
        session.state().update(with("1"));
        assert_eq!(ask(&mut session, Kind::Cluster, &[], &[]), ["red"], "its endpoints and secrets are asked for next");
        assert_eq!(ask(&mut session, Kind::Secret, &["certificate"], &[]), ["certificate"]);
        session.state().update(with("2"));
        assert_eq!(ask(&mut session, Kind::Listener, &[], &[]), ["certificate"], "clusters come before listeners");
        session.state().update(to(&[("red", "1")], "1"));
        assert!(ask(&mut session, Kind::Secret, &[], &[]).is_empty(), "it goes with what names it");
    }

    /// What Envoy may send, byte for byte.
    fn requests() -> Vec<Vec<u8>> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let request = |kind: Kind, nonce: &str, subscribe: &[&str], unsubscribe: &[&str]| DeltaDiscoveryRequest {
            type_url: kind.type_url(),
            response_nonce: nonce.to_owned(),
            resource_names_subscribe: names(subscribe),
            resource_names_unsubscribe: names(unsubscribe),
            ..DeltaDiscoveryRequest::default()
        };
        let refused = Some(Status { code: 13, message: "no".to_owned(), ..Status::default() });
        let versions = [("a".to_owned(), "v1".to_owned()), ("c".to_owned(), String::new())];
        [
            DeltaDiscoveryRequest {
                initial_resource_versions: versions.into(),
                ..request(Kind::Cluster, "", &[], &[])
            },
            request(Kind::Cluster, "1", &["*"], &["b"]),
            request(Kind::Endpoint, "2", &["a", "b"], &[]),
            request(Kind::Endpoint, "", &["c"], &["a"]),
            request(Kind::Listener, "3", &[], &["*"]),
            DeltaDiscoveryRequest { error_detail: refused, ..request(Kind::Route, "4", &["routes"], &[]) },
        ]
        .iter()
        .map(prost::Message::encode_to_vec)
        .collect()
    }

    ::tests::property! {
        #[test]
        fn spoiled_requests_are_answered_once_or_not_at_all(heard in vec((spoiled(requests()), 0..4_usize), 0..40)) {
            answers_at_most_once::<Delta>(heard)?;
        }
    }
}
