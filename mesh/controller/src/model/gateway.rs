//! Describes a gateway: pods of one VirtualGateway, whose Envoys let requests from outside into the mesh.

use serde::Serialize;

use super::{
    AccessLog, Backend, Invalid, Listener, Protocol, Route, RouteMatch, WorkloadName,
    composed::{Composed, compose},
};

/// Everything that the configuration of a gateway's Envoys is made from, but for the endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Its name, which its Envoys show.
    pub name: WorkloadName,
    /// What it listens on.
    pub listeners: Vec<Listener>,
    /// Where Envoy writes a line for each request and connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// The first that matches takes the request.
    pub routes: Vec<GatewayRoute>,
    /// Why listeners are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

impl Gateway {
    /// The routes that a listener takes requests to.
    pub fn routes_of(&self, listener: &Listener) -> impl Iterator<Item = &GatewayRoute> {
        self.routes.iter().filter(|route| route.is_for(listener))
    }
}

/// One route of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRoute {
    /// `awsName` of the GatewayRoute.
    pub name: String,
    /// The listeners it is for.
    pub protocol: Protocol,
    /// The listener it is for, if it is for one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The host that is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostMatch>,
    /// Which requests it takes.
    #[serde(rename = "match")]
    pub route_match: RouteMatch,
    /// What becomes of the path before the target's routes see it.
    pub path_rewrite: PathRewrite,
    /// Whether the host becomes the target's.
    pub host_rewrite: bool,
    /// The VirtualService that the requests go to.
    pub target: Backend,
}

impl GatewayRoute {
    /// Whether it is for requests at a listener.
    pub fn is_for(&self, listener: &Listener) -> bool {
        self.protocol == listener.port.protocol && self.port.is_none_or(|port| port == listener.port.port)
    }

    /// The requests that it and a route of its target both take: those of any of the results, of which there may be none.
    ///
    /// # Errors
    /// Which these are cannot be said: names the route, and why.
    pub fn composed_with(&self, route: &Route) -> Result<Vec<Composed>, Invalid> {
        compose(&self.route_match, &self.path_rewrite, &route.route_match)
            .map_err(|why| Invalid(format!("route {} of VirtualService {}: {why}", route.name, self.target.host)))
    }
}

/// What the host of a request must be, whatever its port and case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HostMatch {
    /// The whole name.
    Exact(String),
    /// What it ends with.
    Suffix(String),
}

impl HostMatch {
    /// A whole name.
    ///
    /// # Errors
    /// It is none.
    pub fn exact(name: String) -> Result<Self, Invalid> {
        hostname(&name).map(Self::Exact)
    }

    /// What a name ends with, with or without an asterisk before it.
    ///
    /// # Errors
    /// No name ends so.
    pub fn suffix(suffix: &str) -> Result<Self, Invalid> {
        hostname(suffix.strip_prefix('*').unwrap_or(suffix)).map(Self::Suffix)
    }
}

fn hostname(name: &str) -> Result<String, Invalid> {
    let in_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || !name.bytes().all(in_a_name) {
        return Err(Invalid::new("is not a host name of letters, digits, dots and hyphens"));
    }
    Ok(name.to_owned())
}

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathRewrite {
    /// It stays.
    Keep,
    /// The matched prefix, with the slash after it, becomes this.
    Prefix(String),
    /// All of it becomes this.
    Exact(String),
}

impl PathRewrite {
    /// What a matched prefix becomes.
    ///
    /// # Errors
    /// It does not begin and end with `/`, or is no path.
    pub fn prefix(value: String) -> Result<Self, Invalid> {
        if !value.starts_with('/') || !value.ends_with('/') {
            return Err(Invalid::new("does not begin and end with /"));
        }
        path(value).map(Self::Prefix)
    }

    /// What a path becomes.
    ///
    /// # Errors
    /// It does not begin with `/`, or is no path.
    pub fn exact(value: String) -> Result<Self, Invalid> {
        if !value.starts_with('/') {
            return Err(Invalid::new("does not begin with /"));
        }
        path(value).map(Self::Exact)
    }
}

fn path(value: String) -> Result<String, Invalid> {
    let in_a_path = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
    if value.bytes().all(in_a_path) { Ok(value) } else { Err(Invalid::new("is not the path of a URL")) }
}
