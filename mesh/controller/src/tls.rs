//! TLS with the certificate of the chart's secret, as it stands when a caller connects: the kubelet replaces the files
//! under a running controller.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable as _};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A caller that has not finished its handshake by then is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The folder where the secret is mounted: `tls.crt`, `tls.key` and `ca.crt`.
pub struct Certificate {
    folder: PathBuf,
    /// ALPN protocol, `h2` or `http/1.1`.
    protocol: &'static str,
    loaded: Mutex<Option<(SystemTime, Arc<ServerConfig>)>>,
}

impl Certificate {
    /// Reads the files, so that a controller without a certificate fails when it starts.
    pub fn load(folder: &Path, protocol: &'static str) -> anyhow::Result<Self> {
        let certificate = Self { folder: folder.to_owned(), protocol, loaded: Mutex::default() };
        certificate.current()?;
        Ok(certificate)
    }

    /// The certificates of the authority that callers are to trust, as PEM.
    pub fn authority(folder: &Path) -> anyhow::Result<String> {
        let path = folder.join("ca.crt");
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// The configuration for a new connection, read again if the file has changed since.
    fn current(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let path = self.folder.join("tls.crt");
        let changed = fs::metadata(&path).and_then(|meta| meta.modified());
        let changed = changed.with_context(|| format!("reading {}", path.display()))?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        match &*loaded {
            Some((read, config)) if *read == changed => Ok(config.clone()),
            _ => {
                let config = Arc::new(self.read()?);
                tracing::info!(file = %path.display(), "read certificate");
                *loaded = Some((changed, config.clone()));
                Ok(config)
            }
        }
    }

    fn read(&self) -> anyhow::Result<ServerConfig> {
        let chain = self.folder.join("tls.crt");
        let key = self.folder.join("tls.key");
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&chain).and_then(Iterator::collect);
        let certificates = certificates.with_context(|| format!("reading {}", chain.display()))?;
        let key = PrivateKeyDer::from_pem_file(&key).with_context(|| format!("reading {}", key.display()))?;
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
        config.alpn_protocols = vec![self.protocol.as_bytes().to_vec()];
        Ok(config)
    }
}

/// Accepts TLS connections. A slow handshake holds up nobody else's.
pub struct TlsListener {
    tcp: TcpListener,
    certificate: Certificate,
    handshakes: JoinSet<anyhow::Result<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    /// Listens on `address`.
    pub async fn bind(address: SocketAddr, certificate: Certificate) -> anyhow::Result<Self> {
        let tcp = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        Ok(Self { tcp, certificate, handshakes: JoinSet::new() })
    }

    /// The next caller that has shaken hands.
    pub async fn next(&mut self) -> (TlsStream<TcpStream>, SocketAddr) {
        loop {
            tokio::select! {
                (stream, peer) = connection(&self.tcp) => match self.certificate.current() {
                    Ok(config) => { self.handshakes.spawn(handshake(config, stream, peer)); }
                    Err(error) => tracing::warn!(%peer, "no certificate to serve with: {error:#}"),
                },
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

async fn handshake(
    config: Arc<ServerConfig>,
    stream: TcpStream,
    peer: SocketAddr,
) -> anyhow::Result<(TlsStream<TcpStream>, SocketAddr)> {
    let stream = timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await??;
    Ok((stream, peer))
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
    use rcgen::generate_simple_self_signed;
    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tokio::io::AsyncReadExt as _;
    use tokio_rustls::TlsConnector;

    /// Writes a new certificate into the folder and returns it.
    fn issue(folder: &Path) -> CertificateDer<'static> {
        let issued = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.join("tls.key"), issued.signing_key.serialize_pem()).unwrap();
        fs::write(folder.join("tls.crt"), issued.cert.pem()).unwrap();
        issued.cert.der().clone()
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
    async fn a_new_certificate_is_served_and_a_silent_caller_holds_up_nobody() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let first = issue(folder.path());
        let certificate = Certificate::load(folder.path(), "http/1.1").unwrap();
        let mut listener = TlsListener::bind(([127, 0, 0, 1], 0).into(), certificate).await.unwrap();
        let address = listener.tcp.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.next().await;
                tokio::spawn(async move { stream.read_u8().await });
            }
        });
        let _silent = TcpStream::connect(address).await.unwrap();
        assert!(trusts(first.clone(), address).await);
        let second = issue(folder.path());
        assert!(trusts(second, address).await);
        assert!(!trusts(first, address).await, "the old certificate is no more");
    }

    #[test]
    fn without_a_certificate_nothing_starts() {
        let folder = tempfile::tempdir().unwrap();
        let error = Certificate::load(folder.path(), "h2").err().unwrap();
        assert!(error.to_string().contains("tls.crt"), "{error}");
    }
}
