//! Load balancers: a Service of type LoadBalancer gets a name, which resolves a moment later, and an address of the VPC,
//! from which every connection is passed to the Service's port on the node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::cloud::{Cloud, REGION};
use crate::{dns, network};

/// AWS takes a minute or two until a new name resolves. Long enough to catch who does not wait.
const NAME_DELAY: Duration = Duration::from_secs(3);
/// Last numbers of the addresses load balancers get.
const ADDRESSES: std::ops::Range<u8> = 20..250;

/// All load balancers of the region, by the UID of their Service.
#[derive(Debug, Default)]
struct Region {
    hosts: PathBuf,
    balancers: BTreeMap<String, Balancer>,
}

#[derive(Debug)]
struct Balancer {
    address: Ipv4Addr,
    host: String,
    /// Whether the name resolves yet.
    named: bool,
    /// Port and node port of every relay.
    ports: BTreeSet<(u16, u16)>,
    relays: JoinSet<()>,
}

/// Serves the Services of all `clusters`, given with the address of their node.
pub fn serve(cloud: &Cloud, clusters: Vec<(Client, Ipv4Addr)>) {
    let region = Region { hosts: cloud.state.join("hosts"), balancers: BTreeMap::new() };
    let region = Arc::new(Mutex::new(region));
    for (client, node) in clusters {
        tokio::spawn(follow(Arc::clone(&region), client, node));
    }
}

async fn follow(region: Arc<Mutex<Region>>, client: Client, node: Ipv4Addr) {
    let services = Api::<Service>::all(client.clone());
    let mut mine: BTreeSet<String> = BTreeSet::new();
    let mut listed: BTreeSet<String> = BTreeSet::new();
    let reporter = Reporter { controller: "service-controller".to_owned(), instance: None };
    let events = Recorder::new(client.clone(), reporter);
    let mut changes = watcher(services, watcher::Config::default()).default_backoff().boxed();
    loop {
        let event = match changes.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!("watching services: {error}");
                continue;
            }
        };
        let result = match event {
            watcher::Event::Apply(service) | watcher::Event::InitApply(service) => {
                let uid = service.uid().unwrap_or_default();
                listed.insert(uid.clone());
                if ports(&service).is_empty() {
                    refuse(&events, &service).await;
                    remove(&region, &uid).await
                } else {
                    mine.insert(uid);
                    ensure(&region, &client, &service, node).await
                }
            }
            watcher::Event::Delete(service) => remove(&region, &service.uid().unwrap_or_default()).await,
            watcher::Event::Init => {
                listed.clear();
                Ok(())
            }
            watcher::Event::InitDone => {
                for uid in mine.difference(&listed) {
                    if let Err(error) = remove(&region, uid).await {
                        tracing::warn!("load balancer: {error:#}");
                    }
                }
                Ok(())
            }
        };
        if let Err(error) = result {
            tracing::warn!("load balancer: {error:#}");
        }
    }
}

/// What is wanted of us. A Service that names a class wants a load balancer of somebody else.
fn wanted(service: &Service) -> Option<&ServiceSpec> {
    let spec = service.spec.as_ref().filter(|_| service.metadata.deletion_timestamp.is_none())?;
    (spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()).then_some(spec)
}

/// Says why a Service gets no load balancer, in the words of cloud-provider-aws.
async fn refuse(events: &Recorder, service: &Service) {
    if wanted(service).is_none() {
        return;
    }
    let note =
        "Error syncing load balancer: failed to ensure load balancer: Only TCP LoadBalancer is supported for AWS ELB";
    let event = Event {
        type_: EventType::Warning,
        reason: "SyncLoadBalancerFailed".to_owned(),
        note: Some(note.to_owned()),
        action: "EnsureLoadBalancer".to_owned(),
        secondary: None,
    };
    if let Err(error) = events.publish(&event, &service.object_ref(&())).await {
        tracing::warn!("load balancer: {error:#}");
    }
}

/// Port and node port of a Service that wants a load balancer; nothing for any other.
fn ports(service: &Service) -> BTreeSet<(u16, u16)> {
    let Some(spec) = wanted(service) else { return BTreeSet::new() };
    let pair = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some((u16::try_from(port.port).ok()?, u16::try_from(port.node_port?).ok()?))
    };
    spec.ports
        .iter()
        .flatten()
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .filter_map(pair)
        .collect()
}

/// AWS's form of a name, from the Service's UID: `a` and 31 digits, a number, the region.
fn host_of(uid: &str) -> String {
    let digits: String = uid.chars().filter(char::is_ascii_hexdigit).take(31).collect();
    let number = digits.bytes().fold(1_000_000_000_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 9_000_000_000);
    format!("a{digits}-{number}.{REGION}.elb.amazonaws.com")
}

async fn ensure(region: &Arc<Mutex<Region>>, client: &Client, service: &Service, node: Ipv4Addr) -> Result<()> {
    let (uid, ports) = (service.uid().unwrap_or_default(), ports(service));
    let mut locked = region.lock().await;
    let mut known = locked.balancers.remove(&uid);
    if known.as_ref().is_none_or(|balancer| balancer.ports != ports) {
        let (address, named) = match known.take() {
            Some(mut old) => {
                old.relays.shutdown().await;
                (old.address, old.named)
            }
            None => {
                tokio::spawn(name_later(Arc::clone(region), uid.clone()));
                (locked.free()?, false)
            }
        };
        network::add_address(address).await?;
        let relays = relays(address, &ports, node).await?;
        known = Some(Balancer { address, host: host_of(&uid), named, ports, relays });
    }
    locked.balancers.extend(known.map(|balancer| (uid.clone(), balancer)));
    drop(locked);
    publish(client, service, &host_of(&uid)).await
}

/// Writes the name into the Service's status, unless it is there.
async fn publish(client: &Client, service: &Service, host: &str) -> Result<()> {
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    if ingress.is_some_and(|ingress| ingress.iter().any(|entry| entry.hostname.as_deref() == Some(host))) {
        return Ok(());
    }
    let api = Api::<Service>::namespaced(client.clone(), &service.namespace().unwrap_or_default());
    let status = json!({"status": {"loadBalancer": {"ingress": [{"hostname": host}]}}});
    let patched = api.patch_status(&service.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
    patched.map(drop).with_context(|| format!("publishing {host}"))
}

async fn name_later(region: Arc<Mutex<Region>>, uid: String) {
    tokio::time::sleep(NAME_DELAY).await;
    let mut region = region.lock().await;
    if let Some(balancer) = region.balancers.get_mut(&uid) {
        balancer.named = true;
    }
    if let Err(error) = region.write_hosts() {
        tracing::warn!("load balancer: {error:#}");
    }
}

async fn remove(region: &Mutex<Region>, uid: &str) -> Result<()> {
    let mut region = region.lock().await;
    if let Some(balancer) = region.balancers.remove(uid) {
        region.write_hosts()?;
        network::remove_address(balancer.address).await?;
    }
    Ok(())
}

impl Region {
    fn free(&self) -> Result<Ipv4Addr> {
        let taken: BTreeSet<Ipv4Addr> = self.balancers.values().map(|balancer| balancer.address).collect();
        ADDRESSES
            .map(|last| Ipv4Addr::new(10, 0, 0, last))
            .find(|address| !taken.contains(address))
            .context("no address is left")
    }

    fn write_hosts(&self) -> Result<()> {
        let named = self.balancers.values().filter(|balancer| balancer.named);
        let hosts: String = named.map(|balancer| dns::host(balancer.address, &balancer.host)).collect();
        std::fs::write(&self.hosts, hosts).with_context(|| format!("writing {}", self.hosts.display()))
    }
}

async fn relays(address: Ipv4Addr, ports: &BTreeSet<(u16, u16)>, node: Ipv4Addr) -> Result<JoinSet<()>> {
    let mut relays = JoinSet::new();
    for &(port, target) in ports {
        let listener =
            TcpListener::bind((address, port)).await.with_context(|| format!("listening at {address}:{port}"))?;
        relays.spawn(relay(listener, node, target));
    }
    Ok(relays)
}

/// Passes connections on to a port of the node until it is dropped.
async fn relay(listener: TcpListener, node: Ipv4Addr, port: u16) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((mut client, _)) = accepted else { continue };
                connections.spawn(async move {
                    // No target is a closed connection, as with a Network Load Balancer.
                    if let Ok(mut target) = TcpStream::connect((node, port)).await {
                        let _ended = tokio::io::copy_bidirectional(&mut client, &mut target).await;
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn service(kind: &str, protocol: &str) -> Service {
        let port = json!({"port": 8080, "nodePort": 30123, "protocol": protocol});
        serde_json::from_value(json!({"metadata": {"name": "front"}, "spec": {"type": kind, "ports": [port]}})).unwrap()
    }

    #[test]
    fn only_tcp_services_of_that_type_get_one() {
        assert_eq!(ports(&service("LoadBalancer", "TCP")), BTreeSet::from([(8080, 30123)]));
        assert!(ports(&service("ClusterIP", "TCP")).is_empty());
        assert!(ports(&service("LoadBalancer", "UDP")).is_empty());
    }

    #[test]
    fn names_look_like_amazons_and_stay_the_same() {
        let host = host_of("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9");
        assert_eq!(host, host_of("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"));
        assert!(
            host.starts_with("a0a1b2c3d4e5f60718293a4b5c6d7e8f-") && host.ends_with(".us-west-2.elb.amazonaws.com"),
            "{host}"
        );
    }
}
