//! Watches the cluster: the objects that a mesh is made of, the pods that it is for, and which replica leads.

pub mod kinds;
pub mod leader;
mod object;
mod pods;
mod services;
mod snapshot;
mod watch;

pub use object::{Object, Parsed, Unreadable};
pub use pods::{GATE, GateCondition, Pod, PodChange, PodKey, Pods, WORKLOAD_VARIABLE};
pub use services::{Service, Services};
pub use snapshot::{Objects, Snapshot};
pub use watch::{Cluster, pauses, report};
