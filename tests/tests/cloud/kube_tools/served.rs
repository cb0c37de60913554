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
    // Each asks until the answers come: an Envoy looks a name up every five seconds, each on its own.
    let answers = |url: &str, sampled: &str, color: &str| {
        clusters.done(&format!("color-probe -n {url} -H x-b3-sampled:{sampled} --count 10 --expect {color}=1"), "");
    };
    answers(&front, "1", "blue");
    answers(&front, "0", "red");

    let kubectl = "kubectl --context c1 -n served";
    let address = "jsonpath={.status.loadBalancer.ingress[0].hostname}";
    let gateway = format!("http://{}", clusters.sh(&format!("{kubectl} get svc ingress -o '{address}'")).trim());
    answers(&format!("{gateway}/shop/color"), "0", "red");
    // The target's own routes decide.
    answers(&format!("{gateway}/direct"), "1", "blue");
    answers(&format!("{gateway}/direct"), "0", "red");
    clusters
        .exits(1, &format!("color-probe -n {gateway}/other"), "")
        .tells("no GatewayRoute of VirtualGateway ingress_served");

    // Envoy writes its log every ten seconds.
    for line in ["GET /color HTTP/1.1. 200", "GET / HTTP/1.1. 200"] {
        clusters.sh(&format!("grep -m 1 '{line}' <(timeout 60 {kubectl} logs -f deploy/front -c envoy)"));
    }
    assert!(!clusters.sh(&format!("{kubectl} logs deploy/red -c envoy")).contains("HTTP/1.1\""), "nobody asked for it");
    clusters.done(&format!("{apply} --delete"), &made.document);
}
