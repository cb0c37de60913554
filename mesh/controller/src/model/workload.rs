//! Describes a workload: pods of one VirtualNode, as their Envoys see the mesh, and what else Envoys are configured from.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    AccessLog, ClientPolicy, ConnectionPool, Gateway, ListenerTls, Routing, Timeouts, Upstream, UpstreamTls,
    WorkloadName,
};

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the protocols' names say it all")]
pub enum Protocol {
    Grpc,
    Http,
    Http2,
    Tcp,
}

impl Protocol {
    /// As manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Tcp => "tcp",
        }
    }
}

/// A port and what is spoken on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// 1 to 65535
    pub port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// What an Envoy is configured from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Proxy {
    /// The workload that it runs beside.
    Sidecar(Workload),
    /// The gateway that it is.
    Gateway(Gateway),
}

impl Proxy {
    /// The name that the Envoy shows.
    pub fn name(&self) -> &WorkloadName {
        match self {
            Self::Sidecar(workload) => &workload.name,
            Self::Gateway(gateway) => &gateway.name,
        }
    }

    /// Why its Envoys refuse what the object asks for: listeners that are left out, and VirtualServices that must not be
    /// called. `None` if they do all of it.
    pub fn refusal(&self) -> Option<String> {
        let (left_out, backends): (_, Vec<_>) = match self {
            Self::Sidecar(workload) => (&workload.left_out, workload.backends.iter().collect()),
            Self::Gateway(gateway) => (&gateway.left_out, gateway.routes.iter().map(|route| &route.target).collect()),
        };
        let refusal =
            |backend: &Backend| Some(format!("VirtualService {}: {}", backend.host, backend.refusal.as_ref()?));
        let backends: BTreeSet<_> = backends.into_iter().filter_map(refusal).collect();
        let reasons: Vec<_> = left_out.iter().cloned().chain(backends).collect();
        (!reasons.is_empty()).then(|| format!("{} is not in force as written: {}", self.name(), reasons.join("; ")))
    }
}

/// Everything that the configuration of a workload's Envoys is made from, but for the endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its name, which its Envoys show.
    pub name: WorkloadName,
    /// What the application listens on.
    pub listeners: Vec<Listener>,
    /// Where the application may go besides its backends.
    pub egress: Egress,
    /// Where Envoy writes a line for each request and connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// What the application calls, each host once, sorted by host.
    pub backends: Vec<Backend>,
    /// Why listeners are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// A port that the application listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// The port.
    #[serde(flatten)]
    pub port: Port,
    /// How long the application may take; what is absent ends by the caller's timeouts, or Envoy's.
    #[serde(skip_serializing_if = "Timeouts::is_default")]
    pub timeouts: Timeouts,
    /// What the application is sent at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
    /// TLS as it is taken; plaintext only if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

impl Listener {
    /// A listener without policies.
    pub fn new(port: Port) -> Self {
        Self { port, timeouts: Timeouts::default(), connection_pool: None, tls: None }
    }
}

/// Where an application may go besides its backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Egress {
    /// Anywhere.
    AllowAll,
    /// To AWS, the cluster's API server and DNS.
    #[default]
    DropAll,
}

/// A VirtualService as a caller needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// `awsName` of its mesh.
    pub mesh: String,
    /// The host that is called, `awsName` of the VirtualService.
    pub host: String,
    /// The addresses of the Service of that host, if it is one of this cluster with addresses of its own.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<IpAddr>,
    /// Where requests go; `None` where nobody publishes it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shared")]
    pub routing: Option<Arc<Routing>>,
    /// How it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_policy: Option<ClientPolicy>,
    /// Why it must not be called at all, such as a client policy that cannot be followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

impl Backend {
    /// A backend that is called without a policy.
    pub fn new(mesh: String, host: String, routing: Option<Arc<Routing>>) -> Self {
        Self { mesh, host, addresses: BTreeSet::new(), routing, client_policy: None, refusal: None }
    }

    /// TLS as one of its upstreams is called; `None` is plaintext.
    pub fn tls(&self, upstream: &Upstream) -> Option<UpstreamTls> {
        UpstreamTls::of(self.client_policy.as_ref(), upstream)
    }
}

fn shared<S: serde::Serializer>(routing: &Option<Arc<Routing>>, serializer: S) -> Result<S::Ok, S::Error> {
    routing.as_deref().serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WorkloadKind;

    #[test]
    fn a_refusal_names_the_workload_and_every_reason_once() {
        let name = WorkloadName { mesh: "shop".into(), kind: WorkloadKind::VirtualNode, name: "front".into() };
        let backend = |host: &str, refusal: Option<&str>| {
            let refusal = refusal.map(str::to_owned);
            Backend { refusal, ..Backend::new("shop".to_owned(), host.to_owned(), None) }
        };
        let sidecar = |left_out: &[&str], backends: Vec<Backend>| {
            let left_out = left_out.iter().map(|reason| (*reason).to_owned()).collect();
            let (listeners, egress) = (Vec::new(), Egress::DropAll);
            Proxy::Sidecar(Workload { name: name.clone(), listeners, egress, access_log: None, backends, left_out })
        };
        assert_eq!(sidecar(&[], vec![backend("red", None)]).refusal(), None);
        let backends = vec![backend("blue", None), backend("red", Some("no")), backend("red", Some("no"))];
        let refusal = sidecar(&["spec.listeners[0]: one", "spec.listeners[1]: two"], backends).refusal();
        let reasons = "spec.listeners[0]: one; spec.listeners[1]: two; VirtualService red: no";
        let expected = format!("mesh/shop/virtualNode/front is not in force as written: {reasons}");
        assert_eq!(refusal, Some(expected));
    }
}
