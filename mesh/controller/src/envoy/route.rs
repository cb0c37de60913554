//! Encodes routes: by host and match to weighted clusters.

use std::{collections::BTreeSet, time::Duration};

use envoy_types::pb::envoy::{
    config::{
        core::v3::{DataSource, data_source::Specifier},
        route::v3::{
            DirectResponseAction, HeaderMatcher, QueryParameterMatcher, RetryPolicy, Route, RouteAction,
            RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
            header_matcher::HeaderMatchSpecifier,
            query_parameter_matcher::QueryParameterMatchSpecifier,
            retry_policy::{RetryHostPredicate, retry_host_predicate},
            route::Action,
            route_action::ClusterSpecifier,
            route_match::{ConnectMatcher, PathSpecifier},
            weighted_cluster::ClusterWeight,
        },
    },
    extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
    r#type::{matcher::v3::string_matcher::MatchPattern, v3::Int64Range},
};
use prost::Name as _;

use super::{
    cluster::{Names, PASSTHROUGH},
    proto::{any, duration, number, text},
};
use crate::model::{self, Backend, Egress, HeaderMatch, PathMatch, QueryMatch, RetryOn, Routing, ValueMatch, Workload};

/// The routes of what the application sends.
pub const EGRESS_ROUTES: &str = "rds_egress";
/// Names of AWS's endpoints in all partitions.
pub const AWS: [&str; 5] =
    ["*.amazonaws.com", "*.amazonaws.com.cn", "*.api.aws", "*.api.amazonwebservices.com.cn", "*.on.aws"];

/// A request without a timeout of its own; App Mesh's default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Only where nothing of the request can have been processed, so that it is safe for any method.
const RETRY_ON: &str = "connect-failure,refused-stream,reset-before-request";
const RETRIES: u32 = 2;
/// What App Mesh calls a server-error.
const SERVER_ERRORS: [u32; 11] = [500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511];

/// Encodes where what the application sends goes, by host.
pub fn egress(workload: &Workload, names: &Names<'_>) -> RouteConfiguration {
    let mut virtual_hosts: Vec<_> = workload.backends.iter().map(|backend| virtual_host(backend, names)).collect();
    virtual_hosts.extend(other_hosts(workload));
    RouteConfiguration { name: EGRESS_ROUTES.to_owned(), virtual_hosts, ..RouteConfiguration::default() }
}

/// Encodes the one route to the application behind its Envoy.
pub fn to_application(cluster: &str) -> RouteConfiguration {
    // The caller's Envoy, or the caller, decides how long a request may take.
    let timeout = duration(Duration::ZERO);
    let to = Action::Route(RouteAction { timeout, ..forward(ClusterSpecifier::Cluster(cluster.to_owned())) });
    let host = VirtualHost {
        name: cluster.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![everything(to)],
        ..VirtualHost::default()
    };
    RouteConfiguration { name: cluster.to_owned(), virtual_hosts: vec![host], ..RouteConfiguration::default() }
}

fn virtual_host(backend: &Backend, names: &Names<'_>) -> VirtualHost {
    let Backend { mesh, host, routing } = backend;
    let routes = match routing {
        Some(routing) => routing.routes.iter().map(|one| route(mesh, routing, one, names)).collect(),
        None => {
            let why = format!("no route published for VirtualService {host} in mesh {mesh}");
            vec![everything(refuse(503, &format!("{why}: is its ARN right, and its cluster's controller at work?")))]
        }
    };
    VirtualHost {
        name: host.clone(),
        domains: vec![host.clone(), format!("{host}:*")],
        routes,
        ..VirtualHost::default()
    }
}

fn route(mesh: &str, routing: &Routing, route: &model::Route, names: &Names<'_>) -> Route {
    Route {
        name: route.name.clone(),
        r#match: Some(route_match(&route.route_match)),
        action: Some(action(mesh, routing, route, names)),
        ..Route::default()
    }
}

/// Encodes what a route does with the requests that it takes.
pub fn action(mesh: &str, routing: &Routing, route: &model::Route, names: &Names<'_>) -> Action {
    let weight = |target: &model::Target| {
        let upstream = routing.upstreams.get(&target.upstream)?;
        let name = names.get(mesh, &target.upstream, upstream);
        Some(ClusterWeight { name, weight: number(target.weight), ..ClusterWeight::default() })
    };
    let clusters: Vec<_> = route.targets.iter().filter_map(weight).collect();
    if route.targets.iter().any(|target| target.weight > 0) {
        let clusters = WeightedCluster { clusters, ..WeightedCluster::default() };
        let timeouts = route.timeouts;
        Action::Route(RouteAction {
            timeout: duration(timeouts.request_millis.map_or(REQUEST_TIMEOUT, Duration::from_millis)),
            idle_timeout: timeouts.idle_millis.and_then(|idle| duration(Duration::from_millis(idle))),
            retry_policy: Some(retries(route.retry_policy.as_ref())),
            ..forward(ClusterSpecifier::WeightedClusters(clusters))
        })
    } else {
        // Envoy would reject the whole configuration.
        refuse(503, "all targets of the route have weight 0")
    }
}

/// Encodes which requests a route takes.
pub fn route_match(route_match: &model::RouteMatch) -> RouteMatch {
    let path = match &route_match.path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
    };
    let method = route_match.method.as_ref().map(|method| HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(text(MatchPattern::Exact(method.clone())))),
        ..HeaderMatcher::default()
    });
    RouteMatch {
        path_specifier: Some(path),
        headers: method.into_iter().chain(route_match.headers.iter().map(header)).collect(),
        query_parameters: route_match.query_parameters.iter().map(parameter).collect(),
        ..RouteMatch::default()
    }
}

fn header(HeaderMatch { name, value, invert }: &HeaderMatch) -> HeaderMatcher {
    let is = |pattern| HeaderMatchSpecifier::StringMatch(text(pattern));
    HeaderMatcher {
        name: name.as_str().to_owned(),
        header_match_specifier: Some(match value {
            ValueMatch::Present => HeaderMatchSpecifier::PresentMatch(true),
            ValueMatch::Exact(value) => is(MatchPattern::Exact(value.clone())),
            ValueMatch::Prefix(prefix) => is(MatchPattern::Prefix(prefix.clone())),
            ValueMatch::Suffix(suffix) => is(MatchPattern::Suffix(suffix.clone())),
            ValueMatch::Range(start, end) => HeaderMatchSpecifier::RangeMatch(Int64Range { start: *start, end: *end }),
        }),
        invert_match: *invert,
        ..HeaderMatcher::default()
    }
}

fn parameter(QueryMatch { name, exact }: &QueryMatch) -> QueryParameterMatcher {
    let value = exact.clone().map(|exact| QueryParameterMatchSpecifier::StringMatch(text(MatchPattern::Exact(exact))));
    QueryParameterMatcher {
        name: name.clone(),
        query_parameter_match_specifier: value.or(Some(QueryParameterMatchSpecifier::PresentMatch(true))),
    }
}

/// By the route's own policy, or the usual one.
fn retries(policy: Option<&model::RetryPolicy>) -> RetryPolicy {
    let elsewhere = RetryHostPredicate {
        name: PreviousHostsPredicate::full_name(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(&PreviousHostsPredicate {}))),
    };
    let usual = RetryPolicy {
        retry_on: RETRY_ON.to_owned(),
        num_retries: number(RETRIES),
        retry_host_predicate: vec![elsewhere],
        host_selection_retry_max_attempts: 3,
        ..RetryPolicy::default()
    };
    let Some(policy) = policy else { return usual };
    let events = policy.on.iter().flat_map(|event| match event {
        RetryOn::ServerError => ["retriable-status-codes", "reset"].as_slice(),
        RetryOn::GatewayError => &["gateway-error", "reset"],
        // Which Envoy takes to be 409 alone.
        RetryOn::ClientError => &["retriable-4xx"],
        RetryOn::StreamError => &["refused-stream"],
        RetryOn::ConnectionError => &["connect-failure"],
    });
    let events: BTreeSet<_> = events.copied().collect();
    RetryPolicy {
        retry_on: events.into_iter().collect::<Vec<_>>().join(","),
        // Heard only with retriable-status-codes.
        retriable_status_codes: SERVER_ERRORS.to_vec(),
        num_retries: number(policy.max_retries),
        per_try_timeout: duration(Duration::from_millis(policy.per_retry_timeout_millis)),
        ..usual
    }
}

fn forward(to: ClusterSpecifier) -> RouteAction {
    RouteAction { cluster_specifier: Some(to), ..RouteAction::default() }
}

fn pass() -> Action {
    let forever = duration(Duration::ZERO);
    Action::Route(RouteAction {
        timeout: forever,
        idle_timeout: forever,
        ..forward(ClusterSpecifier::Cluster(PASSTHROUGH.to_owned()))
    })
}

/// Encodes an answer that says why there is no other.
pub fn refuse(status: u32, why: &str) -> Action {
    let body = DataSource { specifier: Some(Specifier::InlineString(format!("{why}\n"))), ..DataSource::default() };
    Action::DirectResponse(DirectResponseAction { status, body: Some(body), ..DirectResponseAction::default() })
}

/// Encodes a route that takes every request.
pub fn everything(action: Action) -> Route {
    Route { r#match: Some(route_match(&model::RouteMatch::default())), action: Some(action), ..Route::default() }
}

/// HTTP that no backend takes.
fn other_hosts(workload: &Workload) -> Vec<VirtualHost> {
    let host = |name: &str, domains: &[&str], action| VirtualHost {
        name: name.to_owned(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        routes: vec![everything(action)],
        ..VirtualHost::default()
    };
    match workload.egress {
        Egress::AllowAll => {
            let mut passthrough = host("passthrough", &["*"], pass());
            // A proxy outside of the mesh is asked for a tunnel.
            let connect = PathSpecifier::ConnectMatcher(ConnectMatcher {});
            let connect = RouteMatch { path_specifier: Some(connect), ..RouteMatch::default() };
            passthrough.routes.push(Route { r#match: Some(connect), action: Some(pass()), ..Route::default() });
            vec![passthrough]
        }
        Egress::DropAll => {
            let model::WorkloadName { mesh, name, .. } = &workload.name;
            let why = format!("no backend of VirtualNode {name} has this host, and mesh {mesh} drops other egress");
            vec![host("amazonaws", &AWS, pass()), host("drop", &["*"], refuse(404, &why))]
        }
    }
}
