//! The binary in somebody's pipeline: no cluster, no AWS, no CA certificates.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

#[test]
fn asks_any_server() {
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
    let run = Command::new(env!("CARGO_BIN_EXE_color-probe"))
        .args([url.as_str(), "-n", "--expect", "red=1,blue=1", "--count=50"])
        .env_clear()
        .env("SSL_CERT_FILE", "/nonexistent")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{stderr}");
    let document: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(document["probe"]["tallies"], serde_json::json!({"blue": 25, "red": 25}));
    assert_eq!(document["v"], 1);
}
