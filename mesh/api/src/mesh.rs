use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::{JsonSchema, transform::RecursiveTransform};
use serde::{Deserialize, Serialize};

use crate::{Condition, schema};

/// A service mesh: which namespaces belong to it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "appmesh.k8s.aws",
    version = "v1beta2",
    kind = "Mesh",
    plural = "meshes",
    status = "MeshStatus",
    derive = "PartialEq",
    category = "all",
    doc = "A service mesh: which namespaces belong to it",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='MeshActive')].status",
        description = "Whether the Mesh is in force"
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='MeshActive')].reason",
        description = "Why it is not, or what it waits for"
    ),
    printcolumn(
        name = "ARN",
        type_ = "string",
        json_path = ".status.meshARN",
        description = "The App Mesh name of this Mesh"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = RecursiveTransform(schema::preserve_unknown_fields))]
pub struct MeshSpec {
    /// Name of the mesh in AWS's terms; the object's own name when absent. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_name: Option<String>,
    /// Namespaces whose VirtualNodes, VirtualServices and VirtualRouters are this mesh's; absent selects none, empty all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// Where applications may go besides their backends; `DROP_ALL` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_filter: Option<EgressFilter>,
    /// How callers find the mesh's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_service_discovery: Option<MeshServiceDiscovery>,
    /// The account that the mesh's ARNs are of, twelve digits, where another account shares it; the cluster's own when
    /// absent. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_owner: Option<String>,
}

/// Where applications may go besides their backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressFilter {
    /// `ALLOW_ALL`: anywhere; `DROP_ALL`: to AWS only.
    #[serde(rename = "type")]
    pub type_: EgressFilterType,
}

/// Value of [`EgressFilter`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the field that holds it says it, and a description would change the schema's shape")]
pub enum EgressFilterType {
    AllowAll,
    #[default]
    DropAll,
}

/// How callers find the pods of a mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshServiceDiscovery {
    /// The addresses of pods that are called: only those of IPv4, or only those of IPv6. When absent those of IPv4, and of
    /// IPv6 where a pod has no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_preference: Option<IpPreference>,
}

/// Value of [`MeshServiceDiscovery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field that holds it says it, and a description would change the schema's shape")]
pub enum IpPreference {
    #[serde(rename = "IPv6_ONLY")]
    V6Only,
    #[serde(rename = "IPv4_ONLY")]
    V4Only,
}

/// What the controller found out about the Mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshStatus {
    /// `arn:<partition>:appmesh:<region>:<account>:mesh/<mesh>`
    #[serde(default, rename = "meshARN", skip_serializing_if = "Option::is_none")]
    pub mesh_arn: Option<String>,
    /// `MeshActive`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// `metadata.generation` that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
