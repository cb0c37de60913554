//! Shows who may speak with whom, and how: a real Envoy calls itself, by its egress to its ingress.

use std::{fs, os::unix::fs::symlink};

use appmesh_controller::model::{self, Certificate, ClientPolicy, ListenerTls, Trust, Validation};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};

use super::{
    policies::{INGRESS, backend, cloud_map, incoming, listening, snapshot_of},
    sds::Secrets,
    *,
};

/// The name that the upstream's Cloud Map service has.
const COLORAPP: &str = "colorapp.svc2.svc.local";
const TRUST_DOMAIN: &str = "k8multi";
const COLORAPP_ID: &str = "spiffe://k8multi/colorapp";
const FRONT: &str = "spiffe://k8multi/front";

/// Certificates by an authority, and an authority that nobody trusts.
struct Certificates {
    server: Certificate,
    client: Certificate,
    authority: Trust,
    stranger: Trust,
}

/// The same certificates in files, by SDS, and by SDS as SPIRE gives them; and the server's as Envoy shows it.
fn certificates(folder: &Path, socket: &Path) -> ([(&'static str, Certificates); 2], Certificates, Vec<u8>) {
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
    let mut secrets = Secrets::default();
    let mut certificate = |name: &str, mut params: CertificateParams| {
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &known).unwrap();
        let (chain, key) = (signed.pem(), key.serialize_pem());
        secrets.certificate(name, &chain, &key);
        let in_files = Certificate::file(file(&format!("{name}.pem"), &chain), file(&format!("{name}.key"), &key));
        (in_files.unwrap(), signed.der().to_vec())
    };
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    let mut server = CertificateParams::new([COLORAPP.to_owned()]).unwrap();
    server.subject_alt_names.push(uri(COLORAPP_ID));
    let (server, shown) = certificate("server", server);
    let mut client = CertificateParams::new(Vec::new()).unwrap();
    client.subject_alt_names = vec![uri(FRONT)];
    let in_files = Certificates {
        server,
        client: certificate("client", client).0,
        authority: Trust::file(file("known.pem", &known.pem())).unwrap(),
        stranger: Trust::file(file("unknown.pem", &unknown.pem())).unwrap(),
    };
    for (name, authority) in [("known", &known), ("unknown", &unknown)] {
        secrets.authority(name, &authority.pem());
        secrets.trust_domain(&format!("{name} domain"), TRUST_DOMAIN, &authority.pem());
    }
    secrets.serve(socket);
    let (certificate, trust) =
        (|name: &str| Certificate::Sds(name.to_owned()), |name: &str| Trust::Sds(name.to_owned()));
    let by_sds = |authority: &str, stranger: &str| Certificates {
        server: certificate("server"),
        client: certificate("client"),
        authority: trust(authority),
        stranger: trust(stranger),
    };
    let by_spire = by_sds("known domain", "unknown domain");
    ([("file", in_files), ("sds", by_sds("known", "unknown"))], by_spire, shown)
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

/// The certificate that Envoy's listener shows, if it shows one.
async fn shown() -> Option<Vec<u8>> {
    let verifier = Arc::new(AnyCertificate);
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, INGRESS.port)).await.ok()?;
    let name = ServerName::try_from(COLORAPP).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, connection).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?[0].to_vec())
}

/// Each pair of a listener and a caller's policy: whether the call arrives, and by TLS.
pub async fn tls(controller: &Controller, folder: &Path, socket: &Path) {
    let application = app("secret").await;
    let (certificates, by_spire, server) = certificates(folder, socket);
    for (source, certificates) in &certificates {
        try_each(controller, application, source, cases(certificates), &server).await;
    }
    try_each(controller, application, "spire", identities(&by_spire), &server).await;
    renewed(controller, application, &folder.join("volume")).await;
    unreadable(controller, application, &folder.join("envoy.log")).await;
}

/// A certificate that is renewed in its volume is shown from then on.
async fn renewed(controller: &Controller, application: u16, volume: &Path) {
    let first = renew(volume, 1);
    let path = |name: &str| volume.join(name).to_string_lossy().into_owned();
    let certificate = Certificate::file(path("cert.pem"), path("key.pem")).unwrap();
    let tls = Some(ListenerTls { permissive: false, certificate, validation: None });
    let listener = model::Listener { tls, ..Listener::new(INGRESS) };
    controller.set(snapshot_of(&listening(listener, Vec::new()), application, &[]));
    controller.settled().await;
    wait_for("the certificate", async || shown().await.is_some_and(|shown| shown == first)).await;
    let second = renew(volume, 2);
    wait_for("the renewed certificate", async || shown().await.is_some_and(|shown| shown == second)).await;
}

/// Writes a new certificate and key as Kubernetes writes those of a secret: what the names lead to is moved as a whole.
fn renew(volume: &Path, generation: u32) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([COLORAPP.to_owned()]).unwrap().self_signed(&key).unwrap();
    let version = format!("..{generation}");
    fs::create_dir_all(volume.join(&version)).unwrap();
    for (name, content) in [("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())] {
        fs::write(volume.join(&version).join(name), content).unwrap();
        if generation == 1 {
            symlink(format!("..data/{name}"), volume.join(name)).unwrap();
        }
    }
    symlink(version, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    certificate.der().to_vec()
}

/// Where the files are missing that a listener or a policy names, nothing passes: not in plaintext either, which it did
/// before the listener and the policy named them. Envoy's log says so.
async fn unreadable(controller: &Controller, application: u16, log: &Path) {
    let missing = |name: &str| format!("/nowhere/{name}");
    let upstream = |takes_tls| Upstream { tls: takes_tls, ..cloud_map("missing", INGRESS.port) };
    let set = |tls: Option<ListenerTls>, backend: Backend| {
        let listener = model::Listener { tls, ..Listener::new(INGRESS) };
        controller.set(snapshot_of(&listening(listener, vec![backend]), application, &["127.0.0.1"]));
    };
    let plaintext = || backend("missing", upstream(false));
    let passes = async || (called("missing").await, incoming("/").await);
    set(None, plaintext());
    wait_for("plaintext", async || passes().await == ("plaintext".to_owned(), "200 secret".to_owned())).await;
    let trust = Trust::file(missing("ca.pem")).unwrap();
    let validation = Validation::new(trust, Vec::new()).unwrap();
    let policy = ClientPolicy { enforce: true, ports: Vec::new(), certificate: None, validation };
    set(None, Backend { client_policy: Some(policy), ..plaintext() });
    wait_for("no call", async || passes().await == ("fails".to_owned(), "200 secret".to_owned())).await;
    let certificate = Certificate::file(missing("cert.pem"), missing("key.pem")).unwrap();
    let strict = ListenerTls { permissive: false, certificate, validation: None };
    set(Some(strict), plaintext());
    wait_for("nothing", async || passes().await == ("fails".to_owned(), String::new())).await;
    let log = fs::read_to_string(log).unwrap();
    for why in ["Invalid path: /nowhere/ca.pem", "unable to add filesystem watch for file /nowhere/"] {
        assert!(log.lines().any(|line| line.contains("[warning]") && line.contains(why)), "{why} is not in {log}");
    }
}

/// A caller's policy, TLS of the listener that it calls, and what comes of it.
type Case = (&'static str, Option<ClientPolicy>, Option<ListenerTls>, &'static str);

fn validation(trust: &Trust, names: &[&str]) -> Validation {
    Validation::new(trust.clone(), names.iter().map(|name| (*name).to_owned()).collect()).unwrap()
}

fn policy(trust: &Trust, names: &[&str]) -> ClientPolicy {
    ClientPolicy { enforce: true, ports: Vec::new(), certificate: None, validation: validation(trust, names) }
}

fn strict(certificates: &Certificates) -> ListenerTls {
    ListenerTls { permissive: false, certificate: certificates.server.clone(), validation: None }
}

/// Authorities that Envoy's validator of SPIFFE identities has, which looks at no host names.
fn identities(certificates: &Certificates) -> Vec<Case> {
    let strict = strict(certificates);
    let names = |names: &[&str]| Some(policy(&certificates.authority, names));
    let showing =
        names(&[COLORAPP_ID]).map(|policy| ClientPolicy { certificate: Some(certificates.client.clone()), ..policy });
    let mutual = |name: &str| {
        Some(ListenerTls { validation: Some(validation(&certificates.authority, &[name])), ..strict.clone() })
    };
    let stranger = Some(policy(&certificates.stranger, &[COLORAPP_ID]));
    vec![
        ("the identity", names(&[COLORAPP_ID]), Some(strict.clone()), "TLS"),
        ("another identity", names(&[FRONT]), Some(strict.clone()), "fails"),
        ("an authority that did not sign it", stranger, Some(strict.clone()), "fails"),
        ("a host name", names(&[COLORAPP]), Some(strict.clone()), "fails"),
        ("another host name, or the identity", names(&["a.b", COLORAPP_ID]), Some(strict.clone()), "TLS"),
        ("the discovered name", names(&[]), Some(strict.clone()), "fails"),
        ("mutual, the identity", showing.clone(), mutual(FRONT), "TLS"),
        ("mutual, another identity", showing.clone(), mutual(COLORAPP_ID), "fails"),
        ("mutual, a host name", showing, mutual("a.b"), "fails"),
    ]
}

fn cases(certificates: &Certificates) -> Vec<Case> {
    let strict = strict(certificates);
    let permissive = ListenerTls { permissive: true, ..strict.clone() };
    let mutual =
        |of: &[&str]| ListenerTls { validation: Some(validation(&certificates.authority, of)), ..strict.clone() };
    let trusting = policy(&certificates.authority, &[]);
    let showing = ClientPolicy { certificate: Some(certificates.client.clone()), ..trusting.clone() };
    let not_enforced = |policy: &ClientPolicy| Some(ClientPolicy { enforce: false, ..policy.clone() });
    let of_ports = |ports: &[u16]| Some(ClientPolicy { ports: ports.to_vec(), ..trusting.clone() });
    let unverified = || Some(policy(&certificates.stranger, &[]));
    let optional = ListenerTls { permissive: true, ..mutual(&[]) };
    vec![
        ("no policy, strict", None, Some(strict.clone()), "TLS"),
        ("an authority that did not sign it", unverified(), Some(strict.clone()), "fails"),
        ("the authority and the discovered name", Some(trusting.clone()), Some(strict.clone()), "TLS"),
        ("other names", Some(policy(&certificates.authority, &["a.b", FRONT])), Some(strict.clone()), "fails"),
        ("one of the names", Some(policy(&certificates.authority, &["a.b", COLORAPP])), Some(strict.clone()), "TLS"),
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
    ]
}

async fn try_each(controller: &Controller, application: u16, source: &str, cases: Vec<Case>, server: &[u8]) {
    for (n, (case, client_policy, tls, expected)) in cases.into_iter().enumerate() {
        let name = format!("{source}-{n}");
        let upstream = Upstream { tls: tls.is_some(), ..cloud_map(&name, INGRESS.port) };
        let backend = Backend { client_policy, ..backend(&name, upstream) };
        let listener = model::Listener { tls: tls.clone(), ..Listener::new(INGRESS) };
        controller.set(snapshot_of(&listening(listener, vec![backend]), application, &["127.0.0.1"]));
        controller.settled().await;
        let plaintext = if tls.is_none_or(|tls| tls.permissive) { "200 secret" } else { "" };
        // Secrets of a listener may come after it was accepted, and the one before takes connections until then.
        wait_for(&format!("{source}: {case}"), async || {
            called(&name).await == expected && incoming("/").await == plaintext
        })
        .await;
        assert_eq!(
            (called(&name).await, incoming("/").await),
            (expected.to_owned(), plaintext.to_owned()),
            "{source}: {case}"
        );
        if case == "no policy, strict" {
            assert_eq!(shown().await.as_deref(), Some(server), "the certificate that {source} gives");
        }
    }
}

/// How a call to an upstream arrives.
async fn called(upstream: &str) -> String {
    let called = tally(HOST, 1).await.into_keys().next().unwrap();
    let handshakes = stat(&format!("cluster.cds_egress_k8multi_{upstream}_http_{}.ssl.handshake", INGRESS.port)).await;
    match (called.as_str(), handshakes) {
        ("200 secret", 0) => "plaintext".to_owned(),
        ("200 secret", _) => "TLS".to_owned(),
        (failed, _) if failed.starts_with("503") => "fails".to_owned(),
        _ => called,
    }
}
