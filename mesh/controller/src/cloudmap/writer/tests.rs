use super::*;
use crate::{
    cloudmap::{exchange::publication, fake::Fake, service_key},
    model::{
        CloudMapDiscovery, Discovery, PackedMap, Port, Protocol, Route, Routing, Target, Upstream, VirtualServiceKey,
        endpoint::{CLUSTER, CLUSTER_ARN, NAMESPACE, POD},
    },
};

const ARN: &str = "arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualService/s";

fn here() -> ClusterId {
    ClusterId { uid: "here".to_owned(), arn: Some("arn:here".to_owned()) }
}

fn service(namespace: &str, service: &str) -> ServiceKey {
    ServiceKey { namespace: namespace.to_owned(), service: service.to_owned() }
}

fn published_in(namespace: &str) -> ServiceKey {
    service_key(&VirtualServiceKey { namespace: namespace.to_owned(), arn: ARN.to_owned() })
}

fn attributes(of: &[(&str, &str)]) -> Attributes {
    of.iter().copied().collect()
}

/// These pods, by address; each is named after its own.
fn pods(ids: &[&str]) -> Want {
    let pod = |id: &&str| {
        let attributes = attributes(&[(CLUSTER, "here"), (NAMESPACE, "shop"), (POD, &format!("pod-{id}"))]);
        ((*id).to_owned(), Arc::new(attributes))
    };
    Want { instances: ids.iter().map(pod).collect(), ..Want::default() }
}

/// A publication that leads to one service.
fn document(to: &ServiceKey, weight: u32) -> Want {
    let port = Port { port: 8080, protocol: Protocol::Http };
    let discovery = Discovery::CloudMap(CloudMapDiscovery { key: to.clone(), attributes: PackedMap::default() });
    let routes = vec![Route::of_everything("r".into(), vec![Target { upstream: "n".into(), weight }])];
    let upstreams = BTreeMap::from([("n".into(), Upstream::new(port, discovery))]);
    let routing = Routing::of_port(port, routes, upstreams);
    let after = routing.services().cloned().collect();
    Want { api_only: true, instances: publication(ARN, &here(), &routing), after, ..Want::default() }
}

fn document_ids(to: &ServiceKey, weight: u32) -> Vec<String> {
    document(to, weight).instances.into_keys().collect()
}

/// A writer at work.
struct Cluster {
    fake: Arc<Fake>,
    writer: Arc<Writer>,
    leader: watch::Sender<bool>,
}

impl Cluster {
    fn new(fake: &Arc<Fake>, leading: bool) -> Self {
        let writer = Writer::new(fake.client(), here());
        let (leader, leading) = watch::channel(leading);
        tokio::spawn(writer.clone().run(leading, CancellationToken::new()));
        Self { fake: fake.clone(), writer, leader }
    }

    /// The calls since the last time, but for those about the journal.
    fn calls(&self) -> Vec<String> {
        self.fake.calls().into_iter().filter(|call| !call.contains("appmesh.journal")).collect()
    }

    /// What its journal says: the term, how many changes there were, and in which services.
    fn journal(&self, namespace: &str) -> Option<(String, usize, String)> {
        let journal = self.fake.instances(&journal::service_key(namespace))?.remove("here")?;
        let get = |key| journal.get(key).unwrap_or_default().to_owned();
        Some((get("term"), get("count").parse().unwrap(), get("services.0")))
    }

    /// Waits until its journal names these services.
    async fn notes(&self, namespace: &str, services: &str) {
        let noted = || self.journal(namespace).is_some_and(|(_, _, noted)| noted == services);
        self.fake.until(&format!("{services} in the journal"), noted).await;
    }

    fn set(&self, key: &ServiceKey, want: impl Into<Option<Want>>) {
        self.writer.set([(key.clone(), want.into())]);
    }

    fn registered(&self, key: &ServiceKey) -> Registered {
        self.writer.registered(key).as_deref().cloned().unwrap_or_default()
    }

    /// Waits until callers find just these.
    async fn finds(&self, key: &ServiceKey, ids: &[&str]) {
        let ids: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let found = || self.registered(key).instances.as_ref() == Some(&ids) && self.fake.ids(key).iter().eq(&ids);
        self.fake.until(&format!("{ids:?} in {key}"), found).await;
    }

    /// Ends the wait after a failure.
    fn look_again(&self, key: &ServiceKey) {
        self.writer.lock().at_once(key);
        self.writer.wake.notify_one();
    }

    async fn troubled(&self, key: &ServiceKey, trouble: &str) {
        let troubled = || self.registered(key).trouble.as_deref() == Some(trouble);
        self.fake.until(&format!("{trouble} of {key}"), troubled).await;
    }
}

#[tokio::test]
async fn pods_come_and_go_and_the_service_with_them() {
    let fake = Fake::new(&["n"]);
    let (cluster, key) = (Cluster::new(&fake, true), service("n", "front"));
    cluster.set(&key, pods(&[]));
    cluster.finds(&key, &[]).await;
    cluster.set(&key, pods(&["10.0.0.1", "10.0.0.2"]));
    cluster.finds(&key, &["10.0.0.1", "10.0.0.2"]).await;
    cluster.calls();
    cluster.set(&key, pods(&["10.0.0.2"]));
    cluster.finds(&key, &["10.0.0.2"]).await;
    assert_eq!(cluster.calls(), ["DeregisterInstance n/front 10.0.0.1"], "nothing is listed for it");
    cluster.set(&key, None);
    fake.until("the service is gone", || fake.instances(&key).is_none()).await;
    assert_eq!(cluster.writer.registered(&key), None);
    fake.until("nothing is known of it", || cluster.writer.lock().services.is_empty()).await;
}

#[tokio::test]
async fn a_service_that_others_use_or_made_stays() {
    let fake = Fake::new(&["n"]);
    let (shared, made) = (service("n", "shared"), service("n", "made"));
    fake.register(&made, "10.0.0.9", &attributes(&[]));
    fake.deregister(&made, "10.0.0.9");
    let cluster = Cluster::new(&fake, true);
    for (key, pod) in [(&shared, "10.0.0.1"), (&made, "10.0.0.3")] {
        cluster.set(key, pods(&[pod]));
        cluster.finds(key, &[pod]).await;
    }
    fake.register(&shared, "10.0.0.2", &attributes(&[(CLUSTER, "there")]));
    for key in [&shared, &made] {
        cluster.set(key, None);
        cluster.writer.forget(&BTreeSet::from([key.clone()])).await.unwrap();
    }
    assert_eq!((fake.ids(&shared), fake.instances(&made)), (vec!["10.0.0.2".to_owned()], Some(BTreeMap::new())));
}

#[tokio::test]
async fn what_takes_long_is_waited_for() {
    let fake = Fake::new(&["n"]);
    let (cluster, key) = (Cluster::new(&fake, true), service("n", "front"));
    fake.hold(true);
    cluster.set(&key, pods(&["10.0.0.1"]));
    fake.until("it starts", || cluster.registered(&key).starting.contains("10.0.0.1")).await;
    assert_eq!(cluster.registered(&key).instances, Some(BTreeSet::new()));
    fake.calls();
    cluster.set(&key, pods(&[]));
    assert_eq!(cluster.writer.settle(&key).await.unwrap(), Progress::UnderWay);
    assert_eq!(fake.calls(), Vec::<String>::new(), "one that is on its way in cannot be removed yet");
    fake.hold(false);
    cluster.finds(&key, &[]).await;
    fake.until("it was removed", || fake.calls().contains(&"DeregisterInstance n/front 10.0.0.1".to_owned())).await;
}

#[tokio::test]
async fn an_operation_that_fails_is_reported_and_tried_again() {
    let fake = Fake::new(&["n"]);
    let (cluster, key) = (Cluster::new(&fake, true), service("n", "front"));
    fake.fail("10.0.0.1", Some("not you"));
    cluster.set(&key, pods(&["10.0.0.1", "10.0.0.2"]));
    cluster.troubled(&key, "changing instance 10.0.0.1: ACCESS_DENIED: not you").await;
    let found = || cluster.registered(&key).instances.is_some_and(|instances| instances.contains("10.0.0.1"));
    fake.calls();
    fake.until("it is tried again", || {
        assert!(!found() && cluster.writer.lock().services[&key].failures > 0, "it was never there");
        assert_ne!(cluster.registered(&key).trouble, None, "what is tried again may fail again");
        fake.calls().contains(&"RegisterInstance n/front 10.0.0.1".to_owned())
    })
    .await;
    fake.until("it fails again", || cluster.writer.lock().services[&key].failures > 1).await;
    fake.fail("10.0.0.1", None);
    cluster.finds(&key, &["10.0.0.1", "10.0.0.2"]).await;
    fake.until("no trouble", || cluster.registered(&key).trouble.is_none()).await;
}

#[tokio::test]
async fn a_pod_stays_where_it_is_until_it_is_found_where_it_is_wanted() {
    let fake = Fake::new(&["n"]);
    let (cluster, old, new) = (Cluster::new(&fake, true), service("n", "front"), service("mistaken", "front"));
    cluster.set(&old, pods(&["10.0.0.1", "10.0.0.2"]));
    cluster.finds(&old, &["10.0.0.1", "10.0.0.2"]).await;
    cluster.writer.set([(old.clone(), None), (new.clone(), Some(pods(&["10.0.0.1"])))]);
    cluster.troubled(&new, "Cloud Map namespace not found: mistaken").await;
    fake.until("who is wanted nowhere goes", || fake.ids(&old) == ["10.0.0.1"]).await;
    assert_eq!(cluster.writer.settle(&old).await.unwrap(), Progress::Leaving);
    assert_eq!(fake.ids(&old), ["10.0.0.1"]);
    fake.namespace("mistaken");
    cluster.look_again(&new);
    cluster.finds(&new, &["10.0.0.1"]).await;
    let slot = cluster.writer.lock().services[&old].slot.clone();
    fake.until("it lingers", || slot.try_lock().is_ok_and(|present| !present.moved.is_empty())).await;
    assert_eq!(fake.ids(&old), ["10.0.0.1"]);
    slot.lock().await.moved.values_mut().for_each(|since| *since -= Duration::from_secs(60));
    cluster.look_again(&old);
    fake.until("it is gone", || fake.instances(&old).is_none()).await;
}

#[tokio::test]
async fn a_document_is_replaced_without_a_gap() {
    let fake = Fake::new(&["n"]);
    let (cluster, key, to) = (Cluster::new(&fake, true), published_in("n"), service("n", "front"));
    cluster.set(&to, pods(&["10.0.0.1"]));
    cluster.set(&key, document(&to, 1));
    fake.until("it is there", || fake.ids(&key) == document_ids(&to, 1)).await;
    cluster.finds(&to, &["10.0.0.1"]).await;
    fake.calls();
    cluster.set(&key, document(&to, 2));
    fake.until("the next is there", || fake.ids(&key) == document_ids(&to, 2)).await;
    let [old, new] = [1, 2].map(|weight| document_ids(&to, weight).remove(0));
    let path = format!("n/{}", key.service);
    let expected = [format!("RegisterInstance {path} {new}"), format!("DeregisterInstance {path} {old}")];
    let calls: Vec<_> = fake.calls().into_iter().filter(|call| call.contains(&path)).collect();
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn a_document_keeps_its_time_across_a_restart() {
    let fake = Fake::new(&["n"]);
    let (key, to) = (published_in("n"), service("n", "front"));
    let first = Cluster::new(&fake, true);
    first.set(&key, document(&to, 1));
    fake.until("it is there", || fake.ids(&key) == document_ids(&to, 1)).await;
    first.leader.send_replace(false);
    let published = fake.instances(&key);
    let second = Cluster::new(&fake, true);
    second.set(&key, document(&to, 1));
    second.finds(&key, &document_ids(&to, 1).iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(fake.instances(&key), published);
}

#[tokio::test]
async fn a_document_stays_until_the_services_of_the_next_are_filled() {
    let fake = Fake::new(&["n"]);
    let (cluster, key) = (Cluster::new(&fake, true), published_in("n"));
    let (old, new) = (service("n", "front"), service("mistaken", "front"));
    cluster.set(&old, pods(&["10.0.0.1"]));
    cluster.set(&key, document(&old, 1));
    fake.until("the old one is there", || fake.ids(&key) == document_ids(&old, 1)).await;
    let moved = [(old.clone(), None), (new.clone(), Some(pods(&["10.0.0.1"]))), (key.clone(), Some(document(&new, 1)))];
    cluster.writer.set(moved);
    cluster.troubled(&new, "Cloud Map namespace not found: mistaken").await;
    assert_eq!(cluster.writer.settle(&key).await.unwrap(), Progress::Settled);
    assert_eq!((fake.ids(&key), fake.ids(&old)), (document_ids(&old, 1), vec!["10.0.0.1".to_owned()]));
    fake.namespace("mistaken");
    cluster.look_again(&new);
    fake.until("the new one is there", || fake.ids(&key) == document_ids(&new, 1)).await;
    assert_eq!(fake.ids(&new), ["10.0.0.1"]);
}

#[tokio::test]
async fn a_document_that_moves_to_another_namespace_stays_until_it_is_there() {
    let fake = Fake::new(&["n"]);
    let cluster = Cluster::new(&fake, true);
    let (old, new, to) = (published_in("n"), published_in("mistaken"), service("n", "front"));
    cluster.set(&old, document(&to, 1));
    fake.until("the old one is there", || fake.ids(&old) == document_ids(&to, 1)).await;
    cluster.writer.set([(old.clone(), None), (new.clone(), Some(document(&to, 1)))]);
    cluster.troubled(&new, "Cloud Map namespace not found: mistaken").await;
    assert_eq!(cluster.writer.settle(&old).await.unwrap(), Progress::Leaving);
    assert_eq!(fake.ids(&old), document_ids(&to, 1));
}

#[tokio::test]
async fn a_cluster_that_is_made_again_removes_what_its_predecessor_left() {
    let fake = Fake::new(&["n"]);
    let (pod_service, key) = (service("n", "front"), published_in("n"));
    let predecessor = [(CLUSTER, "before"), (CLUSTER_ARN, "arn:here")];
    fake.register(&pod_service, "10.0.0.9", &attributes(&predecessor));
    fake.register(&pod_service, "10.0.0.8", &attributes(&[(CLUSTER, "there"), (CLUSTER_ARN, "arn:there")]));
    let old = publication(
        ARN,
        &ClusterId { uid: "before".into(), ..here() },
        &Routing::of_port(Port { port: 1, protocol: Protocol::Http }, Vec::new(), BTreeMap::new()),
    );
    for (id, attributes) in &old {
        fake.register(&key, id, attributes);
    }
    let cluster = Cluster::new(&fake, true);
    cluster.set(&pod_service, pods(&["10.0.0.1"]));
    cluster.set(&key, document(&pod_service, 1));
    cluster.finds(&pod_service, &["10.0.0.1", "10.0.0.8"]).await;
    fake.until("its document is gone", || fake.ids(&key) == document_ids(&pod_service, 1)).await;
    assert_eq!(cluster.writer.foreign(), BTreeSet::from([pod_service]));
}

#[tokio::test]
async fn at_rest_one_list_compares_all_services() {
    let fake = Fake::new(&["n"]);
    let (cluster, keys) = (Cluster::new(&fake, true), ["back", "front"].map(|name| service("n", name)));
    for key in &keys {
        cluster.set(key, pods(&["10.0.0.1"]));
        cluster.finds(key, &["10.0.0.1"]).await;
    }
    let compare = async || {
        // As if the last list were too old.
        cluster.writer.cloudmap.forget("n", "front").await;
        cluster.calls();
        for key in &keys {
            cluster.writer.lock().services.get_mut(key).unwrap().compare = Some(Instant::now());
            cluster.writer.settle(key).await.unwrap();
        }
        cluster.calls()
    };
    let listed = ["ListInstances n/back", "ListServices", "ListInstances n/front"];
    assert_eq!(compare().await, listed, "once after a change of its own");
    assert_eq!(compare().await, ["ListServices"]);
    for key in &keys {
        cluster.writer.settle(key).await.unwrap();
    }
    assert_eq!(cluster.calls(), Vec::<String>::new(), "no comparison is due");
    fake.deregister(&keys[1], "10.0.0.1");
    let mended = compare().await;
    assert_eq!(mended, ["ListServices", "ListInstances n/front", "RegisterInstance n/front 10.0.0.1"]);
    cluster.finds(&keys[1], &["10.0.0.1"]).await;
    fake.register(&keys[0], "10.0.0.2", &attributes(&[(CLUSTER, "there")]));
    compare().await;
    assert_eq!(cluster.writer.foreign(), BTreeSet::from([keys[0].clone()]));
}

#[test]
fn an_operation_that_goes_on_takes_little_memory() {
    let fake = Fake::new(&["n"]);
    let writer = Writer::new(fake.client(), here());
    let size = size_of_val(&writer.done(&service("n", "front"), "1"));
    assert!(size < 1024, "{size} bytes for each of thousands");
}

#[tokio::test]
async fn only_the_leader_writes_and_others_look() {
    let fake = Fake::new(&["n"]);
    let (cluster, key) = (Cluster::new(&fake, false), service("n", "front"));
    fake.register(&key, "10.0.0.2", &attributes(&[(CLUSTER, "there")]));
    cluster.set(&key, pods(&["10.0.0.1"]));
    cluster.set(&service("n", "missing"), pods(&["10.0.0.1"]));
    assert_eq!(cluster.writer.foreign(), BTreeSet::from([key.clone(), service("n", "missing")]), "until it was looked");
    fake.until("others are seen", || cluster.writer.foreign() == BTreeSet::from([key.clone()])).await;
    assert_eq!(cluster.registered(&key), Registered::default());
    cluster.writer.settle(&service("n", "missing")).await.unwrap();
    assert_eq!(fake.instances(&service("n", "missing")), None);
    cluster.leader.send_replace(true);
    cluster.finds(&key, &["10.0.0.1", "10.0.0.2"]).await;
}

#[tokio::test]
async fn forgetting_waits_until_everything_is_gone() {
    let fake = Fake::new(&["n", "o"]);
    let (cluster, key) = (Cluster::new(&fake, true), service("n", "front"));
    cluster.set(&key, pods(&["10.0.0.1"]));
    cluster.finds(&key, &["10.0.0.1"]).await;
    cluster.set(&key, None);
    let unknown = service("o", "front");
    fake.register(&unknown, "10.0.0.3", &attributes(&[(CLUSTER, "here")]));
    cluster.writer.forget(&BTreeSet::from([key.clone(), unknown.clone()])).await.unwrap();
    assert_eq!((fake.instances(&key), fake.ids(&unknown)), (None, vec![]));
    fake.namesake("o", "o-2");
    assert_eq!(cluster.writer.namespaces().await.unwrap(), BTreeMap::from([("n".to_owned(), 1), ("o".to_owned(), 2)]));
}

#[tokio::test]
async fn a_document_that_an_earlier_leader_left_is_removed() {
    let fake = Fake::new(&["n", "o", "p"]);
    let cluster = Cluster::new(&fake, true);
    let arn = "arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualService/color";
    let of = |namespace| service(namespace, "appmesh.m.color");
    cluster.set(&of("n"), pods(&["here"]));
    cluster.finds(&of("n"), &["here"]).await;
    fake.register(&of("o"), "here", &attributes(&[(CLUSTER, "here")]));
    fake.register(&of("o"), "there", &attributes(&[(CLUSTER, "there")]));
    cluster.writer.sweep(&BTreeSet::from([arn.to_owned()])).await;
    fake.until("it is gone", || fake.ids(&of("o")) == ["there"]).await;
    let nowhere_else = || cluster.writer.lock().services.keys().all(|key| key.namespace == "n");
    fake.until("nothing is known of it", nowhere_else).await;
    assert_eq!(fake.ids(&of("n")), ["here"]);
}

#[tokio::test]
async fn what_changes_is_noted_in_the_journal_of_the_namespace() {
    let fake = Fake::new(&["n", "o"]);
    let (cluster, front, back) = (Cluster::new(&fake, true), service("n", "front"), service("n", "back"));
    cluster.set(&front, pods(&["10.0.0.1"]));
    cluster.notes("n", "front").await;
    cluster.set(&back, pods(&["10.0.0.2"]));
    cluster.notes("n", "back,front").await;
    cluster.set(&front, pods(&["10.0.0.1", "10.0.0.3"]));
    cluster.notes("n", "front,back,front").await;
    assert_eq!(fake.ids(&journal::service_key("n")), ["here"], "one for a cluster");
    assert_eq!(fake.instances(&journal::service_key("o")), None, "nothing is there");
    let (term, count, _) = cluster.journal("n").unwrap();
    assert_eq!(count, 3);
    cluster.finds(&front, &["10.0.0.1", "10.0.0.3"]).await;
    // Whoever leads next cannot know what the one before has noted.
    cluster.leader.send_replace(false);
    fake.until("it leads no more", || cluster.writer.lock().journals.is_empty()).await;
    cluster.leader.send_replace(true);
    fake.until("another term", || cluster.journal("n").is_some_and(|(other, count, _)| other != term && count == 0))
        .await;
}

#[tokio::test]
async fn the_journal_goes_with_the_last_service() {
    let fake = Fake::new(&["n", "o"]);
    let (cluster, front, back) = (Cluster::new(&fake, true), service("n", "front"), service("n", "back"));
    for (key, pod) in [(&front, "10.0.0.1"), (&back, "10.0.0.2")] {
        cluster.set(key, pods(&[pod]));
        cluster.finds(key, &[pod]).await;
    }
    cluster.set(&front, None);
    cluster.writer.forget(&[front].into()).await.unwrap();
    assert!(cluster.journal("n").is_some(), "something is left");
    // What this cluster has left where it wants nothing any more, and another's.
    let (left, others) = (journal::service_key("o"), journal::service_key("n"));
    fake.register(&left, "here", &attributes(&[(CLUSTER, "here")]));
    fake.register(&others, "there", &attributes(&[(CLUSTER, "there")]));
    cluster.set(&back, None);
    cluster.writer.forget(&[back, service("o", "front")].into()).await.unwrap();
    assert_eq!((fake.ids(&left), fake.ids(&others)), (vec![], vec!["there".to_owned()]));
    fake.until("nothing is known of it", || cluster.writer.lock().services.is_empty()).await;
}

#[tokio::test]
async fn what_took_long_is_noted_again_when_it_is_done() {
    let fake = Fake::new(&["n"]);
    let (cluster, front) = (Cluster::new(&fake, true), service("n", "front"));
    cluster.set(&front, pods(&[]));
    cluster.finds(&front, &[]).await;
    cluster.set(&front, pods(&["10.0.0.1"]));
    cluster.finds(&front, &["10.0.0.1"]).await;
    cluster.notes("n", "front").await;
    fake.hold(true);
    cluster.set(&front, pods(&["10.0.0.1", "10.0.0.2"]));
    tokio::time::sleep(settle::LATE * 2).await;
    fake.hold(false);
    cluster.notes("n", "front,front,front").await;
    cluster.finds(&front, &["10.0.0.1", "10.0.0.2"]).await;
}
