//! Names of objects.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// Names one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef {
    /// `GROUP/VERSION`, or `v1` for the core group.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Absent for kinds that belong to the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectRef {
    /// A reference to an object of the whole cluster.
    pub fn new(api_version: &str, kind: &str, name: &str) -> Self {
        Self { api_version: api_version.into(), kind: kind.into(), namespace: None, name: name.into() }
    }

    /// The same in a namespace.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// What a manifest or a live object names. `None` when it lacks `apiVersion`, `kind` or `metadata.name`.
    pub fn of(object: &Value) -> Option<Self> {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).filter(|text: &&str| !text.is_empty());
        Some(Self {
            api_version: text("/apiVersion")?.to_owned(),
            kind: text("/kind")?.to_owned(),
            namespace: text("/metadata/namespace").map(str::to_owned),
            name: text("/metadata/name")?.to_owned(),
        })
    }

    /// The group of the API, empty for the core.
    pub fn group(&self) -> &str {
        self.api_version.rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// `NAMESPACE/NAME`, or the name alone.
    pub fn place(&self) -> String {
        self.namespace.iter().chain([&self.name]).map(String::as_str).collect::<Vec<_>>().join("/")
    }

    /// Whether both name the same object, in whatever version of the API.
    pub fn is(&self, other: &Self) -> bool {
        self.kind == other.kind && self.group() == other.group() && self.place() == other.place()
    }

    pub(super) fn version(&self) -> &str {
        self.api_version.rsplit_once('/').map_or(self.api_version.as_str(), |(_, version)| version)
    }
}

/// `Deployment k8multi/front`
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reference_knows_its_group_and_place() {
        let front = ObjectRef::new("apps/v1", "Deployment", "front").within("k8multi");
        assert_eq!(
            (front.group(), front.version(), front.to_string().as_str()),
            ("apps", "v1", "Deployment k8multi/front")
        );
        let (beta, other) =
            (ObjectRef::new("apps/v1beta1", "Deployment", "front"), ObjectRef::new("v1", "Deployment", "front"));
        assert!(front.is(&beta.clone().within("k8multi")) && !front.is(&beta) && !front.is(&other.within("k8multi")));
        let namespace = ObjectRef::new("v1", "Namespace", "k8multi");
        assert_eq!((namespace.group(), namespace.version(), namespace.place().as_str()), ("", "v1", "k8multi"));
        assert_eq!(ObjectRef::of(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}})), None);
    }
}
