//! Ready pods of a VirtualNode as instances of its Cloud Map service, with the ids and attributes that Amazon's
//! controller gives them, so that either controller's callers find the other's pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use mesh_api::{MeshMember as _, MeshObject as _, VirtualNode, selects};

use crate::{
    cloudmap::{Attributes, Instances, ServiceKey},
    registrar::{CLUSTER, Registrar, Want},
    routes::CloudMapDiscovery,
    store::Snapshot,
};

const IPV4: &str = "AWS_INSTANCE_IPV4";
const IPV6: &str = "AWS_INSTANCE_IPV6";
const PORT: &str = "AWS_INSTANCE_PORT";
const POD: &str = "k8s.io/pod";
const NAMESPACE: &str = "k8s.io/namespace";
/// Attributes of one instance and characters of all its keys and values, limits of RegisterInstance.
const MAX_ATTRIBUTES: usize = 30;
const MAX_CHARACTERS: usize = 5000;

/// Where callers reach an instance, by its attributes.
pub fn address(attributes: &Attributes) -> Option<&str> {
    attributes.get(IPV4).or_else(|| attributes.get(IPV6)).map(String::as_str)
}

/// The pod that an instance is, by namespace and name.
pub fn pod_of(attributes: &Attributes) -> Option<(String, String)> {
    Some((attributes.get(NAMESPACE)?.clone(), attributes.get(POD)?.clone()))
}

/// What is registered of this cluster: for each Cloud Map service, its instances. A VirtualNode without ready pods has
/// its service all the same, so that callers find it empty and not missing.
pub fn desired(snapshot: &Snapshot, region: &str, cluster: &str) -> BTreeMap<ServiceKey, Want> {
    let mut desired = BTreeMap::new();
    for node in &snapshot.virtual_nodes {
        let Some(discovery) = discovery(node) else { continue };
        let Some(mesh) = node.mesh_ref().and_then(|mesh| snapshot.mesh(&mesh.name)) else { continue };
        if node.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let node = Registrant { mesh: mesh.aws_name(), node, discovery: &discovery, region, cluster };
        let want =
            desired.entry(discovery.key()).or_insert_with(|| Want { api_only: false, instances: Instances::new() });
        want.instances.extend(snapshot.pods.iter().filter_map(|pod| node.instance(pod)));
    }
    desired
}

/// Removes the instances of a VirtualNode that is being deleted, and the Cloud Map service if this controller made it
/// and nobody else uses it. An error means: not gone yet, call again.
pub async fn forget(registrar: &Registrar, node: &VirtualNode) -> anyhow::Result<()> {
    registrar.forget(discovery(node).map(|discovery| discovery.key()).into_iter().collect()).await
}

fn discovery(node: &VirtualNode) -> Option<CloudMapDiscovery> {
    node.spec.service_discovery.as_ref()?.aws_cloud_map.as_ref().map(CloudMapDiscovery::of)
}

struct Registrant<'a> {
    mesh: String,
    node: &'a VirtualNode,
    discovery: &'a CloudMapDiscovery,
    region: &'a str,
    cluster: &'a str,
}

impl Registrant<'_> {
    fn instance(&self, pod: &Pod) -> Option<(String, Attributes)> {
        let of_node =
            pod.namespace() == self.node.namespace() && selects(self.node.spec.pod_selector.as_ref(), pod.labels());
        let ip = pod.status.as_ref()?.pod_ip.as_ref().filter(|_| of_node && is_ready(pod))?;
        let mut attributes = Attributes::from([
            (if ip.contains(':') { IPV6 } else { IPV4 }.to_owned(), ip.clone()),
            (POD.to_owned(), pod.name_any()),
            (NAMESPACE.to_owned(), pod.namespace().unwrap_or_default()),
            ("REGION".to_owned(), self.region.to_owned()),
            ("appmesh.k8s.aws/mesh".to_owned(), self.mesh.clone()),
            ("appmesh.k8s.aws/virtualNode".to_owned(), self.node.aws_name()),
            // Upstream has no such attribute: it tells apart the same VirtualNode of two clusters.
            (CLUSTER.to_owned(), self.cluster.to_owned()),
        ]);
        if let Some(listener) = self.node.spec.listeners.iter().flatten().next() {
            attributes.insert(PORT.to_owned(), listener.port_mapping.port.to_string());
        }
        for (key, value) in self.discovery.attributes.iter().chain(pod.labels()) {
            let characters: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
            if attributes.len() < MAX_ATTRIBUTES && characters + key.len() + value.len() <= MAX_CHARACTERS {
                attributes.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        Some((ip.clone(), attributes))
    }
}

/// Whether all containers are ready and the pod is to stay. Readiness gates are left out: they may wait for this very
/// registration.
fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = |kind| conditions.clone().any(|condition| condition.type_ == kind && condition.status == "True");
    pod.metadata.deletion_timestamp.is_none() && ready("ContainersReady")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::Mesh;
    use serde_json::{Value, from_value, json};
    use std::sync::Arc;

    fn pod(name: &str, ip: &str, labels: Value, ready: bool, going: bool) -> Arc<Pod> {
        let mut pod: Pod = from_value(json!({
            "metadata": {"name": name, "namespace": "k8multi", "labels": labels},
            "status": {"podIP": ip, "conditions": [{"type": "ContainersReady", "status": if ready { "True" } else { "False" }}]},
        }))
        .unwrap();
        if going {
            pod.metadata.deletion_timestamp = from_value(json!("2026-11-22T00:00:00Z")).unwrap();
        }
        Arc::new(pod)
    }

    fn node(color: &str) -> Arc<VirtualNode> {
        Arc::new(
            from_value(json!({
                "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "VirtualNode",
                "metadata": {"name": format!("colorapp-{color}"), "namespace": "k8multi"},
                "spec": {
                    "meshRef": {"name": "k8multi", "uid": "1"},
                    "podSelector": {"matchLabels": {"app": "colorapp", "version": color}},
                    "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
                    "serviceDiscovery": {"awsCloudMap": {
                        "namespaceName": "svc2.svc.local", "serviceName": "colorapp",
                        "attributes": [{"key": "color", "value": color}],
                    }},
                },
            }))
            .unwrap(),
        )
    }

    fn snapshot(pods: Vec<Arc<Pod>>) -> Snapshot {
        let mesh = Arc::new(Mesh::new("k8multi", Default::default()));
        let virtual_nodes = vec![node("blue"), node("red")];
        Snapshot { meshes: vec![mesh], virtual_nodes, pods, ..Snapshot::default() }.sorted()
    }

    fn labels(color: &str) -> Value {
        json!({"app": "colorapp", "version": color})
    }

    #[test]
    fn ready_pods_of_both_nodes_share_the_service() {
        let snapshot = snapshot(vec![
            pod("blue-1", "10.0.1.5", labels("blue"), true, false),
            pod("blue-2", "10.0.1.6", labels("blue"), false, false),
            pod("red-1", "10.0.1.7", labels("red"), true, false),
            pod("red-2", "10.0.1.8", labels("red"), true, true),
            pod("other", "10.0.1.9", labels("green"), true, false),
        ]);
        let desired = desired(&snapshot, "us-west-2", "c2");
        let (key, want) = desired.first_key_value().unwrap();
        assert_eq!((desired.len(), key.to_string().as_str()), (1, "colorapp.svc2.svc.local"));
        assert!(!want.api_only);
        assert_eq!(want.instances.keys().collect::<Vec<_>>(), ["10.0.1.5", "10.0.1.7"]);
        let expected = [
            ("AWS_INSTANCE_IPV4", "10.0.1.5"),
            ("AWS_INSTANCE_PORT", "8080"),
            ("REGION", "us-west-2"),
            ("app", "colorapp"),
            ("appmesh.k8s.aws/cluster", "c2"),
            ("appmesh.k8s.aws/mesh", "k8multi"),
            ("appmesh.k8s.aws/virtualNode", "colorapp-blue_k8multi"),
            ("color", "blue"),
            ("k8s.io/namespace", "k8multi"),
            ("k8s.io/pod", "blue-1"),
            ("version", "blue"),
        ];
        let found: Vec<_> = want.instances["10.0.1.5"].iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_node_without_pods_keeps_its_service() {
        let desired = desired(&snapshot(Vec::new()), "us-west-2", "c2");
        assert!(desired.values().all(|want| want.instances.is_empty()));
        assert_eq!(desired.len(), 1);
    }

    #[test]
    fn labels_give_way_where_cloud_map_takes_no_more() {
        let mut many = labels("blue");
        for label in 0..40 {
            many[format!("label-{label:02}")] = json!("x".repeat(63));
        }
        let snapshot = snapshot(vec![pod("blue-1", "10.0.1.5", many, true, false)]);
        let desired = desired(&snapshot, "us-west-2", "c2");
        let attributes = &desired.values().next().unwrap().instances["10.0.1.5"];
        assert_eq!(attributes.len(), 30);
        assert_eq!(attributes["color"], "blue");
    }
}
