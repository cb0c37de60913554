//! Limits what an application is sent at once.

use serde::Serialize;

use super::Invalid;

/// Limits of what an Envoy sends its application at the same time; what is absent has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionPool {
    /// Connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,
    /// Requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
}

impl ConnectionPool {
    /// The same, if it lets anything through.
    ///
    /// # Errors
    /// A limit is 0.
    pub fn checked(self) -> Result<Self, Invalid> {
        let limits = [self.max_connections, self.max_pending_requests, self.max_requests];
        if limits.contains(&Some(0)) { Err(Invalid::new("a limit is 0")) } else { Ok(self) }
    }
}
