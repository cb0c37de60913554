//! Defines version 1 of the published document: JSON that says where the requests for one VirtualService go. It is also
//! what the release before wrote and read, without a version, so its fields stay as they are. Fields that are not known
//! are ignored: one that a reader must not ignore is named in `requires`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use serde::{Deserialize, Serialize};

use crate::model::{
    self, CloudMapDiscovery, DnsDiscovery, HeaderName, HealthCheckProtocol, Invalid, IpPreference, PackedMap,
    PathMatch, QueryMatch, Regex, RetryOn, RouteMatch, RoutedListener, Routing, Scheme, ServiceKey, Timeouts, Upstream,
    ValueMatch,
};

/// The largest weight of a target.
const MAX_WEIGHT: u32 = 100;
/// The methods that a route can ask for.
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// Regular expressions for paths and headers.
const REGEX: &str = "regex";
/// The scheme of requests.
const SCHEME: &str = "scheme";

/// Routes for requests of gRPC only.
const GRPC: &str = "grpc";
/// More listeners than one.
const LISTENERS: &str = "listeners";
/// Listeners for connections.
const TCP: &str = "tcp";
/// Callers speak TLS to a node.
const TLS: &str = "tls";

/// The health of a node is checked by HTTP/2 or gRPC.
const HEALTH_CHECK_HTTP2: &str = "health-check-http2";

/// The features that are understood here.
pub const FEATURES: &[&str] = &[GRPC, HEALTH_CHECK_HTTP2, LISTENERS, REGEX, SCHEME, TCP, TLS];

/// The features that a reader of these routes must understand.
pub fn requires(routing: &Routing) -> BTreeSet<&'static str> {
    let of_route = |route: &model::Route| {
        let RouteMatch { path, scheme, grpc, headers, .. } = &route.route_match;
        let has_regex = matches!(path, PathMatch::Regex(_))
            || headers.iter().any(|header| matches!(header.value, ValueMatch::Regex(_)));
        [grpc.then_some(GRPC), has_regex.then_some(REGEX), scheme.map(|_| SCHEME)]
    };
    let of_routes = routing.listeners.iter().flat_map(|listener| &listener.routes).flat_map(of_route).flatten();
    let is_tcp = routing.tcp().next().is_some();
    let of_all = [(routing.listeners.len() > 1).then_some(LISTENERS), is_tcp.then_some(TCP)];
    let of_upstream = |upstream: &Upstream| {
        let protocol = upstream.health_check.as_ref().map(|check| &check.protocol);
        let is_http2 = matches!(protocol, Some(HealthCheckProtocol::Http2(_) | HealthCheckProtocol::Grpc));
        [is_http2.then_some(HEALTH_CHECK_HTTP2), upstream.tls.then_some(TLS)]
    };
    let of_upstreams = routing.upstreams.values().flat_map(of_upstream).flatten();
    of_routes.chain(of_all.into_iter().flatten()).chain(of_upstreams).collect()
}

/// Prints where requests go.
pub fn encode(routing: &Routing) -> String {
    // Structures and strings as keys: nothing that serde_json cannot print.
    serde_json::to_string(&Document::from(routing)).unwrap_or_default()
}

/// Parses where requests go.
///
/// # Errors
/// It does not parse, or Envoy would refuse it: where and why, such as `routes[0].prefix: does not begin with /`.
pub fn decode(json: &str) -> Result<Routing, String> {
    let mut parser = serde_json::Deserializer::from_str(json);
    let document: Document = serde_path_to_error::deserialize(&mut parser).map_err(|error| error.to_string())?;
    parser.end().map_err(|error| error.to_string())?;
    document.try_into()
}

#[derive(Serialize, Deserialize)]
struct Document {
    listener: Port,
    routes: Vec<Route>,
    /// The listeners after the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    listeners: Vec<Listener>,
    nodes: BTreeMap<String, Node>,
}

#[derive(Serialize, Deserialize)]
struct Listener {
    #[serde(flatten)]
    port: Port,
    routes: Vec<Route>,
}

#[derive(Serialize, Deserialize)]
struct Port {
    port: u16,
    protocol: Protocol,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Grpc,
    Http,
    Http2,
    Tcp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<Path>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheme: Option<Scheme>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    grpc: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Header>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    query_parameters: Vec<QueryParameter>,
    targets: Vec<Target>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_policy: Option<RetryPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<Timeout>,
}

#[derive(Serialize, Deserialize)]
struct Path {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exact: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    name: String,
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    value: Option<HeaderValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    invert: Option<bool>,
}

#[derive(Default, Serialize, Deserialize)]
struct HeaderValue {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exact: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suffix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<Range>,
}

#[derive(Serialize, Deserialize)]
struct Range {
    start: i64,
    end: i64,
}

#[derive(Serialize, Deserialize)]
struct QueryParameter {
    name: String,
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    value: Option<QueryValue>,
}

#[derive(Serialize, Deserialize)]
struct QueryValue {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exact: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Target {
    node: String,
    weight: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetryPolicy {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    http_retry_events: Vec<HttpRetryEvent>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tcp_retry_events: Vec<TcpRetryEvent>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grpc_retry_events: Vec<GrpcRetryEvent>,
    max_retries: u32,
    per_retry_timeout: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::enum_variant_names, reason = "the document's words")]
enum HttpRetryEvent {
    ServerError,
    GatewayError,
    ClientError,
    StreamError,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum TcpRetryEvent {
    ConnectionError,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum GrpcRetryEvent {
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timeout {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    per_request: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle: Option<Duration>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Duration {
    unit: Unit,
    value: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    S,
    Ms,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    port: u16,
    protocol: Protocol,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    discovery: Option<Discovery>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dns: Option<Dns>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health_check: Option<HealthCheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outlier_detection: Option<OutlierDetection>,
    /// Whether its listener takes TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tls: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip_preference: Option<IpPreference>,
}

#[derive(Serialize, Deserialize)]
struct Discovery {
    namespace: String,
    service: String,
    #[serde(default, skip_serializing_if = "PackedMap::is_empty")]
    attributes: PackedMap,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dns {
    hostname: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_type: Option<DnsResponseType>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum DnsResponseType {
    Loadbalancer,
    Endpoints,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HealthCheck {
    healthy_threshold: u32,
    interval_millis: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    protocol: Protocol,
    timeout_millis: u32,
    unhealthy_threshold: u32,
}

/// A reader of the release before ignores it: pods that fail are then left out as without it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutlierDetection {
    max_server_errors: u32,
    interval: Duration,
    base_ejection_duration: Duration,
    max_ejection_percent: u32,
}

/// Names the place of what is wrong.
fn at<T>(path: impl Display, value: Result<T, Invalid>) -> Result<T, String> {
    value.map_err(|invalid| format!("{path}: {invalid}"))
}

impl TryFrom<Document> for Routing {
    type Error = String;

    fn try_from(Document { listener, routes, listeners, nodes }: Document) -> Result<Self, String> {
        let upstream = |(name, node): (String, Node)| {
            let upstream = upstream(node, &format!("nodes.{name}"))?;
            Ok((name, upstream))
        };
        let upstreams: BTreeMap<_, _> = nodes.into_iter().map(upstream).collect::<Result<_, String>>()?;
        let listened =
            |listener: Port, path: &str, routes: Vec<Route>, routes_path: &str| -> Result<RoutedListener, String> {
                let route = |(index, given)| route(given, &upstreams, &format!("{routes_path}[{index}]"));
                let routes = routes.into_iter().enumerate().map(route).collect::<Result<_, String>>()?;
                Ok(RoutedListener { port: port(listener.port, listener.protocol, path)?, routes })
            };
        let mut all = vec![listened(listener, "listener", routes, "routes")?];
        for (index, Listener { port, routes }) in listeners.into_iter().enumerate() {
            let path = format!("listeners[{index}]");
            let listener = listened(port, &path, routes, &format!("{path}.routes"))?;
            if all.iter().any(|other| other.port.port == listener.port.port) {
                return Err(format!("{path}.port: is the port of another listener too"));
            }
            all.push(listener);
        }
        Ok(Self { listeners: all, upstreams })
    }
}

fn route(given: Route, upstreams: &BTreeMap<String, Upstream>, path: &str) -> Result<model::Route, String> {
    let path_match = match (given.prefix, given.path) {
        (Some(prefix), None) => at(format!("{path}.prefix"), PathMatch::prefix(prefix))?,
        (None, Some(Path { exact: Some(exact), regex: None })) => {
            at(format!("{path}.path.exact"), PathMatch::exact(exact))?
        }
        (None, Some(Path { exact: None, regex: Some(regex) })) => {
            at(format!("{path}.path.regex"), Regex::new(regex).map(PathMatch::Regex))?
        }
        (None, Some(_)) => return Err(format!("{path}.path: needs one of exact and regex")),
        (Some(_), Some(_)) | (None, None) => return Err(format!("{path}: needs one of path and prefix")),
    };
    let header = |(index, given)| header(given, &format!("{path}.headers[{index}]"));
    let parameter = |(index, given): (usize, QueryParameter)| {
        let exact = given.value.and_then(|value| value.exact);
        at(format!("{path}.queryParameters[{index}].name"), QueryMatch::new(given.name, exact))
    };
    let target = |(index, Target { node, weight }): (usize, Target)| {
        let path = format!("{path}.targets[{index}]");
        if weight > MAX_WEIGHT {
            return Err(format!("{path}.weight: {weight} is not 0 to {MAX_WEIGHT}"));
        }
        if !upstreams.contains_key(&node) {
            return Err(format!("{path}.node: {node} is not one of the nodes"));
        }
        Ok(model::Target { upstream: node, weight })
    };
    if let Some(method) = given.method.as_ref().filter(|method| !METHODS.contains(&method.as_str())) {
        return Err(format!("{path}.method: {method} is none of {}", METHODS.join(", ")));
    }
    let retry_policy = given.retry_policy.map(retry_policy).transpose();
    let timeout = given.timeout.unwrap_or(Timeout { per_request: None, idle: None });
    Ok(model::Route {
        name: given.name,
        route_match: RouteMatch {
            path: path_match,
            scheme: given.scheme,
            grpc: given.grpc,
            method: given.method,
            headers: given.headers.into_iter().enumerate().map(header).collect::<Result<_, _>>()?,
            query_parameters: given
                .query_parameters
                .into_iter()
                .enumerate()
                .map(parameter)
                .collect::<Result<_, _>>()?,
        },
        targets: given.targets.into_iter().enumerate().map(target).collect::<Result<_, _>>()?,
        retry_policy: at(format!("{path}.retryPolicy"), retry_policy)?,
        timeouts: Timeouts { request_millis: timeout.per_request.map(millis), idle_millis: timeout.idle.map(millis) },
    })
}

fn header(Header { name, value, invert }: Header, path: &str) -> Result<model::HeaderMatch, String> {
    let name = at(format!("{path}.name"), HeaderName::new(name))?;
    let value = value.map_or(Ok(ValueMatch::Present), |value| header_value(value, &format!("{path}.match")))?;
    Ok(model::HeaderMatch { name, value, invert: invert.unwrap_or_default() })
}

fn header_value(
    HeaderValue { exact, prefix, suffix, regex, range }: HeaderValue,
    path: &str,
) -> Result<ValueMatch, String> {
    let given = [
        exact.map(|exact| ("exact", Ok(ValueMatch::Exact(exact)))),
        prefix.map(|prefix| ("prefix", ValueMatch::prefix(prefix))),
        suffix.map(|suffix| ("suffix", ValueMatch::suffix(suffix))),
        regex.map(|regex| ("regex", Regex::new(regex).map(ValueMatch::Regex))),
        range.map(|Range { start, end }| ("range", ValueMatch::range(start, end))),
    ];
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some((field, value)), None) => at(format!("{path}.{field}"), value),
        _ => Err(format!("{path}: needs one of exact, prefix, range, regex and suffix")),
    }
}

fn retry_policy(given: RetryPolicy) -> Result<model::RetryPolicy, Invalid> {
    let http = given.http_retry_events.into_iter().map(|event| match event {
        HttpRetryEvent::ServerError => RetryOn::ServerError,
        HttpRetryEvent::GatewayError => RetryOn::GatewayError,
        HttpRetryEvent::ClientError => RetryOn::ClientError,
        HttpRetryEvent::StreamError => RetryOn::StreamError,
    });
    let tcp = given.tcp_retry_events.into_iter().map(|TcpRetryEvent::ConnectionError| RetryOn::ConnectionError);
    let grpc = given.grpc_retry_events.into_iter().map(|event| match event {
        GrpcRetryEvent::Cancelled => RetryOn::Cancelled,
        GrpcRetryEvent::DeadlineExceeded => RetryOn::DeadlineExceeded,
        GrpcRetryEvent::Internal => RetryOn::Internal,
        GrpcRetryEvent::ResourceExhausted => RetryOn::ResourceExhausted,
        GrpcRetryEvent::Unavailable => RetryOn::Unavailable,
    });
    model::RetryPolicy::new(http.chain(tcp).chain(grpc).collect(), given.max_retries, millis(given.per_retry_timeout))
}

fn upstream(given: Node, path: &str) -> Result<Upstream, String> {
    let discovery = match (given.discovery, given.dns) {
        (_, Some(Dns { hostname, response_type })) => {
            let endpoints = response_type == Some(DnsResponseType::Endpoints);
            model::Discovery::Dns(at(format!("{path}.dns.hostname"), DnsDiscovery::new(hostname, endpoints))?)
        }
        (Some(Discovery { namespace, service, attributes }), None) => {
            model::Discovery::CloudMap(CloudMapDiscovery { key: ServiceKey { namespace, service }, attributes })
        }
        (None, None) => model::Discovery::None,
    };
    let health_check = given
        .health_check
        .map(|check| health_check(check, given.protocol, &format!("{path}.healthCheck")))
        .transpose()?;
    let outlier_detection = given.outlier_detection.map(outlier_detection).transpose();
    Ok(Upstream {
        port: port(given.port, given.protocol, path)?,
        discovery,
        health_check,
        outlier_detection: at(format!("{path}.outlierDetection"), outlier_detection)?,
        tls: given.tls,
        ip_preference: given.ip_preference,
    })
}

fn outlier_detection(given: OutlierDetection) -> Result<model::OutlierDetection, Invalid> {
    let detection = model::OutlierDetection {
        max_server_errors: given.max_server_errors,
        interval_millis: millis(given.interval),
        base_ejection_millis: millis(given.base_ejection_duration),
        max_ejection_percent: given.max_ejection_percent,
    };
    detection.checked()
}

fn health_check(given: HealthCheck, listener: Protocol, path: &str) -> Result<model::HealthCheck, String> {
    let asked = given.path.unwrap_or_else(|| "/".to_owned());
    let protocol = match given.protocol {
        Protocol::Tcp => HealthCheckProtocol::Tcp,
        Protocol::Http => at(format!("{path}.path"), HealthCheckProtocol::http(asked))?,
        Protocol::Http2 => at(format!("{path}.path"), HealthCheckProtocol::http2(asked))?,
        Protocol::Grpc => at(format!("{path}.protocol"), HealthCheckProtocol::grpc(listener.into()))?,
    };
    let check = model::HealthCheck {
        protocol,
        healthy_threshold: given.healthy_threshold,
        unhealthy_threshold: given.unhealthy_threshold,
        interval_millis: given.interval_millis,
        timeout_millis: given.timeout_millis,
    };
    at(path, check.checked())
}

fn port(port: u16, protocol: Protocol, path: &str) -> Result<model::Port, String> {
    Ok(model::Port { port: numbered(port, path)?, protocol: protocol.into() })
}

fn numbered(port: u16, path: &str) -> Result<u16, String> {
    if port == 0 { Err(format!("{path}.port: is 0")) } else { Ok(port) }
}

fn millis(Duration { unit, value }: Duration) -> u64 {
    match unit {
        Unit::S => value.saturating_mul(1000),
        Unit::Ms => value,
    }
}

impl From<&Routing> for Document {
    fn from(routing: &Routing) -> Self {
        let listener = |RoutedListener { port, routes }: &RoutedListener| Listener {
            port: Port { port: port.port, protocol: port.protocol.into() },
            routes: routes.iter().map(Route::from).collect(),
        };
        let mut listeners = routing.listeners.iter().map(listener);
        // There always is one.
        let none = || Listener { port: Port { port: 0, protocol: Protocol::Http }, routes: Vec::new() };
        let Listener { port, routes } = listeners.next().unwrap_or_else(none);
        Self {
            listener: port,
            routes,
            listeners: listeners.collect(),
            nodes: routing.upstreams.iter().map(|(name, upstream)| (name.clone(), upstream.into())).collect(),
        }
    }
}

impl From<Protocol> for model::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Grpc => Self::Grpc,
            Protocol::Http => Self::Http,
            Protocol::Http2 => Self::Http2,
            Protocol::Tcp => Self::Tcp,
        }
    }
}

impl From<model::Protocol> for Protocol {
    fn from(protocol: model::Protocol) -> Self {
        match protocol {
            model::Protocol::Grpc => Self::Grpc,
            model::Protocol::Http => Self::Http,
            model::Protocol::Http2 => Self::Http2,
            model::Protocol::Tcp => Self::Tcp,
        }
    }
}

impl From<&model::Route> for Route {
    fn from(route: &model::Route) -> Self {
        let RouteMatch { path, scheme, grpc, method, headers, query_parameters } = &route.route_match;
        let (prefix, path) = match path.clone() {
            PathMatch::Prefix(prefix) => (Some(prefix), None),
            PathMatch::Exact(exact) => (None, Some(Path { exact: Some(exact), regex: None })),
            PathMatch::Regex(regex) => (None, Some(Path { exact: None, regex: Some(regex.as_str().to_owned()) })),
        };
        let target = |target: &model::Target| Target { node: target.upstream.clone(), weight: target.weight };
        let Timeouts { request_millis, idle_millis } = route.timeouts;
        let timeout = Timeout { per_request: request_millis.map(in_millis), idle: idle_millis.map(in_millis) };
        Self {
            name: route.name.clone(),
            prefix,
            path,
            scheme: *scheme,
            grpc: *grpc,
            method: method.clone(),
            headers: headers.iter().map(Header::from).collect(),
            query_parameters: query_parameters.iter().map(QueryParameter::from).collect(),
            targets: route.targets.iter().map(target).collect(),
            retry_policy: route.retry_policy.as_ref().map(RetryPolicy::from),
            timeout: (route.timeouts != Timeouts::default()).then_some(timeout),
        }
    }
}

impl From<&model::HeaderMatch> for Header {
    fn from(header: &model::HeaderMatch) -> Self {
        let empty = HeaderValue::default();
        let value = match header.value.clone() {
            ValueMatch::Present => None,
            ValueMatch::Exact(exact) => Some(HeaderValue { exact: Some(exact), ..empty }),
            ValueMatch::Prefix(prefix) => Some(HeaderValue { prefix: Some(prefix), ..empty }),
            ValueMatch::Suffix(suffix) => Some(HeaderValue { suffix: Some(suffix), ..empty }),
            ValueMatch::Regex(regex) => Some(HeaderValue { regex: Some(regex.as_str().to_owned()), ..empty }),
            ValueMatch::Range(start, end) => Some(HeaderValue { range: Some(Range { start, end }), ..empty }),
        };
        Self { name: header.name.as_str().to_owned(), value, invert: header.invert.then_some(true) }
    }
}

impl From<&QueryMatch> for QueryParameter {
    fn from(QueryMatch { name, exact }: &QueryMatch) -> Self {
        let value = exact.as_ref().map(|exact| QueryValue { exact: Some(exact.clone()) });
        Self { name: name.clone(), value }
    }
}

impl From<&model::RetryPolicy> for RetryPolicy {
    fn from(policy: &model::RetryPolicy) -> Self {
        let (mut http_retry_events, mut tcp_retry_events, mut grpc_retry_events) = (Vec::new(), Vec::new(), Vec::new());
        for event in &policy.on {
            match event {
                RetryOn::ServerError => http_retry_events.push(HttpRetryEvent::ServerError),
                RetryOn::GatewayError => http_retry_events.push(HttpRetryEvent::GatewayError),
                RetryOn::ClientError => http_retry_events.push(HttpRetryEvent::ClientError),
                RetryOn::StreamError => http_retry_events.push(HttpRetryEvent::StreamError),
                RetryOn::ConnectionError => tcp_retry_events.push(TcpRetryEvent::ConnectionError),
                RetryOn::Cancelled => grpc_retry_events.push(GrpcRetryEvent::Cancelled),
                RetryOn::DeadlineExceeded => grpc_retry_events.push(GrpcRetryEvent::DeadlineExceeded),
                RetryOn::Internal => grpc_retry_events.push(GrpcRetryEvent::Internal),
                RetryOn::ResourceExhausted => grpc_retry_events.push(GrpcRetryEvent::ResourceExhausted),
                RetryOn::Unavailable => grpc_retry_events.push(GrpcRetryEvent::Unavailable),
            }
        }
        let per_retry_timeout = in_millis(policy.per_retry_timeout_millis);
        Self {
            http_retry_events,
            tcp_retry_events,
            grpc_retry_events,
            max_retries: policy.max_retries,
            per_retry_timeout,
        }
    }
}

impl From<&Upstream> for Node {
    fn from(upstream: &Upstream) -> Self {
        let (discovery, dns) = match upstream.discovery.clone() {
            model::Discovery::None => (None, None),
            model::Discovery::CloudMap(CloudMapDiscovery { key: ServiceKey { namespace, service }, attributes }) => {
                (Some(Discovery { namespace, service, attributes }), None)
            }
            model::Discovery::Dns(DnsDiscovery { hostname, endpoints }) => {
                (None, Some(Dns { hostname, response_type: endpoints.then_some(DnsResponseType::Endpoints) }))
            }
        };
        let model::Port { port, protocol } = upstream.port;
        let health_check = upstream.health_check.as_ref().map(HealthCheck::from);
        let outlier_detection = upstream.outlier_detection.map(OutlierDetection::from);
        let tls = upstream.tls;
        let ip_preference = upstream.ip_preference;
        Self { port, protocol: protocol.into(), discovery, dns, health_check, outlier_detection, ip_preference, tls }
    }
}

impl From<model::OutlierDetection> for OutlierDetection {
    fn from(detection: model::OutlierDetection) -> Self {
        Self {
            max_server_errors: detection.max_server_errors,
            interval: in_millis(detection.interval_millis),
            base_ejection_duration: in_millis(detection.base_ejection_millis),
            max_ejection_percent: detection.max_ejection_percent,
        }
    }
}

impl From<&model::HealthCheck> for HealthCheck {
    fn from(check: &model::HealthCheck) -> Self {
        let (protocol, path) = match &check.protocol {
            HealthCheckProtocol::Http(path) => (Protocol::Http, Some(path.clone())),
            HealthCheckProtocol::Http2(path) => (Protocol::Http2, Some(path.clone())),
            HealthCheckProtocol::Grpc => (Protocol::Grpc, None),
            HealthCheckProtocol::Tcp => (Protocol::Tcp, None),
        };
        Self {
            healthy_threshold: check.healthy_threshold,
            interval_millis: check.interval_millis,
            path,
            protocol,
            timeout_millis: check.timeout_millis,
            unhealthy_threshold: check.unhealthy_threshold,
        }
    }
}

fn in_millis(value: u64) -> Duration {
    Duration { unit: Unit::Ms, value }
}
