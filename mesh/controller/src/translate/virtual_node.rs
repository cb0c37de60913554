//! Translates a VirtualNode: the workload that its pods are, and the upstream that they are to others.

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use mesh_api::{
    Arn, DnsResponseType, EgressFilterType, HealthCheckPolicy, MeshObject as _, PortMapping, Protocol,
    ServiceDiscovery, VirtualNode, VirtualServiceBackend, arn::MeshResource,
};

use super::{
    Context, Report, Translated, account, backend_group, listener, logging, mesh,
    problems::{Check, Place, Problems, check_member, listeners, port, selector},
    published,
    references::{self, Named},
    tls,
    virtual_service::{self, Service, Services},
};
use crate::{
    cluster::{Object, Snapshot},
    model::{
        self, CloudMapDiscovery, Discovery, DnsDiscovery, Egress, HealthCheck, HealthCheckProtocol, Port, Proxy,
        Reason, ServiceKey, TcpBackend, Upstream, VirtualServiceKey, Workload, WorkloadKind, WorkloadName,
    },
};

impl Check for VirtualNode {
    fn check(&self, place: Place<'_>, problems: &mut Problems) {
        let spec = &self.spec;
        selector("spec.podSelector", spec.pod_selector.as_ref(), problems);
        listeners(spec.listeners.iter().flatten().map(|listener| listener.port_mapping), problems);
        for (index, listener) in spec.listeners.iter().flatten().enumerate() {
            let path = format!("spec.listeners[{index}]");
            listener::listener(listener, &path, problems);
            if let Some(policy) = &listener.health_check {
                health_check(policy, listener.port_mapping, &format!("{path}.healthCheck"), problems);
            }
            if let Some(detection) = &listener.outlier_detection {
                listener::outlier_detection(detection, &format!("{path}.outlierDetection"), problems);
            }
        }
        match &spec.service_discovery {
            None if spec.listeners.as_ref().is_some_and(|listeners| !listeners.is_empty()) => problems.invalid(
                "",
                format!(
                    "ServiceDiscovery missing for VirtualNode-{}. \
                     ServiceDiscovery must be specified when a listener is specified.",
                    self.metadata.name.as_deref().unwrap_or_default()
                ),
            ),
            Some(discovery) if discovery.aws_cloud_map.is_some() == discovery.dns.is_some() => {
                problems.invalid("spec.serviceDiscovery", "needs one of awsCloudMap and dns");
            }
            _ => {}
        }
        logging::access_log(spec.logging.as_ref(), problems);
        let defaults = tls::default_policy(spec.backend_defaults.as_ref());
        tls::check_policy(defaults, "spec.backendDefaults.clientPolicy", problems);
        for (index, backend) in spec.backends.iter().flatten().enumerate() {
            let path = format!("spec.backends[{index}].virtualService");
            // As in App Mesh, an object may wait for an ARN that its author does not know yet: its condition says so.
            if !names_none(&backend.virtual_service) {
                let VirtualServiceBackend { virtual_service_ref, virtual_service_arn, .. } = &backend.virtual_service;
                let named = Named { reference: virtual_service_ref.as_ref(), arn: virtual_service_arn.as_deref() };
                check_service(named, place, &path, problems);
            }
            tls::check_policy(
                backend.virtual_service.client_policy.as_ref(),
                &format!("{path}.clientPolicy"),
                problems,
            );
        }
    }
}

/// What a VirtualNode calls.
struct Backends {
    /// Those that exist, each with its place in the spec.
    by_path: Vec<(String, model::Backend)>,
    /// The VirtualServices of other clusters among them.
    published: BTreeSet<VirtualServiceKey>,
}

fn backends(node: &Object<VirtualNode>, services: &Services, context: Context<'_>) -> Backends {
    let own = node.namespace().unwrap_or_default();
    let defaults = tls::default_policy(node.spec.backend_defaults.as_ref());
    let mut backends = Backends { by_path: Vec::new(), published: BTreeSet::new() };
    for (index, backend) in node.spec.backends.iter().flatten().enumerate() {
        let path = format!("spec.backends[{index}].virtualService");
        let backend = &backend.virtual_service;
        let policy = backend.client_policy.as_ref().or(defaults);
        let called = |mut backend: model::Backend| {
            tls::call_by(&mut backend, policy);
            (path, backend)
        };
        if let Some(reference) = &backend.virtual_service_ref {
            let (namespace, name) = references::seen_from(&own, reference);
            backends.by_path.extend(services.get(namespace, name).map(Service::backend).map(called));
        } else if let Some(arn) = backend.virtual_service_arn.as_ref().and_then(|arn| arn.parse::<Arn>().ok()) {
            let MeshResource::VirtualService(host) = &arn.resource else { continue };
            if let Some(service) = services.by_arn(&arn) {
                backends.by_path.push(called(service.backend()));
                continue;
            }
            let keys = published_keys(node, &arn, context);
            let routing = published::routing(&keys, context.published);
            let backend = virtual_service::backend(arn.mesh.clone(), host.clone(), routing, context.snapshot);
            backends.by_path.push(called(backend));
            backends.published.extend(keys);
        }
    }
    for (index, namespace, name) in backend_group::members(node, context.snapshot) {
        let path = format!("spec.backendGroups[{index}]");
        if let Some(mut backend) = services.get(&namespace, &name).map(Service::backend) {
            tls::call_by(&mut backend, defaults);
            backends.by_path.push((path, backend));
        }
    }
    backends
}

/// The workload of a VirtualNode; `None` while its mesh is not known.
pub fn translate(node: &Object<VirtualNode>, services: &Services, context: Context<'_>) -> Option<Translated> {
    let mesh = context.snapshot.mesh(&node.spec.mesh_ref.as_ref()?.name)?;
    let Backends { by_path, published } = backends(node, services, context);
    let mut backends: Vec<_> = by_path.into_iter().map(|(_, backend)| backend).collect();
    // The sort is stable: what the node names itself comes before what its groups name.
    backends.sort_by(|a, b| a.host.cmp(&b.host));
    backends.dedup_by(|a, b| a.host == b.host);
    let routings = backends.iter().filter_map(|backend| backend.routing.as_ref());
    let services: BTreeSet<ServiceKey> = routings.flat_map(|routing| routing.services()).cloned().collect();
    let egress = match mesh.spec.egress_filter.map(|filter| filter.type_).unwrap_or_default() {
        EgressFilterType::AllowAll => Egress::AllowAll,
        EgressFilterType::DropAll => Egress::DropAll,
    };
    let mut left_out = Problems::default();
    let listeners = node.spec.listeners.iter().flatten().enumerate();
    let listeners = listeners
        .filter_map(|(index, given)| listener::listener(given, &format!("spec.listeners[{index}]"), &mut left_out));
    let workload = Workload {
        name: WorkloadName { mesh: mesh.aws_name(), kind: WorkloadKind::VirtualNode, name: node.aws_name() },
        listeners: listeners.collect(),
        egress,
        access_log: logging::access_log(node.spec.logging.as_ref(), &mut Problems::default()),
        backends,
        left_out: left_out.into_words(),
    };
    Some(Translated { workload: Proxy::Sidecar(workload).into(), published, services })
}

/// A VirtualNode as its callers see it, with its key in a [`Routing`](model::Routing): as it listens on the port that
/// they ask for, else on the port that they use themselves, else on the first. One without a listener is called on the
/// port that the caller uses.
pub fn upstream(
    node: &Object<VirtualNode>,
    asked: Option<u16>,
    caller: Port,
    snapshot: &Snapshot,
) -> (String, Upstream) {
    let listeners = node.spec.listeners.as_deref().unwrap_or_default();
    let on = |port: u16| listeners.iter().find(|listener| listener.port_mapping.port == port);
    let listener = match asked {
        Some(asked) => on(asked),
        None => on(caller.port).or_else(|| listeners.first()),
    };
    let called = Port { port: asked.unwrap_or(caller.port), ..caller };
    let port = listener.map_or(called, |listener| port(listener.port_mapping));
    let is_first = listeners.first().is_none_or(|first| first.port_mapping.port == port.port);
    let key = if is_first { node.aws_name() } else { format!("{}:{}", node.aws_name(), port.port) };
    if listener.is_none() && !listeners.is_empty() {
        return (key, Upstream::new(port, Discovery::None));
    }
    let health_check = listener.and_then(|listener| {
        let policy = listener.health_check.as_ref()?;
        health_check(policy, listener.port_mapping, "", &mut Problems::default())
    });
    let detection = listener.and_then(|listener| listener.outlier_detection.as_ref());
    let outlier_detection =
        detection.and_then(|detection| listener::outlier_detection(detection, "", &mut Problems::default()));
    let ServiceDiscovery { dns, .. } = node.spec.service_discovery.clone().unwrap_or_default();
    let dns = dns.and_then(|dns| {
        let endpoints = dns.response_type == Some(DnsResponseType::Endpoints);
        DnsDiscovery::new(dns.hostname, endpoints).ok()
    });
    let discovery = match (cloud_map(node), dns) {
        (_, Some(dns)) => Discovery::Dns(dns),
        (Some(discovery), None) => Discovery::CloudMap(discovery),
        (None, None) => Discovery::None,
    };
    let tls = listener.is_some_and(|listener| tls::is_taken(listener.tls.as_ref()));
    let ip_preference = super::mesh_named(node, snapshot).and_then(|mesh| mesh::ip_preference(mesh));
    (key, Upstream { port, discovery, health_check, outlier_detection, ip_preference, tls })
}

/// Where in Cloud Map a node's pods are registered.
pub fn cloud_map(node: &VirtualNode) -> Option<CloudMapDiscovery> {
    let discovery = node.spec.service_discovery.as_ref()?.aws_cloud_map.as_ref()?;
    let attributes = discovery.attributes.iter().flatten();
    Some(CloudMapDiscovery {
        key: ServiceKey { namespace: discovery.namespace_name.clone(), service: discovery.service_name.clone() },
        attributes: attributes.map(|attribute| (&attribute.key, &attribute.value)).collect(),
    })
}

/// Where a node looks for a VirtualService of another cluster: in the Cloud Map namespace that it is registered in itself,
/// if it is in one.
fn published_keys(node: &VirtualNode, arn: &Arn, context: Context<'_>) -> Vec<VirtualServiceKey> {
    match cloud_map(node) {
        Some(discovery) => vec![VirtualServiceKey { namespace: discovery.key.namespace, arn: arn.to_string() }],
        None => published::keys(node.spec.mesh_ref.as_ref(), arn, context.namespaces),
    }
}

/// What is reported of a VirtualNode.
pub fn report(node: &Object<VirtualNode>, services: &Services, context: Context<'_>) -> Report {
    let Context { snapshot, account, .. } = context;
    let mesh = match super::mesh_of(node, snapshot) {
        Ok(mesh) => mesh,
        Err(problem) => return Report { problems: vec![problem], ..Report::default() },
    };
    let mut problems = Problems::default();
    let own = node.namespace().unwrap_or_default();
    for (index, backend) in node.spec.backends.iter().flatten().enumerate() {
        let path = format!("spec.backends[{index}].virtualService");
        let backend = &backend.virtual_service;
        if names_none(backend) {
            problems.add(Reason::BackendNotFound, path.clone(), NEEDS_ONE);
        }
        if let Some(reference) = &backend.virtual_service_ref {
            let (namespace, name) = references::seen_from(&own, reference);
            if snapshot.virtual_services.get(namespace, name).is_none() {
                let path = format!("{path}.virtualServiceRef");
                references::missing(Reason::BackendNotFound, "virtualservice", (namespace, name), path, &mut problems);
            }
        }
        let Some(arn) = backend.virtual_service_arn.as_ref().and_then(|arn| arn.parse::<Arn>().ok()) else { continue };
        if services.by_arn(&arn).is_some() {
            continue;
        }
        let path = format!("{path}.virtualServiceARN");
        let keys = published_keys(node, &arn, context);
        if let Some((reason, message)) = published::problem(&arn, &keys, context.published) {
            problems.add(reason, path, message);
        }
    }
    backend_group::missing(node, snapshot, &mut problems);
    port_conflicts(&backends(node, services, context).by_path, &mut problems);
    Report {
        arn: Some(account::arn(account, mesh, MeshResource::VirtualNode(node.aws_name()))),
        problems: [check_member(node, mesh, account), problems.into_vec()].concat(),
        ..Report::default()
    }
}

/// Notes backends that are called by TCP, and that nothing tells apart. Connections to neither of them are taken.
fn port_conflicts(backends: &[(String, model::Backend)], problems: &mut Problems) {
    let backends: Vec<_> = backends
        .iter()
        .flat_map(|(path, backend)| {
            let slice = std::slice::from_ref(backend);
            TcpBackend::all(slice).into_iter().map(move |backend| (path, backend))
        })
        .collect();
    for (path, one) in &backends {
        let Some((_, other)) = backends.iter().find(|(_, other)| other.conflicts(one)) else { continue };
        let (host, port) = (&one.backend.host, one.listener.port.port);
        let message = format!(
            "tcp connections to port {port} may be for {host} or for {}: give each a Service with an address of its own, \
             or a port of its own",
            other.backend.host
        );
        problems.add(Reason::PortConflict, *path, message);
    }
}

fn health_check(
    policy: &HealthCheckPolicy,
    mapping: PortMapping,
    path: &str,
    problems: &mut Problems,
) -> Option<HealthCheck> {
    let asked = || policy.path.clone().unwrap_or_else(|| "/".to_owned());
    let protocol = match policy.protocol {
        Protocol::Tcp => Some(HealthCheckProtocol::Tcp),
        Protocol::Http => problems.take(format!("{path}.path"), HealthCheckProtocol::http(asked())),
        Protocol::Http2 => problems.take(format!("{path}.path"), HealthCheckProtocol::http2(asked())),
        Protocol::Grpc => problems.take(format!("{path}.protocol"), HealthCheckProtocol::grpc(port(mapping).protocol)),
    };
    // As in App Mesh; Envoy asks at no other.
    let is_listeners = policy.port.is_none_or(|port| port == mapping.port);
    if !is_listeners {
        problems.invalid(format!("{path}.port"), format!("must be the listener's port, {}", mapping.port));
    }
    let check = HealthCheck {
        protocol: protocol.filter(|_| is_listeners)?,
        healthy_threshold: policy.healthy_threshold,
        unhealthy_threshold: policy.unhealthy_threshold,
        interval_millis: policy.interval_millis,
        timeout_millis: policy.timeout_millis,
    };
    problems.take(path, check.checked())
}

/// What a backend must have.
const NEEDS_ONE: &str = "needs one of virtualServiceRef and virtualServiceARN";

/// Whether a backend names no VirtualService.
fn names_none(service: &VirtualServiceBackend) -> bool {
    service.virtual_service_ref.is_none() && service.virtual_service_arn.is_none()
}

/// Notes a VirtualService that is named by nothing, or by an ARN that cannot be.
pub fn check_service(service: Named<'_>, place: Place<'_>, path: &str, problems: &mut Problems) {
    let arn = match (service.reference, service.arn) {
        (Some(_), None) => return,
        (None, Some(arn)) => arn,
        _ => return problems.invalid(path, NEEDS_ONE),
    };
    let path = format!("{path}.virtualServiceARN");
    match arn.parse::<Arn>() {
        Err(error) => problems.invalid(path, error.to_string()),
        Ok(arn) => foreign(&arn, place, path, problems),
    }
}

/// Notes an ARN that names no VirtualService which this account's Cloud Map namespaces could tell about.
fn foreign(arn: &Arn, Place { account, mesh }: Place<'_>, path: String, problems: &mut Problems) {
    let home = (account.partition.as_str(), account.region.as_str(), account.account.as_str());
    if !matches!(arn.resource, MeshResource::VirtualService(_)) {
        problems.invalid(path, format!("{arn} names no VirtualService"));
    } else if (arn.partition.as_str(), arn.region.as_str(), arn.account.as_str()) != home {
        let (account, region) = (&account.account, &account.region);
        let message = format!("{arn} is not of account {account} in {region}, and others are not supported");
        problems.add(Reason::Unsupported, path, message);
    } else if let Some(mesh) = mesh.filter(|mesh| *mesh != arn.mesh) {
        problems.invalid(path, format!("{arn} is not of mesh {mesh}"));
    }
}
