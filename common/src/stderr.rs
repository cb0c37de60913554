//! What a tool says while it works: short lines, a bar on a terminal, and on failure one JSON object as the last line.

use crate::error::classify;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use std::fmt::Display;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// The tool's stderr.
pub struct Stderr {
    pub(crate) tool: &'static str,
    out: Mutex<Box<dyn Write + Send>>,
    terminal: bool,
    quiet: bool,
    bars: MultiProgress,
}

impl Stderr {
    /// `terminal` says whether a person watches: bars are drawn and errors told in words as well.
    pub(crate) fn new(tool: &'static str, out: Box<dyn Write + Send>, terminal: bool, quiet: bool) -> Self {
        Self { tool, out: Mutex::new(out), terminal, quiet, bars: MultiProgress::new() }
    }

    /// One line of progress: `irsa-role: create role mesh`.
    pub fn line(&self, text: impl Display) {
        if !self.quiet {
            self.write(format_args!("{}: {text}\n", self.tool));
        }
    }

    /// Several lines for a person to read, such as a chart. Not prefixed, not printed when quiet.
    pub fn block(&self, text: impl Display) {
        if !self.quiet {
            self.write(format_args!("{text}\n"));
        }
    }

    /// A bar for work of a known length; invisible unless a person watches.
    ///
    /// `template` is indicatif's, e.g. `{bytes}/{total_bytes} {wide_bar} {msg}`.
    pub fn bar(&self, length: u64, template: &str) -> ProgressBar {
        if !self.terminal || self.quiet {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bars.add(ProgressBar::new(length).with_style(style))
    }

    /// The error line, and before it the same in words when a person watches.
    pub(crate) fn error(&self, error: &anyhow::Error, left: &[String]) {
        let (kind, hint) = classify(error);
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        if self.terminal {
            self.write(format_args!("{}: {error:#}\n", self.tool));
            for line in
                hint.iter().map(|hint| format!("hint: {hint}")).chain(left.iter().map(|thing| format!("left: {thing}")))
            {
                self.write(format_args!("  {line}\n"));
            }
        }
        let mut body = json!({"tool": self.tool, "kind": kind.as_str(), "message": error.to_string()});
        if !causes.is_empty() {
            body["causes"] = causes.into();
        }
        if let Some(hint) = hint {
            body["hint"] = hint.into();
        }
        if !left.is_empty() {
            body["left"] = left.into();
        }
        self.write(format_args!("{}\n", json!({ "error": body })));
    }

    /// Whether a person watches.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A closed stderr is nobody's fault: there is nowhere left to say so.
    fn write(&self, text: std::fmt::Arguments<'_>) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        self.bars.suspend(|| {
            let _ = out.write_fmt(text).and_then(|()| out.flush());
        });
    }
}
