//! Holds one resource of Envoy's, encoded once for all who are sent it.

use std::{collections::BTreeMap, sync::Arc};

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
