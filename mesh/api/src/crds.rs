//! The CRDs as the chart ships them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{BackendGroup, GatewayRoute, Mesh, VirtualGateway, VirtualNode, VirtualRouter, VirtualService};

/// The CRDs, in the order of the chart's file.
pub fn all() -> [CustomResourceDefinition; 7] {
    [
        Mesh::crd(),
        VirtualNode::crd(),
        VirtualRouter::crd(),
        VirtualService::crd(),
        BackendGroup::crd(),
        VirtualGateway::crd(),
        GatewayRoute::crd(),
    ]
}
