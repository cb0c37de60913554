use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What Envoy writes down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Logging {
    /// Each request and connection, in and out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
}

impl Logging {
    /// The file that requests are written to.
    pub fn file(&self) -> Option<&FileAccessLog> {
        self.access_log.as_ref()?.file.as_ref()
    }
}

/// Where requests are written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessLog {
    /// In a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileAccessLog>,
}

/// A file of Envoy's container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileAccessLog {
    /// Its path, 1 to 255 characters. `/dev/stdout` is the container's log. A sidecar can write to `/tmp` besides, which holds
    /// 64 MiB in memory; a gateway also to the volumes that its container mounts.
    #[schemars(length(min = 1, max = 255))]
    pub path: String,
    /// What is written of each; Envoy's default format when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<LoggingFormat>,
}

/// What is written of each request and connection; exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoggingFormat {
    /// An object of JSON, a line each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Vec<JsonFormatField>>,
    /// This text with Envoy's command operators, such as `%RESPONSE_CODE%`, replaced. A line ends where it has `\n`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A field of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JsonFormatField {
    /// Its name.
    #[schemars(length(min = 1))]
    pub key: String,
    /// Its value, in which Envoy's command operators are replaced. One alone is a number where it stands for one.
    #[schemars(length(min = 1))]
    pub value: String,
}
