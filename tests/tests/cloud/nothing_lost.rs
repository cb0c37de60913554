//! A constant load on the mesh of two clusters while pods, controllers and what they need come and go: no request fails.
//!
//! `tests/nothing-lost` has what is applied: in cluster 1 a load on the front end, which asks the back end in cluster 2, and
//! in cluster 2 a load on the back end itself. The figures are left in `bench/results/nothing-lost.json`. One cloud serves the
//! whole file. It needs Linux and root.

use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};
use tests::cloud::Cloud;
use tests::faults::until;
use tests::steps::make_of;
use tests::{program, root};

/// Requests a second of each of the two loads.
const RATE: u64 = 400;
/// What comes of an event is counted for so many seconds of requests after it.
const AFTERWARDS: u64 = 15;
/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Seconds that a container of the back end goes on after it is told to end, as `docs/your-app.md` asks for: until callers
/// have heard of it, and until those have that look up the name of a headless Service.
const HEARD: u64 = 5;
const HEARD_BY_DNS: u64 = 15;
const LIFECYCLE: &str = "/spec/template/spec/containers/0/lifecycle";
const CLUSTERS: [&str; 2] = ["c1", "c2"];

/// What a load has counted since it started.
struct Counts {
    requests: u64,
    failed: u64,
    /// Milliseconds of the slowest answer since the counts were asked for at once.
    slowest: u64,
    /// When and why.
    failures: Vec<String>,
}

struct Mesh {
    cloud: Cloud,
    rows: Vec<Value>,
    wrong: Vec<String>,
}

impl Mesh {
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        self.cloud.stdout(script).unwrap().trim().to_owned()
    }

    /// kubectl in one of the two namespaces that matter.
    #[track_caller]
    fn shop(&self, cluster: &str, command: &str) -> String {
        self.sh(&format!("kubectl --context {cluster} -n shop {command}"))
    }

    #[track_caller]
    fn system(&self, cluster: &str, command: &str) -> String {
        self.sh(&format!("kubectl --context {cluster} -n appmesh-system {command}"))
    }

    /// What the load of a cluster has counted, once there were so many requests and its API server can be asked.
    fn counts(&self, cluster: &str, at_least: Option<u64>) -> Counts {
        let at_least = at_least.map(|requests| requests.to_string()).unwrap_or_default();
        let path = format!("/api/v1/namespaces/shop/services/load:9000/proxy/{at_least}");
        let ask = format!("kubectl --context {cluster} get --raw {path}");
        let mut said = Err(String::new());
        until(PATIENCE, || {
            let answer = self.cloud.sh(&ask).unwrap();
            said = serde_json::from_slice::<Value>(&answer.stdout)
                .map_err(|_| String::from_utf8_lossy(&answer.stderr).into_owned());
            said.is_ok()
        });
        let said = said.unwrap();
        let count = |name: &str| said[name].as_u64().unwrap();
        let failures = said["failures"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
        Counts {
            requests: count("requests"),
            failed: count("failed"),
            slowest: count("slowest"),
            failures: failures.collect(),
        }
    }

    /// What the loads count meanwhile, and for so many more requests.
    fn counted(&self, more: u64, act: impl FnOnce(&Self)) -> [Counts; 2] {
        let before = CLUSTERS.map(|cluster| self.counts(cluster, None));
        act(self);
        let meanwhile = CLUSTERS.map(|cluster| self.counts(cluster, Some(0)).requests);
        [0, 1].map(|load| {
            let after = self.counts(CLUSTERS[load], Some(meanwhile[load] + more));
            Counts {
                requests: after.requests - before[load].requests,
                failed: after.failed - before[load].failed,
                slowest: after.slowest,
                failures: after.failures[before[load].failures.len()..].to_vec(),
            }
        })
    }

    /// Lets an event happen under load.
    #[expect(clippy::print_stdout, reason = "a test that says what it saw")]
    fn during(&mut self, event: &str, act: impl FnOnce(&Self)) {
        let started = Instant::now();
        let counted = self.counted(RATE * AFTERWARDS, act);
        let seconds = started.elapsed().as_secs_f64();
        let mut row = json!({"event": event, "seconds": seconds.round()});
        for (load, counts) in ["across", "within"].into_iter().zip(&counted) {
            let Counts { requests, failed, slowest, failures } = counts;
            let first: Vec<&String> = failures.iter().take(10).collect();
            row[load] = json!({"requests": requests, "failed": failed, "slowest_ms": slowest, "first_failures": first});
            println!(
                "{event}, {load}: {requests} requests in {seconds:.0} s, {failed} failed, the slowest took {slowest} ms"
            );
            if *failed > 0 {
                println!("  {:.2000}", failures.join("\n  "));
                self.wrong.push(format!("{event}, {load}: {failed} of {requests} failed"));
            }
        }
        self.rows.push(row);
    }

    /// Waits until a Deployment has the pods that it should have and no others.
    fn settled(&self, cluster: &str, deployment: &str) {
        self.shop(cluster, &format!("rollout status deployment/{deployment} --timeout 300s"));
        let gone = until(PATIENCE, || {
            let pods = self.shop(cluster, &format!("get pods -l app={deployment} -o name"));
            let wanted = self.shop(cluster, &format!("get deployment {deployment} -o jsonpath='{{.spec.replicas}}'"));
            pods.lines().count().to_string() == wanted
        });
        assert!(gone, "pods of {deployment} do not end");
    }

    fn rollout(&self, cluster: &str, deployment: &str) {
        self.shop(cluster, &format!("rollout restart deployment/{deployment}"));
        self.settled(cluster, deployment);
    }

    fn scale(&self, replicas: u32) {
        self.shop("c2", &format!("scale deployment/back --replicas {replicas}"));
        self.settled("c2", "back");
    }

    fn patch(&self, cluster: &str, deployment: &str, patch: &Value) {
        self.shop(cluster, &format!("patch deployment {deployment} --type json -p '[{patch}]'"));
        self.settled(cluster, deployment);
    }

    fn without_pre_stop(&self, cluster: &str, deployment: &str) {
        self.patch(cluster, deployment, &json!({"op": "remove", "path": LIFECYCLE}));
    }

    fn with_pre_stop(&self, cluster: &str, deployment: &str, seconds: u64) {
        let hook = json!({"preStop": {"sleep": {"seconds": seconds}}});
        self.patch(cluster, deployment, &json!({"op": "add", "path": LIFECYCLE, "value": hook}));
    }

    /// Lets the load within cluster 2 call this VirtualService of the back end.
    fn calls(&self, service: &str) {
        let url = format!("http://{service}.shop.svc.cluster.local:8080/");
        let path = "/spec/template/spec/containers/0/args/1";
        self.patch("c2", "load", &json!({"op": "replace", "path": path, "value": url}));
        self.steady();
    }

    /// Waits until no request fails while nothing happens: an Envoy is ready before it has heard of the pods of the other
    /// cluster.
    fn steady(&self) {
        let steady = until(PATIENCE, || self.counted(RATE, |_| {}).iter().all(|counts| counts.failed == 0));
        assert!(steady, "requests fail while nothing happens");
    }

    fn controllers_rolled_out(&self) {
        for cluster in CLUSTERS {
            self.system(cluster, "rollout restart deployment/appmesh-controller");
            self.system(cluster, "rollout status deployment/appmesh-controller --timeout 300s");
        }
    }

    fn leader(&self, cluster: &str) -> String {
        self.system(cluster, "get lease appmesh-controller-leader-election -o jsonpath='{.spec.holderIdentity}'")
    }

    fn leaders_killed(&self) {
        for cluster in CLUSTERS {
            let leader = self.leader(cluster);
            self.system(cluster, &format!("delete pod {leader} --grace-period 0 --force"));
            let another = until(PATIENCE, || ![leader.as_str(), ""].contains(&self.leader(cluster).as_str()));
            assert!(another, "no other replica leads in {cluster}");
            self.system(cluster, "rollout status deployment/appmesh-controller --timeout 300s");
        }
    }

    fn api_servers_killed(&self) {
        let pids = CLUSTERS.map(|cluster| self.cloud.pid(&format!("{cluster}-apiserver")).unwrap().to_string());
        self.sh(&format!("kill -KILL {}", pids.join(" ")));
        for cluster in CLUSTERS {
            self.sh(&format!("until kubectl --context {cluster} get --raw /readyz > /dev/null 2>&1; do :; done"));
        }
    }

    fn certificates_rotated(&self) {
        let uid = "get secret appmesh-controller-certificate --ignore-not-found -o jsonpath='{.metadata.uid}'";
        for cluster in CLUSTERS {
            let before = self.system(cluster, uid);
            self.system(cluster, "delete secret appmesh-controller-certificate");
            let anew = until(PATIENCE, || ![before.as_str(), ""].contains(&self.system(cluster, uid).as_str()));
            assert!(anew, "no new certificate in {cluster}");
        }
    }

    /// As `docs/upgrading.md` has it: appmesh-install with another wish.
    fn upgraded(&self) {
        for cluster in CLUSTERS {
            let document = self.cloud.state.join("json").join(cluster).join("mesh.json");
            let install = program("appmesh-install");
            let (document, install) = (document.display(), install.display());
            self.sh(&format!("jq '.mesh.values.log.level = \"debug\"' {document} | {install} > /dev/null"));
        }
    }

    /// Ends one of the back end's pods, with these options of kubectl.
    fn pod_deleted(&self, options: &str) {
        let pod = self.shop("c2", "get pods -l app=back -o jsonpath='{.items[0].metadata.name}'");
        self.shop("c2", &format!("delete pod {pod} {options}"));
    }

    /// All APIs of AWS hang, as those of a region that cannot be reached, while something is done and until a load has then
    /// made so many requests.
    fn aws_out_of_reach(&self, requests: u64, act: impl FnOnce(&Self)) {
        let aws = self.cloud.pid("aws").unwrap();
        self.sh(&format!("kill -STOP {aws}"));
        act(self);
        let before = self.counts("c1", Some(0)).requests;
        self.counts("c1", Some(before + requests));
        self.sh(&format!("kill -CONT {aws}"));
    }

    /// Leaves the figures for `bench/tables.py`.
    fn report(&self) {
        let date = Command::new("date").args(["-u", "+%F"]).output().unwrap();
        let date = String::from_utf8(date.stdout).unwrap().trim().to_owned();
        let cores = std::thread::available_parallelism().unwrap().get();
        let result = json!({"date": date, "cores": cores, "rate": RATE, "rows": self.rows});
        let text = serde_json::to_string_pretty(&result).unwrap() + "\n";
        std::fs::write(root().join("bench/results/nothing-lost.json"), text).unwrap();
    }
}

/// The applications, with the rate of the loads filled in.
fn applications(cloud: &Cloud) -> String {
    let file = |name: &str| {
        let text = std::fs::read_to_string(root().join("tests/nothing-lost").join(name)).unwrap();
        let file = cloud.state.join(name);
        std::fs::write(&file, text.replace("RATE", &format!("\"{RATE}\""))).unwrap();
        file.display().to_string()
    };
    let (one, two) = (file("shop.yaml.j2"), file("stock.yaml.j2"));
    format!("CLUSTER1=c1 CLUSTER2=c2 APP1={one} APP2={two} IMAGES1='feapp workload' IMAGES2='colorapp workload'")
}

#[test]
#[ignore = "minutes: make test-nothing-lost"]
fn nothing_is_lost() {
    let cloud = Cloud::up("test-nothing-lost").unwrap();
    let _none_yet = std::fs::remove_dir_all(cloud.state.join("json"));
    cloud.stdout(&make_of(&cloud, &format!("-j8 all {}", applications(&cloud)))).unwrap();
    let mut mesh = Mesh { cloud, rows: Vec::new(), wrong: Vec::new() };
    mesh.steady();

    mesh.during("nothing", |_| {});
    mesh.during("rollout of the back end, two pods", |mesh| mesh.rollout("c2", "back"));
    mesh.during("rollout of the front end, two pods", |mesh| mesh.rollout("c1", "front"));
    mesh.during("the back end from two pods to four", |mesh| mesh.scale(4));
    mesh.during("the back end from four pods to two", |mesh| mesh.scale(2));
    mesh.during("rollout of the controllers", Mesh::controllers_rolled_out);
    mesh.during("the controllers that lead killed", Mesh::leaders_killed);
    mesh.during("the API servers killed", Mesh::api_servers_killed);
    mesh.during("the controllers' certificates deleted", Mesh::certificates_rotated);
    mesh.during("rollout of the controllers with new certificates", Mesh::controllers_rolled_out);
    mesh.during("upgrade of the controllers", Mesh::upgraded);
    mesh.during("AWS out of reach for two minutes", |mesh| mesh.aws_out_of_reach(RATE * 120, |_| {}));
    mesh.during("rollout of the back end after that", |mesh| mesh.rollout("c2", "back"));
    mesh.during("one of two pods of the back end killed", |mesh| {
        mesh.pod_deleted("--grace-period 0 --force");
        mesh.settled("c2", "back");
    });
    mesh.during("one of two pods of the back end ends while AWS is out of reach", |mesh| {
        mesh.aws_out_of_reach(RATE * 30, |mesh| mesh.pod_deleted(""));
        mesh.settled("c2", "back");
    });

    // From now on the load within cluster 2 finds the back end by DNS.
    mesh.calls("back-service");
    mesh.during("rollout of the back end, in the cluster found by a Service's name", |mesh| mesh.rollout("c2", "back"));
    mesh.calls("back-headless");
    mesh.with_pre_stop("c2", "back", HEARD_BY_DNS);
    let headless = "rollout of the back end, in the cluster found by a headless Service's name";
    let headless = format!("{headless}, preStop of {HEARD_BY_DNS} seconds");
    mesh.during(&headless, |mesh| mesh.rollout("c2", "back"));
    mesh.calls("back");

    mesh.without_pre_stop("c2", "back");
    mesh.during("rollout of the back end, two pods without preStop", |mesh| mesh.rollout("c2", "back"));
    mesh.without_pre_stop("c1", "front");
    mesh.during("rollout of the front end, two pods without preStop", |mesh| mesh.rollout("c1", "front"));
    mesh.with_pre_stop("c2", "back", HEARD);
    mesh.scale(1);
    mesh.during("rollout of the back end, one pod", |mesh| mesh.rollout("c2", "back"));
    mesh.without_pre_stop("c2", "back");
    mesh.during("rollout of the back end, one pod without preStop", |mesh| mesh.rollout("c2", "back"));

    mesh.report();
    assert!(mesh.wrong.is_empty(), "{}", mesh.wrong.join("\n"));
}
