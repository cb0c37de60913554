//! From a release of Amazon's chart to this one on a running cluster, back, and here again: requests go on being answered,
//! what Amazon's controller has registered is taken over, and its finalizers keep nothing.
//!
//! `tests/migration` has what is moved. One cloud serves the whole file. It needs Linux and root.

mod delivery;

use crate::aws_tools::region::until;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use tests::cloud::Cloud;
use tests::steps::make;
use tests::{program, root};

const KUBECTL: &str = "kubectl --context c1";
const HELM: &str = "helm --kube-context c1 -n appmesh-system";

/// Asks for as long as a file is there, over a connection for each request, as a client without a pool. Prints the number
/// of requests, and of those that were not answered by one of these words.
const LOAD: &str = "import os, sys, urllib.request
url, running, words = sys.argv[1:]
total = failed = 0
while os.path.exists(running) and total < 20000:
    total += 1
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            body = answer.read().decode()
            wrong = '' if body in words.split(',') else body
    except Exception as error:
        wrong = str(error)
    if wrong:
        failed += 1
        print(wrong, file=sys.stderr, flush=True)
print(total, failed)";

/// Requests that go on in the background.
struct Load {
    asking: Child,
    running: PathBuf,
}

impl Load {
    /// Stops asking; none of the requests may have failed.
    #[track_caller]
    #[expect(clippy::print_stdout, reason = "a test that says what it saw")]
    fn lost_nothing(self, during: &str) {
        std::fs::remove_file(&self.running).unwrap();
        let said = self.asking.wait_with_output().unwrap();
        let (counts, wrong) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        let counts: Vec<u32> = counts.split_whitespace().map(|count| count.parse().unwrap()).collect();
        assert!(
            counts.len() == 2 && counts[0] > 100 && counts[1] == 0,
            "{during}: requests and failed: {counts:?}: {wrong:.3000}"
        );
        println!("{during}: {} requests, none failed", counts[0]);
    }
}

struct Cluster {
    cloud: Cloud,
}

impl Cluster {
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        self.cloud.stdout(script).unwrap()
    }

    /// The file of a step of the flow.
    fn file(&self, step: &str) -> String {
        self.cloud.state.join("json/c1").join(step).with_extension("json").display().to_string()
    }

    /// What a document of the flow holds.
    fn json(&self, step: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.file(step)).unwrap()).unwrap()
    }

    /// Creates an object, as it was before anybody looked at it, and returns its uid.
    #[track_caller]
    fn create(&self, object: &str) -> String {
        let create = ["kubectl", "--context", "c1", "create", "-f", "-", "-o", "jsonpath={.metadata.uid}"];
        let output = self.cloud.run(create, object.as_bytes()).unwrap();
        assert!(output.status.success(), "{object}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn aws(&self, operation: &str, parameters: &Value) -> Value {
        self.cloud.aws("servicediscovery", operation, parameters).unwrap()
    }

    /// Addresses of the pods of an application that are there to stay.
    fn addresses(&self, app: &str) -> Vec<String> {
        let staying = ".items[] | select(.metadata.deletionTimestamp == null) | .status.podIP";
        let listed = self.sh(&format!("{KUBECTL} -n shop get pods -l app={app} -o json | jq -r '{staying}'"));
        listed.lines().map(str::to_owned).collect()
    }

    /// The instances of the back end's service, as (address, whether this controller has registered it).
    fn instances(&self, service: &str) -> Vec<(String, bool)> {
        let listed = self.aws("list_instances", &json!({"ServiceId": service}));
        let instance = |instance: &Value| {
            let ours = instance["Attributes"]["appmesh.k8s.aws/cluster"].is_string();
            (instance["Attributes"]["AWS_INSTANCE_IPV4"].as_str().unwrap_or_default().to_owned(), ours)
        };
        let mut all: Vec<_> = listed["Instances"].as_array().unwrap().iter().map(instance).collect();
        all.sort();
        all
    }

    /// Waits until the back end's service has its pods, registered by this controller, and nothing else.
    fn registered(&self, service: &str) {
        until("the back end's pods are registered, and nothing else", || {
            let mut pods: Vec<_> = self.addresses("back").into_iter().map(|address| (address, true)).collect();
            pods.sort();
            (pods.len() == 2 && self.instances(service) == pods).then_some(())
        });
    }

    /// What a mesh and its pods in a cluster of Amazon's controller look like; the id of the back end's Cloud Map service.
    fn as_amazon_left_it(&self) -> String {
        self.sh(&format!("{KUBECTL} apply --server-side -f charts/appmesh-controller/crds/crds.yaml"));
        let image =
            |name: &str| self.json(&format!("image-{name}"))["images"][name]["uri"].as_str().unwrap().to_owned();
        let mut text = std::fs::read_to_string(root().join("tests/migration/shop.yaml")).unwrap();
        text = text.replace("FRONT_IMAGE", &image("feapp")).replace("BACK_IMAGE", &image("colorapp"));
        let (mut mesh, mut gateway) = (String::new(), String::new());
        for object in text.split("---\n") {
            let references = object.replace("MESH_REF", &format!("{{name: shop, uid: {mesh}}}"));
            let references =
                references.replace("GATEWAY_REF", &format!("{{name: shop, namespace: shop, uid: {gateway}}}"));
            let uid = self.create(&references);
            match object.lines().find_map(|line| line.strip_prefix("kind: ")) {
                Some("Mesh") => mesh = uid,
                Some("VirtualGateway") => gateway = uid,
                _ => {}
            }
        }
        self.sh(&format!(
            "{KUBECTL} -n shop rollout status deployment/back && {KUBECTL} -n shop rollout status deployment/front"
        ));

        let namespace = &self.json("namespace")["namespace"]["id"];
        let dns = json!({"DnsRecords": [{"Type": "A", "TTL": 300}], "RoutingPolicy": "MULTIVALUE"});
        let made = self.aws("create_service", &json!({"Name": "back", "NamespaceId": namespace, "DnsConfig": dns}));
        let service = made["Service"]["Id"].as_str().unwrap().to_owned();
        // The last is of a pod that went when nobody looked.
        for address in self.addresses("back").iter().map(String::as_str).chain(["10.99.99.99"]) {
            let attributes = json!({
                "AWS_INSTANCE_IPV4": address,
                "AWS_INSTANCE_PORT": "8080",
                "k8s.io/namespace": "shop",
                "k8s.io/pod": format!("back-{}", address.replace('.', "-")),
                "appmesh.k8s.aws/mesh": "shop",
                "appmesh.k8s.aws/virtualNode": "back_shop",
            });
            self.aws(
                "register_instance",
                &json!({"ServiceId": service, "InstanceId": address, "Attributes": attributes}),
            );
        }
        until("three instances are there", || (self.instances(&service).len() == 3).then_some(()));

        let (repository, tag) = image("colorapp").rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        // Its image is named by a digest: REPOSITORY@sha256 and the rest.
        let values =
            format!("--set image.repository={repository} --set-string image.tag={tag} --set podLabels.team=mesh");
        self.sh(&format!("{HELM} install appmesh-controller tests/migration/amazon --create-namespace {values}"));
        service
    }

    /// The front end's URL.
    fn front(&self, namespace: &str) -> String {
        let name = "jsonpath={.status.loadBalancer.ingress[0].hostname}";
        let front = until("the front end has a name", || {
            let name = self.sh(&format!("{KUBECTL} -n {namespace} get service front -o '{name}'"));
            (!name.trim().is_empty()).then(|| name.trim().to_owned())
        });
        let url = format!("http://{front}:8080/color");
        self.sh(&format!("{} -n {url} --count 5 --expect red=1", program("color-probe").display()));
        url
    }

    /// Begins to ask; only these words, separated by commas, are right.
    fn load(&self, url: &str, words: &str) -> Load {
        let running = self.cloud.state.join("running");
        std::fs::write(&running, "").unwrap();
        let file = running.display().to_string();
        let mut asking = self.cloud.command(["python3", "-c", LOAD, url, file.as_str(), words]);
        let asking = asking.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Load { asking, running }
    }

    /// The conditions of the mesh's objects: `TYPE=STATUS`.
    fn conditions(&self) -> Vec<String> {
        let status = "{range .items[*].status.conditions[*]}{.type}={.status} {end}";
        let kinds = "meshes,virtualnodes,virtualrouters,virtualservices";
        let qualified: Vec<String> = kinds.split(',').map(|kind| format!("{kind}.appmesh.k8s.aws")).collect();
        let listed = self.sh(&format!("{KUBECTL} -n shop get {} -o jsonpath='{status}'", qualified.join(",")));
        listed.split_whitespace().map(str::to_owned).collect()
    }
}

#[test]
#[ignore = "minutes: make test-migration"]
fn from_amazons_release_and_back() {
    let cluster = Cluster { cloud: Cloud::up("test-migration").expect("localcloud") };
    let json = cluster.cloud.state.join("json");
    let _none_yet = std::fs::remove_dir_all(&json);
    let steps = ["role", "namespace", "image-appmesh-controller", "image-capture", "image-colorapp", "image-feapp"];
    let files = steps.map(|step| cluster.file(step));
    cluster.sh(&make(&cluster.cloud, &format!("-j8 {}", files.join(" "))));
    let service = cluster.as_amazon_left_it();
    let load = cluster.load(&cluster.front("shop"), "red");

    // By Helm: the same release, its values kept but for the images and the role.
    let role = cluster.json("role")["role"]["arn"].as_str().unwrap().to_owned();
    let image = |name: &str, value: &str| {
        let section = cluster.json(&format!("image-{name}"))["images"][name].take();
        let (repository, tag) = section["uri"].as_str().unwrap().rsplit_once(':').unwrap();
        format!("--set {value}.repository={repository} --set-string {value}.tag={tag}")
    };
    let values = [
        image("appmesh-controller", "image"),
        image("capture", "init.image"),
        "--set region=us-west-2 --set clusterName=c1 --set podLabels.team=mesh".to_owned(),
        format!("--set serviceAccount.annotations.'eks\\.amazonaws\\.com/role-arn'={role}"),
    ];
    let upgrade = format!("{HELM} upgrade appmesh-controller charts/appmesh-controller --wait {}", values.join(" "));
    cluster.sh(&upgrade);
    cluster.registered(&service);
    until("every object is taken over", || {
        let conditions = cluster.conditions();
        (conditions.len() >= 5 && conditions.iter().all(|condition| condition.ends_with("=True"))).then_some(())
    });

    // Callers first: an Envoy whose configuration stands still never hears of new pods.
    let restart = |app: &str| {
        let rollout = format!("{KUBECTL} -n shop rollout");
        cluster.sh(&format!("{rollout} restart deployment/{app} && {rollout} status deployment/{app} --timeout=180s"));
    };
    restart("front");
    restart("back");
    let sidecars = ".items[].spec.initContainers[].name";
    let names = cluster.sh(&format!("{KUBECTL} -n shop get pods -l app=front -o json | jq -r '{sidecars}'"));
    assert!(names.contains("envoy"), "{names}");
    cluster.registered(&service);

    // Back: Amazon's release as it was, which Helm keeps. Pods go on with the Envoys that they have.
    cluster.sh(&format!("{HELM} rollback appmesh-controller 1 --wait"));
    let webhooks = cluster.sh(&format!("{KUBECTL} get mutatingwebhookconfigurations -o name"));
    assert!(webhooks.contains("appmesh-controller-mutating-webhook-configuration"), "{webhooks}");
    assert!(!webhooks.contains("appmesh-controller-webhook\n"), "{webhooks}");

    // And here again, by appmesh-install, which makes sure of the definitions, too.
    let input = ["role", "image-appmesh-controller", "image-capture", "namespace"].map(|step| cluster.file(step));
    let install = format!(
        "cat {} | {} --chart charts/appmesh-controller --image image=appmesh-controller --image init.image=capture \
         --set podLabels.team=mesh",
        input.join(" "),
        program("appmesh-install").display()
    );
    let refused = cluster.cloud.sh(&install).unwrap();
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    cluster.sh(&format!("{install} --adopt"));
    restart("front");
    restart("back");
    cluster.registered(&service);

    load.lost_nothing("from Amazon's controller and back");

    // Nothing that Amazon's controller left keeps an object: all seven kinds go.
    cluster.sh(&format!(
        "{KUBECTL} delete namespace shop --timeout=60s; {KUBECTL} delete mesh.appmesh.k8s.aws shop --timeout=60s"
    ));

    delivery::flagger(&cluster);
    delivery::argo_rollouts(&cluster);
}
