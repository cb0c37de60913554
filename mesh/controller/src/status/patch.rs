//! The patches by which status and finalizers are written; none where nothing would change.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::Resource;
use mesh_api::{Arn, Condition, MeshObject};
use serde::Serialize;
use serde_json::{Value, json};

use super::verdict::Verdict;
use crate::store::Unreadable;

/// A merge patch of the status, `None` if it already says all that.
pub fn status_patch<K: MeshObject + Serialize>(
    object: &K,
    arn: Option<Arn>,
    verdict: &Verdict,
    routes: BTreeMap<String, String>,
) -> Option<Value> {
    let had = object.conditions().iter().find(|condition| condition.type_ == K::ACTIVE);
    let status = if verdict.active { "True" } else { "False" };
    // A look at the same state is no transition.
    let since = had.filter(|had| had.status == status).and_then(|had| had.last_transition_time.clone());
    let condition = Condition {
        type_: K::ACTIVE.to_owned(),
        status: status.to_owned(),
        last_transition_time: Some(since.unwrap_or_else(|| Time(Timestamp::now()))),
        reason: Some(verdict.reason.to_owned()),
        message: Some(verdict.message.clone()).filter(|message| !message.is_empty()),
    };
    let mut wanted = json!({
        "conditions": [condition],
        "observedGeneration": object.meta().generation
    });
    // A name once given stays, even when the mesh is not to be seen for a moment.
    if let Some(arn) = arn {
        wanted[K::ARN_FIELD] = arn.to_string().into();
    }
    let present = json!(object)["status"].clone();
    let differs = |(field, value): (&String, &Value)| present.get(field) != Some(value);
    let mut changed = wanted.as_object().is_some_and(|wanted| wanted.iter().any(differs));
    if routes != routes_of(&present) {
        changed = true;
        // In a merge patch, null removes the ARN of a route that is no more.
        let gone = routes_of(&present).into_keys().filter(|name| !routes.contains_key(name)).map(|name| (name, None));
        let routes: BTreeMap<_, _> =
            routes.iter().map(|(name, arn)| (name.clone(), Some(arn.clone()))).chain(gone).collect();
        wanted["routeARNs"] = json!(routes);
    }
    changed.then(|| json!({ "status": wanted }))
}

/// Reason of the condition of an object that does not parse.
pub const INVALID: &str = "Invalid";

/// A merge patch of the status of an object that does not parse, `None` if it says so already.
pub fn unreadable_patch(object: &Unreadable) -> Option<Value> {
    let had: Vec<Condition> = serde_json::from_value(object.status["conditions"].clone()).unwrap_or_default();
    let had = had.into_iter().find(|condition| condition.type_ == object.condition_type);
    let message = Some(format!("this controller cannot parse the object: {}", object.error));
    let same = |had: &&Condition| had.status == "False" && had.reason.as_deref() == Some(INVALID);
    let had = had.as_ref().filter(same);
    if had.is_some_and(|had| had.message == message) {
        return None;
    }
    let since = had.and_then(|had| had.last_transition_time.clone()).unwrap_or_else(|| Time(Timestamp::now()));
    let condition = Condition {
        type_: object.condition_type.to_owned(),
        status: "False".to_owned(),
        last_transition_time: Some(since),
        reason: Some(INVALID.to_owned()),
        message,
    };
    let generation = object.metadata.generation;
    Some(json!({ "status": { "conditions": [condition], "observedGeneration": generation } }))
}

fn routes_of(status: &Value) -> BTreeMap<String, String> {
    status.get("routeARNs").and_then(|routes| serde_json::from_value(routes.clone()).ok()).unwrap_or_default()
}

/// A merge patch of the finalizers, refused by the API server if the object has changed meanwhile.
pub fn finalizers_patch(object: &impl Resource, finalizers: Vec<String>) -> Value {
    json!({ "metadata": { "resourceVersion": object.meta().resource_version, "finalizers": finalizers } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::VirtualRouter;
    use serde_json::from_value;

    const ARN: &str = "arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualRouter/r_ns";

    fn verdict(active: bool) -> Verdict {
        Verdict { active, reason: "Reason", message: "message".to_owned() }
    }

    fn router(status: Value) -> VirtualRouter {
        from_value(json!({
            "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "VirtualRouter",
            "metadata": { "name": "r", "namespace": "ns", "generation": 2 }, "spec": {}, "status": status
        }))
        .unwrap()
    }

    fn status(active: &str, routes: Value) -> Value {
        json!({
            "conditions": [{
                "type": "VirtualRouterActive", "status": active, "reason": "Reason", "message": "message",
                "lastTransitionTime": "2026-11-22T00:00:00Z"
            }],
            "observedGeneration": 2,
            "routeARNs": routes,
            "virtualRouterARN": ARN
        })
    }

    fn patch(before: Value, active: bool) -> Option<Value> {
        let routes = BTreeMap::from([("a".to_owned(), "arn-a".to_owned())]);
        status_patch(&router(before), ARN.parse().ok(), &verdict(active), routes)
    }

    #[test]
    fn a_status_that_says_all_is_left_alone() {
        assert_eq!(patch(status("True", json!({ "a": "arn-a" })), true), None);
    }

    #[test]
    fn a_transition_has_its_time() {
        let before = status("False", json!({ "a": "arn-a" }));
        let condition = |patch: Value| patch["status"]["conditions"][0].clone();
        let turned = condition(patch(before.clone(), true).unwrap());
        assert_eq!(turned["status"], "True");
        assert_ne!(turned["lastTransitionTime"], "2026-11-22T00:00:00Z");
        let same = condition(patch(status("False", json!({})), false).unwrap());
        assert_eq!(same["lastTransitionTime"], "2026-11-22T00:00:00Z");
    }

    #[test]
    fn an_object_that_does_not_parse_says_so_once() {
        let mut object = Unreadable {
            resource: kube::api::ApiResource::erase::<VirtualRouter>(&()),
            condition_type: "VirtualRouterActive",
            metadata: kube::api::ObjectMeta { generation: Some(3), ..Default::default() },
            status: json!({ "conditions": [{ "type": "VirtualRouterActive", "status": "True" }] }),
            error: "spec.routes: invalid type".to_owned(),
        };
        let patch = unreadable_patch(&object).unwrap();
        let condition = &patch["status"]["conditions"][0];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("Invalid")));
        assert_eq!(condition["message"], "this controller cannot parse the object: spec.routes: invalid type");
        assert_eq!(patch["status"]["observedGeneration"], 3);
        object.status = patch["status"].clone();
        assert_eq!(unreadable_patch(&object), None);
        object.error = "spec.listeners: invalid type".to_owned();
        let since = |patch: &Value| patch["status"]["conditions"][0]["lastTransitionTime"].clone();
        assert_eq!(since(&unreadable_patch(&object).unwrap()), since(&patch), "another reason is no transition");
    }

    #[test]
    fn routes_come_and_go() {
        let patch = patch(status("True", json!({ "b": "arn-b" })), true).unwrap();
        assert_eq!(patch["status"]["routeARNs"], json!({ "a": "arn-a", "b": null }));
    }
}
