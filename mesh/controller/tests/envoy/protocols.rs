//! Shows what Envoy does with protocols other than HTTP/1.1.

use appmesh_controller::envoy::Resource;
use envoy_types::pb::envoy::config::{core::v3::address, listener::v3 as lds};
use prost::Message as _;

use super::*;
use support::h2c;

/// HTTP/2 and gRPC go by their routes, and statuses of gRPC are tried again.
pub async fn http2_and_grpc(controller: &Controller) {
    let plain = h2c::serve(|_| ("plain", None)).await;
    let take = h2c::serve(|_| ("take", Some(0))).await;
    let gold = h2c::serve(|_| ("gold", Some(0))).await;
    let moody = h2c::serve(|n| if n % 2 == 0 { ("", Some(14)) } else { ("moody", Some(0)) }).await;
    let route = |target: &str, route_match: RouteMatch| {
        let target = Target { upstream: target.to_owned(), weight: 1 };
        Route { route_match, ..Route::of_everything(target.upstream.clone(), vec![target]) }
    };
    let grpc = |service: &str, method: Option<&str>| {
        let path = PathMatch::grpc(service, method).unwrap();
        RouteMatch { path, grpc: true, ..RouteMatch::default() }
    };
    let tier = HeaderMatch {
        name: HeaderName::new("x-tier".to_owned()).unwrap(),
        value: ValueMatch::Exact("gold".to_owned()),
        invert: false,
    };
    let retry = |event| Some(RetryPolicy::new(vec![event], 1, 5000).unwrap());
    let routes = vec![
        route("take", grpc("shop.Stock", Some("Take"))),
        route("gold", RouteMatch { headers: vec![tier], ..grpc("shop.Stock", None) }),
        Route { retry_policy: retry(RetryOn::Unavailable), ..route("moody", grpc("shop.Again", None)) },
        Route { retry_policy: retry(RetryOn::Internal), ..route("moody", grpc("shop.Once", None)) },
        route("plain", RouteMatch::default()),
    ];
    let nodes = [("plain", plain), ("take", take), ("gold", gold), ("moody", moody)];
    let http2 = |(name, port): (&str, u16)| {
        let (name, mut upstream) = upstream(name, port);
        upstream.port.protocol = Protocol::Http2;
        (name, upstream)
    };
    let listener = Port { port: 8080, protocol: Protocol::Grpc };
    let routing = Routing::of_port(listener, routes, nodes.map(http2).into());
    controller.set(snapshot(vec![backend(routing)], Egress::DropAll, &nodes.map(|(name, _)| (name, 1))));
    let authority = format!("{HOST}:8080");
    let ask = async |what: &str, headers: &[_]| h2c::ask(EGRESS_PORT, &authority, what, headers).await;
    wait_for("the routes", async || ask("GET /", &[]).await == "200 plain").await;
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    for (what, headers, expected) in [
        ("POST /shop.Stock/Take", &[GRPC][..], "200 take 0"),
        ("POST /shop.Stock/Take", &[("content-type", "application/grpc+proto")], "200 take 0"),
        ("POST /shop.Stock/Take", &[("content-type", "text/plain")], "200 plain"),
        ("POST /shop.Stock/Give", &[GRPC], "200 plain"),
        ("POST /shop.Stock/Give", &[GRPC, ("x-tier", "gold")], "200 gold 0"),
        ("POST /shop.Stocks/Give", &[GRPC, ("x-tier", "gold")], "200 plain"),
        ("POST /shop.Again/A", &[GRPC], "200 moody 0"),
        ("POST /shop.Once/A", &[GRPC], "200  14"),
    ] {
        assert_eq!(ask(what, headers).await, expected, "{what} {headers:?}");
    }
    assert_eq!(answer(&get(EGRESS_PORT, HOST, "/").await.unwrap()), "200 plain", "HTTP/1.1 to HTTP/2");
}

/// A server that says its name before anything is asked, as databases do.
async fn speaks_first(name: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.write_all(name.as_bytes()).await;
            let _ = connection.shutdown().await;
            let _ = connection.read_to_end(&mut Vec::new()).await;
        }
    });
    port
}

/// What a connection to that address says first; nothing if it is closed.
async fn first_words(address: Ipv4Addr) -> String {
    answer_to("", address).await
}

/// What a connection to that address says to some words.
async fn answer_to(words: &str, address: Ipv4Addr) -> String {
    let mut connection = TcpStream::connect((address, EGRESS_PORT)).await.unwrap();
    let mut answer = String::new();
    let _ = connection.write_all(words.as_bytes()).await;
    let _ = connection.read_to_string(&mut answer).await;
    answer
}

/// The same, but that Envoy takes on all addresses what is sent.
fn open_to_all(mut snapshot: Snapshot) -> Snapshot {
    for resource in snapshot.listeners.values_mut().filter(|resource| resource.name.starts_with("lds_egress")) {
        let mut listener = lds::Listener::decode(&*resource.body.value).unwrap();
        let address = listener.address.as_mut().unwrap().address.as_mut();
        let Some(address::Address::SocketAddress(socket)) = address else { panic!() };
        socket.address = Ipv4Addr::UNSPECIFIED.to_string();
        *resource = Resource::new(&listener.name, &listener).1;
    }
    snapshot
}

/// Connections go by the port and the address that they were made to. Nothing redirects these, so that it is Envoy's own
/// port on different addresses of this machine.
pub async fn tcp(controller: &Controller, red: u16) {
    let (first, second) = (speaks_first("first").await, speaks_first("second").await);
    let of_tcp = |host: &str, port: u16, addresses: &[Ipv4Addr]| {
        let (name, mut upstream) = upstream(host, port);
        upstream.port.protocol = Protocol::Tcp;
        let targets =
            vec![Target { upstream: "nobody".to_owned(), weight: 0 }, Target { upstream: name.clone(), weight: 1 }];
        let nobody = Upstream { discovery: Discovery::None, ..upstream.clone() };
        let listener = Port { port: EGRESS_PORT, protocol: Protocol::Tcp };
        let upstreams = [("nobody".to_owned(), nobody), (name, upstream)].into();
        let routing = Routing::of_port(listener, vec![Route::of_everything("all".to_owned(), targets)], upstreams);
        let addresses = addresses.iter().copied().map(IpAddr::V4).collect();
        Backend { host: host.to_owned(), addresses, ..backend(routing) }
    };
    let http = || {
        let target = Target { upstream: "red".to_owned(), weight: 1 };
        let routes = vec![Route::of_everything("red".to_owned(), vec![target])];
        backend(Routing::of_port(Port { port: EGRESS_PORT, ..TCP_8080 }, routes, [upstream("red", red)].into()))
    };
    let [here, there, elsewhere] = [1, 2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let all = [("first", 1), ("second", 1), ("red", 1)];
    let refused = TcpStream::connect((there, EGRESS_PORT)).await;
    assert!(refused.is_err(), "only what is redirected speaks to the mesh as this pod");
    let snapshot = |backends, egress| open_to_all(snapshot(backends, egress, &all));

    // By the port alone: whatever it is, and at once.
    controller.set(snapshot(vec![of_tcp("first", first, &[])], Egress::DropAll));
    wait_for("tcp by its port", async || first_words(here).await == "first").await;
    let opened = Instant::now();
    assert_eq!(first_words(there).await, "first");
    println!("a server that speaks first was heard after {:?}", opened.elapsed());
    let inspected = async || stat("http_inspector.read_error").await + stat("http_inspector.http_not_found").await;
    assert_eq!(inspected().await, 0, "HTTP is not looked for");

    // By the address: the rest of the port is free for HTTP, which is looked for until the client has said something else.
    let said = async |address| answer_to("hello\n", address).await;
    let backends = vec![of_tcp("first", first, &[there]), of_tcp("second", second, &[elsewhere]), http()];
    controller.set(snapshot(backends, Egress::DropAll));
    wait_for("tcp by its address", async || said(elsewhere).await == "second").await;
    controller.settled().await;
    assert_eq!(said(there).await, "first");
    assert_eq!(answer(&get(EGRESS_PORT, HOST, "/").await.unwrap()), "200 red");

    // By the port alone, beside HTTP: what is no HTTP, be it TLS or not, but for what is AWS's.
    for egress in [Egress::DropAll, Egress::AllowAll] {
        controller.set(snapshot(vec![of_tcp("first", first, &[]), http()], egress));
        wait_for("tcp beside HTTP", async || said(there).await == "first").await;
        controller.settled().await;
        assert_eq!(answer(&get(EGRESS_PORT, HOST, "/").await.unwrap()), "200 red", "{egress:?}");
        let tcp = format!("tcp.tcp_first_{EGRESS_PORT}.downstream_cx_total");
        let counts = async || (stat(&tcp).await, stat(PASSED).await);
        for (name, more) in [("db.example.com", (1, 0)), ("sts.us-west-2.amazonaws.com", (0, 1))] {
            let before = counts().await;
            // Neither answers by TLS.
            speak_tls(name, &[]).await.unwrap_err();
            wait_for(name, async || counts().await != before).await;
            assert_eq!(counts().await, (before.0 + more.0, before.1 + more.1), "{name} under {egress:?}");
        }
    }

    // Nothing tells them apart: to neither.
    let backends = vec![of_tcp("first", first, &[]), of_tcp("second", second, &[]), http()];
    controller.set(snapshot(backends, Egress::DropAll));
    wait_for("no tcp", async || said(there).await.is_empty()).await;
    controller.settled().await;
    assert_eq!(answer(&get(EGRESS_PORT, HOST, "/").await.unwrap()), "200 red");
}

/// Each port of a host has its own routes.
pub async fn several_listeners(controller: &Controller, red: u16, blue: u16) {
    let listener = |port: u16, name: &str| {
        let target = Target { upstream: name.to_owned(), weight: 1 };
        let routes = vec![Route::of_everything(name.to_owned(), vec![target])];
        RoutedListener { port: Port { port, protocol: Protocol::Http }, routes }
    };
    let routing = |ports: [u16; 2]| {
        let [first, second] = ports;
        let listeners = vec![listener(first, "red"), listener(second, "node:9090")];
        let node = Upstream { ..upstream("blue", blue).1 };
        Routing { listeners, upstreams: [upstream("red", red), ("node:9090".to_owned(), node)].into() }
    };
    let ask = async |host: String| answer(&get(EGRESS_PORT, &host, "/").await.unwrap());
    controller.set(snapshot(vec![backend(routing([8080, 9090]))], Egress::DropAll, &[("red", 1), ("blue", 1)]));
    wait_for("two ports", async || ask(format!("{HOST}:9090")).await == "200 blue").await;
    assert_eq!(ask(format!("{HOST}:8080")).await, "200 red");
    assert_eq!(ask(HOST.to_owned()).await, "200 red", "the first without a port");
    controller.set(snapshot(vec![backend(routing([8080, 80]))], Egress::DropAll, &[("red", 1), ("blue", 1)]));
    wait_for("port 80 without a port", async || ask(HOST.to_owned()).await == "200 blue").await;
    assert_eq!(ask(format!("{HOST}:8080")).await, "200 red");
    assert_eq!(stat(&format!("cluster.cds_egress_k8multi_node_http_{blue}.membership_total")).await, 1);
}
