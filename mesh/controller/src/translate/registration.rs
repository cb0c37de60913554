//! Translates pods: ready pods of a VirtualNode are instances of its Cloud Map service, and those of a VirtualGateway are
//! counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use kube::ResourceExt as _;
use mesh_api::{MeshObject as _, VirtualGateway, VirtualNode};

use super::{object_key, virtual_node::cloud_map};
use crate::{
    cluster::{Object, Pod, Snapshot},
    model::{
        Attributes, CloudMapDiscovery, ClusterId, ObjectKey, PackedMap, ServiceKey,
        endpoint::{CLUSTER, CLUSTER_ARN, IPV4, IPV6, MESH, NAMESPACE, POD, PORT, VIRTUAL_NODE, ZONE},
    },
};

/// Label of a pod with the zone of its node, from Kubernetes 1.35 on.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Attributes of one instance and characters of all its keys and values, limits of RegisterInstance.
const MAX_ATTRIBUTES: usize = 30;
const MAX_CHARACTERS: usize = 5000;

/// The VirtualNodes and VirtualGateways of a cluster, as pods find the ones that select them.
#[derive(Clone, Debug, Default)]
pub struct Registrants {
    nodes: Vec<Registrant>,
    /// Those that demand a label, by namespace, key and value: few have to be asked for each pod.
    by_label: HashMap<(String, String, String), Vec<usize>>,
    /// The others, by namespace.
    others: HashMap<String, Vec<usize>>,
    /// The VirtualGateways by namespace: there are few, and their pods are not registered.
    gateways: HashMap<String, Vec<Arc<Object<VirtualGateway>>>>,
}

/// A VirtualNode, whose pods are instances if it is found through Cloud Map.
#[derive(Clone, Debug)]
pub struct Registrant {
    node: Arc<Object<VirtualNode>>,
    key: Arc<ObjectKey>,
    mesh: String,
    /// The Cloud Map service, and the attributes that its instances have besides.
    discovery: Option<(Arc<ServiceKey>, PackedMap)>,
}

impl PartialEq for Registrant {
    fn eq(&self, other: &Self) -> bool {
        let same_node = Arc::ptr_eq(&self.node, &other.node)
            || (self.node.metadata.namespace == other.node.metadata.namespace
                && self.node.metadata.name == other.node.metadata.name
                && self.node.spec == other.node.spec);
        same_node && self.mesh == other.mesh
    }
}

/// Registrants are the same if their VirtualNodes are, and their VirtualGateways select the same pods.
impl PartialEq for Registrants {
    fn eq(&self, other: &Self) -> bool {
        let selectors = |registrants: &Self| -> BTreeMap<_, _> {
            let gateways = registrants.gateways.values().flatten();
            gateways.map(|gateway| (object_key::<VirtualGateway>(gateway), gateway.spec.pod_selector.clone())).collect()
        };
        self.nodes == other.nodes && selectors(self) == selectors(other)
    }
}

/// A pod of a VirtualNode or VirtualGateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Membership {
    /// The VirtualNode or VirtualGateway.
    pub of: Arc<ObjectKey>,
    /// What is registered of it, if it is ready: where, by which id and with which attributes.
    pub instance: Option<Instance>,
}

/// The service, the id and the attributes of an instance.
pub type Instance = (Arc<ServiceKey>, String, Arc<Attributes>);

/// Gathers the VirtualNodes and VirtualGateways that stay.
pub fn registrants(snapshot: &Snapshot) -> Registrants {
    let mut registrants = Registrants::default();
    for node in snapshot.virtual_nodes.iter().filter(|node| node.metadata.deletion_timestamp.is_none()) {
        let Some(mesh) = super::mesh_named(node, snapshot).map(|mesh| mesh.aws_name()) else { continue };
        let namespace = node.namespace().unwrap_or_default();
        let labels = node.spec.pod_selector.as_ref().and_then(|selector| selector.match_labels.as_ref());
        let index = registrants.nodes.len();
        match labels.and_then(|labels| labels.first_key_value()) {
            Some((key, value)) => {
                let label = (namespace, key.clone(), value.clone());
                registrants.by_label.entry(label).or_default().push(index);
            }
            None => registrants.others.entry(namespace).or_default().push(index),
        }
        let key = Arc::new(object_key::<VirtualNode>(node));
        let discovery = cloud_map(node).map(|CloudMapDiscovery { key, attributes }| (Arc::new(key), attributes));
        registrants.nodes.push(Registrant { node: node.clone(), key, mesh, discovery });
    }
    for gateway in snapshot.virtual_gateways.iter().filter(|gateway| gateway.metadata.deletion_timestamp.is_none()) {
        registrants.gateways.entry(gateway.namespace().unwrap_or_default()).or_default().push(gateway.clone());
    }
    registrants
}

impl Registrants {
    /// The Cloud Map services of all of them. A VirtualNode without ready pods has its service all the same, so that
    /// callers find it empty and not missing.
    pub fn services(&self) -> BTreeSet<ServiceKey> {
        self.nodes.iter().filter_map(Registrant::service).cloned().collect()
    }

    /// The VirtualNodes whose pods are in a Cloud Map service, by mesh and name in AWS's terms.
    pub fn nodes_of(&self, service: &ServiceKey) -> BTreeSet<(String, String)> {
        let nodes = self.nodes.iter().filter(|registrant| registrant.service() == Some(service));
        nodes.map(|registrant| (registrant.mesh.clone(), registrant.node.aws_name())).collect()
    }

    /// The VirtualNodes and VirtualGateways that a pod is of, and what is registered of it.
    pub fn memberships(&self, pod: &Pod, region: &str, cluster: &ClusterId) -> Vec<Membership> {
        let (namespace, labels) = (&pod.namespace, pod.labels.to_map());
        let demanded = labels
            .iter()
            .filter_map(|(key, value)| self.by_label.get(&(namespace.clone(), key.clone(), value.clone())))
            .chain(self.others.get(namespace));
        let mut candidates: Vec<_> = demanded.flatten().copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let selecting = candidates.into_iter().filter_map(|index| self.nodes.get(index));
        let selecting = selecting.filter(|registrant| registrant.node.selects(&labels));
        let membership = |registrant: &Registrant| Membership {
            of: registrant.key.clone(),
            instance: registrant.instance(pod, region, cluster),
        };
        let gateways = self.gateways.get(namespace).into_iter().flatten();
        let gateways = gateways.filter(|gateway| gateway.selects(&labels));
        let of = |gateway: &Object<VirtualGateway>| Arc::new(object_key::<VirtualGateway>(gateway));
        let gateways = gateways.map(|gateway| Membership { of: of(gateway), instance: None });
        selecting.map(membership).chain(gateways).collect()
    }
}

impl Registrant {
    fn service(&self) -> Option<&ServiceKey> {
        self.discovery.as_ref().map(|(service, _)| &**service)
    }

    fn instance(&self, pod: &Pod, region: &str, cluster: &ClusterId) -> Option<Instance> {
        let (service, own) = self.discovery.as_ref()?;
        let ips = pod.addresses();
        let first = ips.first()?;
        let families = ips.iter().map(|ip| (if ip.contains(':') { IPV6 } else { IPV4 }, ip.as_str()));
        let listener = self.node.spec.listeners.iter().flatten().next();
        let port = listener.map(|listener| listener.port_mapping.port.to_string());
        let name = self.node.aws_name();
        let mut attributes = BTreeMap::from([
            (POD, pod.name.as_str()),
            (NAMESPACE, &pod.namespace),
            ("REGION", region),
            (MESH, &self.mesh),
            (VIRTUAL_NODE, &name),
            (CLUSTER, &cluster.uid),
        ]);
        attributes.extend(families);
        attributes.extend(pod.labels.get(ZONE_LABEL).map(|zone| (ZONE, zone)));
        attributes.extend(cluster.arn.as_deref().map(|arn| (CLUSTER_ARN, arn)));
        attributes.extend(port.as_deref().map(|port| (PORT, port)));
        for (key, value) in own.iter().chain(pod.labels.iter()) {
            let characters: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
            if attributes.len() < MAX_ATTRIBUTES && characters + key.len() + value.len() <= MAX_CHARACTERS {
                attributes.entry(key).or_insert(value);
            }
        }
        Some((service.clone(), first.clone(), Arc::new(attributes.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::Mesh;
    use serde_json::{Value, from_value, json};

    fn registrants_of(node: Value) -> Registrants {
        let mut mesh = Mesh::new("shop", from_value(json!({ "awsName": "shop" })).unwrap());
        mesh.metadata.uid = Some("1".to_owned());
        let mut node = VirtualNode::new("front", from_value(node).unwrap());
        node.metadata.namespace = Some("ns".to_owned());
        registrants(&Snapshot {
            meshes: [Arc::new(Object::new(mesh))].into_iter().collect(),
            virtual_nodes: [Arc::new(Object::new(node))].into_iter().collect(),
            ..Snapshot::default()
        })
    }

    #[test]
    fn a_ready_pod_is_an_instance_as_amazons_controller_makes_it() {
        let registrants = registrants_of(json!({
            "awsName": "front_ns",
            "meshRef": { "name": "shop", "uid": "1" },
            "podSelector": { "matchLabels": { "app": "front" } },
            "listeners": [{ "portMapping": { "port": 8080, "protocol": "http" } }],
            "serviceDiscovery": { "awsCloudMap": {
                "namespaceName": "n", "serviceName": "s", "attributes": [{ "key": "color", "value": "red" }]
            }}
        }));
        let service = ServiceKey { namespace: "n".to_owned(), service: "s".to_owned() };
        assert_eq!(registrants.nodes_of(&service), [("shop".to_owned(), "front_ns".to_owned())].into());
        let other = ServiceKey { service: "other".to_owned(), ..service.clone() };
        assert_eq!(registrants.nodes_of(&other), BTreeSet::new());
        let pod: Pod = from_value(json!({
            "metadata": {
                "name": "front-1", "namespace": "ns",
                "labels": { "app": "front", "topology.kubernetes.io/zone": "us-west-2b" }
            },
            "status": { "podIP": "10.0.0.1", "conditions": [{ "type": "ContainersReady", "status": "True" }] }
        }))
        .unwrap();
        let cluster = ClusterId { uid: "here".to_owned(), arn: None };
        let memberships = registrants.memberships(&pod, "us-west-2", &cluster);
        let [Membership { instance: Some((key, id, attributes)), .. }] = &memberships[..] else {
            panic!("{memberships:?}")
        };
        assert_eq!((&**key, id.as_str()), (&service, "10.0.0.1"));
        assert_eq!(
            json!(**attributes),
            json!({
                "AWS_INSTANCE_IPV4": "10.0.0.1",
                "AWS_INSTANCE_PORT": "8080",
                "AVAILABILITY_ZONE": "us-west-2b",
                "REGION": "us-west-2",
                "app": "front",
                "appmesh.k8s.aws/cluster": "here",
                "appmesh.k8s.aws/mesh": "shop",
                "appmesh.k8s.aws/virtualNode": "front_ns",
                "color": "red",
                "k8s.io/namespace": "ns",
                "k8s.io/pod": "front-1",
                "topology.kubernetes.io/zone": "us-west-2b"
            })
        );
        for (ips, id, v4, v6) in [
            (json!([{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }]), "10.0.0.1", json!("10.0.0.1"), json!("fd00::1")),
            (json!([{ "ip": "fd00::1" }, { "ip": "10.0.0.1" }]), "fd00::1", json!("10.0.0.1"), json!("fd00::1")),
            (json!([{ "ip": "fd00::1" }]), "fd00::1", json!(null), json!("fd00::1")),
        ] {
            let pod: Pod = from_value(json!({
                "metadata": { "name": "front-1", "namespace": "ns", "labels": { "app": "front" } },
                "status": {
                    "podIP": id, "podIPs": ips, "conditions": [{ "type": "ContainersReady", "status": "True" }]
                }
            }))
            .unwrap();
            let memberships = registrants.memberships(&pod, "us-west-2", &cluster);
            let (_, instance, attributes) = memberships[0].instance.as_ref().unwrap();
            let attributes = json!(**attributes);
            assert_eq!(
                (instance.as_str(), &attributes["AWS_INSTANCE_IPV4"], &attributes["AWS_INSTANCE_IPV6"]),
                (id, &v4, &v6)
            );
        }
    }
}
