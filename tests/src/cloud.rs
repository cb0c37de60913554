//! A local cloud for one test: up when it is made, down when it is dropped, however the test ends.

use crate::{feed, program, root};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A running local cloud. It needs Linux and root.
pub struct Cloud {
    /// Its folder, `build/NAME` below the top of the repository.
    pub state: PathBuf,
}

impl Cloud {
    /// Starts a cloud of that name.
    ///
    /// # Errors
    /// It is not built, or does not start.
    pub fn up(name: &str) -> Result<Self> {
        let cloud = Self { state: root().join("build").join(name) };
        let up = cloud.localcloud().arg("up").status()?;
        if up.success() { Ok(cloud) } else { Err(Error::other(format!("localcloud up: {up}"))) }
    }

    /// Runs a command inside to its end on a given stdin, as the operator of the AWS account.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, command: impl IntoIterator<Item = impl AsRef<OsStr>>, stdin: &[u8]) -> Result<Output> {
        feed(self.localcloud().args(["run", "--"]).args(command), stdin)
    }

    /// Runs a script of bash inside, which ends at the first command that fails.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn sh(&self, script: &str) -> Result<Output> {
        self.run(["bash", "-euo", "pipefail", "-c", script], b"")
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

    pub(crate) fn localcloud(&self) -> Command {
        let mut command = Command::new(program("localcloud"));
        command.arg("--state").arg(&self.state).current_dir(root());
        command
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let down = self.localcloud().arg("down").status();
        assert!(down.is_ok_and(|status| status.success()), "localcloud down");
    }
}
