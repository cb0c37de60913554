//! Makes the objects of a mesh of any size, as admission leaves them.
//!
//! Services have two versions, each a VirtualNode, which share the requests by weight. Every node calls the five services
//! after its own, and the one that all call.

use serde_json::{Value, json};

/// A pod as admission leaves it.
const POD: &str = include_str!("../../../mesh/controller/src/admission/testdata/injected-pod.json");

/// Namespace of the objects, name of the Mesh and of its Cloud Map namespace.
pub const NAME: &str = "scale";
/// Services that each node calls, besides the one that all call.
const NEIGHBOURS: usize = 5;
/// The service that all call.
pub const SHARED: usize = 0;

/// A mesh.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Number of VirtualNodes, two for each service.
    pub nodes: usize,
    /// Pods of each.
    pub pods: usize,
    /// `metadata.uid` of the Mesh; empty until it is made.
    pub uid: String,
}

impl Mesh {
    /// Number of services.
    pub fn services(&self) -> usize {
        self.nodes / 2
    }

    /// The services that a node calls.
    pub fn called_by(&self, node: usize) -> Vec<usize> {
        let next = (1..=NEIGHBOURS).map(|step| (node / 2 + step) % self.services());
        let mut called: Vec<_> = next.chain([SHARED]).collect();
        called.sort_unstable();
        called.dedup();
        called
    }

    /// The node of one sidecar of `count`, and which of the node's pods it is in. They are spread over all nodes, and those
    /// of a smaller count are among those of a larger.
    pub fn place(&self, sidecar: usize, count: usize) -> (usize, usize) {
        let step = (self.nodes / count).max(1);
        (sidecar * step % self.nodes, sidecar * step / self.nodes)
    }

    /// A VirtualNode. `more` are names of VirtualServices that it calls besides.
    pub fn virtual_node(&self, node: usize, more: &[String]) -> Value {
        let called = self.called_by(node).into_iter().map(service_name).chain(more.iter().cloned());
        let backend = |name: String| json!({ "virtualService": { "virtualServiceRef": { "name": name } } });
        let name = node_name(node);
        let spec = json!({
            "podSelector": { "matchLabels": { "app": name } },
            "listeners": [{ "portMapping": { "port": 8080, "protocol": "http" } }],
            "backends": called.map(backend).collect::<Vec<_>>(),
            "serviceDiscovery": cloud_map(&name),
        });
        self.object("VirtualNode", &name, &format!("{name}_{NAME}"), spec)
    }

    /// A VirtualNode whose pods are in another cluster.
    pub fn remote_node(&self, name: &str) -> Value {
        let spec = json!({
            "listeners": [{ "portMapping": { "port": 8080, "protocol": "http" } }],
            "serviceDiscovery": cloud_map(name),
        });
        self.object("VirtualNode", name, &format!("{name}_{NAME}"), spec)
    }

    /// The VirtualRouter of a service.
    pub fn virtual_router(&self, service: usize) -> Value {
        let name = service_name(service);
        let target = |node: usize| json!({ "virtualNodeRef": { "name": node_name(node) }, "weight": 1 });
        let action = json!({ "weightedTargets": [target(2 * service), target(2 * service + 1)] });
        let spec = json!({
            "listeners": [{ "portMapping": { "port": 8080, "protocol": "http" } }],
            "routes": [{ "name": "all", "httpRoute": { "match": { "prefix": "/" }, "action": action } }],
        });
        self.object("VirtualRouter", &name, &format!("{name}_{NAME}"), spec)
    }

    /// The VirtualService of a service.
    pub fn virtual_service(&self, service: usize) -> Value {
        let name = service_name(service);
        let provider = json!({ "virtualRouter": { "virtualRouterRef": { "name": name } } });
        self.object("VirtualService", &name, &host(&name), json!({ "provider": provider }))
    }

    /// A VirtualService that one VirtualNode of the same name answers for.
    pub fn remote_service(&self, name: &str) -> Value {
        let provider = json!({ "virtualNode": { "virtualNodeRef": { "name": name } } });
        self.object("VirtualService", name, &host(name), json!({ "provider": provider }))
    }

    fn object(&self, kind: &str, name: &str, aws_name: &str, mut spec: Value) -> Value {
        spec["awsName"] = aws_name.into();
        spec["meshRef"] = json!({ "name": NAME, "uid": self.uid });
        json!({
            "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind,
            "metadata": { "name": name, "namespace": NAME },
            "spec": spec,
        })
    }
}

/// The id that the Envoys of a node show.
pub fn workload(node: usize) -> String {
    format!("mesh/{NAME}/virtualNode/{}_{NAME}", node_name(node))
}

/// A pod of a node. No scheduler knows it, so no kubelet runs it.
///
/// # Errors
/// The example of a pod is no JSON.
pub fn pod(name: &str, node: usize) -> serde_json::Result<Value> {
    let mut pod: Value = serde_json::from_str(POD)?;
    pod["metadata"] = json!({ "name": name, "namespace": NAME, "labels": { "app": node_name(node) } });
    pod["spec"]["schedulerName"] = "none".into();
    // The bootstrap, which the example shows as it is read.
    let containers = pod["spec"]["initContainers"].as_array_mut().into_iter().flatten();
    for argument in containers.filter_map(|container| container["args"].as_array_mut()).flatten() {
        if argument.is_object() {
            *argument = argument.to_string().into();
        }
    }
    Ok(pod)
}

/// The status that a kubelet writes when a pod's containers are ready.
pub fn ready(address: &str) -> Value {
    let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status });
    let container = |name: &str| {
        json!({
            "name": name, "image": name, "imageID": format!("{name}@sha256:0"), "ready": true, "restartCount": 0,
            "started": true, "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
        })
    };
    json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "startTime": "2026-01-01T00:00:00Z",
        "conditions": [
            condition("Initialized", "True"), condition("PodScheduled", "True"), condition("ContainersReady", "True"),
        ],
        "containerStatuses": [container("app")],
        "initContainerStatuses": [container("envoy"), container("proxyinit")],
    } })
}

/// The name of a VirtualNode and of its Cloud Map service.
pub fn node_name(node: usize) -> String {
    format!("node-{node}")
}

/// The name of a service.
pub fn service_name(service: usize) -> String {
    format!("service-{service}")
}

/// The name of a node's pod.
pub fn pod_name(node: usize, pod: usize) -> String {
    format!("{}-{pod}", node_name(node))
}

/// The n-th address, of those that are for nobody else (RFC 6598).
pub fn address(n: usize) -> String {
    format!("100.{}.{}.{}", 64 + n / 65536, n / 256 % 256, n % 256)
}

fn host(service: &str) -> String {
    format!("{service}.{NAME}.svc.cluster.local")
}

fn cloud_map(service: &str) -> Value {
    json!({ "awsCloudMap": { "namespaceName": NAME, "serviceName": service } })
}
