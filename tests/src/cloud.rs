//! A local cloud for one test: up when it is made, down when it is dropped, however the test ends.

use crate::{feed, program, root};
use std::ffi::OsStr;
use std::io::{Error, Result};
use std::path::PathBuf;
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

    fn localcloud(&self) -> Command {
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
