//! Decides which Mesh a namespace belongs to, and which VirtualNode a pod is.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::bail;
use kube::ResourceExt as _;
use mesh_api::{Mesh, VirtualNode};

use crate::cluster::{Object, Snapshot};

/// The one Mesh that selects a namespace.
///
/// # Errors
/// None does, or several do.
pub fn mesh_of_namespace<'a>(snapshot: &'a Snapshot, namespace: &str) -> anyhow::Result<&'a Object<Mesh>> {
    let none = BTreeMap::new();
    let labels = snapshot.namespaces.get(namespace).unwrap_or(&none);
    let found: Vec<_> = snapshot.meshes.iter().filter(|mesh| mesh.selects(labels)).collect();
    match found[..] {
        [mesh] => Ok(mesh),
        [] => bail!("failed to find matching mesh for namespace: {namespace}, expecting 1 but found 0"),
        _ => bail!(
            "found multiple matching meshes for namespace: {namespace}, expecting 1 but found {}: {}",
            found.len(),
            names(found.iter().map(|mesh| mesh.name_any()))
        ),
    }
}

/// The VirtualNode that selects a pod of that namespace with these labels, if any.
///
/// # Errors
/// Several do.
pub fn virtual_node_of_pod<'a>(
    snapshot: &'a Snapshot,
    namespace: &'a str,
    pod: &str,
    labels: &BTreeMap<String, String>,
) -> anyhow::Result<Option<&'a Arc<Object<VirtualNode>>>> {
    let nodes = snapshot.virtual_nodes.of_namespace(namespace);
    let selecting = nodes.filter(|node| node.metadata.deletion_timestamp.is_none() && node.selects(labels));
    let found: Vec<_> = selecting.collect();
    match found[..] {
        [] => Ok(None),
        [node] => Ok(Some(node)),
        _ => bail!(
            "found multiple matching VirtualNodes for pod {pod}: {}",
            names(found.iter().map(|node| node.name_any()))
        ),
    }
}

fn names(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(",")
}
