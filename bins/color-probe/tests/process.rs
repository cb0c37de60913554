//! The program itself against servers on the loopback interface, without AWS, cluster, home or anything else in its
//! environment.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Status and body, by the first line and headers of a request and its number, from 0.
type Answer = fn(&str, usize) -> (u16, &'static str);

/// A whole answer with this colour.
type Words = fn(&str) -> String;

/// A server whose answers depend on how many it has given.
struct Server {
    scheme: &'static str,
    address: String,
    connections: Arc<AtomicUsize>,
    /// The first lines and headers of all requests.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` gets the number of the request, from 0, and gives status and body.
    fn start(answer: fn(usize) -> (u16, &'static str)) -> Self {
        Self::speak(
            "http",
            move |_, request| answer(request),
            |stream, heads, answer| {
                let _closed = serve(stream, heads, answer);
            },
        )
    }

    /// An API server, whose answers depend on what is asked.
    fn api(answer: Answer) -> Self {
        Self::speak("http", answer, |stream, heads, answer| {
            let _closed = serve(stream, heads, answer);
        })
    }

    /// Answers with a colour in these words, and closes a connection after so many.
    fn worded(most: usize, words: Words) -> Self {
        Self::speak(
            "http",
            |_, request| even(request),
            move |stream, heads, answer| {
                let _closed = serve_some(stream, heads, most, &|head| words(answer(head).1));
            },
        )
    }

    /// Over TLS, as whom the certificate names.
    fn https(answer: fn(usize) -> (u16, &'static str), tls: Arc<ServerConfig>) -> Self {
        Self::speak(
            "https",
            move |_, request| answer(request),
            move |stream, heads, answer| {
                let tls = ServerConnection::new(tls.clone()).unwrap();
                let _closed = serve(StreamOwned::new(tls, stream), heads, answer);
            },
        )
    }

    fn speak(
        scheme: &'static str,
        answer: impl Fn(&str, usize) -> (u16, &'static str) + Clone + Send + 'static,
        speak: impl Fn(TcpStream, &Mutex<Vec<String>>, &dyn Fn(&str) -> (u16, &'static str)) + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Self { scheme, address, connections: Arc::default(), heads: Arc::default() };
        let (requests, connections, heads) =
            (Arc::new(AtomicUsize::new(0)), server.connections.clone(), server.heads.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::Relaxed);
                let (requests, heads) = (requests.clone(), heads.clone());
                let (answer, speak) = (answer.clone(), speak.clone());
                thread::spawn(move || {
                    speak(stream, &heads, &|head| answer(head, requests.fetch_add(1, Ordering::Relaxed)));
                });
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("{}://{}/color", self.scheme, self.address)
    }
}

/// Serves one connection until its client closes it.
fn serve(
    stream: impl Read + Write,
    heads: &Mutex<Vec<String>>,
    answer: &dyn Fn(&str) -> (u16, &'static str),
) -> Option<()> {
    serve_some(stream, heads, usize::MAX, &|head| {
        let (status, body) = answer(head);
        format!("HTTP/1.1 {status} Whatever\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    })
}

/// Serves one connection until its client closes it or has so many answers, in these words.
fn serve_some(
    stream: impl Read + Write,
    heads: &Mutex<Vec<String>>,
    most: usize,
    words: &dyn Fn(&str) -> String,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    for _ in 0..most {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        heads.lock().unwrap().push(head.to_lowercase());
        stream.get_mut().write_all(words(&head).as_bytes()).ok()?;
        stream.get_mut().flush().ok()?;
    }
    Some(())
}

fn even(request: usize) -> (u16, &'static str) {
    (200, if request.is_multiple_of(2) { "red" } else { "blue" })
}

/// What one run printed.
struct Run {
    exit: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn new(stdin: &str, args: &[&str]) -> Self {
        Self::with(&[], stdin, args)
    }

    fn with(environment: &[(&str, &str)], stdin: &str, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_color-probe"));
        command.env_clear().envs(environment.iter().copied()).args(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A run that needs no stdin may be over already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        Self {
            exit: output.status.code().expect("an exit code"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn probe(&self) -> Value {
        assert_eq!(self.exit, 0, "{}", self.stderr);
        serde_json::from_str::<Value>(&self.stdout).unwrap()["probe"].take()
    }

    /// The error line, which a failed run prints last; nothing may then be on stdout.
    fn error(&self, exit: i32) -> Value {
        assert_eq!((self.exit, self.stdout.as_str()), (exit, ""), "{}", self.stderr);
        serde_json::from_str::<Value>(self.stderr.lines().last().unwrap()).unwrap()["error"].take()
    }
}

#[test]
fn an_even_spread_passes() {
    let server = Server::start(even);
    // Concurrency 1: the first five answers are waited for, so that 100 begin and end with another colour.
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
        "requestTimeout": "20s",
        "tallies": {"blue": 50, "red": 50},
        "url": server.url(),
    });
    assert_eq!(probe, expected);
    assert!(run.stderr.contains("  red      50  50.0 %  ██"), "{}", run.stderr);
    assert_eq!(server.connections.load(Ordering::Relaxed), 105);
}

#[test]
fn connections_are_used_again_only_if_told_to() {
    let server = Server::start(even);
    Run::new("", &["-n", &server.url(), "--count=100", "--concurrency=1", "--keep-alive"]).probe();
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[test]
fn a_connection_that_the_server_closes_is_not_used_again() {
    let forms: [Words; 2] = [
        |color| whole(color).replace("content-length", "connection: close\r\ncontent-length"),
        |color| format!("HTTP/1.0 200 OK\r\n\r\n{color}"),
    ];
    for form in forms {
        let server = Server::worded(1, form);
        let run = Run::new("", &["-n", &server.url(), "--count=20", "--concurrency=1", "--keep-alive"]);
        assert_eq!(run.probe()["tallies"], json!({"blue": 10, "red": 10}));
        assert_eq!(server.connections.load(Ordering::Relaxed), 25);
    }
}

fn whole(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn answers_are_read_in_all_their_forms() {
    let forms: [Words; 4] = [
        |color| {
            let (first, rest) = color.split_at(1);
            let chunks = format!("1\r\n{first}\r\n{}\r\n{rest}\r\n0\r\n\r\n", rest.len());
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")
        },
        |color| format!("HTTP/1.1 103 Early Hints\r\nlink: </>\r\n\r\n{}", whole(color)),
        |color| whole(&format!("\n{color}\r\n")),
        |color| whole(&format!("{color}{}", " ".repeat(3000))),
    ];
    for form in forms {
        let server = Server::worded(usize::MAX, form);
        let run = Run::new("", &["-n", &server.url(), "--count=20", "--concurrency=1", "--keep-alive"]);
        assert_eq!(run.probe()["tallies"], json!({"blue": 10, "red": 10}));
        assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn what_is_no_answer_is_told_with_its_reason() {
    let cases: [(Words, &str); 5] = [
        (|_| String::new(), "the connection was closed before the answer was complete"),
        (|_| "HTTP/1.1 200 OK".into(), "the connection was closed before the answer was complete"),
        (|_| "SSH-2.0-server\r\n".into(), "invalid HTTP version"),
        (
            |color| whole(&format!("{color} and more"))[..45].into(),
            "the connection was closed before the answer was complete",
        ),
        (|color| whole(color).replace("content-length: ", "content-length: x"), "invalid content-length"),
    ];
    for (words, reason) in cases {
        for keep_alive in [&[][..], &["--keep-alive"]] {
            let server = Server::worded(1, words);
            let args = ["-n", &server.url(), "--timeout=300ms"];
            let error = Run::new("", &[&args[..], keep_alive].concat()).error(5);
            assert!(error["message"].as_str().unwrap().ends_with(reason), "{error}");
        }
    }
}

#[test]
fn headers_are_sent_and_kept_out_of_the_document() {
    let server = Server::start(even);
    let run = Run::new("", &["-n", &server.url(), "--count=10", "-H", "Host: shop.example", "--header=X-Key: s3cret"]);
    assert_eq!(run.probe()["errors"], 0);
    assert!(!(run.stdout + &run.stderr).contains("s3cret"));
    let heads = server.heads.lock().unwrap();
    assert_eq!(heads.len(), 15);
    for head in &*heads {
        assert!(head.contains("\r\nhost: shop.example\r\n") && head.contains("\r\nx-key: s3cret\r\n"), "{head}");
    }
}

#[test]
fn the_login_of_a_url_is_sent_with_every_request() {
    let server = Server::start(even);
    let url = format!("http://user:pass%20word@{}/color?a=b#c", server.address);
    Run::new("", &["-n", &url, "--count=10"]).probe();
    for head in &*server.heads.lock().unwrap() {
        let host = format!("\r\nhost: {}\r\n", server.address);
        assert!(head.starts_with("get /color?a=b http/1.1\r\n") && head.contains(&host), "{head}");
        assert!(head.contains("\r\nauthorization: basic dxnlcjpwyxnzihdvcmq=\r\n"), "{head}");
    }
}

/// Neither where it is asked, nor where it fails, nor where it is none; only in the document, from which it is asked again.
#[test]
fn the_password_of_a_url_is_never_shown() {
    let server = Server::start(even);
    let asked = format!("http://user:s3cret@{}/color?a=b&c=d", server.address);
    let shown = asked.replace("s3cret", "…");
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("run.html").display().to_string();
    let run = Run::new("", &["-n", &asked, "--count=10", "--report", &report]);
    assert_eq!(run.probe()["url"], asked);
    assert!(run.stderr.contains(&format!("try it: curl '{shown}'\n")), "{}", run.stderr);
    let report = std::fs::read_to_string(report).unwrap();
    assert!(!(report + &run.stderr).contains("s3cret"), "{}", run.stderr);
    let again = Run::new(&run.stdout, &["--count=10"]);
    assert_eq!(again.probe()["url"], asked);

    let wrong = Server::start(|_| (200, "green")).address;
    let (wrong, closed) = (format!("http://user:s3cret@{wrong}/"), "http://user:s3cret@127.0.0.1:1/");
    let slow = Server::start(|request| {
        if request > 4 {
            thread::park();
        }
        even(request)
    });
    let slow = format!("http://user:s3cret@{}/", slow.address);
    let document = json!({"probe": {"url": "http://user:s3cret@h:port/"}}).to_string();
    for (stdin, args, exit) in [
        ("{}", &[wrong.as_str(), "--count=10", "--timeout=5s"][..], 1),
        ("{}", &[closed, "--count=10", "--timeout=1s"], 5),
        ("{}", &[&slow, "--count=10", "--timeout=2s"], 5),
        ("{}", &["http://user:s3cret@h:port/"], 2),
        ("{}", &["ftp://user:s3cret@h/"], 2),
        ("{}", &["user:s3cret@h"], 2),
        ("{}", &["http://user:s3c/s3cret@h/"], 2),
        (&document, &[], 3),
    ] {
        let run = Run::new(stdin, args);
        assert_eq!(run.exit, exit, "{args:?}: {}", run.stderr);
        assert!(!(run.stdout.clone() + &run.stderr).contains("s3cret"), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(":…@"), "{args:?}: {}", run.stderr);
    }
    let plan = Run::new("{}", &[&asked, "--plan"]);
    let document: Value = serde_json::from_str(&plan.stdout).unwrap();
    assert!(plan.stderr.contains(&shown) && !plan.stderr.contains("s3cret"), "{}", plan.stderr);
    assert_eq!(document["probe"]["url"], asked);
}

#[test]
fn https_trusts_whom_the_machine_trusts() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, cert.pem()).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let key = signing_key.serialize_der().try_into().unwrap();
    let mut tls = tls.unwrap().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    // A server that could speak HTTP/2 is asked one request a connection all the same.
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = Server::https(even, Arc::new(tls));
    let trust = [("SSL_CERT_FILE", trusted.to_str().unwrap())];
    let probe = Run::with(&trust, "", &["-n", &server.url(), "--count=20", "--concurrency=1"]).probe();
    assert_eq!(probe["tallies"], json!({"blue": 10, "red": 10}));
    assert_eq!(server.connections.load(Ordering::Relaxed), 25);

    let error = Run::new("", &["-n", &server.url()]).error(1);
    assert!(error["message"].as_str().unwrap().contains("UnknownIssuer"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("SSL_CERT_FILE"), "{error}");
}

#[test]
fn a_rate_is_not_exceeded() {
    let server = Server::start(even);
    let started = Instant::now();
    let run = Run::new("", &["-n", &server.url(), "--count=20", "--rate=40"]);
    assert_eq!(run.probe()["rate"], 40);
    // 20 requests, 19 pauses of 25 ms between them, however slow the machine.
    assert!(started.elapsed() >= Duration::from_millis(19 * 25));
}

#[test]
fn a_duration_takes_the_place_of_a_count() {
    let server = Server::start(even);
    let started = Instant::now();
    let run = Run::new("", &["-n", &server.url(), "--duration=1s", "--concurrency=1", "--keep-alive"]);
    assert!(started.elapsed() >= Duration::from_secs(1));
    let probe = run.probe();
    assert_eq!((&probe["duration"], &probe["count"]), (&json!("1s"), &Value::Null));
    let told: u64 = probe["tallies"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(
        u64::try_from(server.heads.lock().unwrap().len()).unwrap(),
        told + 5,
        "the first answers are waited for"
    );

    let again = Run::new(&run.stdout, &["--count=10"]).probe();
    assert_eq!((&again["duration"], &again["count"]), (&Value::Null, &json!(10)));

    let few = Run::new("", &["-n", &server.url(), "--duration=1s", "--rate=1"]).error(1);
    assert!(few["message"].as_str().unwrap().contains("can't tell whether"), "{few}");
    let long = Run::new("", &["-n", &server.url(), "--duration=10m"]).error(2);
    assert_eq!(long["message"], "10m is not over before --timeout has passed");
}

#[test]
fn an_answer_that_takes_longer_than_it_may_is_an_error() {
    let server = Server::start(|request| {
        if request == 5 {
            thread::park();
        }
        even(request)
    });
    let run = Run::new("", &["-n", &server.url(), "--count=10", "--request-timeout=300ms"]);
    let message = format!("{} did not answer 1 of 10 requests: no answer within 0.3 s", server.url());
    assert_eq!(run.error(5)["message"], message);
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
    assert_eq!(
        (&run.probe()["count"], &run.probe()["tallies"]),
        (&json!(200), &Value::Null),
        "what only a run can know"
    );
    assert_eq!(run.stderr, format!("color-probe  would ask {} 200 times\n", server.url()));
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
fn good_answers_in_a_row_are_waited_for() {
    let server = Server::start(|request| if request < 3 { (503, "no healthy upstream") } else { even(request) });
    Run::new("", &["-n", &server.url(), "--count=100"]).probe();
    // A load balancer of which one address knows no target yet.
    let server = Server::start(|request| if [1, 5, 9].contains(&request) { (503, "<html>") } else { even(request) });
    Run::new("", &["-n", &server.url(), "--count=100"]).probe();
}

#[test]
fn who_falls_silent_gave_no_wrong_answer() {
    let server = Server::start(|request| {
        if request > 0 {
            thread::park();
        }
        (404, "not here")
    });
    let error = Run::new("", &["-n", &server.url(), "--request-timeout=200ms", "--timeout=2s"]).error(5);
    assert!(error["message"].as_str().unwrap().ends_with("no answer within 0.2 s"), "{error}");
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
        if request > 4 {
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
        ("{\"probe\":{\"rate\":1001,\"url\":\"http://h\"}}", &[], 3, "probe.rate: 1001 is over 1000"),
        ("{\"probe\":{\"duration\":\"0s\"}}", &[], 3, "probe.duration: \"0s\" is no time at all"),
        (
            "{\"probe\":{\"count\":9,\"duration\":\"9s\",\"url\":\"http://h\"}}",
            &[],
            3,
            "probe.duration: there is probe.count, too",
        ),
        ("{\"probe\":{\"count\":0,\"url\":\"http://h\"}}", &[], 3, "probe.count: 0 is not at least 1"),
        ("{\"probe\":{\"expect\":{\"red\":0}}}", &[], 3, "probe.expect: no colour has a weight above 0"),
        ("{}", &["http://h/", "--count=3"], 2, "3 requests can't tell whether blue=1,red=1 is kept"),
    ] {
        let error = Run::new(stdin, args).error(exit);
        assert!(error["message"].as_str().unwrap().starts_with(message), "{error}");
    }
    for args in [
        &["localhost:8080"][..],
        &["-n", "--expect=red"],
        &["-n", "--app=x", "http://h/"],
        &["--count=0"],
        &["-n", "http://h/", "-H", "Host"],
        &["-n", "http://h/", "--rate=0"],
        &["-n", "http://h/", "--count=9", "--duration=9s"],
    ] {
        let run = Run::new("{}", args);
        assert_eq!((run.exit, run.stdout.as_str()), (2, ""), "{args:?}: {}", run.stderr);
    }
}

/// An answer that ends with its connection, and a machine without certificates.
#[test]
fn the_plainest_server_will_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/color", listener.local_addr().unwrap());
    thread::spawn(move || {
        let colors = ["red", "blue"].into_iter().cycle();
        for (mut stream, color) in listener.incoming().map_while(Result::ok).zip(colors) {
            let request = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            assert!(request.last().is_some());
            let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{color}\n");
        }
    });
    let trust = [("SSL_CERT_FILE", "/nonexistent")];
    let run = Run::with(&trust, "", &[&url, "-n", "--expect", "red=1,blue=1", "--count=50"]);
    assert_eq!(run.probe()["tallies"], json!({"blue": 25, "red": 25}));
}

/// A kubeconfig of two contexts: the current one leads nowhere.
fn kubeconfig(folder: &Path, server: &str) -> String {
    let file = folder.join("config");
    let named = |name: &str, key: &str, body: Value| json!({"name": name, key: body});
    let kubeconfig = json!({
        "current-context": "nowhere",
        "contexts": [
            named("nowhere", "context", json!({"cluster": "nowhere", "user": "me"})),
            named("shop", "context", json!({"cluster": "shop", "user": "me"})),
        ],
        "clusters": [
            named("nowhere", "cluster", json!({"server": "http://127.0.0.1:1"})),
            named("shop", "cluster", json!({"server": server})),
        ],
        "users": [named("me", "user", json!({"token": "t0ken"}))],
    });
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

const SERVICE: &str = "GET /api/v1/namespaces/k8multi/services/";
const COLORAPP: &str = r#"{"metadata":{"name":"colorapp"},"spec":{"type":"ClusterIP","ports":[{"port":8080}]}}"#;
const FRONT: &str = r#"{"metadata":{"name":"front"},"spec":{"type":"LoadBalancer","ports":[{"port":8080}]}}"#;
const NO_PODS: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
    "message":"no endpoints available for service \"front:8080\"","reason":"ServiceUnavailable","code":503}"#;

/// A document as manifest-apply leaves it, of an application whose load balancer cannot be reached.
fn applied(server: &str) -> String {
    let service = |name: &str| json!({"apiVersion": "v1", "kind": "Service", "namespace": "k8multi", "name": name});
    let app = json!({"endpoint": "http://127.0.0.1:1", "objects": [service("colorapp"), service("front")]});
    json!({"cluster": {"endpoint": server}, "apps": {"feapp": app}}).to_string()
}

/// The API server's answer about the Services; none to what is asked of one of them.
fn services(head: &str) -> Option<(u16, &'static str)> {
    match head.strip_prefix(SERVICE)?.split(' ').next()? {
        "colorapp" => Some((200, COLORAPP)),
        "front" => Some((200, FRONT)),
        _ => None,
    }
}

#[test]
fn a_service_is_asked_through_the_api_server() {
    let server = Server::api(|head, request| {
        let asked = head.starts_with(&format!("{SERVICE}front:8080/proxy/color HTTP"));
        match services(head) {
            Some(service) => service,
            None if asked && request > 3 => even(request),
            None if asked => (503, NO_PODS),
            None => (404, "not here"),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let address = format!("http://{}", server.address);
    let file = kubeconfig(folder.path(), &address);
    let args = ["--via-cluster", "--kubeconfig", &file, "--count=20", "-H", "X-Key: s3cret"];
    let first = Run::new(&applied(&address), &args);
    let probe = first.probe();
    assert_eq!(probe["tallies"], json!({"blue": 10, "red": 10}));
    assert_eq!(
        (&probe["url"], &probe["viaCluster"], &probe["keepAlive"]),
        (&json!("http://front.k8multi.svc:8080/color"), &json!(true), &Value::Null)
    );
    let path = "/api/v1/namespaces/k8multi/services/front:8080/proxy/color";
    let command = format!("try it: kubectl --kubeconfig {file} --context shop get --raw {path}");
    assert!(first.stderr.contains(&command), "{}", first.stderr);
    for head in server.heads.lock().unwrap().iter() {
        assert!(head.contains("\r\nauthorization: bearer t0ken\r\n"), "{head}");
        assert_eq!(head.contains("\r\nx-key: s3cret\r\n"), head.contains("/proxy/"), "{head}");
    }

    // Its outcome is a wish for the same; a URL alone is asked directly.
    let again = Run::with(&[("KUBECONFIG", &file)], &first.stdout, &[]);
    assert_eq!((&again.probe()["url"], &again.probe()["viaCluster"]), (&probe["url"], &json!(true)));
    let direct = Server::start(even);
    assert_eq!(Run::new(&first.stdout, &[&direct.url()]).probe()["viaCluster"], Value::Null);

    let plan = Run::with(&[("KUBECONFIG", &file)], &applied(&address), &["--via-cluster", "--plan"]);
    let words = "would ask http://front.k8multi.svc:8080/color 200 times through the API server of context shop\n";
    assert!(plan.stderr.ends_with(words), "{}", plan.stderr);
}

#[test]
fn what_the_api_server_refuses_is_told_from_a_wrong_answer() {
    const FORBIDDEN: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":403,
        "message":"services \"front:8080\" is forbidden","reason":"Forbidden"}"#;
    const MISSING: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":404,
        "message":"services \"front\" not found","reason":"NotFound"}"#;
    let (by_service, by_get) = ("ask Service k8multi/front through the API server of", "get Service k8multi/front in");
    let cases: [(Answer, i32, &str, &str, &str); 5] = [
        (
            |head, _| services(head).unwrap_or((403, FORBIDDEN)),
            1,
            by_service,
            "services \"front:8080\" is forbidden",
            "the caller needs the right to get services/proxy in namespace k8multi",
        ),
        (
            |head, _| services(head).unwrap_or((503, NO_PODS)),
            5,
            by_service,
            "no endpoints available for service \"front:8080\"",
            "get endpointslices -l kubernetes.io/service-name=front: has it ready pods at that port?",
        ),
        (
            |head, _| services(head).unwrap_or((503, "no healthy upstream")),
            1,
            by_service,
            "the front cluster can't reach the back cluster: http://front.k8multi.svc:8080/color answered 503",
            "sg-open",
        ),
        (
            |head, request| services(head).unwrap_or(if request == 50 { (503, NO_PODS) } else { even(request) }),
            5,
            by_service,
            "did not answer 1 of 200 requests: no endpoints available",
            "get endpointslices",
        ),
        (
            |head, _| services(head).filter(|(_, body)| *body != FRONT).unwrap_or((404, MISSING)),
            1,
            by_get,
            "there is no such Service",
            "--context",
        ),
    ];
    for (answer, exit, message, cause, hint) in cases {
        let server = Server::api(answer);
        let folder = tempfile::tempdir().unwrap();
        let address = format!("http://{}", server.address);
        let file = kubeconfig(folder.path(), &address);
        let args = ["--via-cluster", "--kubeconfig", &file, "--timeout=2s"];
        let error = Run::new(&applied(&address), &args).error(exit);
        assert_eq!(error["message"], format!("{message} context shop"));
        assert!(error["causes"][0].as_str().is_some_and(|said| said.contains(cause)), "{error}");
        assert!(error["hint"].as_str().is_some_and(|said| said.contains(hint)), "{error}");
    }
}

#[test]
fn a_cluster_that_is_not_named_well_is_refused_before_asking() {
    let folder = tempfile::tempdir().unwrap();
    let file = kubeconfig(folder.path(), "http://127.0.0.1:1");
    let doc = applied("https://abc.eks.amazonaws.com");
    for (args, exit, message) in [
        (&["--via-cluster"][..], 1, "no context of the kubeconfig leads to https://abc.eks.amazonaws.com"),
        (&["--via-cluster", "--context=work"], 1, "the kubeconfig has no context work"),
        (&["--via-cluster", "--context=shop", "http://lb.example/"], 2, "lb.example names no Service"),
        (&["--via-cluster", "--context=shop", "-H", "Authorization: x"], 2, "the API server would take the header"),
        (&["--context=shop"], 2, "--context and --kubeconfig are for --via-cluster"),
    ] {
        let error = Run::with(&[("KUBECONFIG", &file)], &doc, args).error(exit);
        let found = error["message"].as_str().unwrap();
        assert!(found.starts_with(message), "{error}");
    }
}

/// What a section of a report's page says: the texts of each row of its tables, or of each pair of its lists.
fn section(page: &str, id: &str) -> Vec<Vec<String>> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(page, options).unwrap();
    let by_id = |node: &roxmltree::Node| node.attribute("aria-labelledby") == Some(id);
    let section = document.descendants().find(by_id).expect(id);
    let text =
        |node: roxmltree::Node| node.descendants().filter_map(|node| node.text().filter(|_| node.is_text())).collect();
    let rows = section.descendants().filter(|node| ["tr", "div"].contains(&node.tag_name().name()));
    rows.map(|row| row.children().filter(|node| node.is_element()).map(text).collect()).collect()
}

#[test]
fn a_report_has_the_figures_of_the_document() {
    let server = Server::start(even);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.html");
    std::fs::write(&file, "what was there").unwrap();
    let args = ["-n", &server.url(), "--count=50", "--rate=200", "--report", file.to_str().unwrap()];
    let run = Run::new("", &args);
    let probe = run.probe();
    assert!(run.stderr.contains(&format!("  report: {}\n", file.display())), "{}", run.stderr);

    let page = std::fs::read_to_string(&file).unwrap();
    let expected = |color: &str| {
        let count = probe["tallies"][color].to_string();
        let share = format!("{:.1} %", probe["tallies"][color].as_f64().unwrap() * 2.0);
        vec![color.to_owned(), String::new(), count, share, "50.0 %".to_owned()]
    };
    assert_eq!(section(&page, "shares")[1..3], [expected("blue"), expected("red")]);
    let latency = section(&page, "latency");
    for (name, shown) in ["p50", "p90", "p99", "max"].iter().zip(&latency) {
        assert_eq!(shown[0], *name);
        let millis: f64 = shown[1].trim_end_matches(" ms").parse().unwrap();
        assert_eq!(Some(millis), probe["latencyMillis"][name].as_f64());
    }
    let asked = section(&page, "asked");
    let fact = |name: &str| asked.iter().find(|pair| pair[0] == name).map(|pair| pair[1].clone()).unwrap();
    let test = &probe["chiSquared"];
    for (name, value) in [
        ("URL", server.url()),
        ("Reached", "directly".to_owned()),
        ("Requests", probe["count"].to_string()),
        ("Concurrency", probe["concurrency"].to_string()),
        ("Rate", format!("at most {} a second", probe["rate"])),
        ("Expected", "blue=1,red=1".to_owned()),
        ("χ² test", format!("χ² {}, p {}", test["statistic"].as_f64().unwrap(), test["p"].as_f64().unwrap())),
    ] {
        assert_eq!(fact(name), value);
    }
}

/// It is wanted most when something is wrong.
/// What a browser makes of a page in a window of this width, measured from a page around it.
fn shown(chromium: &std::ffi::OsStr, folder: &Path, page: &str, width: u32) -> Value {
    let escaped = page.replace('&', "&amp;").replace('"', "&quot;");
    let around = format!(
        r#"<!doctype html><title>-</title><iframe id="page" width="{width}" height="4000" srcdoc="{escaped}"></iframe>
        <script>onload = () => {{
            const inside = page.contentDocument;
            const charts = [...inside.querySelectorAll("svg")].map((chart) => chart.getBoundingClientRect().height);
            document.title = JSON.stringify({{
                width: inside.documentElement.scrollWidth,
                charts: charts.filter((height) => height > 100).length,
                text: inside.body.innerText.split("\n")[2],
                fetched: page.contentWindow.performance.getEntriesByType("resource").length,
            }});
        }};</script>"#
    );
    let file = folder.join("around.html");
    std::fs::write(&file, around).unwrap();
    let mut browser = Command::new("timeout");
    browser.arg("60").arg(chromium).args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]);
    browser.args(["--disable-component-update", "--disable-sync", "--disable-quic", "--dump-dom"]);
    browser.arg(format!("--user-data-dir={}", folder.join("profile").display()));
    let output = browser.arg(format!("file://{}", file.display())).output().unwrap();
    let dom = String::from_utf8(output.stdout).unwrap();
    let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap();
    serde_json::from_str(title).unwrap()
}

#[test]
fn a_report_fits_a_screen_and_a_phone() {
    let Some(chromium) = std::env::var_os("CHROMIUM").filter(|program| !program.is_empty()) else {
        writeln!(std::io::stderr(), "not tested: CHROMIUM names no browser").unwrap();
        return;
    };
    let server = Server::start(even);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.html");
    Run::new("", &["-n", &server.url(), "--count=50", "--report", file.to_str().unwrap()]).probe();
    let page = std::fs::read_to_string(&file).unwrap();
    for width in [1200, 400] {
        let expected = json!({"width": width, "charts": 2, "text": "Even: 25 blue, 25 red", "fetched": 0});
        assert_eq!(shown(&chromium, folder.path(), &page, width), expected);
    }
}

#[test]
fn a_run_that_fails_is_reported_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.html");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let uneven = Server::start(|request| (200, if request % 5 == 0 { "blue" } else { "red" }));
    let foreign = Server::start(|request| if request == 50 { (200, "<script>x</script>") } else { even(request) });
    let hangs = Server::start(|request| {
        if request > 15 {
            thread::park();
        }
        even(request)
    });
    let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    for (url, exit, message, counted, reason) in [
        (uneven.url(), 1, "the answers are not spread as blue=1,red=1: ", "100", None),
        (foreign.url(), 1, "answered 200", "100", Some(row(&["answered 200 \"<script>x</script>\"", "1"]))),
        (hangs.url(), 5, "gave 11 of 100 answers in time", "11", None),
        (nobody, 5, "Connection refused", "0", None),
    ] {
        let args = ["-n", &url, "--count=100", "--concurrency=1", "--timeout=1s", "--report", file.to_str().unwrap()];
        let error = Run::new("", &args).error(exit);
        assert!(error["message"].as_str().unwrap().contains(message), "{error}");
        let page = std::fs::read_to_string(&file).unwrap();
        let heading = page.split("<h1>").nth(1).unwrap().split("</h1>").next().unwrap();
        let heading = heading.replace("&quot;", "\"").replace("&#x2f;", "/").replace("&lt;", "<").replace("&gt;", ">");
        assert_eq!(heading, error["message"].as_str().unwrap());
        assert_eq!(section(&page, "shares").last().unwrap()[2], counted, "{message}");
        assert_eq!(section(&page, "errors").get(1), reason.as_ref());
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_report_that_cannot_be_written_is_said_before_anybody_is_asked() {
    let server = Server::start(even);
    let error = Run::new("", &["-n", &server.url(), "--report=/nonexistent/run.html"]).error(1);
    assert_eq!(error["message"], "write /nonexistent/run.html");
    assert_eq!(server.connections.load(Ordering::Relaxed), 0);
}

/// None of the packages it is built from is AWS's: Kubernetes is asked by a kubeconfig, which needs none.
#[test]
fn no_aws_sdk_is_linked() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["tree", "--offline", "--package=color-probe", "--edges=normal", "--prefix=none", "--format={p}"];
    let tree = Command::new(cargo).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let packages = String::from_utf8(tree.stdout).unwrap();
    assert!(packages.contains("\nhyper v"), "{}", String::from_utf8_lossy(&tree.stderr));
    let foreign: Vec<&str> = packages
        .lines()
        .filter(|line| ["aws-sdk", "aws-config", "aws-smithy", "aws-sigv4"].iter().any(|name| line.starts_with(name)))
        .collect();
    assert_eq!(foreign, Vec::<&str>::new());
}
