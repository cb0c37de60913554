//! What the distribution brings: runc, network plugins, nftables, a registry.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use super::command::run;
use super::pins::{PACKAGES, Package};

/// Installs what is missing, or says in one line what to install.
pub fn ensure(tell: &dyn Fn(&str)) -> Result<()> {
    let missing = missing(PACKAGES, &is_there);
    if missing.is_empty() { Ok(()) } else { install(&missing, tell) }
}

/// Installs packages by name; an error where that is not ours to do.
pub fn install(packages: &[&str], tell: &dyn Fn(&str)) -> Result<()> {
    let names = packages.join(" ");
    if !Uid::effective().is_root() || !is_there("apt-get") {
        bail!("missing here: {names}; as root, on Debian: apt-get install {names}");
    }
    tell(&format!("installing {names}"));
    let log = tempfile::Builder::new().prefix("localcloud-apt-").suffix(".log").tempfile()?;
    let installed = run(apt().arg("update"), "apt-get update", log.path()).and_then(|()| {
        let mut command = apt();
        command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        run(&mut command, &format!("apt-get install {names}"), log.path())
    });
    // The error names the log.
    if installed.is_err() {
        log.keep()?;
    }
    installed
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// The names of the packages whose proof is not found.
fn missing(packages: &[Package], there: &dyn Fn(&str) -> bool) -> Vec<&'static str> {
    packages.iter().filter(|package| !there(package.proof)).map(|package| package.name).collect()
}

/// Whether an absolute path exists, or a program is on the path or where Debian puts root's.
pub fn is_there(proof: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into));
    Path::new(proof).is_absolute() && Path::new(proof).exists() || folders.any(|folder| folder.join(proof).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_missing() {
        let without_nft = |proof: &str| proof != "nft" && proof != "/usr/lib/cni/bridge";
        assert_eq!(missing(PACKAGES, &without_nft), ["containernetworking-plugins", "nftables"]);
        assert!(missing(PACKAGES, &|_| true).is_empty());
    }

    #[test]
    fn programs_are_looked_for_on_the_path() {
        assert!(is_there("sh"));
        assert!(is_there("/"));
        assert!(!is_there("no-such-program"));
        assert!(!is_there("/no/such/file"));
    }
}
