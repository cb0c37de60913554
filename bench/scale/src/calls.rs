//! Counts the calls of Cloud Map in the log of the local cloud.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use anyhow::Context as _;
use serde_json::Value;

/// The log, one call a line, read up to somewhere.
pub struct Calls {
    path: PathBuf,
    read: u64,
}

impl Calls {
    /// The log from its beginning.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: 0 }
    }

    /// How often each operation of Cloud Map was called since this was asked last.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn since(&mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut log = File::open(&self.path).with_context(|| format!("opening {}", self.path.display()))?;
        log.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        log.read_to_string(&mut text)?;
        // A line that is not whole yet is read next time.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        let mut counts = BTreeMap::new();
        for line in text.get(..whole).unwrap_or_default().lines() {
            let call: Value = serde_json::from_str(line).context("a line of the log is no JSON")?;
            if let Some(operation) = call["action"].as_str().and_then(|action| action.strip_prefix("servicediscovery:"))
            {
                *counts.entry(operation.to_owned()).or_default() += 1;
            }
        }
        Ok(counts)
    }
}
