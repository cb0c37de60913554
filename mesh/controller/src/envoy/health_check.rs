//! Encodes active health checks.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::core::v3::{
        HealthCheck,
        health_check::{GrpcHealthCheck, HealthChecker, HttpHealthCheck, TcpHealthCheck},
    },
    r#type::v3::CodecClientType,
};

use super::proto::{duration, number};
use crate::model::{self, HealthCheckProtocol};

/// Encodes one.
pub fn encode(check: &model::HealthCheck) -> HealthCheck {
    let interval = Duration::from_millis(check.interval_millis.into());
    HealthCheck {
        timeout: duration(Duration::from_millis(check.timeout_millis.into())),
        interval: duration(interval),
        // Envoy would ask once a minute while nobody calls.
        no_traffic_interval: duration(interval),
        healthy_threshold: number(check.healthy_threshold),
        unhealthy_threshold: number(check.unhealthy_threshold),
        health_checker: Some(match &check.protocol {
            HealthCheckProtocol::Tcp => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
            HealthCheckProtocol::Http(path) => HealthChecker::HttpHealthCheck(http(path, CodecClientType::Http1)),
            HealthCheckProtocol::Http2(path) => HealthChecker::HttpHealthCheck(http(path, CodecClientType::Http2)),
            HealthCheckProtocol::Grpc => HealthChecker::GrpcHealthCheck(GrpcHealthCheck::default()),
        }),
        ..HealthCheck::default()
    }
}

fn http(path: &str, codec: CodecClientType) -> HttpHealthCheck {
    HttpHealthCheck { path: path.to_owned(), codec_client_type: codec.into(), ..HttpHealthCheck::default() }
}
