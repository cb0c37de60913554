//! The real redirect: a pod's and a node's network namespace, joined as a CNI plugin joins them, and real connections.
//!
//! Needs root, for the namespaces. Without it each test says on stderr that it was skipped and why.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at what it did not expect")]

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Uid, setfsuid};
use nlink::netlink::addr::{Ipv4Address, Ipv6Address};
use nlink::netlink::link::VethLink;
use nlink::netlink::nftables::Family;
use nlink::netlink::{Connection, Nftables, Route};

const ENVOY: u32 = 1337;
const APPLICATION: u32 = 0;
const NODE: [&str; 3] = ["10.77.0.1:80", "10.77.0.9:80", "[fd77::1]:80"];
const POD: [&str; 2] = ["10.77.0.2:8080", "[fd77::2]:8080"];

/// A network namespace of this test's thread.
struct Namespace(File);

impl Namespace {
    /// Makes one and stays in it.
    fn new() -> nix::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(Self(File::open("/proc/thread-self/ns/net").unwrap()))
    }

    fn enter(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
    }
}

/// A pod joined to its node: in the pod an application on 8080 and 9090 and an Envoy on 15000 and 15001.
struct World {
    node: Namespace,
    pod: Namespace,
}

impl World {
    fn new() -> nix::Result<Self> {
        let world = Self { node: Namespace::new()?, pod: Namespace::new()? };
        let runtime = runtime();
        runtime.block_on(async {
            let route = Connection::<Route>::new().unwrap();
            let veth = VethLink::new("eth0", "pod").peer_netns_fd(&world.node.0);
            route.add_link(veth).await.unwrap();
        });
        runtime.block_on(address("eth0", &["10.77.0.2"], "fd77::2"));
        serve("[::]:8080", "application");
        serve("[::]:9090", "application");
        serve("[::]:15000", "envoy ingress");
        serve("[::]:15001", "envoy egress");
        world.node.enter();
        runtime.block_on(address("pod", &["10.77.0.1", "10.77.0.9"], "fd77::1"));
        serve("[::]:80", "node");
        serve("[::]:22", "node");
        world.pod.enter();
        Ok(world)
    }

    fn node_asks(&self, to: &str) -> String {
        self.node.enter();
        let answer = ask(to, APPLICATION);
        self.pod.enter();
        answer
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn address(link: &str, v4: &[&str], v6: &str) {
    let route = Connection::<Route>::new().unwrap();
    for address in v4 {
        let address = Ipv4Address::new(link, address.parse().unwrap(), 24);
        route.add_address(address).await.unwrap();
    }
    let address = Ipv6Address::new(link, v6.parse().unwrap(), 64).nodad();
    route.add_address(address).await.unwrap();
    route.set_link_up("lo").await.unwrap();
    route.set_link_up(link).await.unwrap();
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
    // A socket belongs to the file system user of the thread which makes it; a process's is its user.
    let before = setfsuid(Uid::from_raw(uid));
    let connection = TcpStream::connect_timeout(&to, Duration::from_secs(5));
    setfsuid(before);
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

/// Runs a test in namespaces of its own, which end with its thread.
fn in_a_world(name: &'static str, test: impl FnOnce(&World) + Send + 'static) {
    let ran = thread::spawn(move || match World::new() {
        Ok(world) => test(&world),
        // Straight to stderr: what a passing test prints through the macros is not shown.
        Err(Errno::EPERM) => {
            let line = format!("{name}: SKIPPED, a network namespace can be made by root only\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
        Err(error) => panic!("unshare: {error}"),
    });
    if let Err(panic) = ran.join() {
        std::panic::resume_unwind(panic);
    }
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
        ] {
            assert_eq!(ask(to, uid), answers, "from the pod as {uid} to {to}");
        }
        for (to, answers) in [
            ("10.77.0.2:8080", "envoy ingress"),
            ("[fd77::2]:8080", "envoy ingress"),
            ("10.77.0.2:9090", "application"),
        ] {
            assert_eq!(world.node_asks(to), answers, "from the node to {to}");
        }
    });
}

#[test]
fn dns_is_left_alone() {
    in_a_world("dns_is_left_alone", |world| {
        captured(&UPSTREAM);
        world.node.enter();
        let server = UdpSocket::bind("10.77.0.1:53").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        world.pod.enter();
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
        fs::copy(env!("CARGO_BIN_EXE_capture"), &binary).unwrap();
        let output = Command::new(&binary).envs(UPSTREAM).uid(65534).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("needs the capability NET_ADMIN"), "{stderr}");
    });
}
