//! The key that the tool owns.

use crate::plan::Begun;
use common::namespace::NamespaceType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `namespace` key.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Namespace")]
pub struct Section {
    /// ARN of the namespace; read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Route 53's id of its hosted zone; read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosted_zone: Option<String>,
    /// `ns-…`; read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its domain name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Id of the operation that makes it, while that lasts; read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Where its names are found; `private-dns` if absent.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<NamespaceType>,
    /// `vpc-…`, the cluster's; of a private DNS namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc: Option<String>,
}

impl Section {
    /// The namespace of this name and type that Cloud Map had not made yet when this was written.
    pub fn begun(&self, name: &str, kind: NamespaceType) -> Option<Begun> {
        let meant = self.name.as_deref() == Some(name) && self.kind.unwrap_or(NamespaceType::PrivateDns) == kind;
        let (id, operation) = self.id.clone().zip(self.operation.clone()).filter(|_| meant)?;
        Some(Begun { id, operation })
    }
}
