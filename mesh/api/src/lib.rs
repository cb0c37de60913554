//! The App Mesh custom resources (`appmesh.k8s.aws/v1beta2`): their Rust types, from which the chart's CRDs are
//! generated, and the names that the mesh derives from them.
//!
//! Field names and bounds are those of the App Mesh controller for Kubernetes. Only fields that crossmesh supports
//! are typed; the schemas keep every other field of a spec, so that admission sees it: it refuses one that is in
//! [`fields`] by name, and warns of any other.

#![expect(clippy::duplicated_attributes, reason = "each column of a kind has a type")]

pub mod arn;
mod backend_group;
mod client_policy;
mod condition;
pub mod crds;
mod duration;
pub mod fields;
mod gateway_route;
mod grpc_route;
mod http_route;
pub mod ignored;
mod listener;
mod logging;
mod mesh;
mod object;
mod port;
mod reference;
mod schema;
mod tcp_route;
mod tls;
mod virtual_gateway;
mod virtual_node;
mod virtual_router;
mod virtual_service;

pub use arn::Arn;
pub use backend_group::{BackendGroup, BackendGroupSpec, BackendGroupStatus};
pub use client_policy::{BackendDefaults, ClientPolicy, ClientPolicyTls};
pub use condition::Condition;
pub use duration::{Duration, DurationUnit};
pub use gateway_route::{
    DefaultRewrite, GatewayRoute, GatewayRouteHostnameMatch, GatewayRouteHostnameRewrite, GatewayRoutePathRewrite,
    GatewayRoutePrefixRewrite, GatewayRouteSpec, GatewayRouteStatus, GatewayRouteTarget, GatewayRouteVirtualService,
    GrpcGatewayRoute, GrpcGatewayRouteAction, GrpcGatewayRouteMatch, GrpcGatewayRouteRewrite, HttpGatewayRoute,
    HttpGatewayRouteAction, HttpGatewayRouteMatch, HttpGatewayRouteRewrite,
};
pub use grpc_route::{GrpcRetryEvent, GrpcRetryPolicy, GrpcRoute, GrpcRouteMatch};
pub use http_route::{
    HeaderMatchMethod, HttpMethod, HttpPathMatch, HttpQueryParameter, HttpRetryEvent, HttpRetryPolicy, HttpRoute,
    HttpRouteHeader, HttpRouteMatch, HttpScheme, HttpTimeout, MatchRange, QueryMatchMethod, RouteAction, TcpRetryEvent,
    WeightedTarget,
};
pub use listener::{ConnectionPool, HttpPool, ListenerTimeout, OutlierDetection, RequestPool, RequestTimeout, TcpPool};
pub use logging::{AccessLog, FileAccessLog, JsonFormatField, Logging, LoggingFormat};
pub use mesh::{EgressFilter, EgressFilterType, IpPreference, Mesh, MeshServiceDiscovery, MeshSpec, MeshStatus};
pub use object::{MeshMember, MeshObject};
pub use port::{PortMapping, Protocol};
pub use reference::{MeshReference, Reference, VirtualGatewayReference};
pub use tcp_route::{TcpRoute, TcpRouteMatch, TcpTimeout};
pub use tls::{
    AcmCertificate, AcmTrust, ClientCertificate, ClientValidation, FileCertificate, FileTrust, ListenerCertificate,
    ListenerTls, ListenerValidation, SdsSecret, SubjectAlternativeNameMatch, SubjectAlternativeNames, TlsMode, Trust,
};
pub use virtual_gateway::{
    VirtualGateway, VirtualGatewayConnectionPool, VirtualGatewayHealthCheckPolicy, VirtualGatewayListener,
    VirtualGatewayPortMapping, VirtualGatewayProtocol, VirtualGatewaySpec, VirtualGatewayStatus,
};
pub use virtual_node::{
    AwsCloudMapAttribute, AwsCloudMapServiceDiscovery, Backend, DnsResponseType, DnsServiceDiscovery,
    HealthCheckPolicy, Listener, ServiceDiscovery, VirtualNode, VirtualNodeSpec, VirtualNodeStatus,
    VirtualServiceBackend,
};
pub use virtual_router::{Route, VirtualRouter, VirtualRouterListener, VirtualRouterSpec, VirtualRouterStatus};
pub use virtual_service::{
    VirtualNodeProvider, VirtualRouterProvider, VirtualService, VirtualServiceProvider, VirtualServiceSpec,
    VirtualServiceStatus,
};
