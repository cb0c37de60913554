//! Answers the API server before it stores an object: fills in defaults, refuses, injects the sidecar.

pub mod annotations;
mod defaults;
mod gateway;
mod inject;
pub mod limits;
mod mounts;
mod observability;
pub mod sidecar;
mod validate;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use axum::{Json, Router, extract::DefaultBodyLimit, extract::State, routing};
use kube::{
    Client, ResourceExt as _,
    core::{
        DynamicObject,
        admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation},
    },
};
use mesh_api::{
    GatewayRoute, Mesh, MeshMember, MeshObject, MeshReference, VirtualGateway, VirtualGatewayReference, VirtualNode,
    VirtualRouter, VirtualService,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Cluster, Object, Objects, Snapshot, kinds::Selecting},
    model::Account,
    tls::{Served, TlsListener},
    translate::{self, Check, Place, membership},
};
use annotations::INJECT;
use inject::Injected;
use sidecar::Sidecar;
use validate::{check_backends, check_immutable, parse};

/// Bytes; two objects of the size that etcd takes, the new and the old one, fit.
const LARGEST_REVIEW: usize = 8 << 20;

/// The webhook.
pub struct Admission {
    /// The cluster as it is known here.
    pub cluster: Cluster,
    /// For what has not arrived here yet.
    pub client: Client,
    /// The account whose ARNs may be backends.
    pub account: Account,
    /// What a sidecar looks like.
    pub sidecar: Sidecar,
    /// With the authority that sidecars are to trust.
    pub served: Served,
}

type Request = AdmissionRequest<DynamicObject>;
type Review = AdmissionReview<DynamicObject>;

/// An admitted object.
#[derive(Default)]
struct Granted {
    /// The object to store, if it is another than the request's.
    object: Option<Value>,
    /// What kubectl prints as warnings.
    warnings: Vec<String>,
}

impl Admission {
    /// Answers until `stop`, and ends when the last answer is given.
    ///
    /// # Errors
    /// The listener breaks.
    pub async fn serve(self, listener: TlsListener, stop: CancellationToken) -> anyhow::Result<()> {
        let router = Router::new()
            .route("/mutate", routing::post(mutate))
            .route("/validate", routing::post(validate))
            .route("/inject", routing::post(inject))
            .route("/readyz", routing::get(|| async { "ok" }))
            .layer(DefaultBodyLimit::max(LARGEST_REVIEW))
            .with_state(Arc::new(self));
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.context("serving admission")
    }

    /// The object with its defaults.
    async fn mutate(&self, request: &Request) -> anyhow::Result<Granted> {
        let kind = request.kind.kind.as_str();
        let mut object = json!(request.object);
        let mut name = request.name.clone();
        if request.operation == Operation::Create && name.is_empty() {
            name = defaults::generated_name(&mut object)?;
        }
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(Granted::default()) };
        match request.operation {
            Operation::Create => {
                let namespace = request.namespace.as_deref().unwrap_or_default();
                let aws_name = default_aws_name(kind, &name, namespace);
                let labels = request.object.as_ref().and_then(|object| object.metadata.labels.clone());
                let references = match kind {
                    "Mesh" => Vec::new(),
                    "GatewayRoute" => {
                        let (mesh, gateway) = self.gateway(namespace, &name, &labels.unwrap_or_default()).await?;
                        vec![("meshRef", json!(mesh)), ("virtualGatewayRef", json!(gateway))]
                    }
                    _ => vec![("meshRef", json!(self.mesh(namespace).await?))],
                };
                defaults::created(kind, spec, aws_name, &references)?;
            }
            Operation::Update => defaults::updated(spec, &json!(request.old_object)),
            _ => return Ok(Granted::default()),
        }
        Ok(Granted { object: Some(object), warnings: Vec::new() })
    }

    async fn mesh(&self, namespace: &str) -> anyhow::Result<MeshReference> {
        self.decide(namespace, |snapshot| mesh_reference(snapshot, namespace)).await
    }

    /// The Mesh and the VirtualGateway of a GatewayRoute.
    async fn gateway(
        &self,
        namespace: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> anyhow::Result<(MeshReference, VirtualGatewayReference)> {
        self.decide(namespace, |snapshot| {
            let mesh = mesh_reference(snapshot, namespace)?;
            let gateway = membership::gateway_of_route(snapshot, namespace, name, labels)?;
            ensure!(
                gateway.mesh_ref() == Some(&mesh),
                "virtualGateway {} of gatewayRoute {name} is not of mesh {}",
                gateway.name_any(),
                mesh.name
            );
            let (namespace, uid) = (gateway.namespace(), gateway.uid().unwrap_or_default());
            Ok((mesh, VirtualGatewayReference { namespace, name: gateway.name_any(), uid }))
        })
        .await
    }

    /// Decides by what is known here; what that cannot grant is asked of the API server, for a Mesh made a moment ago may
    /// not have arrived yet.
    async fn decide<T>(&self, namespace: &str, decision: impl Fn(&Snapshot) -> anyhow::Result<T>) -> anyhow::Result<T> {
        match decision(&self.cluster.snapshot()) {
            Ok(granted) => Ok(granted),
            Err(_) => decision(&Snapshot::ask(&self.client, namespace).await?),
        }
    }

    /// Refuses what cannot be supported, and warns of what is ignored.
    fn validate(&self, request: &Request) -> anyhow::Result<Granted> {
        let kind = request.kind.kind.as_str();
        let Some(object) = &request.object else { return Ok(Granted::default()) };
        let leaving = object.metadata.deletion_timestamp.is_some();
        let (object, old) = (json!(object), json!(request.old_object));
        if request.operation == Operation::Update {
            // An object that another controller left with fields that are not served can still be labelled or deleted.
            if leaving || object["spec"] == old["spec"] {
                return Ok(Granted::default());
            }
            check_immutable(kind, &object, &old)?;
        }
        check_backends(kind, &object)?;
        let snapshot = self.cluster.snapshot();
        let unknown = match kind {
            "Mesh" => parse::<Mesh>(&object, Place { account: &self.account, mesh: None })?.unknown,
            "BackendGroup" => self.validate_member(&object, &snapshot, &snapshot.backend_groups)?,
            "VirtualNode" => self.validate_member(&object, &snapshot, &snapshot.virtual_nodes)?,
            "VirtualRouter" => self.validate_member(&object, &snapshot, &snapshot.virtual_routers)?,
            "VirtualService" => self.validate_member(&object, &snapshot, &snapshot.virtual_services)?,
            "VirtualGateway" => self.validate_member(&object, &snapshot, &snapshot.virtual_gateways)?,
            "GatewayRoute" => self.validate_member(&object, &snapshot, &snapshot.gateway_routes)?,
            _ => bail!("{kind}: not supported by this controller"),
        };
        let warnings = unknown.into_iter().map(|path| format!("unknown field {path:?}")).collect();
        Ok(Granted { object: None, warnings })
    }

    /// Validates a member of a mesh; returns the fields that are ignored.
    fn validate_member<K>(
        &self,
        object: &Value,
        snapshot: &Snapshot,
        others: &Objects<K>,
    ) -> anyhow::Result<Vec<String>>
    where
        K: Check + MeshMember + Selecting + Serialize + DeserializeOwned,
    {
        let mesh = object["spec"]["meshRef"]["name"].as_str().and_then(|mesh| snapshot.mesh(mesh));
        let account = mesh.map_or_else(|| self.account.clone(), |mesh| translate::owner(&self.account, mesh));
        let mesh = mesh.map(|mesh| mesh.aws_name());
        let object = parse::<K>(object, Place { account: &account, mesh: mesh.as_deref() })?;
        check_unique::<K>(&object, others)?;
        Ok(object.unknown)
    }

    /// The pod with its sidecar.
    async fn inject(&self, request: &Request) -> anyhow::Result<Granted> {
        let namespace = request.namespace.as_deref().context("a pod without namespace")?;
        let served = self.served.borrow().clone().context("no certificate yet")?;
        let pod = json!(request.object);
        let decision = |snapshot: &Snapshot| {
            let injected = inject::inject(&pod, namespace, snapshot, &self.sidecar, &served.authority)?;
            Ok(injected
                .map_or_else(Granted::default, |Injected { pod, warnings }| Granted { object: Some(pod), warnings }))
        };
        // Pods of labelled namespaces are asked about, and no others: what is known of this one is from before.
        if !self.cluster.snapshot().namespaces.get(namespace).is_some_and(|labels| labels.contains_key(INJECT)) {
            return decision(&Snapshot::ask(&self.client, namespace).await?);
        }
        self.decide(namespace, decision).await
    }
}

fn mesh_reference(snapshot: &Snapshot, namespace: &str) -> anyhow::Result<MeshReference> {
    let mesh = membership::mesh_of_new_member(snapshot, namespace)?;
    Ok(MeshReference { name: mesh.name_any(), uid: mesh.uid().unwrap_or_default() })
}

/// What `spec.awsName` is filled in with; none for a kind without.
fn default_aws_name(kind: &str, name: &str, namespace: &str) -> Option<String> {
    Some(match kind {
        "BackendGroup" => return None,
        "Mesh" => Mesh::default_aws_name(name, namespace),
        "VirtualService" => VirtualService::default_aws_name(name, namespace),
        "VirtualRouter" => VirtualRouter::default_aws_name(name, namespace),
        "VirtualGateway" => VirtualGateway::default_aws_name(name, namespace),
        "GatewayRoute" => GatewayRoute::default_aws_name(name, namespace),
        _ => VirtualNode::default_aws_name(name, namespace),
    })
}

/// Refuses a name in AWS's terms that another object of the same kind and mesh has: each would undo what the other says.
fn check_unique<K: MeshMember>(object: &K, others: &Objects<K>) -> anyhow::Result<()> {
    let same = |other: &&Arc<Object<K>>| {
        (other.name_any(), other.namespace()) != (object.name_any(), object.namespace())
            && other.meta().deletion_timestamp.is_none()
            && other.mesh_ref() == object.mesh_ref()
            && other.aws_name() == object.aws_name()
    };
    let other = others.iter().find(same);
    ensure!(
        other.is_none(),
        "spec.awsName: {} is the name of {}/{} too",
        object.aws_name(),
        other.and_then(|other| other.namespace()).unwrap_or_default(),
        other.map(|other| other.name_any()).unwrap_or_default()
    );
    Ok(())
}

async fn mutate(State(admission): State<Arc<Admission>>, Json(review): Json<Review>) -> Json<Review> {
    answer(review, async |request| admission.mutate(request).await).await
}

async fn validate(State(admission): State<Arc<Admission>>, Json(review): Json<Review>) -> Json<Review> {
    answer(review, async |request| admission.validate(request)).await
}

async fn inject(State(admission): State<Arc<Admission>>, Json(review): Json<Review>) -> Json<Review> {
    answer(review, async |request| admission.inject(request).await).await
}

/// The answer: granted, granted with changes, or refused with the reason that the user reads.
async fn answer(review: Review, decide: impl AsyncFnOnce(&Request) -> anyhow::Result<Granted>) -> Json<Review> {
    let request: Request = match review.try_into() {
        Ok(request) => request,
        Err(error) => return Json(AdmissionResponse::invalid(error).into_review()),
    };
    let response = AdmissionResponse::from(&request);
    let answered = decide(&request).await.and_then(|Granted { object, warnings }| {
        let mut response = response.clone();
        response.warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
        let Some(object) = object else { return Ok(response) };
        // Through JSON, for kube uses an older json-patch's type.
        let patch = serde_json::from_value(json!(json_patch::diff(&json!(request.object), &object)))?;
        Ok(response.with_patch(patch)?)
    });
    let response = answered.unwrap_or_else(|error| {
        let (kind, name) = (&request.kind.kind, &request.name);
        tracing::info!(kind, namespace = request.namespace, name, "refused: {error:#}");
        response.deny(format!("{error:#}"))
    });
    Json(response.into_review())
}
