//! Lists what lives in a namespace or under a custom resource definition: what a deletion would take with it or has to wait
//! for.

use super::object::{ObjectRef, refused};
use anyhow::{Context, Result};
use kube::api::{Api, DynamicObject, GroupVersionKind, ListParams, ObjectList};
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiResource, Scope, verbs};
use kube::{Client, Discovery, ResourceExt};
use serde_json::Value;

/// Every namespace gets these, or controllers make them on their own account and they go with what they are about.
const INCIDENTAL: [(&str, Option<&str>); 5] = [
    ("ServiceAccount", Some("default")),
    ("ConfigMap", Some("kube-root-ca.crt")),
    ("Event", None),
    ("Endpoints", None),
    ("Lease", None),
];

/// How many objects of a kind are named.
pub const NAMED: usize = 5;

/// The objects in a namespace that nothing else owns, but for those that `is_known` knows and incidental ones:
/// `Deployment front`, sorted.
///
/// # Errors
/// The API server's.
pub async fn of_namespace(
    client: &Client,
    namespace: &str,
    is_known: impl Fn(&ObjectRef) -> bool,
) -> Result<Vec<String>> {
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
        let reference = |name: &String| ObjectRef::new(&kind.api_version, &kind.kind, name).within(namespace);
        let objects = objects.filter(|name| !is_known(&reference(name)));
        found.extend(objects.map(|name| format!("{} {name}", kind.kind)));
    }
    found.sort();
    Ok(found)
}

/// Some objects of a custom resource definition, in all namespaces, but for those that `is_known` knows: `Mesh k8multi`.
///
/// # Errors
/// The API server's.
pub async fn of_definition(
    client: &Client,
    definition: &Value,
    is_known: impl Fn(&ObjectRef) -> bool,
) -> Result<Vec<String>> {
    let (spec, text) = (&definition["spec"], |value: &Value| value.as_str().unwrap_or_default().to_owned());
    let mut versions = spec["versions"].as_array().into_iter().flatten();
    let Some(served) = versions.find(|version| version["served"] == true) else { return Ok(Vec::new()) };
    let gvk = GroupVersionKind::gvk(&text(&spec["group"]), &text(&served["name"]), &text(&spec["names"]["kind"]));
    let kind = ApiResource::from_gvk_with_plural(&gvk, &text(&spec["names"]["plural"]));
    let list = Api::<DynamicObject>::all_with(client.clone(), &kind).list_metadata(&ListParams::default()).await;
    Ok(some(&kind, listed(&kind, list)?.iter(), is_known))
}

/// Some objects of a kind, if the cluster has it: those that `belong` by their content, but for those that `is_known` knows.
/// The kind is its group, version, name and plural.
///
/// # Errors
/// The API server's.
pub async fn of_kind(
    client: &Client,
    (group, version, kind, plural): (&str, &str, &str, &str),
    belong: impl Fn(&Value) -> bool,
    is_known: impl Fn(&ObjectRef) -> bool,
) -> Result<Vec<String>> {
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let list = Api::<DynamicObject>::all_with(client.clone(), &kind).list(&ListParams::default()).await;
    let stay = |object: &&DynamicObject| object.metadata.deletion_timestamp.is_none() && belong(&object.data);
    Ok(some(&kind, listed(&kind, list)?.iter().filter(stay), is_known))
}

/// The objects of a list; none of a kind that the cluster does not have, or that is just going.
fn listed<K: Clone>(kind: &ApiResource, list: kube::Result<ObjectList<K>>) -> Result<Vec<K>> {
    match list {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        list => Ok(list.map_err(refused).with_context(|| format!("list {}", kind.plural))?.items),
    }
}

/// The first few objects that are not known, by name.
fn some<'a, K: ResourceExt + 'a>(
    kind: &ApiResource,
    objects: impl Iterator<Item = &'a K>,
    is_known: impl Fn(&ObjectRef) -> bool,
) -> Vec<String> {
    let reference = |object: &K| {
        let plain = ObjectRef::new(&kind.api_version, &kind.kind, &object.name_any());
        object.namespace().map_or(plain.clone(), |namespace| plain.within(&namespace))
    };
    let unknown = objects.map(reference).filter(|object| !is_known(object));
    unknown.take(NAMED).map(|object| object.to_string()).collect()
}

fn stands_alone(kind: &str, object: &PartialObjectMeta<DynamicObject>) -> bool {
    let name = object.name_any();
    let usual = |(known, named): &(&str, Option<&str>)| *known == kind && named.is_none_or(|named| named == name);
    object.metadata.deletion_timestamp.is_none()
        && object.owner_references().is_empty()
        && !INCIDENTAL.iter().any(usual)
}
