//! A folder of finished things: each in a folder named after what it was made from, there completely or not at all.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// See the module.
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Makes the folder if it is not there.
    pub fn open(root: &Path) -> Result<Self> {
        for folder in ["log", "tmp"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let root = root.canonicalize().with_context(|| format!("finding {}", root.display()))?;
        Ok(Self { root })
    }

    /// Where the thing `name` made from `identity` is, or would be.
    pub fn place(&self, name: &str, identity: &[&str]) -> PathBuf {
        let mut hash = Sha256::new();
        for part in identity {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        self.root.join(format!("{name}-{}", &hex::encode(hash.finalize())[..16]))
    }

    /// Where a tool's output goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }

    /// A folder to work in, on the cache's file system, gone when it is dropped.
    pub fn scratch(&self) -> Result<TempDir> {
        let folder = self.root.join("tmp");
        TempDir::new_in(&folder).with_context(|| format!("creating a folder in {}", folder.display()))
    }

    /// Lets `make` fill a folder and moves it to `place`. Does nothing when `place` is there.
    pub fn publish(&self, place: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if place.exists() {
            return Ok(());
        }
        let scratch = self.scratch()?;
        let folder = scratch.path().join("made");
        fs::create_dir(&folder)?;
        make(&folder)?;
        fs::rename(&folder, place).with_context(|| format!("moving {} to {}", folder.display(), place.display()))
    }

    /// The right to add to the cache; waits for whoever holds it. What a killed run left half done is swept.
    pub fn lock(&self, tell: &dyn Fn(&str)) -> Result<File> {
        let path = self.root.join("lock");
        let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                tell("waiting for another run, which gets the parts at this moment");
                file.lock().with_context(|| format!("locking {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        }
        for left in fs::read_dir(self.root.join("tmp"))? {
            fs::remove_dir_all(left?.path()).ok();
        }
        Ok(file)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_place_depends_on_every_part_of_the_identity() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        assert_eq!(cache.place("helm", &["a", "b"]), cache.place("helm", &["a", "b"]));
        assert_ne!(cache.place("helm", &["a", "b"]), cache.place("helm", &["ab", ""]));
        assert_ne!(cache.place("helm", &["a", "b"]), cache.place("helm", &["a", "c"]));
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let place = cache.place("helm", &[]);
        let failed = cache.publish(&place, |folder| {
            fs::write(folder.join("helm"), "half a program")?;
            anyhow::bail!("the network is gone")
        });
        assert_eq!(failed.unwrap_err().to_string(), "the network is gone");
        assert!(!place.exists());
        cache.publish(&place, |folder| Ok(fs::write(folder.join("helm"), "a program")?)).unwrap();
        assert_eq!(fs::read_to_string(place.join("helm")).unwrap(), "a program");
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn the_lock_sweeps_what_a_killed_run_left() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        fs::create_dir(folder.path().join("tmp/half")).unwrap();
        let _lock = cache.lock(&|_| {}).unwrap();
        assert!(!folder.path().join("tmp/half").exists());
    }
}
