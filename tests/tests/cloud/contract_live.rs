//! The contract where a tool needs answers, in one local cloud: every tool stopped half way names what it left, the
//! flow goes on from there, and then every tool keeps the contract on the flow's own documents. At the end what README
//! shows is run.
//!
//! One cloud serves the whole file, so this is one test. It needs Linux and root.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tests::cloud::Cloud;
use tests::steps::make;
use tests::{TOOLS, error, feed, program, readme, root, signal};

/// What tells one tool from another.
struct Row {
    tool: &'static str,
    /// `CLUSTER/STEP` of the flow: the document this tool left.
    step: &'static str,
    /// The arguments that it always gets.
    name: &'static str,
    /// The other arguments of the flow; BIN and BUILD are its folders.
    flow: &'static str,
    /// The path of the key it owns.
    key: &'static str,
    /// Arguments with which it starts from {}.
    null: &'static str,
    /// Whether these lead to the very key that the flow made.
    same: bool,
}

const ROWS: &[Row] = &[
    Row {
        tool: "appmesh-install",
        step: "c2/mesh",
        name: "",
        flow: "--chart charts/appmesh-controller --image image=appmesh-controller --image init.image=capture",
        key: "mesh",
        null: "--cluster c2 --chart charts/appmesh-controller --set image.repository=a --set init.image.repository=b --reset",
        same: false,
    },
    Row {
        tool: "cloudmap-ns",
        step: "c2/namespace",
        name: "",
        flow: "--from BUILD/c1/oidc.json",
        key: "namespace",
        null: "--cluster c2",
        same: true,
    },
    Row {
        tool: "color-probe",
        step: "c1/probe",
        // So few are never uneven by chance.
        name: "--count 10",
        flow: "--expect red=1,blue=1",
        key: "probe",
        null: "http://127.0.0.1:1/",
        same: false,
    },
    Row {
        tool: "ecr-push",
        step: "c2/image-colorapp",
        name: "colorapp",
        flow: "--repository k8multi/colorapp --binary BIN/colorapp",
        key: "images.colorapp",
        null: "--cluster c2 --repository k8multi/colorapp --binary BIN/colorapp",
        same: true,
    },
    Row { tool: "irsa-role", step: "c2/role", name: "", flow: "", key: "role", null: "--cluster c2", same: true },
    Row {
        tool: "manifest-apply",
        step: "c2/colorapp",
        name: "colorapp",
        flow: "--file manifests/colorapp.yaml --template",
        key: "apps.colorapp",
        null: "--cluster c2 --file tests/contract/stuck.yaml",
        same: false,
    },
    Row {
        tool: "mesh-check",
        step: "c1/check",
        name: "",
        flow: "--and-cluster c2 --helm",
        key: "check",
        null: "--cluster c1 --and-cluster c2 --helm",
        same: false,
    },
    Row { tool: "oidc-assoc", step: "c2/oidc", name: "", flow: "", key: "oidc", null: "--cluster c2", same: true },
    Row {
        tool: "pod-identity",
        step: "c2/report",
        name: "",
        flow: REPORT,
        key: "role",
        null: "--cluster c2 --service-account jobs/report --policy ReadOnlyAccess",
        same: true,
    },
    Row {
        tool: "sg-open",
        step: "c2/ingress",
        name: "",
        flow: "--from BUILD/c1/oidc.json --port 8080",
        key: "ingress",
        null: "--cluster c2 --from-cluster c1 --port 8080",
        same: true,
    },
];

/// The arguments of pod-identity, which the flow leaves to irsa-role.
const REPORT: &str = "--service-account jobs/report --policy ReadOnlyAccess";

/// Keys of nobody, as this family of tools writes them. They sort before all others.
const OTHERS: &str = r#"  "A": {
    "big": 123456789012345678901234567890.10,
    "exponent": 1e+400,
    "list": [
      null,
      true,
      -0.0,
      {},
      [],
      {
        "deep": {
          "deeper": {
            "": ""
          }
        }
      }
    ],
    "text": "\u0000\t\"\\/ é 🧵"
  },
"#;

/// One cloud, and where the flow leaves its documents.
struct Live {
    cloud: Cloud,
    build: PathBuf,
}

/// When to stop a tool.
enum Until {
    /// As soon as this is on its stderr.
    Says(&'static str),
    /// As soon as it prints its document, which is longer than a pipe holds, and nobody reads it.
    Prints,
}

impl Live {
    /// `TOOL ARGS`, split at spaces; BIN and BUILD are filled in.
    fn command(&self, tool: &str, args: &str) -> std::process::Command {
        let bin = program(tool).parent().map(Path::to_path_buf).unwrap();
        let fill = |arg: &str| {
            arg.replace("BIN/", &format!("{}/", bin.display())).replace("BUILD/", &format!("{}/", self.build.display()))
        };
        let words = args.split(' ').filter(|arg| !arg.is_empty()).map(fill);
        self.cloud.command(std::iter::once(program(tool).display().to_string()).chain(words))
    }

    fn run(&self, tool: &str, args: &str, stdin: &str) -> Output {
        feed(&mut self.command(tool, args), stdin.as_bytes()).expect(tool)
    }

    fn read(&self, step: &str) -> String {
        let file = self.build.join(format!("{step}.json"));
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// Starts a tool, stops it in the middle, and returns what it says it left.
    #[track_caller]
    fn stop(&self, how: &str, until: &Until, tool: &str, args: &str, stdin: &str) -> Vec<String> {
        let mut command = self.command(tool, args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), BufReader::new(child.stderr.take().unwrap()));
        let mut said = String::new();
        let in_time = match until {
            Until::Says(words) => {
                while !said.contains(words) && stderr.read_line(&mut said).unwrap() > 0 {}
                said.contains(words)
            }
            Until::Prints => stdout.read_exact(&mut [0]).is_ok(),
        };
        signal(how, &child).unwrap();
        stderr.read_to_string(&mut said).unwrap();
        let (status, error) = (child.wait().unwrap(), error(&said));
        assert!(in_time && status.code() == Some(5), "{tool} {args}: {status}: {said}");
        assert_eq!(error["kind"], "retry", "{tool}: {said}");
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(if how == "INT" { "interrupted" } else { "terminated" }), "{tool}: {said}");
        if let Until::Says(_) = until {
            assert!(message.contains(" at: "), "{tool} tells what it was about to do: {said}");
        }
        error["left"]
            .as_array()
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .map(|thing| thing.as_str().unwrap().into())
            .collect()
    }
}

/// In a region where nothing is made yet, every tool that makes something is stopped after it made it.
fn stopped_half_way(live: &Live) -> usize {
    let blank = "x".repeat(1 << 20);
    let long = |cluster: &str| {
        format!(r#"{{"cluster":{{"name":"{cluster}","region":"us-west-2"}},"images":{{}},"x":"{blank}"}}"#)
    };
    let begins = |left: &[String], expected: &[&str]| {
        assert_eq!(left.len(), expected.len(), "{left:?} is not {expected:?}");
        for (left, expected) in left.iter().zip(expected) {
            assert!(left.starts_with(expected), "{left:?} does not begin with {expected:?}");
        }
    };
    for (how, tool, args, cluster, left) in [
        ("TERM", "oidc-assoc", "", "c1", &["arn:aws:iam::123456789012:oidc-provider/oidc.eks.us-west-2"][..]),
        ("INT", "irsa-role", "", "c1", &["role c1-appmesh-controller"][..]),
        (
            "TERM",
            "pod-identity",
            "--service-account jobs/half",
            "c1",
            &["role c1-half", "association of jobs/half"][..],
        ),
        ("TERM", "cloudmap-ns", "", "c2", &["namespace svc2.svc.local in vpc-"][..]),
        ("INT", "sg-open", "--from-cluster c1", "c2", &["rule for port 8080 from sg-"][..]),
        (
            "TERM",
            "ecr-push",
            "colorapp --repository k8multi/colorapp --binary BIN/colorapp",
            "c2",
            &["repository k8multi/colorapp", "image k8multi/colorapp@sha256:"][..],
        ),
    ] {
        begins(&live.stop(how, &Until::Prints, tool, args, &long(cluster)), left);
    }
    let stuck = "stuck -n --cluster c1 --file tests/contract/stuck.yaml";
    let left = live.stop("TERM", &Until::Says("waiting for"), "manifest-apply", stuck, "");
    begins(&left, &["Namespace stuck", "Deployment stuck"]);
    let stuck = "-n --cluster c1 --chart charts/appmesh-controller --set image.repository=registry.k8s.io/no-such-image \
                 --set init.image.repository=registry.k8s.io/no-such-image";
    let left = live.stop("INT", &Until::Says("waiting for"), "appmesh-install", stuck, "");
    let other = ["Namespace appmesh-system", "ServiceAccount", "release appmesh-controller"];
    let (definitions, rest) = left.split_at(left.len() - other.len());
    assert!(definitions.iter().all(|thing| thing.starts_with("CustomResourceDefinition ")) && !definitions.is_empty());
    begins(rest, &other);
    8
}

/// What a tool printed.
fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn value(document: &str) -> Value {
    serde_json::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"))
}

fn own<'a>(row: &Row, document: &'a Value) -> &'a Value {
    row.key.split('.').fold(document, |value, key| &value[key])
}

/// What must not change when a tool runs again: all, but color-probe measures anew.
fn steady(row: &Row, document: &str) -> String {
    if row.tool != "color-probe" {
        return document.to_owned();
    }
    let mut value = value(document);
    value.as_object_mut().unwrap().remove("probe");
    format!("{value:#}\n")
}

impl Row {
    /// Runs the tool on a document; expects that document, and that nothing was to do.
    #[track_caller]
    fn keeps(&self, live: &Live, args: &str, stdin: &str, document: &str) {
        let args = format!("{} {args}", self.name);
        let output = live.run(self.tool, &args, stdin);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{} {args}: {stderr}", self.tool);
        let (printed, expected) = (steady(self, &stdout(&output)), steady(self, document));
        assert!(printed == expected, "{} {args} made of\n{expected:.3000}\nthis:\n{printed:.3000}", self.tool);
        assert!(
            ["color-probe", "mesh-check"].contains(&self.tool) || stderr.contains("nothing to do"),
            "{} {args}: {stderr}",
            self.tool
        );
    }
}

/// Everything about one tool and the document it left; the number of cases.
fn kept(live: &Live, row: &Row) -> usize {
    let document = live.read(row.step);
    let parsed = value(&document);

    // Sorted keys, two spaces, one newline at the end: this crate's maps are sorted.
    assert_eq!(format!("{parsed:#}\n"), document, "{}", row.tool);
    assert_eq!(parsed["v"], 1, "{}", row.tool);
    let schema = stdout(&tests::run(row.tool, ["--schema"], b"").unwrap());
    let schema = jsonschema::validator_for(&value(&schema)).unwrap();
    if let Err(error) = schema.validate(own(row, &parsed)) {
        panic!("{} left what its schema does not allow at {}: {error}", row.tool, error.instance_path());
    }

    // As in the flow, by the document alone, written otherwise, in pieces, as a plan.
    row.keeps(live, row.flow, &document, &document);
    row.keeps(live, "", &document, &document);
    row.keeps(live, "", &parsed.to_string(), &document);
    let pieces = parsed.as_object().unwrap().iter().map(|(key, value)| format!("{{{key:?}:{value}}}\n"));
    row.keeps(live, "", &pieces.collect::<Vec<_>>().concat(), &document);
    row.keeps(live, "--plan", &document, &document);

    // With others' keys, and a megabyte of them.
    let blank = "é".repeat(1 << 19);
    let others = document.replacen("{\n", &format!("{{\n{OTHERS}"), 1);
    let long = others.replace("\n  \"v\": 1\n}\n", &format!("\n  \"v\": 1,\n  \"z\": \"{blank}\"\n}}\n"));
    assert!(long.len() > 1 << 20, "{document}");
    row.keeps(live, row.flow, &others, &others);
    row.keeps(live, "", &long, &long);

    // Whoever reads leaves early.
    let mut closed = live.command(row.tool, row.name);
    let mut child = closed.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(long.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error(&stderr).is_null(), "{}: {}: {stderr}", row.tool, output.status);

    // From nothing.
    let null = format!("{} -n {}", row.name, row.null);
    let plan = live.run(row.tool, &format!("{null} --plan"), "");
    let planned = value(&stdout(&plan));
    assert!(plan.status.success() && own(row, &planned).is_object(), "{}: {planned}", row.tool);
    if row.same {
        assert!(planned["plan"].is_null(), "{}: {planned}", row.tool);
        assert_eq!(own(row, &planned), own(row, &parsed), "{}", row.tool);
        let made = live.run(row.tool, &null, "");
        assert!(made.status.success(), "{}: {}", row.tool, String::from_utf8_lossy(&made.stderr));
        assert_eq!(own(row, &value(&stdout(&made))), own(row, &parsed), "{}", row.tool);
    }
    11 + usize::from(row.same)
}

/// Runs the marked blocks of README and of the pages of `docs` in a folder that holds what they name.
fn what_pages_show(live: &Live) -> usize {
    let endpoint = value(&live.read("c1/feapp"))["apps"]["feapp"]["endpoint"].as_str().unwrap().to_owned();
    // The newest, as some commands make them anew.
    let newest = |namespace: &str| {
        let list = format!("kubectl -n {namespace} get pods --sort-by .metadata.creationTimestamp -o name");
        format!("$({list} | tail -1 | cut -d/ -f2)")
    };
    let (front, controller) = (newest("k8multi"), format!("appmesh-system/pods/{}", newest("appmesh-system")));
    // Names of the pages' world, and what they are called here.
    let names = [
        ("http://shop.example.com", endpoint.as_str()),
        ("shop", "c1"),
        ("stock", "c2"),
        ("appmesh-system/pods/POD", &controller),
        ("NAMESPACE", "k8multi"),
        ("POD", &front),
        ("NAME", "front"),
    ];
    let here = |text: &str| names.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here));

    let folder = live.cloud.state.join("readme");
    let _none_yet = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let bin = program("colorapp").parent().unwrap().to_owned();
    for (file, name) in [
        (live.build.clone(), "build"),
        (bin.join("colorapp"), "web"),
        (root().join("tests/readme/web.yaml.j2"), "web.yaml.j2"),
        (root().join("tests/readme/serviceaccount.yaml.j2"), "serviceaccount.yaml.j2"),
    ]
    .into_iter()
    .chain(["Makefile", "charts", "manifests", "policies"].map(|name| (root().join(name), name)))
    {
        std::os::unix::fs::symlink(file, folder.join(name)).unwrap();
    }
    let (mut shown, mut run) = (String::new(), 0);
    for page in readme::IN_CLOUD {
        // Each command in a shell of its own, where the one before it went to.
        let cwd = folder.join("cwd");
        std::fs::write(&cwd, folder.display().to_string()).unwrap();
        for example in readme::examples(&std::fs::read_to_string(root().join(page)).unwrap()) {
            let (cwd, bin, command) = (cwd.display(), bin.display(), here(&example.command));
            let environment = format!("export PATH={bin}:$PATH BIN={bin} REGION=us-west-2");
            let script = format!("cd \"$(cat {cwd})\"; {environment}; {command}\npwd > {cwd}");
            let stdout = live.cloud.stdout(&script).unwrap();
            let expected = readme::Example { shown: here(&example.shown), ..example.clone() };
            assert!(
                expected.shows(&stdout),
                "{page}: {}\nshows {}\nbut it is {stdout}",
                example.command,
                expected.shown
            );
            shown.push_str(&example.command);
            run += 1;
        }
    }
    for tool in TOOLS {
        assert!(shown.contains(tool), "no page shows {tool}");
    }
    run
}

#[test]
fn every_tool_keeps_the_contract() {
    let cloud = Cloud::up("test-contract").unwrap();
    let build = cloud.state.join("json");
    let _none_yet = std::fs::remove_dir_all(&build);
    let live = Live { cloud, build };
    let stopped = stopped_half_way(&live);

    // The flow finds what they left, and goes on.
    live.cloud.stdout(&make(&live.cloud, "-j8 all REGION=us-west-2")).unwrap();

    // Drawn as it is: with an edge to the other cluster, and nothing that is broken.
    let map = live.cloud.stdout(&make(&live.cloud, "map REGION=us-west-2")).unwrap();
    let whole = map.starts_with("flowchart LR\n") && map.contains(" ==> n") && !map.contains("broken");
    assert!(whole && map.contains("VirtualNode<br/>k8multi/front<br/>1/1 pods ready"), "{map}");

    let report = live.run("pod-identity", &format!("-n --cluster c2 {REPORT}"), "");
    std::fs::write(live.build.join("c2/report.json"), report.stdout).unwrap();

    assert!(ROWS.iter().map(|row| row.tool).eq(TOOLS.iter().copied()), "a row for every tool");
    let cases: usize = ROWS.iter().map(|row| kept(&live, row)).sum();
    let shown = what_pages_show(&live);
    let tools = ROWS.len();
    let mut stderr = std::io::stderr();
    writeln!(stderr, "contract: {tools} tools, {cases} live cases, {stopped} stopped half way, {shown} examples")
        .unwrap();
}
