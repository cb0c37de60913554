//! Implements the state-of-the-world variant of xDS: a response about clusters or listeners lists all of them, one about
//! endpoints or routes only those that have changed, as the protocol allows.

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use super::{
    cache::Protocol,
    session::{Answer, Kind, Session, State, Update},
};

/// A state-of-the-world stream.
pub struct Sotw(State);

impl Session for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::Sotw;

    fn new() -> Self {
        Self(State::new(Self::PROTOCOL))
    }

    fn node(request: &DiscoveryRequest) -> &str {
        request.node.as_ref().map(|node| node.id.as_str()).unwrap_or_default()
    }

    fn receive(&mut self, request: DiscoveryRequest) -> Option<Answer> {
        let kind = Kind::of(&request.type_url)?;
        let nonce = request.response_nonce;
        let is_current = self.0.is_current(kind, &nonce);
        let answer = self.0.answer(kind, &nonce, request.error_detail.map(|error| error.message));
        // Envoy repeats its names when it answers the later response.
        if is_current {
            self.0.subscribe_to(kind, request.resource_names);
        }
        answer
    }

    fn encode(update: Update) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: update.version.to_string(),
            resources: update.resources.into_iter().map(|(resource, _)| resource.body.clone()).collect(),
            type_url: update.kind.type_url(),
            nonce: update.nonce,
            ..DiscoveryResponse::default()
        }
    }

    fn state(&mut self) -> &mut State {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::double::{Envoy, answers_at_most_once, routed, to};
    use ::tests::hostile::spoiled;
    use envoy_types::pb::google::rpc::Status;
    use proptest::collection::vec;

    #[test]
    fn a_change_is_made_before_it_is_broken() {
        let mut envoy = Envoy::<Sotw>::new();
        envoy.deliver_request();
        assert!(envoy.settle().is_empty(), "there is nothing to send yet");
        let sent = envoy.take(&to(&[("red", "1")], "1"));
        assert_eq!(sent, ["cds red=1", "eds red=1", "lds egress=1", "rds routes=red"]);
        assert!(envoy.take(&to(&[("red", "1")], "1")).is_empty(), "the same again");
        assert_eq!(envoy.take(&to(&[("red", "1")], "2")), ["eds red=2"], "endpoints alone");
        let sent = envoy.take(&to(&[("blue", "1")], "2"));
        let expected = ["cds blue=1 red=1", "eds blue=2", "rds routes=blue", "cds blue=1"];
        assert_eq!(sent, expected, "red goes last, and only what is new is sent of endpoints");
        let sent = envoy.take(&to(&[("blue", "2")], "2"));
        assert_eq!(sent, ["cds blue=2", "eds blue=2"], "Envoy waits for the endpoints of a cluster that has changed");
        let both = [("blue", "2"), ("red", "1")];
        assert_eq!(envoy.take(&routed(&both, &["blue"], "2", "1")), ["cds blue=2 red=1", "eds red=2"]);
        let sent = envoy.take(&routed(&both, &["blue"], "2", "2"));
        assert_eq!(sent, ["lds egress=2", "rds routes=blue"], "and for the routes of a listener that has changed");
        let target = routed(&both[..1], &["blue"], "2", "2");
        assert_eq!(envoy.take(&target), ["cds blue=2"], "nobody names red");
        envoy.has(&target);
    }

    #[test]
    fn what_is_rejected_is_not_sent_again_and_nothing_follows_it() {
        let mut envoy = Envoy::<Sotw>::new();
        envoy.rejects = Some(Kind::Cluster);
        assert_eq!(envoy.take(&to(&[("red", "1")], "1")), ["cds red=1"]);
        envoy.rejects = None;
        assert!(envoy.take(&to(&[("red", "1")], "2")).is_empty(), "the clusters are the same");
        let target = to(&[("blue", "1")], "1");
        assert_eq!(envoy.take(&target), ["cds blue=1", "eds blue=1", "lds egress=1", "rds routes=blue"]);
        envoy.has(&target);
        envoy.rejects = Some(Kind::Route);
        assert_eq!(envoy.take(&routed(&[("blue", "1")], &[], "1", "1")), ["rds routes="]);
        envoy.rejects = None;
        assert_eq!(envoy.take(&routed(&[("blue", "1")], &[], "2", "1")), ["eds blue=2"]);
        let target = to(&[("blue", "1")], "2");
        assert_eq!(envoy.take(&target), ["rds routes=blue"], "it may have lost what it had");
        envoy.has(&target);
    }

    #[test]
    fn answers_to_older_responses_are_not_heard() {
        let mut envoy = Envoy::<Sotw>::new();
        envoy.update(&to(&[("red", "1")], "1"));
        envoy.deliver_request();
        envoy.deliver_request();
        envoy.update(&to(&[("blue", "1")], "1"));
        // The answer to the first clusters, and the subscription to their endpoints.
        envoy.deliver_response();
        envoy.deliver_request();
        let state = envoy.session.state();
        assert!(!state.is_in_force(), "the second clusters are not accepted yet");
        assert_eq!(envoy.log, ["cds red=1", "cds blue=1 red=1"]);
        envoy.settle();
        envoy.has(&to(&[("blue", "1")], "1"));
    }

    #[test]
    fn names_replace_those_before() {
        let ask = |session: &mut Sotw, kind: Kind, nonce: &str, names: &[&str]| {
            session.receive(DiscoveryRequest {
                type_url: kind.type_url(),
                response_nonce: nonce.to_owned(),
                resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
                ..DiscoveryRequest::default()
            });
            let names =
                |update: &Update| update.resources.iter().map(|(it, _)| it.name.clone()).collect::<Vec<_>>().join(" ");
            session.state().responses().iter().map(names).collect::<Vec<_>>()
        };
        let mut session = Sotw::new();
        session.state().update(to(&[("blue", "1"), ("red", "1")], "1"));
        assert_eq!(ask(&mut session, Kind::Cluster, "", &["red"]), ["red"], "one by name");
        assert_eq!(ask(&mut session, Kind::Cluster, "1", &["*"]), ["blue red"], "all of them");
        assert!(ask(&mut session, Kind::Cluster, "2", &["red"]).is_empty(), "Envoy has it");
        assert!(ask(&mut session, Kind::Cluster, "2", &[]).is_empty(), "none is not all, once there were names");
        assert!(ask(&mut session, Kind::Endpoint, "", &[]).is_empty());
        assert_eq!(ask(&mut session, Kind::Endpoint, "", &["blue", "red", "green"]), ["blue red"]);
        assert!(ask(&mut session, Kind::Endpoint, "3", &["red"]).is_empty());
        assert_eq!(ask(&mut session, Kind::Endpoint, "3", &["blue", "red"]), ["blue"], "Envoy has dropped it since");
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
            answers_at_most_once::<Sotw>(heard)?;
        }
    }
}
