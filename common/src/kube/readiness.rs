//! Decides whether an object works, by what its controller reports. Pure.
//!
//! A workload is ready when `kubectl rollout status` would say so, a Job when it is complete, a Pod when it is ready or has
//! succeeded. A volume claim is not waited for: one that waits for its first consumer binds with that. What has no state of
//! its own is ready as soon as it is there.

use crate::app_mesh;
use serde_json::Value;

const UNSEEN: &str = "not seen by its controller yet";

/// Whether an object works.
#[derive(Debug, Clone, PartialEq)]
pub enum Readiness {
    /// It does. Holds what is left undone, and waits for somebody to act.
    Ready(Option<String>),
    /// Not yet; why.
    Pending(String),
    /// It will not, unless somebody acts.
    Never {
        /// Why.
        reason: String,
        /// What to do.
        hint: String,
    },
}

impl Readiness {
    /// The state of an object as it is, or as a manifest that does not exist yet.
    pub fn of(object: &Value) -> Self {
        let group =
            object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
        let kind = object["kind"].as_str().unwrap_or_default();
        match (group, kind) {
            ("apps", "Deployment") => deployment(object),
            ("apps", "StatefulSet") => stateful_set(object),
            ("apps", "DaemonSet") => daemon_set(object),
            ("apps", "ReplicaSet") | ("", "ReplicationController") => replica_set(object),
            ("batch", "Job") => job(object),
            ("", "Pod") => pod(object),
            ("", "PersistentVolumeClaim") if object["status"]["phase"] == "Lost" => Self::Never {
                reason: "its volume is lost".to_owned(),
                hint: "delete it, then run this again: its data is gone with the volume".to_owned(),
            },
            ("", "Service") if object["spec"]["type"] == "LoadBalancer" && load_balancer(object).is_none() => {
                let class = object["spec"]["loadBalancerClass"].as_str().map(|class| format!(" of class {class}"));
                Self::Pending(format!("no load balancer{} yet", class.unwrap_or_default()))
            }
            ("apiextensions.k8s.io", "CustomResourceDefinition") => required(object, "Established"),
            ("apiregistration.k8s.io", "APIService") => required(object, "Available"),
            _ => match app_mesh::condition(group, kind) {
                // Only our controller counts generations.
                Some(_) if !object["status"]["observedGeneration"].is_null() && unseen(object) => Self::pending(UNSEEN),
                Some(condition) => required(object, &condition),
                None => Self::Ready(None),
            },
        }
    }

    fn pending(reason: &str) -> Self {
        Self::Pending(reason.to_owned())
    }
}

/// Why an object does not work. `None` when it does.
pub fn unready(object: &Value) -> Option<String> {
    match Readiness::of(object) {
        Readiness::Ready(_) => None,
        Readiness::Pending(reason) | Readiness::Never { reason, .. } => Some(reason),
    }
}

/// Whether a Deployment has made no progress for as long as its `progressDeadlineSeconds`. It may still: the condition
/// stays until it does.
pub fn overdue(object: &Value) -> bool {
    object["kind"] == "Deployment"
        && condition(object, "Progressing").is_some_and(|progress| progress["reason"] == "ProgressDeadlineExceeded")
}

/// Host name or address of a Service's load balancer.
pub fn load_balancer(service: &Value) -> Option<&str> {
    let ingress = service.pointer("/status/loadBalancer/ingress/0")?;
    ingress["hostname"].as_str().or_else(|| ingress["ip"].as_str()).filter(|host| !host.is_empty())
}

/// A condition of an object.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn deployment(object: &Value) -> Readiness {
    if unseen(object) {
        return Readiness::pending(UNSEEN);
    }
    let (wanted, updated, available) =
        (replicas(object), count(object, "updatedReplicas"), count(object, "availableReplicas"));
    let old = count(object, "replicas") - updated;
    let rollout = if updated < wanted {
        format!("{updated} of {wanted} replicas updated")
    } else if old > 0 {
        format!("{old} old replicas left")
    } else if available < wanted {
        format!("{available} of {wanted} replicas available")
    } else {
        return Readiness::Ready(None);
    };
    if object["spec"]["paused"] == true && (updated < wanted || old > 0) {
        let hint =
            "kubectl rollout resume, or spec.paused: false; --no-wait applies it and leaves it paused".to_owned();
        return Readiness::Never { reason: format!("its rollout is paused: {rollout}"), hint };
    }
    let late = if overdue(object) { ", and its progress deadline has passed" } else { "" };
    Readiness::Pending(format!("{rollout}{late}"))
}

fn stateful_set(object: &Value) -> Readiness {
    if unseen(object) {
        return Readiness::pending(UNSEEN);
    }
    let (wanted, updated) = (replicas(object), count(object, "updatedReplicas"));
    let strategy = &object["spec"]["updateStrategy"];
    let on_delete = strategy["type"] == "OnDelete";
    let partition = strategy["rollingUpdate"]["partition"].as_i64().unwrap_or(0);
    let due = if on_delete { 0 } else { wanted - partition };
    if updated < due {
        return Readiness::Pending(format!("{updated} of {due} replicas updated"));
    }
    match enough(count(object, "readyReplicas"), wanted, "replicas ready") {
        Readiness::Ready(_) if on_delete => Readiness::Ready(kept_until_deleted(wanted, updated)),
        Readiness::Ready(_) if updated < wanted => {
            let kept = wanted - updated;
            let note = format!("{kept} of {wanted} pods stay at the version before, as partition {partition} says");
            Readiness::Ready(Some(note))
        }
        other => other,
    }
}

fn daemon_set(object: &Value) -> Readiness {
    if unseen(object) {
        return Readiness::pending(UNSEEN);
    }
    let wanted = count(object, "desiredNumberScheduled");
    let updated = count(object, "updatedNumberScheduled");
    let on_delete = object["spec"]["updateStrategy"]["type"] == "OnDelete";
    if !on_delete && updated < wanted {
        return Readiness::Pending(format!("{updated} of {wanted} pods updated"));
    }
    match enough(count(object, "numberAvailable"), wanted, "pods available") {
        Readiness::Ready(_) if on_delete => Readiness::Ready(kept_until_deleted(wanted, updated)),
        other => other,
    }
}

fn replica_set(object: &Value) -> Readiness {
    if unseen(object) {
        return Readiness::pending(UNSEEN);
    }
    enough(count(object, "availableReplicas"), replicas(object), "replicas available")
}

fn job(object: &Value) -> Readiness {
    if is_true(object, "Complete") {
        return Readiness::Ready(None);
    }
    if let Some(failed) = condition(object, "Failed").filter(|failed| failed["status"] == "True") {
        let hint = "a Job runs once: delete it, then run this again".to_owned();
        return Readiness::Never { reason: format!("it failed: {}", reason_of(failed)), hint };
    }
    if object["spec"]["suspend"] == true {
        return Readiness::pending("it is suspended");
    }
    let wanted = object["spec"]["completions"].as_i64().or(object["spec"]["parallelism"].as_i64()).unwrap_or(1);
    Readiness::Pending(format!("{} of {wanted} completions", count(object, "succeeded")))
}

fn pod(object: &Value) -> Readiness {
    match object["status"]["phase"].as_str() {
        Some("Succeeded") => Readiness::Ready(None),
        Some("Failed") => Readiness::Never {
            reason: "it failed".to_owned(),
            hint: "a Pod is not started anew: delete it, then run this again".to_owned(),
        },
        _ if is_true(object, "Ready") => Readiness::Ready(None),
        _ => Readiness::pending("not ready yet"),
    }
}

/// Whether its controller has yet to look at its last change; a manifest has no generation.
fn unseen(object: &Value) -> bool {
    let observed = object["status"]["observedGeneration"].as_i64();
    match object["metadata"]["generation"].as_i64() {
        Some(generation) => observed.unwrap_or(0) < generation,
        None => observed.is_none() && object["status"].as_object().is_none_or(serde_json::Map::is_empty),
    }
}

fn replicas(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

fn count(object: &Value, field: &str) -> i64 {
    object["status"][field].as_i64().unwrap_or(0)
}

fn enough(have: i64, wanted: i64, what: &str) -> Readiness {
    if have < wanted { Readiness::Pending(format!("{have} of {wanted} {what}")) } else { Readiness::Ready(None) }
}

fn kept_until_deleted(wanted: i64, updated: i64) -> Option<String> {
    let kept = wanted - updated;
    let say =
        || format!("{kept} of {wanted} pods stay at the version before until somebody deletes them, as OnDelete says");
    (kept > 0).then(say)
}

fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == "True")
}

fn required(object: &Value, kind: &str) -> Readiness {
    match condition(object, kind) {
        None => Readiness::Pending(format!("no condition {kind} yet: does its controller run?")),
        Some(condition) if condition["status"] == "True" => Readiness::Ready(None),
        Some(condition) => {
            let status = condition["status"].as_str().unwrap_or("unknown");
            Readiness::Pending(format!("{kind} is {status}: {}", reason_of(condition)))
        }
    }
}

fn reason_of(condition: &Value) -> String {
    let words = ["reason", "message"].map(|field| condition[field].as_str().unwrap_or_default());
    words.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `ready`, `ready: NOTE`, `pending: WHY` or `never: WHY`.
    fn words(object: &Value) -> String {
        match Readiness::of(object) {
            Readiness::Ready(None) => "ready".to_owned(),
            Readiness::Ready(Some(note)) => format!("ready: {note}"),
            Readiness::Pending(reason) => format!("pending: {reason}"),
            Readiness::Never { reason, .. } => format!("never: {reason}"),
        }
    }

    fn check(kind: (&str, &str), cases: &[(Value, Value, &str)]) {
        for (spec, status, expected) in cases {
            let object = json!({"apiVersion": kind.0, "kind": kind.1, "metadata": {"generation": 2}, "spec": spec,
                "status": status});
            assert_eq!(words(&object), *expected, "{object}");
        }
    }

    #[test]
    fn a_deployment_is_ready_when_its_rollout_is() {
        let status = |observed: i64, replicas: i64, updated: i64, available: i64| {
            json!({"observedGeneration": observed, "replicas": replicas, "updatedReplicas": updated,
                "availableReplicas": available})
        };
        let mut late = status(2, 3, 1, 2);
        late["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
        let two = json!({"replicas": 2});
        let paused = |replicas: i64| json!({"replicas": replicas, "paused": true});
        check(
            ("apps/v1", "Deployment"),
            &[
                (two.clone(), json!({}), "pending: not seen by its controller yet"),
                (two.clone(), status(1, 2, 2, 2), "pending: not seen by its controller yet"),
                (two.clone(), status(2, 3, 1, 2), "pending: 1 of 2 replicas updated"),
                (two.clone(), late, "pending: 1 of 2 replicas updated, and its progress deadline has passed"),
                (two.clone(), status(2, 3, 2, 2), "pending: 1 old replicas left"),
                (two.clone(), status(2, 2, 2, 1), "pending: 1 of 2 replicas available"),
                (two, status(2, 2, 2, 2), "ready"),
                (json!({}), status(2, 1, 1, 1), "ready"),
                (json!({"replicas": 0}), json!({"observedGeneration": 2}), "ready"),
                (paused(2), status(1, 2, 2, 2), "pending: not seen by its controller yet"),
                (paused(2), status(2, 2, 0, 2), "never: its rollout is paused: 0 of 2 replicas updated"),
                (paused(2), status(2, 3, 2, 2), "never: its rollout is paused: 1 old replicas left"),
                (paused(2), status(2, 2, 2, 1), "pending: 1 of 2 replicas available"),
                (paused(2), status(2, 2, 2, 2), "ready"),
            ],
        );
    }

    #[test]
    fn a_stateful_set_is_ready_as_far_as_its_strategy_updates_it() {
        let status = |updated: i64, ready: i64| json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": updated, "readyReplicas": ready});
        let rolling = |partition: Value| json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}});
        let on_delete = json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}});
        check(
            ("apps/v1", "StatefulSet"),
            &[
                (json!({"replicas": 3}), json!({}), "pending: not seen by its controller yet"),
                (json!({"replicas": 3}), status(2, 3), "pending: 2 of 3 replicas updated"),
                (rolling(json!(0)), status(2, 3), "pending: 2 of 3 replicas updated"),
                (rolling(json!(0)), status(3, 2), "pending: 2 of 3 replicas ready"),
                (rolling(json!(0)), status(3, 3), "ready"),
                (rolling(json!(2)), status(0, 3), "pending: 0 of 1 replicas updated"),
                (rolling(json!(2)), status(1, 2), "pending: 2 of 3 replicas ready"),
                (rolling(json!(2)), status(1, 3), "ready: 2 of 3 pods stay at the version before, as partition 2 says"),
                (rolling(json!(5)), status(0, 3), "ready: 3 of 3 pods stay at the version before, as partition 5 says"),
                (on_delete.clone(), status(0, 2), "pending: 2 of 3 replicas ready"),
                (
                    on_delete.clone(),
                    status(1, 3),
                    "ready: 2 of 3 pods stay at the version before until somebody deletes them, as OnDelete says",
                ),
                (on_delete, status(3, 3), "ready"),
            ],
        );
    }

    #[test]
    fn a_daemon_set_is_ready_as_far_as_its_strategy_updates_it() {
        let status = |updated: i64, available: i64| {
            json!({"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": updated,
                "numberAvailable": available})
        };
        let rolling = json!({"updateStrategy": {"type": "RollingUpdate"}});
        let on_delete = json!({"updateStrategy": {"type": "OnDelete"}});
        check(
            ("apps/v1", "DaemonSet"),
            &[
                (rolling.clone(), json!({}), "pending: not seen by its controller yet"),
                (rolling.clone(), status(2, 3), "pending: 2 of 3 pods updated"),
                (rolling.clone(), status(3, 2), "pending: 2 of 3 pods available"),
                (rolling.clone(), status(3, 3), "ready"),
                (rolling, json!({"observedGeneration": 2}), "ready"),
                (on_delete.clone(), status(0, 2), "pending: 2 of 3 pods available"),
                (
                    on_delete,
                    status(2, 3),
                    "ready: 1 of 3 pods stay at the version before until somebody deletes them, as OnDelete says",
                ),
            ],
        );
    }

    #[test]
    fn a_manifest_of_a_workload_is_not_ready() {
        for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"] {
            let manifest = json!({"apiVersion": "apps/v1", "kind": kind, "spec": {"replicas": 0}});
            assert_eq!(words(&manifest), "pending: not seen by its controller yet");
        }
    }

    #[test]
    fn what_runs_once_is_ready_when_it_is_done() {
        let ended =
            |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "m"}]});
        check(
            ("batch/v1", "Job"),
            &[
                (json!({}), json!({}), "pending: 0 of 1 completions"),
                (json!({"completions": 3, "parallelism": 2}), json!({"succeeded": 1}), "pending: 1 of 3 completions"),
                (json!({}), ended("Complete"), "ready"),
                (json!({}), ended("Failed"), "never: it failed: R: m"),
                (json!({"suspend": true}), json!({}), "pending: it is suspended"),
                (json!({"suspend": true}), ended("Complete"), "ready"),
            ],
        );
        let ready = |status: &str| json!({"phase": "Running", "conditions": [{"type": "Ready", "status": status}]});
        check(
            ("v1", "Pod"),
            &[
                (json!({}), json!({"phase": "Pending"}), "pending: not ready yet"),
                (json!({}), ready("False"), "pending: not ready yet"),
                (json!({}), ready("True"), "ready"),
                (json!({}), json!({"phase": "Succeeded"}), "ready"),
                (json!({}), json!({"phase": "Failed"}), "never: it failed"),
            ],
        );
    }

    #[test]
    fn other_kinds_are_ready_when_their_controllers_say_so() {
        let balanced = json!({"loadBalancer": {"ingress": [{"hostname": "lb"}]}});
        let conditions = |status: &str| json!({"conditions": [{"type": "MeshActive", "status": status, "reason": "Error", "message": "no"}]});
        let mut stale = conditions("True");
        stale["observedGeneration"] = 1.into();
        let cases = [
            ("v1", "Service", json!({"type": "LoadBalancer"}), balanced, "ready"),
            (
                "v1",
                "Service",
                json!({"type": "LoadBalancer"}),
                json!({"loadBalancer": {}}),
                "pending: no load balancer yet",
            ),
            (
                "v1",
                "Service",
                json!({"type": "LoadBalancer", "loadBalancerClass": "x/y"}),
                json!({}),
                "pending: no load balancer of class x/y yet",
            ),
            ("v1", "Service", json!({"type": "ClusterIP"}), json!({}), "ready"),
            (
                "appmesh.k8s.aws/v1beta2",
                "Mesh",
                json!({}),
                json!({}),
                "pending: no condition MeshActive yet: does its controller run?",
            ),
            (
                "appmesh.k8s.aws/v1beta2",
                "Mesh",
                json!({}),
                conditions("False"),
                "pending: MeshActive is False: Error: no",
            ),
            ("appmesh.k8s.aws/v1beta2", "Mesh", json!({}), stale, "pending: not seen by its controller yet"),
            ("appmesh.k8s.aws/v1beta2", "Mesh", json!({}), conditions("True"), "ready"),
            (
                "apps/v1",
                "ReplicaSet",
                json!({"replicas": 2}),
                json!({"observedGeneration": 2}),
                "pending: 0 of 2 replicas available",
            ),
            ("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Pending"}), "ready"),
            ("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Lost"}), "never: its volume is lost"),
            ("v1", "ConfigMap", json!({}), json!({}), "ready"),
            ("example.com/v1", "Deployment", json!({"replicas": 2}), json!({}), "ready"),
        ];
        for (version, kind, spec, status, expected) in cases {
            check((version, kind), &[(spec, status, expected)]);
        }
    }
}
