//! Encodes access logs.

use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::{
        config::accesslog::v3::{AccessLog, access_log},
        extensions::access_loggers::{file::v3::FileAccessLog, stream::v3::StdoutAccessLog},
    },
    google::protobuf::Any,
};
use prost::{Message, Name};

use crate::model::{self, LogFormat};

/// Standard output, which is no file where the container runtime connects a socket to it.
const STDOUT: &str = "/dev/stdout";

/// The log of requests and connections, if there is one.
pub fn encode(log: Option<&model::AccessLog>) -> Vec<AccessLog> {
    log.into_iter().map(one).collect()
}

fn one(log: &model::AccessLog) -> AccessLog {
    let format = log.format.as_ref().map(Format::from);
    let (name, config) = if log.path == STDOUT {
        (StdoutAccessLog::full_name(), typed::<StdoutAccessLog>(&Stdout { format }))
    } else {
        (FileAccessLog::full_name(), typed::<FileAccessLog>(&File { path: log.path.clone(), format }))
    };
    AccessLog { name, config_type: Some(access_log::ConfigType::TypedConfig(config)), ..AccessLog::default() }
}

fn typed<T: Name>(message: &impl Message) -> Any {
    Any { type_url: T::type_url(), value: message.encode_to_vec() }
}

/// StdoutAccessLog, FileAccessLog and what is in them, with sorted maps: those of `envoy_types` come in any order, and the
/// same workload must give the same bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Stdout {
    #[prost(message, optional, tag = "1")]
    format: Option<Format>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(message, optional, tag = "5")]
    format: Option<Format>,
}

/// SubstitutionFormatString
#[derive(Clone, PartialEq, prost::Message)]
struct Format {
    #[prost(message, optional, tag = "2")]
    json: Option<Struct>,
    #[prost(message, optional, tag = "5")]
    text: Option<DataSource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DataSource {
    #[prost(string, tag = "3")]
    inline: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, tag = "3")]
    string: String,
}

impl From<&LogFormat> for Format {
    fn from(format: &LogFormat) -> Self {
        match format {
            LogFormat::Text(text) => Self { json: None, text: Some(DataSource { inline: text.clone() }) },
            LogFormat::Json(fields) => {
                let field = |(key, value): (&String, &String)| (key.clone(), Value { string: value.clone() });
                Self { json: Some(Struct { fields: fields.iter().map(field).collect() }), text: None }
            }
        }
    }
}
