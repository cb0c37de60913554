//! Holds the objects of a cluster.

use anyhow::{Context as _, Result};
use common::Error;
use kube::ResourceExt as _;
use mesh_api::{
    BackendGroup, GatewayRoute, Mesh, MeshObject, Reference, VirtualGateway, VirtualNode, VirtualRouter, VirtualService,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// The objects of one cluster, or of the manifests for one.
#[derive(Debug, Default)]
pub struct ClusterObjects {
    /// The cluster's name, or that of its context.
    pub name: String,
    /// All Meshes.
    pub meshes: Vec<Mesh>,
    /// All VirtualGateways.
    pub gateways: Vec<VirtualGateway>,
    /// All GatewayRoutes.
    pub gateway_routes: Vec<GatewayRoute>,
    /// All VirtualNodes.
    pub nodes: Vec<VirtualNode>,
    /// All VirtualServices.
    pub services: Vec<VirtualService>,
    /// All VirtualRouters.
    pub routers: Vec<VirtualRouter>,
    /// All BackendGroups.
    pub groups: Vec<BackendGroup>,
    /// What makes pods, as far as it is known.
    pub workloads: Vec<Workload>,
    /// The labels of those namespaces that are known.
    pub namespaces: BTreeMap<String, Labels>,
}

/// A Deployment, or what else makes a number of equal pods.
#[derive(Debug, PartialEq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// The labels of its pods.
    pub labels: Labels,
    /// How many pods it makes.
    pub replicas: u64,
}

impl ClusterObjects {
    /// A cluster without objects.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Takes an object of a manifest; what does not belong to a mesh is left out. One that comes again replaces the first,
    /// as with `kubectl apply`.
    ///
    /// # Errors
    /// A field has the wrong type.
    pub fn add(&mut self, mut object: Value) -> Result<()> {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
        if version == "v1" && kind == "Namespace" {
            let labels = object.pointer_mut("/metadata/labels").map(Value::take);
            let mut labels: Labels = parse(labels.unwrap_or_else(|| Value::Object(Default::default())))
                .with_context(|| format!("Namespace {name}: metadata.labels"))?;
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
            self.namespaces.insert(name, labels);
            return Ok(());
        }
        if let "Deployment" | "StatefulSet" | "Rollout" = kind.as_str() {
            let labels = object.pointer_mut("/spec/template/metadata/labels").map(Value::take);
            let labels = parse(labels.unwrap_or_else(|| Value::Object(Default::default())))
                .with_context(|| format!("{kind} {name}: spec.template.metadata.labels"))?;
            let replicas = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
            self.workloads.push(Workload { namespace: or_default(namespace), labels, replicas });
            return Ok(());
        }
        if version != "appmesh.k8s.aws/v1beta2" {
            return Ok(());
        }
        if name.is_empty() {
            return Err(Error::input(format!("a {kind} has no metadata.name")).into());
        }
        if kind != "Mesh" {
            object["metadata"]["namespace"] = or_default(namespace).into();
        }
        let taken = match kind.as_str() {
            "Mesh" => put(&mut self.meshes, object),
            "VirtualGateway" => put(&mut self.gateways, object),
            "GatewayRoute" => put(&mut self.gateway_routes, object),
            "VirtualNode" => put(&mut self.nodes, object),
            "VirtualService" => put(&mut self.services, object),
            "VirtualRouter" => put(&mut self.routers, object),
            "BackendGroup" => put(&mut self.groups, object),
            _ => Ok(()),
        };
        taken.with_context(|| format!("read {kind} {name}"))
    }
}

impl ClusterObjects {
    /// The VirtualNodes of the same cluster that the requests for a VirtualService go to.
    pub fn targets(&self, service: &VirtualService) -> Vec<&VirtualNode> {
        let own = service.namespace().unwrap_or_default();
        let Some(provider) = &service.spec.provider else { return Vec::new() };
        let by_node = provider.virtual_node.iter();
        let mut targets: Vec<&VirtualNode> = by_node
            .filter_map(|node| {
                find(&self.nodes, &own, node.virtual_node_ref.as_ref(), node.virtual_node_arn.as_deref())
            })
            .collect();
        let router = provider.virtual_router.as_ref().and_then(|router| {
            find(&self.routers, &own, router.virtual_router_ref.as_ref(), router.virtual_router_arn.as_deref())
        });
        let Some(router) = router else { return targets };
        let own = router.namespace().unwrap_or_default();
        let actions = router.spec.routes.iter().flatten().filter_map(crate::action);
        targets.extend(actions.flat_map(|action| &action.weighted_targets).filter_map(|target| {
            find(&self.nodes, &own, target.virtual_node_ref.as_ref(), target.virtual_node_arn.as_deref())
        }));
        targets.sort_by_key(|node| (node.namespace(), node.name_any()));
        targets.dedup_by_key(|node| (node.namespace(), node.name_any()));
        targets
    }
}

/// The object that a reference, seen from a namespace, or an ARN means.
fn find<'a, K: MeshObject>(
    objects: &'a [K],
    own: &str,
    reference: Option<&Reference>,
    arn: Option<&str>,
) -> Option<&'a K> {
    objects.iter().find(|object| match (reference, arn) {
        (Some(of), _) => object.name_any() == of.name && object.namespace().as_deref() == Some(of.namespace_or(own)),
        (None, Some(arn)) => object.arn() == Some(arn),
        (None, None) => false,
    })
}

/// The namespace of what names none.
fn or_default(namespace: String) -> String {
    if namespace.is_empty() { "default".to_owned() } else { namespace }
}

fn put<K: kube::Resource + DeserializeOwned>(all: &mut Vec<K>, object: Value) -> Result<()> {
    let object: K = parse(object)?;
    let id = |object: &K| (object.meta().namespace.clone(), object.meta().name.clone());
    match all.iter_mut().find(|other| id(other) == id(&object)) {
        Some(other) => *other = object,
        None => all.push(object),
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| Error::input(format!("{}: {}", error.path(), error.inner())).into())
}
