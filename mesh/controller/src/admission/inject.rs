//! Adds the sidecar to a pod of a VirtualNode, and has the Envoy of a pod of a VirtualGateway configured.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use kube::ResourceExt as _;
use mesh_api::{MeshMember, MeshObject as _, VirtualNode};
use serde_json::{Map, Value, json};

use super::{
    annotations::{Mode, Mount, SidecarOverrides, skips_image_override},
    gateway,
    limits::{self, Addition},
    mounts::Mounts,
    sidecar::{ENVOY, INIT, Redirection, SIDECAR, Sidecar, drain, envoy, sds},
};
use crate::{
    cluster::{GATE, Object, Snapshot},
    model::{WorkloadKind, WorkloadName},
    translate::membership::{self, Member},
};

/// A pod with its sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// The pod.
    pub pod: Value,
    /// What its author should know.
    pub warnings: Vec<String>,
}

/// The pod with its sidecar, or with its own Envoy configured; `None` if it is to have neither. `ca` is the authority of the xDS server's certificate, PEM.
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
    if mode == Mode::Disabled {
        return Ok(None);
    }
    let mut init = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    if init.any(|container| container["name"] == SIDECAR && gateway::has_token(container)) {
        // The API server asks again once another webhook has changed the pod.
        let warnings = limits::warnings_of_others(pod);
        return Ok((!warnings.is_empty()).then(|| Injected { pod: pod.clone(), warnings }));
    }
    let name = pod["metadata"]["name"].as_str().or_else(|| pod["metadata"]["generateName"].as_str());
    let labels = strings(&pod["metadata"]["labels"]);
    let overrides = SidecarOverrides::of(&annotations);
    let node = match membership::of_pod(snapshot, namespace, name.unwrap_or_default(), &labels)? {
        Some(Member::Node(node)) => node,
        Some(Member::Gateway(_)) if gateway::is_configured(pod) => return Ok(None),
        Some(Member::Gateway(of)) => {
            let (mesh, kind) = (mesh_of(of, snapshot)?, WorkloadKind::VirtualGateway);
            let workload = WorkloadName { mesh, kind, name: of.aws_name() };
            let mut overrides = overrides?;
            let addition = addition(false, false, &overrides, sidecar);
            overrides.warnings.extend(limits::check_pod(pod, snapshot.namespaces.get(namespace), addition)?);
            return gateway::configure(pod, &workload, overrides, skips_image_override(&annotations), sidecar, ca)
                .map(Some);
        }
        None => {
            ensure!(mode != Mode::Enabled, "sidecarInject enabled but no matching VirtualNode or VirtualGateway found");
            return Ok(None);
        }
    };
    for list in ["initContainers", "containers"] {
        for name in names(pod, list) {
            ensure!(![INIT, SIDECAR].contains(&name), "container name {name} is the sidecar's");
        }
    }
    let (mesh, kind) = (mesh_of(node, snapshot)?, WorkloadKind::VirtualNode);
    let workload = WorkloadName { mesh, kind, name: node.aws_name() };
    let mut overrides = overrides?;
    if overrides.ipv6 == Some(true) && !sidecar.ipv6() {
        overrides.warn("ipv6", "the cluster's pods have no addresses of IPv6");
    }
    let by_plugin = overrides.cni.unwrap_or_else(|| limits::on_fargate(pod));
    let ports = Redirection::new(node, &overrides, sidecar).ports;
    let addition = Addition { ports: &ports, ..addition(true, !by_plugin, &overrides, sidecar) };
    overrides.warnings.extend(limits::check_pod(pod, snapshot.namespaces.get(namespace), addition)?);
    let pod = add(pod, node, &workload, &overrides, by_plugin, sidecar, ca)?;
    Ok(Some(Injected { pod, warnings: overrides.warnings }))
}

fn addition<'a>(
    redirects: bool,
    by_container: bool,
    overrides: &SidecarOverrides,
    sidecar: &'a Sidecar,
) -> Addition<'a> {
    let (status_port, xds) = (sidecar.envoy_admin_access_port, sidecar.xds_address.as_str());
    Addition { redirects, by_container, sds: sds(overrides, sidecar).is_some(), ports: "", status_port, xds }
}

fn mesh_of<K: MeshMember>(object: &Object<K>, snapshot: &Snapshot) -> anyhow::Result<String> {
    let (kind, name) = (K::kind(&()), object.name_any());
    let reference = object.mesh_ref().with_context(|| {
        format!("{kind} {name} has no meshRef, for it was made before this webhook: delete it and make it again")
    })?;
    let mesh = snapshot.mesh(&reference.name).filter(|mesh| mesh.metadata.uid.as_ref() == Some(&reference.uid));
    Ok(mesh.with_context(|| format!("mesh {} of {kind} {name} is gone", reference.name))?.aws_name())
}

fn add(
    pod: &Value,
    node: &VirtualNode,
    workload: &WorkloadName,
    overrides: &SidecarOverrides,
    by_plugin: bool,
    sidecar: &Sidecar,
    ca: &str,
) -> anyhow::Result<Value> {
    let mut pod = pod.clone();
    let redirection = Redirection::new(node, overrides, sidecar);
    let spec = pod.get_mut("spec").and_then(Value::as_object_mut).context("the pod has no spec")?;

    let mounts = mount(list(spec, "volumes")?, overrides, sidecar)?;
    let init = list(spec, "initContainers")?;
    // After the pod's own init containers, which so keep the plain network, and before its containers. Envoy is there first:
    // it starts while the kubelet takes its time to notice, and what redirects waits for it no longer than it needs.
    let mut envoy = envoy(workload, overrides, sidecar, ca, mounts);
    envoy["lifecycle"] = drain(sidecar);
    init.extend([envoy, redirection.container(overrides, sidecar, by_plugin)]);
    own_volumes(spec)?;
    if node.spec.service_discovery.as_ref().is_some_and(|discovery| discovery.aws_cloud_map.is_some()) {
        list(spec, "readinessGates")?.push(json!({ "conditionType": GATE }));
    }
    if by_plugin {
        let annotations = redirection.annotations().map(|(name, value)| (name.to_owned(), value.into()));
        let metadata = pod.get_mut("metadata").and_then(Value::as_object_mut).context("the pod has no metadata")?;
        match metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            Some(present) => present.extend(annotations),
            None => drop(metadata.insert("annotations".to_owned(), annotations.into_iter().collect())),
        }
    }
    Ok(pod)
}

/// Adds to a pod's volumes those that its Envoy needs, and returns where Envoy mounts them.
pub(super) fn mount(
    volumes: &mut Vec<Value>,
    overrides: &SidecarOverrides,
    sidecar: &Sidecar,
) -> anyhow::Result<Vec<Value>> {
    let mut mounts = Mounts::new(std::mem::take(volumes));
    mounts.tool();
    let mut mount = |of: &[Mount], how: fn(&mut Mounts, &Mount) -> anyhow::Result<()>| {
        of.iter().try_for_each(|mount| how(&mut mounts, mount))
    };
    mount(&overrides.secret_mounts, Mounts::secret).context("annotation appmesh.k8s.aws/secretMounts")?;
    mount(&overrides.volume_mounts, Mounts::volume).context("annotation appmesh.k8s.aws/volumeMounts")?;
    if let Some(socket) = sds(overrides, sidecar) {
        mounts.folder_of(socket);
    }
    mounts.tmp();
    Ok(mounts.into_parts(volumes))
}

/// Gives a pod without `fsGroup` that of Envoy, as Amazon's controller did: what its containers write to volumes, and have
/// written there under App Mesh, is of this group.
fn own_volumes(spec: &mut Map<String, Value>) -> anyhow::Result<()> {
    let security = object(spec, "securityContext")?;
    if security.get("fsGroup").is_none_or(Value::is_null) {
        security.insert("fsGroup".to_owned(), ENVOY.into());
    }
    Ok(())
}

/// An object of an object, made if there is none.
pub(super) fn object<'a>(spec: &'a mut Map<String, Value>, name: &str) -> anyhow::Result<&'a mut Map<String, Value>> {
    let object = spec.entry(name).or_insert_with(|| json!({}));
    if object.is_null() {
        *object = json!({});
    }
    object.as_object_mut().with_context(|| format!("{name} is no object"))
}

/// A list of an object, made if there is none.
pub(super) fn list<'a>(spec: &'a mut Map<String, Value>, name: &str) -> anyhow::Result<&'a mut Vec<Value>> {
    let list = spec.entry(name).or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().with_context(|| format!("{name} is no list"))
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
    use super::{super::sidecar::startup_probe, *};
    use crate::envoy::bootstrap::SDS_CLUSTER;
    use ::tests::hostile::spoiled;
    use clap::Parser;
    use mesh_api::{Mesh, VirtualGateway};
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
        let mut gateway = VirtualGateway::new(
            "ingress",
            from_value(json!({
                "awsName": "ingress_k8multi",
                "meshRef": { "name": "k8multi", "uid": "1" },
                "podSelector": { "matchLabels": { "gateway": "ingress" } }
            }))
            .unwrap(),
        );
        gateway.metadata.namespace = Some("k8multi".to_owned());
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
            virtual_gateways: [Arc::new(Object::new(gateway))].into_iter().collect(),
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
        let bootstrap = &mut pod["spec"]["initContainers"][0]["args"][1];
        *bootstrap = serde_json::from_str(bootstrap.as_str().unwrap()).unwrap();
        let golden = snapbox::file!["testdata/injected-pod.json"];
        snapbox::assert_data_eq!(serde_json::to_string_pretty(&pod).unwrap(), golden);
    }

    fn gateway(annotations: Value, envoy: Value) -> Value {
        let mut pod = pod(json!({ "gateway": "ingress" }), annotations);
        pod["spec"]["containers"] = json!([{ "name": "other" }, envoy]);
        pod
    }

    #[test]
    fn a_gateways_envoy_is_configured() {
        let envoy = json!({ "name": "envoy", "image": "theirs", "command": ["agent"], "ports": [{ "containerPort": 8088 }],
            "resources": { "limits": { "memory": "1Gi" } } });
        let before = gateway(json!({}), envoy);
        let Injected { mut pod, warnings } =
            inject(&before, "k8multi", &snapshot("enabled"), &sidecar(&[]), "PEM\n").unwrap().unwrap();
        assert!(warnings.is_empty());
        assert_eq!(inject(&pod, "k8multi", &snapshot("enabled"), &sidecar(&[]), "").unwrap(), None, "once is enough");
        let bootstrap = &mut pod["spec"]["containers"][1]["args"][1];
        *bootstrap = serde_json::from_str(bootstrap.as_str().unwrap()).unwrap();
        let node = json!({ "cluster": "ingress_k8multi", "id": "mesh/k8multi/virtualGateway/ingress_k8multi" });
        assert_eq!(bootstrap["node"], node);
        *bootstrap = "BOOTSTRAP".into();
        let golden = snapbox::file!["testdata/gateway-pod.json"];
        snapbox::assert_data_eq!(serde_json::to_string_pretty(&pod).unwrap(), golden);
    }

    #[test]
    fn a_gateway_keeps_what_its_author_gave_it() {
        let probe = json!({ "tcpSocket": { "port": 8088 } });
        let security = json!({ "runAsUser": 0 });
        let ports = json!([{ "name": "stats", "containerPort": 9901, "protocol": "TCP" }]);
        let envoy = json!({ "name": "envoy", "image": "theirs", "command": ["/opt/envoy"], "readinessProbe": probe,
            "startupProbe": probe, "securityContext": security, "ports": ports });
        let mut before =
            gateway(json!({ "appmesh.k8s.aws/virtualGatewaySkipImageOverride": "enabled" }), envoy.clone());
        before["spec"]["hostNetwork"] = true.into();
        before["spec"]["dnsPolicy"] = "ClusterFirstWithHostNet".into();
        let after = inject(&before, "k8multi", &snapshot("enabled"), &sidecar(&[]), "").unwrap().unwrap().pod;
        let configured = &after["spec"]["containers"][1];
        for field in ["image", "command", "readinessProbe", "startupProbe", "securityContext", "ports"] {
            assert_eq!(configured[field], envoy[field], "{field}");
        }
        assert_eq!(configured["args"][0], "--config-yaml");
        assert_eq!(after["spec"]["securityContext"], Value::Null, "its node's network is not its own");
    }

    #[test]
    fn a_gateway_without_an_envoy_is_warned_of() {
        let pod = gateway(json!({}), json!({ "name": "proxy" }));
        let injected = inject(&pod, "k8multi", &snapshot("enabled"), &sidecar(&[]), "").unwrap().unwrap();
        assert_eq!(injected.pod, pod);
        let warning = "this is a pod of mesh/k8multi/virtualGateway/ingress_k8multi, but it has no container named envoy to \
                       be configured";
        assert_eq!(injected.warnings, [warning]);
    }

    #[test]
    fn where_pods_have_ipv6_it_is_redirected() {
        let both = &["--pod-ips", "10.0.0.5,fd00::5"][..];
        let of = |options: &[&str], said: Option<&str>| {
            let annotations = said.map_or(json!({}), |said| json!({ "appmesh.k8s.aws/ipv6": said }));
            let injected = inject(&front(annotations), "k8multi", &snapshot("enabled"), &sidecar(options), "");
            let Injected { pod, warnings } = injected.unwrap().unwrap();
            let [envoy, redirection] = [0, 1].map(|index| &pod["spec"]["initContainers"][index]);
            let variable = |name: &str| {
                let variables = redirection["env"].as_array().unwrap();
                variables.iter().find(|variable| variable["name"] == name).unwrap()["value"].clone()
            };
            let bootstrap: Value = serde_json::from_str(envoy["args"][1].as_str().unwrap()).unwrap();
            let status = &bootstrap["static_resources"]["listeners"][0]["address"]["socket_address"]["address"];
            (variable("APPMESH_ENABLE_IPV6"), variable("APPMESH_EGRESS_IGNORED_IP"), status.clone(), warnings)
        };
        let (metadata, of_v4) = (json!("169.254.169.254,fd00:ec2::254"), json!("169.254.169.254"));
        let without = "annotation appmesh.k8s.aws/ipv6 has no effect: the cluster's pods have no addresses of IPv6";
        assert_eq!(of(both, None), (json!("1"), metadata.clone(), json!("::"), Vec::new()));
        assert_eq!(of(both, Some("enabled")), (json!("1"), metadata, json!("::"), Vec::new()));
        assert_eq!(of(both, Some("disabled")), (json!("0"), of_v4.clone(), json!("::"), Vec::new()));
        assert_eq!(of(&[], None), (json!("0"), of_v4.clone(), json!("0.0.0.0"), Vec::new()));
        assert_eq!(of(&[], Some("enabled")), (json!("0"), of_v4, json!("0.0.0.0"), vec![without.to_owned()]));
    }

    #[test]
    fn annotations_override_the_chart() {
        let overrides = json!({
            "appmesh.k8s.aws/ports": "9000",
            "appmesh.k8s.aws/egressIgnoredIPs": "10.1.0.0/16",
            "appmesh.k8s.aws/egressIgnoredPorts": "5432",
            "appmesh.k8s.aws/memoryLimit": "64Mi",
            "appmesh.k8s.aws/virtualNode": "front"
        });
        let sidecar = sidecar(&["--sidecar-cpu-limits", "1"]);
        let injected = inject(&front(overrides), "k8multi", &snapshot("enabled"), &sidecar, "").unwrap();
        let Injected { pod, warnings } = injected.unwrap();
        assert_eq!(warnings, ["annotation appmesh.k8s.aws/virtualNode has no effect: App Mesh does not know it"]);
        let variable = |name: &str| {
            let env = pod["spec"]["initContainers"][1]["env"].as_array().unwrap();
            env.iter().find(|variable| variable["name"] == name).unwrap()["value"].clone()
        };
        assert_eq!(variable("APPMESH_APP_PORTS"), "9000");
        assert_eq!(variable("APPMESH_EGRESS_IGNORED_IP"), "10.1.0.0/16");
        assert_eq!(variable("APPMESH_EGRESS_IGNORED_PORTS"), "5432,22", "and SSH in any case");
        let resources =
            json!({ "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "cpu": "1", "memory": "64Mi" } });
        let both = [0, 1].map(|index| pod["spec"]["initContainers"][index]["resources"].clone());
        assert_eq!(both, [resources.clone(), resources]);
        assert_eq!(pod["spec"]["securityContext"], json!({ "fsGroup": 1337 }));
    }

    #[test]
    fn annotations_give_envoy_files_and_an_environment() {
        let annotations = json!({
            "appmesh.k8s.aws/secretMounts": "ca:/certs/ca",
            "appmesh.k8s.aws/volumeMounts": "data:/data",
            "appmesh.k8s.aws/sidecarEnv": "DD_ENV=qa1, ENVOY_CONCURRENCY=4",
            "appmesh.k8s.aws/sidecarEnvJson": r#"[{"DD_ENV":"prod"}]"#,
            "appmesh.k8s.aws/sds": "enabled"
        });
        let pod = inject(&front(annotations), "k8multi", &snapshot("enabled"), &sidecar(&[]), "").unwrap().unwrap().pod;
        let envoy = &pod["spec"]["initContainers"][0];
        let workload =
            json!({ "name": "APPMESH_VIRTUAL_NODE_NAME", "value": "mesh/k8multi/virtualNode/front_k8multi" });
        assert_eq!(envoy["env"], json!([workload, { "name": "DD_ENV", "value": "prod" }]));
        assert_eq!(envoy["args"][5], "4");
        let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
        assert_eq!(
            envoy["volumeMounts"],
            json!([
                mount("appmesh-token", "/var/run/secrets/appmesh.k8s.aws"),
                mount("appmesh-tool", "/var/run/appmesh"),
                mount("ca", "/certs/ca"),
                mount("data", "/data"),
                mount("appmesh-sds-socket-volume", "/run/spire/sockets"),
                { "name": "appmesh-envoy-tmp", "mountPath": "/tmp" },
            ])
        );
        assert_eq!(
            names(&pod, "volumes"),
            ["appmesh-token", "appmesh-tool", "ca", "appmesh-sds-socket-volume", "appmesh-envoy-tmp"]
        );
        let bootstrap: Value = serde_json::from_str(envoy["args"][1].as_str().unwrap()).unwrap();
        let cluster = &bootstrap["static_resources"]["clusters"][1];
        assert_eq!(cluster["name"], SDS_CLUSTER);
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert_eq!(endpoint["address"]["pipe"]["path"], "/run/spire/sockets/agent.sock");
    }

    #[test]
    fn the_chart_enables_sds_and_a_pod_disables_it() {
        for (annotations, expected) in [
            (json!({}), &["appmesh-token", "appmesh-tool", "appmesh-sds-socket-volume", "appmesh-envoy-tmp"][..]),
            (json!({ "appmesh.k8s.aws/sds": "disabled" }), &["appmesh-token", "appmesh-tool", "appmesh-envoy-tmp"]),
        ] {
            let sidecar = sidecar(&["--sds-enabled", "true", "--sds-uds-path", "/tmp/agent/public/api.sock"]);
            let pod = inject(&front(annotations), "k8multi", &snapshot("enabled"), &sidecar, "").unwrap().unwrap().pod;
            assert_eq!(names(&pod, "volumes"), expected);
        }
        for path in ["agent.sock", "run/agent.sock", "/agent.sock", "/", ""] {
            let images = ["chart", "--sidecar-image", "e", "--init-image", "c", "--sds-uds-path", path];
            assert!(Chart::try_parse_from(images).is_err(), "{path}");
        }
    }

    #[test]
    fn the_chart_says_what_envoy_reports_and_when_it_ends() {
        let sidecar = sidecar(&[
            "--tracing=datadog",
            "--tracing-address=ref:status.hostIP",
            "--tracing-port=8126",
            "--stats-tags=true",
            "--statsd=true",
            "--statsd-address=ref:status.hostIP",
            "--envoy-admin-access-port=9902",
            "--envoy-admin-access-enable-ipv6=true",
            "--prestop-delay=20",
            "--startup-timeout=31",
            "--startup-probe-period=5",
        ]);
        let pod = front(json!({ "appmesh.k8s.aws/sidecarEnv": "XRAY_SAMPLING_RATE=0.25" }));
        let pod = inject(&pod, "k8multi", &snapshot("enabled"), &sidecar, "$(CA)").unwrap().unwrap().pod;
        let envoy = &pod["spec"]["initContainers"][0];
        assert_eq!(envoy["lifecycle"]["preStop"]["exec"]["command"][4], "--at-least=20");
        assert_eq!(envoy["ports"][0]["containerPort"], 9902);
        let ready = json!({ "path": "/ready", "port": 9902 });
        assert_eq!(envoy["readinessProbe"]["httpGet"], ready);
        let waits = json!({ "name": "APPMESH_WAIT_FOR_ENVOY", "value": "31" });
        assert!(pod["spec"]["initContainers"][1]["env"].as_array().unwrap().contains(&waits));
        assert_eq!(startup_probe(&sidecar), json!({ "httpGet": ready, "periodSeconds": 5, "failureThreshold": 7 }));
        let node = json!({ "fieldRef": { "fieldPath": "status.hostIP" } });
        assert_eq!(envoy["env"][1], json!({ "name": "APPMESH_HOST_IP", "valueFrom": node }));
        let text = envoy["args"][1].as_str().unwrap();
        assert!(text.contains("$$(CA)") && !text.contains("$$(APPMESH_HOST_IP)"), "{text}");
        // As the kubelet expands it.
        let bootstrap: Value = serde_json::from_str(&text.replace("$(APPMESH_HOST_IP)", "10.0.0.7")).unwrap();
        let address = |ip: &str, port: u16| json!({ "socket_address": { "address": ip, "port_value": port } });
        let cluster = &bootstrap["static_resources"]["clusters"][1]["load_assignment"]["endpoints"][0];
        assert_eq!(cluster["lb_endpoints"][0]["endpoint"]["address"], address("10.0.0.7", 8126));
        assert_eq!(bootstrap["stats_sinks"][0]["typed_config"]["address"], address("10.0.0.7", 8125));
        assert_eq!(bootstrap["tracing"]["http"]["typed_config"]["collector_cluster"], "tracing");
        let layer = &bootstrap["layered_runtime"]["layers"][0]["static_layer"];
        assert_eq!(layer["tracing.random_sampling"]["numerator"], 2500);
        let tags = [("appmesh.mesh", "k8multi"), ("appmesh.virtual_node", "front_k8multi")];
        let tags = tags.map(|(name, value)| json!({ "tag_name": name, "fixed_value": value }));
        assert_eq!(bootstrap["stats_config"]["stats_tags"], json!(tags));
        let listener = &bootstrap["static_resources"]["listeners"][0]["address"]["socket_address"];
        assert_eq!(*listener, json!({ "address": "::", "port_value": 9902, "ipv4_compat": true }));
    }

    #[test]
    fn a_network_plugin_redirects_instead_of_the_init_container() {
        let fargate = json!({ "app": "front", "eks.amazonaws.com/fargate-profile": "default" });
        let said = |cni: &str| json!({ "appmesh.k8s.aws/appmeshCNI": cni, "appmesh.k8s.aws/ignoredUID": "0" });
        for (pod, by_plugin) in [
            (front(json!({})), false),
            (front(said("enabled")), true),
            (pod(fargate.clone(), Value::Null), true),
            (pod(fargate, said("disabled")), false),
        ] {
            let after = inject(&pod, "k8multi", &snapshot("enabled"), &sidecar(&[]), "").unwrap().unwrap().pod;
            assert_eq!(names(&after, "initContainers"), ["envoy", "proxyinit"]);
            let init = &after["spec"]["initContainers"][1];
            assert_eq!(init["env"][0]["value"], if by_plugin { "0" } else { "1" });
            assert_eq!(init["securityContext"]["capabilities"].get("add").is_none(), by_plugin);
            let mut expected = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
            if by_plugin {
                expected.extend([
                    ("appmesh.k8s.aws/ports".to_owned(), "8080".into()),
                    ("appmesh.k8s.aws/egressIgnoredIPs".to_owned(), "169.254.169.254".into()),
                    ("appmesh.k8s.aws/egressIgnoredPorts".to_owned(), "22".into()),
                    ("appmesh.k8s.aws/proxyIngressPort".to_owned(), "15000".into()),
                    ("appmesh.k8s.aws/proxyEgressPort".to_owned(), "15001".into()),
                    ("appmesh.k8s.aws/ignoredUID".to_owned(), "1337".into()),
                    ("appmesh.k8s.aws/ipv6".to_owned(), "disabled".into()),
                    ("appmesh.k8s.aws/sidecarInjectorWebhook".to_owned(), "enabled".into()),
                ]);
            }
            assert_eq!(after["metadata"]["annotations"], Value::Object(expected));
        }
    }

    #[test]
    fn what_is_there_stays() {
        let mut before = front(json!({}));
        before["spec"]["initContainers"] = json!([{ "name": "first" }]);
        before["spec"]["volumes"] = json!([{ "name": "data" }]);
        before["spec"]["securityContext"] = json!({ "fsGroup": 7, "runAsUser": 8 });
        let after = inject(&before, "k8multi", &snapshot("enabled"), &sidecar(&[]), "").unwrap().unwrap().pod;
        assert_eq!(names(&after, "initContainers"), ["first", "envoy", "proxyinit"]);
        assert_eq!(names(&after, "volumes"), ["data", "appmesh-token", "appmesh-tool", "appmesh-envoy-tmp"]);
        assert_eq!(after["spec"]["securityContext"], before["spec"]["securityContext"]);
        assert_eq!(inject(&after, "k8multi", &snapshot("enabled"), &sidecar(&[]), "").unwrap(), None, "once is enough");
        let mut grouped = after;
        grouped["spec"]["containers"][0]["resources"]["limits"]["vpc.amazonaws.com/pod-eni"] = "1".into();
        let again = inject(&grouped, "k8multi", &snapshot("enabled"), &sidecar(&[]), "").unwrap().unwrap();
        assert_eq!((again.pod, again.warnings), (grouped, vec![limits::Limit::SecurityGroups.reason().to_owned()]));
    }

    #[test]
    fn who_gets_one() {
        let stranger = || pod(json!({ "app": "other" }), json!({}));
        let mut host = front(json!({}));
        host["spec"]["hostNetwork"] = true.into();
        let mut named = front(json!({}));
        named["spec"]["containers"][0]["name"] = "proxyinit".into();
        let mut of_its_own = front(json!({}));
        of_its_own["spec"]["initContainers"] = json!([{ "name": "envoy", "image": "mine" }]);
        let said = |said: &str| front(json!({ "appmesh.k8s.aws/sidecarInjectorWebhook": said }));
        let both = pod(json!({ "app": "front", "gateway": "ingress" }), json!({}));
        let ingress = || gateway(json!({}), json!({ "name": "envoy" }));
        for (pod, label, expected) in [
            (ingress(), "enabled", Ok(true)),
            (ingress(), "disabled", Ok(false)),
            (
                both,
                "enabled",
                Err("sidecarInject enabled for both virtualNode front and virtualGateway ingress on pod front-. \
                     Please use podSelector on one"),
            ),
            (front(json!({})), "enabled", Ok(true)),
            (front(json!({})), "disabled", Ok(false)),
            (said("disabled"), "enabled", Ok(false)),
            (said("enabled"), "disabled", Ok(true)),
            (stranger(), "disabled", Ok(false)),
            (stranger(), "enabled", Err("sidecarInject enabled but no matching VirtualNode or VirtualGateway found")),
            (host, "enabled", Err(limits::Limit::HostNetwork.reason())),
            (named, "enabled", Err("container name proxyinit is the sidecar's")),
            (of_its_own, "enabled", Err("container name envoy is the sidecar's")),
            (
                front(json!({ "appmesh.k8s.aws/secretMounts": "ca:/certs,key:/certs" })),
                "enabled",
                Err("annotation appmesh.k8s.aws/secretMounts: two volumes are to be mounted in Envoy at /certs"),
            ),
        ] {
            let outcome = inject(&pod, "k8multi", &snapshot(label), &sidecar(&[]), "");
            let outcome = outcome.map(|pod| pod.is_some()).map_err(|error| format!("{error:#}"));
            assert_eq!(outcome.as_ref().map_err(String::as_str), expected.as_ref().map_err(|error| *error), "{pod}");
        }
    }

    ::tests::property! {
        #[test]
        fn spoiled_pods_are_refused_or_stay_what_they_are(text in spoiled([
            serde_json::to_vec(&front(json!({"appmesh.k8s.aws/ports": "8080,80", "appmesh.k8s.aws/cpuRequest": "10m",
                "appmesh.k8s.aws/secretMounts": "a:/b, c:/d", "appmesh.k8s.aws/sidecarEnvJson": "[{\"A\":\"1\"}]", "appmesh.k8s.aws/sds": "enabled"}))).unwrap(),
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
