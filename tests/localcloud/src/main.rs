//! An AWS region with two EKS clusters on this Linux machine, in namespaces of its own.
//!
//! Real: etcd, Kubernetes, CoreDNS, containerd, runc, Envoy, Amazon's authenticator and ECR credential provider. In place of
//! AWS: moto with the mends of `aws/`, ministack's registry, a gateway and a resolver for `*.amazonaws.com`, nftables for
//! security groups. Needs root; nothing of it is seen outside, so several run side by side.
//!
//! Examples:
//!   localcloud up -- make all CLUSTER1=c1 CLUSTER2=c2
//!   localcloud up && localcloud run -- kubectl --context c1 get nodes; localcloud down

mod account;
mod api_log;
mod cgroup;
mod charts;
mod cloud;
mod cluster;
mod dns;
mod down;
mod ec2;
mod environment;
mod firewall;
mod gateway;
mod host;
mod init;
mod keeper;
mod kubernetes;
mod load_balancer;
mod message;
mod namespace;
mod network;
mod node;
mod parts;
mod pki;
mod pod_identity;
mod process;
mod ready;
mod region;
mod registry;
mod run;
mod show;
mod signals;
mod tls;
mod up;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

use crate::cloud::Cloud;
use crate::namespace::Whose;

/// An AWS region with two EKS clusters on this machine.
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
struct Cli {
    /// Folder of the cloud's state; one cloud a folder
    #[arg(long, global = true, default_value = "build/localcloud", value_name = "FOLDER")]
    state: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cloud and return when it is ready; with a command, run it inside, then take the cloud down
    Up {
        /// Put each cluster into a VPC of its own, with a peering of the two
        #[arg(long)]
        two_vpcs: bool,
        /// Command to run inside; its exit code is the exit code
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Run a command inside, as the operator of the AWS account, with contexts c1 and c2 in its kubeconfig
    Run {
        /// The command
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Take the cloud down and remove everything but its logs; succeeds when nothing is there
    Down,
    /// Fetch and build the programs a cloud is made of, where they are missing; print the folder they are in
    Parts,
    /// Tell whether the cloud is up, and of its programs
    Status,
    /// Print the log of a program, or the names of all logs
    Logs {
        /// A name of `status`, or `aws-api` for the calls of AWS APIs, one JSON object a line
        name: Option<String>,
    },
    /// The processes of a cloud, started by each other
    #[command(hide = true)]
    Stage {
        #[command(subcommand)]
        stage: Stage,
    },
}

#[derive(Debug, Subcommand)]
enum Stage {
    Probe,
    Keeper {
        #[arg(long)]
        attached: bool,
    },
    Init,
    Region,
    Machine {
        #[arg(long)]
        name: String,
    },
    Inside {
        #[arg(long)]
        of: Whose,
        #[arg(long)]
        pid: i32,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli.state, cli.command) {
        Ok(code) => code,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "localcloud: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(state: &Path, command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { two_vpcs, command } => return alone(up::up(state, two_vpcs, &command)),
        Command::Run { command } => return run::run(state, &command),
        Command::Down => down::down(state)?,
        Command::Parts => writeln!(std::io::stdout(), "{}", alone(up::parts())?.bin.display())?,
        Command::Status => return show::status(state),
        Command::Logs { name } => show::logs(state, name.as_deref())?,
        Command::Stage { stage } => self::stage(state, stage)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// With no other thread: what comes next may change namespaces.
fn alone<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// All but the region have a single thread, as namespaces are changed.
fn stage(state: &Path, stage: Stage) -> Result<()> {
    match stage {
        Stage::Probe => host::try_everything(),
        Stage::Keeper { attached } => keeper::keep(attached),
        Stage::Init => init::run(&Cloud::load(state)?),
        Stage::Machine { name } => node::hold(&Cloud::load(state)?, &name),
        Stage::Inside { of, pid, command } => match namespace::become_inside(pid, of, &command)? {},
        Stage::Region => {
            let filter = tracing_subscriber::EnvFilter::new("warn,kube_client=off");
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
            Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?
                .block_on(region::run(Cloud::load(state)?))
        }
    }
}
