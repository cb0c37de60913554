//! The commands that README, the pages of `docs` and the help texts show: the tools take each as it stands, and for each
//! block it is known which test runs it, or why none does. Nothing here asks anybody.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use tests::readme::{Block, IN_CLOUD, blocks};
use tests::shell::commands;
use tests::{TOOLS, VIEWS, error, feed, program, root};

/// Whether a block of commands is run.
enum Tried {
    /// By this test, with other names for the clusters.
    By(&'static str),
    /// Not, for this reason.
    Not(&'static str),
}
use Tried::{By, Not};

/// In a local cloud; see tests/tests/cloud.
const FLOW: Tried = By("the_tutorial_from_nothing_to_red_and_blue_and_back");
const EXAMPLES: Tried = By("every_example_works_and_goes_without_a_trace");

const AMAZON: Tried =
    Not("takes over the reader's release of Amazon's chart; migration does so by appmesh-install --adopt");
const FORWARD: Tried = Not("a port-forward goes on until somebody stops it");

/// The unmarked blocks, in order, by the file and how their first command begins.
const BLOCKS: &[(&str, &str, Tried)] = &[
    ("README.md", "make demo", FLOW),
    ("README.md", "make check", FLOW),
    ("README.md", "kubectl get virtualnodes", Not("shows objects in states that no cluster has at once")),
    ("README.md", "make lint", Not("runs the tests, this one too")),
    ("docs/gitops.md", "make plan", FLOW),
    ("docs/map.md", "cat build/shop", Not("needs Graphviz")),
    ("docs/map.md", "sed ", By("the_picture_of_the_sample_is_the_committed_one")),
    ("docs/migrating.md", "make plan", AMAZON),
    ("docs/migrating.md", "make all", AMAZON),
    ("docs/migrating.md", "kubectl delete mutatingwebhookconfiguration", Not("would have pods start without an Envoy")),
    ("docs/observability.md", "kubectl -n monitoring", Not("needs Grafana with its sidecar")),
    ("docs/observability.md", "kubectl -n appmesh-system port-forward", FORWARD),
    ("docs/observability.md", "kubectl -n NAMESPACE port-forward", FORWARD),
    ("docs/tls.md", "openssl req", Not("needs cert-manager, which does not run in the local cloud")),
    ("docs/tls.md", "for cluster in", Not("needs SPIRE, which does not run in the local cloud")),
    ("docs/tls.md", "kubectl -n app port-forward", FORWARD),
    ("docs/upgrading.md", "git pull", Not("upgrades from one release to the next, and there is one")),
    ("docs/your-app.md", "make check", EXAMPLES),
    ("docs/your-app.md", "make all", EXAMPLES),
    ("docs/your-app.md", "mesh-check -n", Not("reads the reader's manifests; mesh-check has a test for each check")),
    ("docs/your-app.md", "make plan", EXAMPLES),
    ("examples/README.md", "make all", EXAMPLES),
    ("examples/README.md", "make all", EXAMPLES),
    ("examples/README.md", "make all", EXAMPLES),
    ("examples/README.md", "make all", EXAMPLES),
];

/// README, the pages of `docs` and that of the examples, with their blocks of commands.
fn pages() -> Vec<(String, Vec<Block>)> {
    let docs = read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut docs: Vec<String> = docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    docs.extend(["README.md".to_owned(), "examples/README.md".to_owned()]);
    docs.sort();
    let read = |page: String| {
        let text = read_to_string(root().join(&page)).unwrap();
        let (found, shown) = (blocks(&text), text.lines().filter(|line| line.trim_start().starts_with("$ ")).count());
        assert_eq!(
            found.iter().map(|block| block.commands.len()).sum::<usize>(),
            shown,
            "{page}: a command is in no block"
        );
        (page, found)
    };
    docs.into_iter().map(read).collect()
}

/// A block that is new is neither in the table nor marked, and fails.
#[test]
fn of_every_block_it_is_known_whether_it_is_run() {
    let pages = pages();
    let shown = pages.iter().flat_map(|(page, blocks)| blocks.iter().map(move |block| (page.as_str(), block)));
    let (marked, unmarked): (Vec<_>, Vec<_>) = shown.partition(|(_, block)| block.marked);
    for (at, (page, block)) in unmarked.iter().enumerate() {
        let first = &block.commands[0].command;
        let next = BLOCKS.get(at).map(|(file, begin, _)| (*file, *begin));
        let known = next.is_some_and(|(file, begin)| file == *page && first.starts_with(begin));
        assert!(known, "{page}: which test runs the block of {first}? The table goes on with {next:?}");
    }
    assert_eq!(unmarked.len(), BLOCKS.len(), "the table has more blocks than there are");
    for (page, _) in &marked {
        let run = IN_CLOUD.contains(page) || *page == "examples/README.md";
        assert!(run, "no test runs the marked blocks of {page}");
    }
    let mut sources = String::new();
    add_sources(&root().join("tests/tests"), &mut sources);
    for (page, begin, tried) in BLOCKS {
        if let By(test) = tried {
            assert!(sources.contains(&format!("fn {test}()")), "{page}: {begin}: there is no test {test}");
        }
    }
    let not = BLOCKS.iter().filter_map(|(_, _, tried)| if let Not(reason) = tried { Some(*reason) } else { None });
    let (not, reasons) = (not.clone().count(), not.collect::<BTreeSet<_>>());
    let run = marked.len() + unmarked.len() - not;
    writeln!(std::io::stderr(), "commands: {run} blocks are run, {not} are not: {reasons:#?}").unwrap();
}

fn add_sources(folder: &Path, to: &mut String) {
    for entry in read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_sources(&path, to);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            to.push_str(&read_to_string(path).unwrap());
        }
    }
}

/// The scripts of all pages and of the examples in help texts, each with where it stands.
fn scripts() -> Vec<(String, String)> {
    let of_pages = pages().into_iter().flat_map(|(page, blocks)| {
        let commands = blocks.into_iter().flat_map(|block| block.commands);
        commands.map(move |example| (page.clone(), example.command)).collect::<Vec<_>>()
    });
    let of_help = TOOLS.iter().chain(VIEWS).map(|tool| {
        let help = tests::run(tool, ["--help"], b"").unwrap().stdout;
        let help = String::from_utf8(help).unwrap();
        let (_, examples) = help.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{tool} --help has no examples"));
        (format!("{tool} --help"), examples.split("\n\n").next().unwrap().to_owned())
    });
    of_pages.chain(of_help).collect()
}

#[test]
fn every_command_is_taken_by_whom_it_is_for() {
    let makefile = read_to_string(root().join("Makefile")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut taken, mut tools) = (0, BTreeSet::new());
    for (place, script) in scripts() {
        let checked = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
        assert!(checked.status.success(), "{place}: {script}: {}", String::from_utf8_lossy(&checked.stderr));
        for command in commands(&script) {
            let (name, args) = command.split_first().unwrap();
            let refused = match name.as_str() {
                "make" => unknown_to_make(&makefile, args),
                "jq" => refused_by_jq(args),
                tool if TOOLS.contains(&tool) || VIEWS.contains(&tool) => {
                    tools.insert(tool.to_owned());
                    refused_by_tool(tool, args, folder.path())
                }
                _ => continue,
            };
            assert_eq!(refused, None, "{place}: {}", command.join(" "));
            taken += 1;
        }
    }
    assert_eq!(tools.len(), TOOLS.len() + VIEWS.len(), "no command for one of the tools: {tools:?}");
    writeln!(std::io::stderr(), "commands: {taken} are taken by tools, make and jq").unwrap();
}

/// What the tool says if it cannot read its arguments. It is run without credentials, in an empty folder, and with nobody
/// there to answer, so that it fails at once after it has read them.
fn refused_by_tool(tool: &str, args: &[String], folder: &Path) -> Option<String> {
    let mut command = Command::new(program(tool));
    command.args(args).env_clear().current_dir(folder).env("AWS_EC2_METADATA_DISABLED", "true");
    command.envs(["AWS_ENDPOINT_URL", "HTTP_PROXY", "HTTPS_PROXY"].map(|name| (name, "http://127.0.0.1:1")));
    if tool != "plan-total" && !args.iter().any(|arg| arg.starts_with("--timeout")) {
        command.arg("--timeout=10ms");
    }
    let output = feed(&mut command, b"{}").unwrap();
    let error = error(&String::from_utf8_lossy(&output.stderr));
    (error["hint"] == format!("{tool} --help")).then(|| error["message"].to_string())
}

/// A goal or a variable that the Makefile does not have. Its help lists all that there are, but for files.
fn unknown_to_make(makefile: &str, args: &[String]) -> Option<String> {
    let known = |arg: &&String| match arg.split_once('=') {
        Some((variable, _)) => makefile.contains(&format!("\n{variable} ?=")),
        None => arg.starts_with('-') || makefile.contains(&format!("\n.PHONY: {arg}\n")),
    };
    args.iter().find(|arg| !known(arg)).cloned()
}

/// What jq says of a program that it cannot compile.
fn refused_by_jq(args: &[String]) -> Option<String> {
    let files = args.iter().position(|arg| arg.ends_with(".json")).unwrap_or(args.len());
    // Where there is no jq, whoever runs the commands in a local cloud finds out.
    let output = feed(Command::new("jq").args(&args[..files]), b"null").ok()?;
    matches!(output.status.code(), Some(2 | 3)).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}
