use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, TcpTimeout};

/// How long a listener gives the application; of the listener's own protocol, others are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTimeout {
    /// Of calls, where the listener's protocol is `grpc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<RequestTimeout>,
    /// Of requests, where the listener's protocol is `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<RequestTimeout>,
    /// Of requests, where the listener's protocol is `http2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2: Option<RequestTimeout>,
    /// Of connections, where the listener's protocol is `tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpTimeout>,
}

/// How long the application may take for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestTimeout {
    /// Until the answer has ended; without end when 0, or when absent, as callers have timeouts of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_request: Option<Duration>,
    /// With nothing sent or received, for a request and for a connection without one; without end when 0. When absent,
    /// without end for a request and an hour for a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
}

/// How much at once Envoy lets through to the application; of the listener's own protocol, others are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionPool {
    /// Where the listener's protocol is `grpc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<RequestPool>,
    /// Where the listener's protocol is `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpPool>,
    /// Where the listener's protocol is `http2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2: Option<RequestPool>,
    /// Where the listener's protocol is `tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpPool>,
}

/// Limits of connections that carry one request at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpPool {
    /// Connections to the application at the same time, at least 1.
    #[schemars(with = "i64", range(min = 1))]
    pub max_connections: u32,
    /// Requests that may wait for a connection, at least 1; others are answered with 503. No limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 1))]
    pub max_pending_requests: Option<u32>,
}

/// Limits of connections that carry many requests at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestPool {
    /// Requests to the application at the same time, at least 1; others are answered with 503.
    #[schemars(with = "i64", range(min = 1))]
    pub max_requests: u32,
}

/// Limits of TCP connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpPool {
    /// Connections to the application at the same time, at least 1; others are closed.
    #[schemars(with = "i64", range(min = 1))]
    pub max_connections: u32,
}

/// When callers leave out a pod for a while that answers with errors or cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Errors in a row after which a pod is left out, at least 1: answers of 500 to 599 and connections that fail.
    #[schemars(with = "i64", range(min = 1))]
    pub max_server_errors: u32,
    /// Time between two looks at which pods may come back; more than 0.
    pub interval: Duration,
    /// How long a pod is left out the first time; each further time it is that much longer. More than 0.
    pub base_ejection_duration: Duration,
    /// Percentage of the pods that may be left out at the same time, 0 to 100; one may be in any case.
    #[schemars(with = "i64", range(min = 0, max = 100))]
    pub max_ejection_percent: u32,
}
