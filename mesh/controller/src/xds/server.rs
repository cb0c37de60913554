//! Serves ADS over gRPC and TLS, state of the world and delta. Every replica serves all workloads.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};
use futures::{Stream, stream};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    auth::{Authenticate, Caller},
    cache::{Cache, Subscription, Versioned},
    delta::Delta,
    session::{Answer, Kind, Session},
    sotw::Sotw,
};
use crate::{
    metrics::{Metrics, ResourceType},
    model::WorkloadName,
    tls::TlsListener,
};

/// How often the peer of a silent connection is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Responses that wait for a slow peer, before what follows from later changes waits too and becomes one.
const RESPONSES: usize = 8;
/// How many names a peer may ask for. An Envoy asks for the few that it was sent; nobody may ask for all memory.
const NAMES: usize = 10_000;

/// Knows the pods' workloads.
pub trait Identify: Send + Sync + 'static {
    /// The workload of the calling pod. `claimed` is the id that its Envoy shows, and must be the workload's name.
    ///
    /// # Errors
    /// The pod is not known, of no workload, or of another than it claims.
    fn workload(&self, caller: &Caller, claimed: &str) -> Result<WorkloadName, Status>;
}

/// The service.
pub struct Ads<A, I> {
    authenticate: A,
    identify: Arc<I>,
    cache: Arc<Cache>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl<A: Authenticate, I: Identify> Ads<A, I> {
    /// Streams end with `stop`; Envoys then go to another replica.
    pub fn new(
        authenticate: A,
        identify: Arc<I>,
        cache: Arc<Cache>,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        Self { authenticate, identify, cache, metrics, stop }
    }

    /// Serves until the end.
    ///
    /// # Errors
    /// The server ends early.
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

    async fn open<S: Session + Send + 'static>(
        &self,
        request: Request<Streaming<S::Request>>,
    ) -> Result<Response<Responses<S::Response>>, Status> {
        let caller = self.authenticate.caller(request.metadata()).await?;
        let mut requests = request.into_inner();
        let first = tokio::select! {
            first = requests.message() => first?.ok_or_else(|| Status::invalid_argument("no request"))?,
            () = self.stop.cancelled() => return Err(Status::unavailable("this controller ends")),
        };
        let node = S::node(&first);
        let workload = self.identify.workload(&caller, node).inspect_err(|status| {
            let (pod, namespace) = (&caller.pod, &caller.namespace);
            tracing::warn!(pod, namespace, node, reason = status.message(), "refused an Envoy");
        })?;
        let subscription = self.cache.subscribe(workload.clone(), caller.clone(), S::PROTOCOL);
        let (sender, responses) = mpsc::channel::<Boxed<S::Response>>(RESPONSES);
        let connection = Connection {
            session: S::new(),
            subscription,
            peer: Peer::new(caller, &workload, self.metrics.clone()),
            since: Instant::now(),
            unconfirmed: None,
            sender,
        };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = connection.serve(first, requests) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses).map(|response| *response))))
    }
}

/// A channel has room for 32 of what it is of, whatever its capacity; so they are pointers.
type Boxed<T> = Box<Result<T, Status>>;
type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl<A: Authenticate, I: Identify> AggregatedDiscoveryService for Ads<A, I> {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<Sotw>(request).await
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Delta>(request).await
    }
}

/// Who is at the other end, for logs and metrics. It is counted for as long as it is held.
struct Peer {
    caller: Caller,
    workload: String,
    metrics: Metrics,
}

impl Peer {
    fn new(caller: Caller, workload: &WorkloadName, metrics: Metrics) -> Self {
        let peer = Self { caller, workload: workload.to_string(), metrics };
        peer.metrics.xds_streams.inc();
        tracing::info!(
            pod = peer.caller.pod,
            namespace = peer.caller.namespace,
            workload = peer.workload,
            "an Envoy has connected"
        );
        peer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.metrics.xds_streams.dec();
        tracing::info!(
            pod = self.caller.pod,
            namespace = self.caller.namespace,
            workload = self.workload,
            "an Envoy has gone"
        );
    }
}

struct Connection<S: Session> {
    session: S,
    subscription: Subscription,
    peer: Peer,
    since: Instant,
    /// When the oldest change was seen that Envoy has not accepted all of.
    unconfirmed: Option<Instant>,
    sender: mpsc::Sender<Boxed<S::Response>>,
}

impl<S: Session> Connection<S> {
    /// Serves until either side ends.
    async fn serve(mut self, first: S::Request, mut requests: Streaming<S::Request>) {
        self.receive(first);
        loop {
            if self.session.state().names() > NAMES {
                let status = Status::resource_exhausted(format!("more than {NAMES} names"));
                // Whoever has gone need not know.
                let _ = self.sender.send(Box::new(Err(status))).await;
                return;
            }
            for update in self.session.state().responses() {
                self.sent(update.kind, &update.version);
                if self.sender.send(Box::new(Ok(S::encode(update)))).await.is_err() {
                    return;
                }
            }
            self.confirm();
            if let Some(refusal) = self.refusal() {
                // Envoy writes the status to its log, keeps what it has, and comes back.
                let _ = self.sender.send(Box::new(Err(Status::failed_precondition(refusal)))).await;
                return;
            }
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.receive(request),
                    Ok(None) | Err(_) => return,
                },
                target = self.subscription.next() => self.update(target),
            }
        }
    }

    /// Reports how far Envoy is.
    fn confirm(&mut self) {
        let state = self.session.state();
        self.subscription.report(state.progress());
        if let Some(changed) = self.unconfirmed.take_if(|_| state.is_in_force()) {
            self.peer.metrics.xds_convergence.observe(changed.elapsed().as_secs_f64());
        }
    }

    /// What Envoy, which has all that it is to have, must be told that it refuses.
    fn refusal(&mut self) -> Option<String> {
        let target = self.session.state().target_in_force()?;
        let refusal = target.snapshot.refusal.as_deref();
        self.subscription.must_tell(refusal).then(|| refusal.map(shortened)).flatten()
    }

    fn sent(&self, kind: Kind, version: &str) {
        tracing::debug!(pod = self.peer.caller.pod, r#type = kind.as_str(), version, "sent");
        self.peer.metrics.xds_pushes.get_or_create(&label(kind)).inc();
    }

    fn update(&mut self, target: Arc<Versioned>) {
        // What changed before Envoy connected is not this stream's to be measured by.
        let changed = Some(target.snapshot.changed).filter(|changed| *changed > self.since);
        self.unconfirmed = self.unconfirmed.or(changed);
        self.session.state().update(target);
    }

    fn receive(&mut self, request: S::Request) {
        let metrics = &self.peer.metrics;
        match self.session.receive(request) {
            Some(Answer::Accepted(kind)) => {
                metrics.xds_acks.get_or_create(&label(kind)).inc();
            }
            Some(Answer::Rejected(rejection)) => {
                metrics.xds_nacks.get_or_create(&label(rejection.kind)).inc();
                // What comes after it is another change.
                self.unconfirmed = None;
                let (pod, namespace, workload) =
                    (&self.peer.caller.pod, &self.peer.caller.namespace, &self.peer.workload);
                let (r#type, version, reason) = (rejection.kind.as_str(), &rejection.version, &rejection.message);
                tracing::error!(pod, namespace, workload, r#type, version, reason, "Envoy rejects its configuration");
                self.subscription.report_rejection(rejection.message);
            }
            None => {}
        }
    }
}

/// As much of a text as the status of a stream may have in any case: its header may be three times as long.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 2048;
    let end = text.floor_char_boundary(LONGEST);
    if end < text.len() { format!("{} …", &text[..end]) } else { text.to_owned() }
}

fn label(kind: Kind) -> ResourceType {
    ResourceType { r#type: kind.as_str().to_owned() }
}
