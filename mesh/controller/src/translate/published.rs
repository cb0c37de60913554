//! Finds what other clusters publish, and says what is wrong with it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use mesh_api::{Arn, MeshReference};

use super::AllPublished;
use crate::{
    cluster::Snapshot,
    model::{Published, Reason, Routing, VirtualServiceKey},
};

/// The Cloud Map namespaces that a cluster's VirtualNodes are registered in, by the name of their Mesh.
pub type Namespaces<'a> = HashMap<Option<&'a str>, BTreeSet<&'a str>>;

/// Gathers them, once for all who look for something.
pub fn namespaces(snapshot: &Snapshot) -> Namespaces<'_> {
    let mut namespaces = Namespaces::new();
    for spec in snapshot.virtual_nodes.iter().map(|node| &node.spec) {
        let discovery = spec.service_discovery.as_ref().and_then(|discovery| discovery.aws_cloud_map.as_ref());
        if let Some(discovery) = discovery {
            namespaces.entry(name(spec.mesh_ref.as_ref())).or_default().insert(discovery.namespace_name.as_str());
        }
    }
    namespaces
}

/// Where a VirtualService of another cluster is looked for by who is in no Cloud Map namespace itself: in those that this
/// cluster's VirtualNodes of the same Mesh are registered in.
pub fn keys(mesh: Option<&MeshReference>, arn: &Arn, namespaces: &Namespaces<'_>) -> Vec<VirtualServiceKey> {
    let of_mesh = namespaces.get(&name(mesh)).into_iter().flatten();
    of_mesh.map(|namespace| VirtualServiceKey { namespace: (*namespace).to_owned(), arn: arn.to_string() }).collect()
}

fn name(mesh: Option<&MeshReference>) -> Option<&str> {
    mesh.map(|reference| reference.name.as_str())
}

/// Where the requests go, by the first that says so.
pub fn routing(keys: &[VirtualServiceKey], published: &AllPublished) -> Option<Arc<Routing>> {
    keys.iter().filter_map(|key| published.get(key)).find_map(Published::routing).cloned()
}

/// Why nothing is known of a VirtualService of another cluster, or not all. `None` too while it is being looked for.
pub fn problem(arn: &Arn, keys: &[VirtualServiceKey], published: &AllPublished) -> Option<(Reason, String)> {
    if keys.is_empty() {
        let message = format!(
            "{arn} cannot be looked for: no VirtualNode of mesh {} in this cluster is in a Cloud Map namespace",
            arn.mesh
        );
        return Some((Reason::BackendNotPublished, message));
    }
    let known: Vec<_> = keys.iter().map(|key| published.get(key)).collect::<Option<_>>()?;
    if known.iter().any(|published| matches!(published, Published::Routing(_))) {
        return None;
    }
    known.into_iter().filter_map(|published| problem_of(arn, published)).max()
}

fn problem_of(arn: &Arn, published: &Published) -> Option<(Reason, String)> {
    match published {
        Published::Nobody => {
            let message =
                format!("no cluster publishes {arn}: is its ARN right, and its cluster's controller at work?");
            Some((Reason::BackendNotPublished, message))
        }
        Published::Unavailable(why) => {
            Some((Reason::BackendUnavailable, format!("{arn} cannot be looked up in Cloud Map: {why}")))
        }
        Published::NotUnderstood(why, _) => Some((Reason::BackendNotUnderstood, why.clone())),
        Published::Routing(_) => None,
    }
}
