//! App Mesh as people have it in one cluster, served by the controller: what each field does, and what is written down.

use super::clusters::Clusters;
use serde_json::Value;
use tests::{program, root};

/// In cluster 1, where the controller is.
pub fn by_the_controller(clusters: &Clusters) {
    let push = |name: &str| {
        let binary = program(name).display().to_string();
        let push = format!("ecr-push {name} -n --cluster c1 --repository served/{name} --binary {binary}");
        clusters.done(&push, "").document
    };
    let images = [push("colorapp"), push("feapp")].concat();
    let file = root().join("tests/tests/cloud/kube_tools/served.yaml").display().to_string();
    let apply = format!("manifest-apply served --file {file} --template");
    let made = clusters.done(&apply, &images);
    clusters.steady("manifest-apply served", &made.document);

    let document: Value = serde_json::from_str(&made.document).unwrap();
    let front = format!("{}/color", document["apps"]["served"]["endpoint"].as_str().unwrap());
    clusters.done(&format!("color-probe -n {front} --count 10 --expect red=1"), "");
    let ask = |url: &str, sampled: &str| {
        let asked = format!("Request('{url}', headers={{'x-b3-sampled': '{sampled}'}})");
        let program = format!("from urllib.request import *; print(urlopen({asked}).read().decode())");
        clusters.sh(&format!(r#"python3 -c "{program}" 2>&1 || true"#))
    };
    assert_eq!(ask(&front, "1").trim(), "blue");
    assert_eq!(ask(&front, "0").trim(), "red");

    let kubectl = "kubectl --context c1 -n served";
    let address = "jsonpath={.status.loadBalancer.ingress[0].hostname}";
    let gateway = format!("http://{}", clusters.sh(&format!("{kubectl} get svc ingress -o '{address}'")).trim());
    clusters.done(&format!("color-probe -n {gateway}/shop/color --count 10 --expect red=1"), "");
    assert_eq!(ask(&format!("{gateway}/direct"), "1").trim(), "blue", "the target's own routes decide");
    assert_eq!(ask(&format!("{gateway}/direct"), "0").trim(), "red");
    assert!(ask(&format!("{gateway}/other"), "0").contains("HTTP Error 404"));

    // Envoy writes its log every ten seconds.
    for line in ["GET /color HTTP/1.1. 200", "GET / HTTP/1.1. 200"] {
        clusters.sh(&format!("grep -m 1 '{line}' <(timeout 60 {kubectl} logs -f deploy/front -c envoy)"));
    }
    assert!(!clusters.sh(&format!("{kubectl} logs deploy/red -c envoy")).contains("HTTP/1.1\""), "nobody asked for it");
    clusters.done(&format!("{apply} --delete"), &made.document);
}
