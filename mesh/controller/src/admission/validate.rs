//! Refuses objects for what is wrong with them by themselves. Bounds of single fields are the CRDs' schemas' matter.

use std::collections::HashSet;

use anyhow::{Context as _, bail, ensure};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::defaults::FILLED_IN;
use crate::{
    cluster::{Object, kinds::Selecting},
    translate::{Check, Place, check},
};

/// Parses an object, unless a field of it is not supported or makes no sense.
///
/// # Errors
/// It has such a field: each by its path. A field that the API does not have is none.
pub fn parse<K>(object: &Value, place: Place<'_>) -> anyhow::Result<Object<K>>
where
    K: Check + Selecting + Serialize + DeserializeOwned,
{
    let object = Object::<K>::parse(object).context("the object does not parse")?;
    let problems: Vec<_> = check(&object, place).iter().map(ToString::to_string).collect();
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(object)
}

/// The account in the ARNs of a Mesh and of what is in it.
const MESH_OWNER: &str = "meshOwner";
/// What the pods of a VirtualNode are registered by.
const CLOUD_MAP: &str = "/spec/serviceDiscovery/awsCloudMap";

/// Refuses an update of what names the object, or its pods in Cloud Map.
///
/// # Errors
/// The update changes that.
pub fn check_immutable(kind: &str, object: &Value, old: &Value) -> anyhow::Result<()> {
    let given = |of: &Value, path: &str| of.pointer(path).filter(|value| !value.is_null()).cloned();
    let names = FILLED_IN.into_iter().chain([MESH_OWNER]).map(|field| format!("/spec/{field}"));
    let names = names.filter(|path| given(object, path) != given(old, path));
    let cloud_map = given(old, CLOUD_MAP).is_some_and(|old| given(object, CLOUD_MAP) != Some(old));
    let changed = names.chain(cloud_map.then(|| CLOUD_MAP.to_owned()));
    let changed: Vec<_> = changed.map(|path| path.trim_start_matches('/').replace('/', ".")).collect();
    if !changed.is_empty() {
        bail!("{kind} update may not change these fields: {}", changed.join(","));
    }
    Ok(())
}

/// Refuses a VirtualNode that names a backend twice.
///
/// # Errors
/// It does.
pub fn check_backends(kind: &str, object: &Value) -> anyhow::Result<()> {
    if kind != "VirtualNode" {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = &object["metadata"]["namespace"];
    let mut seen = HashSet::new();
    for backend in object["spec"]["backends"].as_array().into_iter().flatten() {
        let reference = &backend["virtualService"]["virtualServiceRef"];
        if let Some(service) = reference["name"].as_str() {
            let namespace = reference["namespace"].as_str().or(namespace.as_str()).unwrap_or_default();
            let is_new = seen.insert((namespace, service));
            ensure!(is_new, "{kind}-{name} has duplicate VirtualServiceReferences {service}");
        } else if let Some(arn) = backend["virtualService"]["virtualServiceARN"].as_str() {
            ensure!(seen.insert(("", arn)), "{kind}-{name} has duplicate VirtualServiceReferenceARNs {arn}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Account;
    use ::tests::hostile::spoiled;
    use mesh_api::{GatewayRoute, Mesh, VirtualGateway, VirtualNode, VirtualRouter, VirtualService};
    use serde_json::json;

    const ARN: &str = "arn:aws:appmesh:us-west-2:123456789012:mesh/m";

    fn problems<K: Check + Selecting + Serialize + DeserializeOwned>(kind: &str, spec: Value) -> String {
        let account = Account { partition: "aws".into(), region: "us-west-2".into(), account: "123456789012".into() };
        let place = Place { account: &account, mesh: Some("k8multi") };
        let object = json!({
            "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind,
            "metadata": { "name": "x", "namespace": "ns" }, "spec": spec
        });
        parse::<K>(&object, place).map_or_else(|error| format!("{error:#}"), |_| String::new())
    }

    #[test]
    fn meshes() {
        for (spec, expected) in [
            (json!({ "namespaceSelector": { "matchLabels": { "mesh": "m" } } }), ""),
            (json!({ "egressFilter": { "type": "ALLOW_ALL" } }), ""),
            (json!({ "meshServiceDiscovery": { "ipPreference": "IPv6_ONLY" } }), ""),
            (json!({ "meshOwner": "210987654321" }), ""),
            (json!({ "meshOwner": "me" }), "spec.meshOwner: is no account of twelve digits"),
            (
                json!({ "namespaceSelector": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } }),
                "spec.namespaceSelector: failed to parse value as expression: Invalid expression operator",
            ),
        ] {
            assert_eq!(problems::<Mesh>("Mesh", spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn virtual_nodes() {
        let http = json!({ "portMapping": { "port": 8080, "protocol": "http" } });
        let cloud_map = json!({ "awsCloudMap": { "namespaceName": "svc2.svc.local", "serviceName": "front" } });
        let checked_at = |port: u16, checked: u16| {
            json!({
                "portMapping": { "port": port, "protocol": "http" },
                "healthCheck": { "protocol": "http", "port": checked, "intervalMillis": 5000, "timeoutMillis": 2000,
                    "healthyThreshold": 2, "unhealthyThreshold": 2 }
            })
        };
        let arn = |account: &str, rest: &str| format!("arn:aws:appmesh:us-west-2:{account}:mesh/{rest}");
        let backend = |arn: String| json!({ "backends": [{ "virtualService": { "virtualServiceARN": arn } }] });
        for (spec, expected) in [
            (json!({}), String::new()),
            (json!({ "listeners": [http], "serviceDiscovery": cloud_map }), String::new()),
            (
                json!({ "listeners": [http] }),
                "ServiceDiscovery missing for VirtualNode-x. \
                 ServiceDiscovery must be specified when a listener is specified."
                    .to_owned(),
            ),
            (json!({ "listeners": [http], "serviceDiscovery": { "dns": { "hostname": "x" } } }), String::new()),
            (
                json!({ "listeners": [http], "serviceDiscovery": { "dns": { "hostname": "x" }, "awsCloudMap": cloud_map["awsCloudMap"] } }),
                "spec.serviceDiscovery: needs one of awsCloudMap and dns".to_owned(),
            ),
            (
                json!({ "serviceDiscovery": cloud_map, "listeners": [{
                    "portMapping": { "port": 8080, "protocol": "http" },
                    "healthCheck": { "protocol": "grpc", "intervalMillis": 5000, "timeoutMillis": 2000,
                        "healthyThreshold": 2, "unhealthyThreshold": 2 }
                }]}),
                "spec.listeners[0].healthCheck.protocol: grpc needs a listener of protocol grpc or http2, not http".to_owned(),
            ),
            (
                json!({ "serviceDiscovery": cloud_map, "listeners": [checked_at(8080, 8080), checked_at(8081, 8080)] }),
                "spec.listeners[1].healthCheck.port: must be the listener's port, 8081".to_owned(),
            ),
            (json!({ "logging": { "accessLog": { "file": { "path": "/dev/stdout" } } } }), String::new()),
            (
                json!({ "logging": { "accessLog": { "file": { "path": "/tmp/log", "format": { "text": "%COLOR%" } } } } }),
                "spec.logging.accessLog.file.format.text: %COLOR begins no operator of Envoy: \
                 write %% for a percent sign"
                    .to_owned(),
            ),
            (
                json!({ "logging": { "accessLog": { "file": { "path": "", "format": {} } } } }),
                "spec.logging.accessLog.file.format: needs one of json and text; \
                 spec.logging.accessLog.file.path: is empty"
                    .to_owned(),
            ),
            (
                json!({ "listeners": [{
                    "portMapping": { "port": 8080, "protocol": "http" },
                    "tls": { "mode": "STRICT" }, "timeout": { "http": {} }
                }], "serviceDiscovery": cloud_map, "colour": 1 }),
                "spec.listeners[0].tls.certificate: needs one of file and sds".to_owned(),
            ),
            (
                json!({
                    "serviceDiscovery": cloud_map,
                    "listeners": [{
                        "portMapping": { "port": 8080, "protocol": "http" },
                        "tls": { "mode": "STRICT", "validation": { "trust": {} } }
                    }],
                    "backendDefaults": { "clientPolicy": { "tls": {
                        "certificate": { "sds": { "secretName": "" } },
                        "validation": { "trust": { "file": { "certificateChain": "/ca.pem" } } }
                    }}}
                }),
                "spec.listeners[0].tls.certificate: needs one of file and sds; \
                 spec.listeners[0].tls.validation.trust: needs one of file and sds; \
                 spec.backendDefaults.clientPolicy.tls.certificate.sds.secretName: is empty"
                    .to_owned(),
            ),
            (
                json!({
                    "serviceDiscovery": cloud_map,
                    "listeners": [{
                        "portMapping": { "port": 8080, "protocol": "http" },
                        "tls": { "mode": "PERMISSIVE", "certificate": { "acm": { "certificateARN": "arn" } } }
                    }],
                    "backends": [{ "virtualService": {
                        "virtualServiceRef": { "name": "a" },
                        "clientPolicy": { "tls": { "enforce": false, "validation": { "trust": {
                            "acm": { "certificateAuthorityARNs": ["arn"] }
                        }}}}
                    }}]
                }),
                ["spec.listeners[0].tls.certificate.acm",
                    "spec.backends[0].virtualService.clientPolicy.tls.validation.trust.acm"]
                .map(|path| {
                    format!(
                        "{path}: needs AWS Certificate Manager, whose keys and authorities only App Mesh gave to Envoys: \
                         give the certificate by file or sds, for example from cert-manager"
                    )
                })
                .join("; "),
            ),
            (
                json!({ "serviceDiscovery": cloud_map, "listeners": [{
                    "portMapping": { "port": 8080, "protocol": "http" },
                    "tls": { "mode": "DISABLED", "certificate": { "acm": { "certificateARN": "arn" } } }
                }]}),
                String::new(),
            ),
            (
                json!({ "serviceDiscovery": cloud_map, "listeners": [{
                    "portMapping": { "port": 8080, "protocol": "http" },
                    "timeout": { "tcp": {}, "http": {} },
                    "connectionPool": { "http": { "maxConnections": 0 } },
                    "outlierDetection": { "maxServerErrors": 5, "interval": { "unit": "s", "value": 0 },
                        "baseEjectionDuration": { "unit": "s", "value": 1 }, "maxEjectionPercent": 50 }
                }]}),
                "spec.listeners[0].timeout.tcp: the listener's protocol is http; \
                 spec.listeners[0].connectionPool: a limit is 0; \
                 spec.listeners[0].outlierDetection: maxServerErrors, interval or baseEjectionDuration is 0"
                    .to_owned(),
            ),
            (
                json!({
                    "listeners": [
                        { "portMapping": { "port": 8080, "protocol": "tcp" } },
                        { "portMapping": { "port": 8081, "protocol": "grpc" } },
                        http
                    ],
                    "serviceDiscovery": cloud_map
                }),
                "spec.listeners[2].portMapping.port: 8080 is the port of another listener too".to_owned(),
            ),
            (backend(arn("123456789012", "k8multi/virtualService/colorapp.k8multi.svc.cluster.local")), String::new()),
            (
                backend("colorapp-service-ARN".to_owned()),
                "spec.backends[0].virtualService.virtualServiceARN: \"colorapp-service-ARN\" is not an App Mesh ARN: \
                 expected arn:PARTITION:appmesh:REGION:ACCOUNT:mesh/MESH[/KIND/NAME]"
                    .to_owned(),
            ),
            (
                backend(arn("123456789012", "k8multi/virtualNode/front")),
                format!(
                    "spec.backends[0].virtualService.virtualServiceARN: {} names no VirtualService",
                    arn("123456789012", "k8multi/virtualNode/front")
                ),
            ),
            (
                backend(arn("210987654321", "k8multi/virtualService/a")),
                format!(
                    "spec.backends[0].virtualService.virtualServiceARN: {} is not of account 123456789012 in \
                     us-west-2, and others are not supported",
                    arn("210987654321", "k8multi/virtualService/a")
                ),
            ),
            (
                backend(arn("123456789012", "other/virtualService/a")),
                format!(
                    "spec.backends[0].virtualService.virtualServiceARN: {} is not of mesh k8multi",
                    arn("123456789012", "other/virtualService/a")
                ),
            ),
            (
                json!({ "backends": [{ "virtualService": {} }] }),
                String::new(),
            ),
        ] {
            assert_eq!(problems::<VirtualNode>("VirtualNode", spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn virtual_services() {
        let router = json!({ "virtualRouterRef": { "name": "r" } });
        let node = json!({ "virtualNodeRef": { "name": "n" } });
        for (provider, expected) in [
            (json!({ "virtualRouter": router }), ""),
            (json!({ "virtualNode": node }), ""),
            (json!({}), "spec.provider: needs one of virtualNode and virtualRouter"),
            (
                json!({ "virtualRouter": router, "virtualNode": node }),
                "spec.provider: needs one of virtualNode and virtualRouter",
            ),
            (
                json!({ "virtualRouter": { "virtualRouterARN": "arn" } }),
                "spec.provider.virtualRouter.virtualRouterARN: \"arn\" is not an App Mesh ARN: \
                 expected arn:PARTITION:appmesh:REGION:ACCOUNT:mesh/MESH[/KIND/NAME]",
            ),
            (json!({ "virtualRouter": { "virtualRouterARN": format!("{ARN}/virtualRouter/r") } }), ""),
            (json!({ "virtualNode": { "virtualNodeARN": format!("{ARN}/virtualNode/n") } }), ""),
            (
                json!({ "virtualNode": { "virtualNodeARN": format!("{ARN}/virtualRouter/r") } }),
                "spec.provider.virtualNode.virtualNodeARN: \
                 arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualRouter/r names no virtualNode",
            ),
            (json!({ "virtualNode": {} }), "spec.provider.virtualNode: needs one of virtualNodeRef and virtualNodeARN"),
        ] {
            let spec = json!({ "provider": provider });
            assert_eq!(problems::<VirtualService>("VirtualService", spec), expected, "{provider}");
        }
    }

    #[test]
    fn virtual_routers() {
        let target = |weight: u32| json!({ "virtualNodeRef": { "name": "n" }, "weight": weight });
        let http = |of: Value, targets: Value| json!({ "match": of, "action": { "weightedTargets": targets } });
        let prefix = json!({ "prefix": "/" });
        let path = "spec.routes[0].httpRoute";
        for (route, expected) in [
            (json!({ "name": "a", "httpRoute": http(prefix.clone(), json!([target(1), target(0)])) }), String::new()),
            (
                json!({ "name": "a", "tcpRoute": { "action": { "weightedTargets": [target(0)] } } }),
                "spec.routes[0].tcpRoute.action.weightedTargets: the weights add up to 0".to_owned(),
            ),
            (json!({ "name": "a" }), "spec.routes[0]: needs one of grpcRoute, http2Route, httpRoute and tcpRoute".to_owned()),
            (json!({ "name": "a", "http2Route": http(prefix.clone(), json!([target(1)])) }), String::new()),
            (
                json!({ "name": "a", "http2Route": http(json!({ "prefix": "a" }), json!([target(0)])) }),
                "spec.routes[0].http2Route.match.prefix: does not begin with /; \
                 spec.routes[0].http2Route.action.weightedTargets: the weights add up to 0"
                    .to_owned(),
            ),
            (
                json!({
                    "name": "a",
                    "httpRoute": http(prefix.clone(), json!([target(1)])),
                    "grpcRoute": http(json!({}), json!([target(1)]))
                }),
                "spec.routes[0]: needs one of grpcRoute, http2Route, httpRoute and tcpRoute".to_owned(),
            ),
            (
                json!({ "name": "a", "grpcRoute": http(
                    json!({ "serviceName": "shop.Stock", "methodName": "Take", "metadata": [{ "name": "a" }] }),
                    json!([target(1)])
                ) }),
                String::new(),
            ),
            (
                json!({ "name": "a", "grpcRoute": http(
                    json!({ "methodName": "Take", "metadata": [{ "name": "a b" }] }), json!([target(1)])
                ) }),
                "spec.routes[0].grpcRoute.match.methodName: needs serviceName too; \
                 spec.routes[0].grpcRoute.match.metadata[0].name: \"a b\" is not a valid header name"
                    .to_owned(),
            ),
            (
                json!({ "name": "a", "grpcRoute": http(json!({ "serviceName": "a/b" }), json!([target(1)])) }),
                "spec.routes[0].grpcRoute.match: is no name of a service and a method of gRPC: it is empty, or has a / in it"
                    .to_owned(),
            ),
            (
                json!({ "name": "a", "grpcRoute": {
                    "match": {}, "action": { "weightedTargets": [target(1)] },
                    "retryPolicy": { "maxRetries": 1, "perRetryTimeout": { "unit": "s", "value": 1 } }
                } }),
                "spec.routes[0].grpcRoute.retryPolicy: needs a retry event".to_owned(),
            ),
            (
                json!({ "name": "a", "httpRoute": http(json!({ "path": { "regex": "/(" } }), json!([target(1)])) }),
                format!("{path}.match.path.regex: is not a regular expression of RE2: at character 2: unclosed group"),
            ),
            (
                json!({ "name": "a", "httpRoute": http(json!({ "path": {} }), json!([target(1)])) }),
                format!("{path}.match.path: needs one of exact and regex"),
            ),
            (
                json!({ "name": "a", "httpRoute": http(
                    json!({ "path": { "regex": "/[0-9]+" }, "scheme": "http", "headers": [
                        { "name": "a", "match": { "regex": "a|b" } }, { "name": "b", "match": { "regex": "a", "exact": "b" } }
                    ]}),
                    json!([target(1)])
                ) }),
                format!("{path}.match.headers[1].match: needs one of exact, prefix, range, regex and suffix"),
            ),
            (
                json!({ "name": "a", "timeOut": 1, "httpRoute": http(json!({ "prefix": "/" }), json!([target(1)])) }),
                String::new(),
            ),
            (
                json!({ "name": "a", "httpRoute": http(json!({}), json!([target(0), { "weight": 0 }])) }),
                format!(
                    "{path}.match: needs one of path and prefix; \
                     {path}.action.weightedTargets[1]: needs one of virtualNodeRef and virtualNodeARN; \
                     {path}.action.weightedTargets: the weights add up to 0"
                ),
            ),
            (
                json!({ "name": "a", "httpRoute": http(json!({ "prefix": "color" }), json!([target(1)])) }),
                format!("{path}.match.prefix: does not begin with /"),
            ),
        ] {
            let spec = json!({ "routes": [route] });
            assert_eq!(problems::<VirtualRouter>("VirtualRouter", spec), expected, "{route}");
        }
        let of_port = |port: u16| json!({ "prefix": "/", "port": port });
        let listeners = json!([
            { "portMapping": { "port": 80, "protocol": "http" } }, { "portMapping": { "port": 81, "protocol": "http2" } }
        ]);
        for (route, expected) in [
            (json!({ "name": "a", "httpRoute": http(of_port(81), json!([target(1)])) }), ""),
            (json!({ "name": "a", "grpcRoute": http(json!({}), json!([target(1)])) }), ""),
            (
                json!({ "name": "a", "httpRoute": http(of_port(82), json!([target(1)])) }),
                "spec.routes[0].httpRoute.match.port: no listener of port 82 takes a httpRoute",
            ),
            (
                json!({ "name": "a", "tcpRoute": { "action": { "weightedTargets": [target(1)] } } }),
                "spec.routes[0].tcpRoute: no listener takes a tcpRoute",
            ),
            (
                json!({ "name": "a", "tcpRoute": {
                    "match": { "port": 81 }, "action": { "weightedTargets": [target(1)] }
                } }),
                "spec.routes[0].tcpRoute.match.port: no listener of port 81 takes a tcpRoute",
            ),
        ] {
            let spec = json!({ "listeners": listeners, "routes": [route] });
            assert_eq!(problems::<VirtualRouter>("VirtualRouter", spec), expected, "{route}");
        }
        let route = json!({ "name": "a", "httpRoute": http(prefix, json!([target(1)])) });
        assert_eq!(
            problems::<VirtualRouter>("VirtualRouter", json!({ "routes": [route, route] })),
            "spec.routes[1].name: a is the name of another route too"
        );
    }

    #[test]
    fn virtual_gateways() {
        let port = |port: u16, protocol: &str| json!({ "portMapping": { "port": port, "protocol": protocol } });
        for (spec, expected) in [
            (json!({ "listeners": [port(80, "http"), port(81, "http2"), port(82, "grpc")] }), ""),
            (
                json!({ "listeners": [{ "portMapping": { "port": 80, "protocol": "http" }, "healthCheck": {
                    "protocol": "http", "path": "/ping", "intervalMillis": 5000, "timeoutMillis": 2000,
                    "unhealthyThreshold": 2
                }}]}),
                "",
            ),
            (
                json!({ "listeners": [port(80, "http"), port(80, "http2")] }),
                "spec.listeners[1].portMapping.port: 80 is the port of another listener too",
            ),
            (
                json!({ "listeners": [port(80, "tcp")] }),
                "the object does not parse: spec.listeners[0].portMapping.protocol: unknown variant `tcp`, expected one \
                 of `grpc`, `http`, `http2`",
            ),
            (
                json!({ "gatewayRouteSelector": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } }),
                "spec.gatewayRouteSelector: failed to parse value as expression: Invalid expression operator",
            ),
            (json!({ "logging": { "accessLog": { "file": { "path": "/tmp/log" } } } }), ""),
        ] {
            assert_eq!(problems::<VirtualGateway>("VirtualGateway", spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn gateway_routes() {
        let target = json!({ "virtualService": { "virtualServiceRef": { "name": "s" } } });
        let route = |of: Value| json!({ "match": of, "action": { "target": target } });
        let rewritten =
            |of: Value, rewrite: Value| json!({ "match": of, "action": { "target": target, "rewrite": rewrite } });
        let prefix = json!({ "prefix": "/a" });
        let exact = json!({ "path": { "exact": "/a" } });
        for (route, expected) in [
            (route(prefix.clone()), ""),
            (route(exact.clone()), ""),
            (route(json!({ "hostname": { "exact": "www.example.com" } })), ""),
            (route(json!({ "hostname": { "suffix": "*.example.com" }, "port": 80 })), ""),
            (route(json!({})), "spec.httpRoute.match: needs one of prefix, path and hostname"),
            (
                route(json!({ "prefix": "/", "path": { "exact": "/a" } })),
                "spec.httpRoute.match: needs one of path and prefix",
            ),
            (route(json!({ "prefix": "a" })), "spec.httpRoute.match.prefix: does not begin with /"),
            (
                route(json!({ "hostname": { "exact": "a", "suffix": "b" } })),
                "spec.httpRoute.match.hostname: needs one of exact and suffix",
            ),
            (
                route(json!({ "hostname": { "suffix": "*" } })),
                "spec.httpRoute.match.hostname.suffix: is not a host name of letters, digits, dots and hyphens",
            ),
            (
                route(json!({ "hostname": { "exact": "*.example.com" } })),
                "spec.httpRoute.match.hostname.exact: is not a host name of letters, digits, dots and hyphens",
            ),
            (rewritten(prefix.clone(), json!({ "prefix": { "value": "/b/" } })), ""),
            (rewritten(exact.clone(), json!({ "path": { "exact": "/b" } })), ""),
            (
                rewritten(prefix.clone(), json!({})),
                "spec.httpRoute.action.rewrite: needs one of prefix, path and hostname",
            ),
            (
                rewritten(prefix.clone(), json!({ "prefix": {}, "path": { "exact": "/b" } })),
                "spec.httpRoute.action.rewrite: needs one of prefix and path",
            ),
            (
                rewritten(prefix.clone(), json!({ "prefix": { "value": "/b" } })),
                "spec.httpRoute.action.rewrite.prefix.value: does not begin and end with /",
            ),
            (
                rewritten(prefix.clone(), json!({ "prefix": { "value": "/b?c/" } })),
                "spec.httpRoute.action.rewrite.prefix.value: is not the path of a URL",
            ),
            (
                rewritten(prefix.clone(), json!({ "prefix": { "value": "/", "defaultPrefix": "DISABLED" } })),
                "spec.httpRoute.action.rewrite.prefix: needs one of defaultPrefix and value",
            ),
            (
                rewritten(exact.clone(), json!({ "prefix": { "value": "/b/" } })),
                "spec.httpRoute.action.rewrite.prefix: the route matches a path, not a prefix",
            ),
            (
                rewritten(exact, json!({ "path": { "exact": "b" } })),
                "spec.httpRoute.action.rewrite.path.exact: does not begin with /",
            ),
            (rewritten(prefix.clone(), json!({ "path": {} })), "spec.httpRoute.action.rewrite.path: exact is missing"),
            (
                json!({ "match": prefix, "action": { "target": { "virtualService": {} } } }),
                "spec.httpRoute.action.target.virtualService: needs one of virtualServiceRef and virtualServiceARN",
            ),
        ] {
            assert_eq!(problems::<GatewayRoute>("GatewayRoute", json!({ "httpRoute": route })), expected, "{route}");
        }
        let both = json!({ "httpRoute": route(prefix.clone()), "http2Route": route(prefix.clone()) });
        let grpc = |of: Value| json!({ "grpcRoute": route(of) });
        for (spec, expected) in [
            (json!({ "http2Route": route(prefix) }), ""),
            (json!({}), "spec: needs one of grpcRoute, http2Route and httpRoute"),
            (both, "spec: needs one of grpcRoute, http2Route and httpRoute"),
            (grpc(json!({ "serviceName": "shop.v1.Stock", "metadata": [{ "name": "x-beta" }] })), ""),
            (grpc(json!({ "hostname": { "exact": "shop.example" } })), ""),
            (grpc(json!({})), "spec.grpcRoute.match: needs one of serviceName and hostname"),
            (
                grpc(json!({ "serviceName": "shop/Stock" })),
                "spec.grpcRoute.match.serviceName: is not the name of a gRPC service",
            ),
            (
                grpc(json!({ "serviceName": "a", "metadata": [{ "name": "x y" }] })),
                "spec.grpcRoute.match.metadata[0].name: \"x y\" is not a valid header name",
            ),
        ] {
            assert_eq!(problems::<GatewayRoute>("GatewayRoute", spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn names_are_immutable() {
        let old = json!({ "spec": { "awsName": "a", "meshRef": { "name": "m", "uid": "1" } } });
        for (spec, expected) in [
            (json!({ "awsName": "a", "meshRef": { "name": "m", "uid": "1" }, "listeners": [] }), ""),
            (
                json!({ "awsName": "b", "meshRef": { "name": "m", "uid": "1" } }),
                "VirtualNode update may not change these fields: spec.awsName",
            ),
            (
                json!({ "awsName": "b", "meshRef": { "name": "m", "uid": "2" } }),
                "VirtualNode update may not change these fields: spec.awsName,spec.meshRef",
            ),
            (
                json!({ "awsName": "a", "meshRef": { "name": "m", "uid": "1" }, "meshOwner": "210987654321" }),
                "VirtualNode update may not change these fields: spec.meshOwner",
            ),
        ] {
            let outcome = check_immutable("VirtualNode", &json!({ "spec": spec }), &old);
            assert_eq!(outcome.map_or_else(|error| error.to_string(), |()| String::new()), expected);
        }
    }

    #[test]
    fn what_pods_are_registered_by_is_immutable() {
        let cloud_map = |service: &str| json!({ "awsCloudMap": { "namespaceName": "n", "serviceName": service } });
        let dns = json!({ "dns": { "hostname": "x" } });
        let refused = "VirtualNode update may not change these fields: spec.serviceDiscovery.awsCloudMap";
        for (old, new, expected) in [
            (cloud_map("a"), cloud_map("a"), ""),
            (cloud_map("a"), cloud_map("b"), refused),
            (cloud_map("a"), dns.clone(), refused),
            (cloud_map("a"), Value::Null, refused),
            (dns, cloud_map("a"), ""),
            (json!({ "awsCloudMap": null }), cloud_map("a"), ""),
            (Value::Null, cloud_map("a"), ""),
        ] {
            let [new, old] = [new, old].map(|discovery| json!({ "spec": { "serviceDiscovery": discovery } }));
            let outcome = check_immutable("VirtualNode", &new, &old);
            assert_eq!(outcome.map_or_else(|error| error.to_string(), |()| String::new()), expected, "{old} {new}");
        }
    }

    #[test]
    fn a_gateway_routes_target_has_no_client_policy() {
        let account = Account { partition: "aws".into(), region: "us-west-2".into(), account: "123456789012".into() };
        let service = json!({ "virtualServiceRef": { "name": "s" }, "clientPolicy": {} });
        let object = json!({
            "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "GatewayRoute", "metadata": { "name": "x" }, "spec": {
                "httpRoute": { "match": { "prefix": "/" }, "action": { "target": { "virtualService": service } } }
            }
        });
        let parsed = parse::<GatewayRoute>(&object, Place { account: &account, mesh: None }).unwrap();
        assert_eq!(parsed.unknown, ["spec.httpRoute.action.target.virtualService.clientPolicy"]);
    }

    #[test]
    fn a_backend_is_named_once() {
        let by_name = |name: &str, namespace: Option<&str>| json!({ "virtualService": { "virtualServiceRef": { "name": name, "namespace": namespace } } });
        let by_arn = |arn: &str| json!({ "virtualService": { "virtualServiceARN": arn } });
        for (backends, expected) in [
            (json!([by_name("a", None), by_name("b", None), by_name("a", Some("other")), by_arn("a")]), ""),
            (
                json!([by_name("a", None), by_name("a", Some("ns"))]),
                "VirtualNode-x has duplicate VirtualServiceReferences a",
            ),
            (json!([by_arn("a"), by_arn("a")]), "VirtualNode-x has duplicate VirtualServiceReferenceARNs a"),
        ] {
            let object = json!({ "metadata": { "name": "x", "namespace": "ns" }, "spec": { "backends": backends } });
            let outcome = check_backends("VirtualNode", &object);
            assert_eq!(outcome.map_or_else(|error| error.to_string(), |()| String::new()), expected, "{backends}");
        }
    }

    /// What was fine is fine again as it was understood.
    #[track_caller]
    fn stays<K: Check + Selecting + Serialize + DeserializeOwned>(kind: &str, spec: &Value) {
        if problems::<K>(kind, spec.clone()).is_empty() {
            let object = json!({ "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind, "metadata": {}, "spec": spec });
            let understood = json!(serde_json::from_value::<K>(object).unwrap());
            assert_eq!(problems::<K>(kind, understood["spec"].clone()), "", "{kind} {spec}");
        }
    }

    ::tests::property! {
        #[test]
        fn spoiled_objects_are_refused_or_fine(text in spoiled([
            r#"{"namespaceSelector":{"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]}}"#,
            r#"{"podSelector":{"matchLabels":{"a":"b"}},"listeners":[{"portMapping":{"port":8080,"protocol":"http"}}],
               "serviceDiscovery":{"awsCloudMap":{"namespaceName":"n","serviceName":"s","attributes":[{"key":"k","value":"v"}]}},
               "backends":[{"virtualService":{"virtualServiceARN":"arn:aws:appmesh:us-west-2:123456789012:mesh/k8multi/virtualService/v"}}]}"#,
            r#"{"listeners":[{"portMapping":{"port":1,"protocol":"http"}}],"routes":[{"name":"r","priority":1,"httpRoute":
               {"match":{"prefix":"/","method":"GET","headers":[{"name":"a","invert":true,"match":{"range":{"start":1,"end":2}}},{"name":"b","match":{"regex":"b+"}}],
               "queryParameters":[{"name":"q","match":{"exact":"v"}}]},"timeout":{"idle":{"unit":"ms","value":0}},
               "retryPolicy":{"maxRetries":1,"perRetryTimeout":{"unit":"s","value":1},"httpRetryEvents":["gateway-error"]},
               "action":{"weightedTargets":[{"virtualNodeRef":{"name":"n"},"weight":1}]}}}]}"#,
            r#"{"podSelector":{},"listeners":[{"portMapping":{"port":80,"protocol":"http2"}}]}"#,
            r#"{"priority":1,"httpRoute":{"match":{"prefix":"/","hostname":{"suffix":"*.example.com"},"port":80},"action":{
               "target":{"virtualService":{"virtualServiceRef":{"name":"s"}},"port":80},
               "rewrite":{"prefix":{"value":"/a/"},"hostname":{"defaultTargetHostname":"DISABLED"}}}}}"#,
            r#"{"awsName":"x","provider":{"virtualRouter":{"virtualRouterRef":{"namespace":"n","name":"r"}}}}"#,
        ])) {
            if let Ok(spec) = serde_json::from_slice::<Value>(&text) {
                stays::<Mesh>("Mesh", &spec);
                stays::<VirtualNode>("VirtualNode", &spec);
                stays::<VirtualRouter>("VirtualRouter", &spec);
                stays::<VirtualService>("VirtualService", &spec);
                stays::<VirtualGateway>("VirtualGateway", &spec);
                stays::<GatewayRoute>("GatewayRoute", &spec);
            }
        }
    }
}
