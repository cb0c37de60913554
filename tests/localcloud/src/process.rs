//! The programs of the cloud: started, logged, watched. One that ends before the cloud is ready fails it; later it is
//! started again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use backon::{BackoffBuilder, ExponentialBuilder};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::cloud::{self, Cloud, REGION};
use crate::namespace::this_program;

/// One program: what to run, where, and with which variables besides the common ones.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    path: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    node: Option<u32>,
}

impl Program {
    /// `name` is also the name of its log.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), arguments: Vec::new(), variables: Vec::new(), node: None }
    }

    /// Adds one argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Runs it in the namespaces that process `pid` holds.
    pub fn on(mut self, pid: u32) -> Self {
        self.node = Some(pid);
        self
    }
}

/// What `status` tells of a program. `programs.json` in the state folder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Its number inside the cloud; none while it does not run.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
}

/// Starts and watches the programs of one cloud.
#[derive(Debug)]
pub struct Supervisor {
    cloud: Cloud,
    ready: AtomicBool,
    programs: Mutex<BTreeMap<String, State>>,
    failures: mpsc::UnboundedSender<anyhow::Error>,
}

impl Supervisor {
    /// The receiver gets the first program that ends too early.
    pub fn new(cloud: Cloud) -> (Arc<Self>, mpsc::UnboundedReceiver<anyhow::Error>) {
        let (failures, failed) = mpsc::unbounded_channel();
        let supervisor = Self { cloud, ready: AtomicBool::new(false), programs: Mutex::default(), failures };
        (Arc::new(supervisor), failed)
    }

    /// From now on a program that ends is started again.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Starts `program` and keeps it running.
    pub fn start(self: &Arc<Self>, program: Program) {
        let supervisor = Arc::clone(self);
        tokio::spawn(async move {
            let mut pauses =
                ExponentialBuilder::default().with_max_delay(Duration::from_secs(10)).without_max_times().build();
            loop {
                let ended = supervisor.run(&program).await;
                let why = match &ended {
                    Ok(status) => {
                        anyhow!("{} ended, {status}: {}", program.name, last_line(&supervisor.cloud.log(&program.name)))
                    }
                    Err(error) => anyhow!("{}: {error:#}", program.name),
                };
                tracing::warn!("{why:#}");
                if !supervisor.ready.load(Ordering::Relaxed) {
                    // Nobody listens any more once the first failure was taken.
                    let _taken = supervisor.failures.send(why);
                    return;
                }
                tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(10))).await;
                supervisor.note(&program.name, |state| state.restarts += 1);
            }
        });
    }

    async fn run(&self, program: &Program) -> Result<ExitStatus> {
        let log = File::options().create(true).append(true).open(self.cloud.log(&program.name))?;
        let mut command = self.command(program);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("running {}", program.path.display()))?;
        self.note(&program.name, |state| state.pid = child.id());
        let status = child.wait().await;
        self.note(&program.name, |state| state.pid = None);
        Ok(status?)
    }

    /// The command of a program with its whole environment: nothing of the caller's reaches it, least of all AWS keys.
    pub fn command(&self, program: &Program) -> Command {
        let mut command = match program.node {
            Some(pid) => inside(pid, &program.path),
            None => Command::new(&program.path),
        };
        command
            .args(&program.arguments)
            .env_clear()
            .env("PATH", self.cloud.path())
            .env("HOME", &self.cloud.state)
            .env("TMPDIR", self.cloud.state.join("tmp"))
            .env("SSL_CERT_FILE", self.cloud.ca_bundle())
            .env("AWS_CA_BUNDLE", self.cloud.ca_bundle())
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .envs(program.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn note(&self, name: &str, change: impl FnOnce(&mut State)) {
        if let Ok(mut programs) = self.programs.lock() {
            change(programs.entry(name.to_owned()).or_default());
            if let Err(error) = cloud::write_json(&self.cloud.state.join("programs.json"), &*programs) {
                tracing::warn!("{error:#}");
            }
        }
    }
}

/// A command that runs in the namespaces of a node.
pub fn inside(pid: u32, program: impl Into<OsString>) -> Command {
    let mut command = Command::from(this_program());
    command.args(["stage", "inside", "--of", "node", "--pid"]).arg(pid.to_string()).arg("--").arg(program.into());
    command
}

/// The programs of the cloud in `state`.
pub fn states(state: &Path) -> Result<BTreeMap<String, State>> {
    cloud::read_json(&state.join("programs.json"))
}

/// The last line of a log, for an error.
pub fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(|| format!("see {}", log.display()), str::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn cloud(state: &Path) -> Cloud {
        let state = cloud::claim(state).unwrap();
        Cloud { bin: "/bin".into(), python: "/bin".into(), images: "/".into(), state, two_vpcs: false }
    }

    #[tokio::test]
    async fn a_program_that_ends_too_early_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let (supervisor, mut failed) = Supervisor::new(cloud(folder.path()));
        supervisor.start(Program::new("etcd", "/bin/sh").args(["-c", "echo no space left; exit 3"]));
        let said = failed.recv().await.unwrap().to_string();
        assert!(said.contains("etcd ended") && said.contains('3') && said.ends_with("no space left"), "{said}");
    }

    #[tokio::test]
    async fn a_program_that_ends_later_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let cloud = cloud(folder.path());
        let (supervisor, _failed) = Supervisor::new(cloud.clone());
        supervisor.ready();
        supervisor.start(Program::new("proxy", "/bin/sh").args(["-c", "exit 1"]));
        let again = || async {
            let restarts = states(&cloud.state)?.get("proxy").map_or(0, |state| state.restarts);
            (restarts > 0).then_some(()).context("never started again")
        };
        crate::ready::until("restart", "proxy", Duration::from_secs(10), again).await.unwrap();
    }

    #[tokio::test]
    async fn nothing_of_the_callers_environment_reaches_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let (supervisor, _failed) = Supervisor::new(cloud(folder.path()));
        let output = supervisor.command(&Program::new("x", "/usr/bin/env").env("EXTRA", "1")).output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("EXTRA=1") && said.contains("AWS_REGION=us-west-2"));
        assert!(!said.contains("CARGO"), "{said}");
    }
}
