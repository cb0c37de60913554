//! Makes and changes the objects of the cluster, and what another cluster has in Cloud Map.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use aws_sdk_servicediscovery::{Client as CloudMap, types::OperationStatus};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, Pod, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::Request,
};
use serde_json::{Value, from_value, json};
use tokio::{process::Command, time::sleep};

use crate::mesh::{self, Mesh, NAME, node_name, pod_name, service_name};

/// Requests under way at once.
const CONCURRENCY: usize = 16;
/// Audience of the sidecars' tokens, and how many seconds they are good for.
const AUDIENCE: &str = "appmesh-controller";
const TOKEN_LIFE: i64 = 24 * 3600;
const CRDS: &str = "charts/appmesh-controller/crds/crds.yaml";
/// uid of the other cluster.
const OTHER: &str = "00000000-0000-4000-8000-000000000000";
const GATE: &str = "conditions.appmesh.k8s.aws/aws-cloudmap-healthy";

/// The cluster and Cloud Map.
#[derive(Clone)]
pub struct World {
    /// The API server of cluster 1.
    pub client: Client,
    cloudmap: CloudMap,
    /// What is in the cluster.
    pub mesh: Mesh,
}

impl World {
    /// Makes all objects and pods, each pod ready.
    ///
    /// # Errors
    /// The API server or Cloud Map refuses something.
    pub async fn make(mut mesh: Mesh) -> anyhow::Result<Self> {
        let client = Client::try_default().await.context("finding the API server")?;
        let aws = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
        let cloudmap = CloudMap::new(&aws);
        let made = cloudmap.create_http_namespace().name(NAME).send().await.context("CreateHttpNamespace")?;
        let namespace = finished(&cloudmap, &made.operation_id.context("no operation")?).await;
        kubectl(&["apply", "--server-side", "-f", CRDS]).await?;
        kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).await?;
        let labelled = json!({ "metadata": { "name": NAME, "labels": { "mesh": NAME } } });
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &from_value(labelled)?).await?;
        namespace?;
        let wanted = json!({
            "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "metadata": { "name": NAME },
            "spec": { "awsName": NAME, "namespaceSelector": { "matchLabels": { "mesh": NAME } } },
        });
        let create = Request::new("/apis/appmesh.k8s.aws/v1beta2/meshes");
        let create = create.create(&PostParams::default(), serde_json::to_vec(&wanted)?)?;
        let made: Value = client.request(create).await.context("creating the Mesh")?;
        mesh.uid = made["metadata"]["uid"].as_str().context("the Mesh has no uid")?.to_owned();
        let world = Self { client, cloudmap, mesh };
        world.fill().await?;
        Ok(world)
    }

    async fn fill(&self) -> anyhow::Result<()> {
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), NAME);
        while accounts.get_opt("default").await?.is_none() {
            sleep(Duration::from_millis(100)).await;
        }
        let services = (0..self.mesh.services())
            .flat_map(|service| [self.mesh.virtual_router(service), self.mesh.virtual_service(service)]);
        let nodes = (0..self.mesh.nodes).map(|node| self.mesh.virtual_node(node, &[]));
        let objects: Vec<_> = services.chain(nodes).collect();
        all(objects.into_iter().map(|object| self.create(object))).await?;
        let pods = (0..self.mesh.nodes).flat_map(|node| (0..self.mesh.pods).map(move |pod| (node, pod)));
        all(pods.map(|(node, pod)| async move {
            let name = pod_name(node, pod);
            self.make_pod(&name, node).await?;
            self.make_ready(&name, &mesh::address(node * self.mesh.pods + pod)).await
        }))
        .await
    }

    async fn create(&self, object: Value) -> anyhow::Result<()> {
        let kind = object["kind"].as_str().context("an object without a kind")?;
        let create = objects(kind).create(&PostParams::default(), serde_json::to_vec(&object)?)?;
        let created: kube::Result<Value> = self.client.request(create).await;
        created.with_context(|| format!("creating {kind} {}", object["metadata"]["name"]))?;
        Ok(())
    }

    async fn patch<P: serde::Serialize + std::fmt::Debug>(
        &self,
        kind: &str,
        name: &str,
        patch: &Patch<P>,
    ) -> anyhow::Result<()> {
        let patch = objects(kind).patch(name, &PatchParams::default(), patch)?;
        let patched: kube::Result<Value> = self.client.request(patch).await;
        patched.with_context(|| format!("changing {kind} {name}"))?;
        Ok(())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAME)
    }

    /// Makes a pod that is not ready.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn make_pod(&self, name: &str, node: usize) -> anyhow::Result<()> {
        let pods = Request::new(format!("/api/v1/namespaces/{NAME}/pods"));
        let create = pods.create(&PostParams::default(), serde_json::to_vec(&mesh::pod(name, node)?)?)?;
        let created: kube::Result<Value> = self.client.request(create).await;
        created.with_context(|| format!("creating pod {name}"))?;
        Ok(())
    }

    /// Makes a pod ready.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn make_ready(&self, name: &str, address: &str) -> anyhow::Result<()> {
        let status = Patch::Strategic(mesh::ready(address));
        let patched = self.pods().patch_status(name, &PatchParams::default(), &status).await;
        patched.with_context(|| format!("making pod {name} ready"))?;
        Ok(())
    }

    /// Deletes a pod.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn delete_pod(&self, name: &str) -> anyhow::Result<()> {
        self.pods().delete(name, &DeleteParams::default()).await.with_context(|| format!("deleting pod {name}"))?;
        Ok(())
    }

    /// A token of a pod as the kubelet would ask for it.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn token(&self, pod: &str) -> anyhow::Result<String> {
        let uid = self.pods().get_metadata(pod).await?.metadata.uid;
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.to_owned()),
            uid,
        };
        let spec = TokenRequestSpec {
            audiences: vec![AUDIENCE.to_owned()],
            bound_object_ref: Some(bound),
            expiration_seconds: Some(TOKEN_LIFE),
        };
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), NAME);
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let made = accounts.create_token_request("default", &PostParams::default(), &request).await?;
        Ok(made.status.context("a TokenRequest without a token")?.token)
    }

    /// Gives the first version of a service another weight.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn set_weight(&self, service: usize, weight: usize) -> anyhow::Result<()> {
        let path = "/spec/routes/0/httpRoute/action/weightedTargets/0/weight";
        let patch = from_value(json!([{ "op": "replace", "path": path, "value": weight }]))?;
        self.patch("VirtualRouter", &service_name(service), &Patch::Json::<()>(patch)).await
    }

    /// How many pods are registered as their readiness gates say, and how many objects are in force.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn settled(&self) -> anyhow::Result<(usize, usize)> {
        let all = ListParams::default();
        let registered = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|condition| condition.type_ == GATE && condition.status == "True")
        };
        let pods = self.pods().list(&all).await?.items.iter().filter(|pod| registered(pod)).count();
        let mut objects = 0;
        for kind in ["VirtualNode", "VirtualRouter", "VirtualService"] {
            let is_active = |object: &&Value| {
                let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
                conditions.into_iter().any(|condition| condition["status"] == "True")
            };
            let listed: Value = self.client.request(self::objects(kind).list(&all)?).await?;
            objects += listed["items"].as_array().into_iter().flatten().filter(is_active).count();
        }
        Ok((pods, objects))
    }

    /// Registers instances of another cluster in Cloud Map, one in each of these services, with its journal, and has a node
    /// call them. Services that are there already stay as they are. Returns the addresses.
    ///
    /// # Errors
    /// The API server or Cloud Map refuses something.
    pub async fn call_remote(&self, node: usize, services: usize) -> anyhow::Result<Vec<String>> {
        let namespaces = self.cloudmap.list_namespaces().send().await?.namespaces.unwrap_or_default();
        let namespace = namespaces.into_iter().find(|namespace| namespace.name.as_deref() == Some(NAME));
        let namespace = namespace.and_then(|namespace| namespace.id).context("the Cloud Map namespace is gone")?;
        let pages = self.cloudmap.list_services().into_paginator().send();
        let pages = pages.collect::<Result<Vec<_>, _>>().await.context("ListServices")?;
        let there = pages.into_iter().flat_map(|page| page.services.unwrap_or_default());
        let there: BTreeMap<_, _> = there.filter_map(|one| Some((one.name?, one.id?))).collect();
        let journal = there.get("appmesh.journal").context("the controller keeps no journal")?;
        self.register(journal, OTHER, &[("version", "1"), ("term", "1"), ("count", "0")]).await?;
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        for number in 0..services {
            let (name, address) = (format!("remote-{number}"), format!("100.127.0.{number}"));
            if !there.contains_key(&name) {
                let made = self.cloudmap.create_service().namespace_id(&namespace).name(&name).send().await?;
                let service = made.service.and_then(|service| service.id).context("no service")?;
                let reached = [("AWS_INSTANCE_IPV4", address.as_str()), ("AWS_INSTANCE_PORT", "8080")];
                self.register(&service, &address, &reached).await?;
                self.create(self.mesh.remote_node(&name)).await?;
                self.create(self.mesh.remote_service(&name)).await?;
            }
            names.push(name);
            addresses.push(address);
        }
        let wanted = self.mesh.virtual_node(node, &names);
        let patch = Patch::Merge(json!({ "spec": { "backends": wanted["spec"]["backends"] } }));
        self.patch("VirtualNode", &node_name(node), &patch).await?;
        Ok(addresses)
    }

    /// Registers an instance of another cluster.
    async fn register(&self, service: &str, id: &str, attributes: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut register = self.cloudmap.register_instance().service_id(service).instance_id(id);
        for (key, value) in attributes.iter().chain(&[("appmesh.k8s.aws/cluster", OTHER)]) {
            register = register.attributes(*key, *value);
        }
        finished(&self.cloudmap, &register.send().await?.operation_id.context("no operation")?).await
    }
}

/// Requests about the objects of a kind. As JSON: kube's DynamicObject knows no numbers of arbitrary precision, nor do
/// typed pods that are made from it.
fn objects(kind: &str) -> Request {
    Request::new(format!("/apis/appmesh.k8s.aws/v1beta2/namespaces/{NAME}/{}s", kind.to_lowercase()))
}

/// Does all of it, some at once.
///
/// # Errors
/// The first error ends it.
pub async fn all(work: impl IntoIterator<Item = impl Future<Output = anyhow::Result<()>>>) -> anyhow::Result<()> {
    stream::iter(work).map(Ok).try_buffer_unordered(CONCURRENCY).try_collect().await
}

async fn finished(cloudmap: &CloudMap, operation: &str) -> anyhow::Result<()> {
    loop {
        let answer = cloudmap.get_operation().operation_id(operation).send().await.context("GetOperation")?;
        match answer.operation.and_then(|operation| operation.status) {
            Some(OperationStatus::Success) => return Ok(()),
            Some(OperationStatus::Fail) => anyhow::bail!("an operation of Cloud Map has failed"),
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn kubectl(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("kubectl").args(["--context", "c1"]).args(arguments).output().await.context("kubectl")?;
    ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}
