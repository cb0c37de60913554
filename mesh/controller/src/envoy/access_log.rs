//! Encodes access logs.

use envoy_types::pb::envoy::{
    config::accesslog::v3::{AccessLog, access_log},
    extensions::access_loggers::stream::v3::StdoutAccessLog,
};
use prost::Name as _;

use super::proto::any;

/// The logs of connections: to standard output in Envoy's default format, or none.
pub fn encode(is_wanted: bool) -> Vec<AccessLog> {
    let to_stdout = || AccessLog {
        name: StdoutAccessLog::full_name(),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&StdoutAccessLog::default()))),
        ..AccessLog::default()
    };
    is_wanted.then(to_stdout).into_iter().collect()
}
