//! What the machine must have, said in one line before anything starts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;

use crate::namespace::{leave, this_program};

/// Programs and the Debian packages they are in.
const PROGRAMS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("nft", "nftables"), ("runc", "runc"), ("docker-registry", "docker-registry")];
/// Plugins of containernetworking-plugins.
const PLUGINS: [&str; 3] = ["host-local", "loopback", "ptp"];

/// Fails unless the kernel and our rights allow a cloud at all: before anything is fetched or built.
pub fn check() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("needs root, as namespaces, nftables rules and containers are made: run it with sudo");
    }
    let probed = crate::cgroup::check().and_then(|()| probe());
    probed.context("this machine can't hold a local cloud")
}

/// Fails with every program that is missing: after the packages were installed where that is possible.
pub fn check_programs() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let missing = programs(&folders, Path::new(crate::node::CNI));
    if missing.is_empty() {
        return Ok(());
    }
    bail!("{}", missing.join("; "))
}

fn programs(folders: &[PathBuf], plugins: &Path) -> Vec<String> {
    let absent = |name: &str| !folders.iter().any(|folder| folder.join(name).exists());
    let programs = PROGRAMS
        .iter()
        .filter(|(name, _)| absent(name))
        .map(|(name, package)| format!("{name} is not installed: apt-get install {package}"));
    let missing = |name: &&&str| !plugins.join(name).exists();
    let plugin = |name: &&str| {
        format!("{} is not installed: apt-get install containernetworking-plugins", plugins.join(name).display())
    };
    programs.chain(PLUGINS.iter().filter(missing).map(plugin)).collect()
}

/// Tries in namespaces of a child what the cloud will do.
fn probe() -> Result<()> {
    let output = this_program().args(["stage", "probe"]).stdin(Stdio::null()).output().context("running myself")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("localcloud: "));
    }
    Ok(())
}

/// The child of [`probe`].
pub fn try_everything() -> Result<()> {
    leave(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWIPC)
        .context("namespaces can't be made (needs CAP_SYS_ADMIN; a container needs --privileged)")?;
    let run = |what: &str, program: &str, arguments: &[&str]| {
        let output = match Command::new(program).args(arguments).output() {
            // It will be installed, or missed later.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            output => output.with_context(|| format!("running {program}"))?,
        };
        if !output.status.success() {
            bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    };
    run(
        "the kernel can't make veth links",
        "ip",
        &["link", "add", "probe0", "type", "veth", "peer", "name", "probe1"],
    )?;
    let rules = "add table inet t
        add chain inet t c { type nat hook output priority 0; }
        add rule inet t c ct state new tcp dport 1 redirect to :2";
    run("nftables does not work here", "nft", &[rules])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let folder = tempfile::tempdir().unwrap();
        for (name, _) in PROGRAMS {
            fs::write(folder.path().join(name), "").unwrap();
        }
        for name in PLUGINS {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let folders = [folder.path().to_owned()];
        assert_eq!(programs(&folders, folder.path()), Vec::<String>::new());
        fs::remove_file(folder.path().join("nft")).unwrap();
        fs::remove_file(folder.path().join("ptp")).unwrap();
        let missing = programs(&folders, folder.path());
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert_eq!(missing[0], "nft is not installed: apt-get install nftables");
        assert!(
            missing[1].ends_with("ptp is not installed: apt-get install containernetworking-plugins"),
            "{missing:?}"
        );
    }
}
