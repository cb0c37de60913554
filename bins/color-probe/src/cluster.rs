//! Asks Services through a cluster's API server, which reaches pods where a load balancer's name leads nowhere.

use crate::http::{Header, LONGEST, given};
use crate::service::Service;
use crate::shell::quoted;
use anyhow::{Context as _, Result};
use common::kube::KubeFlags;
use common::kube::object::refused;
use common::kube::reference::ObjectRef;
use common::{Document, Error, Kind, Session, classify};
use http::header::{AUTHORIZATION, HeaderMap};
use http_body::Body as _;
use k8s_openapi::api::core::v1 as core;
use kube::client::{Body, Client};
use kube::core::{Status, TypeMeta};
use kube::{Api, Error as KubeError};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use url::Url;

/// What the names of headers begin with that tell the API server on whose behalf it is asked.
const IMPERSONATE: &str = "impersonate-";

/// The flags that say through which API server to ask.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Ask the application's Service through the Kubernetes API server, for whoever cannot reach its load balancer
    #[arg(long, conflicts_with = "keep_alive")]
    via_cluster: bool,
    /// Context for --via-cluster [default: the one that leads to the document's cluster, else the current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Kubeconfig for --via-cluster [default: KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Flags {
    /// Whether to ask through a cluster. A URL alone is asked directly, whatever the document says.
    ///
    /// # Errors
    /// The other flags make no sense, or would be taken for the API server's.
    pub fn wanted(&self, by_document: bool, url: bool, headers: &[Header]) -> Result<bool> {
        let wanted = self.via_cluster || by_document && !url;
        if !wanted && (self.context.is_some() || self.kubeconfig.is_some()) {
            return Err(Error::usage("--context and --kubeconfig are for --via-cluster").into());
        }
        let mine = |name: &str| name == AUTHORIZATION.as_str() || name.starts_with(IMPERSONATE);
        match given(headers).find(|(name, _)| wanted && mine(name.as_str())) {
            Some((name, _)) => {
                let message = format!("the API server would take the header {name} for its own");
                Err(Error::usage(message).hint("leave it out, or ask without --via-cluster").into())
            }
            None => Ok(wanted),
        }
    }
}

/// A cluster's API server, as a person's kubeconfig leads to it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    context: String,
    /// How to have kubectl ask the same.
    kubectl: String,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("context", &self.context).finish_non_exhaustive()
    }
}

/// What this tool reads of an application that manifest-apply left in the document.
#[derive(Deserialize)]
struct App {
    #[serde(default)]
    objects: Vec<ObjectRef>,
}

impl Cluster {
    /// The cluster of the flags, else of the document, else of the current context.
    ///
    /// # Errors
    /// The kubeconfig has no such context, or it cannot be used.
    pub async fn new(session: &Session, flags: &Flags) -> Result<Self> {
        let endpoint: Option<String> = session.doc.read(&["cluster", "endpoint"])?;
        let kube = KubeFlags { context: flags.context.clone(), kubeconfig: flags.kubeconfig.clone() };
        let (client, context) = session.kubeconfig_client(&kube, endpoint.as_deref()).await?;
        let file = flags.kubeconfig.as_ref().map(|file| file.display().to_string());
        let file = file.map(|file| format!(" --kubeconfig {}", quoted(&file)));
        let kubectl = format!("kubectl{} --context {}", file.unwrap_or_default(), quoted(&context));
        Ok(Self { client, context, kubectl })
    }

    pub fn context(&self) -> &str {
        &self.context
    }

    /// The URL of the application's first Service of type LoadBalancer, or of its only one; none if the document is a plan
    /// and the Service does not exist yet.
    ///
    /// # Errors
    /// There is none, there are several, or the API server's.
    pub async fn url(&self, session: &Session, app: Option<&str>) -> Result<Option<Url>> {
        let (app, references) = services(&session.doc, app)?;
        let mut found = Vec::new();
        for reference in references {
            let namespace = reference.namespace.as_deref().unwrap_or_else(|| self.client.default_namespace());
            let api = Api::<core::Service>::namespaced(self.client.clone(), namespace);
            let service = api.get_opt(&reference.name).await.map_err(refused);
            let task = || format!("get Service {namespace}/{} in context {}", reference.name, self.context);
            match service.with_context(task)? {
                Some(service) => found.push((namespace.to_owned(), reference.name, service)),
                None if session.doc.plans(&format!("apps.{app}"))? => return Ok(None),
                None => {
                    let none = Error::failed("there is no such Service").hint("is this the right --context?");
                    return Err(anyhow::Error::new(none).context(task()));
                }
            }
        }
        let (namespace, name, service) = choose(&app, &found)?;
        let Some(service) = Service::live(namespace, name, service) else {
            return Err(Error::failed(format!("Service {namespace}/{name} has no port")).into());
        };
        service.url().map(Some).map_err(|why| Error::failed(why).into())
    }

    /// Status and body of one answer, by the Service or a pod behind it.
    ///
    /// # Errors
    /// The API server does not let the caller through, has no such Service, or does not reach it.
    pub async fn get(&self, service: &Service, url: &Url, headers: &HeaderMap) -> Result<(u16, Vec<u8>)> {
        let mut request = http::Request::get(service.path(url)).body(Body::empty())?;
        request.headers_mut().extend(headers.clone());
        let response = self.client.send(request).await?;
        let status = response.status().as_u16();
        let (mut text, mut body) = (Vec::new(), response.into_body());
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            text.extend_from_slice(frame?.data_ref().map_or(&[], |data| data));
            if text.len() > LONGEST {
                break;
            }
        }
        match own_words(status, &text) {
            Some(status) => Err(denied(service, status)),
            None => Ok((status, text)),
        }
    }

    /// The error of what was asked here, with where that was.
    pub fn explained(&self, error: anyhow::Error, url: &Url) -> anyhow::Error {
        let Ok(service) = Service::of(url) else { return error };
        let (kind, hint) = classify(&error);
        let hint = match kind {
            Kind::Retry => Some(format!(
                "{} -n {} get endpointslices -l kubernetes.io/service-name={}: has it ready pods at that port?",
                self.kubectl, service.namespace, service.name
            )),
            _ => hint.map(str::to_owned),
        };
        let message = format!("ask Service {service} through the API server of context {}", self.context);
        error.context(Error { kind, message, hint })
    }

    /// A command that asks the same once.
    pub fn command(&self, url: &Url) -> String {
        let path = Service::of(url).map(|service| service.path(url)).unwrap_or_default();
        format!("{} get --raw {}", self.kubectl, quoted(&path))
    }
}

/// The Services of an application, the only one that has any unless it is chosen, with its name.
fn services(doc: &Document, chosen: Option<&str>) -> Result<(String, Vec<ObjectRef>)> {
    let apps: BTreeMap<String, App> = doc.read(&["apps"])?.unwrap_or_default();
    let apps = apps.into_iter().filter(|(name, _)| chosen.is_none_or(|chosen| chosen == name));
    let mut apps = apps.filter_map(|(name, App { mut objects })| {
        objects.retain(|object| object.kind == "Service" && object.api_version == "v1");
        (!objects.is_empty()).then_some((name, objects))
    });
    match (apps.next(), apps.next()) {
        (Some(only), None) => Ok(only),
        (Some((one, _)), Some((other, _))) => {
            Err(Error::usage(format!("{one} and {other} have Services: choose one with --app")).into())
        }
        (None, _) => {
            let hint = "give its URL, http://NAME.NAMESPACE.svc:PORT/PATH, or a document in which manifest-apply left it \
                        among apps.<name>.objects";
            Err(Error::usage("no Service to ask").hint(hint).into())
        }
    }
}

/// Of namespaces, names and Services the only one, or the first that has a load balancer.
fn choose<'a>(
    app: &str,
    found: &'a [(String, String, core::Service)],
) -> Result<&'a (String, String, core::Service), Error> {
    if let [only] = found {
        return Ok(only);
    }
    let balanced = |(_, _, service): &&(String, String, core::Service)| {
        service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
    };
    found.iter().find(balanced).ok_or_else(|| {
        let names: Vec<String> = found.iter().map(|(namespace, name, _)| format!("{namespace}/{name}")).collect();
        Error::usage(format!("{app} has several Services: {}", names.join(", ")))
            .hint("give the URL of one: http://NAME.NAMESPACE.svc:PORT/PATH")
    })
}

/// The API server's refusal, with the right that the caller lacks.
fn denied(service: &Service, status: Status) -> anyhow::Error {
    let code = status.code;
    let error = refused(KubeError::Api(status.boxed()));
    if code != 403 {
        return error;
    }
    let hint = format!("the caller needs the right to get services/proxy in namespace {}", service.namespace);
    let (kind, message) = (classify(&error).0, error.to_string());
    Error { kind, message, hint: Some(hint) }.into()
}

/// What the API server says itself; `None` if the Service answered.
fn own_words(code: u16, body: &[u8]) -> Option<Status> {
    if code < 400 {
        return None;
    }
    let of: TypeMeta = serde_json::from_slice(body).ok()?;
    (of.kind == "Status" && of.api_version == "v1").then(|| serde_json::from_slice(body).ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_only_application_with_services_is_asked_unless_one_is_chosen() {
        let object = |kind: &str, version: &str, name: &str| json!({"apiVersion": version, "kind": kind, "name": name, "namespace": "n"});
        let (front, pod) = (object("Service", "v1", "front"), object("Deployment", "apps/v1", "front"));
        let knative = object("Service", "serving.knative.dev/v1", "front");
        let app = |objects: &[&Value]| json!({"objects": objects, "endpoint": "http://lb:8080"});
        for (apps, chosen, found) in [
            (json!({"a": app(&[&front, &pod]), "b": app(&[&pod, &knative])}), None, Ok("a: front")),
            (
                json!({"a": app(&[&front]), "b": app(&[&front])}),
                None,
                Err("a and b have Services: choose one with --app"),
            ),
            (json!({"a": app(&[&front]), "b": app(&[&front])}), Some("b"), Ok("b: front")),
            (json!({"a": app(&[&front]), "b": {}}), Some("b"), Err("no Service to ask")),
            (json!({}), None, Err("no Service to ask")),
        ] {
            let doc = Document::parse("stdin", json!({"apps": apps}).to_string().as_bytes()).unwrap();
            let found_now = services(&doc, chosen).map(|(app, services)| format!("{app}: {}", services[0].name));
            let found_now = found_now.map_err(|error| error.to_string());
            assert_eq!(found_now.as_deref().map_err(String::as_str), found);
        }
    }

    #[test]
    fn of_several_services_the_one_with_a_load_balancer_is_asked() {
        let service = |name: &str, kind: &str| {
            let service = serde_json::from_value(json!({"metadata": {}, "spec": {"type": kind}})).unwrap();
            ("n".to_owned(), name.to_owned(), service)
        };
        let (inner, front) = (service("inner", "ClusterIP"), service("front", "LoadBalancer"));
        for (services, chosen) in [
            (vec![inner.clone()], Ok("inner")),
            (vec![inner.clone(), front.clone(), service("other", "LoadBalancer")], Ok("front")),
            (vec![inner.clone(), inner], Err("web has several Services: n/inner, n/inner")),
        ] {
            let found = choose("web", &services).map(|(_, name, _)| name.as_str());
            assert_eq!(found.map_err(|error| error.message), chosen.map_err(str::to_owned));
        }
    }

    #[test]
    fn the_words_of_the_api_server_are_told_from_those_of_a_service() {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "no endpoints available for service \"front\"", "reason": "ServiceUnavailable", "code": 503});
        let said = own_words(503, status.to_string().as_bytes()).map(|status| (status.code, status.message));
        assert_eq!(said, Some((503, "no endpoints available for service \"front\"".to_owned())));
        for (code, body) in [(200, status.to_string()), (503, "no healthy upstream".to_owned()), (404, "{}".to_owned())]
        {
            assert_eq!(own_words(code, body.as_bytes()), None, "{code} {body}");
        }
    }

    #[test]
    fn what_the_api_server_takes_for_its_own_is_refused() {
        let flags = |via_cluster| Flags { via_cluster, context: None, kubeconfig: None };
        let header = |name: &str| -> [Header; 1] { [(name.parse().unwrap(), Some("x".parse().unwrap()))] };
        for (flag, by_document, url, headers, wanted) in [
            (true, false, true, header("host"), Ok(true)),
            (false, true, false, header("host"), Ok(true)),
            (false, true, true, header("authorization"), Ok(false)),
            (true, false, false, header("authorization"), Err("authorization")),
            (true, false, false, header("impersonate-user"), Err("impersonate-user")),
        ] {
            let found = flags(flag).wanted(by_document, url, &headers).map_err(|error| error.to_string());
            let refused = |name| format!("the API server would take the header {name} for its own");
            assert_eq!(found, wanted.map_err(refused));
        }
        let aside = Flags { context: Some("c1".into()), ..flags(false) };
        assert!(aside.wanted(false, true, &[]).is_err());
    }
}
