//! Holds a mesh that stands, or manifests of one, as far as it could be looked at. What is `None` could not be, or was not.

use crate::world::Fault;
use anyhow::{Context as _, Result};
use common::app_mesh::CONTROLLER;
use common::aws::network::Apart;
use common::cluster::Cluster;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, PodTemplateSpec, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt as _};
use mesh_api::{
    BackendGroup, GatewayRoute, Mesh, VirtualGateway, VirtualNode, VirtualRouter, VirtualService, fields, ignored,
};
use mesh_objects::{ClusterObjects, Labels};
use pod_role::Agent;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Whose label or annotation says whether pods get a sidecar.
pub const INJECTION: &str = "appmesh.k8s.aws/sidecarInjectorWebhook";
/// The sidecar's container.
pub const ENVOY: &str = "envoy";
/// The container that redirects a pod's traffic.
pub const INIT: &str = "proxyinit";

/// A mesh, with all clusters that are looked at.
#[derive(Debug)]
pub struct Scene {
    pub sides: Vec<Side>,
    /// Cloud Map, as far as the mesh uses it.
    pub cloud_map: Option<CloudMap>,
    /// The VPCs of the first two clusters, if they are two, and what joins them.
    pub apart: Option<Apart>,
    pub now: Timestamp,
}

/// A cluster, or manifests.
#[derive(Debug, Default)]
pub struct Side {
    pub name: String,
    /// None of manifests.
    pub facts: Option<Cluster>,
    pub objects: ClusterObjects,
    /// Objects that do not parse, and why.
    pub unreadable: Vec<(String, String)>,
    /// Fields that the controller does not know: of which object, the path, and whether App Mesh knew it.
    pub ignored: Vec<(String, String, bool)>,
    /// uid of the namespace kube-system, by which Cloud Map's instances name the cluster.
    pub uid: Option<String>,
    pub pods: Option<Vec<Pod>>,
    pub services: Option<Vec<Service>>,
    pub nodes: Option<Vec<Node>>,
    /// What makes pods.
    pub templates: Vec<Template>,
    pub deployments: Option<Vec<Deployment>>,
    pub definitions: Option<Vec<CustomResourceDefinition>>,
    pub mutating: Option<Vec<MutatingWebhookConfiguration>>,
    pub validating: Option<Vec<ValidatingWebhookConfiguration>>,
    /// What belongs to the controller's Deployment.
    pub around: Around,
    pub identity: Option<Identity>,
    /// Security groups of the nodes, by the ids of their instances.
    pub groups: Option<BTreeMap<String, BTreeSet<String>>>,
    /// The ingress rules of these groups.
    pub rules: Option<Vec<Rule>>,
    /// What could not be looked at, and why.
    pub unseen: Vec<(String, Fault)>,
}

/// What makes pods.
#[derive(Debug)]
pub struct Template {
    /// `Deployment web/front`
    pub object: String,
    pub namespace: String,
    pub template: PodTemplateSpec,
    /// Why its pods cannot be made.
    pub failure: Option<String>,
}

/// What belongs to a controller.
#[derive(Debug, Default)]
pub struct Around {
    pub account: Option<Option<ServiceAccount>>,
    pub lease: Option<Option<Lease>>,
    pub certificate: Option<Option<Secret>>,
    pub slices: Option<Vec<EndpointSlice>>,
    /// Revision and state of the Helm release's newest revision; none if Helm did not install it.
    pub release: Option<Option<(u32, String)>>,
    /// Samples of each replica's metrics, by its pod.
    pub metrics: Option<BTreeMap<String, Vec<Sample>>>,
}

/// One line of metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// How the controller's pods get their role.
#[derive(Debug, Default)]
pub struct Identity {
    /// The audiences of the identity provider of the cluster's issuer; none if there is no such provider.
    pub audiences: Option<Option<Vec<String>>>,
    /// The association of the service account, with its role.
    pub association: Option<Option<String>>,
    pub agent: Option<Agent>,
    /// The role that the service account names, or its association does.
    pub role: Option<Option<Role>>,
}

/// A role of IAM.
#[derive(Debug, Default, Clone)]
pub struct Role {
    /// Its trust policy.
    pub trust: Value,
    /// ARNs of managed policies.
    pub attached: Vec<String>,
    /// Inline policies by name.
    pub inline: BTreeMap<String, Value>,
}

/// A rule that lets somebody in.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    pub id: String,
    pub group: String,
    /// `tcp`, `-1` for all, …
    pub protocol: String,
    pub ports: (i32, i32),
    /// The group that is let in.
    pub source: Option<String>,
    /// The addresses that are let in.
    pub addresses: Option<String>,
    /// The state of the peering that it goes through, if that is not active.
    pub broken: Option<String>,
}

/// Cloud Map, as far as the mesh uses it.
#[derive(Debug, Default)]
pub struct CloudMap {
    /// The namespaces of the names that the mesh uses.
    pub namespaces: Vec<Namespace>,
    /// EKS clusters, by ARN, that instances name and that are no more.
    pub gone: BTreeSet<String>,
}

/// A Cloud Map namespace.
#[derive(Debug, Clone, Default)]
pub struct Namespace {
    pub id: String,
    pub name: String,
    /// The VPCs that see it; none of one of type HTTP.
    pub vpcs: Option<Vec<String>>,
    /// The instances of its services, by name, each by its id.
    pub services: BTreeMap<String, BTreeMap<String, Attributes>>,
}

/// The attributes of an instance.
pub type Attributes = BTreeMap<String, String>;

/// A pod, or what makes some: who a selector may select.
pub struct Member<'a> {
    pub object: String,
    pub namespace: &'a str,
    pub labels: &'a Labels,
}

impl Side {
    /// An empty one.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), objects: ClusterObjects::new(name), ..Self::default() }
    }

    /// `cluster shop`, or what the manifests are called.
    pub fn label(&self) -> String {
        if self.facts.is_some() { format!("cluster {}", self.name) } else { self.name.clone() }
    }

    /// `VirtualNode web/front of cluster shop`
    pub fn object<K: Resource<DynamicType = ()>>(&self, object: &K) -> String {
        let place = object.meta().namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"));
        format!("{} {place}{} of {}", K::kind(&()), object.name_any(), self.label())
    }

    /// Takes an object as a manifest or the API server has it. One that does not parse is remembered as such.
    pub fn add(&mut self, object: Value) {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let given = text("/metadata/namespace");
        let namespace = if given.is_empty() && kind != "Mesh" { "default".to_owned() } else { given };
        let slash = if namespace.is_empty() { "" } else { "/" };
        let label = format!("{kind} {namespace}{slash}{name} of {}", self.label());
        let taken = self.take(&version, &kind, &label, &namespace, object);
        if let Err(error) = taken {
            self.unreadable.push((label, format!("{:#}", error.root_cause())));
        }
    }

    fn take(&mut self, version: &str, kind: &str, label: &str, namespace: &str, mut object: Value) -> Result<()> {
        if version == "appmesh.k8s.aws/v1beta2" {
            let lost = match kind {
                "Mesh" => lost::<Mesh>(&object),
                "VirtualNode" => lost::<VirtualNode>(&object),
                "VirtualRouter" => lost::<VirtualRouter>(&object),
                "VirtualService" => lost::<VirtualService>(&object),
                "BackendGroup" => lost::<BackendGroup>(&object),
                "VirtualGateway" => lost::<VirtualGateway>(&object),
                "GatewayRoute" => lost::<GatewayRoute>(&object),
                _ => Vec::new(),
            };
            let lost = lost.into_iter().map(|(path, known)| (label.to_owned(), path, known));
            self.ignored.extend(lost);
        }
        if version == "v1" && kind == "Service" {
            object["metadata"]["namespace"] = namespace.into();
            let service = serde_json::from_value(object).context("read a Service")?;
            self.services.get_or_insert_default().push(service);
            return Ok(());
        }
        if let ("Deployment" | "StatefulSet" | "DaemonSet" | "Rollout", Some(template)) =
            (kind, object.pointer("/spec/template"))
        {
            let template = serde_json::from_value(template.clone()).context("spec.template")?;
            let (object, namespace) = (label.to_owned(), namespace.to_owned());
            self.templates.push(Template { object, namespace, template, failure: None });
        }
        self.objects.add(object)
    }

    /// The pods, or what will make some; none if neither is known.
    pub fn members(&self) -> Option<Vec<Member<'_>>> {
        static NONE: Labels = Labels::new();
        if let Some(pods) = &self.pods {
            let members = pods.iter().filter(|pod| alive(pod)).map(|pod| Member {
                object: self.object(pod),
                namespace: pod.metadata.namespace.as_deref().unwrap_or_default(),
                labels: pod.metadata.labels.as_ref().unwrap_or(&NONE),
            });
            return Some(members.collect());
        }
        let members = self.templates.iter().map(|template| {
            let labels = template.template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
            Member { object: template.object.clone(), namespace: &template.namespace, labels: labels.unwrap_or(&NONE) }
        });
        (!self.templates.is_empty()).then(|| members.collect())
    }

    /// The pods of a VirtualNode that are not on their way out.
    pub fn pods_of(&self, node: &VirtualNode) -> impl Iterator<Item = &Pod> {
        let namespace = node.namespace();
        let selector = node.spec.pod_selector.clone();
        self.pods.iter().flatten().filter(move |pod| {
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            pod.metadata.namespace == namespace
                && alive(pod)
                && mesh_objects::selects(selector.as_ref(), Some(&labels), false)
        })
    }

    /// The pods that have a sidecar, or an Envoy of a VirtualGateway.
    pub fn envoys(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().flatten().filter(|pod| alive(pod) && is_envoy(pod))
    }

    /// The Deployments of controllers.
    pub fn controllers(&self) -> Vec<&Deployment> {
        self.deployments.iter().flatten().filter(|deployment| is_controller(deployment)).collect()
    }

    /// The controller, if it is one.
    pub fn controller(&self) -> Option<&Deployment> {
        self.controllers().first().copied()
    }

    /// The controller, if one of its replicas is ready: only then is anything to be expected of it.
    pub fn running(&self) -> Option<&Deployment> {
        self.controller().filter(|deployment| ready(deployment) > 0)
    }

    /// The pods of the controller.
    pub fn controller_pods(&self) -> Vec<&Pod> {
        let Some(controller) = self.controller() else { return Vec::new() };
        let selector = controller.spec.as_ref().map(|spec| &spec.selector);
        let all = self.pods.iter().flatten().filter(|pod| {
            pod.metadata.namespace == controller.metadata.namespace
                && alive(pod)
                && mesh_objects::selects(selector, Some(pod.labels()), false)
        });
        all.collect()
    }

    /// The values of an option of the controller.
    pub fn options(&self, name: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("--{name}=");
        let arguments = self.controller().into_iter().flat_map(arguments);
        arguments.filter_map(move |argument| argument.strip_prefix(prefix.as_str()))
    }

    /// `appmesh-system/appmesh-controller`, the controller's service account.
    pub fn account(&self) -> Option<(String, String)> {
        let controller = self.controller()?;
        let name = controller.spec.as_ref()?.template.spec.as_ref()?.service_account_name.clone();
        Some((controller.namespace()?, name.unwrap_or_else(|| "default".to_owned())))
    }
}

/// Whether the pod is to stay.
pub fn alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a pod's condition is True.
pub fn holds(pod: &Pod, condition: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|found| found.type_ == condition && found.status == "True")
}

/// Whether a pod has a container of that name, native sidecars included.
pub fn has_container(pod: &Pod, name: &str) -> bool {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
        .any(|container| container.name == name)
}

/// Whether the pod has an Envoy that the controller configures.
fn is_envoy(pod: &Pod) -> bool {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
        .filter(|container| container.name == ENVOY)
        .any(|container| container.env.iter().flatten().any(|variable| variable.name == WORKLOAD))
}

/// The variable of an Envoy that names its workload.
pub const WORKLOAD: &str = "APPMESH_VIRTUAL_NODE_NAME";

fn is_controller(deployment: &Deployment) -> bool {
    let label = deployment.labels().get("app.kubernetes.io/name");
    label.is_some_and(|name| name == CONTROLLER)
}

/// How many replicas are ready.
pub fn ready(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default()
}

/// The arguments of a Deployment's containers.
fn arguments(deployment: &Deployment) -> impl Iterator<Item = &String> {
    let spec = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    spec.into_iter().flat_map(|spec| &spec.containers).flat_map(|container| container.args.iter().flatten())
}

/// The fields that have no effect or are refused, and whether App Mesh knew them.
fn lost<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(object: &Value) -> Vec<(String, bool)> {
    // One that does not parse is another matter.
    let Ok(parsed) = serde_json::from_value::<K>(object.clone()) else { return Vec::new() };
    let Ok(understood) = serde_json::to_value(&parsed) else { return Vec::new() };
    let paths = ignored::fields("spec", &object["spec"], &understood["spec"]);
    let kind = K::kind(&());
    let known = |path: &str| {
        let path = without_indexes(path.trim_start_matches("spec."));
        let within =
            |field: &str| field == path || field.strip_prefix(&path).is_some_and(|it| it.starts_with(['.', '[']));
        fields::all().any(|(of, field)| of == kind && within(field))
    };
    let mut found: Vec<(String, bool)> = paths.into_iter().map(|path| (path.clone(), known(&path))).collect();
    let mut of_acm = Vec::new();
    certificates("spec", &object["spec"], &mut of_acm);
    found.extend(of_acm.into_iter().map(|path| (path, true)));
    found
}

/// The fields that name a certificate or an authority of AWS Certificate Manager, whose keys only App Mesh had.
fn certificates(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                if name == "acm" && !value.is_null() { found.push(path) } else { certificates(&path, value, found) }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| certificates(&format!("{path}[{at}]"), item, found));
        }
        _ => {}
    }
}

/// `listeners[0].tls` as `listeners[].tls`
fn without_indexes(path: &str) -> String {
    let mut parts = path.split('[');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("[]");
        text.push_str(part.split_once(']').map_or("", |(_, rest)| rest));
    }
    text
}
