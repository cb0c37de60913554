//! A VirtualNode's view as Envoy's configuration. Pure, and sorted: the same view gives the same bytes, so that a version
//! is a hash and all replicas agree on it. Names are those App Mesh gave, so that dashboards keep working.
//!
//! **Ingress**, port 15000: each listener of the node goes to the application on loopback, chosen by original destination.
//!
//! **Egress**, port 15001: HTTP on any port goes by its Host: a backend's name, alone or with its port, takes the routes
//! of that VirtualService; each target is a cluster whose endpoints come by EDS. All else depends on the mesh's
//! egressFilter. As in App Mesh, ALLOW_ALL lets it pass to where it was going, and DROP_ALL, the default, only
//! - to AWS: HTTP by Host, TLS by server name;
//! - to link-local addresses, where EKS gives credentials (metadata of the instance is never captured);
//! - to the cluster's API server, by its service address, which clients in pods use without a server name;
//! - to DNS over TCP.
//!
//! Other HTTP is answered with 404 and a text that says why, other connections are closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{AccessLog, access_log},
            cluster::v3::{
                CircuitBreakers, Cluster, OutlierDetection,
                circuit_breakers::Thresholds,
                cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy},
            },
            core::v3::{
                CidrRange, DataSource, HealthCheck, TrafficDirection,
                data_source::Specifier,
                health_check::{HealthChecker, HttpHealthCheck, TcpHealthCheck},
            },
            endpoint::v3::ClusterLoadAssignment,
            listener::v3::{Filter, FilterChain, FilterChainMatch, Listener},
            route::v3::{
                DirectResponseAction, HeaderMatcher, QueryParameterMatcher, RetryPolicy, Route, RouteAction,
                RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
                header_matcher::HeaderMatchSpecifier,
                query_parameter_matcher::QueryParameterMatchSpecifier,
                retry_policy::{RetryHostPredicate, retry_host_predicate},
                route::Action,
                route_action::ClusterSpecifier,
                route_match::PathSpecifier,
                weighted_cluster::ClusterWeight,
            },
        },
        extensions::{
            access_loggers::stream::v3::StdoutAccessLog,
            filters::{
                http::router::v3::Router,
                listener::{
                    http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, tls_inspector::v3::TlsInspector,
                },
                network::{
                    http_connection_manager::v3::{
                        HttpConnectionManager, Rds,
                        http_connection_manager::{RouteSpecifier, UpgradeConfig},
                    },
                    tcp_proxy::v3::{TcpProxy, tcp_proxy},
                },
            },
            retry::host::previous_hosts::v3::PreviousHostsPredicate,
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{
                    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                    explicit_http_config::ProtocolConfig,
                },
            },
        },
        r#type::{matcher::v3::string_matcher::MatchPattern, v3::Int64Range},
    },
    google::protobuf::Any,
};
use mesh_api::{
    DnsResponseType, EgressFilterType, HeaderMatchMethod, HealthCheckPolicy, HttpQueryParameter, HttpRetryEvent,
    HttpRetryPolicy, HttpRouteHeader, HttpRouteMatch, MatchRange, PortMapping, Protocol, TcpRetryEvent,
};
use prost::Name as _;

use super::{
    proto::{address, ads, any, duration, endpoints, http_filter, listener_filter, network_filter, number, text, yes},
    view::{Backend, View},
};
use crate::{
    discovery::{Answer, Found, Key},
    registration,
    routes::{self, Node, Routes},
};

/// Where captured connections to the application arrive; upstream's APPMESH_ENVOY_INGRESS_PORT.
pub const INGRESS_PORT: u16 = 15000;
/// Where captured connections of the application arrive; upstream's APPMESH_ENVOY_EGRESS_PORT.
pub const EGRESS_PORT: u16 = 15001;

const EGRESS_ROUTES: &str = "rds_egress";
const PASSTHROUGH: &str = "cds_egress_passthrough";
/// Names of AWS's endpoints in all partitions.
const AWS: [&str; 5] =
    ["*.amazonaws.com", "*.amazonaws.com.cn", "*.api.aws", "*.api.amazonwebservices.com.cn", "*.on.aws"];
/// Where the EKS Pod Identity Agent and the ECS agent are.
const LINK_LOCAL: [(&str, u32); 2] = [("169.254.0.0", 16), ("fd00:ec2::", 32)];
const DNS_PORT: u16 = 53;
/// What an HTTP connection begins with, in the words of Envoy's HTTP inspector.
const HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// Inside a VPC a connection takes a few milliseconds; a second more lets one lost SYN be sent again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A request without a timeout of its own; App Mesh's default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may stay silent until its protocol counts as unknown: server-first protocols pay it once.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Only where nothing of the request can have been processed, so that it is safe for any method.
const RETRY_ON: &str = "connect-failure,refused-stream,reset-before-request";
const RETRIES: u32 = 2;
/// What App Mesh calls a server-error.
const SERVER_ERRORS: [u32; 11] = [500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511];
/// Failed connections in a row after which an endpoint rests; Envoy's default, which App Mesh kept.
const FAILURES: u32 = 5;

/// Resources by name, each kind as Envoy asks for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// CDS
    pub clusters: BTreeMap<String, Any>,
    /// EDS, named as their clusters.
    pub endpoints: BTreeMap<String, Any>,
    /// LDS
    pub listeners: BTreeMap<String, Any>,
    /// RDS
    pub routes: BTreeMap<String, Any>,
}

/// The whole configuration of one node's Envoys. `api_server` is the service address of the cluster's API server.
pub fn resources(view: &View, found: &Found, api_server: Option<IpAddr>) -> Resources {
    let mut resources = Resources::default();
    let mut add = |cluster: Cluster| resources.clusters.insert(cluster.name.clone(), any(&cluster));
    for listener in &view.listeners {
        add(application(view, *listener));
    }
    add(passthrough());
    let mut names = Names::default();
    let mut hosts = Vec::new();
    for backend in &view.backends {
        for (node, target) in backend.routes.iter().flat_map(|routes| &routes.nodes) {
            let name = names.of(&backend.mesh, node, target);
            add(upstream(&name, target));
            if target.dns.is_none() {
                resources.endpoints.insert(name.clone(), any(&assignment(&name, target, found)));
            }
        }
        hosts.push(virtual_host(backend, &names));
    }
    hosts.extend(other_hosts(view));
    let routes = RouteConfiguration { name: EGRESS_ROUTES.to_owned(), virtual_hosts: hosts, ..Default::default() };
    resources.routes.insert(EGRESS_ROUTES.to_owned(), any(&routes));
    for listener in [ingress(view), egress(view, api_server)] {
        resources.listeners.insert(listener.name.clone(), any(&listener));
    }
    resources
}

/// Cluster names. The same node may be told differently by two backends, of this cluster and of another; then each has
/// its own cluster.
#[derive(Default)]
struct Names<'a>(BTreeMap<(String, String), Vec<&'a Node>>);

impl<'a> Names<'a> {
    fn of(&mut self, mesh: &str, name: &str, node: &'a Node) -> String {
        let known = self.0.entry((mesh.to_owned(), name.to_owned())).or_default();
        if !known.contains(&node) {
            known.push(node);
        }
        self.get(mesh, name, node)
    }

    fn get(&self, mesh: &str, name: &str, node: &Node) -> String {
        let known = self.0.get(&(mesh.to_owned(), name.to_owned()));
        let plain = format!("cds_egress_{mesh}_{name}_{}_{}", protocol(node.protocol), node.port);
        match known.and_then(|known| known.iter().position(|known| *known == node)) {
            None | Some(0) => plain,
            Some(variant) => format!("{plain}_{variant}"),
        }
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "grpc",
        Protocol::Http => "http",
        Protocol::Http2 => "http2",
        Protocol::Tcp => "tcp",
    }
}

/// The application behind its own Envoy.
fn application(view: &View, listener: PortMapping) -> Cluster {
    let name = ingress_name(view, listener);
    Cluster {
        load_assignment: Some(endpoints(&name, ["127.0.0.1"], listener.port)),
        connect_timeout: duration(CONNECT_TIMEOUT),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        circuit_breakers: unlimited(),
        typed_extension_protocol_options: speaks(listener.protocol),
        name,
        ..Cluster::default()
    }
}

fn ingress_name(view: &View, listener: PortMapping) -> String {
    let View { mesh, node, .. } = view;
    format!("cds_ingress_{mesh}_{node}_{}_{}", protocol(listener.protocol), listener.port)
}

/// The pods of a target.
fn upstream(name: &str, node: &Node) -> Cluster {
    let discovery = match &node.dns {
        None => DiscoveryType::Eds,
        Some(dns) if dns.response_type == Some(DnsResponseType::Endpoints) => DiscoveryType::StrictDns,
        Some(_) => DiscoveryType::LogicalDns,
    };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        eds_cluster_config: node.dns.is_none().then(|| EdsClusterConfig { eds_config: ads(), ..Default::default() }),
        load_assignment: node.dns.as_ref().map(|dns| endpoints(name, [dns.hostname.as_str()], node.port)),
        dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
        connect_timeout: duration(CONNECT_TIMEOUT),
        health_checks: node.health_check.iter().map(health_check).collect(),
        circuit_breakers: unlimited(),
        outlier_detection: Some(OutlierDetection {
            // Answers, also bad ones, are the application's; only an endpoint that cannot be reached rests.
            split_external_local_origin_errors: true,
            consecutive_local_origin_failure: number(FAILURES),
            enforcing_consecutive_5xx: number(0),
            enforcing_consecutive_gateway_failure: number(0),
            enforcing_success_rate: number(0),
            enforcing_local_origin_success_rate: number(0),
            max_ejection_percent: number(50),
            ..OutlierDetection::default()
        }),
        typed_extension_protocol_options: speaks(node.protocol),
        ..Cluster::default()
    }
}

fn health_check(policy: &HealthCheckPolicy) -> HealthCheck {
    let interval = Duration::from_millis(policy.interval_millis.into());
    HealthCheck {
        timeout: duration(Duration::from_millis(policy.timeout_millis.into())),
        interval: duration(interval),
        // Envoy would ask once a minute while nobody calls.
        no_traffic_interval: duration(interval),
        healthy_threshold: number(policy.healthy_threshold),
        unhealthy_threshold: number(policy.unhealthy_threshold),
        alt_port: policy.port.and_then(|port| number(port.into())),
        health_checker: Some(match policy.protocol {
            Protocol::Tcp => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
            _ => HealthChecker::HttpHealthCheck(HttpHealthCheck {
                path: policy.path.clone().unwrap_or_else(|| "/".to_owned()),
                ..HttpHealthCheck::default()
            }),
        }),
        ..HealthCheck::default()
    }
}

/// Wherever the connection was going.
fn passthrough() -> Cluster {
    let same = UseDownstreamHttpConfig {
        http_protocol_options: Some(Default::default()),
        http2_protocol_options: Some(Default::default()),
        ..UseDownstreamHttpConfig::default()
    };
    Cluster {
        name: PASSTHROUGH.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into())),
        lb_policy: LbPolicy::ClusterProvided.into(),
        connect_timeout: duration(CONNECT_TIMEOUT),
        circuit_breakers: unlimited(),
        typed_extension_protocol_options: http_options(UpstreamProtocolOptions::UseDownstreamProtocolConfig(same)),
        ..Cluster::default()
    }
}

/// Envoy would allow 1024 connections, requests and pending requests, and 3 retries; App Mesh set no limits.
fn unlimited() -> Option<CircuitBreakers> {
    let thresholds = Thresholds {
        max_connections: number(u32::MAX),
        max_pending_requests: number(u32::MAX),
        max_requests: number(u32::MAX),
        max_retries: number(u32::MAX),
        ..Thresholds::default()
    };
    Some(CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() })
}

type ProtocolOptions = std::collections::HashMap<String, Any>;

fn speaks(protocol: Protocol) -> ProtocolOptions {
    let config = match protocol {
        Protocol::Tcp => return ProtocolOptions::new(),
        Protocol::Http => ProtocolConfig::HttpProtocolOptions(Default::default()),
        Protocol::Http2 | Protocol::Grpc => ProtocolConfig::Http2ProtocolOptions(Default::default()),
    };
    let config = ExplicitHttpConfig { protocol_config: Some(config) };
    http_options(UpstreamProtocolOptions::ExplicitHttpConfig(config))
}

/// One entry only: a map of more would be encoded in any order.
fn http_options(options: UpstreamProtocolOptions) -> ProtocolOptions {
    let options = HttpProtocolOptions { upstream_protocol_options: Some(options), ..HttpProtocolOptions::default() };
    ProtocolOptions::from([(HttpProtocolOptions::full_name(), any(&options))])
}

fn assignment(cluster: &str, node: &Node, found: &Found) -> ClusterLoadAssignment {
    let instances = node.discovery.as_ref().and_then(|discovery| match found.get(&Key::Instances(discovery.key())) {
        Some(Answer::Instances(instances)) => Some((discovery, instances)),
        _ => None,
    });
    let matching = instances.iter().flat_map(|(discovery, instances)| {
        let of_node = |attributes: &&crate::cloudmap::Attributes| {
            discovery.attributes.iter().all(|(key, value)| attributes.get(key) == Some(value))
        };
        instances.values().filter(of_node).filter_map(registration::address)
    });
    let mut addresses: Vec<_> = matching.collect();
    addresses.sort_unstable();
    addresses.dedup();
    endpoints(cluster, addresses, node.port)
}

fn virtual_host(backend: &Backend, names: &Names<'_>) -> VirtualHost {
    let host = &backend.host;
    let routes = match &backend.routes {
        Some(routes) => routes.routes.iter().map(|one| route(backend, routes, one, names)).collect(),
        None => {
            let mesh = &backend.mesh;
            let why = format!("nobody has told mesh {mesh} where requests for VirtualService {host} go");
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

fn route(backend: &Backend, routes: &Routes, route: &routes::Route, names: &Names<'_>) -> Route {
    let weight = |target: &routes::Target| {
        let node = routes.nodes.get(&target.node)?;
        let name = names.get(&backend.mesh, &target.node, node);
        Some(ClusterWeight { name, weight: number(target.weight), ..ClusterWeight::default() })
    };
    let clusters: Vec<_> = route.targets.iter().filter_map(weight).collect();
    let action = if route.targets.iter().any(|target| target.weight > 0) {
        let clusters = WeightedCluster { clusters, ..WeightedCluster::default() };
        let timeout = route.timeout.unwrap_or_default();
        Action::Route(RouteAction {
            timeout: duration(timeout.per_request.map_or(REQUEST_TIMEOUT, Duration::from)),
            idle_timeout: timeout.idle.and_then(|idle| duration(idle.into())),
            retry_policy: Some(retries(route.retry_policy.as_ref())),
            ..forward(ClusterSpecifier::WeightedClusters(clusters))
        })
    } else {
        // Envoy would reject the whole configuration.
        refuse(503, "all targets of the route have weight 0")
    };
    let taken = Some(taken(&route.match_));
    Route { name: route.name.clone(), r#match: taken, action: Some(action), ..Route::default() }
}

fn taken(match_: &HttpRouteMatch) -> RouteMatch {
    let path = match match_.path.as_ref().and_then(|path| path.exact.clone()) {
        Some(exact) => PathSpecifier::Path(exact),
        None => PathSpecifier::Prefix(match_.prefix.clone().unwrap_or_else(|| "/".to_owned())),
    };
    let method = match_.method.map(|method| HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(text(MatchPattern::Exact(method.to_string())))),
        ..HeaderMatcher::default()
    });
    RouteMatch {
        path_specifier: Some(path),
        headers: method.into_iter().chain(match_.headers.iter().flatten().map(header)).collect(),
        query_parameters: match_.query_parameters.iter().flatten().map(parameter).collect(),
        ..RouteMatch::default()
    }
}

fn header(header: &HttpRouteHeader) -> HeaderMatcher {
    let HeaderMatchMethod { exact, prefix, suffix, range } = header.match_.clone().unwrap_or_default();
    let pattern = exact.map(MatchPattern::Exact).or(prefix.map(MatchPattern::Prefix));
    let value =
        pattern.or(suffix.map(MatchPattern::Suffix)).map(|pattern| HeaderMatchSpecifier::StringMatch(text(pattern)));
    let number = range.map(|MatchRange { start, end }| HeaderMatchSpecifier::RangeMatch(Int64Range { start, end }));
    HeaderMatcher {
        name: header.name.clone(),
        header_match_specifier: value.or(number).or(Some(HeaderMatchSpecifier::PresentMatch(true))),
        invert_match: header.invert.unwrap_or_default(),
        ..HeaderMatcher::default()
    }
}

fn parameter(parameter: &HttpQueryParameter) -> QueryParameterMatcher {
    let exact = parameter.match_.as_ref().and_then(|value| value.exact.clone());
    let value = exact.map(|exact| QueryParameterMatchSpecifier::StringMatch(text(MatchPattern::Exact(exact))));
    QueryParameterMatcher {
        name: parameter.name.clone(),
        query_parameter_match_specifier: value.or(Some(QueryParameterMatchSpecifier::PresentMatch(true))),
    }
}

/// By the route's own policy, or the usual one.
fn retries(policy: Option<&HttpRetryPolicy>) -> RetryPolicy {
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
    let answered = policy.http_retry_events.iter().flatten().flat_map(|event| match event {
        HttpRetryEvent::ServerError => ["retriable-status-codes", "reset"].as_slice(),
        HttpRetryEvent::GatewayError => &["gateway-error", "reset"],
        // Which Envoy takes to be 409 alone.
        HttpRetryEvent::ClientError => &["retriable-4xx"],
        HttpRetryEvent::StreamError => &["refused-stream"],
    });
    let connected = policy.tcp_retry_events.iter().flatten().map(|TcpRetryEvent::ConnectionError| &"connect-failure");
    let events: BTreeSet<_> = answered.chain(connected).copied().collect();
    RetryPolicy {
        retry_on: events.into_iter().collect::<Vec<_>>().join(","),
        // Heard only with retriable-status-codes.
        retriable_status_codes: SERVER_ERRORS.to_vec(),
        num_retries: number(policy.max_retries),
        per_try_timeout: duration(policy.per_retry_timeout.into()),
        ..usual
    }
}

fn forward(to: ClusterSpecifier) -> RouteAction {
    RouteAction { cluster_specifier: Some(to), ..RouteAction::default() }
}

fn pass() -> Action {
    let timeout = duration(Duration::ZERO);
    Action::Route(RouteAction { timeout, ..forward(ClusterSpecifier::Cluster(PASSTHROUGH.to_owned())) })
}

fn refuse(status: u32, why: &str) -> Action {
    let body = DataSource { specifier: Some(Specifier::InlineString(format!("{why}\n"))), ..DataSource::default() };
    Action::DirectResponse(DirectResponseAction { status, body: Some(body), ..DirectResponseAction::default() })
}

fn everything(action: Action) -> Route {
    let all = taken(&HttpRouteMatch::default());
    Route { r#match: Some(all), action: Some(action), ..Route::default() }
}

/// HTTP that no backend takes.
fn other_hosts(view: &View) -> Vec<VirtualHost> {
    let host = |name: &str, domains: &[&str], action| VirtualHost {
        name: name.to_owned(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        routes: vec![everything(action)],
        ..VirtualHost::default()
    };
    match view.egress {
        EgressFilterType::AllowAll => vec![host("passthrough", &["*"], pass())],
        EgressFilterType::DropAll => {
            let why = format!(
                "no backend of VirtualNode {} has this host, and mesh {} drops other egress",
                view.node, view.mesh
            );
            vec![host("amazonaws", &AWS, pass()), host("drop", &["*"], refuse(404, &why))]
        }
    }
}

fn ingress(view: &View) -> Listener {
    let chain = |listener: &PortMapping| {
        let name = ingress_name(view, *listener);
        let filter = match listener.protocol {
            Protocol::Tcp => tcp(view, &name),
            _ => http(view, &name, RouteSpecifier::RouteConfig(to_application(&name))),
        };
        let port = FilterChainMatch { destination_port: number(listener.port.into()), ..FilterChainMatch::default() };
        filter_chain(&name, port, filter)
    };
    Listener {
        filter_chains: view.listeners.iter().map(chain).collect(),
        listener_filters: vec![listener_filter(&OriginalDst {})],
        traffic_direction: TrafficDirection::Inbound.into(),
        ..listener(&format!("lds_ingress_0.0.0.0_{INGRESS_PORT}"), INGRESS_PORT)
    }
}

fn to_application(cluster: &str) -> RouteConfiguration {
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

fn egress(view: &View, api_server: Option<IpAddr>) -> Listener {
    let by_host = Rds { config_source: ads(), route_config_name: EGRESS_ROUTES.to_owned() };
    let is_http = FilterChainMatch {
        // A TLS client offers the same names by ALPN.
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: HTTP.map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    };
    let mut filter_chains = vec![filter_chain("http", is_http, http(view, "egress", RouteSpecifier::Rds(by_host)))];
    if view.egress == EgressFilterType::DropAll {
        filter_chains.extend(allowed(view, api_server));
    }
    let anything = || filter_chain("passthrough", FilterChainMatch::default(), tcp(view, PASSTHROUGH));
    Listener {
        filter_chains,
        default_filter_chain: (view.egress == EgressFilterType::AllowAll).then(anything),
        listener_filters: vec![
            listener_filter(&OriginalDst {}),
            listener_filter(&TlsInspector::default()),
            listener_filter(&HttpInspector {}),
        ],
        listener_filters_timeout: duration(INSPECTION_TIMEOUT),
        continue_on_listener_filters_timeout: true,
        traffic_direction: TrafficDirection::Outbound.into(),
        ..listener(&format!("lds_egress_0.0.0.0_{EGRESS_PORT}"), EGRESS_PORT)
    }
}

/// What DROP_ALL lets pass.
fn allowed(view: &View, api_server: Option<IpAddr>) -> Vec<FilterChain> {
    let range = |(ip, bits): (&str, u32)| CidrRange { address_prefix: ip.to_owned(), prefix_len: number(bits) };
    let mut prefix_ranges: Vec<_> = LINK_LOCAL.into_iter().map(range).collect();
    let bits = |ip: &IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    prefix_ranges.extend(api_server.map(|ip| range((&ip.to_string(), bits(&ip)))));
    let by_name = FilterChainMatch {
        transport_protocol: "tls".to_owned(),
        server_names: AWS.map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    };
    let by_address = FilterChainMatch { prefix_ranges, ..FilterChainMatch::default() };
    let dns = FilterChainMatch { destination_port: number(DNS_PORT.into()), ..FilterChainMatch::default() };
    [("amazonaws", by_name), ("platform", by_address), ("dns", dns)]
        .map(|(name, matches)| filter_chain(name, matches, tcp(view, PASSTHROUGH)))
        .into()
}

fn listener(name: &str, port: u16) -> Listener {
    Listener { name: name.to_owned(), address: address("0.0.0.0", port), ..Listener::default() }
}

fn filter_chain(name: &str, matches: FilterChainMatch, filter: Filter) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: Some(matches),
        filters: vec![filter],
        ..FilterChain::default()
    }
}

fn http(view: &View, stat_prefix: &str, routes: RouteSpecifier) -> Filter {
    network_filter(&HttpConnectionManager {
        access_log: access_log(view),
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(routes),
        http_filters: vec![http_filter(&Router::default())],
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            enabled: yes(),
            ..UpgradeConfig::default()
        }],
        ..HttpConnectionManager::default()
    })
}

fn access_log(view: &View) -> Vec<AccessLog> {
    let to_stdout = || AccessLog {
        name: StdoutAccessLog::full_name(),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&StdoutAccessLog::default()))),
        ..AccessLog::default()
    };
    view.access_log.then(to_stdout).into_iter().collect()
}

fn tcp(view: &View, cluster: &str) -> Filter {
    network_filter(&TcpProxy {
        access_log: access_log(view),
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..TcpProxy::default()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        cloudmap::Instances,
        routes::{CloudMapDiscovery, Target},
    };
    use envoy_types::pb::{
        envoy::config::{cluster::v3::Cluster, core::v3::address, endpoint::v3::lb_endpoint::HostIdentifier},
        google::protobuf::Any,
    };
    use prost::Message;

    const HTTP_8080: PortMapping = PortMapping { port: 8080, protocol: Protocol::Http };

    fn color(color: &str) -> Node {
        let attributes = [("color".to_owned(), color.to_owned())].into();
        let discovery =
            CloudMapDiscovery { namespace: "svc2.svc.local".into(), service: "colorapp".into(), attributes };
        Node { port: 8080, protocol: Protocol::Http, discovery: Some(discovery), dns: None, health_check: None }
    }

    fn colorapp(red: u32, blue: u32) -> Backend {
        let target = |node: &str, weight| Target { node: node.into(), weight };
        let targets = vec![target("red_k8multi", red), target("blue_k8multi", blue)];
        let nodes = [("red_k8multi".to_owned(), color("red")), ("blue_k8multi".to_owned(), color("blue"))];
        let routes = vec![routes::Route::of_everything("color-route".into(), targets)];
        let routes = Routes { listener: HTTP_8080, routes, nodes: nodes.into() };
        Backend { mesh: "k8multi".into(), host: "colorapp.k8multi.svc.cluster.local".into(), routes: Some(routes) }
    }

    fn front(egress: EgressFilterType, backends: Vec<Backend>) -> View {
        View {
            mesh: "k8multi".into(),
            node: "front_k8multi".into(),
            listeners: vec![HTTP_8080],
            egress,
            access_log: false,
            backends,
        }
    }

    fn found() -> Found {
        let instance = |ip: &str, color: &str| {
            let attributes = [("AWS_INSTANCE_IPV4".to_owned(), ip.to_owned()), ("color".to_owned(), color.to_owned())];
            (ip.to_owned(), attributes.into())
        };
        let instances: Instances =
            [instance("10.0.2.9", "red"), instance("10.0.2.10", "red"), instance("10.0.2.7", "blue")].into();
        [(Key::Instances(color("red").discovery.unwrap().key()), Answer::Instances(Arc::new(instances)))].into()
    }

    fn read<M: Message + Default>(resources: &BTreeMap<String, Any>, name: &str) -> M {
        M::decode(&*resources[name].value).unwrap()
    }

    fn ips(resources: &Resources, cluster: &str) -> Vec<String> {
        let assignment: ClusterLoadAssignment = read(&resources.endpoints, cluster);
        let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
        let ip = |endpoint: envoy_types::pb::envoy::config::endpoint::v3::LbEndpoint| {
            let Some(HostIdentifier::Endpoint(endpoint)) = endpoint.host_identifier else { return None };
            let Some(address::Address::SocketAddress(socket)) = endpoint.address?.address else { return None };
            Some(socket.address)
        };
        endpoints.filter_map(ip).collect()
    }

    fn hosts(resources: &Resources) -> Vec<VirtualHost> {
        read::<RouteConfiguration>(&resources.routes, EGRESS_ROUTES).virtual_hosts
    }

    fn action(route: &Route) -> String {
        match route.action.as_ref().unwrap() {
            Action::DirectResponse(refusal) => format!("{}", refusal.status),
            Action::Route(action) => match action.cluster_specifier.as_ref().unwrap() {
                ClusterSpecifier::Cluster(name) => name.clone(),
                ClusterSpecifier::WeightedClusters(weighted) => {
                    let weight = |one: &ClusterWeight| format!("{} {}", one.name, one.weight.unwrap().value);
                    weighted.clusters.iter().map(weight).collect::<Vec<_>>().join(", ")
                }
                other => format!("{other:?}"),
            },
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn each_target_is_a_cluster_of_the_instances_with_its_attributes() {
        let resources = resources(&front(EgressFilterType::DropAll, vec![colorapp(1, 1)]), &found(), None);
        assert_eq!(
            resources.clusters.keys().collect::<Vec<_>>(),
            [
                "cds_egress_k8multi_blue_k8multi_http_8080",
                "cds_egress_k8multi_red_k8multi_http_8080",
                "cds_egress_passthrough",
                "cds_ingress_k8multi_front_k8multi_http_8080",
            ]
        );
        assert_eq!(ips(&resources, "cds_egress_k8multi_red_k8multi_http_8080"), ["10.0.2.10", "10.0.2.9"]);
        assert_eq!(ips(&resources, "cds_egress_k8multi_blue_k8multi_http_8080"), ["10.0.2.7"]);
    }

    #[test]
    fn hosts_and_what_they_get() {
        let red_and_blue = |red: u32, blue: u32| {
            format!("cds_egress_k8multi_red_k8multi_http_8080 {red}, cds_egress_k8multi_blue_k8multi_http_8080 {blue}")
        };
        let lost = Backend { routes: None, ..colorapp(1, 1) };
        for (egress, backend, expected) in [
            (EgressFilterType::DropAll, colorapp(3, 1), [red_and_blue(3, 1).as_str(), PASSTHROUGH, "404"].as_slice()),
            (EgressFilterType::AllowAll, colorapp(1, 0), &[&red_and_blue(1, 0), PASSTHROUGH]),
            (EgressFilterType::DropAll, colorapp(0, 0), &["503", PASSTHROUGH, "404"]),
            (EgressFilterType::DropAll, lost, &["503", PASSTHROUGH, "404"]),
        ] {
            let hosts = hosts(&resources(&front(egress, vec![backend]), &found(), None));
            assert_eq!(
                hosts[0].domains,
                ["colorapp.k8multi.svc.cluster.local", "colorapp.k8multi.svc.cluster.local:*"]
            );
            let actions: Vec<_> = hosts.iter().map(|host| action(&host.routes[0])).collect();
            assert_eq!(actions, expected);
        }
    }

    #[test]
    fn egress_that_is_not_http() {
        let api_server = Some("172.20.0.1".parse().unwrap());
        for (egress, chains, default) in [
            (EgressFilterType::AllowAll, ["http"].as_slice(), true),
            (EgressFilterType::DropAll, &["http", "amazonaws", "platform", "dns"], false),
        ] {
            let resources = resources(&front(egress, Vec::new()), &found(), api_server);
            let listener: Listener = read(&resources.listeners, "lds_egress_0.0.0.0_15001");
            assert_eq!(listener.filter_chains.iter().map(|chain| &chain.name).collect::<Vec<_>>(), chains);
            assert_eq!(listener.default_filter_chain.is_some(), default);
        }
    }

    #[test]
    fn one_node_told_in_two_ways_is_two_clusters() {
        let mut other = Backend { host: "other".into(), ..colorapp(1, 1) };
        other.routes.as_mut().unwrap().nodes.insert("red_k8multi".into(), Node { discovery: None, ..color("red") });
        let resources = resources(&front(EgressFilterType::DropAll, vec![colorapp(1, 1), other]), &found(), None);
        let second = "cds_egress_k8multi_red_k8multi_http_8080_1";
        assert!(action(&hosts(&resources)[1].routes[0]).starts_with(second));
        assert_eq!(ips(&resources, second), Vec::<String>::new());
        let cluster: Cluster = read(&resources.clusters, second);
        assert_eq!(cluster.name, second);
    }

    #[test]
    fn the_same_view_gives_the_same_bytes() {
        let make = || resources(&front(EgressFilterType::DropAll, vec![colorapp(1, 1)]), &found(), None);
        assert!((0..20).all(|_| make() == make()));
    }
}
