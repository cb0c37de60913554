//! What a pod may say about its sidecar.

use std::{collections::BTreeMap, fmt::Display, net::IpAddr, str::FromStr};

use anyhow::{Context as _, bail, ensure};

const PREFIX: &str = "appmesh.k8s.aws/";
/// Whether to inject: label of a namespace, annotation of a pod.
pub const INJECT: &str = "appmesh.k8s.aws/sidecarInjectorWebhook";

/// A pod's wishes; what is absent is the chart's to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
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
}

impl Wishes {
    /// Reads a pod's annotations. One of App Mesh's that is not served is refused, lest it be ignored.
    pub fn of(annotations: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let mut wishes = Self::default();
        for (name, value) in annotations {
            let Some(short) = name.strip_prefix(PREFIX) else { continue };
            let field = match short {
                "sidecarInjectorWebhook" => continue,
                "ports" => &mut wishes.ports,
                "egressIgnoredIPs" => &mut wishes.egress_ignored_ips,
                "egressIgnoredPorts" => &mut wishes.egress_ignored_ports,
                "cpuRequest" => &mut wishes.cpu_request,
                "memoryRequest" => &mut wishes.memory_request,
                "cpuLimit" => &mut wishes.cpu_limit,
                "memoryLimit" => &mut wishes.memory_limit,
                _ => bail!("annotation {name}: not served by this controller"),
            };
            let value = match short {
                "ports" | "egressIgnoredPorts" => list::<u16>(value),
                "egressIgnoredIPs" => list::<Addresses>(value),
                _ => Ok(value.clone()),
            };
            *field = Some(value.with_context(|| format!("annotation {name}"))?);
        }
        Ok(wishes)
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

/// A list separated by commas, each entry checked, without blanks.
fn list<T: FromStr<Err: Display>>(text: &str) -> anyhow::Result<String> {
    let entries: Vec<_> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    for entry in &entries {
        if let Err(error) = entry.parse::<T>() {
            bail!("{entry:?}: {error}");
        }
    }
    Ok(entries.join(","))
}

/// An IP address or a CIDR block.
struct Addresses;

impl FromStr for Addresses {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = text.split_once('/').unzip();
        let address: IpAddr = address.unwrap_or(text).parse()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.map_or(Ok(longest), str::parse)?;
        ensure!(bits <= longest, "no such prefix length");
        Ok(Self)
    }
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
    fn wishes_are_read_or_refused() {
        let some = |text: &str| Some(text.to_owned());
        for (annotations, expected) in [
            (vec![("prometheus.io/scrape", "true"), (INJECT, "enabled")], Ok(Wishes::default())),
            (
                vec![("appmesh.k8s.aws/ports", "8080, 8081"), ("appmesh.k8s.aws/cpuRequest", "1")],
                Ok(Wishes { ports: some("8080,8081"), cpu_request: some("1"), ..Wishes::default() }),
            ),
            (
                vec![("appmesh.k8s.aws/egressIgnoredIPs", "10.0.0.0/8,::1")],
                Ok(Wishes { egress_ignored_ips: some("10.0.0.0/8,::1"), ..Wishes::default() }),
            ),
            (
                vec![("appmesh.k8s.aws/ports", "http")],
                Err("annotation appmesh.k8s.aws/ports: \"http\": invalid digit found in string"),
            ),
            (
                vec![("appmesh.k8s.aws/egressIgnoredIPs", "10.0.0.0/40")],
                Err("annotation appmesh.k8s.aws/egressIgnoredIPs: \"10.0.0.0/40\": no such prefix length"),
            ),
            (
                vec![("appmesh.k8s.aws/sidecarEnv", "A=1")],
                Err("annotation appmesh.k8s.aws/sidecarEnv: not served by this controller"),
            ),
        ] {
            let wishes = Wishes::of(&map(&annotations)).map_err(|error| format!("{error:#}"));
            assert_eq!(wishes.as_ref().map_err(String::as_str), expected.as_ref().map_err(|error| *error));
        }
    }
}
