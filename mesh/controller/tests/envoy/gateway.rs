//! A gateway: which requests from outside get where, and as what.

use super::*;

use appmesh_controller::model::{Gateway, GatewayRoute, HostMatch, PathRewrite, WorkloadKind, WorkloadName};

const STOCK: &str = "stock.shop.svc.cluster.local";
const SHELF: &str = "shelf.shop.svc.cluster.local";
const WORD: &str = "word.shop.svc.cluster.local";
const SAFE: &str = "safe.shop.svc.cluster.local";
const FRONT: &str = "front.shop.svc.cluster.local";

/// The headers that a server tells of that was asked for `/headers`.
const TOLD: [&str; 4] =
    ["x-forwarded-proto", "x-envoy-external-address", "x-envoy-original-url", "x-envoy-downstream-service-node"];

/// A server that answers with its name, and with what it was asked for.
async fn echo(name: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let length = connection.read(&mut request).await.unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let header = |name: &str| request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            let host = header("host").unwrap_or_default();
            let body = match path {
                "/headers" => TOLD.map(|name| header(name).unwrap_or("-")).join(" "),
                _ => format!("{name} {path} {host}"),
            };
            let head = format!("HTTP/1.1 200 -\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = connection.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    port
}

/// The gateway's ports, which no server gets that asks for any.
const FIRST: u16 = 15080;
const SECOND: u16 = 15081;

fn routed_to(target: &str, route_match: RouteMatch) -> Route {
    let targets = vec![Target { upstream: target.to_owned(), weight: 1 }];
    Route { route_match, ..Route::of_everything(target.to_owned(), targets) }
}

fn backend(host: &str, nodes: &[(&str, u16)], routes: Vec<Route>) -> Backend {
    let upstreams = nodes.iter().map(|(name, port)| upstream(name, *port)).collect();
    let routing = Routing::of_port(TCP_8080, routes, upstreams);
    Backend::new("shop".to_owned(), host.to_owned(), Some(Arc::new(routing)))
}

/// What the routes of the gateway of this test look like if nothing else is said.
fn to(name: &str, target: &Backend) -> GatewayRoute {
    GatewayRoute {
        name: name.to_owned(),
        protocol: Protocol::Http,
        port: None,
        hostname: None,
        route_match: RouteMatch::default(),
        path_rewrite: PathRewrite::Keep,
        host_rewrite: true,
        target: target.clone(),
    }
}

fn prefix(prefix: &str) -> RouteMatch {
    RouteMatch { path: PathMatch::prefix(prefix.to_owned()).unwrap(), ..RouteMatch::default() }
}

fn fits(expression: &str) -> RouteMatch {
    let path = PathMatch::Regex(Regex::new(expression.to_owned()).unwrap());
    RouteMatch { path, ..RouteMatch::default() }
}

fn exact(path: &str) -> RouteMatch {
    RouteMatch { path: PathMatch::exact(path.to_owned()).unwrap(), ..RouteMatch::default() }
}

fn gateway(first: u16, second: u16, front: u16, red: u16, blue: u16) -> Gateway {
    let get = |route_match: RouteMatch| RouteMatch { method: Some("GET".to_owned()), ..route_match };
    let nodes = [("red", red), ("blue", blue)];
    let routes = vec![routed_to("red", prefix("/red")), routed_to("blue", get(exact("/blue")))];
    let stock = backend(STOCK, &nodes, routes);
    let front = backend(FRONT, &[("front", front)], vec![routed_to("front", RouteMatch::default())]);
    let by_expression = vec![
        routed_to("red", fits("/(foo|bar)/.*")),
        routed_to("blue", fits(r"/blue|^/?.*\.html$|(?i:/navy)")),
        routed_to("red", fits(".*/slash")),
    ];
    let shelf = backend(SHELF, &nodes, by_expression);
    let word = backend(WORD, &nodes, vec![routed_to("red", exact("/red")), routed_to("blue", fits(r"/\bblue"))]);
    let https = RouteMatch { scheme: Some(Scheme::Https), ..RouteMatch::default() };
    let safe = backend(SAFE, &nodes, vec![routed_to("blue", https), routed_to("red", RouteMatch::default())]);
    let nobody = Backend::new("shop".to_owned(), "nobody.shop".to_owned(), None);
    let beta = HeaderMatch {
        name: HeaderName::new("x-beta".to_owned()).unwrap(),
        value: ValueMatch::Exact("yes".to_owned()),
        invert: false,
    };
    let color = QueryMatch::new("color".to_owned(), Some("red".to_owned())).unwrap();
    let becomes = |value: &str| PathRewrite::prefix(value.to_owned()).unwrap();
    let named = |host: HostMatch, route: GatewayRoute| GatewayRoute { hostname: Some(host), ..route };
    let routes = vec![
        GatewayRoute { route_match: prefix("/test/"), path_rewrite: becomes("/red/"), ..to("test", &stock) },
        named(
            HostMatch::exact("www.shop.example".to_owned()).unwrap(),
            GatewayRoute {
                route_match: exact("/old"),
                path_rewrite: PathRewrite::exact("/red/new".to_owned()).unwrap(),
                ..to("old", &stock)
            },
        ),
        named(
            HostMatch::suffix("*.stock.example").unwrap(),
            GatewayRoute { host_rewrite: false, ..to("by-host", &stock) },
        ),
        GatewayRoute { route_match: prefix("/stock"), path_rewrite: becomes("/"), ..to("stock", &stock) },
        GatewayRoute { route_match: prefix("/shelf"), path_rewrite: becomes("/"), ..to("shelf", &shelf) },
        GatewayRoute { route_match: prefix("/foo/"), path_rewrite: becomes("/foo/"), ..to("foo", &shelf) },
        GatewayRoute {
            route_match: prefix("/one"),
            path_rewrite: PathRewrite::exact("/bar/1".to_owned()).unwrap(),
            ..to("one", &shelf)
        },
        GatewayRoute { route_match: prefix("/word"), path_rewrite: becomes("/"), ..to("word", &word) },
        GatewayRoute { route_match: prefix("/safe"), ..to("safe", &safe) },
        GatewayRoute { route_match: prefix("/nobody"), ..to("nobody", &nobody) },
        GatewayRoute {
            route_match: RouteMatch { headers: vec![beta], query_parameters: vec![color], ..prefix("/red") },
            ..to("beta", &stock)
        },
        GatewayRoute { port: Some(first), ..to("everything", &front) },
    ];
    let listener = |port| Listener::new(Port { port, protocol: Protocol::Http });
    let name = gateway_name();
    Gateway { name, listeners: vec![listener(first), listener(second)], access_log: None, routes, left_out: Vec::new() }
}

fn gateway_name() -> WorkloadName {
    WorkloadName { mesh: "shop".to_owned(), kind: WorkloadKind::VirtualGateway, name: "ingress_shop".to_owned() }
}

#[tokio::test]
async fn requests_from_outside_get_where_the_routes_say() {
    let _ports = PORTS.lock().await;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let ca = certificates(folder.path());
    let (first, second) = (FIRST, SECOND);
    let (front, red, blue) = (echo("front").await, echo("red").await, echo("blue").await);
    let proxy = Proxy::Gateway(gateway(first, second, front, red, blue));
    let snapshot = snapshot_of(&proxy, &[("front", 1), ("red", 1), ("blue", 1)]);
    let controller = Controller::of(gateway_name(), folder.path(), 0, Some(Arc::new(snapshot))).await;
    let started = envoy_of(&gateway_name(), folder.path(), xds::Protocol::Delta, controller.address, &ca, None);
    let Some(mut child) = started else {
        println!("not tested: there is no envoy in PATH, and ENVOY names none, as `make test` does");
        return;
    };
    wait_for("the gateway", async || get(first, "x", "/").await.is_ok_and(|answer| answer.contains("front"))).await;
    wait_for("the other listener", async || get(second, "x", "/").await.is_ok()).await;
    let unanswered = "404 no route of VirtualService stock.shop.svc.cluster.local takes this request";
    let undecided = format!(
        "503 route blue of VirtualService {WORD}: at character 2: \\b would stand where the rewritten prefix ends"
    );
    let unmatched = "404 no route of VirtualService shelf.shop.svc.cluster.local takes this request";
    for (port, what, headers, expected) in [
        (first, "GET /", "host: x", "200 front / front.shop.svc.cluster.local"),
        (first, "GET /a/b?c", "host: x:80", "200 front /a/b?c front.shop.svc.cluster.local"),
        (first, "GET /stock/red", "host: x", "200 red /red stock.shop.svc.cluster.local"),
        (first, "GET /stockred/1?q=/stock", "host: x", "200 red /red/1?q=/stock stock.shop.svc.cluster.local"),
        (first, "GET /stock/blue?a", "host: x", "200 blue /blue?a stock.shop.svc.cluster.local"),
        (first, "POST /stock/blue", "host: x", unanswered),
        (first, "GET /stock", "host: x", unanswered),
        (first, "GET /stock/stock/red", "host: x", unanswered),
        (first, "GET /a/../stock/red", "host: x", "200 red /red stock.shop.svc.cluster.local"),
        (first, "GET /test/1", "host: x", "200 red /red/1 stock.shop.svc.cluster.local"),
        (first, "GET /test", "host: x", "200 front /test front.shop.svc.cluster.local"),
        (first, "GET /old?a", "host: www.shop.example", "200 red /red/new?a stock.shop.svc.cluster.local"),
        (first, "GET /old", "host: WWW.shop.example:8088", "200 red /red/new stock.shop.svc.cluster.local"),
        (first, "GET /old", "host: shop.example", "200 front /old front.shop.svc.cluster.local"),
        (first, "GET /blue", "host: a.stock.example:80", "200 blue /blue a.stock.example:80"),
        (first, "GET /other", "host: a.stock.example", unanswered),
        (first, "GET /blue", "host: stock.example", "200 front /blue front.shop.svc.cluster.local"),
        (first, "GET /blue", "host: astock-example", "200 front /blue front.shop.svc.cluster.local"),
        (first, "GET /red?color=red", "host: x\r\nx-beta: yes", "200 red /red?color=red stock.shop.svc.cluster.local"),
        (first, "GET /red?color=red", "host: x", "200 front /red?color=red front.shop.svc.cluster.local"),
        (first, "GET /shelf/foo/1?a", "host: x", "200 red /foo/1?a shelf.shop.svc.cluster.local"),
        (first, "GET /shelfbar/", "host: x", "200 red /bar/ shelf.shop.svc.cluster.local"),
        (first, "GET /shelf/baz/1", "host: x", unmatched),
        (first, "GET /shelf/foo", "host: x", unmatched),
        (first, "GET /shelf//foo/1", "host: x", unmatched),
        (first, "GET /shelf/blue", "host: x", "200 blue /blue shelf.shop.svc.cluster.local"),
        (first, "GET /shelf/a/b.html?c", "host: x", "200 blue /a/b.html?c shelf.shop.svc.cluster.local"),
        (first, "GET /shelf/NaVy", "host: x", "200 blue /NaVy shelf.shop.svc.cluster.local"),
        (first, "GET /shelf/BLUE", "host: x", unmatched),
        (first, "GET /shelf/slash", "host: x", "200 red /slash shelf.shop.svc.cluster.local"),
        (first, "GET /shelf/a/slash", "host: x", "200 red /a/slash shelf.shop.svc.cluster.local"),
        (first, "GET /shelf/a/slashes", "host: x", unmatched),
        (first, "GET /foo/1", "host: x", "200 red /foo/1 shelf.shop.svc.cluster.local"),
        (first, "GET /one/else", "host: x", "200 red /bar/1 shelf.shop.svc.cluster.local"),
        (first, "GET /word/red", "host: x", "200 red /red word.shop.svc.cluster.local"),
        (first, "GET /word/blue", "host: x", &undecided),
        (first, "GET /nobody", "host: x", "503 no route published for VirtualService nobody.shop in mesh shop"),
        (second, "GET /stock/red", "host: x", "200 red /red stock.shop.svc.cluster.local"),
        (second, "GET /", "host: x", "404 no GatewayRoute of VirtualGateway ingress_shop takes this request"),
    ] {
        let headers = format!("{headers}\r\ncontent-length: 0");
        assert_eq!(answer(&ask(port, what, &headers).await.unwrap()), expected, "{what} {headers:?}");
    }
    the_load_balancer_is_believed().await;
    for kind in ["cluster_manager.cds", "listener_manager.lds"] {
        assert_eq!(stat(&format!("{kind}.update_rejected")).await, 0, "{kind}");
    }
    it_stays_until_its_callers_have_gone().await;
    child.kill().await.unwrap();
    controller.stop().await;
}

/// What a load balancer says of its client is believed, its last word only; what is Envoy's own comes from nobody outside.
async fn the_load_balancer_is_believed() {
    let from = "x-forwarded-for: 203.0.113.7";
    let own =
        "x-envoy-original-url: /a\r\nx-envoy-downstream-service-node: b\r\nx-envoy-external-address: 198.51.100.1";
    for (path, headers, expected) in [
        ("/headers", String::new(), "http 127.0.0.1 - -"),
        ("/headers", own.to_owned(), "http 127.0.0.1 - -"),
        ("/headers", from.to_owned(), "http 203.0.113.7 - -"),
        ("/headers", format!("{from}\r\nx-forwarded-proto: https"), "https 203.0.113.7 - -"),
        ("/headers", format!("{from}\r\nx-forwarded-proto: https\r\n{own}"), "https 203.0.113.7 - -"),
        ("/headers", "x-forwarded-for: 198.51.100.1, 203.0.113.7".to_owned(), "http 203.0.113.7 - -"),
        ("/safe", from.to_owned(), "red /safe safe.shop.svc.cluster.local"),
        ("/safe", format!("{from}\r\nx-forwarded-proto: https"), "blue /safe safe.shop.svc.cluster.local"),
    ] {
        let headers = format!("host: x\r\ncontent-length: 0\r\n{headers}").trim_end().to_owned();
        let answered = answer(&ask(FIRST, &format!("GET {path}"), &headers).await.unwrap());
        assert_eq!(answered, format!("200 {expected}"), "{path} {headers:?}");
    }
}

/// Whether the answer to a request on this connection tells the caller to close it.
async fn is_told_to_go(caller: &mut TcpStream) -> bool {
    caller.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let (mut answer, mut some) = (String::new(), [0; 4096]);
    while !answer.contains(FRONT) {
        let length = caller.read(&mut some).await.unwrap();
        assert!(length > 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&some[..length]));
    }
    answer.contains("connection: close")
}

async fn it_stays_until_its_callers_have_gone() {
    let connect = async || TcpStream::connect((Ipv4Addr::LOCALHOST, FIRST)).await.unwrap();
    let mut caller = connect().await;
    assert!(!is_told_to_go(&mut caller).await);
    let mut draining = tokio::process::Command::new(tests::program("capture"));
    draining.args([
        "drain",
        "--admin-port=15002",
        &format!("--all-but-port={STATS_PORT}"),
        "--silence=30",
        "--at-most=30",
    ]);
    let mut draining = draining.stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("new callers are told to go", async || is_told_to_go(&mut connect().await).await).await;
    assert!(draining.try_wait().unwrap().is_none(), "a caller is still there");
    assert!(is_told_to_go(&mut caller).await);
    drop(caller);
    let output = draining.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "capture: no caller is left\n");
}
