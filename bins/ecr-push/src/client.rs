//! Makes the HTTP client of a registry, with proxy and certificate authorities as every other client of the tools.

use anyhow::{Chain, Context, Result};
use common::proxy::{Proxies, Proxy};
use common::roots::{self, Distrust};
use oci_client::client::{Certificate, CertificateEncoding, Client, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use std::time::Duration;

/// No answer to a connection attempt: try again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A client of the registry of this host. `whole`: sends a blob in one request.
///
/// # Errors
/// A variable of the environment is not the URL of a proxy.
pub fn client(host: &str, protocol: ClientProtocol, whole: bool) -> Result<Client> {
    let proxies = Proxies::from_environment()?;
    let proxy = proxies.of_url(&format!("https://{host}/"));
    let trusted = roots::trusted().into_iter();
    let authority = |der: &[u8]| Certificate { encoding: CertificateEncoding::Der, data: der.to_vec() };
    let config = ClientConfig {
        protocol,
        use_monolithic_push: whole,
        connect_timeout: Some(CONNECT_TIMEOUT),
        user_agent: concat!("crossmesh-ecr-push/", env!("CARGO_PKG_VERSION")),
        // Without one of its own, the client would read the environment by other rules. A proxy that applies to no
        // host keeps it from that.
        https_proxy: Some(proxy.map_or_else(|| "http://localhost".to_owned(), Proxy::url)),
        no_proxy: proxy.is_none().then(|| "*".to_owned()),
        tls_certs_only: trusted.map(|der| authority(&der)).collect(),
        ..ClientConfig::default()
    };
    Client::try_from(config).context("make an HTTP client")
}

/// What is wrong with the registry's certificate, if that is what failed.
pub fn distrust(error: &OciDistributionError) -> Option<Distrust> {
    Chain::new(error).find_map(Distrust::of)
}

/// Whether the way to the registry failed, and neither what was asked nor the registry's certificate is wrong.
pub fn is_unanswered(error: &OciDistributionError) -> bool {
    matches!(error, OciDistributionError::RequestError(request) if !request.is_builder()) && distrust(error).is_none()
}
