//! A whole cloud: what a command inside sees, and that nothing is left outside. Needs root, the parts (built on the first
//! run, which takes a while) and about 1.5 GB of memory; without root only the refusal is tested.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// Runs inside: `$1` is the state folder.
const INSIDE: &str = include_str!("inside.sh");

fn localcloud(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_localcloud"));
    command.arg("--state").arg(state);
    command
}

fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What this cloud has on the host, a line each. Its processes are all in its cgroups, which vanish only without them.
fn traces(state: &Path) -> BTreeSet<String> {
    let id = format!("localcloud-{}", &hex::encode(Sha256::digest(state.as_os_str().as_encoded_bytes()))[..8]);
    let output = |program: &str, arguments: &[&str]| {
        String::from_utf8(Command::new(program).args(arguments).output().unwrap().stdout).unwrap()
    };
    let name = state.to_str().unwrap();
    let ours = |text: String, mark: &str| {
        text.lines().filter(|line| line.contains(mark)).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut found = ours(output("find", &["/sys/fs/cgroup", "-maxdepth", "3", "-type", "d"]), &id);
    found.extend(ours(output("ps", &["-eo", "args", "--no-headers"]), name));
    found.extend(ours(fs::read_to_string("/proc/self/mounts").unwrap(), name));
    found.extend(ours(output("ip", &["-o", "link"]), "vpc-"));
    found.into_iter().collect()
}

/// One cloud at a time: the machine of a test may be small.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `done`, at most a minute.
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn without_root_one_line_says_so() {
    if root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = localcloud(folder.path()).arg("up").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
    assert!(said(&output).contains("needs root"), "{}", said(&output));
}

#[test]
fn a_command_inside_sees_the_whole_region_and_nothing_is_left() {
    if !root() {
        return;
    }
    let (_alone, folder) = (alone(), tempfile::tempdir().unwrap());
    let output = localcloud(folder.path())
        .args(["up", "--", "bash", "-euo", "pipefail", "-c", INSIDE, "inside"])
        .arg(folder.path())
        .env("AWS_PROFILE", "another-account")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert_eq!(traces(folder.path()), BTreeSet::new());
    let down = localcloud(folder.path()).arg("down").output().unwrap();
    assert!(down.status.success(), "{}", said(&down));
}

#[test]
fn a_killed_cloud_leaves_no_process_and_the_next_down_clears_the_rest() {
    if !root() {
        return;
    }
    let (_alone, folder) = (alone(), tempfile::tempdir().unwrap());
    let up = localcloud(folder.path()).arg("up").output().unwrap();
    assert!(up.status.success(), "{}", said(&up));
    let again = localcloud(folder.path()).arg("up").output().unwrap();
    assert!(again.status.success() && said(&again).contains("is up already"), "{}", said(&again));
    assert_ne!(traces(folder.path()), BTreeSet::new(), "the traces of a cloud are not where they are looked for");
    let code = localcloud(folder.path()).args(["run", "--", "sh", "-c", "exit 5"]).status().unwrap().code();
    assert_eq!(code, Some(5));

    let holder: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("holder.json")).unwrap()).unwrap();
    let keeper = nix::unistd::Pid::from_raw(i32::try_from(holder["keeper"].as_i64().unwrap()).unwrap());
    nix::sys::signal::kill(keeper, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait("processes are left", || traces(folder.path()).iter().all(|line| line.starts_with("/sys/fs/cgroup")));

    for _ in 0..2 {
        let down = localcloud(folder.path()).arg("down").output().unwrap();
        assert!(down.status.success(), "{}", said(&down));
    }
    assert_eq!(traces(folder.path()), BTreeSet::new());
    assert!(!localcloud(folder.path()).arg("status").stdout(Stdio::null()).status().unwrap().success());
}

#[test]
fn a_signal_takes_the_command_and_the_cloud_down() {
    if !root() {
        return;
    }
    let (_alone, folder) = (alone(), tempfile::tempdir().unwrap());
    let started = folder.path().join("started");
    let mut up = localcloud(folder.path())
        .args(["up", "--", "sh", "-c", "touch \"$0\"; exec tail -f /dev/null"])
        .arg(&started)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait("the command never ran", || started.exists());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(up.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(143));
    assert_eq!(traces(folder.path()), BTreeSet::new());
}
