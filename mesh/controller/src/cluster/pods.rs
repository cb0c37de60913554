//! Keeps what the mesh needs of pods, and no more of them: a large cluster has thousands.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Resource, api::ObjectMeta};
use serde::{Deserialize, Deserializer};

use crate::packed::PackedMap;

/// The readiness gate of pods: the condition says whether the pod is registered in Cloud Map. Amazon's name.
pub const GATE: &str = "conditions.appmesh.k8s.aws/aws-cloudmap-healthy";

/// The variable of Envoy's container that names the workload it was injected for, `mesh/<mesh>/virtualNode/<name>`.
/// Amazon's name.
pub const WORKLOAD_VARIABLE: &str = "APPMESH_VIRTUAL_NODE_NAME";

/// Namespace and name of a pod.
pub type PodKey = (String, String);

/// A pod, as far as the mesh needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.labels`
    pub labels: PackedMap,
    /// Whether it is being deleted.
    pub is_leaving: bool,
    /// `status.podIPs`; where it has two, one is of IPv4 and the other of IPv6.
    pub ips: Vec<String>,
    /// Whether all its containers are ready.
    pub containers_ready: bool,
    /// Whether its node is lost: nobody there says so of the containers any more, and the control plane has taken the
    /// condition `Ready` from the pod.
    pub lost: bool,
    /// Whether the pod waits for [`GATE`].
    pub gated: bool,
    /// The condition [`GATE`] as it stands.
    pub gate: Option<GateCondition>,
    /// The workload that its Envoy was injected for, whatever selects the pod since.
    pub injected_for: Option<String>,
}

/// The condition of a readiness gate.
#[derive(Clone, Debug, PartialEq)]
pub struct GateCondition {
    /// Whether it is `True`.
    pub ready: bool,
    /// One word for machines.
    pub reason: Option<String>,
    /// Words for people.
    pub message: Option<String>,
    /// When `ready` last changed.
    pub since: Option<Time>,
}

impl Pod {
    /// Where the pod is reached, if it is to be called: all its containers are ready, its node is there and it is to
    /// stay. Readiness gates are left out: they may wait for this very registration.
    pub fn addresses(&self) -> &[String] {
        if self.containers_ready && !self.is_leaving && !self.lost { &self.ips } else { &[] }
    }

    /// Its namespace and name.
    pub fn key(&self) -> PodKey {
        (self.namespace.clone(), self.name.clone())
    }
}

impl From<core::Pod> for Pod {
    fn from(pod: core::Pod) -> Self {
        let ObjectMeta { namespace, name, uid, labels, deletion_timestamp, .. } = pod.metadata;
        let [namespace, name, uid] = [namespace, name, uid].map(Option::unwrap_or_default);
        let labels = labels.unwrap_or_default().into();
        let is_leaving = deletion_timestamp.is_some();
        let mut spec = pod.spec.unwrap_or_default();
        let injected_for = injected_for(&mut spec);
        let gates = spec.readiness_gates.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let containers_ready =
            conditions.iter().any(|condition| condition.type_ == "ContainersReady" && condition.status == "True");
        // The kubelet gives a reason: containers or gates. Who marks the pods of a lost node gives none.
        let lost = conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "False" && condition.reason.is_none());
        let gate = conditions.into_iter().find(|condition| condition.type_ == GATE).map(|condition| GateCondition {
            ready: condition.status == "True",
            reason: condition.reason,
            message: condition.message,
            since: condition.last_transition_time,
        });
        let gated = gates.iter().any(|gate| gate.condition_type == GATE);
        let ips = match status.pod_ips {
            Some(ips) => ips.into_iter().map(|ip| ip.ip).collect(),
            None => status.pod_ip.into_iter().collect(),
        };
        Self { namespace, name, uid, labels, is_leaving, ips, containers_ready, lost, gated, gate, injected_for }
    }
}

/// The value of [`WORKLOAD_VARIABLE`].
fn injected_for(spec: &mut core::PodSpec) -> Option<String> {
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    let mut variables = containers.flat_map(|container| container.env.iter_mut().flatten());
    variables.find(|variable| variable.name == WORKLOAD_VARIABLE)?.value.take()
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        core::Pod::deserialize(deserializer).map(Self::from)
    }
}

/// A pod as a watch reads it.
#[derive(Clone, Debug)]
pub struct WatchedPod {
    /// What the watch itself needs.
    metadata: ObjectMeta,
    /// The pod.
    pub pod: Pod,
}

impl<'de> Deserialize<'de> for WatchedPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pod = core::Pod::deserialize(deserializer)?;
        let metadata = ObjectMeta { resource_version: pod.metadata.resource_version.clone(), ..ObjectMeta::default() };
        Ok(Self { metadata, pod: pod.into() })
    }
}

impl Resource for WatchedPod {
    type DynamicType = ();
    type Scope = <core::Pod as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        core::Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        core::Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        core::Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        core::Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A pod that came, changed or went.
#[derive(Clone, Debug)]
pub struct PodChange {
    /// The pod.
    pub key: PodKey,
    /// As it was; `None` if it is new.
    pub before: Option<Arc<Pod>>,
    /// As it is; `None` if it is gone.
    pub now: Option<Arc<Pod>>,
}

/// The pods of the cluster. Cloning is cheap, every clone sees the same pods.
#[derive(Clone, Default)]
pub struct Pods(Arc<RwLock<HashMap<PodKey, Arc<Pod>>>>);

impl Pods {
    /// The pod of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Pod>> {
        self.read().values().cloned().collect()
    }

    /// Puts a pod in; `None` if that changes nothing of what the mesh needs.
    pub fn apply(&self, pod: Pod) -> Option<PodChange> {
        let (key, pod) = (pod.key(), Arc::new(pod));
        let before = self.write().insert(key.clone(), pod.clone());
        if before.as_ref() == Some(&pod) {
            return None;
        }
        Some(PodChange { key, before, now: Some(pod) })
    }

    /// Takes a pod out.
    pub fn remove(&self, key: PodKey) -> Option<PodChange> {
        let before = self.write().remove(&key)?;
        Some(PodChange { key, before: Some(before), now: None })
    }

    /// Makes these all that there are.
    pub fn replace(&self, pods: Vec<Pod>) -> Vec<PodChange> {
        let listed: std::collections::HashSet<_> = pods.iter().map(Pod::key).collect();
        let gone: Vec<_> = self.read().keys().filter(|key| !listed.contains(*key)).cloned().collect();
        let mut changes: Vec<_> = gone.into_iter().filter_map(|key| self.remove(key)).collect();
        changes.extend(pods.into_iter().filter_map(|pod| self.apply(pod)));
        changes
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<PodKey, Arc<Pod>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<PodKey, Arc<Pod>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, ready: &str, more: Value) -> Pod {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "resourceVersion": more["version"],
                "labels": {"app": name}, "annotations": {"a": "b"}},
            "spec": {"containers": [], "readinessGates": [{"conditionType": GATE}]},
            "status": {"podIP": "10.0.0.1", "conditions": [{"type": "ContainersReady", "status": ready}]}
        });
        if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
            conditions.extend(more.get("ready").cloned());
        }
        pod["metadata"]["deletionTimestamp"] = more["deleted"].clone();
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_is_called_while_it_is_ready_and_stays() {
        let ready = pod("a", "True", json!({}));
        assert_eq!((ready.addresses(), ready.gated, &ready.gate), (&["10.0.0.1".to_owned()][..], true, &None));
        assert_eq!(pod("a", "False", json!({})).addresses(), [""; 0]);
        assert_eq!(pod("a", "True", json!({"deleted": "2026-11-22T00:00:00Z"})).addresses(), [""; 0]);
        assert_eq!(ready.labels, PackedMap::from([("app", "a")]));
    }

    #[test]
    fn a_pod_of_a_lost_node_is_not_called() {
        let of = |status: &str, reason: Option<&str>| {
            let mut condition = json!({"type": "Ready", "status": status});
            if let Some(reason) = reason {
                condition["reason"] = reason.into();
            }
            !pod("a", "True", json!({ "ready": condition })).addresses().is_empty()
        };
        assert!(of("True", None));
        assert!(of("False", Some("ReadinessGatesNotReady")), "which may wait for this very registration");
        assert!(!of("False", None));
    }

    #[test]
    fn what_an_envoy_was_injected_for_is_known() {
        let of = |containers: Value| {
            let pod = json!({"metadata": {"name": "a"}, "spec": containers});
            serde_json::from_value::<Pod>(pod).unwrap().injected_for
        };
        let container = |name: &str| json!([{"name": "x", "env": [{"name": name, "value": "mesh/m/virtualNode/a"}]}]);
        let found = Some("mesh/m/virtualNode/a".to_owned());
        assert_eq!(of(json!({"initContainers": container(WORKLOAD_VARIABLE), "containers": []})), found);
        assert_eq!(of(json!({"containers": container(WORKLOAD_VARIABLE)})), found);
        assert_eq!(of(json!({"containers": container("OTHER")})), None);
    }

    #[test]
    fn only_what_the_mesh_needs_is_a_change() {
        let pods = Pods::default();
        let changed = |changes: Vec<PodChange>| -> Vec<_> {
            let kind = |change: &PodChange| (change.before.is_some(), change.now.is_some());
            changes.iter().map(|change| (change.key.1.clone(), kind(change))).collect()
        };
        assert!(pods.apply(pod("a", "False", json!({"version": "1"}))).is_some());
        assert!(pods.apply(pod("a", "False", json!({"version": "2"}))).is_none());
        assert!(pods.apply(pod("a", "True", json!({"version": "3"}))).is_some());
        let listed = vec![pod("b", "True", json!({"version": "4"}))];
        let mut changes = changed(pods.replace(listed.clone()));
        changes.sort();
        assert_eq!(changes, [("a".to_owned(), (true, false)), ("b".to_owned(), (false, true))]);
        assert!(pods.replace(listed).is_empty());
        assert!(pods.get("ns", "a").is_none() && pods.get("ns", "b").is_some());
    }
}
