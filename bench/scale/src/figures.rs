//! The figures of one mesh, as they are kept.

use std::{collections::BTreeMap, fs, time::Duration};

use serde::Serialize;

/// All figures of a mesh.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// VirtualNodes.
    pub nodes: usize,
    /// Pods.
    pub pods: usize,
    /// The first start, with everything there and nothing in Cloud Map.
    pub start: Start,
    /// By the number of sidecars.
    pub sidecars: Vec<Sidecars>,
    /// With more and more services of another cluster in use.
    pub remote: Vec<Remote>,
}

/// The first start.
#[derive(Debug, Serialize)]
pub struct Start {
    /// Seconds until the controller accepts Envoys.
    pub ready_seconds: f64,
    /// Seconds until all pods are registered and every status is written.
    pub settled_seconds: f64,
    /// CPU seconds until then.
    pub cpu_seconds: f64,
    /// Resident memory then, and the most until then, in MB.
    pub memory_mb: [f64; 2],
    /// Calls of Cloud Map until then.
    pub calls: BTreeMap<String, u64>,
    /// See [`load`].
    pub load: f64,
}

/// Figures with a number of sidecars.
#[derive(Debug, Serialize)]
pub struct Sidecars {
    /// How many.
    pub count: usize,
    /// Nothing happens.
    pub rest: Window,
    /// One pod a second comes, and one goes.
    pub churn: Churn,
    /// Weights change, one after the other.
    pub weights: Vec<Weight>,
    /// The controller is started again, and the Envoys keep what they have.
    pub restart: Restart,
    /// The controller is started again, and all Envoys are new.
    pub restart_with_new_envoys: Restart,
}

/// What the controller takes over some time.
#[derive(Debug, Serialize)]
pub struct Window {
    /// How long it was looked at.
    pub seconds: f64,
    /// Percent of one core.
    pub cpu_percent: f64,
    /// Resident memory at the end, and the most so far, in MB.
    pub memory_mb: [f64; 2],
    /// Calls of Cloud Map.
    pub calls: BTreeMap<String, u64>,
    /// See [`load`].
    pub load: f64,
}

/// Pods come and go.
#[derive(Debug, Serialize)]
pub struct Churn {
    /// What it takes.
    #[serde(flatten)]
    pub window: Window,
    /// Seconds from before a pod is made ready until the last Envoy that needs it has acknowledged it.
    pub came: Spread,
    /// Seconds from before a pod is deleted until the last Envoy has acknowledged that.
    pub went: Spread,
}

/// One weight changes.
#[derive(Debug, Serialize)]
pub struct Weight {
    /// Sidecars that use it.
    pub users: usize,
    /// Sidecars that were sent something.
    pub sent: usize,
    /// Those of them that do not use it.
    pub sent_others: usize,
    /// Seconds until the last user has acknowledged.
    pub seconds: f64,
}

/// The controller is started again.
#[derive(Debug, Serialize)]
pub struct Restart {
    /// Seconds from its start until it accepts Envoys.
    pub ready_seconds: f64,
    /// Seconds from its start until all Envoys have all that they need.
    pub configured_seconds: f64,
    /// CPU seconds until it accepts Envoys, and until all have all.
    pub cpu_seconds: [f64; 2],
    /// Resident memory then, and the most until then, in MB.
    pub memory_mb: [f64; 2],
    /// See [`load`].
    pub load: f64,
}

/// Services of another cluster are in use.
#[derive(Debug, Serialize)]
pub struct Remote {
    /// How many.
    pub services: usize,
    /// What it takes while nothing happens.
    #[serde(flatten)]
    pub window: Window,
}

/// A distribution of times, in seconds.
#[derive(Debug, Serialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// 99 % are not greater.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of these times.
    pub fn of(times: &[Duration]) -> Self {
        let mut seconds: Vec<_> = times.iter().copied().map(seconds).collect();
        seconds.sort_by(f64::total_cmp);
        // The smallest of which at least so many percent are not greater.
        let rank = |percent: usize| (seconds.len() * percent).div_ceil(100).saturating_sub(1);
        let at = |index: usize| seconds.get(index).copied().unwrap_or_default();
        Self { count: seconds.len(), p50: at(rank(50)), p99: at(rank(99)), max: at(rank(100)) }
    }
}

/// Seconds to the thousandth.
pub fn seconds(time: Duration) -> f64 {
    round(time.as_secs_f64(), 3)
}

/// Rounds to this many digits.
pub fn round(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

/// The machine's load average of the last minute: processes that run or wait for a CPU, the controller's among them.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or_default()
}
