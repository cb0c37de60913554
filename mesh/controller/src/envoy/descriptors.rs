//! Prints Envoy's messages as JSON, by the descriptors of its API.

use anyhow::Context as _;
use envoy_types::pb::google::protobuf::Any;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;

/// A FileDescriptorSet of the messages that this controller sends; `descriptors/` makes it anew.
const DESCRIPTORS: &[u8] = include_bytes!("descriptors.binpb");

/// Knows the messages.
pub struct Descriptors(DescriptorPool);

impl Descriptors {
    /// Reads the descriptors.
    ///
    /// # Errors
    /// They are broken.
    pub fn load() -> anyhow::Result<Self> {
        DescriptorPool::decode(DESCRIPTORS).map(Self).context("reading the descriptors of Envoy's API")
    }

    /// A message as protobuf's JSON, what it holds as `Any` included.
    ///
    /// # Errors
    /// The message is of no known type.
    pub fn json(&self, message: &Any) -> anyhow::Result<Value> {
        let name = message.type_url.rsplit('/').next().unwrap_or_default();
        let descriptor = self.0.get_message_by_name(name).with_context(|| format!("no descriptor of {name}"))?;
        let message = DynamicMessage::decode(descriptor, &*message.value).with_context(|| format!("reading {name}"))?;
        Ok(serde_json::to_value(message)?)
    }
}
