//! Describes an upstream: pods that requests are sent to, as a caller sees them.

use serde::{Deserialize, Serialize};

use super::{HealthCheck, Invalid, OutlierDetection, PackedMap, Port, ServiceKey};

/// A VirtualNode as its callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// The port its pods listen on.
    #[serde(flatten)]
    pub port: Port,
    /// How its pods are found.
    pub discovery: Discovery,
    /// How to try whether they answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// When a pod that fails is left out; the default is after five connections in a row that fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// Whether its listener takes TLS.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// Which of its pods' addresses are called; absent those of IPv4, and of IPv6 where there is no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_preference: Option<IpPreference>,
}

/// Addresses of one family only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the families' names say it all")]
pub enum IpPreference {
    #[serde(rename = "IPv4_ONLY")]
    V4Only,
    #[serde(rename = "IPv6_ONLY")]
    V6Only,
}

impl Upstream {
    /// An upstream of which nothing else is known.
    pub fn new(port: Port, discovery: Discovery) -> Self {
        Self { port, discovery, health_check: None, outlier_detection: None, ip_preference: None, tls: false }
    }
}

/// How pods are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Discovery {
    /// Not at all: the VirtualNode does not exist, or has no discovery. Its share of the requests fails, and no other
    /// upstream gets more than its own.
    None,
    /// As instances of a Cloud Map service.
    CloudMap(CloudMapDiscovery),
    /// By a name.
    Dns(DnsDiscovery),
}

impl Discovery {
    /// The Cloud Map service, if it is one.
    pub fn cloud_map(&self) -> Option<&CloudMapDiscovery> {
        match self {
            Self::CloudMap(discovery) => Some(discovery),
            Self::None | Self::Dns(_) => None,
        }
    }
}

/// Instances of a Cloud Map service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CloudMapDiscovery {
    /// The service.
    #[serde(flatten)]
    pub key: ServiceKey,
    /// An instance is of this upstream if it has all of them.
    #[serde(skip_serializing_if = "PackedMap::is_empty")]
    pub attributes: PackedMap,
}

/// A DNS name that leads to pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsDiscovery {
    /// The name.
    pub hostname: String,
    /// Whether each of its addresses is a pod, so that they share the requests; else connections go to the first.
    pub endpoints: bool,
}

impl DnsDiscovery {
    /// A name that is not empty.
    ///
    /// # Errors
    /// It is.
    pub fn new(hostname: String, endpoints: bool) -> Result<Self, Invalid> {
        if hostname.is_empty() { Err(Invalid::new("is empty")) } else { Ok(Self { hostname, endpoints }) }
    }
}
