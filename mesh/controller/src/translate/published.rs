//! Finds what other clusters publish, and says what is wrong with it.

use std::{collections::BTreeSet, sync::Arc};

use mesh_api::{Arn, MeshReference};

use super::{AllPublished, virtual_node::cloud_map};
use crate::{
    cluster::Snapshot,
    model::{Published, Reason, Routing, VirtualServiceKey},
};

/// Where a VirtualService of another cluster is looked for by who is in no Cloud Map namespace itself: in those that this
/// cluster's VirtualNodes of the same Mesh are registered in.
pub fn keys(mesh: Option<&MeshReference>, arn: &Arn, snapshot: &Snapshot) -> Vec<VirtualServiceKey> {
    let mesh = mesh.map(|reference| &reference.name);
    let nodes = snapshot.virtual_nodes.iter();
    let of_mesh = nodes.filter(|node| node.spec.mesh_ref.as_ref().map(|reference| &reference.name) == mesh);
    let namespaces: BTreeSet<_> =
        of_mesh.filter_map(|node| cloud_map(node)).map(|discovery| discovery.key.namespace).collect();
    namespaces.into_iter().map(|namespace| VirtualServiceKey { namespace, arn: arn.to_string() }).collect()
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
