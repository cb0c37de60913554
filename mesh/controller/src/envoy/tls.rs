//! Encodes TLS: what a listener shows and demands, and what a caller does.

use envoy_types::pb::envoy::{
    config::core::v3::{
        ApiConfigSource, ApiVersion, ConfigSource, DataSource, GrpcService, TransportSocket,
        api_config_source::ApiType,
        config_source::ConfigSourceSpecifier,
        data_source::Specifier,
        grpc_service::{EnvoyGrpc, TargetSpecifier},
        transport_socket,
    },
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
        TlsCertificate, UpstreamTlsContext,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        subject_alt_name_matcher::SanType,
    },
    r#type::matcher::v3::string_matcher::MatchPattern,
};
use prost::{Message, Name};

use super::{
    bootstrap::SDS_CLUSTER,
    proto::{any, text, yes},
};
use crate::model::{Certificate, ListenerTls, Protocol, Trust, UpstreamTls, Validation};

/// Encodes TLS as a listener takes it.
pub fn downstream(tls: &ListenerTls, protocol: Protocol) -> TransportSocket {
    let mut common = common(Some(&tls.certificate), tls.validation.as_ref());
    common.alpn_protocols = match protocol {
        Protocol::Tcp => Vec::new(),
        Protocol::Http => vec!["http/1.1".to_owned()],
        Protocol::Http2 | Protocol::Grpc => vec!["h2".to_owned()],
    };
    socket(&DownstreamTlsContext {
        common_tls_context: Some(common),
        // A caller without a certificate passes while a listener is permissive, so that callers can get theirs one by one.
        require_client_certificate: tls.validation.as_ref().filter(|_| !tls.permissive).and_then(|_| yes()),
        ..DownstreamTlsContext::default()
    })
}

/// Encodes TLS as an upstream is called.
pub fn upstream(tls: &UpstreamTls) -> TransportSocket {
    socket(&UpstreamTlsContext {
        common_tls_context: Some(common(tls.certificate.as_ref(), tls.validation.as_ref())),
        sni: tls.server_name.clone().unwrap_or_default(),
        ..UpstreamTlsContext::default()
    })
}

fn socket<M: Message + Name>(context: &M) -> TransportSocket {
    let config_type = Some(transport_socket::ConfigType::TypedConfig(any(context)));
    TransportSocket { name: "envoy.transport_sockets.tls".to_owned(), config_type }
}

fn common(certificate: Option<&Certificate>, validation: Option<&Validation>) -> CommonTlsContext {
    let mut context = CommonTlsContext::default();
    match certificate {
        None => {}
        Some(Certificate::File { certificate_chain, private_key }) => {
            context.tls_certificates = vec![TlsCertificate {
                certificate_chain: file(certificate_chain),
                private_key: file(private_key),
                ..TlsCertificate::default()
            }];
        }
        Some(Certificate::Sds(name)) => context.tls_certificate_sds_secret_configs = vec![secret(name)],
    }
    context.validation_context_type = validation.map(|Validation { trust, names }| {
        let by_name = CertificateValidationContext {
            match_typed_subject_alt_names: names.iter().map(|name| subject_alt_name(name)).collect(),
            ..CertificateValidationContext::default()
        };
        match trust {
            Trust::File(path) => ValidationContextType::ValidationContext(CertificateValidationContext {
                trusted_ca: file(path),
                ..by_name
            }),
            Trust::Sds(name) => {
                ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                    default_validation_context: Some(by_name),
                    validation_context_sds_secret_config: Some(secret(name)),
                    ..CombinedCertificateValidationContext::default()
                })
            }
        }
    });
    context
}

/// A URI or a host name, which a wildcard in the certificate fits too.
fn subject_alt_name(name: &str) -> SubjectAltNameMatcher {
    let san_type = if name.contains("://") { SanType::Uri } else { SanType::Dns };
    SubjectAltNameMatcher {
        san_type: san_type.into(),
        matcher: Some(text(MatchPattern::Exact(name.to_owned()))),
        ..SubjectAltNameMatcher::default()
    }
}

fn file(path: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..DataSource::default() })
}

/// A secret that comes by the socket of the bootstrap.
fn secret(name: &str) -> SdsSecretConfig {
    let cluster = EnvoyGrpc { cluster_name: SDS_CLUSTER.to_owned(), ..EnvoyGrpc::default() };
    let service = GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(cluster)), ..GrpcService::default() };
    let source = ApiConfigSource {
        api_type: ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![service],
        ..ApiConfigSource::default()
    };
    let source = ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
        ..ConfigSource::default()
    };
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(source) }
}
