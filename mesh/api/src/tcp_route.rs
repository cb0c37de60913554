use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, RouteAction};

/// A route for connections, whatever is spoken on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpRoute {
    /// Which connections; all when absent.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_: Option<TcpRouteMatch>,
    /// Where connections go.
    pub action: RouteAction,
    /// How long a connection may stay silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TcpTimeout>,
}

/// Which connections a route takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpRouteMatch {
    /// The router's listener that connections come to; when absent, each that speaks tcp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 0, max = 65535))]
    pub port: Option<u16>,
}

/// How long a connection may stay silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpTimeout {
    /// With nothing sent or received; without end when absent or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
}
