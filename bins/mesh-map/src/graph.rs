//! Builds the graph of a mesh from the objects of its clusters.

mod lookup;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{Resource, ResourceExt};
use lookup::Lookup;
use mesh_api::{
    Arn, GatewayRoute, GatewayRouteHostnameMatch, GatewayRouteVirtualService, HttpGatewayRoute, MeshObject, Reference,
    VirtualNode, VirtualRouter, VirtualService, VirtualServiceBackend,
};
use mesh_objects::{ClusterObjects, action};
use serde::Serialize;
use std::fmt;

/// A picture's content, whatever its language.
#[derive(Debug, Default, Serialize)]
pub struct Graph {
    /// The boxes.
    pub clusters: Vec<Cluster>,
    /// The objects, and what is named and does not exist.
    pub nodes: Vec<Node>,
    /// Who calls whom.
    pub edges: Vec<Edge>,
}

/// A cluster, or the manifests for one.
#[derive(Debug, Serialize)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The names of its Meshes.
    pub meshes: Vec<String>,
    /// What is wrong with its Meshes.
    pub problems: Vec<String>,
}

/// An object of the mesh, or one that is named and does not exist.
#[derive(Debug, PartialEq, Serialize)]
pub struct Node {
    /// Index of its cluster; none of what no given cluster has.
    pub cluster: Option<usize>,
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: String,
    /// What else there is to know.
    pub facts: Vec<String>,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

/// The kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    VirtualGateway,
    GatewayRoute,
    VirtualNode,
    VirtualService,
    VirtualRouter,
    BackendGroup,
}

/// One calls another, or sends requests there.
#[derive(Debug, Serialize)]
pub struct Edge {
    /// Index of the node that it begins at.
    pub from: usize,
    /// Index of the node that it leads to.
    pub to: usize,
    /// What is written beside it: the target's share of each route's requests, with the route's name if there are several.
    pub labels: Vec<String>,
    /// It leads to another cluster.
    pub across: bool,
    /// It leads to what does not exist.
    pub broken: bool,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Cluster {
    /// What stands at its box.
    pub fn lines(&self) -> Vec<String> {
        let meshes = self.meshes.iter().map(|mesh| format!("mesh {mesh}"));
        std::iter::once(self.name.clone()).chain(meshes).chain(self.problems.iter().cloned()).collect()
    }
}

impl Node {
    /// What stands in it: its kind first, then its name.
    pub fn lines(&self) -> Vec<String> {
        let names = [self.kind.to_string(), self.name.clone()];
        names.into_iter().chain(self.facts.iter().cloned()).chain(self.problems.iter().cloned()).collect()
    }

    /// Whether it is drawn in red.
    pub fn is_broken(&self) -> bool {
        !self.problems.is_empty()
    }

    /// What is named and does not exist.
    fn absent(cluster: Option<usize>, kind: Kind, name: String, problem: &str) -> Self {
        Self { cluster, kind, name, facts: Vec::new(), problems: vec![problem.to_owned()] }
    }
}

impl Graph {
    /// Draws the clusters together: their edges may lead from one to another.
    pub fn of(clusters: &[ClusterObjects]) -> Self {
        let mut graph = Self { clusters: clusters.iter().map(cluster).collect(), ..Self::default() };
        let mut lookup = Lookup::default();
        for (at, objects) in clusters.iter().enumerate() {
            graph.add_objects(at, objects, &mut lookup);
        }
        for (at, objects) in clusters.iter().enumerate() {
            Edges { graph: &mut graph, lookup: &lookup, at, objects }.add_all();
        }
        graph
    }

    /// The nodes of a cluster, or of none, each with its index.
    pub fn nodes_of(&self, cluster: Option<usize>) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(move |(_, node)| node.cluster == cluster)
    }

    /// All that is broken, a line each.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let of_clusters = self
            .clusters
            .iter()
            .flat_map(|cluster| cluster.problems.iter().map(|problem| format!("{}: {problem}", cluster.name)));
        let of_nodes = self.nodes.iter().flat_map(|node| {
            let place = node.cluster.map_or_else(String::new, |at| format!("{}: ", self.clusters[at].name));
            node.problems.iter().map(move |problem| format!("{place}{} {}: {problem}", node.kind, node.name))
        });
        of_clusters.chain(of_nodes)
    }

    fn add_objects(&mut self, at: usize, objects: &ClusterObjects, lookup: &mut Lookup) {
        let mut add = |kind, named: Named<'_>, facts: Vec<String>, problems: Vec<String>| {
            let node = Node { cluster: Some(at), kind, name: named.to_string(), facts, problems };
            lookup.note(at, kind, &named, self.nodes.len());
            self.nodes.push(node);
        };
        for gateway in sorted(&objects.gateways) {
            let status = gateway.status.as_ref().and_then(|status| status.pods.as_deref());
            let (facts, idle) = pods(gateway, gateway.spec.pod_selector.as_ref(), status, objects);
            let problems = inactive(gateway).into_iter().chain(idle).collect();
            add(Kind::VirtualGateway, Named::of(gateway, objects), facts, problems);
        }
        for route in sorted(&objects.gateway_routes) {
            let unowned = gateways_of(route, objects).is_empty().then(|| "no VirtualGateway selects it".to_owned());
            let problems = inactive(route).into_iter().chain(unowned).collect();
            add(Kind::GatewayRoute, Named::of(route, objects), requests(route), problems);
        }
        for node in sorted(&objects.nodes) {
            let status = node.status.as_ref().and_then(|status| status.pods.as_deref());
            let (mut facts, idle) = pods(node, node.spec.pod_selector.as_ref(), status, objects);
            let dns = node.spec.service_discovery.as_ref().and_then(|discovery| discovery.dns.as_ref());
            facts.extend(dns.map(|dns| format!("DNS {}", dns.hostname)));
            let problems = inactive(node).into_iter().chain(idle).collect();
            add(Kind::VirtualNode, Named::of(node, objects), facts, problems);
        }
        for service in sorted(&objects.services) {
            let facts = vec![service.aws_name()];
            add(Kind::VirtualService, Named::of(service, objects), facts, inactive(service).into_iter().collect());
        }
        for router in sorted(&objects.routers) {
            let routes = router.spec.routes.iter().flatten();
            let weightless = routes.filter(|route| {
                let targets = action(route).map(|action| action.weighted_targets.as_slice()).unwrap_or_default();
                !targets.is_empty() && targets.iter().all(|target| target.weight == 0)
            });
            let weightless = weightless.map(|route| format!("route {}: all weights are 0", route.name));
            let problems = inactive(router).into_iter().chain(weightless).collect();
            add(Kind::VirtualRouter, Named::of(router, objects), Vec::new(), problems);
        }
    }
}

/// An object's names.
struct Named<'a> {
    namespace: String,
    name: String,
    /// In AWS's terms.
    aws_name: String,
    arn: Option<&'a str>,
    /// The Meshes that it may belong to, in AWS's terms; any, if there are none.
    meshes: Vec<String>,
}

impl<'a> Named<'a> {
    fn of<K: mesh_api::MeshMember>(object: &'a K, objects: &ClusterObjects) -> Self {
        let mesh = object.mesh_ref().map(|mesh| mesh.name.as_str());
        let meshes = objects.meshes.iter().filter(|other| mesh.is_none_or(|mesh| other.name_any() == mesh));
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            aws_name: object.aws_name(),
            arn: object.arn(),
            meshes: meshes.map(MeshObject::aws_name).collect(),
        }
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn cluster(objects: &ClusterObjects) -> Cluster {
    let problems =
        objects.meshes.iter().filter_map(|mesh| Some(format!("Mesh {}: {}", mesh.name_any(), inactive(mesh)?)));
    Cluster {
        name: objects.name.clone(),
        meshes: objects.meshes.iter().map(ResourceExt::name_any).collect(),
        problems: problems.collect(),
    }
}

/// By namespace and name, so that a picture does not depend on the order of its objects.
fn sorted<K: Resource>(objects: &[K]) -> Vec<&K> {
    let mut sorted: Vec<&K> = objects.iter().collect();
    sorted.sort_by_key(|object| (object.meta().namespace.clone(), object.meta().name.clone()));
    sorted
}

/// Why an object is not in force.
fn inactive<K: MeshObject>(object: &K) -> Option<String> {
    let active = object.conditions().iter().find(|condition| condition.type_ == K::ACTIVE)?;
    (active.status == "False").then(|| active.reason.clone().unwrap_or_else(|| format!("{} is False", K::ACTIVE)))
}

/// What is known of an object's pods, and what is wrong with them. Before the controller has counted them, it is how many
/// the given Deployments make.
fn pods<K: Resource>(
    object: &K,
    selector: Option<&LabelSelector>,
    status: Option<&str>,
    objects: &ClusterObjects,
) -> (Vec<String>, Option<String>) {
    match status {
        _ if selector.is_none() => (Vec::new(), None),
        Some(pods) if pods.starts_with("0/") => (Vec::new(), Some(format!("{pods} pods ready"))),
        Some(pods) => (vec![format!("{pods} pods ready")], None),
        None => {
            let namespace = object.namespace().unwrap_or_default();
            let selected = objects.workloads.iter().filter(|workload| {
                workload.namespace == namespace && mesh_objects::selects(selector, Some(&workload.labels), false)
            });
            let fact = match selected.map(|workload| workload.replicas).reduce(u64::saturating_add) {
                None => "pods unknown".to_owned(),
                Some(1) => "1 pod".to_owned(),
                Some(count) => format!("{count} pods"),
            };
            (vec![fact], None)
        }
    }
}

/// The requests that a GatewayRoute takes.
fn requests(route: &GatewayRoute) -> Vec<String> {
    let host = |host: Option<&GatewayRouteHostnameMatch>| {
        let host =
            host.and_then(|host| host.exact.clone().or_else(|| host.suffix.as_ref().map(|end| format!("*{end}"))));
        host.map(|host| format!("host {host}"))
    };
    let http = |route: &HttpGatewayRoute| {
        let HttpGatewayRoute { match_, .. } = route;
        let path = match_.path.as_ref().and_then(|path| path.exact.as_ref().or(path.regex.as_ref()));
        let path = path.map(|path| format!("path {path}"));
        let prefix = match_.prefix.as_ref().map(|prefix| format!("prefix {prefix}"));
        host(match_.hostname.as_ref()).into_iter().chain(prefix).chain(path).collect::<Vec<_>>()
    };
    let spec = &route.spec;
    let of_http = spec.http_route.iter().chain(&spec.http2_route).flat_map(http);
    let of_grpc = spec.grpc_route.iter().flat_map(|route| {
        let service = route.match_.service_name.as_ref().map(|service| format!("service {service}"));
        host(route.match_.hostname.as_ref()).into_iter().chain(service)
    });
    of_http.chain(of_grpc).collect()
}

/// The VirtualGateways that a GatewayRoute belongs to. Admission writes down which, but a manifest does not have it.
fn gateways_of(route: &GatewayRoute, objects: &ClusterObjects) -> Vec<Reference> {
    if let Some(owner) = &route.spec.virtual_gateway_ref {
        return vec![Reference { namespace: owner.namespace.clone(), name: owner.name.clone() }];
    }
    let selecting = mesh_objects::selecting(route, objects).into_iter();
    selecting.map(|gateway| Reference { namespace: gateway.namespace(), name: gateway.name_any() }).collect()
}

/// Adds the edges of one cluster's objects.
struct Edges<'a> {
    graph: &'a mut Graph,
    lookup: &'a Lookup,
    at: usize,
    objects: &'a ClusterObjects,
}

impl Edges<'_> {
    fn add_all(&mut self) {
        let objects = self.objects;
        for route in sorted(&objects.gateway_routes) {
            self.gateway_route(route);
        }
        for node in sorted(&objects.nodes) {
            self.virtual_node(node);
        }
        for service in sorted(&objects.services) {
            self.virtual_service(service);
        }
        for router in sorted(&objects.routers) {
            self.virtual_router(router);
        }
    }

    fn gateway_route(&mut self, route: &GatewayRoute) {
        let (namespace, name) = (route.namespace().unwrap_or_default(), route.name_any());
        let Some(to) = self.lookup.by_name(self.at, Kind::GatewayRoute, &namespace, &name) else { return };
        for gateway in gateways_of(route, self.objects) {
            let from = self.by_reference(Kind::VirtualGateway, &gateway, &namespace);
            self.edge(from, to, None);
        }
        let spec = &route.spec;
        let http = spec.http_route.iter().chain(&spec.http2_route).map(|route| &route.action.target);
        for target in http.chain(spec.grpc_route.iter().map(|route| &route.action.target)) {
            let GatewayRouteVirtualService { virtual_service_ref, virtual_service_arn } = &target.virtual_service;
            let (by_name, by_arn) = (virtual_service_ref.as_ref(), virtual_service_arn.as_deref());
            let service = self.target(Kind::VirtualService, by_name, by_arn, &namespace);
            self.edge(to, service, None);
        }
    }

    fn virtual_node(&mut self, node: &VirtualNode) {
        let (namespace, name) = (node.namespace().unwrap_or_default(), node.name_any());
        let Some(from) = self.lookup.by_name(self.at, Kind::VirtualNode, &namespace, &name) else { return };
        for backend in node.spec.backends.iter().flatten() {
            self.backend(from, &backend.virtual_service, &namespace);
        }
        for group in node.spec.backend_groups.iter().flatten() {
            self.group(from, group, &namespace);
        }
    }

    fn group(&mut self, from: usize, group: &Reference, namespace: &str) {
        let place = group.namespace_or(namespace);
        if group.name == "*" {
            for service in sorted(&self.objects.services) {
                if service.namespace().as_deref() == Some(place) {
                    let to = self.lookup.by_name(self.at, Kind::VirtualService, place, &service.name_any());
                    to.into_iter().for_each(|to| self.edge(from, to, None));
                }
            }
            return;
        }
        let mut groups = self.objects.groups.iter();
        match groups.find(|known| known.name_any() == group.name && known.namespace().as_deref() == Some(place)) {
            Some(known) => {
                for service in known.spec.virtual_services.iter().flatten() {
                    let to = self.by_reference(Kind::VirtualService, service, place);
                    self.edge(from, to, None);
                }
            }
            None => {
                let to = self.absent(Node::absent(
                    Some(self.at),
                    Kind::BackendGroup,
                    format!("{place}/{}", group.name),
                    "does not exist",
                ));
                self.edge(from, to, None);
            }
        }
    }

    fn virtual_service(&mut self, service: &VirtualService) {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let Some(from) = self.lookup.by_name(self.at, Kind::VirtualService, &namespace, &name) else { return };
        let Some(provider) = &service.spec.provider else { return };
        if let Some(node) = &provider.virtual_node {
            let (by_name, by_arn) = (node.virtual_node_ref.as_ref(), node.virtual_node_arn.as_deref());
            let to = self.target(Kind::VirtualNode, by_name, by_arn, &namespace);
            self.edge(from, to, None);
        }
        if let Some(router) = &provider.virtual_router {
            let (by_name, by_arn) = (router.virtual_router_ref.as_ref(), router.virtual_router_arn.as_deref());
            let to = self.target(Kind::VirtualRouter, by_name, by_arn, &namespace);
            self.edge(from, to, None);
        }
    }

    fn virtual_router(&mut self, router: &VirtualRouter) {
        let (namespace, name) = (router.namespace().unwrap_or_default(), router.name_any());
        let Some(from) = self.lookup.by_name(self.at, Kind::VirtualRouter, &namespace, &name) else { return };
        let routes = router.spec.routes.as_deref().unwrap_or_default();
        for route in routes {
            let targets = action(route).map(|action| action.weighted_targets.as_slice()).unwrap_or_default();
            let sum: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
            for target in targets {
                let (by_name, by_arn) = (target.virtual_node_ref.as_ref(), target.virtual_node_arn.as_deref());
                let to = self.target(Kind::VirtualNode, by_name, by_arn, &namespace);
                let share = share(target.weight.into(), sum);
                self.edge(from, to, Some(if routes.len() > 1 { format!("{} {share}", route.name) } else { share }));
            }
        }
    }

    fn backend(&mut self, from: usize, backend: &VirtualServiceBackend, namespace: &str) {
        let (by_name, by_arn) = (backend.virtual_service_ref.as_ref(), backend.virtual_service_arn.as_deref());
        let to = self.target(Kind::VirtualService, by_name, by_arn, namespace);
        self.edge(from, to, None);
    }

    /// The node that a reference or an ARN means; one that is broken if there is none.
    fn target(&mut self, kind: Kind, by_name: Option<&Reference>, by_arn: Option<&str>, namespace: &str) -> usize {
        match (by_name, by_arn) {
            (Some(reference), _) => self.by_reference(kind, reference, namespace),
            (None, Some(arn)) => self.by_arn(kind, arn),
            (None, None) => {
                self.absent(Node::absent(Some(self.at), kind, "?".to_owned(), "neither a reference nor an ARN"))
            }
        }
    }

    fn by_reference(&mut self, kind: Kind, reference: &Reference, namespace: &str) -> usize {
        let (place, name) = (reference.namespace_or(namespace), &reference.name);
        self.lookup.by_name(self.at, kind, place, name).unwrap_or_else(|| {
            self.absent(Node::absent(Some(self.at), kind, format!("{place}/{name}"), "does not exist"))
        })
    }

    fn by_arn(&mut self, kind: Kind, text: &str) -> usize {
        let wrong = |problem: String| Node::absent(None, kind, text.to_owned(), &problem);
        let Ok(arn) = text.parse::<Arn>() else { return self.absent(wrong("not an App Mesh ARN".to_owned())) };
        if let Some(known) = self.lookup.by_arn(self.at, kind, &arn) {
            return known;
        }
        match lookup::resource(&arn) {
            Some((named, name)) if named == kind => {
                let absent = Node::absent(None, kind, name.to_owned(), "no given cluster has it");
                let facts = vec![format!("mesh {}", arn.mesh), format!("{} {}", arn.account, arn.region)];
                self.absent(Node { facts, ..absent })
            }
            _ => self.absent(wrong(format!("not the ARN of a {kind}"))),
        }
    }

    /// The node for what does not exist: one for all that name it.
    fn absent(&mut self, node: Node) -> usize {
        self.graph.nodes.iter().position(|other| *other == node).unwrap_or_else(|| {
            self.graph.nodes.push(node);
            self.graph.nodes.len() - 1
        })
    }

    /// One edge leads from a node to another, whatever the number of routes.
    fn edge(&mut self, from: usize, to: usize, label: Option<String>) {
        let Graph { nodes, edges, .. } = &mut *self.graph;
        if let Some(edge) = edges.iter_mut().find(|edge| (edge.from, edge.to) == (from, to)) {
            edge.labels.extend(label);
            return;
        }
        let across = nodes[from].cluster != nodes[to].cluster;
        let broken = [from, to].into_iter().any(|at| self.lookup.is_absent(at));
        edges.push(Edge { from, to, labels: label.into_iter().collect(), across, broken });
    }
}

/// The part of its route's requests that a target gets.
fn share(weight: u64, sum: u64) -> String {
    // Rounded, but nothing that gets requests is said to get none.
    match (weight * 100 + sum / 2).checked_div(sum).unwrap_or(0) {
        0 if weight > 0 => "<1 %".to_owned(),
        percent => format!("{percent} %"),
    }
}

#[cfg(test)]
mod tests;
