//! Runs a build tool: its output goes to a log, and the end of it into the error when it fails.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// How much of a failed tool's output is quoted: enough to see the cause, little enough to read.
const QUOTED_LINES: usize = 12;

/// Runs `command` to its end, its output in `log`. `what` names it in the error: "go build helm".
pub fn run(command: &mut Command, what: &str, log: &Path) -> Result<()> {
    let out = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let err = out.try_clone()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .status()
        .with_context(|| format!("{what}: {}", command.get_program().display()))?;
    if status.success() {
        return Ok(());
    }
    let output = fs::read(log).unwrap_or_default();
    bail!(
        "{what} failed ({status}), its output ends with\n{}\nall of it: {}",
        tail(&String::from_utf8_lossy(&output)),
        log.display()
    )
}

/// The last lines that are not empty, indented.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(QUOTED_LINES)..];
    last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_end_of_the_output_and_names_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("tool.log");
        let script = "seq 40; echo no space left on device >&2; exit 3";
        let error = run(Command::new("sh").args(["-c", script]), "go build helm", &log).unwrap_err().to_string();
        assert!(error.starts_with("go build helm failed (exit status: 3)"), "{error}");
        assert!(error.contains("\n  40\n  no space left on device\n"), "{error}");
        assert!(!error.contains("\n  20\n"), "{error}");
        assert!(error.ends_with("tool.log"), "{error}");
    }

    #[test]
    fn a_tool_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(&mut Command::new("no-such-tool"), "go build helm", &folder.path().join("log")).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-tool"), "{error:#}");
    }
}
