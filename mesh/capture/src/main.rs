//! The init container of a meshed pod: sends the pod's TCP traffic through its Envoy.
//!
//! It writes one nftables table, `appmesh`, into the network namespace it runs in, over netlink, and
//! ends; the rules stay as long as the pod. Running it again replaces the table in one transaction,
//! so a restarted init container neither doubles the rules nor leaves a moment without them.
//!
//!   in    TCP from outside to an APPMESH_APP_PORTS port goes to Envoy's ingress port
//!   out   TCP to anywhere but this pod goes to Envoy's egress port, unless Envoy sent it
//!         or the address or the port is ignored
//!
//! UDP, so DNS, is left alone, and so is everything over the loopback interface.
//!
//! It reads the variables of App Mesh's own init container, and needs the capability NET_ADMIN and
//! a kernel whose nf_tables can do NAT in the inet family (Linux 5.2).
//!
//! With APPMESH_COPY_TO it leaves a copy of itself there, with which the pod's Envoy is drained: `capture drain`.
//!
//! With APPMESH_WAIT_FOR_ENVOY it ends once Envoy, which has started before, has its configuration: the application starts
//! then.
//!
//! Exits 0 when the rules stand or nothing was to be done, and Envoy is ready; 1 when the kernel refused them, or Envoy was
//! not ready in time; 2 when a variable does not read.

mod admin;
mod drain;
mod kernel;
mod rules;
mod wait;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Parser, Subcommand};
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};

use capture::list::{List, Port};

/// Sends a pod's TCP traffic through its Envoy.
///
/// Writes the nftables table `appmesh` into the network namespace it runs in, and ends. Meant to
/// run as an init container with the capability NET_ADMIN; every option is read from the
/// environment variable of App Mesh's own init container.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(version)]
pub struct Capture {
    /// Whether to redirect at all; anything but a yes leaves the pod as it is
    #[arg(long, env = "APPMESH_START_ENABLED", value_name = "0|1", default_value = "0",
          action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub start_enabled: bool,

    /// User id Envoy runs as: what it sends is not sent to Envoy again
    #[arg(long, env = "APPMESH_IGNORE_UID", value_name = "UID", default_value = "1337")]
    pub ignore_uid: u32,

    /// Port of Envoy's listener for traffic into the pod
    #[arg(long, env = "APPMESH_ENVOY_INGRESS_PORT", value_name = "PORT", default_value = "15000",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub envoy_ingress_port: u16,

    /// Port of Envoy's listener for traffic out of the pod
    #[arg(long, env = "APPMESH_ENVOY_EGRESS_PORT", value_name = "PORT", default_value = "15001",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub envoy_egress_port: u16,

    /// Ports the application serves, separated by commas; none: nothing coming in is redirected
    #[arg(long, env = "APPMESH_APP_PORTS", value_name = "PORTS", default_value = "")]
    pub app_ports: List<Port>,

    /// Addresses or CIDR blocks reached without Envoy, separated by commas
    #[arg(long, env = "APPMESH_EGRESS_IGNORED_IP", value_name = "ADDRESSES", default_value = "")]
    pub egress_ignored_ip: List<IpNet>,

    /// Ports reached without Envoy, separated by commas
    #[arg(long, env = "APPMESH_EGRESS_IGNORED_PORTS", value_name = "PORTS", default_value = "")]
    pub egress_ignored_ports: List<Port>,

    /// Whether to redirect IPv6 too; Envoy must then listen on it
    #[arg(long, env = "APPMESH_ENABLE_IPV6", value_name = "0|1", default_value = "0",
          action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub enable_ipv6: bool,

    /// Where to leave a copy of this program, for Envoy's container
    #[arg(long, env = "APPMESH_COPY_TO", value_name = "FILE")]
    pub copy_to: Option<PathBuf>,

    /// Seconds that Envoy may take until it is ready; 0: it is not waited for
    #[arg(long, env = "APPMESH_WAIT_FOR_ENVOY", value_name = "SECONDS", default_value_t = 0)]
    pub wait_for_envoy: u64,

    /// Port of Envoy's administration, where it is asked
    #[arg(long, env = "APPMESH_ENVOY_ADMIN_PORT", value_name = "PORT", default_value_t = admin::PORT)]
    pub envoy_admin_port: u16,

    /// What to do instead.
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// What to do instead of redirecting.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Action {
    /// Drains the pod's Envoy
    Drain(drain::Drain),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let capture = Capture::parse();
    let outcome = match &capture.action {
        Some(Action::Drain(drain)) => drain::run(drain).await,
        None => start(&capture).await,
    };
    let (line, code) = match outcome {
        Ok(line) => (line, ExitCode::SUCCESS),
        Err(error) => (format!("{error:#}"), ExitCode::FAILURE),
    };
    say(&line);
    code
}

/// Writes a line to stderr. One that is closed takes nothing away from the rules.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "capture: {line}");
}

async fn start(capture: &Capture) -> Result<String> {
    let redirected = redirect(capture).await?;
    if capture.wait_for_envoy == 0 {
        return Ok(redirected);
    }
    say(&redirected);
    // The first process of a container is ended by no signal that it does not listen to.
    let mut told_to_end = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = wait::until_ready(capture.envoy_admin_port, Duration::from_secs(capture.wait_for_envoy)) => outcome,
        _ = told_to_end.recv() => bail!("told to end before Envoy was ready"),
    }
}

async fn redirect(capture: &Capture) -> Result<String> {
    if let Some(path) = &capture.copy_to {
        drain::copy_to(path)?;
    }
    if !capture.start_enabled {
        return Ok("APPMESH_START_ENABLED is not set: nothing is redirected".to_owned());
    }
    kernel::replace(&rules::chains(capture)).await.map(|()| rules::summary(capture))
}
