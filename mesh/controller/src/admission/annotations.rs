//! Parses what a pod's annotations say about its sidecar.

use std::{collections::BTreeMap, fmt::Display, num::NonZeroU32};

use anyhow::{Context as _, anyhow};
use capture::list::{Item, List, Port};
use ipnet::IpNet;

use super::observability::share;

const PREFIX: &str = "appmesh.k8s.aws/";
/// Whether to inject: label of a namespace, annotation of a pod.
pub const INJECT: &str = "appmesh.k8s.aws/sidecarInjectorWebhook";
/// What an annotation of a pod does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What it does in Amazon's controller.
    Supported,
    /// None, for a reason of which the user is warned.
    Nothing(&'static str),
    /// The pod is refused for that reason: it would not get what its author counts on.
    Refused(&'static str),
}

/// The annotations of `appmesh.k8s.aws/` that Amazon's controller reads or sets.
pub const ANNOTATIONS: [(&str, Effect); 22] = {
    use Effect::{Nothing, Refused, Supported};
    [
        ("appmeshCNI", Supported),
        ("cpuLimit", Supported),
        ("cpuRequest", Supported),
        ("egressIgnoredIPs", Supported),
        ("egressIgnoredPorts", Supported),
        ("ignoredGID", Nothing("it cannot be chosen")),
        ("ignoredUID", Nothing("it cannot be chosen")),
        ("ipv6", Supported),
        ("memoryLimit", Supported),
        ("memoryRequest", Supported),
        ("ports", Supported),
        ("preview", Refused("the preview channel was App Mesh's: remove the annotation")),
        ("proxyEgressPort", Nothing("it cannot be chosen")),
        ("proxyIngressPort", Nothing("it cannot be chosen")),
        ("sds", Supported),
        ("secretMounts", Supported),
        ("sidecarEnv", Supported),
        ("sidecarEnvJson", Supported),
        ("sidecarInjectorWebhook", Supported),
        ("virtualGatewaySkipImageOverride", Supported),
        ("volumeMounts", Supported),
        ("xrayAgentConfigMount", Nothing("no X-Ray daemon is added to the pod")),
    ]
};
/// Variable by which Amazon's Envoy image takes the number of Envoy's threads.
const CONCURRENCY: &str = "ENVOY_CONCURRENCY";
/// Variable by which Amazon's Envoy image takes the share of the requests that begin a trace.
const SAMPLING: &str = "XRAY_SAMPLING_RATE";
/// How variables begin that only the agent of Amazon's Envoy image reads, which is not started.
const AGENT: [&str; 3] = ["APPMESH_", "APPNET_", "ENVOY_"];

/// Whether a pod of a VirtualGateway brings its own image of Envoy; the chart's is taken otherwise.
pub fn skips_image_override(annotations: &BTreeMap<String, String>) -> bool {
    let said = annotations.get("appmesh.k8s.aws/virtualGatewaySkipImageOverride");
    said.is_some_and(|said| said.eq_ignore_ascii_case("enabled"))
}

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
    /// `secretMounts`: secrets that Envoy finds as files.
    pub secret_mounts: Vec<Mount>,
    /// `volumeMounts`: volumes of the pod that Envoy finds too.
    pub volume_mounts: Vec<Mount>,
    /// `sidecarEnv` and `sidecarEnvJson`: Envoy's environment.
    pub env: BTreeMap<String, String>,
    /// `ENVOY_CONCURRENCY` of these: threads of Envoy.
    pub concurrency: Option<u32>,
    /// `XRAY_SAMPLING_RATE` of these: share of the requests that begin a trace, in hundredths of a percent.
    pub sampling: Option<u32>,
    /// `sds`: whether Envoy gets certificates from the node's SDS provider.
    pub sds: Option<bool>,
    /// `appmeshCNI`: whether the node's network plugin redirects the traffic, and no init container.
    pub cni: Option<bool>,
    /// `ipv6`: whether what the pod sends and receives by IPv6 is redirected too.
    pub ipv6: Option<bool>,
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
        let mut env_json = BTreeMap::new();
        for (name, value) in annotations {
            let Some(short) = name.strip_prefix(PREFIX) else { continue };
            overrides.take(short, value, &mut env_json).map_err(|problem| anyhow!("annotation {name}: {problem}"))?;
        }
        overrides.env.append(&mut env_json);
        overrides.take_variables()?;
        Ok(overrides)
    }

    fn take(&mut self, name: &str, value: &str, env_json: &mut BTreeMap<String, String>) -> Result<(), String> {
        match name {
            // The latter is for pods of a VirtualGateway.
            "sidecarInjectorWebhook" | "virtualGatewaySkipImageOverride" => {}
            "ports" => self.ports = Some(list::<Port>(value)?),
            "egressIgnoredIPs" => self.egress_ignored_ips = Some(list::<IpNet>(value)?),
            "egressIgnoredPorts" => self.egress_ignored_ports = Some(list::<Port>(value)?),
            "cpuRequest" => self.cpu_request = Some(value.to_owned()),
            "memoryRequest" => self.memory_request = Some(value.to_owned()),
            "cpuLimit" => self.cpu_limit = Some(value.to_owned()),
            "memoryLimit" => self.memory_limit = Some(value.to_owned()),
            "secretMounts" => self.secret_mounts = mounts(value, "secretName:mountPath")?,
            "volumeMounts" => self.volume_mounts = mounts(value, "volumeName:mountPath")?,
            "sidecarEnv" => self.env = pairs(value, '=', "NAME=VALUE")?.collect(),
            "sidecarEnvJson" => *env_json = env_of_json(value)?,
            "sds" => self.sds = self.switch(name, value),
            "appmeshCNI" => self.cni = self.switch(name, value),
            "ipv6" => self.ipv6 = self.switch(name, value),
            // As it is in any case.
            "preview" if value.eq_ignore_ascii_case("disabled") => {}
            _ => match ANNOTATIONS.iter().find(|(known, _)| *known == name) {
                Some((_, Effect::Refused(why))) => return Err((*why).to_owned()),
                Some((_, Effect::Nothing(why))) => self.warn(name, why),
                _ => self.warn(name, "App Mesh does not know it"),
            },
        }
        Ok(())
    }

    /// Warns of an annotation that has no effect.
    pub fn warn(&mut self, name: &str, why: &str) {
        self.warnings.push(format!("annotation {PREFIX}{name} has no effect: {why}"));
    }

    fn switch(&mut self, name: &str, value: &str) -> Option<bool> {
        match value.to_lowercase().as_str() {
            "enabled" => Some(true),
            "disabled" => Some(false),
            _ => {
                self.warn(name, &format!("{value:?} is neither enabled nor disabled"));
                None
            }
        }
    }

    /// Takes the variables that are options of Envoy here, and warns of those that would be of Amazon's image.
    fn take_variables(&mut self) -> anyhow::Result<()> {
        if let Some(threads) = self.env.remove(CONCURRENCY) {
            let threads: NonZeroU32 = threads.parse().with_context(|| format!("variable {CONCURRENCY} of Envoy"))?;
            self.concurrency = Some(threads.get());
        }
        if let Some(rate) = self.env.remove(SAMPLING) {
            self.sampling = Some(share(&rate).with_context(|| format!("variable {SAMPLING} of Envoy"))?);
        }
        let agents = |name: &&String| AGENT.iter().any(|prefix| name.starts_with(prefix));
        let warn = |name| format!("variable {name} of Envoy has no effect: only App Mesh's agent reads it");
        self.warnings.extend(self.env.keys().filter(agents).map(warn));
        Ok(())
    }
}

/// Something that Envoy finds as files at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Name of the secret or volume.
    pub name: String,
    /// Folder where it is mounted.
    pub path: String,
}

fn mounts(text: &str, form: &str) -> Result<Vec<Mount>, String> {
    let mount = |(name, path): (String, String)| {
        let is_folder = path.starts_with('/') && !path.contains(':');
        if is_folder { Ok(Mount { name, path }) } else { Err(format!("{path:?} is not an absolute path")) }
    };
    pairs(text, ':', form)?.map(mount).collect()
}

/// The pairs of a list, such as `a=1, b=2`.
fn pairs(text: &str, separator: char, form: &str) -> Result<impl Iterator<Item = (String, String)>, String> {
    let pair = |item: &str| {
        let pair = item.split_once(separator).map(|(left, right)| (left.trim().to_owned(), right.trim().to_owned()));
        pair.filter(|(left, _)| !left.is_empty()).ok_or_else(|| format!("{:?} is not {form}", item.trim()))
    };
    text.split(',').map(pair).collect::<Result<Vec<_>, _>>().map(Vec::into_iter)
}

/// Variables from a list of objects, as `[{"NAME":"VALUE"}]`.
fn env_of_json(text: &str) -> Result<BTreeMap<String, String>, String> {
    let objects: Vec<BTreeMap<String, String>> = serde_json::from_str(text)
        .map_err(|error| format!(r#"not a list of objects with strings, such as [{{"NAME":"VALUE"}}]: {error}"#))?;
    Ok(objects.into_iter().flatten().collect())
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

    fn mount(name: &str, path: &str) -> Mount {
        Mount { name: name.to_owned(), path: path.to_owned() }
    }

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
    fn what_is_said_to_be_supported_is() {
        for (name, effect) in ANNOTATIONS {
            let overrides = SidecarOverrides::of(&map(&[(&format!("{PREFIX}{name}"), "enabled")]));
            let warned = overrides.as_ref().is_ok_and(|overrides| !overrides.warnings.is_empty());
            match effect {
                Effect::Supported => assert!(!warned, "{name}"),
                Effect::Nothing(_) => assert!(warned, "{name}"),
                Effect::Refused(why) => assert!(overrides.unwrap_err().to_string().ends_with(why), "{name}"),
            }
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
                vec![("appmesh.k8s.aws/virtualGatewaySkipImageOverride", "enabled")],
                Ok(SidecarOverrides::default()),
            ),
            (
                vec![("appmesh.k8s.aws/preview", "Enabled")],
                Err("annotation appmesh.k8s.aws/preview: the preview channel was App Mesh's: remove the annotation"),
            ),
            (
                vec![
                    ("appmesh.k8s.aws/ipv6", "disabled"),
                    ("appmesh.k8s.aws/preview", "disabled"),
                    ("appmesh.k8s.aws/sds", "disabled"),
                    ("appmesh.k8s.aws/appmeshCNI", "Enabled"),
                ],
                Ok(SidecarOverrides {
                    ipv6: Some(false),
                    sds: Some(false),
                    cni: Some(true),
                    ..SidecarOverrides::default()
                }),
            ),
            (
                vec![
                    ("appmesh.k8s.aws/ignoredUID", "0"),
                    ("appmesh.k8s.aws/ipv6", "enabled"),
                    ("appmesh.k8s.aws/sds", "no"),
                    ("appmesh.k8s.aws/xrayAgentConfigMount", "xray-config:/tmp/"),
                ],
                Ok(SidecarOverrides {
                    ipv6: Some(true),
                    warnings: vec![
                        "annotation appmesh.k8s.aws/ignoredUID has no effect: it cannot be chosen".to_owned(),
                        "annotation appmesh.k8s.aws/sds has no effect: \"no\" is neither enabled nor disabled".to_owned(),
                        "annotation appmesh.k8s.aws/xrayAgentConfigMount has no effect: no X-Ray daemon is added to the pod"
                            .to_owned(),
                    ],
                    ..SidecarOverrides::default()
                }),
            ),
            (
                vec![("appmesh.k8s.aws/secretMounts", "ca:/certs/ca, key:/certs/key"), ("appmesh.k8s.aws/volumeMounts", "a:/b")],
                Ok(SidecarOverrides {
                    secret_mounts: vec![mount("ca", "/certs/ca"), mount("key", "/certs/key")],
                    volume_mounts: vec![mount("a", "/b")],
                    ..SidecarOverrides::default()
                }),
            ),
            (
                vec![("appmesh.k8s.aws/secretMounts", "ca")],
                Err("annotation appmesh.k8s.aws/secretMounts: \"ca\" is not secretName:mountPath"),
            ),
            (
                vec![("appmesh.k8s.aws/secretMounts", "ca:/a, ")],
                Err("annotation appmesh.k8s.aws/secretMounts: \"\" is not secretName:mountPath"),
            ),
            (
                vec![("appmesh.k8s.aws/volumeMounts", "ca:certs")],
                Err("annotation appmesh.k8s.aws/volumeMounts: \"certs\" is not an absolute path"),
            ),
            (
                vec![
                    ("appmesh.k8s.aws/sidecarEnv", "DD_ENV=qa1, X=a=b, ENVOY_CONCURRENCY=4, XRAY_SAMPLING_RATE=0.1"),
                    ("appmesh.k8s.aws/sidecarEnvJson", r#"[{"DD_ENV":"prod","LIST":"a,b"},{"APPMESH_PREVIEW":"1"}]"#),
                ],
                Ok(SidecarOverrides {
                    env: map(&[("DD_ENV", "prod"), ("X", "a=b"), ("LIST", "a,b"), ("APPMESH_PREVIEW", "1")]),
                    concurrency: Some(4),
                    sampling: Some(1000),
                    warnings: vec![
                        "variable APPMESH_PREVIEW of Envoy has no effect: only App Mesh's agent reads it".to_owned(),
                    ],
                    ..SidecarOverrides::default()
                }),
            ),
            (
                vec![("appmesh.k8s.aws/sidecarEnv", "ENVOY_CONCURRENCY=0")],
                Err("variable ENVOY_CONCURRENCY of Envoy: number would be zero for non-zero type"),
            ),
            (
                vec![("appmesh.k8s.aws/sidecarEnv", "XRAY_SAMPLING_RATE=5")],
                Err("variable XRAY_SAMPLING_RATE of Envoy: not from 0 to 1"),
            ),
            (
                vec![("appmesh.k8s.aws/sidecarEnv", "DD_ENV")],
                Err("annotation appmesh.k8s.aws/sidecarEnv: \"DD_ENV\" is not NAME=VALUE"),
            ),
            (
                vec![("appmesh.k8s.aws/sidecarEnvJson", r#"[{"DD_ENV":{}}]"#)],
                Err(
                    "annotation appmesh.k8s.aws/sidecarEnvJson: not a list of objects with strings, such as \
                     [{\"NAME\":\"VALUE\"}]: invalid type: map, expected a string at line 1 column 11",
                ),
            ),
        ] {
            let overrides = SidecarOverrides::of(&map(&annotations)).map_err(|error| format!("{error:#}"));
            assert_eq!(overrides.as_ref().map_err(String::as_str), expected.as_ref().map_err(|error| *error));
        }
    }
}
