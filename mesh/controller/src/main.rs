//! Runs the controller, or one of its commands: options and one call.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use appmesh_controller::{dry_run::Translate, run};
use clap::{Parser, Subcommand};

/// The C library's keeps what thousands of pods took while they were registered.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Supports App Mesh's custom resources from the cluster itself
///
/// Needs a service account that may do what the chart's ClusterRole says, AWS credentials that may do what
/// policies/controller.json says, and a certificate for the names of its two services.
#[derive(Parser, Debug)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Option<run::Options>,
}

#[derive(Subcommand, Debug)]
enum Command {
    Translate(Translate),
}

fn main() -> ExitCode {
    let Cli { command, options } = Cli::parse();
    let outcome = match (command, options) {
        (Some(Command::Translate(translate)), _) => translate.run(io::stdout().lock()),
        (None, Some(options)) => return run::main(options),
        (None, None) => Err(anyhow::anyhow!("no options: see --help")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "appmesh-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}
