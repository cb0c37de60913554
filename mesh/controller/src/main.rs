//! Serves App Mesh's custom resources: admission, discovery, routes, Envoy configuration.

mod cloudmap;
mod identity;
mod publish;
mod registration;
mod store;
mod xds;

fn main() {}
