//! Reads what is published as the controller of the release before does, to the last field.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;

use appmesh_controller::{
    cloudmap::publication,
    model::{
        CloudMapDiscovery, ClusterId, Discovery, DnsDiscovery, HeaderMatch, HeaderName, HealthCheck,
        HealthCheckProtocol, PathMatch, Port, Protocol, QueryMatch, RetryOn, RetryPolicy, Route, RouteMatch, Routing,
        ServiceKey, Target, Timeouts, Upstream, ValueMatch,
    },
};
use mesh_api::{DnsServiceDiscovery, HealthCheckPolicy, HttpRetryPolicy, HttpRouteMatch, HttpTimeout, PortMapping};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The release before parses a document as this, and refuses fields that do not come out again.
#[derive(Serialize, Deserialize)]
struct Routes {
    listener: PortMapping,
    routes: Vec<PublishedRoute>,
    nodes: BTreeMap<String, Node>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublishedRoute {
    name: String,
    #[serde(flatten)]
    match_: HttpRouteMatch,
    targets: Vec<WeightedNode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_policy: Option<HttpRetryPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<HttpTimeout>,
}

#[derive(Serialize, Deserialize)]
struct WeightedNode {
    node: String,
    weight: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    port: u16,
    protocol: mesh_api::Protocol,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    discovery: Option<Service>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dns: Option<DnsServiceDiscovery>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health_check: Option<HealthCheckPolicy>,
}

#[derive(Serialize, Deserialize)]
struct Service {
    namespace: String,
    service: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
}

fn everything() -> Routing {
    let port = Port { port: 8080, protocol: Protocol::Http };
    let header = |name: &str, value, invert| HeaderMatch { name: HeaderName::new(name.into()).unwrap(), value, invert };
    let check = |protocol| HealthCheck {
        protocol,
        healthy_threshold: 2,
        unhealthy_threshold: 3,
        interval_millis: 5000,
        timeout_millis: 2000,
    };
    let cloud_map = CloudMapDiscovery {
        key: ServiceKey { namespace: "n".into(), service: "s".into() },
        attributes: [("color", "blue")].into(),
    };
    let upstream = |discovery, health_check| Upstream { health_check, ..Upstream::new(port, discovery) };
    let dns = |endpoints| Discovery::Dns(DnsDiscovery::new("front.shop".into(), endpoints).unwrap());
    let upstreams = BTreeMap::from([
        (
            "cloud-map".into(),
            upstream(Discovery::CloudMap(cloud_map), Some(check(HealthCheckProtocol::Http("/ping".into())))),
        ),
        ("dns".into(), upstream(dns(false), Some(check(HealthCheckProtocol::Tcp)))),
        ("endpoints".into(), upstream(dns(true), None)),
        ("none".into(), upstream(Discovery::None, None)),
    ]);
    let targets: Vec<_> =
        upstreams.keys().map(|name: &String| Target { upstream: name.clone(), weight: 100 }).collect();
    let matched = RouteMatch {
        path: PathMatch::Exact("/a".into()),
        scheme: None,
        grpc: false,
        method: Some("PATCH".into()),
        headers: vec![
            header("present", ValueMatch::Present, true),
            header("exact", ValueMatch::Exact("a".into()), false),
            header("prefix", ValueMatch::Prefix("b".into()), false),
            header("suffix", ValueMatch::Suffix("c".into()), false),
            header("range", ValueMatch::Range(-1, 1), false),
        ],
        query_parameters: vec![
            QueryMatch { name: "there".into(), exact: None },
            QueryMatch { name: "exact".into(), exact: Some("d é".into()) },
        ],
    };
    let on = vec![
        RetryOn::ServerError,
        RetryOn::GatewayError,
        RetryOn::ClientError,
        RetryOn::StreamError,
        RetryOn::ConnectionError,
    ];
    let everything = Route {
        name: "everything".into(),
        route_match: matched,
        targets: targets.clone(),
        retry_policy: Some(RetryPolicy::new(on, 3, 250).unwrap()),
        timeouts: Timeouts { request_millis: Some(15_000), idle_millis: Some(0) },
    };
    Routing::of_port(port, vec![everything, Route::of_everything("rest".into(), targets)], upstreams)
}

#[test]
fn the_release_before_understands_what_is_published() {
    let publisher = ClusterId { uid: "7f1c9f0e-6f0f-4c57-9a3e-0d8a4f4bb001".into(), arn: None };
    let arn = "arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualService/s";
    let instances = publication(arn, &publisher, &everything());
    let values = (0..4).map(|index| format!("routes.{index}"));
    let parts: Vec<_> = instances.values().collect();
    assert_eq!(parts.len(), 1, "one part is enough for this");
    let json: String = values.filter_map(|key| parts[0].get(&key).map(str::to_owned)).collect();
    let written: Value = serde_json::from_str(&json).unwrap();
    let understood: Routes = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(&understood).unwrap(), written);
}
