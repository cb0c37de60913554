//! Process 1 of a cloud: makes its namespaces, starts the region and reaps whatever loses its parent.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::cgroup;
use crate::cloud::Cloud;
use crate::dns;
use crate::namespace::{leave, resolve_by, this_program, tmpfs};

/// Sockets of the host's resolvers, which would be asked before `/etc/resolv.conf` and know other names.
const RESOLVERS: [&str; 2] = ["/run/systemd/resolve", "/run/nscd"];

/// Lives as long as the region. The end of this process ends every other one of the cloud.
pub fn run(cloud: &Cloud) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    SigSet::all().thread_unblock()?;
    let hierarchies = cgroup::hierarchies()?;
    for hierarchy in &hierarchies {
        hierarchy.join(&cloud.id())?;
    }
    leave(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWIPC)?;
    for hierarchy in &hierarchies {
        hierarchy.remount()?;
    }
    nix::mount::mount(Some("proc"), "/proc", Some("proc"), nix::mount::MsFlags::empty(), None::<&str>)
        .context("mounting /proc")?;
    for path in RESOLVERS.map(Path::new).into_iter().filter(|path| path.exists()) {
        tmpfs(path)?;
    }
    let resolver = cloud.state.join("resolv.conf");
    std::fs::write(&resolver, dns::resolv_conf())?;
    resolve_by(&resolver)?;
    let region = this_program()
        .args(["stage", "region", "--state"])
        .arg(&cloud.state)
        .env("SSL_CERT_FILE", cloud.ca_bundle())
        .stdin(Stdio::null())
        .spawn()
        .context("starting the region")?;
    let region = Pid::from_raw(i32::try_from(region.id())?);
    loop {
        let status = waitpid(None, None)?;
        match status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == region => {
                bail!("the region ended ({status:?})")
            }
            _ => {}
        }
    }
}
