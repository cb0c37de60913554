//! Builds the containers that are added to a pod: the one that redirects its traffic, and Envoy.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16, path::Path};

use anyhow::{Context as _, ensure};
use clap::{ArgAction, Args};
use mesh_api::VirtualNode;
use serde_json::{Value, json};

use super::{
    annotations::SidecarOverrides,
    mounts::{TOOL, tool_to_fill},
    observability::Observability,
};
use crate::{
    cluster::WORKLOAD_VARIABLE,
    envoy::{
        EGRESS_PORT, HOST_IP, HOST_IP_VARIABLE, INGRESS_PORT,
        bootstrap::{ADMIN_PORT, Bootstrap, Status},
        tracing::Tracing,
    },
    model::{WorkloadKind, WorkloadName},
};

/// User and group that Envoy runs as; what this user sends is not sent to Envoy again.
pub const ENVOY: u32 = 1337;
/// Name of the container that redirects a pod's traffic.
pub const INIT: &str = "proxyinit";
/// Name of the container of Envoy.
pub const SIDECAR: &str = "envoy";
/// Threads of an Envoy: by itself it would take one for each CPU of the node, and memory for each.
const WORKERS: u32 = 2;
/// Seconds that a gateway's Envoy goes on after the pod is told to end: load balancers and the nodes' proxies send it new
/// connections until they have heard of it.
const GATEWAY_STAYS: u16 = 5;
/// The instance metadata service, by IPv4 and by IPv6.
const EGRESS_IGNORED_IPS: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];
/// The port of SSH, which App Mesh never redirected, whatever other ports a pod named.
const SSH: &str = "22";

/// The chart's part of what a sidecar looks like.
#[derive(Args, Clone, Debug)]
pub struct Sidecar {
    /// Image of Envoy
    #[arg(long, value_name = "IMAGE")]
    pub sidecar_image: String,
    /// Image that redirects a pod's traffic into its Envoy
    #[arg(long, value_name = "IMAGE")]
    pub init_image: String,
    /// When the kubelet pulls the two images
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent")]
    pub sidecar_image_pull_policy: String,
    /// Envoy's log level
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub sidecar_log_level: String,
    /// CPU that an Envoy asks for
    #[arg(long, value_name = "QUANTITY", default_value = "10m")]
    pub sidecar_cpu_requests: String,
    /// Memory that an Envoy asks for
    #[arg(long, value_name = "QUANTITY", default_value = "32Mi")]
    pub sidecar_memory_requests: String,
    /// CPU that an Envoy may use at most; empty: any
    #[arg(long, value_name = "QUANTITY", default_value = "")]
    pub sidecar_cpu_limits: String,
    /// Memory that an Envoy may use at most; empty: any
    #[arg(long, value_name = "QUANTITY", default_value = "")]
    pub sidecar_memory_limits: String,
    /// Seconds until the first look whether an Envoy is still ready
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    pub readiness_probe_initial_delay: u16,
    /// Seconds between looks whether an Envoy is still ready
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub readiness_probe_period: u16,
    /// Seconds that a pod's containers wait for its Envoy to get its configuration
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub startup_timeout: u16,
    /// Seconds between looks whether the Envoy of a VirtualGateway has got its configuration
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    pub startup_probe_period: NonZeroU16,
    /// Seconds that an Envoy goes on after the pod is told to end, even if its containers and its callers are gone sooner
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub prestop_delay: u16,
    /// Port that shows /ready and /stats of an Envoy, and inside its pod its whole administration
    #[arg(long, value_name = "PORT", default_value_t = 9901)]
    pub envoy_admin_access_port: u16,
    /// Whether that port is open on IPv6 too
    #[arg(long, value_name = "true|false", default_value_t = false, action = ArgAction::Set)]
    pub envoy_admin_access_enable_ipv6: bool,
    /// Whether Envoys get certificates by SDS, from a socket of their node
    #[arg(long, value_name = "true|false", default_value_t = false, action = ArgAction::Set)]
    pub sds_enabled: bool,
    /// Socket of the SDS provider, such as SPIRE's agent
    #[arg(long, value_name = "PATH", default_value = "/run/spire/sockets/agent.sock", value_parser = socket)]
    pub sds_uds_path: String,
    /// Addresses of this pod: where one is of IPv6, Envoys listen on IPv6 too, and get what pods send by it
    #[arg(long, env = "POD_IPS", value_name = "ADDRESSES", value_delimiter = ',')]
    pub pod_ips: Vec<IpAddr>,
    /// Host and port where Envoys get their configuration
    #[arg(long, value_name = "HOST:PORT", default_value = "appmesh-controller-xds.appmesh-system.svc:15010")]
    pub xds_address: String,
    /// What Envoys report.
    #[command(flatten)]
    pub observability: Observability,
}

impl Sidecar {
    /// Whether the cluster's pods have addresses of IPv4.
    pub fn ipv4(&self) -> bool {
        self.pod_ips.is_empty() || self.pod_ips.iter().any(IpAddr::is_ipv4)
    }

    /// Whether the cluster's pods have addresses of IPv6.
    pub fn ipv6(&self) -> bool {
        self.pod_ips.iter().any(IpAddr::is_ipv6)
    }
}

/// A socket's path, whose folder can be mounted.
fn socket(path: &str) -> anyhow::Result<String> {
    let folder = Path::new(path).parent().context("no folder")?;
    ensure!(folder.is_absolute() && folder.parent().is_some(), "not an absolute path of a socket in a folder");
    Ok(path.to_owned())
}

/// How traffic gets into Envoy: an init container redirects it, or the node's network plugin does.
pub struct Redirection {
    /// Ports on which connections into the pod are redirected, separated by commas.
    pub ports: String,
    egress_ignored_ips: String,
    egress_ignored_ports: String,
    ipv6: bool,
}

impl Redirection {
    /// As the pod's annotations say, else to the listeners of its VirtualNode.
    pub fn new(node: &VirtualNode, overrides: &SidecarOverrides, sidecar: &Sidecar) -> Self {
        let ipv6 = sidecar.ipv6() && overrides.ipv6.unwrap_or(true);
        let listeners = || node.spec.listeners.iter().flatten().map(|listener| listener.port_mapping.port.to_string());
        let or = |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_owned());
        Self {
            ports: overrides.ports.clone().unwrap_or_else(|| listeners().collect::<Vec<_>>().join(",")),
            egress_ignored_ips: or(&overrides.egress_ignored_ips, &EGRESS_IGNORED_IPS[..=usize::from(ipv6)].join(",")),
            egress_ignored_ports: with_ssh(overrides.egress_ignored_ports.as_deref().unwrap_or_default()),
            ipv6,
        }
    }

    /// The pod's annotations that the network plugin reads.
    pub fn annotations(&self) -> [(&'static str, String); 8] {
        [
            ("appmesh.k8s.aws/ports", self.ports.clone()),
            ("appmesh.k8s.aws/egressIgnoredIPs", self.egress_ignored_ips.clone()),
            ("appmesh.k8s.aws/egressIgnoredPorts", self.egress_ignored_ports.clone()),
            ("appmesh.k8s.aws/proxyIngressPort", INGRESS_PORT.to_string()),
            ("appmesh.k8s.aws/proxyEgressPort", EGRESS_PORT.to_string()),
            ("appmesh.k8s.aws/ignoredUID", ENVOY.to_string()),
            ("appmesh.k8s.aws/ipv6", if self.ipv6 { "enabled" } else { "disabled" }.to_owned()),
            ("appmesh.k8s.aws/sidecarInjectorWebhook", "enabled".to_owned()),
        ]
    }

    /// The init container, which redirects the traffic unless a network plugin does, leaves the program there that drains
    /// Envoy, and ends when Envoy has its configuration.
    pub fn container(&self, overrides: &SidecarOverrides, sidecar: &Sidecar, by_plugin: bool) -> Value {
        let variables = [
            ("APPMESH_START_ENABLED", if by_plugin { "0" } else { "1" }.to_owned()),
            ("APPMESH_COPY_TO", TOOL.to_owned()),
            ("APPMESH_IGNORE_UID", ENVOY.to_string()),
            ("APPMESH_ENVOY_INGRESS_PORT", INGRESS_PORT.to_string()),
            ("APPMESH_ENVOY_EGRESS_PORT", EGRESS_PORT.to_string()),
            ("APPMESH_APP_PORTS", self.ports.clone()),
            ("APPMESH_EGRESS_IGNORED_IP", self.egress_ignored_ips.clone()),
            ("APPMESH_EGRESS_IGNORED_PORTS", self.egress_ignored_ports.clone()),
            ("APPMESH_ENABLE_IPV6", if self.ipv6 { "1" } else { "0" }.to_owned()),
            ("APPMESH_WAIT_FOR_ENVOY", sidecar.startup_timeout.max(1).to_string()),
            ("APPMESH_ENVOY_ADMIN_PORT", ADMIN_PORT.to_string()),
        ];
        let security = if by_plugin { unprivileged() } else { Self::privileged() };
        init_container(sidecar, &variables, security, resources(overrides, sidecar))
    }

    /// The pod may run as somebody else, and a capability is root's alone.
    fn privileged() -> Value {
        json!({
            "allowPrivilegeEscalation": false,
            "capabilities": { "add": ["NET_ADMIN"], "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": false,
            "runAsUser": 0,
            "seccompProfile": { "type": "RuntimeDefault" }
        })
    }
}

fn with_ssh(ports: &str) -> String {
    let given = || ports.split(',').map(str::trim).filter(|port| !port.is_empty());
    let ssh = (!given().any(|port| port == SSH)).then_some(SSH);
    given().chain(ssh).collect::<Vec<_>>().join(",")
}

/// The socket that a pod's Envoy gets its certificates from.
pub fn sds<'a>(overrides: &SidecarOverrides, sidecar: &'a Sidecar) -> Option<&'a str> {
    overrides.sds.unwrap_or(sidecar.sds_enabled).then_some(sidecar.sds_uds_path.as_str())
}

/// The container of Envoy with its mounts. `ca` is the authority of the xDS server's certificate, PEM.
pub fn envoy(
    workload: &WorkloadName,
    overrides: &SidecarOverrides,
    sidecar: &Sidecar,
    ca: &str,
    mounts: Vec<Value>,
) -> Value {
    let port = sidecar.envoy_admin_access_port;
    let tracing = sidecar.observability.tracing();
    let tracing =
        tracing.map(|tracing| Tracing { sampling: overrides.sampling.unwrap_or(tracing.sampling), ..tracing });
    let bootstrap = Bootstrap {
        workload,
        xds: &sidecar.xds_address,
        ca,
        status: Status { port, ipv6: sidecar.envoy_admin_access_enable_ipv6 || sidecar.ipv6() },
        sds: sds(overrides, sidecar),
        tracing: tracing.as_ref(),
        stats: &sidecar.observability.stats(),
    };
    let bootstrap = bootstrap.to_json().to_string();
    let given = overrides.env.iter().filter(|(name, _)| name.as_str() != WORKLOAD_VARIABLE);
    let mut env = vec![variable(WORKLOAD_VARIABLE, &workload.to_string())];
    env.extend(given.map(|(name, value)| variable(name, value)));
    if bootstrap.contains(HOST_IP) {
        env.push(json!({ "name": HOST_IP_VARIABLE, "valueFrom": { "fieldRef": { "fieldPath": "status.hostIP" } } }));
    }
    // A gateway has as many threads as there are CPUs: all that comes into the mesh goes through it.
    let workers = match workload.kind {
        WorkloadKind::VirtualNode => Some(overrides.concurrency.unwrap_or(WORKERS)),
        WorkloadKind::VirtualGateway => overrides.concurrency,
    };
    let mut container = json!({
        "name": SIDECAR,
        "image": sidecar.sidecar_image,
        "imagePullPolicy": sidecar.sidecar_image_pull_policy,
        // A native sidecar, which ends after the pod's containers.
        "restartPolicy": "Always",
        // By the image's PATH: Envoy's own images and Amazon's have it in different folders.
        "command": ["envoy"],
        "args": arguments(&bootstrap, workers, sidecar),
        "env": env,
        "ports": [{ "name": "stats", "containerPort": port, "protocol": "TCP" }],
        "readinessProbe": {
            "httpGet": ready(sidecar),
            "initialDelaySeconds": sidecar.readiness_probe_initial_delay,
            "periodSeconds": sidecar.readiness_probe_period
        },
        "resources": resources(overrides, sidecar),
        "securityContext": unprivileged(),
        "volumeMounts": mounts
    });
    if sidecar.prestop_delay > 0 {
        container["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": sidecar.prestop_delay } } });
    }
    container
}

/// Until when the Envoy of a VirtualGateway may take its time. That of any other pod has an init container after it, which
/// waits for it: a kubelet counts a sidecar as started only at the look after the one that finds its startup probe successful.
pub fn startup_probe(sidecar: &Sidecar) -> Value {
    let looks = sidecar.startup_timeout.div_ceil(sidecar.startup_probe_period.get()).max(1);
    json!({ "httpGet": ready(sidecar), "periodSeconds": sidecar.startup_probe_period, "failureThreshold": looks })
}

/// Where an Envoy says whether it is ready.
fn ready(sidecar: &Sidecar) -> Value {
    json!({ "path": "/ready", "port": sidecar.envoy_admin_access_port })
}

/// What a container needs that is Envoy's user and nothing more.
fn unprivileged() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
        "runAsGroup": ENVOY,
        "runAsNonRoot": true,
        "runAsUser": ENVOY,
        "seccompProfile": { "type": "RuntimeDefault" }
    })
}

/// What Envoy does before it ends: it tells its callers to go and waits until they have. The kubelet begins with it as soon
/// as the pod is to end, at the same time as with the application.
pub fn drain(sidecar: &Sidecar) -> Value {
    drained(&format!("--ingress-port={INGRESS_PORT}"), sidecar.prestop_delay)
}

/// The same for the Envoy of a VirtualGateway. Its callers are not of the mesh: nobody tells when the last of them has
/// heard that the pod ends.
pub fn drain_gateway(sidecar: &Sidecar) -> Value {
    let but = format!("--all-but-port={}", sidecar.envoy_admin_access_port);
    drained(&but, sidecar.prestop_delay.max(GATEWAY_STAYS))
}

fn drained(callers: &str, at_least: u16) -> Value {
    let (admin, at_least) = (format!("--admin-port={ADMIN_PORT}"), format!("--at-least={at_least}"));
    json!({ "preStop": { "exec": { "command": [TOOL, "drain", admin, callers, at_least] } } })
}

/// The init container that only leaves the program there that drains Envoy. `given` is what the pod's author gives Envoy of
/// CPU and memory, if anything.
pub fn tool_container(overrides: &SidecarOverrides, sidecar: &Sidecar, given: Option<Value>) -> Value {
    init_container(
        sidecar,
        &[("APPMESH_START_ENABLED", "0".to_owned()), ("APPMESH_COPY_TO", TOOL.to_owned())],
        unprivileged(),
        given.unwrap_or_else(|| resources(overrides, sidecar)),
    )
}

/// It has what Envoy has of CPU and memory: a quota of limits wants some of each container, and so does the QoS class
/// Guaranteed.
fn init_container(sidecar: &Sidecar, variables: &[(&str, String)], security: Value, resources: Value) -> Value {
    json!({
        "name": INIT,
        "image": sidecar.init_image,
        "imagePullPolicy": sidecar.sidecar_image_pull_policy,
        "env": variables.iter().map(|(name, value)| variable(name, value)).collect::<Vec<_>>(),
        "resources": resources,
        "securityContext": security,
        "volumeMounts": [tool_to_fill()]
    })
}

/// What an Envoy is started with. Without a number of workers it has one for each CPU.
fn arguments(bootstrap: &str, workers: Option<u32>, sidecar: &Sidecar) -> Vec<String> {
    let mut arguments = vec!["--config-yaml".to_owned(), escape(bootstrap)];
    arguments.extend(["--log-level".to_owned(), sidecar.sidecar_log_level.clone()]);
    arguments.extend(workers.into_iter().flat_map(|workers| ["--concurrency".to_owned(), workers.to_string()]));
    // Callers are told to go at once, and not one after the other in ten minutes.
    arguments.extend(["--drain-strategy", "immediate", "--disable-hot-restart"].map(str::to_owned));
    arguments
}

fn variable(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// Kubernetes expands `$(NAME)` in arguments, which is meant for the node's address alone; `$$` is a dollar sign.
fn escape(argument: &str) -> String {
    argument.replace('$', "$$").replace(&format!("${HOST_IP}"), HOST_IP)
}

fn resources(overrides: &SidecarOverrides, sidecar: &Sidecar) -> Value {
    let requests = quantities([
        ("cpu", &overrides.cpu_request, &sidecar.sidecar_cpu_requests),
        ("memory", &overrides.memory_request, &sidecar.sidecar_memory_requests),
    ]);
    let limits = quantities([
        ("cpu", &overrides.cpu_limit, &sidecar.sidecar_cpu_limits),
        ("memory", &overrides.memory_limit, &sidecar.sidecar_memory_limits),
    ]);
    let mut resources = json!({ "requests": requests });
    if !limits.is_empty() {
        resources["limits"] = json!(limits);
    }
    resources
}

/// Those that are given, by the pod or else by the chart.
fn quantities<'a>(of: [(&'a str, &'a Option<String>, &'a String); 2]) -> BTreeMap<&'a str, &'a String> {
    let given = of.into_iter().map(|(name, own, default)| (name, own.as_ref().unwrap_or(default)));
    given.filter(|(_, quantity)| !quantity.is_empty()).collect()
}
