//! Translates VirtualServices: the hosts that are called, where their requests go, and what is published of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use kube::{Resource as _, ResourceExt as _};
use mesh_api::{
    Arn, MeshObject as _, VirtualNode, VirtualNodeProvider, VirtualRouter, VirtualRouterProvider, VirtualService,
    VirtualServiceProvider, arn::MeshResource,
};

use super::{
    Context, Publication, Report, account, object_key,
    problems::{Check, Place, Problems, check_member, port},
    references::Named,
    virtual_node, virtual_router,
};
use crate::{
    cluster::{Object, Snapshot},
    model::{Backend, ObjectKey, Reason, Route, RoutedListener, Routing, Target},
};

impl Check for VirtualService {
    fn check(&self, _: Place<'_>, problems: &mut Problems) {
        let Some(provider) = &self.spec.provider else { return };
        match (&provider.virtual_node, &provider.virtual_router) {
            (Some(node), None) => node_of(node).check::<VirtualNode>("spec.provider.virtualNode", problems),
            (None, Some(router)) => router_of(router).check::<VirtualRouter>("spec.provider.virtualRouter", problems),
            (Some(_), Some(_)) | (None, None) => {
                problems.invalid("spec.provider", "needs one of virtualNode and virtualRouter");
            }
        }
    }
}

/// A VirtualService of this cluster.
pub struct Service {
    arn: Arn,
    /// As a caller needs it; its requests go nowhere if it has no provider, or one that does not exist.
    backend: Backend,
    /// Whether it stays: only then it is for other clusters, and found by its ARN.
    stays: bool,
    /// The VirtualService whose host it is, if that is another.
    rival: Option<String>,
}

impl Service {
    /// What a caller needs of it.
    pub fn backend(&self) -> Backend {
        self.backend.clone()
    }
}

/// The VirtualServices of this cluster that have a mesh.
#[derive(Default)]
pub struct Services {
    by_name: BTreeMap<(String, String), Service>,
    by_arn: HashMap<Arn, (String, String)>,
}

impl Services {
    /// The one of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.by_name.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The one of that ARN. Of several it is the oldest, and none that is being deleted.
    pub fn by_arn(&self, arn: &Arn) -> Option<&Service> {
        self.by_name.get(self.by_arn.get(arn)?)
    }
}

/// Translates all of them.
pub fn translate(context: Context<'_>) -> Services {
    let Context { snapshot, account, .. } = context;
    let mut services = Services::default();
    let mut oldest_first: Vec<_> = snapshot.virtual_services.iter().collect();
    oldest_first.sort_by_key(|service| service.metadata.creation_timestamp.as_ref().map(|time| time.0));
    for service in oldest_first {
        let Some(mesh) = super::mesh_named(service, snapshot) else { continue };
        let host = service.aws_name();
        let arn = account::arn(account, mesh, MeshResource::VirtualService(host.clone()));
        let name = (service.namespace().unwrap_or_default(), service.name_any());
        let mut stays = service.metadata.deletion_timestamp.is_none();
        let mut rival = None;
        if stays {
            let first = services.by_arn.entry(arn.clone()).or_insert_with(|| name.clone());
            if *first != name {
                (stays, rival) = (false, Some(format!("virtualservice {}/{}", first.0, first.1)));
            }
        }
        let routing = routing(service, context).map(Arc::new);
        let backend = backend(mesh.aws_name(), host, routing, snapshot);
        services.by_name.insert(name, Service { arn, backend, stays, rival });
    }
    services
}

/// What other clusters may read of them.
pub fn publications(services: &Services) -> Vec<Publication> {
    let published = services.by_name.iter().filter(|(_, service)| service.stays);
    let publication = |((namespace, name), service): (&(String, String), &Service)| {
        let (kind, namespace, name) = (VirtualService::kind(&()), namespace.clone(), name.clone());
        let routing = service.backend.routing.clone()?;
        let namespaces: BTreeSet<_> = routing.services().map(|key| key.namespace.clone()).collect();
        Some(Publication { object: ObjectKey { kind, namespace, name }, arn: service.arn.clone(), namespaces, routing })
    };
    published.filter_map(publication).collect()
}

/// Where the requests of a VirtualService go.
fn routing(service: &VirtualService, context: Context<'_>) -> Option<Routing> {
    let own = service.namespace().unwrap_or_default();
    let VirtualServiceProvider { virtual_node, virtual_router } = service.spec.provider.as_ref()?;
    if let Some(node) = virtual_node {
        return to_node(node_of(node).find(&own, context)?, context.snapshot);
    }
    virtual_router::routing(router_of(virtual_router.as_ref()?).find(&own, context)?, context)
}

fn node_of(provider: &VirtualNodeProvider) -> Named<'_> {
    Named { reference: provider.virtual_node_ref.as_ref(), arn: provider.virtual_node_arn.as_deref() }
}

fn router_of(provider: &VirtualRouterProvider) -> Named<'_> {
    Named { reference: provider.virtual_router_ref.as_ref(), arn: provider.virtual_router_arn.as_deref() }
}

/// Each port of a node goes to that port of it; nowhere if it has no listener.
fn to_node(node: &Object<VirtualNode>, snapshot: &Snapshot) -> Option<Routing> {
    let mut upstreams = BTreeMap::new();
    let listeners = node.spec.listeners.iter().flatten().map(|listener| {
        let port = port(listener.port_mapping);
        let (key, upstream) = virtual_node::upstream(node, Some(port.port), port, snapshot);
        upstreams.insert(key.clone(), upstream);
        let targets = vec![Target { upstream: key, weight: 1 }];
        RoutedListener { port, routes: vec![Route::of_everything(node.aws_name(), targets)] }
    });
    let listeners: Vec<_> = listeners.collect();
    (!listeners.is_empty()).then_some(Routing { listeners, upstreams })
}

/// A VirtualService as a caller needs it.
pub fn backend(mesh: String, host: String, routing: Option<Arc<Routing>>, snapshot: &Snapshot) -> Backend {
    // Requests name their host, and need no address.
    let is_tcp = routing.as_ref().is_some_and(|routing| routing.tcp().next().is_some());
    let addresses = if is_tcp { snapshot.services.addresses(&host) } else { &[] };
    let addresses = addresses.iter().copied().collect();
    Backend { addresses, ..Backend::new(mesh, host, routing) }
}

/// What is reported of a VirtualService. One whose VirtualRouter has a problem has it too: `reports` has the routers'.
pub fn report(
    service: &Object<VirtualService>,
    services: &Services,
    reports: &BTreeMap<ObjectKey, Report>,
    context: Context<'_>,
) -> Report {
    let Context { snapshot, account, .. } = context;
    let mesh = match super::mesh_of(service, snapshot) {
        Ok(mesh) => mesh,
        Err(problem) => return Report { problems: vec![problem], ..Report::default() },
    };
    let mut problems = Problems::default();
    let own = service.namespace().unwrap_or_default();
    let VirtualServiceProvider { virtual_node, virtual_router } = service.spec.provider.clone().unwrap_or_default();
    if let Some(node) = &virtual_node {
        let (named, path) = (node_of(node), "spec.provider.virtualNode");
        match named.find::<VirtualNode>(&own, context) {
            None => named.missing::<VirtualNode>(Reason::ProviderNotFound, &own, path, &mut problems),
            Some(node) if node.spec.listeners.iter().flatten().next().is_none() => {
                let message = format!("{} has no listener: callers get 503", object_key::<VirtualNode>(node));
                problems.add(Reason::ListenerNotFound, path, message);
            }
            Some(_) => {}
        }
    } else if let Some(router) = &virtual_router {
        let (named, path) = (router_of(router), "spec.provider.virtualRouter");
        match named.find::<VirtualRouter>(&own, context) {
            None => named.missing::<VirtualRouter>(Reason::ProviderNotFound, &own, path, &mut problems),
            Some(router) => {
                let key = object_key::<VirtualRouter>(router);
                let found = reports.get(&key).into_iter().flat_map(|report| &report.problems);
                let found: Vec<_> = found.map(ToString::to_string).collect();
                if !found.is_empty() {
                    let field = if named.reference.is_some() { "virtualRouterRef" } else { "virtualRouterARN" };
                    let message = format!("{key}: {}", found.join("; "));
                    problems.add(Reason::ProviderNotActive, format!("{path}.{field}"), message);
                }
            }
        }
    }
    if let Some(rival) = services.get(&own, &service.name_any()).and_then(|service| service.rival.as_ref()) {
        let message =
            format!("{} is the host of {rival} too, which is older: requests go by that one", service.aws_name());
        problems.add(Reason::HostConflict, "spec.awsName", message);
    }
    Report {
        arn: Some(account::arn(account, mesh, MeshResource::VirtualService(service.aws_name()))),
        problems: [check_member(service, mesh, account), problems.into_vec()].concat(),
        ..Report::default()
    }
}
