//! Describes what an Envoy writes down of requests and connections.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Invalid;

/// Envoy's command operators. It rejects a whole listener for one that it does not know.
const OPERATORS: &[&str] = &[
    "ACCESS_LOG_TYPE",
    "BYTES_RECEIVED",
    "BYTES_RETRANSMITTED",
    "BYTES_SENT",
    "CONNECTION_ID",
    "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_LOCAL_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DURATION",
    "FILTER_CHAIN_NAME",
    "GRPC_STATUS_NUMBER",
    "HOSTNAME",
    "LOCAL_REPLY_BODY",
    "PROTOCOL",
    "REQUESTED_SERVER_NAME",
    "REQUEST_DURATION",
    "REQUEST_HEADERS_BYTES",
    "REQUEST_TX_DURATION",
    "RESPONSE_CODE",
    "RESPONSE_DURATION",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "RESPONSE_TX_DURATION",
    "ROUNDTRIP_DURATION",
    "ROUTE_NAME",
    "STREAM_ID",
    "TRACE_ID",
    "UNIQUE_ID",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOST",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
    "VIRTUAL_CLUSTER_NAME",
];
/// Those that may be told more, in parentheses, such as the format of a time.
const OPERATORS_MAYBE_OF: &[&str] = &[
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "EMIT_TIME",
    "EMIT_TIME_LOCAL",
    "GRPC_STATUS",
    "RESPONSE_CODE_DETAILS",
    "START_TIME",
    "START_TIME_LOCAL",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
];
/// Those that need to be told what of it, in parentheses.
const OPERATORS_OF: &[&str] = &[
    "CLUSTER_METADATA",
    "COMMON_DURATION",
    "DYNAMIC_METADATA",
    "ENVIRONMENT",
    "FILTER_STATE",
    "REQ",
    "REQUEST_HEADER",
    "RESP",
    "RESPONSE_HEADER",
    "RESPONSE_TRAILER",
    "TRAILER",
    "UPSTREAM_METADATA",
];

/// Those of them whose value cannot be cut to a length.
const OPERATORS_WITHOUT_LENGTH: &[&str] = &["CLUSTER_METADATA", "COMMON_DURATION", "UPSTREAM_METADATA"];

/// Where an Envoy writes a line for each request and connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessLog {
    /// A file, or `/dev/stdout`.
    pub path: String,
    /// What a line says; Envoy's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<LogFormat>,
}

/// What a line of an access log says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// A text with command operators.
    Text(String),
    /// An object whose values have command operators.
    Json(BTreeMap<String, String>),
}

impl AccessLog {
    /// A log.
    ///
    /// # Errors
    /// It has no path.
    pub fn new(path: String, format: Option<LogFormat>) -> Result<Self, Invalid> {
        if path.is_empty() { Err(Invalid::new("is empty")) } else { Ok(Self { path, format }) }
    }
}

impl LogFormat {
    /// A text with command operators.
    ///
    /// # Errors
    /// It is empty, or Envoy knows one of the operators not.
    pub fn text(text: String) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("is empty"));
        }
        check_operators(&text)?;
        Ok(Self::Text(text))
    }

    /// An object.
    ///
    /// # Errors
    /// It has no fields, two of one name, or Envoy knows an operator in a value not.
    pub fn json(fields: impl IntoIterator<Item = (String, String)>) -> Result<Self, Invalid> {
        let mut object = BTreeMap::new();
        for (key, value) in fields {
            if value.is_empty() {
                return Err(Invalid(format!("{key}: is empty")));
            }
            check_operators(&value).map_err(|Invalid(why)| Invalid(format!("{key}: {why}")))?;
            if object.contains_key(&key) {
                return Err(Invalid(format!("{key} is there twice")));
            }
            object.insert(key, value);
        }
        if object.is_empty() { Err(Invalid::new("has no fields")) } else { Ok(Self::Json(object)) }
    }
}

/// Checks a text with operators, `%NAME%`, `%NAME(OF)%` and `%NAME(OF):LENGTH%`; `%%` is a percent sign.
fn check_operators(text: &str) -> Result<(), Invalid> {
    let mut rest = text;
    while let Some((_, operator)) = rest.split_once('%') {
        rest = match operator.strip_prefix('%') {
            Some(after) => after,
            None => check_operator(operator)?,
        };
    }
    Ok(())
}

/// Checks an operator after its first `%`; returns what is after its last.
fn check_operator(operator: &str) -> Result<&str, Invalid> {
    let end = operator.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
    let (name, after) = operator.split_at(end.unwrap_or(operator.len()));
    let refuse = |why: &str| Err(Invalid(format!("%{name}{why}")));
    let (needs, may) = (OPERATORS_OF.contains(&name), OPERATORS_MAYBE_OF.contains(&name));
    if !needs && !may && !OPERATORS.contains(&name) {
        return refuse(" begins no operator of Envoy: write %% for a percent sign");
    }
    let of = after.strip_prefix('(').and_then(|after| after.split_once(')'));
    if of.is_none() && (needs || after.starts_with('(')) {
        return refuse(" needs what it is of, such as %REQ(:path)%");
    }
    if of.is_some() && !needs && !may {
        return refuse(" takes nothing in parentheses");
    }
    let after = of.map_or(after, |(_, after)| after);
    let length = after.strip_prefix(':').map(|after| after.trim_start_matches(|c: char| c.is_ascii_digit()));
    if length.is_some() && (!needs || OPERATORS_WITHOUT_LENGTH.contains(&name)) {
        return refuse(" takes no length");
    }
    length.unwrap_or(after).strip_prefix('%').map_or_else(|| refuse(" has no % at its end"), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_those_of_envoy() {
        for (text, expected) in [
            ("[%START_TIME(%Y-%m-%dT%H:%M:%S%z)%] %REQ(x-a?:path):10% %RESPONSE_CODE% 100%%\n", ""),
            ("no operator", ""),
            ("%RESPONSE_CODE", "%RESPONSE_CODE has no % at its end"),
            ("%REQ%", "%REQ needs what it is of, such as %REQ(:path)%"),
            ("%REQ(:path%", "%REQ needs what it is of, such as %REQ(:path)%"),
            ("%REQ(:path):x%", "%REQ has no % at its end"),
            ("%RESPONSE_CODE(x)%", "%RESPONSE_CODE takes nothing in parentheses"),
            ("%DURATION:3%", "%DURATION takes no length"),
            ("%COMMON_DURATION(DS_RX_BEG:DS_RX_END:ms):3%", "%COMMON_DURATION takes no length"),
            ("%COLOR%", "%COLOR begins no operator of Envoy: write %% for a percent sign"),
            ("100 %", "% begins no operator of Envoy: write %% for a percent sign"),
        ] {
            let found = LogFormat::text(text.to_owned()).map_or_else(|error| error.to_string(), |_| String::new());
            assert_eq!(found, expected, "{text}");
        }
        let field = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        for (fields, expected) in [
            (vec![field("a", "%PROTOCOL%"), field("b", "c")], ""),
            (vec![], "has no fields"),
            (vec![field("a", "")], "a: is empty"),
            (vec![field("a", "b"), field("a", "c")], "a is there twice"),
            (vec![field("a", "%B")], "a: %B begins no operator of Envoy: write %% for a percent sign"),
        ] {
            let found = LogFormat::json(fields).map_or_else(|error| error.to_string(), |_| String::new());
            assert_eq!(found, expected);
        }
    }
}
