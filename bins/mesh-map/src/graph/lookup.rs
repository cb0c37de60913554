//! Finds the node of an object by its name or its ARN.

use super::{Kind, Named};
use mesh_api::Arn;
use mesh_api::arn::MeshResource;
use std::collections::BTreeMap;

/// The nodes of all objects.
#[derive(Debug, Default)]
pub struct Lookup {
    by_name: BTreeMap<(usize, Kind, String, String), usize>,
    published: Vec<Published>,
}

/// What another cluster may call an object by.
#[derive(Debug)]
struct Published {
    cluster: usize,
    kind: Kind,
    aws_name: String,
    arn: Option<String>,
    meshes: Vec<String>,
    node: usize,
}

impl Lookup {
    /// Remembers the node of an object.
    pub fn note(&mut self, cluster: usize, kind: Kind, named: &Named<'_>, node: usize) {
        self.by_name.insert((cluster, kind, named.namespace.clone(), named.name.clone()), node);
        self.published.push(Published {
            cluster,
            kind,
            aws_name: named.aws_name.clone(),
            arn: named.arn.map(ToOwned::to_owned),
            meshes: named.meshes.clone(),
            node,
        });
    }

    /// The object of that name in a cluster.
    pub fn by_name(&self, cluster: usize, kind: Kind, namespace: &str, name: &str) -> Option<usize> {
        self.by_name.get(&(cluster, kind, namespace.to_owned(), name.to_owned())).copied()
    }

    /// The object of that ARN in any cluster, the given one first.
    pub fn by_arn(&self, cluster: usize, kind: Kind, arn: &Arn) -> Option<usize> {
        let found = self.published.iter().filter(|published| published.kind == kind && published.has(arn));
        found.min_by_key(|published| (published.cluster != cluster, published.node)).map(|published| published.node)
    }

    /// Whether the node stands for what does not exist.
    pub fn is_absent(&self, node: usize) -> bool {
        node >= self.published.len()
    }
}

impl Published {
    /// A manifest knows neither account nor region: mesh and name must do.
    fn has(&self, arn: &Arn) -> bool {
        if let Some(own) = &self.arn {
            return *own == arn.to_string();
        }
        let named = resource(arn).is_some_and(|(kind, name)| kind == self.kind && name == self.aws_name);
        named && (self.meshes.is_empty() || self.meshes.contains(&arn.mesh))
    }
}

/// The kind and name of what an ARN names, if a map has such kinds.
pub fn resource(arn: &Arn) -> Option<(Kind, &str)> {
    match &arn.resource {
        MeshResource::VirtualNode(name) => Some((Kind::VirtualNode, name)),
        MeshResource::VirtualService(name) => Some((Kind::VirtualService, name)),
        MeshResource::VirtualRouter(name) => Some((Kind::VirtualRouter, name)),
        _ => None,
    }
}
