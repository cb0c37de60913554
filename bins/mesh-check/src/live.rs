//! Looks at a mesh that stands, through its cluster's Kubernetes API.

use crate::scene::{Around, Sample, Side, Template};
use crate::world::Fault;
use anyhow::{Context as _, Result};
use common::cluster::Cluster;
use common::kube::object::refused;
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::{Client, Resource, ResourceExt as _};
use mesh_api::{BackendGroup, GatewayRoute, Mesh, VirtualGateway, VirtualNode, VirtualRouter, VirtualService};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// The mesh of a cluster, as far as the caller may look at it; `None` if the cluster has none.
///
/// # Errors
/// App Mesh's objects cannot be listed: there is no mesh to be judged then.
pub async fn look(client: &Client, facts: &Cluster) -> Result<Option<Side>, Fault> {
    let mut side = Side { facts: Some(facts.clone()), ..Side::new(&facts.name) };
    let objects = objects(client);
    let pods = mesh_objects::items(client);
    let services = mesh_objects::items(client);
    let nodes = mesh_objects::items(client);
    let namespaces = mesh_objects::items::<Namespace>(client);
    let deployments = mesh_objects::items::<Deployment>(client);
    let mutating = mesh_objects::items(client);
    let validating = mesh_objects::items(client);
    let (objects, pods, services, nodes, namespaces, deployments, mutating, validating, definitions) = futures::join!(
        objects,
        pods,
        services,
        nodes,
        namespaces,
        deployments,
        mutating,
        validating,
        definitions(client)
    );
    let objects = objects.map_err(|error| Fault::of(&error))?;
    let installed = objects.is_some();
    for namespace in side.seen("namespaces", namespaces).into_iter().flatten() {
        let name = namespace.name_any();
        if name == "kube-system" {
            side.uid = namespace.uid();
        }
        side.objects.namespaces.insert(name, namespace.labels().clone());
    }
    objects.into_iter().flatten().for_each(|object| side.add(object));
    side.pods = side.seen("pods", pods);
    side.services = side.seen("Services", services);
    side.nodes = side.seen("nodes", nodes);
    side.deployments = side.seen("Deployments", deployments);
    side.mutating = side.seen("webhooks that change", mutating);
    side.validating = side.seen("webhooks that validate", validating);
    side.definitions = side.seen("CustomResourceDefinitions", definitions);
    side.templates = side.deployments.iter().flatten().filter_map(|it| template(&side, it)).collect();
    if side.controller().is_none() && !installed {
        return Ok(None);
    }
    around(client, &mut side).await;
    Ok(Some(side))
}

impl Side {
    /// What was looked at; what could not be is remembered.
    pub fn seen<T>(&mut self, what: &str, answer: Result<T>) -> Option<T> {
        answer.map_err(|error| self.unseen.push((what.to_owned(), Fault::of(&error)))).ok()
    }
}

/// All objects of App Mesh's kinds; `None` if the cluster does not have the kinds.
async fn objects(client: &Client) -> Result<Option<Vec<Value>>> {
    let all = futures::try_join!(
        list::<Mesh>(client),
        list::<VirtualNode>(client),
        list::<VirtualRouter>(client),
        list::<VirtualService>(client),
        list::<VirtualGateway>(client),
        list::<GatewayRoute>(client),
        list::<BackendGroup>(client),
    )?;
    let (meshes, nodes, routers, services, gateways, routes, groups) = all;
    let lists = [meshes, nodes, routers, services, gateways, routes, groups];
    if lists.iter().all(Option::is_none) {
        return Ok(None);
    }
    Ok(Some(lists.into_iter().flatten().flatten().collect()))
}

/// The objects of a kind as they are written, so that one that does not parse hides no other.
async fn list<K: Resource<DynamicType = ()>>(client: &Client) -> Result<Option<Vec<Value>>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<K>(&()));
    let listed = match api.list(&ListParams::default()).await {
        Ok(listed) => listed,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(refused(error)).with_context(|| format!("list {}", K::plural(&()))),
    };
    let written = listed.items.into_iter().map(|object| {
        let mut object = serde_json::to_value(object)?;
        object["apiVersion"] = K::api_version(&()).into();
        object["kind"] = K::kind(&()).into();
        Ok(object)
    });
    written.collect::<Result<_>>().map(Some)
}

/// The definitions of App Mesh's kinds.
async fn definitions(client: &Client) -> Result<Vec<CustomResourceDefinition>> {
    let all: Api<CustomResourceDefinition> = Api::all(client.clone());
    let names = mesh_api::crds::all().map(|definition| definition.name_any());
    let found = names.iter().map(async |name| get(&all, name).await);
    Ok(try_join_all(found).await?.into_iter().flatten().collect())
}

async fn get<K: Resource + Clone + DeserializeOwned + Debug>(api: &Api<K>, name: &str) -> Result<Option<K>> {
    api.get_opt(name).await.map_err(refused).with_context(|| format!("get {name}"))
}

fn template(side: &Side, deployment: &Deployment) -> Option<Template> {
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let failure = conditions.into_iter().find(|it| it.type_ == "ReplicaFailure" && it.status == "True");
    Some(Template {
        object: side.object(deployment),
        namespace: deployment.namespace()?,
        template: deployment.spec.as_ref()?.template.clone(),
        failure: failure.and_then(|failure| failure.message.clone()),
    })
}

/// What belongs to the controller.
async fn around(client: &Client, side: &mut Side) {
    let Some(controller) = side.controller().cloned() else { return };
    let (namespace, name) = (controller.namespace().unwrap_or_default(), controller.name_any());
    let account = side.account().map(|(_, name)| name).unwrap_or_default();
    let lease = side.options("lease").next().unwrap_or_default().to_owned();
    let secret = side.options("certificate-secret").next().unwrap_or_default().to_owned();
    let release = controller.labels().get("app.kubernetes.io/instance").unwrap_or(&name).clone();
    let pods: Vec<Pod> =
        side.controller_pods().into_iter().filter(|pod| crate::scene::holds(pod, "Ready")).cloned().collect();
    let (accounts, leases) = (Api::namespaced(client.clone(), &namespace), Api::namespaced(client.clone(), &namespace));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let slices = Api::namespaced(client.clone(), &namespace);
    let all = ListParams::default();
    // Amazon's has other options: it names neither.
    let named = async |name: &str| if name.is_empty() { Ok(None) } else { get(&leases, name).await };
    let of_secret = async |name: &str| if name.is_empty() { Ok(None) } else { get(&secrets, name).await };
    let (account, lease, certificate, slices, release, metrics) = futures::join!(
        get(&accounts, &account),
        named(&lease),
        of_secret(&secret),
        slices.list(&all),
        newest(&secrets, &release),
        join_all(pods.iter().map(|pod| metrics(client, pod))),
    );
    let slices = slices.map(|list| list.items).map_err(refused).context("list EndpointSlices");
    let metrics: Result<BTreeMap<_, _>> = metrics.into_iter().collect();
    side.around = Around {
        account: side.seen("the controller's service account", account),
        lease: side.seen("the controller's lease", lease),
        certificate: side.seen("the controller's certificate", certificate),
        slices: side.seen("the endpoints of the controller", slices),
        release: side.seen("the controller's Helm release", release),
        metrics: side.seen("the controller's metrics", metrics),
    };
}

/// Revision and state of the newest revision of a release; `None` if Helm has none. What is in it is not read.
async fn newest(secrets: &Api<Secret>, release: &str) -> Result<Option<(u32, String)>> {
    let params = ListParams::default().labels(&format!("owner=helm,name={release}"));
    let listed = secrets.list_metadata(&params).await.map_err(refused).context("list the revisions of its release")?;
    let revision = |secret: &kube::core::PartialObjectMeta<Secret>| {
        let labels = secret.labels();
        Some((labels.get("version")?.parse().ok()?, labels.get("status")?.clone()))
    };
    Ok(listed.items.iter().filter_map(revision).max_by_key(|(revision, _): &(u32, String)| *revision))
}

/// A replica's metrics, through the API server.
async fn metrics(client: &Client, pod: &Pod) -> Result<(String, Vec<Sample>)> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let port = pod.annotations().get("prometheus.io/port").map_or("8080", String::as_str);
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
    let request = http::Request::get(&path).body(Vec::new()).context("make a request")?;
    let text = client.request_text(request).await.map_err(refused).context("get pods/proxy")?;
    Ok((name, text.lines().filter_map(sample).collect()))
}

/// `name{label="value"} 1`; `None` for what is no sample.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok().filter(|_| !line.starts_with('#'))?;
    let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
    let label = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    };
    // The values are kinds, operations and codes of errors: none has a comma.
    let labels = labels.split(',').filter_map(label).collect();
    Some(Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_line_by_line() {
        let labels =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        for (line, expected) in [
            ("# HELP xds_streams Envoys that are connected.", None),
            ("# EOF", None),
            ("xds_streams 3", Some(Sample { name: "xds_streams".into(), labels: labels(&[]), value: 3.0 })),
            (
                "calls_total{operation=\"ListServices\",outcome=\"ok\"} 12",
                Some(Sample {
                    name: "calls_total".into(),
                    labels: labels(&[("operation", "ListServices"), ("outcome", "ok")]),
                    value: 12.0,
                }),
            ),
        ] {
            assert_eq!(sample(line), expected, "{line}");
        }
    }
}
