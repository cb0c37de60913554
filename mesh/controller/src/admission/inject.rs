//! Adds the sidecar to a pod of a VirtualNode.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use kube::ResourceExt as _;
use mesh_api::{MeshMember as _, MeshObject as _, VirtualNode};
use serde_json::{Map, Value, json};

use super::annotations::{Mode, SidecarOverrides};
use crate::{
    cluster::{GATE, Object, Snapshot},
    envoy::{
        EGRESS_PORT, INGRESS_PORT,
        bootstrap::{AUDIENCE, STATS_PORT, TOKEN_FOLDER, bootstrap},
    },
    model::WorkloadName,
    translate::membership,
};

/// User and group that Envoy runs as; what this user sends is not sent to Envoy again.
const ENVOY: u32 = 1337;
const INIT: &str = "proxyinit";
const SIDECAR: &str = "envoy";
const TOKEN_VOLUME: &str = "appmesh-token";
/// Seconds; the kubelet replaces the token when 80 % have passed.
const TOKEN_LIFE: u32 = 3600;
/// Threads of an Envoy: by itself it would take one for each CPU of the node, and memory for each.
const WORKERS: u32 = 2;
/// The instance metadata service.
const EGRESS_IGNORED_IPS: &str = "169.254.169.254";
/// SSH
const EGRESS_IGNORED_PORTS: &str = "22";

/// The chart's part of what a sidecar looks like.
#[derive(Args, Clone, Debug)]
pub struct Sidecar {
    /// Image of Envoy
    #[arg(long, value_name = "IMAGE")]
    pub sidecar_image: String,
    /// Image that redirects a pod's traffic into its Envoy
    #[arg(long, value_name = "IMAGE")]
    pub init_image: String,
    /// When the kubelet pulls the two images
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent")]
    pub sidecar_image_pull_policy: String,
    /// Envoy's log level
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub sidecar_log_level: String,
    /// CPU that an Envoy asks for
    #[arg(long, value_name = "QUANTITY", default_value = "10m")]
    pub sidecar_cpu_requests: String,
    /// Memory that an Envoy asks for
    #[arg(long, value_name = "QUANTITY", default_value = "32Mi")]
    pub sidecar_memory_requests: String,
    /// CPU that an Envoy may use at most; empty: any
    #[arg(long, value_name = "QUANTITY", default_value = "")]
    pub sidecar_cpu_limits: String,
    /// Memory that an Envoy may use at most; empty: any
    #[arg(long, value_name = "QUANTITY", default_value = "")]
    pub sidecar_memory_limits: String,
    /// Seconds until the first look whether an Envoy is still ready
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    pub readiness_probe_initial_delay: u16,
    /// Seconds between looks whether an Envoy is still ready
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub readiness_probe_period: u16,
    /// Seconds after which an Envoy that got no configuration is started again
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub startup_timeout: u16,
    /// Host and port where Envoys get their configuration
    #[arg(long, value_name = "HOST:PORT", default_value = "appmesh-controller-xds.appmesh-system.svc:15010")]
    pub xds_address: String,
}

/// A pod with its sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// The pod.
    pub pod: Value,
    /// What its author should know.
    pub warnings: Vec<String>,
}

/// The pod with its sidecar; `None` if it is to have none. `ca` is the authority of the xDS server's certificate, PEM.
///
/// # Errors
/// It must have one and cannot, or an annotation of it cannot be supported.
pub fn inject(
    pod: &Value,
    namespace: &str,
    snapshot: &Snapshot,
    sidecar: &Sidecar,
    ca: &str,
) -> anyhow::Result<Option<Injected>> {
    let annotations = strings(&pod["metadata"]["annotations"]);
    let none = BTreeMap::new();
    let mode = Mode::of(&annotations, snapshot.namespaces.get(namespace).unwrap_or(&none));
    if mode == Mode::Disabled || names(pod, "initContainers").contains(&SIDECAR) {
        return Ok(None);
    }
    let name = pod["metadata"]["name"].as_str().or_else(|| pod["metadata"]["generateName"].as_str());
    let labels = strings(&pod["metadata"]["labels"]);
    let node = membership::virtual_node_of_pod(snapshot, namespace, name.unwrap_or_default(), &labels)?;
    let Some(node) = node else {
        ensure!(mode != Mode::Enabled, "sidecarInject enabled but no matching VirtualNode or VirtualGateway found");
        return Ok(None);
    };
    if pod["spec"]["hostNetwork"] == true {
        bail!("a pod in its node's network can't have a sidecar: it would redirect the traffic of the whole node");
    }
    for list in ["initContainers", "containers"] {
        for name in names(pod, list) {
            ensure!(![INIT, SIDECAR].contains(&name), "container name {name} is the sidecar's");
        }
    }
    let workload = WorkloadName { mesh: mesh_of(node, snapshot)?, name: node.aws_name() };
    let overrides = SidecarOverrides::of(&annotations)?;
    let pod = add(pod, node, &workload, &overrides, sidecar, ca)?;
    Ok(Some(Injected { pod, warnings: overrides.warnings }))
}

fn mesh_of(node: &Object<VirtualNode>, snapshot: &Snapshot) -> anyhow::Result<String> {
    let name = node.name_any();
    let reference = node.mesh_ref().with_context(|| {
        format!("VirtualNode {name} has no meshRef, for it was made before this webhook: delete it and make it again")
    })?;
    let mesh = snapshot.mesh(&reference.name).filter(|mesh| mesh.metadata.uid.as_ref() == Some(&reference.uid));
    Ok(mesh.with_context(|| format!("mesh {} of VirtualNode {name} is gone", reference.name))?.aws_name())
}

fn add(
    pod: &Value,
    node: &VirtualNode,
    workload: &WorkloadName,
    overrides: &SidecarOverrides,
    sidecar: &Sidecar,
    ca: &str,
) -> anyhow::Result<Value> {
    let mut pod = pod.clone();
    let spec = pod.get_mut("spec").and_then(Value::as_object_mut).context("the pod has no spec")?;
    let init = list(spec, "initContainers")?;
    // After the pod's own init containers, which so keep the plain network, and before its containers.
    init.push(proxyinit(node, overrides, sidecar));
    init.push(envoy(workload, overrides, sidecar, ca));
    list(spec, "volumes")?.push(token());
    if node.spec.service_discovery.as_ref().is_some_and(|discovery| discovery.aws_cloud_map.is_some()) {
        list(spec, "readinessGates")?.push(json!({ "conditionType": GATE }));
    }
    Ok(pod)
}

fn proxyinit(node: &VirtualNode, overrides: &SidecarOverrides, sidecar: &Sidecar) -> Value {
    let listeners = || node.spec.listeners.iter().flatten().map(|listener| listener.port_mapping.port.to_string());
    let ports = overrides.ports.clone().unwrap_or_else(|| listeners().collect::<Vec<_>>().join(","));
    let or = |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_owned());
    let variables = [
        ("APPMESH_START_ENABLED", "1".to_owned()),
        ("APPMESH_IGNORE_UID", ENVOY.to_string()),
        ("APPMESH_ENVOY_INGRESS_PORT", INGRESS_PORT.to_string()),
        ("APPMESH_ENVOY_EGRESS_PORT", EGRESS_PORT.to_string()),
        ("APPMESH_APP_PORTS", ports),
        ("APPMESH_EGRESS_IGNORED_IP", or(&overrides.egress_ignored_ips, EGRESS_IGNORED_IPS)),
        ("APPMESH_EGRESS_IGNORED_PORTS", or(&overrides.egress_ignored_ports, EGRESS_IGNORED_PORTS)),
        ("APPMESH_ENABLE_IPV6", "0".to_owned()),
    ];
    json!({
        "name": INIT,
        "image": sidecar.init_image,
        "imagePullPolicy": sidecar.sidecar_image_pull_policy,
        "env": variables.map(|(name, value)| json!({ "name": name, "value": value })),
        "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "add": ["NET_ADMIN"], "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            // The pod may run as somebody else, and a capability is root's alone.
            "runAsNonRoot": false,
            "runAsUser": 0
        }
    })
}

fn envoy(workload: &WorkloadName, overrides: &SidecarOverrides, sidecar: &Sidecar, ca: &str) -> Value {
    let bootstrap = bootstrap(workload, &sidecar.xds_address, ca);
    let ready = json!({ "path": "/ready", "port": STATS_PORT });
    json!({
        "name": SIDECAR,
        "image": sidecar.sidecar_image,
        "imagePullPolicy": sidecar.sidecar_image_pull_policy,
        // A native sidecar: the containers start once its startup probe succeeds, and it ends after them.
        "restartPolicy": "Always",
        "command": ["/usr/local/bin/envoy"],
        "args": [
            "--config-yaml", escape(&bootstrap.to_string()),
            "--log-level", sidecar.sidecar_log_level,
            "--concurrency", WORKERS.to_string(),
            "--disable-hot-restart"
        ],
        "ports": [{ "name": "stats", "containerPort": STATS_PORT, "protocol": "TCP" }],
        "startupProbe": {
            "httpGet": ready, "periodSeconds": 1, "failureThreshold": sidecar.startup_timeout
        },
        "readinessProbe": {
            "httpGet": ready,
            "initialDelaySeconds": sidecar.readiness_probe_initial_delay,
            "periodSeconds": sidecar.readiness_probe_period
        },
        "resources": resources(overrides, sidecar),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsGroup": ENVOY,
            "runAsNonRoot": true,
            "runAsUser": ENVOY
        },
        "volumeMounts": [{ "name": TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": true }]
    })
}

/// Kubernetes expands `$(NAME)` in arguments; `$$` is a dollar sign.
fn escape(argument: &str) -> String {
    argument.replace('$', "$$")
}

fn resources(overrides: &SidecarOverrides, sidecar: &Sidecar) -> Value {
    let requests = quantities([
        ("cpu", &overrides.cpu_request, &sidecar.sidecar_cpu_requests),
        ("memory", &overrides.memory_request, &sidecar.sidecar_memory_requests),
    ]);
    let limits = quantities([
        ("cpu", &overrides.cpu_limit, &sidecar.sidecar_cpu_limits),
        ("memory", &overrides.memory_limit, &sidecar.sidecar_memory_limits),
    ]);
    let mut resources = json!({ "requests": requests });
    if !limits.is_empty() {
        resources["limits"] = json!(limits);
    }
    resources
}

/// Those that are given, by the pod or else by the chart.
fn quantities<'a>(of: [(&'a str, &'a Option<String>, &'a String); 2]) -> BTreeMap<&'a str, &'a String> {
    let given = of.into_iter().map(|(name, own, default)| (name, own.as_ref().unwrap_or(default)));
    given.filter(|(_, quantity)| !quantity.is_empty()).collect()
}

/// The token of the pod's service account for the xDS server. Where containers of several users share a pod, as here, the
/// kubelet lets all of them read it, and only Envoy's container mounts it: no fsGroup is needed, which would open the pod's
/// own volumes.
fn token() -> Value {
    json!({ "name": TOKEN_VOLUME, "projected": { "sources": [{
        "serviceAccountToken": { "audience": AUDIENCE, "expirationSeconds": TOKEN_LIFE, "path": "token" }
    }]}})
}

fn list<'a>(spec: &'a mut Map<String, Value>, name: &str) -> anyhow::Result<&'a mut Vec<Value>> {
    let list = spec.entry(name).or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().with_context(|| format!("spec.{name} is no list"))
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    let containers = pod["spec"][list].as_array().into_iter().flatten();
    containers.filter_map(|container| container["name"].as_str()).collect()
}

fn strings(map: &Value) -> BTreeMap<String, String> {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tests::hostile::spoiled;
    use clap::Parser;
    use mesh_api::Mesh;
    use proptest::prelude::*;
    use serde_json::from_value;
    use std::sync::Arc;

    #[derive(Parser)]
    struct Chart {
        #[command(flatten)]
        sidecar: Sidecar,
    }

    fn sidecar(more: &[&str]) -> Sidecar {
        let images = ["chart", "--sidecar-image", "envoyproxy/envoy:v1.40.0", "--init-image", "k8multi/capture:1"];
        Chart::parse_from(images.iter().chain(more)).sidecar
    }

    fn snapshot(label: &str) -> Snapshot {
        let mut mesh = Mesh::new("k8multi", from_value(json!({ "awsName": "k8multi" })).unwrap());
        mesh.metadata.uid = Some("1".to_owned());
        let mut node = VirtualNode::new(
            "front",
            from_value(json!({
                "awsName": "front_k8multi",
                "meshRef": { "name": "k8multi", "uid": "1" },
                "podSelector": { "matchLabels": { "app": "front" } },
                "listeners": [{ "portMapping": { "port": 8080, "protocol": "http" } }],
                "serviceDiscovery": { "awsCloudMap": { "namespaceName": "svc2.svc.local", "serviceName": "front" } }
            }))
            .unwrap(),
        );
        node.metadata.namespace = Some("k8multi".to_owned());
        let labels = BTreeMap::from([(super::super::annotations::INJECT.to_owned(), label.to_owned())]);
        Snapshot {
            namespaces: [("k8multi".to_owned(), labels)].into(),
            meshes: [Arc::new(Object::new(mesh))].into_iter().collect(),
            virtual_nodes: [Arc::new(Object::new(node))].into_iter().collect(),
            ..Snapshot::default()
        }
    }

    fn pod(labels: Value, annotations: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "generateName": "front-", "labels": labels, "annotations": annotations },
            "spec": { "containers": [{ "name": "front", "image": "k8multi/feapp:1" }] }
        })
    }

    fn front(annotations: Value) -> Value {
        pod(json!({ "app": "front" }), annotations)
    }

    #[test]
    fn a_pod_gets_its_sidecar() {
        let pod = inject(&front(json!({})), "k8multi", &snapshot("enabled"), &sidecar(&[]), "PEM\n");
        let Injected { mut pod, warnings } = pod.unwrap().unwrap();
        assert!(warnings.is_empty());
        let bootstrap = &mut pod["spec"]["initContainers"][1]["args"][1];
        *bootstrap = serde_json::from_str(bootstrap.as_str().unwrap()).unwrap();
        let golden = snapbox::file!["testdata/injected-pod.json"];
        snapbox::assert_data_eq!(serde_json::to_string_pretty(&pod).unwrap(), golden);
    }

    #[test]
    fn annotations_override_the_chart() {
        let overrides = json!({
            "appmesh.k8s.aws/ports": "9000",
            "appmesh.k8s.aws/egressIgnoredIPs": "10.1.0.0/16",
            "appmesh.k8s.aws/egressIgnoredPorts": "22,5432",
            "appmesh.k8s.aws/memoryLimit": "64Mi",
            "appmesh.k8s.aws/virtualNode": "front"
        });
        let sidecar = sidecar(&["--sidecar-cpu-limits", "1"]);
        let injected = inject(&front(overrides), "k8multi", &snapshot("enabled"), &sidecar, "").unwrap();
        let Injected { pod, warnings } = injected.unwrap();
        assert_eq!(warnings, ["annotation appmesh.k8s.aws/virtualNode has no effect: App Mesh does not know it"]);
        let variable = |name: &str| {
            let env = pod["spec"]["initContainers"][0]["env"].as_array().unwrap();
            env.iter().find(|variable| variable["name"] == name).unwrap()["value"].clone()
        };
        assert_eq!(variable("APPMESH_APP_PORTS"), "9000");
        assert_eq!(variable("APPMESH_EGRESS_IGNORED_IP"), "10.1.0.0/16");
        assert_eq!(variable("APPMESH_EGRESS_IGNORED_PORTS"), "22,5432");
        assert_eq!(
            pod["spec"]["initContainers"][1]["resources"],
            json!({ "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "cpu": "1", "memory": "64Mi" } })
        );
    }

    #[test]
    fn what_is_there_stays() {
        let mut before = front(json!({}));
        before["spec"]["initContainers"] = json!([{ "name": "first" }]);
        before["spec"]["volumes"] = json!([{ "name": "data" }]);
        before["spec"]["securityContext"] = json!({ "fsGroup": 7, "runAsUser": 8 });
        let after = inject(&before, "k8multi", &snapshot("enabled"), &sidecar(&[]), "").unwrap().unwrap().pod;
        assert_eq!(names(&after, "initContainers"), ["first", "proxyinit", "envoy"]);
        assert_eq!(names(&after, "volumes"), ["data", "appmesh-token"]);
        assert_eq!(after["spec"]["securityContext"], before["spec"]["securityContext"]);
        assert_eq!(inject(&after, "k8multi", &snapshot("enabled"), &sidecar(&[]), "").unwrap(), None, "once is enough");
    }

    #[test]
    fn who_gets_one() {
        let stranger = || pod(json!({ "app": "other" }), json!({}));
        let mut host = front(json!({}));
        host["spec"]["hostNetwork"] = true.into();
        let mut named = front(json!({}));
        named["spec"]["containers"][0]["name"] = "proxyinit".into();
        let said = |said: &str| front(json!({ "appmesh.k8s.aws/sidecarInjectorWebhook": said }));
        for (pod, label, expected) in [
            (front(json!({})), "enabled", Ok(true)),
            (front(json!({})), "disabled", Ok(false)),
            (said("disabled"), "enabled", Ok(false)),
            (said("enabled"), "disabled", Ok(true)),
            (stranger(), "disabled", Ok(false)),
            (stranger(), "enabled", Err("sidecarInject enabled but no matching VirtualNode or VirtualGateway found")),
            (
                host,
                "enabled",
                Err(
                    "a pod in its node's network can't have a sidecar: it would redirect the traffic of the whole node",
                ),
            ),
            (named, "enabled", Err("container name proxyinit is the sidecar's")),
            (
                front(json!({ "appmesh.k8s.aws/appmeshCNI": "enabled" })),
                "enabled",
                Err("annotation appmesh.k8s.aws/appmeshCNI: not supported by this controller"),
            ),
        ] {
            let outcome = inject(&pod, "k8multi", &snapshot(label), &sidecar(&[]), "");
            let outcome = outcome.map(|pod| pod.is_some()).map_err(|error| error.to_string());
            assert_eq!(outcome.as_ref().map_err(String::as_str), expected.as_ref().map_err(|error| *error), "{pod}");
        }
    }

    ::tests::property! {
        #[test]
        fn spoiled_pods_are_refused_or_stay_what_they_are(text in spoiled([
            serde_json::to_vec(&front(json!({"appmesh.k8s.aws/ports": "8080,80", "appmesh.k8s.aws/cpuRequest": "10m"}))).unwrap(),
            br#"{"metadata":{"labels":{"app":"front"}},"spec":{"initContainers":[{"name":"i"}],"containers":[{"name":"envoy"}],
                "volumes":[{"name":"v","emptyDir":{}}],"securityContext":{"fsGroup":1},"hostNetwork":false}}"#.to_vec(),
        ])) {
            if let Ok(pod) = serde_json::from_slice::<Value>(&text)
                && let Ok(Some(injected)) = inject(&pod, "k8multi", &snapshot("enabled"), &sidecar(&[]), "PEM\n")
            {
                let own = |pod: &Value| pod["spec"]["containers"].clone();
                prop_assert_eq!(own(&injected.pod), own(&pod));
            }
        }
    }
}
