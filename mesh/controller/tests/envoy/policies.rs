//! Shows what a real Envoy does by the policies of listeners and upstreams.

use std::fs;

use appmesh_controller::{
    envoy::{Configuration, INGRESS_PORT, Resource},
    model::{self, ConnectionPool, LogFormat, OutlierDetection},
};
use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster,
    core::v3::{address::Address, socket_address::PortSpecifier},
    endpoint::v3::lb_endpoint::HostIdentifier,
};
use prost::Message as _;
use tokio::{sync::Semaphore, task::JoinSet};

use super::*;

/// A workload whose only listener is reached at Envoy's ingress port, as nothing redirects connections here.
pub fn listening(listener: Listener, backends: Vec<Backend>) -> Workload {
    Workload {
        name: workload_name(),
        listeners: vec![listener],
        egress: Egress::DropAll,
        access_log: None,
        backends,
        left_out: Vec::new(),
    }
}

pub const INGRESS: Port = Port { port: INGRESS_PORT, protocol: Protocol::Http };

/// A backend with one route to one upstream.
pub fn backend(name: &str, upstream: Upstream) -> Backend {
    let target = Target { upstream: name.to_owned(), weight: 1 };
    let routes = vec![Route::of_everything(name.to_owned(), vec![target])];
    let routing = Routing::of_port(TCP_8080, routes, BTreeMap::from([(name.to_owned(), upstream)]));
    Backend::new("k8multi".to_owned(), HOST.to_owned(), Some(Arc::new(routing)))
}

pub fn cloud_map(name: &str, port: u16) -> Upstream {
    upstream(name, port).1
}

/// A snapshot whose application is on another port, and whose upstreams have these addresses.
pub fn snapshot_of(workload: &Workload, application: u16, addresses: &[&str]) -> Snapshot {
    let Configuration { secrets, mut clusters, listeners, routes, upstreams, .. } =
        envoy::encode(&Proxy::Sidecar(workload.clone()), None);
    for resource in clusters.values_mut().filter(|resource| resource.name.starts_with("cds_ingress")) {
        let mut cluster = Cluster::decode(&*resource.body.value).unwrap();
        let endpoints = cluster.load_assignment.iter_mut().flat_map(|assignment| &mut assignment.endpoints);
        for endpoint in endpoints.flat_map(|locality| &mut locality.lb_endpoints) {
            let Some(HostIdentifier::Endpoint(endpoint)) = &mut endpoint.host_identifier else { panic!() };
            let Some(Address::SocketAddress(socket)) = &mut endpoint.address.as_mut().unwrap().address else {
                panic!()
            };
            socket.port_specifier = Some(PortSpecifier::PortValue(application.into()));
        }
        *resource = Resource::new(&cluster.name, &cluster).1;
    }
    let endpoints = upstreams.iter().map(|(name, upstream)| {
        let color = upstream.discovery.cloud_map().unwrap().attributes.get("color").unwrap();
        let instance =
            |ip: &&str| ((*ip).to_owned(), Arc::new(PackedMap::from([("AWS_INSTANCE_IPV4", *ip), ("color", color)])));
        (name.clone(), envoy::endpoint::encode(name, upstream, &addresses.iter().map(instance).collect()))
    });
    Snapshot {
        endpoints: endpoints.collect(),
        secrets,
        clusters,
        listeners,
        routes,
        refusal: Proxy::Sidecar(workload.clone()).refusal(),
        ..Snapshot::default()
    }
}

/// A request that comes to the application; empty where Envoy closes the connection.
pub async fn incoming(path: &str) -> String {
    let response = get(INGRESS_PORT, HOST, path).await.unwrap_or_default();
    if response.is_empty() { response } else { answer(&response) }
}

/// An application that answers as soon as the gate opens, and counts its requests.
async fn behind(gate: Arc<Semaphore>) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let (gate, count) = (gate.clone(), count.clone());
            tokio::spawn(async move {
                let _ = connection.read(&mut [0; 4096]).await;
                count.fetch_add(1, Ordering::Relaxed);
                let _open = gate.acquire().await;
                let _ =
                    connection.write_all(b"HTTP/1.1 200 -\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
            });
        }
    });
    (port, seen)
}

/// The application has no longer than its listener says, and a connection may be silent no longer.
async fn timeouts(controller: &Controller) {
    let silent = answering(|_| None).await;
    let set = |timeouts| {
        let listener = Listener { timeouts, ..Listener::new(INGRESS) };
        controller.set(snapshot_of(&listening(listener, vec![backend("red", cloud_map("red", 1))]), silent, &[]));
    };
    set(Timeouts { request_millis: Some(50), idle_millis: None });
    wait_for("the listener", async || incoming("/").await == "504 upstream request timeout").await;
    set(Timeouts { request_millis: None, idle_millis: Some(50) });
    wait_for("the stream's timeout", async || incoming("/").await == "504 stream timeout").await;
    let mut silent = TcpStream::connect((Ipv4Addr::LOCALHOST, INGRESS_PORT)).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "Envoy closes a silent connection");
}

/// An application that takes two connections, and lets one request wait, is sent no fourth.
async fn connection_pool(controller: &Controller) {
    let gate = Arc::new(Semaphore::new(0));
    let (application, seen) = behind(gate.clone()).await;
    let pool = ConnectionPool { max_connections: Some(2), max_pending_requests: Some(1), max_requests: None };
    let listener = Listener { connection_pool: Some(pool), ..Listener::new(INGRESS) };
    controller.set(snapshot_of(&listening(listener, vec![backend("red", cloud_map("red", 1))]), application, &[]));
    controller.settled().await;
    let mut requests = JoinSet::new();
    for n in 1..=2 {
        requests.spawn(incoming("/"));
        wait_for("a request to come", async || seen.load(Ordering::Relaxed) == n).await;
    }
    requests.spawn(incoming("/"));
    let waiting = format!("cluster.cds_ingress_k8multi_front_k8multi_http_{INGRESS_PORT}.upstream_rq_pending_active");
    wait_for("a request to wait", async || stat(&waiting).await == 1).await;
    let overflow = "503 upstream connect error or disconnect/reset before headers. reset reason: overflow";
    assert_eq!(incoming("/").await, overflow);
    gate.add_permits(3);
    assert_eq!(requests.join_all().await, ["200 ok"; 3]);
}

/// Of two pods the one that answers with 500 is left out after its second error.
async fn outlier_detection(controller: &Controller) {
    let good = app("good").await;
    let bad = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), good)).await.unwrap();
    answer_on(bad, |_| Some((500, "bad")));
    let detection = OutlierDetection {
        max_server_errors: 2,
        interval_millis: 600_000,
        base_ejection_millis: 600_000,
        max_ejection_percent: 1,
    };
    let upstream = Upstream { outlier_detection: Some(detection), ..cloud_map("moody", good) };
    let workload = listening(Listener::new(INGRESS), vec![backend("moody", upstream)]);
    controller.set(snapshot_of(&workload, good, &["127.0.0.1", "127.0.0.2"]));
    controller.settled().await;
    wait_for("the cluster", async || tally(HOST, 1).await.contains_key("200 good")).await;
    let before = tally(HOST, 50).await;
    println!("until a pod is left out: {before:?}");
    // Half of them would be bad; Envoy's workers learn a moment later that a pod is left out.
    assert!(before.get("500 bad").is_none_or(|bad| *bad < 10), "{before:?}");
    let ejected = format!("cluster.cds_egress_k8multi_moody_http_{good}.outlier_detection.ejections_active");
    assert_eq!(stat(&ejected).await, 1);
    assert_eq!(tally(HOST, 20).await, BTreeMap::from([("200 good".to_owned(), 20)]));
}

/// Requests are written to a file, as its listener says.
async fn access_log(controller: &Controller, folder: &Path) {
    let application = app("logged").await;
    let lines = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let set = |name: &str, format: LogFormat| {
        let path = folder.join(name).to_string_lossy().into_owned();
        let access_log = Some(model::AccessLog::new(path, Some(format)).unwrap());
        let workload =
            Workload { access_log, ..listening(Listener::new(INGRESS), vec![backend("red", cloud_map("red", 1))]) };
        controller.set(snapshot_of(&workload, application, &[]));
    };
    let field = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let fields = [field("path", "%REQ(:PATH)%"), field("code", "%RESPONSE_CODE%"), field("mixed", "%PROTOCOL% %%")];
    set("access.json", LogFormat::json(fields).unwrap());
    wait_for("a line of JSON", async || {
        incoming("/a%22b").await == "200 logged" && lines("access.json").ends_with('\n')
    })
    .await;
    let line: serde_json::Value = serde_json::from_str(lines("access.json").lines().next().unwrap()).unwrap();
    assert_eq!(line, serde_json::json!({"path": "/a%22b", "code": 200, "mixed": "HTTP/1.1 %"}));
    set("access.txt", LogFormat::text("%REQ(:METHOD)% %RESPONSE_CODE%\n".to_owned()).unwrap());
    wait_for("a line of text", async || {
        incoming("/").await == "200 logged" && lines("access.txt").starts_with("GET 200\n")
    })
    .await;
}

/// Where a listener cannot be followed as it is written, nothing comes to the application any more, and Envoy's log says
/// why: once, while Envoy stays configured.
async fn no_listener(controller: &Controller, log: &Path) {
    let application = app("red").await;
    let set = |listeners: Vec<Listener>, left_out: &[&str]| {
        let left_out = left_out.iter().map(|reason| (*reason).to_owned()).collect();
        let called = vec![backend("red", cloud_map("red", 1))];
        let workload = Workload { listeners, left_out, ..listening(Listener::new(INGRESS), called) };
        controller.set(snapshot_of(&workload, application, &["127.0.0.1"]));
    };
    let written = |reason: &str| {
        let line = format!("{} is not in force as written: {reason}", workload_name());
        let log = fs::read_to_string(log).unwrap();
        log.lines().filter(|written| written.contains("[warning]") && written.contains(&line)).count()
    };
    let (first, second) = ("spec.listeners[0].tls: the first reason", "spec.listeners[0].tls: the second reason");
    for reason in [first, second] {
        set(Vec::new(), &[reason]);
        wait_for("the reason in the log", async || written(reason) > 0).await;
        let is_refused = async || TcpStream::connect((Ipv4Addr::LOCALHOST, INGRESS_PORT)).await.is_err();
        wait_for("no connection", is_refused).await;
    }
    set(vec![Listener::new(INGRESS)], &[]);
    wait_for("the listener", async || incoming("/").await == "200 red").await;
    assert_eq!([first, second].map(written), [1, 1]);
}

#[tokio::test]
async fn policies() {
    let _ports = PORTS.lock().await;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let ca = certificates(folder.path());
    let controller = Controller::start(folder.path(), 0, None).await;
    let socket = folder.path().join("sds.sock").to_string_lossy().into_owned();
    let envoy = envoy_of(&workload_name(), folder.path(), xds::Protocol::Delta, controller.address, &ca, Some(&socket));
    let Some(mut child) = envoy else {
        println!("not tested: there is no envoy in PATH, and ENVOY names none, as `make test` does");
        return;
    };
    wait_for("the stream", async || !controller.streams().is_empty()).await;
    timeouts(&controller).await;
    connection_pool(&controller).await;
    outlier_detection(&controller).await;
    health::health_checks(&controller).await;
    access_log(&controller, folder.path()).await;
    tls::tls(&controller, folder.path(), Path::new(&socket)).await;
    no_listener(&controller, &folder.path().join("envoy.log")).await;
    for kind in ["cluster_manager.cds", "listener_manager.lds", "http.egress.rds.rds_egress"] {
        assert_eq!(stat(&format!("{kind}.update_rejected")).await, 0, "{kind}");
    }
    child.kill().await.unwrap();
    controller.stop().await;
}
