//! Translates a VirtualRouter: its routes, and the upstreams that they lead to.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use kube::ResourceExt as _;
use mesh_api::{MeshObject as _, VirtualNode, VirtualRouter, WeightedTarget, arn::MeshResource};

use super::{
    Context, Report, account, object_key,
    problems::{self, Check, Place, Problems, check_member, port},
    route::{self, RouteKind, Translated},
    virtual_node,
};
use crate::{
    cluster::Object,
    model::{self, Discovery, Port, Reason, RoutedListener, Routing, Target, Upstream},
};

impl Check for VirtualRouter {
    fn check(&self, _: Place<'_>, problems: &mut Problems) {
        problems::listeners(self.spec.listeners.iter().flatten().map(|listener| listener.port_mapping), problems);
        let listeners = ports(self);
        let mut names = BTreeSet::new();
        for (index, route) in self.spec.routes.iter().flatten().enumerate() {
            let path = format!("spec.routes[{index}]");
            if !names.insert(&route.name) {
                problems.invalid(format!("{path}.name"), format!("{} is the name of another route too", route.name));
            }
            route::check(route, &listeners, &path, problems);
        }
    }
}

fn ports(router: &VirtualRouter) -> Vec<Port> {
    router.spec.listeners.iter().flatten().map(|listener| port(listener.port_mapping)).collect()
}

/// Where the requests of a router go; nowhere if it has no listener. A route that cannot be translated is left out, and a
/// target that does not exist keeps its share, so that no other gets more than its own.
pub fn routing(router: &Object<VirtualRouter>, context: Context<'_>) -> Option<Routing> {
    let own = router.namespace().unwrap_or_default();
    let ports = ports(router);
    let mut upstreams = BTreeMap::new();
    let mut target = |target: &WeightedTarget, caller: Port| {
        let named = route::node_of(target);
        let (key, upstream) = match named.find::<VirtualNode>(&own, context) {
            Some(node) => virtual_node::upstream(node, target.port, caller, context.snapshot),
            None => (named.placeholder(&own)?, Upstream::new(caller, Discovery::None)),
        };
        upstreams.insert(key.clone(), upstream);
        Some(Target { upstream: key, weight: target.weight })
    };
    let mut listeners: Vec<_> = ports.iter().map(|port| RoutedListener { port: *port, routes: Vec::new() }).collect();
    let translated = router.spec.routes.iter().flatten().filter_map(|route| {
        let kind = RouteKind::of(route)?;
        Some((route, kind, route::translate(kind, "", &mut Problems::default())?))
    });
    let mut ordered: Vec<_> = translated.collect();
    // The sort is stable: routes of one priority and equal paths keep the order of the manifest.
    ordered.sort_by_key(|(route, _, translated)| {
        (route.priority.unwrap_or(u16::MAX), Reverse(translated.route_match.path.specificity()))
    });
    for (route, kind, Translated { route_match, retry_policy, timeouts }) in ordered {
        let of_listeners = kind.of_listeners(&ports);
        for RoutedListener { port, routes } in listeners.iter_mut().filter(|one| of_listeners.contains(&one.port)) {
            routes.push(model::Route {
                name: route.name.clone(),
                route_match: route_match.clone(),
                targets: kind.targets().iter().filter_map(|given| target(given, *port)).collect(),
                retry_policy: retry_policy.clone(),
                timeouts,
            });
        }
    }
    (!listeners.is_empty()).then_some(Routing { listeners, upstreams })
}

/// What is reported of a VirtualRouter.
pub fn report(router: &Object<VirtualRouter>, context: Context<'_>) -> Report {
    let Context { snapshot, account, .. } = context;
    let mesh = match super::mesh_of(router, snapshot) {
        Ok(mesh) => mesh,
        Err(problem) => return Report { problems: vec![problem], ..Report::default() },
    };
    let name = router.aws_name();
    let mut problems = Problems::default();
    let own = router.namespace().unwrap_or_default();
    if ports(router).is_empty() {
        problems.add(
            Reason::ListenerNotFound,
            "spec.listeners",
            "is missing: there is no port to call, and callers get 503",
        );
    }
    for (index, route) in router.spec.routes.iter().flatten().enumerate() {
        let Some(kind) = RouteKind::of(route) else { continue };
        let targets = kind.targets().iter().enumerate();
        let path = format!("spec.routes[{index}].{}.action.weightedTargets", kind.field());
        for (index, target) in targets {
            let (named, path) = (route::node_of(target), format!("{path}[{index}]"));
            let Some(node) = named.find::<VirtualNode>(&own, context) else {
                named.missing::<VirtualNode>(Reason::TargetNotFound, &own, &path, &mut problems);
                continue;
            };
            let listeners = node.spec.listeners.as_deref().unwrap_or_default();
            let listens = |port: u16| listeners.iter().any(|listener| listener.port_mapping.port == port);
            if let Some(port) = target.port.filter(|port| !listeners.is_empty() && !listens(*port)) {
                let message = format!("{} has no listener of port {port}", object_key::<VirtualNode>(node));
                problems.add(Reason::TargetNotFound, format!("{path}.port"), message);
            }
        }
    }
    let routes = router.spec.routes.iter().flatten().map(|route| {
        let resource = MeshResource::Route(name.clone(), route.name.clone());
        (route.name.clone(), account::arn(account, mesh, resource))
    });
    Report {
        arn: Some(account::arn(account, mesh, MeshResource::VirtualRouter(name.clone()))),
        routes: routes.collect(),
        problems: [check_member(router, mesh, account), problems.into_vec()].concat(),
    }
}
