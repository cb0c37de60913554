//! What only a cluster shows of the data plane: the same pods in a namespace of the mesh and in one without it, with the
//! kubelet's probes and hooks, kubectl's ways into a pod, and names that only a cluster has. What comes of each must be the
//! same, or the row says why it is not. The rows are the second table of `docs/data-plane.md`.
//!
//! `tests/data-plane` has what is applied. It needs Linux and root.

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;
use tests::cloud::Cloud;
use tests::faults::until;
use tests::report::IN_A_CLUSTER;
use tests::steps::make_of;
use tests::{program, root};

/// What stands above the table.
const DOCS: &str = "
This was tried in a cluster, with the same pods in a namespace without the mesh and in one of the mesh, under `ALLOW_ALL`: what
the kubelet, kubectl and the API server do with pods, and what pods do with the cluster's names. A *listener's port* is one
that a listener of the pod's VirtualNode names; *another port* is not, and is not redirected on its way in. Requests were
made once more under `DROP_ALL`: one that is refused gets an answer of 404, or its connection is closed. The table is
written by `tests/tests/cloud/data_plane.rs`, which fails if it does not hold.

| what happens | what comes of it without the mesh | in the mesh | under `DROP_ALL` |
| --- | --- | --- | --- |
";

/// How long pods may take to do something for the first time.
const PATIENCE: Duration = Duration::from_secs(180);

/// A probe, by the container that has it. Those of `probed` serve these ports, or in `deaf` nobody does.
const PROBES: [(&str, &str, &str); 9] = [
    ("http-listened", "http, a listener's port", r#"{"httpGet": {"path": "/", "port": 8080}}"#),
    ("http-other", "http, another port", r#"{"httpGet": {"path": "/", "port": 9090}}"#),
    ("http-named", "http, a port by its name", r#"{"httpGet": {"path": "/", "port": "http"}}"#),
    ("tcp-listened", "tcp, a listener's port", r#"{"tcpSocket": {"port": 8080}}"#),
    ("tcp-other", "tcp, another port", r#"{"tcpSocket": {"port": 9090}}"#),
    ("tcp-named", "tcp, a port by its name", r#"{"tcpSocket": {"port": "http"}}"#),
    ("grpc-listened", "grpc, a listener's port", r#"{"grpc": {"port": 50051}}"#),
    ("grpc-other", "grpc, another port", r#"{"grpc": {"port": 50052}}"#),
    ("exec", "exec", r#"{"exec": {"command": ["/workload", "ask", "http://localhost:8080/"]}}"#),
];

/// Requests: where they go, the pod that makes them, the URL, and why it is otherwise in the mesh.
const REQUESTS: [(&str, &str, &str, &str); 20] = [
    ("to a VirtualService by its full name", "caller", "http://back.{ns}.svc.cluster.local:8080/", ""),
    ("to a VirtualService by the short name of its Service", "caller", "http://back:8080/", ""),
    ("to a Service that is no VirtualService", "caller", "http://unknown.{ns}.svc.cluster.local:8080/", ""),
    (
        "to a Service that is no VirtualService, another port",
        "caller",
        "http://unknown.{ns}.svc.cluster.local:9090/",
        "",
    ),
    ("to a headless Service", "caller", "http://web.{ns}.svc.cluster.local:8080/", ""),
    ("to a pod of a StatefulSet by its name", "caller", "http://web-0.web.{ns}.svc.cluster.local:8080/", ""),
    (
        "to a pod of a StatefulSet by its name, another port",
        "caller",
        "http://web-0.web.{ns}.svc.cluster.local:9090/",
        "",
    ),
    ("to an ExternalName Service", "caller", "http://alias.{ns}.svc.cluster.local:8080/", ""),
    ("to an ExternalName Service, another port", "caller", "http://alias.{ns}.svc.cluster.local:9090/", ""),
    ("to a pod by its address", "caller", "http://{web}:8080/", ""),
    (
        "to a port on which nobody listens",
        "caller",
        "http://{web}:7777/",
        "Envoy took the connection before it had one",
    ),
    ("to the pod itself by localhost", "caller", "http://localhost:8080/", ""),
    ("to another container of the pod by localhost", "caller", "http://localhost:8081/", ""),
    ("to the pod itself by its address", "caller", "http://{caller}:8080/", ""),
    ("to another container of the pod by the pod's address", "caller", "http://{caller}:8081/", ""),
    ("to a pod in the node's network", "caller", "http://{host}:{host_port}/", ""),
    ("to the API server, by TLS", "caller", "https://kubernetes.default.svc/version", ""),
    ("from a pod in the node's network to a Service", "host", "http://unknown.{ns}.svc.cluster.local:8080/", ""),
    (
        "from a pod in the node's network to a pod by its name",
        "host",
        "http://web-0.web.{ns}.svc.cluster.local:8080/",
        "",
    ),
    ("from a pod in the node's network to another port", "host", "http://web-0.web.{ns}.svc.cluster.local:9090/", ""),
];

/// What comes of a row in a namespace.
#[derive(Clone)]
struct Outcome {
    name: String,
    came: String,
    /// Why it is otherwise in the mesh; empty if it is the same.
    differs: &'static str,
    /// What comes of a request in the mesh under `DROP_ALL`.
    dropped: &'static str,
}

/// One of the two namespaces.
struct Namespace<'a> {
    cloud: &'a Cloud,
    name: &'static str,
    image: &'a str,
    is_mesh: bool,
    /// Of a pod in the node's network.
    host_port: u16,
}

impl Namespace<'_> {
    /// What a script prints, or says when it fails. `kubectl` is that of the namespace.
    fn sh(&self, script: &str) -> String {
        let kubectl = format!("kubectl() {{ command kubectl --context c1 -n {} \"$@\"; }}\n", self.name);
        let said = self.cloud.sh(&(kubectl + script)).unwrap();
        let bytes = if said.status.success() { said.stdout } else { [said.stdout, said.stderr].concat() };
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// Applies objects, and returns the warnings.
    fn apply(&self, objects: &str) -> String {
        let apply = ["kubectl", "--context", "c1", "apply", "-f", "-"];
        let applied = self.cloud.run(apply, objects.as_bytes()).unwrap();
        let said = String::from_utf8_lossy(&applied.stderr).into_owned();
        assert!(applied.status.success(), "{said}");
        said
    }

    fn file(&self, name: &str) -> String {
        let text = std::fs::read_to_string(root().join("tests/data-plane").join(name)).unwrap();
        text.replace("NAMESPACE", self.name)
            .replace("IMAGE", self.image)
            .replace("HOST_PORT", &self.host_port.to_string())
    }

    /// A pod whose containers each have a probe of all three kinds; the ports are served, or not.
    fn probed(&self, name: &str, is_served: bool) -> Value {
        let args =
            if is_served { json!(["serve", "hello", "8080", "9090", "50051", "50052"]) } else { json!(["idle"]) };
        let mut containers = vec![json!({"name": "app", "image": self.image, "args": args})];
        for (container, _, probe) in probes(is_served) {
            let mut probe: Value = serde_json::from_str(probe).unwrap();
            probe["periodSeconds"] = 1.into();
            probe["timeoutSeconds"] = 5.into();
            // What fails goes on failing.
            probe["failureThreshold"] = 1000.into();
            let ports = json!([{"name": "http", "containerPort": 8080}]);
            let mut all = json!({"name": container, "image": self.image, "args": ["idle"], "ports": ports,
                "livenessProbe": probe, "readinessProbe": probe});
            if is_served {
                all["startupProbe"] = probe;
            }
            if !container.ends_with("-named") {
                all.as_object_mut().unwrap().remove("ports");
            }
            containers.push(all);
        }
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": self.name, "labels": {"app": "probed"}},
            "spec": {"containers": containers}})
    }

    /// Makes the namespace and all that is in it, and waits until it has started.
    fn fill(&self) {
        let mut labels = json!({"mesh": self.name});
        if self.is_mesh {
            labels["appmesh.k8s.aws/sidecarInjectorWebhook"] = "enabled".into();
        }
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name, "labels": labels}});
        self.apply(&namespace.to_string());
        if self.is_mesh {
            self.apply(&self.file("mesh.yaml"));
        }
        self.cloud
            .stdout(&format!("kubectl --context c1 -n {} wait --for create sa/default --timeout 60s", self.name))
            .unwrap();
        let probed =
            [("probed", true), ("deaf", false)].map(|(name, is_served)| self.probed(name, is_served).to_string());
        let said = self.apply(&[&self.file("pods.yaml"), &probed[0], &probed[1]].map(String::as_str).join("\n---\n"));
        assert_eq!(said.contains("a tcpSocket probe of a listener's port reaches Envoy"), self.is_mesh, "{said}");
        let wait = "kubectl rollout status statefulset/web --timeout 180s && \
                    kubectl wait pod/caller pod/host pod/hooks --for condition=Ready --timeout 180s && echo started";
        let waited = self.sh(wait);
        assert!(waited.ends_with("started"), "{waited}\n{}", self.sh("kubectl get pods,events"));
        let names = self.sh("kubectl get pod caller -o jsonpath='{.spec.initContainers[*].name}'");
        assert_eq!(names.contains("envoy"), self.is_mesh, "{names}");
    }

    /// Asks from a pod.
    fn asks(&self, pod: &str, command: &str) -> String {
        self.sh(&format!("kubectl exec {pod} -c app -- /workload {command}"))
    }

    fn address(&self, pod: &str) -> String {
        self.sh(&format!("kubectl get pod {pod} -o jsonpath='{{.status.podIP}}'"))
    }

    /// How often a probe has succeeded and failed, in the kubelet's own count.
    fn probes_of(&self, metrics: &str, pod: &str, container: &str, kind: &str) -> [f64; 2] {
        ["successful", "failed"].map(|result| {
            let labels = [("container", container), ("namespace", self.name), ("pod", pod)];
            let labels = labels.into_iter().chain([("probe_type", kind), ("result", result)]);
            let labels: Vec<String> = labels.map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            let is_it = |line: &&str| {
                line.starts_with("prober_probe_total{") && labels.iter().all(|label| line.contains(label))
            };
            let counts =
                metrics.lines().filter(is_it).filter_map(|line| line.split(' ').next_back()?.parse::<f64>().ok());
            counts.sum()
        })
    }

    /// What came of a pod's probes, once each has come to something.
    fn probe_outcomes(&self, pod: &str, is_served: bool) -> Vec<Outcome> {
        let kinds: &[&str] = if is_served { &["Startup", "Liveness", "Readiness"] } else { &["Liveness", "Readiness"] };
        let mut counted = Vec::new();
        until(PATIENCE, || {
            let metrics = self
                .sh("kubectl get --raw /api/v1/$(kubectl get nodes -o name | sed s/node/nodes/)/proxy/metrics/probes");
            let count = |container| kinds.iter().map(move |kind| (container, *kind));
            let all = probes(is_served).flat_map(|(container, ..)| count(container));
            counted = all
                .map(|(container, kind)| (container, kind, self.probes_of(&metrics, pod, container, kind)))
                .collect();
            // A server may be asked before it listens.
            counted.iter().all(|(.., [successful, failed])| *successful > 0.0 || !is_served && *failed > 0.0)
        });
        let came = |container: &str| {
            let of = counted.iter().filter(|(of, ..)| *of == container);
            let outcomes: Vec<String> = of
                .map(|(_, kind, [successful, failed])| match (*successful > 0.0, *failed > 0.0) {
                    (true, _) if is_served => "succeeds".to_owned(),
                    (true, false) => "succeeds".to_owned(),
                    (false, true) => "fails".to_owned(),
                    _ => format!("{kind}: {successful} succeeded, {failed} failed"),
                })
                .collect();
            let is_one = outcomes.iter().all(|outcome| *outcome == outcomes[0]);
            if is_one { outcomes[0].clone() } else { outcomes.join(", ") }
        };
        let row = |(container, what, _)| {
            let (kinds, whether) = if is_served {
                ("startup, liveness and readiness", "")
            } else {
                ("liveness and readiness", "; nobody serves it")
            };
            let differs = if !is_served && ["tcp-listened", "tcp-named"].contains(&container) {
                "it is Envoy that takes the connection, so probe by http, grpc or exec"
            } else {
                ""
            };
            Outcome { name: format!("{kinds} by {what}{whether}"), came: came(container), differs, dropped: "" }
        };
        probes(is_served).map(row).collect()
    }

    /// A request through `kubectl port-forward`.
    fn forwarded(&self, port: u16) -> String {
        let workload = program("workload").display().to_string();
        self.sh(&format!(
            "coproc FORWARD {{ exec kubectl --context c1 -n {} port-forward pod/web-0 :{port}; }}
             read -r line <&${{FORWARD[0]}}
             port=${{line#*127.0.0.1:}}
             {workload} ask http://127.0.0.1:${{port%% *}}/
             kill $FORWARD_PID",
            self.name
        ))
    }

    /// A request by a container that is added to a pod that runs.
    fn debugged(&self) -> String {
        let (image, url) = (self.image, format!("http://back.{}.svc.cluster.local:8080/", self.name));
        self.sh(&format!(
            "kubectl debug caller --image {image} --container debug --profile general -- /workload ask-until {url}"
        ));
        let mut said = String::new();
        until(PATIENCE, || {
            said = self.sh("kubectl logs caller -c debug");
            said.starts_with("200")
        });
        said
    }

    /// Ends the pod of the hooks, and returns what its server was asked until it ended.
    fn stopped(&self) -> String {
        self.sh(&format!(
            "exec 3< <(exec kubectl --context c1 -n {} logs -f hooks -c app)
             read -r line <&3
             kubectl delete pod hooks --wait=false > /dev/null
             cat <&3",
            self.name
        ))
    }

    /// What comes of requests, the names of the cluster's DNS among them.
    fn requests(&self) -> Vec<Outcome> {
        let port = self.host_port.to_string();
        let [web, caller, host] = ["web-0", "caller", "host"].map(|pod| self.address(pod));
        let names =
            [("{ns}", self.name), ("{web}", &web), ("{caller}", &caller), ("{host}", &host), ("{host_port}", &port)];
        let ask = |(name, pod, url, differs): (&str, &str, &str, _)| {
            let url = names.iter().fold(url.to_owned(), |url, (name, value)| url.replace(name, value));
            let came = self.asks(pod, &format!("ask {url}"));
            Outcome { name: format!("a request {name}"), came, differs, dropped: "" }
        };
        let look_up = |transport: &str| {
            let came = self.asks("caller", &format!("dns {transport} web-0.web.{}.svc.cluster.local", self.name));
            Outcome { name: format!("DNS over {}", transport.to_uppercase()), came, differs: "", dropped: "" }
        };
        REQUESTS.into_iter().map(ask).chain(["udp", "tcp"].map(look_up)).collect()
    }

    /// The same, with what comes of them under `DROP_ALL`. The Mesh stays so.
    fn requests_dropped_too(&self) -> Vec<Outcome> {
        let mut outcomes = self.requests();
        let drop = json!({"spec": {"egressFilter": {"type": "DROP_ALL"}}});
        self.sh(&format!("kubectl patch mesh.appmesh.k8s.aws {} --type merge -p '{drop}'", self.name));
        let is_refused = |came: &str| came.starts_with("404") || !came.starts_with(char::is_numeric);
        let dropped = until(PATIENCE, || is_refused(&self.asks("caller", "ask http://unknown:8080/")));
        assert!(dropped, "DROP_ALL has no effect");
        for (outcome, dropped) in outcomes.iter_mut().zip(self.requests()) {
            outcome.dropped = if dropped.came == outcome.came { "the same" } else { "refused" };
            assert!(outcome.dropped == "the same" || is_refused(&dropped.came), "{}: {}", dropped.name, dropped.came);
        }
        outcomes
    }

    /// Tries all of it.
    fn outcomes(&self) -> Vec<Outcome> {
        // An Envoy is ready before it has heard of others' pods.
        assert_eq!(self.asks("caller", "ask-until http://back:8080/"), "200 hello");
        let probes = [self.probe_outcomes("probed", true), self.probe_outcomes("deaf", false)];
        let requests = if self.is_mesh { self.requests_dropped_too() } else { self.requests() };
        let mut outcomes = [probes.concat(), requests].concat();
        let mut add = |name: &str, came: String, differs| {
            outcomes.push(Outcome { name: name.to_owned(), came, differs, dropped: "" })
        };
        add("`kubectl port-forward` to a listener's port", self.forwarded(8080), "");
        add("`kubectl port-forward` to another port", self.forwarded(9090), "");
        let proxied = |of: &str| self.sh(&format!("kubectl get --raw /api/v1/namespaces/{}/{of}/proxy/", self.name));
        add("the API server's proxy to a listener's port of a pod", proxied("pods/web-0:8080"), "");
        add("the API server's proxy to another port of a pod", proxied("pods/web-0:9090"), "");
        add("the API server's proxy to a Service", proxied("services/unknown:http"), "");
        add("`kubectl exec`", self.asks("web-0", "ask http://localhost:8080/"), "");
        add("`kubectl logs`", self.sh("kubectl logs web-0 -c app | head -1"), "");
        add("`kubectl debug`, a request to a VirtualService", self.debugged(), "");
        add("an init container's request to a VirtualService", self.sh("kubectl logs hooks -c backend"), "");
        add("an init container's request to another port of a pod", self.sh("kubectl logs hooks -c pod"), "");
        let job =
            "kubectl wait job/job --for condition=Complete --timeout 120s > /dev/null; kubectl logs job/job -c app";
        add("a Job that ends after a request to a VirtualService", self.sh(job), "");
        let asked = self.stopped();
        for (hook, path) in [
            ("postStart by exec", "/exec"),
            ("postStart by http, a listener's port", "/start"),
            ("postStart by http, another port", "/beside"),
            ("preStop by http, a listener's port by its name", "/stop"),
        ] {
            let was_asked = asked.lines().any(|line| line == path);
            add(hook, if was_asked { "is called".to_owned() } else { format!("is not among {asked:?}") }, "");
        }
        outcomes
    }
}

fn probes(is_served: bool) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    PROBES.into_iter().filter(move |(container, ..)| is_served || *container != "exec")
}

#[test]
fn a_pod_does_in_the_mesh_what_it_did_outside() {
    let cloud = &Cloud::up("test-data-plane").unwrap();
    let json = cloud.state.join("json");
    let _none_yet = std::fs::remove_dir_all(&json);
    cloud.stdout(&make_of(cloud, "-j8 all CLUSTER1=c1 MESH_ONLY=yes")).unwrap();
    let [tool, workload] = ["ecr-push", "workload"].map(|name| program(name).display().to_string());
    let push = format!(
        "{tool} workload -n --cluster c1 --repository tests/workload --binary {workload} | jq -r .images.workload.uri"
    );
    let image = cloud.stdout(&push).unwrap().trim().to_owned();

    let namespace = |name, is_mesh, host_port| Namespace { cloud, name, image: &image, is_mesh, host_port };
    let [without, with] = thread::scope(|scope| {
        [namespace("plain", false, 18081), namespace("meshed", true, 18082)]
            .map(|namespace| {
                scope.spawn(move || {
                    namespace.fill();
                    namespace.outcomes()
                })
            })
            .map(|tried| tried.join().unwrap())
    });

    let (mut table, mut wrong) = (String::new(), Vec::new());
    assert_eq!(without.len(), with.len());
    for (without, with) in without.iter().zip(&with) {
        let (name, came, differs) = (&without.name, &without.came, without.differs);
        if (*came == with.came) != differs.is_empty() {
            wrong.push(format!("{name}: {came:?} without the mesh, {:?} in it", with.came));
        }
        let in_mesh = if differs.is_empty() { "the same".to_owned() } else { format!("{}: {differs}", with.came) };
        writeln!(table, "| {name} | {came} | {in_mesh} | {} |", with.dropped).unwrap();
    }
    assert!(wrong.is_empty(), "{}\n{table}", wrong.join("\n"));
    let docs = root().join("docs/data-plane.md");
    let text = std::fs::read_to_string(&docs).unwrap();
    let first = text.split(IN_A_CLUSTER).next().unwrap();
    snapbox::assert_data_eq!(
        format!("{first}{IN_A_CLUSTER}{DOCS}{table}"),
        snapbox::Data::read_from(&docs, None).raw()
    );
}
