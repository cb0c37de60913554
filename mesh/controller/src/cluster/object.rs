//! Parses objects one by one, so that one that does not parse keeps no other from being read.
//!
//! kube's DeserializeGuard is for that, but it goes through a representation that does not know serde_json's numbers of
//! arbitrary precision.

use std::{borrow::Cow, ops::Deref, sync::Arc};

use kube::{
    Resource,
    api::{ApiResource, ObjectMeta},
    core::{Selector, SelectorExt as _},
};
use mesh_api::{MeshObject, ignored};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _},
};
use serde_json::Value;

use super::kinds::Selecting;

/// An object, and what is not understood of it.
#[derive(Clone, Debug)]
pub struct Object<K> {
    object: K,
    /// The fields that the API does not have, which are ignored, each by its path.
    pub unknown: Vec<String>,
    /// Its selector; `None` if it has none, or one that does not parse, which admission refuses.
    selector: Option<Selector>,
}

impl<K: Selecting> Object<K> {
    /// An object of which all is understood, as made in memory.
    pub fn new(object: K) -> Self {
        let selector = object.selector().and_then(|selector| Selector::try_from(selector.clone()).ok());
        Self { object, unknown: Vec::new(), selector }
    }

    /// Whether it selects what has these labels. An absent selector selects nothing, an empty one everything.
    pub fn selects(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

impl<K> Deref for Object<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.object
    }
}

impl<K: Selecting + Serialize + DeserializeOwned> Object<K> {
    /// Parses an object.
    ///
    /// # Errors
    /// It does not parse: where and why, such as `spec.listeners[0].portMapping.port: invalid type: …`.
    pub fn parse(written: &Value) -> anyhow::Result<Self> {
        let object: K = serde_path_to_error::deserialize(written)?;
        let understood = serde_json::to_value(&object)?;
        let unknown = ignored::fields("spec", &written["spec"], &understood["spec"]);
        Ok(Self { unknown, ..Self::new(object) })
    }
}

/// An object that does not parse as its kind: stored under an older schema, or past the webhook.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its kind.
    pub resource: ApiResource,
    /// Type of the condition that says whether objects of the kind are in force.
    pub condition_type: &'static str,
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its status as it stands.
    pub status: Value,
    /// Where it does not parse and why.
    pub error: String,
}

/// An object of the cluster, parsed if it can be.
#[derive(Clone, Debug)]
pub enum Parsed<K> {
    /// As this controller understands it.
    Object(Arc<Object<K>>),
    /// Only its metadata.
    Unreadable(Arc<Unreadable>),
}

impl<K> Parsed<K> {
    /// The object, if it parses.
    pub fn object(self) -> Option<Arc<Object<K>>> {
        match self {
            Self::Object(object) => Some(object),
            Self::Unreadable(_) => None,
        }
    }
}

impl<'de, K: MeshObject + Selecting + Serialize + DeserializeOwned> Deserialize<'de> for Parsed<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Value::deserialize(deserializer)?;
        match Object::parse(&written) {
            Ok(object) => Ok(Self::Object(Arc::new(object))),
            Err(error) => Ok(Self::Unreadable(Arc::new(Unreadable {
                resource: ApiResource::erase::<K>(&()),
                condition_type: K::ACTIVE,
                metadata: ObjectMeta::deserialize(&written["metadata"]).map_err(D::Error::custom)?,
                status: written["status"].clone(),
                error: error.to_string(),
            }))),
        }
    }
}

impl<K: Resource<DynamicType = ()> + Clone> Resource for Parsed<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Object(object) => object.object.meta(),
            Self::Unreadable(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Object(object) => Arc::make_mut(object).object.meta_mut(),
            Self::Unreadable(unreadable) => &mut Arc::make_mut(unreadable).metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::VirtualNode;
    use serde_json::json;

    fn parsed(spec: Value) -> Parsed<VirtualNode> {
        let node = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "VirtualNode", "spec": spec,
            "metadata": {"name": "a", "namespace": "ns"}});
        serde_json::from_value(node).unwrap()
    }

    #[test]
    fn what_is_not_understood_of_an_object_is_kept_beside_it() {
        let port = json!({"port": 1, "protocol": "http"});
        let listener = json!({"portMapping": port, "tsl": {"mode": "STRICT"}});
        let object = parsed(json!({"listeners": [listener]})).object().unwrap();
        assert_eq!(object.unknown, ["spec.listeners[0].tsl"]);
    }

    #[test]
    fn an_object_that_does_not_parse_is_known_by_its_metadata() {
        let node = parsed(json!({"listeners": [{"portMapping": {"port": "http", "protocol": "http"}}]}));
        let Parsed::Unreadable(node) = node else { panic!("{node:?}") };
        assert_eq!((node.metadata.name.as_deref(), node.condition_type), (Some("a"), "VirtualNodeActive"));
        let expected = "spec.listeners[0].portMapping.port: invalid type: string \"http\", expected u16";
        assert_eq!(node.error, expected);
    }

    #[test]
    fn selectors() {
        let labels = [("app".to_owned(), "front".to_owned())].into();
        for (spec, expected) in [
            (json!({}), false),
            (json!({"podSelector": {}}), true),
            (json!({"podSelector": {"matchLabels": {"app": "front"}}}), true),
            (json!({"podSelector": {"matchLabels": {"app": "front", "version": "v1"}}}), false),
            (
                json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["front", "back"]}]}}),
                true,
            ),
            (json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}), false),
            (json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Resembles"}]}}), false),
        ] {
            assert_eq!(parsed(spec.clone()).object().unwrap().selects(&labels), expected, "{spec}");
        }
    }
}
