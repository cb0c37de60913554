//! Translates which VirtualService the requests of a GatewayRoute go to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::ResourceExt as _;
use mesh_api::{Arn, GatewayRoute, GatewayRouteTarget, MeshObject as _, VirtualService, arn::MeshResource};

use super::{
    Context, Report, object_key,
    problems::Problems,
    published, references,
    virtual_service::{Service, Services},
};
use crate::{
    cluster::Object,
    model::{Backend, ObjectKey, Reason, Routing, VirtualServiceKey},
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
    // A port that is not there is a problem of the route, and leads nowhere.
    let of_port = |backend: Backend| Backend {
        routing: backend.routing.as_ref().and_then(|routing| on_one_port(routing, target.port)),
        addresses: BTreeSet::new(),
        ..backend
    };
    if let Some(reference) = &target.virtual_service.virtual_service_ref {
        let (namespace, name) = references::seen_from(&own, reference);
        let absent = || {
            let mesh = super::mesh_named(route, context.snapshot).map(|mesh| mesh.aws_name()).unwrap_or_default();
            Backend::new(mesh, VirtualService::default_aws_name(name, namespace), None)
        };
        return Some(of_port(services.get(namespace, name).map_or_else(absent, Service::backend)));
    }
    let arn: Arn = target.virtual_service.virtual_service_arn.as_ref()?.parse().ok()?;
    let MeshResource::VirtualService(host) = &arn.resource else { return None };
    if let Some(service) = services.by_arn(&arn) {
        return Some(of_port(service.backend()));
    }
    let keys = published::keys(route.spec.mesh_ref.as_ref(), &arn, context.namespaces);
    let routing = published::routing(&keys, context.published);
    published.extend(keys);
    Some(of_port(Backend::new(arn.mesh.clone(), host.clone(), routing)))
}

/// What is called on a port, or on the first where requests are taken if none is asked for.
fn on_one_port(routing: &Arc<Routing>, asked: Option<u16>) -> Option<Arc<Routing>> {
    let listener = routing.http().find(|listener| asked.is_none_or(|port| listener.port.port == port))?;
    Some(match routing.listeners[..] {
        [_] => routing.clone(),
        _ => Arc::new(Routing { listeners: vec![listener.clone()], upstreams: routing.upstreams.clone() }),
    })
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
        let keys = published::keys(route.spec.mesh_ref.as_ref(), &arn, context.namespaces);
        if let Some((reason, message)) = published::problem(&arn, &keys, context.published) {
            problems.add(reason, path, message);
        }
        return;
    }
    let reference = target.virtual_service.virtual_service_ref.as_ref();
    let reference = reference.map(|reference| references::seen_from(&own, reference));
    let service = reference.and_then(|(namespace, name)| services.get(namespace, name));
    let service =
        service.or_else(|| services.by_arn(&target.virtual_service.virtual_service_arn.as_ref()?.parse().ok()?));
    if let (Some(port), Some(routing)) = (target.port, service.and_then(|service| service.backend().routing))
        && on_one_port(&routing, Some(port)).is_none()
    {
        let ports: Vec<_> = routing.http().map(|listener| listener.port.port.to_string()).collect();
        let message = format!("requests for the target are taken on port {}, not {port}", ports.join(", "));
        problems.add(Reason::TargetNotFound, format!("{path}.port"), message);
    }
}
