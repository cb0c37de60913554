//! Computes the readiness gate of pods: one is ready once others find it in Cloud Map. So a rollout goes on, and whoever
//! waits for it, only when its pods can be called, and where it takes others away, when all callers have heard of them.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::{GATE, Pod};

/// Whether a pod whose containers are ready is registered in Cloud Map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// Whether callers find it; `None` as long as that is not known.
    pub registered: Option<bool>,
    /// Why not, if Cloud Map refuses it.
    pub error: Option<String>,
}

impl Registration {
    /// Whether a pod becomes ready by it.
    pub fn admits(&self, pod: &Pod) -> bool {
        self.registered == Some(true) && pod.gate.as_ref().is_none_or(|gate| !gate.ready)
    }
}

/// Whether a pod is ready, and is to stay as far as is known.
pub fn serves(pod: &Pod) -> bool {
    pod.containers_ready && pod.gate.as_ref().is_some_and(|gate| gate.ready) && !pod.is_leaving
}

/// A strategic merge patch of the pod's status that says whether it is registered; `None` if it says so already, or if
/// the pod does not wait for it. `registration` is `None` for a pod that is not to be registered, or not yet.
pub fn patch(pod: &Pod, registration: Option<&Registration>) -> Option<Value> {
    if !pod.gated || pod.is_leaving {
        return None;
    }
    let present = pod.gate.as_ref();
    let (ready, reason, message) = match registration {
        Some(Registration { registered: Some(true), .. }) => (true, "Registered", ""),
        // A controller that has just started, or that AWS does not answer, takes no pod out of service.
        Some(Registration { registered: None, .. }) if present.is_some_and(|present| present.ready) => return None,
        Some(Registration { error: Some(error), .. }) => (false, "NotRegistered", error.as_str()),
        // Nothing to say yet.
        _ if present.is_none() => return None,
        Some(_) => (false, "NotRegistered", ""),
        // No VirtualNode is there any more that would have it registered: whether it is found is nobody's question.
        None if pod.containers_ready => return None,
        None => (false, "ContainersNotReady", ""),
    };
    let same = present.filter(|present| present.ready == ready);
    if same.is_some_and(|present| {
        (present.reason.as_deref(), present.message.as_deref().unwrap_or_default()) == (Some(reason), message)
    }) {
        return None;
    }
    let since = same.and_then(|present| present.since.clone()).map_or_else(Timestamp::now, |since| since.0);
    let status = if ready { "True" } else { "False" };
    let condition =
        json!({ "type": GATE, "status": status, "reason": reason, "message": message, "lastTransitionTime": since });
    Some(json!({ "status": { "conditions": [condition] } }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_value;

    const SINCE: &str = "2026-11-22T00:00:00Z";

    fn pod(gate: &str, present: Option<(&str, &str, &str)>) -> Pod {
        let condition = present.map(|(status, reason, message)| {
            json!({ "type": GATE, "status": status, "reason": reason, "message": message, "lastTransitionTime": SINCE })
        });
        from_value(json!({
            "metadata": { "name": "red", "namespace": "k8multi" },
            "spec": { "containers": [], "readinessGates": [{ "conditionType": gate }] },
            "status": { "conditions": condition.into_iter().collect::<Vec<_>>() }
        }))
        .unwrap()
    }

    fn registration(registered: Option<bool>, error: Option<&str>) -> Option<Registration> {
        Some(Registration { registered, error: error.map(str::to_owned) })
    }

    #[test]
    fn the_condition_follows_the_registration() {
        let denied = |registered| registration(registered, Some("AccessDenied: not you"));
        let refused = ("False", "NotRegistered", "AccessDenied: not you");
        let registered = ("True", "Registered", "");
        for (case, present, registration, expected) in [
            ("not ready yet", None, None, None),
            ("under way", None, registration(Some(false), None), None),
            ("refused", None, denied(Some(false)), Some(refused)),
            ("refused still", Some(refused), denied(Some(false)), None),
            ("refused from the first", None, denied(None), Some(refused)),
            ("registered", None, registration(Some(true), None), Some(registered)),
            ("registered still", Some(registered), registration(Some(true), None), None),
            ("registered, though others are refused", Some(registered), denied(Some(true)), None),
            ("registered in the end", Some(refused), registration(Some(true), None), Some(registered)),
            ("by a controller that has just started", Some(registered), registration(None, None), None),
            ("by one that has just started and is refused", Some(registered), denied(None), None),
            ("removed", Some(registered), registration(Some(false), None), Some(("False", "NotRegistered", ""))),
            ("broken", Some(registered), None, Some(("False", "ContainersNotReady", ""))),
            ("of no VirtualNode any more", Some(registered), None, None),
        ] {
            let mut pod = pod(GATE, present);
            pod.containers_ready = case != "broken";
            let patch = patch(&pod, registration.as_ref());
            let written = patch.as_ref().map(|patch| {
                let condition = &patch["status"]["conditions"][0];
                let text = |field: &str| condition[field].as_str().unwrap();
                (text("status"), text("reason"), text("message"))
            });
            assert_eq!(written, expected, "{case}");
        }
    }

    #[test]
    fn a_new_reason_is_no_transition() {
        let pod = pod(GATE, Some(("False", "NotRegistered", "no")));
        let since = |registration: Option<Registration>| {
            let patch = patch(&pod, registration.as_ref()).unwrap();
            patch["status"]["conditions"][0]["lastTransitionTime"].clone()
        };
        assert_eq!(since(registration(None, Some("still no"))), SINCE);
        assert_ne!(since(registration(Some(true), None)), SINCE);
    }

    #[test]
    fn only_pods_that_wait_have_the_condition() {
        let registered = registration(Some(true), None);
        assert_eq!(patch(&pod("example.com/other", None), registered.as_ref()), None);
        let mut leaving = pod(GATE, None);
        leaving.is_leaving = true;
        assert_eq!(patch(&leaving, registered.as_ref()), None);
    }
}
