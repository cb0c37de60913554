//! Whether an object is in force, and if not, why.

use std::collections::BTreeSet;

use mesh_api::{Mesh, MeshMember, MeshObject, Reference, VirtualNode, VirtualRouter, VirtualService};

use crate::{
    admission::validate::{Checked, Place},
    identity::Identity,
    store::Snapshot,
};

/// A condition's status, reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the object is in force.
    pub active: bool,
    /// One word for machines.
    pub reason: &'static str,
    /// Words for people.
    pub message: String,
}

/// What Cloud Map has: the names of its namespaces, or why it didn't say.
pub type Namespaces = Result<BTreeSet<String>, String>;

impl Verdict {
    /// In force, nothing more to say.
    pub fn active() -> Self {
        Self { active: true, reason: "Active", message: String::new() }
    }

    /// Cloud Map cannot be asked.
    pub fn unavailable(message: String) -> Self {
        Self::not("CloudMapUnavailable", message)
    }

    fn not(reason: &'static str, message: String) -> Self {
        Self { active: false, reason, message }
    }
}

/// The Mesh of an object, or why there is none.
pub fn mesh<'a>(object: &impl MeshMember, snapshot: &'a Snapshot) -> Result<&'a Mesh, Verdict> {
    let Some(reference) = object.mesh_ref() else {
        let message =
            "spec.meshRef is missing, for the object was made before the webhook: delete it and make it again";
        return Err(Verdict::not("MeshUnknown", message.to_owned()));
    };
    let mesh = snapshot.mesh(&reference.name).filter(|mesh| mesh.metadata.uid.as_ref() == Some(&reference.uid));
    mesh.map(AsRef::as_ref).ok_or_else(|| {
        Verdict::not("MeshNotFound", format!("mesh {} of uid {} is gone", reference.name, reference.uid))
    })
}

/// The verdict on a Mesh.
pub fn of_mesh(mesh: &Mesh, snapshot: &Snapshot, identity: &Identity) -> Verdict {
    served(mesh, snapshot, Place { identity, mesh: None }).err().unwrap_or_else(Verdict::active)
}

/// What speaks against any member of a mesh.
fn stands<K: Checked + MeshMember>(object: &K, snapshot: &Snapshot, identity: &Identity) -> Result<(), Verdict> {
    let mesh = mesh(object, snapshot)?.aws_name();
    served(object, snapshot, Place { identity, mesh: Some(&mesh) })
}

/// What admission would have refused of an object that it never saw.
fn served<K: Checked + MeshObject>(object: &K, snapshot: &Snapshot, place: Place<'_>) -> Result<(), Verdict> {
    let unserved = object.meta().uid.as_ref().and_then(|uid| snapshot.unserved.get(uid)).cloned();
    let problems = unserved.unwrap_or_else(|| object.problems(place));
    if problems.is_empty() { Ok(()) } else { Err(Verdict::not("NotServed", problems.join("; "))) }
}

/// The verdict on a VirtualNode.
pub fn virtual_node(node: &VirtualNode, snapshot: &Snapshot, identity: &Identity, namespaces: &Namespaces) -> Verdict {
    if let Err(verdict) = stands(node, snapshot, identity) {
        return verdict;
    }
    if let Some(needed) = cloud_map_namespace(node) {
        match namespaces {
            Err(error) => return Verdict::unavailable(error.clone()),
            Ok(there) if !there.contains(needed) => {
                return Verdict::not("CloudMapNamespaceNotFound", format!("cloudMap namespace not found: {needed}"));
            }
            Ok(_) => {}
        }
    }
    let backends = node.spec.backends.iter().flatten();
    let references = backends.filter_map(|backend| backend.virtual_service.virtual_service_ref.as_ref());
    let missing = references.filter(|reference| {
        let (namespace, name) = seen_from(node, reference);
        snapshot.virtual_service(namespace, name).is_none()
    });
    first_missing("BackendNotFound", "virtualservice", node, missing)
}

/// The verdict on a VirtualRouter.
pub fn virtual_router(router: &VirtualRouter, snapshot: &Snapshot, identity: &Identity) -> Verdict {
    if let Err(verdict) = stands(router, snapshot, identity) {
        return verdict;
    }
    let routes = router.spec.routes.iter().flatten().filter_map(|route| route.http_route.as_ref());
    let targets = routes.flat_map(|route| &route.action.weighted_targets);
    let missing = targets.filter_map(|target| target.virtual_node_ref.as_ref()).filter(|reference| {
        let (namespace, name) = seen_from(router, reference);
        snapshot.virtual_node(namespace, name).is_none()
    });
    first_missing("TargetNotFound", "virtualnode", router, missing)
}

/// The verdict on a VirtualService: it is in force when who answers for it is.
pub fn virtual_service(service: &VirtualService, snapshot: &Snapshot, identity: &Identity) -> Verdict {
    if let Err(verdict) = stands(service, snapshot, identity) {
        return verdict;
    }
    let Some(provider) = &service.spec.provider else { return Verdict::active() };
    if let Some(reference) = provider.virtual_node.as_ref().and_then(|node| node.virtual_node_ref.as_ref()) {
        let (namespace, name) = seen_from(service, reference);
        let missing = snapshot.virtual_node(namespace, name).is_none().then_some(reference);
        return first_missing("ProviderNotFound", "virtualnode", service, missing.into_iter());
    }
    let Some(reference) = provider.virtual_router.as_ref().and_then(|router| router.virtual_router_ref.as_ref()) else {
        return Verdict::active();
    };
    let (namespace, name) = seen_from(service, reference);
    let Some(router) = snapshot.virtual_router(namespace, name) else {
        return first_missing("ProviderNotFound", "virtualrouter", service, std::iter::once(reference));
    };
    let verdict = virtual_router(router, snapshot, identity);
    if verdict.active {
        return verdict;
    }
    Verdict::not("ProviderNotActive", format!("virtualrouter {namespace}/{name}: {}", verdict.message))
}

/// The Cloud Map namespace that a node's pods are registered in.
pub fn cloud_map_namespace(node: &VirtualNode) -> Option<&str> {
    Some(&node.spec.service_discovery.as_ref()?.aws_cloud_map.as_ref()?.namespace_name)
}

/// What keeps a Mesh that is being deleted: its members in this cluster, as `kind namespace/name`.
pub fn members(mesh: &Mesh, snapshot: &Snapshot) -> Vec<String> {
    fn of<K: MeshMember>(mesh: &Mesh, kind: &str, objects: &[std::sync::Arc<K>]) -> Vec<String> {
        let member = |object: &&std::sync::Arc<K>| {
            object.mesh_ref().is_some_and(|reference| Some(&reference.uid) == mesh.metadata.uid.as_ref())
        };
        let name = |object: &std::sync::Arc<K>| {
            let meta = object.meta();
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            format!("{kind} {}/{}", part(&meta.namespace), part(&meta.name))
        };
        objects.iter().filter(member).map(name).collect()
    }
    let mut members = of(mesh, "virtualnode", &snapshot.virtual_nodes);
    members.extend(of(mesh, "virtualrouter", &snapshot.virtual_routers));
    members.extend(of(mesh, "virtualservice", &snapshot.virtual_services));
    members
}

fn seen_from<'a>(object: &'a impl MeshMember, reference: &'a Reference) -> (&'a str, &'a str) {
    (reference.namespace_or(object.meta().namespace.as_deref().unwrap_or_default()), &reference.name)
}

fn first_missing<'a>(
    reason: &'static str,
    kind: &str,
    object: &impl MeshMember,
    mut missing: impl Iterator<Item = &'a Reference>,
) -> Verdict {
    let Some(reference) = missing.next() else { return Verdict::active() };
    let namespace = reference.namespace_or(object.meta().namespace.as_deref().unwrap_or_default());
    Verdict::not(reason, format!("{kind} {namespace}/{} does not exist", reference.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};
    use std::sync::Arc;

    fn object<K: serde::de::DeserializeOwned>(kind: &str, name: &str, mut spec: Value) -> Arc<K> {
        spec["meshRef"] = json!({ "name": "m", "uid": "1" });
        let object = json!({
            "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind,
            "metadata": { "name": name, "namespace": "ns" }, "spec": spec
        });
        Arc::new(from_value(object).unwrap())
    }

    fn identity() -> Identity {
        Identity { partition: "aws".into(), region: "us-west-2".into(), account: "123456789012".into() }
    }

    fn snapshot() -> Snapshot {
        let target = |name: &str| json!({ "virtualNodeRef": { "name": name }, "weight": 1 });
        let route = |name: &str| {
            json!({ "routes": [{ "name": "a", "httpRoute": {
                "match": { "prefix": "/" }, "action": { "weightedTargets": [target(name)] }
            }}]})
        };
        let mut mesh = Mesh::new("m", Default::default());
        mesh.metadata.uid = Some("1".to_owned());
        Snapshot {
            meshes: vec![Arc::new(mesh)],
            virtual_nodes: vec![
                object("VirtualNode", "a", json!({})),
                object(
                    "VirtualNode",
                    "b",
                    json!({ "serviceDiscovery": { "awsCloudMap": {
                        "namespaceName": "svc", "serviceName": "b"
                    }}}),
                ),
                object(
                    "VirtualNode",
                    "c",
                    json!({ "backends": [
                        { "virtualService": { "virtualServiceRef": { "name": "nobody" } } }
                    ]}),
                ),
            ],
            virtual_routers: vec![
                object("VirtualRouter", "bad", route("nobody")),
                object("VirtualRouter", "good", route("a")),
            ],
            virtual_services: vec![
                object(
                    "VirtualService",
                    "bad",
                    json!({ "provider": {
                        "virtualRouter": { "virtualRouterRef": { "name": "bad" } }
                    }}),
                ),
                object(
                    "VirtualService",
                    "good",
                    json!({ "provider": {
                        "virtualRouter": { "virtualRouterRef": { "name": "good" } }
                    }}),
                ),
                object("VirtualService", "none", json!({})),
                object(
                    "VirtualService",
                    "wrong",
                    json!({ "provider": {
                        "virtualNode": { "virtualNodeRef": { "name": "nobody" } }
                    }}),
                ),
            ],
            ..Snapshot::default()
        }
    }

    fn told(verdict: Verdict) -> (&'static str, String) {
        assert_eq!(verdict.active, verdict.reason == "Active");
        (verdict.reason, verdict.message)
    }

    #[test]
    fn virtual_nodes_verdicts() {
        let snapshot = snapshot();
        let there = Ok(BTreeSet::from(["svc".to_owned()]));
        let elsewhere = Ok(BTreeSet::from(["other".to_owned()]));
        let denied = Err("AccessDenied".to_owned());
        for (name, namespaces, reason, message) in [
            ("a", &denied, "Active", ""),
            ("b", &there, "Active", ""),
            ("b", &elsewhere, "CloudMapNamespaceNotFound", "cloudMap namespace not found: svc"),
            ("b", &denied, "CloudMapUnavailable", "AccessDenied"),
            ("c", &there, "BackendNotFound", "virtualservice ns/nobody does not exist"),
        ] {
            let node = snapshot.virtual_node("ns", name).unwrap();
            assert_eq!(
                told(virtual_node(node, &snapshot, &identity(), namespaces)),
                (reason, message.to_owned()),
                "{name}"
            );
        }
    }

    #[test]
    fn virtual_services_verdicts() {
        let snapshot = snapshot();
        for (name, reason, message) in [
            ("bad", "ProviderNotActive", "virtualrouter ns/bad: virtualnode ns/nobody does not exist"),
            ("good", "Active", ""),
            ("none", "Active", ""),
            ("wrong", "ProviderNotFound", "virtualnode ns/nobody does not exist"),
        ] {
            let service = snapshot.virtual_service("ns", name).unwrap();
            assert_eq!(told(virtual_service(service, &snapshot, &identity())), (reason, message.to_owned()), "{name}");
        }
    }

    #[test]
    fn a_member_without_its_mesh_is_not_active() {
        let mut snapshot = snapshot();
        snapshot.meshes.clear();
        let service = snapshot.virtual_service("ns", "good").unwrap();
        assert_eq!(
            told(virtual_service(service, &snapshot, &identity())),
            ("MeshNotFound", "mesh m of uid 1 is gone".to_owned())
        );
    }

    #[test]
    fn a_field_that_is_not_served_is_told() {
        let mut snapshot = snapshot();
        let mut router = VirtualRouter::clone(snapshot.virtual_router("ns", "good").unwrap());
        router.metadata.uid = Some("7".to_owned());
        snapshot.virtual_routers = vec![Arc::new(router)];
        let field = "spec.routes[0].tcpRoute: not served by this controller";
        snapshot.unserved = [("7".to_owned(), vec![field.to_owned()])].into();
        let router = snapshot.virtual_router("ns", "good").unwrap();
        assert_eq!(told(virtual_router(router, &snapshot, &identity())), ("NotServed", field.to_owned()));
        let service = snapshot.virtual_service("ns", "good").unwrap();
        let through = format!("virtualrouter ns/good: {field}");
        assert_eq!(told(virtual_service(service, &snapshot, &identity())), ("ProviderNotActive", through));
        assert_eq!(told(of_mesh(snapshot.mesh("m").unwrap(), &snapshot, &identity())), ("Active", String::new()));
        let spec = json!({
            "listeners": [{ "portMapping": { "port": 1, "protocol": "http2" } }],
            "serviceDiscovery": { "dns": { "hostname": "d" } }
        });
        let node = object::<VirtualNode>("VirtualNode", "d", spec);
        let protocol = "spec.listeners[0].portMapping.protocol: only http is served";
        let verdict = virtual_node(&node, &snapshot, &identity(), &Ok(BTreeSet::new()));
        assert_eq!(told(verdict), ("NotServed", protocol.to_owned()));
    }

    #[test]
    fn members_keep_a_mesh() {
        let snapshot = snapshot();
        let members = members(snapshot.mesh("m").unwrap(), &snapshot);
        assert_eq!(members.len(), 9);
        assert_eq!(members[3], "virtualrouter ns/bad");
    }
}
