//! Checks (group 04) the objects of a mesh, of live clusters or of manifests. Pure.

mod refusal;
mod routes;

use crate::finding::{Check, Finding, Severity, checks};
use crate::scene::{ENVOY, Scene, Side, Template, alive, has_container};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{Resource, ResourceExt};
use mesh_api::{
    Arn, GatewayRoute, GatewayRouteVirtualService, Mesh, MeshMember, MeshObject, Reference, VirtualNode,
    VirtualServiceBackend, arn::MeshResource,
};
use mesh_objects::{Labels, selects};
use refusal::{is_injected, refusal};
use std::collections::{BTreeMap, BTreeSet};

checks! {
    READABLE Error "XM0401" "every object parses";
    SUPPORTED Error "XM0402" "no object has a field that only App Mesh could support";
    KNOWN Warning "XM0403" "every field is one of App Mesh's";
    MESH Error "XM0404" "every object has its Mesh, and one only";
    PROVIDER Error "XM0405" "the VirtualRouter or VirtualNode of every VirtualService exists";
    TARGET Error "XM0406" "the VirtualNode of every route exists";
    BACKEND Error "XM0407" "every VirtualService that is called exists";
    ARN Error "XM0408" "every ARN is one of App Mesh, of a VirtualService that one of the clusters has";
    HOST Error "XM0409" "no two VirtualServices have one host";
    NAME Warning "XM0410" "the host of every VirtualService resolves where it is called";
    SELECTED Error "XM0411" "every pod is selected by one object at most";
    PODS Warning "XM0412" "every podSelector selects pods";
    SIDECAR Warning "XM0413" "every pod that is to have a sidecar has one";
    GATEWAY Error "XM0414" "every GatewayRoute is selected by one VirtualGateway";
    WEIGHT Error "XM0415" "no route has weights of 0 only";
    SHADOWED Warning "XM0416" "no route is behind one that takes all of its requests";
    PORT Error "XM0417" "the port of every weighted target is that of a listener";
    ENVOYLESS Error "XM0418" "every pod of a VirtualGateway has a container named envoy";
    DISCOVERY Error "XM0419" "every VirtualNode with listeners says how it is found";
    REFUSED Error "XM0420" "the webhook takes the pods of every workload";
    TWICE Error "XM0421" "nothing is named twice in a list that tells by names";
    FALSE Error "XM0422" "no condition is False";
    WAITING Warning "XM0423" "no object waits for something";
    SEEN Warning "XM0424" "the controller has looked at every object as it is now";
    LEAVING Warning "XM0425" "no object has been leaving for long";
}

/// The checks that only a live cluster can tell.
pub const LIVE: [Check; 5] = [SIDECAR, FALSE, WAITING, SEEN, LEAVING];

/// How many seconds an object may be on its way out.
const LEAVES_WITHIN: i64 = 300;

/// Everything that is wrong.
pub fn judge(scene: &Scene) -> Vec<Finding> {
    let mut found = Vec::new();
    for side in &scene.sides {
        let mut judge = Judge { scene, side, found: Vec::new() };
        judge.fields();
        judge.meshes();
        judge.references();
        judge.hosts();
        judge.pods();
        judge.workloads();
        judge.gateways();
        judge.routers();
        judge.nodes();
        judge.conditions();
        found.extend(judge.found);
    }
    found
}

struct Judge<'a> {
    scene: &'a Scene,
    side: &'a Side,
    found: Vec<Finding>,
}

impl Judge<'_> {
    fn note(&mut self, check: Check, object: String, found: impl ToString, fix: impl ToString) {
        self.found.push(check.found(object, found.to_string(), fix.to_string()));
    }

    fn fields(&mut self) {
        for (object, why) in &self.side.unreadable {
            self.note(READABLE, object.clone(), why, "put the field right: docs/compatibility.md has all of them");
        }
        for (object, path, known) in &self.side.ignored {
            let (check, found, fix) = if *known {
                (SUPPORTED, "is supported by App Mesh alone", "docs/compatibility.md names the way out")
            } else {
                (KNOWN, "is no field of App Mesh, and is ignored", "remove it, or spell it as App Mesh does")
            };
            self.note(check, object.clone(), format!("{path} {found}"), fix);
        }
    }

    fn meshes(&mut self) {
        let objects = &self.side.objects;
        fn of<K: MeshMember>(side: &Side, objects: &[K], found: &mut Vec<Finding>) {
            let meshes = &side.objects.meshes;
            for object in objects {
                let wrong = match object.mesh_ref() {
                    Some(of) => {
                        let known = meshes
                            .iter()
                            .any(|mesh| mesh.name_any() == of.name && mesh.uid().is_none_or(|uid| uid == of.uid));
                        (!known)
                            .then(|| (format!("its Mesh {} is gone", of.name), "delete the object and apply it again"))
                    }
                    // Admission has not filled it in, or nobody has applied it yet.
                    None if side.facts.is_some() => {
                        let found = "it has no meshRef, for it was made while no webhook answered".to_owned();
                        Some((found, "delete it and apply it again"))
                    }
                    None => none_or_several(side, object, meshes),
                };
                found.extend(wrong.map(|(wrong, fix)| MESH.found(side.object(object), wrong, fix)));
            }
        }
        let (side, found) = (self.side, &mut self.found);
        of(side, &objects.nodes, found);
        of(side, &objects.services, found);
        of(side, &objects.routers, found);
        of(side, &objects.gateways, found);
        of(side, &objects.gateway_routes, found);
        of(side, &objects.groups, found);
    }

    fn references(&mut self) {
        let objects = &self.side.objects;
        for service in &objects.services {
            let (own, name) = (service.namespace().unwrap_or_default(), self.side.object(service));
            let Some(provider) = &service.spec.provider else { continue };
            if let Some(node) = &provider.virtual_node {
                let (by_name, arn) = (node.virtual_node_ref.as_ref(), node.virtual_node_arn.as_deref());
                self.target(PROVIDER, &name, by_name, arn, &own, &objects.nodes);
            }
            if let Some(router) = &provider.virtual_router {
                let (by_name, arn) = (router.virtual_router_ref.as_ref(), router.virtual_router_arn.as_deref());
                self.target(PROVIDER, &name, by_name, arn, &own, &objects.routers);
            }
        }
        for router in &objects.routers {
            let (own, name) = (router.namespace().unwrap_or_default(), self.side.object(router));
            for target in router.spec.routes.iter().flatten().filter_map(mesh_objects::action) {
                for target in &target.weighted_targets {
                    let (by_name, arn) = (target.virtual_node_ref.as_ref(), target.virtual_node_arn.as_deref());
                    self.target(TARGET, &name, by_name, arn, &own, &objects.nodes);
                }
            }
        }
        for node in &objects.nodes {
            let (own, name) = (node.namespace().unwrap_or_default(), self.side.object(node));
            for backend in node.spec.backends.iter().flatten() {
                self.backend(&name, &backend.virtual_service, &own);
            }
            for group in node.spec.backend_groups.iter().flatten().filter(|group| group.name != "*") {
                self.reference(BACKEND, &name, group, &own, &objects.groups);
            }
        }
        for group in &objects.groups {
            let (own, name) = (group.namespace().unwrap_or_default(), self.side.object(group));
            for service in group.spec.virtual_services.iter().flatten() {
                self.reference(BACKEND, &name, service, &own, &objects.services);
            }
        }
        for route in &objects.gateway_routes {
            let (own, name) = (route.namespace().unwrap_or_default(), self.side.object(route));
            for GatewayRouteVirtualService { virtual_service_ref, virtual_service_arn } in called_by(route) {
                let (by_name, arn) = (virtual_service_ref.as_ref(), virtual_service_arn.as_deref());
                self.target(BACKEND, &name, by_name, arn, &own, &self.side.objects.services);
            }
        }
    }

    fn backend(&mut self, of: &str, backend: &VirtualServiceBackend, own: &str) {
        let (by_name, arn) = (backend.virtual_service_ref.as_ref(), backend.virtual_service_arn.as_deref());
        self.target(BACKEND, of, by_name, arn, own, &self.side.objects.services);
    }

    fn target<K: MeshMember>(
        &mut self,
        check: Check,
        of: &str,
        by_name: Option<&Reference>,
        arn: Option<&str>,
        own: &str,
        known: &[K],
    ) {
        match (by_name, arn) {
            (Some(reference), _) => self.reference(check, of, reference, own, known),
            (None, Some(arn)) => self.arn::<K>(of, arn),
            (None, None) => {}
        }
    }

    fn reference<K: Resource<DynamicType = ()>>(
        &mut self,
        check: Check,
        of: &str,
        reference: &Reference,
        own: &str,
        known: &[K],
    ) {
        let (namespace, name) = (reference.namespace_or(own), &reference.name);
        // What other files hold is not known of manifests, but their own namespace is theirs.
        let found =
            known.iter().any(|object| object.name_any() == *name && object.namespace().as_deref() == Some(namespace));
        if !found {
            let kind = K::kind(&());
            let fix = format!("apply {kind} {namespace}/{name}, or name another; mind the namespace");
            self.note(check, of.to_owned(), format!("{kind} {namespace}/{name} does not exist"), fix);
        }
    }

    fn arn<K: MeshMember>(&mut self, of: &str, text: &str) {
        // A template that nothing has filled in yet.
        if text.contains("{{") {
            return;
        }
        let kind = K::kind(&());
        let Ok(arn) = text.parse::<Arn>() else {
            let fix = "copy it from status.virtualServiceARN: kubectl get virtualservices -A";
            return self.note(ARN, of.to_owned(), format!("{text:?} is no ARN of App Mesh"), fix);
        };
        let ((MeshResource::VirtualService(name), "VirtualService")
        | (MeshResource::VirtualNode(name), "VirtualNode")
        | (MeshResource::VirtualRouter(name), "VirtualRouter")) = (&arn.resource, kind.as_ref())
        else {
            let found = format!("{text} is not the ARN of a {kind}");
            return self.note(ARN, of.to_owned(), found, "name one of that kind");
        };
        // Of one side alone nobody knows what the others have.
        if self.scene.sides.len() > 1 && !self.scene.sides.iter().any(|side| publishes(side, &kind, &arn, name)) {
            let fix =
                format!("apply that {kind} in the other cluster; are mesh, account and awsName those of the ARN?");
            self.note(ARN, of.to_owned(), format!("no cluster has {text}"), fix);
        }
    }

    fn hosts(&mut self) {
        let mut hosts: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for service in &self.side.objects.services {
            let mesh = service.spec.mesh_ref.as_ref().map(|mesh| mesh.name.clone()).unwrap_or_default();
            hosts.entry((mesh, service.aws_name())).or_default().push(self.side.object(service));
        }
        for ((_, host), names) in hosts {
            let [first, others @ ..] = &names[..] else { continue };
            for other in others {
                let found = format!("{host} is the host of {first}, too");
                self.note(HOST, other.clone(), found, "give one of them another spec.awsName, or delete it");
            }
        }
        let (Some(services), objects) = (&self.side.services, &self.side.objects) else { return };
        let mut called: BTreeSet<(String, String)> = BTreeSet::new();
        for node in &objects.nodes {
            let own = node.namespace().unwrap_or_default();
            for backend in node.spec.backends.iter().flatten() {
                let host = self.host(&backend.virtual_service, &own);
                called.extend(host.map(|host| (host, self.side.object(node))));
            }
        }
        for (host, by) in called {
            let Some((name, namespace)) = of_kubernetes(&host, &objects.namespaces) else { continue };
            let known = |service: &k8s_openapi::api::core::v1::Service| {
                service.name_any() == name && service.namespace().as_deref() == Some(namespace)
            };
            if !services.iter().any(known) {
                let found = format!("it calls {host}, and there is no Service {namespace}/{name}");
                self.note(NAME, by, found, "applications look the name up first: make a Service of that name");
            }
        }
    }

    /// The host of a VirtualService that is called.
    fn host(&self, backend: &VirtualServiceBackend, own: &str) -> Option<String> {
        if let Some(reference) = &backend.virtual_service_ref {
            let namespace = reference.namespace_or(own);
            let mut all = self.side.objects.services.iter();
            let service = all.find(|service| {
                service.name_any() == reference.name && service.namespace().as_deref() == Some(namespace)
            })?;
            return Some(service.aws_name());
        }
        match backend.virtual_service_arn.as_ref()?.parse::<Arn>().ok()?.resource {
            MeshResource::VirtualService(name) => Some(name),
            _ => None,
        }
    }

    fn pods(&mut self) {
        let objects = &self.side.objects;
        if let Some(members) = self.side.members() {
            let mut selectors: Vec<(String, String, Option<&LabelSelector>)> = Vec::new();
            for node in &objects.nodes {
                let namespace = node.namespace().unwrap_or_default();
                selectors.push((self.side.object(node), namespace, node.spec.pod_selector.as_ref()));
            }
            for gateway in &objects.gateways {
                let namespace = gateway.namespace().unwrap_or_default();
                selectors.push((self.side.object(gateway), namespace, gateway.spec.pod_selector.as_ref()));
            }
            for (object, namespace, selector) in &selectors {
                let selected = members.iter().filter(|member| member.namespace == namespace);
                let mut selected = selected.filter(|member| selects(*selector, Some(member.labels), false));
                if selector.is_some() && selected.next().is_none() {
                    let fix = "make pods with those labels in its namespace, or change spec.podSelector";
                    self.note(PODS, object.clone(), "its podSelector selects no pods", fix);
                }
            }
            for member in &members {
                let of = selectors.iter().filter(|(_, namespace, selector)| {
                    namespace == member.namespace && selects(*selector, Some(member.labels), false)
                });
                let of: Vec<&str> = of.map(|(object, ..)| object.as_str()).collect();
                if of.len() > 1 {
                    let found = format!("it is selected by {}", of.join(" and "));
                    self.note(SELECTED, member.object.clone(), found, "give them labels that tell the selectors apart");
                }
            }
        }
        for pod in self.side.pods.iter().flatten().filter(|pod| alive(pod)) {
            let namespace = pod.namespace().unwrap_or_default();
            let labels = objects.namespaces.get(&namespace);
            if is_injected(pod.annotations(), labels) && !has_container(pod, ENVOY) {
                let found = "it has no sidecar, for it was made before the controller or the label";
                let fix = format!("kubectl rollout restart what made it, in namespace {namespace}");
                self.note(SIDECAR, self.side.object(pod), found, fix);
            }
        }
    }

    fn workloads(&mut self) {
        for template in &self.side.templates {
            let namespace = self.side.objects.namespaces.get(&template.namespace);
            if let Some(why) = refusal(template, self.side, namespace) {
                let fix = "docs/limits.md has the way out; or annotate its pods with \
                           appmesh.k8s.aws/sidecarInjectorWebhook: disabled";
                self.note(REFUSED, template.object.clone(), why, fix);
            } else if let Some(failure) = template.failure.as_ref().filter(|why| why.contains("appmesh.k8s.aws")) {
                self.note(REFUSED, template.object.clone(), failure, "docs/limits.md has the words and the way out");
            }
        }
    }

    fn gateways(&mut self) {
        let objects = &self.side.objects;
        for gateway in &objects.gateways {
            let selected = |template: &&Template| {
                let labels = template.template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
                gateway.namespace().as_deref() == Some(&template.namespace)
                    && selects(gateway.spec.pod_selector.as_ref(), Some(labels.unwrap_or(&Labels::new())), false)
            };
            let bare = |template: &&Template| {
                let spec = template.template.spec.as_ref();
                !spec.is_some_and(|spec| spec.containers.iter().any(|container| container.name == ENVOY))
            };
            for template in self.side.templates.iter().filter(selected).filter(bare) {
                let found =
                    format!("VirtualGateway {} selects its pods, which have no container envoy", gateway.name_any());
                let fix = "a gateway's pods bring their Envoy: name its container envoy";
                self.note(ENVOYLESS, template.object.clone(), found, fix);
            }
        }
        for route in &objects.gateway_routes {
            let own = route.namespace().unwrap_or_default();
            let name = self.side.object(route);
            let fix = "label the route or its namespace as one VirtualGateway's selectors have it";
            if let Some(of) = &route.spec.virtual_gateway_ref {
                let namespace = of.namespace_or(&own);
                let known = objects
                    .gateways
                    .iter()
                    .any(|gateway| gateway.name_any() == of.name && gateway.namespace().as_deref() == Some(namespace));
                if !known {
                    let found = format!("its VirtualGateway {namespace}/{} is gone", of.name);
                    self.note(GATEWAY, name, found, "delete the route and apply it again");
                }
                continue;
            }
            let of = mesh_objects::selecting(route, objects);
            let known = objects.namespaces.contains_key(&own);
            match of.len() {
                0 if !objects.gateways.is_empty() => self.note(GATEWAY, name, "no VirtualGateway selects it", fix),
                0 | 1 => {}
                _ if known => {
                    let names: Vec<String> = of.iter().map(|gateway| gateway.name_any()).collect();
                    self.note(GATEWAY, name, format!("several VirtualGateways select it: {}", names.join(", ")), fix);
                }
                _ => {}
            }
        }
    }

    fn routers(&mut self) {
        let objects = &self.side.objects;
        for router in &objects.routers {
            let name = self.side.object(router);
            let own = router.namespace().unwrap_or_default();
            let routes = router.spec.routes.as_deref().unwrap_or_default();
            let mut names = BTreeSet::new();
            for route in routes {
                if !names.insert(&route.name) {
                    let found = format!("two routes are named {}", route.name);
                    self.note(TWICE, name.clone(), found, "give one of them another name");
                }
                let targets = mesh_objects::action(route).map(|action| action.weighted_targets.as_slice());
                let targets = targets.unwrap_or_default();
                if !targets.is_empty() && targets.iter().all(|target| target.weight == 0) {
                    let found = format!("all weights of route {} are 0", route.name);
                    self.note(WEIGHT, name.clone(), found, "give a target a weight of at least 1");
                }
                for target in targets {
                    let (Some(port), Some(of)) = (target.port, &target.virtual_node_ref) else { continue };
                    let namespace = of.namespace_or(&own);
                    let node = objects
                        .nodes
                        .iter()
                        .find(|node| node.name_any() == of.name && node.namespace().as_deref() == Some(namespace));
                    let listens = |node: &&VirtualNode| {
                        node.spec.listeners.iter().flatten().any(|listener| listener.port_mapping.port == port)
                    };
                    if let Some(node) = node.filter(|node| !listens(node)) {
                        let found = format!(
                            "route {} names port {port}, where {} has no listener",
                            route.name,
                            node.name_any()
                        );
                        self.note(PORT, name.clone(), found, "name the port of a listener, or leave it out");
                    }
                }
            }
            for (behind, before) in routes::shadowed(routes) {
                let found =
                    format!("route {behind} gets nothing: {before} is tried first, and takes all that it would");
                self.note(SHADOWED, name.clone(), found, format!("give {behind} a lower priority, or remove it"));
            }
        }
    }

    fn nodes(&mut self) {
        for node in &self.side.objects.nodes {
            let spec = &node.spec;
            let listeners = spec.listeners.as_deref().unwrap_or_default();
            let found_by = spec.service_discovery.as_ref();
            let found_by = found_by.is_some_and(|by| by.aws_cloud_map.is_some() || by.dns.is_some());
            if !listeners.is_empty() && !found_by {
                let fix = "give it spec.serviceDiscovery.awsCloudMap, or dns";
                self.note(DISCOVERY, self.side.object(node), "it has listeners and no serviceDiscovery", fix);
            }
            let mut ports = BTreeSet::new();
            for listener in listeners {
                let port = listener.port_mapping.port;
                if !ports.insert(port) {
                    let found = format!("two listeners have port {port}");
                    self.note(TWICE, self.side.object(node), found, "give one of them another port");
                }
            }
            let mut backends = BTreeSet::new();
            for backend in spec.backends.iter().flatten() {
                let VirtualServiceBackend { virtual_service_ref, virtual_service_arn, .. } = &backend.virtual_service;
                let by = virtual_service_ref.as_ref().map(|of| (of.namespace.clone(), of.name.clone()));
                if !backends.insert((by, virtual_service_arn)) {
                    let name = virtual_service_ref.as_ref().map(|of| of.name.clone());
                    let name = name.or_else(|| virtual_service_arn.clone()).unwrap_or_default();
                    self.note(TWICE, self.side.object(node), format!("backend {name} is named twice"), "name it once");
                }
            }
        }
    }

    fn conditions(&mut self) {
        if self.side.facts.is_none() {
            return;
        }
        let objects = &self.side.objects;
        let mut found = Vec::new();
        self.of(&objects.meshes, &mut found);
        self.of(&objects.nodes, &mut found);
        self.of(&objects.services, &mut found);
        self.of(&objects.routers, &mut found);
        self.of(&objects.gateways, &mut found);
        self.of(&objects.gateway_routes, &mut found);
        self.of(&objects.groups, &mut found);
        self.found.extend(found);
    }

    fn of<K: MeshObject>(&self, objects: &[K], found: &mut Vec<Finding>) {
        for object in objects {
            let name = self.side.object(object);
            if let Some(since) = &object.meta().deletion_timestamp {
                let seconds = self.scene.now.as_second() - since.0.as_second();
                if seconds > LEAVES_WITHIN {
                    let by = object.meta().finalizers.clone().unwrap_or_default().join(", ");
                    let left = format!("it has been leaving for {} minutes; it is held by {by}", seconds / 60);
                    found.push(LEAVING.found(
                        name,
                        left,
                        "kubectl describe it; only a controller that runs lets it go",
                    ));
                }
                continue;
            }
            // A controller that does not run is a finding of its own.
            let stale = object.observed_generation() != object.meta().generation;
            if stale && self.side.running().is_some() {
                let seen = "its status is not that of its present spec";
                found.push(SEEN.found(name, seen, "kubectl -n appmesh-system logs deploy/appmesh-controller"));
                continue;
            }
            let Some(condition) = object.conditions().iter().find(|condition| condition.type_ == K::ACTIVE) else {
                continue;
            };
            let explained =
                self.found.iter().any(|finding| finding.object == name && finding.severity == Severity::Error);
            let reason = condition.reason.as_deref().unwrap_or_default();
            let words = condition.message.as_deref().filter(|message| !message.is_empty());
            let said = words.map_or_else(|| reason.to_owned(), |message| format!("{reason}: {message}"));
            let fix = format!("docs/troubleshooting.md#{}", reason.to_lowercase());
            // What is said of an object already is not said again, nor that others wait for it.
            match condition.status.as_str() {
                "False" if !explained && !CONSEQUENCES.contains(&reason) => found.push(FALSE.found(name, said, fix)),
                "True" if !explained && WAITS.contains(&reason) => found.push(WAITING.found(name, said, fix)),
                _ => {}
            }
        }
    }
}

/// Reasons that only say that another object has a problem.
const CONSEQUENCES: [&str; 2] = ["ProviderNotActive", "TargetNotActive"];

/// Reasons of objects that are in force and wait for something. Pods are looked at themselves.
const WAITS: [&str; 4] = ["NotPublished", "BackendNotPublished", "BackendNotUnderstood", "BackendUnavailable"];

/// Whether a side has what an ARN names. A manifest knows neither account nor region: mesh and name must do.
fn publishes(side: &Side, kind: &str, arn: &Arn, name: &str) -> bool {
    fn any<K: MeshMember>(side: &Side, objects: &[K], arn: &Arn, name: &str) -> bool {
        objects.iter().any(|object| match object.arn() {
            Some(own) => own == arn.to_string(),
            None => {
                let mut meshes = side.objects.meshes.iter();
                object.aws_name() == name && (meshes.len() == 0 || meshes.any(|mesh| mesh.aws_name() == arn.mesh))
            }
        })
    }
    match kind {
        "VirtualService" => any(side, &side.objects.services, arn, name),
        "VirtualNode" => any(side, &side.objects.nodes, arn, name),
        _ => any(side, &side.objects.routers, arn, name),
    }
}

/// Of manifests: whether none of their Meshes, or several, select an object's namespace.
fn none_or_several<K: MeshMember>(side: &Side, object: &K, meshes: &[Mesh]) -> Option<(String, &'static str)> {
    let namespace = object.namespace().unwrap_or_default();
    // Where a Mesh or the Namespace is in other files, nobody knows.
    let labels = side.objects.namespaces.get(&namespace).filter(|_| !meshes.is_empty())?;
    let of: Vec<String> = meshes
        .iter()
        .filter(|mesh| selects(mesh.spec.namespace_selector.as_ref(), Some(labels), false))
        .map(ResourceExt::name_any)
        .collect();
    match &of[..] {
        [_] => None,
        [] => {
            let found = format!("no Mesh selects namespace {namespace}");
            Some((found, "label the namespace as the Mesh's namespaceSelector has it"))
        }
        _ => {
            let found = format!("several Meshes select namespace {namespace}: {}", of.join(", "));
            Some((found, "give the Meshes selectors that tell namespaces apart"))
        }
    }
}

/// The VirtualServices that a GatewayRoute leads to.
fn called_by(route: &GatewayRoute) -> impl Iterator<Item = &GatewayRouteVirtualService> {
    let spec = &route.spec;
    let http = spec.http_route.iter().chain(&spec.http2_route).map(|route| &route.action.target);
    let grpc = spec.grpc_route.iter().map(|route| &route.action.target);
    http.chain(grpc).map(|target| &target.virtual_service)
}

/// The Service that a host is the name of, by its namespace, if it is one of the cluster's own.
fn of_kubernetes<'a>(host: &'a str, namespaces: &BTreeMap<String, Labels>) -> Option<(&'a str, &'a str)> {
    let short = host.strip_suffix(".svc.cluster.local").or_else(|| host.strip_suffix(".svc"));
    let (name, namespace) = short.unwrap_or(host).split_once('.')?;
    // Two words may as well be a name of the Internet.
    let own = short.is_some() || namespaces.contains_key(namespace);
    (own && !namespace.contains('.')).then_some((name, namespace))
}

#[cfg(test)]
mod tests;
