//! Serves metrics to Prometheus, an answer to whoever asks whether this program lives, and on the loopback interface what
//! helps to find faults.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, ensure};
use axum::{
    Json, Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What Prometheus expects of a text with units and `# EOF`.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where metrics and debugging information are served.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where Prometheus finds /metrics, and the kubelet /healthz
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8080")]
    pub metrics_listen: SocketAddr,
    /// Where /debug answers; a loopback address, so that only kubectl port-forward and the pod itself reach it
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6060", value_parser = loopback)]
    pub debug_listen: SocketAddr,
}

fn loopback(text: &str) -> anyhow::Result<SocketAddr> {
    let address: SocketAddr = text.parse()?;
    ensure!(address.ip().is_loopback(), "{address} is no loopback address");
    Ok(address)
}

/// Answers as JSON, made when somebody asks.
pub type Answer = Arc<dyn Fn() -> Value + Send + Sync>;

/// Serves `/metrics`, and `/healthz`.
pub fn metrics(metrics: Metrics) -> Router {
    let text = async move || match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => internal_error(&error),
    };
    Router::new().route("/metrics", get(text)).route("/healthz", get(async || "ok"))
}

/// Serves each answer at `/debug/NAME`, and their names at `/debug`.
pub fn debug(answers: impl IntoIterator<Item = (&'static str, Answer)>) -> Router {
    let (mut router, mut paths) = (Router::new(), Vec::new());
    for (name, answer) in answers {
        let path = format!("/debug/{name}");
        router = router.route(&path, get(async move || Json(answer())));
        paths.push(path);
    }
    router.route("/debug", get(async move || Json(paths)))
}

/// Listens on an address.
///
/// # Errors
/// The address is in use, or not of this host.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

/// Serves until `stop`.
///
/// # Errors
/// The listener breaks.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    // Connections that are kept open do not hold up the end.
    tokio::select! {
        served = axum::serve(listener, router) => served.context("serving HTTP"),
        () = stop.cancelled() => Ok(()),
    }
}

fn internal_error(error: &anyhow::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    /// What a router answers to a GET: head and body.
    async fn get(router: Router, path: &str) -> (String, String) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, router, stop.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        stop.cancel();
        served.await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn metrics_are_in_openmetrics_format() {
        let all = Metrics::new();
        all.leader.set(1);
        let (head, body) = get(metrics(all), "/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains(OPENMETRICS), "{head}");
        assert!(body.contains("\nappmesh_controller_leader 1\n") && body.ends_with("# EOF\n"), "{body}");
        assert_eq!(get(metrics(Metrics::new()), "/healthz").await.1, "ok");
    }

    #[tokio::test]
    async fn answers_are_made_when_somebody_asks() {
        let answer: Answer = Arc::new(|| json!([{ "node": "front" }]));
        let router = || debug([("sidecars", answer.clone()), ("translation", Arc::new(|| Value::Null) as Answer)]);
        assert_eq!(get(router(), "/debug/sidecars").await.1, r#"[{"node":"front"}]"#);
        assert_eq!(get(router(), "/debug").await.1, r#"["/debug/sidecars","/debug/translation"]"#);
        assert!(get(router(), "/metrics").await.0.starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn debugging_information_stays_in_the_pod() {
        for (address, allowed) in [
            ("127.0.0.1:6060", true),
            ("[::1]:6060", true),
            ("0.0.0.0:6060", false),
            ("10.0.0.1:6060", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(loopback(address).is_ok(), allowed, "{address}");
        }
    }
}
