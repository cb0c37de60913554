//! A local cloud for one test: up when it is made, down when it is dropped, however the test ends.

use crate::{feed, program, root};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A running local cloud. It needs Linux and root.
pub struct Cloud {
    /// Its folder, `build/NAME` below the top of the repository.
    pub state: PathBuf,
    /// How many of the violations a test has seen.
    seen: AtomicUsize,
}

impl Cloud {
    /// Starts a cloud of that name.
    ///
    /// # Errors
    /// It is not built, or does not start.
    pub fn up(name: &str) -> Result<Self> {
        Self::up_with(name, &[])
    }

    /// The same with options of `localcloud up`.
    ///
    /// # Errors
    /// As those of [`Cloud::up`].
    pub fn up_with(name: &str, options: &[&str]) -> Result<Self> {
        let cloud = Self { state: root().join("build").join(name), seen: AtomicUsize::default() };
        let up = cloud.localcloud().arg("up").args(options).status()?;
        if up.success() { Ok(cloud) } else { Err(Error::other(format!("localcloud up: {up}"))) }
    }

    /// Runs a command inside to its end on a given stdin, as the operator of the AWS account.
    ///
    /// # Errors
    /// It cannot be started, or says a secret: whatever a test runs, it is searched for them.
    pub fn run(&self, command: impl IntoIterator<Item = impl AsRef<OsStr>>, stdin: &[u8]) -> Result<Output> {
        let output = feed(&mut self.command(command), stdin)?;
        self.discreet(&output)?;
        Ok(output)
    }

    /// Nothing that is said is the operator's key, or begins like a password of ECR, a token of EKS or of a service
    /// account, or a signature.
    ///
    /// # Errors
    /// It is; the secret itself is not told again.
    pub fn discreet(&self, output: &Output) -> Result<()> {
        let account: Value = serde_json::from_slice(&std::fs::read(self.state.join("account.json"))?)?;
        let key = account["operator"]["secretAccessKey"].as_str().ok_or_else(|| Error::other("no operator"))?;
        for secret in [key, "QVdTO", "k8s-aws-v1.", "eyJhbGciOi", "X-Amz-Signature="] {
            for (stream, said) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
                if said.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                    let what = if secret == key { "the operator's secret access key" } else { secret };
                    return Err(Error::other(format!("{stream} holds a secret: {what}")));
                }
            }
        }
        Ok(())
    }

    /// A command that will run inside, as the operator of the AWS account. Signals that ask for the end are
    /// passed on to it.
    pub fn command(&self, command: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut inside = self.localcloud();
        inside.args(["run", "--"]).args(command);
        inside
    }

    /// Runs a script of bash inside, which ends at the first command that fails.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn sh(&self, script: &str) -> Result<Output> {
        self.run(["bash", "-euo", "pipefail", "-c", script], b"")
    }

    /// A call of an AWS API by the administrator, behind the tools' back. Its answer may be a secret.
    ///
    /// # Errors
    /// The call cannot be made, or AWS refuses it.
    pub fn aws(&self, service: &str, operation: &str, parameters: &Value) -> Result<Value> {
        let asked = json!([service, operation, parameters]).to_string();
        let output = feed(&mut self.command([self.python()?, root().join("tests/aws/call.py")]), asked.as_bytes())?;
        let mut said: Value = serde_json::from_slice(&output.stdout)?;
        match said["error"].take() {
            Value::Null => Ok(said["answer"].take()),
            error => Err(Error::other(format!("{service} {operation} {parameters}: {error}"))),
        }
    }

    /// The stdout of a script that must succeed.
    ///
    /// # Errors
    /// It does not: what it said.
    pub fn stdout(&self, script: &str) -> Result<String> {
        let output = self.sh(script)?;
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if output.status.success() {
            return Ok(stdout);
        }
        Err(Error::other(format!("{script}\n{}\n{stdout}{stderr}", output.status)))
    }

    /// The program that runs the local cloud's own Python scripts, with boto3 among its packages.
    ///
    /// # Errors
    /// The cloud left no note of it.
    pub fn python(&self) -> Result<PathBuf> {
        let cloud: Value = serde_json::from_slice(&std::fs::read(self.state.join("cloud.json"))?)?;
        let folder = cloud["python"].as_str().ok_or_else(|| Error::other("cloud.json does not name its python"))?;
        Ok(Path::new(folder).join("python"))
    }

    /// The process of one of its programs, such as `c1-kubelet`.
    ///
    /// # Errors
    /// The cloud left no note of it.
    pub fn pid(&self, program: &str) -> Result<u64> {
        let programs: Value = serde_json::from_slice(&std::fs::read(self.state.join("programs.json"))?)?;
        programs[program]["pid"].as_u64().ok_or_else(|| Error::other(format!("programs.json has no {program}")))
    }

    /// The AWS calls the gateway has logged, in the order they ended; what ended just now may be missing.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn calls(&self) -> Result<Vec<Value>> {
        self.log("aws-api")
    }

    /// A log of JSON objects, one a line; one that is being written is not told.
    ///
    /// # Errors
    /// It is not there, or holds something else.
    pub fn log(&self, name: &str) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.state.join("log").join(name).with_extension("log"))?;
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Calls that AWS's own models refuse, since a test last asked. Whoever never asks expects none: then one fails the
    /// test when the cloud goes down.
    ///
    /// # Errors
    /// There is no such log.
    pub fn violations(&self) -> Result<Vec<Value>> {
        let all = self.log("violations")?;
        let seen = self.seen.swap(all.len(), Relaxed);
        Ok(all.into_iter().skip(seen).collect())
    }

    pub(crate) fn localcloud(&self) -> Command {
        let mut command = Command::new(program("localcloud"));
        command.arg("--state").arg(&self.state).current_dir(root());
        command
    }
}

/// Those of these calls that write, as `iam:CreateRole`.
pub fn writes(calls: &[Value]) -> Vec<String> {
    const READS: [&str; 8] = ["Get", "List", "Describe", "Discover", "BatchGet", "BatchCheck", "AssumeRole", "Ping"];
    let actions = calls.iter().filter_map(|call| call["action"].as_str()?.split_once(':'));
    let writes = actions.filter(|(_, verb)| !READS.iter().any(|read| verb.starts_with(read)));
    writes.map(|(service, verb)| format!("{service}:{verb}")).collect()
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let violations = self.violations();
        let down = self.localcloud().arg("down").status();
        if std::thread::panicking() {
            return;
        }
        assert!(down.is_ok_and(|status| status.success()), "localcloud down");
        assert!(violations.as_ref().is_ok_and(Vec::is_empty), "calls that AWS's models refuse: {violations:?}");
    }
}
