//! Keeps the addresses of Services: connections to a host go to them.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1 as core;
use kube::{Resource, api::ObjectMeta};
use serde::{Deserialize, Deserializer};

/// A Service, as far as the mesh needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Namespace, name and uid; the rest of it is left out.
    pub metadata: ObjectMeta,
    /// Its addresses in the cluster; a headless one has none.
    pub addresses: Vec<IpAddr>,
}

impl From<core::Service> for Service {
    fn from(service: core::Service) -> Self {
        let ObjectMeta { namespace, name, uid, resource_version, .. } = service.metadata;
        let metadata = ObjectMeta { namespace, name, uid, resource_version, ..ObjectMeta::default() };
        let spec = service.spec.unwrap_or_default();
        let addresses = spec.cluster_ips.or_else(|| spec.cluster_ip.map(|ip| vec![ip])).unwrap_or_default();
        Self { metadata, addresses: addresses.iter().filter_map(|ip| ip.parse().ok()).collect() }
    }
}

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        core::Service::deserialize(deserializer).map(Self::from)
    }
}

impl Resource for Service {
    type DynamicType = ();
    type Scope = <core::Service as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        core::Service::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        core::Service::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        core::Service::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        core::Service::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The Services of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Services(Vec<Arc<Service>>);

impl FromIterator<Arc<Service>> for Services {
    fn from_iter<I: IntoIterator<Item = Arc<Service>>>(services: I) -> Self {
        Self(services.into_iter().collect())
    }
}

impl Services {
    /// The addresses of the Service that a host names, `<name>.<namespace>`, alone or before `.svc` and the cluster's
    /// domain; none if it names none, or a headless one.
    pub fn addresses(&self, host: &str) -> &[IpAddr] {
        let mut labels = host.split('.');
        let (Some(name), Some(namespace), None | Some("svc")) = (labels.next(), labels.next(), labels.next()) else {
            return &[];
        };
        let is_it = |service: &&Arc<Service>| {
            let ObjectMeta { name: its_name, namespace: its_namespace, .. } = &service.metadata;
            (its_namespace.as_deref(), its_name.as_deref()) == (Some(namespace), Some(name))
        };
        self.0.iter().find(is_it).map(|service| service.addresses.as_slice()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_is_found_by_its_host() {
        let service = |name: &str, spec: serde_json::Value| -> Arc<Service> {
            let service = json!({"metadata": {"name": name, "namespace": "shop", "labels": {"a": "b"}}, "spec": spec});
            Arc::new(serde_json::from_value(service).unwrap())
        };
        let services: Services = [
            service("db", json!({"clusterIP": "10.1.0.1", "clusterIPs": ["10.1.0.1", "fd00::1"]})),
            service("headless", json!({"clusterIP": "None", "clusterIPs": ["None"]})),
            service("elsewhere", json!({"externalName": "example.com"})),
        ]
        .into_iter()
        .collect();
        let both: [IpAddr; 2] = ["10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        for (host, expected) in [
            ("db.shop", &both[..]),
            ("db.shop.svc", &both),
            ("db.shop.svc.cluster.local", &both),
            ("db.other.svc.cluster.local", &[]),
            ("db.shop.local", &[]),
            ("db", &[]),
            ("headless.shop", &[]),
            ("elsewhere.shop", &[]),
        ] {
            assert_eq!(services.addresses(host), expected, "{host}");
        }
    }
}
