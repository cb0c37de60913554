//! Faults in a local cloud, and commands that are killed. What a rule says: `tests/localcloud/aws/faults.py`.

use crate::cloud::Cloud;
use crate::{feed, write_all};
use serde_json::Value;
use std::io::{BufRead, BufReader, Error, Result};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A rule in force until it is dropped.
pub struct Fault {
    path: PathBuf,
}

/// A command at work inside a cloud, in a process group of its own.
pub struct Running<'a> {
    cloud: &'a Cloud,
    child: Child,
}

impl Cloud {
    /// Puts a rule in force.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn fault(&self, rule: &Value) -> Result<Fault> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let folder = self.state.join("faults");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{:06}.json", NUMBER.fetch_add(1, Ordering::Relaxed)));
        // In one step: the cloud never reads half a rule.
        let half = path.with_extension("half");
        std::fs::write(&half, rule.to_string())?;
        std::fs::rename(&half, &path)?;
        Ok(Fault { path })
    }

    /// Starts a command inside.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start<A: AsRef<std::ffi::OsStr>>(
        &self,
        command: impl IntoIterator<Item = A>,
        stdin: &[u8],
    ) -> Result<Running<'_>> {
        use std::os::unix::process::CommandExt;
        let mut inside = self.localcloud();
        inside.args(["run", "--"]).args(command).process_group(0);
        let mut child = inside.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        write_all(&mut child, stdin);
        Ok(Running { cloud: self, child })
    }
}

impl Fault {
    /// The calls it has struck, in their order.
    pub fn struck(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path.with_extension("struck")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether it holds a call now.
    pub fn holds(&self) -> bool {
        self.path.with_extension("held").exists()
    }

    /// Lets the call that it holds go on.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn release(&self) -> Result<()> {
        std::fs::write(self.path.with_extension("released"), "")
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
        // What is still held ends now, without being carried out: whoever comes next must not meet it.
        let dropped = until(Duration::from_secs(30), || !self.holds());
        for note in ["struck", "released"] {
            let _none = std::fs::remove_file(self.path.with_extension(note));
        }
        assert!(dropped, "{} still holds a call", self.path.display());
    }
}

impl Running<'_> {
    /// Waits until the fault holds a call; `false` when the command ended before.
    ///
    /// # Errors
    /// Neither happens within five minutes.
    pub fn held_by(&mut self, fault: &Fault) -> Result<bool> {
        let decided = until(Duration::from_secs(300), || fault.holds() || self.ended());
        if decided { Ok(fault.holds()) } else { Err(Error::other("the command neither ends nor is held")) }
    }

    /// Reads that many lines of its stdout; `false` when there are fewer.
    pub fn reads(&mut self, lines: usize) -> bool {
        let stdout = self.child.stdout.as_mut().map(BufReader::new);
        stdout.is_some_and(|stdout| stdout.lines().take(lines).map_while(Result::ok).count() == lines)
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// SIGKILL to it and all its children.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        feed(Command::new("bash").args(["-c", &format!("kill -KILL -- -{}", self.child.id())]), b"")?;
        self.child.wait().map(drop)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It cannot be waited for, or says a secret.
    pub fn finish(self) -> Result<Output> {
        let output = self.child.wait_with_output()?;
        self.cloud.discreet(&output)?;
        Ok(output)
    }
}

/// Waits for a fact; `false` when it has not come true in time.
#[allow(clippy::disallowed_methods, reason = "this is the wait for the fact")]
pub fn until(patience: Duration, mut fact: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !fact() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
