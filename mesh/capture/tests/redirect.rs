//! The real redirect: a pod's and a node's network namespace, joined as a CNI plugin joins them, and real connections.
//!
//! Needs root, for the namespaces. Without it each test says on stderr that it was skipped and why.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at what it did not expect")]

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use nlink::netlink::nftables::Family;
use nlink::netlink::{Connection, Nftables};
use tests::pod::{APPLICATION, ENVOY, Pod, as_user};

const NODE: [&str; 3] = ["10.77.0.1:80", "10.77.0.9:80", "[fd77::1]:80"];
const POD: [&str; 2] = ["10.77.0.2:8080", "[fd77::2]:8080"];

/// A pod with an application on 8080 and 9090 and an Envoy on 15000 and 15001.
struct World<'a>(&'a Pod);

impl<'a> World<'a> {
    fn new(pod: &'a Pod) -> Self {
        serve("[::]:8080", "application");
        serve("[::]:9090", "application");
        serve("[::]:15000", "envoy ingress");
        serve("127.0.0.1:15001", "envoy egress");
        serve("[::1]:15001", "envoy egress");
        let on_the_node = || ["[::]:80", "[::]:22"].map(|on| serve(on, "node"));
        pod.on_the_node(on_the_node).unwrap();
        Self(pod)
    }

    fn node_asks(&self, to: &str) -> String {
        self.0.on_the_node(|| ask(to, APPLICATION)).unwrap()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Answers every connection with one word, as long as the test runs.
fn serve(on: &str, word: &'static str) {
    let listener = TcpListener::bind(on).unwrap();
    thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let _ = connection.write_all(word.as_bytes());
        }
    });
}

/// Who answers a connection to this address that a process of this user makes.
fn ask(to: &str, uid: u32) -> String {
    let to: SocketAddr = to.parse().unwrap();
    let connection = as_user(uid, || TcpStream::connect_timeout(&to, Duration::from_secs(5)));
    let mut answer = String::new();
    match connection.and_then(|mut stream| stream.read_to_string(&mut answer)) {
        Ok(_) => answer,
        Err(error) => error.to_string(),
    }
}

fn capture(variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_capture")).env_clear().envs(variables.iter().copied()).output().unwrap()
}

fn captured(variables: &[(&str, &str)]) {
    let output = capture(variables);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

const UPSTREAM: [(&str, &str); 8] = [
    ("APPMESH_START_ENABLED", "1"),
    ("APPMESH_IGNORE_UID", "1337"),
    ("APPMESH_ENVOY_INGRESS_PORT", "15000"),
    ("APPMESH_ENVOY_EGRESS_PORT", "15001"),
    ("APPMESH_APP_PORTS", "8080"),
    ("APPMESH_EGRESS_IGNORED_IP", "10.77.0.9"),
    ("APPMESH_EGRESS_IGNORED_PORTS", "22"),
    ("APPMESH_ENABLE_IPV6", "1"),
];

fn with(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&UPSTREAM[..], changes].concat()
}

/// Every table of the pod and its rules, as nft prints them.
fn ruleset() -> Vec<String> {
    runtime().block_on(async {
        let nftables = Connection::<Nftables>::new().unwrap();
        let mut lines = Vec::new();
        for table in nftables.list_tables().await.unwrap() {
            lines.push(format!("table {} {}", table.family, table.name));
            for rule in nftables.list_rules(&table.name, table.family).await.unwrap() {
                lines.push(format!("{}: {}", rule.chain, rule.nft_syntax().unwrap()));
            }
        }
        lines
    })
}

fn in_a_world(name: &'static str, test: impl FnOnce(&World<'_>) + Send + 'static) {
    Pod::with(name, |pod| test(&World::new(pod)));
}

#[test]
fn traffic_of_the_pod_goes_through_envoy() {
    in_a_world("traffic_of_the_pod_goes_through_envoy", |world| {
        for to in NODE {
            assert_eq!(ask(to, APPLICATION), "node", "before, to {to}");
        }
        for to in POD {
            assert_eq!(world.node_asks(to), "application", "before, to {to}");
        }

        captured(&UPSTREAM);

        for (to, uid, answers) in [
            ("10.77.0.1:80", APPLICATION, "envoy egress"),
            ("[fd77::1]:80", APPLICATION, "envoy egress"),
            // A name that only Envoy knows resolves to an address where nobody listens.
            ("10.77.0.1:8080", APPLICATION, "envoy egress"),
            ("10.77.0.1:80", ENVOY, "node"),
            ("[fd77::1]:80", ENVOY, "node"),
            ("10.77.0.9:80", APPLICATION, "node"),
            ("10.77.0.1:22", APPLICATION, "node"),
            ("127.0.0.1:8080", APPLICATION, "application"),
            ("[::1]:8080", APPLICATION, "application"),
            ("10.77.0.2:8080", APPLICATION, "application"),
            ("10.77.0.2:8080", ENVOY, "application"),
            // What it passed on to itself, it would pass on again.
            ("127.0.0.1:15001", ENVOY, "envoy ingress"),
            ("[::1]:15001", ENVOY, "envoy ingress"),
        ] {
            assert_eq!(ask(to, uid), answers, "from the pod as {uid} to {to}");
        }
        for (to, answers) in [
            ("10.77.0.2:8080", "envoy ingress"),
            ("[fd77::2]:8080", "envoy ingress"),
            ("10.77.0.2:9090", "application"),
            ("10.77.0.2:15001", "Connection refused (os error 111)"),
        ] {
            assert_eq!(world.node_asks(to), answers, "from the node to {to}");
        }
    });
}

#[test]
fn dns_is_left_alone() {
    in_a_world("dns_is_left_alone", |world| {
        captured(&UPSTREAM);
        let server = world.0.on_the_node(|| UdpSocket::bind("10.77.0.1:53")).unwrap().unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        client.send_to(b"colorapp?", "10.77.0.1:53").unwrap();
        let mut question = [0; 16];
        let (length, _) = server.recv_from(&mut question).unwrap();
        assert_eq!(&question[..length], b"colorapp?");
    });
}

#[test]
fn running_again_replaces_the_table_and_only_it() {
    in_a_world("running_again_replaces_the_table_and_only_it", |world| {
        runtime().block_on(async {
            let nftables = Connection::<Nftables>::new().unwrap();
            nftables.add_table("another", Family::Inet).await.unwrap();
        });
        captured(&UPSTREAM);
        let once = ruleset();
        assert!(once.contains(&"table inet another".to_owned()), "{once:#?}");
        assert!(once.contains(&"prerouting: tcp dport 8080 redirect to :15000".to_owned()), "{once:#?}");
        captured(&UPSTREAM);
        assert_eq!(ruleset(), once);

        captured(&with(&[("APPMESH_APP_PORTS", "9090"), ("APPMESH_ENABLE_IPV6", "0")]));
        assert_eq!(world.node_asks("10.77.0.2:8080"), "application");
        assert_eq!(world.node_asks("10.77.0.2:9090"), "envoy ingress");
        assert_eq!(ask("10.77.0.1:80", APPLICATION), "envoy egress");
        assert_eq!(ask("[fd77::1]:80", APPLICATION), "node");
    });
}

#[test]
fn empty_lists_leave_what_comes_in_alone() {
    in_a_world("empty_lists_leave_what_comes_in_alone", |world| {
        captured(&with(&[
            ("APPMESH_APP_PORTS", ""),
            ("APPMESH_EGRESS_IGNORED_IP", ""),
            ("APPMESH_EGRESS_IGNORED_PORTS", ""),
        ]));
        assert_eq!(world.node_asks("10.77.0.2:8080"), "application");
        assert_eq!(ask("10.77.0.9:80", APPLICATION), "envoy egress");
        assert_eq!(ask("10.77.0.1:22", APPLICATION), "envoy egress");
    });
}

#[test]
fn nothing_is_touched_unless_enabled() {
    in_a_world("nothing_is_touched_unless_enabled", |_| {
        captured(&with(&[("APPMESH_START_ENABLED", "0")]));
        assert_eq!(ruleset(), Vec::<String>::new());
    });
}

#[test]
fn a_missing_capability_is_named() {
    in_a_world("a_missing_capability_is_named", |_| {
        // The target folder may be closed to other users.
        let open = tempfile::tempdir().unwrap();
        fs::set_permissions(open.path(), Permissions::from_mode(0o755)).unwrap();
        let binary = open.path().join("capture");
        // By a process of its own: another test's child might inherit the file while it is open for writing.
        assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_capture")).arg(&binary).status().unwrap().success());
        let output = Command::new(&binary).envs(UPSTREAM).uid(65534).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("needs the capability NET_ADMIN"), "{stderr}");
    });
}
