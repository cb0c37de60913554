//! `status` and `logs`: what a cloud is doing, on stdout.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cloud::{self, Holder};
use crate::process;

/// Tells whether a cloud is up, and of its programs. Exit code 0 when it is, 1 when it is not.
pub fn status(state: &Path) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    let state = match cloud::find(state) {
        Some(state) if cloud::runs(&state)? => state,
        _ => {
            writeln!(out, "down")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let holder = Holder::load(&state)?;
    let ready = state.join("environment.json").exists();
    writeln!(out, "{} in {}, keeper {}", if ready { "up" } else { "starting" }, state.display(), holder.keeper)?;
    for (name, program) in process::states(&state).unwrap_or_default() {
        let runs = program.pid.map_or_else(|| "ended".to_owned(), |pid| format!("process {pid}"));
        let restarts =
            if program.restarts > 0 { format!(", started again {} times", program.restarts) } else { String::new() };
        writeln!(out, "{name:24}{runs}{restarts}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The log of one program, or the names of all.
pub fn logs(state: &Path, name: Option<&str>) -> Result<()> {
    let Some(state) = cloud::find(state) else { bail!("no cloud in {}", state.display()) };
    let mut out = io::stdout().lock();
    if let Some(name) = name {
        let log = cloud::log(&state, name);
        let mut file = fs::File::open(&log).with_context(|| format!("no log {name}: `localcloud logs` names them"))?;
        return whole(io::copy(&mut file, &mut out));
    }
    let mut names: Vec<_> =
        fs::read_dir(state.join("log"))?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    names.sort();
    for path in names {
        let size = fs::metadata(&path)?.len();
        whole(writeln!(out, "{:24}{size} bytes", path.file_stem().unwrap_or_default().to_string_lossy()))?;
    }
    Ok(())
}

/// A reader that has seen enough is no error.
fn whole<T>(result: io::Result<T>) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
