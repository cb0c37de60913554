//! Mutual TLS across the two clusters, as `docs/tls.md` has it.

use super::Flow;
use crate::aws_tools::region::until;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tests::error;

/// Red and blue answer by their weights over mutual TLS, with certificates in a Secret of either cluster. A caller without
/// TLS or without a certificate is refused, and a back end of another name.
pub fn is_demanded_and_kept(flow: &Flow) {
    const FRONT: &str = "front.svc2.svc.local";
    const COLORAPP: &str = "colorapp.svc2.svc.local";
    let kubectl = |cluster: &str, command: &str| format!("kubectl --context {cluster} -n k8multi {command}");
    let patch = |cluster: &str, objects: &str, kind: &str, patch: &Value| {
        kubectl(cluster, &format!("patch {objects} --type {kind} -p '{patch}'"))
    };
    let authority = Authority::new();
    let secret = |cluster: &str, name: &str| {
        let folder = authority.issue(name, &flow.cloud.state.join("certificates"));
        kubectl(cluster, &format!("create secret generic certificates --from-file {}", folder.display()))
    };
    let certificate = json!({"file": {"certificateChain": "/certs/tls.crt", "privateKey": "/certs/tls.key"}});
    let demand = |name: &str| {
        let names = json!({"match": {"exact": [name]}});
        json!({"trust": {"file": {"certificateChain": "/certs/ca.crt"}}, "subjectAlternativeNames": names})
    };
    let listener = json!({"mode": "STRICT", "certificate": certificate, "validation": demand(FRONT)});
    let listener = json!([{"op": "add", "path": "/spec/listeners/0/tls", "value": listener}]);
    let policy = |name: &str| {
        let tls = json!({"certificate": certificate, "validation": demand(name)});
        let defaults = json!({"backendDefaults": {"clientPolicy": {"tls": tls}}});
        patch("c1", "virtualnodes.appmesh.k8s.aws front", "merge", &json!({"spec": defaults}))
    };
    let weight = |red: u32| {
        let path = "/spec/routes/0/httpRoute/action/weightedTargets/0/weight";
        let replace = json!([{"op": "replace", "path": path, "value": red}]);
        patch("c2", "virtualrouters.appmesh.k8s.aws colorapp-router", "json", &replace)
    };
    let mounts = json!({"annotations": {"appmesh.k8s.aws/secretMounts": "certificates:/certs"}});
    let front = json!({"spec": {"template": {"metadata": mounts}}});
    // The kubelet's own requests are plaintext, and show no certificate.
    let probe = json!({"httpGet": null, "tcpSocket": {"port": 8080}});
    let container = json!({"name": "colorapp", "readinessProbe": probe, "livenessProbe": probe});
    let back = json!({"spec": {"template": {"metadata": mounts, "spec": {"containers": [container]}}}});

    let newest = |cluster: &str, label: &str| {
        let pods = kubectl(cluster, &format!("get pods -l {label} --sort-by .metadata.creationTimestamp"));
        flow.sh(&format!("{pods} -o name | tail -1")).trim().replace("pod/", "")
    };
    // The API server asks a pod, as anybody might who is no part of the mesh.
    let from_outside = |scheme: &str| {
        let pod = newest("c2", "version=red");
        let path = format!("/api/v1/namespaces/k8multi/pods/{scheme}:{pod}:8080/proxy/ping");
        let output = flow.cloud.sh(&kubectl("c2", &format!("get --raw {path}"))).unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let ask = |expect: &str, patience: &str| {
        let feapp = flow.build.join("c1/feapp.json");
        let probe = format!("{} --count 100 --expect {expect} --timeout {patience}", Flow::tool("color-probe"));
        flow.cloud.sh(&format!("{probe} < {}", feapp.display())).unwrap()
    };
    let spread = |expect: &str| {
        until(expect, || ask(expect, "5s").status.success().then_some(()));
    };
    assert_eq!(from_outside("http"), "Pong");

    let rollout = |cluster: &str, deployment: &str| {
        kubectl(cluster, &format!("rollout status deploy/{deployment} --timeout=180s"))
    };
    let two = [
        secret("c2", COLORAPP),
        patch("c2", "virtualnodes.appmesh.k8s.aws colorapp-red colorapp-blue", "json", &listener),
        patch("c2", "deployments colorapp-red colorapp-blue", "strategic", &back),
        rollout("c2", "colorapp-red"),
        rollout("c2", "colorapp-blue"),
    ];
    let one = [
        secret("c1", FRONT),
        policy(COLORAPP),
        patch("c1", "deployments front", "strategic", &front),
        rollout("c1", "front"),
    ];
    flow.sh(&format!("{{ {}; }} & {}; wait $!", two.join("; "), one.join("; ")));
    spread("red=1,blue=1");
    flow.sh(&weight(3));
    spread("red=3,blue=1");
    for (scheme, refusal) in [("http", "EOF"), ("https", "tls: certificate required")] {
        until(refusal, || from_outside(scheme).contains(refusal).then_some(()));
    }

    flow.sh(&policy("another.svc2.svc.local"));
    until("another name is refused", || {
        let answer = error(&String::from_utf8(ask("red=1,blue=1", "1s").stderr).unwrap()).to_string();
        let stats = "9901/proxy/stats?usedonly&filter=ssl.fail_verify_san";
        let path = format!("/api/v1/namespaces/k8multi/pods/{}:{stats}", newest("c1", "app=front"));
        let refused = flow.sh(&kubectl("c1", &format!("get --raw '{path}'")));
        let both = refused.contains("_colorapp-red_") && refused.contains("_colorapp-blue_");
        (both && answer.contains("reset reason: remote connection failure")).then_some(())
    });
    flow.sh(&format!("{}; {}", policy(COLORAPP), weight(1)));
    spread("red=1,blue=1");
    // A namespace that holds what others made is left alone.
    flow.sh(&["c1", "c2"].map(|cluster| kubectl(cluster, "delete secret certificates")).join("; "));
}

/// A certificate authority that the clusters share.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Any but the name of the certificates, which would count as self-signed.
        params.distinguished_name.push(DnType::CommonName, "authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate for a name, and what belongs to it, into a folder of its own.
    fn issue(&self, name: &str, folder: &Path) -> PathBuf {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (file, content) in
            [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", self.0.pem())]
        {
            std::fs::write(folder.join(file), content).unwrap();
        }
        folder
    }
}
