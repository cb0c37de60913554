//! Manifests, indexes and configurations of images, as far as a push reads or writes them.
//!
//! Our own types, with their fields in a fixed order: what is written decides the digest, so it must not change with
//! somebody else's release. Source of the shapes: the OCI image specification 1.1.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Media type of a manifest this tool writes.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a configuration this tool writes.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer this tool writes: a tar, not compressed.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media types of an index.
pub const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Every kind of manifest that ECR keeps, as `Accept` names them.
pub const MANIFESTS: [&str; 4] =
    [MANIFEST, INDEXES[0], "application/vnd.docker.distribution.manifest.v2+json", INDEXES[1]];
/// The annotation that names an image in an OCI layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Points at a blob or a manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    /// `sha256:…`
    pub digest: String,
    /// Bytes.
    pub size: u64,
    #[serde(default, skip_serializing)]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Where else the blob is; a layer that may not be distributed is only there.
    #[serde(default, skip_serializing)]
    pub urls: Option<Vec<String>>,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: &str, size: u64) -> Self {
        let (media_type, digest) = (media_type.to_owned(), digest.to_owned());
        Self { media_type, digest, size, annotations: None, urls: None }
    }

    /// What the layout calls the image.
    pub fn ref_name(&self) -> Option<&str> {
        Some(self.annotations.as_ref()?.get(REF_NAME)?.as_str())
    }
}

/// What an image runs on; part of a configuration, too.
#[derive(Debug, Clone, Deserialize)]
pub struct Platform {
    /// As Go spells it: `amd64`, `arm64`.
    pub architecture: String,
    /// `linux`
    pub os: String,
}

impl Platform {
    /// `linux/amd64`; `None` for what runs nowhere, such as an attestation.
    pub fn name(&self) -> Option<String> {
        let known = |word: &str| !word.is_empty() && word != "unknown";
        (known(&self.os) && known(&self.architecture)).then(|| format!("{}/{}", self.os, self.architecture))
    }
}

/// Any manifest, as read: of an image, or an index of such.
#[derive(Debug, Deserialize)]
pub struct AnyManifest {
    /// Of an index.
    pub manifests: Option<Vec<Descriptor>>,
    /// Of an image.
    pub config: Option<Descriptor>,
    /// Of an image.
    pub layers: Option<Vec<Descriptor>>,
}

/// The manifest of an image, as written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    pub schema_version: u8,
    pub media_type: &'static str,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// A configuration, as written.
#[derive(Debug, Serialize)]
pub struct Config<'a> {
    pub architecture: &'a str,
    pub config: Execution,
    pub os: &'a str,
    pub rootfs: RootFs,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    pub entrypoint: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RootFs {
    /// Digests of the layers as tars, before any compression.
    pub diff_ids: Vec<String>,
    #[serde(rename = "type")]
    pub kind: String,
}
