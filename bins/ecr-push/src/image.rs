//! An image as a registry wants it: blobs and the manifests that name them.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Bytes and their digest.
#[derive(Debug, Clone)]
pub struct Blob {
    /// `sha256:…`
    pub digest: String,
    /// The content.
    pub bytes: Bytes,
}

impl Blob {
    /// Hashes the content.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: digest(&bytes), bytes }
    }
}

/// A manifest or an index.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its content.
    pub blob: Blob,
    /// Its media type.
    pub media_type: String,
}

/// All that must be sent, the top manifest last.
#[derive(Debug)]
pub struct Image {
    /// Digest of the top manifest or index.
    pub digest: String,
    /// Layers and configurations.
    pub blobs: Vec<Blob>,
    /// Manifests in the order in which they may be put.
    pub manifests: Vec<Manifest>,
    /// As the image configuration spells them, e.g. `amd64`; empty when unknown.
    pub architectures: Vec<String>,
}

/// `sha256:` and the hash in hex.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
