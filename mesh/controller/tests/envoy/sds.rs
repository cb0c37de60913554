//! A secret discovery service on a socket, as SPIRE's agent is one.

use std::{collections::BTreeMap, path::Path};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate, secret,
            spiffe_cert_validator_config::TrustDomain,
        },
        service::{
            discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse},
            secret::v3::secret_discovery_service_server::{SecretDiscoveryService, SecretDiscoveryServiceServer},
        },
    },
    google::protobuf::Any,
};
use futures::stream::{self, BoxStream, StreamExt as _};
use prost::{Message, Name};
use tokio::net::UnixListener;
use tonic::{Request, Response, Status, Streaming, async_trait, transport::Server};

/// Secrets by name.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, Any>);

impl Secrets {
    pub fn certificate(&mut self, name: &str, chain: &str, key: &str) {
        let certificate =
            TlsCertificate { certificate_chain: inline(chain), private_key: inline(key), ..TlsCertificate::default() };
        self.add(name, secret::Type::TlsCertificate(certificate));
    }

    pub fn authority(&mut self, name: &str, certificate: &str) {
        let context =
            CertificateValidationContext { trusted_ca: inline(certificate), ..CertificateValidationContext::default() };
        self.add(name, secret::Type::ValidationContext(context));
    }

    /// The authority of a trust domain, for Envoy's validator of SPIFFE identities: what SPIRE's agent gives.
    pub fn trust_domain(&mut self, name: &str, domain: &str, certificate: &str) {
        let domain =
            TrustDomain { name: domain.to_owned(), trust_bundle: inline(certificate), ..TrustDomain::default() };
        let config = SpiffeCertValidatorConfig { trust_domains: vec![domain], ..SpiffeCertValidatorConfig::default() };
        let validator = TypedExtensionConfig {
            name: "envoy.tls.cert_validator.spiffe".to_owned(),
            typed_config: Some(any(&config)),
        };
        let context = CertificateValidationContext {
            custom_validator_config: Some(validator),
            ..CertificateValidationContext::default()
        };
        self.add(name, secret::Type::ValidationContext(context));
    }

    fn add(&mut self, name: &str, secret: secret::Type) {
        let secret = Secret { name: name.to_owned(), r#type: Some(secret) };
        self.0.insert(name.to_owned(), any(&secret));
    }

    /// Serves them on a socket.
    pub fn serve(self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let connections = stream::unfold(listener, |listener| async {
            let connection = listener.accept().await.map(|(connection, _)| connection);
            Some((connection, listener))
        });
        let service = SecretDiscoveryServiceServer::new(self);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(connections));
    }
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn inline(text: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineString(text.to_owned())), ..DataSource::default() })
}

#[async_trait]
impl SecretDiscoveryService for Secrets {
    type DeltaSecretsStream = BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;
    type StreamSecretsStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;

    async fn stream_secrets(
        &self,
        requests: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let secrets = self.0.clone();
        let answer = move |request: Result<DiscoveryRequest, Status>| {
            let answer = request.map(|request| {
                let named = request.resource_names.iter().filter_map(|name| secrets.get(name).cloned());
                // What has a nonce only says that the answer has come.
                request.response_nonce.is_empty().then(|| DiscoveryResponse {
                    version_info: "1".to_owned(),
                    nonce: "1".to_owned(),
                    type_url: Secret::type_url(),
                    resources: named.collect(),
                    ..DiscoveryResponse::default()
                })
            });
            std::future::ready(answer.transpose())
        };
        Ok(Response::new(requests.into_inner().filter_map(answer).boxed()))
    }

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("nobody asks so"))
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("nobody asks so"))
    }
}
