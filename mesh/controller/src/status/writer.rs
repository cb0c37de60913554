//! Writes to the API server.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{
    Client, Resource,
    api::{ApiResource, DynamicObject, GetParams, ObjectMeta, Patch, PatchParams},
    core::Request,
};
use serde_json::Value;

use super::NAME;
use crate::{cluster, model::ObjectKey};

/// An object to write to, of any kind, also of one that does not parse.
pub struct Target<'a> {
    /// Its kind.
    pub resource: &'a ApiResource,
    /// Its metadata.
    pub metadata: &'a ObjectMeta,
}

impl Target<'_> {
    /// Names it.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            kind: self.resource.kind.clone().into(),
            namespace: self.metadata.namespace.clone().unwrap_or_default(),
            name: self.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Names it for events.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.resource.api_version.clone()),
            kind: Some(self.resource.kind.clone()),
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
            uid: self.metadata.uid.clone(),
            ..ObjectReference::default()
        }
    }
}

/// What became of a patch.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// The object as it is now.
    Object(Value),
    /// The object has changed meanwhile, so that the patch does not apply.
    Conflict,
    /// The object is gone.
    Gone,
}

/// Writes status and finalizers.
#[derive(Clone)]
pub struct Writer {
    client: Client,
}

impl Writer {
    /// Over a client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Patches the status of an object.
    pub async fn status(&self, target: &Target<'_>, patch: Value) -> anyhow::Result<Written> {
        let request =
            request(target).patch_subresource("status", name(target.metadata), &params(), &Patch::Merge(patch));
        self.send(request).await.with_context(|| format!("patching the status of {}", target.key()))
    }

    /// Patches the finalizers of an object.
    pub async fn finalizers(&self, target: &Target<'_>, patch: Value) -> anyhow::Result<Written> {
        let request = request(target).patch(name(target.metadata), &params(), &Patch::Merge(patch));
        self.send(request).await.with_context(|| format!("patching the finalizers of {}", target.key()))
    }

    /// Patches the conditions of a pod.
    pub async fn pod(&self, pod: &cluster::Pod, patch: Value) -> anyhow::Result<Written> {
        let request = Request::new(Pod::url_path(&(), Some(&pod.namespace)));
        let request = request.patch_subresource("status", &pod.name, &params(), &Patch::Strategic(patch));
        self.send(request).await.with_context(|| format!("patching the readiness gate of pod {}", pod.name))
    }

    /// The metadata of an object as it is now; `None` if it is gone, or another has its name.
    pub async fn newest(&self, target: &Target<'_>) -> anyhow::Result<Option<ObjectMeta>> {
        let request = request(target).get_metadata(name(target.metadata), &GetParams::default());
        let newest = self.send(request).await.with_context(|| format!("reading {}", target.key()))?;
        let Written::Object(mut newest) = newest else { return Ok(None) };
        let newest: ObjectMeta = serde_json::from_value(newest["metadata"].take())?;
        Ok(Some(newest).filter(|newest| newest.uid == target.metadata.uid))
    }

    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> anyhow::Result<Written> {
        match self.client.request(request?).await {
            Ok(object) => Ok(Written::Object(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Written::Gone),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Written::Conflict),
            Err(error) => Err(error.into()),
        }
    }
}

fn request(target: &Target<'_>) -> Request {
    Request::new(DynamicObject::url_path(target.resource, target.metadata.namespace.as_deref()))
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// With the name under which the API server records what was written.
fn params() -> PatchParams {
    PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() }
}
