//! Translates one route of a VirtualRouter, whatever its kind.

use mesh_api::{GrpcRoute, HttpRoute, HttpTimeout, Route, TcpRoute, VirtualNode, WeightedTarget};

use super::{
    problems::{Problems, millis},
    references::Named,
    retries, route_match,
};
use crate::model::{Port, Protocol, Reason, RetryPolicy, RouteMatch, Timeouts};

/// A route by its kind.
#[derive(Clone, Copy)]
pub enum RouteKind<'a> {
    /// For HTTP/1.1.
    Http(&'a HttpRoute),
    /// For HTTP/2.
    Http2(&'a HttpRoute),
    /// For gRPC.
    Grpc(&'a GrpcRoute),
    /// For connections.
    Tcp(&'a TcpRoute),
}

impl<'a> RouteKind<'a> {
    /// The one kind that a route is of.
    pub fn of(route: &'a Route) -> Option<Self> {
        let kinds = [
            route.http_route.as_ref().map(Self::Http),
            route.http2_route.as_ref().map(Self::Http2),
            route.grpc_route.as_ref().map(Self::Grpc),
            route.tcp_route.as_ref().map(Self::Tcp),
        ];
        let mut kinds = kinds.into_iter().flatten();
        kinds.next().filter(|_| kinds.next().is_none())
    }

    /// The field of a route that holds it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Http(_) => "httpRoute",
            Self::Http2(_) => "http2Route",
            Self::Grpc(_) => "grpcRoute",
            Self::Tcp(_) => "tcpRoute",
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Http(_) => Protocol::Http,
            Self::Http2(_) => Protocol::Http2,
            Self::Grpc(_) => Protocol::Grpc,
            Self::Tcp(_) => Protocol::Tcp,
        }
    }

    fn port(self) -> Option<u16> {
        match self {
            Self::Http(route) | Self::Http2(route) => route.match_.port,
            Self::Grpc(route) => route.match_.port,
            Self::Tcp(route) => route.match_.and_then(|given| given.port),
        }
    }

    /// The listeners that it takes requests or connections of: those of its port, or else of its protocol. Of a router
    /// that has none of its protocol it takes requests of any other, for they are all HTTP.
    pub fn of_listeners(self, listeners: &[Port]) -> Vec<Port> {
        let carries = |listener: &Port| (listener.protocol == Protocol::Tcp) == (self.protocol() == Protocol::Tcp);
        let is_meant = |listener: &Port| self.port().is_none_or(|port| port == listener.port);
        let all: Vec<_> = listeners.iter().copied().filter(|one| carries(one) && is_meant(one)).collect();
        let same: Vec<_> = all.iter().copied().filter(|listener| listener.protocol == self.protocol()).collect();
        if same.is_empty() { all } else { same }
    }

    /// Where the requests go.
    pub fn targets(self) -> &'a [WeightedTarget] {
        match self {
            Self::Http(route) | Self::Http2(route) => &route.action.weighted_targets,
            Self::Grpc(route) => &route.action.weighted_targets,
            Self::Tcp(route) => &route.action.weighted_targets,
        }
    }
}

/// A route but for its targets.
pub struct Translated {
    pub route_match: RouteMatch,
    pub retry_policy: Option<RetryPolicy>,
    pub timeouts: Timeouts,
}

/// Translates a route but for its targets; `None` if it has a problem.
pub fn translate(kind: RouteKind<'_>, path: &str, problems: &mut Problems) -> Option<Translated> {
    let match_path = format!("{path}.match");
    // All of it, so that all problems are found.
    let (route_match, retries, timeout) = match kind {
        RouteKind::Http(HttpRoute { match_, retry_policy, timeout, .. })
        | RouteKind::Http2(HttpRoute { match_, retry_policy, timeout, .. }) => {
            let route_match = route_match::http(match_, &match_path, problems);
            (route_match, retry_policy.as_ref().map(retries::http), *timeout)
        }
        RouteKind::Grpc(GrpcRoute { match_, retry_policy, timeout, .. }) => {
            let route_match = route_match::grpc(match_, &match_path, problems);
            (route_match, retry_policy.as_ref().map(retries::grpc), *timeout)
        }
        RouteKind::Tcp(TcpRoute { timeout, .. }) => {
            let idle = timeout.and_then(|timeout| timeout.idle);
            (Some(RouteMatch::default()), None, Some(HttpTimeout { per_request: None, idle }))
        }
    };
    let retry_policy = problems.take(format!("{path}.retryPolicy"), retries.transpose());
    let HttpTimeout { per_request, idle } = timeout.unwrap_or_default();
    let timeouts = Timeouts { request_millis: per_request.map(millis), idle_millis: idle.map(millis) };
    Some(Translated { route_match: route_match?, retry_policy: retry_policy?, timeouts })
}

/// How a target names its VirtualNode.
pub fn node_of(target: &WeightedTarget) -> Named<'_> {
    Named { reference: target.virtual_node_ref.as_ref(), arn: target.virtual_node_arn.as_deref() }
}

/// Notes what makes no sense in a route of a router with these listeners.
pub fn check(route: &Route, listeners: &[Port], path: &str, problems: &mut Problems) {
    let Some(kind) = RouteKind::of(route) else {
        return problems.invalid(path, "needs one of grpcRoute, http2Route, httpRoute and tcpRoute");
    };
    let path = format!("{path}.{}", kind.field());
    translate(kind, &path, problems);
    // A router without listeners is not called at all.
    if !listeners.is_empty() && kind.of_listeners(listeners).is_empty() {
        match kind.port() {
            Some(port) => {
                let message = format!("no listener of port {port} takes a {}", kind.field());
                problems.invalid(format!("{path}.match.port"), message);
            }
            None => problems.invalid(&path, format!("no listener takes a {}", kind.field())),
        }
    }
    let path = format!("{path}.action.weightedTargets");
    let targets = kind.targets();
    for (index, target) in targets.iter().enumerate() {
        node_of(target).check::<VirtualNode>(&format!("{path}[{index}]"), problems);
    }
    if targets.iter().all(|target| target.weight == 0) {
        problems.add(Reason::NoWeight, path, "the weights add up to 0");
    }
}
