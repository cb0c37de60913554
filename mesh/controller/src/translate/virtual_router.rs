//! Translates a VirtualRouter: its routes, and the upstreams that they lead to.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use mesh_api::{HttpRoute, HttpTimeout, MeshObject as _, Reference, Route, VirtualRouter, arn::MeshResource};

use super::{
    Context, Report, account,
    problems::{Check, Place, Problems, check, listeners, millis, port},
    references, retries, route_match, virtual_node,
};
use crate::{
    cluster::{Object, Snapshot},
    model::{self, Discovery, Reason, RetryPolicy, RouteMatch, Routing, Target, Timeouts, Upstream},
};

impl Check for VirtualRouter {
    fn check(&self, _: Place<'_>, problems: &mut Problems) {
        listeners(self.spec.listeners.iter().flatten().map(|listener| listener.port_mapping), problems);
        let mut names = BTreeSet::new();
        for (index, route) in self.spec.routes.iter().flatten().enumerate() {
            let path = format!("spec.routes[{index}]");
            if !names.insert(&route.name) {
                problems.invalid(format!("{path}.name"), format!("{} is the name of another route too", route.name));
            }
            self::route(route, &path, problems);
            targets(route, &path, problems);
        }
    }
}

/// Where the requests of a router go; nowhere if it has no listener. A route that cannot be translated is left out, and a
/// target that does not exist keeps its share, so that no other gets more than its own.
pub fn routing(router: &Object<VirtualRouter>, snapshot: &Snapshot) -> Option<Routing> {
    let own = router.namespace().unwrap_or_default();
    let listener = port(router.spec.listeners.as_ref()?.first()?.port_mapping);
    let mut upstreams = BTreeMap::new();
    let mut target = |reference: &Reference, weight: u32| {
        let (namespace, name) = references::seen_from(&own, reference);
        let (name, upstream) = match snapshot.virtual_nodes.get(namespace, name) {
            Some(node) => (node.aws_name(), virtual_node::upstream(node, listener)),
            None => {
                let absent = Upstream { port: listener, discovery: Discovery::None, health_check: None };
                (format!("{name}_{namespace}"), absent)
            }
        };
        upstreams.insert(name.clone(), upstream);
        Target { upstream: name, weight }
    };
    let mut ordered: Vec<_> = router.spec.routes.iter().flatten().collect();
    // The sort is stable: routes of one priority keep the order of the manifest.
    ordered.sort_by_key(|route| route.priority.unwrap_or(u16::MAX));
    let mut routes = Vec::new();
    for route in ordered {
        let Some(Translated { route_match, retry_policy, timeouts }) = self::route(route, "", &mut Problems::default())
        else {
            continue;
        };
        let given = route.http_route.iter().flat_map(|route| &route.action.weighted_targets);
        let given = given.filter_map(|given| Some((given.virtual_node_ref.as_ref()?, given.weight)));
        let targets = given.map(|(node, weight)| target(node, weight)).collect();
        routes.push(model::Route { name: route.name.clone(), route_match, targets, retry_policy, timeouts });
    }
    Some(Routing { listener, routes, upstreams })
}

/// What is reported of a VirtualRouter.
pub fn report(router: &Object<VirtualRouter>, context: Context<'_>) -> Report {
    let Context { snapshot, account, .. } = context;
    let mesh = match super::mesh_of(router, snapshot) {
        Ok(mesh) => mesh.aws_name(),
        Err(problem) => return Report { problems: vec![problem], ..Report::default() },
    };
    let name = router.aws_name();
    let mut problems = Problems::default();
    let own = router.namespace().unwrap_or_default();
    for (index, route) in router.spec.routes.iter().flatten().enumerate() {
        let targets = route.http_route.iter().flat_map(|route| &route.action.weighted_targets).enumerate();
        let path = format!("spec.routes[{index}].httpRoute.action.weightedTargets");
        for (index, reference) in targets.filter_map(|(index, target)| Some((index, target.virtual_node_ref.as_ref()?)))
        {
            let target = references::seen_from(&own, reference);
            if snapshot.virtual_nodes.get(target.0, target.1).is_none() {
                let path = format!("{path}[{index}].virtualNodeRef");
                references::missing(Reason::TargetNotFound, "virtualnode", target, path, &mut problems);
            }
        }
    }
    let routes = router.spec.routes.iter().flatten().map(|route| {
        let resource = MeshResource::Route(name.clone(), route.name.clone());
        (route.name.clone(), account::arn(account, &mesh, resource))
    });
    Report {
        arn: Some(account::arn(account, &mesh, MeshResource::VirtualRouter(name.clone()))),
        routes: routes.collect(),
        problems: [check(router, Place { account, mesh: Some(&mesh) }), problems.into_vec()].concat(),
    }
}

/// A route but for its targets.
struct Translated {
    route_match: RouteMatch,
    retry_policy: Option<RetryPolicy>,
    timeouts: Timeouts,
}

/// Translates a route but for its targets; `None` if it has a problem.
fn route(route: &Route, path: &str, problems: &mut Problems) -> Option<Translated> {
    let Some(HttpRoute { match_, retry_policy, timeout, .. }) = &route.http_route else {
        problems.invalid(path, "httpRoute is missing");
        return None;
    };
    let path = format!("{path}.httpRoute");
    // All of them, so that all problems are found.
    let route_match = route_match::http(match_, &format!("{path}.match"), problems);
    let retries = retry_policy.as_ref().map(retries::http).transpose();
    let retry_policy = problems.take(format!("{path}.retryPolicy"), retries);
    let HttpTimeout { per_request, idle } = timeout.unwrap_or_default();
    let timeouts = Timeouts { request_millis: per_request.map(millis), idle_millis: idle.map(millis) };
    Some(Translated { route_match: route_match?, retry_policy: retry_policy?, timeouts })
}

fn targets(route: &Route, path: &str, problems: &mut Problems) {
    let Some(http) = &route.http_route else { return };
    let path = format!("{path}.httpRoute.action.weightedTargets");
    let targets = &http.action.weighted_targets;
    for (index, _) in targets.iter().enumerate().filter(|(_, target)| target.virtual_node_ref.is_none()) {
        problems.invalid(format!("{path}[{index}]"), "virtualNodeRef is missing");
    }
    if targets.iter().all(|target| target.weight == 0) {
        problems.add(Reason::NoWeight, path, "the weights add up to 0");
    }
}
