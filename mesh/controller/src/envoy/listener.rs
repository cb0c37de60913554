//! Encodes listeners: what comes to the application and what it sends.

use std::{net::IpAddr, time::Duration};

use envoy_types::pb::envoy::{
    config::{
        core::v3::{CidrRange, TrafficDirection},
        listener::v3::{
            Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, ListenerFilterChainMatchPredicate,
            listener_filter_chain_match_predicate::{MatchSet, Rule},
        },
    },
    extensions::filters::{
        listener::{http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, tls_inspector::v3::TlsInspector},
        network::{
            http_connection_manager::v3::{Rds, http_connection_manager::RouteSpecifier},
            tcp_proxy::v3::{TcpProxy, tcp_proxy},
        },
    },
    r#type::v3::Int32Range,
};

use super::{
    access_log,
    cluster::{PASSTHROUGH, application_name},
    http::{Direction, connection_manager},
    proto::{address, ads, duration, listener_filter, network_filter, number},
    route::{AWS, EGRESS_ROUTES, to_application},
};
use crate::model::{self, Egress, Protocol, Workload};

/// Where captured connections to the application arrive; upstream's APPMESH_ENVOY_INGRESS_PORT.
pub const INGRESS_PORT: u16 = 15000;
/// Where captured connections of the application arrive; upstream's APPMESH_ENVOY_EGRESS_PORT.
pub const EGRESS_PORT: u16 = 15001;

/// Where the EKS Pod Identity Agent and the ECS agent are.
const LINK_LOCAL: [(&str, u32); 2] = [("169.254.0.0", 16), ("fd00:ec2::", 32)];
const DNS_PORT: u16 = 53;
/// What an HTTP connection begins with, in the words of Envoy's HTTP inspector.
const HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];
/// First and last ports of protocols in which the server speaks first, so that there is nothing to read before it does:
/// FTP, SSH, Telnet and SMTP; POP3; IMAP; message submission; MySQL.
const SERVER_FIRST: [(u16, u16); 5] = [(21, 25), (110, 110), (143, 143), (587, 587), (3306, 3306)];
/// How long a client may stay silent until its protocol counts as unknown: server-first protocols on other ports wait so
/// long, unless the pod's annotation egressIgnoredPorts names them.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Encodes what comes to the application.
pub fn ingress(workload: &Workload) -> Listener {
    let chain = |listener: &model::Listener| {
        let name = application_name(workload, listener);
        let filter = match listener.port.protocol {
            Protocol::Tcp => tcp(workload, &name),
            _ => {
                let routes = RouteSpecifier::RouteConfig(to_application(&name));
                network_filter(&connection_manager(workload.access_log, &name, routes, Direction::Inbound))
            }
        };
        let destination_port = number(listener.port.port.into());
        filter_chain(&name, FilterChainMatch { destination_port, ..FilterChainMatch::default() }, filter)
    };
    Listener {
        filter_chains: workload.listeners.iter().map(chain).collect(),
        listener_filters: vec![listener_filter(&OriginalDst {})],
        traffic_direction: TrafficDirection::Inbound.into(),
        ..listener(&format!("lds_ingress_0.0.0.0_{INGRESS_PORT}"), INGRESS_PORT)
    }
}

/// Encodes what the application sends.
pub fn egress(workload: &Workload, api_server: Option<IpAddr>) -> Listener {
    let by_host = Rds { config_source: ads(), route_config_name: EGRESS_ROUTES.to_owned() };
    let is_http = FilterChainMatch {
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
    let http = network_filter(&connection_manager(workload.access_log, "egress", by_host, direction));
    let mut filter_chains = vec![filter_chain("http", is_http, http)];
    if workload.egress == Egress::DropAll {
        filter_chains.extend(allowed(workload, api_server));
    }
    let anything = || filter_chain("passthrough", FilterChainMatch::default(), tcp(workload, PASSTHROUGH));
    Listener {
        filter_chains,
        default_filter_chain: (workload.egress == Egress::AllowAll).then(anything),
        listener_filters: vec![
            listener_filter(&OriginalDst {}),
            but_server_first(listener_filter(&TlsInspector::default())),
            but_server_first(listener_filter(&HttpInspector {})),
        ],
        listener_filters_timeout: duration(INSPECTION_TIMEOUT),
        continue_on_listener_filters_timeout: true,
        traffic_direction: TrafficDirection::Outbound.into(),
        ..listener(&format!("lds_egress_0.0.0.0_{EGRESS_PORT}"), EGRESS_PORT)
    }
}

/// What DROP_ALL lets pass.
fn allowed(workload: &Workload, api_server: Option<IpAddr>) -> Vec<FilterChain> {
    let range = |(ip, bits): (&str, u32)| CidrRange { address_prefix: ip.to_owned(), prefix_len: number(bits) };
    let mut prefix_ranges: Vec<_> = LINK_LOCAL.into_iter().map(range).collect();
    let bits = |ip: &IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    prefix_ranges.extend(api_server.map(|ip| range((&ip.to_string(), bits(&ip)))));
    let by_name = FilterChainMatch {
        transport_protocol: "tls".to_owned(),
        server_names: AWS.map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    };
    let by_address = FilterChainMatch { prefix_ranges, ..FilterChainMatch::default() };
    let dns = FilterChainMatch { destination_port: number(DNS_PORT.into()), ..FilterChainMatch::default() };
    [("amazonaws", by_name), ("platform", by_address), ("dns", dns)]
        .map(|(name, matches)| filter_chain(name, matches, tcp(workload, PASSTHROUGH)))
        .into()
}

/// A listener on a port of all addresses.
pub fn listener(name: &str, port: u16) -> Listener {
    Listener { name: name.to_owned(), address: address("0.0.0.0", port), ..Listener::default() }
}

fn filter_chain(name: &str, matches: FilterChainMatch, filter: Filter) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: Some(matches),
        filters: vec![filter],
        ..FilterChain::default()
    }
}

/// A listener filter that reads nothing from connections to a port where the server speaks first.
fn but_server_first(filter: ListenerFilter) -> ListenerFilter {
    let to = |(first, last): (u16, u16)| ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(Int32Range { start: first.into(), end: i32::from(last) + 1 })),
    };
    let rules = SERVER_FIRST.map(to).into();
    let any = ListenerFilterChainMatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) };
    ListenerFilter { filter_disabled: Some(any), ..filter }
}

fn tcp(workload: &Workload, cluster: &str) -> Filter {
    network_filter(&TcpProxy {
        access_log: access_log::encode(workload.access_log),
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        // Both ends know how long a connection may be silent; Envoy would close it after an hour.
        idle_timeout: duration(Duration::ZERO),
        ..TcpProxy::default()
    })
}
