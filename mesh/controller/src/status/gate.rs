//! The readiness gate of pods: one is ready once others find it in Cloud Map. So a rollout goes on, and whoever waits for
//! it, only when its pods can be called.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::registrar::{Pods, Registration};

/// The condition that the pod waits for; Amazon's controller names it so.
pub const GATE: &str = "conditions.appmesh.k8s.aws/aws-cloudmap-healthy";

/// A strategic merge patch of the status that says whether the pod is registered; `None` if it says so already, or if
/// the pod does not wait for it.
pub fn patch(pod: &Pod, pods: &Pods) -> Option<Value> {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    let waits = gates.is_some_and(|gates| gates.iter().any(|gate| gate.condition_type == GATE));
    if !waits || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let had = conditions.and_then(|conditions| conditions.iter().find(|condition| condition.type_ == GATE));
    let (status, reason, message) = match pods.get(&(pod.namespace().unwrap_or_default(), pod.name_any())) {
        Some(Registration { there: Some(true), .. }) => ("True", "Registered", ""),
        // A controller that has just started, or that AWS does not answer, takes no pod out of service.
        Some(Registration { there: None, .. }) if had.is_some_and(|had| had.status == "True") => return None,
        Some(Registration { trouble: Some(trouble), .. }) => ("False", "NotRegistered", trouble.as_str()),
        // Nothing to say yet.
        _ if had.is_none() => return None,
        Some(_) => ("False", "NotRegistered", ""),
        None => ("False", "ContainersNotReady", ""),
    };
    if let Some(had) = had
        && (had.status.as_str(), had.reason.as_deref(), had.message.as_deref().unwrap_or_default())
            == (status, Some(reason), message)
    {
        return None;
    }
    let since = had.filter(|had| had.status == status).and_then(|had| had.last_transition_time.clone());
    let since = since.map_or_else(Timestamp::now, |since| since.0);
    let condition =
        json!({ "type": GATE, "status": status, "reason": reason, "message": message, "lastTransitionTime": since });
    Some(json!({ "status": { "conditions": [condition] } }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_value;

    const SINCE: &str = "2026-11-22T00:00:00Z";

    fn pod(gate: &str, had: Option<(&str, &str, &str)>) -> Pod {
        let had = had.map(|(status, reason, message)| {
            json!({ "type": GATE, "status": status, "reason": reason, "message": message, "lastTransitionTime": SINCE })
        });
        from_value(json!({
            "metadata": { "name": "red", "namespace": "k8multi" },
            "spec": { "containers": [], "readinessGates": [{ "conditionType": gate }] },
            "status": { "conditions": had.into_iter().collect::<Vec<_>>() }
        }))
        .unwrap()
    }

    fn pods(there: Option<bool>, trouble: Option<&str>) -> Pods {
        let registration = Registration { there, trouble: trouble.map(str::to_owned) };
        Pods::from([(("k8multi".to_owned(), "red".to_owned()), registration)])
    }

    #[test]
    fn the_condition_follows_the_registration() {
        let (yes, no, unknown) = (|| pods(Some(true), None), || pods(Some(false), None), || pods(None, None));
        let denied = |there| pods(there, Some("AccessDenied: not you"));
        let refused = ("False", "NotRegistered", "AccessDenied: not you");
        let registered = ("True", "Registered", "");
        for (case, had, pods, expected) in [
            ("not ready yet", None, Pods::new(), None),
            ("under way", None, no(), None),
            ("refused", None, denied(Some(false)), Some(refused)),
            ("refused still", Some(refused), denied(Some(false)), None),
            ("refused from the first", None, denied(None), Some(refused)),
            ("there", None, yes(), Some(registered)),
            ("there still", Some(registered), yes(), None),
            ("there, though others are refused", Some(registered), denied(Some(true)), None),
            ("in the end", Some(refused), yes(), Some(registered)),
            ("by a controller that has just started", Some(registered), unknown(), None),
            ("by one that has just started and is refused", Some(registered), denied(None), None),
            ("removed", Some(registered), no(), Some(("False", "NotRegistered", ""))),
            ("broken", Some(registered), Pods::new(), Some(("False", "ContainersNotReady", ""))),
        ] {
            let patch = patch(&pod(GATE, had), &pods);
            let told = patch.as_ref().map(|patch| {
                let condition = &patch["status"]["conditions"][0];
                let text = |field: &str| condition[field].as_str().unwrap();
                (text("status"), text("reason"), text("message"))
            });
            assert_eq!(told, expected, "{case}");
        }
    }

    #[test]
    fn a_new_reason_is_no_transition() {
        let had = Some(("False", "NotRegistered", "no"));
        let since = |of| patch(&pod(GATE, had), &of).unwrap()["status"]["conditions"][0]["lastTransitionTime"].clone();
        assert_eq!(since(pods(None, Some("still no"))), SINCE);
        assert_ne!(since(pods(Some(true), None)), SINCE);
    }

    #[test]
    fn only_pods_that_wait_are_told() {
        assert_eq!(patch(&pod("example.com/other", None), &pods(Some(true), None)), None);
        let mut leaving = pod(GATE, None);
        leaving.metadata.deletion_timestamp = from_value(json!(SINCE)).unwrap();
        assert_eq!(patch(&leaving, &pods(Some(true), None)), None);
    }
}
