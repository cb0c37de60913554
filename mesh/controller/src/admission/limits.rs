//! Refuses where the mesh cannot work, before it breaks, and warns where it works only if something else does its part.
//! The table of docs/limits.md is written from these by a test.

use std::collections::BTreeMap;

use anyhow::bail;
use serde_json::Value;

use super::sidecar::{ENVOY, SIDECAR};

/// Label of the pods that run on Fargate, where the network plugin redirects a pod's traffic.
const FARGATE: &str = "eks.amazonaws.com/fargate-profile";
/// Resource that pods with security groups of their own ask for.
const POD_ENI: &str = "vpc.amazonaws.com/pod-eni";
/// Label of a namespace: the Pod Security level that its pods are held to.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce";

/// Where the mesh does not work, or not by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The pod shares its node's network.
    HostNetwork,
    /// The pod runs on Windows.
    Windows,
    /// A container runs as Envoy's user.
    OwnUser,
    /// A container listens where Envoy does.
    OwnPort,
    /// Names of the cluster are not found in the pod.
    Dns,
    /// The namespace refuses the container that redirects traffic.
    PodSecurity,
    /// The namespace refuses the volume with the SDS provider's socket.
    NodeSocket,
    /// The pod runs on Fargate.
    Fargate,
    /// The pod has security groups of its own.
    SecurityGroups,
    /// A probe reaches Envoy and not the application.
    TcpProbe,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::HostNetwork,
        Self::Windows,
        Self::OwnUser,
        Self::OwnPort,
        Self::Dns,
        Self::PodSecurity,
        Self::NodeSocket,
        Self::Fargate,
        Self::SecurityGroups,
        Self::TcpProbe,
    ];

    /// Where it is met.
    pub fn place(self) -> &'static str {
        match self {
            Self::HostNetwork => "a pod with `hostNetwork`; one of a VirtualGateway may have it",
            Self::Windows => "a pod whose `os` or `nodeSelector` is Windows",
            Self::OwnUser => "a container with `runAsUser: 1337`, or a pod; not of a VirtualGateway",
            Self::OwnPort => "a `containerPort` of 15000, 15001, 15002 or the chart's `sidecar.envoyAdminAccessPort`",
            Self::Dns => {
                "`dnsPolicy: Default`, or `None` without the cluster's domain among its `searches`, or `ClusterFirst` with \
                 `hostNetwork`"
            }
            Self::PodSecurity => "a namespace that enforces the Pod Security level `baseline` or `restricted`",
            Self::NodeSocket => "the same, with SDS",
            Self::Fargate => "a pod on Fargate",
            Self::SecurityGroups => "a pod with security groups of its own (SecurityGroupPolicy)",
            Self::TcpProbe => "a `tcpSocket` probe of a listener's port",
        }
    }

    /// Why it does not work, and the way out.
    pub fn reason(self) -> &'static str {
        match self {
            Self::HostNetwork => {
                "a pod in its node's network can't have a sidecar: it would redirect the traffic of the \
                                  whole node; remove hostNetwork, or annotate the pod with \
                                  appmesh.k8s.aws/sidecarInjectorWebhook: disabled"
            }
            Self::Windows => {
                "Envoy's image and its redirection are for Linux: annotate the pod with \
                              appmesh.k8s.aws/sidecarInjectorWebhook: disabled"
            }
            Self::OwnUser => {
                "user 1337 is Envoy's, and what this user sends is not redirected: let the containers run as \
                              another user"
            }
            Self::OwnPort => {
                "a port of a container is one that Envoy listens on: choose another, or, for /stats, another \
                              value of the chart's sidecar.envoyAdminAccessPort"
            }
            Self::Dns => {
                "the pod's Envoy can't find the controller by its name with this dnsPolicy: use ClusterFirst, or \
                          ClusterFirstWithHostNet in the node's network, or None with the cluster's DNS servers and its \
                          domain among the searches of dnsConfig"
            }
            Self::PodSecurity => {
                "the namespace's Pod Security level refuses the capability NET_ADMIN, by which the pod's \
                                  traffic is redirected: label the namespace pod-security.kubernetes.io/enforce: \
                                  privileged, or let a network plugin redirect it (annotation appmesh.k8s.aws/appmeshCNI: \
                                  enabled)"
            }
            Self::NodeSocket => {
                "the namespace's Pod Security level refuses hostPath volumes, such as that of the SDS \
                                 provider's socket: label the namespace pod-security.kubernetes.io/enforce: privileged, \
                                 or give certificates by file (annotation appmesh.k8s.aws/sds: disabled)"
            }
            Self::Fargate => {
                "on Fargate the platform's own App Mesh plugin must redirect the pod's traffic, for a container \
                              cannot have NET_ADMIN there: look whether Envoy sees the pod's requests"
            }
            Self::SecurityGroups => {
                "the pod's security groups must let it reach the cluster's DNS and port 15010 of the \
                                     controller, and let callers reach its listeners"
            }
            Self::TcpProbe => {
                "a tcpSocket probe of a listener's port reaches Envoy, which takes the connection whether the \
                               application listens or not: probe by httpGet or grpc, or, where the listener demands TLS, \
                               by exec"
            }
        }
    }

    /// Whether it is refused; else it is warned of.
    pub fn is_refused(self) -> bool {
        !matches!(self, Self::Fargate | Self::SecurityGroups | Self::TcpProbe)
    }
}

/// Whether a pod runs on Fargate.
pub fn on_fargate(pod: &Value) -> bool {
    pod["metadata"]["labels"][FARGATE].as_str().is_some_and(|profile| !profile.is_empty())
}

/// What is to be added to a pod.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'a> {
    /// Whether the pod's traffic is redirected, by whom ever.
    pub redirects: bool,
    /// Whether a container does that.
    pub by_container: bool,
    /// Whether Envoy gets certificates from a socket of the node.
    pub sds: bool,
    /// Ports on which connections into the pod are redirected, separated by commas.
    pub ports: &'a str,
    /// Where `/stats` is.
    pub status_port: u16,
    /// `host:port` of the controller.
    pub xds: &'a str,
}

/// Refuses a pod to which this can't be added; returns warnings.
///
/// # Errors
/// The first limit that it meets.
pub fn check_pod(
    pod: &Value,
    namespace: Option<&BTreeMap<String, String>>,
    addition: Addition<'_>,
) -> anyhow::Result<Vec<String>> {
    let met = Limit::ALL.into_iter().filter(|limit| meets(*limit, pod, namespace, addition));
    let mut warnings = Vec::new();
    for limit in met {
        if limit.is_refused() {
            bail!("{}", limit.reason());
        }
        warnings.push(limit.reason().to_owned());
    }
    Ok(warnings)
}

/// What to know of a pod that has its sidecar and was then changed by another webhook, such as the one that gives pods
/// security groups.
pub fn warnings_of_others(pod: &Value) -> Vec<String> {
    let met = has_security_groups(&pod["spec"]).then_some(Limit::SecurityGroups);
    met.into_iter().map(|limit| limit.reason().to_owned()).collect()
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers"].map(|list| spec[list].as_array());
    lists.into_iter().flatten().flatten().filter(|container| container["name"] != SIDECAR)
}

fn has_security_groups(spec: &Value) -> bool {
    containers(spec).any(|container| {
        let resources = &container["resources"];
        ["limits", "requests"].iter().any(|list| !resources[list][POD_ENI].is_null())
    })
}

fn meets(limit: Limit, pod: &Value, namespace: Option<&BTreeMap<String, String>>, addition: Addition<'_>) -> bool {
    let spec = &pod["spec"];
    let is_restricted = namespace
        .and_then(|labels| labels.get(ENFORCED))
        .is_some_and(|level| matches!(level.as_str(), "baseline" | "restricted"));
    match limit {
        Limit::HostNetwork => addition.redirects && spec["hostNetwork"] == true,
        Limit::Windows => spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows",
        Limit::OwnUser => {
            let is_envoys = |of: &Value| of["securityContext"]["runAsUser"] == ENVOY;
            addition.redirects && (is_envoys(spec) || containers(spec).any(is_envoys))
        }
        Limit::OwnPort => {
            let envoys = |port: &Value| {
                let port = port["containerPort"].as_u64();
                port.is_some_and(|port| (15_000..=15_002).contains(&port) || port == u64::from(addition.status_port))
            };
            addition.redirects
                && containers(spec).flat_map(|container| container["ports"].as_array()).flatten().any(envoys)
        }
        Limit::Dns => addition.xds.contains(".svc") && !finds_the_cluster(spec),
        Limit::PodSecurity => is_restricted && addition.by_container,
        Limit::NodeSocket => is_restricted && addition.sds,
        Limit::Fargate => addition.redirects && !addition.by_container && on_fargate(pod),
        Limit::SecurityGroups => has_security_groups(spec),
        Limit::TcpProbe => {
            let is_redirected = |port: u64| addition.ports.split(',').any(|other| other.trim() == port.to_string());
            addition.redirects && containers(spec).flat_map(tcp_probes).any(is_redirected)
        }
    }
}

/// The ports of a container's probes by TCP.
fn tcp_probes(container: &Value) -> impl Iterator<Item = u64> {
    ["startupProbe", "livenessProbe", "readinessProbe"].into_iter().filter_map(|probe| {
        let port = &container[probe]["tcpSocket"]["port"];
        let mut ports = container["ports"].as_array().into_iter().flatten();
        let named = || ports.find(|named| port.is_string() && named["name"] == *port)?["containerPort"].as_u64();
        port.as_u64().or_else(named)
    })
}

/// Whether a pod finds names that end with `.svc`.
fn finds_the_cluster(spec: &Value) -> bool {
    match spec["dnsPolicy"].as_str() {
        Some("Default") => false,
        // A domain of one label is the node's, such as `ec2.internal`'s last; the cluster's is what `svc` is in.
        Some("None") => {
            let searches = spec["dnsConfig"]["searches"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let searches: Vec<_> = searches.map(|search| search.trim_end_matches('.')).collect();
            let is_clusters = |domain: &&str| searches.iter().any(|other| other.ends_with(&format!("svc.{domain}")));
            searches.iter().any(is_clusters) || searches.contains(&"cluster.local")
        }
        Some("ClusterFirstWithHostNet") => true,
        _ => spec["hostNetwork"] != true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::{fmt::Write as _, path::Path};

    const SIDECAR_OF: Addition<'_> = Addition {
        redirects: true,
        by_container: true,
        sds: false,
        ports: "8080,8443",
        status_port: 9901,
        xds: "appmesh-controller-xds.appmesh-system.svc:15010",
    };
    const GATEWAY_OF: Addition<'_> = Addition { redirects: false, by_container: false, ports: "", ..SIDECAR_OF };
    const BY_PLUGIN: Addition<'_> = Addition { by_container: false, ..SIDECAR_OF };

    /// The limits that a pod meets which is nothing else.
    fn met(spec: &Value, level: &str, addition: Addition<'_>) -> Vec<Limit> {
        let labels = BTreeMap::from([(ENFORCED.to_owned(), level.to_owned())]);
        let labels = Some(&labels).filter(|_| !level.is_empty());
        let on_fargate = spec["schedulerName"] == "fargate-scheduler";
        let profile = if on_fargate { json!({ FARGATE: "default" }) } else { Value::Null };
        let pod = json!({ "metadata": { "labels": profile }, "spec": spec });
        Limit::ALL.into_iter().filter(|limit| meets(*limit, &pod, labels, addition)).collect()
    }

    fn container(fields: Value) -> Value {
        let mut container = json!({ "name": "web", "image": "web" });
        container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({ "containers": [{ "name": "envoy", "securityContext": { "runAsUser": 1337 } }, container] })
    }

    fn dns(policy: &str, searches: &[&str]) -> Value {
        json!({ "dnsPolicy": policy, "dnsConfig": { "searches": searches } })
    }

    #[test]
    fn a_limit_is_met_where_it_is_and_nowhere_else() {
        use Limit::{
            Dns, Fargate, HostNetwork, NodeSocket, OwnPort, OwnUser, PodSecurity, SecurityGroups, TcpProbe, Windows,
        };
        let user = json!({ "securityContext": { "runAsUser": 1337 } });
        let port = |port: u16| container(json!({ "ports": [{ "containerPort": port }] }));
        let eni = json!({ "resources": { "limits": { "vpc.amazonaws.com/pod-eni": "1" } } });
        let host = json!({ "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" });
        let fargate = json!({ "schedulerName": "fargate-scheduler" });
        let native = json!({ "initContainers": [{ "name": "a", "securityContext": { "runAsUser": 1337 } }] });
        let sds = Addition { sds: true, ..BY_PLUGIN };
        let by_address = Addition { xds: "10.0.0.1:15010", ..SIDECAR_OF };
        let tcp = |kind: &str, port: Value| {
            let ports = json!([{ "name": "web", "containerPort": 8443 }, { "name": "beside", "containerPort": 9090 }]);
            container(json!({ "ports": ports, kind: { "tcpSocket": { "port": port } } }))
        };
        let none: &[Limit] = &[];
        for (spec, level, addition, expected) in [
            (container(json!({})), "", SIDECAR_OF, none),
            (host.clone(), "", SIDECAR_OF, &[HostNetwork]),
            (host, "", GATEWAY_OF, none),
            (json!({ "hostNetwork": true, "dnsPolicy": "ClusterFirst" }), "", GATEWAY_OF, &[Dns]),
            (json!({ "os": { "name": "windows" } }), "", SIDECAR_OF, &[Windows]),
            (json!({ "os": { "name": "linux" } }), "", SIDECAR_OF, none),
            (json!({ "nodeSelector": { "kubernetes.io/os": "windows" } }), "", GATEWAY_OF, &[Windows]),
            (user.clone(), "", SIDECAR_OF, &[OwnUser]),
            (user.clone(), "", BY_PLUGIN, &[OwnUser]),
            (user.clone(), "", GATEWAY_OF, none),
            (container(user), "", SIDECAR_OF, &[OwnUser]),
            (native, "", SIDECAR_OF, &[OwnUser]),
            (container(json!({ "securityContext": { "runAsUser": 1338 } })), "", SIDECAR_OF, none),
            (port(9901), "", SIDECAR_OF, &[OwnPort]),
            (port(9901), "", Addition { status_port: 9902, ..SIDECAR_OF }, none),
            (port(15001), "", SIDECAR_OF, &[OwnPort]),
            (port(15003), "", SIDECAR_OF, none),
            (port(9901), "", GATEWAY_OF, none),
            (dns("Default", &[]), "", SIDECAR_OF, &[Dns]),
            (dns("Default", &[]), "", by_address, none),
            (dns("ClusterFirst", &[]), "", SIDECAR_OF, none),
            (dns("None", &["ec2.internal"]), "", SIDECAR_OF, &[Dns]),
            (dns("None", &["cluster.local"]), "", SIDECAR_OF, none),
            (dns("None", &["shop.svc.k8s.shop.", "k8s.shop."]), "", SIDECAR_OF, none),
            (json!({}), "privileged", SIDECAR_OF, none),
            (json!({}), "baseline", SIDECAR_OF, &[PodSecurity]),
            (json!({}), "restricted", SIDECAR_OF, &[PodSecurity]),
            (json!({}), "restricted", BY_PLUGIN, none),
            (json!({}), "restricted", GATEWAY_OF, none),
            (json!({}), "restricted", sds, &[NodeSocket]),
            (json!({}), "privileged", sds, none),
            (fargate.clone(), "", BY_PLUGIN, &[Fargate]),
            (fargate, "", GATEWAY_OF, none),
            (container(eni.clone()), "", SIDECAR_OF, &[SecurityGroups]),
            (container(eni), "", GATEWAY_OF, &[SecurityGroups]),
            (tcp("readinessProbe", json!(8080)), "", SIDECAR_OF, &[TcpProbe]),
            (tcp("livenessProbe", json!("web")), "", BY_PLUGIN, &[TcpProbe]),
            (tcp("startupProbe", json!("beside")), "", SIDECAR_OF, none),
            (tcp("startupProbe", json!("nothing")), "", SIDECAR_OF, none),
            (tcp("readinessProbe", json!(9090)), "", SIDECAR_OF, none),
            (tcp("readinessProbe", json!(8080)), "", GATEWAY_OF, none),
            (container(json!({ "readinessProbe": { "httpGet": { "port": 8080 } } })), "", SIDECAR_OF, none),
        ] {
            assert_eq!(met(&spec, level, addition), expected, "{spec} {level} {addition:?}");
        }
    }

    #[test]
    fn what_is_met_is_refused_or_warned_of() {
        let labels = json!({ FARGATE: "default" });
        let pod = json!({ "metadata": { "labels": labels }, "spec": {} });
        assert_eq!(check_pod(&pod, None, BY_PLUGIN).unwrap(), [Limit::Fargate.reason()]);
        let pod = json!({ "metadata": { "labels": labels }, "spec": { "dnsPolicy": "Default" } });
        let refused = check_pod(&pod, None, BY_PLUGIN).unwrap_err();
        assert_eq!(refused.to_string(), Limit::Dns.reason());
    }

    #[test]
    fn limits_are_documented() {
        const HEAD: &str = "| where | what happens | why, and the way out |\n| --- | --- | --- |\n";
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/limits.md");
        let written = std::fs::read_to_string(&file).unwrap();
        // The document around the table is written by hand.
        let (before, rows) = written.split_once(HEAD).unwrap();
        let (_, after) = rows.split_once("\n\n").unwrap();
        let mut document = format!("{before}{HEAD}");
        for limit in Limit::ALL {
            let outcome = if limit.is_refused() { "refused" } else { "a warning" };
            let _ = writeln!(document, "| {} | {outcome} | {} |", limit.place(), limit.reason());
        }
        let _ = write!(document, "\n{after}");
        let expected = snapbox::Data::read_from(&file, None);
        snapbox::Assert::new().action_env("SNAPSHOTS").eq(document, expected);
    }
}
