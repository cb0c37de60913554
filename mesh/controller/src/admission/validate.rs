//! What admission refuses. Bounds of single fields are the CRDs' schemas' matter.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use mesh_api::{
    Arn, Backend, Mesh, PortMapping, Protocol, Route, VirtualNode, VirtualRouter, VirtualService,
    VirtualServiceProvider, arn::MeshResource,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{identity::Identity, problems, unserved};

/// Where Envoy writes what it writes down: in its container's log.
pub const STDOUT: &str = "/dev/stdout";

/// Where the object is to live.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The account and region.
    pub identity: &'a Identity,
    /// The mesh of its namespace, in AWS's terms; none for a Mesh, or when the Mesh is gone.
    pub mesh: Option<&'a str>,
}

/// What a kind asks of an object whose fields are all served: each problem as `path: what is wrong`.
pub trait Checked: Serialize + DeserializeOwned {
    /// The problems, none if the object is fine.
    fn problems(&self, place: Place<'_>) -> Vec<String>;
}

/// Refuses an object with a field that is not served, or that makes no sense.
pub fn check<K: Checked>(object: &Value, place: Place<'_>) -> anyhow::Result<()> {
    let typed: K = serde_json::from_value(object.clone()).context("the object does not read")?;
    let unserved = unserved::fields("spec", &object["spec"], &serde_json::to_value(&typed)?["spec"]);
    let problems = if unserved.is_empty() { typed.problems(place) } else { unserved };
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}

/// Refuses an update of what names the object.
pub fn check_immutable(kind: &str, object: &Value, old: &Value) -> anyhow::Result<()> {
    let changed = |field: &&str| object["spec"].get(*field) != old["spec"].get(*field);
    let changed: Vec<_> =
        ["awsName", "meshRef"].into_iter().filter(changed).map(|field| format!("spec.{field}")).collect();
    if !changed.is_empty() {
        bail!("{kind} update may not change these fields: {}", changed.join(","));
    }
    Ok(())
}

impl Checked for Mesh {
    fn problems(&self, _: Place<'_>) -> Vec<String> {
        selector("spec.namespaceSelector", self.spec.namespace_selector.as_ref()).into_iter().collect()
    }
}

impl Checked for VirtualNode {
    fn problems(&self, place: Place<'_>) -> Vec<String> {
        let spec = &self.spec;
        let mut problems = Vec::new();
        problems.extend(selector("spec.podSelector", spec.pod_selector.as_ref()));
        problems.extend(ports(spec.listeners.iter().flatten().map(|listener| listener.port_mapping)));
        for (index, listener) in spec.listeners.iter().flatten().enumerate() {
            let found = listener.health_check.iter().flat_map(problems::of_health_check);
            problems.extend(found.map(|problem| format!("spec.listeners[{index}].healthCheck{problem}")));
        }
        match &spec.service_discovery {
            None if spec.listeners.as_ref().is_some_and(|listeners| !listeners.is_empty()) => problems.push(format!(
                "ServiceDiscovery missing for VirtualNode-{}. \
                 ServiceDiscovery must be specified when a listener is specified.",
                self.metadata.name.as_deref().unwrap_or_default()
            )),
            Some(discovery) if discovery.aws_cloud_map.is_some() == discovery.dns.is_some() => {
                problems.push("spec.serviceDiscovery: needs one of awsCloudMap and dns".to_owned());
            }
            _ => {}
        }
        if spec.access_log().is_some_and(|path| path != STDOUT) {
            problems.push(format!("spec.logging.accessLog.file.path: only {STDOUT} is served"));
        }
        for (index, backend) in spec.backends.iter().flatten().enumerate() {
            let found = self::backend(backend, place);
            problems.extend(found.map(|problem| format!("spec.backends[{index}].virtualService{problem}")));
        }
        problems
    }
}

impl Checked for VirtualService {
    fn problems(&self, _: Place<'_>) -> Vec<String> {
        self.spec.provider.as_ref().and_then(provider).into_iter().collect()
    }
}

impl Checked for VirtualRouter {
    fn problems(&self, _: Place<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(ports(self.spec.listeners.iter().flatten().map(|listener| listener.port_mapping)));
        let mut names = BTreeSet::new();
        for (index, route) in self.spec.routes.iter().flatten().enumerate() {
            if !names.insert(&route.name) {
                problems.push(format!("spec.routes[{index}].name: {} is the name of another route too", route.name));
            }
            problems.extend(self::route(route).into_iter().map(|problem| format!("spec.routes[{index}]{problem}")));
        }
        problems
    }
}

fn selector(path: &str, selector: Option<&LabelSelector>) -> Option<String> {
    let error = Selector::try_from(selector?.clone()).err()?;
    Some(format!("{path}: {error}"))
}

fn ports(ports: impl Iterator<Item = PortMapping>) -> Vec<String> {
    let problem = |(index, port): (usize, PortMapping)| match (index, port.protocol) {
        (0, Protocol::Http) => None,
        (0, _) => Some("spec.listeners[0].portMapping.protocol: only http is served".to_owned()),
        _ => Some(format!("spec.listeners[{index}]: more than one listener is not served")),
    };
    ports.enumerate().filter_map(problem).collect()
}

fn backend(backend: &Backend, place: Place<'_>) -> Option<String> {
    let service = &backend.virtual_service;
    let arn = match (&service.virtual_service_ref, &service.virtual_service_arn) {
        (Some(_), None) => return None,
        (None, Some(arn)) => arn,
        _ => return Some(": needs one of virtualServiceRef and virtualServiceARN".to_owned()),
    };
    let problem = match arn.parse::<Arn>() {
        Err(error) => error.to_string(),
        Ok(arn) => foreign(&arn, place)?,
    };
    Some(format!(".virtualServiceARN: {problem}"))
}

/// Why an ARN names no VirtualService that this account's Cloud Map namespaces could tell about.
fn foreign(arn: &Arn, Place { identity, mesh }: Place<'_>) -> Option<String> {
    let home = (identity.partition.as_str(), identity.region.as_str(), identity.account.as_str());
    if !matches!(arn.resource, MeshResource::VirtualService(_)) {
        return Some(format!("{arn} names no VirtualService"));
    }
    if (arn.partition.as_str(), arn.region.as_str(), arn.account.as_str()) != home {
        return Some(format!(
            "{arn} is not of account {} in {}, and others are not served",
            identity.account, identity.region
        ));
    }
    let mesh = mesh.filter(|mesh| *mesh != arn.mesh)?;
    Some(format!("{arn} is not of mesh {mesh}"))
}

fn provider(provider: &VirtualServiceProvider) -> Option<String> {
    match (&provider.virtual_node, &provider.virtual_router) {
        (Some(node), None) if node.virtual_node_ref.is_none() => {
            Some("spec.provider.virtualNode: virtualNodeRef is missing".to_owned())
        }
        (None, Some(router)) if router.virtual_router_ref.is_none() => {
            Some("spec.provider.virtualRouter: virtualRouterRef is missing".to_owned())
        }
        (Some(_), Some(_)) | (None, None) => {
            Some("spec.provider: needs one of virtualNode and virtualRouter".to_owned())
        }
        _ => None,
    }
}

fn route(route: &Route) -> Vec<String> {
    let Some(http) = &route.http_route else { return vec![": httpRoute is missing".to_owned()] };
    let problems = problems::of_route(&http.match_, http.retry_policy.as_ref());
    let mut problems: Vec<_> = problems.into_iter().map(|problem| format!(".httpRoute{problem}")).collect();
    let targets = &http.action.weighted_targets;
    for (index, _) in targets.iter().enumerate().filter(|(_, target)| target.virtual_node_ref.is_none()) {
        problems.push(format!(".httpRoute.action.weightedTargets[{index}]: virtualNodeRef is missing"));
    }
    if targets.iter().all(|target| target.weight == 0) {
        problems.push(".httpRoute.action.weightedTargets: the weights add up to 0".to_owned());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tests::hostile::spoiled;
    use serde_json::json;

    fn problems<K: Checked>(kind: &str, spec: Value) -> String {
        let identity = Identity { partition: "aws".into(), region: "us-west-2".into(), account: "123456789012".into() };
        let place = Place { identity: &identity, mesh: Some("k8multi") };
        let object = json!({
            "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind,
            "metadata": { "name": "x", "namespace": "ns" }, "spec": spec
        });
        check::<K>(&object, place).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn meshes() {
        for (spec, expected) in [
            (json!({ "namespaceSelector": { "matchLabels": { "mesh": "m" } } }), ""),
            (json!({ "egressFilter": { "type": "ALLOW_ALL" } }), ""),
            (json!({ "meshServiceDiscovery": {} }), "spec.meshServiceDiscovery: not served by this controller"),
            (json!({ "meshOwner": "210987654321" }), "spec.meshOwner: not served by this controller"),
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
                "spec.listeners[0].healthCheck.protocol: only http and tcp are served".to_owned(),
            ),
            (json!({ "logging": { "accessLog": { "file": { "path": "/dev/stdout" } } } }), String::new()),
            (
                json!({ "logging": { "accessLog": { "file": { "path": "/tmp/log" } } } }),
                "spec.logging.accessLog.file.path: only /dev/stdout is served".to_owned(),
            ),
            (
                json!({ "listeners": [{
                    "portMapping": { "port": 8080, "protocol": "http" },
                    "tls": { "mode": "STRICT" }, "timeout": { "http": {} }
                }], "serviceDiscovery": cloud_map, "backendDefaults": {} }),
                "spec.backendDefaults: not served by this controller; \
                 spec.listeners[0].timeout: not served by this controller; \
                 spec.listeners[0].tls: not served by this controller"
                    .to_owned(),
            ),
            (
                json!({
                    "listeners": [{ "portMapping": { "port": 8080, "protocol": "http2" } }, http],
                    "serviceDiscovery": cloud_map
                }),
                "spec.listeners[0].portMapping.protocol: only http is served; \
                 spec.listeners[1]: more than one listener is not served"
                    .to_owned(),
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
                     us-west-2, and others are not served",
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
                "spec.backends[0].virtualService: needs one of virtualServiceRef and virtualServiceARN".to_owned(),
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
                "spec.provider.virtualRouter.virtualRouterARN: not served by this controller",
            ),
            (json!({ "virtualNode": {} }), "spec.provider.virtualNode: virtualNodeRef is missing"),
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
                json!({ "name": "a", "grpcRoute": {} }),
                "spec.routes[0].grpcRoute: not served by this controller".to_owned(),
            ),
            (json!({ "name": "a" }), "spec.routes[0]: httpRoute is missing".to_owned()),
            (
                json!({ "name": "a", "httpRoute": http(json!({ "path": { "regex": "/.*" } }), json!([target(1)])) }),
                format!("{path}.match.path.regex: not served by this controller"),
            ),
            (
                json!({ "name": "a", "httpRoute": http(json!({}), json!([target(0), { "weight": 0 }])) }),
                format!(
                    "{path}.match: needs one of path and prefix; \
                     {path}.action.weightedTargets[1]: virtualNodeRef is missing; \
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
        let route = json!({ "name": "a", "httpRoute": http(prefix, json!([target(1)])) });
        assert_eq!(
            problems::<VirtualRouter>("VirtualRouter", json!({ "routes": [route, route] })),
            "spec.routes[1].name: a is the name of another route too"
        );
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
        ] {
            let outcome = check_immutable("VirtualNode", &json!({ "spec": spec }), &old);
            assert_eq!(outcome.map_or_else(|error| error.to_string(), |()| String::new()), expected);
        }
    }

    /// What was fine is fine again as it was understood.
    #[track_caller]
    fn stays<K: Checked>(kind: &str, spec: &Value) {
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
               {"match":{"prefix":"/","method":"GET","headers":[{"name":"a","invert":true,"match":{"range":{"start":1,"end":2}}}],
               "queryParameters":[{"name":"q","match":{"exact":"v"}}]},"timeout":{"idle":{"unit":"ms","value":0}},
               "retryPolicy":{"maxRetries":1,"perRetryTimeout":{"unit":"s","value":1},"httpRetryEvents":["gateway-error"]},
               "action":{"weightedTargets":[{"virtualNodeRef":{"name":"n"},"weight":1}]}}}]}"#,
            r#"{"awsName":"x","provider":{"virtualRouter":{"virtualRouterRef":{"namespace":"n","name":"r"}}}}"#,
        ])) {
            if let Ok(spec) = serde_json::from_slice::<Value>(&text) {
                stays::<Mesh>("Mesh", &spec);
                stays::<VirtualNode>("VirtualNode", &spec);
                stays::<VirtualRouter>("VirtualRouter", &spec);
                stays::<VirtualService>("VirtualService", &spec);
            }
        }
    }
}
