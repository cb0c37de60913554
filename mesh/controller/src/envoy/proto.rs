//! Builds the few forms of Envoy's protos that are used here.

use std::{net::IpAddr, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                Address, AggregatedConfigSource, ApiVersion, CidrRange, ConfigSource, SocketAddress,
                address::Address as AddressKind, config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
            },
            listener::v3::{Filter, ListenerFilter, filter, listener_filter},
        },
        extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter},
        r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::{Any, BoolValue, UInt32Value},
};
use prost::{Message, Name};

pub fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub fn yes() -> Option<BoolValue> {
    Some(BoolValue { value: true })
}

/// Envoy refuses what is longer than 292 years; as a timeout, a hundred are the same.
const LONGEST: u64 = 100 * 365 * 24 * 60 * 60;

pub fn duration(duration: Duration) -> Option<envoy_types::pb::google::protobuf::Duration> {
    let seconds = i64::try_from(duration.as_secs().min(LONGEST)).unwrap_or_default();
    let nanos = i32::try_from(duration.subsec_nanos()).unwrap_or_default();
    Some(envoy_types::pb::google::protobuf::Duration { seconds, nanos })
}

pub fn text(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

pub fn address(ip: &str, port: u16) -> Option<Address> {
    let socket = SocketAddress {
        address: ip.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    };
    Some(Address { address: Some(AddressKind::SocketAddress(socket)) })
}

/// The one address.
pub fn only(ip: IpAddr) -> CidrRange {
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    CidrRange { address_prefix: ip.to_string(), prefix_len: number(bits) }
}

/// "Ask on the stream this came by."
pub fn ads() -> Option<ConfigSource> {
    Some(ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        // A cluster or listener waits for what it names, however long the controller takes.
        initial_fetch_timeout: duration(Duration::ZERO),
        ..ConfigSource::default()
    })
}

pub fn endpoints<'a>(cluster: &str, addresses: impl IntoIterator<Item = &'a str>, port: u16) -> ClusterLoadAssignment {
    let endpoint = |ip| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint { address: address(ip, port), ..Endpoint::default() })),
        ..LbEndpoint::default()
    };
    let lb_endpoints: Vec<_> = addresses.into_iter().map(endpoint).collect();
    let locality = LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() };
    let endpoints = if locality.lb_endpoints.is_empty() { Vec::new() } else { vec![locality] };
    ClusterLoadAssignment { cluster_name: cluster.to_owned(), endpoints, ..ClusterLoadAssignment::default() }
}

pub fn network_filter<M: Message + Name>(config: &M) -> Filter {
    let config_type = Some(filter::ConfigType::TypedConfig(any(config)));
    Filter { name: M::full_name(), config_type }
}

pub fn http_filter<M: Message + Name>(config: &M) -> HttpFilter {
    let config_type = Some(http_filter::ConfigType::TypedConfig(any(config)));
    HttpFilter { name: M::full_name(), config_type, ..HttpFilter::default() }
}

pub fn listener_filter<M: Message + Name>(config: &M) -> ListenerFilter {
    let config_type = Some(listener_filter::ConfigType::TypedConfig(any(config)));
    ListenerFilter { name: M::full_name(), config_type, ..ListenerFilter::default() }
}
