//! The readiness gate of pods: one is ready once others find it in Cloud Map. So a rollout goes on, and whoever waits for
//! it, only when its pods can be called.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::registrar::Pods;

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
        Some(Ok(())) => ("True", "Registered", ""),
        Some(Err(Some(trouble))) => ("False", "NotRegistered", trouble.as_str()),
        // Nothing to say yet.
        Some(Err(None)) | None if had.is_none() => return None,
        Some(Err(None)) => ("False", "NotRegistered", ""),
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

    fn pods(of: Result<(), Option<&str>>) -> Pods {
        Pods::from([(("k8multi".to_owned(), "red".to_owned()), of.map_err(|trouble| trouble.map(str::to_owned)))])
    }

    #[test]
    fn the_condition_follows_the_registration() {
        let denied = || pods(Err(Some("AccessDenied: not you")));
        for (case, had, pods, expected) in [
            ("not ready yet", None, Pods::new(), None),
            ("under way", None, pods(Err(None)), None),
            ("refused", None, denied(), Some(("False", "NotRegistered", "AccessDenied: not you"))),
            ("refused still", Some(("False", "NotRegistered", "AccessDenied: not you")), denied(), None),
            ("there", None, pods(Ok(())), Some(("True", "Registered", ""))),
            ("there still", Some(("True", "Registered", "")), pods(Ok(())), None),
            ("in the end", Some(("False", "NotRegistered", "no")), pods(Ok(())), Some(("True", "Registered", ""))),
            ("removed", Some(("True", "Registered", "")), pods(Err(None)), Some(("False", "NotRegistered", ""))),
            ("broken", Some(("True", "Registered", "")), Pods::new(), Some(("False", "ContainersNotReady", ""))),
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
        assert_eq!(since(pods(Err(Some("still no")))), SINCE);
        assert_ne!(since(pods(Ok(()))), SINCE);
    }

    #[test]
    fn only_pods_that_wait_are_told() {
        assert_eq!(patch(&pod("example.com/other", None), &pods(Ok(()))), None);
        let mut leaving = pod(GATE, None);
        leaving.metadata.deletion_timestamp = from_value(json!(SINCE)).unwrap();
        assert_eq!(patch(&leaving, &pods(Ok(()))), None);
    }
}
