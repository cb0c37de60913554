use super::*;
use crate::model::{
    CloudMapDiscovery, Discovery, DnsDiscovery, HeaderMatch, HeaderName, HealthCheck, HealthCheckProtocol,
    IpPreference, OutlierDetection, PathMatch, Port, Protocol, QueryMatch, Regex, RetryOn, RetryPolicy, Route,
    RouteMatch, RoutedListener, Scheme, Target, Timeouts, Upstream, ValueMatch,
};
use ::tests::hostile::spoiled_text;
use proptest::{collection, option, prelude::*, sample::Index};

const UID: &str = "7f1c9f0e-6f0f-4c57-9a3e-0d8a4f4bb001";
const EKS: &str = "arn:aws-us-gov:eks:us-gov-west-1:123456789012:cluster/c1";
const TEXT: &str = ".{1,40}";

fn arn_of(mesh: &str, name: &str) -> String {
    format!("arn:aws-us-gov:appmesh:us-gov-west-1:123456789012:mesh/{mesh}/virtualService/{name}")
}

fn key(arn: &str) -> VirtualServiceKey {
    VirtualServiceKey { namespace: "svc2.svc.local".to_owned(), arn: arn.to_owned() }
}

fn cluster(uid: &str) -> ClusterId {
    ClusterId { uid: uid.to_owned(), arn: None }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000 + seconds)
}

/// As [`publication`], with a time.
fn published_at(arn: &str, uid: &str, routing: &Routing, seconds: u64) -> Instances {
    dated(&publication(arn, &cluster(uid), routing), &Instances::new(), at(seconds))
}

/// As the release before publishes.
fn of_release_before(arn: &str, uid: &str, routing: &Routing) -> Instances {
    let parts = publication(arn, &cluster(uid), routing).into_values().enumerate();
    let part = |(index, attributes): (usize, Arc<Attributes>)| {
        (format!("{uid}.{index}"), Arc::new(without(&attributes, VERSION)))
    };
    parts.map(part).collect()
}

fn without(attributes: &Attributes, absent: &str) -> Attributes {
    attributes.iter().filter(|(key, _)| *key != absent).collect()
}

fn with(mut instances: Instances, key: &str, value: &str) -> Instances {
    for attributes in instances.values_mut() {
        *attributes = Arc::new(attributes.with(key, value));
    }
    instances
}

fn understood(arn: &str, instances: &Instances) -> Option<Routing> {
    match decode(arn, instances).0 {
        Document::Understood(routing) => Some(routing),
        Document::Missing | Document::NotUnderstood(_) => None,
    }
}

fn not_understood(arn: &str, instances: &Instances) -> String {
    match decode(arn, instances).0 {
        Document::NotUnderstood(why) => why,
        other => panic!("{other:?}"),
    }
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(&[Protocol::Grpc, Protocol::Http, Protocol::Http2, Protocol::Tcp][..])
}

fn port() -> impl Strategy<Value = Port> {
    (1..u16::MAX, protocol()).prop_map(|(port, protocol)| Port { port, protocol })
}

fn health_check() -> impl Strategy<Value = HealthCheck> {
    let protocol = prop_oneof![
        Just(HealthCheckProtocol::Tcp),
        "/.{0,40}".prop_map(HealthCheckProtocol::Http),
        "/.{0,40}".prop_map(HealthCheckProtocol::Http2),
    ];
    (protocol, 1..10u32, 1..10u32, 1..300_000u32, 1..60_000u32).prop_map(
        |(protocol, healthy_threshold, unhealthy_threshold, interval_millis, timeout_millis)| HealthCheck {
            protocol,
            healthy_threshold,
            unhealthy_threshold,
            interval_millis,
            timeout_millis,
        },
    )
}

fn outlier_detection() -> impl Strategy<Value = OutlierDetection> {
    (1..u32::MAX, 1..1_000_000u64, 1..1_000_000u64, 0..=100u32).prop_map(
        |(max_server_errors, interval_millis, base_ejection_millis, max_ejection_percent)| OutlierDetection {
            max_server_errors,
            interval_millis,
            base_ejection_millis,
            max_ejection_percent,
        },
    )
}

fn upstream() -> impl Strategy<Value = Upstream> {
    let attributes = collection::btree_map(".{1,64}", ".{1,300}", 0..5);
    let cloud_map = (TEXT, TEXT, attributes).prop_map(|(namespace, service, attributes)| {
        let attributes = attributes.into_iter().collect();
        Discovery::CloudMap(CloudMapDiscovery { key: ServiceKey { namespace, service }, attributes })
    });
    let dns =
        (TEXT, any::<bool>()).prop_map(|(hostname, endpoints)| Discovery::Dns(DnsDiscovery { hostname, endpoints }));
    let preference = option::of(prop_oneof![Just(IpPreference::V4Only), Just(IpPreference::V6Only)]);
    let policies = (option::of(health_check()), option::of(outlier_detection()), preference, any::<bool>());
    (port(), prop_oneof![Just(Discovery::None), cloud_map, dns], policies).prop_map(
        |(port, discovery, (health_check, outlier_detection, ip_preference, tls))| Upstream {
            port,
            discovery,
            health_check,
            outlier_detection,
            tls,
            ip_preference,
        },
    )
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    let regex = || "/[a-z]{1,20}\\.\\*".prop_map(|text| Regex::new(text).unwrap());
    let path = prop_oneof![
        "/.{0,200}".prop_map(PathMatch::Prefix),
        "/.{0,200}".prop_map(PathMatch::Exact),
        regex().prop_map(PathMatch::Regex),
    ];
    let value = prop_oneof![
        Just(ValueMatch::Present),
        TEXT.prop_map(ValueMatch::Exact),
        TEXT.prop_map(ValueMatch::Prefix),
        TEXT.prop_map(ValueMatch::Suffix),
        regex().prop_map(ValueMatch::Regex),
        (any::<i32>(), 1..i32::MAX)
            .prop_map(|(start, more)| ValueMatch::Range(start.into(), i64::from(start) + i64::from(more))),
    ];
    let header = ("[a-z-]{1,50}", value, any::<bool>()).prop_map(|(name, value, invert)| HeaderMatch {
        name: HeaderName::new(name).unwrap(),
        value,
        invert,
    });
    let parameter = (TEXT, option::of(".{0,40}")).prop_map(|(name, exact)| QueryMatch { name, exact });
    let method = option::of(prop::sample::select(&["CONNECT", "GET", "PATCH", "TRACE"][..]).prop_map(str::to_owned));
    let scheme = option::of(prop_oneof![Just(Scheme::Http), Just(Scheme::Https)]);
    (path, scheme, any::<bool>(), method, collection::vec(header, 0..3), collection::vec(parameter, 0..3)).prop_map(
        |(path, scheme, grpc, method, headers, query_parameters)| RouteMatch {
            path,
            scheme,
            grpc,
            method,
            headers,
            query_parameters,
        },
    )
}

fn retry_policy() -> impl Strategy<Value = RetryPolicy> {
    // The document has HTTP's events first, then TCP's.
    let events = [
        RetryOn::ServerError,
        RetryOn::GatewayError,
        RetryOn::ClientError,
        RetryOn::StreamError,
        RetryOn::ConnectionError,
        RetryOn::Cancelled,
        RetryOn::DeadlineExceeded,
        RetryOn::Internal,
        RetryOn::ResourceExhausted,
        RetryOn::Unavailable,
    ];
    (prop::sample::subsequence(events.to_vec(), 1..=10), any::<u32>(), any::<u64>()).prop_map(
        |(on, max_retries, per_retry_timeout_millis)| RetryPolicy { on, max_retries, per_retry_timeout_millis },
    )
}

prop_compose! {
    fn routing()(
        (listener, others) in (port(), collection::vec(port(), 0..3)),
        upstreams in collection::btree_map("[a-z]{1,60}_[a-z]{1,60}", upstream(), 1..20),
        routes in collection::vec(
            (
                TEXT,
                route_match(),
                option::of(retry_policy()),
                (any::<Option<u64>>(), any::<Option<u64>>()),
                collection::vec((any::<Index>(), 0..=100u32), 1..10),
            ),
            0..20,
        ),
    ) -> Routing {
        let names: Vec<_> = upstreams.keys().cloned().collect();
        let target = |(index, weight): (Index, u32)| Target { upstream: index.get(&names).clone(), weight };
        let routes = routes.into_iter().map(|(name, route_match, retry_policy, timeouts, targets)| Route {
            name,
            route_match,
            targets: targets.into_iter().map(target).collect(),
            retry_policy,
            timeouts: Timeouts { request_millis: timeouts.0, idle_millis: timeouts.1 },
        }).collect();
        let mut routing = Routing::of_port(listener, routes, upstreams);
        for port in others {
            if routing.listeners.iter().all(|other| other.port.port != port.port) {
                let routes = routing.listeners[0].routes.iter().rev().cloned().collect();
                routing.listeners.push(RoutedListener { port, routes });
            }
        }
        routing
    }
}

/// The limits of RegisterInstance: botocore's model of 2017-03-14 and the API reference's text.
fn within_limits(instances: &Instances) {
    for (id, attributes) in instances {
        assert!(id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric() || "_/:.@-".contains(c)), "{id}");
        assert!(attributes.iter().count() <= 30);
        assert!(attributes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() <= 5000);
        for (key, value) in attributes.iter() {
            assert!((1..=255).contains(&key.len()) && key.chars().all(|c| c.is_ascii_graphic()), "{key}");
            assert!((1..=1024).contains(&value.len()) && value.chars().all(|c| c.is_ascii_graphic()), "{value}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn what_is_published_is_read(
        routing in routing(),
        mesh in "[a-zA-Z0-9_-]{1,255}",
        name in "[a-z0-9.-]{1,255}",
        eks in option::of("[a-zA-Z0-9-]{1,100}"),
    ) {
        let arn = arn_of(&mesh, &name);
        let eks = eks.map(|name| format!("arn:aws-us-gov:eks:us-gov-west-1:123456789012:cluster/{name}"));
        let publisher = ClusterId { uid: UID.to_owned(), arn: eks };
        let instances = dated(&publication(&arn, &publisher, &routing), &Instances::new(), at(0));
        within_limits(&instances);
        prop_assert_eq!(understood(&arn, &instances), Some(routing.clone()));
        prop_assert_eq!(understood(&arn, &of_release_before(&arn, UID, &routing)), Some(routing));
    }

    #[test]
    fn parts_of_two_documents_are_never_joined(
        (old, new) in (routing(), routing()),
        (kept, done) in (0..6usize, 0..6usize),
        before in any::<bool>(),
    ) {
        let arn = arn_of("m", "s");
        let old_parts = if before { of_release_before(&arn, UID, &old) } else { published_at(&arn, UID, &old, 0) };
        let mut mixed: Instances = old_parts.into_iter().take(kept).collect();
        mixed.extend(published_at(&arn, UID, &new, 1).into_iter().take(done));
        if let Some(read) = understood(&arn, &mixed) {
            prop_assert!(read == old || read == new);
        }
    }

    #[test]
    fn cloud_map_takes_the_names_of_services(mesh in "[a-zA-Z0-9_-]{1,255}", name in "[a-zA-Z0-9_.-]{1,255}") {
        let name = service_key(&key(&arn_of(&mesh, &name))).service;
        let label = |label: &str| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
        prop_assert!(name.len() <= 127 && name.split('.').all(label), "{}", name);
    }
}

fn small(weight: u32) -> Routing {
    let port = Port { port: 8080, protocol: Protocol::Http };
    let service = ServiceKey { namespace: "svc2.svc.local".into(), service: "colorapp".into() };
    let discovery = CloudMapDiscovery { key: service, attributes: [("color", "blue")].into() };
    let upstream = Upstream::new(port, Discovery::CloudMap(discovery));
    let target = Target { upstream: "colorapp-blue_k8multi".into(), weight };
    let routes = vec![Route::of_everything("color-route".into(), vec![target])];
    Routing::of_port(port, routes, [("colorapp-blue_k8multi".into(), upstream)].into())
}

#[test]
fn a_small_document_is_one_instance_that_a_person_can_read() {
    let arn = arn_of("k8multi", "colorapp.k8multi.svc.cluster.local");
    let publisher = ClusterId { uid: UID.to_owned(), arn: Some(EKS.to_owned()) };
    let instances = dated(&publication(&arn, &publisher, &small(1)), &Instances::new(), at(0));
    let (id, attributes) = instances.first_key_value().unwrap();
    assert_eq!((instances.len(), id.as_str()), (1, "7f1c9f0e-6f0f-4c57-9a3e-0d8a4f4bb001.f3a24563d8b2bb23.0"));
    let expected = [
        (CLUSTER, UID),
        (CLUSTER_ARN, EKS),
        (VIRTUAL_SERVICE, &arn),
        ("digest", "f3a24563d8b2bb23"),
        ("part", "0/1"),
        ("published", "2026-11-18T11:06:40.000Z"),
        (
            "routes.0",
            r#"{"listener":{"port":8080,"protocol":"http"},"routes":[{"name":"color-route","prefix":"/","targets":[{"node":"colorapp-blue_k8multi","weight":1}]}],"nodes":{"colorapp-blue_k8multi":{"port":8080,"protocol":"http","discovery":{"namespace":"svc2.svc.local","service":"colorapp","attributes":{"color":"blue"}}}}}"#,
        ),
        ("version", "1"),
    ];
    let found: Vec<_> = attributes.iter().collect();
    assert_eq!(found, expected);
    assert_eq!(service_key(&key(&arn)).service, "appmesh.k8multi.colorapp.k8multi.svc.cluster.local");
}

#[test]
fn a_name_that_cloud_map_does_not_take_is_hashed() {
    let long = arn_of("m", &"a".repeat(64));
    let hashed = service_key(&key(&long)).service;
    assert_eq!(hashed, format!("appmesh-{}", &hex::encode(Sha256::digest(&long))[..40]));
    assert_ne!(hashed, service_key(&key(&arn_of("m", &"a".repeat(65)))).service);
}

#[test]
fn the_time_is_that_of_the_content() {
    let arn = arn_of("m", "s");
    let [old, new] = [1, 2].map(|weight| publication(&arn, &cluster(UID), &small(weight)));
    let time = |instances: &Instances| published(instances.values().next().unwrap()).unwrap();
    let first = dated(&old, &Instances::new(), at(100));
    assert_eq!(time(&first), at(100));
    assert_eq!(dated(&old, &first, at(200)), first, "of the same content");
    assert_eq!(time(&dated(&new, &first, at(200))), at(200));
    assert_eq!(time(&dated(&new, &first, at(50))), at(100) + Duration::from_millis(1), "by a clock that is behind");
    let others = published_at(&arn, "other", &small(1), 300);
    assert_eq!(time(&dated(&old, &others, at(200))), at(200), "of another cluster");
    let pods = Instances::from([("10.0.0.1".to_owned(), Arc::default())]);
    assert_eq!(dated(&pods, &first, at(200)), pods);
}

#[test]
fn the_newest_is_heard_and_the_others_are_named() {
    let arn = arn_of("m", "s");
    let heard = |documents: &[Instances]| {
        let all: Instances = documents.iter().flatten().map(|(id, part)| (id.clone(), part.clone())).collect();
        let (document, others) = decode(&arn, &all);
        let Document::Understood(routing) = document else { panic!("{document:?}") };
        let weight = (1..9).find(|weight| small(*weight) == routing).unwrap();
        (weight, others.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let of = |uid, weight, seconds| published_at(&arn, uid, &small(weight), seconds);
    assert_eq!(heard(&[of("a", 1, 0), of("b", 2, 1)]), (2, vec!["a".to_owned()]));
    assert_eq!(heard(&[of("a", 1, 2), of("b", 2, 1)]), (1, vec!["b".to_owned()]));
    assert_eq!(heard(&[of("a", 1, 1), of("b", 2, 1)]), (1, vec!["b".to_owned()]), "by uid at the same time");
    assert_eq!(heard(&[of("a", 1, 1), of("a", 2, 2)]), (2, vec![]), "of one cluster");
    let before = of_release_before(&arn, "a", &small(3));
    assert_eq!(heard(&[before.clone(), of("b", 2, 0)]), (2, vec!["a".to_owned()]), "the release before is older");
    assert_eq!(heard(&[before, of_release_before(&arn, "b", &small(4))]), (3, vec!["b".to_owned()]));
    let broken = with(of("b", 2, 1), DIGEST, "0000000000000000");
    assert_eq!(heard(&[of("a", 1, 0), broken]).0, 1, "only what is whole");
    let eks = with(of("b", 2, 0), CLUSTER_ARN, EKS);
    assert_eq!(heard(&[of("a", 1, 1), eks]), (1, vec![EKS.to_owned()]));
    assert_eq!(heard(&[of("a", 1, 0), published_at(&arn_of("m", "t"), "b", &small(2), 1)]), (1, vec![]), "of this ARN");
    assert_eq!(decode(&arn_of("m", "u"), &of("a", 1, 0)).0, Document::Missing);
}

#[test]
fn a_document_that_needs_a_newer_controller_is_not_understood() {
    let arn = arn_of("m", "s");
    let old = || published_at(&arn, "a", &small(1), 0);
    for (key, value, expected) in [
        (VERSION, "2", "what cluster b publishes is of version 2, which needs a newer controller here"),
        (VERSION, "x", "what cluster b publishes is of version x, which needs a newer controller here"),
        (
            REQUIRES,
            "webtransport, quic",
            "what cluster b publishes requires webtransport, quic, which needs a newer controller here",
        ),
    ] {
        let mut both = old();
        both.extend(with(published_at(&arn, "b", &small(2), 1), key, value));
        assert_eq!(not_understood(&arn, &both), expected, "no older one is heard instead");
    }
    assert_eq!(understood(&arn, &with(old(), REQUIRES, "")), Some(small(1)));
}

#[test]
fn what_older_controllers_would_ignore_is_required() {
    let arn = arn_of("m", "s");
    let requires = |change: &dyn Fn(&mut Route)| {
        let mut routing = small(1);
        routing.listeners[0].routes.iter_mut().for_each(change);
        let instances = publication(&arn, &cluster(UID), &routing);
        instances.values().next().unwrap().get(REQUIRES).unwrap_or_default().to_owned()
    };
    let regex = |text: &str| Regex::new(text.to_owned()).unwrap();
    let header = |value| HeaderMatch { name: HeaderName::new("h".to_owned()).unwrap(), value, invert: false };
    assert_eq!(requires(&|route| route.route_match.headers.push(header(ValueMatch::Present))), "");
    assert_eq!(requires(&|route| route.route_match.path = PathMatch::Regex(regex("/a.*"))), "regex");
    assert_eq!(requires(&|route| route.route_match.headers.push(header(ValueMatch::Regex(regex("a+"))))), "regex");
    assert_eq!(requires(&|route| route.route_match.scheme = Some(Scheme::Https)), "scheme");
    let both = requires(&|route| (route.route_match.grpc, route.route_match.scheme) = (true, Some(Scheme::Http)));
    assert_eq!(both, "grpc,scheme");
    let mut routing = small(1);
    routing.listeners.push(RoutedListener { port: Port { port: 1, protocol: Protocol::Tcp }, routes: Vec::new() });
    let instances = publication(&arn, &cluster(UID), &routing);
    assert_eq!(instances.values().next().unwrap().get(REQUIRES), Some("listeners,tcp"));
    let upstreams = |change: &dyn Fn(&mut Upstream)| {
        let mut routing = small(1);
        routing.upstreams.values_mut().for_each(change);
        let instances = publication(&arn, &cluster(UID), &routing);
        instances.values().next().unwrap().get(REQUIRES).unwrap_or_default().to_owned()
    };
    assert_eq!(upstreams(&|upstream| upstream.tls = true), "tls");
    let check = |protocol| HealthCheck {
        protocol,
        healthy_threshold: 2,
        unhealthy_threshold: 2,
        interval_millis: 5000,
        timeout_millis: 2000,
    };
    let checked =
        |protocol: HealthCheckProtocol| upstreams(&|upstream| upstream.health_check = Some(check(protocol.clone())));
    assert_eq!(checked(HealthCheckProtocol::Http("/".to_owned())), "");
    assert_eq!(checked(HealthCheckProtocol::Http2("/".to_owned())), "health-check-http2");
    assert_eq!(checked(HealthCheckProtocol::Grpc), "health-check-http2");
}

#[test]
fn an_incomplete_document_is_not_understood() {
    let arn = arn_of("m", "s");
    let nodes = |count: u32| {
        let mut routing = small(1);
        let upstream = routing.upstreams.values().next().unwrap().clone();
        routing.upstreams.extend((0..count).map(|index| (format!("node-{index}"), upstream.clone())));
        routing
    };
    let mut parts = published_at(&arn, "a", &nodes(60), 0);
    assert!(parts.len() > 2);
    assert_eq!(understood(&arn, &parts), Some(nodes(60)));
    parts.pop_first();
    assert_eq!(not_understood(&arn, &parts), "what cluster a publishes is not complete");
    let mut placeless = published_at(&arn, "a", &small(1), 0);
    let first = placeless.values_mut().next().unwrap();
    *first = Arc::new(without(first, PART));
    assert_eq!(not_understood(&arn, &placeless), "what is published has no part, digest or cluster");
}

/// A document with this JSON.
fn written(arn: &str, json: &str) -> Instances {
    let json = printable(json);
    let mut instances = published_at(arn, "a", &small(1), 0);
    let attributes = instances.values_mut().next().unwrap();
    *attributes = Arc::new(attributes.with("routes.0", &json).with(DIGEST, &digest(&json)));
    instances
}

#[test]
fn an_unknown_field_is_ignored() {
    let arn = arn_of("m", "s");
    let json = v1::encode(&small(1)).replacen('{', r#"{"colour":{"of":["the","mesh"]},"#, 1);
    let json = json.replacen(r#""prefix""#, r#""shade":"dark","prefix""#, 1);
    assert_eq!(understood(&arn, &written(&arn, &json)), Some(small(1)));
}

#[test]
fn what_envoy_would_refuse_is_not_understood() {
    let document = |routes: &str, nodes: &str| {
        format!(r#"{{"listener":{{"port":80,"protocol":"http"}},"routes":[{routes}],"nodes":{{{nodes}}}}}"#)
    };
    let route = |fields: &str| document(&format!(r#"{{"name":"r","targets":[],{fields}}}"#), "");
    let header = |value: &str| route(&format!(r#""prefix":"/","headers":[{{"name":"h","match":{value}}}]"#));
    let target = |node: &str, weight: u32| {
        let route = format!(r#"{{"name":"r","prefix":"/","targets":[{{"node":"{node}","weight":{weight}}}]}}"#);
        document(&route, r#""n":{"port":80,"protocol":"http"}"#)
    };
    let node = |fields: &str| document("", &format!(r#""n":{{"port":80,"protocol":"http",{fields}}}"#));
    let check = |fields: &str| {
        let rest = r#""healthyThreshold":2,"unhealthyThreshold":2,"timeoutMillis":2000"#;
        node(&format!(r#""healthCheck":{{{fields},{rest}}}"#))
    };
    for (json, expected) in [
        (route(r#""prefix":"a""#), "routes[0].prefix: does not begin with /"),
        (
            document("", "").replace(r#""nodes""#, r#""listeners":[{"port":80,"protocol":"tcp","routes":[]}],"nodes""#),
            "listeners[0].port: is the port of another listener too",
        ),
        (route(r#""path":{"exact":"a"}"#), "routes[0].path.exact: does not begin with /"),
        (route(r#""path":{}"#), "routes[0].path: needs one of exact and regex"),
        (
            route(r#""path":{"regex":"("}"#),
            "routes[0].path.regex: is not a regular expression of RE2: at character 1: unclosed group",
        ),
        (
            route(r#""prefix":"/","scheme":"ftp""#),
            "routes[0].scheme: unknown variant `ftp`, expected `http` or `https`",
        ),
        (route(r#""name":"r""#), "routes[0]: duplicate field `name`"),
        (route(r#""method":"GET""#), "routes[0]: needs one of path and prefix"),
        (
            route(r#""prefix":"/","method":"get""#),
            "routes[0].method: get is none of CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE",
        ),
        (
            route(r#""prefix":"/","headers":[{"name":"a:"}]"#),
            r#"routes[0].headers[0].name: "a:" is not a valid header name"#,
        ),
        (header(r#"{"suffix":""}"#), "routes[0].headers[0].match.suffix: is empty"),
        (
            header(r#"{"range":{"start":2,"end":2}}"#),
            "routes[0].headers[0].match.range: no number is from 2 to before 2",
        ),
        (header("{}"), "routes[0].headers[0].match: needs one of exact, prefix, range, regex and suffix"),
        (
            route(r#""prefix":"/","queryParameters":[{"name":""}]"#),
            "routes[0].queryParameters[0].name: not 1 to 1024 bytes",
        ),
        (
            route(r#""prefix":"/","retryPolicy":{"maxRetries":1,"perRetryTimeout":{"unit":"s","value":1}}"#),
            "routes[0].retryPolicy: needs a retry event",
        ),
        (target("m", 1), "routes[0].targets[0].node: m is not one of the nodes"),
        (target("n", 101), "routes[0].targets[0].weight: 101 is not 0 to 100"),
        (document("", r#""n":{"port":0,"protocol":"http"}"#), "nodes.n.port: is 0"),
        (node(r#""dns":{"hostname":""}"#), "nodes.n.dns.hostname: is empty"),
        (
            check(r#""protocol":"http","path":"a","intervalMillis":5000"#),
            "nodes.n.healthCheck.path: does not begin with /",
        ),
        (
            check(r#""protocol":"grpc","intervalMillis":5000"#),
            "nodes.n.healthCheck.protocol: grpc needs a listener of protocol grpc or http2, not http",
        ),
        (check(r#""protocol":"tcp","intervalMillis":0"#), "nodes.n.healthCheck: a threshold or time is 0"),
    ] {
        let arn = arn_of("m", "s");
        let why = not_understood(&arn, &written(&arn, &json));
        let expected = format!("what cluster a publishes is broken: {expected}");
        assert!(why.starts_with(&expected), "{json}: {why}, expected {expected}");
    }
}

::tests::property! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn spoiled_records_are_not_understood_or_read(
        routing in routing(),
        spoils in collection::vec((any::<Index>(), any::<Index>(), any::<Index>()), 0..4),
        words in collection::vec(spoiled_text(["0/1", "0/18446744073709551615", "{}", r#"{"routes":[],"nodes":{}}"#, UID]), 4),
    ) {
        let arn = arn_of("m", "s");
        let mut instances = published_at(&arn, UID, &routing, 0);
        for (instance, attribute, word) in spoils {
            let instance = instance.index(instances.len());
            let attributes = instances.values_mut().nth(instance).unwrap();
            let attribute = attribute.index(attributes.iter().count());
            let (key, _) = attributes.iter().nth(attribute).unwrap();
            let word: &String = word.get(&words);
            *attributes = Arc::new(attributes.with(key, word));
        }
        if let Some(read) = understood(&arn, &instances) {
            let again = published_at(&arn, UID, &read, 0);
            prop_assert_eq!(understood(&arn, &again), Some(read));
        }
    }

    #[test]
    fn spoiled_documents_are_not_understood_or_read(
        json in routing().prop_flat_map(|routing| spoiled_text([v1::encode(&routing)])),
    ) {
        if let Ok(read) = v1::decode(&json) {
            prop_assert_eq!(v1::decode(&v1::encode(&read)), Ok(read));
        }
    }
}
