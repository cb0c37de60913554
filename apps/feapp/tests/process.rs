//! The binary as a pod runs it, with a colorapp that this test plays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running feapp, ended with the test.
struct Feapp {
    child: Child,
    port: u16,
}

impl Feapp {
    fn start(color_host: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_feapp"))
            .env_clear()
            .envs([("PORT", "0"), ("COLOR_HOST", color_host)])
            // As in an image without CA certificates.
            .env("SSL_CERT_FILE", "/nonexistent")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse();
        Self { child, port: port.expect(&line) }
    }

    /// Sends a request and does not wait for the answer.
    fn send(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: front\r\n{headers}connection: close\r\n\r\n").unwrap();
        stream
    }

    fn get(&self, path: &str) -> String {
        answer(self.send(path, ""))
    }
}

impl Drop for Feapp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The next request to the colorapp of this test, up to its empty line, and where to answer it.
fn asked(colorapp: &TcpListener) -> (String, TcpStream) {
    let (stream, _) = colorapp.accept().unwrap();
    let mut request = String::new();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    while !request.ends_with("\r\n\r\n") {
        assert_ne!(lines.read_line(&mut request).unwrap(), 0, "{request}");
    }
    (request, stream)
}

fn colorapp() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    (listener, host)
}

#[test]
fn passes_status_type_and_body_on() {
    let (colorapp, host) = colorapp();
    let feapp = Feapp::start(&host);
    for (status, kind, body) in [
        ("200 OK", "text/plain; charset=utf-8", "red"),
        ("503 Service Unavailable", "text/plain", "upstream connect error"),
        ("302 Found", "text/html", ""),
    ] {
        let waiting = feapp.send("/color", "");
        let (request, mut stream) = asked(&colorapp);
        assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("host: {host}\r\n")), "{request}");
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nlocation: /x\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let answer = answer(waiting);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(answer.contains(&format!("content-type: {kind}\r\n")), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    }
}

#[test]
fn the_trace_goes_on() {
    let (colorapp, host) = colorapp();
    let feapp = Feapp::start(&host);
    let waiting = feapp.send("/color", "x-request-id: 1\r\nX-B3-TraceId: 2\r\ncookie: c\r\n");
    let (request, mut stream) = asked(&colorapp);
    assert!(request.contains("x-request-id: 1\r\n"), "{request}");
    assert!(request.contains("x-b3-traceid: 2\r\n"), "{request}");
    assert!(!request.contains("cookie"), "{request}");
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nred").unwrap();
    assert!(answer(waiting).ends_with("red"));
}

#[test]
fn an_answer_that_breaks_off_is_a_bad_gateway() {
    let (colorapp, host) = colorapp();
    let feapp = Feapp::start(&host);
    let waiting = feapp.send("/color", "");
    let (_, mut stream) = asked(&colorapp);
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nr").unwrap();
    drop(stream);
    let answer = answer(waiting);
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.contains(&format!("colorapp at http://{host}/ can't be asked")), "{answer}");
}

#[test]
fn a_closed_port_is_a_bad_gateway_and_the_probe_still_answers() {
    let (colorapp, host) = colorapp();
    drop(colorapp);
    let feapp = Feapp::start(&host);
    let answer = feapp.get("/color");
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.contains("Connection refused"), "{answer}");
    assert!(feapp.get("/ping").ends_with("\r\n\r\nPong"));
    assert!(feapp.get("/").starts_with("HTTP/1.1 404 "));
}

#[test]
fn sigterm_lets_the_request_under_way_finish() {
    let (colorapp, host) = colorapp();
    let mut feapp = Feapp::start(&host);
    let waiting = feapp.send("/color", "");
    let (_, mut stream) = asked(&colorapp);
    kill(Pid::from_raw(feapp.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    // It has seen the signal once it takes no more connections.
    while TcpStream::connect(("127.0.0.1", feapp.port)).is_ok() {
        std::thread::yield_now();
    }
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nblue").unwrap();
    assert!(answer(waiting).ends_with("\r\n\r\nblue"));
    assert!(feapp.child.wait().unwrap().success());
}

#[test]
fn without_color_host_it_does_not_start() {
    let output = Command::new(env!("CARGO_BIN_EXE_feapp")).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "COLOR_HOST is not set: give colorapp's host and port, \
         such as colorapp.k8multi.svc.cluster.local:8080\n"
    );
}

#[test]
fn help_is_a_help_and_an_argument_is_refused() {
    let run = |argument| Command::new(env!("CARGO_BIN_EXE_feapp")).arg(argument).output().unwrap();
    let help = run("--help");
    assert!(
        help.status.success()
            && help.stdout.starts_with(b"The front end of the sample: asks colorapp and passes its answer on.\n"),
        "{help:?}"
    );
    let refused = run("--port=1");
    assert!(refused.status.code() == Some(2) && refused.stdout.is_empty(), "{refused:?}");
}
