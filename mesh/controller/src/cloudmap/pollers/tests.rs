use super::*;
use crate::{
    cloudmap::{exchange::publication, fake::Fake},
    model::{Attributes, Port, Protocol, endpoint::CLUSTER},
};

const ARN: &str = "arn:aws:appmesh:us-west-2:123456789012:mesh/m/virtualService/s";
const INTERVALS: Intervals = Intervals { shortest: Duration::from_millis(10), longest: Duration::from_millis(40) };

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

fn following(fake: &Arc<Fake>, lookup: Lookup) -> (Pollers, mpsc::Receiver<(Lookup, Answer)>) {
    let (mut pollers, answers) = Pollers::new(fake.client(), cluster("here"), INTERVALS);
    pollers.follow(&BTreeSet::from([lookup]));
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
    pollers.follow(&BTreeSet::new());
    drop(pollers);
    assert_eq!(answers.recv().await, None, "nobody looks any more");
}

#[tokio::test]
async fn instances_are_listed_only_when_the_revision_has_moved() {
    let fake = Fake::new(&["n"]);
    fake.register(&front(), "10.0.0.1", &of("there"));
    let (_pollers, mut answers) = following(&fake, Lookup::Instances(front()));
    assert_eq!(ids(&mut answers).await, ["10.0.0.1"]);
    fake.calls();
    let calls = std::sync::Mutex::new(Vec::new());
    let count = || {
        calls.lock().unwrap().extend(fake.calls());
        calls.lock().unwrap().len()
    };
    fake.until("five more calls", || count() >= 5).await;
    assert!(calls.into_inner().unwrap().iter().all(|call| call == "DiscoverInstancesRevision front"));
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
    fake.refuse("DiscoverInstancesRevision", Some("AccessDeniedException"));
    fake.calls();
    let refused = || fake.calls().contains(&"DiscoverInstancesRevision front".to_owned());
    fake.until("it is refused", refused).await;
    assert!(answers.try_recv().is_err(), "it keeps its answer");
    fake.deregister(&front(), "10.0.0.1");
    fake.refuse("DiscoverInstancesRevision", None);
    assert_eq!(ids(&mut answers).await, [""; 0]);
}

#[test]
fn the_interval_grows_up_to_the_longest() {
    let seconds = |shortest, longest| Intervals {
        shortest: Duration::from_secs(shortest),
        longest: Duration::from_secs(longest),
    };
    let after = |intervals: Intervals, interval| intervals.after(Duration::from_millis(interval)).as_millis();
    assert_eq!(after(seconds(1, 3), 1000), 1250);
    assert_eq!(after(seconds(1, 3), 2500), 3000);
    assert_eq!(after(seconds(1, 3), 3000), 3000);
    assert_eq!(after(seconds(5, 3), 5000), 5000, "never shorter than the shortest");
}
