//! One local cloud: its state folder, what it is made of, and whether it runs.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The region every part of the cloud is in.
pub const REGION: &str = "us-west-2";
/// Another region, where the account has nothing. No other name of a region resolves.
pub const ELSEWHERE: &str = "eu-west-1";
/// The one account of the region.
pub const ACCOUNT: &str = "123456789012";

/// Marks a folder as ours, so that nothing else is ever emptied.
const MARKER: &str = ".localcloud";

/// What a cloud is made of. Written to `cloud.json` in the state folder by the keeper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cloud {
    /// Absolute path of the state folder.
    pub state: PathBuf,
    /// Folder of the real programs, see `parts::Parts`.
    pub bin: PathBuf,
    /// `bin` folder of the Python environment.
    pub python: PathBuf,
    /// Folder of the images the region's Docker Hub holds.
    pub images: PathBuf,
    /// Whether each cluster is in a VPC of its own.
    pub two_vpcs: bool,
}

/// The processes that hold a running cloud, as the host counts them. `holder.json` in the state folder.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// The outermost process; SIGTERM to it ends the cloud.
    pub keeper: i32,
    /// Process 1 of the cloud, whose namespaces `run` enters.
    pub init: i32,
}

impl Cloud {
    /// A name that is the same for the same state folder: what a crashed cloud left on the host is found by it.
    pub fn id(&self) -> String {
        id(&self.state)
    }

    /// `PATH` of the cloud's own programs.
    pub fn path(&self) -> String {
        format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.bin.display())
    }

    /// Folder of one cluster, shared with the AWS side, which reads `pki/` in it.
    pub fn cluster(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// The certificates of a cluster.
    pub fn pki(&self, name: &str) -> PathBuf {
        self.cluster(name).join("pki")
    }

    /// The log of one of the cloud's programs.
    pub fn log(&self, name: &str) -> PathBuf {
        log(&self.state, name)
    }

    /// What an AWS client inside the cloud must trust: the region's authority and those of the system.
    pub fn ca_bundle(&self) -> PathBuf {
        self.state.join("ca-bundle.crt")
    }

    /// Reads back what [`Cloud::save`] wrote.
    pub fn load(state: &Path) -> Result<Self> {
        read_json(&state.join("cloud.json"))
    }

    /// Leaves the description for the other stages.
    pub fn save(&self) -> Result<()> {
        write_json(&self.state.join("cloud.json"), self)
    }
}

impl Holder {
    /// The processes of the cloud in `state`.
    pub fn load(state: &Path) -> Result<Self> {
        read_json(&state.join("holder.json"))
    }

    /// Leaves the process numbers for `run`, `down` and `status`.
    pub fn save(self, state: &Path) -> Result<()> {
        write_json(&state.join("holder.json"), &self)
    }
}

/// See [`Cloud::id`].
pub fn id(state: &Path) -> String {
    let hash = Sha256::digest(state.as_os_str().as_encoded_bytes());
    format!("localcloud-{}", &hex::encode(hash)[..8])
}

/// See [`Cloud::log`].
pub fn log(state: &Path, name: &str) -> PathBuf {
    state.join("log").join(format!("{name}.log"))
}

/// Makes `state` (or finds it) and returns its absolute path. A folder that holds anything but a local cloud is refused.
pub fn claim(state: &Path) -> Result<PathBuf> {
    fs::create_dir_all(state).with_context(|| format!("creating {}", state.display()))?;
    let state = state.canonicalize()?;
    let marker = state.join(MARKER);
    if !marker.exists() {
        if fs::read_dir(&state)?.next().is_some() {
            bail!("{} holds other files: give --state a folder of its own", state.display());
        }
        fs::write(&marker, "state of a local cloud\n")?;
    }
    fs::create_dir_all(state.join("log"))?;
    Ok(state)
}

/// The absolute path of `state`, if it is the state folder of a local cloud at all.
pub fn find(state: &Path) -> Option<PathBuf> {
    let state = state.canonicalize().ok()?;
    state.join(MARKER).exists().then_some(state)
}

/// The lock a running cloud's keeper holds as long as it lives; none when it is held already.
pub fn lock(state: &Path) -> Result<Option<File>> {
    let path = state.join("lock");
    let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

/// Whether a cloud runs in `state`.
pub fn runs(state: &Path) -> Result<bool> {
    Ok(lock(state)?.is_none())
}

/// Removes everything of a finished cloud but its logs, which may be wanted to see why it ended.
pub fn sweep(state: &Path) -> Result<()> {
    for entry in fs::read_dir(state)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if name == MARKER || name == "log" || name == "lock" {
            continue;
        }
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// Parses a JSON file, naming it on failure.
pub fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))
}

/// Writes a JSON file only root may read, in one step: a reader never sees half of it.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let half = path.with_extension("half");
    fs::write(&half, serde_json::to_vec_pretty(value)?).with_context(|| format!("writing {}", half.display()))?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o600))?;
    fs::rename(&half, path).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_other_things_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
        let refused = claim(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("holds other files"), "{refused}");
        assert_eq!(find(folder.path()), None);
    }

    #[test]
    fn sweeping_keeps_the_logs() {
        let folder = tempfile::tempdir().unwrap();
        let state = claim(folder.path()).unwrap();
        fs::create_dir_all(state.join("c1/pki")).unwrap();
        fs::write(state.join("operator.json"), "{}").unwrap();
        fs::write(log(&state, "aws"), "line").unwrap();
        sweep(&state).unwrap();
        assert!(log(&state, "aws").exists());
        assert!(!state.join("c1").exists());
        assert!(!state.join("operator.json").exists());
        assert_eq!(claim(folder.path()).unwrap(), state);
    }

    #[test]
    fn the_lock_tells_whether_a_cloud_runs() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert!(held.is_some());
        assert!(runs(folder.path()).unwrap());
        drop(held);
        assert!(!runs(folder.path()).unwrap());
    }

    #[test]
    fn two_folders_have_two_ids() {
        assert_eq!(id(Path::new("/a")), id(Path::new("/a")));
        assert_ne!(id(Path::new("/a")), id(Path::new("/b")));
    }
}
