use kube::CustomResource;
use schemars::{JsonSchema, transform::RecursiveTransform};
use serde::{Deserialize, Serialize};

use crate::{
    Condition, HttpMethod, HttpPathMatch, HttpQueryParameter, HttpRouteHeader, MeshReference, Reference,
    VirtualGatewayReference, schema,
};

/// Which requests at a VirtualGateway go to which VirtualService.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "appmesh.k8s.aws",
    version = "v1beta2",
    kind = "GatewayRoute",
    namespaced,
    status = "GatewayRouteStatus",
    derive = "PartialEq",
    category = "all",
    doc = "Which requests at a VirtualGateway go to which VirtualService",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='GatewayRouteActive')].status",
        description = "Whether the GatewayRoute is in force"
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='GatewayRouteActive')].reason",
        description = "Why it is not, or what it waits for"
    ),
    printcolumn(
        name = "ARN",
        type_ = "string",
        json_path = ".status.gatewayRouteARN",
        description = "The App Mesh name of this GatewayRoute"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = RecursiveTransform(schema::preserve_unknown_fields))]
pub struct GatewayRouteSpec {
    /// Name in AWS's terms; `<name>_<namespace>` when absent. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_name: Option<String>,
    /// 0 to 1000; the lowest is tried first, routes without a priority last. Of several routes with one priority the most
    /// specific is tried first: by host name, then by path, then by the number of the other conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 0, max = 1000))]
    pub priority: Option<u16>,
    /// For requests at `http` listeners. Exactly one kind of route is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpGatewayRoute>,
    /// For requests at `http2` listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2_route: Option<HttpGatewayRoute>,
    /// For requests at `grpc` listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_route: Option<GrpcGatewayRoute>,
    /// The VirtualGateway, filled in by admission. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_gateway_ref: Option<VirtualGatewayReference>,
    /// The mesh, filled in by admission. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_ref: Option<MeshReference>,
}

/// A gateway's route for HTTP requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGatewayRoute {
    /// Which requests it takes.
    #[serde(rename = "match")]
    pub match_: HttpGatewayRouteMatch,
    /// Where they go.
    pub action: HttpGatewayRouteAction,
}

/// Which HTTP requests a gateway's route takes: those that all of it fits. One of `prefix`, `path` and `hostname` is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGatewayRouteMatch {
    /// What the path begins with; `/` takes every request. It is replaced by `/` unless `action.rewrite` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The path, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<HttpPathMatch>,
    /// Parameters of the query, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10))]
    pub query_parameters: Option<Vec<HttpQueryParameter>>,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<HttpMethod>,
    /// Headers, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10))]
    pub headers: Option<Vec<HttpRouteHeader>>,
    /// The host that is called, without its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<GatewayRouteHostnameMatch>,
    /// The gateway's port; absent, each of the route's protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 0))]
    pub port: Option<u16>,
}

/// A gateway's route for gRPC requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcGatewayRoute {
    /// Which requests it takes.
    #[serde(rename = "match")]
    pub match_: GrpcGatewayRouteMatch,
    /// Where they go.
    pub action: GrpcGatewayRouteAction,
}

/// Which gRPC requests a gateway's route takes: those that all of it fits. One of `serviceName` and `hostname` is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcGatewayRouteMatch {
    /// The service, with its package, such as `shop.v1.Stock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// The host that is called, without its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<GatewayRouteHostnameMatch>,
    /// Metadata, all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10))]
    pub metadata: Option<Vec<HttpRouteHeader>>,
    /// The gateway's port; absent, each of the route's protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 0))]
    pub port: Option<u16>,
}

/// Where a gateway's gRPC requests go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcGatewayRouteAction {
    /// The VirtualService that they go to, whose own routes decide further.
    pub target: GatewayRouteTarget,
    /// What is changed of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<GrpcGatewayRouteRewrite>,
}

/// What is changed of a gRPC request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcGatewayRouteRewrite {
    /// What the host becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<GatewayRouteHostnameRewrite>,
}

/// What a host name must be; exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRouteHostnameMatch {
    /// The whole name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub exact: Option<String>,
    /// What it ends with, such as `.example.com`; `*.example.com` means the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub suffix: Option<String>,
}

/// Where a gateway's HTTP requests go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGatewayRouteAction {
    /// The VirtualService that they go to, whose own routes decide further.
    pub target: GatewayRouteTarget,
    /// What is changed of a request before the target's routes see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<HttpGatewayRouteRewrite>,
}

/// Where a gateway's requests go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRouteTarget {
    /// The VirtualService.
    pub virtual_service: GatewayRouteVirtualService,
    /// The port of the VirtualService's listener; absent, its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 0))]
    pub port: Option<u16>,
}

/// A VirtualService by its name in this cluster or by its ARN; exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRouteVirtualService {
    /// A VirtualService of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_service_ref: Option<Reference>,
    /// A VirtualService of any cluster of the account that shares a Cloud Map namespace.
    #[serde(default, rename = "virtualServiceARN", skip_serializing_if = "Option::is_none")]
    pub virtual_service_arn: Option<String>,
}

/// What is changed of a request. A prefix or a path, not both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGatewayRouteRewrite {
    /// What the matched prefix becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<GatewayRoutePrefixRewrite>,
    /// What the path becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<GatewayRoutePathRewrite>,
    /// What the host becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<GatewayRouteHostnameRewrite>,
}

/// What a matched prefix becomes; one of the two at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRoutePrefixRewrite {
    /// `ENABLED`, the default: `/`; `DISABLED`: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_prefix: Option<DefaultRewrite>,
    /// This, which begins and ends with `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub value: Option<String>,
}

/// What a path becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRoutePathRewrite {
    /// This, which begins with `/`. The query stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub exact: Option<String>,
}

/// What the host of a request becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRouteHostnameRewrite {
    /// `ENABLED`, the default: the target's name; `DISABLED`: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_target_hostname: Option<DefaultRewrite>,
}

/// Whether a default rewrite is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the field that holds it says it, and a description would change the schema's shape")]
pub enum DefaultRewrite {
    Enabled,
    Disabled,
}

/// What the controller found out about the GatewayRoute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRouteStatus {
    /// `arn:<partition>:appmesh:<region>:<account>:mesh/<mesh>/virtualGateway/<gateway>/gatewayRoute/<name>`
    #[serde(default, rename = "gatewayRouteARN", skip_serializing_if = "Option::is_none")]
    pub gateway_route_arn: Option<String>,
    /// `GatewayRouteActive`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// `metadata.generation` that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
