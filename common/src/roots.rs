//! Gathers the certificate authorities that HTTPS trusts.
//!
//! They are the machine's, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`; on a machine that has none, Mozilla's. Those of the
//! PEM file that `AWS_CA_BUNDLE` names are trusted besides: a company's proxy that opens TLS has one of its own. A file that
//! cannot be read is no error before a certificate is in doubt, for it may not be needed.

use anyhow::{Context as _, Result};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::borrow::Cow;
use std::env;
use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The file whose authorities are trusted besides.
const BUNDLE: &str = "AWS_CA_BUNDLE";

/// Where the machine's authorities are, if a variable says so.
const MACHINE: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// All authorities that are trusted, each once. Those that rustls cannot make sense of are left out. They are read once, for
/// that takes milliseconds, and a tool has several clients.
pub fn trusted() -> Vec<CertificateDer<'static>> {
    static TRUSTED: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    TRUSTED.get_or_init(gather).clone()
}

fn gather() -> Vec<CertificateDer<'static>> {
    let mut trusted = rustls_native_certs::load_native_certs().certs;
    if trusted.is_empty() && MACHINE.iter().all(|name| env::var_os(name).is_none()) {
        trusted.extend_from_slice(webpki_root_certs::TLS_SERVER_ROOT_CERTS);
    }
    trusted.extend(bundle());
    trusted.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    trusted.dedup();
    trusted.retain(|authority| RootCertStore::empty().add(authority.clone()).is_ok());
    trusted
}

/// The authorities of `AWS_CA_BUNDLE`, unless the machine's are of the same file, which may hold a hundred.
fn bundle() -> Vec<CertificateDer<'static>> {
    let file = env::var_os(BUNDLE).filter(|file| !file.is_empty() && Some(file) != env::var_os(MACHINE[0]).as_ref());
    file.and_then(|file| read(Path::new(&file)).ok()).unwrap_or_default()
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_file_iter(file)?.collect()
}

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// It is by an authority that is not trusted, even if one of that name is.
    Issuer,
    /// It is not valid at the time that this machine's clock shows.
    Time,
    /// It is for other names.
    Name,
    /// It is broken, revoked, or for another purpose.
    Other,
}

impl Distrust {
    /// Finds it in a link of a chain of causes.
    pub fn of(link: &(dyn StdError + 'static)) -> Option<Self> {
        use CertificateError as Wrong;
        if let Some(held) = link.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            // An io::Error is no link to what it holds.
            return Self::of(held);
        }
        let Some(rustls::Error::InvalidCertificate(wrong)) = link.downcast_ref() else { return None };
        Some(match wrong {
            // An authority that was made anew has its name again, and another key.
            Wrong::UnknownIssuer | Wrong::BadSignature => Self::Issuer,
            Wrong::Expired | Wrong::ExpiredContext { .. } | Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
                Self::Time
            }
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => Self::Name,
            _ => Self::Other,
        })
    }

    /// What to do about it.
    pub fn hint(self) -> Cow<'static, str> {
        self.fixed_hint().map_or_else(|| issuer_hint().into(), Cow::from)
    }

    /// The same, unless it is up to whom this machine trusts.
    pub(crate) fn fixed_hint(self) -> Option<&'static str> {
        match self {
            Self::Issuer => None,
            Self::Time => {
                Some("is this machine's clock right? If so, whoever runs the server has to renew its certificate")
            }
            Self::Name => {
                Some("another server answers under this name: does DNS, a hosts file or a proxy lead elsewhere?")
            }
            Self::Other => Some("whoever runs the server has to replace its certificate"),
        }
    }
}

/// What to do about a certificate whose authority is not trusted.
fn issuer_hint() -> String {
    let unread = [BUNDLE, MACHINE[0]].into_iter().find_map(|name| {
        let file = env::var_os(name).filter(|file| !file.is_empty())?;
        let error = read(Path::new(&file)).err()?;
        Some(format!("; {name} is {}: {error}", file.display()))
    });
    let unread = unread.unwrap_or_default();
    format!("if a proxy opens TLS on the way, name the file with its CA in AWS_CA_BUNDLE or SSL_CERT_FILE{unread}")
}

/// TLS that trusts these authorities.
pub(crate) fn tls(authorities: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    Ok(tls.context("set up TLS")?.with_root_certificates(roots).with_no_client_auth())
}
