//! Encodes routes: by host and match to weighted clusters.

use std::time::Duration;

use envoy_types::pb::envoy::config::{
    core::v3::{DataSource, data_source::Specifier},
    route::v3::{
        DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
        route::Action,
        route_action::ClusterSpecifier,
        route_match::{ConnectMatcher, PathSpecifier},
        weighted_cluster::ClusterWeight,
    },
};

use super::{
    cluster::{Names, PASSTHROUGH},
    proto::{duration, number},
    retries, route_match,
};
use crate::model::{self, Backend, Egress, RoutedListener, Routing, Timeouts, Workload};

/// The routes of what the application sends.
pub const EGRESS_ROUTES: &str = "rds_egress";
/// Names of AWS's endpoints in all partitions.
pub const AWS: [&str; 5] =
    ["*.amazonaws.com", "*.amazonaws.com.cn", "*.api.aws", "*.api.amazonwebservices.com.cn", "*.on.aws"];

/// The port of requests that name none.
const HTTP_PORT: u16 = 80;
/// A request without a timeout of its own; App Mesh's default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Encodes where what the application sends goes, by host.
pub fn egress(workload: &Workload, names: &Names<'_>) -> RouteConfiguration {
    let mut virtual_hosts: Vec<_> =
        workload.backends.iter().flat_map(|backend| backend_hosts(backend, names)).collect();
    virtual_hosts.extend(other_hosts(workload));
    RouteConfiguration { name: EGRESS_ROUTES.to_owned(), virtual_hosts, ..RouteConfiguration::default() }
}

/// Encodes the one route to the application behind its Envoy.
pub fn to_application(cluster: &str, timeouts: Timeouts) -> RouteConfiguration {
    let to = Action::Route(RouteAction {
        // Without a timeout of its own the caller's Envoy, or the caller, decides how long a request may take.
        timeout: duration(Duration::from_millis(timeouts.request_millis.unwrap_or_default())),
        idle_timeout: timeouts.idle_millis.and_then(|idle| duration(Duration::from_millis(idle))),
        retry_policy: Some(retries::to_application()),
        ..forward(ClusterSpecifier::Cluster(cluster.to_owned()))
    });
    let host = VirtualHost {
        name: cluster.to_owned(),
        domains: vec!["*".to_owned()],
        routes: retries::repeat_idempotent(everything(to)),
        ..VirtualHost::default()
    };
    RouteConfiguration { name: cluster.to_owned(), virtual_hosts: vec![host], ..RouteConfiguration::default() }
}

/// A virtual host for each port that a backend's requests come to. A request that names no port is one of port 80, but
/// most backends have one port only and are called on it by the name alone.
fn backend_hosts(backend: &Backend, names: &Names<'_>) -> Vec<VirtualHost> {
    let Backend { mesh, host, routing, refusal, .. } = backend;
    let virtual_host =
        |name: String, domains: Vec<String>, routes| VirtualHost { name, domains, routes, ..VirtualHost::default() };
    let any_port = || vec![host.clone(), format!("{host}:*")];
    let refused = |why: &str| vec![virtual_host(host.clone(), any_port(), vec![everything(refuse(503, why))])];
    if let Some(why) = refusal {
        return refused(why);
    }
    let Some(routing) = routing else {
        let why = format!("no route published for VirtualService {host} in mesh {mesh}");
        return refused(&format!(
            "{why}: is its ARN right, has its provider a listener, and is its cluster's controller at work?"
        ));
    };
    let default = routing.http().find(|listener| listener.port.port == HTTP_PORT).or_else(|| routing.http().next());
    let of_port = |listener: &RoutedListener| {
        let routes = listener.routes.iter().flat_map(|one| route(backend, routing, one, names)).collect();
        if default.is_some_and(|default| default.port == listener.port) {
            virtual_host(host.clone(), any_port(), routes)
        } else {
            let name = format!("{host}:{}", listener.port.port);
            virtual_host(name.clone(), vec![name], routes)
        }
    };
    routing.http().map(of_port).collect()
}

fn route(backend: &Backend, routing: &Routing, route: &model::Route, names: &Names<'_>) -> Vec<Route> {
    let encoded = Route {
        name: route.name.clone(),
        r#match: Some(route_match::encode(&route.route_match)),
        action: Some(action(backend, routing, route, names)),
        ..Route::default()
    };
    with_repeats(encoded, route)
}

/// A route that says nothing of its own about when requests are sent again repeats what may be. Those of gRPC are all of
/// one method, for which that is not known.
pub fn with_repeats(encoded: Route, route: &model::Route) -> Vec<Route> {
    let is_forward = matches!(encoded.action, Some(Action::Route(_)));
    if is_forward && route.retry_policy.is_none() && !route.route_match.grpc {
        retries::repeat_idempotent(encoded)
    } else {
        vec![encoded]
    }
}

/// Encodes what a route does with the requests that it takes.
pub fn action(backend: &Backend, routing: &Routing, route: &model::Route, names: &Names<'_>) -> Action {
    let weight = |target: &model::Target| {
        let upstream = routing.upstreams.get(&target.upstream)?;
        let name = names.get(backend, &target.upstream, upstream);
        Some(ClusterWeight { name, weight: number(target.weight), ..ClusterWeight::default() })
    };
    let clusters: Vec<_> = route.targets.iter().filter_map(weight).collect();
    if route.targets.iter().any(|target| target.weight > 0) {
        let clusters = WeightedCluster { clusters, ..WeightedCluster::default() };
        let timeouts = route.timeouts;
        Action::Route(RouteAction {
            timeout: duration(timeouts.request_millis.map_or(REQUEST_TIMEOUT, Duration::from_millis)),
            idle_timeout: timeouts.idle_millis.and_then(|idle| duration(Duration::from_millis(idle))),
            retry_policy: Some(retries::encode(route.retry_policy.as_ref())),
            ..forward(ClusterSpecifier::WeightedClusters(clusters))
        })
    } else {
        // Envoy would reject the whole configuration.
        refuse(503, "all targets of the route have weight 0")
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
    Route {
        r#match: Some(route_match::encode(&model::RouteMatch::default())),
        action: Some(action),
        ..Route::default()
    }
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
