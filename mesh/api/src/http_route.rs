use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Reference};

/// A route for requests of HTTP/1.1 or HTTP/2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// Which requests.
    #[serde(rename = "match")]
    pub match_: HttpRouteMatch,
    /// Where they go.
    pub action: RouteAction,
    /// When a request is sent again; when absent, up to twice: after an answer of 503, gRPC's status 14 (unavailable), and
    /// where the target cannot have begun with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<HttpRetryPolicy>,
    /// How long a request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HttpTimeout>,
}

/// Which HTTP requests a route takes: those that all of it fits. Either a prefix or a path is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteMatch {
    /// What the path begins with; `/` takes every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The path, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<HttpPathMatch>,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<HttpMethod>,
    /// The scheme, as the request or its `x-forwarded-proto` names it: what is sent to the Envoy in plain text is `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<HttpScheme>,
    /// Headers, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10))]
    pub headers: Option<Vec<HttpRouteHeader>>,
    /// Parameters of the query, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10))]
    pub query_parameters: Option<Vec<HttpQueryParameter>>,
    /// The router's listener that requests come to; when absent, each of the route's protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 0, max = 65535))]
    pub port: Option<u16>,
}

/// A whole path, without its query; exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpPathMatch {
    /// The same characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub exact: Option<String>,
    /// A regular expression in RE2's syntax that matches the whole path, such as `/v[0-9]+/.*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub regex: Option<String>,
}

/// A scheme of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "RFC 9110 says it all, and a description would change the schema's shape")]
pub enum HttpScheme {
    Http,
    Https,
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "RFC 9110 and 5789 say it all, and a description would change the schema's shape")]
pub enum HttpMethod {
    Connect,
    Delete,
    Get,
    Head,
    Options,
    Patch,
    Post,
    Put,
    Trace,
}

impl fmt::Display for HttpMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Trace => "TRACE",
        })
    }
}

/// What a header, or the metadata of a gRPC request, must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteHeader {
    /// Its name.
    #[schemars(length(min = 1, max = 50))]
    pub name: String,
    /// What its value must be; absent, it must only be there.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_: Option<HeaderMatchMethod>,
    /// Whether the requests that do not fit are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invert: Option<bool>,
}

/// What a header's value must be; exactly one of the five.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatchMethod {
    /// The whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub exact: Option<String>,
    /// What it begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub prefix: Option<String>,
    /// What it ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub suffix: Option<String>,
    /// A regular expression in RE2's syntax that matches the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub regex: Option<String>,
    /// A whole number among these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<MatchRange>,
}

/// Whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatchRange {
    /// The first.
    pub start: i64,
    /// The one after the last.
    pub end: i64,
}

/// What a parameter of the query must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpQueryParameter {
    /// The parameter's name.
    pub name: String,
    /// What its value must be; absent, it must only be there.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_: Option<QueryMatchMethod>,
}

/// What a parameter's value must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueryMatchMethod {
    /// The whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
}

/// Where requests or connections go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteAction {
    /// 1 to 10 targets.
    #[schemars(length(min = 1, max = 10))]
    pub weighted_targets: Vec<WeightedTarget>,
}

/// A VirtualNode and its share of the requests or connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WeightedTarget {
    /// The VirtualNode. Either this or `virtualNodeARN` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_node_ref: Option<Reference>,
    /// The same by its ARN: a VirtualNode of this cluster too.
    #[serde(default, rename = "virtualNodeARN", skip_serializing_if = "Option::is_none")]
    pub virtual_node_arn: Option<String>,
    /// 0 to 100; its share is this divided by the sum over the targets.
    #[schemars(with = "i64", range(min = 0, max = 100))]
    pub weight: u32,
    /// The VirtualNode's listener that is called; when absent, the one of the router's port, or else the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 0, max = 65535))]
    pub port: Option<u16>,
}

/// When a request is sent again; at least one event is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRetryPolicy {
    /// Answers, and broken connections, after which it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25))]
    pub http_retry_events: Option<Vec<HttpRetryEvent>>,
    /// Connections that did not come about, after which it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1))]
    pub tcp_retry_events: Option<Vec<TcpRetryEvent>>,
    /// How often at most.
    #[schemars(with = "i64", range(min = 0))]
    pub max_retries: u32,
    /// How long each try may take, the first one too.
    pub per_retry_timeout: Duration,
}

/// `server-error`: 500 to 508, 510, 511; `gateway-error`: 502 to 504; `client-error`: 409; `stream-error`: a refused stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "a description of each would change the schema's shape")]
pub enum HttpRetryEvent {
    ServerError,
    GatewayError,
    ClientError,
    StreamError,
}

/// `connection-error`: nobody answers there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "a description of each would change the schema's shape")]
pub enum TcpRetryEvent {
    ConnectionError,
}

/// How long a request may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpTimeout {
    /// Until the answer has ended, all tries together; 15 seconds when absent, without end when 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_request: Option<Duration>,
    /// With nothing sent or received; 5 minutes when absent, without end when 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
}
