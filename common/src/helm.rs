//! Runs Helm, and tells which versions of it are new enough.

use tokio::process::Command;

/// The oldest Helm that installs the chart, by major and minor: `helm upgrade --labels` of what exists already works from
/// here on.
pub const OLDEST: (u32, u32) = (3, 14);

/// By how many percent Helm's memory may grow before Go collects its garbage. It runs for a moment: with Go's own 100 that
/// is a tenth of its work, and a third of what it takes to tell its version.
const GARBAGE: (&str, &str) = ("GOGC", "400");

/// Has Helm say its version, and nothing else, as [`version`] reads it.
pub const ASK_VERSION: [&str; 3] = ["version", "--template", "{{.Version}}"];

/// Helm, as it is in PATH. It does not outlive whoever runs it.
pub fn command() -> Command {
    let mut command = Command::new("helm");
    if std::env::var_os(GARBAGE.0).is_none() {
        command.env(GARBAGE.0, GARBAGE.1);
    }
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    command
}

/// Major and minor of `v3.14.0`, as `helm version` says it.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().trim_start_matches('v').split(['.', '+', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (text, expected) in
            [("v3.14.0", Some((3, 14))), ("v4.3\n", Some((4, 3))), ("v3.9.4+gdbc6d8e", Some((3, 9))), ("", None)]
        {
            assert_eq!(version(text), expected, "{text}");
        }
        assert!((3, 9) < OLDEST && (3, 20) > OLDEST && (4, 0) > OLDEST);
    }
}
