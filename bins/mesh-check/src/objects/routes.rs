//! Finds the routes of a router that get nothing, because one before them takes all that they would.

use std::cmp::Reverse;

use mesh_api::{GrpcRouteMatch, HttpPathMatch, HttpRouteMatch, Route};

/// The routes that are shadowed, each with the one that is tried before it.
pub fn shadowed(routes: &[Route]) -> Vec<(&str, &str)> {
    let mut tried: Vec<&Route> = routes.iter().collect();
    // The lowest first, those without a priority last; then the most specific path first, and otherwise as they stand.
    tried.sort_by_key(|route| (route.priority.unwrap_or(u16::MAX), Reverse(specificity(route))));
    let mut found = Vec::new();
    for (index, route) in tried.iter().enumerate() {
        if let Some(before) = tried[..index].iter().find(|before| covers(before, route)) {
            found.push((route.name.as_str(), before.name.as_str()));
        }
    }
    found
}

/// How few paths a route takes: an exact path, an expression or a prefix, and its length.
fn specificity(route: &Route) -> (u8, usize) {
    if let Some(route) = route.http_route.as_ref().or(route.http2_route.as_ref()) {
        let HttpRouteMatch { prefix, path, .. } = &route.match_;
        let HttpPathMatch { exact, regex } = path.clone().unwrap_or_default();
        let (exact, regex) = (exact.map(|path| (2, path.len())), regex.map(|expression| (1, expression.len())));
        return exact.or(regex).unwrap_or((0, prefix.as_ref().map_or(0, String::len)));
    }
    let GrpcRouteMatch { service_name, method_name, .. } =
        route.grpc_route.as_ref().map(|route| route.match_.clone()).unwrap_or_default();
    let length = service_name.map_or(0, |service| service.len());
    method_name.map_or((0, length), |method| (2, length + method.len()))
}

/// Whether the first takes all that the second would. When in doubt, it does not.
fn covers(first: &Route, second: &Route) -> bool {
    let http = |one: &Route, other: &Route| match (&one.http_route, &other.http_route) {
        (Some(one), Some(other)) => covers_http(&one.match_, &other.match_),
        _ => match (&one.http2_route, &other.http2_route) {
            (Some(one), Some(other)) => covers_http(&one.match_, &other.match_),
            _ => false,
        },
    };
    let grpc = match (&first.grpc_route, &second.grpc_route) {
        (Some(one), Some(other)) => covers_grpc(&one.match_, &other.match_),
        _ => false,
    };
    let tcp = match (&first.tcp_route, &second.tcp_route) {
        (Some(one), Some(other)) => {
            let port = |route: &mesh_api::TcpRoute| route.match_.and_then(|it| it.port);
            covers_port(port(one), port(other))
        }
        _ => false,
    };
    http(first, second) || grpc || tcp
}

fn covers_http(first: &HttpRouteMatch, second: &HttpRouteMatch) -> bool {
    let same_or_any = first.method.is_none_or(|method| second.method == Some(method))
        && first.scheme.is_none_or(|scheme| second.scheme == Some(scheme))
        && first.headers.as_ref().is_none_or(|headers| second.headers.as_ref() == Some(headers))
        && first.query_parameters.as_ref().is_none_or(|query| second.query_parameters.as_ref() == Some(query));
    let exact = |route: &HttpRouteMatch| route.path.as_ref().and_then(|path| path.exact.clone());
    let path = match (&first.prefix, &second.prefix) {
        (Some(first), Some(second)) => second.starts_with(first.as_str()),
        (Some(first), None) => first == "/" || exact(second).is_some_and(|path| path.starts_with(first.as_str())),
        (None, None) => first.path == second.path,
        (None, Some(_)) => false,
    };
    same_or_any && path && covers_port(first.port, second.port)
}

fn covers_grpc(first: &GrpcRouteMatch, second: &GrpcRouteMatch) -> bool {
    first.service_name.as_ref().is_none_or(|name| second.service_name.as_ref() == Some(name))
        && first.method_name.as_ref().is_none_or(|name| second.method_name.as_ref() == Some(name))
        && first.metadata.as_ref().is_none_or(|metadata| second.metadata.as_ref() == Some(metadata))
        && covers_port(first.port, second.port)
}

fn covers_port(first: Option<u16>, second: Option<u16>) -> bool {
    first.is_none_or(|port| second == Some(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_route_behind_one_that_takes_all_gets_nothing() {
        let action = json!({"weightedTargets": []});
        let http = |name: &str, priority: Option<u16>, matched: Value| {
            let route = json!({"match": matched, "action": action});
            json!({"name": name, "priority": priority, "httpRoute": route})
        };
        let all = || json!({"prefix": "/"});
        let api = || json!({"prefix": "/api"});
        let v2 = || json!({"prefix": "/", "headers": [{"name": "v", "match": {"exact": "2"}}]});
        let tcp = |name: &str, port: Option<u16>| json!({"name": name, "tcpRoute": {"match": {"port": port}, "action": action}});
        let grpc = |name: &str, service: Option<&str>| json!({"name": name, "grpcRoute": {"match": {"serviceName": service}, "action": action}});
        for (case, routes, expected) in [
            ("a longer prefix, though behind", json!([http("a", None, all()), http("b", None, api())]), vec![]),
            ("all by priority", json!([http("a", Some(0), all()), http("b", None, api())]), vec![("b", "a")]),
            ("narrow first", json!([http("b", None, api()), http("a", None, all())]), vec![]),
            ("by priority", json!([http("a", None, all()), http("b", Some(0), api())]), vec![]),
            ("more conditions first", json!([http("a", None, v2()), http("b", None, all())]), vec![]),
            ("the same conditions", json!([http("a", None, v2()), http("b", None, v2())]), vec![("b", "a")]),
            ("fewer conditions first", json!([http("a", None, all()), http("b", None, v2())]), vec![("b", "a")]),
            (
                "an exact path",
                json!([http("a", None, api()), http("b", None, json!({"path": {"exact": "/api/x"}}))]),
                vec![],
            ),
            (
                "an exact path by priority",
                json!([http("a", Some(1), api()), http("b", Some(2), json!({"path": {"exact": "/api/x"}}))]),
                vec![("b", "a")],
            ),
            (
                "an expression",
                json!([http("a", None, api()), http("b", None, json!({"path": {"regex": "/api/.*"}}))]),
                vec![],
            ),
            (
                "another port",
                json!([
                    http("a", None, json!({"prefix": "/", "port": 1})),
                    http("b", None, json!({"prefix": "/", "port": 2}))
                ]),
                vec![],
            ),
            ("tcp", json!([tcp("a", None), tcp("b", Some(1))]), vec![("b", "a")]),
            ("tcp of another port", json!([tcp("a", Some(2)), tcp("b", Some(1))]), vec![]),
            ("gRPC", json!([grpc("a", None), grpc("b", None)]), vec![("b", "a")]),
            ("gRPC of a service", json!([grpc("a", None), grpc("b", Some("s"))]), vec![]),
            ("gRPC of another service", json!([grpc("a", Some("r")), grpc("b", Some("s"))]), vec![]),
            ("two protocols", json!([http("a", None, all()), grpc("b", None)]), vec![]),
        ] {
            let routes: Vec<Route> = serde_json::from_value(routes).unwrap();
            assert_eq!(shadowed(&routes), expected, "{case}");
        }
    }
}
