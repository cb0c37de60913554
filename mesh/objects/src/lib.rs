//! Holds the objects of a mesh, as manifests or a live cluster have them, and says which of them belong together. It knows
//! nothing of the controller.

mod live;
mod manifests;
mod objects;

pub use live::{items, read};
pub use manifests::{Source, read as read_manifests};
pub use objects::{ClusterObjects, Labels, Workload};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};
use mesh_api::{GatewayRoute, Route, RouteAction, VirtualGateway, VirtualGatewaySpec};

/// Whether a selector selects labels; `absent` is what none selects. Labels that nobody knows may be any.
pub fn selects(selector: Option<&LabelSelector>, labels: Option<&Labels>, absent: bool) -> bool {
    let Some(selector) = selector else { return absent };
    labels.is_none_or(|labels| Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels)))
}

/// Where a route's requests go, whatever its protocol.
pub fn action(route: &Route) -> Option<&RouteAction> {
    let http = route.http_route.as_ref().or(route.http2_route.as_ref()).map(|route| &route.action);
    http.or(route.grpc_route.as_ref().map(|route| &route.action))
        .or(route.tcp_route.as_ref().map(|route| &route.action))
}

/// The VirtualGateways that select a GatewayRoute, by name.
pub fn selecting<'a>(route: &GatewayRoute, objects: &'a ClusterObjects) -> Vec<&'a VirtualGateway> {
    let labels = objects.namespaces.get(&route.namespace().unwrap_or_default());
    let selects = |gateway: &&VirtualGateway| {
        let VirtualGatewaySpec { gateway_route_selector, namespace_selector, .. } = &gateway.spec;
        selects(gateway_route_selector.as_ref(), Some(route.labels()), true)
            && selects(namespace_selector.as_ref(), labels, false)
    };
    let mut found: Vec<_> = objects.gateways.iter().filter(selects).collect();
    found.sort_by_key(|gateway| (gateway.namespace(), gateway.name_any()));
    found
}
