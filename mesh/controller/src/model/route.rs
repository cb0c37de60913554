//! Describes where requests for a VirtualService go.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Port, Protocol, RetryPolicy, RouteMatch, ServiceKey, Timeouts, Upstream};

/// What one VirtualService routes to, and all that a caller must know of the upstreams behind it. It is made from this
/// cluster's objects or from what another cluster publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Routing {
    /// What callers speak, and on which ports; at least one.
    pub listeners: Vec<RoutedListener>,
    /// The targets, by `awsName` of the VirtualNode. One of another port than the first listener's is `<name>:<port>`.
    pub upstreams: BTreeMap<String, Upstream>,
}

/// A port of a VirtualService, and where its requests go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoutedListener {
    /// The port.
    #[serde(flatten)]
    pub port: Port,
    /// The first that matches takes the request. Of tcp the first takes every connection; its match, retries and request
    /// timeout have no meaning there.
    pub routes: Vec<Route>,
}

impl Routing {
    /// What is called on one port.
    pub fn of_port(port: Port, routes: Vec<Route>, upstreams: BTreeMap<String, Upstream>) -> Self {
        Self { listeners: vec![RoutedListener { port, routes }], upstreams }
    }

    /// The listeners that requests come to; the first of them, or that of port 80, also takes those that name no port.
    pub fn http(&self) -> impl Iterator<Item = &RoutedListener> {
        self.listeners.iter().filter(|listener| listener.port.protocol != Protocol::Tcp)
    }

    /// The listeners that connections come to.
    pub fn tcp(&self) -> impl Iterator<Item = &RoutedListener> {
        self.listeners.iter().filter(|listener| listener.port.protocol == Protocol::Tcp)
    }

    /// The Cloud Map services of all upstreams.
    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.upstreams.values().filter_map(|upstream| upstream.discovery.cloud_map()).map(|discovery| &discovery.key)
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Its name in its router.
    pub name: String,
    /// Which requests it takes.
    #[serde(rename = "match")]
    pub route_match: RouteMatch,
    /// Where the requests go.
    pub targets: Vec<Target>,
    /// When a request is sent again; absent is App Mesh's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,
    /// How long a request may take.
    pub timeouts: Timeouts,
}

impl Route {
    /// A route that takes every request.
    pub fn of_everything(name: String, targets: Vec<Target>) -> Self {
        Self { name, route_match: RouteMatch::default(), targets, retry_policy: None, timeouts: Timeouts::default() }
    }
}

/// An upstream and its share of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Key in [`Routing::upstreams`].
    pub upstream: String,
    /// 0 to 100, relative to the other targets.
    pub weight: u32,
}
