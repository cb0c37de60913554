//! Holds the document's `check` key.

use crate::finding::Finding;
use common::namespace::NamespaceType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How pods get their role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Identity {
    /// By the cluster's OpenID Connect issuer.
    Irsa,
    /// By EKS Pod Identity.
    PodIdentity,
}

/// The `check` key.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Check")]
pub struct Section {
    /// The clusters to join with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<String>,
    /// Manifests that are checked in place of clusters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Whether Helm is checked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub helm: bool,
    /// How pods get their role; `irsa` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Where the names they share are found; `private-dns` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_type: Option<NamespaceType>,
    /// Beginnings of the codes that are checked; all if absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Codes of the checks that found nothing; read-only.
    pub passed: BTreeSet<String>,
    /// Programs that the nodes must be able to run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<String>,
    /// What could not be looked at; read-only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
    /// What may be wrong; read-only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Finding>,
}
