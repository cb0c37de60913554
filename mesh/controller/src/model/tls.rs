//! Describes TLS between Envoys: what a listener takes, and what a caller demands.
//!
//! As in App Mesh, both sides decide how a connection is encrypted:
//!
//! | the caller's client policy | the listener takes TLS | it takes none |
//! | --- | --- | --- |
//! | is enforced | TLS by the policy | TLS by the policy, which fails |
//! | `enforce: false` | TLS by the policy | plaintext |
//! | is absent, or is not about the listener's port | TLS, any certificate | plaintext |
//!
//! A listener takes TLS if its mode is STRICT or PERMISSIVE. App Mesh's user guide says nothing of a policy that is not
//! enforced and a listener that takes TLS; that its certificate is checked then is the safe reading.
//!
//! A policy without names demands those that the VirtualNode is found by. A listener without names takes any that its
//! authority has signed.

use serde::Serialize;

use super::{Discovery, Invalid, Upstream};

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Certificate {
    /// Files in Envoy's container.
    #[serde(rename_all = "camelCase")]
    File {
        /// The certificate and those that signed it.
        certificate_chain: String,
        /// Its key.
        private_key: String,
    },
    /// A secret of the secret discovery service.
    Sds(String),
}

impl Certificate {
    /// Files.
    ///
    /// # Errors
    /// A path is empty.
    pub fn file(certificate_chain: String, private_key: String) -> Result<Self, Invalid> {
        let (certificate_chain, private_key) = (filled(certificate_chain)?, filled(private_key)?);
        Ok(Self::File { certificate_chain, private_key })
    }

    /// A secret.
    ///
    /// # Errors
    /// Its name is empty.
    pub fn sds(name: String) -> Result<Self, Invalid> {
        filled(name).map(Self::Sds)
    }
}

/// Authorities whose certificates are trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Trust {
    /// A file in Envoy's container.
    File(String),
    /// A secret of the secret discovery service.
    Sds(String),
}

impl Trust {
    /// A file.
    ///
    /// # Errors
    /// Its path is empty.
    pub fn file(path: String) -> Result<Self, Invalid> {
        filled(path).map(Self::File)
    }

    /// A secret.
    ///
    /// # Errors
    /// Its name is empty.
    pub fn sds(name: String) -> Result<Self, Invalid> {
        filled(name).map(Self::Sds)
    }
}

fn filled(text: String) -> Result<String, Invalid> {
    if text.is_empty() { Err(Invalid::new("is empty")) } else { Ok(text) }
}

/// What a certificate must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// Who must have signed it.
    pub trust: Trust,
    /// Its subject must have one of these names; any if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl Validation {
    /// What a certificate must be.
    ///
    /// # Errors
    /// A name is empty.
    pub fn new(trust: Trust, names: Vec<String>) -> Result<Self, Invalid> {
        let names = names.into_iter().map(filled).collect::<Result<_, _>>()?;
        Ok(Self { trust, names })
    }
}

/// TLS as a listener takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// Whether it takes plaintext too.
    pub permissive: bool,
    /// What it shows.
    pub certificate: Certificate,
    /// What callers must show; nothing if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

/// How a workload calls a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientPolicy {
    /// Whether it holds for upstreams that take no TLS, too.
    pub enforce: bool,
    /// The ports of upstreams that it is about; all if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// What callers show to who asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// What upstreams must show.
    pub validation: Validation,
}

/// TLS as one upstream is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name that is asked for.
    pub server_name: Option<String>,
    /// What the caller shows to who asks for it.
    pub certificate: Option<Certificate>,
    /// What the upstream must show; anything if absent.
    pub validation: Option<Validation>,
}

impl UpstreamTls {
    /// TLS as an upstream is called by a client policy or without one; `None` is plaintext.
    pub fn of(policy: Option<&ClientPolicy>, upstream: &Upstream) -> Option<Self> {
        let server_name = match &upstream.discovery {
            Discovery::None => None,
            Discovery::CloudMap(discovery) => Some(discovery.key.to_string()),
            Discovery::Dns(discovery) => Some(discovery.hostname.clone()),
        };
        let is_about = |policy: &&ClientPolicy| policy.ports.is_empty() || policy.ports.contains(&upstream.port.port);
        match policy.filter(is_about) {
            Some(policy) if policy.enforce || upstream.tls => {
                let mut validation = policy.validation.clone();
                if validation.names.is_empty() {
                    validation.names.extend(server_name.clone());
                }
                Some(Self { server_name, certificate: policy.certificate.clone(), validation: Some(validation) })
            }
            _ if upstream.tls => Some(Self { server_name, certificate: None, validation: None }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Port, Protocol};

    #[test]
    fn both_sides_decide() {
        let trust = Trust::file("/ca.pem".to_owned()).unwrap();
        let policy = |enforce, ports: &[u16]| ClientPolicy {
            enforce,
            ports: ports.to_vec(),
            certificate: None,
            validation: Validation::new(trust.clone(), vec!["a".to_owned()]).unwrap(),
        };
        let upstream =
            |tls| Upstream { tls, ..Upstream::new(Port { port: 8080, protocol: Protocol::Http }, Discovery::None) };
        // Plaintext, TLS with any certificate, TLS by the policy.
        for (policy, takes_tls, expected) in [
            (Some(policy(true, &[])), true, "verified"),
            (Some(policy(true, &[])), false, "verified"),
            (Some(policy(true, &[443, 8080])), false, "verified"),
            (Some(policy(true, &[443])), true, "unverified"),
            (Some(policy(true, &[443])), false, "plaintext"),
            (Some(policy(false, &[])), true, "verified"),
            (Some(policy(false, &[])), false, "plaintext"),
            (None, true, "unverified"),
            (None, false, "plaintext"),
        ] {
            let tls = UpstreamTls::of(policy.as_ref(), &upstream(takes_tls));
            let found = match tls {
                None => "plaintext",
                Some(UpstreamTls { validation: None, .. }) => "unverified",
                Some(UpstreamTls { validation: Some(_), .. }) => "verified",
            };
            assert_eq!(found, expected, "{policy:?} {takes_tls}");
        }
    }
}
