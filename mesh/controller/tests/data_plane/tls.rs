//! Speaks TLS of the application's own, with a certificate of each side.

use std::sync::LazyLock;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, Stream,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

use super::*;

const NAME: &str = "far.example";

struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

static CONFIGS: LazyLock<Configs> = LazyLock::new(|| {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let issue = || {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([NAME.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        (chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    };
    let (chain, key) = issue();
    let mut client =
        ClientConfig::builder().with_root_certificates(roots.clone()).with_client_auth_cert(chain, key).unwrap();
    let (chain, key) = issue();
    let clients = WebPkiClientVerifier::builder(roots).build().unwrap();
    let mut server = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    for alpn in [&mut client.alpn_protocols, &mut server.alpn_protocols] {
        *alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Configs { client: Arc::new(client), server: Arc::new(server) }
});

pub fn client(talk: &mut Talk) -> std::io::Result<()> {
    let name = NAME.try_into().map_err(std::io::Error::other)?;
    let mut tls = ClientConnection::new(CONFIGS.client.clone(), name).map_err(std::io::Error::other)?;
    let mut stream = Stream::new(&mut tls, talk.stream.get_mut());
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    talk.seen.push(format!("{} {:?}", String::from_utf8_lossy(&answer), tls.alpn_protocol()));
    Ok(())
}

pub fn server(talk: &mut Talk) -> std::io::Result<()> {
    let mut tls = ServerConnection::new(CONFIGS.server.clone()).map_err(std::io::Error::other)?;
    let mut stream = Stream::new(&mut tls, talk.stream.get_mut());
    let mut request = [0; 5];
    stream.read_exact(&mut request)?;
    stream.write_all(b"world")?;
    let certificates = tls.peer_certificates().map_or(0, <[_]>::len);
    talk.seen.push(format!("{} {:?} {certificates}", String::from_utf8_lossy(&request), tls.server_name()));
    Ok(())
}
