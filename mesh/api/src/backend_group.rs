use kube::CustomResource;
use schemars::{JsonSchema, transform::RecursiveTransform};
use serde::{Deserialize, Serialize};

use crate::{Condition, MeshReference, Reference, schema};

/// VirtualServices that several VirtualNodes call.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "appmesh.k8s.aws",
    version = "v1beta2",
    kind = "BackendGroup",
    namespaced,
    status = "BackendGroupStatus",
    derive = "PartialEq",
    category = "all",
    doc = "VirtualServices that several VirtualNodes call",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='BackendGroupActive')].status",
        description = "Whether the BackendGroup is in force"
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='BackendGroupActive')].reason",
        description = "Why it is not, or what it waits for"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = RecursiveTransform(schema::preserve_unknown_fields))]
pub struct BackendGroupSpec {
    /// The VirtualServices, of this cluster.
    #[serde(default, rename = "virtualservices", skip_serializing_if = "Option::is_none")]
    pub virtual_services: Option<Vec<Reference>>,
    /// The mesh, filled in by admission. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_ref: Option<MeshReference>,
}

/// What the controller found out about the BackendGroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendGroupStatus {
    /// `BackendGroupActive`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// `metadata.generation` that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
