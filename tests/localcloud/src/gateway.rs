//! The region's front door: an Envoy that ends TLS for every public name, asks who may do what, logs, and passes on.

use std::path::Path;

use serde_json::{Value, json};

use crate::cloud::REGION;

/// The AWS side listens here.
pub const AWS_PORT: u16 = 5555;
/// Here it decides on requests for the gateway.
pub const AUTHORIZATION_PORT: u16 = 5556;
/// The registry behind ECR.
pub const ECR_PORT: u16 = 4566;
/// The registry that answers for Docker Hub and registry.k8s.io.
pub const DOCKER_PORT: u16 = 5000;
/// The chart repository.
pub const CHARTS_PORT: u16 = 5001;

/// Requests up to this size, in bytes, are shown whole to the authorization; of larger ones the beginning.
const BODY: u32 = 1 << 20;

const TYPE: &str = "type.googleapis.com/envoy.extensions";

/// Envoy's bootstrap. `certificates` holds `server.crt` and `server.key`, `log` gets one JSON object a line for every AWS
/// API call.
pub fn bootstrap(certificates: &Path, log: &Path) -> Value {
    json!({
        "static_resources": {
            "listeners": [{
                "name": "region",
                "address": address("0.0.0.0", 443),
                "filter_chains": [{
                    "transport_socket": tls(certificates),
                    "filters": [{"name": "http", "typed_config": http(log)}],
                }],
            }],
            "clusters": [
                cluster("aws", AWS_PORT),
                cluster("authorization", AUTHORIZATION_PORT),
                cluster("ecr", ECR_PORT),
                cluster("docker", DOCKER_PORT),
                cluster("charts", CHARTS_PORT),
            ],
        },
    })
}

fn http(log: &Path) -> Value {
    json!({
        "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "region",
        "stream_idle_timeout": "0s",
        "access_log": [access_log(log)],
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": authorization()},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": format!("{TYPE}.filters.http.router.v3.Router")}},
        ],
        "route_config": {"virtual_hosts": hosts()},
    })
}

fn hosts() -> [Value; 4] {
    let registries = format!("*.dkr.ecr.{REGION}.amazonaws.com");
    let internet = ["docker.io", "registry-1.docker.io", "auth.docker.io", "registry.k8s.io"];
    [
        host("registry", &[&registries], "ecr", &json!({"check_settings": {"disable_request_body_buffering": true}})),
        host("docker", &internet, "docker", &json!({"disabled": true})),
        host("charts", &["aws.github.io"], "charts", &json!({"disabled": true})),
        host("aws", &["*"], "aws", &json!({"check_settings": {}})),
    ]
}

/// Every AWS API call is decided by the AWS side, which sees method, path, headers and body. No answer means no.
fn authorization() -> Value {
    let all = json!({"patterns": [{"safe_regex": {"regex": ".*"}}]});
    let named = json!({"patterns": [{"prefix": "x-aws-"}]});
    json!({
        "@type": format!("{TYPE}.filters.http.ext_authz.v3.ExtAuthz"),
        "http_service": {
            "server_uri": {
                "uri": format!("http://127.0.0.1:{AUTHORIZATION_PORT}"),
                "cluster": "authorization",
                "timeout": "10s",
            },
            "authorization_response": {"dynamic_metadata_from_headers": named},
        },
        "allowed_headers": all,
        "with_request_body": {"max_request_bytes": BODY, "allow_partial_message": true},
        "status_on_error": {"code": 503},
    })
}

/// What a test reads to see who did what. `action` is `service:Operation` as the authorization names it.
fn access_log(log: &Path) -> Value {
    let said = |name: &str| format!("%DYNAMIC_METADATA(envoy.filters.http.ext_authz:x-aws-{name})%");
    json!({
        "name": "file",
        "filter": {"header_filter": {"header": {"name": ":authority", "string_match": {"contains": "amazonaws.com"}}}},
        "typed_config": {
            "@type": format!("{TYPE}.access_loggers.file.v3.FileAccessLog"),
            "path": log,
            "log_format": {"json_format": {
                "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
                "method": "%REQ(:METHOD)%",
                "host": "%REQ(:AUTHORITY)%",
                "path": "%REQ(:PATH)%",
                "action": said("action"),
                "caller": said("caller"),
                "target": "%REQ(X-AMZ-TARGET)%",
                "code": "%RESPONSE_CODE%",
                "milliseconds": "%DURATION%",
                "agent": "%REQ(USER-AGENT)%",
            }},
        },
    })
}

/// Hosts behind one server. `asked` says how the authorization is asked: with the body, without it because layers of
/// images are large, or not at all.
fn host(name: &str, domains: &[&str], cluster: &str, asked: &Value) -> Value {
    let mut per_route = asked.clone();
    per_route["@type"] = format!("{TYPE}.filters.http.ext_authz.v3.ExtAuthzPerRoute").into();
    json!({
        "name": name,
        "domains": domains,
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}],
        "typed_per_filter_config": {"envoy.filters.http.ext_authz": per_route},
    })
}

/// A local server. Python's close an idle connection without much ado, so it is not kept for long.
fn cluster(name: &str, port: u16) -> Value {
    let options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": "1s"},
        "explicit_http_config": {"http_protocol_options": {}},
    });
    let server = json!({"address": address("127.0.0.1", port)});
    json!({
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": server}]}]},
    })
}

fn tls(certificates: &Path) -> Value {
    let pair = json!({
        "certificate_chain": {"filename": certificates.join("server.crt")},
        "private_key": {"filename": certificates.join("server.key")},
    });
    json!({
        "name": "tls",
        "typed_config": {
            "@type": format!("{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [pair]},
        },
    })
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_aws_passes_without_being_asked() {
        let open = |host: &&Value| host["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["disabled"] == true;
        let open: Vec<_> = hosts().iter().filter(open).map(|host| host["name"].clone()).collect();
        assert_eq!(open, ["docker", "charts"]);
    }

    #[test]
    fn whatever_has_no_other_place_goes_to_the_aws_side() {
        let [.., last] = hosts();
        assert_eq!(last["domains"], json!(["*"]));
        assert_eq!(last["routes"][0]["route"]["cluster"], "aws");
    }

    #[test]
    fn an_authorization_that_does_not_answer_lets_nobody_in() {
        let authorization = authorization();
        assert!(authorization["failure_mode_allow"].is_null());
        assert_eq!(authorization["with_request_body"]["max_request_bytes"], 1_048_576);
    }
}
