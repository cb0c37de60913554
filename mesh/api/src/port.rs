use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A port and what is spoken on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// 1 to 65535
    #[schemars(with = "i64", range(min = 1, max = 65535))]
    pub port: u16,
    /// `http` is HTTP/1.1, `http2` and `grpc` HTTP/2 in plain text, `tcp` anything.
    pub protocol: Protocol,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the protocols' names say it all, and a description would change the schema's shape")]
pub enum Protocol {
    Grpc,
    Http,
    Http2,
    Tcp,
}
