//! Translates what Envoy writes down.

use mesh_api::{Logging, LoggingFormat};

use super::problems::Problems;
use crate::model::{AccessLog, LogFormat};

/// The log of requests, if there is one; a format with a problem is left out.
pub fn access_log(logging: Option<&Logging>, problems: &mut Problems) -> Option<AccessLog> {
    let file = logging?.file()?;
    let path = "spec.logging.accessLog.file";
    let format = file.format.as_ref().and_then(|format| self::format(format, &format!("{path}.format"), problems));
    problems.take(format!("{path}.path"), AccessLog::new(file.path.clone(), format))
}

fn format(given: &LoggingFormat, path: &str, problems: &mut Problems) -> Option<LogFormat> {
    match (&given.json, &given.text) {
        (None, Some(text)) => problems.take(format!("{path}.text"), LogFormat::text(text.clone())),
        (Some(fields), None) => {
            let fields = fields.iter().map(|field| (field.key.clone(), field.value.clone()));
            problems.take(format!("{path}.json"), LogFormat::json(fields))
        }
        _ => {
            problems.invalid(path, "needs one of json and text");
            None
        }
    }
}
