//! Translates a VirtualGateway: its listeners, and the routes of the GatewayRoutes that belong to it.

use std::collections::BTreeSet;

use mesh_api::{GatewayRoute, MeshObject as _, VirtualGateway, arn::MeshResource};

use super::{
    Context, Report, Translated, account, gateway_route, listener, logging,
    problems::{Check, Place, Problems, check_member, selector},
    tls,
    virtual_service::Services,
};
use crate::{
    cluster::{Object, Snapshot},
    model::{Gateway, Listener, Proxy, WorkloadKind, WorkloadName},
};

impl Check for VirtualGateway {
    fn check(&self, _: Place<'_>, problems: &mut Problems) {
        let spec = &self.spec;
        selector("spec.namespaceSelector", spec.namespace_selector.as_ref(), problems);
        selector("spec.gatewayRouteSelector", spec.gateway_route_selector.as_ref(), problems);
        selector("spec.podSelector", spec.pod_selector.as_ref(), problems);
        let mut ports = BTreeSet::new();
        for (index, listener) in spec.listeners.iter().flatten().enumerate() {
            listener::of_gateway(listener, &format!("spec.listeners[{index}]"), problems);
            let port = listener.port_mapping.port;
            if !ports.insert(port) {
                let path = format!("spec.listeners[{index}].portMapping.port");
                problems.invalid(path, format!("{port} is the port of another listener too"));
            }
        }
        let defaults = tls::default_policy(spec.backend_defaults.as_ref());
        tls::check_policy(defaults, "spec.backendDefaults.clientPolicy", problems);
        logging::access_log(spec.logging.as_ref(), problems);
    }
}

/// The gateway; `None` while its mesh is not known.
pub fn translate(gateway: &Object<VirtualGateway>, services: &Services, context: Context<'_>) -> Option<Translated> {
    let name = WorkloadName {
        mesh: super::mesh_named(gateway, context.snapshot)?.aws_name(),
        kind: WorkloadKind::VirtualGateway,
        name: gateway.aws_name(),
    };
    let mut published = BTreeSet::new();
    let mut routes = gateway_route::routes(routes_of(gateway, context.snapshot), services, context, &mut published);
    let policy = tls::default_policy(gateway.spec.backend_defaults.as_ref());
    routes.iter_mut().for_each(|route| tls::call_by(&mut route.target, policy));
    let routings = routes.iter().filter_map(|route| route.target.routing.as_ref());
    let services = routings.flat_map(|routing| routing.services()).cloned().collect();
    let mut left_out = Problems::default();
    let gateway = Gateway {
        name,
        listeners: listeners(gateway, &mut left_out).collect(),
        access_log: logging::access_log(gateway.spec.logging.as_ref(), &mut Problems::default()),
        routes,
        left_out: left_out.into_words(),
    };
    Some(Translated { workload: Proxy::Gateway(gateway).into(), published, services })
}

/// What a gateway listens on. `left_out` gets why it does not listen as the others say.
pub fn listeners(gateway: &VirtualGateway, left_out: &mut Problems) -> impl Iterator<Item = Listener> {
    let listeners = gateway.spec.listeners.iter().flatten().enumerate();
    listeners.filter_map(|(index, given)| listener::of_gateway(given, &format!("spec.listeners[{index}]"), left_out))
}

/// The GatewayRoutes that belong to a gateway.
fn routes_of<'a>(
    gateway: &'a VirtualGateway,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = &'a Object<GatewayRoute>> {
    let belongs = |route: &&Object<GatewayRoute>| {
        let reference = route.spec.virtual_gateway_ref.as_ref();
        reference.is_some_and(|reference| gateway.metadata.uid.as_ref() == Some(&reference.uid))
    };
    snapshot.gateway_routes.iter().map(AsRef::as_ref).filter(belongs)
}

/// What is reported of a VirtualGateway.
pub fn report(gateway: &Object<VirtualGateway>, context: Context<'_>) -> Report {
    let Context { snapshot, account, .. } = context;
    let mesh = match super::mesh_of(gateway, snapshot) {
        Ok(mesh) => mesh,
        Err(problem) => return Report { problems: vec![problem], ..Report::default() },
    };
    Report {
        arn: Some(account::arn(account, mesh, MeshResource::VirtualGateway(gateway.aws_name()))),
        problems: check_member(gateway, mesh, account),
        ..Report::default()
    }
}
