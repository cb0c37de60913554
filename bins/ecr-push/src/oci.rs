//! Manifests, indexes and configurations of images, as far as a push reads or writes them.
//!
//! Our own types, with their fields in a fixed order: what is written decides the digest, so it must not change with
//! somebody else's release. Source of the shapes: the OCI image specification 1.1.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Media type of a manifest this tool writes.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a configuration this tool writes.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer this tool writes: a tar, not compressed.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a layer that zstd has compressed.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Media type of docker's own manifest, schema 2, which knows no zstd.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media types of an index.
pub const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Every kind of manifest that ECR keeps, as `Accept` names them.
pub const MANIFESTS: [&str; 4] = [MANIFEST, INDEXES[0], DOCKER_MANIFEST, INDEXES[1]];
/// The annotations that name an image in an OCI layout: the specification's, often the tag alone, and containerd's.
pub const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// Points at a blob or a manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    /// `sha256:…`
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// What an image of an index runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(skip_serializing)]
    pub annotations: Option<BTreeMap<String, String>>,
    /// What it is, being no image.
    #[serde(skip_serializing)]
    pub artifact_type: Option<String>,
    /// The content itself, in base64.
    #[serde(skip_serializing)]
    pub data: Option<String>,
    /// Where else the blob is; a layer that may not be distributed is only there.
    #[serde(skip_serializing)]
    pub urls: Option<Vec<String>>,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: &str, size: u64) -> Self {
        let (media_type, digest) = (media_type.to_owned(), digest.to_owned());
        Self {
            media_type,
            digest,
            size,
            platform: None,
            annotations: None,
            artifact_type: None,
            data: None,
            urls: None,
        }
    }

    /// The value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        Some(self.annotations.as_ref()?.get(name)?.as_str())
    }
}

/// What an image runs on; part of a configuration, too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// As Go spells it: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// `linux`
    #[serde(default)]
    pub os: String,
    /// Of the architecture: `v7` of `arm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// What the images of an index run on, as it says.
pub fn platforms(children: &[Descriptor]) -> BTreeSet<String> {
    children.iter().filter_map(|child| child.platform.as_ref()?.name()).collect()
}

impl Platform {
    /// Linux on an architecture.
    pub fn linux(architecture: &str) -> Self {
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// What a configuration says it runs on. One of something else than an image says nothing.
    pub fn of(config: &[u8]) -> Option<String> {
        serde_json::from_slice::<Self>(config).ok()?.name()
    }

    /// `linux/amd64`; `None` for what runs nowhere, such as an attestation.
    pub fn name(&self) -> Option<String> {
        let known = |word: &str| !word.is_empty() && word != "unknown";
        (known(&self.os) && known(&self.architecture)).then(|| format!("{}/{}", self.os, self.architecture))
    }
}

/// Any manifest, as read: of an image, of an artifact, or an index of such.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnyManifest {
    pub media_type: Option<String>,
    /// What it is, being no image.
    pub artifact_type: Option<String>,
    /// What it is about: a signature's image.
    pub subject: Option<Descriptor>,
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

/// An index of images, as written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    pub schema_version: u8,
    pub media_type: &'static str,
    pub manifests: Vec<Descriptor>,
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

#[derive(Debug, Serialize)]
pub struct RootFs {
    /// Digests of the layers as tars, before any compression.
    pub diff_ids: Vec<String>,
    #[serde(rename = "type")]
    pub kind: String,
}
