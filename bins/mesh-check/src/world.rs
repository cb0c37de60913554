//! Holds what is looked at, as it is.

use crate::scene::Side;
use common::classify;
use common::cluster::Cluster;
use pod_role::Agent;
use std::collections::BTreeSet;

/// Everything that is judged.
#[derive(Debug)]
pub struct World {
    /// In the order in which they were named.
    pub clusters: Vec<ClusterView>,
    /// Helm's version; none if nobody asked for it.
    pub helm: Option<Result<String, Fault>>,
    /// Whether the namespace they share is found in the DNS of a VPC.
    pub private_dns: bool,
    /// Programs by their path, each with its architecture as Go spells it.
    pub programs: Vec<(String, Result<String, Fault>)>,
}

/// A cluster as far as it could be seen.
#[derive(Debug)]
pub struct ClusterView {
    pub name: String,
    pub lookup: Lookup,
    /// What hands out its pods' credentials; none if they get them by IRSA.
    pub agent: Option<Result<Agent, Fault>>,
}

/// How far one came.
#[derive(Debug)]
pub enum Lookup {
    /// AWS said no, or did not answer.
    Refused(Fault),
    /// There is no such cluster.
    Absent(Fault),
    /// It is there and cannot be used.
    Inactive(Fault),
    /// It is there; and what its API server says.
    Active(Box<Cluster>, Result<Box<Kubernetes>, Fault>),
}

/// What an API server says.
#[derive(Debug)]
pub struct Kubernetes {
    /// `1.35`
    pub version: String,
    /// What the caller may not do and would have to, `patch secrets`.
    pub denied: Vec<String>,
    /// Architectures of the ready nodes.
    pub nodes: Result<BTreeSet<String>, Fault>,
    /// Namespaces that others made, and who.
    pub taken: Vec<(String, String)>,
    /// The mesh, if it was asked for and there is one.
    pub mesh: Result<Option<Side>, Fault>,
}

/// Why something could not be seen.
#[derive(Debug, Clone)]
pub struct Fault {
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Fault {
    /// What an error says.
    pub fn of(error: &anyhow::Error) -> Self {
        Self { reason: format!("{error:#}"), hint: classify(error).1.map(str::to_owned) }
    }
}
