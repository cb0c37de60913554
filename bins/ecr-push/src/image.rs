//! An image as a registry wants it: blobs first, then the manifests that name them.

use anyhow::{Context, Result};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// An image, or an index of images for several platforms. It holds no layer in memory.
#[derive(Debug, Default)]
pub struct Image {
    /// Configurations and layers.
    pub blobs: Vec<Blob>,
    /// What an index names stands before it; the last one is the image.
    pub manifests: Vec<Manifest>,
    /// What it runs on, `linux/amd64`; empty when it does not say.
    pub platforms: BTreeSet<String>,
    /// Hold what was unpacked until the push is done.
    pub scratch: Vec<TempDir>,
}

impl Image {
    /// The manifest that is the image.
    pub fn top(&self) -> Result<&Manifest> {
        self.manifests.last().context("the image has no manifest")
    }

    /// Adds a blob, once.
    pub fn add(&mut self, blob: Blob) {
        if self.blobs.iter().all(|known| known.digest != blob.digest) {
            self.blobs.push(blob);
        }
    }
}

/// A manifest, byte for byte.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// `sha256:…`
    pub digest: String,
    pub media_type: String,
    pub bytes: Bytes,
}

impl Manifest {
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: sha256(&bytes), media_type: media_type.to_owned(), bytes }
    }
}

/// What a manifest names by digest.
#[derive(Debug, Clone)]
pub struct Blob {
    /// `sha256:…`
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// What it consists of, in order.
    pub parts: Vec<Part>,
}

impl Blob {
    /// Reads the parts through for their digest.
    pub fn of(parts: Vec<Part>) -> Result<Self> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        for part in &parts {
            let mut reader = part.reader()?;
            loop {
                match reader.read(&mut buffer).with_context(|| format!("read {part}"))? {
                    0 => break,
                    read => hash.update(&buffer[..read]),
                }
            }
        }
        Ok(Self {
            digest: format!("sha256:{}", hex::encode(hash.finalize())),
            size: parts.iter().map(Part::size).sum(),
            parts,
        })
    }
}

/// A piece of a blob: bytes in memory, or a stretch of a file that is read when it is sent.
#[derive(Debug, Clone)]
pub enum Part {
    Bytes(Bytes),
    File { path: Arc<Path>, offset: u64, size: u64 },
}

impl Part {
    /// A whole file.
    pub fn file(path: &Path) -> Result<Self> {
        let facts = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self::File { path: path.into(), offset: 0, size: facts.len() })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::File { size, .. } => *size,
        }
    }

    /// Reads exactly this part.
    pub fn reader(&self) -> Result<Box<dyn Read>> {
        Ok(match self {
            Part::Bytes(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Part::File { path, offset, size } => {
                let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
                file.seek(SeekFrom::Start(*offset)).with_context(|| format!("read {}", path.display()))?;
                Box::new(file.take(*size))
            }
        })
    }

    /// All of it, for what is small.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader()?.read_to_end(&mut bytes).with_context(|| format!("read {self}"))?;
        Ok(bytes)
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Part::File { path, .. } => path.display().fmt(f),
        }
    }
}

/// `sha256:…`
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
pub mod tests {
    use super::*;

    /// The entries of a layer: `MODE PATH`, as `tar` reads them.
    pub fn layer_entries(layer: &Blob) -> Vec<String> {
        let bytes: Vec<u8> = layer.parts.iter().flat_map(|part| part.bytes().unwrap()).collect();
        assert_eq!((sha256(&bytes), bytes.len() as u64), (layer.digest.clone(), layer.size));
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
            format!("{:o} {}", header.mode().unwrap(), entry.path().unwrap().display())
        });
        entries.collect()
    }
}
