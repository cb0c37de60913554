use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::{JsonSchema, transform::RecursiveTransform};
use serde::{Deserialize, Serialize};

use crate::{Condition, Logging, MeshReference, Protocol, schema};

/// Pods that let requests from outside into the mesh.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "appmesh.k8s.aws",
    version = "v1beta2",
    kind = "VirtualGateway",
    namespaced,
    status = "VirtualGatewayStatus",
    derive = "PartialEq",
    category = "all",
    doc = "Pods that let requests from outside into the mesh",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='VirtualGatewayActive')].status",
        description = "Whether the VirtualGateway is in force"
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='VirtualGatewayActive')].reason",
        description = "Why it is not, or what it waits for"
    ),
    printcolumn(
        name = "PODS",
        type_ = "string",
        json_path = ".status.pods",
        description = "The pods that are ready, of those that the VirtualGateway selects"
    ),
    printcolumn(
        name = "ARN",
        type_ = "string",
        json_path = ".status.virtualGatewayARN",
        description = "The App Mesh name of this VirtualGateway"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = RecursiveTransform(schema::preserve_unknown_fields))]
pub struct VirtualGatewaySpec {
    /// Name in AWS's terms; `<name>_<namespace>` when absent. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_name: Option<String>,
    /// Namespaces whose GatewayRoutes belong to this gateway; absent selects none, empty all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// GatewayRoutes of those namespaces that belong to this gateway; absent or empty selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub gateway_route_selector: Option<LabelSelector>,
    /// Pods of the same namespace that are this gateway, each with a container named `envoy`; absent selects none, empty all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub pod_selector: Option<LabelSelector>,
    /// The ports that the gateway listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listeners: Option<Vec<VirtualGatewayListener>>,
    /// What Envoy writes down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// The mesh, filled in by admission. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_ref: Option<MeshReference>,
}

/// A port that the gateway listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualGatewayListener {
    /// The port and its protocol.
    pub port_mapping: VirtualGatewayPortMapping,
    /// Has no effect: clients of a gateway are outside of the mesh, and load balancers have checks of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<VirtualGatewayHealthCheckPolicy>,
}

/// How callers would try whether a gateway answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualGatewayHealthCheckPolicy {
    /// Answers in a row after which a gateway counts as healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 2, max = 10))]
    pub healthy_threshold: Option<u32>,
    /// Milliseconds from one try to the next.
    #[schemars(with = "i64", range(min = 5000, max = 300_000))]
    pub interval_millis: u32,
    /// What is asked for by `http` and `http2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The listener's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// What is spoken.
    pub protocol: VirtualGatewayProtocol,
    /// Milliseconds until no answer counts as a failure.
    #[schemars(with = "i64", range(min = 2000, max = 60_000))]
    pub timeout_millis: u32,
    /// Failures in a row after which a gateway counts as unhealthy.
    #[schemars(with = "i64", range(min = 2, max = 10))]
    pub unhealthy_threshold: u32,
}

/// A port of a gateway and what is spoken on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualGatewayPortMapping {
    /// 1 to 65535
    #[schemars(with = "i64", range(min = 1, max = 65535))]
    pub port: u16,
    /// Which GatewayRoutes take its requests: those with an `httpRoute`, an `http2Route` or a `grpcRoute`.
    pub protocol: VirtualGatewayProtocol,
}

/// What is spoken on a port of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the protocols' names say it all, and a description would change the schema's shape")]
pub enum VirtualGatewayProtocol {
    Grpc,
    Http,
    Http2,
}

impl From<VirtualGatewayProtocol> for Protocol {
    fn from(protocol: VirtualGatewayProtocol) -> Self {
        match protocol {
            VirtualGatewayProtocol::Grpc => Self::Grpc,
            VirtualGatewayProtocol::Http => Self::Http,
            VirtualGatewayProtocol::Http2 => Self::Http2,
        }
    }
}

/// What the controller found out about the VirtualGateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualGatewayStatus {
    /// `arn:<partition>:appmesh:<region>:<account>:mesh/<mesh>/virtualGateway/<name>`
    #[serde(default, rename = "virtualGatewayARN", skip_serializing_if = "Option::is_none")]
    pub virtual_gateway_arn: Option<String>,
    /// `VirtualGatewayActive`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// How many of the pods that it selects are ready, such as `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// `metadata.generation` that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
