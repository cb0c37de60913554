//! Translates what Envoy writes down.

use mesh_api::Logging;

use super::problems::Problems;
use crate::model::Reason;

/// The only file that Envoy writes requests to: its container's log.
const STDOUT: &str = "/dev/stdout";

/// Whether requests are written to standard output.
pub fn to_stdout(logging: Option<&Logging>) -> bool {
    file(logging) == Some(STDOUT)
}

/// Notes a file that is not supported.
pub fn check(logging: Option<&Logging>, problems: &mut Problems) {
    if file(logging).is_some_and(|path| path != STDOUT) {
        let path = "spec.logging.accessLog.file.path";
        problems.add(Reason::Unsupported, path, format!("only {STDOUT} is supported"));
    }
}

/// The file that requests are written to.
fn file(logging: Option<&Logging>) -> Option<&str> {
    Some(&logging?.access_log.as_ref()?.file.as_ref()?.path)
}
