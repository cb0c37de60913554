//! A controller as far as an Envoy sees it, and a real Envoy: the one of $ENVOY or in PATH.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

use appmesh_controller::{
    envoy::{
        bootstrap::{self, Bootstrap},
        stats::Stats,
    },
    http,
    metrics::{Metrics, ResourceType},
    model::{WorkloadKind, WorkloadName},
    tls::{Policy, TlsListener},
    xds::{
        self, Ads, Cache, Identify, Snapshot,
        auth::{Authenticate, Caller},
        cache::{StreamState, Versions},
    },
};
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, async_trait, metadata::MetadataMap};

use crate::support::{served, wait_for};

const TOKEN: &str = "token-of-front";
/// Where an Envoy shows whether it is ready.
pub const STATS_PORT: u16 = 9901;

pub fn workload_name() -> WorkloadName {
    WorkloadName { mesh: "k8multi".to_owned(), kind: WorkloadKind::VirtualNode, name: "front_k8multi".to_owned() }
}

/// Knows one token.
struct OneToken;

#[async_trait]
impl Authenticate for OneToken {
    async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        match metadata.get("authorization").map(|value| value.as_bytes()) {
            Some(value) if value == format!("Bearer {TOKEN}").as_bytes() => {
                Ok(Caller { namespace: "k8multi".to_owned(), pod: "front".to_owned(), uid: String::new() })
            }
            other => Err(Status::unauthenticated(format!("{other:?}"))),
        }
    }
}

/// Knows one workload.
struct OneWorkload(WorkloadName);

impl Identify for OneWorkload {
    fn workload(&self, _: &Caller, claimed: &str) -> Result<WorkloadName, Status> {
        let Self(name) = self;
        if name.to_string() == claimed { Ok(name.clone()) } else { Err(Status::permission_denied(claimed)) }
    }
}

/// A controller, as far as an Envoy sees it.
pub struct Controller {
    pub cache: Arc<Cache>,
    pub metrics: Metrics,
    pub snapshot: Arc<Mutex<Option<Arc<Snapshot>>>>,
    pub address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<anyhow::Result<()>>,
}

impl Controller {
    pub async fn start(folder: &Path, port: u16, snapshot: Option<Arc<Snapshot>>) -> Self {
        Self::of(workload_name(), folder, port, snapshot).await
    }

    pub async fn of(workload: WorkloadName, folder: &Path, port: u16, snapshot: Option<Arc<Snapshot>>) -> Self {
        let (cache, metrics, stop) = (Arc::new(Cache::default()), Metrics::new(), CancellationToken::new());
        let listener = http::bind((Ipv4Addr::LOCALHOST, port).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TlsListener::new(listener, served(folder), "h2", &Policy::default()).unwrap();
        let ads = Ads::new(OneToken, Arc::new(OneWorkload(workload)), cache.clone(), metrics.clone(), stop.clone());
        let server = tokio::spawn(ads.serve(listener));
        let snapshot = Arc::new(Mutex::new(snapshot));
        let (mut connections, waiting, current) = (cache.connections(), cache.clone(), snapshot.clone());
        tokio::spawn(async move {
            while connections.changed().await.is_ok() {
                let snapshot = current.lock().unwrap().clone();
                for workload in waiting.waiting() {
                    snapshot.iter().for_each(|snapshot| waiting.set(&workload, snapshot.clone()));
                }
            }
        });
        Self { cache, metrics, snapshot, address, stop, server }
    }

    pub fn set(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        *self.snapshot.lock().unwrap() = Some(snapshot.clone());
        self.cache.set(&workload_name(), snapshot);
    }

    pub fn streams(&self) -> Vec<StreamState> {
        self.cache.streams()
    }

    /// Waits until Envoy has accepted everything.
    pub async fn settled(&self) {
        let has_all = |stream: &StreamState| stream.resources.values().all(Versions::is_current);
        wait_for("all is accepted", async || self.streams().first().is_some_and(has_all)).await;
    }

    /// Responses so far, of clusters, endpoints, listeners and routes.
    pub fn pushes(&self) -> [u64; 4] {
        let label = |kind: &str| ResourceType { r#type: kind.to_owned() };
        ["cds", "eds", "lds", "rds"].map(|kind| self.metrics.xds_pushes.get_or_create(&label(kind)).get())
    }

    /// Sets a snapshot and returns how many responses it took.
    pub async fn pushes_of(&self, snapshot: Snapshot) -> [u64; 4] {
        self.settled().await;
        let before = self.pushes();
        self.set(snapshot);
        self.settled().await;
        let after = self.pushes();
        [0, 1, 2, 3].map(|kind| after[kind] - before[kind])
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.server.await.unwrap().unwrap();
    }
}

/// Starts an Envoy of that workload; `None` if there is none.
pub fn envoy(folder: &Path, protocol: xds::Protocol, xds: SocketAddr, ca: &str) -> Option<Child> {
    envoy_of(&workload_name(), folder, protocol, xds, ca, None)
}

/// Starts an Envoy of a workload, which gets certificates from the socket `sds`; `None` if there is no Envoy.
pub fn envoy_of(
    workload: &WorkloadName,
    folder: &Path,
    protocol: xds::Protocol,
    xds: SocketAddr,
    ca: &str,
    sds: Option<&str>,
) -> Option<Child> {
    let token = folder.join("token");
    fs::write(&token, TOKEN).unwrap();
    let bootstrap = Bootstrap {
        workload,
        xds: &format!("localhost:{}", xds.port()),
        ca,
        status: bootstrap::Status { port: STATS_PORT, ipv6: false },
        sds,
        tracing: None,
        stats: &Stats::default(),
    };
    let mut bootstrap = bootstrap.to_json();
    let api_type = match protocol {
        xds::Protocol::Sotw => "GRPC",
        xds::Protocol::Delta => "DELTA_GRPC",
    };
    bootstrap["dynamic_resources"]["ads_config"]["api_type"] = api_type.into();
    let bootstrap =
        bootstrap.to_string().replace(&format!("{}/token", bootstrap::TOKEN_FOLDER), &token.to_string_lossy());
    let log = fs::File::create(folder.join("envoy.log")).unwrap();
    let named = std::env::var_os("ENVOY");
    let mut command = Command::new(named.as_deref().unwrap_or("envoy".as_ref()));
    command.args([
        "--use-dynamic-base-id",
        "--concurrency",
        "1",
        "--drain-strategy",
        "immediate",
        "--file-flush-interval-msec",
        "50",
        "--config-yaml",
        &bootstrap,
    ]);
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn() {
        Ok(child) => Some(child),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}
