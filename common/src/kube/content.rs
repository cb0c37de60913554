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
/// `Deployment front`, sorted. Where the caller may not list a kind, that kind stands for what may be there: nobody can say
/// that there is nothing.
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
    let (mut found, mut hidden) = (Vec::new(), Vec::new());
    for (kind, can) in kinds {
        // What nobody can delete, such as metrics, goes with no namespace.
        let is_kept = [verbs::LIST, verbs::DELETE].iter().all(|verb| can.supports_operation(verb));
        if can.scope != Scope::Namespaced || !is_kept || INCIDENTAL.contains(&(kind.kind.as_str(), None)) {
            continue;
        }
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind);
        let list = api.list_metadata(&ListParams::default()).await;
        if matches!(&list, Err(kube::Error::Api(status)) if status.code == 403) {
            let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
            hidden.push(format!("{}{group}", kind.plural));
            continue;
        }
        let objects = listed(&kind, list).with_context(|| format!("look what namespace {namespace} holds"))?;
        let objects = objects.into_iter().filter(|object| stands_alone(&kind.kind, object)).map(|o| o.name_any());
        let reference = |name: &String| ObjectRef::new(&kind.api_version, &kind.kind, name).within(namespace);
        let objects = objects.filter(|name| !is_known(&reference(name)));
        found.extend(objects.map(|name| format!("{} {name}", kind.kind)));
    }
    found.sort();
    if !hidden.is_empty() {
        hidden.sort();
        found.push(format!("perhaps {}, which you may not list", hidden.join(", ")));
    }
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

/// The objects of a list; none of a kind that the cluster does not have, that is just going, or that has no list.
fn listed<K: Clone>(kind: &ApiResource, list: kube::Result<ObjectList<K>>) -> Result<Vec<K>> {
    match list {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => Ok(Vec::new()),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::{Kind, classify};
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use std::convert::Infallible;
    use std::future::ready;

    /// A client of a cluster with deployments, secrets, events and metrics, of which secrets are answered so.
    fn cluster(secrets: (u16, &'static str)) -> Client {
        let kind = |plural: &str, kind: &str, verbs: &[&str]| {
            let kind = json!({ "kind": kind });
            json!({"resource": plural, "scope": "Namespaced", "responseKind": kind, "verbs": verbs})
        };
        let group = |name: &str, resources: Value| {
            let versions = json!([{"version": "v1", "resources": resources}]);
            json!({"metadata": {"name": name}, "versions": versions})
        };
        let all = &["delete", "get", "list"];
        let core = group("", json!([kind("secrets", "Secret", all), kind("events", "Event", all)]));
        let apps = group("apps", json!([kind("deployments", "Deployment", all)]));
        let metrics = group("metrics.k8s.io", json!([kind("pods", "PodMetrics", &["get", "list"])]));
        let answer = move |path: &str| match path {
            "/api" => (200, json!({"items": [core]})),
            "/apis" => (200, json!({"items": [apps, metrics]})),
            "/apis/apps/v1/namespaces/web/deployments" => (200, json!({"items": [{"metadata": {"name": "front"}}]})),
            "/api/v1/namespaces/web/secrets" => {
                let (code, reason) = secrets;
                let items = json!([{"metadata": {"name": "key"}}]);
                (code, json!({"items": items, "metadata": {}, "code": code, "reason": reason, "message": "no"}))
            }
            path => (503, json!({"code": 503, "message": format!("{path} is down")})),
        };
        let service = tower::service_fn(move |request: Request<Body>| {
            let (code, body) = answer(request.uri().path());
            let answer = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            ready(Ok::<_, Infallible>(answer.unwrap()))
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn what_cannot_be_listed_is_not_taken_for_nothing() {
        let front = "Deployment front";
        let here = "look what namespace web holds: list secrets: no";
        for (code, reason, expected) in [
            (200, "", Ok(vec![front, "Secret key"])),
            (404, "NotFound", Ok(vec![front])),
            (405, "MethodNotAllowed", Ok(vec![front])),
            (403, "Forbidden", Ok(vec![front, "perhaps secrets, which you may not list"])),
            (500, "InternalError", Err((Kind::Retry, here))),
            (503, "ServiceUnavailable", Err((Kind::Retry, here))),
        ] {
            let found = of_namespace(&cluster((code, reason)), "web", |_| false).await;
            let found = found.map_err(|error| (classify(&error).0, format!("{error:#}")));
            let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            assert_eq!(found, expected.map_err(|(kind, text)| (kind, text.to_owned())), "{code}");
        }
        let known = of_namespace(&cluster((200, "")), "web", |object| object.kind == "Secret").await;
        assert_eq!(known.unwrap(), [front]);
    }
}
