//! `plan-total`: see [`PlanTotal`].

mod total;

use anyhow::{Context, Result};
use clap::Parser;
use common::Document;
use std::path::PathBuf;
use std::process::ExitCode;
use total::Total;

/// Counts what the documents of a plan would add, change and remove.
///
/// Reads the documents that tools printed with --plan, each for itself, and
/// prints one line: 37 to add, 0 to change, 0 to remove. A change that several
/// documents name in one place is one change. With --left the documents are those
/// of a plan of --delete, made after everything was deleted: it names what is
/// left, and why.
///
///   Reads   plan, cluster.name
///   Exits   0 done, 1 something is left that should have gone, 2 usage, 3 input
///
/// Examples:
///   plan-total build/plan/*/*.json
///   oidc-assoc -n --cluster prod --plan > oidc.json; plan-total oidc.json
#[derive(Debug, Parser)]
#[command(name = "plan-total", version, verbatim_doc_comment)]
struct PlanTotal {
    /// Documents that tools printed with --plan
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name what --delete left
    #[arg(long)]
    left: bool,
}

impl PlanTotal {
    fn text(&self) -> Result<String> {
        let mut total = Total::default();
        for file in &self.files {
            let name = file.display().to_string();
            let bytes = std::fs::read(file)
                .map_err(|error| common::Error::input(format!("read {name}: {error}")))
                .context("count the plan");
            total.add(&Document::parse(&name, &bytes?)?).with_context(|| format!("read {name}"))?;
        }
        if self.left { total.left() } else { Ok(total.sum()) }
    }
}

fn main() -> ExitCode {
    common::report::<PlanTotal>(PlanTotal::text)
}
