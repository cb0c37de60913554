//! Shows who may speak with whom, and how: a real Envoy calls itself, by its egress to its ingress.

use appmesh_controller::model::{self, Certificate, ClientPolicy, ListenerTls, Trust, Validation};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};

use super::{
    policies::{INGRESS, backend, cloud_map, incoming, listening, snapshot_of},
    *,
};

/// The name that the upstream's Cloud Map service has.
const COLORAPP: &str = "colorapp.svc2.svc.local";
const FRONT: &str = "spiffe://k8multi/front";

/// Certificates in files, by an authority and by one that nobody trusts.
struct Files {
    server: Certificate,
    /// As Envoy shows it.
    shown: Vec<u8>,
    client: Certificate,
    authority: Trust,
    stranger: Trust,
}

impl Files {
    fn write(folder: &Path) -> Self {
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let file = |name: &str, content: &str| {
            let path = folder.join(name);
            fs::write(&path, content).unwrap();
            path.to_string_lossy().into_owned()
        };
        let (known, unknown) = (authority("known"), authority("unknown"));
        let certificate = |name: &str, params: CertificateParams| {
            let key = KeyPair::generate().unwrap();
            let signed = params.signed_by(&key, &known).unwrap();
            let chain = file(&format!("{name}.pem"), &signed.pem());
            let key = file(&format!("{name}.key"), &key.serialize_pem());
            (Certificate::file(chain, key).unwrap(), signed.der().to_vec())
        };
        let (server, shown) = certificate("server", CertificateParams::new([COLORAPP.to_owned()]).unwrap());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![rcgen::SanType::URI(FRONT.try_into().unwrap())];
        Self {
            server,
            shown,
            client: certificate("client", params).0,
            authority: Trust::file(file("known.pem", &known.pem())).unwrap(),
            stranger: Trust::file(file("unknown.pem", &unknown.pem())).unwrap(),
        }
    }
}

/// Takes any certificate.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate that Envoy's listener shows.
async fn shown() -> Vec<u8> {
    let verifier = Arc::new(AnyCertificate);
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, INGRESS.port)).await.unwrap();
    let name = ServerName::try_from(COLORAPP).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, connection).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Each pair of a listener and a caller's policy: whether the call arrives, and by TLS.
pub async fn tls(controller: &Controller, folder: &Path) {
    let files = Files::write(folder);
    let application = app("secret").await;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let validation = |trust: &Trust, of: &[&str]| Validation::new(trust.clone(), names(of)).unwrap();
    let policy = |trust: &Trust, of: &[&str]| ClientPolicy {
        enforce: true,
        ports: Vec::new(),
        certificate: None,
        validation: validation(trust, of),
    };
    let strict = ListenerTls { permissive: false, certificate: files.server.clone(), validation: None };
    let permissive = ListenerTls { permissive: true, ..strict.clone() };
    let mutual = |of: &[&str]| ListenerTls { validation: Some(validation(&files.authority, of)), ..strict.clone() };
    let trusting = policy(&files.authority, &[]);
    let showing = ClientPolicy { certificate: Some(files.client.clone()), ..trusting.clone() };
    let not_enforced = |policy: &ClientPolicy| Some(ClientPolicy { enforce: false, ..policy.clone() });
    let of_ports = |ports: &[u16]| Some(ClientPolicy { ports: ports.to_vec(), ..trusting.clone() });
    let unverified = || Some(policy(&files.stranger, &[]));
    let optional = ListenerTls { permissive: true, ..mutual(&[]) };
    let cases = [
        ("no policy, strict", None, Some(strict.clone()), "TLS"),
        ("an authority that did not sign it", unverified(), Some(strict.clone()), "fails"),
        ("the authority and the discovered name", Some(trusting.clone()), Some(strict.clone()), "TLS"),
        ("other names", Some(policy(&files.authority, &["a.b", FRONT])), Some(strict.clone()), "fails"),
        ("one of the names", Some(policy(&files.authority, &["a.b", COLORAPP])), Some(strict.clone()), "TLS"),
        ("a policy of another port", of_ports(&[1]), Some(strict.clone()), "TLS"),
        (
            "not enforced, an authority that did not sign it",
            not_enforced(&unverified().unwrap()),
            Some(strict.clone()),
            "fails",
        ),
        ("no policy, permissive", None, Some(permissive.clone()), "TLS"),
        ("mutual, no certificate", Some(trusting.clone()), Some(mutual(&[])), "fails"),
        ("mutual, a certificate", Some(showing.clone()), Some(mutual(&[])), "TLS"),
        ("mutual, a certificate of another name", Some(showing.clone()), Some(mutual(&["a.b"])), "fails"),
        ("mutual, a certificate of the name", Some(showing.clone()), Some(mutual(&["a.b", FRONT])), "TLS"),
        ("mutual, no policy", None, Some(mutual(&[])), "fails"),
        ("permissive, no certificate", Some(trusting.clone()), Some(optional), "TLS"),
        ("enforced, no TLS", Some(trusting.clone()), None, "fails"),
        ("not enforced, no TLS", not_enforced(&trusting), None, "plaintext"),
        ("enforced on the port, no TLS", of_ports(&[1, INGRESS.port]), None, "fails"),
        ("enforced on another port, no TLS", of_ports(&[1]), None, "plaintext"),
        ("no policy, no TLS", None, None, "plaintext"),
    ];
    for (n, (case, client_policy, tls, expected)) in cases.into_iter().enumerate() {
        let name = format!("case-{n}");
        let upstream = Upstream { tls: tls.is_some(), ..cloud_map(&name, INGRESS.port) };
        let backend = Backend { client_policy, ..backend(&name, upstream) };
        let listener = model::Listener { tls: tls.clone(), ..Listener::new(INGRESS) };
        controller.set(snapshot_of(&listening(listener, vec![backend]), application, &["127.0.0.1"]));
        controller.settled().await;
        let handshakes = async || stat("listener.0.0.0.0_15000.ssl.handshake").await;
        let before = handshakes().await;
        let called = tally(HOST, 1).await.into_keys().next().unwrap();
        let found = match (called.as_str(), handshakes().await - before) {
            ("200 secret", 0) => "plaintext",
            ("200 secret", _) => "TLS",
            (failed, _) if failed.starts_with("503") => "fails",
            (other, _) => other,
        };
        assert_eq!(found, expected, "{case}: {called}");
        let plaintext = incoming("/").await;
        match &tls {
            Some(tls) if !tls.permissive => assert_eq!(plaintext, "", "{case}"),
            _ => assert_eq!(plaintext, "200 secret", "{case}"),
        }
        if case == "no policy, strict" {
            assert_eq!(shown().await, files.shown, "the certificate shown");
        }
    }
}
