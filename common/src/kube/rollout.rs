//! Waits until objects work or are gone, and says meanwhile what is stuck and why.

use super::apply::{Manifest, Step, held_by};
use super::object::{ObjectRef, Objects};
use super::readiness::{Readiness, condition, overdue};
use crate::{Error, Found, Session};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ListParams, LogParams};
use kube::core::Selector;
use kube::{Client, ResourceExt};
use serde_json::Value;

/// Kinds that run pods.
const WORKLOADS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"];

/// How many of a container's last lines are quoted.
const LOG_LINES: i64 = 5;

/// What to do about a Deployment that makes no progress.
const OVERDUE: &str = "mend what is stuck and run this again, or give it a longer progressDeadlineSeconds";

impl Objects {
    /// Takes a step of [`apply::plan`](super::apply::plan) for these manifests.
    ///
    /// # Errors
    /// As those of [`Objects::apply`] and the waits.
    pub async fn step(&self, session: &Session, manifests: &[Manifest], step: Step) -> Result<()> {
        let apply = async |object: &ObjectRef| {
            let manifest = manifests.iter().find(|manifest| manifest.object == *object);
            let manifest = manifest.with_context(|| format!("{object} has no manifest"))?;
            self.apply(session, object, &manifest.body).await
        };
        match step {
            Step::Create(object) => {
                apply(&object).await?;
                session.made(object.to_string());
                Ok(())
            }
            Step::Configure(object, _) | Step::Adopt(object, _) => apply(&object).await,
            Step::AwaitEnd(object) => self.wait_gone(session, &object).await,
            Step::AwaitReady(object) => self.wait_ready(session, &object).await,
        }
    }

    /// Waits until the object works. On a timeout it says what is stuck: the pod, its container and the last lines of
    /// its log, the scheduler's or the registry's answer, the condition's message.
    ///
    /// # Errors
    /// It does not work in time, or never will unless somebody acts, or the API server's.
    pub async fn wait_ready(&self, session: &Session, object: &ObjectRef) -> Result<()> {
        let (mut in_time, mut seen) = (false, false);
        let look = async || {
            let Some(live) = self.get(object).await? else {
                return if seen { Err(deleted(object)) } else { Ok(Found::NotYet("it does not exist".to_owned())) };
            };
            seen = true;
            // A deadline that was over before says nothing of what is waited for now.
            let just_over = overdue(&live) && in_time;
            in_time = !overdue(&live);
            let (reason, hint) = match Readiness::of(&live) {
                Readiness::Ready(note) => {
                    note.iter().for_each(|note| session.stderr.line(format_args!("{object}: {note}")));
                    return Ok(Found::Ready(()));
                }
                Readiness::Pending(reason) if just_over => (reason, Some(OVERDUE.to_owned())),
                Readiness::Pending(reason) => (reason, None),
                Readiness::Never { reason, hint } => (reason, Some(hint)),
            };
            let stuck = stuck(&self.client(), &live).await;
            let reason = stuck.map_or(reason.clone(), |stuck| format!("{reason}: {stuck}"));
            match hint {
                None => Ok(Found::NotYet(reason)),
                Some(hint) => {
                    let reason = reason.lines().collect::<Vec<_>>().join("; ");
                    Err(Error::failed(format!("{object}: {reason}")).hint(hint).into())
                }
            }
        };
        self.watch(session, object, object, look).await
    }

    /// Waits until the object, whose deletion was asked for, is gone; one that somebody has made in its place since may
    /// stay. On a timeout it says which finalizers hold it.
    ///
    /// # Errors
    /// It is still there, or the API server's.
    pub async fn wait_gone(&self, session: &Session, object: &ObjectRef) -> Result<()> {
        let look = async || {
            let live = self.get(object).await?.filter(|live| live.pointer("/metadata/deletionTimestamp").is_some());
            let Some(live) = live else { return Ok(Found::Ready(())) };
            let warning = warning(&self.client(), &live).await;
            let reasons = [held_by(&live), warning];
            let reasons: Vec<String> = reasons.into_iter().flatten().collect();
            let reason = if reasons.is_empty() { "it is still there".to_owned() } else { reasons.join(": ") };
            Ok(Found::NotYet(reason))
        };
        self.watch(session, object, format_args!("the end of {object}"), look).await
    }
}

/// An object that was there, and that somebody has deleted while it was needed.
pub fn deleted(object: &ObjectRef) -> anyhow::Error {
    let message = format!("{object} is gone: somebody has deleted it meanwhile");
    Error::retry(message).hint("run it again, once nobody else is at work").into()
}

/// What keeps an object from working, as far as the cluster tells. Answers that fail are no reason: whoever may not
/// read pods still hears that the Deployment is not ready.
pub async fn stuck(client: &Client, object: &Value) -> Option<String> {
    let kind = object["kind"].as_str()?;
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let pods = match kind {
        "Pod" => vec![serde_json::from_value(object.clone()).ok()?],
        _ if WORKLOADS.contains(&kind) => pods(client, namespace, object).await?,
        _ => return warning(client, object).await,
    };
    let waiting =
        pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && !is_ready(pod) && !has_succeeded(pod));
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

fn has_succeeded(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Succeeded"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::json;

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
