//! The CRDs as the chart ships them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{BackendGroup, Mesh, VirtualNode, VirtualRouter, VirtualService};

/// The CRDs, in the order of the chart's file.
pub fn all() -> [CustomResourceDefinition; 5] {
    [Mesh::crd(), VirtualNode::crd(), VirtualRouter::crd(), VirtualService::crd(), BackendGroup::crd()]
}
