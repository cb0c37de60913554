//! Holds one resource of Envoy's, encoded once for all who are sent it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};
use sha2::{Digest as _, Sha256};

/// An encoded resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Unique among those of its kind that one Envoy has.
    pub name: String,
    /// A hash of its content, in hexadecimal: the same on all replicas.
    pub version: String,
    /// Its content.
    pub body: Any,
}

/// Resources of one kind, by name.
pub type Resources = BTreeMap<String, Arc<Resource>>;

impl Resource {
    /// Encodes a message. Those with a map of several entries are not for this: their bytes come in any order.
    pub fn new<M: Message + Name>(name: &str, message: &M) -> (String, Arc<Self>) {
        let body = Any { type_url: M::type_url(), value: message.encode_to_vec() };
        let version = hex::encode(&Sha256::digest(&body.value)[..8]);
        (name.to_owned(), Arc::new(Self { name: name.to_owned(), version, body }))
    }
}

/// Knows the resources that Envoys have, so that those of many Envoys are held once: all who call an upstream alike have the
/// same cluster.
#[derive(Default)]
pub struct Shared(HashMap<String, Weak<Resource>>);

impl Shared {
    /// Replaces what is known by what is held already.
    pub fn share(&mut self, resources: &mut Resources) {
        for resource in resources.values_mut() {
            match self.0.get(&resource.version).and_then(Weak::upgrade).filter(|known| known == resource) {
                Some(known) => *resource = known,
                None => drop(self.0.insert(resource.version.clone(), Arc::downgrade(resource))),
            }
        }
    }

    /// Forgets what nobody has any more.
    pub fn forget(&mut self) {
        self.0.retain(|_, resource| resource.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_resource_is_held_once() {
        let resources = |names: &[&str]| -> Resources {
            let resource = |name: &&str| Resource {
                name: (*name).to_owned(),
                version: format!("of {name}"),
                body: Any::default(),
            };
            names.iter().map(|name| ((*name).to_owned(), Arc::new(resource(name)))).collect()
        };
        let (mut one, mut other, mut shared) = (resources(&["red", "blue"]), resources(&["red"]), Shared::default());
        shared.share(&mut one);
        shared.share(&mut other);
        assert!(Arc::ptr_eq(&one["red"], &other["red"]));
        assert_eq!(one, resources(&["red", "blue"]));
        drop(one);
        shared.forget();
        assert_eq!(shared.0.into_keys().collect::<Vec<_>>(), ["of red"]);
        assert_eq!(Arc::strong_count(&other["red"]), 1);
    }
}
