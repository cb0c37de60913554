//! Describes how requests are tried: health checks, retries, timeouts. Times are in milliseconds.

use serde::Serialize;

use super::{Invalid, Protocol};

/// How a caller tries whether a pod answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// What is tried.
    pub protocol: HealthCheckProtocol,
    /// Answers in a row after which a pod is called again.
    pub healthy_threshold: u32,
    /// Failures in a row after which a pod is called no more.
    pub unhealthy_threshold: u32,
    /// Milliseconds from one try to the next.
    pub interval_millis: u32,
    /// Milliseconds until no answer counts as a failure.
    pub timeout_millis: u32,
}

/// What a health check tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HealthCheckProtocol {
    /// A request for this path; a status of 200 is an answer.
    Http(String),
    /// The same by HTTP/2.
    Http2(String),
    /// A call of the method Check of gRPC's health service; SERVING is an answer.
    Grpc,
    /// A connection.
    Tcp,
}

impl HealthCheckProtocol {
    /// A request for a path.
    ///
    /// # Errors
    /// The path does not begin with `/`.
    pub fn http(path: String) -> Result<Self, Invalid> {
        rooted(path).map(Self::Http)
    }

    /// A request for a path by HTTP/2.
    ///
    /// # Errors
    /// The path does not begin with `/`.
    pub fn http2(path: String) -> Result<Self, Invalid> {
        rooted(path).map(Self::Http2)
    }

    /// A call of gRPC's health service, of pods that listen by this protocol.
    ///
    /// # Errors
    /// Envoy calls it only where it speaks HTTP/2 otherwise, too.
    pub fn grpc(listener: Protocol) -> Result<Self, Invalid> {
        match listener {
            Protocol::Grpc | Protocol::Http2 => Ok(Self::Grpc),
            Protocol::Http | Protocol::Tcp => {
                Err(Invalid(format!("grpc needs a listener of protocol grpc or http2, not {}", listener.as_str())))
            }
        }
    }
}

fn rooted(path: String) -> Result<String, Invalid> {
    if path.starts_with('/') { Ok(path) } else { Err(Invalid::new("does not begin with /")) }
}

impl HealthCheck {
    /// The same, if Envoy takes its numbers.
    ///
    /// # Errors
    /// A threshold or a time is 0.
    pub fn checked(self) -> Result<Self, Invalid> {
        let numbers = [self.healthy_threshold, self.unhealthy_threshold, self.interval_millis, self.timeout_millis];
        if numbers.contains(&0) { Err(Invalid::new("a threshold or time is 0")) } else { Ok(self) }
    }
}

/// When a request is sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// After which events; never empty.
    pub on: Vec<RetryOn>,
    /// How often at most.
    pub max_retries: u32,
    /// Milliseconds that each try may take, the first one too.
    pub per_retry_timeout_millis: u64,
}

impl RetryPolicy {
    /// A policy with at least one event.
    ///
    /// # Errors
    /// It has none.
    pub fn new(on: Vec<RetryOn>, max_retries: u32, per_retry_timeout_millis: u64) -> Result<Self, Invalid> {
        if on.is_empty() {
            return Err(Invalid::new("needs a retry event"));
        }
        Ok(Self { on, max_retries, per_retry_timeout_millis })
    }
}

/// An event after which a request is sent again, in App Mesh's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// An answer of 500 to 511 but 509, or a connection that breaks.
    ServerError,
    /// An answer of 502, 503 or 504, or a connection that breaks.
    GatewayError,
    /// An answer of 409.
    ClientError,
    /// A stream that is refused.
    StreamError,
    /// A connection that does not come about.
    ConnectionError,
    /// Status 1 of gRPC.
    Cancelled,
    /// Status 4 of gRPC.
    DeadlineExceeded,
    /// Status 13 of gRPC.
    Internal,
    /// Status 8 of gRPC.
    ResourceExhausted,
    /// Status 14 of gRPC.
    Unavailable,
}

/// How long a request may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Milliseconds for the whole of it; 0 is without end. Absent is App Mesh's 15 seconds on a route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_millis: Option<u64>,
    /// Milliseconds in which nothing is sent; 0 is without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_millis: Option<u64>,
}

impl Timeouts {
    /// Whether none is given.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
