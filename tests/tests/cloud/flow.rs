//! The whole flow in the local cloud: two real clusters, images really pushed and pulled, real Envoys.
//!
//! One cloud serves the whole file, so this is one test whose steps build on each other, as a user's would. It needs
//! Linux and root, as the local cloud does.

mod diagnosis;
mod mutual_tls;

use crate::aws_tools::region::until;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use tests::cloud::{Cloud, writes};
use tests::steps::make;
use tests::{error, program, root};

/// A local cloud, and where the flow leaves its documents.
struct Flow {
    cloud: Cloud,
    build: PathBuf,
}

impl Flow {
    fn new() -> Self {
        let cloud = Cloud::up("test-flow").expect("localcloud");
        let build = cloud.state.join("json");
        let _none_yet = std::fs::remove_dir_all(&build);
        Self { cloud, build }
    }

    #[track_caller]
    fn sh(&self, script: &str) -> String {
        self.cloud.stdout(script).unwrap()
    }

    /// What make said.
    #[track_caller]
    fn make(&self, goals: &str) -> String {
        self.sh(&make(&self.cloud, goals))
    }

    fn tool(name: &str) -> String {
        program(name).display().to_string()
    }

    fn json(&self, cluster: &str, step: &str) -> Value {
        let file = self.build.join(cluster).join(format!("{step}.json"));
        serde_json::from_slice(&std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
            .unwrap()
    }

    /// Calls AWS behind the tools' back.
    fn aws(&self, call: &str) {
        let python = self.cloud.python().expect("cloud.json");
        let answer = self.sh(&format!("{} tests/aws/call.py <<< '{call}'", python.display()));
        assert!(answer.starts_with(r#"{"answer""#), "{answer}");
    }

    fn account(&self) -> Value {
        let python = self.cloud.python().expect("cloud.json");
        serde_json::from_str(&self.sh(&format!("{} tests/flow/account.py", python.display()))).unwrap()
    }

    /// Every Kubernetes object the flow touches, with its resourceVersion.
    fn objects(&self) -> String {
        let kinds = "ns,sa,deploy,svc,secret,cm,clusterrole,clusterrolebinding,role,rolebinding,crd,\
                     mutatingwebhookconfigurations,validatingwebhookconfigurations,\
                     meshes.appmesh.k8s.aws,virtualnodes.appmesh.k8s.aws,virtualservices.appmesh.k8s.aws,virtualrouters.appmesh.k8s.aws,\
                     virtualgateways.appmesh.k8s.aws,gatewayroutes.appmesh.k8s.aws";
        let columns = "KIND:.kind,NS:.metadata.namespace,NAME:.metadata.name,RV:.metadata.resourceVersion";
        let get =
            |cluster| format!("kubectl --context {cluster} get {kinds} -A --no-headers -o custom-columns={columns}");
        self.sh(&format!("{}; {}", get("c1"), get("c2")))
    }

    /// The calls that write which the gateway has logged after its first `from` lines, whoever made them, and the
    /// number of lines now.
    fn writes_since(&self, from: usize) -> (Vec<String>, usize) {
        let calls = self.cloud.calls().expect("the gateway's log");
        (writes(&calls[from..]), calls.len())
    }
}

#[test]
fn the_tutorial_from_nothing_to_red_and_blue_and_back() {
    let flow = Flow::new();
    // Another pair's namespace of the same name, of a type that needs no VPC: nothing here may take it for ours.
    flow.aws(r#"["servicediscovery", "create_http_namespace", {"Name": "svc2.svc.local"}]"#);
    until("there is a namespace", || flow.account()["namespaces"].as_array().filter(|all| !all.is_empty()).map(drop));
    let before = flow.account();

    // The plan of an empty account names all that is made below, and what nobody can know yet; it makes nothing.
    let plan = flow.make("-j8 plan");
    assert_eq!(flow.account(), before);
    for unknown in
        ["namespace.id", "ingress.rules[0].id", "apps.colorapp.virtualServices.colorapp", "apps.feapp.endpoint"]
    {
        let marked = |line: &str| line.contains(unknown) && line.ends_with(" (known after apply)");
        assert!(plan.lines().any(marked), "{unknown} is not marked: {plan}");
    }
    let planned: BTreeSet<&str> = plan.lines().filter_map(|line| Some(line.split_once("would ")?.1)).collect();
    assert!(plan.lines().any(|line| line.starts_with("55 to add, 0 to change, 0 to remove")), "{plan}");

    // Everything but the security group rule: the front end is there and cannot reach the back end.
    let (feapp, colorapp) = (flow.build.join("c1/feapp.json"), flow.build.join("c2/colorapp.json"));
    let mut made = flow.make(&format!("-j8 {} {}", feapp.display(), colorapp.display()));
    let gate = "{.items[*].status.conditions[?(@.type==\"conditions.appmesh.k8s.aws/aws-cloudmap-healthy\")].status}";
    let gates = flow.sh(&format!("kubectl --context c2 -n k8multi get pods -o jsonpath='{gate}'"));
    assert_eq!(gates, "True True", "pods are ready once they are registered");
    let probe =
        format!("{} --count 20 --expect red=1,blue=1 --timeout 60s < {}", Flow::tool("color-probe"), feapp.display());
    let closed = flow.cloud.sh(&probe).unwrap();
    let refusal = error(&String::from_utf8_lossy(&closed.stderr));
    assert_eq!(closed.status.code(), Some(1), "{refusal}");
    assert!(refusal.to_string().contains("upstream connect error"), "Envoy's answer is quoted: {refusal}");
    assert!(refusal["hint"].as_str().unwrap_or_default().contains("sg-open"), "{refusal}");

    // With it: red and blue, evenly.
    made += &flow.make("-j8 all");
    let unmade: Vec<_> = planned.iter().filter(|change| !made.contains(*change)).collect();
    assert!(unmade.is_empty(), "planned, but not made: {unmade:?}");
    let probe = &flow.json("c1", "probe")["probe"];
    let (red, blue) = (probe["tallies"]["red"].as_u64(), probe["tallies"]["blue"].as_u64());
    assert_eq!(red.zip(blue).map(|(red, blue)| red + blue), Some(200), "{probe}");

    // Asserting everything again changes nothing, neither in AWS nor in the clusters.
    let (objects, (writes, calls)) = (flow.objects(), flow.writes_since(0));
    assert!(writes.iter().any(|write| write == "iam:CreateRole"), "the log tells writes from reads: {writes:?}");
    let sections = |step| ["c1", "c2"].map(|cluster| flow.json(cluster, step)[step].take());
    let (roles, meshes) = (sections("role"), sections("mesh"));
    flow.make("-B -j8 all");
    assert_eq!(flow.writes_since(calls).0, Vec::<String>::new());
    let plan = flow.make("-j8 plan");
    assert!(plan.ends_with("\n0 to add, 0 to change, 0 to remove\n"), "{plan}");
    assert_eq!(flow.objects(), objects);
    assert_eq!((sections("role"), sections("mesh")), (roles, meshes));

    // What was done is not done again, but for other settings, or a cluster that is another one than it was under its name.
    let again = flow.make("-j8 all");
    assert!(again.contains("c2  oidc-assoc  nothing to do") && !again.contains("appmesh-install"), "{again}");
    for other in ["PROJECT=other", "POLICIES=ReadOnlyAccess"] {
        let again = flow.make(&format!("-n joined {other}"));
        let left = ["irsa-role", "ecr-push", "appmesh-install"].map(|tool| again.contains(&Flow::tool(tool)));
        assert_eq!(left, [true; 3], "{again}");
    }
    let (facts, oidc) = (flow.build.join("c2/oidc.json"), flow.json("c2", "oidc"));
    let mut another = oidc.clone();
    another["cluster"]["endpoint"] = json!("https://deleted.gr7.us-west-2.eks.amazonaws.com");
    std::fs::write(&facts, another.to_string()).unwrap();
    let again = flow.make("-j8 all");
    assert!(again.contains("c2  appmesh-install  nothing to do"), "{again}");
    assert!(!again.contains("c1  ecr-push"), "{again}");
    assert_eq!(flow.json("c2", "oidc"), oidc);

    // No document and no log holds a secret: whatever is read here is searched for them.
    for cluster in ["c1", "c2"] {
        let logs = flow.sh(&format!(
            "kubectl --context {cluster} -n appmesh-system logs -l app.kubernetes.io/name=appmesh-controller --tail=-1"
        ));
        assert!(logs.contains("ready webhook="), "{logs}");
        flow.sh(&format!("cat {}/*.json", flow.build.join(cluster).display()));
    }
    assert!(flow.cloud.sh("env").is_err(), "the search finds what is there");

    // Tools on their own, in a pipe.
    let (oidc, role) = (Flow::tool("oidc-assoc"), Flow::tool("irsa-role"));
    let arn = flow.json("c1", "role")["role"]["arn"].as_str().unwrap().to_owned();
    let piped =
        format!(r#"printf '{{"cluster":{{"name":"c1","region":"us-west-2"}}}}' | {oidc} | {role} | jq -r .role.arn"#);
    assert_eq!(flow.sh(&piped).trim(), arn);
    assert_eq!(flow.sh(&format!("{oidc} -n --cluster c1 | {role} | jq -r .role.arn")).trim(), arn);

    // The tutorial's own manifests have bare words in place of images.
    let prefix = flow.json("c2", "image-colorapp")["images"]["colorapp"]["repository"]
        .as_str()
        .unwrap()
        .replace("/colorapp", "");
    let digest = flow.json("c2", "image-colorapp")["images"]["colorapp"]["digest"].as_str().unwrap().to_owned();
    let bare = flow.build.join("bare.yaml");
    let text = std::fs::read_to_string(root().join("manifests/colorapp.yaml")).unwrap();
    std::fs::write(&bare, text.replace("{{ images.colorapp.uri }}", &format!("ECR_IMAGE_PREFIX/colorapp@{digest}")))
        .unwrap();
    let apply =
        format!("{} colorapp --file {} --set ECR_IMAGE_PREFIX={prefix}", Flow::tool("manifest-apply"), bare.display());
    let applied = flow.cloud.sh(&format!("{apply} < {}", flow.build.join("c2/colorapp.json").display())).unwrap();
    let said = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(applied.status.success() && said.contains("nothing to do"), "{said}");

    diagnosis::finds_nothing(&flow);
    diagnosis::tells_what_is_not_published(&flow);
    mutual_tls::is_demanded_and_kept(&flow);

    // And back to what was, as planned: twice, for the second time finds nothing.
    let plan = flow.make("-j8 plan-destroy");
    assert!(plan.contains("\n0 to add, 0 to change, 51 to remove\n"), "{plan}");
    diagnosis::names_what_is_broken(&flow);
    let gone = flow.make("-j8 destroy");
    assert!(gone.ends_with("\nnothing is left\n"), "{gone}");
    assert_eq!(flow.account(), before);
    flow.make("-j8 destroy");
    assert_eq!(flow.account(), before);
}
