use kube::{Resource, ResourceExt};

use crate::{
    BackendGroup, Condition, GatewayRoute, Mesh, MeshReference, VirtualGateway, VirtualNode, VirtualRouter,
    VirtualService,
};

/// What the kinds have in common.
pub trait MeshObject: Resource<DynamicType = ()> + Sized {
    /// Type of the condition that says whether the object is in force.
    const ACTIVE: &'static str;
    /// Name of the field of the status that holds the ARN; none for what App Mesh itself did not know.
    const ARN_FIELD: Option<&'static str>;

    /// `spec.awsName` as it stands.
    fn given_aws_name(&self) -> Option<&str>;
    /// What admission fills in for an absent `spec.awsName` of an object of that name and namespace.
    fn default_aws_name(name: &str, namespace: &str) -> String;
    /// `status.conditions`
    fn conditions(&self) -> &[Condition];
    /// The ARN in the status.
    fn arn(&self) -> Option<&str>;
    /// `status.observedGeneration`
    fn observed_generation(&self) -> Option<i64>;

    /// The object's name in AWS's terms.
    fn aws_name(&self) -> String {
        let given = self.given_aws_name().map(str::to_owned);
        given.unwrap_or_else(|| Self::default_aws_name(&self.name_any(), &self.namespace().unwrap_or_default()))
    }
}

/// A namespaced object that belongs to a Mesh.
pub trait MeshMember: MeshObject {
    /// `spec.meshRef`
    fn mesh_ref(&self) -> Option<&MeshReference>;
}

macro_rules! mesh_object {
    ($kind:ident, $active:literal, $arn_field:literal, $arn:ident, |$name:pat_param, $namespace:pat_param| $default:expr) => {
        impl MeshObject for $kind {
            const ACTIVE: &'static str = $active;
            const ARN_FIELD: Option<&'static str> = Some($arn_field);

            fn given_aws_name(&self) -> Option<&str> {
                self.spec.aws_name.as_deref()
            }

            fn default_aws_name($name: &str, $namespace: &str) -> String {
                $default
            }

            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
            }

            fn arn(&self) -> Option<&str> {
                self.status.as_ref().and_then(|status| status.$arn.as_deref())
            }

            fn observed_generation(&self) -> Option<i64> {
                self.status.as_ref().and_then(|status| status.observed_generation)
            }
        }
    };
}

macro_rules! mesh_member {
    ($($kind:ident),+) => {$(
        impl MeshMember for $kind {
            fn mesh_ref(&self) -> Option<&MeshReference> {
                self.spec.mesh_ref.as_ref()
            }
        }
    )+};
}

mesh_object!(Mesh, "MeshActive", "meshARN", mesh_arn, |name, _| name.to_owned());
mesh_object!(VirtualNode, "VirtualNodeActive", "virtualNodeARN", virtual_node_arn, |name, namespace| {
    format!("{name}_{namespace}")
});
mesh_object!(VirtualRouter, "VirtualRouterActive", "virtualRouterARN", virtual_router_arn, |name, namespace| {
    format!("{name}_{namespace}")
});
mesh_object!(VirtualService, "VirtualServiceActive", "virtualServiceARN", virtual_service_arn, |name, namespace| {
    format!("{name}.{namespace}")
});
mesh_object!(VirtualGateway, "VirtualGatewayActive", "virtualGatewayARN", virtual_gateway_arn, |name, namespace| {
    format!("{name}_{namespace}")
});
mesh_object!(GatewayRoute, "GatewayRouteActive", "gatewayRouteARN", gateway_route_arn, |name, namespace| {
    format!("{name}_{namespace}")
});
mesh_member!(BackendGroup, VirtualNode, VirtualRouter, VirtualService, VirtualGateway, GatewayRoute);

/// It is of Kubernetes alone: in AWS's terms a VirtualNode had its VirtualServices one by one.
impl MeshObject for BackendGroup {
    const ACTIVE: &'static str = "BackendGroupActive";
    const ARN_FIELD: Option<&'static str> = None;

    fn given_aws_name(&self) -> Option<&str> {
        None
    }

    fn default_aws_name(name: &str, namespace: &str) -> String {
        format!("{name}_{namespace}")
    }

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
    }

    fn arn(&self) -> Option<&str> {
        None
    }

    fn observed_generation(&self) -> Option<i64> {
        self.status.as_ref().and_then(|status| status.observed_generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_default_as_upstream() {
        let mut node = VirtualNode::new("front", Default::default());
        let mut service = VirtualService::new("colorapp", Default::default());
        node.metadata.namespace = Some("k8multi".to_owned());
        service.metadata.namespace = Some("k8multi".to_owned());
        assert_eq!(Mesh::new("k8multi", Default::default()).aws_name(), "k8multi");
        assert_eq!(node.aws_name(), "front_k8multi");
        assert_eq!(VirtualGateway::default_aws_name("ingress", "k8multi"), "ingress_k8multi");
        assert_eq!(GatewayRoute::default_aws_name("color", "k8multi"), "color_k8multi");
        assert_eq!(service.aws_name(), "colorapp.k8multi");
        service.spec.aws_name = Some("colorapp.k8multi.svc.cluster.local".to_owned());
        assert_eq!(service.aws_name(), "colorapp.k8multi.svc.cluster.local");
    }
}
