//! Lets a leader write to an API server that keeps what is written.

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use kube::Config;
use serde_json::{from_value, json};
use tokio::sync::mpsc;

use super::*;
use crate::{
    cluster::GATE,
    model::Account,
    translate::{AllPublished, translate},
};

/// Objects by the path that they are patched under.
type Stored = Arc<Mutex<BTreeMap<String, Value>>>;

/// An API server that counts resource versions and merges patches.
#[derive(Clone)]
struct ApiServer {
    stored: Stored,
    written: mpsc::UnboundedSender<String>,
}

async fn answer(State(server): State<ApiServer>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if path.contains("/events") {
        let event = format!("{} {} {}", body["type"], body["reason"], body["note"]).replace('"', "");
        server.written.send(format!("{method} event {event}")).unwrap();
        return Json(body).into_response();
    }
    if method == Method::GET {
        let known = lock(&server.stored).get(&path).map(|known| json!({"metadata": known["metadata"]}));
        return known.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |known| Json(known).into_response());
    }
    assert_eq!(method, Method::PATCH, "{path}");
    let object = path.strip_suffix("/status").unwrap_or(&path);
    let part = if path.ends_with("/status") { "status" } else { "metadata" };
    let name = object.rsplit('/').next().unwrap();
    let mut stored = lock(&server.stored);
    let Some(known) = stored.get_mut(object) else { return StatusCode::NOT_FOUND.into_response() };
    let version = known["metadata"]["resourceVersion"].clone();
    let given = &body["metadata"]["resourceVersion"];
    if !given.is_null() && *given != version {
        let _ = server.written.send(format!("conflict {name}"));
        let status = json!({"status": "Failure", "message": "", "reason": "Conflict", "code": 409});
        return (StatusCode::CONFLICT, Json(status)).into_response();
    }
    json_patch::merge(known, &body);
    known["metadata"]["resourceVersion"] = (self::version(&version) + 1).to_string().into();
    let _ = server.written.send(format!("{part} {name}"));
    Json(known.clone()).into_response()
}

#[derive(Default)]
struct FakeCloudMap {
    namespaces: Mutex<Option<Result<BTreeSet<String>, String>>>,
    asked: Mutex<u32>,
    removed: Mutex<Vec<CloudMapResource>>,
    removal: Mutex<Option<Result<Removal, String>>>,
    registered: AtomicBool,
    refusal: Mutex<Option<String>>,
    beside: Mutex<Vec<PodKey>>,
}

impl CloudMap for FakeCloudMap {
    fn namespaces(&self) -> BoxFuture<'_, Result<BTreeSet<String>, String>> {
        *lock(&self.asked) += 1;
        let answer = lock(&self.namespaces).clone().unwrap_or_else(|| Ok(BTreeSet::new()));
        Box::pin(async { answer })
    }

    fn remove<'a>(&'a self, resource: &'a CloudMapResource) -> BoxFuture<'a, Result<Removal, String>> {
        lock(&self.removed).push(resource.clone());
        let answer = lock(&self.removal).clone().unwrap_or(Ok(Removal::Done));
        Box::pin(async { answer })
    }

    fn refusal(&self, _: &Arn) -> Option<String> {
        lock(&self.refusal).clone()
    }

    fn registration(&self, _: &Pod) -> Option<Registration> {
        let registered = self.registered.load(std::sync::atomic::Ordering::Relaxed);
        Some(Registration { registered: Some(registered), error: None })
    }

    fn beside(&self, _: &Pod) -> Vec<PodKey> {
        lock(&self.beside).clone()
    }
}

/// A leader, what it writes to, and what it has written.
struct World {
    status: Status,
    stored: Stored,
    written: mpsc::UnboundedReceiver<String>,
    cloud_map: Arc<FakeCloudMap>,
    counts: Arc<Mutex<PodCounts>>,
    pods: Pods,
    metrics: Metrics,
}

impl World {
    async fn new(objects: &[Value]) -> Self {
        let (stored, (sender, written)) = (Stored::default(), mpsc::unbounded_channel());
        let server = ApiServer { stored: stored.clone(), written: sender };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(server);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_from(Config::new(format!("http://{address}").parse().unwrap())).unwrap();
        let (cloud_map, counts) = (Arc::new(FakeCloudMap::default()), Arc::new(Mutex::new(PodCounts::default())));
        let (pods, metrics) = (Pods::default(), Metrics::new());
        let counted = counts.clone();
        let count_pods: CountPods = Box::new(move |_| *lock(&counted));
        let instance = "controller-0".to_owned();
        let status =
            Status::new(client, instance, Duration::ZERO, pods.clone(), cloud_map.clone(), count_pods, metrics.clone());
        let world = Self { status, stored, written, cloud_map, counts, pods, metrics };
        objects.iter().for_each(|object| world.put(object.clone()));
        world
    }

    /// Puts an object into the API server.
    fn put(&self, object: Value) {
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let plural = if kind == "Mesh" { "meshes".to_owned() } else { format!("{}s", kind.to_lowercase()) };
        let within = object["metadata"]["namespace"].as_str().map(|namespace| format!("/namespaces/{namespace}"));
        let path = format!("/apis/appmesh.k8s.aws/v1beta2{}/{plural}/{name}", within.unwrap_or_default());
        lock(&self.stored).insert(path, object);
    }

    fn stored(&self, kind: &str) -> Value {
        lock(&self.stored).values().find(|object| object["kind"] == kind).unwrap().clone()
    }

    fn condition(&self, kind: &str) -> String {
        let condition = &self.stored(kind)["status"]["conditions"][0];
        format!("{} {}", condition["status"], condition["reason"]).replace('"', "")
    }

    /// Shows the status what the API server holds now.
    fn observe(&self) {
        let mut snapshot = Snapshot::default();
        let stored = lock(&self.stored);
        macro_rules! read {
            ($($field:ident: $kind:ident,)+) => {$(
                let known = self.status.view().snapshot.$field.clone();
                let objects = stored.values().filter(|object| object["kind"] == $kind::kind(&()).as_ref());
                let objects = objects.map(|written| {
                    let object = Object::<$kind>::parse(written).unwrap();
                    let key = crate::translate::object_key::<$kind>(&object);
                    let same = known.get(&key.namespace, &key.name).filter(|known| ****known == *object);
                    same.cloned().unwrap_or_else(|| Arc::new(object))
                });
                snapshot.$field = objects.collect();
            )+};
        }
        with_kinds!(read);
        let account = Account { partition: "aws".into(), region: "us-west-2".into(), account: "123456789012".into() };
        let translation = translate(&snapshot, &account, &AllPublished::new());
        self.status.objects_changed(snapshot.into(), translation.into());
    }

    /// Looks at an object as the leader does.
    async fn look(&self, kind: &str) -> Outcome {
        let metadata = &self.stored(kind)["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let key = ObjectKey { kind: kind.to_owned().into(), namespace: text("namespace"), name: text("name") };
        self.status.look_at_object(key).await
    }

    /// What was written since this was asked for last.
    fn written(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.written.try_recv().ok()).collect()
    }
}

/// What a task can be made of.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

fn mesh() -> Value {
    json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "spec": {},
        "metadata": {"name": "m", "uid": "1", "generation": 1, "resourceVersion": "1"}})
}

fn member(kind: &str, name: &str, mut spec: Value) -> Value {
    spec["meshRef"] = json!({"name": "m", "uid": "1"});
    json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind, "spec": spec,
        "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1, "resourceVersion": "1"}})
}

fn node() -> Value {
    let discovery = json!({"awsCloudMap": {"namespaceName": "svc", "serviceName": "a"}});
    member("VirtualNode", "a", json!({"podSelector": {}, "serviceDiscovery": discovery}))
}

fn deleted(mut object: Value, finalizers: &[&str]) -> Value {
    object["metadata"]["deletionTimestamp"] = "2026-11-22T00:00:00Z".into();
    object["metadata"]["finalizers"] = json!(finalizers);
    object
}

#[tokio::test]
async fn only_what_differs_is_written() {
    let mut world = World::new(&[mesh(), node()]).await;
    *lock(&world.cloud_map.namespaces) = Some(Ok(["svc".to_owned()].into()));
    world.observe();
    assert_eq!(world.look("VirtualNode").await, Outcome::Done);
    let event = "POST event Normal NoPods spec.podSelector: selects no pods";
    assert_eq!(world.written(), ["metadata a", "status a", event]);
    let status = world.stored("VirtualNode")["status"].clone();
    assert_eq!(status["virtualNodeARN"], "arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualNode/a_ns");
    assert_eq!((&status["pods"], &status["observedGeneration"]), (&json!("0/0"), &json!(1)));

    world.observe();
    world.look("VirtualNode").await;
    assert_eq!(world.written(), [""; 0], "the status says all");

    // Nothing of this comes back before the last: what was written here counts, not what was seen before.
    for (ready, total, condition, written) in [
        (0, 1, "True PodsNotReady", vec!["status a", "POST event Normal PodsNotReady none of the pods is ready"]),
        (1, 1, "True Active", vec!["status a"]),
        (1, 1, "True Active", vec![]),
        (1, 2, "True Active", vec!["status a"]),
        (0, 0, "True NoPods", vec!["status a", &event.replace("POST", "PATCH")]),
    ] {
        *lock(&world.counts) = PodCounts { ready, total };
        world.look("VirtualNode").await;
        assert_eq!((world.condition("VirtualNode"), world.written()), (condition.to_owned(), strings(&written)));
        assert_eq!(world.stored("VirtualNode")["status"]["pods"], format!("{ready}/{total}"));
    }
    assert_eq!(*lock(&world.cloud_map.asked), 1, "a namespace that is there is not asked for again");
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[tokio::test]
async fn a_missing_namespace_is_waited_for() {
    let world = World::new(&[mesh(), node()]).await;
    let not_found = "False CloudMapNamespaceNotFound";
    for (answer, outcome, condition) in [
        (Ok(["other".to_owned()].into()), Outcome::Retry, not_found),
        (Err("AccessDenied: not you".to_owned()), Outcome::Retry, "False CloudMapUnavailable"),
        (Ok(["svc".to_owned()].into()), Outcome::Done, "True NoPods"),
        (Ok(BTreeSet::new()), Outcome::Done, "True NoPods"),
    ] {
        world.observe();
        *lock(&world.cloud_map.namespaces) = Some(answer);
        *world.status.asked.lock().await = None;
        assert_eq!((world.look("VirtualNode").await, world.condition("VirtualNode")), (outcome, condition.to_owned()));
    }
    assert_eq!(*lock(&world.cloud_map.asked), 3);
}

#[tokio::test]
async fn what_cloud_map_refuses_to_publish_is_told() {
    let listeners = json!([{"portMapping": {"port": 80, "protocol": "http"}}]);
    let router = member("VirtualRouter", "r", json!({"listeners": listeners}));
    let provider = json!({"virtualRouter": {"virtualRouterRef": {"name": "r"}}});
    let service = member("VirtualService", "s", json!({"awsName": "s.local", "provider": provider}));
    let mut world = World::new(&[mesh(), router, service]).await;
    world.observe();
    for (refusal, condition) in
        [(Some("AccessDenied"), "True NotPublished"), (Some("Throttled"), "True NotPublished"), (None, "True Active")]
    {
        *lock(&world.cloud_map.refusal) = refusal.map(str::to_owned);
        assert_eq!(world.look("VirtualService").await, Outcome::Done);
        assert_eq!(world.condition("VirtualService"), condition);
        let message = world.stored("VirtualService")["status"]["conditions"][0]["message"].clone();
        let said = refusal.map(|why| format!("Cloud Map refuses what other clusters are to hear of it: {why}"));
        assert_eq!(message.as_str().filter(|message| !message.is_empty()), said.as_deref());
    }
    assert_eq!(world.written().iter().filter(|write| *write == "status s").count(), 3);
}

#[tokio::test]
async fn nodes_without_their_namespace_share_an_answer() {
    let world = World::new(&[mesh(), node()]).await;
    for _ in 0..3 {
        world.observe();
        world.look("VirtualNode").await;
        // An answer of just now.
        *world.status.asked.lock().await = Some(Asked { at: Instant::now() + Duration::from_secs(60), error: None });
    }
    assert_eq!(*lock(&world.cloud_map.asked), 1);
}

#[tokio::test]
async fn a_mesh_stays_until_its_members_are_gone() {
    let finalizers = [MESH_MEMBERS, APPMESH_RESOURCES, "example.com/theirs"];
    let router = member("VirtualRouter", "r", json!({}));
    let mut world = World::new(&[deleted(mesh(), &finalizers), router]).await;
    world.observe();
    world.look("Mesh").await;
    world.look("Mesh").await;
    let event = "POST event Warning PendingMembersDeletion objects pending deletion: virtualrouter ns/r";
    assert_eq!(world.written(), [event], "once");
    lock(&world.stored).retain(|_, object| object["kind"] == "Mesh");
    world.observe();
    assert_eq!(world.look("Mesh").await, Outcome::Done);
    assert_eq!(world.stored("Mesh")["metadata"]["finalizers"], json!(["example.com/theirs"]));
}

#[tokio::test]
async fn a_gateway_stays_until_its_routes_are_gone() {
    let route = |name: &str, gateway: &str| {
        let reference = json!({"namespace": "ns", "name": gateway, "uid": gateway});
        let target = json!({"virtualService": {"virtualServiceRef": {"name": "s"}}});
        let http = json!({"match": {"prefix": "/"}, "action": {"target": target}});
        member("GatewayRoute", name, json!({"virtualGatewayRef": reference, "httpRoute": http}))
    };
    let gateway = member("VirtualGateway", "g", json!({"podSelector": {}}));
    let mut world = World::new(&[mesh(), gateway, route("its", "g"), route("others", "h")]).await;
    world.observe();
    world.look("VirtualGateway").await;
    let event = "POST event Normal NoPods spec.podSelector: selects no pods";
    assert_eq!(world.written(), ["metadata g", "status g", event]);
    let status = world.stored("VirtualGateway")["status"].clone();
    assert_eq!(status["virtualGatewayARN"], "arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualGateway/g_ns");
    assert_eq!((&status["pods"], &status["conditions"][0]["type"]), (&json!("0/0"), &json!("VirtualGatewayActive")));

    world.put(deleted(world.stored("VirtualGateway"), &[GATEWAY_MEMBERS, "example.com/theirs"]));
    world.observe();
    world.look("VirtualGateway").await;
    let event = "POST event Warning PendingMembersDeletion objects pending deletion: gatewayroute ns/its";
    assert_eq!(world.written(), [event]);
    lock(&world.stored).retain(|_, object| object["metadata"]["name"] != "its");
    world.observe();
    assert_eq!(world.look("VirtualGateway").await, Outcome::Done);
    assert_eq!(world.stored("VirtualGateway")["metadata"]["finalizers"], json!(["example.com/theirs"]));
    world.look("GatewayRoute").await;
    assert_eq!(world.condition("GatewayRoute"), "False GatewayNotFound");
}

#[tokio::test]
async fn an_object_stays_until_it_is_out_of_cloud_map() {
    let service = member("VirtualService", "s", json!({"awsName": "s.local"}));
    let world = World::new(&[mesh(), deleted(service, &[CLOUDMAP_RESOURCES])]).await;
    world.observe();
    let finalizers = || world.stored("VirtualService")["metadata"]["finalizers"].clone();
    for (removal, outcome, left, condition) in [
        (Ok(Removal::Pending), Outcome::Retry, json!([CLOUDMAP_RESOURCES]), "null null"),
        (Err("AccessDenied".to_owned()), Outcome::Retry, json!([CLOUDMAP_RESOURCES]), "False CloudMapUnavailable"),
        // The status has changed the object since it was seen here.
        (Ok(Removal::Done), Outcome::Done, json!([]), "False CloudMapUnavailable"),
    ] {
        *lock(&world.cloud_map.removal) = Some(removal);
        assert_eq!((world.look("VirtualService").await, finalizers()), (outcome, left));
        assert_eq!(world.condition("VirtualService"), condition);
    }
    let arn = "arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualService/s.local".parse().unwrap();
    assert_eq!(lock(&world.cloud_map.removed).last(), Some(&CloudMapResource::Publication(arn)));
}

#[tokio::test]
async fn an_object_that_does_not_parse_says_so_once() {
    let mut written = member("VirtualRouter", "r", json!({}));
    written["status"] =
        json!({"conditions": [{"type": "VirtualRouterActive", "status": "True"}], "routeARNs": {"a": "b"}});
    let mut world = World::new(std::slice::from_ref(&written)).await;
    let unreadable = |written: &Value| Unreadable {
        resource: ApiResource::erase::<VirtualRouter>(&()),
        condition_type: "VirtualRouterActive",
        metadata: from_value(written["metadata"].clone()).unwrap(),
        status: written["status"].clone(),
        error: "spec.routes: invalid type".to_owned(),
    };
    let observe = |world: &World, unreadable: Unreadable| {
        let snapshot = Snapshot { unreadable: vec![unreadable.into()], ..Snapshot::default() };
        world.status.objects_changed(snapshot.into(), Arc::default());
    };
    observe(&world, unreadable(&written));
    world.look("VirtualRouter").await;
    observe(&world, unreadable(&world.stored("VirtualRouter")));
    world.look("VirtualRouter").await;
    let status = world.stored("VirtualRouter")["status"].clone();
    let message = "this controller cannot parse the object: spec.routes: invalid type";
    assert_eq!(
        (world.condition("VirtualRouter"), &status["conditions"][0]["message"]),
        ("False Invalid".to_owned(), &json!(message))
    );
    assert_eq!(status["routeARNs"], json!({"a": "b"}), "what is not known is left");
    let event = format!("POST event Warning Invalid {message}");
    assert_eq!(world.written(), ["status r", &event]);
    let text = world.metrics.text().unwrap();
    assert!(text.contains(r#"appmesh_controller_problems{kind="VirtualRouter",reason="Invalid"} 1"#), "{text}");

    // It goes when it is deleted, and is counted no more.
    let gone = deleted(world.stored("VirtualRouter"), &[CLOUDMAP_RESOURCES]);
    world.put(gone.clone());
    observe(&world, unreadable(&gone));
    world.look("VirtualRouter").await;
    assert_eq!(world.stored("VirtualRouter")["metadata"]["finalizers"], json!([]));
    world.status.objects_changed(Arc::default(), Arc::default());
    let text = world.metrics.text().unwrap();
    assert!(text.contains(r#"appmesh_controller_problems{kind="VirtualRouter",reason="Invalid"} 0"#), "{text}");
    assert!(text.contains(r#"appmesh_controller_objects{kind="VirtualRouter"} 0"#), "{text}");
}

#[tokio::test]
async fn a_pod_that_replaces_another_is_ready_when_other_clusters_have_heard_of_it() {
    let key = |name: &str| ("ns".to_owned(), name.to_owned());
    let pod = |name: &str, ready: &str| {
        let conditions = [("ContainersReady", "True"), (GATE, ready)].map(|(type_, status)| {
            json!({"type": type_, "status": status, "reason": "Registered", "lastTransitionTime": "2026-11-22T00:00:00Z"})
        });
        let conditions = conditions.into_iter().filter(|condition| condition["status"] != "").collect::<Vec<_>>();
        json!({
            "metadata": {"name": name, "namespace": "ns", "resourceVersion": "1"},
            "spec": {"containers": [], "readinessGates": [{"conditionType": GATE}]},
            "status": {"podIP": "10.0.0.1", "conditions": conditions}
        })
    };
    let mut leaving = pod("old", "True");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-11-22T00:00:00Z");
    let (hour, no_time) = (Duration::from_secs(3600), Duration::ZERO);
    for (case, old, heard_after, waits) in [
        ("beside one that is ready", pod("old", "True"), hour, true),
        ("others have heard of it", pod("old", "True"), no_time, false),
        ("beside one that is not ready either", pod("old", ""), hour, false),
        ("beside one that leaves in any case", leaving, hour, false),
    ] {
        let mut world = World::new(&[]).await;
        world.status.heard_after = heard_after;
        world.cloud_map.registered.store(true, std::sync::atomic::Ordering::Relaxed);
        *lock(&world.cloud_map.beside) = vec![key("old")];
        let new = pod("new", "");
        lock(&world.stored).insert("/api/v1/namespaces/ns/pods/new".to_owned(), new.clone());
        for pod in [old, new] {
            world.pods.apply(from_value(pod).unwrap());
        }
        let outcome = world.status.look_at_pod(key("new")).await;
        assert_eq!(matches!(outcome, Outcome::After(_)), waits, "{case}: {outcome:?}");
        assert_eq!(world.written.try_recv().is_err(), waits, "{case}");
    }
}

#[tokio::test]
async fn the_leader_writes_everything_once_and_then_what_changes() {
    let spec = json!({"listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}]});
    let routers = ["r", "s"].map(|name| member("VirtualRouter", name, spec.clone()));
    let mut world = World::new(&[mesh(), routers[0].clone(), routers[1].clone()]).await;
    let mut written = std::mem::replace(&mut world.written, mpsc::unbounded_channel().1);
    let pod = json!({
        "metadata": {"name": "p", "namespace": "ns", "resourceVersion": "1"},
        "spec": {"containers": [], "readinessGates": [{"conditionType": GATE}]},
        "status": {"podIP": "10.0.0.1", "conditions": [{"type": "ContainersReady", "status": "True"}]}
    });
    lock(&world.stored).insert("/api/v1/namespaces/ns/pods/p".to_owned(), pod.clone());
    world.pods.apply(from_value(pod).unwrap());
    world.cloud_map.registered.store(true, std::sync::atomic::Ordering::Relaxed);
    world.observe();
    let change = |router: usize, generation: i64| {
        let name = &routers[router]["metadata"]["name"];
        let mut object =
            lock(&world.stored).values().find(|object| object["metadata"]["name"] == *name).unwrap().clone();
        object["metadata"]["generation"] = generation.into();
        world.put(object);
        world.observe();
    };
    let (leads, leading) = watch::channel(false);
    let stop = CancellationToken::new();
    let steps = async {
        world.status.gates_changed([("ns".to_owned(), "p".to_owned())]);
        leads.send_replace(true);
        let mut first = Vec::new();
        while first.len() < 5 {
            first.extend(written.recv().await);
        }
        first.sort();
        assert_eq!(first, ["metadata m", "status m", "status p", "status r", "status s"]);
        for (router, expected) in [(1, "status s"), (0, "status r")] {
            change(router, 2);
            assert_eq!(written.recv().await.unwrap(), expected, "and no other");
        }
        stop.cancel();
    };
    tokio::join!(sendable(world.status.run(leading, stop.clone())), steps);
}
