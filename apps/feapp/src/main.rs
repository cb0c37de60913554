//! `feapp`: see [`Feapp`].

mod app;
mod colorapp;

use clap::Parser as _;
use std::process::ExitCode;

/// The front end of the sample: asks colorapp and passes its answer on.
///
///   GET /color  what colorapp answered, status, type and body; 502 or 504 with a reason in
///               words when it did not answer
///   GET /ping   Pong, for probes
///
/// Environment:
///
///   COLOR_HOST   host and port of colorapp, asked as http://COLOR_HOST/; there is no default
///   PORT         where to listen (default 8080)
///
/// The name is looked up by the rules of /etc/resolv.conf (ndots, search), without the C library.
/// Tracing headers of the request go along to colorapp, so that both calls are one trace.
///
/// On SIGTERM it takes no new connections, finishes the requests it has, and exits 0.
#[derive(Debug, clap::Parser)]
#[command(version, verbatim_doc_comment)]
struct Feapp {}

#[tokio::main]
async fn main() -> ExitCode {
    Feapp::parse();
    server::run(feapp()).await
}

async fn feapp() -> anyhow::Result<()> {
    let environment = |name: &str| std::env::var(name).ok();
    let port = server::port(environment, &["PORT"])?;
    let colorapp = colorapp::Colorapp::new(environment("COLOR_HOST").as_deref())?;
    server::serve(port, app::router(colorapp)).await
}
