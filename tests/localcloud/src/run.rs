//! `run`: a command inside a running cloud, with the operator's environment and the host's files.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::cloud::{self, Holder};
use crate::environment::Environment;
use crate::namespace::{children_in, this_program};
use crate::signals::{self, Signals};

/// Runs `command` in the cloud of `state`; the exit code is the command's. Needs a process of a single thread, as the
/// child is to be in another process namespace.
pub fn run(state: &Path, command: &[OsString]) -> Result<ExitCode> {
    let state = cloud::find(state)
        .with_context(|| format!("no cloud in {}: start one with `localcloud up`", state.display()))?;
    let environment = Environment::load(&state)
        .with_context(|| format!("no cloud is ready in {}: start one with `localcloud up`", state.display()))?;
    let holder = Holder::load(&state)?;
    let mut inside = this_program();
    environment.apply(&mut inside);
    inside.args(["stage", "inside", "--of", "region", "--pid", &holder.init.to_string(), "--"]).args(command);
    children_in(holder.init)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut child = Command::from(inside).spawn().context("running the command")?;
        loop {
            tokio::select! {
                status = child.wait() => return Ok(signals::code(status?)),
                signal = signals.next() => {
                    if let Some(pid) = child.id() {
                        signals::send(pid, signal)?;
                    }
                }
            }
        }
    })
}
