//! Encodes when requests are sent again.

use std::{collections::BTreeSet, time::Duration};

use envoy_types::pb::envoy::{
    config::route::v3::{
        HeaderMatcher, RetryPolicy, Route,
        header_matcher::HeaderMatchSpecifier,
        retry_policy::{RetryHostPredicate, retry_host_predicate},
        route::Action,
    },
    extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
    r#type::matcher::v3::string_matcher::MatchPattern,
};
use prost::Name as _;

use super::{
    proto::{any, duration, number},
    route_match::{METHOD, header_is, regex},
};
use crate::model::{self, RetryOn};

/// App Mesh's default: also after an answer of 503, or gRPC's UNAVAILABLE, for any method.
const RETRY_ON: &str = "connect-failure,refused-stream,reset-before-request,retriable-status-codes,unavailable";
/// Where the application behind its own Envoy cannot have begun with a request. Where it is not there at all, another pod
/// is to be asked, by the caller.
const RETRY_TO_APPLICATION_ON: &str = "reset-before-request";
/// A connection that ended after the request was sent: the other side may have closed it a moment before, or have begun.
const RESET: &str = "reset";
/// Methods whose requests may be sent twice (RFC 9110, 9.2.2), as RE2 reads them.
const IDEMPOTENT: &str = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";
const UNAVAILABLE: u32 = 503;
const RETRIES: u32 = 2;
/// What App Mesh calls a server-error.
const SERVER_ERRORS: [u32; 11] = [500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511];

/// Encodes when requests to the application behind its own Envoy are sent again.
pub fn to_application() -> RetryPolicy {
    RetryPolicy { retry_on: RETRY_TO_APPLICATION_ON.to_owned(), num_retries: number(RETRIES), ..RetryPolicy::default() }
}

/// Sends requests that may be sent twice again also after a connection that ended while the answer was awaited: by a route
/// of their own before the one for the others, unless it takes one method only.
pub fn repeat_idempotent(mut route: Route) -> Vec<Route> {
    let Some(route_match) = &mut route.r#match else { return vec![route] };
    let method = route_match.headers.iter().find(|header| header.name == METHOD).cloned();
    let mut repeated = route.clone();
    if let Some(Action::Route(action)) = &mut repeated.action
        && let Some(policy) = &mut action.retry_policy
    {
        policy.retry_on = format!("{},{RESET}", policy.retry_on);
    }
    match method.map(|method| is_idempotent(&method)) {
        Some(true) => vec![repeated],
        Some(false) => vec![route],
        None => {
            let idempotent = header_is(METHOD, MatchPattern::SafeRegex(regex(IDEMPOTENT)));
            repeated.r#match.iter_mut().for_each(|route_match| route_match.headers.push(idempotent.clone()));
            vec![repeated, route]
        }
    }
}

fn is_idempotent(method: &HeaderMatcher) -> bool {
    let Some(HeaderMatchSpecifier::StringMatch(method)) = &method.header_match_specifier else { return false };
    matches!(&method.match_pattern, Some(MatchPattern::Exact(method)) if IDEMPOTENT.split('|').any(|one| one == method))
}

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
