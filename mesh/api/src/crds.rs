//! The CRDs as the chart ships them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{Mesh, VirtualNode, VirtualRouter, VirtualService};

/// The four CRDs, in the order of the chart's file.
pub fn all() -> [CustomResourceDefinition; 4] {
    [Mesh::crd(), VirtualNode::crd(), VirtualRouter::crd(), VirtualService::crd()]
}
