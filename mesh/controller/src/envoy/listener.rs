//! Encodes listeners: what comes to the application and what it sends.

use std::{net::IpAddr, time::Duration};

use envoy_types::pb::envoy::{
    config::{
        core::v3::{CidrRange, TrafficDirection},
        listener::v3::{AdditionalAddress, Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter},
    },
    extensions::filters::{
        listener::{http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, tls_inspector::v3::TlsInspector},
        network::http_connection_manager::v3::{Rds, http_connection_manager::RouteSpecifier},
    },
};

use super::{
    Settings,
    cluster::{Names, PASSTHROUGH, application_name},
    http::{Direction, connection_manager},
    proto::{address, ads, duration, listener_filter, network_filter, number, only},
    route::{AWS, EGRESS_ROUTES, to_application},
    tcp::{self, TcpEgress},
    tls,
};
use crate::model::{self, Egress, Protocol, Timeouts, Workload};

/// Where captured connections to the application arrive; upstream's APPMESH_ENVOY_INGRESS_PORT.
pub const INGRESS_PORT: u16 = 15000;
/// Where captured connections of the application arrive; upstream's APPMESH_ENVOY_EGRESS_PORT.
pub const EGRESS_PORT: u16 = 15001;

/// Where the EKS Pod Identity Agent and the ECS agent are.
const LINK_LOCAL: [(&str, u32); 2] = [("169.254.0.0", 16), ("fd00:ec2::", 32)];
const DNS_PORT: u16 = 53;
/// What an HTTP connection begins with, in the words of Envoy's HTTP inspector.
const HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];
/// How long a client may stay silent until its protocol counts as unknown: server-first protocols on other ports wait so
/// long, unless the pod's annotation egressIgnoredPorts names them.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Encodes what comes to the application; `None` if nothing may, for Envoy rejects a listener without filter chains and
/// keeps the one that it had.
pub fn ingress(workload: &Workload, settings: Settings) -> Option<Listener> {
    if workload.listeners.is_empty() {
        return None;
    }
    let chains = |listener: &model::Listener| {
        let name = application_name(workload, listener);
        let filter = match listener.port.protocol {
            Protocol::Tcp => tcp::filter(workload, &name, listener.timeouts),
            _ => {
                let routes = RouteSpecifier::RouteConfig(to_application(&name, listener.timeouts));
                let direction = Direction::Inbound(listener.timeouts);
                network_filter(&connection_manager(workload.access_log.as_ref(), settings, &name, routes, direction))
            }
        };
        let destination_port = number(listener.port.port.into());
        let matches = FilterChainMatch { destination_port, ..FilterChainMatch::default() };
        encrypted(filter_chain(&name, matches, filter), listener)
    };
    let mut encoded = Listener {
        filter_chains: workload.listeners.iter().flat_map(chains).collect(),
        listener_filters: vec![listener_filter(&OriginalDst {})],
        traffic_direction: TrafficDirection::Inbound.into(),
        ..listener(&format!("lds_ingress_0.0.0.0_{INGRESS_PORT}"), INGRESS_PORT, settings)
    };
    if workload.listeners.iter().any(is_permissive) {
        inspect_tls(&mut encoded);
    }
    Some(encoded)
}

/// A filter chain as its listener takes TLS: for plaintext, for TLS, or one for each.
pub fn encrypted(plaintext: FilterChain, listener: &model::Listener) -> Vec<FilterChain> {
    let Some(tls) = &listener.tls else { return vec![plaintext] };
    let encrypted =
        FilterChain { transport_socket: Some(tls::downstream(tls, listener.port.protocol)), ..plaintext.clone() };
    if !tls.permissive {
        return vec![encrypted];
    }
    let of = |chain: FilterChain, name: String, transport_protocol: &str| {
        let matches = chain.filter_chain_match.unwrap_or_default();
        let matches = FilterChainMatch { transport_protocol: transport_protocol.to_owned(), ..matches };
        FilterChain { name, filter_chain_match: Some(matches), ..chain }
    };
    let (name, name_of_plaintext) = (plaintext.name.clone(), format!("{}_plaintext", plaintext.name));
    vec![of(encrypted, name, "tls"), of(plaintext, name_of_plaintext, "raw_buffer")]
}

/// Whether a listener takes both plaintext and TLS.
pub fn is_permissive(listener: &model::Listener) -> bool {
    listener.tls.as_ref().is_some_and(|tls| tls.permissive)
}

/// Has a listener find out whether TLS is spoken. A client that stays silent speaks none.
pub fn inspect_tls(listener: &mut Listener) {
    listener.listener_filters.push(listener_filter(&TlsInspector::default()));
    listener.listener_filters_timeout = duration(INSPECTION_TIMEOUT);
    listener.continue_on_listener_filters_timeout = true;
}

/// Encodes what the application sends.
pub fn egress(workload: &Workload, names: &Names<'_>, settings: Settings) -> Listener {
    let tcp = TcpEgress::of(workload);
    let mut filter_chains = vec![requests(workload, settings, None)];
    if workload.egress == Egress::DropAll {
        filter_chains.extend(allowed(workload, settings.api_server, None));
        filter_chains.extend(dns(workload).filter(|_| !tcp.takes_all_of(DNS_PORT)));
    }
    // Envoy decides by the port first: where a chain has one, only those that have it too are looked at.
    for port in tcp.ports() {
        if tcp.has_requests(port) {
            filter_chains.push(requests(workload, settings, Some(port)));
        }
        if workload.egress == Egress::DropAll || tcp.takes_all_of(port) {
            filter_chains.extend(allowed(workload, settings.api_server, Some(port)));
        }
    }
    filter_chains.extend(tcp.filter_chains(workload, names));
    let anything = || {
        filter_chain(
            "passthrough",
            FilterChainMatch::default(),
            tcp::filter(workload, PASSTHROUGH, Timeouts::default()),
        )
    };
    Listener {
        filter_chains,
        default_filter_chain: (workload.egress == Egress::AllowAll).then(anything),
        listener_filters: vec![
            listener_filter(&OriginalDst {}),
            ListenerFilter { filter_disabled: tcp.without_tls(), ..listener_filter(&TlsInspector::default()) },
            ListenerFilter { filter_disabled: tcp.without_requests(), ..listener_filter(&HttpInspector {}) },
        ],
        listener_filters_timeout: duration(INSPECTION_TIMEOUT),
        continue_on_listener_filters_timeout: true,
        traffic_direction: TrafficDirection::Outbound.into(),
        ..redirected(settings)
    }
}

/// The listener to which the kernel redirects what a pod's containers send, which it does to the loopback interface. There
/// nobody else reaches it: who did from outside would speak to the mesh as this pod, with its certificate. App Mesh's has
/// this name, too.
fn redirected(settings: Settings) -> Listener {
    bound(&format!("lds_egress_0.0.0.0_{EGRESS_PORT}"), ["127.0.0.1", "::1"], EGRESS_PORT, settings)
}

/// HTTP, on one port or on any, which goes by its Host.
fn requests(workload: &Workload, settings: Settings, port: Option<u16>) -> FilterChain {
    let by_host = Rds { config_source: ads(), route_config_name: EGRESS_ROUTES.to_owned() };
    let is_http = FilterChainMatch {
        destination_port: port.and_then(|port| number(port.into())),
        // A TLS client offers the same names by ALPN.
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: HTTP.map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    };
    let direction = match workload.egress {
        Egress::AllowAll => Direction::OutboundToAnywhere,
        Egress::DropAll => Direction::Outbound,
    };
    let by_host = RouteSpecifier::Rds(by_host);
    let http =
        network_filter(&connection_manager(workload.access_log.as_ref(), settings, "egress", by_host, direction));
    filter_chain(&named("http", port), is_http, http)
}

/// What passes whatever else is called: under DROP_ALL besides DNS, and on a port that a backend takes all connections to.
fn allowed(workload: &Workload, api_server: Option<IpAddr>, port: Option<u16>) -> [FilterChain; 2] {
    let range = |(ip, bits): (&str, u32)| CidrRange { address_prefix: ip.to_owned(), prefix_len: number(bits) };
    let mut prefix_ranges: Vec<_> = LINK_LOCAL.into_iter().map(range).collect();
    prefix_ranges.extend(api_server.map(only));
    let destination_port = port.and_then(|port| number(port.into()));
    let by_name = FilterChainMatch {
        destination_port,
        transport_protocol: "tls".to_owned(),
        server_names: AWS.map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    };
    let by_address = FilterChainMatch { destination_port, prefix_ranges, ..FilterChainMatch::default() };
    [("amazonaws", by_name), ("platform", by_address)].map(|(name, matches)| {
        filter_chain(&named(name, port), matches, tcp::filter(workload, PASSTHROUGH, Timeouts::default()))
    })
}

fn dns(workload: &Workload) -> Option<FilterChain> {
    let dns = FilterChainMatch { destination_port: number(DNS_PORT.into()), ..FilterChainMatch::default() };
    Some(filter_chain("dns", dns, tcp::filter(workload, PASSTHROUGH, Timeouts::default())))
}

fn named(name: &str, port: Option<u16>) -> String {
    port.map_or_else(|| name.to_owned(), |port| format!("{name}_{port}"))
}

/// A listener on a port of all addresses.
pub fn listener(name: &str, port: u16, settings: Settings) -> Listener {
    bound(name, ["0.0.0.0", "::"], port, settings)
}

/// A listener on a port of an address of IPv4 and, where pods have some, of one of IPv6.
fn bound(name: &str, [ipv4, ipv6]: [&str; 2], port: u16, settings: Settings) -> Listener {
    let too = AdditionalAddress { address: address(ipv6, port), ..AdditionalAddress::default() };
    Listener {
        name: name.to_owned(),
        address: address(ipv4, port),
        additional_addresses: settings.ipv6.then_some(too).into_iter().collect(),
        ..Listener::default()
    }
}

pub fn filter_chain(name: &str, matches: FilterChainMatch, filter: Filter) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: Some(matches),
        filters: vec![filter],
        ..FilterChain::default()
    }
}
