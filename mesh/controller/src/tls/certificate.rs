//! Reads a server's certificate with its key and its authority, as a Secret of type `kubernetes.io/tls` has them.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate, prelude::X509Certificate};

/// What a Secret holds, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// `ca.crt`: the certificate of the authority.
    pub authority: String,
    /// `ca.key`: its key; absent where somebody else issues.
    pub authority_key: Option<String>,
    /// `tls.crt`: the server's certificate, and those between it and the authority.
    pub chain: String,
    /// `tls.key`
    pub key: String,
}

impl Content {
    /// # Errors
    /// A key of the Secret is missing or no text.
    pub(super) fn of(secret: &Secret) -> anyhow::Result<Self> {
        let optional = |name: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(name));
            let text = bytes.map(|bytes| String::from_utf8(bytes.0.clone()));
            text.transpose().with_context(|| format!("{name} is no text"))
        };
        let required = |name: &str| optional(name)?.with_context(|| format!("{name} is missing"));
        Ok(Self {
            authority: required("ca.crt")?,
            authority_key: optional("ca.key")?,
            chain: required("tls.crt")?,
            key: required("tls.key")?,
        })
    }

    pub(super) fn data(&self) -> BTreeMap<String, ByteString> {
        let Self { authority, authority_key, chain, key } = self;
        let parts = [("ca.crt", Some(authority)), ("ca.key", authority_key.as_ref()), ("tls.crt", Some(chain))];
        let parts = parts.into_iter().chain([("tls.key", Some(key))]);
        parts.filter_map(|(name, text)| Some((name.to_owned(), ByteString(text?.clone().into_bytes())))).collect()
    }
}

/// A certificate to serve with.
#[derive(Debug)]
pub struct Certificate {
    /// What callers are to trust, as PEM.
    pub authority: String,
    pub(super) certified: Arc<CertifiedKey>,
    /// When it begins and ends, in seconds since 1970.
    pub(super) validity: (i64, i64),
    /// The DNS names it is of.
    pub(super) names: Vec<String>,
}

impl Certificate {
    /// Reads PEM.
    ///
    /// # Errors
    /// It is no certificate or no key, or the two are not of each other.
    pub fn new(authority: String, chain: &str, key: &str) -> anyhow::Result<Self> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let certificates = certificates.context("reading tls.crt")?;
        let own = certificates.first().context("tls.crt has no certificate")?.clone();
        let (_, own) = parse_x509_certificate(&own).context("reading the certificate of tls.crt")?;
        let (validity, names) = (validity(&own), dns_names(&own)?);
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("reading tls.key")?;
        let provider = CryptoProvider::get_default().context("no cryptography is installed")?;
        let certified =
            CertifiedKey::from_der(certificates, key, provider).context("tls.key is not that of tls.crt")?;
        Ok(Self { authority, certified: Arc::new(certified), validity, names })
    }
}

impl TryFrom<&Content> for Certificate {
    type Error = anyhow::Error;

    fn try_from(content: &Content) -> anyhow::Result<Self> {
        let Content { authority, authority_key: _, chain, key } = content;
        ends(authority).context("reading ca.crt")?;
        Self::new(authority.clone(), chain, key)
    }
}

/// When the first certificate of a PEM ends, in seconds since 1970.
pub(super) fn ends(pem: &str) -> anyhow::Result<i64> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes())?;
    let (_, certificate) = parse_x509_certificate(&certificate)?;
    Ok(validity(&certificate).1)
}

fn validity(certificate: &X509Certificate<'_>) -> (i64, i64) {
    let validity = certificate.validity();
    (validity.not_before.timestamp(), validity.not_after.timestamp())
}

fn dns_names(certificate: &X509Certificate<'_>) -> anyhow::Result<Vec<String>> {
    let names = certificate.subject_alternative_name().context("reading the names of tls.crt")?;
    let names = names.into_iter().flat_map(|names| &names.value.general_names);
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    Ok(names.filter_map(dns).collect())
}
