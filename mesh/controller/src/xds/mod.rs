//! Sends Envoys their configuration over ADS, state of the world and delta. A stream carries one workload's resources and
//! no other's; each resource was encoded and versioned once, for all who are sent it.

pub mod auth;
pub mod cache;
pub mod delta;
#[cfg(test)]
mod double;
pub mod server;
mod session;
pub mod sotw;

pub use cache::{Cache, Protocol, Snapshot};
pub use server::{Ads, Identify};
pub use session::Kind;
