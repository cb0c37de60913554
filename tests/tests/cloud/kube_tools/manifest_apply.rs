//! manifest-apply in cluster 2, which has no App Mesh: a namespace for every subject.

use super::clusters::{Clusters, Conflict, Drift, Scope};
use serde_json::{Value, json};
use tests::said;

/// An image that is there and does nothing.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10";

pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": name}}})
}

pub fn config(namespace: &str, name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data})
}

pub fn deployment(namespace: &str, container: &Value) -> Value {
    let mut container = container.clone();
    container["name"] = "app".into();
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app", "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {"labels": {"app": "app"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
            },
        },
    })
}

fn service(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "app", "namespace": namespace},
        "spec": {"selector": {"app": "app"}, "ports": [{"port": 80}]}})
}

fn account(namespace: &str) -> Value {
    let role = json!({"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/ours"});
    json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "app", "namespace": namespace, "annotations": role}})
}

/// Folders and several files, and what is wrong in them.
pub fn inputs(clusters: &Clusters) {
    let object = |name: &str, value: &str| config("inputs", name, &json!({"value": value})).to_string();
    clusters.file("folder/1.yaml", &format!("{}\n---\n{}\n", object("one", "WORD"), namespace("inputs")));
    clusters.file("folder/2.yml", "# nothing yet\n");
    let folder = clusters.file("folder/3.json.j2", &object("three", "{{ v }}"));
    clusters.file("folder/notes.txt.j2", "{{ no manifest");
    let folder = folder.trim_end_matches("/3.json.j2");
    let more =
        clusters.file("more.yaml", &format!("kind: ConfigMapList\napiVersion: v1\nitems: [{}]\n", object("four", "x")));
    let apply = format!("manifest-apply inputs -n --cluster c2 --file {folder} --file {more}");
    let plan = clusters.done(&format!("{apply} --plan --set WORD=w"), "");
    let expected = [
        "create Namespace inputs",
        "create ConfigMap inputs/one",
        "create ConfigMap inputs/three",
        "create ConfigMap inputs/four",
    ];
    assert_eq!(plan.would(), expected);
    clusters.exits(3, &format!("{apply} --set WORDS=w"), "").tells("the word WORDS occurs in no file");

    let secret = clusters.file("secret", "not yours\n");
    let wrong = [
        ("a: 1\nb:\n  c: {{ v }} {{ images.app.uri }}\n", "FILE:3: the document has no images"),
        ("a: {{ peer.apps.x }}\n", "FILE:1: the document has no peer"),
        ("{% if v == 1 %}\na: {{ nobody | upper }}\n{% endif %}\n", "FILE:2: the document has no nobody"),
        ("a: {{ v\n", "FILE:1: syntax error"),
        ("a: 1\nb: [2\n", "FILE:2:4: not YAML"),
        ("a:\n  b: 1\n c: 2\n", "FILE:3:2: not YAML"),
        ("- a\n", "FILE: document 1 is not an object"),
        ("kind: ConfigMap\nmetadata: {name: a}\n", "an object has no apiVersion: ConfigMap"),
        (
            "kind: ConfigMap\nmetadata: {name: a, namespace: 2048}\n",
            "FILE: ConfigMap a: metadata.namespace is a number",
        ),
        // A template sees values and nothing else.
        ("a: {% include 'SECRET' %}\n", "FILE:1: "),
        ("{% import 'SECRET' as secret %}a: {{ secret }}\n", "FILE:1: "),
        ("{% extends 'SECRET' %}\n", "FILE:1: "),
        ("a: {{ open('SECRET').read() }}\n", "FILE:1: "),
        ("a: {{ lookup('file', 'SECRET') }}\n", "FILE:1: "),
        ("a: {{ env('AWS_SECRET_ACCESS_KEY') }}\n", "FILE:1: "),
        ("a: {{ v.__class__.__mro__ }}\n", "FILE:1: "),
        ("a: !include SECRET\nb: *SECRET\n", "FILE:2:4: not YAML"),
    ];
    for (number, (text, expected)) in wrong.into_iter().enumerate() {
        let file = clusters.file(&format!("wrong/{number}.yaml.j2"), &text.replace("SECRET", &secret));
        let refused = clusters.exits(3, &format!("manifest-apply x -n --cluster c2 --file {file}"), "");
        let error = refused.error();
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(&expected.replace("FILE", &file)), "{text}: {error}");
        assert!(!refused.stderr.contains("not yours"), "{text}: {error}");
    }
    clusters
        .exits(3, "manifest-apply x -n --cluster c2 --file nowhere.yaml", "")
        .tells("read nowhere.yaml: No such file");

    let unknown = clusters.manifest(
        "unknown",
        &[json!({"apiVersion": "example.org/v1", "kind": "Nothing", "metadata": {"name": "red"}})],
    );
    let refused = clusters.exits(1, &format!("manifest-apply x -n --cluster c2 --file {unknown}"), "");
    refused.tells("the cluster has no kind Nothing in example.org/v1");
    let mut misspelt = deployment("inputs", &json!({"image": PAUSE}));
    misspelt["spec"]["replica"] = 2.into();
    let misspelt = clusters.manifest("misspelt", &[namespace("inputs"), misspelt]);
    let refused = clusters.exits(1, &format!("manifest-apply x -n --cluster c2 --file {misspelt}"), "");
    assert_eq!(refused.error()["message"], "apply Deployment inputs/app", "{}", refused.stderr);
    refused.tells(".spec.replica");
}

/// Made by others, or with fields that others hold: refused until it is adopted.
pub fn conflicts(clusters: &Clusters) {
    const SCOPE: Scope<'_> = Scope { cluster: "c2", get: &["-n conflicts cm,deploy", "ns/theirs ns/conflicts"] };
    let red = |name: &str| config("conflicts", name, &json!({"color": "red"}));
    let mut pods = deployment("conflicts", &json!({"image": PAUSE}));
    pods["spec"]["replicas"] = 0.into();
    let file = |name: &str, object: Value| clusters.manifest(&format!("conflicts-{name}"), &[object]);
    let apply =
        |name: &str, object: Value| format!("manifest-apply {name} -n --cluster c2 --file {}", file(name, object));
    clusters.sh("kubectl --context c2 create namespace conflicts; kubectl --context c2 create namespace theirs");

    let (created, applied, held, kept) = (red("created"), red("applied"), red("held"), red("kept"));
    let (theirs, scaled) = (namespace("theirs"), pods);
    clusters.done(&apply("held", held.clone()), "");
    clusters.done(&apply("scaled", scaled.clone()), "");
    let blue = |name: &str| config("conflicts", name, &json!({"color": "blue"})).to_string();
    let mut two = scaled.clone();
    two["spec"]["replicas"] = 2.into();
    let kubectl = |verb: &str, object: &str| format!("kubectl --context c2 {verb} -f - <<< '{object}'");
    let cases = [
        (
            "created",
            kubectl("create", &blue("created")),
            created,
            vec!["ConfigMap conflicts/created: made by kubectl-create: data.color blue → red"],
        ),
        (
            "applied",
            kubectl("apply", &blue("applied")),
            applied,
            vec!["ConfigMap conflicts/applied: made by kubectl-client-side-apply: data.color blue → red"],
        ),
        (
            "theirs",
            "true".to_owned(),
            theirs,
            vec!["Namespace theirs: made by kubectl-create: metadata.labels.team none → theirs"],
        ),
        (
            "held",
            kubectl("apply", &blue("held")),
            held,
            vec!["ConfigMap conflicts/held: others hold data.color (kubectl-client-side-apply): data.color blue → red"],
        ),
        (
            "scaled",
            kubectl("apply --server-side --force-conflicts --field-manager=autoscaler", &two.to_string()),
            scaled,
            vec!["Deployment conflicts/app: others hold spec.replicas (autoscaler): spec.replicas 2 → 0"],
        ),
    ];
    for (name, theirs, object, says) in cases {
        let command = apply(name, object);
        let adopted = clusters.conflict(&SCOPE, &Conflict { theirs: &theirs, command: &command, says: &says }, "");
        clusters.steady(&format!("manifest-apply {name}"), &adopted.document);
    }

    // What is as it should be is used, and stays theirs until it is adopted.
    clusters.sh(&kubectl("create", &kept.to_string()));
    let before = clusters.versions(&SCOPE);
    let command = apply("kept", kept);
    let used = clusters.done(&command, "");
    used.tells("ConfigMap conflicts/kept: made by kubectl-create, used as it is");
    assert_eq!(clusters.versions(&SCOPE), before);
    clusters
        .done("manifest-apply kept --delete", &used.document)
        .tells("left alone: ConfigMap conflicts/kept: made by kubectl-create");
    assert_eq!(clusters.versions(&SCOPE), before);
    let plan = clusters.done(&format!("{command} --adopt --plan"), "");
    assert_eq!(plan.would(), ["adopt ConfigMap conflicts/kept, made by kubectl-create"]);
    let adopted = clusters.done(&format!("{command} --adopt"), "");
    clusters.steady("manifest-apply kept --adopt", &adopted.document);
    clusters.done("manifest-apply kept --delete", &adopted.document).tells("delete ConfigMap conflicts/kept");
}

/// Changed by hand.
pub fn drift(clusters: &Clusters) {
    const SCOPE: Scope<'_> = Scope { cluster: "c2", get: &["-n drift cm,sa,svc,deploy", "ns/drift"] };
    let color = config("drift", "color", &json!({"color": "red", "shape": "round"}));
    let pods = deployment("drift", &json!({"image": PAUSE, "env": [{"name": "COLOR", "value": "red"}]}));
    let file = clusters.manifest("drift", &[service("drift"), namespace("drift"), account("drift"), color, pods]);
    let made = clusters.done(&format!("manifest-apply drift -n --cluster c2 --file {file}"), "");
    clusters.steady("manifest-apply drift", &made.document);
    let wait = "wait for Deployment drift/app";
    let kubectl = "kubectl --context c2 -n drift";
    let scaled = format!("{kubectl} scale deploy app --replicas=2; {kubectl} rollout status deploy app");
    let colored = format!("{kubectl} set env deploy app COLOR=blue; {kubectl} rollout status deploy app");
    let patched = format!(r#"{kubectl} patch cm color -p '{{"data": {{"color": "blue", "theirs": "stays"}}}}'"#);
    let cases = [
        Drift {
            hand: &patched,
            would: &["configure ConfigMap drift/color: data.color blue → red"],
            touches: &["ConfigMap color"],
        },
        Drift {
            hand: &format!(r#"{kubectl} patch cm color --type json -p '[{{"op": "remove", "path": "/data/shape"}}]'"#),
            would: &["configure ConfigMap drift/color: data.shape none → round"],
            touches: &["ConfigMap color"],
        },
        Drift {
            hand: &format!(
                "{kubectl} annotate sa app --overwrite eks.amazonaws.com/role-arn=arn:aws:iam::123456789012:role/theirs"
            ),
            would: &["configure ServiceAccount drift/app: metadata.annotations.eks.amazonaws.com/role-arn \
                      arn:aws:iam::123456789012:role/theirs → arn:aws:iam::123456789012:role/ours"],
            touches: &["ServiceAccount app"],
        },
        Drift {
            hand: "kubectl --context c2 label ns drift --overwrite team=others",
            would: &["configure Namespace drift: metadata.labels.team others → drift"],
            touches: &["Namespace drift"],
        },
        Drift {
            hand: &format!("{kubectl} delete svc app"),
            would: &["create Service drift/app"],
            touches: &["Service app"],
        },
        Drift {
            hand: &scaled,
            would: &["configure Deployment drift/app: spec.replicas 2 → 1", wait],
            touches: &["Deployment app"],
        },
        Drift {
            hand: &colored,
            would: &["configure Deployment drift/app: spec.template.spec.containers[0].env[0].value blue → red", wait],
            touches: &["Deployment app"],
        },
        Drift {
            hand: &format!("{kubectl} delete deploy app --cascade=foreground"),
            would: &["create Deployment drift/app", wait],
            touches: &["Deployment app"],
        },
    ];
    clusters.drifts(&SCOPE, "manifest-apply drift", &made.document, &cases);
    assert_eq!(clusters.sh(&format!("{kubectl} get cm color -o jsonpath='{{.data.theirs}}'")), "stays");
}

/// What is as it was applied is only looked at. What may not be is tried, as a dry run, and what others add is no drift.
pub fn again(clusters: &Clusters) {
    const SCOPE: Scope<'_> = Scope { cluster: "c2", get: &["-n again quota,deploy", "ns/again"] };
    // Quotas are nobody else's here, so the API server's counter is of this one alone.
    let quota = |hard: &Value| {
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota", "namespace": "again"},
            "spec": {"hard": hard}})
    };
    let tried = || {
        clusters.sh("kubectl --context c2 get --raw /metrics | grep ^apiserver_request_total | grep 'dry_run=\"All\"' \
             | grep 'resource=\"resourcequotas\"' | grep 'verb=\"APPLY\"' || true")
    };
    let env = |names: &[&str]| -> Value { names.iter().map(|name| json!({"name": name, "value": "1"})).collect() };
    let pods = |names: &[&str]| deployment("again", &json!({"image": PAUSE, "env": env(names)}));
    let file = |name: &str, hard: &Value, names: &[&str]| {
        clusters.manifest(name, &[namespace("again"), quota(hard), pods(names)])
    };
    let first = file("again", &json!({"pods": "9", "requests.storage": "1Gi"}), &["A", "B"]);
    let made = clusters.done(&format!("manifest-apply again -n --cluster c2 --file {first}"), "");
    clusters.steady("manifest-apply again", &made.document);
    assert_eq!(tried(), "");

    let kubectl = "kubectl --context c2 -n again";
    let theirs =
        r#"{"op": "add", "path": "/spec/template/spec/containers/0/env/0", "value": {"name": "THEIRS", "value": "1"}}"#;
    let added = format!("{kubectl} patch deploy app --type json -p '[{theirs}]'; {kubectl} rollout status deploy app");
    let cases = [
        Drift { hand: &added, would: &[], touches: &[] },
        Drift {
            hand: &format!(r#"{kubectl} patch quota quota -p '{{"spec": {{"hard": {{"services": "5"}}}}}}'"#),
            would: &[],
            touches: &[],
        },
    ];
    clusters.drifts(&SCOPE, "manifest-apply again", &made.document, &cases);
    assert_eq!(tried(), "");
    let cases = [Drift {
        hand: &format!(r#"{kubectl} patch quota quota -p '{{"spec": {{"hard": {{"pods": "8"}}}}}}'"#),
        would: &["configure ResourceQuota again/quota: spec.hard.pods 8 → 9"],
        touches: &["ResourceQuota quota"],
    }];
    clusters.drifts(&SCOPE, "manifest-apply again", &made.document, &cases);
    assert_ne!(tried(), "");

    // Changes of the manifest itself: a value that is written in another way, fewer fields, another order.
    let changed = |name: &str, hard: &Value, names: &[&str]| {
        let command = format!("manifest-apply again --file {}", file(name, hard, names));
        let plan = clusters.done(&format!("{command} --plan"), &made.document);
        clusters.done(&command, &made.document);
        plan.would().join("; ")
    };
    let (same, fewer) = (json!({"pods": "9", "requests.storage": "1024Mi"}), json!({"pods": "9"}));
    assert_eq!(changed("again-same", &same, &["A", "B"]), "");
    let dropped = "configure ResourceQuota again/quota: spec.hard.requests.storage 1Gi → none";
    assert_eq!(changed("again-fewer", &fewer, &["A", "B"]), dropped);
    for (name, names) in [("again-turned", &["B", "A"][..]), ("again-less", &["B"])] {
        let found = changed(name, &fewer, names);
        assert!(found.starts_with("configure Deployment again/app: spec.template.spec.containers[0].env["), "{found}");
    }
}

/// Only ours, in reverse order, with what is left and why.
pub fn deletion(clusters: &Clusters) {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "colors.example.com"},
        "spec": {
            "group": "example.com",
            "names": {"kind": "Color", "plural": "colors"},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    let color = |namespace: &str| {
        json!({"apiVersion": "example.com/v1", "kind": "Color",
        "metadata": {"name": namespace, "namespace": namespace}})
    };
    let mut held = config("deletion", "held", &json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/slow"]);
    let pods = deployment("deletion", &json!({"image": PAUSE}));
    let objects = [definition, namespace("deletion"), color("deletion"), pods, held];
    let file = clusters.manifest("deletion", &objects);
    let made = clusters.done(&format!("manifest-apply deletion -n --cluster c2 --file {file}"), "");
    clusters.steady("manifest-apply deletion", &made.document);

    // A finalizer that nobody removes: told within the timeout, by its name.
    let delete = "manifest-apply deletion --delete";
    let late = clusters.exits(5, &format!("{delete} --timeout 10s"), &made.document);
    let message = late.error()["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "the end of ConfigMap deletion/held: not ready after 10s: held by example.com/slow");

    // Objects of others, in our namespace and under our definition.
    let kubectl = "kubectl --context c2";
    clusters.sh(&format!("{kubectl} -n deletion create cm theirs; {kubectl} apply -f - <<< '{}'", color("default")));
    let remover =
        format!(r#"{kubectl} -n deletion patch cm held --type merge -p '{{"metadata": {{"finalizers": null}}}}'"#);
    clusters.sh(&remover);
    let plan = clusters.done(&format!("{delete} --plan"), &made.document);
    assert_eq!(plan.would(), ["delete Deployment deletion/app", "delete Color deletion/deletion"]);
    let kept = [
        "left alone: Namespace deletion: it holds ConfigMap theirs",
        "left alone: CustomResourceDefinition colors.example.com: there is still Color default/default",
    ];
    let gone = clusters.done(delete, &made.document);
    kept.iter().for_each(|text| gone.tells(text));
    assert!(!gone.document.contains("apps"), "{}", gone.document);
    let again = clusters.done(delete, &made.document);
    again.tells("nothing to do");
    kept.iter().for_each(|text| again.tells(text));

    // Made anew with a finalizer that its owner removes once the deletion has begun: waited for, in reverse order.
    let made = clusters.done("manifest-apply deletion", &made.document);
    clusters.sh(&format!("{kubectl} -n deletion delete cm theirs; {kubectl} -n default delete color default"));
    let gone = std::thread::scope(|scope| {
        let ends = format!(
            "{kubectl} -n deletion wait cm/held --for=jsonpath='{{.metadata.deletionTimestamp}}' --timeout=60s; {remover}"
        );
        scope.spawn(move || clusters.sh(&ends));
        clusters.done(delete, &made.document)
    });
    let deleted: Vec<&str> = gone.stderr.lines().filter_map(|line| said(line)?.strip_prefix("delete ")).collect();
    let expected = [
        "ConfigMap deletion/held",
        "Deployment deletion/app",
        "Color deletion/deletion",
        "CustomResourceDefinition colors.example.com",
        "Namespace deletion",
    ];
    assert_eq!(deleted, expected);
    clusters.done(delete, &made.document).tells("nothing to do");
    clusters.sh(&format!("! {kubectl} get ns deletion; ! {kubectl} get crd colors.example.com"));
    // What somebody else has made in place of ours stays, and so does what it is in.
    let objects = [namespace("deletion-theirs"), config("deletion-theirs", "app", &json!({"a": "b"}))];
    let theirs = clusters.manifest("deletion-theirs", &objects);
    let made = clusters.done(&format!("manifest-apply theirs -n --cluster c2 --file {theirs}"), "");
    let again = format!("{kubectl} -n deletion-theirs create cm app --from-literal a=b");
    clusters.sh(&format!("{kubectl} -n deletion-theirs delete cm app; {again}"));
    let left = clusters.done("manifest-apply theirs --delete", &made.document);
    left.tells("left alone: Namespace deletion-theirs: it holds ConfigMap app");
    clusters.sh(&format!("{kubectl} -n deletion-theirs get cm app; {kubectl} delete ns deletion-theirs"));
    // By the files alone: nothing there, and a kind that is unknown by now.
    clusters
        .done(&format!("manifest-apply deletion -n --cluster c2 --file {file} --delete"), "")
        .tells("nothing to do");
}

/// Fields that can not be changed in place: which one, and what to do.
pub fn fixed_fields(clusters: &Clusters) {
    let role = |name: &str| {
        let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "roleRef": reference,
            "metadata": {"name": "app", "namespace": "fixed"}})
    };
    let mut pods = deployment("fixed", &json!({"image": PAUSE}));
    let mut other = pods.clone();
    for labels in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
        *other.pointer_mut(labels).unwrap() = json!({"app": "other"});
    }
    pods["spec"]["replicas"] = 0.into();
    let mut constant = config("fixed", "constant", &json!({"color": "red"}));
    constant["immutable"] = true.into();
    let mut changed = constant.clone();
    changed["data"]["color"] = "blue".into();
    let cases = [
        ("deployment", pods, other, ["apply Deployment fixed/app", "spec.selector: Invalid value"]),
        ("config", constant, changed, ["apply ConfigMap fixed/constant", "data: Forbidden: field is immutable"]),
        ("binding", role("one"), role("two"), ["apply RoleBinding fixed/app", "roleRef: Invalid value"]),
    ];
    for (name, before, after, [object, field]) in cases {
        let first = clusters.manifest(&format!("fixed-{name}"), &[namespace("fixed"), before]);
        clusters.done(&format!("manifest-apply {name} -n --cluster c2 --file {first}"), "");
        let second = clusters.manifest(&format!("fixed-{name}-changed"), &[namespace("fixed"), after]);
        for mode in ["", " --plan"] {
            let refused =
                clusters.exits(1, &format!("manifest-apply {name} -n --cluster c2 --file {second}{mode}"), "");
            let error = refused.error();
            assert_eq!(error["message"], object, "{error}");
            assert!(error["causes"][0].as_str().unwrap().contains(field), "{error}");
            assert!(
                error["hint"].as_str().unwrap_or_default().contains("delete the object, then run this again"),
                "{error}"
            );
        }
    }
}
