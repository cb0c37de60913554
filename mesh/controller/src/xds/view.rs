//! What one VirtualNode's Envoy must know, put together from the cluster's objects and Cloud Map.

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use mesh_api::{
    Arn, EgressFilterType, MeshMember as _, MeshObject as _, PortMapping, VirtualNode, VirtualService,
    arn::MeshResource,
};

use crate::{
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
