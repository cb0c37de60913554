//! Translates which requests a GatewayRoute takes, and what is changed of them.

use mesh_api::{
    DefaultRewrite, GatewayRoute, GatewayRouteHostnameMatch, GatewayRouteHostnameRewrite, GatewayRoutePathRewrite,
    GatewayRoutePrefixRewrite, GatewayRouteTarget, GrpcGatewayRoute, GrpcGatewayRouteMatch, HttpGatewayRoute,
    HttpGatewayRouteMatch, HttpGatewayRouteRewrite, HttpRouteMatch,
};

use super::{problems::Problems, route_match};
use crate::model::{HeaderMatch, HeaderName, HostMatch, PathMatch, PathRewrite, Protocol, RouteMatch, ValueMatch};

/// What a prefix becomes when nothing else is said.
const DEFAULT_PREFIX: &str = "/";

/// The one kind of route that a GatewayRoute has.
pub struct Given<'a> {
    /// Its path in the object.
    pub path: &'static str,
    /// The listeners it is for.
    pub protocol: Protocol,
    /// The route.
    pub route: Kind<'a>,
}

/// A route for HTTP of either version, or for gRPC.
#[derive(Clone, Copy)]
pub enum Kind<'a> {
    /// For HTTP.
    Http(&'a HttpGatewayRoute),
    /// For gRPC.
    Grpc(&'a GrpcGatewayRoute),
}

impl<'a> Kind<'a> {
    /// Where its requests go.
    pub fn target(self) -> &'a GatewayRouteTarget {
        match self {
            Self::Http(route) => &route.action.target,
            Self::Grpc(route) => &route.action.target,
        }
    }

    /// The one port of the gateway that it is for.
    pub fn port(self) -> Option<u16> {
        match self {
            Self::Http(route) => route.match_.port,
            Self::Grpc(route) => route.match_.port,
        }
    }
}

/// The route of a GatewayRoute; `None` if it has not exactly one.
pub fn given<'a>(route: &'a GatewayRoute, problems: &mut Problems) -> Option<Given<'a>> {
    let (path, protocol, route) = match (&route.spec.http_route, &route.spec.http2_route, &route.spec.grpc_route) {
        (Some(route), None, None) => ("spec.httpRoute", Protocol::Http, Kind::Http(route)),
        (None, Some(route), None) => ("spec.http2Route", Protocol::Http2, Kind::Http(route)),
        (None, None, Some(route)) => ("spec.grpcRoute", Protocol::Grpc, Kind::Grpc(route)),
        _ => {
            problems.invalid("spec", "needs one of grpcRoute, http2Route and httpRoute");
            return None;
        }
    };
    Some(Given { path, protocol, route })
}

/// Which requests a route takes and what is changed of them.
pub struct Matched {
    /// The host that is called.
    pub hostname: Option<HostMatch>,
    /// The requests.
    pub route_match: RouteMatch,
    /// What becomes of the path.
    pub path_rewrite: PathRewrite,
    /// Whether the host becomes the target's.
    pub host_rewrite: bool,
}

/// Which requests a route takes; `None` if that makes no sense.
pub fn matched(route: Kind<'_>, path: &str, problems: &mut Problems) -> Option<Matched> {
    let hostname = match route {
        Kind::Http(route) => &route.match_.hostname,
        Kind::Grpc(route) => &route.match_.hostname,
    };
    let hostname = hostname.as_ref().map(|hostname| host(hostname, &format!("{path}.match.hostname"), problems));
    let (route_match, rewrite) = match route {
        Kind::Http(route) => (
            http_match(&route.match_, &format!("{path}.match"), problems),
            http_rewrite(route, &format!("{path}.action.rewrite"), problems),
        ),
        Kind::Grpc(route) => {
            let rewrite = route.action.rewrite.clone().unwrap_or_default();
            let route_match = grpc_match(&route.match_, &format!("{path}.match"), problems);
            (route_match, Some((PathRewrite::Keep, is_rewritten(rewrite.hostname))))
        }
    };
    let hostname = match hostname {
        None => None,
        Some(hostname) => Some(hostname?),
    };
    let (path_rewrite, host_rewrite) = rewrite?;
    Some(Matched { hostname, route_match: route_match?, path_rewrite, host_rewrite })
}

/// A service is what the path of its requests begins with.
fn grpc_match(given: &GrpcGatewayRouteMatch, path: &str, problems: &mut Problems) -> Option<RouteMatch> {
    let GrpcGatewayRouteMatch { service_name, hostname, metadata, .. } = given;
    let prefix = match service_name {
        Some(name) if name.is_empty() || name.contains(['/', '?', '#']) => {
            problems.invalid(format!("{path}.serviceName"), "is not the name of a gRPC service");
            return None;
        }
        Some(name) => format!("/{name}/"),
        None if hostname.is_some() => DEFAULT_PREFIX.to_owned(),
        None => {
            problems.invalid(path, "needs one of serviceName and hostname");
            return None;
        }
    };
    let metadata = metadata.iter().flatten().enumerate();
    let metadata: Vec<_> = metadata
        .map(|(index, given)| route_match::header(given, &format!("{path}.metadata[{index}]"), problems))
        .collect();
    let is_grpc = HeaderMatch {
        name: HeaderName::new("content-type".to_owned()).ok()?,
        value: ValueMatch::prefix("application/grpc".to_owned()).ok()?,
        invert: false,
    };
    let headers: Vec<_> = metadata.into_iter().collect::<Option<_>>()?;
    Some(RouteMatch {
        path: PathMatch::prefix(prefix).ok()?,
        headers: [vec![is_grpc], headers].concat(),
        ..RouteMatch::default()
    })
}

/// Whether the host becomes the target's.
fn is_rewritten(hostname: Option<GatewayRouteHostnameRewrite>) -> bool {
    hostname.and_then(|hostname| hostname.default_target_hostname) != Some(DefaultRewrite::Disabled)
}

fn http_match(given: &HttpGatewayRouteMatch, path: &str, problems: &mut Problems) -> Option<RouteMatch> {
    let HttpGatewayRouteMatch { prefix, path: whole, query_parameters, method, headers, hostname, .. } = given.clone();
    let prefix = match (&prefix, &whole, hostname) {
        (None, None, Some(_)) => Some(DEFAULT_PREFIX.to_owned()),
        (None, None, None) => {
            problems.invalid(path, "needs one of prefix, path and hostname");
            return None;
        }
        _ => prefix,
    };
    let like_a_router =
        HttpRouteMatch { prefix, path: whole, scheme: None, port: None, query_parameters, method, headers };
    route_match::http(&like_a_router, path, problems)
}

fn host(given: &GatewayRouteHostnameMatch, path: &str, problems: &mut Problems) -> Option<HostMatch> {
    match (&given.exact, &given.suffix) {
        (Some(exact), None) => problems.take(format!("{path}.exact"), HostMatch::exact(exact.clone())),
        (None, Some(suffix)) => problems.take(format!("{path}.suffix"), HostMatch::suffix(suffix)),
        _ => {
            problems.invalid(path, "needs one of exact and suffix");
            None
        }
    }
}

/// What becomes of the path, and whether the host becomes the target's.
fn http_rewrite(route: &HttpGatewayRoute, path: &str, problems: &mut Problems) -> Option<(PathRewrite, bool)> {
    let given = route.action.rewrite.as_ref();
    if given.is_some_and(|given| *given == HttpGatewayRouteRewrite::default()) {
        problems.invalid(path, "needs one of prefix, path and hostname");
        return None;
    }
    let HttpGatewayRouteRewrite { prefix, path: whole, hostname } = given.cloned().unwrap_or_default();
    let has_prefix = route.match_.path.is_none();
    let path_rewrite = match (prefix, whole) {
        (None, None) if has_prefix => Some(PathRewrite::Prefix(DEFAULT_PREFIX.to_owned())),
        (None, None) => Some(PathRewrite::Keep),
        (Some(_), Some(_)) => {
            problems.invalid(path, "needs one of prefix and path");
            None
        }
        (Some(_), None) if !has_prefix => {
            problems.invalid(format!("{path}.prefix"), "the route matches a path, not a prefix");
            None
        }
        (Some(prefix), None) => prefix_rewrite(prefix, &format!("{path}.prefix"), problems),
        (None, Some(GatewayRoutePathRewrite { exact: Some(exact) })) => {
            problems.take(format!("{path}.path.exact"), PathRewrite::exact(exact))
        }
        (None, Some(GatewayRoutePathRewrite { exact: None })) => {
            problems.invalid(format!("{path}.path"), "exact is missing");
            None
        }
    };
    let matched = route.match_.prefix.as_deref().unwrap_or(DEFAULT_PREFIX);
    let path_rewrite = path_rewrite.map(|rewrite| match rewrite {
        PathRewrite::Prefix(value) if value == matched => PathRewrite::Keep,
        rewrite => rewrite,
    });
    Some((path_rewrite?, is_rewritten(hostname)))
}

fn prefix_rewrite(given: GatewayRoutePrefixRewrite, path: &str, problems: &mut Problems) -> Option<PathRewrite> {
    match (given.default_prefix, given.value) {
        (Some(_), Some(_)) => {
            problems.invalid(path, "needs one of defaultPrefix and value");
            None
        }
        (None, Some(value)) => problems.take(format!("{path}.value"), PathRewrite::prefix(value)),
        (Some(DefaultRewrite::Disabled), None) => Some(PathRewrite::Keep),
        (Some(DefaultRewrite::Enabled) | None, None) => Some(PathRewrite::Prefix(DEFAULT_PREFIX.to_owned())),
    }
}
