//! What a starting cloud tells whoever started it: JSON lines on its stdout.

use std::io::Write;

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Message {
    /// A step is done.
    Progress(String),
    /// All is up.
    Ready,
    /// It will not get up, and why.
    Failed(String),
}

impl Message {
    /// Writes it to stdout. Nobody may listen any more, which is fine.
    pub fn send(&self) {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        let _nobody = std::io::stdout().write_all(&line);
    }
}
