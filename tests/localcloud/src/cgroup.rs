//! The cloud's own part of every cgroup hierarchy, so that what its containers make is found and removed with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use backon::{BlockingRetryable, ConstantBuilder};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What kubelet and runc need of version 2.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// A cloud's weight for the processor, in ordinary processes: it has about that many, and would count as one otherwise,
/// since a cgroup of the root is weighed against each process in the root.
const PROCESSES: u32 = 40;

/// One mounted hierarchy of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where the host mounts it.
    pub mount: PathBuf,
    /// Which of the two kinds.
    pub version: Version,
}

/// The two kinds of hierarchies; a host may have both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// One or more controllers each, named by the mount options, such as `cpu,cpuacct` or `name=systemd`.
    One(String),
    /// The unified one.
    Two,
}

/// The hierarchies of this host.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    Ok(parse(&mounts))
}

/// Reads `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mount = PathBuf::from(left.split(' ').nth(4)?);
            let mut right = right.split(' ');
            let version = match right.next()? {
                "cgroup2" => Version::Two,
                "cgroup" => Version::One(controllers(right.nth(1)?)),
                _ => return None,
            };
            Some(Hierarchy { mount, version })
        })
        .collect();
    found.dedup_by(|a, b| a.mount == b.mount);
    found
}

/// Only the options that name the hierarchy: the others belong to the first mount.
fn controllers(options: &str) -> String {
    let ours = |option: &&str| {
        !matches!(*option, "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "cpuset_v2_mode")
            && !option.starts_with("release_agent=")
    };
    options.split(',').filter(ours).collect::<Vec<_>>().join(",")
}

/// Whether containers can be held here, with the reason if not.
pub fn check() -> Result<()> {
    let all = hierarchies()?;
    let one = |name: &str| {
        all.iter().any(|h| matches!(&h.version, Version::One(options) if options.split(',').any(|o| o == name)))
    };
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !one(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let Some(two) = all.iter().find(|h| h.version == Version::Two) else {
        bail!("no cgroup hierarchy with {} is mounted", missing.join(", "));
    };
    let has = fs::read_to_string(two.mount.join("cgroup.controllers"))?;
    let missing: Vec<&str> = missing.into_iter().filter(|name| !has.split_whitespace().any(|x| x == *name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("the cgroup hierarchy {} lacks {}", two.mount.display(), missing.join(", "))
}

impl Hierarchy {
    fn ours(&self, id: &str) -> PathBuf {
        self.mount.join(id)
    }

    /// Makes our cgroup.
    pub fn create(&self, id: &str) -> Result<()> {
        let ours = self.ours(id);
        fs::create_dir_all(&ours).with_context(|| format!("creating {}", ours.display()))?;
        let write = |file: &str, text: &str| {
            fs::write(ours.join(file), text).with_context(|| format!("writing {file} of {}", ours.display()))
        };
        match &self.version {
            Version::One(options) => {
                let has = |name| options.split(',').any(|option| option == name);
                if has("cpuset") {
                    // A version 1 cpuset is born empty and takes no process until it has both.
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        write(file, fs::read_to_string(self.mount.join(file))?.trim())?;
                    }
                }
                if has("cpu") {
                    write("cpu.shares", &(PROCESSES * 1024).to_string())?;
                }
            }
            Version::Two => {
                hand_down(&self.mount)?;
                if ours.join("cpu.weight").exists() {
                    write("cpu.weight", &(PROCESSES * 100).to_string())?;
                }
            }
        }
        Ok(())
    }

    /// Moves the calling process in.
    pub fn join(&self, id: &str) -> Result<()> {
        let ours = self.ours(id);
        fs::write(ours.join("cgroup.procs"), "0").with_context(|| format!("joining {}", ours.display()))
    }

    /// Shows only our part, at the place of the whole. For a process in a cgroup namespace and mount namespace of its own.
    pub fn remount(&self) -> Result<()> {
        let (kind, data) = match &self.version {
            Version::One(options) => ("cgroup", Some(options.as_str())),
            Version::Two => ("cgroup2", None),
        };
        // The kernel refuses to mount a file system over itself.
        umount2(&self.mount, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {}", self.mount.display()))?;
        mount(Some(kind), &self.mount, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, data)
            .with_context(|| format!("mounting {kind} at {}", self.mount.display()))?;
        if self.version == Version::Two {
            // Only the leaves of version 2 may hold processes.
            let leaf = self.mount.join("system");
            fs::create_dir_all(&leaf)?;
            fs::write(leaf.join("cgroup.procs"), "0").with_context(|| format!("joining {}", leaf.display()))?;
            hand_down(&self.mount)?;
        }
        Ok(())
    }

    /// Ends whoever is still in our cgroup and removes it. Nothing to do when it is gone.
    pub fn remove(&self, id: &str) -> Result<()> {
        let ours = self.ours(id);
        if !ours.exists() {
            return Ok(());
        }
        let attempt = || {
            end_all(&ours);
            remove_tree(&ours)
        };
        let patience = ConstantBuilder::default().with_delay(Duration::from_millis(20)).with_max_times(250);
        attempt.retry(patience).call().with_context(|| format!("removing {}", ours.display()))
    }
}

/// Lets the children of a version 2 cgroup have the controllers it has itself.
fn hand_down(cgroup: &Path) -> Result<()> {
    let has = fs::read_to_string(cgroup.join("cgroup.controllers"))?;
    let control = cgroup.join("cgroup.subtree_control");
    let given = fs::read_to_string(&control)?;
    for name in has.split_whitespace().filter(|name| !given.split_whitespace().any(|x| x == *name)) {
        let result = fs::write(&control, format!("+{name}"));
        if CONTROLLERS.contains(&name) {
            result.with_context(|| format!("enabling {name} in {}", control.display()))?;
        }
    }
    Ok(())
}

fn end_all(cgroup: &Path) {
    for pid in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse() {
            // It may be gone since it was listed.
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    for child in children(cgroup) {
        end_all(&child);
    }
}

fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    for child in children(cgroup) {
        remove_tree(&child)?;
    }
    fs::remove_dir(cgroup)
}

fn children(cgroup: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(mount: &str, options: &str) -> Hierarchy {
        Hierarchy { mount: mount.into(), version: Version::One(options.into()) }
    }

    #[test]
    fn mountinfo_names_the_hierarchies() {
        let mountinfo = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";
        assert_eq!(
            parse(mountinfo),
            [
                one("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"),
                one("/sys/fs/cgroup/systemd", "name=systemd"),
                Hierarchy { mount: "/sys/fs/cgroup/unified".into(), version: Version::Two },
            ]
        );
    }
}
