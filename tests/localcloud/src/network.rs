//! The VPC: one router with a link to each cluster's node. Everything between clusters passes the router.
//!
//! `10.0.0.1` is the router, `10.0.0.2` the VPC's resolver (as in AWS, the network's address plus two), which here also
//! answers for every public name. Load balancers get `10.0.0.20` and up.

use std::net::Ipv4Addr;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Address range of the VPC.
pub const VPC: &str = "10.0.0.0/16";
/// The VPC's router.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Resolver and front door of the region.
pub const REGION: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// What gives pods the credentials of their role, on each node; here the region answers for all nodes.
pub const POD_IDENTITY_AGENT: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 23);
/// Where services of a cluster get their virtual addresses, EKS's default for a VPC in 10.0.0.0/8.
pub const SERVICES: &str = "172.20.0.0/16";
/// The cluster's DNS service, as on EKS.
pub const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 10);
/// The interface that holds the router's own addresses. Not every kernel has dummy interfaces, but all answer for these.
const INTERFACE: &str = "lo";

/// One cluster's subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Third number of the addresses, 1 for the first cluster.
    pub number: u8,
}

impl Subnet {
    fn address(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.number, last)
    }

    /// What the AWS API says of it.
    pub fn cidr(self) -> String {
        format!("{}/24", self.address(0))
    }

    /// The cluster's API server, also the gateway its pods know.
    pub fn endpoint(self) -> Ipv4Addr {
        self.address(1)
    }

    /// The node, an EC2 instance. The first four addresses of a subnet are AWS's.
    pub fn node(self) -> Ipv4Addr {
        self.address(4)
    }

    /// First and last address of a pod.
    pub fn pods(self) -> (Ipv4Addr, Ipv4Addr) {
        (self.address(10), self.address(250))
    }

    /// Each cluster has its own availability zone, `a` for the first.
    pub fn zone(self) -> String {
        format!("{}{}", crate::cloud::REGION, char::from(b'a' + self.number.saturating_sub(1)))
    }

    /// The router's end of the link to the node.
    fn link(self) -> String {
        format!("vpc-c{}", self.number)
    }
}

/// `ip -batch` commands for the region's own network namespace.
fn region_plan() -> String {
    format!(
        "link set lo up
address add {ROUTER}/32 dev {INTERFACE}
address add {REGION}/32 dev {INTERFACE}
address add {POD_IDENTITY_AGENT}/32 dev {INTERFACE}
route add unreachable 169.254.0.0/16
"
    )
}

/// `ip -batch` commands for the router's side of the link to the node whose namespaces `pid` holds.
fn link_plan(subnet: Subnet, pid: u32) -> String {
    let (link, node, cidr) = (subnet.link(), subnet.node(), subnet.cidr());
    format!(
        "link add {link} type veth peer name eth0 netns {pid}
link set {link} up
route add {node} dev {link} src {REGION}
route add {cidr} via {node} dev {link} src {REGION}
"
    )
}

/// `ip -batch` commands for the node's side. Instance metadata is unreachable, so that nothing waits for it and no pod gets
/// the node's role, as with a hop limit of 1.
fn node_plan(subnet: Subnet) -> String {
    let (node, endpoint) = (subnet.node(), subnet.endpoint());
    format!(
        "link set lo up
address add {node}/32 dev eth0
address add {endpoint}/32 dev lo
link set eth0 up
route add {ROUTER} dev eth0 src {node}
route add default via {ROUTER} dev eth0 src {node}
route add {POD_IDENTITY_AGENT} via {ROUTER} dev eth0 src {node}
route add unreachable 169.254.0.0/16
"
    )
}

/// Makes the region's network.
pub async fn create() -> Result<()> {
    ip(Command::new("ip"), &region_plan()).await?;
    forward(Command::new("sh")).await
}

/// Connects a node to the router. `inside` starts a command in the node's namespaces.
pub async fn connect(subnet: Subnet, pid: u32, inside: impl Fn(&str) -> Command) -> Result<()> {
    ip(Command::new("ip"), &link_plan(subnet, pid)).await?;
    ip(inside("ip"), &node_plan(subnet)).await?;
    forward(inside("sh")).await
}

/// Gives the region one more address, for a load balancer.
pub async fn add_address(address: Ipv4Addr) -> Result<()> {
    ip(Command::new("ip"), &format!("address replace {address}/32 dev {INTERFACE}\n")).await
}

/// Takes the address of a load balancer away.
pub async fn remove_address(address: Ipv4Addr) -> Result<()> {
    ip(Command::new("ip"), &format!("address delete {address}/32 dev {INTERFACE}\n")).await
}

/// Off in a new network namespace, whatever the host has.
async fn forward(shell: Command) -> Result<()> {
    feed(shell, &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], "").await
}

async fn ip(ip: Command, plan: &str) -> Result<()> {
    feed(ip, &["-batch", "-"], plan).await
}

/// Runs a short command with `input` on stdin; its stderr is the error.
pub async fn feed(mut command: Command, arguments: &[&str], input: &str) -> Result<()> {
    let program = command.as_std().get_program().to_owned();
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {}", program.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} {}: {}", program.display(), arguments.join(" "), said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_second_cluster() {
        let subnet = Subnet { number: 2 };
        assert_eq!(subnet.cidr(), "10.0.2.0/24");
        assert_eq!(subnet.node().to_string(), "10.0.2.4");
        assert_eq!(subnet.endpoint().to_string(), "10.0.2.1");
        assert_eq!(subnet.zone(), "us-west-2b");
    }

    #[test]
    fn everything_between_clusters_goes_through_the_router() {
        let subnet = Subnet { number: 1 };
        assert!(link_plan(subnet, 77).contains("veth peer name eth0 netns 77"));
        assert!(link_plan(subnet, 77).contains("route add 10.0.1.0/24 via 10.0.1.4 dev vpc-c1"));
        assert!(node_plan(subnet).contains("route add default via 10.0.0.1 dev eth0"));
    }

    #[test]
    fn instance_metadata_is_unreachable() {
        for plan in [region_plan(), node_plan(Subnet { number: 1 })] {
            assert!(plan.contains("route add unreachable 169.254.0.0/16"));
            assert!(plan.contains("169.254.170.23"), "what gives pods their credentials is no metadata");
        }
    }
}
