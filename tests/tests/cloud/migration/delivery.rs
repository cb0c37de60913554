//! What delivers progressively, Flagger and Argo Rollouts, as their App Mesh support asks the API server: objects are
//! created, read, changed and replaced as a whole, under load.

use super::{Cluster, KUBECTL};
use crate::aws_tools::region::until;
use serde_json::{Value, json};

/// The objects of a delivery in a namespace of its own.
struct Delivery<'a> {
    cluster: &'a Cluster,
    namespace: &'static str,
}

impl Delivery<'_> {
    #[track_caller]
    fn create(&self, objects: &[Value]) {
        objects.iter().for_each(|object| drop(self.cluster.create(&object.to_string())));
    }

    /// Reads an object, changes it, and replaces it, as clients do that know nothing of patches.
    #[track_caller]
    fn replace(&self, object: &str, change: impl Fn(&mut Value)) {
        let (namespace, cluster) = (self.namespace, self.cluster);
        let mut read: Value =
            serde_json::from_str(&cluster.sh(&format!("{KUBECTL} -n {namespace} get {object} -o json"))).unwrap();
        change(&mut read);
        let replace = ["kubectl", "--context", "c1", "replace", "-f", "-"];
        let replaced = cluster.cloud.run(replace, read.to_string().as_bytes()).unwrap();
        assert!(replaced.status.success(), "{object}: {}", String::from_utf8_lossy(&replaced.stderr));
    }

    /// Sets the weights of the router's first route, in the order of its targets.
    #[track_caller]
    fn weights(&self, weights: [u32; 2]) {
        self.replace("virtualrouter.appmesh.k8s.aws/back", |router| {
            for (target, weight) in weights.into_iter().enumerate() {
                router["spec"]["routes"][0]["httpRoute"]["action"]["weightedTargets"][target]["weight"] = weight.into();
            }
        });
    }

    #[track_caller]
    fn scale(&self, deployment: &str, replicas: u32) {
        let (namespace, cluster) = (self.namespace, self.cluster);
        cluster.sh(&format!(
            "{KUBECTL} -n {namespace} scale deployment/{deployment} --replicas {replicas}; \
             {KUBECTL} -n {namespace} rollout status deployment/{deployment} --timeout=180s"
        ));
    }

    /// Asks until red and blue come as often as they should: Envoys hear of a change a moment later.
    #[track_caller]
    fn spread(&self, url: &str, expected: &str) {
        let probe = format!("{} -n {url} --count 100 --expect {expected}", tests::program("color-probe").display());
        until(expected, || self.cluster.cloud.sh(&probe).unwrap().status.success().then_some(()));
    }

    fn mesh(&self) -> [Value; 2] {
        let labels = json!({"mesh": self.namespace, "appmesh.k8s.aws/sidecarInjectorWebhook": "enabled"});
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}});
        let selector = json!({"matchLabels": {"mesh": self.namespace}});
        [self.of_mesh("Mesh", self.namespace, json!({ "namespaceSelector": selector })), namespace]
    }

    fn of_mesh(&self, kind: &str, name: &str, spec: Value) -> Value {
        let mut metadata = json!({ "name": name });
        if kind != "Mesh" {
            metadata["namespace"] = self.namespace.into();
        }
        json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind, "metadata": metadata, "spec": spec})
    }

    /// A VirtualNode whose name is resolved absolutely, as Flagger writes it.
    fn node(&self, name: &str, labels: &Value, backends: Value) -> Value {
        let hostname = format!("{name}.{}.svc.cluster.local.", self.namespace);
        let idle = json!({"http": {"perRequest": {"unit": "s", "value": 15}}});
        let spec = json!({
            "podSelector": {"matchLabels": labels},
            "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}, "timeout": idle}],
            "serviceDiscovery": {"dns": {"hostname": hostname}},
            "backends": backends,
        });
        self.of_mesh("VirtualNode", name, spec)
    }

    fn router(&self, name: &str, targets: [(&str, u32); 2]) -> Value {
        let target = |(name, weight)| json!({"virtualNodeRef": {"name": name}, "weight": weight});
        let retries = json!({
            "maxRetries": 3,
            "perRetryTimeout": {"unit": "ms", "value": 5000},
            "httpRetryEvents": ["gateway-error", "client-error", "stream-error"],
        });
        let route = json!({
            "match": {"prefix": "/"},
            "retryPolicy": retries,
            "action": {"weightedTargets": targets.map(target)},
        });
        let listener = json!({"portMapping": {"port": 8080, "protocol": "http"}});
        let spec = json!({"listeners": [listener], "routes": [{"name": name, "httpRoute": route}]});
        self.of_mesh("VirtualRouter", name, spec)
    }

    fn virtual_service(&self, name: &str) -> Value {
        let router = json!({"virtualRouter": {"virtualRouterRef": {"name": name}}});
        self.of_mesh("VirtualService", name, json!({ "provider": router }))
    }

    fn service(&self, name: &str, labels: &Value, kind: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"type": kind, "selector": labels, "ports": [{"name": "http", "port": 8080}]}})
    }

    fn deployment(&self, name: &str, labels: &Value, replicas: u32, image: &str, env: &[(&str, &str)]) -> Value {
        let section = self.cluster.json(&format!("image-{image}"));
        let env: Vec<Value> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let container = json!({
            "name": "app",
            "image": section["images"][image]["uri"],
            "env": env,
            "readinessProbe": {"httpGet": {"path": "/ping", "port": 8080}, "periodSeconds": 1},
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        });
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}})
    }

    /// The front end, which calls the back end by its VirtualService.
    fn front(&self) -> [Value; 3] {
        let labels = json!({"app": "front"});
        let backends = json!([{"virtualService": {"virtualServiceRef": {"name": "back"}}}]);
        let host = format!("back.{}:8080", self.namespace);
        let env = [("PORT", "8080"), ("COLOR_HOST", host.as_str())];
        [
            self.node("front", &labels, backends),
            self.service("front", &labels, "LoadBalancer"),
            self.deployment("front", &labels, 1, "feapp", &env),
        ]
    }

    fn back(&self, name: &str, labels: &Value, replicas: u32, color: &str) -> Value {
        self.deployment(name, labels, replicas, "colorapp", &[("SERVER_PORT", "8080"), ("COLOR", color)])
    }
}

/// Flagger: a canary of the Deployment that the user changes, a primary that it keeps, a router for each.
pub fn flagger(cluster: &Cluster) {
    let delivery = Delivery { cluster, namespace: "flagger" };
    let (canary, primary) = (json!({"app": "back"}), json!({"app": "back-primary"}));
    delivery.create(&delivery.mesh());
    delivery.create(&[
        delivery.service("back", &primary, "ClusterIP"),
        delivery.service("back-canary", &canary, "ClusterIP"),
        delivery.service("back-primary", &primary, "ClusterIP"),
        delivery.node("back-primary", &primary, json!([])),
        delivery.node("back-canary", &canary, json!([])),
        delivery.router("back", [("back-canary", 0), ("back-primary", 100)]),
        delivery.virtual_service("back"),
        delivery.router("back-canary", [("back-canary", 100), ("back-primary", 0)]),
        delivery.virtual_service("back-canary"),
        delivery.back("back", &canary, 0, "blue"),
        delivery.back("back-primary", &primary, 1, "red"),
    ]);
    delivery.create(&delivery.front());
    delivery.scale("front", 1);
    delivery.scale("back-primary", 1);
    let url = cluster.front("flagger");
    let load = cluster.load(&url, "red,blue");

    // Rolled back half way.
    delivery.scale("back", 1);
    delivery.weights([10, 90]);
    delivery.weights([20, 80]);
    delivery.weights([0, 100]);
    delivery.spread(&url, "red=1");
    delivery.scale("back", 0);
    // Promoted.
    delivery.scale("back", 1);
    for canary in [10, 20, 30, 40, 50] {
        delivery.weights([canary, 100 - canary]);
    }
    delivery.spread(&url, "red=1,blue=1");
    delivery.replace("deployment/back-primary", |primary| {
        primary["spec"]["template"]["spec"]["containers"][0]["env"][1]["value"] = "blue".into();
    });
    delivery.scale("back-primary", 1);
    delivery.weights([0, 100]);
    delivery.spread(&url, "blue=1");
    delivery.scale("back", 0);
    load.lost_nothing("Flagger");
    cluster.sh(&format!("{KUBECTL} delete namespace flagger --wait=false"));
}

/// Argo Rollouts: two VirtualNodes whose selectors it moves from one ReplicaSet's pods to the next one's.
pub fn argo_rollouts(cluster: &Cluster) {
    const HASH: &str = "rollouts-pod-template-hash";
    let delivery = Delivery { cluster, namespace: "argo" };
    let of = |hash: &str| json!({"app": "back", HASH: hash});
    delivery.create(&delivery.mesh());
    delivery.create(&[
        delivery.service("back", &json!({"app": "back"}), "ClusterIP"),
        delivery.service("canary", &of("none"), "ClusterIP"),
        delivery.service("stable", &of("old"), "ClusterIP"),
        delivery.node("canary", &json!({"app": "back"}), json!([])),
        delivery.node("stable", &json!({"app": "back"}), json!([])),
        delivery.router("back", [("canary", 0), ("stable", 100)]),
        delivery.virtual_service("back"),
    ]);
    let selects = |node: &str, hash: &str| {
        delivery.replace(&format!("virtualnode.appmesh.k8s.aws/{node}"), |node| {
            node["spec"]["podSelector"]["matchLabels"][HASH] = hash.into();
        });
    };
    let serves = |service: &str, hash: &str| {
        delivery.replace(&format!("service/{service}"), |service| service["spec"]["selector"][HASH] = hash.into());
    };
    selects("stable", "old");
    selects("canary", "none");
    delivery.create(&[delivery.back("old", &of("old"), 1, "red")]);
    delivery.create(&delivery.front());
    delivery.scale("front", 1);
    delivery.scale("old", 1);
    let url = cluster.front("argo");
    let load = cluster.load(&url, "red,blue");

    selects("canary", "new");
    serves("canary", "new");
    delivery.create(&[delivery.back("new", &of("new"), 1, "blue")]);
    delivery.scale("new", 1);
    delivery.weights([50, 50]);
    delivery.spread(&url, "red=1,blue=1");
    delivery.weights([100, 0]);
    delivery.spread(&url, "blue=1");
    // The new pods become the stable ones: for a moment both VirtualNodes select them.
    selects("stable", "new");
    serves("stable", "new");
    selects("canary", "none");
    delivery.weights([0, 100]);
    // A Service's connections stay with the pod that they were made to, as long as that one runs.
    delivery.scale("old", 0);
    delivery.spread(&url, "blue=1");
    // Every Envoy connects again, and that of the new pods still names the canary.
    cluster.sh(&format!(
        "{KUBECTL} -n appmesh-system rollout restart deployment/appmesh-controller; \
         {KUBECTL} -n appmesh-system rollout status deployment/appmesh-controller --timeout=180s"
    ));
    let pod =
        cluster.sh(&format!("{KUBECTL} -n argo get pods -l {HASH}=new -o jsonpath='{{.items[0].metadata.name}}'"));
    let stats = format!("/api/v1/namespaces/argo/pods/{pod}:9901/proxy/stats?filter=control_plane.connected_state");
    until("the new pods' Envoy is connected", || {
        let connected = cluster.sh(&format!("{KUBECTL} get --raw '{stats}'"));
        connected.contains("control_plane.connected_state: 1").then_some(())
    });
    load.lost_nothing("Argo Rollouts");
    cluster.sh(&format!("{KUBECTL} delete namespace argo --wait=false"));
}
