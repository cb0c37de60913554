//! Serves TLS with the certificate of a Secret, as it stands when a caller connects, and keeps that Secret.

mod certificate;
mod issue;
mod policy;
mod secret;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable as _};
pub use certificate::Certificate;
pub use policy::Policy;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
pub use secret::{Keeper, Options, Served};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A caller that has not finished its handshake by then is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The certificate that is served now; none until there is one.
#[derive(Debug)]
struct Current(Served);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref().map(|certificate| certificate.certified.clone())
    }
}

/// Accepts TLS connections. A slow handshake holds up nobody else's.
pub struct TlsListener {
    tcp: TcpListener,
    config: Arc<ServerConfig>,
    served: Served,
    handshakes: JoinSet<anyhow::Result<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    /// Accepts connections with an ALPN protocol: `h2` or `http/1.1`.
    ///
    /// # Errors
    /// The policy accepts nothing.
    pub fn new(tcp: TcpListener, served: Served, protocol: &str, policy: &Policy) -> anyhow::Result<Self> {
        let current = Arc::new(Current(served.clone()));
        let mut config = policy.builder()?.with_no_client_auth().with_cert_resolver(current);
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(Self { tcp, config: Arc::new(config), served, handshakes: JoinSet::new() })
    }

    /// The next caller that has shaken hands.
    pub async fn next(&mut self) -> (TlsStream<TcpStream>, SocketAddr) {
        loop {
            tokio::select! {
                (stream, peer) = connection(&self.tcp) => {
                    self.handshakes.spawn(handshake(self.config.clone(), self.served.clone(), stream, peer));
                }
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Ok(connection)) => return connection,
                    // Load balancers and port scans do this all day.
                    Ok(Err(error)) => tracing::debug!("TLS handshake failed: {error:#}"),
                    Err(error) => tracing::warn!("TLS handshake ended early: {error}"),
                },
            }
        }
    }
}

/// Shakes hands as soon as there is a certificate to show.
async fn handshake(
    config: Arc<ServerConfig>,
    mut served: Served,
    stream: TcpStream,
    peer: SocketAddr,
) -> anyhow::Result<(TlsStream<TcpStream>, SocketAddr)> {
    let shaken = async {
        served.wait_for(Option::is_some).await.context("there will be no certificate")?;
        anyhow::Ok(TlsAcceptor::from(config).accept(stream).await?)
    };
    Ok((timeout(HANDSHAKE, shaken).await??, peer))
}

/// The next connection; a listener without file descriptors to spare tries again later.
async fn connection(tcp: &TcpListener) -> (TcpStream, SocketAddr) {
    let accept = || tcp.accept();
    loop {
        let accepted = accept.retry(ExponentialBuilder::default().with_min_delay(Duration::from_millis(50)));
        match accepted.await {
            Ok(connection) => return connection,
            Err(error) => tracing::warn!(%error, "accepting a connection failed"),
        }
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.next().await
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName},
    };
    use tokio::{io::AsyncReadExt as _, sync::watch};
    use tokio_rustls::TlsConnector;

    /// A new certificate, and as a caller trusts it.
    fn certificate() -> (Option<Arc<Certificate>>, CertificateDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let certificate = Certificate::new(made.pem(), &made.pem(), &key.serialize_pem()).unwrap();
        (Some(Arc::new(certificate)), made.der().clone())
    }

    /// Whether a caller that trusts only this certificate can connect.
    async fn trusts(certificate: CertificateDer<'static>, address: SocketAddr) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let localhost = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(localhost, stream).await.is_ok()
    }

    #[tokio::test]
    async fn a_certificate_is_waited_for_a_new_one_served_and_a_silent_caller_holds_up_nobody() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (serve, served) = watch::channel(None);
        let tcp = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let mut listener = TlsListener::new(tcp, served, "http/1.1", &Policy::default()).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.next().await;
                tokio::spawn(async move { stream.read_u8().await });
            }
        });
        let _silent = TcpStream::connect(address).await.unwrap();
        let (first, trusted_first) = certificate();
        let mut early = tokio::spawn(trusts(trusted_first.clone(), address));
        assert!(timeout(Duration::from_millis(100), &mut early).await.is_err(), "there is no certificate yet");
        serve.send_replace(first);
        assert!(early.await.unwrap());
        assert!(trusts(trusted_first.clone(), address).await);
        let (second, trusted_second) = certificate();
        serve.send_replace(second);
        assert!(trusts(trusted_second, address).await);
        assert!(!trusts(trusted_first, address).await, "the old certificate is no more");
    }
}
