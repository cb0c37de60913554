//! Translates which VirtualService the requests of a GatewayRoute go to.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use mesh_api::{Arn, GatewayRoute, GatewayRouteTarget, MeshObject as _, VirtualService, arn::MeshResource};

use super::{
    Context, Report, object_key,
    problems::Problems,
    published, references, virtual_node,
    virtual_service::{Service, Services},
};
use crate::{
    cluster::{Object, Snapshot},
    model::{Backend, ObjectKey, Published, Reason, VirtualServiceKey},
};

/// The VirtualService that a route's requests go to. One that does not exist answers for nothing.
pub fn translate(
    route: &Object<GatewayRoute>,
    target: &GatewayRouteTarget,
    services: &Services,
    context: Context<'_>,
    published: &mut BTreeSet<VirtualServiceKey>,
) -> Option<Backend> {
    let own = route.namespace().unwrap_or_default();
    let of_port = |mut backend: Backend| {
        // A port that is not there is a problem of the route, and leads nowhere.
        let is_there = |port: u16| backend.routing.as_ref().is_some_and(|routing| routing.listener.port == port);
        if target.port.is_some_and(|port| !is_there(port)) {
            backend.routing = None;
        }
        backend
    };
    if let Some(reference) = &target.virtual_service.virtual_service_ref {
        let (namespace, name) = references::seen_from(&own, reference);
        let absent = || Backend {
            mesh: super::mesh_name(route, context.snapshot).unwrap_or_default(),
            host: VirtualService::default_aws_name(name, namespace),
            routing: None,
        };
        return Some(of_port(services.get(namespace, name).map_or_else(absent, Service::backend)));
    }
    let arn: Arn = target.virtual_service.virtual_service_arn.as_ref()?.parse().ok()?;
    let MeshResource::VirtualService(host) = &arn.resource else { return None };
    if let Some(service) = services.by_arn(&arn) {
        return Some(of_port(service.backend()));
    }
    let keys = published_keys(route, &arn, context.snapshot);
    let routing = keys.iter().filter_map(|key| context.published.get(key)).find_map(Published::routing).cloned();
    published.extend(keys);
    Some(of_port(Backend { mesh: arn.mesh.clone(), host: host.clone(), routing }))
}

/// Where a VirtualService of another cluster is looked for: in the Cloud Map namespaces that this cluster's VirtualNodes of
/// the same Mesh are registered in.
fn published_keys(route: &GatewayRoute, arn: &Arn, snapshot: &Snapshot) -> Vec<VirtualServiceKey> {
    let mesh = route.spec.mesh_ref.as_ref().map(|reference| &reference.name);
    let of_mesh = snapshot
        .virtual_nodes
        .iter()
        .filter(|node| node.spec.mesh_ref.as_ref().map(|reference| &reference.name) == mesh);
    let namespaces: BTreeSet<_> =
        of_mesh.filter_map(|node| virtual_node::cloud_map(node)).map(|discovery| discovery.key.namespace).collect();
    namespaces.into_iter().map(|namespace| VirtualServiceKey { namespace, arn: arn.to_string() }).collect()
}

/// Notes a target that does not exist, has a problem or is not published.
pub fn report(
    route: &Object<GatewayRoute>,
    target: &GatewayRouteTarget,
    services: &Services,
    reports: &BTreeMap<ObjectKey, Report>,
    context: Context<'_>,
    path: &str,
    problems: &mut Problems,
) {
    let own = route.namespace().unwrap_or_default();
    let service_path = format!("{path}.virtualService");
    let arn = target.virtual_service.virtual_service_arn.as_ref().and_then(|arn| arn.parse::<Arn>().ok());
    if let Some(reference) = &target.virtual_service.virtual_service_ref {
        let (namespace, name) = references::seen_from(&own, reference);
        let path = format!("{service_path}.virtualServiceRef");
        let Some(service) = context.snapshot.virtual_services.get(namespace, name) else {
            references::missing(Reason::TargetNotFound, "virtualservice", (namespace, name), path, problems);
            return;
        };
        let report = reports.get(&object_key::<VirtualService>(service));
        let found: Vec<_> = report.into_iter().flat_map(|report| &report.problems).map(ToString::to_string).collect();
        if !found.is_empty() {
            let message = format!("virtualservice {namespace}/{name}: {}", found.join("; "));
            problems.add(Reason::TargetNotActive, path, message);
        }
    } else if let Some(arn) = arn.filter(|arn| services.by_arn(arn).is_none()) {
        let path = format!("{service_path}.virtualServiceARN");
        let keys = published_keys(route, &arn, context.snapshot);
        if keys.is_empty() {
            let message = format!(
                "{arn} cannot be looked for: no VirtualNode of mesh {} in this cluster is in a Cloud Map namespace",
                arn.mesh
            );
            problems.add(Reason::BackendNotPublished, path, message);
        } else if let Some(known) = keys.iter().map(|key| context.published.get(key)).collect::<Option<Vec<_>>>()
            && known.iter().all(|published| published.routing().is_none())
            && let Some((reason, message)) = known.iter().filter_map(|one| published::problem(&arn, one)).max()
        {
            problems.add(reason, path, message);
        }
        return;
    }
    let without_port = GatewayRouteTarget { port: None, ..target.clone() };
    let backend = translate(route, &without_port, services, context, &mut BTreeSet::new());
    if let (Some(port), Some(routing)) = (target.port, backend.and_then(|backend| backend.routing))
        && routing.listener.port != port
    {
        let message = format!("the target's listener has port {}, not {port}", routing.listener.port);
        problems.add(Reason::TargetNotFound, format!("{path}.port"), message);
    }
}
