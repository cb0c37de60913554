//! What a VirtualService routes to: its router's routes and all that a caller must know of the nodes behind them.
//! The same value is made from this cluster's objects and from the records that another cluster publishes.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use mesh_api::{
    AwsCloudMapServiceDiscovery, DnsServiceDiscovery, HealthCheckPolicy, HttpRetryPolicy, HttpRouteMatch, HttpTimeout,
    MeshObject as _, PortMapping, Protocol, Reference, ServiceDiscovery, VirtualNode, VirtualRouter, VirtualService,
    VirtualServiceProvider,
};
use serde::{Deserialize, Serialize};

use crate::{cloudmap::ServiceKey, problems, store::Snapshot};

/// What one VirtualService routes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Routes {
    /// What callers speak, and on which port.
    pub listener: PortMapping,
    /// The first that matches takes the request.
    pub routes: Vec<Route>,
    /// The targets, by `awsName`.
    pub nodes: BTreeMap<String, Node>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The route's name in its router.
    pub name: String,
    /// Which requests it takes.
    #[serde(flatten)]
    pub match_: HttpRouteMatch,
    /// Where the requests go.
    pub targets: Vec<Target>,
    /// When a request is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<HttpRetryPolicy>,
    /// How long a request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HttpTimeout>,
}

/// A node and its share of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Key in [`Routes::nodes`].
    pub node: String,
    /// 0 to 100, relative to the other targets.
    pub weight: u32,
}

/// A target, as a caller sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// The port its pods listen on.
    pub port: u16,
    /// What they speak there.
    pub protocol: Protocol,
    /// Where its pods are found; absent while the VirtualNode does not exist, so that its share of the requests fails
    /// and no other node gets more than its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<CloudMapDiscovery>,
    /// The name by which its pods are found instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsServiceDiscovery>,
    /// How to try whether they answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckPolicy>,
}

/// Instances of a Cloud Map service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudMapDiscovery {
    /// The namespace's name.
    pub namespace: String,
    /// The service's name.
    pub service: String,
    /// An instance is of this node if it has all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Route {
    /// A route that takes every request.
    pub fn of_everything(name: String, targets: Vec<Target>) -> Self {
        let match_ = HttpRouteMatch { prefix: Some("/".to_owned()), ..HttpRouteMatch::default() };
        Self { name, match_, targets, retry_policy: None, timeout: None }
    }
}

impl CloudMapDiscovery {
    /// What a VirtualNode says of itself.
    pub fn of(discovery: &AwsCloudMapServiceDiscovery) -> Self {
        let attributes = discovery.attributes.iter().flatten();
        Self {
            namespace: discovery.namespace_name.clone(),
            service: discovery.service_name.clone(),
            attributes: attributes.map(|attribute| (attribute.key.clone(), attribute.value.clone())).collect(),
        }
    }

    /// The Cloud Map service.
    pub fn key(&self) -> ServiceKey {
        ServiceKey { namespace: self.namespace.clone(), service: self.service.clone() }
    }
}

impl Routes {
    /// What a VirtualService of this cluster routes to; nothing if it has no provider or its router does not exist.
    pub fn of(service: &VirtualService, snapshot: &Snapshot) -> Option<Self> {
        let own = service.namespace().unwrap_or_default();
        let VirtualServiceProvider { virtual_node, virtual_router } = service.spec.provider.as_ref()?;
        if let Some(node) = virtual_node.as_ref().and_then(|provider| provider.virtual_node_ref.as_ref()) {
            return Self::to_node(snapshot.virtual_node(node.namespace_or(&own), &node.name)?);
        }
        let router = virtual_router.as_ref()?.virtual_router_ref.as_ref()?;
        Self::through(snapshot.virtual_router(router.namespace_or(&own), &router.name)?, snapshot)
    }

    /// The Cloud Map namespaces of all targets.
    pub fn namespaces(&self) -> BTreeSet<String> {
        self.nodes.values().filter_map(|node| node.discovery.as_ref()).map(|found| found.namespace.clone()).collect()
    }

    /// The Cloud Map services of all targets.
    pub fn services(&self) -> impl Iterator<Item = ServiceKey> {
        self.nodes.values().filter_map(|node| node.discovery.as_ref()).map(CloudMapDiscovery::key)
    }

    fn to_node(node: &VirtualNode) -> Option<Self> {
        let listener = node.spec.listeners.as_ref()?.first()?.port_mapping;
        let name = node.aws_name();
        let targets = vec![Target { node: name.clone(), weight: 1 }];
        Some(Self {
            listener,
            routes: vec![Route::of_everything(name.clone(), targets)],
            nodes: BTreeMap::from([(name, found(node, listener))]),
        })
    }

    fn through(router: &VirtualRouter, snapshot: &Snapshot) -> Option<Self> {
        let own = router.namespace().unwrap_or_default();
        let listener = router.spec.listeners.as_ref()?.first()?.port_mapping;
        let mut nodes = BTreeMap::new();
        let mut target = |reference: &Reference, weight: u32| {
            let namespace = reference.namespace_or(&own);
            let node = snapshot.virtual_node(namespace, &reference.name);
            let name = node.map_or_else(|| format!("{}_{namespace}", reference.name), |node| node.aws_name());
            let PortMapping { port, protocol } = listener;
            let absent = Node { port, protocol, discovery: None, dns: None, health_check: None };
            nodes.insert(name.clone(), node.map_or(absent, |node| found(node, listener)));
            Target { node: name, weight }
        };
        let mut ordered: Vec<_> = router.spec.routes.iter().flatten().collect();
        // The sort is stable: routes of one priority keep the order of the manifest.
        ordered.sort_by_key(|route| route.priority.unwrap_or(u16::MAX));
        let mut routes = Vec::new();
        for route in ordered {
            let Some(http) = &route.http_route else { continue };
            // What admission never saw may be more than is served: its status tells, and the other routes go on.
            if !problems::of_route(&http.match_, http.retry_policy.as_ref()).is_empty() {
                continue;
            }
            let targets = http.action.weighted_targets.iter();
            let targets = targets.filter_map(|given| Some((given.virtual_node_ref.as_ref()?, given.weight)));
            routes.push(Route {
                name: route.name.clone(),
                match_: http.match_.clone(),
                targets: targets.map(|(node, weight)| target(node, weight)).collect(),
                retry_policy: http.retry_policy.clone(),
                timeout: http.timeout,
            });
        }
        Some(Self { listener, routes, nodes })
    }
}

fn found(node: &VirtualNode, caller: PortMapping) -> Node {
    let listener = node.spec.listeners.iter().flatten().next();
    let PortMapping { port, protocol } = listener.map_or(caller, |listener| listener.port_mapping);
    let health_check = listener.and_then(|listener| listener.health_check.clone());
    let health_check = health_check.filter(|policy| problems::of_health_check(policy).is_empty());
    let ServiceDiscovery { aws_cloud_map, dns } = node.spec.service_discovery.clone().unwrap_or_default();
    let discovery = aws_cloud_map.as_ref().map(CloudMapDiscovery::of);
    Node { port, protocol, discovery, dns, health_check }
}
