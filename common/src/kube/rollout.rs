//! Whether an object works, and if not, what is stuck and why.

use super::object::{ObjectRef, Objects};
use crate::{Found, Session};
use anyhow::Result;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ListParams, LogParams};
use kube::core::Selector;
use kube::{Client, ResourceExt};
use serde_json::Value;

/// The group of the App Mesh kinds, whose condition is `<Kind>Active`.
pub const APP_MESH: &str = "appmesh.k8s.aws";

/// Kinds that run pods.
const WORKLOADS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

/// How many of a container's last lines are quoted.
const LOG_LINES: i64 = 5;

impl Objects {
    /// Waits until the object works. On a timeout it says what is stuck: the pod, its container and the last lines of
    /// its log, the scheduler's or the registry's answer, the condition's message.
    ///
    /// # Errors
    /// It does not work in time, or the API server's.
    pub async fn wait_ready(&self, session: &Session, object: &ObjectRef) -> Result<()> {
        let look = async || {
            let Some(live) = self.get(object).await? else {
                return Ok(Found::NotYet("it does not exist".to_owned()));
            };
            let Some(reason) = unready(&live) else { return Ok(Found::Ready(())) };
            let stuck = stuck(&self.client(), &live).await;
            Ok(Found::NotYet(stuck.map_or(reason.clone(), |stuck| format!("{reason}: {stuck}"))))
        };
        self.watch(session, object, object, look).await
    }
}

/// Why an object does not work yet. `None` when it does, as every object does that has no state of its own.
pub fn unready(object: &Value) -> Option<String> {
    let group =
        object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
    let kind = object["kind"].as_str().unwrap_or_default();
    let number = |pointer| object.pointer(pointer).and_then(Value::as_i64);
    let behind = number("/status/observedGeneration") < number("/metadata/generation");
    match (group, kind) {
        ("apps", "Deployment" | "StatefulSet") => {
            let wanted = number("/spec/replicas").unwrap_or(1);
            let count = |field: &str| object["status"][field].as_i64().unwrap_or(0);
            if behind {
                return Some("not seen by its controller yet".to_owned());
            }
            if count("updatedReplicas") < wanted && object["spec"]["updateStrategy"]["type"] != "OnDelete" {
                return Some(format!("{} of {wanted} replicas updated", count("updatedReplicas")));
            }
            if count("availableReplicas") < wanted {
                return Some(format!("{} of {wanted} replicas available", count("availableReplicas")));
            }
            // Those of the version before, on their way out.
            let old = count("replicas") - wanted;
            (old > 0).then(|| format!("{old} old replicas left"))
        }
        ("apps", "DaemonSet") => {
            let wanted = number("/status/desiredNumberScheduled").unwrap_or(0);
            let count = |field: &str| object["status"][field].as_i64().unwrap_or(0);
            let done = count("updatedNumberScheduled").min(count("numberAvailable"));
            (behind || done < wanted).then(|| format!("{done} of {wanted} pods available"))
        }
        ("", "Service") if object["spec"]["type"] == "LoadBalancer" => {
            let class = object["spec"]["loadBalancerClass"].as_str().map(|class| format!(" of class {class}"));
            load_balancer(object).is_none().then(|| format!("no load balancer{} yet", class.unwrap_or_default()))
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => untrue(object, "Established"),
        (APP_MESH, "Mesh" | "VirtualNode" | "VirtualService" | "VirtualRouter" | "VirtualGateway" | "GatewayRoute") => {
            let stale = number("/status/observedGeneration").is_some() && behind;
            let stale = stale.then(|| "not seen by its controller yet".to_owned());
            stale.or_else(|| untrue(object, &format!("{kind}Active")))
        }
        _ => None,
    }
}

/// Host name or address of a Service's load balancer.
pub fn load_balancer(service: &Value) -> Option<&str> {
    let ingress = service.pointer("/status/loadBalancer/ingress/0")?;
    ingress["hostname"].as_str().or_else(|| ingress["ip"].as_str()).filter(|host| !host.is_empty())
}

/// What keeps an object from working, as far as the cluster tells. Answers that fail are no reason: whoever may not
/// read pods still hears that the Deployment is not ready.
pub async fn stuck(client: &Client, object: &Value) -> Option<String> {
    let kind = object["kind"].as_str()?;
    if !WORKLOADS.contains(&kind) {
        return warning(client, object).await;
    }
    let namespace = object["metadata"]["namespace"].as_str()?;
    let pods = pods(client, namespace, object).await?;
    let waiting = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && !is_ready(pod));
    // The newest: older ones may belong to the version before.
    let Some(pod) = waiting.max_by_key(|pod| pod.metadata.creation_timestamp.clone()) else {
        return match refusal(object) {
            Some(refusal) => Some(refusal),
            None => warning(client, object).await,
        };
    };
    let name = pod.name_any();
    let Some(trouble) = trouble(pod) else {
        let warning = warning(client, &serde_json::to_value(pod).ok()?).await;
        return Some(format!("pod {name}: {}", warning.unwrap_or_else(|| "starting".to_owned())));
    };
    let mut reason = format!("pod {name}: {}", trouble.reason);
    if trouble.ask_events
        && let Some(warning) = warning(client, &serde_json::to_value(pod).ok()?).await
    {
        reason.push_str(&format!(": {warning}"));
    }
    if let Some((container, previous)) = trouble.log
        && let Some(lines) = last_lines(client, namespace, &name, &container, previous).await
    {
        reason.push_str(&format!("\nits log ends: {lines}"));
    }
    Some(reason)
}

/// The newest warning about an object.
pub(super) async fn warning(client: &Client, object: &Value) -> Option<String> {
    let uid = object["metadata"]["uid"].as_str()?;
    let events: Api<Event> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid},type=Warning"));
    let events = events.list(&params).await.ok()?.items;
    let newest = events.into_iter().max_by_key(|event| {
        let at = event.last_timestamp.as_ref().map(|time| time.0);
        at.or(event.event_time.as_ref().map(|time| time.0)).or(event.metadata.creation_timestamp.as_ref().map(|t| t.0))
    })?;
    let message = newest.message?;
    Some(newest.reason.map_or(message.clone(), |reason| format!("{reason}: {message}")))
}

async fn pods(client: &Client, namespace: &str, workload: &Value) -> Option<Vec<Pod>> {
    let selector: LabelSelector = serde_json::from_value(workload["spec"]["selector"].clone()).ok()?;
    let params = ListParams::default().labels_from(&Selector::try_from(selector).ok()?);
    Some(Api::<Pod>::namespaced(client.clone(), namespace).list(&params).await.ok()?.items)
}

async fn last_lines(client: &Client, namespace: &str, pod: &str, container: &str, previous: bool) -> Option<String> {
    let params = LogParams {
        container: Some(container.to_owned()),
        previous,
        tail_lines: Some(LOG_LINES),
        ..LogParams::default()
    };
    let log = Api::<Pod>::namespaced(client.clone(), namespace).logs(pod, &params).await.ok()?;
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    (!lines.is_empty()).then(|| lines.join(" | "))
}

/// What is wrong with a pod.
#[derive(Debug, Default, PartialEq)]
struct Trouble {
    reason: String,
    /// The events know more.
    ask_events: bool,
    /// The container whose log knows more, and whether it is the one of its run before.
    log: Option<(String, bool)>,
}

/// What its status says is wrong with a pod that is not ready. `None` when it just starts, or only events can tell.
fn trouble(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let say = |reason: String| Some(Trouble { reason, ..Trouble::default() });
    let condition = |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    if let Some(scheduled) = condition("PodScheduled").filter(|condition| condition.status == "False") {
        return say(format!("not scheduled: {}", scheduled.message.as_deref().unwrap_or("no reason given")));
    }
    let containers = || status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    if let Some(trouble) = containers().find_map(broken) {
        return Some(trouble);
    }
    if status.phase.as_deref() == Some("Failed") {
        let reason = [&status.reason, &status.message].into_iter().flatten().cloned().collect::<Vec<_>>().join(": ");
        return say(format!("failed: {reason}"));
    }
    let runs = |status: &&ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
    if let Some(unready) = containers().filter(runs).find(|status| !status.ready || status.started == Some(false)) {
        return Some(Trouble {
            reason: format!("container {} runs but is not ready", unready.name),
            ask_events: true,
            log: Some((unready.name.clone(), false)),
        });
    }
    condition("ContainersReady").filter(|ready| ready.status == "True")?;
    let mut gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let gate =
        &gates.find(|gate| condition(&gate.condition_type).is_none_or(|met| met.status != "True"))?.condition_type;
    let message = condition(gate).and_then(|met| met.message.as_deref()).filter(|message| !message.is_empty());
    say(format!("readiness gate {gate}: {}", message.unwrap_or("not met yet")))
}

/// What keeps a container from running.
fn broken(status: &ContainerStatus) -> Option<Trouble> {
    let (name, state) = (&status.name, status.state.as_ref()?);
    // The start that is waited for, or that just ended, is not among the restarts.
    let crashed = format!("container {name} crashed {} times", status.restart_count + 1);
    if let Some(ended) = state.terminated.as_ref().filter(|ended| ended.exit_code != 0) {
        let what = if status.restart_count == 0 { format!("container {name} ended") } else { crashed };
        let reason = format!("{what}, {}", exit(ended));
        return Some(Trouble { reason, log: Some((name.clone(), false)), ..Trouble::default() });
    }
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    match (reason, status.last_state.as_ref().and_then(|last| last.terminated.as_ref())) {
        ("ContainerCreating" | "PodInitializing", _) => None,
        ("CrashLoopBackOff", Some(last)) => {
            let reason = format!("{crashed} ({reason}), {}", exit(last));
            Some(Trouble { reason, log: Some((name.clone(), true)), ..Trouble::default() })
        }
        _ => {
            let message = waiting.message.as_deref().unwrap_or("no message");
            Some(Trouble { reason: format!("container {name}: {reason}: {message}"), ..Trouble::default() })
        }
    }
}

/// How a container ended: its exit code and what else is known. `Error` says no more than the code.
fn exit(ended: &ContainerStateTerminated) -> String {
    let reason = ended.reason.iter().filter(|reason| *reason != "Error").map(|reason| format!(", {reason}"));
    let message = ended.message.iter().map(|message| format!(": {}", message.trim()));
    [format!("exit code {}", ended.exit_code)].into_iter().chain(reason).chain(message).collect()
}

/// Why a Deployment has no pods: an admission webhook's words, a quota.
fn refusal(workload: &Value) -> Option<String> {
    let failure = condition(workload, "ReplicaFailure").filter(|failure| failure["status"] == "True")?;
    Some(format!("its pods are refused: {}", failure["message"].as_str()?))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn untrue(object: &Value, kind: &str) -> Option<String> {
    let Some(condition) = condition(object, kind) else {
        return Some(format!("no condition {kind} yet: does its controller run?"));
    };
    if condition["status"] == "True" {
        return None;
    }
    let reason = ["reason", "message"].map(|field| condition[field].as_str().unwrap_or_default());
    let reason: Vec<&str> = reason.into_iter().filter(|text| !text.is_empty()).collect();
    Some(format!("{kind} is {}: {}", condition["status"].as_str().unwrap_or("unknown"), reason.join(": ")))
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_ready_when_its_controller_says_so() {
        let deployment = |observed: i64, updated: i64, available: i64, replicas: i64| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2},
                "status": {"observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": available,
                    "replicas": replicas}})
        };
        let mesh = |conditions: &Value| json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "status": {"conditions": conditions}});
        let service = |status: &Value| json!({"apiVersion": "v1", "kind": "Service", "spec": {"type": "LoadBalancer"}, "status": status});
        let cases = [
            (deployment(1, 2, 2, 2), Some("not seen by its controller yet")),
            (deployment(2, 1, 2, 3), Some("1 of 2 replicas updated")),
            (deployment(2, 2, 1, 2), Some("1 of 2 replicas available")),
            (deployment(2, 2, 2, 3), Some("1 old replicas left")),
            (deployment(2, 2, 2, 2), None),
            (mesh(&json!([])), Some("no condition MeshActive yet: does its controller run?")),
            (
                mesh(&json!([{"type": "MeshActive", "status": "False", "reason": "Error", "message": "no"}])),
                Some("MeshActive is False: Error: no"),
            ),
            (mesh(&json!([{"type": "MeshActive", "status": "True"}])), None),
            (service(&json!({"loadBalancer": {}})), Some("no load balancer yet")),
            (
                json!({"apiVersion": "v1", "kind": "Service", "spec": {"type": "LoadBalancer", "loadBalancerClass": "x/y"}}),
                Some("no load balancer of class x/y yet"),
            ),
            (service(&json!({"loadBalancer": {"ingress": [{"hostname": "lb"}]}})), None),
            (json!({"apiVersion": "v1", "kind": "Service", "spec": {"type": "ClusterIP"}}), None),
            (json!({"apiVersion": "v1", "kind": "ConfigMap"}), None),
        ];
        for (object, expected) in cases {
            assert_eq!(unready(&object).as_deref(), expected, "{object}");
        }
    }

    #[test]
    fn a_pod_says_what_is_wrong() {
        let log = |previous| Some(("app".to_owned(), previous));
        let app = |state: &Value, last: &Value| {
            json!({"containerStatuses": [{"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 3,
                "state": state, "lastState": last}]})
        };
        let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
        let ended = |code: i32, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason}});
        let ready = |kind: &str, status: &str| json!({"type": kind, "status": status, "message": "no"});
        let spec = json!({"containers": [], "readinessGates": [{"conditionType": "gate"}]});
        let cases = [
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}),
                Some(("not scheduled: 0/1 nodes", None)),
            ),
            (
                app(&waiting("ImagePullBackOff", "x: not found"), &json!({})),
                Some(("container app: ImagePullBackOff: x: not found", None)),
            ),
            (
                app(&waiting("CrashLoopBackOff", ""), &ended(1, "Error")),
                Some(("container app crashed 4 times (CrashLoopBackOff), exit code 1", log(true))),
            ),
            (
                app(&ended(137, "OOMKilled"), &json!({})),
                Some(("container app crashed 4 times, exit code 137, OOMKilled", log(false))),
            ),
            (
                app(
                    &waiting("CrashLoopBackOff", ""),
                    &json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": "no /x\n"}}),
                ),
                Some(("container app crashed 4 times (CrashLoopBackOff), exit code 128, StartError: no /x", log(true))),
            ),
            (app(&json!({"running": {}}), &json!({})), Some(("container app runs but is not ready", log(false)))),
            (app(&waiting("ContainerCreating", ""), &json!({})), None),
            (json!({"phase": "Failed", "reason": "Evicted", "message": "disk"}), Some(("failed: Evicted: disk", None))),
            (
                json!({"conditions": [ready("ContainersReady", "True")]}),
                Some(("readiness gate gate: not met yet", None)),
            ),
            (
                json!({"conditions": [ready("ContainersReady", "True"), ready("gate", "False")]}),
                Some(("readiness gate gate: no", None)),
            ),
            (json!({"conditions": [ready("ContainersReady", "True"), ready("gate", "True")]}), None),
        ];
        for (status, expected) in cases {
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": status})).unwrap();
            let found = trouble(&pod);
            let found = found.as_ref().map(|trouble| (trouble.reason.as_str(), trouble.log.clone()));
            assert_eq!(found, expected, "{status}");
        }
    }
}
