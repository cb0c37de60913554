//! Translates when requests are sent again.

use mesh_api::{Duration, GrpcRetryEvent, GrpcRetryPolicy, HttpRetryEvent, HttpRetryPolicy, TcpRetryEvent};

use super::problems::millis;
use crate::model::{Invalid, RetryOn, RetryPolicy};

/// The policy of a route for HTTP.
///
/// # Errors
/// It has no event.
pub fn http(policy: &HttpRetryPolicy) -> Result<RetryPolicy, Invalid> {
    let HttpRetryPolicy { http_retry_events, tcp_retry_events, max_retries, per_retry_timeout } = policy;
    new(&None, http_retry_events, tcp_retry_events, *max_retries, *per_retry_timeout)
}

/// The policy of a route for gRPC.
///
/// # Errors
/// It has no event.
pub fn grpc(policy: &GrpcRetryPolicy) -> Result<RetryPolicy, Invalid> {
    let GrpcRetryPolicy { grpc_retry_events, http_retry_events, tcp_retry_events, max_retries, per_retry_timeout } =
        policy;
    new(grpc_retry_events, http_retry_events, tcp_retry_events, *max_retries, *per_retry_timeout)
}

fn new(
    grpc: &Option<Vec<GrpcRetryEvent>>,
    http: &Option<Vec<HttpRetryEvent>>,
    tcp: &Option<Vec<TcpRetryEvent>>,
    max_retries: u32,
    per_retry_timeout: Duration,
) -> Result<RetryPolicy, Invalid> {
    let http = http.iter().flatten().map(|event| match event {
        HttpRetryEvent::ServerError => RetryOn::ServerError,
        HttpRetryEvent::GatewayError => RetryOn::GatewayError,
        HttpRetryEvent::ClientError => RetryOn::ClientError,
        HttpRetryEvent::StreamError => RetryOn::StreamError,
    });
    let tcp = tcp.iter().flatten().map(|TcpRetryEvent::ConnectionError| RetryOn::ConnectionError);
    let grpc = grpc.iter().flatten().map(|event| match event {
        GrpcRetryEvent::Cancelled => RetryOn::Cancelled,
        GrpcRetryEvent::DeadlineExceeded => RetryOn::DeadlineExceeded,
        GrpcRetryEvent::Internal => RetryOn::Internal,
        GrpcRetryEvent::ResourceExhausted => RetryOn::ResourceExhausted,
        GrpcRetryEvent::Unavailable => RetryOn::Unavailable,
    });
    RetryPolicy::new(http.chain(tcp).chain(grpc).collect(), max_retries, millis(per_retry_timeout))
}
