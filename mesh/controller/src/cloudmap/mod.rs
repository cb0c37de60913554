//! Shares a mesh between clusters through AWS Cloud Map: the writer registers what this cluster wants there, the pollers
//! look up what other clusters have registered, `exchange` is the document in which clusters publish where requests for
//! their VirtualServices go, and by their journals they learn what to look up.

pub mod account;
mod client;
mod exchange;
#[cfg(test)]
pub(crate) mod fake;
mod journal;
mod pollers;
mod values;
mod writer;

pub use client::{CloudMap, Creation, NamespaceIds, describe};
pub use exchange::{publication, service_key};
pub use pollers::{Answer, Intervals, Lookup, Pollers};
pub use writer::{Leaving, Registered, Want, Writer};

use std::time::Duration;

/// About as long: a fifth less to a fifth more, so that what began together does not stay together.
fn jitter(duration: Duration) -> Duration {
    duration.mul_f64(0.8 + 0.4 * fastrand::f64())
}
