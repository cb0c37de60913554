//! Encodes gateways: listeners that clients outside of the mesh call, whose routes go to VirtualServices.

use envoy_types::pb::envoy::{
    config::{
        core::v3::TrafficDirection,
        listener::v3::{FilterChain, Listener},
        route::v3::{
            HeaderMatcher, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action,
            route_action::HostRewriteSpecifier, route_match::PathSpecifier,
        },
    },
    extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, Rds, http_connection_manager::RouteSpecifier,
    },
    r#type::matcher::v3::{RegexMatchAndSubstitute, string_matcher::MatchPattern},
};

use super::{
    Configuration, Resource, Settings,
    cluster::Names,
    http::{Direction, connection_manager},
    listener,
    proto::{ads, network_filter, yes},
    route,
    route_match::{self, header_is, regex},
    tls,
};
use crate::model::{
    self, Gateway, GatewayRoute, HostMatch, Routing,
    composed::{self, Composed, Pattern, escape},
};

/// How many of those that a request has come through are believed.
const LOAD_BALANCERS: u32 = 1;

/// Encodes a gateway.
pub fn encode(gateway: &Gateway, settings: Settings) -> Configuration {
    let mut configuration = Configuration::default();
    let mut names = Names::default();
    configuration.secrets.extend(tls::secrets_of_listeners(&gateway.listeners));
    for listener in &gateway.listeners {
        names.called_by(listener);
        for route in gateway.routes_of(listener) {
            configuration.call(&route.target, &mut names);
        }
        let encoded = encode_listener(gateway, settings, listener);
        configuration.listeners.extend([Resource::new(&encoded.name, &encoded)]);
        let routes = routes(gateway, listener, &names);
        configuration.routes.extend([Resource::new(&routes.name, &routes)]);
    }
    configuration
}

fn routes_name(listener: &model::Listener) -> String {
    let model::Port { port, protocol } = listener.port;
    format!("rds_ingress_{}_{port}", protocol.as_str())
}

fn encode_listener(gateway: &Gateway, settings: Settings, listener: &model::Listener) -> Listener {
    let routes = Rds { config_source: ads(), route_config_name: routes_name(listener) };
    let manager = HttpConnectionManager {
        // Its clients are not part of the mesh: they cannot tell Envoy what to do, and do not get around a route by `..`.
        use_remote_address: yes(),
        // A load balancer in front tells the scheme and the address that the client has. Envoy would take its own: http, where
        // the load balancer has taken TLS off, and routes and applications would redirect to https for ever.
        xff_num_trusted_hops: LOAD_BALANCERS,
        normalize_path: yes(),
        ..connection_manager(
            gateway.access_log.as_ref(),
            settings,
            "ingress",
            RouteSpecifier::Rds(routes),
            Direction::FromOutside,
        )
    };
    let port = listener.port.port;
    let chain = FilterChain { filters: vec![network_filter(&manager)], ..FilterChain::default() };
    let mut encoded = Listener {
        filter_chains: listener::encrypted(chain, listener),
        traffic_direction: TrafficDirection::Inbound.into(),
        ..listener::listener(&format!("lds_ingress_0.0.0.0_{port}"), port, settings)
    };
    if listener::is_permissive(listener) {
        listener::inspect_tls(&mut encoded);
    }
    encoded
}

/// The routes of one listener. They are of one virtual host, for a route's priority comes before its host.
fn routes(gateway: &Gateway, listener: &model::Listener, names: &Names<'_>) -> RouteConfiguration {
    let mut routes: Vec<_> = gateway.routes_of(listener).flat_map(|route| of_gateway_route(route, names)).collect();
    let why = format!("no GatewayRoute of VirtualGateway {} takes this request", gateway.name.name);
    routes.push(route::everything(route::refuse(404, &why)));
    let host = VirtualHost {
        name: gateway.name.name.clone(),
        domains: vec!["*".to_owned()],
        routes,
        ..VirtualHost::default()
    };
    RouteConfiguration { name: routes_name(listener), virtual_hosts: vec![host], ..RouteConfiguration::default() }
}

/// A route for each route of the target, and the answer to requests that the target takes by none. So they do not go to the
/// gateway's next route.
fn of_gateway_route(gateway_route: &GatewayRoute, names: &Names<'_>) -> Vec<Route> {
    let target = &gateway_route.target;
    let own = Pattern::from(&gateway_route.route_match.path);
    let alone = |action| Route {
        name: gateway_route.name.clone(),
        r#match: Some(encode_match(gateway_route, &own, None, &gateway_route.route_match)),
        action: Some(action),
        ..Route::default()
    };
    if let Some(why) = &target.refusal {
        return vec![alone(route::refuse(503, why))];
    }
    let Some(routing) = &target.routing else {
        let why = format!("no route published for VirtualService {} in mesh {}", target.host, target.mesh);
        return vec![alone(route::refuse(503, &why))];
    };
    let mut routes = Vec::new();
    for one in routing.listeners.iter().flat_map(|listener| &listener.routes) {
        let composed = match gateway_route.composed_with(one) {
            Ok(composed) => composed,
            Err(why) => {
                // What follows could take what is this route's.
                routes.push(alone(route::refuse(503, &why.to_string())));
                return routes;
            }
        };
        for Composed { path, path_too, conditions } in composed {
            let encoded = Route {
                name: format!("{}/{}", gateway_route.name, one.name),
                r#match: Some(encode_match(gateway_route, &path, path_too.as_ref(), &conditions)),
                action: Some(rewritten(gateway_route, routing, one, names)),
                ..Route::default()
            };
            routes.extend(route::with_repeats(encoded, one));
            let same = model::RouteMatch { path: conditions.path.clone(), ..gateway_route.route_match.clone() };
            if path == own && path_too.is_none() && conditions == same {
                return routes;
            }
        }
    }
    routes.push(alone(route::refuse(404, &format!("no route of VirtualService {} takes this request", target.host))));
    routes
}

fn encode_match(
    gateway_route: &GatewayRoute,
    path: &Pattern,
    path_too: Option<&Pattern>,
    conditions: &model::RouteMatch,
) -> RouteMatch {
    let mut encoded = route_match::encode(conditions);
    let path_too = path_too.map(|pattern| MatchPattern::SafeRegex(regex(&pattern.with_query())));
    encoded.headers.extend(path_too.map(|pattern| header_is(":path", pattern)));
    encoded.path_specifier = Some(match path {
        Pattern::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
        Pattern::Exact(path) => PathSpecifier::Path(path.clone()),
        Pattern::Regex(expression) => PathSpecifier::SafeRegex(regex(expression)),
    });
    encoded.headers.extend(gateway_route.hostname.as_ref().map(host));
    encoded
}

/// The host, whatever its port.
fn host(host: &HostMatch) -> HeaderMatcher {
    let expression = match host {
        HostMatch::Exact(name) => escape(name),
        HostMatch::Suffix(suffix) => format!(".+{}", escape(suffix)),
    };
    header_is(":authority", MatchPattern::SafeRegex(regex(&format!("(?i){expression}(:[0-9]+)?"))))
}

/// What the target's route does, to the request as the gateway's route rewrites it.
fn rewritten(gateway_route: &GatewayRoute, routing: &Routing, one: &model::Route, names: &Names<'_>) -> Action {
    let target = &gateway_route.target;
    let Action::Route(action) = route::action(target, routing, one, names) else {
        return route::action(target, routing, one, names);
    };
    let substitution = composed::substitution(&gateway_route.route_match.path, &gateway_route.path_rewrite);
    Action::Route(RouteAction {
        regex_rewrite: substitution
            .map(|(pattern, substitution)| RegexMatchAndSubstitute { pattern: Some(regex(&pattern)), substitution }),
        host_rewrite_specifier: gateway_route
            .host_rewrite
            .then(|| HostRewriteSpecifier::HostRewriteLiteral(target.host.clone())),
        ..action
    })
}
