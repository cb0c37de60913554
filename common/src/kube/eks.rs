//! The way into an EKS cluster without a kubeconfig: endpoint and CA from the cluster's facts, and a token made in-process.
//!
//! The token is what `aws eks get-token` prints: a presigned `sts:GetCallerIdentity`, valid for 15 minutes.

use super::{KubeFlags, build, builder, kubeconfig};
use crate::aws::{AwsFlags, no_credentials};
use crate::cluster::Cluster;
use crate::proxy::Proxies;
use crate::{Error, Session};
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
use http::{HeaderValue, Request, Uri, header};
use kube::client::Body;
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// EKS accepts a token for 15 minutes after it was signed; a new one is made well before.
const TOKEN_RENEWAL: Duration = Duration::from_secs(10 * 60);

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
        let cluster = self.own_cluster(aws).await?;
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
                let context = kubeconfig::load(flags, None).await?;
                build(builder(context.config, context.proxies, session)?)
            }
            Access::Eks(eks) => eks.client(session).await,
        }
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::Kind;

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
