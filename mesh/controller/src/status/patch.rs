//! Computes the patches by which status and finalizers are written; none where nothing would change.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::api::ObjectMeta;
use mesh_api::{Arn, Condition};
use serde_json::{Map, Value, json};

use super::condition::{PodCounts, Summary};

/// What a status is to say.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Type of the condition.
    pub condition_type: &'static str,
    /// The condition.
    pub summary: Summary,
    /// The other fields; they stay as they are where nothing more than the condition is known.
    pub fields: Option<Fields>,
}

/// The fields of a status besides its condition.
#[derive(Clone, Debug)]
pub struct Fields {
    /// Name of the ARN's field, and the ARN if it is known.
    pub arn: (Option<&'static str>, Option<Arn>),
    /// The ARNs of the routes of a VirtualRouter.
    pub routes: BTreeMap<String, Arn>,
    /// The pods of a VirtualNode that has a selector.
    pub pods: Option<PodCounts>,
}

/// A change of a status.
#[derive(Debug, PartialEq)]
pub struct StatusPatch {
    /// The merge patch.
    pub patch: Value,
    /// Whether the condition says something new.
    pub condition_changed: bool,
}

/// The change that makes a status say what it should, `None` if it does already.
pub fn status_patch(present: &Value, generation: Option<i64>, wanted: &Wanted) -> Option<StatusPatch> {
    let (condition, condition_changed) = condition(present, wanted);
    let mut patch = Map::from_iter([("conditions".to_owned(), json!([condition]))]);
    patch.extend(generation.map(|generation| ("observedGeneration".to_owned(), generation.into())));
    if let Some(fields) = &wanted.fields {
        fields.add_to(&mut patch, present);
    }
    let changed = patch.iter().any(|(field, value)| present.get(field) != Some(value));
    changed.then(|| StatusPatch { patch: json!({ "status": patch }), condition_changed })
}

impl Fields {
    /// Adds what differs to a merge patch, in which null removes what is no more.
    fn add_to(&self, patch: &mut Map<String, Value>, present: &Value) {
        // A name once given stays, even when the mesh is not to be seen for a moment.
        if let (Some(field), Some(arn)) = &self.arn {
            patch.insert((*field).to_owned(), arn.to_string().into());
        }
        match self.pods {
            Some(pods) => drop(patch.insert("pods".to_owned(), pods.to_string().into())),
            None if present.get("pods").is_some() => drop(patch.insert("pods".to_owned(), Value::Null)),
            None => {}
        }
        let routes: BTreeMap<_, _> = self.routes.iter().map(|(name, arn)| (name.clone(), arn.to_string())).collect();
        let known = routes_of(present);
        if routes != known {
            let gone = known.into_keys().filter(|name| !routes.contains_key(name)).map(|name| (name, None));
            let all: BTreeMap<_, _> = routes.iter().map(|(name, arn)| (name.clone(), Some(arn))).chain(gone).collect();
            patch.insert("routeARNs".to_owned(), json!(all));
        }
    }
}

/// The condition as it should be, and whether it says something new.
fn condition(present: &Value, wanted: &Wanted) -> (Condition, bool) {
    let (status, reason) = (wanted.summary.status(), wanted.summary.reason());
    let message = Some(wanted.summary.message.clone()).filter(|message| !message.is_empty());
    let conditions: Vec<Condition> = serde_json::from_value(present["conditions"].clone()).unwrap_or_default();
    let present = conditions.into_iter().find(|condition| condition.type_ == wanted.condition_type);
    // A look at the same state is no transition.
    let same = present.filter(|present| present.status == status);
    let news = same.as_ref().is_none_or(|same| same.reason.as_ref() != Some(&reason) || same.message != message);
    let since = same.and_then(|same| same.last_transition_time).unwrap_or_else(|| Time(Timestamp::now()));
    let condition = Condition {
        type_: wanted.condition_type.to_owned(),
        status: status.to_owned(),
        last_transition_time: Some(since),
        reason: Some(reason),
        message,
    };
    (condition, news)
}

fn routes_of(status: &Value) -> BTreeMap<String, String> {
    status.get("routeARNs").and_then(|routes| serde_json::from_value(routes.clone()).ok()).unwrap_or_default()
}

/// A merge patch that adds a finalizer, `None` if it is there.
pub fn added_finalizer(object: &ObjectMeta, finalizer: &str) -> Option<Value> {
    let mut finalizers = object.finalizers.clone().unwrap_or_default();
    if finalizers.iter().any(|present| present == finalizer) {
        return None;
    }
    finalizers.push(finalizer.to_owned());
    Some(finalizers_patch(object, &finalizers))
}

/// A merge patch that removes finalizers, `None` if there are none of them.
pub fn removed_finalizers(object: &ObjectMeta, finalizers: &[&str]) -> Option<Value> {
    let present = object.finalizers.as_deref().unwrap_or_default();
    let kept: Vec<_> = present.iter().filter(|present| !finalizers.contains(&present.as_str())).cloned().collect();
    (kept.len() < present.len()).then(|| finalizers_patch(object, &kept))
}

/// The API server refuses it if the object has changed meanwhile.
fn finalizers_patch(object: &ObjectMeta, finalizers: &[String]) -> Value {
    json!({ "metadata": { "resourceVersion": object.resource_version, "finalizers": finalizers } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Problem, Reason};

    const ARN: &str = "arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualRouter/r_ns";
    const ROUTE: &str = "arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualRouter/r_ns/route/a";
    const SINCE: &str = "2026-11-22T00:00:00Z";

    fn wanted(problem: Option<Reason>) -> Wanted {
        let problem = problem.map(|reason| Problem { reason, path: "spec".to_owned(), message: "message".to_owned() });
        Wanted {
            condition_type: "VirtualRouterActive",
            summary: Summary::of(&problem.into_iter().collect::<Vec<_>>()),
            fields: Some(Fields {
                arn: (Some("virtualRouterARN"), Some(ARN.parse().unwrap())),
                routes: [("a".to_owned(), ROUTE.parse().unwrap())].into(),
                pods: Some(PodCounts { ready: 1, total: 2 }),
            }),
        }
    }

    /// What the status holds once a patch is in.
    fn patched(mut status: Value, patch: &Value) -> Value {
        json_patch::merge(&mut status, &patch["status"]);
        status
    }

    fn status(reason: Option<Reason>) -> Value {
        let mut status = patched(json!({}), &status_patch(&json!({}), Some(2), &wanted(reason)).unwrap().patch);
        status["conditions"][0]["lastTransitionTime"] = SINCE.into();
        status
    }

    #[test]
    fn a_status_says_all() {
        let expected = json!({
            "conditions": [{
                "type": "VirtualRouterActive", "status": "False", "reason": "Unsupported", "message": "spec: message",
                "lastTransitionTime": SINCE
            }],
            "observedGeneration": 2, "pods": "1/2", "routeARNs": { "a": ROUTE }, "virtualRouterARN": ARN
        });
        assert_eq!(status(Some(Reason::Unsupported)), expected);
    }

    #[test]
    fn a_status_that_says_all_is_left_alone() {
        for reason in [None, Some(Reason::NoWeight), Some(Reason::NoPods)] {
            assert_eq!(status_patch(&status(reason), Some(2), &wanted(reason)), None, "{reason:?}");
        }
    }

    #[test]
    fn only_another_status_is_a_transition() {
        for (before, after, transition) in [
            (None, Some(Reason::NoWeight), true),
            (Some(Reason::NoWeight), None, true),
            (Some(Reason::NoWeight), Some(Reason::HostConflict), false),
            (Some(Reason::NoPods), None, false),
        ] {
            let change = status_patch(&status(before), Some(2), &wanted(after)).unwrap();
            let since = &change.patch["status"]["conditions"][0]["lastTransitionTime"];
            assert_eq!((since != SINCE, change.condition_changed), (transition, true), "{before:?} {after:?}");
        }
    }

    #[test]
    fn numbers_alone_are_no_news_of_the_condition() {
        let mut scaled = wanted(None);
        scaled.fields.as_mut().unwrap().pods = Some(PodCounts { ready: 2, total: 2 });
        for (generation, wanted) in [(3, &wanted(None)), (2, &scaled)] {
            let change = status_patch(&status(None), Some(generation), wanted).unwrap();
            assert!(!change.condition_changed, "{change:?}");
        }
    }

    #[test]
    fn what_is_no_more_is_removed() {
        let before = status(None);
        let mut wanted = wanted(None);
        let routes = [("b".to_owned(), ROUTE.parse().unwrap())].into();
        wanted.fields = Some(Fields { arn: (Some("virtualRouterARN"), None), routes, pods: None });
        let after = patched(before.clone(), &status_patch(&before, Some(2), &wanted).unwrap().patch);
        assert_eq!((&after["routeARNs"], after.get("pods")), (&json!({ "b": ROUTE }), None));
        assert_eq!(after["virtualRouterARN"], ARN, "a name once given stays");
    }

    #[test]
    fn only_the_condition_changes_where_nothing_else_is_known() {
        let before = status(None);
        let unknown = Wanted { fields: None, ..wanted(Some(Reason::Invalid)) };
        let mut after = patched(before.clone(), &status_patch(&before, Some(2), &unknown).unwrap().patch);
        assert_eq!(after["conditions"][0]["reason"], "Invalid");
        assert_eq!(status_patch(&after, Some(2), &unknown), None);
        after["conditions"] = before["conditions"].clone();
        assert_eq!(after, before);
    }

    #[test]
    fn finalizers_come_and_go() {
        let object = |finalizers: &[&str]| ObjectMeta {
            resource_version: Some("7".to_owned()),
            finalizers: Some(finalizers.iter().map(|&name| name.to_owned()).collect()),
            ..ObjectMeta::default()
        };
        let patch =
            |finalizers: &[&str]| Some(json!({ "metadata": { "resourceVersion": "7", "finalizers": finalizers } }));
        assert_eq!(added_finalizer(&object(&["theirs"]), "ours"), patch(&["theirs", "ours"]));
        assert_eq!(added_finalizer(&object(&["ours"]), "ours"), None);
        assert_eq!(removed_finalizers(&object(&["ours", "theirs", "other"]), &["ours", "other"]), patch(&["theirs"]));
        assert_eq!(removed_finalizers(&object(&["theirs"]), &["ours"]), None);
    }
}
