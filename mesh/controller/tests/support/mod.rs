//! Helps the tests of the xDS server: certificates, and waiting for a fact.

#[allow(dead_code, reason = "not every test speaks it")]
pub mod h2c;

use std::{fs, path::Path, sync::Arc, time::Duration};

use appmesh_controller::tls::{Certificate, Served};
use backon::{ConstantBuilder, Retryable as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::{sync::watch, time::Instant};

/// Writes a certificate for localhost and its authority as the chart's secret has them; returns the authority.
pub fn certificates(folder: &Path) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Of a name of its own, or what it signs looks signed by itself.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
    fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    authority.pem()
}

/// What was written there, as a server serves with it.
pub fn served(folder: &Path) -> Served {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let certificate = Certificate::new(read("ca.crt"), &read("tls.crt"), &read("tls.key")).unwrap();
    watch::channel(Some(Arc::new(certificate))).1
}

/// Waits until it holds; returns how long that took.
pub async fn wait_for(what: &str, holds: impl AsyncFn() -> bool) -> Duration {
    let since = Instant::now();
    let check = || async { if holds().await { Ok(()) } else { Err(()) } };
    let often = ConstantBuilder::default().with_delay(Duration::from_millis(20)).with_max_times(1000);
    assert!(check.retry(often).await.is_ok(), "not in time: {what}");
    since.elapsed()
}
