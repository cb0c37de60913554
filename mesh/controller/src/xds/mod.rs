//! Envoy's configuration, served over ADS to the sidecars of this cluster.

pub mod auth;
pub mod config;
#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a test that says what it saw")]
mod live;
mod proto;
pub mod server;
pub mod session;
pub mod view;

/// What a sidecar calls itself: `mesh/<mesh>/virtualNode/<awsName>`, as upstream's APPMESH_RESOURCE_ARN.
pub fn node_id(mesh: &str, node: &str) -> String {
    format!("mesh/{mesh}/virtualNode/{node}")
}
