use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Mesh an object belongs to. Admission fills it in; users may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshReference {
    /// `metadata.name` of the Mesh.
    pub name: String,
    /// `metadata.uid` of the Mesh, so that a new Mesh of the same name is another.
    pub uid: String,
}

/// The VirtualGateway a GatewayRoute belongs to. Admission fills it in; users may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualGatewayReference {
    /// `metadata.namespace` of the VirtualGateway; the GatewayRoute's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `metadata.name` of the VirtualGateway.
    pub name: String,
    /// `metadata.uid` of the VirtualGateway, so that a new one of the same name is another.
    pub uid: String,
}

impl VirtualGatewayReference {
    /// Namespace of the VirtualGateway, seen from an object in `from`.
    pub fn namespace_or<'a>(&'a self, from: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(from)
    }
}

/// A VirtualNode, VirtualService or VirtualRouter, by its name in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// The referring object's own namespace when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `metadata.name`
    pub name: String,
}

impl Reference {
    /// Namespace of the object meant, seen from an object in `from`.
    pub fn namespace_or<'a>(&'a self, from: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(from)
    }
}
