//! Builds the part of a bootstrap that names Envoy's statistics and sends them to a DogStatsD server.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{HOST_IP, bootstrap::address};
use crate::model::{WorkloadKind, WorkloadName};

const DOG_STATSD: &str = "envoy.stat_sinks.dog_statsd";

/// What becomes of an Envoy's statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Whether each has the names of its mesh and of its VirtualNode or VirtualGateway as tags.
    pub tags: bool,
    /// Where they are sent, beside being collected.
    pub sink: Option<Statsd>,
}

/// Where a DogStatsD server receives datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statsd {
    /// An address and a port.
    Address(IpAddr, u16),
    /// A port of the pod's node.
    Node(u16),
    /// A socket that is mounted into Envoy.
    Socket(String),
}

impl Stats {
    /// Adds to a bootstrap.
    pub(super) fn add_to(&self, bootstrap: &mut Value, workload: &WorkloadName) {
        if self.tags {
            let tag = |name: &str, value: &str| json!({ "tag_name": name, "fixed_value": value });
            let kind = match workload.kind {
                WorkloadKind::VirtualNode => "appmesh.virtual_node",
                WorkloadKind::VirtualGateway => "appmesh.virtual_gateway",
            };
            let tags = [tag("appmesh.mesh", &workload.mesh), tag(kind, &workload.name)];
            bootstrap["stats_config"] = json!({ "stats_tags": tags });
        }
        if let Some(sink) = &self.sink {
            let address = match sink {
                Statsd::Address(ip, port) => address(&ip.to_string(), *port),
                Statsd::Node(port) => address(HOST_IP, *port),
                Statsd::Socket(path) => json!({ "pipe": { "path": path } }),
            };
            bootstrap["stats_sinks"] = json!([{ "name": DOG_STATSD, "typed_config": {
                "@type": "type.googleapis.com/envoy.config.metrics.v3.DogStatsdSink",
                "address": address
            }}]);
        }
    }
}
