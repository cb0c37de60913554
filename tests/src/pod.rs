//! The network of a pod: its namespace and its node's, joined as a CNI plugin joins them, for one thread of a test.
//!
//! It needs root. Whoever makes a socket makes it in the namespace that the thread is in at that moment.

use std::fs::File;
use std::io::Write as _;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Uid, setfsuid};
use nlink::netlink::addr::{Ipv4Address, Ipv6Address};
use nlink::netlink::link::VethLink;
use nlink::netlink::{Connection, Route};

/// The user that an Envoy runs as, whose connections are not redirected.
pub const ENVOY: u32 = 1337;
/// A user whose connections are.
pub const APPLICATION: u32 = 0;

/// A network namespace.
struct Namespace(File);

impl Namespace {
    /// Makes one and stays in it.
    fn new() -> nix::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::open("/proc/thread-self/ns/net").map(Self).map_err(|_| Errno::last())
    }

    fn enter(&self) -> nix::Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET)
    }
}

/// A pod, 10.77.0.2 and fd77::2, joined to its node, 10.77.0.1, 10.77.0.9 and fd77::1.
pub struct Pod {
    node: Namespace,
    pod: Namespace,
}

impl Pod {
    /// Makes the two namespaces and stays in the pod's.
    fn new() -> nix::Result<Self> {
        let joined = Self { node: Namespace::new()?, pod: Namespace::new()? };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|_| Errno::last())?;
        let plumbing = async {
            let route = Connection::<Route>::new()?;
            route.add_link(VethLink::new("eth0", "pod").peer_netns_fd(&joined.node.0)).await?;
            address("eth0", &["10.77.0.2"], "fd77::2").await
        };
        runtime.block_on(plumbing).map_err(|_| Errno::EIO)?;
        joined.node.enter()?;
        runtime.block_on(address("pod", &["10.77.0.1", "10.77.0.9"], "fd77::1")).map_err(|_| Errno::EIO)?;
        joined.pod.enter()?;
        Ok(joined)
    }

    /// Does something on the node.
    ///
    /// # Errors
    /// The thread cannot change its namespace.
    pub fn on_the_node<T>(&self, act: impl FnOnce() -> T) -> nix::Result<T> {
        self.node.enter()?;
        let done = act();
        self.pod.enter()?;
        Ok(done)
    }

    /// Runs a test in namespaces of its own, which end with its thread. Without root it says on stderr that it is skipped.
    pub fn with(name: &'static str, test: impl FnOnce(&Self) + Send + 'static) {
        let ran = thread::spawn(move || match Self::new() {
            Ok(pod) => test(&pod),
            // Straight to stderr: what a passing test prints through the macros is not shown.
            Err(Errno::EPERM) => {
                let line = format!("{name}: SKIPPED, a network namespace can be made by root only\n");
                let _ = std::io::stderr().write_all(line.as_bytes());
            }
            Err(error) => std::panic::resume_unwind(Box::new(format!("the pod's network: {error}"))),
        });
        if let Err(panic) = ran.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Does something as a user, as far as sockets tell: one belongs to the file system user of the thread that makes it.
pub fn as_user<T>(uid: u32, act: impl FnOnce() -> T) -> T {
    let before = setfsuid(Uid::from_raw(uid));
    let done = act();
    setfsuid(before);
    done
}

async fn address(link: &str, v4: &[&str], v6: &str) -> nlink::Result<()> {
    let route = Connection::<Route>::new()?;
    for address in v4.iter().filter_map(|address| address.parse().ok()) {
        route.add_address(Ipv4Address::new(link, address, 24)).await?;
    }
    for address in v6.parse().into_iter() {
        route.add_address(Ipv6Address::new(link, address, 64).nodad()).await?;
    }
    route.set_link_up("lo").await?;
    route.set_link_up(link).await
}
