//! Tries the real Envoy, the one of $ENVOY or in PATH, against the xDS server: over TLS, with a token, from the sidecar's
//! bootstrap, with both variants of the protocol.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]
#![expect(clippy::print_stdout, reason = "a test that says what it saw")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use appmesh_controller::{
    envoy::{self, EGRESS_PORT},
    model::{
        AccessLog, Backend, CloudMapDiscovery, Discovery, DnsDiscovery, Egress, HeaderMatch, HeaderName, HealthCheck,
        HealthCheckProtocol, Listener, PackedMap, PathMatch, Port, Protocol, Proxy, QueryMatch, Regex, RetryOn,
        RetryPolicy, Route, RouteMatch, RoutedListener, Routing, Scheme, ServiceKey, Target, Timeouts, Upstream,
        ValueMatch, Workload,
    },
    xds::{self, Snapshot},
};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::TlsConnector;

#[path = "support/controller.rs"]
mod controller;
#[path = "envoy/gateway.rs"]
mod gateway;
#[path = "envoy/health.rs"]
mod health;
#[path = "envoy/policies.rs"]
mod policies;
#[path = "envoy/protocols.rs"]
mod protocols;
#[path = "envoy/sds.rs"]
mod sds;
mod support;
#[path = "envoy/tls.rs"]
mod tls;

use controller::{Controller, STATS_PORT, envoy, envoy_of, workload_name};
use support::{certificates, wait_for};

const HOST: &str = "colorapp.k8multi.svc.cluster.local";
const TCP_8080: Port = Port { port: 8080, protocol: Protocol::Http };

/// Envoy's ports are the same in each test.
static PORTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A server that answers anything with its colour.
async fn app(color: &'static str) -> u16 {
    answering(move |_| Some((200, color))).await
}

/// A server that answers its n-th request so, or never.
async fn answering(answer: impl Fn(usize) -> Option<(u16, &'static str)> + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    answer_on(listener, answer);
    port
}

fn answer_on(listener: TcpListener, answer: impl Fn(usize) -> Option<(u16, &'static str)> + Send + 'static) {
    tokio::spawn(async move {
        let mut silent = Vec::new();
        for n in 0.. {
            let Ok((mut connection, _)) = listener.accept().await else { return };
            let mut request = [0; 4096];
            let _ = connection.read(&mut request).await;
            let Some((status, body)) = answer(n) else {
                silent.push(connection);
                continue;
            };
            let head = format!("HTTP/1.1 {status} -\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = connection.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
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
        *tally.entry(answer(&get(EGRESS_PORT, host, "/").await.unwrap())).or_default() += 1;
    }
    tally
}

/// An upstream whose pods are the instances of one service, or those behind a name.
fn upstream(name: &str, port: u16) -> (String, Upstream) {
    let key = ServiceKey { namespace: "svc2.svc.local".to_owned(), service: "colorapp".to_owned() };
    let attributes = PackedMap::from([("color", name)]);
    let instances = Discovery::CloudMap(CloudMapDiscovery { key, attributes });
    let health_check = HealthCheck {
        protocol: HealthCheckProtocol::http("/ping".to_owned()).unwrap(),
        healthy_threshold: 2,
        unhealthy_threshold: 2,
        interval_millis: 5000,
        timeout_millis: 2000,
    };
    let dns = || Discovery::Dns(DnsDiscovery::new("localhost".to_owned(), false).unwrap());
    let is_named = name == "named";
    let discovery = if is_named { dns() } else { instances };
    let port = Port { port, protocol: Protocol::Http };
    (name.to_owned(), Upstream { health_check: is_named.then_some(health_check), ..Upstream::new(port, discovery) })
}

/// A snapshot with these routes, and with as many endpoints for each upstream as `instances` says.
fn routed(nodes: &[(&str, u16)], routes: Vec<Route>, egress: Egress, instances: &[(&str, u8)]) -> Snapshot {
    let upstreams = nodes.iter().map(|(name, port)| upstream(name, *port)).collect();
    snapshot(vec![backend(Routing::of_port(TCP_8080, routes, upstreams))], egress, instances)
}

/// The backend that applications call.
fn backend(routing: Routing) -> Backend {
    let (mesh, host) = ("k8multi".to_owned(), HOST.to_owned());
    Backend::new(mesh, host, Some(Arc::new(routing)))
}

/// A snapshot with these backends, and with as many endpoints for each upstream as `instances` says.
fn snapshot(backends: Vec<Backend>, egress: Egress, instances: &[(&str, u8)]) -> Snapshot {
    let workload = Workload {
        name: workload_name(),
        listeners: vec![Listener::new(TCP_8080)],
        egress,
        access_log: Some(AccessLog::new("/dev/stdout".to_owned(), None).unwrap()),
        backends,
        left_out: Vec::new(),
    };
    snapshot_of(&Proxy::Sidecar(workload), instances)
}

/// A snapshot of an Envoy, with as many endpoints for each upstream as `instances` says.
fn snapshot_of(proxy: &Proxy, instances: &[(&str, u8)]) -> Snapshot {
    let configuration = envoy::encode(proxy, Some(IpAddr::V4(Ipv4Addr::new(172, 20, 0, 1))));
    let instance = |name: &str, n: u8| {
        let address = format!("127.0.0.{n}");
        let attributes = PackedMap::from([("AWS_INSTANCE_IPV4", address.as_str()), ("color", name)]);
        (format!("{name}-{n}"), Arc::new(attributes))
    };
    let instances = instances.iter().flat_map(|(name, count)| (1..=*count).map(|n| instance(name, n))).collect();
    let endpoints = configuration.upstreams.iter();
    let endpoints =
        endpoints.map(|(name, upstream)| (name.clone(), envoy::endpoint::encode(name, upstream, &instances)));
    Snapshot {
        clusters: configuration.clusters,
        endpoints: endpoints.collect(),
        listeners: configuration.listeners,
        secrets: configuration.secrets,
        routes: configuration.routes,
        ..Snapshot::default()
    }
}

/// A snapshot with one route to weighted nodes of one pod each.
fn weighted(nodes: &[(&str, u16, u32)], egress: Egress) -> Snapshot {
    let targets = nodes.iter().map(|(name, _, weight)| Target { upstream: (*name).to_owned(), weight: *weight });
    let routes = vec![Route::of_everything("color".to_owned(), targets.collect())];
    let instances: Vec<_> = nodes.iter().map(|(name, ..)| (*name, 1)).collect();
    let nodes: Vec<_> = nodes.iter().map(|(name, port, _)| (*name, *port)).collect();
    routed(&nodes, routes, egress, &instances)
}

/// The routes decide by path, method, header and query, how often a request is tried, and how long.
async fn matches_retries_and_timeouts(controller: &Controller, red: u16, blue: u16) {
    let moody = answering(|n| Some(if n % 2 == 0 { (503, "not now") } else { (200, "moody") })).await;
    let silent = answering(|_| None).await;
    let usual = answering(|n| Some([(503, "not now"), (200, "usual"), (500, "broken")][n % 3])).await;
    let named = app("named").await;
    let route = |target: &str, route_match: RouteMatch| {
        let target = Target { upstream: target.to_owned(), weight: 1 };
        Route { route_match, ..Route::of_everything(target.upstream.clone(), vec![target]) }
    };
    let of = RouteMatch::default;
    let prefix = |prefix: &str| RouteMatch { path: PathMatch::prefix(prefix.to_owned()).unwrap(), ..of() };
    let header =
        |name: &str, value, invert| HeaderMatch { name: HeaderName::new(name.to_owned()).unwrap(), value, invert };
    let retry = |event| Some(RetryPolicy::new(vec![event], 1, 5000).unwrap());
    let color = header("x-color", ValueMatch::prefix("blue".to_owned()).unwrap(), false);
    let number = header("x-n", ValueMatch::range(1, 3).unwrap(), false);
    let query = |name: &str, exact: Option<&str>| QueryMatch::new(name.to_owned(), exact.map(str::to_owned)).unwrap();
    let queries = vec![query("color", Some("blue")), query("really", None)];
    let regex = |text: &str| Regex::new(text.to_owned()).unwrap();
    let path = |text: &str| RouteMatch { path: PathMatch::Regex(regex(text)), ..of() };
    let user = header("x-user", ValueMatch::Regex(regex("(anna|otto)[0-9]*")), false);
    // As long as the API allows, and larger than Envoy would take by itself.
    let long = format!("/long/{}", "(a|b)?".repeat(41));
    let soon = Timeouts { request_millis: Some(50), idle_millis: Some(0) };
    let routes = vec![
        route("blue", RouteMatch { headers: vec![color], ..of() }),
        route("blue", RouteMatch { path: PathMatch::exact("/blue".to_owned()).unwrap(), ..of() }),
        route("blue", RouteMatch { method: Some("PUT".to_owned()), query_parameters: queries, ..of() }),
        route("blue", RouteMatch { headers: vec![number, header("x-not", ValueMatch::Present, true)], ..prefix("/n") }),
        route("blue", path("/v[0-9]+/.*")),
        route("blue", path(&long)),
        route("blue", path(r"/large/(\pL{2}\pN?){3}[a-z]{1000}")),
        route("blue", RouteMatch { headers: vec![user], ..prefix("/users") }),
        route("blue", RouteMatch { scheme: Some(Scheme::Https), ..prefix("/scheme") }),
        Route { retry_policy: retry(RetryOn::GatewayError), ..route("moody", prefix("/again")) },
        Route { retry_policy: retry(RetryOn::ClientError), ..route("moody", prefix("/once")) },
        route("usual", prefix("/usual")),
        Route { timeouts: soon, ..route("silent", prefix("/soon")) },
        route("named", prefix("/named")),
        route("red", of()),
    ];
    let nodes =
        [("red", red), ("blue", blue), ("moody", moody), ("silent", silent), ("named", named), ("usual", usual)];
    controller.set(routed(&nodes, routes, Egress::DropAll, &nodes.map(|(name, _)| (name, 1))));
    let ask = async |what: &str, header: &str| {
        let headers = format!("host: {HOST}\r\ncontent-length: 0{header}");
        answer(&ask(EGRESS_PORT, what, &headers).await.unwrap())
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
        ("GET /v12/a?b", "", "200 blue"),
        ("GET /v12", "", "200 red"),
        ("GET /a/v12/a", "", "200 red"),
        ("GET /long/abab", "", "200 blue"),
        ("GET /long/abc", "", "200 red"),
        ("GET /users", "\r\nx-user: otto3", "200 blue"),
        ("GET /users", "\r\nx-user: an otto", "200 red"),
        ("GET /scheme", "", "200 red"),
        ("GET /scheme", "\r\nx-forwarded-proto: https", "200 blue"),
        ("GET /named", "", "200 named"),
        ("GET /again", "", "200 moody"),
        ("GET /again", "", "200 moody"),
        ("GET /once", "", "503 not now"),
        ("POST /usual", "", "200 usual"),
        ("POST /usual", "", "500 broken"),
        ("GET /soon", "", "504 upstream request timeout"),
    ] {
        assert_eq!(ask(what, header).await, expected, "{what} {header:?}");
    }
    let healthy = format!("cluster.cds_egress_k8multi_named_http_{named}.health_check.success");
    wait_for("a health check", async || stat(&healthy).await > 0).await;
}

/// Connections that went to wherever they were going.
const PASSED: &str = "tcp.cds_egress_passthrough.downstream_cx_total";

/// Speaks TLS to Envoy, as a client that asks for that name and offers these protocols by ALPN.
async fn speak_tls(name: &'static str, offers: &[&str]) -> std::io::Result<()> {
    let mut config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = offers.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, EGRESS_PORT)).await?;
    let name = ServerName::try_from(name).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, connection).await.map(|_| ())
}

/// Under ALLOW_ALL a TLS connection passes as it is, also if the client offers HTTP by ALPN, as curl does.
async fn tls_is_no_http() {
    let passed = async || stat(PASSED).await;
    let as_http = async || stat("http.egress.downstream_cx_total").await;
    for offers in [&[][..], &["http/1.1"], &["h2", "http/1.1"], &["http/1.0"]] {
        let (passed_before, as_http_before) = (passed().await, as_http().await);
        // Nothing redirected this connection, so that it has nowhere to go on to.
        speak_tls("example.com", offers).await.unwrap_err();
        wait_for("the connection to pass", async || passed().await > passed_before).await;
        assert_eq!(as_http().await, as_http_before, "{offers:?} counts as HTTP");
    }
}

/// While requests go on, the target changes again and again: not one fails.
async fn targets_change(controller: &Controller, red: u16, blue: u16) {
    let done = Arc::new(AtomicBool::new(false));
    let stop = done.clone();
    let requests = tokio::spawn(async move {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        while !stop.load(Ordering::Relaxed) {
            tally(HOST, 5).await.into_iter().for_each(|(body, count)| *seen.entry(body).or_default() += count);
        }
        seen
    });
    for n in 0..10 {
        let (node, other) = if n % 2 == 0 { (("blue", blue, 1), "200 blue") } else { (("red", red, 1), "200 red") };
        controller.set(weighted(&[node], Egress::DropAll));
        wait_for(other, async || tally(HOST, 1).await.contains_key(other)).await;
        if n % 3 == 0 {
            controller.settled().await;
        }
    }
    controller.settled().await;
    done.store(true, Ordering::Relaxed);
    let seen = requests.await.unwrap();
    println!("while the target changed: {seen:?}");
    assert!(seen.keys().all(|body| body == "200 red" || body == "200 blue"), "{seen:?}");
    // The application, the way out, the admin interface and the target.
    wait_for("the old cluster is gone", async || stat("cluster_manager.active_clusters").await == 4).await;
}

/// A change is sent alone.
async fn only_what_changed_is_sent(controller: &Controller, red: u16, blue: u16) {
    let targets = |red: u32| {
        let target = |name: &str, weight| Target { upstream: name.to_owned(), weight };
        vec![Route::of_everything("color".to_owned(), vec![target("blue", 1), target("red", red)])]
    };
    let nodes = [("blue", blue), ("red", red)];
    let changed = |weight, reds| routed(&nodes, targets(weight), Egress::DropAll, &[("blue", 1), ("red", reds)]);
    controller.set(changed(1, 1));
    let updates = async |name: &str, port: u16| {
        stat(&format!("cluster.cds_egress_k8multi_{name}_http_{port}.update_success")).await
    };
    assert_eq!(controller.pushes_of(changed(2, 1)).await, [0, 0, 0, 1], "a weight");
    let before = (updates("blue", blue).await, updates("red", red).await);
    assert_eq!(controller.pushes_of(changed(2, 3)).await, [0, 1, 0, 0], "pods");
    let after = (updates("blue", blue).await, updates("red", red).await);
    assert_eq!(after, (before.0, before.1 + 1), "red has new pods, and blue has not");
    let members = format!("cluster.cds_egress_k8multi_red_http_{red}.membership_total");
    wait_for("three pods", async || stat(&members).await == 3).await;
}

/// An Envoy connects again, to a controller that starts meanwhile and is to send the same, and then another.
async fn connects_again(controller: Controller, folder: &Path, is_delta: bool, red: u16, blue: u16) -> Controller {
    let both = || weighted(&[("blue", blue, 1), ("red", red, 1)], Egress::AllowAll);
    controller.set(both());
    controller.settled().await;
    let (port, snapshot) = (controller.address.port(), controller.snapshot.lock().unwrap().clone());
    let clusters = async || stat("cluster_manager.cds.update_success").await;
    let before = clusters().await;
    controller.stop().await;
    let since = Instant::now();
    let controller = Controller::start(folder, port, snapshot).await;
    wait_for("the stream", async || !controller.streams().is_empty()).await;
    controller.settled().await;
    println!("connected again and settled after {:?}, with responses {:?}", since.elapsed(), controller.pushes());
    if is_delta {
        assert_eq!(controller.pushes(), [0; 4], "Envoy has it all");
        assert_eq!(clusters().await, before);
    }
    assert_eq!(tally(HOST, 20).await.values().sum::<usize>(), 20);

    // This time the other target is all that remains: red goes only after the routes.
    let port = controller.address.port();
    controller.stop().await;
    let only_blue = Arc::new(weighted(&[("blue", blue, 1)], Egress::AllowAll));
    let controller = Controller::start(folder, port, Some(only_blue)).await;
    wait_for("the stream", async || {
        if is_delta {
            let bodies = tally(HOST, 1).await;
            assert!(bodies.keys().all(|body| body == "200 red" || body == "200 blue"), "{bodies:?}");
        }
        !controller.streams().is_empty()
    })
    .await;
    controller.settled().await;
    wait_for("red is gone", async || stat("cluster_manager.active_clusters").await == 4).await;
    if is_delta {
        assert_eq!(controller.pushes()[0], 1, "only the removal");
    }
    assert_eq!(tally(HOST, 5).await, BTreeMap::from([("200 blue".to_owned(), 5)]));
    controller
}

async fn stat(name: &str) -> u64 {
    let stats = get(STATS_PORT, "localhost", "/stats").await.unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
    line.unwrap_or_default().parse().unwrap_or_default()
}

#[tokio::test]
async fn state_of_the_world() {
    envoy_has_its_configuration(xds::Protocol::Sotw).await;
}

#[tokio::test]
async fn delta() {
    envoy_has_its_configuration(xds::Protocol::Delta).await;
}

async fn envoy_has_its_configuration(protocol: xds::Protocol) {
    let _ports = PORTS.lock().await;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let ca = certificates(folder.path());
    let controller = Controller::start(folder.path(), 0, None).await;
    let Some(mut child) = envoy(folder.path(), protocol, controller.address, &ca) else {
        println!("not tested: there is no envoy in PATH, and ENVOY names none, as `make test` does");
        return;
    };

    let ready =
        async || get(STATS_PORT, "localhost", "/ready").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"));
    wait_for("the stream", async || controller.streams().iter().any(|stream| stream.protocol == protocol)).await;
    assert!(!ready().await, "without configuration Envoy is not ready");

    let (red, blue) = (app("red").await, app("blue").await);
    controller.set(weighted(&[("red", red, 1)], Egress::DropAll));
    println!("ready after {:?}", wait_for("ready", ready).await);
    let only = |body: &str, count: usize| BTreeMap::from([(body.to_owned(), count)]);
    assert_eq!(tally(&format!("{HOST}:8080"), 20).await, only("200 red", 20));
    assert_eq!(tally(HOST, 5).await, only("200 red", 5));
    let refused = "404 no backend of VirtualNode front_k8multi has this host, and mesh k8multi drops other egress";
    assert_eq!(tally("example.com", 1).await, only(refused, 1));

    targets_change(&controller, red, blue).await;
    only_what_changed_is_sent(&controller, red, blue).await;

    controller.set(weighted(&[("blue", blue, 1), ("red", red, 1)], Egress::AllowAll));
    wait_for("two targets", async || tally(HOST, 1).await.contains_key("200 red")).await;
    controller.settled().await;
    let both = tally(HOST, 200).await;
    assert!(both["200 red"] > 50 && both["200 blue"] > 50, "{both:?}");

    tls_is_no_http().await;
    matches_retries_and_timeouts(&controller, red, blue).await;
    protocols::http2_and_grpc(&controller).await;
    protocols::several_listeners(&controller, red, blue).await;
    protocols::tcp(&controller, red).await;
    let is_delta = protocol == xds::Protocol::Delta;
    let controller = connects_again(controller, folder.path(), is_delta, red, blue).await;

    // Nobody behind a target: Envoy says so, and goes on.
    controller.set(weighted(&[("gone", 1, 1)], Egress::AllowAll));
    wait_for("nobody", async || tally(HOST, 1).await.keys().all(|answer| answer.starts_with("503"))).await;
    println!("of a port where nobody listens Envoy says {:?}", tally(HOST, 1).await);

    for kind in ["cluster_manager.cds", "listener_manager.lds", "http.egress.rds.rds_egress"] {
        assert_eq!(stat(&format!("{kind}.update_rejected")).await, 0, "{kind}");
        assert!(stat(&format!("{kind}.update_success")).await > 0, "{kind}");
    }
    let streams = controller.metrics.xds_streams.clone();
    child.kill().await.unwrap();
    wait_for("the stream is gone", async || streams.get() == 0 && controller.streams().is_empty()).await;
    controller.stop().await;
}
