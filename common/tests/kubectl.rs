//! Manifests as the real kubectl reads them: `kubectl create --dry-run=client -o json` and this reader give the same
//! objects, or both refuse the file. kubectl is `KUBECTL`, or in PATH.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may stop at the first surprise")]

use common::kube::manifest;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

/// How many documents each run of kubectl reads, and how many runs there are.
const GENERATED: (usize, u32) = (50, 24);

/// Scalars of YAML 1.1 and 1.2, and what looks like one.
const SCALARS: &[&str] = &[
    // null
    "",
    "~",
    "null",
    "Null",
    "NULL",
    "nULL",
    "nil",
    "!!null ''",
    "!!null x",
    // booleans
    "true",
    "True",
    "TRUE",
    "tRUE",
    "false",
    "False",
    "FALSE",
    "yes",
    "Yes",
    "YES",
    "yEs",
    "no",
    "No",
    "NO",
    "on",
    "On",
    "ON",
    "off",
    "Off",
    "OFF",
    "y",
    "Y",
    "n",
    "N",
    "t",
    "f",
    "!!bool yes",
    "!!bool \"on\"",
    "!!bool 1",
    // integers
    "0",
    "-0",
    "+0",
    "00",
    "1",
    "-1",
    "+1",
    "0400",
    "0644",
    "0755",
    "0123",
    "-0123",
    "+0123",
    "0777",
    "0888",
    "08",
    "09",
    "089",
    "0o17",
    "0O17",
    "0o8",
    "0o",
    "0x1F",
    "0X1f",
    "-0x1f",
    "0x",
    "0x1G",
    "0b101",
    "0B1",
    "-0b11",
    "0b2",
    "0b",
    "0b-1",
    "1_000",
    "1__0",
    "1_",
    "_1",
    "0_7",
    "0x_1f",
    "1,000",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "100000000000000000000000",
    "!!int 3",
    "!!int \"3\"",
    "!!int 3.0",
    "!!int x",
    // floats
    "0.0",
    "-0.0",
    "1.0",
    "1.5",
    "-1.5",
    "+1.5",
    "1.10",
    "3.10",
    ".5",
    "-.5",
    "+.5",
    "5.",
    "5.e3",
    ".5e3",
    "1e3",
    "1E3",
    "1e+3",
    "1E-3",
    "12e03",
    "1.5e-7",
    "1e21",
    "1e22",
    "1e300",
    "1e400",
    "1e-400",
    "0123.5",
    "1_0.5",
    ".5_0",
    "._5",
    "1e_3",
    "0.1",
    "0.30000000000000004",
    "123456789.123456789",
    "1.7976931348623157e308",
    ".inf",
    "-.inf",
    "+.Inf",
    ".NaN",
    "inf",
    "nan",
    ".",
    "..",
    "...x",
    "-",
    "--",
    "+",
    "+-1",
    "1e",
    "e3",
    "1.2.3",
    "192.168.0.1",
    "10.0",
    "!!float 3",
    "!!float x",
    // dates, base 60
    "2001-01-01",
    "2001-1-1",
    "2001-12-14t21:59:43.10-05:00",
    "2001-12-14T21:59:43Z",
    "2001-12-14 21:59:43.10",
    "2001-13-45",
    "1:30",
    "12:30:45",
    "190:20:30.15",
    "!!timestamp 2001-01-01",
    "!!timestamp now",
    // text
    "abc",
    "a b",
    "a:b",
    "a#b",
    "a #b",
    "<<",
    "=",
    "a'b",
    "a\"b",
    "x: y",
    "!foo bar",
    "!!str 0400",
    "!!str",
    "!!str ~",
    "!!binary aGFsbG8=",
    "!!binary ?",
    "'0400'",
    "\"0400\"",
    "'yes'",
    "\"~\"",
    "''",
    "\"\"",
    "'it''s'",
    "'a\\nb'",
    "\"a\\nb\\t\\\"\\\\\\x41\\u00e9\\U0001F600\\e\"",
    "\"\\q\"",
    "\"a\\\n    b\"",
    "\"a\n\n    b\"",
    "a\n    b",
    "é",
    "中",
    "😀",
    "@a",
    "`a",
    "%a",
    "a%",
    "&a",
    "*a",
    "| a",
    "{{ a }}",
    "${a}",
    "a]",
    "a}",
    "[",
    "]",
    "{",
    "}",
    ",",
    "?",
    "? a",
    "?a",
    "-a",
    "- a",
    ":",
    ":a",
    "!",
    "#a",
    "key:",
    "http://a/b?c=d&e#f",
];

/// Blocks: the header, and lines that stand four spaces in.
const BLOCKS: &[&str] = &[
    "|\n    a\n    b\n",
    "|\n    a\n\n\n",
    "|-\n    a\n\n",
    "|+\n    a\n\n\n",
    "|+\n    a",
    "|\n    a",
    ">\n    a\n    b\n\n    c\n",
    ">-\n    a\n      b\n    c\n",
    ">+\n    a\n\n",
    "|2\n      a\n",
    "|4-\n      a\n",
    "| # comment\n    # none\n",
    "|\n\n    a\n",
    "|\n",
    "|-\n",
    "|+\n\n\n",
    "|\n    {{ a }} ${#b} {% c %}\n",
    "|\n    a: b\n    - c\n    ---\n",
    "|\n      a\n    b\n",
    "|\n    a\n   b\n",
    "|0\n    a\n",
    "|x\n    a\n",
    ">\n    a  \n    b\t\n",
];

/// Whole files. `NAME` is a name that no other file has.
const FILES: &[&str] = &[
    "\u{feff}HEAD",
    "---\nHEAD",
    "--- # first\nHEAD\n---\n\n--- \nHEAD2",
    "HEAD\n---\n\u{feff}HEAD2",
    "HEAD\n...\n---\nHEAD2",
    "HEAD\n--- text\nHEAD2",
    "HEAD\n----\nHEAD2",
    "%YAML 1.1\n---\nHEAD",
    "%YAML 1.2\n---\nHEAD",
    "HEAD\n# the end",
    "# only words\n---\n# more\n---\nHEAD",
    "HEAD\na: 1\na: 2\n",
    "HEAD\na: {b: 1, b: 2, c: 3}\n",
    "HEAD\na: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\nc: {k: 3, <<: *x}\nd: {<<: [*x, {m: 1}], l: 4}\n",
    "HEAD\na: &x 1\nb: *x\nc: &x 2\nd: *x\n",
    "HEAD\na: &x {b: *x}\n",
    "HEAD\na: *x\n",
    "HEAD\n<<: 1\n",
    "HEAD\n\"<<\": 1\n",
    "HEAD\n? a\n: b\n? [c]\n: d\n",
    "HEAD\n? a\n? b\n",
    "HEAD\na: !!set {b, c}\nd: !!omap [{e: 1}]\nf: !!seq [1]\ng: !mine {h: 1}\n",
    "HEAD\na:\n- 1\n-   2\n- - 3\n  - 4\n- b: 5\n  c: 6\n",
    "HEAD\na: [1, 2,]\nb: {c: 1, d, 'e':f, \"g\":[1]}\ni: [a: 1, b]\n",
    "HEAD\na: [1\n  2]\nb: {c: 1\n",
    "HEAD\na:\n\tb: 1\n",
    "HEAD\na:\n  b: 1\n c: 2\n",
    "HEAD\na: b: c\n",
    "HEAD\na: 'b\n",
    "HEAD\r\na: |\r\n  b\r\n\r\nc: 'd\r\n  e'\r\n",
    "HEAD\n1: a\n0x10: b\n1.50: c\nyes: d\n2001-01-01: e\n0400: f\n1e6: g\n",
    "HEAD\n~: a\n",
    "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"NAME\"}, \"a\": [1.0, 1e3, 0.5, 12345678901234567890, \"\\u00e9\"]}",
    "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"NAME\"}}\n---\nHEAD2",
    "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"NAME\"}} {\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"NAME2\"}}",
    "{apiVersion: v1, kind: ConfigMap, metadata: {name: NAME}, a: 0400}",
    "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: NAME}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: NAME2}}\n",
    "apiVersion: v1\nkind: ConfigMapList\nitems:\n- {metadata: {name: NAME}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: NAME2}}\n",
    "apiVersion: v1\nkind: List\nitems: []\n---\nHEAD",
    "apiVersion: v1\nkind: List\nitems: null\n---\nHEAD",
    "apiVersion: v1\nkind: List\nitems: {}\n",
    "apiVersion: v1\nkind: List\nitems: [1]\n",
    "apiVersion: example.com/v1\nkind: AllowList\nmetadata: {name: NAME}\nspec: {items: [1]}\n",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME, namespace: 2048}\n",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 5}\n",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME, labels: {version: 1.10}}\n",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME, labels: {version: '1.10', empty: , on: a}}\n",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME, annotations: {a: yes}}\n",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME, annotations: , labels: {}}\n",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: [NAME]\n",
];

/// A file of one object that has this as a field.
fn with_field(name: &str, field: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n{field}")
}

/// kubectl, and a cluster that knows a few kinds and nothing else.
struct Kubectl {
    program: PathBuf,
    folder: tempfile::TempDir,
    server: String,
}

impl Kubectl {
    fn find() -> Option<Self> {
        let named = env::var_os("KUBECTL");
        let program = PathBuf::from(named.as_deref().unwrap_or("kubectl".as_ref()));
        match Command::new(&program).args(["version", "--client"]).output() {
            Ok(_) => {}
            Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => {
                println!("not tested: there is no kubectl in PATH, and KUBECTL names none, as `make test` does");
                return None;
            }
            Err(error) => panic!("{}: {error}", program.display()),
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || listener.incoming().for_each(|stream| drop(answer(stream.unwrap()))));
        Some(Self { program, folder: tempfile::tempdir().unwrap(), server })
    }

    /// Reads all files of a folder: the objects in order, and what it says of the files it refuses.
    fn read(&self, files: &Path) -> (Vec<Value>, String) {
        let home = self.folder.path();
        let mut command = Command::new(&self.program);
        command.args(["create", "--dry-run=client", "--validate=false", "-o", "json", "-s", &self.server]);
        let output =
            command.arg("-f").arg(files).env("HOME", home).env("KUBECONFIG", home.join("none")).output().unwrap();
        let objects = serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>();
        (objects.unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Holds what both make of these files against each other; how many kubectl accepts.
    fn compare(&self, files: &[String]) -> Result<usize, String> {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        let path = |index: usize| folder.path().join(format!("{index:04}.yaml"));
        for (index, text) in files.iter().enumerate() {
            fs::write(path(index), text).unwrap();
        }
        let (objects, errors) = self.read(folder.path());
        let (mut accepted, mut differences) = (0, Vec::new());
        for (index, text) in files.iter().enumerate() {
            let refused = errors.lines().find(|line| line.contains(path(index).to_str().unwrap()));
            let read =
                manifest::decode("f", text.as_bytes()).and_then(|text| manifest::read("f", &text, &mut |_| None));
            match (read, refused) {
                (Err(_), Some(_)) => {}
                (Ok(read), None) => {
                    let here = |object: &&Value| {
                        let name = object["metadata"]["name"].as_str().unwrap_or_default();
                        name.split('-').next() == Some(&format!("n{index}"))
                    };
                    let theirs: Vec<Value> = objects.iter().filter(here).cloned().map(plain).collect();
                    let ours: Vec<Value> = read.objects.into_iter().map(placed).map(plain).collect();
                    if ours != theirs {
                        differences.push(format!("{text:?}\nkubectl: {}\n   here: {}", json!(theirs), json!(ours)));
                    }
                    accepted += 1;
                }
                (Ok(read), Some(line)) => {
                    differences.push(format!("{text:?}\nkubectl: {line}\n   here: {}", json!(read.objects)));
                }
                (Err(error), None) => differences.push(format!("{text:?}\nkubectl accepts it\n   here: {error}")),
            }
        }
        if differences.is_empty() { Ok(accepted) } else { Err(differences.join("\n")) }
    }
}

/// kubectl names the namespace that it would use.
fn placed(mut object: Value) -> Value {
    if object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = "default".into();
    }
    object
}

/// With numbers in one writing each.
fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(integer) => integer.into(),
            None => format!("{:e}", number.as_f64().unwrap()).into(),
        },
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, plain(value))).collect(),
        other => other,
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let lines: Vec<String> =
        BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let path = lines.first().and_then(|line| line.split([' ', '?']).nth(1)).unwrap_or_default();
    let kind = |plural: &str, kind: &str| json!({"name": plural, "kind": kind, "namespaced": true, "verbs": ["create", "get"]});
    let version = json!({"groupVersion": "example.com/v1", "version": "v1"});
    let body = match path {
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [
            {"name": "example.com", "versions": [version], "preferredVersion": version}]}),
        "/api/v1" => {
            json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [kind("configmaps", "ConfigMap")]})
        }
        _ => {
            json!({"kind": "APIResourceList", "groupVersion": "example.com/v1", "resources": [kind("allowlists", "AllowList")]})
        }
    };
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn tables_are_read_as_kubectl_reads_them() {
    let Some(kubectl) = Kubectl::find() else { return };
    let mut fields: Vec<String> = Vec::new();
    for scalar in SCALARS {
        // What the reader's header says of flow collections.
        let flows = !scalar.contains([',', '[', ']', '{', '}', '\n', '?'])
            && !["", "!!str", "-", "!", ":", ":a", "key:"].contains(scalar);
        fields.extend(["", "\n", " \n", " # c\n"].iter().map(|end| format!("value: {scalar}{end}")));
        fields.extend([
            format!("value:\n- {scalar}\n- b\n"),
            format!("{scalar}: 1\n"),
            format!("value:\n  {scalar}: 1\n"),
        ]);
        if flows {
            fields.extend([
                format!("value: [{scalar}, b]"),
                format!("value: {{a: {scalar}, b: 1}}"),
                format!("value: {{{scalar}: 1}}"),
            ]);
        }
    }
    for block in BLOCKS {
        fields.extend(["", "last: 1\n", "# c\n"].iter().map(|end| format!("value:\n  at: {block}{end}")));
        fields.push(format!("value:\n  - {block}"));
    }
    let mut files: Vec<String> =
        fields.iter().enumerate().map(|(index, field)| with_field(&format!("n{index}"), field)).collect();
    for file in FILES {
        let name = format!("n{}", files.len());
        let head = |name: &str| with_field(name, "data: {}");
        let text = file.replace("HEAD2", &head(&format!("{name}-2"))).replace("HEAD", &head(&name));
        files.push(text.replace("NAME2", &format!("{name}-2")).replace("NAME", &name));
    }
    let accepted = kubectl.compare(&files).unwrap_or_else(|difference| panic!("{difference}"));
    println!("{} files, of which kubectl accepts {accepted}", files.len());
    assert!(accepted > files.len() / 2 && accepted < files.len(), "{accepted} of {}", files.len());
}

/// A value as somebody may write it.
#[derive(Debug, Clone)]
enum Node {
    Scalar(String),
    Block(&'static str, Vec<String>),
    Flow(String),
    Sequence(Vec<Node>),
    Mapping(Vec<(String, Node)>),
    Anchored(&'static str, Box<Node>),
}

impl Node {
    /// What follows `key:` or `-` of a line that stands `indent` spaces in.
    fn write(&self, indent: usize, out: &mut String) {
        let margin = " ".repeat(indent + 2);
        match self {
            Node::Scalar(text) | Node::Flow(text) => out.push_str(&format!(" {text}\n")),
            Node::Block(header, lines) => {
                out.push_str(&format!(" {header}\n"));
                lines.iter().for_each(|line| out.push_str(&format!("{}\n", format!("{margin}{line}").trim_end())));
            }
            Node::Sequence(items) => {
                out.push('\n');
                for item in items {
                    out.push_str(&format!("{margin}-"));
                    item.write(indent + 2, out);
                }
            }
            Node::Mapping(fields) => {
                out.push('\n');
                for (key, value) in fields {
                    // In YAML 1.2, which the parser goes by, a colon may be of an alias's name.
                    let space = if key.starts_with('*') { " " } else { "" };
                    out.push_str(&format!("{margin}{key}{space}:"));
                    value.write(indent + 2, out);
                }
            }
            Node::Anchored(anchor, node) => {
                out.push_str(&format!(" &{anchor}"));
                node.write(indent, out);
            }
        }
    }
}

fn scalar() -> impl Strategy<Value = String> {
    // What JSON has no number for, kubectl accepts where the same key comes again; the tables have it.
    let infinite = [".inf", "-.inf", "+.Inf", ".NaN"];
    let known = SCALARS.iter().copied().filter(|text| !text.contains('\n') && !infinite.contains(text));
    let known = select(known.collect::<Vec<_>>());
    prop_oneof![
        6 => known.prop_map(str::to_owned),
        2 => "[0-9]{1,4}[._eExob-]{0,2}[0-9]{0,3}",
        2 => "[+-]?[0-9_]{1,6}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{1,2})?",
        2 => "[a-z][a-zA-Z0-9 /._-]{0,12}[a-z]",
        1 => "[ -~é😀]{0,12}".prop_map(|text| json!(text).to_string()),
        1 => "[ -~é😀]{0,12}".prop_map(|text| format!("'{}'", text.replace('\'', "''"))),
    ]
}

/// In a flow collection, where some that kubectl misreads are left out.
fn flow() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-z0-9._]{1,6}",
        "[+-]?[0-9_]{1,6}",
        Just("0400".to_owned()),
        Just("yes".to_owned()),
        Just("~".to_owned()),
        Just("'x, y'".to_owned()),
        Just("*a".to_owned())
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let fields = vec(("[a-z0-9]{1,3}", inner.clone()).prop_map(|(key, value)| format!("{key}: {value}")), 0..3);
        prop_oneof![
            vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
            fields.prop_map(|fields| format!("{{{}}}", fields.join(", "))),
        ]
    })
}

fn node() -> impl Strategy<Value = Node> {
    let headers = select(["|", "|-", "|+", ">", ">-", ">+", "| # c", "|2", ">1-"].as_slice());
    let line = prop_oneof![4 => "[ -~]{1,12}", 2 => Just(String::new()), 1 => "  [a-z]{1,4}", 1 => Just("# no comment".to_owned())];
    let leaf = prop_oneof![
        5 => scalar().prop_map(Node::Scalar),
        3 => (headers, vec(line, 0..5)).prop_map(|(header, lines)| Node::Block(header, lines)),
        2 => flow().prop_map(Node::Flow),
        1 => select(["*a", "*b"].as_slice()).prop_map(|alias| Node::Scalar(alias.to_owned())),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof![4 => "[a-h]".boxed(), 1 => scalar().boxed()];
        let merge = (Just("<<".to_owned()), select(["*b", "[*b, {k: 1}]", "{l: 2}"].as_slice()));
        let field = prop_oneof![
            8 => (key, inner.clone()),
            1 => merge.prop_map(|(key, merged)| (key, Node::Scalar(merged.to_owned()))),
        ];
        prop_oneof![
            vec(inner.clone(), 1..4).prop_map(Node::Sequence),
            vec(field, 1..4).prop_map(Node::Mapping),
            (select(["a", "b", "c"].as_slice()), inner)
                .prop_map(|(anchor, node)| Node::Anchored(anchor, Box::new(node))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: GENERATED.1, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn generated_documents_are_read_as_kubectl_reads_them(nodes in vec(node(), GENERATED.0)) {
        if let Some(kubectl) = Kubectl::find() {
            let file = |(index, node): (usize, &Node)| {
                let mut field = "anchors: [&a 0400, &b {k: yes, 1: 2}]\nvalue:".to_owned();
                node.write(0, &mut field);
                with_field(&format!("n{index}"), &field)
            };
            let files: Vec<String> = nodes.iter().enumerate().map(file).collect();
            kubectl.compare(&files).map_err(TestCaseError::fail)?;
        }
    }
}
