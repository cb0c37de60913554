//! Connects to xDS as a sidecar's Envoy does: delta ADS over TLS with the token of its pod, and every response acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType},
            },
            core::v3::{Node, address::Address, socket_address::PortSpecifier},
            endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
            listener::v3::{Listener, filter::ConfigType},
            route::v3::RouteConfiguration,
        },
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager, http_connection_manager::RouteSpecifier,
        },
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    google::protobuf::Any,
};
use prost::{Message as _, Name as _};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, transport::Endpoint};

/// How long Envoy waits at most before it opens the next stream, and gRPC after the first and between further connections
/// that are refused.
const STREAM_BACKOFF: Duration = Duration::from_millis(500);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(2);

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cluster,
    Endpoint,
    Listener,
    Route,
}

impl Kind {
    /// In the order in which Envoy asks for them.
    const ALL: [Self; 4] = [Self::Cluster, Self::Endpoint, Self::Listener, Self::Route];

    fn type_url(self) -> String {
        match self {
            Self::Cluster => Cluster::type_url(),
            Self::Endpoint => ClusterLoadAssignment::type_url(),
            Self::Listener => Listener::type_url(),
            Self::Route => RouteConfiguration::type_url(),
        }
    }

    fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

/// One Envoy.
pub struct Sidecar {
    /// Its VirtualNode.
    pub node: usize,
    /// Which of the node's pods it is in.
    pub pod: usize,
    id: String,
    token: String,
    held: Mutex<Held>,
}

/// What an Envoy has.
#[derive(Default)]
struct Held {
    /// Versions by name, of each kind.
    versions: [BTreeMap<String, String>; 4],
    /// What it asks for by name, of each kind.
    names: [BTreeSet<String>; 4],
    /// Kinds of which it has had a response.
    answered: [bool; 4],
    /// Addresses of each cluster.
    endpoints: HashMap<String, BTreeSet<String>>,
    /// When it acknowledged the response that brought an address last, and the one that took it away.
    came: HashMap<String, Instant>,
    went: HashMap<String, Instant>,
    counts: Counts,
    /// Since when it has all it needs.
    configured: Option<Instant>,
    /// When it acknowledged last.
    last: Option<Instant>,
    error: Option<String>,
}

/// What an Envoy was sent, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Responses.
    responses: [u64; 4],
    /// Bytes of all resources.
    bytes: u64,
}

impl Counts {
    /// Responses about routes.
    pub fn routes(&self) -> u64 {
        self.responses[Kind::Route as usize]
    }
}

impl Sidecar {
    /// An Envoy that has nothing yet.
    pub fn new(node: usize, pod: usize, id: String, token: String) -> Self {
        Self { node, pod, id, token, held: Mutex::default() }
    }

    /// When it acknowledged an endpoint of this address.
    pub fn came(&self, address: &str) -> Option<Instant> {
        self.held().came.get(address).copied()
    }

    /// When it acknowledged that an endpoint is gone.
    pub fn went(&self, address: &str) -> Option<Instant> {
        self.held().went.get(address).copied()
    }

    /// What it was sent so far.
    pub fn counts(&self) -> Counts {
        self.held().counts
    }

    /// When it acknowledged last.
    pub fn last(&self) -> Option<Instant> {
        self.held().last
    }

    /// Since when it has all it needs.
    pub fn configured(&self) -> Option<Instant> {
        self.held().configured
    }

    /// Why its last stream ended.
    pub fn error(&self) -> Option<String> {
        self.held().error.clone()
    }

    /// Makes it a new Envoy, that has nothing.
    pub fn forget(&self) {
        *self.held() = Held::default();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, and connects again, for ever.
    pub async fn run(self: Arc<Self>, server: Endpoint) {
        loop {
            let mut backoff = FIRST_BACKOFF;
            let connection = loop {
                let attempt = Instant::now();
                match server.connect().await {
                    Ok(connection) => break connection,
                    Err(error) => self.held().error = Some(format!("{error:?}")),
                }
                tokio::time::sleep_until(attempt + backoff.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
                backoff = backoff.mul_f64(1.6).min(LAST_BACKOFF);
            };
            if let Err(error) = self.stream(AggregatedDiscoveryServiceClient::new(connection)).await {
                self.held().error = Some(format!("{error:#}"));
            }
            sleep(STREAM_BACKOFF.mul_f64(fastrand::f64())).await;
        }
    }

    async fn stream(
        &self,
        mut server: AggregatedDiscoveryServiceClient<tonic::transport::Channel>,
    ) -> anyhow::Result<()> {
        let (sender, requests) = mpsc::unbounded_channel();
        for request in self.subscriptions() {
            sender.send(request)?;
        }
        let mut request = Request::new(UnboundedReceiverStream::new(requests));
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse()?);
        let mut responses = server.delta_aggregated_resources(request).await?.into_inner();
        while let Some(response) = responses.message().await? {
            for request in self.receive(response)? {
                sender.send(request)?;
            }
        }
        Ok(())
    }

    fn request(&self, kind: Kind) -> DeltaDiscoveryRequest {
        let node = Some(Node { id: self.id.clone(), ..Node::default() });
        DeltaDiscoveryRequest { node, type_url: kind.type_url(), ..DeltaDiscoveryRequest::default() }
    }

    /// What a stream begins with: everything there is of clusters and listeners, and what was asked for by name.
    fn subscriptions(&self) -> Vec<DeltaDiscoveryRequest> {
        let held = self.held();
        let asked = |kind: &Kind| held.answered[*kind as usize] || matches!(kind, Kind::Cluster | Kind::Listener);
        let subscription = |kind: Kind| DeltaDiscoveryRequest {
            resource_names_subscribe: held.names[kind as usize].iter().cloned().collect(),
            initial_resource_versions: held.versions[kind as usize].clone().into_iter().collect(),
            ..self.request(kind)
        };
        Kind::ALL.into_iter().filter(asked).map(subscription).collect()
    }

    /// Takes in a response; returns what Envoy says next, the acknowledgement last.
    fn receive(&self, response: DeltaDiscoveryResponse) -> anyhow::Result<Vec<DeltaDiscoveryRequest>> {
        let kind = Kind::of(&response.type_url).context("a response of a kind that was not asked for")?;
        let mut held = self.held();
        let mut endpoints = Vec::new();
        let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
        for resource in response.resources {
            let body = resource.resource.unwrap_or_default();
            held.counts.bytes += body.value.len() as u64;
            match kind {
                Kind::Cluster if is_eds(&body)? => subscribe.push(resource.name.clone()),
                Kind::Endpoint => endpoints.push((resource.name.clone(), addresses(&body)?)),
                Kind::Listener => subscribe.extend(route_names(&body)?),
                Kind::Cluster | Kind::Route => {}
            }
            held.versions[kind as usize].insert(resource.name, resource.version);
        }
        for name in response.removed_resources {
            held.versions[kind as usize].remove(&name);
            if kind == Kind::Cluster {
                held.versions[Kind::Endpoint as usize].remove(&name);
                unsubscribe.push(name.clone());
            }
            endpoints.push((name, BTreeSet::new()));
        }
        held.counts.responses[kind as usize] += 1;
        held.answered[kind as usize] = true;
        let mut requests = Vec::new();
        let dependent = match kind {
            Kind::Cluster => Some(Kind::Endpoint),
            Kind::Listener => Some(Kind::Route),
            Kind::Endpoint | Kind::Route => None,
        };
        if let Some(dependent) = dependent {
            let names = &mut held.names[dependent as usize];
            subscribe.retain(|name| names.insert(name.clone()));
            unsubscribe.retain(|name| names.remove(name));
            if !subscribe.is_empty() || !unsubscribe.is_empty() {
                requests.push(DeltaDiscoveryRequest {
                    resource_names_subscribe: subscribe,
                    resource_names_unsubscribe: unsubscribe,
                    ..self.request(dependent)
                });
            }
        }
        requests.push(DeltaDiscoveryRequest { response_nonce: response.nonce, ..self.request(kind) });
        held.acknowledge(endpoints);
        Ok(requests)
    }
}

impl Held {
    fn acknowledge(&mut self, endpoints: Vec<(String, BTreeSet<String>)>) {
        let now = Instant::now();
        self.last = Some(now);
        for (cluster, addresses) in endpoints {
            let before = self.endpoints.insert(cluster, addresses.clone()).unwrap_or_default();
            self.came.extend(addresses.difference(&before).map(|address| (address.clone(), now)));
            self.went.extend(before.difference(&addresses).map(|address| (address.clone(), now)));
        }
        let has = |kind: Kind| {
            let (names, versions) = (&self.names[kind as usize], &self.versions[kind as usize]);
            !versions.is_empty() && names.iter().all(|name| versions.contains_key(name))
        };
        if self.configured.is_none() && Kind::ALL.into_iter().all(has) {
            self.configured = Some(now);
        }
    }
}

fn is_eds(body: &Any) -> anyhow::Result<bool> {
    let cluster = Cluster::decode(body.value.as_slice())?;
    Ok(cluster.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)))
}

fn addresses(body: &Any) -> anyhow::Result<BTreeSet<String>> {
    let assignment = ClusterLoadAssignment::decode(body.value.as_slice())?;
    let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
    Ok(endpoints
        .filter_map(|endpoint| match endpoint.host_identifier? {
            HostIdentifier::Endpoint(endpoint) => match endpoint.address?.address? {
                Address::SocketAddress(socket) => match socket.port_specifier? {
                    PortSpecifier::PortValue(_) | PortSpecifier::NamedPort(_) => Some(socket.address),
                },
                _ => None,
            },
            HostIdentifier::EndpointName(_) => None,
        })
        .collect())
}

fn route_names(body: &Any) -> anyhow::Result<Vec<String>> {
    let listener = Listener::decode(body.value.as_slice())?;
    let chains = listener.filter_chains.into_iter().chain(listener.default_filter_chain);
    let mut names = Vec::new();
    for filter in chains.flat_map(|chain| chain.filters) {
        let Some(ConfigType::TypedConfig(config)) = filter.config_type else { continue };
        if !config.type_url.ends_with(".HttpConnectionManager") {
            continue;
        }
        let manager = HttpConnectionManager::decode(config.value.as_slice())?;
        if let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier {
            names.push(rds.route_config_name);
        }
    }
    Ok(names)
}
