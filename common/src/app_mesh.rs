//! Names App Mesh's kinds, and the controller that serves them.

/// The group of the kinds.
pub const GROUP: &str = "appmesh.k8s.aws";

/// The version of the group.
pub const VERSION: &str = "v1beta2";

/// The kind that others belong to.
pub const MESH: &str = "Mesh";

/// The kinds that belong to a mesh, with their plurals.
pub const MEMBERS: [(&str, &str); 5] = [
    ("VirtualNode", "virtualnodes"),
    ("VirtualRouter", "virtualrouters"),
    ("VirtualService", "virtualservices"),
    ("VirtualGateway", "virtualgateways"),
    ("GatewayRoute", "gatewayroutes"),
];

/// Name of the controller's chart, release and service account, unless others are given.
pub const CONTROLLER: &str = "appmesh-controller";

/// Namespace of the controller, unless another is given.
pub const NAMESPACE: &str = "appmesh-system";

/// The condition by which an object of this kind says that it works; `None` for the kinds of others.
pub fn condition(group: &str, kind: &str) -> Option<String> {
    let known = kind == MESH || MEMBERS.iter().any(|(member, _)| *member == kind);
    (group == GROUP && known).then(|| format!("{kind}Active"))
}
