//! The outermost process of a cloud. It holds the lock, makes the cgroups and the process namespace, and when the cloud
//! ends, for whatever reason, removes what is left of it on the host.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::cgroup;
use crate::cloud::{self, Cloud, Holder};
use crate::message::Message;
use crate::namespace::this_program;
use crate::process;

/// Keeps the cloud that stdin describes until it ends or a signal asks for its end. With `attached` it also ends with its
/// parent.
pub fn keep(attached: bool) -> Result<()> {
    let kept = locked(attached);
    if let Err(error) = &kept {
        Message::Failed(format!("{error:#}")).send();
    }
    kept
}

fn locked(attached: bool) -> Result<()> {
    let cloud: Cloud = serde_json::from_reader(std::io::stdin()).context("reading the description of the cloud")?;
    if attached {
        set_pdeathsig(Signal::SIGTERM)?;
    }
    nix::unistd::setsid().context("setsid")?;
    let Some(_lock) = cloud::lock(&cloud.state)? else { bail!("a cloud runs in {} already", cloud.state.display()) };
    clear(&cloud.state)?;
    let held = hold(&cloud);
    clear(&cloud.state)?;
    held
}

/// Removes what a finished cloud left on the host, also one whose keeper was killed. Needs the lock.
pub fn clear(state: &Path) -> Result<()> {
    for hierarchy in cgroup::hierarchies()? {
        hierarchy.remove(&cloud::id(state))?;
    }
    cloud::sweep(state)
}

fn hold(cloud: &Cloud) -> Result<()> {
    for entry in fs::read_dir(cloud.state.join("log"))? {
        let log = entry?.path();
        if log != cloud.log("keeper") {
            fs::remove_file(log)?;
        }
    }
    fs::create_dir_all(cloud.state.join("tmp"))?;
    cloud.save()?;
    for hierarchy in cgroup::hierarchies()? {
        hierarchy.create(&cloud.id())?;
    }
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    unshare(CloneFlags::CLONE_NEWPID).context("unshare")?;
    let log = File::options().create(true).append(true).open(cloud.log("localcloud"))?;
    let init = this_program()
        .args(["stage", "init", "--state"])
        .arg(&cloud.state)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .context("starting the cloud")?;
    let pid = Pid::from_raw(i32::try_from(init.id())?);
    Holder { keeper: Pid::this().as_raw(), init: pid.as_raw() }.save(&cloud.state)?;
    wait(&signals, pid, init, &cloud.log("localcloud"))
}

/// Waits for the end of process 1, or brings it about. Its death is that of every process of the cloud.
fn wait(signals: &SigSet, pid: Pid, init: Child, log: &Path) -> Result<()> {
    let mut asked = false;
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {}
            _ => {
                asked = true;
                kill(pid, Signal::SIGKILL)?;
            }
        }
        match waitpid(pid, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => {}
            _ if asked => return Ok(()),
            status => {
                drop(init);
                bail!("the cloud ended by itself ({status:?}): {}", process::last_line(log))
            }
        }
    }
}
