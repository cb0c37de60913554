//! `up`: starts a cloud and waits until it is ready; with a command, runs it inside and takes the cloud down again.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::cloud::{self, Cloud};
use crate::message::Message;
use crate::namespace::this_program;
use crate::parts::{self, Parts};
use crate::signals::{self, Signals};
use crate::{host, process};

/// How long a command may take to end after a signal was passed on to it.
const GRACE: Duration = Duration::from_secs(20);

/// Brings a cloud up in `state`. With a command the exit code is the command's.
pub async fn up(state: &Path, two_vpcs: bool, command: &[OsString]) -> Result<ExitCode> {
    host::check()?;
    let state = cloud::claim(state)?;
    if cloud::runs(&state)? {
        if command.is_empty() {
            tell("is up already");
            return Ok(ExitCode::SUCCESS);
        }
        bail!("a cloud runs in {} already: use `localcloud run` to run a command in it", state.display());
    }
    let parts = parts().await?;
    host::check_programs()?;
    let cloud = Cloud { state, bin: parts.bin, python: parts.python, images: parts.images, two_vpcs };

    // From here on a signal takes everything down in order.
    let mut signals = Signals::new()?;
    let mut keeper = start(&cloud, !command.is_empty()).await?;
    let started = tokio::select! {
        ready = ready(&cloud, &mut keeper) => ready.map(|()| None),
        signal = signals.next() => Ok(Some(signals::code_of(signal))),
    };
    let ended = match started {
        Ok(None) if command.is_empty() => return Ok(ExitCode::SUCCESS),
        Ok(None) => run(&cloud.state, command, &mut signals).await,
        Ok(Some(code)) => Ok(code),
        Err(error) => Err(error),
    };
    tell("taking it down");
    stop(&mut keeper).await?;
    ended
}

/// What a cloud is made of, got where it is missing.
pub async fn parts() -> Result<Parts> {
    parts::ensure(&cache()?, &tell).await
}

/// One line for whoever waits.
fn tell(line: &str) {
    let _closed = writeln!(std::io::stderr(), "localcloud: {line}");
}

/// Where parts are kept between runs: `$XDG_CACHE_HOME/crossmesh`, else `~/.cache/crossmesh`.
fn cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("crossmesh"))
}

async fn start(cloud: &Cloud, attached: bool) -> Result<Child> {
    let log = std::fs::File::create(cloud.log("keeper"))?;
    let mut keeper = Command::from(this_program());
    keeper.args(["stage", "keeper"]);
    if attached {
        keeper.arg("--attached");
    }
    let mut keeper = keeper
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("starting the keeper")?;
    let mut stdin = keeper.stdin.take().context("a keeper without stdin")?;
    stdin.write_all(&serde_json::to_vec(cloud)?).await?;
    Ok(keeper)
}

/// Passes the progress on until the cloud is ready.
async fn ready(cloud: &Cloud, keeper: &mut Child) -> Result<()> {
    let stdout = keeper.stdout.take().context("a keeper without stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line).with_context(|| format!("reading {line:?}"))? {
            Message::Progress(what) => tell(&what),
            Message::Ready => return Ok(()),
            Message::Failed(why) => bail!("{why}"),
        }
    }
    Err(anyhow!("the cloud ended before it was ready: {}", process::last_line(&cloud.log("localcloud"))))
}

/// Runs the command through `run`, which forwards signals; how it ends is how we end.
async fn run(state: &Path, command: &[OsString], signals: &mut Signals) -> Result<ExitCode> {
    let mut child = Command::from(this_program())
        .arg("--state")
        .arg(state)
        .args(["run", "--"])
        .args(command)
        .spawn()
        .context("running the command")?;
    let signal = tokio::select! {
        status = child.wait() => return Ok(signals::code(status?)),
        signal = signals.next() => signal,
    };
    // On a terminal the whole group got the signal already.
    if let (false, Some(pid)) = (signal == Signal::SIGINT && std::io::stdin().is_terminal(), child.id()) {
        signals::send(pid, signal)?;
    }
    // What does not end in time ends with the cloud.
    let _late = tokio::time::timeout(GRACE, child.wait()).await;
    Ok(signals::code_of(signal))
}

async fn stop(keeper: &mut Child) -> Result<()> {
    if let Some(pid) = keeper.id() {
        signals::send(pid, Signal::SIGTERM)?;
    }
    keeper.wait().await.map(drop).context("waiting for the keeper")
}
