//! How both applications of the sample listen, log and end.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const DEFAULT_PORT: u16 = 8080;

/// Runs an application to its end; what it failed of goes to the pod's log.
pub async fn run(application: impl Future<Output = Result<()>>) -> ExitCode {
    match application.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The port the first of these variables which is set says, else 8080; 0 lets the kernel choose.
///
/// # Errors
/// It says something else.
pub fn port(environment: impl Fn(&str) -> Option<String>, names: &[&str]) -> Result<u16> {
    let set = names.iter().find_map(|name| environment(name).map(|value| (name, value)));
    match set {
        Some((name, value)) => value.parse().with_context(|| format!("{name} is {value:?}, not a port")),
        None => Ok(DEFAULT_PORT),
    }
}

/// Serves until SIGTERM or SIGINT, then until the last request is answered.
///
/// # Errors
/// The port is taken, or there are no signals to watch.
pub async fn serve(port: u16, router: Router) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    let listener = listen(port).await?;
    log(&format!("listening on {}", listener.local_addr()?));
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        log("finishing the requests under way");
    };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await.context("serve")
}

/// `[::]` takes IPv4 too, and is all there is in a cluster of IPv6; a node without IPv6 has only 0.0.0.0.
async fn listen(port: u16) -> Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        outcome => outcome,
    }
    .with_context(|| format!("listen on port {port}"))
}

/// One line for the pod's log. A closed stderr is no reason to stop serving.
pub fn log(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<u16> {
        let environment = |name: &str| {
            let found = set.iter().find(|(set, _)| *set == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        port(environment, &["PORT", "SERVER_PORT"])
    }

    #[test]
    fn the_first_variable_that_is_set_says_the_port() {
        assert_eq!(read(&[]).unwrap(), 8080);
        assert_eq!(read(&[("SERVER_PORT", "9090")]).unwrap(), 9090);
        assert_eq!(read(&[("SERVER_PORT", "9090"), ("PORT", "7070")]).unwrap(), 7070);
    }

    #[test]
    fn a_port_that_does_not_read_is_named() {
        for bad in ["", "http", "65536", "-1"] {
            assert_eq!(read(&[("PORT", bad)]).unwrap_err().to_string(), format!("PORT is {bad:?}, not a port"));
        }
    }
}
