//! Encodes how HTTP is spoken, so that an application's requests and answers pass as they were written: HTTP/1.0, the case of
//! header names, trailers, `Expect: 100-continue`, the `Server` header, upgrades.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::core::v3::{
        Http1ProtocolOptions, HttpProtocolOptions, TypedExtensionConfig,
        http1_protocol_options::{HeaderKeyFormat, header_key_format::HeaderFormat},
    },
    extensions::{
        filters::{
            http::router::v3::Router,
            network::http_connection_manager::v3::{
                HttpConnectionManager,
                http_connection_manager::{RouteSpecifier, ServerHeaderTransformation, Tracing, UpgradeConfig},
            },
        },
        http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig,
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};
use prost::Name as _;

use super::{
    Settings, access_log,
    proto::{any, duration, http_filter, number, yes},
};
use crate::model::{AccessLog, Timeouts};

/// Kilobytes and number of a request's headers that are let through; Envoy would stop at 60 and 100, and what an
/// application takes is up to the application.
const MAX_HEADERS_KB: u32 = 256;
const MAX_HEADERS: u32 = 1000;
/// The Host of a request of HTTP/1.0 that has none.
const NO_HOST: &str = "localhost";
/// Upgrades that an application may ask for: each is passed on, and what it answers is passed back. One to TLS, which
/// some clients offer with every request, is ignored, as a server may (RFC 9110, 7.8); others are refused with 403.
const UPGRADES: [&str; 3] = ["websocket", "spdy/3.1", "tcp"];

/// Which way requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the application, whose listener may say how long a connection is kept without a request. How long a stream may be
    /// silent is up to the caller, unless the route says so.
    Inbound(Timeouts),
    /// From the application.
    Outbound,
    /// Into the mesh, from clients that are not part of it.
    FromOutside,
    /// From the application, which may also ask a proxy outside of the mesh for a tunnel.
    OutboundToAnywhere,
}

/// Encodes what reads requests and routes them.
pub fn connection_manager(
    access_log: Option<&AccessLog>,
    settings: Settings,
    stat_prefix: &str,
    routes: RouteSpecifier,
    direction: Direction,
) -> HttpConnectionManager {
    let idle = match direction {
        Direction::Inbound(timeouts) => timeouts.idle_millis,
        Direction::FromOutside | Direction::Outbound | Direction::OutboundToAnywhere => None,
    };
    let connect = (direction == Direction::OutboundToAnywhere).then_some("CONNECT");
    let upgrade =
        |name: &str| UpgradeConfig { upgrade_type: name.to_owned(), enabled: yes(), ..UpgradeConfig::default() };
    let to_tls = StringMatcher { match_pattern: Some(MatchPattern::Prefix("tls/".to_owned())), ignore_case: true };
    HttpConnectionManager {
        access_log: access_log::encode(access_log),
        stat_prefix: stat_prefix.to_owned(),
        tracing: settings.tracing.then(Tracing::default),
        route_specifier: Some(routes),
        http_filters: vec![http_filter(&Router::default())],
        http_protocol_options: Some(Http1ProtocolOptions {
            accept_http_10: true,
            default_host_for_http_10: NO_HOST.to_owned(),
            ignore_http_11_upgrade: vec![to_tls],
            ..http1()
        }),
        common_http_protocol_options: Some(HttpProtocolOptions {
            max_headers_count: number(MAX_HEADERS),
            idle_timeout: idle.and_then(|idle| duration(Duration::from_millis(idle))),
            ..HttpProtocolOptions::default()
        }),
        max_request_headers_kb: number(MAX_HEADERS_KB),
        proxy_100_continue: true,
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        stream_idle_timeout: matches!(direction, Direction::Inbound(_)).then(|| duration(Duration::ZERO)).flatten(),
        upgrade_configs: UPGRADES.into_iter().chain(connect).map(upgrade).collect(),
        ..HttpConnectionManager::default()
    }
}

/// HTTP/1 as it was written: header names in their case, and trailers.
pub fn http1() -> Http1ProtocolOptions {
    let preserve_case = TypedExtensionConfig {
        name: PreserveCaseFormatterConfig::full_name(),
        typed_config: Some(any(&PreserveCaseFormatterConfig { forward_reason_phrase: true, ..Default::default() })),
    };
    Http1ProtocolOptions {
        header_key_format: Some(HeaderKeyFormat {
            header_format: Some(HeaderFormat::StatefulFormatter(preserve_case)),
        }),
        enable_trailers: true,
        ..Http1ProtocolOptions::default()
    }
}
