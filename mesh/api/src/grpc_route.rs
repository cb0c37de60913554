use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, HttpRetryEvent, HttpRouteHeader, HttpTimeout, RouteAction, TcpRetryEvent};

/// A route for gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRoute {
    /// Which requests.
    #[serde(rename = "match")]
    pub match_: GrpcRouteMatch,
    /// Where they go.
    pub action: RouteAction,
    /// When a request is sent again; when absent, up to twice: after an answer of 503, gRPC's status 14 (unavailable), and
    /// where the target cannot have begun with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<GrpcRetryPolicy>,
    /// How long a request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HttpTimeout>,
}

/// Which gRPC requests a route takes: those that all of it fits; an empty one takes every gRPC request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteMatch {
    /// The service with its package, such as `shop.Stock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// A method of the service, such as `Take`; needs `serviceName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50))]
    pub method_name: Option<String>,
    /// Metadata of the request, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10))]
    pub metadata: Option<Vec<HttpRouteHeader>>,
    /// The router's listener that requests come to; when absent, each that speaks gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 0, max = 65535))]
    pub port: Option<u16>,
}

/// When a gRPC request is sent again; at least one event is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRetryPolicy {
    /// Statuses of gRPC after which it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 5))]
    pub grpc_retry_events: Option<Vec<GrpcRetryEvent>>,
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

/// A status of gRPC: `cancelled` (1), `deadline-exceeded` (4), `internal` (13), `resource-exhausted` (8), `unavailable` (14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "a description of each would change the schema's shape")]
pub enum GrpcRetryEvent {
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}
