//! Lists the kinds of App Mesh, once for everything that handles each of them alike.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use mesh_api::{BackendGroup, GatewayRoute, Mesh, VirtualGateway, VirtualNode, VirtualRouter, VirtualService};

/// Calls a macro with the kinds: `field: Kind` for each, a field being the plural that the API server knows, in snake case.
macro_rules! with_kinds {
    ($then:ident) => {
        $then! {
            meshes: Mesh,
            virtual_nodes: VirtualNode,
            virtual_routers: VirtualRouter,
            virtual_services: VirtualService,
            backend_groups: BackendGroup,
            virtual_gateways: VirtualGateway,
            gateway_routes: GatewayRoute,
        }
    };
}
pub(crate) use with_kinds;

/// A kind that selects others by their labels, or selects nothing.
pub trait Selecting: Resource<DynamicType = ()> {
    /// Its selector: of namespaces for a Mesh, of pods for a VirtualNode or VirtualGateway.
    fn selector(&self) -> Option<&LabelSelector> {
        None
    }
}

impl Selecting for Mesh {
    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.namespace_selector.as_ref()
    }
}

impl Selecting for VirtualNode {
    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.pod_selector.as_ref()
    }
}

impl Selecting for VirtualGateway {
    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.pod_selector.as_ref()
    }
}

impl Selecting for BackendGroup {}
impl Selecting for GatewayRoute {}
impl Selecting for VirtualRouter {}
impl Selecting for VirtualService {}
