//! Whole runs against a server on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use crate::ColorProbe;
use common::Io;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A server whose answers depend on how many it has given.
struct Server {
    address: String,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// `answer` gets the number of the request, from 0, and gives status and body.
    fn start(answer: fn(usize) -> (u16, &'static str)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let (requests, accepted) = (Arc::new(AtomicUsize::new(0)), connections.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                accepted.fetch_add(1, Ordering::Relaxed);
                let requests = requests.clone();
                thread::spawn(move || serve(&stream, || answer(requests.fetch_add(1, Ordering::Relaxed))));
            }
        });
        Self { address, connections }
    }

    fn url(&self) -> String {
        format!("http://{}/color", self.address)
    }
}

/// Serves one connection until its client closes it.
fn serve(mut stream: &TcpStream, answer: impl Fn() -> (u16, &'static str)) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    loop {
        while !lines.next()?.ok()?.is_empty() {}
        let (status, body) = answer();
        let length = body.len();
        write!(stream, "HTTP/1.1 {status} Whatever\r\ncontent-length: {length}\r\n\r\n{body}").ok()?;
    }
}

fn even(request: usize) -> (u16, &'static str) {
    (200, if request.is_multiple_of(2) { "red" } else { "blue" })
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What one run printed.
struct Run {
    exit: u8,
    stdout: String,
    stderr: String,
}

impl Run {
    fn new(stdin: &str, args: &[&str]) -> Self {
        let (stdout, stderr) = (Shared::default(), Shared::default());
        let io = Io {
            stdin: &mut stdin.as_bytes(),
            stdout: Box::new(stdout.clone()),
            stderr: Box::new(stderr.clone()),
            stdin_is_terminal: false,
            stderr_is_terminal: false,
        };
        let argv = ["color-probe"].iter().chain(args).map(Into::into);
        let exit = common::run::<ColorProbe>(argv, io);
        let text = |shared: &Shared| String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        Self { exit, stdout: text(&stdout), stderr: text(&stderr) }
    }

    fn probe(&self) -> Value {
        assert_eq!(self.exit, 0, "{}", self.stderr);
        serde_json::from_str::<Value>(&self.stdout).unwrap()["probe"].take()
    }

    /// The error line, which a failed run prints last; nothing may then be on stdout.
    fn error(&self, exit: u8) -> Value {
        assert_eq!((self.exit, self.stdout.as_str()), (exit, ""), "{}", self.stderr);
        serde_json::from_str::<Value>(self.stderr.lines().last().unwrap()).unwrap()["error"].take()
    }
}

#[test]
fn an_even_spread_passes() {
    let server = Server::start(even);
    // Concurrency 1: the first answer, which is waited for, is red, so that 100 begin and end with another colour.
    let run = Run::new("", &["-n", &server.url(), "--expect", "red=1,blue=1", "--count=100", "--concurrency=1"]);
    let mut probe = run.probe();
    let latency = probe["latencyMillis"].take();
    let names: Vec<_> = latency.as_object().unwrap().keys().collect();
    assert_eq!(names, ["max", "p50", "p90", "p99"]);
    let expected = json!({
        "chiSquared": {"degreesOfFreedom": 1, "p": 1.0, "statistic": 0.0},
        "concurrency": 1,
        "count": 100,
        "errors": 0,
        "expect": {"blue": 1, "red": 1},
        "keepAlive": false,
        "latencyMillis": null,
        "tallies": {"blue": 50, "red": 50},
        "url": server.url(),
    });
    assert_eq!(probe, expected);
    assert!(run.stderr.contains("  red      50  50.0 %  ██"), "{}", run.stderr);
    assert_eq!(server.connections.load(Ordering::Relaxed), 101);
}

#[test]
fn connections_are_used_again_only_if_told_to() {
    let server = Server::start(even);
    Run::new("", &["-n", &server.url(), "--count=100", "--concurrency=1", "--keep-alive"]).probe();
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[test]
fn many_at_a_time_are_all_counted() {
    let server = Server::start(even);
    let tallies = Run::new("", &["-n", &server.url(), "--count=500", "--concurrency=50"]).probe()["tallies"].take();
    assert_eq!(tallies, json!({"blue": 250, "red": 250}));
}

#[test]
fn the_outcome_is_a_wish_for_the_same() {
    let server = Server::start(even);
    let doc = format!(r#"{{"apps":{{"feapp":{{"endpoint":"{}"}}}},"other":[1]}}"#, server.address);
    let first = Run::new(&doc, &["--count=20", "--keep-alive"]);
    let again = Run::new(&first.stdout, &[]);
    for run in [&first, &again] {
        let probe = run.probe();
        assert_eq!((&probe["url"], &probe["count"]), (&json!(server.url()), &json!(20)));
        assert_eq!(probe["keepAlive"], json!(true));
        let doc: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(doc["other"], json!([1]));
    }
    let dropped = Run::new(&first.stdout, &["--delete"]);
    assert_eq!((dropped.exit, dropped.probe()), (0, Value::Null));
}

#[test]
fn a_plan_asks_nothing() {
    let server = Server::start(even);
    let run = Run::new("", &["-n", "--plan", &server.url()]);
    assert_eq!(run.probe(), Value::Null);
    assert_eq!(run.stderr, format!("color-probe: would ask {} 200 times\n", server.url()));
    assert_eq!(server.connections.load(Ordering::Relaxed), 0);
}

#[test]
fn an_uneven_spread_fails_with_the_tallies() {
    let server = Server::start(|request| (200, if request % 5 == 0 { "blue" } else { "red" }));
    let run = Run::new("", &["-n", &server.url(), "--count=100", "--concurrency=1"]);
    let error = run.error(1);
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("the answers are not spread as blue=1,red=1: blue 20, red 80"), "{message}");
    assert_eq!(error["kind"], "failed");
    assert!(run.stderr.contains("  blue     20  20.0 %"), "the chart is printed all the same: {}", run.stderr);
    Run::new("", &["-n", &server.url(), "--count=100", "--expect=red=4,blue=1"]).probe();
}

#[test]
fn envoys_refusal_is_quoted_and_named() {
    const REFUSAL: &str = "upstream connect error or disconnect/reset before headers. reset reason: connection timeout";
    // Upstream's own feapp passes the text on with status 200.
    for answer in [|_| (503, REFUSAL), |_| (200, REFUSAL)] {
        let server = Server::start(answer);
        let error = Run::new("", &["-n", &server.url(), "--timeout=1s"]).error(1);
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("the front cluster can't reach the back cluster: http://127.0.0.1:"), "{message}");
        assert!(message.contains(REFUSAL), "{message}");
        assert!(error["hint"].as_str().unwrap().contains("sg-open"), "{error}");
    }
}

#[test]
fn one_wrong_answer_among_good_ones_fails() {
    let server = Server::start(|request| if request == 50 { (200, "oops") } else { even(request) });
    let error = Run::new("", &["-n", &server.url(), "--count=100"]).error(1);
    let message = error["message"].as_str().unwrap();
    assert!(
        message.ends_with("answered 200 \"oops\", which is none of the expected colours (1 of 100 requests)"),
        "{message}"
    );
}

#[test]
fn the_first_good_answer_is_waited_for() {
    let server = Server::start(|request| if request < 3 { (503, "no healthy upstream") } else { even(request) });
    Run::new("", &["-n", &server.url(), "--count=100"]).probe();
}

#[test]
fn nobody_there_may_be_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/color", listener.local_addr().unwrap());
    drop(listener);
    let error = Run::new("", &["-n", &url, "--timeout=1s"]).error(5);
    assert_eq!(error["kind"], "retry");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("Connection refused"), "{message}");
}

#[test]
fn a_server_that_hangs_is_given_up_in_time() {
    let server = Server::start(|request| {
        if request > 0 {
            thread::park();
        }
        even(request)
    });
    let error = Run::new("", &["-n", &server.url(), "--timeout=1s"]).error(5);
    assert_eq!(error["message"], format!("{} gave 0 of 200 answers in time", server.url()));
}

#[test]
fn a_wrong_answer_is_told_though_the_last_request_was_cut_short() {
    let server = Server::start(|request| {
        if request > 2 {
            thread::park();
        }
        (503, "no healthy upstream")
    });
    let error = Run::new("", &["-n", &server.url(), "--timeout=2s"]).error(1);
    assert!(error["message"].as_str().unwrap().contains("no healthy upstream"), "{error}");
}

#[test]
fn a_server_that_never_answers_may_be_tried_again() {
    let server = Server::start(|_| {
        thread::park();
        (200, "red")
    });
    let error = Run::new("", &["-n", &server.url(), "--timeout=1s"]).error(5);
    assert!(error["message"].as_str().unwrap().contains("no answer within"), "{error}");
}

#[test]
fn what_can_not_be_asked_is_refused_before_asking() {
    for (stdin, args, exit, message) in [
        ("{}", &[][..], 2, "no URL to ask"),
        ("", &["http://h/"], 3, "stdin is empty"),
        ("{\"probe\":{\"urls\":1}}", &[], 3, "probe.urls: unknown field"),
        ("{\"probe\":{\"url\":\"ftp://h\"}}", &[], 3, "probe.url: \"ftp://h\" is not a URL that begins with http"),
        ("{\"probe\":{\"count\":0,\"url\":\"http://h\"}}", &[], 3, "probe.count: 0 is not at least 1"),
        ("{\"probe\":{\"expect\":{\"red\":0}}}", &[], 3, "probe.expect: no colour has a weight above 0"),
        ("{}", &["http://h/", "--count=3"], 2, "3 requests can't tell whether blue=1,red=1 is kept"),
    ] {
        let error = Run::new(stdin, args).error(exit);
        assert!(error["message"].as_str().unwrap().starts_with(message), "{error}");
    }
    for args in [&["localhost:8080"][..], &["-n", "--expect=red"], &["-n", "--app=x", "http://h/"], &["--count=0"]] {
        let run = Run::new("{}", args);
        assert_eq!((run.exit, run.stdout.as_str()), (2, ""), "{args:?}: {}", run.stderr);
    }
}
