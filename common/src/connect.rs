//! Connects HTTP clients to servers, directly or through a proxy.

use crate::proxy::{Proxies, Proxy, ProxyKind};
use crate::roots::{self, Distrust};
use anyhow::{Chain, Result};
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use std::error::Error as StdError;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

/// An HTTP client whose connections are made here.
pub(crate) type HttpClient<B> = Client<TimeoutConnector<ConnectTimeout<HttpsConnector<Connector>>>, B>;

/// A client that gives up a connection which is not there in time, its TLS included, or has been silent for longer than
/// `silence`.
pub(crate) fn client<B>(inner: HttpsConnector<Connector>, limit: Duration, silence: Option<Duration>) -> HttpClient<B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    let mut connector = TimeoutConnector::new(ConnectTimeout { inner, limit });
    connector.set_read_timeout(silence);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
}

/// A connector with a time limit.
#[derive(Clone)]
pub(crate) struct ConnectTimeout<C> {
    inner: C,
    limit: Duration,
}

impl<C> Service<Uri> for ConnectTimeout<C>
where
    C: Service<Uri, Error = BoxError, Future: Send + 'static>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (connection, limit) = (self.inner.call(target), self.limit);
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:.1?}"));
            tokio::time::timeout(limit, connection).await.map_err(late)?
        })
    }
}

/// The hint for a proxy that refuses or does not answer.
pub(crate) const PROXY: &str = "check the proxy that HTTPS_PROXY, HTTP_PROXY or the kubeconfig's proxy-url names; NO_PROXY lists what is \
                     reached directly";

/// Makes the connection that a request needs. TLS to the server is the business of whoever wraps this.
#[derive(Clone)]
pub(crate) struct Connector {
    proxies: Arc<Proxies>,
    tcp: HttpConnector,
    /// For proxies, some of which speak TLS.
    tls: HttpsConnector<HttpConnector>,
}

impl Connector {
    /// `authorities` are trusted with a proxy's certificate beside those that are trusted anyway.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(crate) fn new(proxies: Proxies, authorities: &[CertificateDer<'static>]) -> Result<Self> {
        // Clients that others set up take the process's provider.
        let _ = default_provider().install_default();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let mut trusted = if proxies.speak_tls() { roots::trusted() } else { Vec::new() };
        trusted.extend_from_slice(authorities);
        let tls = HttpsConnectorBuilder::new().with_tls_config(roots::tls(trusted)?).https_or_http();
        Ok(Self { proxies: Arc::new(proxies), tls: tls.enable_http1().wrap_connector(tcp.clone()), tcp })
    }

    /// A connector for http and https, to servers whose certificate is by an authority that is trusted.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(crate) fn https(self) -> Result<HttpsConnector<Self>> {
        let tls = HttpsConnectorBuilder::new().with_tls_config(roots::tls(roots::trusted())?);
        Ok(tls.https_or_http().enable_http1().wrap_connector(self))
    }
}

/// Connects whoever speaks HTTP/1.1 on its connections itself: as the environment says through a proxy, and with TLS to servers
/// whose certificate is by an authority that is trusted.
pub struct Dialer(HttpsConnector<Connector>);

impl Dialer {
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(proxies: Proxies) -> Result<Self> {
        let mut tls = roots::tls(roots::trusted())?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self((Connector::new(proxies, &[])?, tls).into()))
    }

    /// A connection to the URL's server, and whether it leads to a proxy, which wants to be sent the whole URL.
    ///
    /// # Errors
    /// Whatever stands in the way.
    pub async fn dial(&self, url: Uri) -> Result<(Box<dyn Dialed>, bool), BoxError> {
        let connection = self.0.clone().call(url).await?;
        let forwards = connection.connected().is_proxied();
        Ok((Box::new(TokioIo::new(connection)), forwards))
    }
}

/// A connection that was dialed.
pub trait Dialed: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Dialed for T {}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (proxy, mut tcp, tls) = (self.proxies.of(&target).cloned(), self.tcp.clone(), self.tls.clone());
        Box::pin(async move {
            match proxy {
                None => Ok(Stream::of(MaybeHttpsStream::Http(tcp.call(target).await?))),
                Some(proxy) => through(&proxy, target, tcp, tls)
                    .await
                    .map_err(|source| ProxyError { proxy: proxy.to_string(), source }.into()),
            }
        })
    }
}

/// The connection through a proxy.
async fn through(
    proxy: &Proxy,
    target: Uri,
    tcp: HttpConnector,
    mut tls: HttpsConnector<HttpConnector>,
) -> Result<Stream, BoxError> {
    let scheme = if proxy.kind == ProxyKind::Https { "https" } else { "http" };
    let address = Uri::builder().scheme(scheme).authority(proxy.authority.clone()).path_and_query("/").build()?;
    match (proxy.kind, target.scheme_str()) {
        (ProxyKind::Socks5, _) => {
            let mut socks = SocksV5::new(address, tcp);
            if let Some((user, password)) = proxy.login() {
                socks = socks.with_auth(user, password);
            }
            Ok(Stream::of(MaybeHttpsStream::Http(socks.call(with_port(target)?).await?)))
        }
        (_, Some("http")) => Ok(Stream { forwarded: true, ..Stream::of(tls.call(address).await?) }),
        _ => {
            let mut tunnel = Tunnel::new(address, tls);
            if let Some(authorization) = proxy.authorization() {
                tunnel = tunnel.with_auth(authorization);
            }
            Ok(Stream::of(tunnel.call(target).await?))
        }
    }
}

/// The URL with its port: without one, a proxy would be asked for that of https.
fn with_port(url: Uri) -> Result<Uri, http::Error> {
    let (Some(host), None, Some("http")) = (url.host(), url.port(), url.scheme_str()) else { return Ok(url) };
    let authority = format!("{host}:80");
    Uri::builder().scheme("http").authority(authority).path_and_query("/").build()
}

/// The cause of a connection that failed for another reason than the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Obstacle {
    /// The server's certificate is not trusted.
    Certificate(Distrust),
    /// The proxy refuses or does not answer.
    Proxy,
}

impl Obstacle {
    /// Finds it among the causes of an error.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        Chain::new(error).fold(None, |found, link| {
            let distrust = Distrust::of(link).map(Self::Certificate);
            distrust.or(found).or(link.is::<ProxyError>().then_some(Self::Proxy))
        })
    }
}

/// A proxy did not connect to the server.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy}")]
pub(crate) struct ProxyError {
    proxy: String,
    source: BoxError,
}

/// A connection to a server, or to the proxy that forwards to it.
pub(crate) struct Stream {
    io: MaybeHttpsStream<TokioIo<TcpStream>>,
    forwarded: bool,
}

impl Stream {
    fn of(io: MaybeHttpsStream<TokioIo<TcpStream>>) -> Self {
        Self { io, forwarded: false }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.forwarded)
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
