//! Carries along what one run of a tool needs.

use crate::{Document, Flags, Stderr};
use anyhow::{Context as _, Result};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The document, the way to stderr, the time that is left, and what has been made so far.
pub struct Session {
    /// The document read from stdin. A tool adds shared facts here (`cluster`); its own key is written at the end.
    pub doc: Document,
    /// Progress.
    pub stderr: Stderr,
    /// The flags of every tool.
    pub flags: Flags,
    started: Instant,
    left: Mutex<Vec<String>>,
    doing: Mutex<Option<String>>,
    #[cfg(feature = "aws")]
    pub(crate) aws: crate::aws::Configurations,
}

impl Session {
    pub(crate) fn new(doc: Document, stderr: Stderr, flags: Flags) -> Self {
        Self {
            doc,
            stderr,
            flags,
            started: Instant::now(),
            left: Mutex::default(),
            doing: Mutex::default(),
            #[cfg(feature = "aws")]
            aws: crate::aws::Configurations::default(),
        }
    }

    /// Time until `--timeout` has passed.
    pub fn remaining(&self) -> Duration {
        self.flags.timeout.saturating_sub(self.started.elapsed())
    }

    /// Remembers a thing just made, by ARN or name: named as `left` if the run fails later.
    pub fn made(&self, thing: impl Into<String>) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(thing.into());
    }

    pub(crate) fn left(&self) -> Vec<String> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers the change under way, or that none is.
    pub(crate) fn now(&self, change: Option<String>) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = change;
    }

    pub(crate) fn doing(&self) -> Option<String> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the other side's document (`--from FILE`), which is never passed on.
    ///
    /// # Errors
    /// The file cannot be read, is not a document, or is that of a plan while this is a run.
    pub fn peer(&self, file: &Path) -> Result<Document> {
        let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let peer = Document::parse(&file.display().to_string(), &bytes)?;
        // Where nothing is applied, the documents of others may be plans, too.
        if !self.flags.plan {
            peer.refuse_plan().with_context(|| format!("read {}", file.display()))?;
        }
        Ok(peer)
    }
}
