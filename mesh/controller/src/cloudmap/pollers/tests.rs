use super::*;
use crate::{
    cloudmap::{
        exchange::publication,
        fake::Fake,
        journal::{Journal, service_key},
    },
    model::{Attributes, Port, Protocol, endpoint::CLUSTER},
};

const ARN: &str = "arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualService/s";
const INTERVALS: Intervals = Intervals {
    shortest: Duration::from_millis(10),
    longest: Duration::from_millis(40),
    rarest: Duration::from_secs(1),
};

fn cluster(uid: &str) -> ClusterId {
    ClusterId { uid: uid.to_owned(), arn: None }
}

fn front() -> ServiceKey {
    ServiceKey { namespace: "n".to_owned(), service: "front".to_owned() }
}

fn virtual_service() -> VirtualServiceKey {
    VirtualServiceKey { namespace: "n".to_owned(), arn: ARN.to_owned() }
}

fn of(uid: &str) -> Attributes {
    Attributes::from([(CLUSTER, uid)])
}

fn routing(port: u16) -> Routing {
    let listener = Port { port, protocol: Protocol::Http };
    Routing::of_port(listener, Vec::new(), BTreeMap::new())
}

/// Publishes as another cluster, in place of what it has published before.
fn publish(fake: &Fake, routing: &Routing, attributes: &[(&str, &str)]) {
    let key = exchange::service_key(&virtual_service());
    let before = fake.ids(&key);
    for (id, part) in publication(ARN, &cluster("there"), routing) {
        fake.register(&key, &id, &part.iter().chain(attributes.iter().copied()).collect());
    }
    before.iter().for_each(|id| fake.deregister(&key, id));
}

/// Keeps a journal as another cluster.
fn keep(fake: &Fake, journal: &Journal) {
    for (id, attributes) in journal.instances(&cluster("there")) {
        fake.register(&service_key("n"), &id, &attributes);
    }
}

/// Counts other look-ups while the journals are read so often.
async fn looks_in(fake: &Fake, reads: usize) -> usize {
    fake.calls();
    let calls = std::sync::Mutex::new(Vec::new());
    let of_journals = |call: &&String| *call == "DiscoverInstances appmesh.journal";
    let count = || {
        let mut calls = calls.lock().unwrap();
        calls.extend(fake.calls());
        calls.iter().filter(of_journals).count()
    };
    fake.until("the journals are read", || count() >= reads).await;
    let calls = calls.into_inner().unwrap();
    calls.iter().filter(|call| !of_journals(call)).count()
}

/// Waits until there are many look-ups beside those of journals, or few.
async fn looks_become(fake: &Fake, many: bool, why: &str) {
    let mut last = 0;
    for _ in 0..40 {
        last = looks_in(fake, 10).await;
        if (last > 5) == many {
            return;
        }
    }
    panic!("{why}: {last} for 10 of journals");
}

fn following(fake: &Arc<Fake>, lookup: Lookup) -> (Pollers, mpsc::Receiver<(Lookup, Answer)>) {
    following_at(INTERVALS, fake, lookup)
}

fn following_at(intervals: Intervals, fake: &Arc<Fake>, lookup: Lookup) -> (Pollers, mpsc::Receiver<(Lookup, Answer)>) {
    let (mut pollers, answers) = Pollers::new(fake.client(), cluster("here"), intervals);
    pollers.follow(&BTreeSet::from([lookup]), true);
    (pollers, answers)
}

async fn ids(answers: &mut mpsc::Receiver<(Lookup, Answer)>) -> Vec<String> {
    match answers.recv().await {
        Some((Lookup::Instances(key), Answer::Instances(instances))) if key == front() => {
            instances.into_keys().collect()
        }
        other => panic!("{other:?}"),
    }
}

async fn published(answers: &mut mpsc::Receiver<(Lookup, Answer)>) -> Published {
    match answers.recv().await {
        Some((Lookup::Published(key), Answer::Published(published))) if key == virtual_service() => published,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn instances_of_others_are_answered_whenever_they_change() {
    let fake = Fake::new(&["n"]);
    let (mut pollers, mut answers) = following(&fake, Lookup::Instances(front()));
    assert_eq!(ids(&mut answers).await, [""; 0], "there is no such service");
    fake.register(&front(), "10.0.0.1", &of("there"));
    assert_eq!(ids(&mut answers).await, ["10.0.0.1"]);
    fake.register(&front(), "10.0.0.2", &of("here"));
    fake.register(&front(), "10.0.0.3", &Attributes::default());
    let mut last = ids(&mut answers).await;
    while last != ["10.0.0.1", "10.0.0.3"] {
        last = ids(&mut answers).await;
    }
    fake.deregister(&front(), "10.0.0.1");
    assert_eq!(ids(&mut answers).await, ["10.0.0.3"]);
    pollers.follow(&BTreeSet::new(), false);
    drop(pollers);
    assert_eq!(answers.recv().await, None, "nobody looks any more");
}

#[tokio::test]
async fn what_is_not_understood_leaves_what_was() {
    let fake = Fake::new(&["n"]);
    let (_pollers, mut answers) = following(&fake, Lookup::Published(virtual_service()));
    assert_eq!(published(&mut answers).await, Published::Nobody);
    publish(&fake, &routing(1), &[]);
    let first = Arc::new(routing(1));
    assert_eq!(published(&mut answers).await, Published::Routing(first.clone()));
    publish(&fake, &routing(2), &[("version", "2")]);
    let why = "what cluster there publishes is of version 2, which needs a newer controller here";
    let mut last = published(&mut answers).await;
    while matches!(last, Published::Nobody) {
        last = published(&mut answers).await;
    }
    assert_eq!(last, Published::NotUnderstood(why.to_owned(), Some(first)));
    publish(&fake, &routing(3), &[]);
    assert_eq!(published(&mut answers).await, Published::Routing(Arc::new(routing(3))));
}

#[tokio::test]
async fn a_lookup_that_fails_answers_once_and_then_keeps_its_answer() {
    let fake = Fake::new(&[]);
    let (_other, mut routes) = following(&fake, Lookup::Published(virtual_service()));
    let why = "Cloud Map namespace not found: n";
    assert_eq!(published(&mut routes).await, Published::Unavailable(why.to_owned()));
    let (_pollers, mut answers) = following(&fake, Lookup::Instances(front()));
    assert_eq!(ids(&mut answers).await, [""; 0], "there is no such namespace");
    fake.register(&front(), "10.0.0.1", &of("there"));
    fake.namespace("n");
    assert_eq!(ids(&mut answers).await, ["10.0.0.1"]);
    assert_eq!(published(&mut routes).await, Published::Nobody);
    fake.refuse("DiscoverInstances", Some("AccessDeniedException"));
    fake.calls();
    let refused = || fake.calls().contains(&"DiscoverInstances front".to_owned());
    fake.until("it is refused", refused).await;
    assert!(answers.try_recv().is_err(), "it keeps its answer");
    fake.deregister(&front(), "10.0.0.1");
    fake.refuse("DiscoverInstances", None);
    assert_eq!(ids(&mut answers).await, [""; 0]);
}

#[tokio::test]
async fn a_first_failure_takes_no_endpoints_away() {
    let fake = Fake::new(&["n"]);
    fake.register(&front(), "10.0.0.1", &of("there"));
    fake.refuse("DiscoverInstances", Some("ThrottlingException"));
    let (_pollers, mut answers) = following(&fake, Lookup::Instances(front()));
    for attempt in ["first", "second"] {
        fake.calls();
        fake.until(attempt, || fake.calls().contains(&"DiscoverInstances front".to_owned())).await;
        assert!(answers.try_recv().is_err(), "the {attempt} failure is no answer");
    }
    fake.refuse("DiscoverInstances", None);
    assert_eq!(ids(&mut answers).await, ["10.0.0.1"]);
}

#[test]
fn the_interval_grows_up_to_the_longest() {
    let seconds = |shortest, longest| {
        let [shortest, longest, rarest] = [shortest, longest, 10].map(Duration::from_secs);
        Intervals::new(shortest, longest, rarest)
    };
    let after = |intervals: Intervals, interval| intervals.after(Duration::from_millis(interval)).as_millis();
    let told = |intervals: Intervals, interval| intervals.after_while_told(Duration::from_millis(interval)).as_millis();
    assert_eq!(after(seconds(1, 3), 1000), 1250);
    assert_eq!(after(seconds(1, 3), 2500), 3000);
    assert_eq!(after(seconds(1, 3), 3000), 3000);
    assert_eq!(after(seconds(5, 3), 5000), 5000, "never shorter than the shortest");
    assert_eq!([1000, 2500, 3000, 6000].map(|interval| told(seconds(1, 3), interval)), [1250, 3000, 6000, 10_000]);
    assert_eq!(told(seconds(1, 60), 60_000), 60_000);
}

#[tokio::test]
async fn what_is_told_of_is_looked_up_when_it_is_named() {
    let (fake, mut journal) = (Fake::new(&["n"]), Journal::new());
    keep(&fake, &journal);
    fake.register(&front(), "10.0.0.1", &of("there"));
    // What is not named is not found by this test.
    let seldom = Intervals { rarest: Duration::from_secs(3600), ..INTERVALS };
    let (_pollers, mut answers) = following_at(seldom, &fake, Lookup::Instances(front()));
    assert_eq!(ids(&mut answers).await, ["10.0.0.1"]);
    looks_become(&fake, false, "its cluster keeps a journal").await;
    journal.note("back");
    keep(&fake, &journal);
    assert!(looks_in(&fake, 10).await <= 2, "another service was named");
    let red = Attributes::from([(CLUSTER, "there"), ("color", "red")]);
    fake.register(&front(), "10.0.0.1", &red);
    journal.note("front");
    keep(&fake, &journal);
    let changed = timeout(Duration::from_secs(20), answers.recv()).await.unwrap().map(|(_, answer)| answer);
    assert_eq!(changed, Some(Answer::Instances([("10.0.0.1".to_owned(), Arc::new(red))].into())));
}

#[tokio::test]
async fn what_no_journal_tells_of_is_looked_up_all_the_time() {
    let fake = Fake::new(&["n"]);
    let (_pollers, mut answers) = following(&fake, Lookup::Instances(front()));
    assert_eq!(ids(&mut answers).await, [""; 0]);
    looks_become(&fake, true, "there is no journal").await;
    keep(&fake, &Journal::new());
    looks_in(&fake, 10).await;
    looks_become(&fake, true, "anybody may register the first").await;
    fake.register(&front(), "10.0.0.1", &of("there"));
    assert_eq!(ids(&mut answers).await, ["10.0.0.1"]);
    looks_become(&fake, false, "its cluster keeps a journal").await;
    for registrant in [Attributes::default(), of("elsewhere")] {
        fake.register(&front(), "10.0.0.2", &registrant);
        looks_become(&fake, true, "who keeps none has come").await;
        fake.deregister(&front(), "10.0.0.2");
        looks_become(&fake, false, "it is gone").await;
    }
    fake.deregister(&service_key("n"), "there");
    looks_become(&fake, true, "its cluster keeps a journal no more").await;
}

/// Reads the journals of the namespace, as long as `urgent` lasts.
fn reader(fake: &Arc<Fake>, intervals: Intervals, urgent: &watch::Sender<bool>) -> Reader {
    let (cluster, namespace) = (cluster("here"), "n".to_owned());
    Reader { cloudmap: fake.client(), cluster, intervals, namespace, urgent: urgent.subscribe() }
}

#[tokio::test]
async fn journals_that_cannot_be_read_tell_nothing() {
    let fake = Fake::new(&["n"]);
    keep(&fake, &Journal::new());
    let intervals = Intervals { rarest: INTERVALS.longest, ..INTERVALS };
    let (known, mut journals) = watch::channel(None);
    let urgent = watch::Sender::new(true);
    tokio::spawn(reader(&fake, intervals, &urgent).run(known));
    journals.wait_for(Option::is_some).await.unwrap();
    fake.refuse("DiscoverInstances", Some("AccessDeniedException"));
    journals.wait_for(Option::is_none).await.unwrap();
    fake.refuse("DiscoverInstances", None);
    journals.wait_for(Option::is_some).await.unwrap();
}

#[tokio::test]
async fn journals_are_read_more_seldom_while_no_envoy_waits() {
    let urgent = watch::Sender::new(true);
    let reader = reader(&Fake::new(&[]), INTERVALS, &urgent);
    let at_rest = || (0..100).fold(INTERVALS.shortest, |interval, _| reader.after(interval));
    assert_eq!(at_rest(), INTERVALS.longest);
    urgent.send_replace(false);
    assert_eq!(at_rest(), INTERVALS.longest * 5);
}

#[tokio::test]
async fn journals_are_read_at_once_when_an_envoy_comes_to_wait() {
    let fake = Fake::new(&["n"]);
    // No second reading within this test is due.
    let [shortest, longest, rarest] = [Duration::from_secs(3600); 3];
    let lookup = Lookup::Published(virtual_service());
    let (mut pollers, _answers) = following_at(Intervals { shortest, longest, rarest }, &fake, lookup.clone());
    looks_in(&fake, 1).await;
    pollers.follow(&[lookup.clone()].into(), false);
    looks_in(&fake, 1).await;
    pollers.follow(&[lookup].into(), true);
    looks_in(&fake, 1).await;
}
