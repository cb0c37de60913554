//! TLS with the certificate of the chart's secret, as it stands when a caller connects: the kubelet replaces the files
//! under a running controller.

mod policy;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable as _};
pub use policy::Policy;
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
use yasna::{ASN1Result, BERReader, Tag, parse_der, tags::TAG_UTCTIME};

use crate::metrics::Metrics;

/// A caller that has not finished its handshake by then is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The folder where the secret is mounted: `tls.crt`, `tls.key` and `ca.crt`.
pub struct Certificate {
    folder: PathBuf,
    /// ALPN protocol, `h2` or `http/1.1`.
    protocol: &'static str,
    loaded: Mutex<Option<(SystemTime, Loaded)>>,
    metrics: Option<Metrics>,
    policy: Policy,
}

/// What the files hold.
#[derive(Clone)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// When the certificate ends, in seconds since 1970.
    expiration: i64,
}

impl Certificate {
    /// Reads the files, so that a controller without a certificate fails when it starts.
    ///
    /// # Errors
    /// A file is missing, or no certificate or key; or the policy accepts nothing.
    pub fn load(folder: &Path, protocol: &'static str, policy: Policy) -> anyhow::Result<Self> {
        let certificate = Self { folder: folder.to_owned(), protocol, loaded: Mutex::default(), metrics: None, policy };
        certificate.current()?;
        Ok(certificate)
    }

    /// Reports when the certificate ends.
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        if let Some((_, loaded)) = &*self.loaded.lock().unwrap_or_else(PoisonError::into_inner) {
            metrics.certificate_expiration.set(loaded.expiration);
        }
        Self { metrics: Some(metrics), ..self }
    }

    /// The certificates of the authority that callers are to trust, as PEM.
    ///
    /// # Errors
    /// The file cannot be read.
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
            Some((read, known)) if *read == changed => Ok(known.config.clone()),
            _ => {
                let new = self.read()?;
                tracing::info!(file = %path.display(), "read certificate");
                if let Some(metrics) = &self.metrics {
                    metrics.certificate_expiration.set(new.expiration);
                }
                let config = new.config.clone();
                *loaded = Some((changed, new));
                Ok(config)
            }
        }
    }

    fn read(&self) -> anyhow::Result<Loaded> {
        let chain = self.folder.join("tls.crt");
        let key = self.folder.join("tls.key");
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&chain).and_then(Iterator::collect);
        let certificates = certificates.with_context(|| format!("reading {}", chain.display()))?;
        let expiration = expiration(&certificates).with_context(|| format!("reading {}", chain.display()))?;
        let key = PrivateKeyDer::from_pem_file(&key).with_context(|| format!("reading {}", key.display()))?;
        let mut config = self.policy.builder()?.with_no_client_auth().with_single_cert(certificates, key)?;
        config.alpn_protocols = vec![self.protocol.as_bytes().to_vec()];
        Ok(Loaded { config: Arc::new(config), expiration })
    }
}

/// When the first certificate of a chain, which is the server's own, ends.
fn expiration(chain: &[CertificateDer<'_>]) -> anyhow::Result<i64> {
    let own = chain.first().context("no certificate")?;
    parse_der(own, not_after).context("the certificate does not parse")
}

/// `tbsCertificate.validity.notAfter` of RFC 5280, 4.1, in seconds since 1970.
fn not_after(certificate: BERReader<'_, '_>) -> ASN1Result<i64> {
    certificate.read_sequence(|parts| {
        let not_after = parts.next().read_sequence(|tbs| {
            tbs.read_optional(|version| version.read_tagged(Tag::context(0), |number| number.read_i64()))?;
            for _serial_signature_issuer in 0..3 {
                tbs.next().read_der()?;
            }
            let not_after = tbs.next().read_sequence(|validity| {
                validity.next().read_der()?;
                time(validity.next())
            })?;
            while tbs.read_optional(|rest| rest.read_der())?.is_some() {}
            Ok(not_after)
        })?;
        for _algorithm_signature in 0..2 {
            parts.next().read_der()?;
        }
        Ok(not_after)
    })
}

/// UTCTime until 2049, GeneralizedTime from then on.
fn time(reader: BERReader<'_, '_>) -> ASN1Result<i64> {
    if reader.lookahead_tag()? == TAG_UTCTIME {
        Ok(reader.read_utctime()?.datetime().unix_timestamp())
    } else {
        Ok(reader.read_generalized_time()?.datetime().unix_timestamp())
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
    ///
    /// # Errors
    /// The address is in use, or not one of this machine's.
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
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tokio::io::AsyncReadExt as _;
    use tokio_rustls::TlsConnector;

    /// Writes a new certificate that ends with that year into the folder and returns it.
    fn issue(folder: &Path, year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
        certificate.der().clone()
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
        let first = issue(folder.path(), 2040);
        let metrics = Metrics::new();
        let certificate =
            Certificate::load(folder.path(), "http/1.1", Policy::default()).unwrap().with_metrics(metrics.clone());
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
        assert_eq!(metrics.certificate_expiration.get(), 2_240_524_800);
        let second = issue(folder.path(), 2050);
        assert!(trusts(second, address).await);
        assert_eq!(metrics.certificate_expiration.get(), 2_556_057_600);
        assert!(!trusts(first, address).await, "the old certificate is no more");
    }

    #[test]
    fn without_a_certificate_nothing_starts() {
        let folder = tempfile::tempdir().unwrap();
        let error = Certificate::load(folder.path(), "h2", Policy::default()).err().unwrap();
        assert!(error.to_string().contains("tls.crt"), "{error}");
    }
}
