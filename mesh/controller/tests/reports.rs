//! Holds a real Envoy to what the chart says of spans and statistics: collectors receive them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]
#![expect(clippy::print_stdout, reason = "a test that says what it saw")]

#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Stdio,
    time::Duration,
};

use appmesh_controller::{
    envoy::{
        bootstrap::{Bootstrap, Status},
        stats::{Stats, Statsd},
        tracing::{Protocol, Tracing},
    },
    model::{WorkloadKind, WorkloadName},
};
use serde_json::{Value, json};
use support::wait_for;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket, UnixStream},
    process::{Child, Command},
    time::timeout,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HTTP_CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// How long anything here may take: an Envoy starts and reports within a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// An Envoy that answers 200 on a port of its own, with the tracing of every listener that the controller sends.
struct Envoy {
    /// Ends it.
    _process: Child,
    _folder: TempDir,
    application: u16,
    status: u16,
}

impl Envoy {
    /// `None` if there is no Envoy here.
    async fn start(tracing: Option<&Tracing>, stats: &Stats) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin");
        let bootstrap = Bootstrap {
            workload: &WorkloadName {
                mesh: "k8multi".to_owned(),
                kind: WorkloadKind::VirtualNode,
                name: "front_k8multi".to_owned(),
            },
            xds: "localhost:1",
            ca: "",
            // Its ports are those that the kernel finds free, and are asked for at the admin interface: a socket of its own.
            status: Status { port: 0, ipv6: false },
            sds: None,
            tracing,
            stats,
        };
        let mut bootstrap = bootstrap.to_json();
        // Without a controller.
        bootstrap.as_object_mut().unwrap().remove("dynamic_resources");
        let listeners = bootstrap["static_resources"]["listeners"].as_array_mut().unwrap();
        listeners.push(json!({
            "name": "application",
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
            "filter_chains": [{ "filters": [{ "name": "http", "typed_config": answers_ok() }] }]
        }));
        let admin = bootstrap["admin"]["address"].clone();
        let (from, to) = (admin.to_string(), json!({ "pipe": { "path": socket } }).to_string());
        let bootstrap = bootstrap.to_string().replace(&from, &to);
        let named = std::env::var_os("ENVOY");
        let mut command = Command::new(named.as_deref().unwrap_or("envoy".as_ref()));
        command.args([
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "--log-level",
            "error",
            "--config-yaml",
            &bootstrap,
        ]);
        let mut process = match command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn() {
            Ok(process) => process,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                println!("not tested: there is no envoy in PATH, and ENVOY names none, as `make test` does");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let begun = async {
            let ready = async || ask(UnixStream::connect(&socket).await, "/ready").await.contains("LIVE");
            wait_for("Envoy", ready).await;
        };
        tokio::select! {
            () = begun => {}
            ended = process.wait() => panic!("Envoy ended: {ended:?}"),
        }
        let listeners = ask(UnixStream::connect(&socket).await, "/listeners").await;
        let port = |name| {
            let address = listeners.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("::")).unwrap();
            address.rsplit_once(':').unwrap().1.parse().unwrap()
        };
        Some(Self { _process: process, application: port("application"), status: port("status"), _folder: folder })
    }

    async fn stat(&self, name: &str) -> u64 {
        let stats = get(self.status, "/stats").await;
        let value = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.and_then(|value| value.parse().ok()).unwrap_or_default()
    }
}

fn answers_ok() -> Value {
    json!({
        "@type": HTTP_CONNECTION_MANAGER,
        "stat_prefix": "application",
        "tracing": {},
        // Or it waits for a second before it closes a connection.
        "delayed_close_timeout": "0s",
        "route_config": { "virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "direct_response": { "status": 200 } }]
        }]},
        "http_filters": [{ "name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
        }}]
    })
}

async fn get(port: u16, path: &str) -> String {
    ask(TcpStream::connect((LOOPBACK, port)).await, path).await
}

/// The answer, or nothing if there is none.
async fn ask(stream: std::io::Result<impl AsyncRead + AsyncWrite + Unpin>, path: &str) -> String {
    let mut answer = Vec::new();
    if let Ok(mut stream) = stream {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        if stream.write_all(request.as_bytes()).await.is_ok() {
            let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The first bytes that a collector receives, up to the name of the workload.
async fn received(collector: TcpListener) -> String {
    let mut received = Vec::new();
    let (mut stream, _) = collector.accept().await.unwrap();
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        if text.contains("front_k8multi") {
            return text;
        }
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "the collector received only {text:?}");
    }
}

#[tokio::test]
async fn spans_reach_a_collector() {
    let reports = async |protocol, begins: &str| {
        let collector = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let port = collector.local_addr().unwrap().port();
        let tracing = Tracing { protocol, host: "127.0.0.1".to_owned(), port, sampling: 10_000 };
        let Some(envoy) = Envoy::start(Some(&tracing), &Stats::default()).await else { return };
        for _ in 0..5 {
            get(envoy.application, "/").await;
        }
        let received = timeout(PATIENCE, received(collector)).await.unwrap();
        assert!(received.starts_with(begins), "{protocol:?} {received:?}");
    };
    tokio::join!(
        reports(Protocol::Zipkin, "POST /api/v2/spans HTTP/1.1"),
        reports(Protocol::Datadog, "POST /v0.4/traces HTTP/1.1"),
        reports(Protocol::Opentelemetry, "PRI * HTTP/2.0"),
    );
}

#[tokio::test]
async fn as_many_requests_begin_a_trace_as_are_asked_for() {
    // Where nobody accepts what is sent.
    let collector = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = collector.local_addr().unwrap().port();
    let sampled = async |sampling| {
        let tracing = Tracing { protocol: Protocol::Zipkin, host: "127.0.0.1".to_owned(), port, sampling };
        let envoy = Envoy::start(Some(&tracing), &Stats::default()).await?;
        for _ in 0..20 {
            get(envoy.application, "/").await;
        }
        let sampled = envoy.stat("http.application.tracing.random_sampling").await;
        Some((sampled, envoy.stat("http.application.tracing.not_traceable").await))
    };
    let (none, all) = tokio::join!(sampled(0), sampled(10_000));
    let (Some(none), Some(all)) = (none, all) else { return };
    assert!(none.0 == 0 && none.1 >= 20, "{none:?}");
    assert!(all.0 >= 20 && all.1 == 0, "{all:?}");
}

#[tokio::test]
async fn statistics_reach_a_statsd_server_with_their_tags() {
    let server = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
    let sink = Some(Statsd::Address(LOOPBACK, server.local_addr().unwrap().port()));
    let Some(_envoy) = Envoy::start(None, &Stats { tags: true, sink }).await else { return };
    let mut datagram = vec![0; 65_536];
    let tags = ["appmesh.mesh:k8multi", "appmesh.virtual_node:front_k8multi"];
    loop {
        let length = timeout(PATIENCE, server.recv(&mut datagram)).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&datagram[..length]);
        if text.contains("downstream_rq_2xx") || text.contains("downstream_rq_xx") {
            assert!(tags.iter().all(|tag| text.contains(tag)), "{text}");
            return;
        }
    }
}
