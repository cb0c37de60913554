//! Writes docs/compatibility.md from the types, the annotations and the chart, and holds it to them: SNAPSHOTS=overwrite
//! writes it again. What App Mesh and Amazon's chart have is in lists beside; what is missing here shows up by itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]
#![expect(clippy::print_stdout, reason = "a test that says what it saw")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use appmesh_controller::admission::annotations::{ANNOTATIONS, Effect};
use serde_json::{Value, json};

/// Fields of App Mesh's CRDs, as `KIND PATH`.
const FIELDS: &str = include_str!("../../api/src/fields.txt");
/// Values of Amazon's chart 1.13.3 with their defaults, as `PATH JSON`.
const VALUES: &str = include_str!("compatibility/values.txt");

/// What this controller does in another way than Amazon's.
const DIFFERENCES: &str = "
## What differs on purpose

- An update that leaves out `awsName` or `meshRef` keeps them. Amazon's controller refuses it.
- An object with `generateName` gets its name before its `awsName`. Amazon's controller makes the `awsName` of an empty name.
- `awsName` is unique in a mesh. With Amazon's controller two objects of the same `awsName` change each other's routes.
- Envoy is a native sidecar: it starts before the pod's containers and ends after them, and after its callers have gone,
  without `preStopDelay` and `waitUntilProxyReady`. It is the init container before `proxyinit`, which waits for it.
- An Envoy is asked every 5 seconds whether it is still ready, not every 10, unless `readinessProbePeriod` says so: a kubelet that
  has just started waits up to one period before it asks first, which would hold up the pods of new nodes.
- Instances in Cloud Map carry `appmesh.k8s.aws/cluster`, so that the same VirtualNode of two clusters has the pods of both.
  Instances without it count as left by Amazon's controller: those of a VirtualNode that exists in this cluster are
  replaced or removed, as Amazon's controller itself does.
- The Cloud Map service `appmesh.journal` of a namespace has an instance of each cluster, which tells the others what has changed
  ([cost.md](cost.md#look-ups)). It goes with the cluster's last service there.
- `AVAILABILITY_ZONE` of an instance is the pod's label `topology.kubernetes.io/zone`, which Kubernetes sets from 1.35 on.
- Spans of the provider `x-ray` go by OTLP to an agent that passes them on, for Envoy has no X-Ray tracer any more.
- A GatewayRoute that rewrites a prefix answers 503 for a route of its target whose regular expression has a word
  boundary where the prefix ends, and its condition says `PathUndecided`. A prefix that ends with `/` leaves nothing open.
";

/// Fields that only App Mesh could support: the end of the path, and the way out.
const REFUSED: [(&str, &str); 2] = [
    (
        ".acm.certificateARN",
        "App Mesh alone had the keys of AWS Certificate Manager: give the certificate by file or SDS, for example from \
         cert-manager",
    ),
    (
        ".acm.certificateAuthorityARNs[]",
        "App Mesh alone fetched authorities from AWS Private CA: give the authority by file or SDS",
    ),
];

/// Fields that are taken and change nothing: the kind, the beginning of the path, and why.
const WITHOUT_EFFECT: [(&str, &str, &str); 1] = [(
    "VirtualGateway",
    "listeners[].healthCheck.",
    "nothing in the mesh calls a gateway, and a load balancer has checks of its own",
)];

fn amazons() -> impl Iterator<Item = (&'static str, Value)> {
    let parsed =
        |line: &'static str| line.split_once(' ').map(|(path, json)| (path, serde_json::from_str(json).unwrap()));
    VALUES.lines().filter_map(parsed)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The paths of a schema's fields without fields of their own.
fn leaves(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            let dot = if path.is_empty() { "" } else { "." };
            leaves(schema, &format!("{path}{dot}{name}"), found);
        }
    } else if schema["type"] == "array" {
        leaves(&schema["items"], &format!("{path}[]"), found);
    } else {
        found.insert(path.to_owned());
    }
}

/// The fields that the types have, by kind.
fn typed() -> BTreeMap<String, BTreeSet<String>> {
    let of = |crd| {
        let crd = json!(crd);
        let mut found = BTreeSet::new();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        leaves(schema, "", &mut found);
        (crd["spec"]["names"]["kind"].as_str().unwrap().to_owned(), found)
    };
    mesh_api::crds::all().into_iter().map(of).collect()
}

fn app_mesh() -> BTreeMap<String, BTreeSet<String>> {
    let mut kinds = BTreeMap::<_, BTreeSet<_>>::new();
    for (kind, path) in FIELDS.lines().map(|line| line.split_once(' ').unwrap()) {
        kinds.entry(kind.to_owned()).or_default().insert(path.to_owned());
    }
    kinds
}

fn fields(document: &mut String) {
    let (typed, none) = (typed(), BTreeSet::new());
    let app_mesh = app_mesh();
    let refused = |path: &str| REFUSED.iter().find(|(end, _)| path.ends_with(end)).map(|(_, way_out)| *way_out);
    let supports = |kind: &str, path: &str| typed.get(kind).unwrap_or(&none).contains(path) && refused(path).is_none();
    let without_effect = |kind: &str, path: &str| {
        let found = WITHOUT_EFFECT.iter().find(|(of, start, _)| *of == kind && path.starts_with(start));
        found.map(|(_, _, why)| *why)
    };
    let all = || app_mesh.iter().flat_map(|(kind, paths)| paths.iter().map(move |path| (kind.as_str(), path.as_str())));
    let total = all().count();
    assert_eq!(total, 328);
    let idle = all().filter(|(kind, path)| without_effect(kind, path).is_some()).count();
    let supported = all().filter(|(kind, path)| supports(kind, path)).count() - idle;
    let beyond = all().filter(|(_, path)| refused(path).is_some()).count();
    // What the types do not have would be ignored as unknown.
    assert_eq!(total - supported - idle - beyond, 0, "fields are missing in the types");
    let _ = write!(
        document,
        "## Fields\n\nOf the {total} fields of App Mesh's seven kinds {supported} are supported, {idle} are taken without effect, \
         and {beyond} are\nrefused because only App Mesh could support them. A field is refused by its path when the object is \
         applied; an object\nthat was there before says so in its condition.\n"
    );
    for (kind, paths) in &app_mesh {
        let _ = write!(document, "\n### {kind}\n\n| field of `spec` | |\n| --- | --- |\n");
        for path in paths {
            let status = match refused(path) {
                Some(way_out) => format!("refused: {way_out}"),
                None => without_effect(kind, path)
                    .map_or_else(|| "supported".to_owned(), |why| format!("taken without effect: {why}")),
            };
            let _ = writeln!(document, "| `{path}` | {status} |");
        }
        for path in typed.get(kind).unwrap_or(&none).difference(paths) {
            let status = refused(path).map_or_else(|| "supported".to_owned(), |way_out| format!("refused: {way_out}"));
            let _ = writeln!(document, "| `{path}` | {status}; App Mesh does not have it |");
        }
    }
}

/// The fields that a value has, as paths of a schema.
fn given(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{name}");
                given(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => {
            found.insert(format!("{path}[]"));
            items.iter().for_each(|item| given(item, &format!("{path}[]"), found));
        }
        _ => {}
    }
}

#[test]
fn every_field_has_a_golden_test() {
    let mut tested = BTreeMap::<String, BTreeSet<String>>::new();
    let entries = fs::read_dir(root().join("mesh/controller/tests/translate")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap();
        for object in objects {
            let kind = object["kind"].as_str().unwrap().to_owned();
            given(&object["spec"], "", tested.entry(kind).or_default());
        }
    }
    let none = BTreeSet::new();
    let missing = app_mesh().into_iter().flat_map(|(kind, fields)| {
        let tested = tested.get(&kind).unwrap_or(&none);
        fields.difference(tested).map(|field| format!("{kind} {field}")).collect::<Vec<_>>()
    });
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<String>::new());
}

fn annotations(document: &mut String) {
    document.push_str(
        "\n## Annotations of pods\n\nAll begin with `appmesh.k8s.aws/`. Any other gives a warning.\n\n\
         | annotation | |\n| --- | --- |\n",
    );
    for (name, effect) in ANNOTATIONS {
        let status = match effect {
            Effect::Supported => "supported".to_owned(),
            Effect::Nothing(why) => format!("taken with a warning: {why}"),
            Effect::Refused(why) => format!("refused: {why}"),
        };
        let _ = writeln!(document, "| `{name}` | {status} |");
    }
}

/// The paths of the chart's values, from a file with one key a line.
fn values_of(yaml: &str) -> BTreeSet<String> {
    let lines = yaml.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    let lines: Vec<_> = lines.map(|line| (line.len() - line.trim_start().len(), line.trim())).collect();
    let (mut values, mut path) = (BTreeSet::new(), Vec::<(usize, &str)>::new());
    for (index, (indent, line)) in lines.iter().enumerate() {
        path.retain(|(outer, _)| outer < indent);
        path.push((*indent, line.split(':').next().unwrap()));
        if lines.get(index + 1).is_none_or(|(next, _)| next <= indent) {
            values.insert(path.iter().map(|(_, key)| *key).collect::<Vec<_>>().join("."));
        }
    }
    values
}

/// Why values have no meaning, from the notes that helm prints.
fn without_meaning(notes: &str) -> BTreeMap<String, String> {
    let notes = notes.lines().filter_map(|line| line.split_once("append $given \"")?.1.split_once('"'));
    notes.filter_map(|(note, _)| note.split_once(": ")).map(|(path, why)| (path.to_owned(), why.to_owned())).collect()
}

fn values(document: &mut String) {
    let chart = root().join("charts/appmesh-controller");
    let read = |name: &str| fs::read_to_string(chart.join(name)).unwrap();
    let (here, amazons) =
        (values_of(&read("values.yaml")), amazons().map(|(path, _)| path.to_owned()).collect::<BTreeSet<_>>());
    let without_meaning = without_meaning(&read("templates/NOTES.txt"));
    let missing: Vec<_> = amazons.iter().filter(|path| !takes(&here, path)).collect();
    assert!(missing.is_empty(), "the chart does not take {missing:?}");
    let templates: String = ["deployment.yaml", "rbac.yaml", "services.yaml", "webhook.yaml", "_helpers.tpl"]
        .map(|name| read(&format!("templates/{name}")))
        .concat();
    let used = |path: &str| {
        let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
        let text = |end: usize| format!(".Values.{}", &path[..end]);
        ends.map(text).any(|text| templates.contains(&format!("{text} ")) || templates.contains(&format!("{text})")))
    };
    let reason = |path: &str| {
        let holds = |of: &&String| path == **of || path.starts_with(&format!("{of}."));
        without_meaning.keys().find(holds).map(|of| without_meaning[of].as_str())
    };
    let _ = write!(
        document,
        "\n## Values of the chart\n\nThe chart takes all {} values of Amazon's. Those without a meaning here are named with the reason \
         when they are given.\n\n| value | |\n| --- | --- |\n",
        amazons.len()
    );
    for path in here
        .union(&amazons)
        .filter(|path| amazons.contains(*path) || !amazons.iter().any(|of| of.starts_with(&format!("{path}."))))
    {
        let also = if amazons.contains(path) { "" } else { "; Amazon's chart does not have it" };
        let status = match reason(path) {
            Some(why) => format!("no meaning: {why}"),
            None => {
                assert!(used(path), "no template uses {path}, and no note says that it has no meaning");
                "supported".to_owned()
            }
        };
        let _ = writeln!(document, "| `{path}` | {status}{also} |");
    }
}

/// Whether a chart takes a value: by its name, or as a part of a map that is empty by default.
fn takes(values: &BTreeSet<String>, path: &str) -> bool {
    let ends = path.match_indices('.').map(|(at, _)| &path[..at]).chain([path]);
    ends.into_iter().any(|path| values.contains(path)) || values.iter().any(|of| of.starts_with(&format!("{path}.")))
}

#[test]
fn compatibility_is_documented() {
    let mut document =
        "# Compatibility with App Mesh\n\nWritten by a test from the types, the annotations and the chart: \
                        `SNAPSHOTS=overwrite cargo test --workspace --test compatibility`.\n\n"
            .to_owned();
    fields(&mut document);
    annotations(&mut document);
    values(&mut document);
    document.push_str(DIFFERENCES);
    let expected = snapbox::Data::read_from(&root().join("docs/compatibility.md"), None);
    snapbox::Assert::new().action_env("SNAPSHOTS").eq(document, expected);
}

/// A field that the document says is refused is: the controller reports it by its path.
#[test]
fn what_is_said_to_be_refused_is() {
    for (kind, spec, path) in [
        (
            "VirtualNode",
            json!({
                "listeners": [{
                    "portMapping": { "port": 8080, "protocol": "http" },
                    "tls": { "mode": "STRICT", "certificate": { "acm": { "certificateARN": "arn:aws:acm:us-west-2:1:certificate/a" } } }
                }],
                "serviceDiscovery": { "dns": { "hostname": "a.b" } }
            }),
            "spec.listeners[0].tls",
        ),
        (
            "VirtualNode",
            json!({ "backendDefaults": { "clientPolicy": { "tls": { "validation": {
                "trust": { "acm": { "certificateAuthorityARNs": ["arn:aws:acm-pca:us-west-2:1:certificate-authority/a"] } }
            }}}}}),
            "spec.backendDefaults",
        ),
        (
            "VirtualNode",
            json!({
                "listeners": [{
                    "portMapping": { "port": 8080, "protocol": "http" },
                    "tls": {
                        "mode": "STRICT",
                        "certificate": { "sds": { "secretName": "a" } },
                        "validation": { "trust": { "acm": { "certificateAuthorityARNs": ["arn"] } } }
                    }
                }],
                "serviceDiscovery": { "dns": { "hostname": "a.b" } }
            }),
            "spec.listeners[0].tls.validation.trust.acm",
        ),
    ] {
        let meta = |name: &str| json!({ "name": name, "namespace": "shop" });
        let mesh = json!({
            "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "metadata": { "name": "shop" },
            "spec": { "awsName": "shop", "namespaceSelector": { "matchLabels": {} } }
        });
        let object =
            json!({ "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind, "metadata": meta("a"), "spec": spec });
        let mut translate = Command::new(env!("CARGO_BIN_EXE_appmesh-controller"))
            .arg("translate")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        translate.stdin.take().unwrap().write_all(format!("{mesh}\n---\n{object}\n").as_bytes()).unwrap();
        let answer = String::from_utf8(translate.wait_with_output().unwrap().stdout).unwrap();
        assert!(answer.contains(path), "{path}:\n{answer}");
    }
}

/// What helm prints of the chart; `None` where there is no helm.
fn helm(command: &[&str], values: &Value) -> Option<Result<String, String>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.json");
    fs::write(&file, values.to_string()).unwrap();
    let named = std::env::var_os("HELM");
    let mut helm = Command::new(named.as_deref().unwrap_or("helm".as_ref()));
    helm.args(command).args(["shop", "charts/appmesh-controller", "-f"]).arg(file).current_dir(root());
    match helm.output() {
        Ok(output) if output.status.success() => Some(Ok(String::from_utf8(output.stdout).unwrap())),
        Ok(output) => Some(Err(String::from_utf8(output.stderr).unwrap())),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            println!("not tested: there is no helm in PATH, and HELM names none, as `make test` does");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Puts a value at a path such as `a.b`.
fn put(values: &mut Value, path: &str, value: Value) {
    values[path.split('.').next().unwrap()] = match path.split_once('.') {
        None => value,
        Some((first, rest)) => {
            let mut inner = if values[first].is_object() { values[first].take() } else { json!({}) };
            put(&mut inner, rest, value);
            inner
        }
    };
}

/// The chart's own images, which have no default.
fn images() -> Value {
    json!({ "image": { "repository": "r/controller" }, "init": { "image": { "repository": "r/capture" } } })
}

#[test]
fn the_chart_takes_amazons_values() {
    let mut values = json!({});
    amazons().for_each(|(path, value)| put(&mut values, path, value));
    let Some(refused) = helm(&["template"], &values) else { return };
    let refused = refused.unwrap_err();
    assert!(refused.contains("is Amazon's controller, which needs the App Mesh API"), "{refused}");
    put(&mut values, "image.repository", "r/controller".into());
    let rendered = helm(&["template"], &values).unwrap().unwrap();
    assert!(
        rendered.contains("--sidecar-image=840364872350.dkr.ecr.us-west-2.amazonaws.com/aws-appmesh-envoy:"),
        "{rendered}"
    );
    assert!(rendered.contains("--startup-probe-period=5"), "{rendered}");
}

#[test]
fn values_become_options() {
    for (given, expected) in [
        (&[("accountId", json!("123456789012"))][..], &["--aws-account-id=123456789012"][..]),
        (&[("accountId", json!(123_456_789_012_u64))], &["--aws-account-id=123456789012"]),
        (
            &[("tracing.enabled", json!(true)), ("tracing.port", json!(2000))],
            &[
                "--tracing=opentelemetry",
                "--tracing-address=cloudwatch-agent.amazon-cloudwatch",
                "--tracing-port=4315",
                "--tracing-sampling-rate=0.05",
            ],
        ),
        (
            &[("tracing.enabled", json!(true)), ("tracing.provider", json!("jaeger"))],
            &["--tracing=zipkin", "--tracing-address=appmesh-jaeger.appmesh-system", "--tracing-port=9411"],
        ),
        (
            &[
                ("tracing.enabled", json!(true)),
                ("tracing.provider", json!("datadog")),
                ("tracing.address", json!("ref:status.hostIP")),
                ("tracing.port", json!(8127)),
            ],
            &["--tracing=datadog", "--tracing-address=ref:status.hostIP", "--tracing-port=8127"],
        ),
        (
            &[("stats.statsdEnabled", json!(true))],
            &["--statsd=true", "--statsd-address=127.0.0.1", "--statsd-port=8125"],
        ),
        (&[("sidecar.logLevel", json!("warn"))], &["--sidecar-log-level=warning"]),
        (&[("sidecar.lifecycleHooks.preStopDelay", json!("20"))], &["--prestop-delay=20"]),
        (&[("sidecar.lifecycleHooks.postStartTimeout", json!(60))], &["--startup-timeout=60"]),
        (&[("cloudMapDNS.ttl", json!(0))], &["--cloudmap-dns-ttl=0"]),
        (&[("cloudMapNamespaces", json!({"a.b": "ns-1"}))], &["--cloudmap-namespace=a.b=ns-1"]),
        (&[("tlsCipherSuite", json!(["A", "B"]))], &["--tls-cipher-suite=A,B"]),
        (&[("tlsCipherSuite", json!("A,B"))], &["--tls-cipher-suite=A,B"]),
        (&[("useAwsFIPSEndpoint", json!(true))], &["name: AWS_USE_FIPS_ENDPOINT"]),
        (&[("useAwsDualStackEndpoint", json!(true))], &["name: AWS_USE_DUALSTACK_ENDPOINT"]),
        (&[("livenessProbe.failureThreshold", json!(77))], &["failureThreshold: 77"]),
        (
            &[("livenessProbe", json!({"periodSeconds": 30, "terminationGracePeriodSeconds": 5}))],
            &["periodSeconds: 30", "terminationGracePeriodSeconds: 5", "timeoutSeconds: 1"],
        ),
        (&[("podDisruptionBudget.minAvailable", json!(1))], &["minAvailable: 1"]),
        (&[("podDisruptionBudget", json!({}))], &["maxUnavailable: 1"]),
        (&[("podLabels.control-plane", json!("x"))], &["control-plane: \"shop-appmesh-controller\""]),
        (&[("nameOverride", json!("12"))], &["app.kubernetes.io/name: \"12\""]),
        (
            &[("stats.statsdEnabled", json!(true)), ("stats.statsdAddress", json!("fd00::"))],
            &["--statsd-address=fd00::"],
        ),
        // An image by its digest, in each of the ways to say so.
        (
            &[("sidecar.image", json!({"repository": "r/envoy@sha256:aa", "tag": ""}))],
            &["--sidecar-image=r/envoy@sha256:aa"],
        ),
        (&[("sidecar.image.repository", json!("r/envoy@sha256:aa"))], &["--sidecar-image=r/envoy@sha256:aa"]),
        (
            &[("sidecar.image", json!({"repository": "r/envoy@sha256", "tag": "aa"}))],
            &["--sidecar-image=r/envoy@sha256:aa"],
        ),
        (&[("sidecar.image", json!({"repository": "r:5000/envoy", "tag": ""}))], &["--sidecar-image=r:5000/envoy"]),
        (&[("init.image.repository", json!("r/capture@sha256:bb"))], &["--init-image=r/capture@sha256:bb"]),
        // What is null has no limit, or is off.
        (&[("sidecar.resources", json!(null))], &["--sidecar-cpu-requests=", "--sidecar-memory-limits="]),
        (
            &[("sidecar.resources.limits", json!(null)), ("sidecar.resources.requests.cpu", json!(null))],
            &["--sidecar-cpu-requests=", "--sidecar-memory-requests=32Mi", "--sidecar-memory-limits="],
        ),
        (
            &[
                ("tracing", json!(null)),
                ("stats", json!(null)),
                ("xray", json!(null)),
                ("livenessProbe", json!(null)),
                ("podDisruptionBudget", json!(null)),
            ],
            &["path: /healthz"],
        ),
    ] {
        let mut values = images();
        given.iter().for_each(|(path, value)| put(&mut values, path, value.clone()));
        let Some(rendered) = helm(&["template"], &values) else { return };
        let rendered = rendered.unwrap();
        let lines = rendered.lines().map(|line| line.trim().trim_start_matches("- ").trim_matches('\''));
        let lines: BTreeSet<_> = lines.collect();
        assert!(expected.iter().all(|option| lines.contains(option)), "{expected:?}\n{rendered}");
    }
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (path, value) in [
        ("tracing.provider", json!("newrelic")),
        ("tracing.samplingRate", json!(5)),
        ("tracing.samplingRate", json!("5")),
        ("tracing.samplingRate", json!("5%")),
        ("sidecar.probes", json!(null)),
        ("sidecar.lifecycleHooks", json!(null)),
        ("livenessProbe.exec", json!({"command": ["x"]})),
        ("livenessProbe.successThreshold", json!(2)),
        ("stats.statsdAddress", json!("datadog.monitoring")),
        ("sds.udsPath", json!("/agent.sock")),
        ("tlsMinVersion", json!("VersionTLS10")),
        ("sidecar.image.repo", json!("r/envoy")),
    ] {
        let mut values = images();
        put(&mut values, path, value);
        let Some(outcome) = helm(&["template"], &values) else { return };
        assert!(outcome.is_err(), "{path}");
    }
}

#[test]
fn the_notes_name_values_without_meaning() {
    let mut values = images();
    let notes = |values: &Value| helm(&["install", "--dry-run=client"], values);
    let Some(before) = notes(&values) else { return };
    assert!(!before.unwrap().contains("These values have no meaning here"));
    let chart = fs::read_to_string(root().join("charts/appmesh-controller/templates/NOTES.txt")).unwrap();
    let paths: Vec<_> = without_meaning(&chart).into_keys().collect();
    let defaults: BTreeMap<_, _> = amazons().collect();
    for path in &paths {
        for (of, default) in defaults.iter().filter(|(of, _)| *of == path || of.starts_with(&format!("{path}."))) {
            put(&mut values, of, if default.is_boolean() { true.into() } else { "x".into() });
        }
    }
    let after = notes(&values).unwrap().unwrap();
    let missing: Vec<_> = paths.iter().filter(|path| !after.contains(&format!("\n  {path}: "))).collect();
    assert!(missing.is_empty(), "{missing:?}\n{after}");
}

#[test]
fn the_chart_is_the_same_each_time_and_has_no_certificate_in_it() {
    for cert_manager in [false, true] {
        let mut values = images();
        put(&mut values, "enableCertManager", cert_manager.into());
        let Some(first) = helm(&["template"], &values) else { return };
        let first = first.unwrap();
        assert_eq!(first, helm(&["template"], &values).unwrap().unwrap());
        assert!(!first.contains("kind: Secret") && !first.contains("caBundle:"), "{first}");
        let injected = "cert-manager.io/inject-ca-from: default/shop-appmesh-controller-webhook-server-cert";
        assert_eq!(first.matches(injected).count(), if cert_manager { 2 } else { 0 });
        assert_eq!(first.contains("--certificate-names="), !cert_manager);
    }
}
