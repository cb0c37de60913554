//! Writes `../src/envoy/descriptors.binpb`: a FileDescriptorSet of the Envoy messages that the controller sends, compiled
//! from the protos that the crate envoy-types ships.
//!
//!     cargo run --manifest-path mesh/controller/descriptors/Cargo.toml -- FOLDER/proto
//!
//! FOLDER is where cargo keeps the source of envoy-types:
//! `cargo metadata --format-version 1 | jq -r '.packages[] | select(.name == "envoy-types").manifest_path'`.

use std::path::Path;

use anyhow::Context as _;
use prost::Message as _;

/// Folders of protos in envoy-types.
const INCLUDES: [&str; 7] = [
    "data-plane-api",
    "xds",
    "protoc-gen-validate",
    "googleapis",
    "client_model",
    "cel-spec/proto",
    "opentelemetry-proto",
];

/// What is sent by itself, and what is sent as `Any` in it.
const FILES: [&str; 19] = [
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/config/trace/v3/datadog.proto",
    "envoy/config/trace/v3/opentelemetry.proto",
    "envoy/config/trace/v3/zipkin.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/stream/v3/stream.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/http/header_formatters/preserve_case/v3/preserve_case.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
];

fn main() -> anyhow::Result<()> {
    let protos = std::env::args_os().nth(1).context("usage: descriptors FOLDER/proto")?;
    let includes = INCLUDES.map(|include| Path::new(&protos).join(include));
    let mut descriptors = protox::compile(FILES, includes)?;
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/envoy/descriptors.binpb");
    std::fs::write(&path, descriptors.encode_to_vec()).with_context(|| format!("writing {}", path.display()))
}
