//! appmesh-install in cluster 1: a chart from everywhere, killed half way, drifted, deleted, and in the way of others.

use super::clusters::{Clusters, Conflict, Drift, Scope};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tests::{program, root, said};

const SCOPE: Scope<'_> = Scope {
    cluster: "c1",
    get: &[
        "-n appmesh-system sa,svc,deploy,pdb,role,rolebinding",
        "clusterrole/appmesh-controller clusterrolebinding/appmesh-controller ns/appmesh-system",
        "mutatingwebhookconfigurations,validatingwebhookconfigurations",
        "crd/meshes.appmesh.k8s.aws crd/virtualnodes.appmesh.k8s.aws crd/virtualrouters.appmesh.k8s.aws crd/virtualservices.appmesh.k8s.aws \
         crd/backendgroups.appmesh.k8s.aws crd/virtualgateways.appmesh.k8s.aws crd/gatewayroutes.appmesh.k8s.aws",
    ],
};
const IMAGES: &str = "--image image=appmesh-controller --image init.image=capture";
const REGISTRY: &str = "123456789012.dkr.ecr.us-west-2.amazonaws.com";

/// What the tests go on from.
pub struct Installed {
    /// The document that appmesh-install wrote.
    document: String,
    /// What it read: role and images.
    input: String,
    /// The command with a chart, without `--plan` and the like.
    command: String,
}

/// Copies our chart with another version and with some of its files changed; the folder.
fn chart(clusters: &Clusters, version: &str, change: impl Fn(&str, String) -> String) -> String {
    fn copy(clusters: &Clusters, from: &Path, to: &str, change: &dyn Fn(&str, String) -> String) {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().display().to_string();
            let to = format!("{to}/{name}");
            if path.is_dir() {
                copy(clusters, &path, &to, change);
            } else {
                clusters.file(&to, &change(&name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let to = format!("chart-{version}");
    copy(clusters, &root().join("charts/appmesh-controller"), &to, &|file, text| match file {
        "Chart.yaml" => text.replace("version: 0.1.0", &format!("version: {version}")),
        file => change(file, text),
    });
    clusters.path(&to)
}

/// The chart as it was in an older version: other definitions, and what Amazon's has and ours has not: no readiness
/// probe, and templates that come out otherwise each time, as those with a certificate in them.
fn older(file: &str, text: String) -> String {
    let random = r#"{apiVersion: v1, kind: ConfigMap, metadata: {name: random}, data: {a: "{{ randAlphaNum 9 }}"}}"#;
    match file {
        "crds.yaml" => text.replace("The App Mesh name of this Mesh", "The ARN of this Mesh"),
        "deployment.yaml" => {
            let (before, probe) = text.split_once("          readinessProbe:").unwrap();
            let (_, after) = probe.split_once("          livenessProbe:").unwrap();
            format!("{before}          livenessProbe:{after}")
        }
        "services.yaml" => format!("{text}\n---\n{random}\n"),
        _ => text,
    }
}

/// Installed by a run that was killed, recovered, brought up to date from every kind of place.
pub fn installed(clusters: &Clusters) -> Installed {
    let role = clusters.done("irsa-role", &clusters.done("oidc-assoc -n --cluster c1", "").document).document;
    let push = |name: &str| {
        let binary = program(name).display().to_string();
        clusters
            .done(&format!("ecr-push {name} -n --cluster c1 --repository kube/{name} --binary {binary}"), "")
            .document
    };
    let input = [role, push("appmesh-controller"), push("capture")].concat();
    let folder = root().join("charts/appmesh-controller").display().to_string();
    helm_is_there(clusters, &input, &folder);

    // A cluster role of the controller's name that is somebody else's. What was made before Helm saw it is named.
    clusters.sh("kubectl --context c1 create clusterrole appmesh-controller --verb=get --resource=pods");
    let refused = clusters.exits(4, &format!("appmesh-install {IMAGES} --chart {folder}"), &input);
    let error = refused.error();
    assert!(error.to_string().contains(r#"ClusterRole \"appmesh-controller\""#), "{error}");
    assert!(error["hint"].as_str().unwrap_or_default().starts_with("--adopt takes them over"), "{error}");
    assert!(error["left"].as_array().is_some_and(|left| left.contains(&json!("Namespace appmesh-system"))), "{error}");
    assert_eq!(
        clusters.sh("kubectl --context c1 get clusterrole appmesh-controller -o jsonpath={.rules[*].resources}"),
        r#"["pods"]"#
    );

    // Helm waits for a hook that never ends, and is killed.
    let hook = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hook", "annotations": {"helm.sh/hook": "pre-install,pre-upgrade"}},
        "spec": {"containers": [{"name": "pause", "image": super::manifest_apply::PAUSE}], "restartPolicy": "Never"},
    });
    let hooked = chart(clusters, "0.0.8", |file, text| match file {
        "services.yaml" => format!("{}\n---\n{hook}\n", older(file, text)),
        file => older(file, text),
    });
    let input_file = clusters.file("input.json", &input);
    let killed = |command: &str, pending: &str, victims: &str| {
        let all = "kubectl --context c1 -n appmesh-system get secret -o name -l owner=helm,status";
        clusters.sh(&format!(
            "set +e; {command} < {input_file} > killed.out 2> killed.err & tool=$!\n\
             until [ -n \"$({all}={pending})\" ]; do kill -0 $tool || {{ cat killed.err; exit 9; }}; done\n\
             helm=$(pgrep -x -P $tool helm); kill -9 {victims}; wait $tool; echo $?; cat killed.err"
        ))
    };
    let first = format!("appmesh-install {IMAGES} --chart {hooked} --adopt");
    let said = killed(&first, "pending-install", "$helm");
    assert!(said.starts_with("5\n") && said.contains("helm was ended by signal 9"), "{said}");
    let again = format!("appmesh-install {IMAGES} --chart {} --adopt", served(clusters));
    let plan = clusters.done(&format!("{again} --plan --chart-version 0.0.9"), &input);
    assert_eq!(
        plan.would()[..1],
        ["recover release appmesh-controller: revision 1 was left pending-install"],
        "{}",
        plan.stderr
    );
    let old = clusters.done(&format!("{again} --chart-version 0.0.9"), &input);
    clusters.steady("appmesh-install", &old.document);
    assert_eq!(serde_json::from_str::<Value>(&old.document).unwrap()["mesh"]["version"], "0.0.9");

    // The tool itself is killed, and Helm with it, while it upgrades.
    clusters.sh("kubectl --context c1 -n appmesh-system delete pod hook --now --ignore-not-found");
    let said = killed(&format!("appmesh-install {IMAGES} --chart {hooked}"), "pending-upgrade", "$tool $helm");
    assert!(said.starts_with("137\n"), "{said}");
    clusters.sh("kubectl --context c1 -n appmesh-system delete pod hook --now --ignore-not-found");

    // From the repository, in the version that is the default there; definitions as well as templates are newer.
    let command = format!("appmesh-install {IMAGES} --chart https://aws.github.io/eks-charts");
    let plan = clusters.done(&format!("{command} --plan"), &old.document);
    let expected = [
        "configure CustomResourceDefinition meshes.appmesh.k8s.aws: spec.versions[0].additionalPrinterColumns[2].description \
         The ARN of this Mesh → The App Mesh name of this Mesh",
        "recover release appmesh-controller: revision 2 was left pending-upgrade",
    ];
    assert_eq!(plan.would()[..2], expected, "{}", plan.stderr);
    assert!(plan.would()[2].starts_with("upgrade release appmesh-controller: revision 2 is pending-upgrade, chart appmesh-controller 0.0.8 → appmesh-controller 1.13.3"), "{}", plan.stderr);
    let document = clusters.done(&command, &old.document).document;
    clusters.steady("appmesh-install", &document);

    // The same chart from elsewhere changes nothing but where it comes from.
    let oci = format!("oci://{REGISTRY}/charts/appmesh-controller --chart-version 1.13.3");
    let (charts, new) = (clusters.charts(), chart(clusters, "1.13.3", |_, text| text));
    for chart in [oci, format!("{charts}/appmesh-controller-1.13.3.tgz"), new] {
        let before = clusters.versions(&SCOPE);
        let command = format!("appmesh-install --chart {chart}");
        let same = clusters.done(&command, &document);
        same.tells("nothing to do");
        assert_eq!(clusters.versions(&SCOPE), before, "{chart}");
        clusters.steady("appmesh-install", &same.document);
        let mesh = |document: &str| serde_json::from_str::<Value>(document).unwrap()["mesh"].take();
        let (mut from, mut to) = (mesh(&document), mesh(&same.document));
        assert_eq!(to["chart"].take(), chart.split(' ').next().unwrap());
        from["chart"].take();
        assert_eq!(to, from);
    }
    let none = "appmesh-install --chart https://aws.github.io/eks-charts --chart-version 9.9.9";
    clusters.exits(1, none, &document).tells("9.9.9");
    let command = format!("appmesh-install {IMAGES} --chart {charts}/appmesh-controller-1.13.3.tgz");
    Installed { document: clusters.done(&command, &document).document, input, command }
}

/// No Helm, or one that is too old: one clear error.
fn helm_is_there(clusters: &Clusters, input: &str, folder: &str) {
    let tool = program("appmesh-install").display().to_string();
    let hint = "install Helm 3.14 or newer, or 4: https://helm.sh/docs/intro/install";
    // All that is asked of a Helm that is too old is its version.
    let old = clusters.file("old/helm", "#!/bin/sh\necho v3.13.3\n");
    clusters.sh(&format!("chmod +x {old}"));
    for (path, message) in
        [("/nowhere", "helm is not in PATH"), (old.trim_end_matches("/helm"), "helm v3.13.3 is too old")]
    {
        let refused = clusters.exits(1, &format!("/usr/bin/env PATH={path} {tool} --chart {folder}"), input).error();
        assert!(refused.to_string().contains(message), "{refused}");
        assert_eq!(refused["hint"], hint);
    }
}

/// Two versions of the chart in the repository, and in a registry: `0.0.9` with older definitions, and the newest of
/// Amazon's. What `--chart` takes for the registry.
fn served(clusters: &Clusters) -> String {
    let (old, new) = (chart(clusters, "0.0.9", older), chart(clusters, "1.13.3", |_, text| text));
    clusters.aws("ecr", "create_repository", &json!({"repositoryName": "charts/appmesh-controller"}));
    let token = clusters.aws("ecr", "get_authorization_token", &json!({}));
    let token = token["authorizationData"][0]["authorizationToken"].as_str().unwrap().to_owned();
    clusters.sh(&format!(
        "helm package {old} {new} -d ../charts; helm repo index ../charts\n\
         base64 -d <<< {token} | cut -d: -f2 | helm registry login --username AWS --password-stdin {REGISTRY}\n\
         for chart in ../charts/*.tgz; do helm push $chart oci://{REGISTRY}/charts; done"
    ));
    format!("oci://{REGISTRY}/charts/appmesh-controller")
}

/// An object that admission did not see, as those that Amazon's controller left: its condition names what makes no sense.
pub fn there_before(clusters: &Clusters, mesh: &Installed) {
    let kubectl = "kubectl --context c1";
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "before", "labels": {"mesh": "before"}}});
    let theirs = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "metadata": {"name": "before"},
        "spec": {"namespaceSelector": {"matchLabels": {"mesh": "before"}}}});
    let service = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "VirtualService",
        "metadata": {"name": "service", "namespace": "before"}, "spec": {"provider": {}}});
    let file = clusters.manifest("before", &[namespace, theirs, service]);
    let invalid = "spec.provider: needs one of virtualNode and virtualRouter";
    clusters.sh(&format!(
        "{kubectl} delete validatingwebhookconfiguration appmesh-controller-webhook\n\
         until {kubectl} apply -f {file}; do :; done\n\
         {kubectl} -n before wait virtualservice/service --timeout 60s \
           --for jsonpath='{{.status.conditions[?(@.reason==\"Invalid\")].message}}'='{invalid}'"
    ));
    clusters.done(&mesh.command, &mesh.input);
    let patched = |object: &str, spec: &str| {
        let patch = format!("{{\"spec\": {spec}}}");
        clusters.sh(&format!("{kubectl} -n before patch {object} --type merge -p '{patch}' 2>&1 || true"))
    };
    let refused = patched("virtualservice service", r#"{"provider": {"virtualNode": {}, "virtualRouter": {}}}"#);
    assert!(refused.contains(invalid), "{refused}");
    // What App Mesh's API does not have is taken, as it was by Amazon's controller.
    let taken = patched("mesh before", r#"{"colour": "red"}"#);
    assert!(taken.contains("mesh.appmesh.k8s.aws/before patched"), "{taken}");
    assert!(taken.contains(r#"unknown field "spec.colour""#), "{taken}");
    clusters.sh(&format!("{kubectl} delete -f {file}"));
}

/// Changed by hand.
pub fn drift(clusters: &Clusters, mesh: &Installed) {
    let kubectl = "kubectl --context c1 -n appmesh-system";
    let rollout = format!("{kubectl} rollout status deploy appmesh-controller");
    let wait = "wait for the controller";
    let release = "upgrade release appmesh-controller";
    let removed = r#"[{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/egressFilter"}]"#;
    let cases = [
        Drift {
            hand: &format!(
                "helm --kube-context c1 -n appmesh-system upgrade appmesh-controller ../charts/appmesh-controller-1.13.3.tgz --reuse-values --set log.level=debug; {rollout}"
            ),
            would: &[&format!(r#"{release}: values.log {{"level":"debug"}} → none"#), wait],
            touches: &["Deployment appmesh-controller"],
        },
        // An upgrade to a chart of the same version with another default.
        Drift {
            hand: &format!(
                "cp -r chart-1.13.3 other; sed -i 's/^replicaCount: 2/replicaCount: 3/' other/values.yaml\n\
                 helm --kube-context c1 -n appmesh-system upgrade appmesh-controller other --reset-then-reuse-values; {rollout}"
            ),
            would: &[&format!("{release}: revision …"), wait],
            touches: &["Deployment appmesh-controller"],
        },
        Drift {
            hand: &format!("kubectl --context c1 patch crd meshes.appmesh.k8s.aws --type json -p '{removed}'"),
            would: &[
                "configure CustomResourceDefinition meshes.appmesh.k8s.aws: spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.egressFilter none → …",
                wait,
            ],
            touches: &["CustomResourceDefinition meshes.appmesh.k8s.aws"],
        },
        Drift {
            hand: &format!(
                "{kubectl} annotate sa appmesh-controller --overwrite eks.amazonaws.com/role-arn=arn:aws:iam::123456789012:role/theirs"
            ),
            would: &[
                "configure ServiceAccount appmesh-system/appmesh-controller: metadata.annotations.eks.amazonaws.com/role-arn \
                      arn:aws:iam::123456789012:role/theirs → arn:aws:iam::123456789012:role/c1-appmesh-controller",
                wait,
            ],
            touches: &["ServiceAccount appmesh-controller"],
        },
        Drift {
            hand: &format!("{kubectl} scale deploy appmesh-controller --replicas=3; {rollout}"),
            would: &[
                &format!("{release}: configure Deployment appmesh-system/appmesh-controller: spec.replicas 3 → 2"),
                wait,
            ],
            touches: &["Deployment appmesh-controller"],
        },
        Drift {
            hand: &format!("{kubectl} delete svc appmesh-controller-xds"),
            would: &[&format!("{release}: create Service appmesh-system/appmesh-controller-xds"), wait],
            touches: &["Service appmesh-controller-xds"],
        },
        Drift {
            hand: "kubectl --context c1 delete mutatingwebhookconfiguration appmesh-controller-webhook",
            would: &[
                &format!("{release}: create MutatingWebhookConfiguration appmesh-controller-webhook"),
                "wait for the controller: no webhook fills in the awsName of a Mesh",
            ],
            touches: &["MutatingWebhookConfiguration appmesh-controller-webhook"],
        },
    ];
    clusters.drifts(&SCOPE, "appmesh-install", &mesh.document, &cases);
}

/// The controller mends what becomes of its certificate, and the authority stays.
pub fn certificate(clusters: &Clusters) {
    let kubectl = "kubectl --context c1 -n appmesh-system";
    let get = format!("{kubectl} get secret appmesh-controller-certificate -o jsonpath=");
    let held = || clusters.sh(&format!("{get}{{.data}}"));
    let before = held();
    clusters.sh(&format!("{kubectl} delete secret appmesh-controller-certificate; until {get}{{.kind}}; do :; done"));
    assert_eq!(held(), before);

    let authority = clusters.sh(&format!("{get}'{{.data.ca\\.crt}}'"));
    for kind in ["mutating", "validating"] {
        let trusted = format!(
            "{kubectl} get {kind}webhookconfiguration appmesh-controller-webhook -o jsonpath='{{.webhooks[0].clientConfig.caBundle}}'"
        );
        assert_eq!(clusters.sh(&trusted), authority);
        let remove = r#"[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]"#;
        clusters.sh(&format!(
            "{kubectl} patch {kind}webhookconfiguration appmesh-controller-webhook --type json -p '{remove}'\n\
             until [ -n \"$({trusted})\" ]; do :; done"
        ));
        assert_eq!(clusters.sh(&trusted), authority);
    }

    let broken = r#"{"data": {"tls.crt": "bm9uZQ==", "ca.crt": "bm9uZQ==", "ca.key": null}}"#;
    let certificate = format!("{get}'{{.data.tls\\.crt}}'");
    clusters.sh(&format!(
        "{kubectl} patch secret appmesh-controller-certificate -p '{broken}'\n\
         until [ \"$({certificate})\" != bm9uZQ== ]; do :; done"
    ));
    assert_eq!(held(), before);
}

/// A definition that somebody has deleted together with the controller, which alone lets its objects go.
pub fn without_controller(clusters: &Clusters, mesh: &Installed) {
    let kubectl = "kubectl --context c1";
    let held = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "metadata": {"name": "held"},
        "spec": {"namespaceSelector": {"matchLabels": {"mesh": "held"}}}});
    clusters.sh(&format!(
        "{kubectl} create -f - <<< '{held}'\n\
         {kubectl} wait mesh/held --for jsonpath={{.metadata.finalizers}} --timeout 60s\n\
         helm --kube-context c1 -n appmesh-system uninstall appmesh-controller --wait\n\
         {kubectl} delete crd meshes.appmesh.k8s.aws --wait=false"
    ));
    let made = clusters.done(&mesh.command, &mesh.input);
    made.tells("create CustomResourceDefinition meshes.appmesh.k8s.aws");
    assert_eq!(clusters.sh(&format!("{kubectl} get meshes -o name")), "");
    clusters.steady("appmesh-install", &made.document);
}

/// Only ours, with what is left and why.
pub fn deleted(clusters: &Clusters, mesh: &Installed) {
    let kubectl = "kubectl --context c1";
    let theirs = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "metadata": {"name": "theirs"},
        "spec": {"namespaceSelector": {"matchLabels": {"mesh": "theirs"}}}});
    clusters.sh(&format!("{kubectl} -n appmesh-system create cm theirs; {kubectl} create -f - <<< '{theirs}'"));
    let delete = "appmesh-install --delete";

    // Their Mesh has a finalizer that only the controller removes.
    let before = clusters.versions(&SCOPE);
    for command in [format!("{delete} --plan"), delete.to_owned()] {
        let error = clusters.exits(4, &command, &mesh.document).error();
        assert_eq!(error["message"], "release appmesh-controller still serves Mesh theirs");
        assert!(error["hint"].as_str().unwrap_or_default().contains("kubectl delete"), "{error}");
    }
    assert_eq!(clusters.versions(&SCOPE), before);
    clusters.sh(&format!("{kubectl} delete mesh theirs --timeout 60s"));

    let definition = |kind: &str| format!("delete CustomResourceDefinition {kind}.appmesh.k8s.aws");
    let expected = [
        definition("backendgroups"),
        definition("gatewayroutes"),
        definition("meshes"),
        definition("virtualgateways"),
        definition("virtualnodes"),
        definition("virtualrouters"),
        definition("virtualservices"),
        "uninstall release appmesh-controller".to_owned(),
        "delete ServiceAccount appmesh-system/appmesh-controller".to_owned(),
    ];
    let kept = "left alone: Namespace appmesh-system: it holds ConfigMap theirs";
    assert_eq!(clusters.done(&format!("{delete} --plan"), &mesh.document).would(), expected);
    let gone = clusters.done(delete, &mesh.document);
    let steps: Vec<&str> = gone.stderr.lines().filter_map(said).collect();
    assert_eq!(steps.iter().filter(|step| expected.iter().any(|it| it == *step)).count(), expected.len(), "{steps:?}");
    gone.tells(kept);
    assert!(serde_json::from_str::<Value>(&gone.document).unwrap().get("mesh").is_none());
    // Its owner, the webhook configuration, is gone.
    clusters.sh(&format!(
        "{kubectl} -n appmesh-system wait --for delete secret/appmesh-controller-certificate --timeout 60s"
    ));
    assert_eq!(clusters.sh(&format!("{kubectl} -n appmesh-system get pod,deploy,svc,secret -o name")), "");
    let again = clusters.done(delete, &mesh.document);
    again.tells("nothing to do");
    again.tells(kept);

    clusters.sh(&format!("{kubectl} -n appmesh-system delete cm theirs"));
    clusters.done(delete, &mesh.document).tells("delete Namespace appmesh-system");
    clusters.done(delete, &mesh.document).tells("nothing to do");
    clusters.sh(&format!("! {kubectl} get ns appmesh-system; ! {kubectl} get crd meshes.appmesh.k8s.aws; ! {kubectl} get clusterrole appmesh-controller"));
}

/// A service account of another role, and a release that somebody else installed.
pub fn of_somebody_else(clusters: &Clusters, mesh: &Installed) {
    let (kubectl, Installed { input, command, document }) = ("kubectl --context c1", mesh);
    let values = serde_json::from_str::<Value>(document).unwrap()["mesh"]["values"].take();
    let values = clusters.file("theirs.json", &values.to_string());
    let annotate = format!(
        "{kubectl} -n appmesh-system annotate sa appmesh-controller --overwrite eks.amazonaws.com/role-arn=arn:aws:iam::123456789012:role"
    );
    let account = format!(
        "{kubectl} create ns appmesh-system; {kubectl} -n appmesh-system create sa appmesh-controller; {annotate}/theirs"
    );
    let scope = Scope { cluster: "c1", get: &["-n appmesh-system sa", "ns/appmesh-system", "crd"] };
    let says = [
        "ServiceAccount appmesh-system/appmesh-controller: made by somebody else: metadata.annotations.eks.amazonaws.com/role-arn \
                 arn:aws:iam::123456789012:role/theirs → arn:aws:iam::123456789012:role/c1-appmesh-controller",
    ];
    clusters.sh(&account);
    let before = clusters.versions(&scope);
    let refused = clusters.exits(4, command, input);
    says.iter().for_each(|text| refused.tells(text));
    assert_eq!(refused.error()["hint"], "--adopt takes them over");
    assert_eq!(clusters.versions(&scope), before);

    // With the right role it is used as it is, and stays theirs. Then it is the release that is in the way.
    let install = format!(
        "{annotate}/c1-appmesh-controller\n\
         helm --kube-context c1 -n appmesh-system install appmesh-controller ../charts/appmesh-controller-1.13.3.tgz -f {values} --set log.level=debug\n\
         {kubectl} -n appmesh-system rollout status deploy appmesh-controller"
    );
    let says = ["release appmesh-controller was installed by somebody else, with Helm: values.log ", " → none"];
    let adopted = clusters.conflict(&SCOPE, &Conflict { theirs: &install, command, says: &says }, input);
    adopted.tells("upgrade release appmesh-controller: adopt what somebody else installed, values.log");
    adopted.tells("adopt ServiceAccount appmesh-system/appmesh-controller, made by somebody else");
    clusters.steady("appmesh-install", &adopted.document);

    // By now all of it is ours.
    let gone = clusters.done("appmesh-install -n --cluster c1 --delete", "");
    gone.tells("delete Namespace appmesh-system");
    assert!(!gone.stderr.contains("left alone"), "{}", gone.stderr);
    clusters.done("appmesh-install -n --cluster c1 --delete", "").tells("nothing to do");
}
