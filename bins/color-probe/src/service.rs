//! Names a Service of a cluster as pods do, and finds where the API server answers for it. Pure.

use crate::target;
use k8s_openapi::api::core::v1 as core;
use std::fmt;
use url::Url;

/// A port of a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    port: u16,
    secure: bool,
}

/// `k8multi/front`
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Service {
    /// The one that a URL names: `http://NAME.NAMESPACE.svc:PORT`, with or without the cluster's domain.
    ///
    /// # Errors
    /// Says that it names none.
    pub fn of(url: &Url) -> Result<Self, String> {
        let (host, secure) = (url.host_str().unwrap_or_default(), url.scheme() == "https");
        let labels: Vec<&str> = host.split('.').collect();
        match (&labels[..], url.port_or_known_default()) {
            ([name, namespace, "svc", ..], Some(port)) => {
                Ok(Self { namespace: (*namespace).to_owned(), name: (*name).to_owned(), port, secure })
            }
            _ => Err(format!("{host} names no Service, as NAME.NAMESPACE.svc would")),
        }
    }

    /// The first port of a live Service; `None` if it has none.
    pub fn live(namespace: &str, name: &str, service: &core::Service) -> Option<Self> {
        let first = service.spec.as_ref()?.ports.as_ref()?.first()?;
        let secure = first.port == 443 || first.name.as_deref() == Some("https");
        let port = u16::try_from(first.port).ok()?;
        Some(Self { namespace: namespace.to_owned(), name: name.to_owned(), port, secure })
    }

    /// What pods would ask, with the path of the sample's front end.
    ///
    /// # Errors
    /// Says what is no part of a URL.
    pub fn url(&self) -> Result<Url, String> {
        let Self { namespace, name, port, secure } = self;
        target::url(&format!("{}://{name}.{namespace}.svc:{port}", if *secure { "https" } else { "http" }))
    }

    /// Path and query of the API server for a URL of this Service.
    pub fn path(&self, url: &Url) -> String {
        let Self { namespace, name, port, secure } = self;
        let scheme = if *secure { "https:" } else { "" };
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("/api/v1/namespaces/{namespace}/services/{scheme}{name}:{port}/proxy{}{query}", url.path())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_url_names_a_service_as_pods_do() {
        const FRONT: &str = "/api/v1/namespaces/shop/services/front:8080/proxy/color";
        for (url, path) in [
            ("http://front.shop.svc:8080/color", Ok(FRONT)),
            ("http://front.shop.svc.cluster.local:8080/color?a=b%20c", Ok(&*format!("{FRONT}?a=b%20c"))),
            ("http://front.shop.svc/", Ok("/api/v1/namespaces/shop/services/front:80/proxy/")),
            ("https://front.shop.svc/a", Ok("/api/v1/namespaces/shop/services/https:front:443/proxy/a")),
            ("http://front.shop/", Err("front.shop names no Service, as NAME.NAMESPACE.svc would")),
            ("http://front:8080/", Err("front names no Service, as NAME.NAMESPACE.svc would")),
            ("http://a.elb.amazonaws.com/", Err("a.elb.amazonaws.com names no Service, as NAME.NAMESPACE.svc would")),
        ] {
            let url = target::http(url).unwrap();
            let found = Service::of(&url).map(|service| service.path(&url));
            assert_eq!(found.as_deref().map_err(String::as_str), path, "{url}");
        }
    }

    #[test]
    fn the_first_port_of_a_live_service_is_asked() {
        for (ports, url) in [
            (json!([{"port": 8080, "name": "http"}, {"port": 9000}]), Some("http://front.shop.svc:8080/color")),
            (json!([{"port": 443}]), Some("https://front.shop.svc/color")),
            (json!([{"port": 8443, "name": "https"}]), Some("https://front.shop.svc:8443/color")),
            (json!([]), None),
        ] {
            let live = serde_json::from_value(json!({"metadata": {}, "spec": {"ports": ports}})).unwrap();
            let found = Service::live("shop", "front", &live).map(|service| service.url().unwrap().to_string());
            assert_eq!(found.as_deref(), url);
        }
    }
}
