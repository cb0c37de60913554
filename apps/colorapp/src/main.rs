//! `colorapp`: see [`Colorapp`].

mod app;

use clap::Parser as _;
use std::process::ExitCode;

/// The back end of the sample: answers with its colour.
///
///   GET /      the value of COLOR, without a newline
///   GET /ping  Pong, for probes
///
/// Environment:
///
///   COLOR        what to answer (default n/a)
///   PORT         where to listen (default 8080)
///   SERVER_PORT  the same, read when PORT is unset: it is what the tutorial's manifest sets
///
/// On SIGTERM it takes no new connections, finishes the requests it has, and exits 0.
#[derive(Debug, clap::Parser)]
#[command(version, verbatim_doc_comment)]
struct Colorapp {}

#[tokio::main]
async fn main() -> ExitCode {
    Colorapp::parse();
    server::run(colorapp()).await
}

async fn colorapp() -> anyhow::Result<()> {
    let environment = |name: &str| std::env::var(name).ok();
    let port = server::port(environment, &["PORT", "SERVER_PORT"])?;
    let color = app::color(environment);
    server::serve(port, app::router(color)).await
}
