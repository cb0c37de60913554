//! Encodes connections: to the application, to backends that are called by TCP, and to wherever they were going.
//!
//! A change of a backend's targets is a change of the listener. Connections that exist go on for as long as Envoy drains
//! their filter chain.

use std::{collections::BTreeSet, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::listener::v3::{
            Filter, FilterChain, FilterChainMatch, ListenerFilterChainMatchPredicate,
            listener_filter_chain_match_predicate::{MatchSet, Rule},
        },
        extensions::filters::network::tcp_proxy::v3::{
            TcpProxy,
            tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight},
        },
        r#type::v3::Int32Range,
    },
    google::protobuf::Duration as ProtoDuration,
};

use super::{
    access_log,
    cluster::Names,
    listener::filter_chain,
    proto::{duration, network_filter, number, only},
};
use crate::model::{TcpBackend, Timeouts, Workload};

/// How often a connection is tried, each time with another endpoint.
const ATTEMPTS: u32 = 3;
/// A cluster that does not exist: whoever is sent there is closed.
const NOWHERE: &str = "nowhere";
/// First and last ports of protocols in which the server speaks first, so that there is nothing to read before it does:
/// FTP, SSH, Telnet and SMTP; POP3; IMAP; message submission; MySQL.
const SERVER_FIRST: [(u16, u16); 5] = [(21, 25), (110, 110), (143, 143), (587, 587), (3306, 3306)];
/// The port of AWS's endpoints, whose names TLS shows.
const HTTPS_PORT: u16 = 443;

/// Encodes connections to one cluster.
pub fn filter(workload: &Workload, cluster: &str, timeouts: Timeouts) -> Filter {
    let to = ClusterSpecifier::Cluster(cluster.to_owned());
    network_filter(&TcpProxy {
        cluster_specifier: Some(to),
        // Both ends know how long a connection may be silent; Envoy would close it after an hour.
        idle_timeout: duration(Duration::from_millis(timeouts.idle_millis.unwrap_or_default())),
        ..proxy(workload, cluster)
    })
}

fn proxy(workload: &Workload, stat_prefix: &str) -> TcpProxy {
    TcpProxy {
        access_log: access_log::encode(workload.access_log.as_ref()),
        stat_prefix: stat_prefix.to_owned(),
        ..TcpProxy::default()
    }
}

/// The backends that a workload calls by TCP.
pub struct TcpEgress<'a> {
    backends: Vec<TcpBackend<'a>>,
    /// The ports that requests to other backends come to.
    requests: BTreeSet<u16>,
}

impl<'a> TcpEgress<'a> {
    /// Gathers them.
    pub fn of(workload: &'a Workload) -> Self {
        let routings = workload.backends.iter().filter_map(|backend| backend.routing.as_deref());
        let requests = routings.flat_map(|routing| routing.http()).map(|listener| listener.port.port).collect();
        Self { backends: TcpBackend::distinct(&workload.backends), requests }
    }

    /// Their ports.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.backends.iter().map(|backend| backend.listener.port.port).collect()
    }

    /// Whether one of them takes all connections to a port, whatever their address.
    pub fn takes_all_of(&self, port: u16) -> bool {
        self.backends.iter().any(|of| of.listener.port.port == port && of.backend.addresses.is_empty())
    }

    /// Whether requests to other backends come to a port too.
    pub fn has_requests(&self, port: u16) -> bool {
        self.requests.contains(&port)
    }

    /// Connections in which HTTP is not looked for, as a server that speaks first would be waited for.
    pub fn without_requests(&self) -> Option<ListenerFilterChainMatchPredicate> {
        server_first_or(self.ports().into_iter().filter(|port| !self.has_requests(*port)))
    }

    /// Connections in which TLS is not looked for, for the same reason.
    pub fn without_tls(&self) -> Option<ListenerFilterChainMatchPredicate> {
        server_first_or(self.ports().into_iter().filter(|port| !self.has_requests(*port) && *port != HTTPS_PORT))
    }

    /// Encodes where their connections go.
    pub fn filter_chains(&self, workload: &Workload, names: &Names<'_>) -> Vec<FilterChain> {
        let chains = |TcpBackend { backend, listener }: &TcpBackend<'_>| {
            let port = listener.port.port;
            let name = format!("tcp_{}_{port}", backend.host);
            let matches = FilterChainMatch {
                destination_port: number(port.into()),
                prefix_ranges: backend.addresses.iter().copied().map(only).collect(),
                ..FilterChainMatch::default()
            };
            let (to, idle_timeout) = destination(TcpBackend { backend, listener }, names);
            let proxy = TcpProxy {
                cluster_specifier: Some(to),
                idle_timeout,
                max_connect_attempts: number(ATTEMPTS),
                ..proxy(workload, &name)
            };
            let chain = filter_chain(&name, matches.clone(), network_filter(&proxy));
            // Where a chain is for what is no TLS, as that of requests is, Envoy looks at no other for it.
            let beside_requests = (backend.addresses.is_empty() && self.has_requests(port)).then(|| FilterChain {
                name: format!("{name}_plaintext"),
                filter_chain_match: Some(FilterChainMatch { transport_protocol: "raw_buffer".to_owned(), ..matches }),
                ..chain.clone()
            });
            [Some(chain), beside_requests]
        };
        self.backends.iter().flat_map(chains).flatten().collect()
    }
}

/// Where the connections of a backend go, and how long they may stay silent.
fn destination(
    TcpBackend { backend, listener }: TcpBackend<'_>,
    names: &Names<'_>,
) -> (ClusterSpecifier, Option<ProtoDuration>) {
    let (upstreams, route) = (backend.routing.as_deref().map(|routing| &routing.upstreams), listener.routes.first());
    // Envoy takes no weight of 0 here.
    let route_to = route.filter(|_| backend.refusal.is_none());
    let targets = route_to.into_iter().flat_map(|route| &route.targets).filter(|target| target.weight > 0);
    let clusters = targets.filter_map(|target| {
        let name = names.get(backend, &target.upstream, upstreams?.get(&target.upstream)?);
        Some(ClusterWeight { name, weight: target.weight, ..ClusterWeight::default() })
    });
    let clusters: Vec<_> = clusters.collect();
    let to = if clusters.is_empty() {
        ClusterSpecifier::Cluster(NOWHERE.to_owned())
    } else {
        ClusterSpecifier::WeightedClusters(WeightedCluster { clusters })
    };
    // Absent is without end, where Envoy would close a silent connection after an hour.
    let idle = route.and_then(|route| route.timeouts.idle_millis).unwrap_or_default();
    (to, duration(Duration::from_millis(idle)))
}

/// Connections to any of these ports, or to one where the server speaks first.
fn server_first_or(ports: impl Iterator<Item = u16>) -> Option<ListenerFilterChainMatchPredicate> {
    let to = |(first, last): (u16, u16)| ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(Int32Range { start: first.into(), end: i32::from(last) + 1 })),
    };
    let rules = SERVER_FIRST.into_iter().chain(ports.map(|port| (port, port))).map(to).collect();
    Some(ListenerFilterChainMatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) })
}
