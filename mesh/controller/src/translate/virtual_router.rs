//! Translates a VirtualRouter: its routes, and the upstreams that they lead to.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use mesh_api::{
    HeaderMatchMethod, HttpRetryEvent, HttpRetryPolicy, HttpRoute, HttpRouteHeader, HttpRouteMatch, HttpTimeout,
    MeshObject as _, Reference, Route, TcpRetryEvent, VirtualRouter, arn::MeshResource,
};

use super::{
    Context, Report, account,
    problems::{Check, Place, Problems, check, listeners, millis, port},
    references, virtual_node,
};
use crate::{
    cluster::{Object, Snapshot},
    model::{
        self, Discovery, HeaderMatch, HeaderName, PathMatch, QueryMatch, Reason, RetryOn, RetryPolicy, RouteMatch,
        Routing, Target, Timeouts, Upstream, ValueMatch,
    },
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
    let route_match = self::route_match(match_, &format!("{path}.match"), problems);
    let retries = retry_policy.as_ref().map(retry_policy_of).transpose();
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

/// Which requests a route takes; `None` if that makes no sense.
pub fn route_match(given: &HttpRouteMatch, path: &str, problems: &mut Problems) -> Option<RouteMatch> {
    let matched = match (&given.prefix, given.path.as_ref().map(|path| &path.exact)) {
        (Some(prefix), None) => problems.take(format!("{path}.prefix"), PathMatch::prefix(prefix.clone())),
        (None, Some(Some(exact))) => problems.take(format!("{path}.path.exact"), PathMatch::exact(exact.clone())),
        (None, Some(None)) => {
            problems.invalid(format!("{path}.path"), "exact is missing");
            None
        }
        _ => {
            problems.invalid(path, "needs one of path and prefix");
            None
        }
    };
    let headers = given.headers.iter().flatten().enumerate();
    let headers: Vec<_> =
        headers.map(|(index, given)| header(given, &format!("{path}.headers[{index}]"), problems)).collect();
    let parameters = given.query_parameters.iter().flatten().enumerate();
    let parameters: Vec<_> = parameters
        .map(|(index, given)| {
            let exact = given.match_.as_ref().and_then(|value| value.exact.clone());
            problems.take(format!("{path}.queryParameters[{index}].name"), QueryMatch::new(given.name.clone(), exact))
        })
        .collect();
    Some(RouteMatch {
        path: matched?,
        method: given.method.map(|method| method.to_string()),
        headers: headers.into_iter().collect::<Option<_>>()?,
        query_parameters: parameters.into_iter().collect::<Option<_>>()?,
    })
}

/// What a header must be; `None` if that makes no sense.
pub fn header(given: &HttpRouteHeader, path: &str, problems: &mut Problems) -> Option<HeaderMatch> {
    let name = problems.take(format!("{path}.name"), HeaderName::new(given.name.clone()));
    let value = match given
        .match_
        .clone()
        .map(|HeaderMatchMethod { exact, prefix, suffix, range }| (exact, prefix, suffix, range))
    {
        None => Some(ValueMatch::Present),
        Some((Some(exact), None, None, None)) => Some(ValueMatch::Exact(exact)),
        Some((None, Some(prefix), None, None)) => {
            problems.take(format!("{path}.match.prefix"), ValueMatch::prefix(prefix))
        }
        Some((None, None, Some(suffix), None)) => {
            problems.take(format!("{path}.match.suffix"), ValueMatch::suffix(suffix))
        }
        Some((None, None, None, Some(range))) => {
            problems.take(format!("{path}.match.range"), ValueMatch::range(range.start, range.end))
        }
        Some(_) => {
            problems.invalid(format!("{path}.match"), "needs one of exact, prefix, range and suffix");
            None
        }
    };
    Some(HeaderMatch { name: name?, value: value?, invert: given.invert.unwrap_or_default() })
}

fn retry_policy_of(policy: &HttpRetryPolicy) -> Result<RetryPolicy, model::Invalid> {
    let http = policy.http_retry_events.iter().flatten().map(|event| match event {
        HttpRetryEvent::ServerError => RetryOn::ServerError,
        HttpRetryEvent::GatewayError => RetryOn::GatewayError,
        HttpRetryEvent::ClientError => RetryOn::ClientError,
        HttpRetryEvent::StreamError => RetryOn::StreamError,
    });
    let tcp = policy.tcp_retry_events.iter().flatten().map(|TcpRetryEvent::ConnectionError| RetryOn::ConnectionError);
    RetryPolicy::new(http.chain(tcp).collect(), policy.max_retries, millis(policy.per_retry_timeout))
}
