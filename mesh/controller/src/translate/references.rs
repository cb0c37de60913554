//! Follows references from one object to another, by name or by ARN.

use mesh_api::{Arn, MeshMember, Reference, VirtualNode, VirtualRouter, arn::MeshResource};

use super::{Context, account, problems::Problems};
use crate::{
    cluster::{Object, Objects, Snapshot},
    model::Reason,
};

/// The namespace and name of the object meant, seen from an object of `namespace`.
pub fn seen_from<'a>(namespace: &'a str, reference: &'a Reference) -> (&'a str, &'a str) {
    (reference.namespace_or(namespace), &reference.name)
}

/// Notes that the object meant does not exist.
pub fn missing(reason: Reason, kind: &str, (namespace, name): (&str, &str), path: String, problems: &mut Problems) {
    problems.add(reason, path, format!("{kind} {namespace}/{name} does not exist"));
}

/// A kind that others name by a reference or by an ARN.
pub trait Referenced: MeshMember {
    /// Such as `virtualNode`, what the fields that name one begin with.
    const FIELD: &'static str;

    /// All of the cluster.
    fn all(snapshot: &Snapshot) -> &Objects<Self>;

    /// What its ARN names.
    fn resource(name: String) -> MeshResource;
}

impl Referenced for VirtualNode {
    const FIELD: &'static str = "virtualNode";

    fn all(snapshot: &Snapshot) -> &Objects<Self> {
        &snapshot.virtual_nodes
    }

    fn resource(name: String) -> MeshResource {
        MeshResource::VirtualNode(name)
    }
}

impl Referenced for VirtualRouter {
    const FIELD: &'static str = "virtualRouter";

    fn all(snapshot: &Snapshot) -> &Objects<Self> {
        &snapshot.virtual_routers
    }

    fn resource(name: String) -> MeshResource {
        MeshResource::VirtualRouter(name)
    }
}

/// How an object names another.
#[derive(Clone, Copy)]
pub struct Named<'a> {
    /// By its name in Kubernetes.
    pub reference: Option<&'a Reference>,
    /// By its ARN.
    pub arn: Option<&'a str>,
}

impl<'a> Named<'a> {
    /// Notes that it is named in no way, in both, or by what is no ARN of its kind.
    pub fn check<K: Referenced>(self, path: &str, problems: &mut Problems) {
        let field = K::FIELD;
        match (self.reference, self.arn) {
            (Some(_), None) => {}
            (None, Some(arn)) => match arn.parse::<Arn>() {
                Ok(parsed) if Some(&parsed.resource) == resource::<K>(&parsed).as_ref() => {}
                Ok(parsed) => problems.invalid(format!("{path}.{field}ARN"), format!("{parsed} names no {field}")),
                Err(error) => problems.invalid(format!("{path}.{field}ARN"), error.to_string()),
            },
            _ => problems.invalid(path, format!("needs one of {field}Ref and {field}ARN")),
        }
    }

    /// The object; `None` if it does not exist.
    pub fn find<'s, K: Referenced>(self, own: &str, context: Context<'s>) -> Option<&'s Object<K>> {
        let objects = K::all(context.snapshot);
        if let Some(reference) = self.reference {
            let (namespace, name) = seen_from(own, reference);
            return objects.get(namespace, name).map(AsRef::as_ref);
        }
        let arn: Arn = self.arn?.parse().ok()?;
        let is_it = |object: &&Object<K>| {
            K::resource(object.aws_name()) == arn.resource
                && super::mesh_named(object, context.snapshot)
                    .is_some_and(|mesh| account::arn(context.account, mesh, arn.resource.clone()) == arn)
        };
        objects.iter().map(AsRef::as_ref).find(is_it)
    }

    /// The name that an upstream has whose VirtualNode does not exist.
    pub fn placeholder(self, own: &str) -> Option<String> {
        if let Some(reference) = self.reference {
            let (namespace, name) = seen_from(own, reference);
            return Some(format!("{name}_{namespace}"));
        }
        let arn: Arn = self.arn?.parse().ok()?;
        let MeshResource::VirtualNode(name) = arn.resource else { return None };
        Some(name)
    }

    /// Notes that the object does not exist.
    pub fn missing<K: Referenced>(self, reason: Reason, own: &str, path: &str, problems: &mut Problems) {
        let field = K::FIELD;
        if let Some(reference) = self.reference {
            let path = format!("{path}.{field}Ref");
            missing(reason, &field.to_lowercase(), seen_from(own, reference), path, problems);
        } else if let Some(arn) = self.arn {
            problems.add(reason, format!("{path}.{field}ARN"), format!("{arn} does not exist in this cluster"));
        }
    }
}

/// The resource of an ARN, if it is of that kind.
fn resource<K: Referenced>(arn: &Arn) -> Option<MeshResource> {
    let name = match &arn.resource {
        MeshResource::VirtualNode(name) | MeshResource::VirtualRouter(name) => name.clone(),
        _ => return None,
    };
    Some(K::resource(name))
}
