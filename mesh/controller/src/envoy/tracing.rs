//! Builds the part of a bootstrap that reports spans. It is all in the bootstrap, so that an Envoy which has no collector
//! is not told by a listener to use one.

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{
    HOST_IP,
    bootstrap::{address, http2, static_cluster},
};
use crate::model::WorkloadName;

/// The cluster of the collector.
const CLUSTER: &str = "tracing";
/// What `HOST_IP` is called in the chart.
pub const NODE_ADDRESS: &str = "ref:status.hostIP";

/// How spans are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Zipkin's, which Jaeger understands too: JSON by HTTP to /api/v2/spans
    Zipkin,
    /// That of Datadog's agent
    Datadog,
    /// OpenTelemetry's, by gRPC
    Opentelemetry,
}

/// Where spans go, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// How they are reported.
    pub protocol: Protocol,
    /// Name or address of the collector; `ref:status.hostIP` is the pod's node.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Share of the requests that begin a trace, in hundredths of a percent.
    pub sampling: u32,
}

impl Tracing {
    pub(super) fn cluster(&self) -> Value {
        let host = if self.host == NODE_ADDRESS { HOST_IP } else { &self.host };
        let mut cluster = static_cluster(CLUSTER, &address(host, self.port));
        // Names and addresses both.
        cluster["type"] = "STRICT_DNS".into();
        if self.protocol == Protocol::Opentelemetry {
            cluster["typed_extension_protocol_options"] = http2();
        }
        cluster
    }

    pub(super) fn provider(&self, workload: &WorkloadName) -> Value {
        let service = workload.to_string();
        let (name, config) = match self.protocol {
            Protocol::Zipkin => (
                "zipkin",
                json!({
                    "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
                    "collector_cluster": CLUSTER,
                    "collector_endpoint": "/api/v2/spans",
                    "collector_endpoint_version": "HTTP_JSON",
                    "collector_hostname": self.host,
                    "trace_id_128bit": true,
                    // A span of its own for each side of a call.
                    "shared_span_context": false
                }),
            ),
            Protocol::Datadog => (
                "datadog",
                json!({
                    "@type": "type.googleapis.com/envoy.config.trace.v3.DatadogConfig",
                    "collector_cluster": CLUSTER,
                    "service_name": service
                }),
            ),
            Protocol::Opentelemetry => (
                "opentelemetry",
                json!({
                    "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                    "grpc_service": { "envoy_grpc": { "cluster_name": CLUSTER }, "timeout": "5s" },
                    "service_name": service
                }),
            ),
        };
        json!({ "http": { "name": format!("envoy.tracers.{name}"), "typed_config": config } })
    }

    /// The runtime value that Envoy samples by.
    pub(super) fn sampling(&self) -> Value {
        let share = json!({ "numerator": self.sampling, "denominator": "TEN_THOUSAND" });
        json!({ "layers": [{ "name": "static", "static_layer": { "tracing.random_sampling": share } }] })
    }
}
