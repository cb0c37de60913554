//! Holds where pods are reached: the instances of a Cloud Map service, with the ids and attributes that Amazon's controller
//! gives them, so that either controller's callers find the other's pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{ClusterId, IpPreference, PackedMap};

/// Attributes of an instance: up to 30, keys up to 255 and values up to 1024 characters, 5000 in all.
pub type Attributes = PackedMap;

/// Instances of a Cloud Map service, by id. One instance is shared by all who know it.
pub type Instances = BTreeMap<String, Arc<Attributes>>;

/// The pod's address.
pub const IPV4: &str = "AWS_INSTANCE_IPV4";
/// The pod's address, of the other family.
pub const IPV6: &str = "AWS_INSTANCE_IPV6";
/// The port of the VirtualNode's first listener.
pub const PORT: &str = "AWS_INSTANCE_PORT";
/// The pod's name.
pub const POD: &str = "k8s.io/pod";
/// The pod's namespace.
pub const NAMESPACE: &str = "k8s.io/namespace";
/// Name of the mesh in AWS's terms.
pub const MESH: &str = "appmesh.k8s.aws/mesh";
/// Name of the VirtualNode in AWS's terms.
pub const VIRTUAL_NODE: &str = "appmesh.k8s.aws/virtualNode";
/// The availability zone of the pod's node.
pub const ZONE: &str = "AVAILABILITY_ZONE";
/// uid of the cluster that registered the instance. Upstream has no such attribute: it tells apart the same VirtualNode
/// of two clusters. Instances of other clusters are never removed, and those that name none only as [`is_left`] says.
pub const CLUSTER: &str = "appmesh.k8s.aws/cluster";
/// ARN of the EKS cluster that registered the instance.
pub const CLUSTER_ARN: &str = "appmesh.k8s.aws/clusterARN";

/// Where callers reach an instance.
pub fn address(attributes: &Attributes, preference: Option<IpPreference>) -> Option<&str> {
    let (v4, v6) = (attributes.get(IPV4), attributes.get(IPV6));
    match preference {
        None => v4.or(v6),
        Some(IpPreference::V4Only) => v4,
        Some(IpPreference::V6Only) => v6,
    }
}

/// The pod that an instance is, by namespace and name.
pub fn pod_of(attributes: &Attributes) -> Option<(String, String)> {
    Some((attributes.get(NAMESPACE)?.to_owned(), attributes.get(POD)?.to_owned()))
}

/// Whether Amazon's controller has registered an instance of one of these VirtualNodes, by mesh and name. It names no
/// cluster, and takes all such instances for its own.
pub fn is_left(attributes: &Attributes, nodes: &BTreeSet<(String, String)>) -> bool {
    let node = || Some((attributes.get(MESH)?.to_owned(), attributes.get(VIRTUAL_NODE)?.to_owned()));
    !attributes.contains_key(CLUSTER) && node().is_some_and(|node| nodes.contains(&node))
}

/// Whether an instance is of this cluster, or of one of the same ARN that is no more.
pub fn is_of(attributes: &Attributes, cluster: &ClusterId) -> bool {
    let same_arn = || cluster.arn.is_some() && attributes.get(CLUSTER_ARN) == cluster.arn.as_deref();
    attributes.get(CLUSTER).is_some_and(|uid| uid == cluster.uid || same_arn())
}
