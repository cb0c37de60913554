#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::*;
use crate::testing::{each_finds_its_own, object, of, scene};
use serde_json::{Value, json};

/// The caller, or what is called.
fn a(scene: &mut Scene) -> &mut Side {
    &mut scene.sides[0]
}

fn b(scene: &mut Scene) -> &mut Side {
    &mut scene.sides[1]
}

fn routes(scene: &mut Scene) -> &mut Vec<mesh_api::Route> {
    b(scene).objects.routers[0].spec.routes.as_mut().unwrap()
}

fn target(scene: &mut Scene) -> &mut mesh_api::WeightedTarget {
    &mut routes(scene)[0].http_route.as_mut().unwrap().action.weighted_targets[0]
}

fn node(spec: Value) -> Value {
    object("VirtualNode", "other", &spec, Value::Null)
}

fn labels(scene: &mut Scene, app: &str) {
    let pods = b(scene).pods.as_mut().unwrap();
    pods[0].metadata.labels = of(json!({"app": app}));
}

fn condition(scene: &mut Scene, status: &str, reason: &str) {
    let condition = json!([{"type": "VirtualNodeActive", "status": status, "reason": reason, "message": "why"}]);
    b(scene).objects.nodes[0].status.as_mut().unwrap().conditions = of(condition);
}

/// A workload that the VirtualNode of `b` selects.
fn workload(scene: &mut Scene, spec: Value) {
    let template = json!({"metadata": {"labels": {"app": "red"}}, "spec": spec});
    let (object, namespace) = ("Deployment web/red of cluster b".to_owned(), "web".to_owned());
    b(scene).templates.push(Template { object, namespace, template: of(template), failure: None });
}

#[test]
fn every_check_finds_what_it_is_for() {
    each_finds_its_own(
        CHECKS,
        judge,
        &[
            (
                READABLE,
                |it| b(it).add(node(json!({"listeners": 7}))),
                "VirtualNode web/other of cluster b: spec.listeners: invalid type: number",
            ),
            (
                SUPPORTED,
                |it| {
                    let tls = json!({"mode": "STRICT", "certificate": {"acm": {"certificateARN": "arn"}}});
                    let listener = json!({"portMapping": {"port": 80, "protocol": "http"}, "tls": tls});
                    let found_by = json!({"dns": {"hostname": "x"}});
                    b(it).add(node(json!({"listeners": [listener], "serviceDiscovery": found_by})));
                },
                "spec.listeners[0].tls.certificate.acm is supported by App Mesh alone",
            ),
            (KNOWN, |it| b(it).add(node(json!({"listener": []}))), "spec.listener is no field of App Mesh"),
            (MESH, |it| b(it).objects.meshes.clear(), "VirtualNode web/red of cluster b: its Mesh m is gone"),
            (MESH, |it| b(it).objects.nodes[0].spec.mesh_ref = None, "it has no meshRef"),
            (
                PROVIDER,
                |it| b(it).objects.routers.clear(),
                "VirtualService web/color of cluster b: VirtualRouter web/color does not exist",
            ),
            (
                TARGET,
                |it| target(it).virtual_node_ref.as_mut().unwrap().name = "blue".into(),
                "VirtualRouter web/color of cluster b: VirtualNode web/blue does not exist",
            ),
            (
                BACKEND,
                |it| {
                    let backends = json!([{"virtualService": {"virtualServiceRef": {"name": "x"}}}]);
                    a(it).objects.nodes[0].spec.backends = of(backends);
                },
                "VirtualNode web/front of cluster a: VirtualService web/x does not exist",
            ),
            (
                BACKEND,
                |it| a(it).objects.nodes[0].spec.backend_groups = of(json!([{"name": "g"}])),
                "BackendGroup web/g does not exist",
            ),
            (
                ARN,
                |it| {
                    let status = b(it).objects.services[0].status.as_mut().unwrap();
                    status.virtual_service_arn = Some("arn:aws:appmesh:r:1:mesh/n/virtualService/color.web".into());
                },
                "no cluster has arn:aws:appmesh:r:1:mesh/m/virtualService/color.web",
            ),
            (
                ARN,
                |it| {
                    let backends = json!([{"virtualService": {"virtualServiceARN": "color"}}]);
                    a(it).objects.nodes[0].spec.backends = of(backends);
                },
                "\"color\" is no ARN of App Mesh",
            ),
            (
                HOST,
                |it| {
                    let spec = json!({"awsName": "color.web"});
                    b(it).add(object("VirtualService", "second", &spec, Value::Null));
                },
                "VirtualService web/second of cluster b: color.web is the host of VirtualService web/color of cluster b, too",
            ),
            (NAME, |it| a(it).services = Some(Vec::new()), "it calls color.web, and there is no Service web/color"),
            (
                SELECTED,
                |it| b(it).add(node(json!({"podSelector": {}}))),
                "Pod web/red of cluster b: it is selected by VirtualNode web/red of cluster b and VirtualNode web/other",
            ),
            (PODS, |it| labels(it, "blue"), "VirtualNode web/red of cluster b: its podSelector selects no pods"),
            (
                SIDECAR,
                |it| b(it).pods.as_mut().unwrap()[0].spec.as_mut().unwrap().init_containers = None,
                "Pod web/red of cluster b: it has no sidecar",
            ),
            (
                GATEWAY,
                |it| b(it).objects.gateways.clear(),
                "GatewayRoute web/in of cluster b: its VirtualGateway web/in is gone",
            ),
            (
                GATEWAY,
                |it| {
                    b(it).objects.gateway_routes[0].spec.virtual_gateway_ref = None;
                    b(it).objects.gateways[0].spec.namespace_selector = None;
                },
                "no VirtualGateway selects it",
            ),
            (WEIGHT, |it| target(it).weight = 0, "all weights of route all are 0"),
            (
                SHADOWED,
                |it| {
                    let mut second = routes(it)[0].clone();
                    second.name = "second".into();
                    routes(it).push(second);
                },
                "route second gets nothing: all is tried first",
            ),
            (PORT, |it| target(it).port = Some(81), "route all names port 81, where red has no listener"),
            (
                ENVOYLESS,
                |it| {
                    b(it).objects.gateways[0].spec.pod_selector = of(json!({"matchLabels": {"app": "in"}}));
                    b(it).pods.as_mut().unwrap()[1].metadata.labels = of(json!({"app": "in"}));
                    b(it).pods.as_mut().unwrap()[1].metadata.namespace = Some("web".into());
                    b(it).pods.as_mut().unwrap()[1].metadata.annotations =
                        of(json!({"appmesh.k8s.aws/sidecarInjectorWebhook": "disabled"}));
                    let template =
                        json!({"metadata": {"labels": {"app": "in"}}, "spec": {"containers": [{"name": "x"}]}});
                    let (object, namespace) = ("Deployment web/in".to_owned(), "web".to_owned());
                    b(it).templates.push(Template { object, namespace, template: of(template), failure: None });
                },
                "Deployment web/in: VirtualGateway in selects its pods, which have no container envoy",
            ),
            (
                DISCOVERY,
                |it| b(it).objects.nodes[0].spec.service_discovery = None,
                "it has listeners and no serviceDiscovery",
            ),
            (REFUSED, |it| workload(it, json!({"containers": [], "hostNetwork": true})), "it is in its node's network"),
            (
                REFUSED,
                |it| workload(it, json!({"containers": [{"name": "envoy"}]})),
                "its container envoy has the name",
            ),
            (
                REFUSED,
                |it| workload(it, json!({"containers": [{"name": "x", "securityContext": {"runAsUser": 1337}}]})),
                "it runs as user 1337",
            ),
            (
                REFUSED,
                |it| workload(it, json!({"containers": [{"name": "x", "ports": [{"containerPort": 15000}]}]})),
                "its port 15000 is one that Envoy listens on",
            ),
            (
                REFUSED,
                |it| workload(it, json!({"containers": [], "dnsPolicy": "Default"})),
                "does not find the controller",
            ),
            (
                REFUSED,
                |it| {
                    let labels = b(it).objects.namespaces.get_mut("web").unwrap();
                    labels.insert("pod-security.kubernetes.io/enforce".into(), "baseline".into());
                    workload(it, json!({"containers": []}));
                },
                "enforces the Pod Security level baseline",
            ),
            (
                REFUSED,
                |it| {
                    workload(it, json!({"containers": []}));
                    let words = "admission webhook \"mpod.appmesh.k8s.aws\" denied the request: no";
                    b(it).templates[0].failure = Some(words.into());
                },
                "denied the request: no",
            ),
            (
                TWICE,
                |it| {
                    let listener = b(it).objects.nodes[0].spec.listeners.as_ref().unwrap()[0].clone();
                    b(it).objects.nodes[0].spec.listeners.as_mut().unwrap().push(listener);
                },
                "two listeners have port 8080",
            ),
            (
                TWICE,
                |it| {
                    let backends = a(it).objects.nodes[0].spec.backends.as_mut().unwrap();
                    backends.push(backends[0].clone());
                },
                "is named twice",
            ),
            (
                FALSE,
                |it| condition(it, "False", "Invalid"),
                "VirtualNode web/red of cluster b: Invalid: why: docs/troubleshooting.md#invalid",
            ),
            (
                WAITING,
                |it| condition(it, "True", "BackendNotPublished"),
                "VirtualNode web/red of cluster b: BackendNotPublished: why",
            ),
            (
                SEEN,
                |it| b(it).objects.nodes[0].metadata.generation = Some(2),
                "VirtualNode web/red of cluster b: its status is not that of its present spec",
            ),
            (
                LEAVING,
                |it| {
                    b(it).objects.nodes[0].metadata.deletion_timestamp = of(json!("2026-11-29T11:00:00Z"));
                    b(it).objects.nodes[0].metadata.finalizers = Some(vec!["f".into()]);
                },
                "it has been leaving for 60 minutes; it is held by f",
            ),
        ],
    );
}

#[test]
fn what_another_finding_explains_is_not_said_twice() {
    let mut scene = scene();
    target(&mut scene).virtual_node_ref.as_mut().unwrap().name = "blue".into();
    let side = b(&mut scene);
    let router = json!([{"type": "VirtualRouterActive", "status": "False", "reason": "TargetNotFound"}]);
    side.objects.routers[0].status.as_mut().unwrap().conditions = of(router);
    let service = json!([{"type": "VirtualServiceActive", "status": "False", "reason": "ProviderNotActive"}]);
    side.objects.services[0].status.as_mut().unwrap().conditions = of(service);
    let codes: Vec<String> = judge(&scene).into_iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [TARGET.code]);
}

/// What is found in manifests alone.
fn found(files: &[(&str, Value)]) -> Vec<String> {
    let mut sides: Vec<Side> = Vec::new();
    for (name, objects) in files {
        let mut side = Side::new(name);
        objects.as_array().unwrap().iter().for_each(|object| side.add(object.clone()));
        sides.push(side);
    }
    let scene = crate::diagnosis::of_manifests(sides);
    judge(&scene).iter().map(ToString::to_string).collect()
}

fn manifest(kind: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": if kind == "Mesh" { "" } else { "web" }});
    json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind, "metadata": metadata, "spec": spec})
}

#[test]
fn manifests_are_checked_as_far_as_they_tell() {
    let mesh = manifest("Mesh", "m", &json!({"namespaceSelector": {"matchLabels": {"m": "yes"}}}));
    let space = |label: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web", "labels": {"m": label}}});
    let calls = |arn: &str| {
        manifest("VirtualNode", "front", &json!({"backends": [{"virtualService": {"virtualServiceARN": arn}}]}))
    };
    let service = || manifest("VirtualService", "color", &json!({"awsName": "color.web"}));
    let arn = "arn:aws:appmesh:r:1:mesh/m/virtualService/color.web";
    assert_eq!(found(&[("manifests", json!([mesh, space("yes"), calls(arn)]))]), [""; 0]);
    assert_eq!(found(&[("manifests", json!([calls("{{ apps.color.arn }}")]))]), [""; 0]);
    assert_eq!(found(&[("a", json!([mesh, calls(arn)])), ("b", json!([mesh, service()]))]), [""; 0]);
    let nowhere = found(&[("a", json!([mesh, calls(arn)])), ("b", json!([mesh]))]);
    assert!(nowhere[0].starts_with("XM0408 VirtualNode web/front of a: no cluster has arn:aws"), "{nowhere:?}");
    let strange = found(&[("manifests", json!([mesh, space("no"), service()]))]);
    assert!(
        strange[0].starts_with("XM0404 VirtualService web/color of manifests: no Mesh selects namespace web"),
        "{strange:?}"
    );
    // A Namespace that is in another file may have any labels.
    assert_eq!(found(&[("manifests", json!([mesh, service()]))]), [""; 0]);
}

#[test]
fn hosts_of_kubernetes_are_told_from_others() {
    let namespaces = BTreeMap::from([("web".to_owned(), Labels::new())]);
    for (host, expected) in [
        ("color.web", Some(("color", "web"))),
        ("color.web.svc.cluster.local", Some(("color", "web"))),
        ("color.shop.svc.cluster.local", Some(("color", "shop"))),
        ("color.web.svc", Some(("color", "web"))),
        ("example.com", None),
        ("color.svc2.svc.local", None),
        ("color", None),
    ] {
        assert_eq!(of_kubernetes(host, &namespaces), expected, "{host}");
    }
}
