//! What every tool of crossmesh has in common.
//!
//! A tool reads one JSON object on stdin, makes the world match it, and prints the same object with the one key it owns.
//! It implements [`Tool`]; its `main` is [`main`] and nothing else; stdin, stdout, stderr and the exit code are this
//! crate's business.
//!
//! The steps are always the same: **want** (from flags and document) → **observe** → **plan** (pure) → **apply** →
//! observe again until nothing is left to do. `--plan` stops after the plan and prints the document as a run would, with
//! [`plan::UNKNOWN`] for what only a run can know; `--delete` takes the other plan.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "aws")]
pub mod cluster;
#[cfg(feature = "client")]
mod connect;
mod doc;
mod error;
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
mod wait;

pub use doc::Document;
pub use error::{Error, Kind, classify};
pub use run::{Io, main, report, run};
pub use session::Session;
pub use stderr::Stderr;
pub use wait::Found;

use anyhow::Result;
use nss as _;
use plan::{Change, Place};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The flags every tool has.
#[derive(Debug, Clone, clap::Args)]
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
    /// How long to wait for the world, e.g. 90s or 10m
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
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

/// One tool: its arguments, the key it owns, and the steps from a wish to an outcome.
#[allow(async_fn_in_trait, reason = "the futures run on one thread, in `run`")]
pub trait Tool: clap::Parser {
    /// What stands under the key, both as wish (every field optional) and as outcome. Fed back in, an outcome is a
    /// wish that is already met.
    type Section: Serialize + DeserializeOwned + JsonSchema;
    /// What the world must look like: flags, document and defaults, resolved.
    type Want;
    /// What the world looks like.
    type Have;
    /// One step from have to want. Its text is an order: `create role mesh`.
    type Change: Change;

    /// Where the changes happen: what is planned for two clusters in one place counts once.
    const PLACE: Place = Place::Region;

    /// The common flags, flattened into this tool's own.
    fn flags(&self) -> &Flags;

    /// Where the section stands in the document, e.g. `["role"]` or `["images", "colorapp"]`.
    fn key(&self) -> Vec<&str>;

    /// Resolves flag > document > default. May look facts up (the cluster's) and leave them in the document.
    async fn want(&self, session: &mut Session, section: Option<Self::Section>) -> Result<Self::Want>;

    /// Looks at the world. Changes nothing.
    async fn observe(&self, session: &Session, want: &Self::Want) -> Result<Self::Have>;

    /// What to change, in order. Pure.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when it is not ours to change, and what can not be.
    fn plan(want: &Self::Want, have: &Self::Have) -> Result<Vec<Self::Change>>;

    /// What to remove, in order. Pure. What is not ours stays.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when others need what would be removed.
    fn plan_delete(want: &Self::Want, have: &Self::Have) -> Result<Vec<Self::Change>>;

    /// What a person should know about what was found, one line each; told once, and not on `--delete`.
    fn remarks(_want: &Self::Want, _have: &Self::Have) -> Vec<String> {
        Vec::new()
    }

    /// What `--delete` leaves and why, one line each: `provider …: not made by crossmesh`.
    fn left_alone(_want: &Self::Want, _have: &Self::Have) -> Vec<String> {
        Vec::new()
    }

    /// Makes one change. Must succeed when it has been made already.
    async fn apply(&self, session: &Session, want: &Self::Want, change: Self::Change) -> Result<()>;

    /// The section that describes what now is.
    fn outcome(want: Self::Want, have: Self::Have) -> Self::Section;

    /// The section that a run would lead to, with [`plan::UNKNOWN`] for what only a run can know.
    fn planned(want: Self::Want, have: Self::Have) -> Self::Section {
        Self::outcome(want, have)
    }
}
