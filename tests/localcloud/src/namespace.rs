//! Linux namespaces: entering those of another process, and the folders that only one of them sees.
//!
//! A process changes its namespaces only while it has a single thread, so every function here belongs at the very start
//! of a stage, before any runtime.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};

/// A command that runs this very program, even when its file has been replaced since it started.
pub fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("localcloud");
    command
}

/// Which namespaces of a process to enter.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Whose {
    /// Those of the cloud's first process: the region's network, the host's files, the cloud's cgroups.
    Region,
    /// Those of a node: its network and its own view of `/run` and `/var/lib`.
    Node,
}

/// Becomes `command` inside the namespaces of process `pid`, in the same current folder, and ends when its parent ends.
pub fn become_inside(pid: i32, whose: Whose, command: &[OsString]) -> Result<Infallible> {
    let kinds: &[(&str, CloneFlags)] = match whose {
        Whose::Region => &[
            ("cgroup", CloneFlags::CLONE_NEWCGROUP),
            ("ipc", CloneFlags::CLONE_NEWIPC),
            ("net", CloneFlags::CLONE_NEWNET),
            ("mnt", CloneFlags::CLONE_NEWNS),
        ],
        Whose::Node => &[("net", CloneFlags::CLONE_NEWNET), ("mnt", CloneFlags::CLONE_NEWNS)],
    };
    set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    let folder = std::env::current_dir().context("reading the current folder")?;
    // All are opened first: after the first change /proc may be another's.
    let open = |(kind, flag): &(&str, CloneFlags)| {
        let path = format!("/proc/{pid}/ns/{kind}");
        File::open(&path).map(|file| (file, *flag)).with_context(|| format!("opening {path}"))
    };
    for (file, flag) in kinds.iter().map(open).collect::<Result<Vec<_>>>()? {
        setns(file, flag).context("setns")?;
    }
    std::env::set_current_dir(&folder).with_context(|| format!("entering {}", folder.display()))?;
    // Whoever started us may have blocked signals for its own sake.
    SigSet::all().thread_unblock().context("unblocking signals")?;
    let (program, arguments) = command.split_first().context("no command given")?;
    let error = Command::new(program).args(arguments).exec();
    Err(anyhow!(error).context(format!("running {}", program.display())))
}

/// Makes the children of this process the first of a process namespace of `pid`.
pub fn children_in(pid: i32) -> Result<()> {
    let path = format!("/proc/{pid}/ns/pid");
    let file = File::open(&path).with_context(|| format!("opening {path}"))?;
    setns(file, CloneFlags::CLONE_NEWPID).context("setns")
}

/// Gives this process namespaces of its own, with mounts nobody else sees.
pub fn leave(flags: CloneFlags) -> Result<()> {
    unshare(flags | CloneFlags::CLONE_NEWNS).context("unshare")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("making mounts private")
}

/// Lets mounts made by one process of this mount namespace be seen in the namespaces that will be made from it:
/// kubelet mounts a pod's volumes, runc hands them on.
pub fn share_mounts() -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>).context("sharing mounts")
}

/// Puts `source` at the place of `target`.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("mounting {} at {}", source.display(), target.display()))
}

/// Puts a new tmpfs at `target`.
pub fn tmpfs(target: &Path) -> Result<()> {
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .with_context(|| format!("mounting a tmpfs at {}", target.display()))
}

/// Hides what the host has in `folder` behind an empty one, made at `scratch`, in which only the folders of `keep` that
/// lie in it are still seen. So a node fills `/run` and `/var/lib` as it likes and the host has nothing of it.
pub fn shadow(folder: &Path, scratch: &Path, keep: &[&Path]) -> Result<()> {
    fs::create_dir_all(scratch)?;
    tmpfs(scratch)?;
    for kept in keep {
        if let Ok(inside) = kept.strip_prefix(folder) {
            let place: PathBuf = scratch.join(inside);
            fs::create_dir_all(&place)?;
            bind(kept, &place)?;
        }
    }
    bind(scratch, folder)
}

/// Makes `/etc/resolv.conf` say what `file` says. Where it is a link to a file that is not seen here, that file is made.
pub fn resolve_by(file: &Path) -> Result<()> {
    let path = Path::new("/etc/resolv.conf");
    if let Ok(link) = fs::read_link(path) {
        let target = Path::new("/etc").join(link);
        if !target.exists() {
            target.parent().map(fs::create_dir_all).transpose()?;
            fs::write(&target, "")?;
        }
    }
    bind(file, path)
}
