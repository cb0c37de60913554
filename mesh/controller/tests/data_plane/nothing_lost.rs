//! Loses nothing while applications close their connections, and while pods come and go.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU8, AtomicUsize},
    },
};

use super::*;

/// How a backend behaves that its pod's end goes through.
const SERVES: u8 = 0;
/// Its application is gone, and its sidecar answers.
const WITHOUT_APPLICATION: u8 = 1;
/// All of it is gone.
const GONE: u8 = 2;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\ngone";

/// A backend at an address of the node.
#[derive(Default)]
struct Served {
    state: AtomicU8,
    /// Answers in each state.
    answers: [AtomicUsize; 3],
    connections: Mutex<Vec<TcpStream>>,
}

impl Served {
    /// Serves until it is gone.
    fn start(pod: &Pod, address: &str) -> Arc<Self> {
        let address: SocketAddr = format!("{address}:{}", LISTENER.port).parse().unwrap();
        let listener = pod.on_the_node(|| listen(address)).unwrap();
        let served = Arc::new(Self::default());
        let own = served.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if own.state.load(Ordering::Acquire) == GONE {
                    return;
                }
                let stream = stream.unwrap();
                own.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let own = own.clone();
                thread::spawn(move || own.answer(stream));
            }
        });
        served
    }

    fn answer(&self, stream: TcpStream) {
        let mut talk = Talk::new(stream, BACKEND);
        while talk.message().is_ok() {
            let state = self.state.load(Ordering::Acquire);
            if state == GONE {
                return;
            }
            self.answers[usize::from(state)].fetch_add(1, Ordering::AcqRel);
            if talk.say(if state == SERVES { OK } else { UNAVAILABLE }).is_err() {
                return;
            }
        }
    }

    fn answers(&self, state: u8) -> usize {
        self.answers[usize::from(state)].load(Ordering::Acquire)
    }

    /// Breaks off all connections and takes no more.
    fn end(&self, pod: &Pod, address: &str) {
        self.state.store(GONE, Ordering::Release);
        // Wakes who accepts.
        let _ = pod.on_the_node(|| TcpStream::connect((address, LISTENER.port))).unwrap();
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Waits until it holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let check = || if holds() { Ok(()) } else { Err(()) };
    let often = ConstantBuilder::default().with_delay(Duration::from_millis(5)).with_max_times(4000);
    assert!(check.retry(often).call().is_ok(), "not in time: {what}");
}

/// The status of each of so many requests on one connection.
fn statuses(talk: &mut Talk, method: &str, times: usize) -> Vec<String> {
    let mut statuses = Vec::new();
    for _ in 0..times {
        talk.say(&format!("{method} / HTTP/1.1\r\nHost: {{host}}\r\nContent-Length: 0\r\n\r\n")).unwrap();
        let first = talk.seen.len();
        talk.message().unwrap();
        statuses.push(talk.seen[first].clone());
    }
    statuses
}

#[test]
fn an_application_may_close_its_connections() {
    Pod::with("an_application_may_close_its_connections", |pod| {
        let Some(_running) = Running::start() else { return };
        // Answers one request of a connection, and closes it when the next has come.
        let once: Side = |talk| {
            talk.message()?;
            talk.say(OK)?;
            talk.message()
        };
        for direction in [ToBackend, Inbound] {
            let bind = || listen(("0.0.0.0", LISTENER.port));
            let connect = |ip| TcpStream::connect((ip, LISTENER.port)).unwrap();
            let (listener, client) = match direction {
                Inbound => (bind(), pod.on_the_node(|| connect(POD)).unwrap()),
                _ => (pod.on_the_node(bind).unwrap(), as_user(APPLICATION, || connect(NODE))),
            };
            let done = Arc::new(AtomicBool::new(false));
            let served = serve(listener, BACKEND, once, done.clone());
            let mut talk = Talk::new(client, BACKEND);
            for method in ["GET", "PUT", "DELETE"] {
                assert_eq!(statuses(&mut talk, method, 5), ["HTTP/1.1 200 OK"; 5], "{method} {direction:?}");
            }
            // Nobody knows whether the application has begun with it.
            let posts = statuses(&mut talk, "POST", 4);
            assert!(posts.contains(&"HTTP/1.1 503 Service Unavailable".to_owned()), "{posts:?}");
            done.store(true, Ordering::Release);
            served.join().unwrap();
        }
        // Envoy closes a connection that it does not need before the application does.
        let listener = listen(("0.0.0.0", LISTENER.port));
        let mut caller =
            Talk::new(pod.on_the_node(|| TcpStream::connect((POD, LISTENER.port)).unwrap()).unwrap(), BACKEND);
        caller.say("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut application = Talk::new(listener.accept().unwrap().0, BACKEND);
        answer(&mut application).unwrap();
        caller.message().unwrap();
        application.rest().unwrap();
    });
}

#[test]
fn a_backends_pod_may_end() {
    Pod::with("a_backends_pod_may_end", |pod| {
        let Some(running) = Running::start() else { return };
        let (first, second) = (Served::start(pod, NODE), Served::start(pod, NODE_TOO));
        let learn = |addresses: &[&str]| {
            running.controller.set(snapshot(addresses));
            running.runtime.block_on(running.controller.settled());
        };
        learn(&[NODE, NODE_TOO]);
        let (done, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (done, answers) = (done.clone(), answers.clone());
                thread::spawn(move || {
                    let stream = as_user(APPLICATION, || TcpStream::connect((NODE, LISTENER.port)).unwrap());
                    let mut talk = Talk::new(stream, BACKEND);
                    let mut failed = Vec::new();
                    while !done.load(Ordering::Acquire) {
                        let status = statuses(&mut talk, "GET", 1).remove(0);
                        if status != "HTTP/1.1 200 OK" {
                            failed.push(status);
                        }
                        talk.seen.clear();
                        answers.fetch_add(1, Ordering::AcqRel);
                    }
                    failed
                })
            })
            .collect();
        let more = |than: usize| until("more answers", || answers.load(Ordering::Acquire) > than + 200);
        until("both serve", || first.answers(SERVES) > 100 && second.answers(SERVES) > 100);
        // The application ends at once, and the callers have not heard of it.
        first.state.store(WITHOUT_APPLICATION, Ordering::Release);
        until("the sidecar answers", || first.answers(WITHOUT_APPLICATION) > 20);
        // So does its sidecar.
        first.end(pod, NODE);
        more(answers.load(Ordering::Acquire));
        learn(&[NODE_TOO]);
        more(answers.load(Ordering::Acquire));
        let third = Served::start(pod, NODE);
        learn(&[NODE, NODE_TOO]);
        until("the new one serves", || third.answers(SERVES) > 100);
        done.store(true, Ordering::Release);
        let failed: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        println!("{} requests, {} failed", answers.load(Ordering::Acquire), failed.len());
        assert!(failed.is_empty(), "{failed:?}");
    });
}

/// Starts to drain the pod's Envoy.
fn drain(options: &[&str]) -> std::process::Child {
    Command::new(program("capture"))
        .args(["drain", "--admin-port=15002", "--ingress-port=15000"])
        .args(options)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

/// What it says at its end.
fn said(drain: std::process::Child) -> String {
    let output = drain.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_sidecar_stays_until_its_callers_have_gone() {
    Pod::with("a_sidecar_stays_until_its_callers_have_gone", |pod| {
        let Some(mut running) = Running::start() else { return };
        let listener = listen(("0.0.0.0", LISTENER.port));
        let call =
            || Talk::new(pod.on_the_node(|| TcpStream::connect((POD, LISTENER.port)).unwrap()).unwrap(), BACKEND);
        let accept = || Talk::new(listener.accept().unwrap().0, BACKEND);
        let request = "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n";

        let mut caller = call();
        caller.say(request).unwrap();
        let mut application = accept();
        application.message().unwrap();
        let mut draining = drain(&["--silence=30", "--at-most=30"]);
        // It has begun once a new caller is told to go.
        until("callers are told to go", || {
            let mut other = call();
            other.say(request).unwrap();
            let mut application = accept();
            application.message().unwrap();
            application.say(OK).unwrap();
            other.head().unwrap().get("connection").is_some_and(|connection| connection == "close")
        });
        assert!(draining.try_wait().unwrap().is_none(), "a request is being answered");
        application.say(OK).unwrap();
        let head = caller.head().unwrap();
        assert_eq!(head.get("connection").map(String::as_str), Some("close"));
        assert_eq!(said(draining), "capture: no caller is left\n");
        assert!(running.envoy.try_wait().unwrap().is_none(), "the kubelet ends it");

        // One that does not go holds it up no longer than that.
        let mut caller = call();
        caller.say(request).unwrap();
        accept().message().unwrap();
        assert_eq!(said(drain(&["--at-most=0"])), "capture: 1 callers are still there after 0 s\n");
    });
}
