//! Encodes when a pod that fails is left out for a while.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::OutlierDetection;

use super::proto::{duration, number, yes};
use crate::model;

/// Failed connections in a row after which an endpoint rests; Envoy's default, which App Mesh kept.
const FAILURES: u32 = 5;
/// Percent of all cases.
const ALWAYS: u32 = 100;

/// Encodes it; without a policy only an endpoint that cannot be reached rests.
pub fn encode(policy: Option<&model::OutlierDetection>) -> OutlierDetection {
    let never = OutlierDetection {
        enforcing_consecutive_5xx: number(0),
        enforcing_consecutive_gateway_failure: number(0),
        enforcing_success_rate: number(0),
        enforcing_local_origin_success_rate: number(0),
        ..OutlierDetection::default()
    };
    let Some(policy) = policy else {
        return OutlierDetection {
            // Answers, also bad ones, are the application's.
            split_external_local_origin_errors: true,
            consecutive_local_origin_failure: number(FAILURES),
            max_ejection_percent: number(50),
            ..never
        };
    };
    OutlierDetection {
        // Connections that fail count as answers of 503.
        consecutive_5xx: number(policy.max_server_errors),
        enforcing_consecutive_5xx: number(ALWAYS),
        interval: duration(Duration::from_millis(policy.interval_millis)),
        base_ejection_time: duration(Duration::from_millis(policy.base_ejection_millis)),
        max_ejection_percent: number(policy.max_ejection_percent),
        always_eject_one_host: yes(),
        ..never
    }
}
