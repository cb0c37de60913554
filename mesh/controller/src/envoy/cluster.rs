//! Encodes clusters: the application behind its Envoy, the upstreams, and wherever a connection was going.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster,
                circuit_breakers::Thresholds,
                cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy},
            },
            core::v3,
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                explicit_http_config::ProtocolConfig,
            },
        },
    },
    google::protobuf::Any,
};
use prost::Name as _;

use super::{
    health_check,
    http::http1,
    outlier,
    proto::{ads, any, duration, endpoints, number},
    tls,
};
use crate::model::{
    Backend, ConnectionPool, Discovery, IpPreference, Listener, Port, Protocol, Upstream, UpstreamTls, Workload,
};

/// The cluster of wherever a connection was going.
pub const PASSTHROUGH: &str = "cds_egress_passthrough";
/// Inside a VPC a connection takes a few milliseconds; a second more lets one lost SYN be sent again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection to the application is kept without a request. Applications close theirs after two seconds
/// (gunicorn), five (Node.js, Apache) or more: one that closes in the moment in which a request is sent loses it.
const APPLICATION_IDLE: Duration = Duration::from_secs(1);

/// Names the clusters of upstreams. Two backends, one of this cluster and one of another, may describe the same
/// VirtualNode differently, two client policies may call it differently, and each listener of a gateway has its own limits;
/// then each has a cluster of its own.
#[derive(Default)]
pub struct Names<'a> {
    known: BTreeMap<(&'a str, &'a str), Vec<Called<'a>>>,
    limits: Option<&'a Listener>,
}

/// An upstream as it is called, and the gateway's listener whose limits hold for it.
type Called<'a> = (&'a Upstream, Option<UpstreamTls>, Option<&'a Listener>);

impl<'a> Names<'a> {
    /// What follows is called by a gateway's listener, which may have limits.
    pub fn called_by(&mut self, listener: &'a Listener) {
        self.limits = Some(listener).filter(|listener| listener.connection_pool.is_some());
    }

    /// How much of an upstream may be called at once.
    pub fn pool(&self) -> ConnectionPool {
        self.limits.and_then(|listener| listener.connection_pool).unwrap_or_default()
    }

    /// Names an upstream of a backend as it is called, `name` being its key in the routing.
    pub fn add(&mut self, backend: &'a Backend, name: &'a str, upstream: &'a Upstream) -> String {
        let called = (upstream, backend.tls(upstream), self.limits);
        let known = self.known.entry((&backend.mesh, without_port(name))).or_default();
        if !known.contains(&called) {
            known.push(called);
        }
        self.get(backend, name, upstream)
    }

    /// The name of an upstream that was added.
    pub fn get(&self, backend: &Backend, name: &str, upstream: &Upstream) -> String {
        self.name(backend, name, &(upstream, backend.tls(upstream), self.limits))
    }

    fn name(&self, backend: &Backend, name: &str, called: &Called<'_>) -> String {
        let (mesh, name) = (backend.mesh.as_str(), without_port(name));
        let Port { port, protocol } = called.0.port;
        let plain = format!("cds_egress_{mesh}_{name}_{}_{port}", protocol.as_str());
        let mut of_port =
            self.known.get(&(mesh, name)).into_iter().flatten().filter(|known| known.0.port == called.0.port);
        match of_port.position(|known| known == called) {
            None | Some(0) => plain,
            Some(variant) => format!("{plain}_{variant}"),
        }
    }
}

/// The name of a VirtualNode, whose port is part of the cluster's name anyway.
fn without_port(name: &str) -> &str {
    name.split_once(':').map_or(name, |(name, _)| name)
}

/// The name of the cluster of the application behind its own Envoy.
pub fn application_name(workload: &Workload, listener: &Listener) -> String {
    let Port { port, protocol } = listener.port;
    format!("cds_ingress_{}_{}_{}_{port}", workload.name.mesh, workload.name.name, protocol.as_str())
}

/// Encodes the application behind its own Envoy.
pub fn application(workload: &Workload, listener: &Listener) -> Cluster {
    let name = application_name(workload, listener);
    Cluster {
        load_assignment: Some(endpoints(&name, ["127.0.0.1"], listener.port.port)),
        connect_timeout: duration(CONNECT_TIMEOUT),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        circuit_breakers: limits(listener.connection_pool.unwrap_or_default()),
        typed_extension_protocol_options: protocol_options(listener.port.protocol, Some(APPLICATION_IDLE)),
        name,
        ..Cluster::default()
    }
}

/// Whether an upstream's endpoints come by EDS.
pub fn is_eds(upstream: &Upstream) -> bool {
    !matches!(upstream.discovery, Discovery::Dns(_))
}

/// Encodes an upstream, called by TLS or in plaintext, and never more at once than `pool` says; its health is checked in
/// the same way.
pub fn upstream(name: &str, upstream: &Upstream, tls: Option<&UpstreamTls>, pool: ConnectionPool) -> Cluster {
    let (discovery, dns) = match &upstream.discovery {
        Discovery::None | Discovery::CloudMap(_) => (DiscoveryType::Eds, None),
        Discovery::Dns(dns) if dns.endpoints => (DiscoveryType::StrictDns, Some(dns)),
        Discovery::Dns(dns) => (DiscoveryType::LogicalDns, Some(dns)),
    };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        eds_cluster_config: is_eds(upstream)
            .then(|| EdsClusterConfig { eds_config: ads(), ..EdsClusterConfig::default() }),
        load_assignment: dns.map(|dns| endpoints(name, [dns.hostname.as_str()], upstream.port.port)),
        dns_lookup_family: match upstream.ip_preference {
            None => DnsLookupFamily::V4Preferred,
            Some(IpPreference::V4Only) => DnsLookupFamily::V4Only,
            Some(IpPreference::V6Only) => DnsLookupFamily::V6Only,
        }
        .into(),
        connect_timeout: duration(CONNECT_TIMEOUT),
        health_checks: upstream.health_check.iter().map(health_check::encode).collect(),
        circuit_breakers: limits(pool),
        outlier_detection: Some(outlier::encode(upstream.outlier_detection.as_ref())),
        transport_socket: tls.map(tls::upstream),
        typed_extension_protocol_options: protocol_options(upstream.port.protocol, None),
        ..Cluster::default()
    }
}

/// Encodes wherever a connection was going.
pub fn passthrough() -> Cluster {
    let same = UseDownstreamHttpConfig {
        http_protocol_options: Some(http1()),
        http2_protocol_options: Some(Default::default()),
        ..UseDownstreamHttpConfig::default()
    };
    Cluster {
        name: PASSTHROUGH.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into())),
        lb_policy: LbPolicy::ClusterProvided.into(),
        connect_timeout: duration(CONNECT_TIMEOUT),
        circuit_breakers: limits(ConnectionPool::default()),
        typed_extension_protocol_options: http_options(
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(same),
            None,
        ),
        ..Cluster::default()
    }
}

/// Envoy would allow 1024 connections, requests and pending requests, and 3 retries; App Mesh set no limits.
fn limits(pool: ConnectionPool) -> Option<CircuitBreakers> {
    let limit = |given: Option<u32>| number(given.unwrap_or(u32::MAX));
    let thresholds = Thresholds {
        max_connections: limit(pool.max_connections),
        max_pending_requests: limit(pool.max_pending_requests),
        max_requests: limit(pool.max_requests),
        max_retries: limit(None),
        ..Thresholds::default()
    };
    Some(CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() })
}

type ProtocolOptions = HashMap<String, Any>;

fn protocol_options(protocol: Protocol, idle: Option<Duration>) -> ProtocolOptions {
    let config = match protocol {
        Protocol::Tcp => return ProtocolOptions::new(),
        Protocol::Http => ProtocolConfig::HttpProtocolOptions(http1()),
        Protocol::Http2 | Protocol::Grpc => ProtocolConfig::Http2ProtocolOptions(Default::default()),
    };
    let config = ExplicitHttpConfig { protocol_config: Some(config) };
    http_options(UpstreamProtocolOptions::ExplicitHttpConfig(config), idle)
}

/// One entry only: a map of more would be encoded in any order.
fn http_options(options: UpstreamProtocolOptions, idle: Option<Duration>) -> ProtocolOptions {
    let common = idle.map(|idle| v3::HttpProtocolOptions { idle_timeout: duration(idle), ..Default::default() });
    let options = HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_protocol_options: Some(options),
        ..HttpProtocolOptions::default()
    };
    ProtocolOptions::from([(HttpProtocolOptions::full_name(), any(&options))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CloudMapDiscovery, PackedMap};

    #[test]
    fn clusters_that_differ_have_names_that_differ() {
        let port = |port| Port { port, protocol: Protocol::Http };
        let instances = |service: &str| {
            let key = crate::model::ServiceKey { namespace: "shop.local".into(), service: service.into() };
            Discovery::CloudMap(CloudMapDiscovery { key, attributes: PackedMap::default() })
        };
        let (here, there) = (Upstream::new(port(8080), instances("a")), Upstream::new(port(8080), instances("b")));
        let other_port = Upstream::new(port(9090), instances("a"));
        let backend = Backend::new("shop".to_owned(), "back.shop".to_owned(), None);
        let mut names = Names::default();
        for (name, upstream, expected) in [
            ("back", &here, "cds_egress_shop_back_http_8080"),
            ("back:9090", &other_port, "cds_egress_shop_back_http_9090"),
            // The first listener of another cluster's VirtualNode of that name has another port.
            ("back:8080", &there, "cds_egress_shop_back_http_8080_1"),
            ("back", &there, "cds_egress_shop_back_http_8080_1"),
            ("back", &here, "cds_egress_shop_back_http_8080"),
        ] {
            assert_eq!(names.add(&backend, name, upstream), expected);
        }
    }
}
