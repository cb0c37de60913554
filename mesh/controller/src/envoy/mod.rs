//! Encodes the model as Envoy's messages. Pure, and sorted: the same workload gives the same bytes, so that a version is a
//! hash and all replicas agree on it. Names are those App Mesh gave, so that dashboards keep working.
//!
//! **Ingress**, port 15000: each listener of the workload goes to the application on loopback, by original destination.
//!
//! **Egress**, port 15001: HTTP on any port goes by its Host: a backend's name, alone or with its port, takes the routes
//! of that VirtualService; each upstream is a cluster whose endpoints come by EDS. Connections to a backend that is called
//! by TCP go by their port, and by their address where the backend's host is a Service of the cluster. All else depends on the mesh's
//! egressFilter. As in App Mesh, ALLOW_ALL lets it pass to where it was going, and DROP_ALL, the default, only
//! - to AWS: HTTP by Host, TLS by server name;
//! - to link-local addresses, where EKS gives credentials (metadata of the instance is never captured);
//! - to the cluster's API server, by its service address, which clients in pods use without a server name;
//! - to DNS over TCP.
//!
//! Other HTTP is answered with 404 and a text that says why, other connections are closed.
//!
//! **Gateways** have a listener for each port, whose routes are those of their GatewayRoutes joined with those of the
//! VirtualServices that they lead to.

mod access_log;
pub mod bootstrap;
mod cluster;
pub mod descriptors;
pub mod endpoint;
mod gateway;
mod health_check;
mod http;
mod listener;
mod outlier;
mod proto;
mod resource;
mod retries;
mod route;
mod route_match;
pub mod stats;
mod tcp;
mod tls;
pub mod tracing;

use std::{collections::BTreeMap, net::IpAddr};

pub use resource::{Resource, Resources, Shared};

use crate::model::{Backend, Proxy, Upstream, Workload};
use cluster::Names;
pub use listener::{EGRESS_PORT, INGRESS_PORT};

/// Stands in a bootstrap for the address of the pod's node, which Kubernetes puts there: a reference to a variable of the
/// container.
pub const HOST_IP: &str = "$(APPMESH_HOST_IP)";
/// That variable.
pub const HOST_IP_VARIABLE: &str = "APPMESH_HOST_IP";

/// The configuration of a workload's Envoys, but for the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// SDS: the certificates and authorities in files of Envoy's container.
    pub secrets: Resources,
    /// CDS
    pub clusters: Resources,
    /// LDS
    pub listeners: Resources,
    /// RDS
    pub routes: Resources,
    /// The upstreams whose endpoints come by EDS, by cluster.
    pub upstreams: BTreeMap<String, Upstream>,
}

impl Configuration {
    /// Adds the upstreams of a backend. None is called of one that must not be.
    fn call<'a>(&mut self, backend: &'a Backend, names: &mut Names<'a>) {
        let routing = backend.routing.iter().filter(|_| backend.refusal.is_none());
        for (node, upstream) in routing.flat_map(|routing| &routing.upstreams) {
            let tls = backend.tls(upstream);
            let name = names.add(backend, node, upstream);
            self.secrets.extend(tls.iter().flat_map(tls::secrets_of_upstream));
            self.clusters
                .extend([Resource::new(&name, &cluster::upstream(&name, upstream, tls.as_ref(), names.pool()))]);
            if cluster::is_eds(upstream) {
                self.upstreams.insert(name, upstream.clone());
            }
        }
    }
}

/// What all Envoys of a cluster have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Service address of the cluster's API server, where applications may always go.
    pub api_server: Option<IpAddr>,
    /// Whether requests are traced, by Envoys whose bootstrap says where spans go.
    pub tracing: bool,
    /// Whether pods have addresses of IPv6, on which Envoys listen too.
    pub ipv6: bool,
}

/// Without tracing, in a cluster of one family of addresses.
impl From<Option<IpAddr>> for Settings {
    fn from(api_server: Option<IpAddr>) -> Self {
        Self { api_server, tracing: false, ipv6: api_server.is_some_and(|address| address.is_ipv6()) }
    }
}

/// Encodes what an Envoy is configured from.
pub fn encode(proxy: &Proxy, settings: impl Into<Settings>) -> Configuration {
    match proxy {
        Proxy::Sidecar(workload) => sidecar(workload, settings.into()),
        Proxy::Gateway(gateway) => gateway::encode(gateway, settings.into()),
    }
}

fn sidecar(workload: &Workload, settings: Settings) -> Configuration {
    let mut configuration = Configuration::default();
    let mut names = Names::default();
    let own = workload.listeners.iter().map(|listener| cluster::application(workload, listener));
    let own = own.chain([cluster::passthrough()]);
    configuration.clusters.extend(own.map(|cluster| Resource::new(&cluster.name, &cluster)));
    for backend in &workload.backends {
        configuration.call(backend, &mut names);
    }
    configuration.secrets.extend(tls::secrets_of_listeners(&workload.listeners));
    let egress = listener::egress(workload, &names, settings);
    let listeners: Vec<_> = listener::ingress(workload, settings).into_iter().chain([egress]).collect();
    configuration.listeners = listeners.iter().map(|listener| Resource::new(&listener.name, listener)).collect();
    let routes = route::egress(workload, &names);
    configuration.routes = [Resource::new(&routes.name, &routes)].into_iter().collect();
    configuration
}
