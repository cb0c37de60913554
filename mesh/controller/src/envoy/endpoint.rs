//! Encodes endpoints: the instances of an upstream's Cloud Map service that have its attributes.

use std::sync::Arc;

use super::{Resource, proto::endpoints};
use crate::model::{Attributes, Instances, Upstream, endpoint::address};

/// Encodes the endpoints of `cluster`, out of the instances of its upstream's service. They are sorted by address.
pub fn encode(cluster: &str, upstream: &Upstream, instances: &Instances) -> Arc<Resource> {
    let discovery = upstream.discovery.cloud_map();
    let of_upstream = |attributes: &&Arc<Attributes>| {
        discovery
            .is_some_and(|discovery| discovery.attributes.iter().all(|(key, value)| attributes.get(key) == Some(value)))
    };
    let mut addresses: Vec<_> = instances
        .values()
        .filter(of_upstream)
        .filter_map(|attributes| address(attributes, upstream.ip_preference))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Resource::new(cluster, &endpoints(cluster, addresses, upstream.port.port)).1
}
