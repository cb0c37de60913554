//! Drains a pod's Envoy when the pod ends: its callers are told to go, and it stays until they have.

use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::time::interval;

use crate::admin::{self, ask};

/// How often Envoy is asked who is still there.
const OFTEN: Duration = Duration::from_millis(100);
/// Tells callers to go with the next answer, and takes new connections meanwhile: the application may still be there, and
/// who has not heard of the pod's end yet comes again.
const DRAIN: &str = "POST /drain_listeners?graceful&inboundonly&skip_exit";
/// How the statistics begin of requests to the application, and of those to a VirtualGateway.
const INGRESS: [&str; 2] = ["http.cds_ingress_", "http.ingress."];

/// Tells the callers of the pod's Envoy to go, and waits until they have, or have been silent for a while.
///
/// Meant as the preStop hook of Envoy's container, before it is told to end. Exits 0 in any case that is not an error: a
/// caller that stays holds up nothing for longer than --at-most.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Port of Envoy's administration
    #[arg(long, value_name = "PORT", default_value_t = admin::PORT)]
    pub admin_port: u16,

    /// Port of Envoy's listener for traffic into the pod
    #[arg(long, value_name = "PORT", default_value_t = 15000)]
    pub ingress_port: u16,

    /// Port of the only listener whose callers do not count, for the Envoy of a VirtualGateway, which has several others
    #[arg(long, value_name = "PORT", conflicts_with = "ingress_port")]
    pub all_but_port: Option<u16>,

    /// Seconds that it waits even if nobody calls
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub at_least: u64,

    /// Seconds after which it waits no more
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub at_most: u64,

    /// Seconds without a request after which callers that keep their connections count as gone
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    pub silence: u64,
}

/// Who calls a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Callers {
    /// Connections, of whatever protocol.
    connections: u64,
    /// Connections of HTTP among them.
    http: u64,
    /// Requests that are being answered.
    active: u64,
    /// Requests so far.
    requests: u64,
}

impl Callers {
    /// Reads Envoy's statistics, a line each, of the listeners whose ports count.
    fn of(stats: &str, counts: impl Fn(u16) -> bool) -> Self {
        let port = |name: &str| {
            let listener = name.strip_prefix("listener.")?.strip_suffix(".downstream_cx_active")?;
            listener.rsplit_once('_')?.1.parse().ok()
        };
        let mut callers = Self::default();
        for (name, value) in stats.lines().filter_map(|line| line.trim().rsplit_once(": ")) {
            let Ok(value) = value.parse::<u64>() else { continue };
            if port(name).is_some_and(&counts) {
                callers.connections += value;
            } else if INGRESS.iter().any(|prefix| name.starts_with(prefix)) {
                match name.rsplit('.').next() {
                    Some("downstream_cx_active") => callers.http += value,
                    Some("downstream_rq_active") => callers.active += value,
                    Some("downstream_rq_total") => callers.requests += value,
                    _ => {}
                }
            }
        }
        callers
    }

    /// Whether those that are there only keep their connections.
    fn are_idle(self) -> bool {
        self.active == 0 && self.connections <= self.http
    }
}

/// Drains Envoy; says how it ended.
///
/// # Errors
/// Envoy does not answer.
pub async fn run(drain: &Drain) -> Result<String> {
    let start = Instant::now();
    let [at_least, at_most, silence] = [drain.at_least, drain.at_most, drain.silence].map(Duration::from_secs);
    ask(drain.admin_port, DRAIN).context("telling the callers of Envoy to go")?;
    let (mut last, mut since, mut ticks) = (Callers::default(), start, interval(OFTEN));
    loop {
        ticks.tick().await;
        let stats = ask(drain.admin_port, "GET /stats?usedonly").context("asking Envoy who is still there")?;
        let callers = Callers::of(&stats, |port| match drain.all_but_port {
            Some(but) => port != but,
            None => port == drain.ingress_port,
        });
        if callers.requests != last.requests || !callers.are_idle() {
            since = Instant::now();
        }
        last = callers;
        let waited = start.elapsed();
        if waited >= at_most.max(at_least) {
            return Ok(format!("{} callers are still there after {} s", callers.connections, waited.as_secs()));
        }
        if waited >= at_least && callers.connections == 0 {
            return Ok("no caller is left".to_owned());
        }
        if waited >= at_least && since.elapsed() >= silence {
            return Ok(format!("{} callers have been silent for {} s", callers.connections, silence.as_secs()));
        }
    }
}

/// Leaves a copy of this program, with which Envoy's container drains it.
///
/// # Errors
/// The file cannot be written.
pub fn copy_to(path: &Path) -> Result<()> {
    let own = std::env::current_exe().context("finding this program")?;
    // A file that runs cannot be written, and this may be a second start.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context(path.display().to_string()),
        _ => {}
    }
    fs::copy(&own, path).with_context(|| format!("copying this program to {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o555)).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_read_from_envoys_statistics() {
        let stats = "http.cds_ingress_m_n_http_8080.downstream_cx_active: 2\n\
                     http.cds_ingress_m_n_http_8080.downstream_rq_active: 1\n\
                     http.cds_ingress_m_n_http_8080.downstream_rq_total: 7\n\
                     http.cds_ingress_m_n_grpc_9090.downstream_rq_total: 3\n\
                     http.cds_ingress_m_n_http_8080.downstream_rq_time: P0(nan,1) P25(nan,1)\n\
                     http.egress.downstream_rq_active: 9\n\
                     listener.0.0.0.0_15000.downstream_cx_active: 3\n\
                     listener.0.0.0.0_15001.downstream_cx_active: 5\n";
        let callers = Callers::of(stats, |port| port == 15000);
        assert_eq!(callers, Callers { connections: 3, http: 2, active: 1, requests: 10 });
        let of_gateway = "http.ingress.downstream_cx_active: 4\n\
                          http.ingress.downstream_rq_active: 1\n\
                          http.ingress.downstream_rq_total: 9\n\
                          http.status.downstream_rq_total: 5\n\
                          listener.0.0.0.0_8088.downstream_cx_active: 3\n\
                          listener.0.0.0.0_443.downstream_cx_active: 1\n\
                          listener.[__]_9901.downstream_cx_active: 2\n\
                          listener.admin.downstream_cx_active: 1\n";
        let of_gateway = Callers::of(of_gateway, |port| port != 9901);
        assert_eq!(of_gateway, Callers { connections: 4, http: 4, active: 1, requests: 9 });
        for (active, connections, idle) in [(0, 2, true), (1, 2, false), (0, 3, false), (0, 0, true)] {
            assert_eq!(Callers { connections, active, ..callers }.are_idle(), idle, "{active} {connections}");
        }
    }

    #[test]
    fn a_copy_can_be_made_again_and_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capture");
        for _ in 0..2 {
            copy_to(&path).unwrap();
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o555);
        assert!(copy_to(&folder.path().join("none/capture")).is_err());
    }
}
