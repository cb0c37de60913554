//! Supports App Mesh's custom resources without App Mesh: one controller per cluster, with Cloud Map as the only thing
//! that clusters share. `ARCHITECTURE.md` says how the parts fit together.

pub mod admission;
pub mod cloudmap;
pub mod cluster;
pub mod dry_run;
pub mod envoy;
pub mod http;
pub mod log;
pub mod metrics;
pub mod model;
pub mod packed;
pub mod pipeline;
pub mod run;
pub mod status;
pub mod tls;
pub mod translate;
pub mod xds;
