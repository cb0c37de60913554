//! The contract, tool by tool: the same table of subjects for all of them. Needs no network: everything here is decided
//! before a tool is answered by anybody. What needs answers is in contract_live.rs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod manual;
mod packages;
mod terraform;

use serde_json::Value;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tests::{TOOLS, error, program, root, run, signal};

/// What tells one tool from another.
struct Row {
    tool: &'static str,
    /// The arguments it cannot do without.
    args: &'static [&'static str],
    /// The path of the key it owns.
    key: &'static str,
    /// What it says when it starts from {} and gets nothing else.
    bare: &'static str,
    /// What does not fit its key, and what it says, which begins with the path.
    wrong: &'static [(&'static str, &'static str)],
    /// Arguments that bring it to ask somebody; URL is where it asks.
    asks: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        tool: "appmesh-install",
        args: &[],
        key: "mesh",
        bare: "no chart",
        wrong: &[
            (r#"{"chart":7}"#, "mesh.chart: invalid type: number, expected a string"),
            (r#"{"serviceAccount":{"name":"x"}}"#, "mesh.serviceAccount: invalid type: map, expected a string"),
            (r#"{"values":[]}"#, "mesh.values: invalid type: sequence, expected a map"),
            (r#"{"charts":"x"}"#, "mesh.charts: unknown field `charts`"),
        ],
        asks: &["-n", "--cluster", "c1", "--chart", "charts/appmesh-controller"],
    },
    Row {
        tool: "cloudmap-ns",
        args: &[],
        key: "namespace",
        bare: "no cluster",
        wrong: &[
            (r#"{"name":7}"#, "namespace.name: invalid type: number, expected a string"),
            (r#"{"vpc":["vpc-1"]}"#, "namespace.vpc: invalid type: sequence, expected a string"),
            (r#"{"hostedzone":"Z1"}"#, "namespace.hostedzone: unknown field `hostedzone`"),
        ],
        asks: &["-n", "--cluster", "c1"],
    },
    Row {
        tool: "color-probe",
        args: &[],
        key: "probe",
        bare: "no URL to ask",
        wrong: &[
            (r#"{"count":"many"}"#, "probe.count: invalid type: string \"many\", expected u32"),
            (r#"{"count":-1}"#, "probe.count: invalid number"),
            (r#"{"count":0,"url":"http://127.0.0.1/"}"#, "probe.count"),
            (r#"{"url":"ftp://127.0.0.1/"}"#, "probe.url: \"ftp://127.0.0.1/\" is not a URL that begins with http"),
            (r#"{"expect":{"red":"one"}}"#, "probe.expect"),
            (r#"{"latencyMillis":7}"#, "probe.latencyMillis: invalid type: number, expected an object"),
            (r#"{"latencyMillis":{"p51":1}}"#, "probe.latencyMillis.p51: unknown field `p51`"),
        ],
        asks: &["-n", "URL"],
    },
    Row {
        tool: "ecr-push",
        args: &["colorapp", "--region", "us-west-2"],
        key: "images.colorapp",
        bare: "no image",
        wrong: &[
            (r#"{"digest":7}"#, "images.colorapp.digest: invalid type: number, expected a string"),
            (r#"{"tag":true}"#, "images.colorapp.tag: invalid type: boolean `true`, expected a string"),
            (r#"{"url":"x"}"#, "images.colorapp.url: unknown field `url`"),
        ],
        asks: &["colorapp", "-n", "--cluster", "c1", "--context", "."],
    },
    Row {
        tool: "irsa-role",
        args: &[],
        key: "role",
        bare: "no cluster",
        wrong: &[
            (r#"{"policies":["a",7]}"#, "role.policies[1]: invalid type: number, expected a string"),
            (r#"{"policies":"a"}"#, "role.policies: invalid type: string \"a\", expected a sequence"),
            (r#"{"serviceAccounts":["default"]}"#, "role.serviceAccounts[0]: "),
            (r#"{"tags":{"team":7}}"#, "role.tags.team: invalid type: number, expected a string"),
            (r#"{"policyDocuments":[]}"#, "role.policyDocuments: invalid type: sequence, expected a map"),
            (r#"{"polices":[]}"#, "role.polices: unknown field `polices`"),
        ],
        asks: &["-n", "--cluster", "c1"],
    },
    Row {
        tool: "manifest-apply",
        args: &["colorapp"],
        key: "apps.colorapp",
        bare: "no manifests",
        wrong: &[
            (r#"{"files":"a.yaml"}"#, "apps.colorapp.files: invalid type: string \"a.yaml\", expected a sequence"),
            (r#"{"set":{"A":7}}"#, "apps.colorapp.set.A: invalid type: number, expected a string"),
            (r#"{"objects":[{"kind":7}]}"#, "apps.colorapp.objects[0].kind: invalid type: number, expected a string"),
            (r#"{"objects":[7]}"#, "apps.colorapp.objects[0]: invalid type: number, expected an object"),
            (r#"{"file":"a.yaml"}"#, "apps.colorapp.file: unknown field `file`"),
        ],
        asks: &["colorapp", "-n", "--cluster", "c1", "--file", "manifests/colorapp.yaml", "--delete"],
    },
    Row {
        tool: "mesh-check",
        args: &[],
        key: "check",
        bare: "no cluster",
        wrong: &[
            (r#"{"clusters":"c2"}"#, "check.clusters: invalid type: string \"c2\", expected a sequence"),
            (r#"{"helm":7}"#, "check.helm: invalid type: number, expected a boolean"),
            (r#"{"warnings":[{"code":7}]}"#, "check.warnings[0].code: invalid type: number, expected a string"),
            (r#"{"program":[]}"#, "check.program: unknown field `program`"),
        ],
        asks: &["-n", "--cluster", "c1"],
    },
    Row {
        tool: "oidc-assoc",
        args: &[],
        key: "oidc",
        bare: "no cluster",
        wrong: &[
            (r#"{"audiences":"x"}"#, "oidc.audiences: invalid type: string \"x\", expected a sequence"),
            (r#"{"audiences":["x",{}]}"#, "oidc.audiences[1]: invalid type: map, expected a string"),
            (r#"{"url":7}"#, "oidc.url: invalid type: number, expected a string"),
            (r#"{"audience":"x"}"#, "oidc.audience: unknown field `audience`"),
        ],
        asks: &["-n", "--cluster", "c1"],
    },
    Row {
        tool: "pod-identity",
        args: &[],
        key: "role",
        bare: "no cluster",
        wrong: &[
            (r#"{"policies":["a",7]}"#, "role.policies[1]: invalid type: number, expected a string"),
            (r#"{"policies":"a"}"#, "role.policies: invalid type: string \"a\", expected a sequence"),
            (r#"{"serviceAccounts":["default"]}"#, "role.serviceAccounts[0]: "),
            (r#"{"associations":[]}"#, "role.associations: invalid type: sequence, expected a map"),
            (r#"{"tags":{"team":7}}"#, "role.tags.team: invalid type: number, expected a string"),
            (r#"{"policyDocuments":[]}"#, "role.policyDocuments: invalid type: sequence, expected a map"),
            (r#"{"polices":[]}"#, "role.polices: unknown field `polices`"),
        ],
        asks: &["-n", "--cluster", "c1"],
    },
    Row {
        tool: "sg-open",
        args: &[],
        key: "ingress",
        bare: "no cluster",
        wrong: &[
            (r#"{"ports":["http"]}"#, "ingress.ports[0]: invalid type: string \"http\", expected a nonzero u16"),
            (r#"{"ports":[8080,70000]}"#, "ingress.ports[1]: invalid number"),
            (r#"{"ports":[8080,0]}"#, "ingress.ports[1]: invalid value: integer `0`, expected a nonzero u16"),
            (r#"{"from":"c1"}"#, "ingress.from: invalid type: string \"c1\", expected an object"),
            (r#"{"from":{"cluster":7}}"#, "ingress.from.cluster: invalid type: number, expected a string"),
            (r#"{"from":{"cluster":"c1","groups":[]}}"#, "ingress.from.groups: unknown field `groups`"),
            (r#"{"rules":[{"cidr":"10.0.0.0/8"}]}"#, "ingress.rules[0].cidr: unknown field `cidr`"),
        ],
        asks: &["-n", "--cluster", "c1"],
    },
];

impl Row {
    /// Runs the tool with the arguments it needs and more.
    fn run(&self, more: &[&str], stdin: &str) -> Output {
        run(self.tool, self.args.iter().chain(more), stdin.as_bytes()).expect(self.tool)
    }

    /// Expects nothing on stdout, and an error line of that kind whose message begins so.
    #[track_caller]
    fn fails(&self, output: &Output, kind: &str, message: &str) -> Value {
        let text = String::from_utf8_lossy(&output.stderr);
        let error = error(&text);
        assert_eq!(error["tool"], self.tool, "no error line of {}: {text}", self.tool);
        let exit = ["failed", "usage", "input", "conflict", "retry"].iter().position(|known| *known == kind);
        assert_eq!((&error["kind"], output.status.code()), (&kind.into(), exit.map(|at| at as i32 + 1)), "{text}");
        assert!(error["message"].as_str().unwrap().starts_with(message), "{}: not {message:?}: {text}", self.tool);
        assert_eq!(output.stdout, b"", "{}", self.tool);
        error
    }

    #[track_caller]
    fn refuses(&self, stdin: &str, kind: &str, message: &str) {
        self.fails(&self.run(&[], stdin), kind, message);
    }

    fn asks_aws(&self) -> bool {
        self.tool != "color-probe"
    }
}

/// `{"apps":{"colorapp":INNER}}` for `apps.colorapp`.
fn nested(path: &str, inner: &str) -> String {
    path.rsplit('.').fold(inner.to_owned(), |inner, key| format!("{{\"{key}\":{inner}}}"))
}

fn what_is_no_document(row: &Row) -> usize {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let cases = [
        ("", "stdin is empty"),
        ("  \n", "stdin is empty"),
        ("red", "stdin is not JSON: expected value at line 1 column 1"),
        ("{\"a\":", "stdin is not JSON: EOF while parsing a value at line 1 column 5"),
        ("{'a':1}", "stdin is not JSON: key must be a string at line 1 column 2"),
        (deep.as_str(), "stdin is not JSON: recursion limit exceeded"),
        ("[1]", "stdin: document 1 is an array, not an object"),
        ("null", "stdin: document 1 is null, not an object"),
        ("{} \"x\"", "stdin: document 2 is a string, not an object"),
        ("{} {", "stdin is not JSON: EOF while parsing an object"),
        (r#"{"v":2}"#, "stdin: v: this tool reads version 1, not 2"),
        (r#"{"v":"1"}"#, "stdin: v: this tool reads version 1, not \"1\""),
        (r#"{} {"v":null}"#, "stdin: v: this tool reads version 1, not null"),
    ];
    for (stdin, message) in cases {
        row.refuses(stdin, "input", message);
    }
    cases.len()
}

/// In its own key, and in the way to it, before anything is done.
fn what_does_not_fit_the_own_key(row: &Row) -> usize {
    let mut tried = 0;
    for (inner, message) in row.wrong {
        row.refuses(&nested(row.key, inner), "input", message);
        tried += 1;
    }
    let paths = row.key.match_indices('.').map(|(dot, _)| &row.key[..dot]).chain([row.key]);
    for path in paths {
        for (value, name) in [("7", "a number"), ("[]", "an array"), ("null", "null"), ("\"x\"", "a string")] {
            row.refuses(&nested(path, value), "input", &format!("{path} is {name}, not an object"));
            tried += 1;
        }
    }
    tried
}

/// What the tools share.
fn what_does_not_fit_the_cluster(row: &Row) -> usize {
    let cases = [
        ("7", "cluster is a number, not an object"),
        (r#"{"name":7}"#, "cluster.name: invalid type: number, expected a string"),
        (r#"{"name":"c1","region":7}"#, "cluster.region: invalid type: number, expected a string"),
        (r#"{"name":"c1","issuer":["x"]}"#, "cluster.issuer: invalid type: sequence, expected a string"),
    ];
    // What else it needs, so that it comes to the cluster.
    let more: &[&str] = match row.tool {
        "appmesh-install" => &["--chart", "charts/appmesh-controller"],
        "ecr-push" => &["--context", "."],
        "manifest-apply" => &["--file", "manifests/colorapp.yaml", "--delete"],
        _ => &[],
    };
    for (cluster, message) in cases {
        row.fails(&row.run(more, &nested("cluster", cluster)), "input", message);
    }
    // Of ecr-push the region is that of the registry, too; mesh-check looks every cluster up.
    if ["ecr-push", "mesh-check"].contains(&row.tool) {
        return cases.len();
    }
    let output =
        row.run(&[more, &["--region", "eu-west-1"]].concat(), r#"{"cluster":{"name":"c1","region":"us-west-2"}}"#);
    row.fails(&output, "conflict", "--region is eu-west-1, but cluster c1 of the document is in us-west-2");
    cases.len() + 1
}

fn documents_that_disagree(row: &Row) -> usize {
    let top = row.key.split('.').next().unwrap();
    let cases = [
        (format!("{top}.x.y"), "1", "\"é\""),
        (format!("{top}.x"), "{}", "7"),
        ("others.x".to_owned(), "[1,2]", "[2,1]"),
        // As numbers they are equal, as they are written they are not.
        ("others.x".to_owned(), "1.0", "1.00"),
        ("cluster.name".to_owned(), "\"c1\"", "\"c2\""),
    ];
    for (path, one, other) in &cases {
        let stdin = format!("{}\n{}", nested(path, one), nested(path, other));
        row.refuses(&stdin, "conflict", &format!("documents disagree about {path}: {one} and {other}"));
    }
    cases.len()
}

/// `-n` reads no stdin, not even a bad one.
fn start_from_nothing(row: &Row) -> usize {
    for stdin in ["", "red"] {
        let output = row.run(&["-n"], stdin);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(error(&text)["message"], row.bare, "{}: {text}", row.tool);
        assert!(matches!(output.status.code(), Some(2 | 3)), "{}", row.tool);
    }
    2
}

/// What is only planned is refused, and so is what is no plan.
fn a_plan_is_no_document(row: &Row) -> usize {
    let planned = r#"{"change":"create role r","effect":"add","place":"1 us-west-2","tool":"irsa-role"}"#;
    let cases = [
        (format!(r#"{{"plan":{{"role":[{planned}]}}}}"#), "the document is a plan: role may not be as it says"),
        (r#"{"plan":{"role":7}}"#.to_owned(), "plan.role: invalid type: number, expected a sequence"),
        (r#"{"plan":{"role":[{"change":7}]}}"#.to_owned(), "plan.role[0].change: invalid type: number"),
    ];
    for (stdin, message) in &cases {
        row.refuses(stdin, "input", message);
    }
    cases.len()
}

fn usage(row: &Row) -> usize {
    let cases: [&[&str]; 4] =
        [&["--no-such-flag"], &["--timeout", "soon"], &["--schema", "--plan"], &["--plan", "--plan"]];
    for args in cases {
        let output = row.run(args, "{}");
        let error = row.fails(&output, "usage", "");
        assert!(error["message"].as_str().unwrap().contains(args[0]), "{} {args:?}: {error}", row.tool);
        assert_eq!(error["hint"], format!("{} --help", row.tool));
    }
    cases.len()
}

fn the_schema_is_the_committed_one(row: &Row) -> usize {
    let tool = row.tool;
    let output = run(tool, ["--schema"], b"").expect(tool);
    assert_eq!(output.status.code(), Some(0), "{tool}");
    let committed = std::fs::read(root().join(format!("schemas/{tool}.json"))).expect(tool);
    let (now, committed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&committed));
    assert!(now == committed, "schemas/{tool}.json is not what {tool} --schema prints");
    let schema = serde_json::from_str(&now).expect(tool);
    jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{tool}: {error}"));
    1
}

/// Whoever reads leaves early: the end is as it would be, without a word. A full disk is an error.
fn streams_that_end(row: &Row) -> usize {
    let spawn = |args: &[&str], stdout: Stdio| -> Child {
        let mut command = Command::new(program(row.tool));
        command.args(args).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        command.spawn().expect(row.tool)
    };
    for args in [["--schema"], ["--help"], ["--version"]] {
        let mut child = spawn(&args, Stdio::piped());
        drop(child.stdout.take());
        let output = child.wait_with_output().expect(row.tool);
        assert_eq!(
            (output.status.code(), output.stderr.as_slice()),
            (Some(0), b"".as_slice()),
            "{} {args:?}",
            row.tool
        );
    }
    let mut child = spawn(row.args, Stdio::piped());
    drop(child.stderr.take());
    let output = child.wait_with_output().expect(row.tool);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"".as_slice()), "{}", row.tool);
    let full = File::options().write(true).open("/dev/full").unwrap();
    row.fails(&spawn(&["--schema"], full.into()).wait_with_output().expect(row.tool), "failed", "write stdout");
    5
}

/// While it waits for an answer that does not come.
fn signals(row: &Row) -> usize {
    for (name, message) in [("INT", "interrupted"), ("TERM", "terminated")] {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let args = row.asks.iter().map(|arg| if *arg == "URL" { url.as_str() } else { *arg });
        let mut command = Command::new(program(row.tool));
        // An SDK's own variables: where it asks, and as whom.
        command.envs([("AWS_ENDPOINT_URL", url.as_str()), ("AWS_REGION", "us-west-2")]);
        command.envs([("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "example")]);
        command.args(args).current_dir(root()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect(row.tool);
        let (asked, is_asked) = mpsc::channel();
        std::thread::spawn(move || asked.send(silent.accept()));
        let connection = is_asked.recv_timeout(Duration::from_secs(60));
        if connection.is_err() {
            child.kill().unwrap();
        }
        signal(name, &child).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(connection.is_ok(), "{} asks nobody: {}", row.tool, String::from_utf8_lossy(&output.stderr));
        let error = row.fails(&output, "retry", message);
        assert_eq!(error["left"], Value::Null, "{} had made nothing", row.tool);
    }
    2
}

#[test]
fn every_tool_keeps_the_contract() {
    type Subject = fn(&Row) -> usize;
    let subjects: [Subject; 9] = [
        what_is_no_document,
        what_does_not_fit_the_own_key,
        documents_that_disagree,
        start_from_nothing,
        a_plan_is_no_document,
        usage,
        the_schema_is_the_committed_one,
        streams_that_end,
        signals,
    ];
    assert!(ROWS.iter().map(|row| row.tool).eq(TOOLS.iter().copied()), "a row for every tool");
    let mut cases = 0;
    for row in ROWS {
        cases += subjects.iter().map(|subject| subject(row)).sum::<usize>();
        if row.asks_aws() {
            cases += what_does_not_fit_the_cluster(row);
        }
    }
    writeln!(std::io::stderr(), "contract: {} tools, {cases} cases", ROWS.len()).unwrap();
}

/// Serves red and blue in turn, one answer a connection, until the test ends.
fn red_and_blue() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (stream, color) in listener.incoming().map_while(Result::ok).zip(["red", "blue"].into_iter().cycle()) {
            let request = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            if request.count() > 0 {
                let _gone = write!(&stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{color}", color.len());
            }
        }
    });
    url
}

/// color-probe alone needs nothing but a server: no AWS, no configuration, no home.
#[test]
fn color_probe_asks_any_server() {
    let url = red_and_blue();
    let mut command = Command::new(program("color-probe"));
    command.args(["-n", &url, "--count", "40", "--concurrency", "1"]).env_clear().current_dir("/");
    let output = tests::feed(&mut command, b"").unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["probe"]["tallies"], serde_json::json!({"blue": 20, "red": 20}));

    // Asked again as the document says, and what else is in the document stays.
    let kept = r#"{"a":[1.10,1e400,{"é":"\u0000"}],"cluster":7}"#;
    let again = run("color-probe", [""; 0], &[kept.as_bytes(), &output.stdout].concat()).unwrap();
    let text = String::from_utf8(again.stdout).unwrap();
    assert!(
        text.starts_with(
            "{\n  \"a\": [\n    1.10,\n    1e+400,\n    {\n      \"é\": \"\\u0000\"\n    }\n  ],\n  \"cluster\": 7,\n"
        ),
        "{text}"
    );

    let gone = run("color-probe", ["--delete"], &output.stdout).unwrap();
    assert_eq!(String::from_utf8(gone.stdout).unwrap(), "{\n  \"v\": 1\n}\n");
}

/// What draws or counts fails as a tool does, and owns no key.
#[test]
fn views_fail_as_tools_do() {
    let given: [(&str, &[&str], &str, &str, &str); 9] = [
        ("mesh-map", &[], "", "input", "stdin is empty"),
        ("mesh-map", &[], "{} 7", "input", "stdin: document 2 is a number, not an object"),
        ("mesh-map", &[], "{}", "input", "stdin: document 1 has no cluster.name"),
        ("mesh-map", &["-n"], "red", "input", "no cluster"),
        ("mesh-map", &["--file", "nowhere.yaml"], "", "input", "read nowhere.yaml: "),
        ("mesh-map", &["--file", "-"], "kind: [", "input", "stdin:1:7: not YAML"),
        ("mesh-map", &["-o", "png"], "", "usage", "invalid value 'png'"),
        ("plan-total", &["nowhere.json"], "", "input", "count the plan"),
        ("plan-total", &[], "", "usage", "the following required arguments were not provided: <FILE>"),
    ];
    for (view, args, stdin, kind, message) in given {
        let output = run(view, args, stdin.as_bytes()).expect(view);
        let error = error(&String::from_utf8_lossy(&output.stderr));
        assert_eq!((&error["tool"], &error["kind"]), (&view.into(), &kind.into()), "{view} {args:?}: {error}");
        assert!(error["message"].as_str().unwrap().starts_with(message), "{view} {args:?}: {error}");
        assert_eq!(output.stdout, b"", "{view} {args:?}");
    }
}

/// README's picture is what mesh-map makes of the sample, by the command that docs/map.md shows. After a change:
/// `SNAPSHOTS=overwrite`.
#[test]
fn the_picture_of_the_sample_is_the_committed_one() {
    let docs = std::fs::read_to_string(root().join("docs/map.md")).unwrap();
    let (_, command) = docs.split_once("    $ sed ").unwrap();
    let (command, _) = command.split_once(" > docs/mesh.svg\n").unwrap();
    let mut shell = Command::new("sh");
    let bin = program("mesh-map").parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    shell.args(["-c", &format!("sed {command}")]).env("PATH", path).current_dir(root());
    let output = tests::feed(&mut shell, b"").unwrap();
    // Nothing of the sample is broken.
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    let picture = String::from_utf8(output.stdout).unwrap();
    snapbox::assert_data_eq!(picture, snapbox::Data::read_from(&root().join("docs/mesh.svg"), None).raw());
}
