//! `status` and `logs`: what a cloud is doing, on stdout.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cloud::{self, Holder};
use crate::process;

/// Tells whether a cloud is up, and of its programs. Exit code 0 when it is, 1 when it is not.
pub fn status(state: &Path) -> Result<ExitCode> {
    let state = match cloud::find(state) {
        Some(state) if cloud::runs(&state)? => state,
        _ => {
            print("down\n")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let holder = Holder::load(&state)?;
    let ready = state.join("environment.json").exists();
    let mut told =
        format!("{} in {}, keeper {}\n", if ready { "up" } else { "starting" }, state.display(), holder.keeper);
    for (name, program) in process::states(&state).unwrap_or_default() {
        let runs = program.pid.map_or_else(|| "ended".to_owned(), |pid| format!("process {pid}"));
        let restarts = match program.restarts {
            0 => String::new(),
            count => format!(", started again {count} times"),
        };
        told += &format!("{name:24}{runs}{restarts}\n");
    }
    print(&told)?;
    Ok(ExitCode::SUCCESS)
}

/// The log of one program, or the names of all.
pub fn logs(state: &Path, name: Option<&str>) -> Result<()> {
    let Some(state) = cloud::find(state) else { bail!("no cloud in {}", state.display()) };
    if let Some(name) = name {
        let log = cloud::log(&state, name);
        let mut file = fs::File::open(&log).with_context(|| format!("no log {name}: `localcloud logs` names them"))?;
        return whole(io::copy(&mut file, &mut io::stdout()));
    }
    let mut names: Vec<_> =
        fs::read_dir(state.join("log"))?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    names.sort();
    let line = |path: &PathBuf| {
        let size = fs::metadata(path)?.len();
        Ok(format!("{:24}{size} bytes\n", path.file_stem().unwrap_or_default().to_string_lossy()))
    };
    print(&names.iter().map(line).collect::<io::Result<String>>()?)
}

fn print(text: &str) -> Result<()> {
    whole(io::stdout().write_all(text.as_bytes()))
}

/// A reader that has seen enough is no error.
fn whole<T>(result: io::Result<T>) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
