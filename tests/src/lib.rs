//! What the tests share: where the built tools are and how to run them.

pub mod cloud;
pub mod elf;
pub mod faults;
pub mod hostile;
pub mod peer;
pub mod pod;
pub mod policy;
pub mod readme;
pub mod report;
pub mod shell;
pub mod steps;

use serde_json::Value;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Every tool, in alphabetical order.
pub const TOOLS: &[&str] = &[
    "appmesh-install",
    "cloudmap-ns",
    "color-probe",
    "ecr-push",
    "irsa-role",
    "manifest-apply",
    "mesh-check",
    "oidc-assoc",
    "pod-identity",
    "sg-open",
];

/// Every program beside them, which prints a text and owns no key.
pub const VIEWS: &[&str] = &["mesh-map", "plan-total"];

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// A built program: beside the test's own (`target/release/deps/..`), where `cargo build` puts it.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    test.ancestors().nth(2).unwrap_or(Path::new("")).join(name)
}

/// Runs a tool to its end on a given stdin, in the repository's top folder.
///
/// # Errors
/// The tool is not built, or does not read its stdin.
pub fn run(tool: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>, stdin: &[u8]) -> std::io::Result<Output> {
    let mut command = Command::new(program(tool));
    command.args(args).current_dir(root()).env("AWS_EC2_METADATA_DISABLED", "true");
    feed(&mut command, stdin)
}

/// The error object that a failed tool printed as the last line of its stderr; null if there is none.
pub fn error(stderr: &str) -> Value {
    let line = serde_json::from_str::<Value>(stderr.lines().last().unwrap_or_default());
    line.map_or(Value::Null, |mut line| line["error"].take())
}

/// What a tool says in a line of progress, `CLUSTER  TOOL  TEXT` or `TOOL  TEXT`.
pub fn said(line: &str) -> Option<&str> {
    let of = |tool: &&str| {
        let text = line.split_once(&format!("{tool}  "));
        text.filter(|(cluster, _)| cluster.is_empty() || cluster.ends_with("  ")).map(|(_, text)| text)
    };
    TOOLS.iter().find_map(of)
}

/// Compares the document of a plan with the one a run leads to: they are the same, but for `plan` itself and what was known
/// only after the run. Says where they differ.
///
/// # Errors
/// They differ, or one is not JSON.
pub fn foresaw(plan: &str, run: &str) -> Result<(), String> {
    fn differ(plan: &Value, run: &Value, path: &str) -> Result<(), String> {
        match (plan, run) {
            (Value::String(text), Value::String(_)) if text.contains("(known after apply)") => Ok(()),
            (Value::Object(plan), Value::Object(run)) if plan.keys().eq(run.keys()) => plan
                .iter()
                .zip(run.values())
                .try_for_each(|((key, plan), run)| differ(plan, run, &format!("{path}.{key}"))),
            (Value::Array(plan), Value::Array(run)) if plan.len() == run.len() => {
                plan.iter().zip(run).try_for_each(|(plan, run)| differ(plan, run, path))
            }
            _ if plan == run => Ok(()),
            _ => Err(format!("{path}: {plan} was planned, {run} came")),
        }
    }
    let read = |text| serde_json::from_str::<Value>(text).map_err(|error| format!("{error}: {text}"));
    let (mut plan, run) = (read(plan)?, read(run)?);
    plan.as_object_mut().map(|plan| plan.remove("plan"));
    differ(&plan, &run, "")
}

/// Asks a process to end.
///
/// # Errors
/// There is no such process, or no `kill`.
pub fn signal(name: &str, child: &Child) -> std::io::Result<()> {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status()?;
    if sent.success() { Ok(()) } else { Err(std::io::Error::other(format!("kill -s {name}: {sent}"))) }
}

/// Runs a command to its end on a given stdin.
///
/// # Errors
/// It cannot be started.
pub fn feed(command: &mut Command, stdin: &[u8]) -> std::io::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    write_all(&mut child, stdin);
    child.wait_with_output()
}

/// All of stdin, and its end.
fn write_all(child: &mut Child, stdin: &[u8]) {
    if let Some(mut pipe) = child.stdin.take() {
        // A tool that fails early closes its stdin: its output tells why.
        let _ = pipe.write_all(stdin);
    }
}
