use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::{JsonSchema, transform::RecursiveTransform};
use serde::{Deserialize, Serialize};

use crate::{
    BackendDefaults, ClientPolicy, Condition, ConnectionPool, ListenerTimeout, ListenerTls, Logging, MeshReference,
    OutlierDetection, PortMapping, Protocol, Reference, schema,
};

/// A set of pods: how they are found, what they listen on, whom they call.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "appmesh.k8s.aws",
    version = "v1beta2",
    kind = "VirtualNode",
    namespaced,
    status = "VirtualNodeStatus",
    derive = "PartialEq",
    category = "all",
    doc = "A set of pods: how they are found, what they listen on, whom they call",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='VirtualNodeActive')].status",
        description = "Whether the VirtualNode is in force"
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='VirtualNodeActive')].reason",
        description = "Why it is not, or what it waits for"
    ),
    printcolumn(
        name = "PODS",
        type_ = "string",
        json_path = ".status.pods",
        description = "The pods that are ready, of those that the VirtualNode selects"
    ),
    printcolumn(
        name = "ARN",
        type_ = "string",
        json_path = ".status.virtualNodeARN",
        description = "The App Mesh name of this VirtualNode"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = RecursiveTransform(schema::preserve_unknown_fields))]
pub struct VirtualNodeSpec {
    /// Name in AWS's terms; `<name>_<namespace>` when absent. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_name: Option<String>,
    /// Pods of the same namespace that are this node; absent selects none, empty all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub pod_selector: Option<LabelSelector>,
    /// What the pods listen on, each port once. Cloud Map instances carry the port of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listeners: Option<Vec<Listener>>,
    /// How callers find the pods; required with listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_discovery: Option<ServiceDiscovery>,
    /// What Envoy writes down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// How backends are called that have no client policy of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_defaults: Option<BackendDefaults>,
    /// The VirtualServices these pods call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<Backend>>,
    /// Groups of VirtualServices that these pods call too; the name `*` is every VirtualService of the namespace, also those
    /// to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_groups: Option<Vec<Reference>>,
    /// The mesh, filled in by admission. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_ref: Option<MeshReference>,
}

/// A port the pods listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The port and its protocol.
    pub port_mapping: PortMapping,
    /// How callers try whether a pod answers there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckPolicy>,
    /// Whether callers must speak TLS, and what certificates both sides show; plaintext only when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// How long the application may take; without end when absent, as callers have timeouts of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<ListenerTimeout>,
    /// How much at once Envoy lets through to the application; without limits when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
    /// When callers leave out a pod for a while; when absent, after five connections in a row that fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
}

/// How callers try whether a pod answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckPolicy {
    /// Answers in a row after which a pod is called again.
    #[schemars(with = "i64", range(min = 2, max = 10))]
    pub healthy_threshold: u32,
    /// Milliseconds from one try to the next.
    #[schemars(with = "i64", range(min = 5000, max = 300_000))]
    pub interval_millis: u32,
    /// What is asked for by `http` and `http2`; `/` when absent. A status of 200 is an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The listener's port; it can be no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// `http` and `http2` send a request, `grpc` calls the method Check of gRPC's health service, which the listener's own
    /// protocol `grpc` or `http2` is needed for; for `tcp` a connection is an answer.
    pub protocol: Protocol,
    /// Milliseconds until no answer counts as a failure.
    #[schemars(with = "i64", range(min = 2000, max = 60_000))]
    pub timeout_millis: u32,
    /// Failures in a row after which a pod is called no more.
    #[schemars(with = "i64", range(min = 2, max = 10))]
    pub unhealthy_threshold: u32,
}

/// How callers find the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDiscovery {
    /// Through Cloud Map, from every cluster. Either this or `dns` is needed.
    #[serde(default, rename = "awsCloudMap", skip_serializing_if = "Option::is_none")]
    pub aws_cloud_map: Option<AwsCloudMapServiceDiscovery>,
    /// By a DNS name, from where it resolves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsServiceDiscovery>,
}

/// A DNS name that leads to the pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnsServiceDiscovery {
    /// The name, such as that of a Kubernetes Service.
    #[schemars(length(min = 1, max = 255))]
    pub hostname: String,
    /// What stands behind its addresses; `LOADBALANCER` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_type: Option<DnsResponseType>,
}

/// `LOADBALANCER`: connections go to the first; `ENDPOINTS`: each is a pod, and they share the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "a description of each would change the schema's shape")]
pub enum DnsResponseType {
    Loadbalancer,
    Endpoints,
}

/// Where in Cloud Map the pods are registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsCloudMapServiceDiscovery {
    /// Name of a private DNS or HTTP namespace, 1 to 1024 characters.
    #[schemars(length(min = 1, max = 1024))]
    pub namespace_name: String,
    /// Name of the service in it, 1 to 1024 characters.
    #[schemars(length(min = 1, max = 1024))]
    pub service_name: String,
    /// Attributes that an instance must have to be of this node; the pods are registered with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Vec<AwsCloudMapAttribute>>,
}

/// One attribute of a Cloud Map instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsCloudMapAttribute {
    /// 1 to 255 characters
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// 1 to 1024 characters
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// Something the pods call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The VirtualService they call.
    pub virtual_service: VirtualServiceBackend,
}

/// A VirtualService by its name in this cluster or by its ARN; exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceBackend {
    /// A VirtualService of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_service_ref: Option<Reference>,
    /// A VirtualService of any cluster of the account that shares a Cloud Map namespace.
    #[serde(default, rename = "virtualServiceARN", skip_serializing_if = "Option::is_none")]
    pub virtual_service_arn: Option<String>,
    /// How it is called, in place of the one in `backendDefaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_policy: Option<ClientPolicy>,
}

/// What the controller found out about the VirtualNode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualNodeStatus {
    /// `arn:<partition>:appmesh:<region>:<account>:mesh/<mesh>/virtualNode/<name>`
    #[serde(default, rename = "virtualNodeARN", skip_serializing_if = "Option::is_none")]
    pub virtual_node_arn: Option<String>,
    /// `VirtualNodeActive`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// How many of the pods that it selects are ready, such as `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// `metadata.generation` that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
