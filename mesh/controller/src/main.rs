//! Serves App Mesh's custom resources without App Mesh: one controller per cluster, with Cloud Map as the only thing
//! that clusters share.
//!
//! Every replica answers admission (`admission`) and tells Envoys their configuration (`xds`). The one that holds the
//! lease (`leader`) also writes: pods and published routes to Cloud Map (`registrar`), conditions, ARNs, finalizers
//! and readiness gates to the objects (`status`).

mod admission;
mod bootstrap;
mod cloudmap;
mod discovery;
mod identity;
mod leader;
mod problems;
mod publish;
mod registrar;
mod registration;
mod routes;
mod status;
mod store;
mod tls;
mod translate_command;
mod unserved;
mod xds;

use std::{
    io::{IsTerminal as _, Write as _},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use clap::Parser;
use kube::{Client, Config, ResourceExt as _};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use admission::{Admission, inject::Sidecar};
use cloudmap::CloudMap;
use discovery::Discovery;
use identity::Identity;
use registrar::Registrar;
use status::Reporting;
use store::Store;
use tls::{Certificate, TlsListener};
use xds::{
    auth::Tokens,
    server::{Ads, Configurations},
};

/// Serves App Mesh's custom resources from the cluster itself
///
/// Needs a service account that may do what the chart's ClusterRole says, AWS credentials with AWSCloudMapFullAccess,
/// and a certificate for the names of its two services.
#[derive(Parser, Debug)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Option<Options>,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Translate(translate_command::Translate),
}

#[derive(clap::Args, Debug)]
struct Options {
    /// Region of the Cloud Map namespaces; the environment's (AWS_REGION) if absent
    #[arg(long, value_name = "REGION")]
    aws_region: Option<String>,
    /// Role whose account the mesh is of; the caller's account if absent
    #[arg(long, env = "AWS_ROLE_ARN", value_name = "ARN")]
    role: Option<String>,
    /// Where the API server finds the webhook
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9443")]
    webhook_listen: SocketAddr,
    /// Where Envoys find their configuration
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:15010")]
    xds_listen: SocketAddr,
    /// Folder with tls.crt, tls.key and ca.crt; read again when it changes
    #[arg(long, value_name = "FOLDER", default_value = "/etc/appmesh-controller/certificates")]
    certificates: PathBuf,
    /// Namespace of the lease
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", default_value = "appmesh-system")]
    namespace: String,
    /// Lease that the writing replica holds
    #[arg(long, value_name = "NAME", default_value = "appmesh-controller-leader-election")]
    lease: String,
    /// This replica
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod_name: String,
    /// What to log, in the syntax of tracing's EnvFilter
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_level: EnvFilter,
    #[command(flatten)]
    sidecar: Sidecar,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::Translate(translate)) = cli.command {
        return match translate.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let Some(options) = cli.options else { return ExitCode::FAILURE };
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    log.with_env_filter(options.log_level.clone()).init();
    abort_on_panic();
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A task that panicked must not leave the others going on without it: a new process starts with all of them.
fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

async fn run(options: Options) -> anyhow::Result<()> {
    // Refused only where somebody has installed one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let stop = CancellationToken::new();
    let mut config = Config::infer().await.context("finding the API server")?;
    // Every loop here looks again by itself, and sooner: kube's own retries of one request go on for three minutes.
    config.default_retry = false;
    let client = Client::try_from(config).context("finding the API server")?;
    let aws = aws(options.aws_region.clone()).await;
    let identity = Identity::find(&aws, options.role.as_deref()).await?;
    tracing::info!(region = identity.region, account = identity.account, "serving the meshes of this account");

    let mut work = JoinSet::new();
    work.spawn(signals(stop.clone())?);
    let store = tokio::select! {
        store = Store::start(&client, &stop) => store?,
        Some(_) = work.join_next() => return Ok(()),
    };
    // Clusters are told apart by what no cluster shares with another and all keep.
    let snapshot = store.snapshot();
    let cluster = snapshot.namespace("kube-system").and_then(|namespace| namespace.uid()).context("no kube-system")?;

    let cloudmap = CloudMap::new(&aws);
    let registrar = Registrar::new(cloudmap.clone(), store.clone(), identity.clone(), cluster);
    let discovery = Discovery::start(cloudmap, store.clone(), identity.clone(), stop.clone());
    let api_server = std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse::<IpAddr>().ok());
    let configurations = Configurations::new(store.clone(), discovery, identity.clone(), api_server);
    let ads = Ads::new(Tokens::new(client.clone()), configurations.clone(), stop.clone());
    let reporting = Reporting::new(client.clone(), store.clone(), registrar.clone(), options.pod_name.clone());

    let certificate = |protocol| Certificate::load(&options.certificates, protocol);
    let webhook = TlsListener::bind(options.webhook_listen, certificate("http/1.1")?).await?;
    let xds = TlsListener::bind(options.xds_listen, certificate("h2")?).await?;
    let admission = Admission {
        store,
        client: client.clone(),
        identity,
        sidecar: options.sidecar,
        certificates: options.certificates.clone(),
    };
    let leader = leader::Candidate::new(client, &options.namespace, &options.lease, &options.pod_name);
    let (leads, leading) = tokio::sync::watch::channel(false);

    work.spawn(ended(configurations.run(stop.clone())));
    work.spawn(ended(registrar.run(leading.clone(), stop.clone())));
    work.spawn(ended(reporting.run(leading, stop.clone())));
    work.spawn(ended(leader.stand(leads, stop.clone())));
    work.spawn(ads.serve(xds));
    work.spawn(admission.serve(webhook, stop.clone()));
    tracing::info!(webhook = %options.webhook_listen, xds = %options.xds_listen, "serving");

    // The first to end, by a signal or a failure, ends all.
    let mut outcome = Ok(());
    while let Some(ended) = work.join_next().await {
        stop.cancel();
        outcome = outcome.and(ended.context("a part of the controller broke").flatten());
    }
    outcome
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
