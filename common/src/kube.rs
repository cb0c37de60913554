//! Makes clients for the Kubernetes API, with the proxies, certificate authorities and time limits of every other client.

mod applied;
pub mod apply;
pub mod content;
#[cfg(feature = "eks")]
mod eks;
mod kubeconfig;
pub mod manifest;
pub mod object;
pub mod readiness;
pub mod reference;
pub mod rollout;

#[cfg(feature = "eks")]
pub use eks::{Access, EksAccess};

use crate::connect::{Connector, Obstacle, PROXY, client};
use crate::proxy::Proxies;
use crate::{Kind, Session, roots};
use anyhow::{Context, Result};
use http::{Request, Response};
use hyper::body::Incoming;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use std::path::PathBuf;
use std::time::Duration;
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;
use tower::{BoxError, Service, ServiceBuilder};

/// No answer to a connection attempt: there is no way to the cluster from here.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The API server is too busy: pauses from the first to the last, doubled each time, and how many; 3 s in all.
const BUSY: (Duration, Duration, u32) = (Duration::from_millis(50), Duration::from_secs(1), 6);

/// What to do about an answer of 401. The API server has no more to say than that.
const UNKNOWN_CALLER: &str = "the cluster does not know the caller: is there an access entry for it, is its session over, is this \
                              machine's clock right? aws sts get-caller-identity, aws eks list-access-entries";

/// What to do about a cluster that does not answer.
const UNREACHABLE: &str = "the cluster cannot be reached from here: a private endpoint answers only within its VPC, and networks it is \
                           joined to";

/// What to do about a certificate that is not by the cluster's CA.
const FOREIGN_CA: &str = "the certificate is not by the cluster's CA: if the cluster was deleted and made again, its document and \
                          kubeconfig are still of the old one; if a proxy opens TLS on the way, list the cluster's endpoint in \
                          NO_PROXY, or, for a kubeconfig that names no CA, give the proxy's in AWS_CA_BUNDLE or SSL_CERT_FILE";

/// The flags of a tool that asks Kubernetes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KubeFlags {
    /// Use this context of the kubeconfig instead of the EKS API
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Use this kubeconfig instead of the EKS API
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

impl Session {
    /// A client as the user's kubeconfig says, with the name of its context: that of the flag, else the one that leads to
    /// the cluster at `endpoint`, else the current one. It passes every answer on, also that somebody is too busy.
    ///
    /// # Errors
    /// There is no such context, or it cannot be used.
    pub async fn kubeconfig_client(&self, flags: &KubeFlags, endpoint: Option<&str>) -> Result<(Client, String)> {
        let context = kubeconfig::load(flags, endpoint).await?;
        Ok((builder(context.config, context.proxies, self)?.build(), context.name))
    }
}

/// What takes requests to the API server.
trait Ask: Service<Request<Body>, Response = Response<Incoming>, Error = BoxError, Future: Send> + Send + 'static {}

impl<S> Ask for S where
    S: Service<Request<Body>, Response = Response<Incoming>, Error = BoxError, Future: Send> + Send + 'static
{
}

/// The start of a client that keeps to `--timeout`. kube's own neither does, nor does it choose the proxy as kubectl.
fn builder(mut config: Config, proxies: Proxies, session: &Session) -> Result<ClientBuilder<impl Ask>> {
    const TASK: &str = "make a Kubernetes client";
    if config.root_cert.is_none() {
        // Left to itself, kube fails on a machine without authorities, needed or not.
        let needed = config.cluster_url.scheme_str() == Some("https");
        let trusted = if needed { roots::trusted() } else { Vec::new() };
        config.root_cert = Some(trusted.iter().map(|authority| authority.to_vec()).collect());
    }
    let authorities: Vec<_> = config.root_cert.iter().flatten().cloned().map(CertificateDer::from).collect();
    let connector = Connector::new(proxies.clone(), &authorities)?;
    let connector = config.rustls_https_connector_with_connector(connector).context(TASK)?;
    let auth = config.auth_layer().map_err(|error| kubeconfig::explained(error, &config.auth_info))?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(auth)
        .layer(config.extra_headers_layer().context(TASK)?)
        .map_request(move |mut request| {
            proxies.authorize(&mut request);
            request
        })
        .map_err(BoxError::from)
        .service(client(connector, session.flags.timeout.min(CONNECT_TIMEOUT), Some(session.flags.timeout)));
    Ok(ClientBuilder::new(service, config.default_namespace))
}

/// A client that asks again when the API server is too busy.
fn build(builder: ClientBuilder<impl Ask>) -> Result<Client> {
    let (first, last, times) = BUSY;
    let retries = RetryPolicy::new(first, last, times, false).context("make a Kubernetes client")?;
    Ok(builder.with_layer(&BufferLayer::new(1)).with_layer(&RetryLayer::new(retries)).build())
}

/// What a caller can do about a Kubernetes error.
pub(crate) fn kind(error: &kube::Error) -> Kind {
    match error {
        // Field managers that disagree answer 409 Conflict; so does a write that lost a race, which comes with a
        // stale resourceVersion that server-side apply never sends.
        kube::Error::Api(status) => match status.code {
            409 => Kind::Conflict,
            429 | 500..=504 => Kind::Retry,
            _ => Kind::Failed,
        },
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
            match Obstacle::of(error) {
                Some(Obstacle::Certificate(_)) => Kind::Failed,
                Some(Obstacle::Proxy) | None => Kind::Retry,
            }
        }
        _ => Kind::Failed,
    }
}

/// What to do about a Kubernetes error.
pub(crate) fn hint(error: &kube::Error) -> Option<&'static str> {
    match error {
        kube::Error::Api(status) if status.code == 401 => Some(UNKNOWN_CALLER),
        kube::Error::HyperError(_) | kube::Error::Service(_) => Some(match Obstacle::of(error) {
            Some(Obstacle::Certificate(distrust)) => distrust.fixed_hint().unwrap_or(FOREIGN_CA),
            Some(Obstacle::Proxy) => PROXY,
            None => UNREACHABLE,
        }),
        _ => None,
    }
}
