//! The program itself against API servers on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use serde_json::json;
use std::io::{Error, Write as _};
use std::process::Command;
use tests::feed;
use tests::peer::{Peer, head};

/// An API server that has no objects, and tells what it is asked.
fn empty() -> Peer {
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": []}).to_string();
    Peer::listen(move |mut stream, tell| {
        tell.send(head(&mut stream)?).map_err(Error::other)?;
        let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n";
        write!(stream, "{answer}content-length: {}\r\n\r\n{list}", list.len())
    })
    .unwrap()
}

/// As with one cluster in each of two regions, made alike; the same document twice is one cluster.
#[test]
fn clusters_of_one_name_are_told_apart() {
    let (west, east) = (empty(), empty());
    let document = |region: &str, server: &Peer| {
        let facts = json!({"name": "shop", "region": region, "account": "123456789012",
            "arn": format!("arn:aws:eks:{region}:123456789012:cluster/shop"),
            "endpoint": format!("http://{}", server.address), "certificateAuthority": "Cg==",
            "issuer": "https://oidc.example/id/A", "vpc": "vpc-1", "securityGroup": "sg-1", "version": "1.35"});
        json!({"cluster": facts}).to_string()
    };
    let (one, two) = (document("us-west-2", &west), document("eu-west-1", &east));
    for (stdin, expected) in [
        ([one.clone(), two.clone(), one.clone()].concat(), &["shop (us-west-2)", "shop (eu-west-1)"][..]),
        ([one.clone(), one].concat(), &["shop"]),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-map"));
        command.args(["--cluster", "shop"]).env_clear();
        command.envs([("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "x")]);
        let output = feed(&mut command, stdin.as_bytes()).unwrap();
        let (picture, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let boxes = picture.lines().filter_map(|line| line.trim().strip_prefix("subgraph "));
        let boxes: Vec<&str> = boxes.filter_map(|line| line.split('"').nth(1)).collect();
        assert_eq!(boxes, expected, "{picture}{stderr}");
        assert!(!west.asked().is_empty(), "{stderr}");
        assert_eq!(east.asked().is_empty(), expected.len() == 1, "{stderr}");
    }
}
