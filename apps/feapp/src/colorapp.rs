//! The call to colorapp.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reqwest::{Client, Url};

/// How long colorapp may take, from looking its name up to the last byte. Longer than Envoy tries to connect (three times
/// 2 s), so that its reason is heard and passed on; shorter than its 15 s for a whole request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Headers that tie the calls of one trace together: W3C Trace Context, Zipkin's in both forms (the
/// long form by its prefix, below), Envoy's and X-Ray's.
const TRACING: [&str; 5] = ["traceparent", "tracestate", "b3", "x-request-id", "x-amzn-trace-id"];
const TRACING_PREFIX: &str = "x-b3-";

/// Where colorapp is and how to ask it. A clone shares its connections.
#[derive(Debug, Clone)]
pub struct Colorapp {
    client: Client,
    url: Url,
}

/// What colorapp, or a proxy in its place, answered.
#[derive(Debug)]
pub struct Answer {
    /// Any status: it is passed on as it is.
    pub status: StatusCode,
    /// Its type, if it said so.
    pub content_type: Option<HeaderValue>,
    /// All of it.
    pub body: Bytes,
}

/// Why there is no answer; displays as one line that names colorapp's URL.
#[derive(Debug)]
pub enum Silence {
    /// It took longer than this client waits.
    Late(String),
    /// Its name does not resolve, it refuses the connection, or breaks it off: why, with causes.
    Failed(String, anyhow::Error),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(url) => write!(f, "colorapp at {url} did not answer in time"),
            Self::Failed(url, cause) => write!(f, "colorapp at {url} can't be asked: {cause:#}"),
        }
    }
}

impl Colorapp {
    /// A client for what COLOR_HOST says. Connects to nothing yet: colorapp may start later.
    pub fn new(color_host: Option<&str>) -> Result<Self> {
        Self::patient(color_host, PATIENCE)
    }

    fn patient(color_host: Option<&str>, patience: Duration) -> Result<Self> {
        let client = Client::builder()
            .timeout(patience)
            // An answer is passed on, not followed, and the mesh is the only proxy.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Only http is asked, so an image without CA certificates will do.
            .tls_certs_only([])
            .build()
            .context("set up the HTTP client")?;
        let url = url(color_host)?;
        Ok(Self { client, url })
    }

    /// Asks for the colour in the trace of the request with these headers.
    pub async fn ask(&self, headers: &HeaderMap) -> Result<Answer, Silence> {
        self.try_ask(headers).await.map_err(|error| {
            let url = self.url.to_string();
            if error.is_timeout() { Silence::Late(url) } else { Silence::Failed(url, error.without_url().into()) }
        })
    }

    async fn try_ask(&self, headers: &HeaderMap) -> reqwest::Result<Answer> {
        let request = self.client.get(self.url.clone()).headers(tracing(headers));
        let response = request.send().await?;
        Ok(Answer {
            status: response.status(),
            content_type: response.headers().get(header::CONTENT_TYPE).cloned(),
            body: response.bytes().await?,
        })
    }
}

/// `http://COLOR_HOST/`; an error says what COLOR_HOST should be.
fn url(color_host: Option<&str>) -> Result<Url> {
    const WANTED: &str = "give colorapp's host and port, such as colorapp.k8multi.svc.cluster.local:8080";
    let Some(host) = color_host.filter(|host| !host.is_empty()) else {
        bail!("COLOR_HOST is not set: {WANTED}");
    };
    let wrong = || format!("COLOR_HOST is {host:?}: {WANTED}");
    ensure!(!host.contains(['/', '?', '#', '@']), wrong());
    Url::parse(&format!("http://{host}/")).with_context(wrong)
}

fn tracing(headers: &HeaderMap) -> HeaderMap {
    let ours = |name: &HeaderName| TRACING.contains(&name.as_str()) || name.as_str().starts_with(TRACING_PREFIX);
    headers.iter().filter(|(name, _)| ours(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn color_host_is_a_host_and_a_port() {
        for (host, expected) in [
            ("colorapp.k8multi.svc.cluster.local:8080", "http://colorapp.k8multi.svc.cluster.local:8080/"),
            ("127.0.0.1:80", "http://127.0.0.1/"),
            ("[fd77::2]:8080", "http://[fd77::2]:8080/"),
        ] {
            assert_eq!(url(Some(host)).unwrap().as_str(), expected);
        }
        for host in [None, Some("")] {
            let error = url(host).unwrap_err().to_string();
            assert!(error.starts_with("COLOR_HOST is not set: give"), "{error}");
        }
        for host in ["http://colorapp:8080", "colorapp/x", "a b", "colorapp:port", "u@h", ":8080"] {
            let error = url(Some(host)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("COLOR_HOST is {host:?}: give")), "{error}");
        }
    }

    #[test]
    fn only_tracing_headers_go_along() {
        let along =
            ["traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-sampled", "x-request-id", "x-amzn-trace-id"];
        let not = ["host", "cookie", "authorization", "accept", "connection", "x-b4"];
        let headers: HeaderMap = along
            .iter()
            .chain(&not)
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("v")))
            .collect();
        let mut sent: Vec<_> = tracing(&headers).keys().map(ToString::to_string).collect();
        sent.sort();
        let mut expected = along.to_vec();
        expected.sort_unstable();
        assert_eq!(sent, expected);
    }

    #[tokio::test]
    async fn a_server_that_keeps_silent_is_late() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let colorapp = Colorapp::patient(Some(&host), Duration::from_millis(200)).unwrap();
        let silence = colorapp.ask(&HeaderMap::new()).await.unwrap_err();
        assert_eq!(silence.to_string(), format!("colorapp at http://{host}/ did not answer in time"));
    }

    #[tokio::test]
    async fn a_closed_port_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        drop(listener);
        let colorapp = Colorapp::new(Some(&host)).unwrap();
        let silence = colorapp.ask(&HeaderMap::new()).await.unwrap_err().to_string();
        assert!(silence.starts_with(&format!("colorapp at http://{host}/ can't be asked: ")), "{silence}");
        assert!(silence.contains("Connection refused"), "{silence}");
    }
}
