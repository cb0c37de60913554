//! Waits of manifest-apply in cluster 2: they end where `kubectl rollout status` ends, say at once what can never end, and
//! leave to a scaler what it scales.

use super::clusters::Clusters;
use super::manifest_apply::{PAUSE, deployment, namespace};
use serde_json::{Value, json};

fn workload(version: &str, kind: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    let labels = json!({"app": kind.to_lowercase()});
    if version == "apps/v1" {
        spec["selector"] = json!({"matchLabels": labels});
    }
    spec["template"]["metadata"]["labels"] = labels;
    spec["template"]["spec"]["terminationGracePeriodSeconds"] = 1.into();
    let container = &mut spec["template"]["spec"]["containers"][0];
    container["name"] = "app".into();
    container["image"] = PAUSE.into();
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "app", "namespace": "waits"}, "spec": spec})
}

/// A template with one container, whose environment tells versions apart.
fn version(number: &str) -> Value {
    json!({"spec": {"containers": [{"env": [{"name": "VERSION", "value": number}]}]}})
}

pub fn end_with_the_rollout(clusters: &Clusters) {
    let apply = |name: &str, object: &Value| {
        let file = clusters.manifest(&format!("waits-{name}"), &[namespace("waits"), object.clone()]);
        format!("manifest-apply {name} -n --cluster c2 --file {file}")
    };

    // Half of a StatefulSet, and a DaemonSet whose pods nobody deletes, stay at the version before.
    let partition = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    let staged = |number| {
        let spec =
            json!({"replicas": 2, "serviceName": "app", "updateStrategy": partition, "template": version(number)});
        workload("apps/v1", "StatefulSet", &spec)
    };
    clusters.done(&apply("staged", &staged("1")), "");
    let done = clusters.done(&apply("staged", &staged("2")), "");
    done.tells("StatefulSet waits/app: 1 of 2 pods stay at the version before, as partition 1 says");
    clusters.steady("manifest-apply staged", &done.document);
    let on_delete = |number| {
        let spec = json!({"updateStrategy": {"type": "OnDelete"}, "template": version(number)});
        workload("apps/v1", "DaemonSet", &spec)
    };
    clusters.done(&apply("kept", &on_delete("1")), "");
    clusters.done(&apply("kept", &on_delete("2")), "").tells("pods stay at the version before until somebody deletes");

    // A claim that no pod uses; the local cloud has nobody who would make a volume for it either.
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "app", "namespace": "waits"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    clusters.done(&apply("claim", &claim), "");

    // The container of this Job ends well when its probe has it stopped.
    let stopped = json!({"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1});
    let job = |more: &Value| {
        let mut spec = json!({"backoffLimit": 0, "template": version("1")});
        spec["template"]["spec"]["restartPolicy"] = "Never".into();
        spec["template"]["spec"]["containers"][0]["livenessProbe"] = stopped.clone();
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        workload("batch/v1", "Job", &spec)
    };
    let done = clusters.done(&apply("once", &job(&json!({}))), "");
    clusters.steady("manifest-apply once", &done.document);
    clusters.done("manifest-apply once --delete", &done.document).tells("delete Job waits/app");

    let paused = workload("apps/v1", "Deployment", &json!({"paused": true, "template": version("1")}));
    let never = [
        (
            "late",
            job(&json!({"activeDeadlineSeconds": 1, "parallelism": 1, "template": {"spec": {
                "restartPolicy": "Never", "containers": [{}]}}})),
            ["Job waits/app: it failed: DeadlineExceeded", "delete it, then run this again"],
        ),
        (
            "paused",
            paused.clone(),
            ["Deployment waits/app: its rollout is paused: 0 of 1 replicas updated", "kubectl rollout resume"],
        ),
    ];
    for (name, object, [reason, hint]) in never {
        let error = clusters.exits(1, &apply(name, &object), "").error();
        assert!(error["message"].as_str().unwrap().starts_with(reason), "{error}");
        assert!(error["hint"].as_str().unwrap().contains(hint), "{error}");
    }
    clusters.done(&format!("{} --no-wait", apply("paused", &paused)), "");
}

/// As an autoscaler does it: through the subresource that is there for it.
pub fn leave_replicas_to_a_scaler(clusters: &Clusters) {
    let app = |number: &str| {
        let container = json!({"image": PAUSE, "env": [{"name": "VERSION", "value": number}]});
        let file = clusters.manifest("scaled-out", &[namespace("scaled-out"), deployment("scaled-out", &container)]);
        format!("manifest-apply scaled-out -n --cluster c2 --file {file}")
    };
    clusters.done(&app("1"), "");
    let kubectl = "kubectl --context c2 -n scaled-out";
    clusters.sh(&format!(
        r#"{kubectl} patch deploy app --subresource=scale --field-manager=scaler --type merge -p '{{"spec": {{"replicas": 2}}}}'"#
    ));
    // Else there is something to do for the tool: to wait.
    clusters.sh(&format!("{kubectl} rollout status deploy app --timeout 60s"));
    let left = "Deployment scaled-out/app: spec.replicas stays 2, for scaler sets it";
    for (number, would) in [("1", "nothing to do"), ("2", "configure Deployment scaled-out/app: spec.template.")] {
        for more in ["", " --adopt"] {
            let plan = clusters.done(&format!("{}{more} --plan", app(number)), "");
            plan.tells(left);
            assert!(!plan.would().iter().any(|change| change.contains("spec.replicas")), "{}", plan.stderr);
        }
        let done = clusters.done(&app(number), "");
        done.tells(left);
        done.tells(would);
        clusters.steady("manifest-apply scaled-out", &done.document);
        assert_eq!(clusters.sh(&format!("{kubectl} get deploy app -o jsonpath='{{.spec.replicas}}'")), "2");
    }
}
