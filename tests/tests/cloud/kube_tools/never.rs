//! What never works: told within the timeout, by the object and in the cluster's own words.

use super::clusters::Clusters;
use super::manifest_apply::{PAUSE, deployment, namespace};
use serde_json::{Value, json};
use std::thread;
use tests::program;

/// Long enough for the second crash of a container, short enough to wait for.
const TIMEOUT: &str = "30s";

/// Applies the objects and expects that they never work, for which reason; their file.
#[track_caller]
fn never(
    clusters: &Clusters,
    cluster: &str,
    name: &str,
    document: &str,
    (objects, says): (&[Value], &[&str]),
) -> String {
    let file = clusters.manifest(name, objects);
    let start = if document.is_empty() { "-n " } else { "" };
    let command =
        format!("manifest-apply {name} {start}--cluster {cluster} --file {file} --template --timeout {TIMEOUT}");
    let late = clusters.exits(5, &command, document);
    let error = late.error();
    assert_eq!(error["kind"], "retry", "{error}");
    let logs = |line: &&str| line.contains("waiting for ") && line.contains("its log ends");
    assert_eq!(late.stderr.lines().find(logs), None, "a log is for the error only");
    let message = error["message"].as_str().unwrap();
    for text in says {
        assert!(message.contains(text), "{name}: {text:?} is not in: {message}");
    }
    file
}

/// What never worked goes away like anything else.
fn goes(clusters: &Clusters, cluster: &str, name: &str, file: &str) {
    let delete = format!("manifest-apply {name} -n --cluster {cluster} --file {file} --delete");
    clusters.done(&delete, "").tells("delete ");
    clusters.done(&delete, "").tells("nothing to do");
}

/// In cluster 2, all at once.
pub fn works(clusters: &Clusters) {
    let push = format!(
        "ecr-push colorapp -n --cluster c2 --repository never/colorapp --binary {}",
        program("colorapp").display()
    );
    let pushed = clusters.done(&push, "").document;
    // Ready only when it answers: else the moment before a crash would count as success.
    let probe = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
    let pods = |name: &'static str, container: Value| vec![namespace(name), deployment(name, &container)];
    let service = |name: &str, spec: &Value| {
        vec![
            namespace(name),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "app", "namespace": name}, "spec": spec}),
        ]
    };
    let port = |protocol: &str| json!([{"port": 53, "protocol": protocol}]);
    let unpushed = "123456789012.dkr.ecr.us-west-2.amazonaws.com/nobody/pushed:this";
    let mut quota = pods("never-quota", json!({"image": PAUSE}));
    quota.insert(
        1,
        json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": "never-quota"}, "spec": {"hard": {"pods": "0"}}}),
    );
    let cases: [(&str, Vec<Value>, &[&str]); 10] = [
        (
            "never-pulled",
            pods("never-pulled", json!({"image": "registry.k8s.io/nobody:1"})),
            &[
                "Deployment never-pulled/app: not ready after 30s",
                "pod app-",
                "container app: ",
                "ImagePull",
                "registry.k8s.io/nobody:1: not found",
            ],
        ),
        (
            "never-pushed",
            pods("never-pushed", json!({"image": unpushed})),
            &["Deployment never-pushed/app", "container app: ", "ImagePull", unpushed],
        ),
        (
            "never-stays",
            pods(
                "never-stays",
                json!({"image": "{{ images.colorapp.uri }}", "env": [{"name": "PORT", "value": "x"}], "readinessProbe": probe}),
            ),
            &[
                "Deployment never-stays/app",
                "container app crashed",
                "exit code 1",
                "; its log ends: PORT is \"x\", not a port",
            ],
        ),
        (
            "never-starts",
            pods("never-starts", json!({"image": PAUSE, "command": ["/nothing"]})),
            &["Deployment never-starts/app", "container app", "/nothing", "no such file"],
        ),
        (
            "never-ready",
            pods("never-ready", json!({"image": PAUSE, "readinessProbe": probe})),
            &[
                "Deployment never-ready/app",
                "container app runs but is not ready: Unhealthy: Readiness probe failed",
                "connection refused",
            ],
        ),
        (
            "never-configured",
            pods("never-configured", json!({"image": PAUSE, "envFrom": [{"configMapRef": {"name": "nothing"}}]})),
            &["Deployment never-configured/app", "CreateContainerConfigError", "configmap \"nothing\" not found"],
        ),
        (
            "never-fits",
            pods("never-fits", json!({"image": PAUSE, "resources": {"requests": {"cpu": "1000"}}})),
            &["Deployment never-fits/app", "not scheduled: 0/1 nodes are available", "Insufficient cpu"],
        ),
        ("never-quota", quota, &["Deployment never-quota/app", "its pods are refused: ", "exceeded quota: none"]),
        (
            "never-balanced",
            service("never-balanced", &json!({"type": "LoadBalancer", "ports": port("UDP")})),
            &[
                "Service never-balanced/app",
                "no load balancer yet: SyncLoadBalancerFailed: ",
                "Only TCP LoadBalancer is supported for AWS ELB",
            ],
        ),
        (
            "never-claimed",
            service(
                "never-claimed",
                &json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/nobody", "ports": port("TCP")}),
            ),
            &["Service never-claimed/app", "no load balancer of class example.com/nobody yet"],
        ),
    ];
    thread::scope(|scope| {
        for (name, objects, says) in &cases {
            let pushed = &pushed;
            scope.spawn(move || never(clusters, "c2", name, pushed, (objects, says)));
        }
        let unready = pods("never-there", json!({"image": PAUSE, "readinessProbe": probe}));
        let is_gone = ["Deployment never-there/app is gone: somebody has deleted it meanwhile"];
        let waiting = scope.spawn(move || never(clusters, "c2", "never-there", "", (&unready, &is_gone)));
        clusters.sh("kubectl='kubectl --context c2 --namespace never-there'
            $kubectl wait --for=create --timeout 20s deployment/app
            $kubectl wait --for=jsonpath={.status.unavailableReplicas}=1 --timeout 20s deployment/app
            $kubectl delete deployment app");
        waiting.join().unwrap();
    });
    goes(clusters, "c2", cases[0].0, &clusters.path("never-pulled.yaml"));
}

/// In cluster 1, where the controller is: a pod that must have a sidecar and is no VirtualNode's, and a VirtualRouter to a
/// VirtualNode that is not there.
pub fn refused_by_the_webhook(clusters: &Clusters) {
    let mut team = namespace("never-meshed");
    team["metadata"]["labels"]["appmesh.k8s.aws/sidecarInjectorWebhook"] = "enabled".into();
    let mesh = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "metadata": {"name": "never"},
        "spec": {"namespaceSelector": {"matchLabels": {"team": "never-meshed"}}}});
    let target = json!([{"virtualNodeRef": {"name": "nobody"}, "weight": 1}]);
    let route = json!({"name": "all", "httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": target}}});
    let router = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "VirtualRouter",
        "metadata": {"name": "router", "namespace": "never-meshed"},
        "spec": {"listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}], "routes": [route]}});
    let mut pods = deployment("never-meshed", &json!({"image": PAUSE}));
    let refusal = [
        "its pods are refused: ",
        "admission webhook \"mpod.appmesh.k8s.aws\" denied the request: ",
        "no matching VirtualNode",
    ];
    pods["spec"]["template"]["metadata"]["annotations"] = json!({"appmesh.k8s.aws/sidecarInjectorWebhook": "enabled"});
    let meshed = never(clusters, "c1", "never-meshed", "", (&[team.clone(), mesh.clone(), pods], &refusal));
    let missing = [
        "VirtualRouter never-meshed/router",
        "VirtualRouterActive is False: ",
        "virtualnode never-meshed/nobody does not exist",
    ];
    let routed = never(clusters, "c1", "never-routed", "", (&[team, mesh, router], &missing));
    goes(clusters, "c1", "never-routed", &routed);
    goes(clusters, "c1", "never-meshed", &meshed);
}
