//! Translates GatewayRoutes: which requests at a gateway go to which VirtualService, and what is changed of them before.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    iter,
};

use kube::ResourceExt as _;
use mesh_api::{GatewayRoute, MeshObject as _, arn::MeshResource};

use super::{
    Context, Report, account,
    gateway_match::{Given, Matched, given, matched},
    gateway_target,
    problems::{Check, Place, Problems, check_member},
    references::Named,
    virtual_gateway, virtual_node,
    virtual_service::Services,
};
use crate::{
    cluster::Object,
    model::{self, HostMatch, ObjectKey, Reason, RouteMatch, VirtualServiceKey},
};

impl Check for GatewayRoute {
    fn check(&self, place: Place<'_>, problems: &mut Problems) {
        let Some(Given { path, protocol: _, route }) = given(self, problems) else { return };
        matched(route, path, problems);
        let target = &route.target().virtual_service;
        let named =
            Named { reference: target.virtual_service_ref.as_ref(), arn: target.virtual_service_arn.as_deref() };
        virtual_node::check_service(named, place, &format!("{path}.action.target.virtualService"), problems);
    }
}

/// The routes of a gateway in the order in which they are tried. One that makes no sense is left out, and one whose target
/// does not exist keeps its requests, so that no other takes them. `published` gets what must be looked up for them.
pub fn routes<'a>(
    routes: impl Iterator<Item = &'a Object<GatewayRoute>>,
    services: &Services,
    context: Context<'_>,
    published: &mut BTreeSet<VirtualServiceKey>,
) -> Vec<model::GatewayRoute> {
    let mut ordered = Vec::new();
    for route in routes {
        let problems = &mut Problems::default();
        let Some(Given { path, protocol, route: kind }) = given(route, problems) else { continue };
        let Some(Matched { hostname, route_match, path_rewrite, host_rewrite }) = matched(kind, path, problems) else {
            continue;
        };
        let Some(target) = gateway_target::translate(route, kind.target(), services, context, published) else {
            continue;
        };
        let (name, port) = (route.aws_name(), kind.port());
        let translated =
            model::GatewayRoute { name, protocol, port, hostname, route_match, path_rewrite, host_rewrite, target };
        ordered.push((route.spec.priority.unwrap_or(u16::MAX), translated));
    }
    // The sort is stable: routes that are alike keep the order of their namespaces and names.
    ordered.sort_by_key(|(priority, route)| (*priority, Reverse(specificity(route))));
    ordered.into_iter().map(|(_, route)| route).collect()
}

/// How little a route takes: by host, path and the number of the other conditions.
fn specificity(route: &model::GatewayRoute) -> impl Ord + use<> {
    let host = match &route.hostname {
        None => (0, 0),
        Some(HostMatch::Suffix(suffix)) => (1, suffix.len()),
        Some(HostMatch::Exact(name)) => (2, name.len()),
    };
    let RouteMatch { path, scheme: _, grpc: _, method, headers, query_parameters } = &route.route_match;
    (host, path.specificity(), headers.len() + query_parameters.len() + usize::from(method.is_some()))
}

/// Notes routes of the target of which cannot be said which paths they take at the gateway.
fn report_paths(
    route: &Object<GatewayRoute>,
    services: &Services,
    context: Context<'_>,
    path: &str,
    problems: &mut Problems,
) {
    for translated in routes(iter::once(route), services, context, &mut BTreeSet::new()) {
        let routing = translated.target.routing.iter();
        let routes = routing.flat_map(|routing| &routing.listeners).flat_map(|listener| &listener.routes);
        let undecided = routes.filter_map(|one| translated.composed_with(one).err());
        let undecided: BTreeSet<_> = undecided.map(|why| why.to_string()).collect();
        undecided.into_iter().for_each(|why| problems.add(Reason::PathUndecided, path, why));
    }
}

/// What is reported of a GatewayRoute. One whose VirtualService has a problem has it too: `reports` has theirs.
pub fn report(
    route: &Object<GatewayRoute>,
    services: &Services,
    reports: &BTreeMap<ObjectKey, Report>,
    context: Context<'_>,
) -> Report {
    let Context { snapshot, account, .. } = context;
    let mesh = match super::mesh_of(route, snapshot) {
        Ok(mesh) => mesh,
        Err(problem) => return Report { problems: vec![problem], ..Report::default() },
    };
    let mut problems = Problems::default();
    let own = route.namespace().unwrap_or_default();
    let reference = route.spec.virtual_gateway_ref.as_ref();
    let gateway = reference.and_then(|reference| {
        let gateway = snapshot.virtual_gateways.get(reference.namespace_or(&own), &reference.name);
        gateway.filter(|gateway| gateway.metadata.uid.as_ref() == Some(&reference.uid))
    });
    match (reference, gateway) {
        (None, _) => {
            let message = "is missing, for the object was made before the webhook: delete it and make it again";
            problems.add(Reason::GatewayNotFound, "spec.virtualGatewayRef", message);
        }
        (Some(reference), None) => {
            let (namespace, name, uid) = (reference.namespace_or(&own), &reference.name, &reference.uid);
            let message = format!("virtualgateway {namespace}/{name} of uid {uid} is gone");
            problems.add(Reason::GatewayNotFound, "spec.virtualGatewayRef", message);
        }
        (Some(_), Some(_)) => {}
    }
    if let Some(Given { path, protocol, route: kind }) = given(route, &mut Problems::default()) {
        if let Some(gateway) = gateway {
            let port = kind.port();
            let is_for = |listener: model::Listener| {
                listener.port.protocol == protocol && port.is_none_or(|port| listener.port.port == port)
            };
            let ignored = &mut Problems::default();
            let listeners = virtual_gateway::listeners(gateway, ignored);
            if !listeners.into_iter().any(is_for) {
                let (which, path) = match port {
                    Some(port) => (format!(" and port {port}"), format!("{path}.match.port")),
                    None => (String::new(), path.to_owned()),
                };
                let (name, protocol) = (gateway.name_any(), protocol.as_str());
                let message = format!("virtualgateway {name} has no listener of protocol {protocol}{which}");
                problems.add(Reason::ListenerNotFound, path, message);
            }
        }
        let target = format!("{path}.action.target");
        gateway_target::report(route, kind.target(), services, reports, context, &target, &mut problems);
        report_paths(route, services, context, &format!("{path}.match"), &mut problems);
    }
    let arn = gateway
        .map(|gateway| account::arn(account, mesh, MeshResource::GatewayRoute(gateway.aws_name(), route.aws_name())));
    Report { arn, problems: [check_member(route, mesh, account), problems.into_vec()].concat(), ..Report::default() }
}
