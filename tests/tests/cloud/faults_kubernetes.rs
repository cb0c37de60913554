//! Kubernetes misbehaves: the tool's error says which object and why, in words from the cluster, within its timeout; and
//! once the trouble is over, the same command ends well.

use serde_json::json;
use std::collections::BTreeSet;
use tests::cloud::Cloud;
use tests::error;
use tests::report::Row;
use tests::steps::{self, EVER, Step};

/// Something that does not work, and what the last error must say of it.
struct Stuck {
    what: &'static str,
    manifest: &'static str,
    told: &'static [&'static str],
}

const STUCK: [Stuck; 4] = [
    Stuck {
        what: "image pull refused",
        manifest: r#"{apiVersion: apps/v1, kind: Deployment, metadata: {name: stuck}, spec: {selector: {matchLabels: {app: stuck}},
            template: {metadata: {labels: {app: stuck}}, spec: {containers: [{name: app,
            image: "123456789012.dkr.ecr.us-west-2.amazonaws.com/nobody/none:v1"}]}}}}"#,
        told: &["Deployment default/stuck", "nobody/none:v1", "not found"],
    },
    Stuck {
        what: "a Deployment that does not start",
        manifest: r#"{apiVersion: apps/v1, kind: Deployment, metadata: {name: stuck}, spec: {selector: {matchLabels: {app: stuck}},
            template: {metadata: {labels: {app: stuck}}, spec: {containers: [{name: app,
            image: "registry.k8s.io/pause:3.10", command: [/nothing]}]}}}}"#,
        told: &["Deployment default/stuck", "container app", "/nothing", "no such file"],
    },
    Stuck {
        what: "a Deployment that crashes",
        manifest: r#"{apiVersion: apps/v1, kind: Deployment, metadata: {name: stuck}, spec: {selector: {matchLabels: {app: stuck}},
            template: {metadata: {labels: {app: stuck}}, spec: {containers: [{name: app, image: "docker.io/envoyproxy/envoy:v1.40.0",
            command: [/usr/local/bin/envoy, --config-path, /nothing], readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}}]}}}}"#,
        told: &["Deployment default/stuck", "container app crashed", "exit code 1", "its log ends: ", "/nothing"],
    },
    Stuck {
        what: "a load balancer that never gets its name",
        manifest: r#"{apiVersion: v1, kind: Service, metadata: {name: stuck}, spec: {type: LoadBalancer,
            loadBalancerClass: example.com/nobody, selector: {app: stuck}, ports: [{port: 80}]}}"#,
        told: &["Service default/stuck", "no load balancer of class example.com/nobody yet"],
    },
];

#[test]
#[ignore = "minutes: make test-faults"]
fn kubernetes_misbehaves() {
    let cloud = Cloud::up("test-faults-kubernetes").unwrap();
    let shop = cloud.state.join("shop.yaml");
    std::fs::write(&shop, steps::SHOP).unwrap();
    let mut rows = Vec::new();
    for stuck in STUCK {
        let mut row = Row::new(format!("Kubernetes: {}", stuck.what));
        let file = cloud.state.join("stuck.yaml");
        std::fs::write(&file, stuck.manifest).unwrap();
        let apply = format!("manifest-apply stuck -n --cluster c1 --file {}", file.display());
        row.tells(gives_up(&cloud, &format!("{apply} --timeout 30s"), stuck.told));
        row.converges(done(&cloud, &format!("{apply} --delete")));
        rows.push(row);
    }
    rows.push(held_by_a_finalizer(&cloud));
    rows.push(webhook_that_does_not_answer(&cloud));
    rows.push(api_server_restarted(&cloud));
    rows.push(node_not_ready(&cloud));
    let wrong: Vec<_> = rows.iter().filter_map(|row| row.keep().err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every call of a run of manifest-apply, refused or broken off: it ends well or names the object. Reads meet one of the
/// four troubles by turns, writes all of them.
#[test]
#[ignore = "minutes: make test-faults"]
fn every_call_of_manifest_apply() {
    let cloud = &Cloud::up("test-faults-kubernetes-calls").unwrap();
    let mut row =
        Row::new("every Kubernetes call of manifest-apply: 429, 500, 503 once, reset after it was carried out");
    let families = steps::kubernetes(cloud).unwrap();
    let family = families.iter().find(|family| family.tool == "manifest-apply").unwrap();
    for case in &family.cases {
        let clean = family.clean(cloud, case, false).unwrap();
        let calls: BTreeSet<&String> = clean.calls.iter().collect();
        for (turn, call) in calls.into_iter().enumerate() {
            let refused = |status, code| json!({"kind": "error", "status": status, "code": code});
            let troubles = [
                json!({"kind": "throttle"}),
                refused(500, "InternalError"),
                refused(503, "ServiceUnavailable"),
                json!({"kind": "reset"}),
            ];
            let reads = call.contains(":GET ");
            for (_, rule) in troubles.iter().enumerate().filter(|(number, _)| !reads || *number == turn % 4) {
                case.prepare(cloud).unwrap();
                let mut on = family.rule(rule.clone(), false);
                on["action"] = json!([call]);
                let fault = cloud.fault(&on).unwrap();
                let output = case.step.run(cloud).unwrap();
                let struck = !fault.struck().is_empty();
                drop(fault);
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                let outcome = match output.status.code() {
                    _ if !struck => Err("nothing happened to it".to_owned()),
                    Some(0) => {
                        family.same(cloud, &String::from_utf8_lossy(&output.stdout), &clean).map_err(|e| e.to_string())
                    }
                    Some(5) => case
                        .step
                        .done(cloud)
                        .and_then(|made| family.same(cloud, &made, &clean))
                        .map_err(|e| e.to_string()),
                    _ => Err(stderr.clone()),
                };
                let outcome = outcome.map_err(|wrong| format!("{}: {call} {rule}: {wrong}", case.told(family)));
                if output.status.success() { row.converges(outcome) } else { row.tells(outcome) }
            }
        }
        // Whoever never gets an answer says so, within the timeout.
        let first =
            family.rule(json!({"kind": "error", "status": 503, "code": "ServiceUnavailable", "times": EVER}), true);
        case.prepare(cloud).unwrap();
        let fault = cloud.fault(&first).unwrap();
        row.tells(gives_up(cloud, &format!("{} --timeout 5s", case.step.command), &["a fault of the local cloud"]));
        drop(fault);
        case.prepare(cloud).unwrap();
    }
    row.keep().unwrap();
}

fn held_by_a_finalizer(cloud: &Cloud) -> Row {
    let mut row = Row::new("Kubernetes: a finalizer that hangs");
    let file = cloud.state.join("held.yaml");
    let held = "{apiVersion: v1, kind: ConfigMap, metadata: {name: held, namespace: default, finalizers: [example.com/nobody]}}";
    std::fs::write(&file, held).unwrap();
    let apply = format!("manifest-apply held -n --cluster c1 --file {}", file.display());
    row.converges(done(cloud, &apply));
    let told = ["the end of ConfigMap default/held", "held by example.com/nobody"];
    row.tells(gives_up(cloud, &format!("{apply} --delete --timeout 5s"), &told));
    let patch = r#"[{"op": "remove", "path": "/metadata/finalizers"}]"#;
    cloud.stdout(&format!("kubectl --context c1 patch cm held --type json -p '{patch}'")).unwrap();
    row.converges(done(cloud, &format!("{apply} --delete")));
    row
}

fn webhook_that_does_not_answer(cloud: &Cloud) -> Row {
    let mut row = Row::new("Kubernetes: a webhook that does not answer");
    let mut document = steps::controller(cloud).unwrap();
    let install =
        "appmesh-install --chart charts/appmesh-controller --image image=appmesh-controller --image init.image=capture";
    let install = |document: &str, more: &str| Step::new(format!("{install}{more}"), document);
    document = install(&document, "").done(cloud).unwrap();
    let file = cloud.state.join("mesh.yaml");
    let mesh = "{apiVersion: appmesh.k8s.aws/v1beta2, kind: Mesh, metadata: {name: shop}, spec: {namespaceSelector: {matchLabels: {mesh: shop}}}}";
    std::fs::write(&file, mesh).unwrap();
    let apply = format!("manifest-apply mesh -n --cluster c1 --file {}", file.display());
    let scale = |replicas| {
        cloud
            .stdout(&format!("kubectl --context c1 -n appmesh-system scale deploy --all --replicas {replicas}"))
            .unwrap();
    };
    scale(0);
    cloud.stdout("kubectl --context c1 -n appmesh-system wait pod --all --for delete --timeout 60s").unwrap();
    row.tells(gives_up(cloud, &format!("{apply} --timeout 15s"), &["Mesh shop", "failed calling webhook"]));
    let silent = install(&document, " --timeout 15s").run(cloud).unwrap();
    // The installer itself sees that and puts it right: replicas are the chart's.
    row.converges(
        silent.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&silent.stderr).into_owned()),
    );
    scale(2);
    row.converges(install(&document, "").done(cloud).map(drop).map_err(|error| error.to_string()));
    row.converges(done(cloud, &apply));
    row.converges(done(cloud, &format!("{apply} --delete")));
    row.converges(done(cloud, "appmesh-install -n --cluster c1 --chart charts/appmesh-controller --delete"));
    row
}

fn api_server_restarted(cloud: &Cloud) -> Row {
    let mut row = Row::new("Kubernetes: API server killed during manifest-apply");
    let file = cloud.state.join("shop.yaml");
    let apply = format!("manifest-apply shop -n --cluster c1 --file {}", file.display());
    for line in 1..=5 {
        done(cloud, &format!("{apply} --delete")).unwrap();
        let step = Step::new(apply.clone(), "");
        let words: Vec<String> = step.words().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let mut running = cloud.start(["bash", "-c", &format!("exec {} 2>&1", words.join(" "))], b"").unwrap();
        let reached = running.reads(line);
        cloud.stdout(&format!("kill -KILL {}", cloud.pid("c1-apiserver").unwrap())).unwrap();
        let output = running.finish().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let well = reached && (output.status.success() || output.status.code() == Some(5));
        cloud.stdout("until kubectl --context c1 get --raw /readyz > /dev/null 2>&1; do :; done").unwrap();
        let outcome = well.then_some(()).ok_or(said).and_then(|()| done(cloud, &apply));
        if output.status.success() { row.converges(outcome) } else { row.tells(outcome) }
    }
    done(cloud, &format!("{apply} --delete")).unwrap();
    row
}

fn node_not_ready(cloud: &Cloud) -> Row {
    let mut row = Row::new("Kubernetes: a node that is not ready");
    let kubelet = cloud.pid("c1-kubelet").unwrap();
    let apply = format!("manifest-apply shop -n --cluster c1 --file {}", cloud.state.join("shop.yaml").display());
    let ready = |condition| format!("kubectl --context c1 wait node --all --for condition={condition} --timeout 180s");
    cloud.stdout(&format!("kill -STOP {kubelet}; {}", ready("Ready=Unknown"))).unwrap();
    let told = ["Deployment shop/web", "not scheduled: 0/1 nodes are available", "untolerated taint"];
    row.tells(gives_up(cloud, &format!("{apply} --timeout 20s"), &told));
    cloud.stdout(&format!("kill -CONT {kubelet}; {}", ready("Ready"))).unwrap();
    row.converges(done(cloud, &apply));
    row.converges(done(cloud, &format!("{apply} --delete")));
    row
}

/// The command ends with exit code 5 and these words in its last error, or says how not.
fn gives_up(cloud: &Cloud, command: &str, told: &[&str]) -> Result<(), String> {
    let output = Step::new(command, "").run(cloud).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let error = error(&stderr).to_string();
    let right = output.status.code() == Some(5) && told.iter().all(|word| error.contains(word));
    right.then_some(()).ok_or_else(|| format!("{command}: {}: {stderr}", output.status))
}

fn done(cloud: &Cloud, command: &str) -> Result<(), String> {
    Step::new(command, "").done(cloud).map(drop).map_err(|error| error.to_string())
}
