//! What lives in a namespace, or under a custom resource definition: what a deletion would take with it.

use super::object::{ObjectRef, refused};
use anyhow::{Context, Result};
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiResource, Scope, verbs};
use kube::{Client, Discovery, ResourceExt};

/// Every namespace gets these, or controllers make them on their own account and they go with what they are about.
const INCIDENTAL: [(&str, Option<&str>); 5] = [
    ("ServiceAccount", Some("default")),
    ("ConfigMap", Some("kube-root-ca.crt")),
    ("Event", None),
    ("Endpoints", None),
    ("Lease", None),
];

/// How many objects of a kind are named.
const NAMED: u32 = 5;

/// The objects in a namespace that nothing else owns, but for those that are `known` and incidental ones:
/// `Deployment front`, sorted.
///
/// # Errors
/// The API server's.
pub async fn of_namespace(client: &Client, namespace: &str, known: &[&ObjectRef]) -> Result<Vec<String>> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await.map_err(refused).context("list the kinds")?;
    let kinds = discovery.groups().flat_map(|group| group.recommended_resources());
    let mut found = Vec::new();
    for (kind, can) in kinds {
        if can.scope != Scope::Namespaced || !can.supports_operation(verbs::LIST) {
            continue;
        }
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind);
        // A kind that cannot be listed is one that somebody else answers for, such as metrics.
        let objects = api.list_metadata(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let objects = objects.into_iter().filter(|object| stands_alone(&kind.kind, object)).map(|o| o.name_any());
        let objects = objects.filter(|name| !known.iter().any(|known| known.kind == kind.kind && known.name == *name));
        found.extend(objects.map(|name| format!("{} {name}", kind.kind)));
    }
    found.sort();
    Ok(found)
}

/// Some objects of a kind, in all namespaces: `Mesh k8multi`.
///
/// # Errors
/// The API server's.
pub async fn of_kind(client: &Client, kind: &ApiResource) -> Result<Vec<String>> {
    let api = Api::<DynamicObject>::all_with(client.clone(), kind);
    let list = api.list_metadata(&ListParams::default().limit(NAMED)).await.map_err(refused);
    let list = list.with_context(|| format!("list {}", kind.plural))?;
    let place = |object: &PartialObjectMeta<DynamicObject>| match object.namespace() {
        Some(namespace) => format!("{} {namespace}/{}", kind.kind, object.name_any()),
        None => format!("{} {}", kind.kind, object.name_any()),
    };
    Ok(list.items.iter().map(place).collect())
}

fn stands_alone(kind: &str, object: &PartialObjectMeta<DynamicObject>) -> bool {
    let name = object.name_any();
    let usual = |(known, named): &(&str, Option<&str>)| *known == kind && named.is_none_or(|named| named == name);
    object.metadata.deletion_timestamp.is_none()
        && object.owner_references().is_empty()
        && !INCIDENTAL.iter().any(usual)
}
