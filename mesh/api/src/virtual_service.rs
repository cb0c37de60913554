use kube::CustomResource;
use schemars::{JsonSchema, transform::RecursiveTransform};
use serde::{Deserialize, Serialize};

use crate::{Condition, MeshReference, Reference, schema};

/// A name that nodes call, and who answers for it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "appmesh.k8s.aws",
    version = "v1beta2",
    kind = "VirtualService",
    namespaced,
    status = "VirtualServiceStatus",
    derive = "PartialEq",
    category = "all",
    doc = "A name that nodes call, and who answers for it",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='VirtualServiceActive')].status",
        description = "Whether the VirtualService is in force"
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='VirtualServiceActive')].reason",
        description = "Why it is not, or what it waits for"
    ),
    printcolumn(
        name = "ARN",
        type_ = "string",
        json_path = ".status.virtualServiceARN",
        description = "The App Mesh name of this VirtualService"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = RecursiveTransform(schema::preserve_unknown_fields))]
pub struct VirtualServiceSpec {
    /// The host name that is called; `<name>.<namespace>` when absent. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_name: Option<String>,
    /// Who answers; nobody when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<VirtualServiceProvider>,
    /// The mesh, filled in by admission. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_ref: Option<MeshReference>,
}

/// Who answers for a VirtualService: a node or a router, exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceProvider {
    /// All requests go to one VirtualNode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_node: Option<VirtualNodeProvider>,
    /// Requests go where a VirtualRouter's routes say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_router: Option<VirtualRouterProvider>,
}

/// A VirtualNode that answers for a VirtualService.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualNodeProvider {
    /// The VirtualNode. Either this or `virtualNodeARN` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_node_ref: Option<Reference>,
    /// The same by its ARN: a VirtualNode of this cluster too.
    #[serde(default, rename = "virtualNodeARN", skip_serializing_if = "Option::is_none")]
    pub virtual_node_arn: Option<String>,
}

/// A VirtualRouter that answers for a VirtualService.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRouterProvider {
    /// The VirtualRouter. Either this or `virtualRouterARN` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_router_ref: Option<Reference>,
    /// The same by its ARN: a VirtualRouter of this cluster too.
    #[serde(default, rename = "virtualRouterARN", skip_serializing_if = "Option::is_none")]
    pub virtual_router_arn: Option<String>,
}

/// What the controller found out about the VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceStatus {
    /// `arn:<partition>:appmesh:<region>:<account>:mesh/<mesh>/virtualService/<name>`
    #[serde(default, rename = "virtualServiceARN", skip_serializing_if = "Option::is_none")]
    pub virtual_service_arn: Option<String>,
    /// `VirtualServiceActive`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// `metadata.generation` that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
