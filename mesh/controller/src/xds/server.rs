//! ADS over gRPC and TLS. Every replica serves; a stream tells one VirtualNode's configuration and no other.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};
use futures::{Stream, stream};
use mesh_api::{MeshMember as _, MeshObject as _};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    auth::{Authenticate, Caller},
    config::{self, Resources},
    node_id,
    session::Session,
    view,
};
use crate::{discovery::Discovery, identity::Identity, store::Store, tls::TlsListener};

/// A burst of changes is one configuration.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often the peer of a silent connection is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The configuration that a stream follows; `None` until all it needs is known.
pub type Following = watch::Receiver<Option<Arc<Resources>>>;

/// Its other end.
type Told = watch::Sender<Option<Arc<Resources>>>;

/// Knows what to tell whom.
pub trait Configure: Send + Sync + 'static {
    /// The configuration of the caller's VirtualNode. `node` is what the caller says it is.
    fn follow(&self, caller: &Caller, node: &str) -> Result<Following, Status>;
}

/// The service.
pub struct Ads<A, C> {
    authenticate: Arc<A>,
    configure: Arc<C>,
    stop: CancellationToken,
}

impl<A: Authenticate, C: Configure> Ads<A, C> {
    /// Streams end with `stop`; Envoys then go to another replica.
    pub fn new(authenticate: A, configure: Arc<C>, stop: CancellationToken) -> Self {
        Self { authenticate: Arc::new(authenticate), configure, stop }
    }

    /// Serves until the end.
    pub async fn serve(self, listener: TlsListener) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        let connections = stream::unfold(listener, |mut listener| async {
            let (connection, _) = listener.next().await;
            Some((Ok::<_, std::io::Error>(connection), listener))
        });
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_service(AggregatedDiscoveryServiceServer::new(self))
            .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
            .await
            .context("serving xDS")
    }
}

type Responses<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl<A: Authenticate, C: Configure> AggregatedDiscoveryService for Ads<A, C> {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let caller = self.authenticate.caller(request.metadata()).await?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.ok_or_else(|| Status::invalid_argument("no request"))?;
        let node = first.node.as_ref().map(|node| node.id.clone()).unwrap_or_default();
        let following = self.configure.follow(&caller, &node).inspect_err(|status| {
            tracing::warn!(?caller, node, status = status.message(), "refused a sidecar");
        })?;
        tracing::info!(pod = caller.pod, namespace = caller.namespace, node, "a sidecar has connected");
        let mut session = Session::default();
        heard(&mut session, first, &caller);
        let (sender, responses) = mpsc::channel(8);
        let stream = ServedStream { session, caller, requests, following, sender };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stream.serve() => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("state of the world only"))
    }
}

struct ServedStream {
    session: Session,
    caller: Caller,
    requests: Streaming<DiscoveryRequest>,
    following: Following,
    sender: mpsc::Sender<Result<DiscoveryResponse, Status>>,
}

impl ServedStream {
    /// Until either side ends.
    async fn serve(mut self) {
        let first = self.following.borrow_and_update().clone();
        first.into_iter().for_each(|target| self.session.aim(target));
        loop {
            for response in self.session.next() {
                tracing::debug!(
                    pod = self.caller.pod,
                    kind = response.type_url,
                    version = response.version_info,
                    "sent"
                );
                if self.sender.send(Ok(response)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                request = self.requests.message() => match request {
                    Ok(Some(request)) => heard(&mut self.session, request, &self.caller),
                    Ok(None) | Err(_) => {
                        tracing::info!(pod = self.caller.pod, namespace = self.caller.namespace, "a sidecar has gone");
                        return;
                    }
                },
                alive = self.following.changed() => {
                    if alive.is_err() { return }
                    let target = self.following.borrow_and_update().clone();
                    target.into_iter().for_each(|target| self.session.aim(target));
                }
            }
        }
    }
}

fn heard(session: &mut Session, request: DiscoveryRequest, caller: &Caller) {
    if let Some(rejected) = session.hear(request) {
        let (kind, version) = (rejected.kind, rejected.version);
        tracing::error!(
            pod = caller.pod,
            namespace = caller.namespace,
            ?kind,
            version,
            message = rejected.message,
            "Envoy rejects its configuration"
        );
    }
}

/// The configurations of this cluster's VirtualNodes, kept current for those that have streams.
pub struct Configurations {
    store: Store,
    discovery: Discovery,
    identity: Identity,
    api_server: Option<IpAddr>,
    /// By namespace and name of the VirtualNode.
    nodes: Mutex<HashMap<(String, String), Told>>,
}

impl Configurations {
    /// `api_server` is the service address of the cluster's API server, where applications may always go.
    pub fn new(store: Store, discovery: Discovery, identity: Identity, api_server: Option<IpAddr>) -> Arc<Self> {
        Arc::new(Self { store, discovery, identity, api_server, nodes: Mutex::default() })
    }

    /// Follows the cluster and Cloud Map until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (mut changed, mut found) = (self.store.changed(), self.discovery.found());
        loop {
            let alive = tokio::select! {
                alive = changed.changed() => alive,
                alive = found.changed() => alive,
                () = stop.cancelled() => return,
            };
            if alive.is_err() {
                return;
            }
            sleep(DEBOUNCE).await;
            changed.mark_unchanged();
            found.mark_unchanged();
            self.refresh();
        }
    }

    fn refresh(&self) {
        let snapshot = self.store.snapshot();
        let found = self.discovery.found().borrow().clone();
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|_, sender| sender.receiver_count() > 0);
        for ((namespace, name), sender) in nodes.iter() {
            let Some(node) = snapshot.virtual_node(namespace, name) else { continue };
            let Some(view) = view::view(node, &snapshot, &found, &self.identity) else { continue };
            let resources = config::resources(&view, &found, self.api_server);
            sender.send_if_modified(|current| {
                let news = current.as_deref() != Some(&resources);
                if news {
                    *current = Some(Arc::new(resources));
                }
                news
            });
        }
    }
}

impl Configure for Configurations {
    fn follow(&self, caller: &Caller, claimed: &str) -> Result<Following, Status> {
        let snapshot = self.store.snapshot();
        let pod = snapshot.pod(&caller.namespace, &caller.pod);
        let pod = pod.filter(|pod| pod.metadata.uid.as_ref() == Some(&caller.uid));
        // The copy of the cluster may be a moment behind.
        let pod = pod.ok_or_else(|| Status::unavailable("this pod is not known yet"))?;
        let node = snapshot.virtual_node_of(pod);
        let node = node.map_err(|error| Status::permission_denied(format!("{error:#}")))?;
        let mesh = node.mesh_ref().and_then(|mesh| snapshot.mesh(&mesh.name));
        let mesh = mesh.ok_or_else(|| Status::unavailable("the mesh of this VirtualNode is not known yet"))?;
        let own = node_id(&mesh.aws_name(), &node.aws_name());
        if own != claimed {
            return Err(Status::permission_denied(format!("this pod is {own}, not {claimed}")));
        }
        let key = (caller.namespace.clone(), node.metadata.name.clone().unwrap_or_default());
        let following = {
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.entry(key).or_insert_with(|| watch::channel(None).0).subscribe()
        };
        self.refresh();
        Ok(following)
    }
}
