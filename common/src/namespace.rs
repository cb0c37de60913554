//! Names the types of Cloud Map namespaces.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the names in a namespace are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum NamespaceType {
    /// In the DNS of a VPC, and through Cloud Map.
    PrivateDns,
    /// Through Cloud Map only.
    Http,
}
