//! Translates when requests are sent again.

use mesh_api::{HttpRetryEvent, HttpRetryPolicy, TcpRetryEvent};

use super::problems::millis;
use crate::model::{Invalid, RetryOn, RetryPolicy};

/// The policy of a route for HTTP.
///
/// # Errors
/// It has no event.
pub fn http(policy: &HttpRetryPolicy) -> Result<RetryPolicy, Invalid> {
    let http = policy.http_retry_events.iter().flatten().map(|event| match event {
        HttpRetryEvent::ServerError => RetryOn::ServerError,
        HttpRetryEvent::GatewayError => RetryOn::GatewayError,
        HttpRetryEvent::ClientError => RetryOn::ClientError,
        HttpRetryEvent::StreamError => RetryOn::StreamError,
    });
    let tcp = policy.tcp_retry_events.iter().flatten().map(|TcpRetryEvent::ConnectionError| RetryOn::ConnectionError);
    RetryPolicy::new(http.chain(tcp).collect(), policy.max_retries, millis(policy.per_retry_timeout))
}
