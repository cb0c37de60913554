//! What every tool of crossmesh has in common.
//!
//! A tool reads one JSON object on stdin, makes the world match it, and prints the same object with the one key it owns.
//! It implements [`Tool`]; its `main` is [`main`] and nothing else; stdin, stdout, stderr and the exit code are this
//! crate's business.
//!
//! The steps are always the same: **want** (from flags and document) → **observe** → **plan** (pure) → **apply** →
//! observe again until nothing is left to do. `--plan` stops after the plan and prints the document as a run would, with
//! [`plan::UNKNOWN`] for what only a run can know; `--delete` takes the other plan.

pub mod app_mesh;
mod args;
pub mod arn;
#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "aws")]
pub mod cluster;
#[cfg(feature = "client")]
mod connect;
mod doc;
#[cfg(feature = "elf")]
pub mod elf;
mod error;
mod flat;
pub mod helm;
#[cfg(feature = "kube")]
pub mod kube;
pub mod namespace;
pub mod plan;
#[cfg(feature = "https")]
pub mod proxy;
#[cfg(feature = "https")]
pub mod roots;
mod run;
mod session;
mod stderr;
pub mod tags;
mod view;
mod wait;

#[cfg(feature = "client")]
pub use connect::{Dialed, Dialer};
pub use doc::Document;
pub use error::{Error, Kind, classify};
pub use run::{Io, main, report, run};
pub use session::Session;
pub use stderr::Stderr;
pub use view::{View, ViewFlags, view};
pub use wait::Found;

use anyhow::Result;
use nss as _;
use plan::Want;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The flags every tool has.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Options of every tool")]
pub struct Flags {
    /// Start from {} instead of reading stdin
    #[arg(short = 'n', long)]
    pub null_input: bool,
    /// Print the changes that would be made on stderr and the document they would lead to on stdout; change nothing
    #[arg(long)]
    pub plan: bool,
    /// Remove what the key names, then drop the key
    #[arg(long)]
    pub delete: bool,
    /// Print the JSON Schema of this tool's key
    #[arg(long, exclusive = true)]
    pub schema: bool,
    /// Print the document as one flat JSON object of strings, as Terraform's data source `external` reads it
    #[arg(long)]
    pub flat: bool,
    /// How long to wait for the world, e.g. 90s or 10m
    #[arg(long, value_name = "DURATION", value_parser = wait::patience)]
    pub timeout: Duration,
    /// No progress on stderr, only errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Whole lines only, no progress bar and no colour: others write to the same terminal
    #[arg(long)]
    pub plain: bool,
    /// Report an error as JSON on a terminal, too
    #[arg(long)]
    pub json: bool,
}

/// One tool: its own flags, the key it owns, and the steps from what is asked for to an outcome. The flags of every tool
/// are added to its own, and are in the session.
#[allow(async_fn_in_trait, reason = "the futures run on one thread, in `run`")]
pub trait Tool: clap::Parser {
    /// What stands under the key, both as input (every field optional) and as outcome. Fed back in, an outcome is
    /// input that is already met.
    type Section: Serialize + DeserializeOwned + JsonSchema;
    /// How the world must be, and what follows from that.
    type Want: Want;

    /// How long to wait for the world, unless `--timeout` says so.
    const TIMEOUT: &str = "5m";

    /// Where the section stands in the document, e.g. `["role"]` or `["images", "colorapp"]`.
    fn key(&self) -> Vec<&str>;

    /// Resolves flag > document > default. May look facts up (the cluster's) and leave them in the document.
    async fn want(&self, session: &mut Session, section: Option<Self::Section>) -> Result<Self::Want>;

    /// Looks at the world. Changes nothing.
    async fn observe(&self, session: &Session, want: &Self::Want) -> Result<Have<Self>>;

    /// Makes one change. Must succeed when it has been made already.
    async fn apply(&self, session: &Session, want: &Self::Want, change: Change<Self>) -> Result<()>;

    /// The section that describes what now is.
    fn outcome(want: Self::Want, have: Have<Self>) -> Self::Section;

    /// The section that a run would lead to, with [`plan::UNKNOWN`] for what only a run can know.
    fn planned(want: Self::Want, have: Have<Self>) -> Self::Section {
        Self::outcome(want, have)
    }
}

/// How the world is, as a tool sees it.
pub type Have<T> = <<T as Tool>::Want as Want>::Have;

/// One step of a tool.
pub type Change<T> = <<T as Tool>::Want as Want>::Change;
