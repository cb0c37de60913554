//! Starts the controller: finds the cluster and AWS, and runs all parts until one ends.
//!
//! Every replica answers admission and configures Envoys. The one that holds the lease also writes: pods and published
//! routes to Cloud Map, conditions, ARNs, finalizers and readiness gates to the objects.

use std::{
    io::IsTerminal as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config, client::ClientBuilder};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::timeout::TimeoutLayer;
use tracing_subscriber::EnvFilter;

use crate::{
    admission::{Admission, sidecar::Sidecar},
    cloudmap::{CloudMap, Creation, Intervals, NamespaceIds, Pollers, Writer, account},
    cluster::{Cluster, leader},
    envoy, http, log,
    metrics::Metrics,
    model::{Account, ClusterId},
    pipeline::{Inputs, Known, Passed, Pipeline, Registrations, Workloads},
    status::Status,
    tls::{self, TlsListener},
    xds::{Ads, Cache, auth::Tokens},
};

/// How long it takes, besides the wait of another cluster until its next look, from a registration until that cluster's
/// Envoys have it: Cloud Map takes it into the journal first.
const HEARD: Duration = Duration::from_millis(2500);
/// How often what other clusters have in Cloud Map is looked up though they tell of no change.
const RAREST: Duration = Duration::from_secs(60);
/// How long the API server may take until it begins to answer.
const API_SERVER_TIMEOUT: Duration = Duration::from_secs(30);
/// What is said of a part that ends by a failure.
const BROKE: &str = "a part of the controller broke";

/// Options of the controller.
#[derive(Args, Debug)]
pub struct Options {
    /// Region of the Cloud Map namespaces; the environment's (AWS_REGION) if absent
    #[arg(long, value_name = "REGION")]
    aws_region: Option<String>,
    /// Account that the mesh is of; that of the role if absent
    #[arg(long, value_name = "ID", value_parser = account::id)]
    aws_account_id: Option<String>,
    /// Role whose account the mesh is of; the caller's account if absent
    #[arg(long, env = "AWS_ROLE_ARN", value_name = "ARN")]
    role: Option<String>,
    /// Name of the EKS cluster; with it, a cluster that is made again takes the place of the one before in Cloud Map
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    /// How often what other clusters have in Cloud Map is looked up while it changes
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = humantime::parse_duration)]
    cloudmap_poll_interval: Duration,
    /// How often it is looked up while nothing changes
    #[arg(long, value_name = "TIME", default_value = "1500ms", value_parser = humantime::parse_duration)]
    cloudmap_max_poll_interval: Duration,
    /// Where the API server finds the webhook
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9443")]
    webhook_listen: SocketAddr,
    /// Where Envoys find their configuration
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:15010")]
    xds_listen: SocketAddr,
    /// Namespace of the lease and of the certificate
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", default_value = "appmesh-system")]
    namespace: String,
    /// Lease that the writing replica holds
    #[arg(long, value_name = "NAME", default_value = "appmesh-controller-leader-election")]
    lease: String,
    /// This replica
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod_name: String,
    /// What to log: a level, or directives of tracing's EnvFilter
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = log::filter)]
    log_level: EnvFilter,
    #[command(flatten)]
    certificate: tls::Options,
    #[command(flatten)]
    tls: tls::Policy,
    #[command(flatten)]
    creation: Creation,
    #[command(flatten)]
    namespaces: NamespaceIds,
    #[command(flatten)]
    http: http::Options,
    #[command(flatten)]
    sidecar: Sidecar,
}

/// Runs the controller until a signal or a failure.
pub fn main(options: Options) -> ExitCode {
    let format = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    format.with_env_filter(options.log_level.clone()).init();
    abort_on_panic();
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime");
    match runtime.and_then(|runtime| runtime.block_on(run(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The address to listen on for all of IPv4, and for all of IPv6 too where pods have such addresses.
fn of_both_families(address: SocketAddr, ipv6: bool) -> SocketAddr {
    if ipv6 && address.ip() == Ipv4Addr::UNSPECIFIED {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()))
    } else {
        address
    }
}

/// A task that panicked must not leave the others going on without it: a new process starts with all of them.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

async fn run(options: Options) -> anyhow::Result<()> {
    // Refused only where somebody has installed one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let service = std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse::<IpAddr>().ok());
    let (stop, mut work, metrics) = (CancellationToken::new(), JoinSet::new(), Metrics::new());
    work.spawn(signals(stop.clone())?);
    // First of all, for it also says that this program lives, whatever it has to wait for.
    let ipv6 = options.sidecar.ipv6();
    let listener = http::bind(of_both_families(options.http.metrics_listen, ipv6)).await?;
    work.spawn(http::serve(listener, http::metrics(metrics.clone()), stop.clone()));
    // The kubelet's first probe waits here and is answered as soon as all is there: it would look a second later again.
    let webhook_listen = of_both_families(options.webhook_listen, ipv6);
    let webhook = http::bind(webhook_listen).await?;

    let mut config = Config::infer().await.context("finding the API server")?;
    // Every loop here looks again by itself, and sooner: kube's own retries of one request go on for three minutes.
    config.default_retry = false;
    // A connection that has become a hole answers nothing, and TCP gives it up after a quarter of an hour. A watch has begun
    // with its header, so that this is no limit for what follows.
    let client = ClientBuilder::try_from(config).context("finding the API server")?;
    let client = client.with_layer(&TimeoutLayer::new(API_SERVER_TIMEOUT)).build();
    let aws = aws(options.aws_region.clone()).await;
    let caller = account::find(&aws, options.role.as_deref()).await?;
    let account = match options.aws_account_id {
        Some(id) => Account { account: id, ..caller.clone() },
        None => caller.clone(),
    };
    tracing::info!(region = account.region, account = account.account, "supporting the meshes of this account");

    let (cluster, pods) = tokio::select! {
        started = Cluster::start(&client, &stop) => started?,
        Some(ended) = work.join_next() => return ended.context(BROKE).flatten(),
    };
    let id = cluster_id(&client, &account, options.cluster_name.as_deref()).await?;

    let families = [options.sidecar.ipv4(), options.sidecar.ipv6()];
    let creation = Creation { families, ..options.creation.clone() };
    let cloudmap = CloudMap::new(&aws, caller.account, creation, options.namespaces.clone(), metrics.clone());
    let writer = Writer::new(cloudmap.clone(), id.clone());
    let registered = writer.changes();
    let intervals = Intervals::new(options.cloudmap_poll_interval, options.cloudmap_max_poll_interval, RAREST);
    let (pollers, answers) = Pollers::new(cloudmap, id.clone(), intervals);
    let (known, cache) = (Known::default(), Arc::new(Cache::default()));
    let region = account.region.clone();
    let registrations = Registrations { known: known.clone(), writer: writer.clone(), region, id: id.clone() };
    let count = known.clone();
    let status = Arc::new(Status::new(
        client.clone(),
        options.pod_name.clone(),
        options.cloudmap_max_poll_interval + HEARD,
        cluster.pods.clone(),
        Arc::new(registrations),
        Box::new(move |of| count.count_pods(of)),
        metrics.clone(),
    ));
    let workloads = Workloads { pods: cluster.pods.clone(), known: known.clone() };
    let tokens = Tokens::new(client.clone());
    let ads = Ads::new(tokens, Arc::new(workloads), cache.clone(), metrics.clone(), stop.clone());
    let keeper = tls::Keeper::new(&client, &options.namespace, options.certificate, metrics.clone());
    let served = keeper.served();
    let webhook = TlsListener::new(webhook, served.clone(), "http/1.1", &options.tls)?;
    let xds_listen = of_both_families(options.xds_listen, ipv6);
    let xds = TlsListener::new(http::bind(xds_listen).await?, served.clone(), "h2", &options.tls)?;
    let debug_listener = http::bind(options.http.debug_listen).await?;
    let debug = debug(&known, &cache);
    let tracing = options.sidecar.observability.tracing().is_some();
    let admission = Admission {
        cluster: cluster.clone(),
        client: client.clone(),
        account: account.clone(),
        sidecar: options.sidecar,
        served,
    };
    let candidate =
        leader::Candidate::new(client, &options.namespace, &options.lease, &options.pod_name, metrics.clone());
    let (leads, leader) = watch::channel(false);
    let settings = envoy::Settings { api_server: service, tracing, ipv6 };
    let mut pipeline = Pipeline {
        account,
        id,
        settings,
        cluster,
        cache,
        writer: writer.clone(),
        pollers,
        status: status.clone(),
        metrics: metrics.clone(),
        known,
        passed: Passed::default(),
    };
    let inputs = Inputs { pods, answers, registered, leader: leader.clone() };
    pipeline.prepare();

    work.spawn(ended(pipeline.run(inputs, stop.clone())));
    work.spawn(ended(writer.run(leader.clone(), stop.clone())));
    let (ends, leads_status) = (stop.clone(), leader);
    work.spawn(ended(async move { status.run(leads_status, ends).await }));
    work.spawn(ended(keeper.run(stop.clone())));
    work.spawn(ended(candidate.run(leads, stop.clone())));
    work.spawn(ads.serve(xds));
    work.spawn(admission.serve(webhook, stop.clone()));
    work.spawn(http::serve(debug_listener, debug, stop.clone()));
    tracing::info!(webhook = %webhook_listen, xds = %xds_listen, "ready");

    // The first to end, by a signal or a failure, ends all.
    let mut outcome = Ok(());
    while let Some(ended) = work.join_next().await {
        stop.cancel();
        outcome = outcome.and(ended.context(BROKE).flatten());
    }
    outcome
}

/// What the loopback interface shows: the connected Envoys with what each was sent and has acknowledged, the endpoints,
/// and the translation.
fn debug(known: &Known, cache: &Arc<Cache>) -> axum::Router {
    let (streams, endpoints, translation) = (cache.clone(), known.clone(), known.clone());
    http::debug([
        ("endpoints", Arc::new(move || endpoints.endpoints()) as http::Answer),
        ("sidecars", Arc::new(move || json!(streams.streams()))),
        ("translation", Arc::new(move || translation.translation())),
    ])
}

/// Tells this cluster from others by what no cluster shares with another and all keep.
async fn cluster_id(client: &Client, account: &Account, name: Option<&str>) -> anyhow::Result<ClusterId> {
    let system = Api::<Namespace>::all(client.clone()).get_metadata("kube-system").await;
    let uid = system.context("reading namespace kube-system")?.metadata.uid.context("kube-system has no uid")?;
    let Account { partition, region, account } = account;
    let arn = name.filter(|name| !name.is_empty());
    let arn = arn.map(|name| format!("arn:{partition}:eks:{region}:{account}:cluster/{name}"));
    Ok(ClusterId { uid, arn })
}

async fn aws(region: Option<String>) -> SdkConfig {
    // Not the SDK's adaptive retries: after two throttled answers they hold back every call for half a minute.
    let retries = RetryConfig::standard().with_max_attempts(6);
    let config = aws_config::defaults(BehaviorVersion::latest()).retry_config(retries);
    match region.filter(|region| !region.is_empty()) {
        Some(region) => config.region(Region::new(region)).load().await,
        None => config.load().await,
    }
}

/// Ends with the first SIGTERM or SIGINT, or with `stop`.
fn signals(stop: CancellationToken) -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM, ending"),
            _ = interrupt.recv() => tracing::info!("SIGINT, ending"),
            () = stop.cancelled() => {}
        }
        Ok(())
    })
}

async fn ended(work: impl Future<Output = ()>) -> anyhow::Result<()> {
    work.await;
    Ok(())
}
