//! The real Envoy against this server, the one of $ENVOY or in PATH: over TLS, with a token, from the sidecar's bootstrap.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use backon::{ConstantBuilder, Retryable as _};
use mesh_api::{DnsServiceDiscovery, EgressFilterType, PortMapping, Protocol};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::{Value, from_value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
    time::Instant,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::{Status, async_trait, metadata::MetadataMap};

use super::{
    auth::{Authenticate, Caller},
    config::{self, Resources},
    server::{Ads, Configure, Following},
    view::{Backend, View},
};
use crate::{
    bootstrap,
    discovery::{Answer, Found, Key},
    routes::{CloudMapDiscovery, Node, Route, Routes, Target},
    tls::{Certificate, TlsListener},
};

const TOKEN: &str = "token-of-front";
const HOST: &str = "colorapp.k8multi.svc.cluster.local";

/// Knows one token.
struct OneToken;

#[async_trait]
impl Authenticate for OneToken {
    async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        match metadata.get("authorization").map(|value| value.as_bytes()) {
            Some(value) if value == format!("Bearer {TOKEN}").as_bytes() => {
                Ok(Caller { namespace: "k8multi".to_owned(), pod: "front".to_owned(), uid: String::new() })
            }
            other => Err(Status::unauthenticated(format!("{other:?}"))),
        }
    }
}

/// Tells one node.
struct OneNode(watch::Receiver<Option<Arc<Resources>>>);

impl Configure for OneNode {
    fn follow(&self, _: &Caller, node: &str) -> Result<Following, Status> {
        match node {
            "mesh/k8multi/virtualNode/front_k8multi" => Ok(self.0.clone()),
            other => Err(Status::permission_denied(other)),
        }
    }
}

/// Writes a certificate for 127.0.0.1 and its authority as the chart's secret has them; tells the authority.
fn certificates(folder: &Path) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Of a name of its own, or what it signs looks signed by itself.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
    fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    authority.pem()
}

/// A server that answers anything with its colour.
async fn app(color: &'static str) -> u16 {
    answering(move |_| Some((200, color))).await
}

/// A server that answers its n-th request so, or never.
async fn answering(answer: impl Fn(usize) -> Option<(u16, &'static str)> + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        for turn in 0.. {
            let Ok((mut connection, _)) = listener.accept().await else { return };
            let mut request = [0; 4096];
            let _ = connection.read(&mut request).await;
            let Some((status, body)) = answer(turn) else {
                silent.push(connection);
                continue;
            };
            let head = format!("HTTP/1.1 {status} -\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = connection.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    port
}

async fn get(port: u16, host: &str, path: &str) -> std::io::Result<String> {
    ask(port, &format!("GET {path}"), &format!("host: {host}")).await
}

async fn ask(port: u16, what: &str, headers: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("{what} HTTP/1.1\r\n{headers}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    connection.read_to_string(&mut response).await?;
    Ok(response)
}

/// Status and body.
fn answer(response: &str) -> String {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    format!("{} {}", head.split(' ').nth(1).unwrap(), body.trim())
}

/// Requests to a host out of the application: how often each body came.
async fn tally(host: &str, count: usize) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for _ in 0..count {
        *tally.entry(answer(&get(config::EGRESS_PORT, host, "/").await.unwrap())).or_default() += 1;
    }
    tally
}

fn resources(nodes: &[(&str, u16, u32)], egress: EgressFilterType) -> Arc<Resources> {
    let targets = nodes.iter().map(|(name, _, weight)| Target { node: (*name).to_owned(), weight: *weight }).collect();
    let routes = vec![Route::of_everything("color".to_owned(), targets)];
    let nodes: Vec<_> = nodes.iter().map(|(name, port, _)| (*name, *port)).collect();
    routed(&nodes, routes, egress)
}

fn routed(nodes: &[(&str, u16)], routes: Vec<Route>, egress: EgressFilterType) -> Arc<Resources> {
    let node = |port| Node {
        port,
        protocol: Protocol::Http,
        discovery: Some(CloudMapDiscovery {
            namespace: "svc2.svc.local".to_owned(),
            service: "colorapp".to_owned(),
            attributes: BTreeMap::new(),
        }),
        dns: None,
        health_check: None,
    };
    let named = |port| {
        let dns = DnsServiceDiscovery { hostname: "localhost".to_owned(), response_type: None };
        let health_check = json!({"protocol": "http", "path": "/ping", "intervalMillis": 5000, "timeoutMillis": 2000,
            "healthyThreshold": 2, "unhealthyThreshold": 2});
        Node { discovery: None, dns: Some(dns), health_check: from_value(health_check).unwrap(), ..node(port) }
    };
    let routes = Routes {
        listener: PortMapping { port: 8080, protocol: Protocol::Http },
        routes,
        nodes: nodes
            .iter()
            .map(|(name, port)| ((*name).to_owned(), if *name == "named" { named(*port) } else { node(*port) }))
            .collect(),
    };
    let key = Key::Instances(node(1).discovery.unwrap().key());
    let attributes = BTreeMap::from([("AWS_INSTANCE_IPV4".to_owned(), "127.0.0.1".to_owned())]);
    let instances = BTreeMap::from([("127.0.0.1".to_owned(), attributes)]);
    let view = View {
        mesh: "k8multi".to_owned(),
        node: "front_k8multi".to_owned(),
        listeners: vec![PortMapping { port: 8080, protocol: Protocol::Http }],
        egress,
        access_log: true,
        backends: vec![Backend { mesh: "k8multi".to_owned(), host: HOST.to_owned(), routes: Some(routes) }],
    };
    let found = Found::from([(key, Answer::Instances(Arc::new(instances)))]);
    Arc::new(config::resources(&view, &found, Some(IpAddr::V4(Ipv4Addr::new(172, 20, 0, 1)))))
}

/// Which requests a route takes, how often one is tried, and how long.
async fn takes_and_tries_as_told(told: &watch::Sender<Option<Arc<Resources>>>, red: u16, blue: u16) {
    let moody = answering(|turn| Some(if turn % 2 == 0 { (503, "not now") } else { (200, "moody") })).await;
    let silent = answering(|_| None).await;
    let route = |target: &str, route: Value| -> Route {
        let mut route = route;
        route["name"] = target.into();
        route["targets"] = json!([{"node": target, "weight": 1}]);
        from_value(route).unwrap()
    };
    let milliseconds = |value: u32| json!({"unit": "ms", "value": value});
    let again =
        |event: &str| json!({"httpRetryEvents": [event], "maxRetries": 1, "perRetryTimeout": milliseconds(5000)});
    let number =
        json!([{"name": "x-n", "match": {"range": {"start": 1, "end": 3}}}, {"name": "x-not", "invert": true}]);
    let asked = json!([{"name": "color", "match": {"exact": "blue"}}, {"name": "really"}]);
    let routes = vec![
        route("blue", json!({"prefix": "/", "headers": [{"name": "x-color", "match": {"prefix": "blue"}}]})),
        route("blue", json!({"path": {"exact": "/blue"}})),
        route("blue", json!({"prefix": "/", "method": "PUT", "queryParameters": asked})),
        route("blue", json!({"prefix": "/n", "headers": number})),
        route("moody", json!({"prefix": "/again", "retryPolicy": again("gateway-error")})),
        route("moody", json!({"prefix": "/once", "retryPolicy": again("client-error")})),
        route(
            "silent",
            json!({"prefix": "/soon", "timeout": {"perRequest": milliseconds(50), "idle": milliseconds(0)}}),
        ),
        route("named", json!({"prefix": "/named"})),
        route("red", json!({"prefix": "/"})),
    ];
    let named = app("named").await;
    let nodes = [("red", red), ("blue", blue), ("moody", moody), ("silent", silent), ("named", named)];
    told.send_replace(Some(routed(&nodes, routes, EgressFilterType::DropAll)));
    let ask = async |what: &str, header: &str| {
        let headers = format!("host: {HOST}\r\ncontent-length: 0{header}");
        answer(&ask(config::EGRESS_PORT, what, &headers).await.unwrap())
    };
    wait_for("the routes", async || ask("GET /named", "").await == "200 named").await;
    for (what, header, expected) in [
        ("GET /", "", "200 red"),
        ("GET /", "\r\nx-color: blueish", "200 blue"),
        ("GET /", "\r\nx-color: light blue", "200 red"),
        ("GET /blue?red", "", "200 blue"),
        ("GET /blue/", "", "200 red"),
        ("PUT /?color=blue&really", "", "200 blue"),
        ("PUT /?color=blue", "", "200 red"),
        ("GET /?color=blue&really", "", "200 red"),
        ("GET /n", "\r\nx-n: 2", "200 blue"),
        ("GET /n", "\r\nx-n: 3", "200 red"),
        ("GET /n", "\r\nx-n: 2\r\nx-not: 1", "200 red"),
        ("GET /named", "", "200 named"),
        ("GET /again", "", "200 moody"),
        ("GET /again", "", "200 moody"),
        ("GET /once", "", "503 not now"),
        ("GET /soon", "", "504 upstream request timeout"),
    ] {
        assert_eq!(ask(what, header).await, expected, "{what} {header:?}");
    }
    let healthy = format!("cluster.cds_egress_k8multi_named_http_{named}.health_check.success");
    wait_for("a health check", async || stat(&healthy).await > 0).await;
}

/// Under ALLOW_ALL a TLS connection passes as it is, also if the client offers HTTP by ALPN, as curl does.
async fn tls_is_no_http() {
    let passed = async || stat("tcp.cds_egress_passthrough.downstream_cx_total").await;
    let taken = async || stat("http.egress.downstream_cx_total").await;
    for offers in [&[][..], &["http/1.1"], &["h2", "http/1.1"], &["http/1.0"]] {
        let (passed_before, taken_before) = (passed().await, taken().await);
        let mut config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        config.alpn_protocols = offers.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, config::EGRESS_PORT)).await.unwrap();
        let name = ServerName::try_from("example.com").unwrap();
        // Nothing redirected this connection, so that it has nowhere to go on to.
        TlsConnector::from(Arc::new(config)).connect(name, connection).await.unwrap_err();
        wait_for("the connection to pass", async || passed().await > passed_before).await;
        assert_eq!(taken().await, taken_before, "{offers:?} counts as HTTP");
    }
}

fn envoy(folder: &Path, xds: SocketAddr, ca: &str) -> Option<Child> {
    let token = folder.join("token");
    fs::write(&token, TOKEN).unwrap();
    let bootstrap = bootstrap::bootstrap("k8multi", "front_k8multi", &format!("localhost:{}", xds.port()), ca);
    let bootstrap =
        bootstrap.to_string().replace(&format!("{}/token", bootstrap::TOKEN_FOLDER), &token.to_string_lossy());
    let log = fs::File::create(folder.join("envoy.log")).unwrap();
    let named = std::env::var_os("ENVOY");
    let mut command = Command::new(named.as_deref().unwrap_or("envoy".as_ref()));
    command.args(["--use-dynamic-base-id", "--concurrency", "1", "--config-yaml", &bootstrap]);
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn() {
        Ok(child) => Some(child),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

async fn wait_for(what: &str, holds: impl AsyncFn() -> bool) -> Duration {
    let since = Instant::now();
    let check = || async { if holds().await { Ok(()) } else { Err(()) } };
    let often = ConstantBuilder::default().with_delay(Duration::from_millis(20)).with_max_times(1000);
    assert!(check.retry(often).await.is_ok(), "not in time: {what}");
    since.elapsed()
}

async fn stat(name: &str) -> u64 {
    let stats = get(bootstrap::STATS_PORT, "localhost", "/stats").await.unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
    line.unwrap_or_default().parse().unwrap_or_default()
}

#[tokio::test]
async fn envoy_takes_what_it_is_told() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let ca = certificates(folder.path());
    let (told, following) = watch::channel(None);
    let stop = CancellationToken::new();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TlsListener::bind(listen, Certificate::load(folder.path(), "h2").unwrap()).await.unwrap();
    let xds = axum::serve::Listener::local_addr(&listener).unwrap();
    let server = tokio::spawn(Ads::new(OneToken, Arc::new(OneNode(following)), stop.clone()).serve(listener));
    let Some(_envoy) = envoy(folder.path(), xds, &ca) else {
        println!("not tested: there is no envoy in PATH, and ENVOY names none, as `make test` does");
        return;
    };

    let ready = async || {
        get(bootstrap::STATS_PORT, "localhost", "/ready").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    };
    wait_for("the stream", async || told.receiver_count() > 1).await;
    assert!(!ready().await, "without configuration Envoy is not ready");

    let (red, blue) = (app("red").await, app("blue").await);
    told.send_replace(Some(resources(&[("red", red, 1)], EgressFilterType::DropAll)));
    println!("ready after {:?}", wait_for("ready", ready).await);
    let only = |body: &str, count: usize| BTreeMap::from([(body.to_owned(), count)]);
    assert_eq!(tally(&format!("{HOST}:8080"), 20).await, only("200 red", 20));
    assert_eq!(tally(HOST, 5).await, only("200 red", 5));
    let refused = "404 no backend of VirtualNode front_k8multi has this host, and mesh k8multi drops other egress";
    assert_eq!(tally("example.com", 1).await, only(refused, 1));

    // From one target to another while requests go on: not one fails.
    told.send_replace(Some(resources(&[("blue", blue, 1)], EgressFilterType::DropAll)));
    let since = Instant::now();
    let mut seen = BTreeMap::new();
    while since.elapsed() < Duration::from_secs(20) && !seen.contains_key("200 blue") {
        seen.extend(tally(HOST, 1).await);
    }
    println!("another target after {:?}", since.elapsed());
    assert!(seen.contains_key("200 blue") && seen.keys().all(|body| body.starts_with("200")), "{seen:?}");
    // The application, the way out, the admin interface and the new target.
    wait_for("the old cluster is gone", async || stat("cluster_manager.active_clusters").await == 4).await;

    told.send_replace(Some(resources(&[("blue", blue, 1), ("red", red, 1)], EgressFilterType::AllowAll)));
    wait_for("two targets", async || tally(HOST, 1).await.contains_key("200 red")).await;
    let both = tally(HOST, 200).await;
    assert!(both["200 red"] > 50 && both["200 blue"] > 50, "{both:?}");

    tls_is_no_http().await;
    takes_and_tries_as_told(&told, red, blue).await;

    // Nobody behind a target: Envoy says so, and goes on.
    told.send_replace(Some(resources(&[("gone", 1, 1)], EgressFilterType::AllowAll)));
    wait_for("nobody", async || tally(HOST, 1).await.keys().all(|answer| answer.starts_with("503"))).await;
    println!("of a port where nobody listens Envoy says {:?}", tally(HOST, 1).await);

    for kind in ["cluster_manager.cds", "listener_manager.lds", "http.egress.rds.rds_egress"] {
        assert_eq!(stat(&format!("{kind}.update_rejected")).await, 0, "{kind}");
        assert!(stat(&format!("{kind}.update_success")).await > 0, "{kind}");
    }
    stop.cancel();
    server.await.unwrap().unwrap();
}
