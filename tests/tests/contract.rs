//! The contract, tool by tool: the same table of inputs for all of them. Needs no network: everything here is decided
//! before a tool asks anybody anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop at the first surprise")]

use serde_json::Value;
use std::fmt::Write as _;
use std::process::{Command, Output, Stdio};
use tests::{TOOLS, program, root, run};

/// The arguments a tool cannot do without, and the path of the key it owns.
fn row(tool: &str) -> (&'static [&'static str], &'static str) {
    match tool {
        "appmesh-install" => (&[], "mesh"),
        "cloudmap-ns" => (&[], "namespace"),
        "color-probe" => (&[], "probe"),
        "ecr-push" => (&["colorapp"], "images.colorapp"),
        "irsa-role" => (&[], "role"),
        "manifest-apply" => (&["colorapp"], "apps.colorapp"),
        "oidc-assoc" => (&[], "oidc"),
        "sg-open" => (&[], "ingress"),
        other => panic!("{other}: no row"),
    }
}

/// `{"apps":{"colorapp":INNER}}` for `apps.colorapp`.
fn nested(path: &str, inner: &str) -> String {
    path.rsplit('.').fold(inner.to_owned(), |inner, key| format!("{{\"{key}\":{inner}}}"))
}

/// The last line of stderr, as the error object every failure ends with.
fn error(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = text.lines().last().unwrap_or_default();
    let line: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("not an error line: {text}"));
    line["error"].clone()
}

#[test]
fn bad_documents_are_refused_by_every_tool() {
    let mut tried = 0;
    for tool in TOOLS {
        let (args, key) = row(tool);
        let top = key.split('.').next().unwrap();
        let cases: [(String, i32, &str, String); 10] = [
            (String::new(), 3, "input", "stdin is empty".into()),
            ("  \n".into(), 3, "input", "stdin is empty".into()),
            ("red".into(), 3, "input", "stdin is not JSON: expected value at line 1 column 1".into()),
            ("{\"a\":".into(), 3, "input", "stdin is not JSON: EOF while parsing a value at line 1 column 5".into()),
            ("[1]".into(), 3, "input", "stdin: document 1 is an array, not an object".into()),
            ("{} \"x\"".into(), 3, "input", "stdin: document 2 is a string, not an object".into()),
            (r#"{"v":2}"#.into(), 3, "input", "stdin: v: this tool reads version 1, not 2".into()),
            (r#"{"v":"1"}"#.into(), 3, "input", "stdin: v: this tool reads version 1, not \"1\"".into()),
            (
                nested(key, r#"{"nosuchfield":1}"#),
                3,
                "input",
                format!("{key}.nosuchfield: unknown field `nosuchfield`"),
            ),
            (
                format!("{{\"{top}\":{{\"x\":{{\"y\":1}}}}}} {{\"{top}\":{{\"x\":{{\"y\":\"é\"}}}}}}"),
                4,
                "conflict",
                format!("documents disagree about {top}.x.y: 1 and \"é\""),
            ),
        ];
        for (stdin, exit, kind, message) in cases {
            let output = run(tool, args, stdin.as_bytes()).expect(tool);
            let error = error(&output);
            assert_eq!(output.status.code(), Some(exit), "{tool} < {stdin}: {error}");
            assert_eq!(output.stdout, b"", "{tool} < {stdin}");
            assert_eq!((error["tool"].as_str(), error["kind"].as_str()), (Some(*tool), Some(kind)), "{tool} < {stdin}");
            let said = error["message"].as_str().unwrap_or_default();
            assert!(said.starts_with(&message), "{tool} < {stdin}: {said}");
            tried += 1;
        }
    }
    assert_eq!(tried, TOOLS.len() * 10);
}

#[test]
fn an_unknown_flag_is_a_usage_error() {
    for tool in TOOLS {
        let output = run(tool, ["--no-such-flag"], b"").expect(tool);
        assert_eq!(output.status.code(), Some(2), "{tool}");
        assert_eq!(output.stdout, b"", "{tool}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--no-such-flag"), "{tool}");
    }
}

#[test]
fn schemas_are_the_committed_ones() {
    for tool in TOOLS {
        let output = run(tool, ["--schema"], b"").expect(tool);
        assert_eq!(output.status.code(), Some(0), "{tool}");
        let committed = std::fs::read(root().join(format!("schemas/{tool}.json"))).expect(tool);
        let (now, committed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&committed));
        assert!(now == committed, "schemas/{tool}.json is not what {tool} --schema prints");
        let schema = serde_json::from_str(&now).expect(tool);
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{tool}: {error}"));
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for tool in TOOLS {
        let mut child = Command::new(program(tool))
            .arg("--schema")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect(tool);
        drop(child.stdout.take());
        let output = child.wait_with_output().expect(tool);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()), "{tool}");
    }
}

/// The whole command line of every tool, as one file to read. After a change: `SNAPSHOTS=overwrite cargo test`.
#[test]
fn help_and_version_are_the_golden_ones() {
    let mut transcript = String::new();
    for tool in TOOLS {
        for arg in ["--version", "--help"] {
            let output = run(tool, [arg], b"").expect(tool);
            assert_eq!(output.status.code(), Some(0), "{tool} {arg}");
            assert_eq!(output.stderr, b"", "{tool} {arg}");
            writeln!(transcript, "$ {tool} {arg}\n{}", String::from_utf8_lossy(&output.stdout)).unwrap();
        }
    }
    snapbox::assert_data_eq!(transcript, snapbox::Data::read_from(&root().join("tests/golden/help.txt"), None).raw());
}
