//! Encodes when requests are sent again.

use std::{collections::BTreeSet, time::Duration};

use envoy_types::pb::envoy::{
    config::route::v3::{
        RetryPolicy,
        retry_policy::{RetryHostPredicate, retry_host_predicate},
    },
    extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
};
use prost::Name as _;

use super::proto::{any, duration, number};
use crate::model::{self, RetryOn};

/// App Mesh's default: also after an answer of 503, or gRPC's UNAVAILABLE, for any method.
const RETRY_ON: &str = "connect-failure,refused-stream,reset-before-request,retriable-status-codes,unavailable";
const UNAVAILABLE: u32 = 503;
const RETRIES: u32 = 2;
/// What App Mesh calls a server-error.
const SERVER_ERRORS: [u32; 11] = [500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511];

/// Encodes a route's own policy, or the usual one.
pub fn encode(policy: Option<&model::RetryPolicy>) -> RetryPolicy {
    let elsewhere = RetryHostPredicate {
        name: PreviousHostsPredicate::full_name(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(&PreviousHostsPredicate {}))),
    };
    let usual = RetryPolicy {
        retry_on: RETRY_ON.to_owned(),
        retriable_status_codes: vec![UNAVAILABLE],
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
        RetryOn::Cancelled => &["cancelled"],
        RetryOn::DeadlineExceeded => &["deadline-exceeded"],
        RetryOn::Internal => &["internal"],
        RetryOn::ResourceExhausted => &["resource-exhausted"],
        RetryOn::Unavailable => &["unavailable"],
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
