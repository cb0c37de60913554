//! What one VirtualNode's Envoy must know, put together from the cluster's objects and Cloud Map.

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use mesh_api::{
    Arn, EgressFilterType, MeshMember as _, MeshObject as _, PortMapping, VirtualNode, VirtualService,
    arn::MeshResource,
};

use crate::{
    admission::validate::STDOUT,
    discovery::{Answer, Found, Key},
    identity::Identity,
    publish,
    routes::Routes,
    store::Snapshot,
};

/// Everything an Envoy's configuration is made from, but for the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// `awsName` of the mesh.
    pub mesh: String,
    /// `awsName` of the node.
    pub node: String,
    /// What the application listens on.
    pub listeners: Vec<PortMapping>,
    /// Where the application may go besides its backends.
    pub egress: EgressFilterType,
    /// Whether Envoy writes down what goes through it.
    pub access_log: bool,
    /// What it calls, each host once, sorted by host.
    pub backends: Vec<Backend>,
}

/// A VirtualService as a caller needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its mesh.
    pub mesh: String,
    /// The host that is called, its `awsName`.
    pub host: String,
    /// Where requests go; nobody answers if there are none.
    pub routes: Option<Routes>,
}

/// The view of one node; `None` while something it needs has not been looked up yet, or its mesh is not known.
pub fn view(node: &VirtualNode, snapshot: &Snapshot, found: &Found, identity: &Identity) -> Option<View> {
    let mesh = snapshot.mesh(&node.mesh_ref()?.name)?;
    let needed = needs(node, snapshot, found, identity);
    if !needed.iter().all(|key| found.contains_key(key)) {
        return None;
    }
    let mut backends: Vec<_> =
        backends(node, snapshot, found, identity).into_iter().map(|called| called.backend).collect();
    backends.sort_by(|a, b| a.host.cmp(&b.host));
    backends.dedup_by(|a, b| a.host == b.host);
    Some(View {
        mesh: mesh.aws_name(),
        node: node.aws_name(),
        listeners: node.spec.listeners.iter().flatten().map(|listener| listener.port_mapping).collect(),
        egress: mesh.spec.egress_filter.map(|filter| filter.type_).unwrap_or_default(),
        access_log: node.spec.access_log() == Some(STDOUT),
        backends,
    })
}

/// What must be watched for the backends of all nodes.
pub fn wanted(snapshot: &Snapshot, found: &Found, identity: &Identity) -> BTreeSet<Key> {
    snapshot.virtual_nodes.iter().flat_map(|node| needs(node, snapshot, found, identity)).collect()
}

fn needs(node: &VirtualNode, snapshot: &Snapshot, found: &Found, identity: &Identity) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    for called in backends(node, snapshot, found, identity) {
        keys.extend(called.published);
        keys.extend(called.backend.routes.iter().flat_map(Routes::services).map(Key::Instances));
    }
    keys
}

struct Called {
    backend: Backend,
    /// Where its routes are read, if it is not of this cluster.
    published: Option<Key>,
}

fn backends(node: &VirtualNode, snapshot: &Snapshot, found: &Found, identity: &Identity) -> Vec<Called> {
    let own = node.namespace().unwrap_or_default();
    let mut called = Vec::new();
    for backend in node.spec.backends.iter().flatten() {
        let backend = &backend.virtual_service;
        if let Some(reference) = &backend.virtual_service_ref {
            let service = snapshot.virtual_service(reference.namespace_or(&own), &reference.name);
            called.extend(service.and_then(|service| local(service, snapshot, identity)));
        } else if let Some(arn) = backend.virtual_service_arn.as_ref().and_then(|arn| arn.parse::<Arn>().ok()) {
            called.extend(by_arn(node, arn, snapshot, found, identity));
        }
    }
    called
}

fn local(service: &VirtualService, snapshot: &Snapshot, identity: &Identity) -> Option<Called> {
    let mesh = publish::arn(service, snapshot, identity)?.mesh;
    let backend = Backend { mesh, host: service.aws_name(), routes: Routes::of(service, snapshot) };
    Some(Called { backend, published: None })
}

/// A VirtualService of this cluster if it has that ARN, else what is published in the calling node's own namespace.
fn by_arn(node: &VirtualNode, arn: Arn, snapshot: &Snapshot, found: &Found, identity: &Identity) -> Option<Called> {
    let MeshResource::VirtualService(host) = &arn.resource else { return None };
    let same = |service: &&std::sync::Arc<VirtualService>| {
        service.metadata.deletion_timestamp.is_none()
            && service.aws_name() == *host
            && publish::arn(service, snapshot, identity).as_ref() == Some(&arn)
    };
    if let Some(service) = snapshot.virtual_services.iter().find(same) {
        return local(service, snapshot, identity);
    }
    let discovery = node.spec.service_discovery.as_ref()?.aws_cloud_map.as_ref();
    let published = discovery.map(|discovery| Key::Routes(discovery.namespace_name.clone(), arn.clone()));
    let routes = match published.as_ref().and_then(|key| found.get(key)) {
        Some(Answer::Routes(Some(routes))) => Some(routes.as_ref().clone()),
        _ => None,
    };
    Some(Called { backend: Backend { mesh: arn.mesh.clone(), host: host.clone(), routes }, published })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cloudmap::{Instances, ServiceKey};
    use serde_json::{Value, from_value, json};

    const ARN: &str =
        "arn:aws:appmesh:us-west-2:123456789012:mesh/k8multi/virtualService/colorapp.k8multi.svc.cluster.local";

    fn identity() -> Identity {
        Identity { partition: "aws".into(), region: "us-west-2".into(), account: "123456789012".into() }
    }

    fn object(kind: &str, name: &str, mut spec: Value) -> Value {
        spec["meshRef"] = json!({"name": "k8multi", "uid": "1"});
        let meta = json!({"name": name, "namespace": "k8multi"});
        json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind, "metadata": meta, "spec": spec})
    }

    fn node(name: &str, service: &str, backend: Option<Value>) -> Arc<VirtualNode> {
        let backends: Vec<_> = backend.into_iter().map(|backend| json!({"virtualService": backend})).collect();
        let spec = json!({
            "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
            "serviceDiscovery": {"awsCloudMap": {"namespaceName": "svc2.svc.local", "serviceName": service}},
            "backends": backends,
        });
        Arc::new(from_value(object("VirtualNode", name, spec)).unwrap())
    }

    /// A cluster with the caller; with `serves`, also with what it calls.
    fn cluster(backend: Value, serves: bool) -> Snapshot {
        let mesh = from_value(json!({
            "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "metadata": {"name": "k8multi"},
            "spec": {"egressFilter": {"type": "ALLOW_ALL"}},
        }));
        let mut snapshot = Snapshot {
            meshes: vec![Arc::new(mesh.unwrap())],
            virtual_nodes: vec![node("front", "front", Some(backend))],
            ..Snapshot::default()
        };
        if serves {
            let target = json!({"virtualNodeRef": {"name": "red"}, "weight": 1});
            let route = |name: &str, priority: Option<u16>| {
                let http = json!({"match": {"prefix": "/"}, "action": {"weightedTargets": [target]}});
                json!({"name": name, "priority": priority, "httpRoute": http})
            };
            let listeners = json!([{"portMapping": {"port": 8080, "protocol": "http"}}]);
            let mut unserved = route("unserved", Some(0));
            unserved["httpRoute"]["match"] = json!({"path": {"regex": "/.*"}});
            let routes = json!([unserved, route("last", None), route("second", Some(7)), route("first", Some(0))]);
            let router = object("VirtualRouter", "router", json!({"listeners": listeners, "routes": routes}));
            let provider = json!({"virtualRouter": {"virtualRouterRef": {"name": "router"}}});
            let service = json!({"awsName": "colorapp.k8multi.svc.cluster.local", "provider": provider});
            let service = object("VirtualService", "colorapp", service);
            snapshot.virtual_nodes.push(node("red", "colorapp", None));
            snapshot.virtual_routers.push(Arc::new(from_value(router).unwrap()));
            snapshot.virtual_services.push(Arc::new(from_value(service).unwrap()));
        }
        snapshot.sorted()
    }

    fn colorapp() -> Key {
        Key::Instances(ServiceKey { namespace: "svc2.svc.local".into(), service: "colorapp".into() })
    }

    fn published() -> Key {
        Key::Routes("svc2.svc.local".into(), ARN.parse().unwrap())
    }

    fn seen(snapshot: &Snapshot, found: &Found) -> Option<View> {
        view(snapshot.virtual_node("k8multi", "front").unwrap(), snapshot, found, &identity())
    }

    #[test]
    fn a_backend_of_this_cluster_by_name_or_by_arn() {
        for backend in [json!({"virtualServiceRef": {"name": "colorapp"}}), json!({"virtualServiceARN": ARN})] {
            let snapshot = cluster(backend, true);
            assert_eq!(wanted(&snapshot, &Found::new(), &identity()), [colorapp()].into());
            assert_eq!(seen(&snapshot, &Found::new()), None, "its instances have not been looked up");
            let found = Found::from([(colorapp(), Answer::Instances(Arc::new(Instances::new())))]);
            let view = seen(&snapshot, &found).unwrap();
            assert_eq!((view.node.as_str(), view.egress), ("front_k8multi", EgressFilterType::AllowAll));
            let backend = &view.backends[0];
            let routes = backend.routes.as_ref().unwrap();
            assert_eq!(backend.host, "colorapp.k8multi.svc.cluster.local");
            let names: Vec<_> = routes.routes.iter().map(|route| route.name.as_str()).collect();
            assert_eq!(names, ["first", "second", "last"]);
        }
    }

    #[test]
    fn a_backend_of_another_cluster() {
        let snapshot = cluster(json!({"virtualServiceARN": ARN}), false);
        assert_eq!(wanted(&snapshot, &Found::new(), &identity()), [published()].into());
        assert_eq!(seen(&snapshot, &Found::new()), None, "its routes have not been looked up");

        let nobody = Found::from([(published(), Answer::Routes(None))]);
        assert_eq!(seen(&snapshot, &nobody).unwrap().backends[0].routes, None);

        let there = cluster(json!({"virtualServiceARN": ARN}), true);
        let routes = Routes::of(&there.virtual_services[0], &there).unwrap();
        let mut told = Found::from([(published(), Answer::Routes(Some(Arc::new(routes.clone()))))]);
        assert_eq!(wanted(&snapshot, &told, &identity()), [published(), colorapp()].into());
        assert_eq!(seen(&snapshot, &told), None, "the routes are new, their instances have not been looked up");
        told.insert(colorapp(), Answer::Instances(Arc::default()));
        assert_eq!(seen(&snapshot, &told).unwrap().backends[0].routes, Some(routes));
    }

    #[test]
    fn a_target_that_does_not_exist_keeps_its_share() {
        let mut snapshot = cluster(json!({"virtualServiceRef": {"name": "colorapp"}}), true);
        snapshot.virtual_nodes.retain(|node| node.name_any() != "red");
        let view = seen(&snapshot, &Found::new()).unwrap();
        let routes = view.backends[0].routes.as_ref().unwrap();
        assert_eq!(routes.routes[0].targets[0].node, "red_k8multi");
        assert_eq!(routes.nodes["red_k8multi"].discovery, None);
    }
}
