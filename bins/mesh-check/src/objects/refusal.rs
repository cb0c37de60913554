//! Tells which workloads the webhook refuses, as far as their templates show it.

use crate::scene::{ENVOY, INIT, INJECTION, Side, Template};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use mesh_objects::{Labels, selects};
use std::collections::BTreeMap;

/// The ports of an Envoy that no container of its pod may have, but for that of its statistics.
const ENVOYS_PORTS: [i32; 3] = [15000, 15001, 15002];

/// Whether pods are to have a sidecar: what they say themselves counts more than what their namespace says.
pub fn is_injected(annotations: &BTreeMap<String, String>, namespace: Option<&Labels>) -> bool {
    let said = annotations.get(INJECTION).or_else(|| namespace.and_then(|labels| labels.get(INJECTION)));
    said.is_some_and(|mode| mode == "enabled")
}

/// Why the webhook refuses the pods of a VirtualNode's workload.
pub fn refusal(template: &Template, side: &Side, namespace: Option<&Labels>) -> Option<String> {
    let (none, nothing) = (Labels::new(), BTreeMap::new());
    let metadata = template.template.metadata.as_ref();
    let annotations = metadata.and_then(|metadata| metadata.annotations.as_ref()).unwrap_or(&nothing);
    let labels = metadata.and_then(|metadata| metadata.labels.as_ref()).unwrap_or(&none);
    let spec = template.template.spec.as_ref()?;
    if !is_injected(annotations, namespace) {
        return None;
    }
    let selected = |selector: Option<&LabelSelector>, of: Option<String>| {
        of.as_deref() == Some(&template.namespace) && selects(selector, Some(labels), false)
    };
    let objects = &side.objects;
    if objects.gateways.iter().any(|it| selected(it.spec.pod_selector.as_ref(), it.namespace())) {
        return None;
    }
    if !objects.nodes.iter().any(|it| selected(it.spec.pod_selector.as_ref(), it.namespace())) {
        let found =
            "its pods are to have a sidecar, and no podSelector of a VirtualNode or VirtualGateway selects them";
        return Some(found.to_owned());
    }
    let statistics = side.options("envoy-admin-access-port").next().unwrap_or("9901").parse().unwrap_or_default();
    limit(spec, annotations, namespace, statistics)
}

/// What keeps a pod from having a sidecar.
fn limit(
    spec: &PodSpec,
    annotations: &BTreeMap<String, String>,
    namespace: Option<&Labels>,
    statistics: i32,
) -> Option<String> {
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    if spec.host_network == Some(true) {
        return Some("it is in its node's network (hostNetwork)".to_owned());
    }
    if let Some(taken) = containers().find(|container| [ENVOY, INIT].contains(&container.name.as_str())) {
        return Some(format!("its container {} has the name of one of the sidecar's", taken.name));
    }
    let user = |user: Option<i64>| user == Some(1337);
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    if user(of_pod) || containers().any(|it| user(it.security_context.as_ref().and_then(|it| it.run_as_user))) {
        return Some("it runs as user 1337, which is Envoy's".to_owned());
    }
    let mut ports = containers().flat_map(|container| container.ports.iter().flatten());
    if let Some(port) =
        ports.find(|port| port.container_port == statistics || ENVOYS_PORTS.contains(&port.container_port))
    {
        return Some(format!("its port {} is one that Envoy listens on", port.container_port));
    }
    if spec.dns_policy.as_deref() == Some("Default") {
        return Some("its dnsPolicy Default does not find the controller".to_owned());
    }
    let level = namespace.and_then(|labels| labels.get("pod-security.kubernetes.io/enforce"));
    let by_plugin = annotations.get("appmesh.k8s.aws/appmeshCNI").is_some_and(|mode| mode == "enabled");
    let strict = level.filter(|level| ["baseline", "restricted"].contains(&level.as_str()) && !by_plugin);
    strict.map(|level| format!("its namespace enforces the Pod Security level {level}, which refuses NET_ADMIN"))
}
