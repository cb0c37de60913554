//! Which Mesh a namespace belongs to, and which VirtualNode a pod is.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use mesh_api::{Mesh, VirtualNode, selects};

use crate::store::{Read, Snapshot, Store};

/// What a decision about an object of one namespace rests on.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The namespace's name.
    pub namespace: String,
    /// The namespace's labels.
    pub labels: BTreeMap<String, String>,
    /// All meshes of the cluster.
    pub meshes: Vec<Arc<Mesh>>,
    /// The namespace's nodes.
    pub virtual_nodes: Vec<Arc<VirtualNode>>,
}

impl Surroundings {
    /// As the local copy has them.
    pub fn known(snapshot: &Snapshot, namespace: &str) -> Self {
        let of_namespace = |node: &&Arc<VirtualNode>| node.metadata.namespace.as_deref() == Some(namespace);
        Self {
            namespace: namespace.to_owned(),
            labels: snapshot.namespace(namespace).map(|namespace| namespace.labels().clone()).unwrap_or_default(),
            meshes: snapshot.meshes.clone(),
            virtual_nodes: snapshot.virtual_nodes.iter().filter(of_namespace).cloned().collect(),
        }
    }

    /// As the API server has them.
    pub async fn asked(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        let every = ListParams::default();
        let meshes = Api::<Read<Mesh>>::all(client.clone());
        let nodes = Api::<Read<VirtualNode>>::namespaced(client.clone(), namespace);
        let namespaces = Api::<Namespace>::all(client.clone());
        let (meshes, nodes, labels) =
            tokio::try_join!(meshes.list(&every), nodes.list(&every), namespaces.get_metadata(namespace))
                .with_context(|| format!("reading what namespace {namespace} holds"))?;
        Ok(Self {
            namespace: namespace.to_owned(),
            labels: labels.metadata.labels.unwrap_or_default(),
            meshes: meshes.items.into_iter().filter_map(Read::object).collect(),
            virtual_nodes: nodes.items.into_iter().filter_map(Read::object).collect(),
        })
    }

    /// The one Mesh that selects the namespace.
    pub fn mesh(&self) -> anyhow::Result<&Mesh> {
        let namespace = &self.namespace;
        let selecting = |mesh: &&Arc<Mesh>| selects(mesh.spec.namespace_selector.as_ref(), &self.labels);
        let found: Vec<_> = self.meshes.iter().filter(selecting).collect();
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

    /// The VirtualNode that selects a pod with these labels, if any.
    pub fn virtual_node(&self, pod: &str, labels: &BTreeMap<String, String>) -> anyhow::Result<Option<&VirtualNode>> {
        virtual_node_of(&self.virtual_nodes, &self.namespace, pod, labels)
    }
}

/// The node that selects a pod of that namespace with these labels, if any.
pub fn virtual_node_of<'a>(
    nodes: &'a [Arc<VirtualNode>],
    namespace: &str,
    pod: &str,
    labels: &BTreeMap<String, String>,
) -> anyhow::Result<Option<&'a VirtualNode>> {
    let selecting = |node: &&Arc<VirtualNode>| {
        node.metadata.namespace.as_deref() == Some(namespace)
            && node.metadata.deletion_timestamp.is_none()
            && selects(node.spec.pod_selector.as_ref(), labels)
    };
    let found: Vec<_> = nodes.iter().filter(selecting).collect();
    match found[..] {
        [] => Ok(None),
        [node] => Ok(Some(node)),
        _ => bail!(
            "found multiple matching VirtualNodes for pod {pod}: {}",
            names(found.iter().map(|node| node.name_any()))
        ),
    }
}

/// Decides by the local copy; what that can't grant is asked of the API server, for a Mesh made a moment ago may not
/// have arrived yet.
pub async fn decide<T>(
    store: &Store,
    client: &Client,
    namespace: &str,
    decision: impl Fn(&Surroundings) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    match decision(&Surroundings::known(&store.snapshot(), namespace)) {
        Ok(granted) => Ok(granted),
        Err(_) => decision(&Surroundings::asked(client, namespace).await?),
    }
}

fn names(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::ResourceExt;
    use serde_json::{from_value, json};

    fn mesh(name: &str, label: &str) -> Arc<Mesh> {
        let spec = json!({ "namespaceSelector": { "matchLabels": { "mesh": label } } });
        Arc::new(Mesh::new(name, from_value(spec).unwrap()))
    }

    fn node(name: &str, app: &str) -> Arc<VirtualNode> {
        let spec = json!({ "podSelector": { "matchLabels": { "app": app } } });
        let mut node = VirtualNode::new(name, from_value(spec).unwrap());
        node.metadata.namespace = Some("ns".to_owned());
        Arc::new(node)
    }

    fn namespace(meshes: Vec<Arc<Mesh>>, virtual_nodes: Vec<Arc<VirtualNode>>) -> Surroundings {
        let labels = BTreeMap::from([("mesh".to_owned(), "k8multi".to_owned())]);
        Surroundings { namespace: "ns".to_owned(), labels, meshes, virtual_nodes }
    }

    #[test]
    fn exactly_one_mesh_selects_a_namespace() {
        for (meshes, expected) in [
            (vec![mesh("a", "k8multi"), mesh("b", "other")], Ok("a")),
            (vec![mesh("b", "other")], Err("failed to find matching mesh for namespace: ns, expecting 1 but found 0")),
            (
                vec![mesh("a", "k8multi"), mesh("b", "k8multi")],
                Err("found multiple matching meshes for namespace: ns, expecting 1 but found 2: a,b"),
            ),
        ] {
            let found = namespace(meshes, Vec::new());
            let found = found.mesh().map(ResourceExt::name_any).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        }
    }

    #[test]
    fn at_most_one_node_selects_a_pod() {
        let labels = BTreeMap::from([("app".to_owned(), "front".to_owned())]);
        for (nodes, expected) in [
            (vec![], Ok(None)),
            (vec![node("a", "front"), node("b", "back")], Ok(Some("a".to_owned()))),
            (
                vec![node("a", "front"), node("b", "front")],
                Err("found multiple matching VirtualNodes for pod p: a,b".to_owned()),
            ),
        ] {
            let namespace = namespace(Vec::new(), nodes);
            let found = namespace.virtual_node("p", &labels);
            let found = found.map(|node| node.map(ResourceExt::name_any)).map_err(|error| error.to_string());
            assert_eq!(found, expected);
        }
    }
}
