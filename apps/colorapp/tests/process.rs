//! The binary as a pod runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running colorapp, ended with the test.
struct Colorapp {
    child: Child,
    port: u16,
}

impl Colorapp {
    fn start(environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_colorapp"))
            .env_clear()
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse();
        Self { child, port: port.expect(&line) }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: colorapp\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Colorapp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn answers_its_color_as_plain_text_without_a_newline() {
    for (environment, color) in [
        (&[("PORT", "0"), ("COLOR", "red")][..], "red"),
        (&[("SERVER_PORT", "0"), ("COLOR", "blue")], "blue"),
        (&[("PORT", "0")], "n/a"),
    ] {
        let answer = Colorapp::start(environment).get("/");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: text/plain"), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{color}")), "{answer}");
    }
}

#[test]
fn answers_probes_and_nothing_else() {
    let app = Colorapp::start(&[("PORT", "0")]);
    assert!(app.get("/ping").ends_with("\r\n\r\nPong"));
    assert!(app.get("/color").starts_with("HTTP/1.1 404 "));
}

#[test]
fn sigterm_closes_idle_connections_and_exits_0() {
    let mut app = Colorapp::start(&[("PORT", "0")]);
    // A proxy keeps connections open; they must not keep the pod alive.
    let mut idle = app.connect();
    write!(idle, "GET /ping HTTP/1.1\r\nhost: colorapp\r\n\r\n").unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).unwrap();
    kill(Pid::from_raw(app.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    idle.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("Pong"), "{rest}");
    assert!(app.child.wait().unwrap().success());
}

#[test]
fn help_is_a_help_and_an_argument_is_refused() {
    let run = |argument| Command::new(env!("CARGO_BIN_EXE_colorapp")).arg(argument).output().unwrap();
    let help = run("--help");
    assert!(
        help.status.success() && help.stdout.starts_with(b"The back end of the sample: answers with its colour.\n"),
        "{help:?}"
    );
    let refused = run("--port=1");
    assert!(refused.status.code() == Some(2) && refused.stdout.is_empty(), "{refused:?}");
}
