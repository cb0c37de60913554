//! Parses what a pod's annotations say about its sidecar.

use std::{collections::BTreeMap, fmt::Display};

use anyhow::{anyhow, bail};
use capture::list::{Item, List, Port};
use ipnet::IpNet;

const PREFIX: &str = "appmesh.k8s.aws/";
/// Whether to inject: label of a namespace, annotation of a pod.
pub const INJECT: &str = "appmesh.k8s.aws/sidecarInjectorWebhook";
/// Annotations that Amazon's controller acts on and this one does not support.
const UNSUPPORTED: [&str; 10] = [
    "appmeshCNI",
    "ipv6",
    "preview",
    "sds",
    "secretMounts",
    "sidecarEnv",
    "sidecarEnvJson",
    "virtualGatewaySkipImageOverride",
    "volumeMounts",
    "xrayAgentConfigMount",
];

/// The values of a pod's sidecar that its annotations override; what is absent is the chart's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidecarOverrides {
    /// `ports`: those that Envoy takes over, instead of the VirtualNode's listeners'.
    pub ports: Option<String>,
    /// `egressIgnoredIPs`: reached without Envoy.
    pub egress_ignored_ips: Option<String>,
    /// `egressIgnoredPorts`: reached without Envoy.
    pub egress_ignored_ports: Option<String>,
    /// `cpuRequest`
    pub cpu_request: Option<String>,
    /// `memoryRequest`
    pub memory_request: Option<String>,
    /// `cpuLimit`
    pub cpu_limit: Option<String>,
    /// `memoryLimit`
    pub memory_limit: Option<String>,
    /// What the user should know: annotations that have no effect.
    pub warnings: Vec<String>,
}

impl SidecarOverrides {
    /// Parses a pod's annotations. Like Amazon's controller it ignores those of `appmesh.k8s.aws/` that it does not know,
    /// such as `mesh` and `virtualNode` of the API before v1beta2, but warns of them.
    ///
    /// # Errors
    /// A value does not parse, or the annotation is one that Amazon's controller acts on and this one does not support:
    /// the pod would not get what its author counts on.
    pub fn of(annotations: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let mut overrides = Self::default();
        for (name, value) in annotations {
            let Some(short) = name.strip_prefix(PREFIX) else { continue };
            let (field, value) = match short {
                "sidecarInjectorWebhook" => continue,
                "ports" => (&mut overrides.ports, list::<Port>(value)),
                "egressIgnoredIPs" => (&mut overrides.egress_ignored_ips, list::<IpNet>(value)),
                "egressIgnoredPorts" => (&mut overrides.egress_ignored_ports, list::<Port>(value)),
                "cpuRequest" => (&mut overrides.cpu_request, Ok(value.clone())),
                "memoryRequest" => (&mut overrides.memory_request, Ok(value.clone())),
                "cpuLimit" => (&mut overrides.cpu_limit, Ok(value.clone())),
                "memoryLimit" => (&mut overrides.memory_limit, Ok(value.clone())),
                _ if UNSUPPORTED.contains(&short) => bail!("annotation {name}: not supported by this controller"),
                _ => {
                    overrides.warnings.push(format!("annotation {name} has no effect: App Mesh does not know it"));
                    continue;
                }
            };
            *field = Some(value.map_err(|problem| anyhow!("annotation {name}: {problem}"))?);
        }
        Ok(overrides)
    }
}

/// Whether a pod is to have a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It must: without a VirtualNode it may not start.
    Enabled,
    /// It must not.
    Disabled,
    /// If it is a VirtualNode's.
    Unspecified,
}

impl Mode {
    /// The pod's annotation, else the namespace's label.
    pub fn of(annotations: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> Self {
        let said = annotations.get(INJECT).or_else(|| labels.get(INJECT)).map(|said| said.to_lowercase());
        match said.as_deref() {
            Some("enabled") => Self::Enabled,
            Some("disabled") => Self::Disabled,
            _ => Self::Unspecified,
        }
    }
}

/// The list as the init container's variable has it.
fn list<T: Item + Display>(text: &str) -> Result<String, String> {
    let List(items) = text.parse::<List<T>>()?;
    Ok(items.iter().map(T::to_string).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_pod_says_more_than_its_namespace() {
        for (pod, namespace, expected) in [
            (None, Some("enabled"), Mode::Enabled),
            (None, Some("disabled"), Mode::Disabled),
            (Some("disabled"), Some("enabled"), Mode::Disabled),
            (Some("Enabled"), Some("disabled"), Mode::Enabled),
            (Some("perhaps"), Some("enabled"), Mode::Unspecified),
            (None, None, Mode::Unspecified),
        ] {
            let of = |said: Option<&str>| map(said.map(|said| (INJECT, said)).as_slice());
            assert_eq!(Mode::of(&of(pod), &of(namespace)), expected);
        }
    }

    #[test]
    fn overrides_are_parsed_or_refused() {
        let some = |text: &str| Some(text.to_owned());
        for (annotations, expected) in [
            (vec![("prometheus.io/scrape", "true"), (INJECT, "enabled")], Ok(SidecarOverrides::default())),
            (
                vec![("appmesh.k8s.aws/ports", "8080, 8081"), ("appmesh.k8s.aws/cpuRequest", "1")],
                Ok(SidecarOverrides {
                    ports: some("8080,8081"),
                    cpu_request: some("1"),
                    ..SidecarOverrides::default()
                }),
            ),
            (
                vec![("appmesh.k8s.aws/egressIgnoredIPs", "10.0.0.0/8,::1")],
                Ok(SidecarOverrides { egress_ignored_ips: some("10.0.0.0/8,::1/128"), ..SidecarOverrides::default() }),
            ),
            (
                vec![("appmesh.k8s.aws/ports", "http")],
                Err("annotation appmesh.k8s.aws/ports: \"http\" is not a port (1 to 65535)"),
            ),
            (
                vec![("appmesh.k8s.aws/ports", "8080,0")],
                Err("annotation appmesh.k8s.aws/ports: \"0\" is not a port (1 to 65535)"),
            ),
            (
                vec![("appmesh.k8s.aws/egressIgnoredPorts", "0")],
                Err("annotation appmesh.k8s.aws/egressIgnoredPorts: \"0\" is not a port (1 to 65535)"),
            ),
            (
                vec![("appmesh.k8s.aws/egressIgnoredIPs", "10.0.0.0/40")],
                Err("annotation appmesh.k8s.aws/egressIgnoredIPs: \"10.0.0.0/40\" is not an IP address or CIDR block"),
            ),
            (
                vec![("appmesh.k8s.aws/mesh", "m"), ("appmesh.k8s.aws/virtualNode", "n")],
                Ok(SidecarOverrides {
                    warnings: vec![
                        "annotation appmesh.k8s.aws/mesh has no effect: App Mesh does not know it".to_owned(),
                        "annotation appmesh.k8s.aws/virtualNode has no effect: App Mesh does not know it".to_owned(),
                    ],
                    ..SidecarOverrides::default()
                }),
            ),
            (
                vec![("appmesh.k8s.aws/sidecarEnv", "A=1")],
                Err("annotation appmesh.k8s.aws/sidecarEnv: not supported by this controller"),
            ),
        ] {
            let overrides = SidecarOverrides::of(&map(&annotations)).map_err(|error| format!("{error:#}"));
            assert_eq!(overrides.as_ref().map_err(String::as_str), expected.as_ref().map_err(|error| *error));
        }
    }
}
