//! Names the things of a mesh.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// A VirtualNode or VirtualGateway in AWS's terms. It prints as `mesh/<mesh>/virtualNode/<name>` or
/// `mesh/<mesh>/virtualGateway/<name>`, the id that its Envoys show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadName {
    /// `awsName` of the mesh.
    pub mesh: String,
    /// What it is.
    pub kind: WorkloadKind,
    /// Its own `awsName`.
    pub name: String,
}

/// The kinds that have Envoys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the kinds' names say it all")]
pub enum WorkloadKind {
    VirtualNode,
    VirtualGateway,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mesh, kind, name } = self;
        let kind = match kind {
            WorkloadKind::VirtualNode => "virtualNode",
            WorkloadKind::VirtualGateway => "virtualGateway",
        };
        write!(f, "mesh/{mesh}/{kind}/{name}")
    }
}

impl Serialize for WorkloadName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An object of Kubernetes. It prints as `virtualnode shop/front`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectKey {
    /// Such as `VirtualNode`.
    pub kind: Cow<'static, str>,
    /// Empty for a Mesh.
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        let kind = kind.to_lowercase();
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

/// A Cloud Map service by name. It prints as its DNS name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    /// Name of its namespace.
    pub namespace: String,
    /// Its own name.
    pub service: String,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.namespace)
    }
}

/// A VirtualService of another cluster: where its routes are looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct VirtualServiceKey {
    /// Name of the Cloud Map namespace, that of the VirtualNode which calls it.
    pub namespace: String,
    /// `arn:<partition>:appmesh:<region>:<account>:mesh/<mesh>/virtualService/<host>`
    pub arn: String,
}

impl fmt::Display for VirtualServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.arn, self.namespace)
    }
}

/// The account and region whose mesh is served here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `aws`, `aws-cn`, `aws-us-gov`
    pub partition: String,
    /// Such as `us-west-2`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
}

/// A cluster of Kubernetes, as others tell it apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterId {
    /// uid of its namespace kube-system: no two clusters share it, and a cluster made again under its name has another.
    pub uid: String,
    /// ARN of the EKS cluster, if the chart names it: a cluster made again under its name has the same.
    pub arn: Option<String>,
}
