//! Kubernetes: a client from a kubeconfig, or from the cluster's facts and a token made in-process.
//!
//! The token is what `aws eks get-token` prints: a presigned `sts:GetCallerIdentity`, valid for 15 minutes.

pub mod apply;
pub mod content;
mod kubeconfig;
pub mod manifest;
pub mod object;
pub mod readiness;
pub mod reference;
pub mod rollout;

use crate::aws::{AwsFlags, no_credentials};
use crate::cluster::Cluster;
use crate::connect::{Connector, Obstacle, PROXY, client};
use crate::proxy::Proxies;
use crate::{Error, Kind, Session, roots};
use anyhow::{Context, Result};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_sts::config::endpoint::{DefaultResolver, Endpoint, Params, ResolveEndpoint as _};
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;
use tower::{BoxError, Service, ServiceBuilder};

/// EKS accepts a token for 15 minutes after it was signed; a new one is made well before.
const TOKEN_RENEWAL: Duration = Duration::from_secs(10 * 60);

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
const FOREIGN_CA: &str = "the certificate is not by the cluster's CA: if a proxy opens TLS on the way, list the cluster's endpoint in \
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

/// A way into a cluster.
pub enum Access {
    /// As the user's kubeconfig says.
    Kubeconfig(KubeFlags),
    /// As EKS says.
    Eks(Box<EksAccess>),
}

/// Endpoint, CA and caller of an EKS cluster.
#[derive(Clone)]
pub struct EksAccess {
    cluster: Cluster,
    credentials: Credentials,
    /// Where AWS's Security Token Service is in the cluster's region.
    sts: Endpoint,
}

impl Session {
    /// The way into the cluster: the kubeconfig if a flag asks for it, else endpoint and CA from eks:DescribeCluster.
    ///
    /// # Errors
    /// The cluster is unknown or there are no AWS credentials.
    pub async fn access(&mut self, kube: &KubeFlags, aws: &AwsFlags) -> Result<Access> {
        if kube.context.is_some() || kube.kubeconfig.is_some() {
            return Ok(Access::Kubeconfig(kube.clone()));
        }
        let cluster = self.cluster(aws).await?;
        self.eks_access(aws, cluster).await
    }

    /// The way into a cluster whose facts are known.
    ///
    /// # Errors
    /// There are no AWS credentials.
    pub async fn eks_access(&self, aws: &AwsFlags, cluster: Cluster) -> Result<Access> {
        let provider = self.aws(aws).await?.credentials_provider();
        let provider = provider.ok_or_else(|| Error::failed("no AWS credentials"))?;
        let credentials = provider.provide_credentials().await.map_err(|error| no_credentials(&error))?;
        let sts = sts(&cluster.region).await?;
        Ok(Access::Eks(Box::new(EksAccess { cluster, credentials, sts })))
    }
}

/// Where the Security Token Service of a region is, whatever the partition, by the SDK's own rules.
async fn sts(region: &str) -> Result<Endpoint> {
    let wrong = |error: &dyn std::fmt::Display| Error::input(format!("cluster.region: {region}: {error}"));
    let params = Params::builder().region(region).build().map_err(|error| wrong(&error))?;
    Ok(DefaultResolver::new().resolve_endpoint(&params).await.map_err(|error| wrong(&error))?)
}

impl Access {
    /// A client for the Kubernetes API.
    ///
    /// # Errors
    /// The kubeconfig cannot be used, or the CA is not PEM.
    pub async fn client(&self, session: &Session) -> Result<Client> {
        match self {
            Access::Kubeconfig(flags) => {
                let (config, proxies) = kubeconfig::load(flags).await?;
                build(builder(config, proxies, session)?)
            }
            Access::Eks(eks) => eks.client(session).await,
        }
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
        .service(client(connector, session.timeout.min(CONNECT_TIMEOUT), Some(session.timeout)));
    Ok(ClientBuilder::new(service, config.default_namespace))
}

/// A client that asks again when the API server is too busy.
fn build(builder: ClientBuilder<impl Ask>) -> Result<Client> {
    let (first, last, times) = BUSY;
    let retries = RetryPolicy::new(first, last, times, false).context("make a Kubernetes client")?;
    Ok(builder.with_layer(&BufferLayer::new(1)).with_layer(&RetryLayer::new(retries)).build())
}

impl EksAccess {
    async fn client(&self, session: &Session) -> Result<Client> {
        // The token goes on by itself, so that it can be renewed.
        let kubeconfig = serde_json::from_value(self.kubeconfig_with(&json!({})))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let config = config.context("use the cluster's endpoint and CA")?;
        let tokens = Arc::new(Tokens { eks: self.clone(), last: Mutex::default() });
        let layer = tower::util::MapRequestLayer::new(move |request| tokens.authorize(request));
        build(builder(config, Proxies::from_environment()?, session)?.with_layer(&layer))
    }

    /// A kubeconfig with a fresh token, for programs that need a file. A secret, valid for 15 minutes.
    ///
    /// # Errors
    /// The token cannot be signed.
    pub fn kubeconfig(&self) -> Result<Value> {
        Ok(self.kubeconfig_with(&json!({ "token": self.token()? })))
    }

    fn kubeconfig_with(&self, user: &Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "eks", "cluster": {
                "server": self.cluster.endpoint,
                "certificate-authority-data": self.cluster.certificate_authority,
            }}],
            "users": [{"name": "eks", "user": user}],
            "contexts": [{"name": "eks", "context": {"cluster": "eks", "user": "eks"}}],
            "current-context": "eks",
        })
    }

    /// `k8s-aws-v1.` and the presigned URL, base64url. aws-iam-authenticator demands the cluster's name as a signed
    /// header and an expiry of 60 s in the URL; how long the token lives is its own rule.
    fn token(&self) -> Result<String> {
        let cluster = &self.cluster;
        let url = format!("{}/?Action=GetCallerIdentity&Version=2011-06-15", self.sts.url());
        let host = url.parse::<Uri>()?.host().unwrap_or_default().to_owned();
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(60));
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&cluster.region)
            .name("sts")
            .time(SystemTime::now())
            .settings(settings)
            .build()?
            .into();
        let headers = [("host", host.as_str()), ("x-k8s-aws-id", cluster.name.as_str())];
        let request = SignableRequest::new("GET", &url, headers.into_iter(), SignableBody::Bytes(&[]))?;
        let (instructions, _) = sign(request, &params).context("sign the EKS token")?.into_parts();
        let mut presigned = Request::builder().uri(&url).body(())?;
        instructions.apply_to_request_http1x(&mut presigned);
        Ok(format!("k8s-aws-v1.{}", BASE64_URL_SAFE_NO_PAD.encode(presigned.uri().to_string())))
    }
}

/// Puts a token on every request, a new one when the last grows old.
struct Tokens {
    eks: EksAccess,
    last: Mutex<Option<(Instant, HeaderValue)>>,
}

impl Tokens {
    fn authorize(&self, mut request: Request<Body>) -> Request<Body> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(made, _)| made.elapsed() > TOKEN_RENEWAL) {
            let bearer = self.eks.token().and_then(|token| Ok(HeaderValue::try_from(format!("Bearer {token}"))?));
            *last = bearer.ok().map(|mut bearer| {
                bearer.set_sensitive(true);
                (Instant::now(), bearer)
            });
        }
        // Without a token the API server answers 401, which is the true reason.
        if let Some((_, bearer)) = last.as_ref() {
            request.headers_mut().insert(header::AUTHORIZATION, bearer.clone());
        }
        request
    }
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
                Some(Obstacle::Issuer) => Kind::Failed,
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
            Some(Obstacle::Issuer) => FOREIGN_CA,
            Some(Obstacle::Proxy) => PROXY,
            None => UNREACHABLE,
        }),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_asks_the_sts_of_its_partition() {
        for (region, url) in [
            ("us-east-1", "https://sts.us-east-1.amazonaws.com"),
            ("us-west-2", "https://sts.us-west-2.amazonaws.com"),
            ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
            ("eusc-de-east-1", "https://sts.eusc-de-east-1.amazonaws.eu"),
            ("us-iso-east-1", "https://sts.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "https://sts.us-isob-east-1.sc2s.sgov.gov"),
            ("eu-isoe-west-1", "https://sts.eu-isoe-west-1.cloud.adc-e.uk"),
            ("us-isof-south-1", "https://sts.us-isof-south-1.csp.hci.ic.gov"),
        ] {
            assert_eq!(sts(region).await.unwrap().url(), url);
        }
        assert_eq!(crate::classify(&sts("not a region").await.unwrap_err()).0, Kind::Input);
    }
}
