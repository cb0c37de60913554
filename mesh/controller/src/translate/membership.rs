//! Decides which Mesh a namespace belongs to, which VirtualGateway a GatewayRoute, and what a pod is to the mesh.

use std::collections::BTreeMap;

use anyhow::bail;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    Resource, ResourceExt as _,
    core::{Selector, SelectorExt as _},
};
use mesh_api::{Mesh, VirtualGateway, VirtualNode};

use super::object_key;
use crate::{
    cluster::{Object, Objects, Snapshot, kinds::Selecting},
    model::ObjectKey,
};

/// The one Mesh that selects a namespace.
///
/// # Errors
/// None does, or several do.
pub fn mesh_of_namespace<'a>(snapshot: &'a Snapshot, namespace: &str) -> anyhow::Result<&'a Object<Mesh>> {
    let none = BTreeMap::new();
    let labels = snapshot.namespaces.get(namespace).unwrap_or(&none);
    let found: Vec<_> = snapshot.meshes.iter().filter(|mesh| mesh.selects(labels)).collect();
    match found[..] {
        [mesh] => Ok(mesh),
        [] => bail!("failed to find matching mesh for namespace: {namespace}, expecting 1 but found 0"),
        _ => bail!(
            "found multiple matching meshes for namespace: {namespace}, expecting 1 but found {}: {}",
            found.len(),
            names(found.iter().map(|mesh| mesh.name_any()))
        ),
    }
}

/// The Mesh that a new object of a namespace becomes a member of.
///
/// # Errors
/// None selects the namespace, or several do, or the one that does is being deleted.
pub fn mesh_of_new_member<'a>(snapshot: &'a Snapshot, namespace: &str) -> anyhow::Result<&'a Object<Mesh>> {
    let mesh = mesh_of_namespace(snapshot, namespace)?;
    if mesh.metadata.deletion_timestamp.is_some() {
        bail!("unable to create new content in mesh {} because it is being terminated", mesh.name_any());
    }
    Ok(mesh)
}

/// The one VirtualGateway that selects a GatewayRoute of that namespace with these labels.
///
/// # Errors
/// None does, or several do.
pub fn gateway_of_route<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> anyhow::Result<&'a Object<VirtualGateway>> {
    let none = BTreeMap::new();
    let of_namespace = snapshot.namespaces.get(namespace).unwrap_or(&none);
    let selects = |selector: Option<&LabelSelector>, labels, absent: bool| {
        let selector = selector.map(|selector| Selector::try_from(selector.clone()));
        // One that does not parse is refused by admission, and selects nothing.
        selector.map_or(absent, |selector| selector.is_ok_and(|selector| selector.matches(labels)))
    };
    let selecting = |gateway: &&Object<VirtualGateway>| {
        let spec = &gateway.spec;
        gateway.metadata.deletion_timestamp.is_none()
            && selects(spec.namespace_selector.as_ref(), of_namespace, false)
            && selects(spec.gateway_route_selector.as_ref(), labels, true)
    };
    let found: Vec<_> = snapshot.virtual_gateways.iter().map(AsRef::as_ref).filter(selecting).collect();
    match found[..] {
        [gateway] => Ok(gateway),
        [] => bail!("failed to find matching virtualGateway for gatewayRoute: {name}, expecting 1 but found 0"),
        _ => bail!(
            "found multiple matching virtualGateways for gatewayRoute: {name}, expecting 1 but found {}: {}",
            found.len(),
            names(found.iter().map(|gateway| gateway.name_any()))
        ),
    }
}

/// What a pod is to the mesh.
#[derive(Clone, Copy, Debug)]
pub enum Member<'a> {
    /// A pod of a VirtualNode.
    Node(&'a Object<VirtualNode>),
    /// A pod of a VirtualGateway.
    Gateway(&'a Object<VirtualGateway>),
}

impl Member<'_> {
    /// The VirtualNode or VirtualGateway.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Node(node) => object_key::<VirtualNode>(node),
            Self::Gateway(gateway) => object_key::<VirtualGateway>(gateway),
        }
    }
}

/// What a pod of that namespace with these labels is to the mesh, if anything.
///
/// # Errors
/// Several VirtualNodes or VirtualGateways select it.
pub fn of_pod<'a>(
    snapshot: &'a Snapshot,
    namespace: &'a str,
    pod: &str,
    labels: &BTreeMap<String, String>,
) -> anyhow::Result<Option<Member<'a>>> {
    let node = selecting(&snapshot.virtual_nodes, "VirtualNodes", namespace, pod, labels)?;
    let gateway = selecting(&snapshot.virtual_gateways, "VirtualGateways", namespace, pod, labels)?;
    match (node, gateway) {
        (Some(node), Some(gateway)) => bail!(
            "sidecarInject enabled for both virtualNode {} and virtualGateway {} on pod {pod}. Please use podSelector on \
             one",
            node.name_any(),
            gateway.name_any()
        ),
        (Some(node), None) => Ok(Some(Member::Node(node))),
        (None, Some(gateway)) => Ok(Some(Member::Gateway(gateway))),
        (None, None) => Ok(None),
    }
}

/// The object that selects a pod, if any; `kinds` names several.
fn selecting<'a, K: Selecting + Resource<DynamicType = ()>>(
    objects: &'a Objects<K>,
    kinds: &str,
    namespace: &'a str,
    pod: &str,
    labels: &BTreeMap<String, String>,
) -> anyhow::Result<Option<&'a Object<K>>> {
    let of_namespace = objects.of_namespace(namespace).map(AsRef::as_ref);
    let selecting =
        of_namespace.filter(|object: &&Object<K>| object.meta().deletion_timestamp.is_none() && object.selects(labels));
    let found: Vec<_> = selecting.collect();
    match found[..] {
        [] => Ok(None),
        [object] => Ok(Some(object)),
        _ => bail!("found multiple matching {kinds} for pod {pod}: {}", names(found.iter().map(|one| one.name_any()))),
    }
}

fn names(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};
    use std::sync::Arc;

    fn gateway(name: &str, spec: Value) -> Arc<Object<VirtualGateway>> {
        let mut gateway = VirtualGateway::new(name, from_value(spec).unwrap());
        gateway.metadata.namespace = Some("edge".to_owned());
        Arc::new(Object::new(gateway))
    }

    #[test]
    fn a_mesh_that_is_being_deleted_gets_no_new_members() {
        let mesh = |deleted: Option<&str>| {
            let mut metadata = json!({ "name": "shop", "uid": "1" });
            if let Some(at) = deleted {
                metadata["deletionTimestamp"] = at.into();
            }
            let spec = json!({ "awsName": "shop", "namespaceSelector": { "matchLabels": { "mesh": "shop" } } });
            let mesh =
                json!({ "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "metadata": metadata, "spec": spec });
            Arc::new(Object::new(from_value::<Mesh>(mesh).unwrap()))
        };
        for (deleted, expected) in [
            (None, Ok("shop".to_owned())),
            (
                Some("2026-11-28T00:00:00Z"),
                Err("unable to create new content in mesh shop because it is being terminated".to_owned()),
            ),
        ] {
            let labels = BTreeMap::from([("mesh".to_owned(), "shop".to_owned())]);
            let snapshot = Snapshot {
                namespaces: [("ns".to_owned(), labels)].into(),
                meshes: [mesh(deleted)].into_iter().collect(),
                ..Snapshot::default()
            };
            let found = mesh_of_new_member(&snapshot, "ns");
            assert_eq!(found.map(|mesh| mesh.name_any()).map_err(|error| error.to_string()), expected);
        }
    }

    #[test]
    fn a_gateway_route_belongs_to_one_gateway() {
        let of_shop = json!({ "matchLabels": { "gateway": "ingress" } });
        let internal = json!({ "matchLabels": { "internal": "true" } });
        let external = json!({ "matchExpressions": [{ "key": "internal", "operator": "DoesNotExist" }] });
        let labelled = |name: &str, labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            (name.to_owned(), labels.collect::<BTreeMap<_, _>>())
        };
        let snapshot = Snapshot {
            namespaces: [labelled("shop", &[("gateway", "ingress")]), labelled("other", &[])].into(),
            virtual_gateways: [
                gateway("a", json!({ "namespaceSelector": of_shop, "gatewayRouteSelector": internal })),
                gateway("b", json!({ "namespaceSelector": of_shop, "gatewayRouteSelector": external })),
                gateway(
                    "c",
                    json!({ "namespaceSelector": of_shop, "gatewayRouteSelector": { "matchLabels": { "x": "y" } } }),
                ),
                gateway("nothing", json!({ "gatewayRouteSelector": {} })),
            ]
            .into_iter()
            .collect(),
            ..Snapshot::default()
        };
        let none = "failed to find matching virtualGateway for gatewayRoute: r, expecting 1 but found 0";
        let several = "found multiple matching virtualGateways for gatewayRoute: r, expecting 1 but found 2: b,c";
        for (namespace, labels, expected) in [
            ("shop", &[("internal", "true")][..], Ok("a")),
            ("shop", &[], Ok("b")),
            ("shop", &[("x", "y")], Err(several)),
            ("shop", &[("internal", "false")], Err(none)),
            ("other", &[], Err(none)),
        ] {
            let (_, labels) = labelled("", labels);
            let found = gateway_of_route(&snapshot, namespace, "r", &labels);
            let found = found.map(|gateway| gateway.name_any()).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{namespace} {labels:?}");
        }
    }
}
