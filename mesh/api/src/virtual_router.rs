use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::{JsonSchema, transform::RecursiveTransform};
use serde::{Deserialize, Serialize};

use crate::{Condition, GrpcRoute, HttpRoute, MeshReference, PortMapping, TcpRoute, schema};

/// Which requests go to which VirtualNodes, in what proportions.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "appmesh.k8s.aws",
    version = "v1beta2",
    kind = "VirtualRouter",
    namespaced,
    status = "VirtualRouterStatus",
    derive = "PartialEq",
    category = "all",
    doc = "Which requests go to which VirtualNodes, in what proportions",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='VirtualRouterActive')].status",
        description = "Whether the VirtualRouter is in force"
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='VirtualRouterActive')].reason",
        description = "Why it is not, or what it waits for"
    ),
    printcolumn(
        name = "ARN",
        type_ = "string",
        json_path = ".status.virtualRouterARN",
        description = "The App Mesh name of this VirtualRouter"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = RecursiveTransform(schema::preserve_unknown_fields))]
pub struct VirtualRouterSpec {
    /// Name in AWS's terms; `<name>_<namespace>` when absent. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_name: Option<String>,
    /// The ports that callers use, each once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub listeners: Option<Vec<VirtualRouterListener>>,
    /// Tried in order of priority. Of several routes with one priority the most specific path is tried first: an exact one,
    /// then a regular expression, then a prefix, each time the longest; equal paths in order of appearance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
    /// The mesh, filled in by admission. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_ref: Option<MeshReference>,
}

/// A port that callers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRouterListener {
    /// The port and its protocol.
    pub port_mapping: PortMapping,
}

/// One route of a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Unique in its router.
    pub name: String,
    /// 0 to 1000; the lowest is tried first, routes without a priority last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 0, max = 1000))]
    pub priority: Option<u16>,
    /// For requests of HTTP/1.1. A route has exactly one of `grpcRoute`, `http2Route`, `httpRoute` and `tcpRoute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
    /// For requests of HTTP/2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2_route: Option<HttpRoute>,
    /// For requests of gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_route: Option<GrpcRoute>,
    /// For connections. The first route of a port takes all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_route: Option<TcpRoute>,
}

/// What the controller found out about the VirtualRouter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRouterStatus {
    /// `arn:<partition>:appmesh:<region>:<account>:mesh/<mesh>/virtualRouter/<name>`
    #[serde(default, rename = "virtualRouterARN", skip_serializing_if = "Option::is_none")]
    pub virtual_router_arn: Option<String>,
    /// ARN of each route, by the route's name.
    #[serde(default, rename = "routeARNs", skip_serializing_if = "Option::is_none")]
    pub route_arns: Option<BTreeMap<String, String>>,
    /// `VirtualRouterActive`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// `metadata.generation` that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
