//! The program as the last init container of a pod: it ends when the pod's Envoy is ready, or when it is told to.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::peer::{closed, head};

/// Waits for the Envoy of a port, and has told so.
fn waiting(port: u16) -> (Child, Lines<BufReader<ChildStderr>>) {
    let variables = [("APPMESH_WAIT_FOR_ENVOY", "60".to_owned()), ("APPMESH_ENVOY_ADMIN_PORT", port.to_string())];
    let mut command = Command::new(env!("CARGO_BIN_EXE_capture"));
    let mut child = command.env_clear().envs(variables).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "capture: APPMESH_START_ENABLED is not set: nothing is redirected");
    assert_eq!(next(), format!("capture: waiting for Envoy: connecting to {port}: Connection refused (os error 111)"));
    (child, lines)
}

#[tokio::test]
async fn it_ends_when_envoy_is_ready() {
    let (socket, port) = closed().unwrap();
    let (mut child, mut lines) = waiting(port);
    let envoy = socket.listen(1).unwrap().into_std().unwrap();
    envoy.set_nonblocking(false).unwrap();
    for (status, state, said) in [
        (
            "503 Service Unavailable",
            "INITIALIZING",
            "waiting for Envoy: GET /ready: HTTP/1.1 503 Service Unavailable: INITIALIZING",
        ),
        ("200 OK", "LIVE", "Envoy is ready after "),
    ] {
        let (mut caller, _) = envoy.accept().unwrap();
        assert_eq!(head(&mut caller).unwrap().lines().next(), Some("GET /ready HTTP/1.1"));
        let length = state.len();
        write!(caller, "HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{state}\r\n0\r\n\r\n")
            .unwrap();
        drop(caller);
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with(&format!("capture: {said}")), "{line}");
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_pod_that_ends_does_not_wait_for_it() {
    let (_closed, port) = closed().unwrap();
    let (mut child, mut lines) = waiting(port);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "capture: told to end before Envoy was ready");
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
