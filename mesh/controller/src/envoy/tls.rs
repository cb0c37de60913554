//! Encodes TLS: what a listener shows and demands, and what a caller does.

use std::{path::Path, sync::Arc};

use envoy_types::pb::envoy::{
    config::core::v3::{
        ApiConfigSource, ApiVersion, ConfigSource, DataSource, GrpcService, TransportSocket, WatchedDirectory,
        api_config_source::ApiType,
        config_source::ConfigSourceSpecifier,
        data_source::Specifier,
        grpc_service::{EnvoyGrpc, TargetSpecifier},
        transport_socket,
    },
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret,
        SubjectAltNameMatcher, TlsCertificate, UpstreamTlsContext,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        secret,
        subject_alt_name_matcher::SanType,
    },
    r#type::matcher::v3::string_matcher::MatchPattern,
};
use prost::{Message, Name};

use super::{
    Resource,
    bootstrap::SDS_CLUSTER,
    proto::{ads, any, text, yes},
};
use crate::model::{Certificate, Listener, ListenerTls, Protocol, Trust, UpstreamTls, Validation};

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
    CommonTlsContext {
        tls_certificate_sds_secret_configs: certificate.map(certificate_reference).into_iter().collect(),
        validation_context_type: validation.map(|Validation { trust, names }| {
            let by_name = CertificateValidationContext {
                match_typed_subject_alt_names: names.iter().flat_map(|name| subject_alt_names(name, trust)).collect(),
                ..CertificateValidationContext::default()
            };
            ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(by_name),
                validation_context_sds_secret_config: Some(trust_reference(trust)),
                ..CombinedCertificateValidationContext::default()
            })
        }),
        ..CommonTlsContext::default()
    }
}

fn certificate_reference(certificate: &Certificate) -> SdsSecretConfig {
    match certificate {
        Certificate::File { certificate_chain, private_key } => {
            from_files(certificate_name(certificate_chain, private_key))
        }
        Certificate::Sds(name) => from_socket(name),
    }
}

fn trust_reference(trust: &Trust) -> SdsSecretConfig {
    match trust {
        Trust::File(path) => from_files(trust_name(path)),
        Trust::Sds(name) => from_socket(name),
    }
}

fn certificate_name(certificate_chain: &str, private_key: &str) -> String {
    format!("certificate {certificate_chain} {private_key}")
}

fn trust_name(path: &str) -> String {
    format!("trust {path}")
}

/// Encodes the secrets in files that listeners show and demand.
pub fn secrets_of_listeners(listeners: &[Listener]) -> impl Iterator<Item = (String, Arc<Resource>)> {
    let tls = listeners.iter().filter_map(|listener| listener.tls.as_ref());
    tls.flat_map(|tls| secrets(Some(&tls.certificate), tls.validation.as_ref()))
}

/// Encodes the secrets in files that an upstream is called with.
pub fn secrets_of_upstream(tls: &UpstreamTls) -> impl Iterator<Item = (String, Arc<Resource>)> + use<> {
    secrets(tls.certificate.as_ref(), tls.validation.as_ref())
}

/// Files are secrets too, for Envoy reads again those that change, such as renewed certificates. And while it cannot read
/// them it lets no connection through, where it would reject a listener or cluster that names them and keep the one from
/// before, which may speak plaintext.
fn secrets(
    certificate: Option<&Certificate>,
    validation: Option<&Validation>,
) -> impl Iterator<Item = (String, Arc<Resource>)> + use<> {
    let certificate = certificate.and_then(|certificate| match certificate {
        Certificate::Sds(_) => None,
        Certificate::File { certificate_chain, private_key } => {
            let name = certificate_name(certificate_chain, private_key);
            Some((
                name,
                secret::Type::TlsCertificate(TlsCertificate {
                    certificate_chain: file(certificate_chain),
                    private_key: file(private_key),
                    watched_directory: folder(certificate_chain),
                    ..TlsCertificate::default()
                }),
            ))
        }
    });
    let trust = validation.and_then(|validation| match &validation.trust {
        Trust::Sds(_) => None,
        Trust::File(path) => Some((
            trust_name(path),
            secret::Type::ValidationContext(CertificateValidationContext {
                trusted_ca: file(path),
                watched_directory: folder(path),
                ..CertificateValidationContext::default()
            }),
        )),
    });
    let encode = |(name, content): (String, secret::Type)| {
        Resource::new(&name, &Secret { name: name.clone(), r#type: Some(content) })
    };
    certificate.into_iter().chain(trust).map(encode)
}

/// The folder of a file: what Kubernetes renews in a mounted volume is moved there.
fn folder(path: &str) -> Option<WatchedDirectory> {
    let folder = Path::new(path).parent()?.to_str()?;
    Some(WatchedDirectory { path: folder.to_owned(), ..WatchedDirectory::default() })
}

/// A URI or a host name, which a wildcard in the certificate fits too. Trust by SDS may come with Envoy's validator of SPIFFE
/// identities, as SPIRE's does. That one knows only URIs, and where it gets none to look for, any identity of its trust domain
/// passes. So a host name is also looked for as a URI there, which no certificate has.
fn subject_alt_names(name: &str, trust: &Trust) -> impl Iterator<Item = SubjectAltNameMatcher> {
    let san_types: &[SanType] = match trust {
        _ if name.contains("://") => &[SanType::Uri],
        Trust::File(_) => &[SanType::Dns],
        Trust::Sds(_) => &[SanType::Dns, SanType::Uri],
    };
    san_types.iter().map(|san_type| SubjectAltNameMatcher {
        san_type: (*san_type).into(),
        matcher: Some(text(MatchPattern::Exact(name.to_owned()))),
        ..SubjectAltNameMatcher::default()
    })
}

fn file(path: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..DataSource::default() })
}

/// A secret that the controller sends, whose content is in files.
fn from_files(name: String) -> SdsSecretConfig {
    // Envoy's default timeout: a listener that waits for its secret longer is in force without it, and lets nothing through.
    let source = ads().map(|source| ConfigSource { initial_fetch_timeout: None, ..source });
    SdsSecretConfig { name, sds_config: source }
}

/// A secret that comes by the socket of the bootstrap.
fn from_socket(name: &str) -> SdsSecretConfig {
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
