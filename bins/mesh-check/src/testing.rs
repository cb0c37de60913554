//! A mesh in which nothing is wrong, for tests: cluster `a` calls what cluster `b` publishes.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use crate::finding::{Check, Finding};
use crate::scene::{Around, CloudMap, Identity, Namespace, Role, Rule, Sample, Scene, Side};
use common::cluster::Cluster;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// The VirtualService of cluster `b`.
pub const ARN: &str = "arn:aws:appmesh:r:1:mesh/m/virtualService/color.web";
/// The controllers' role.
pub const ROLE: &str = "arn:aws:iam::1:role/mesh";

/// A certificate that ends in two months.
static VALID: LazyLock<Secret> = LazyLock::new(|| secret(60));

/// A change that makes something wrong.
pub type Change = fn(&mut Scene);

/// Tries a group: the mesh as it is has nothing wrong; each change is found by the check it is for, in these words, and
/// by no other of the group.
#[track_caller]
pub fn each_finds_its_own(checks: &[Check], judge: fn(&Scene) -> Vec<Finding>, worlds: &[(Check, Change, &str)]) {
    assert_eq!(judge(&scene()), Vec::new());
    let tried: BTreeSet<&str> = worlds.iter().map(|(check, ..)| check.code).collect();
    assert_eq!(tried, checks.iter().map(|check| check.code).collect(), "a world for each check");
    for (check, change, words) in worlds {
        let mut scene = scene();
        change(&mut scene);
        let found = judge(&scene);
        let codes: BTreeSet<&str> = found.iter().map(|finding| finding.code.as_str()).collect();
        assert_eq!(codes, BTreeSet::from([check.code]), "{}: {found:#?}", check.about);
        assert_eq!(found[0].severity, check.severity);
        assert!(found.iter().any(|finding| finding.to_string().contains(words)), "{words}: {found:#?}");
    }
}

/// What a JSON object is.
#[track_caller]
pub fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A certificate that ends after that many days, counted from the scene's time.
pub fn certificate(days: i64) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
    let now = time::OffsetDateTime::from_unix_timestamp(now().as_second()).unwrap();
    params.not_before = now - time::Duration::days(100);
    params.not_after = now + time::Duration::days(days) + time::Duration::hours(1);
    params.self_signed(&key).unwrap().pem()
}

pub fn now() -> Timestamp {
    "2026-11-29T12:00:00Z".parse().unwrap()
}

/// All is well.
pub fn scene() -> Scene {
    let instance = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let pod = instance(&[
        ("AWS_INSTANCE_IPV4", "10.0.2.9"),
        ("AWS_INSTANCE_PORT", "8080"),
        ("k8s.io/pod", "red"),
        ("k8s.io/namespace", "web"),
        ("appmesh.k8s.aws/cluster", "uid-b"),
        ("appmesh.k8s.aws/clusterARN", "arn:aws:eks:r:1:cluster/b"),
    ]);
    let document = instance(&[
        ("appmesh.k8s.aws/virtualService", ARN),
        ("appmesh.k8s.aws/cluster", "uid-b"),
        ("part", "0/1"),
        ("digest", "d"),
    ]);
    let services = BTreeMap::from([
        ("red".to_owned(), BTreeMap::from([("i-1".to_owned(), pod)])),
        ("front".to_owned(), BTreeMap::new()),
        ("documents".to_owned(), BTreeMap::from([("d-0".to_owned(), document)])),
    ]);
    let namespace = Namespace { id: "ns-1".into(), name: "shared".into(), vpcs: Some(vec!["vpc-1".into()]), services };
    let mut caller = side("a", "front", "10.0.1.9");
    caller.objects.nodes[0].spec.backends = of(json!([{"virtualService": {"virtualServiceARN": ARN}}]));
    caller.services = of(json!([{"metadata": {"namespace": "web", "name": "color"}}]));
    caller.pods.iter_mut().flatten().filter(|pod| pod.metadata.name.as_deref() == Some("front")).for_each(|pod| {
        // It is registered nowhere, for nobody calls it.
        pod.status.as_mut().unwrap().conditions = None;
        pod.spec.as_mut().unwrap().readiness_gates = None;
    });
    let mut callee = side("b", "red", "10.0.2.9");
    callee.add(object(
        "VirtualRouter",
        "color",
        &json!({
            "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
            "routes": [{"name": "all", "httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": [
                {"virtualNodeRef": {"name": "red"}, "weight": 1, "port": 8080}]}}}],
        }),
        Value::Null,
    ));
    callee.add(object(
        "VirtualService",
        "color",
        &json!({
            "provider": {"virtualRouter": {"virtualRouterRef": {"name": "color"}}},
        }),
        json!({"virtualServiceARN": ARN}),
    ));
    callee.add(object(
        "VirtualGateway",
        "in",
        &json!({
            "namespaceSelector": {"matchLabels": {"m": "yes"}},
            "listeners": [{"portMapping": {"port": 80, "protocol": "http"}}],
        }),
        Value::Null,
    ));
    callee.add(object(
        "GatewayRoute",
        "in",
        &json!({
            "virtualGatewayRef": {"name": "in", "namespace": "web", "uid": "u"},
            "httpRoute": {"match": {"prefix": "/"}, "action": {"target": {"virtualService":
                {"virtualServiceRef": {"name": "color"}}}}},
        }),
        Value::Null,
    ));
    Scene {
        sides: vec![caller, callee],
        cloud_map: Some(CloudMap { namespaces: vec![namespace], gone: BTreeSet::new() }),
        apart: None,
        now: now(),
    }
}

/// An object of namespace `web` that the controller has looked at.
pub fn object(kind: &str, name: &str, spec: &Value, status: Value) -> Value {
    let (mut spec, mut status) = (spec.clone(), if status.is_null() { json!({}) } else { status });
    let active = json!([{"type": format!("{kind}Active"), "status": "True", "reason": "Active"}]);
    status["conditions"] = active;
    status["observedGeneration"] = 1.into();
    let mut metadata = json!({"name": name, "generation": 1, "uid": "u"});
    if kind != "Mesh" {
        metadata["namespace"] = "web".into();
        spec["meshRef"] = json!({"name": "m", "uid": "u"});
    }
    json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind, "metadata": metadata, "spec": spec, "status": status})
}

fn side(name: &str, node: &str, ip: &str) -> Side {
    let facts = Cluster {
        name: name.into(),
        region: "r".into(),
        account: "1".into(),
        arn: format!("arn:aws:eks:r:1:cluster/{name}"),
        issuer: "https://issuer".into(),
        vpc: "vpc-1".into(),
        ..Cluster::default()
    };
    let mut side = Side { facts: Some(facts), uid: Some(format!("uid-{name}")), ..Side::new(name) };
    let labels = json!({"m": "yes", "appmesh.k8s.aws/sidecarInjectorWebhook": "enabled"});
    side.objects.namespaces.insert("web".into(), of(labels));
    side.add(object("Mesh", "m", &json!({"namespaceSelector": {"matchLabels": {"m": "yes"}}}), Value::Null));
    side.add(object(
        "VirtualNode",
        node,
        &json!({
            "podSelector": {"matchLabels": {"app": node}},
            "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
            "serviceDiscovery": {"awsCloudMap": {"namespaceName": "shared", "serviceName": node}},
        }),
        Value::Null,
    ));
    let long_ago = "2026-11-29T10:00:00Z";
    let image = |image: &str| format!("{image}:1");
    let envoy = json!({"name": "envoy", "image": image("envoy"), "restartPolicy": "Always", "env": [
        {"name": "APPMESH_VIRTUAL_NODE_NAME", "value": format!("mesh/m/virtualNode/{node}_web")}]});
    let gate = "conditions.appmesh.k8s.aws/aws-cloudmap-healthy";
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": long_ago});
    side.pods = of(json!([
        {
            "metadata": {"namespace": "web", "name": node, "labels": {"app": node}},
            "spec": {
                "nodeName": format!("node-{name}"),
                "initContainers": [envoy, {"name": "proxyinit", "image": image("capture")}],
                "containers": [{"name": "app"}],
                "readinessGates": [{"conditionType": gate}],
            },
            "status": {
                "phase": "Running",
                "startTime": long_ago,
                "podIPs": [{"ip": ip}],
                "conditions": [condition("ContainersReady"), condition("Ready"), condition(gate)],
                "initContainerStatuses": [
                    container("envoy", &json!({"running": {}})),
                    container("proxyinit", &json!({"terminated": {"exitCode": 0}})),
                ],
            },
        },
        {
            "metadata": {"namespace": "appmesh-system", "name": "controller-1", "labels": {"app": "controller"}},
            "spec": {"containers": [{"name": "controller", "env": [{"name": "AWS_ROLE_ARN", "value": ROLE}]}]},
            "status": {"phase": "Running", "conditions": [condition("Ready")],
                "containerStatuses": [container("controller", &json!({"running": {}}))]},
        },
    ]));
    side.nodes = of(
        json!([{"metadata": {"name": format!("node-{name}")}, "spec": {"providerID": format!("aws:///z/i-{name}")}}]),
    );
    side.deployments = of(json!([{
        "metadata": {"namespace": "appmesh-system", "name": "appmesh-controller", "labels": {
            "app.kubernetes.io/name": "appmesh-controller", "app.kubernetes.io/version": env!("CARGO_PKG_VERSION")}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "controller"}},
            "template": {"spec": {"serviceAccountName": "appmesh-controller", "containers": [{
                "name": "controller",
                "image": "1.dkr.ecr/controller:1",
                "args": [format!("--cluster-name={name}"), "--aws-region=r", "--lease=l", "--certificate-secret=s",
                    "--sidecar-image=envoy:1", "--init-image=capture:1"],
            }]}},
        },
        "status": {"readyReplicas": 1, "updatedReplicas": 1},
    }]));
    side.definitions = Some(mesh_api::crds::all().into());
    let bundle = "Y2E=";
    let webhook = |name: &str| json!({"name": name, "clientConfig": {"caBundle": bundle}, "admissionReviewVersions": [], "sideEffects": "None"});
    side.mutating = of(
        json!([{"metadata": {}, "webhooks": [webhook("mobject.appmesh.k8s.aws"), webhook("mpod.appmesh.k8s.aws")]}]),
    );
    side.validating = of(json!([{"metadata": {}, "webhooks": [webhook("vobject.appmesh.k8s.aws")]}]));
    let slice = |service: &str| {
        json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}],
        })
    };
    let samples = vec![
        Sample { name: "appmesh_controller_xds_streams".into(), labels: BTreeMap::new(), value: 1.0 },
        sample("xds_nacks_total", &[("type", "lds")], 0.0),
        sample("cloudmap_calls_total", &[("operation", "ListServices"), ("outcome", "ok")], 5.0),
    ];
    side.around = Around {
        account: of(json!({"metadata": {"annotations": {"eks.amazonaws.com/role-arn": ROLE}}})),
        lease: of(json!({"spec": {"holderIdentity": "controller-1", "renewTime": "2026-11-29T11:59:59.000000Z"}})),
        certificate: Some(Some(VALID.clone())),
        slices: of(json!([slice("appmesh-controller-webhook-service"), slice("appmesh-controller-xds")])),
        release: Some(Some((1, "deployed".into()))),
        metrics: Some(BTreeMap::from([("controller-1".into(), samples)])),
    };
    let trust = json!({"Statement": [{
        "Effect": "Allow",
        "Principal": {"Federated": "arn:aws:iam::1:oidc-provider/issuer"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {
            "issuer:aud": "sts.amazonaws.com", "issuer:sub": "system:serviceaccount:appmesh-system:appmesh-controller"}},
    }]});
    let policy = serde_json::from_str(include_str!("../../../policies/controller.json")).unwrap();
    let inline = BTreeMap::from([("controller".to_owned(), policy)]);
    side.identity = Some(Identity {
        audiences: Some(Some(vec!["sts.amazonaws.com".into()])),
        association: Some(None),
        agent: None,
        role: Some(Some(Role { trust, attached: Vec::new(), inline })),
    });
    side.groups = Some(BTreeMap::from([(format!("i-{name}"), BTreeSet::from([format!("sg-{name}")]))]));
    let from = if name == "a" { "b" } else { "a" };
    side.rules = Some(vec![Rule {
        id: "sgr-1".into(),
        group: format!("sg-{name}"),
        protocol: "tcp".into(),
        ports: (8080, 8080),
        source: Some(format!("sg-{from}")),
        ..Rule::default()
    }]);
    side
}

/// The Secret of a certificate that ends after that many days.
pub fn secret(days: i64) -> Secret {
    let mut secret: Secret = of(json!({"data": {"ca.crt": "Y2E="}}));
    let pem = k8s_openapi::ByteString(certificate(days).into_bytes());
    secret.data.as_mut().unwrap().insert("tls.crt".into(), pem);
    secret
}

/// One of the controller's metrics.
pub fn sample(name: &str, labels: &[(&str, &str)], value: f64) -> Sample {
    let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Sample { name: format!("appmesh_controller_{name}"), labels, value }
}

/// The status of a container in a state.
pub fn container(name: &str, state: &Value) -> Value {
    json!({"name": name, "image": "x", "imageID": "", "ready": true, "restartCount": 0, "state": state})
}
