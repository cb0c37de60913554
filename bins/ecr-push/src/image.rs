//! An image as a registry wants it: blobs first, then the manifests that name them.

use crate::oci::{self, AnyManifest, Descriptor, ImageIndex, ImageManifest, Platform};
use crate::remote::Remote;
use anyhow::{Context, Result};
use bytes::Bytes;
use sha2::{Digest, Sha256, Sha512};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// An image, or an index of images for several platforms. It holds no layer in memory.
#[derive(Debug, Default)]
pub struct Image {
    /// Configurations and layers.
    pub blobs: Vec<Blob>,
    /// What an index names stands before it; the last one is the image.
    pub manifests: Vec<Manifest>,
    /// What it runs on, `linux/amd64`; empty when it does not say.
    pub platforms: BTreeSet<String>,
    /// What its source has or names, too, and why it is not part of it.
    pub left_out: Vec<String>,
}

impl Image {
    /// An image that the repository has already: nothing that it names is looked at.
    pub fn there(manifest: Manifest) -> Self {
        let read = serde_json::from_slice::<AnyManifest>(&manifest.bytes).ok();
        let children = read.and_then(|read| read.manifests).unwrap_or_default();
        Self { platforms: oci::platforms(&children), manifests: vec![manifest], ..Self::default() }
    }

    /// The manifest that is the image.
    pub fn top(&self) -> Result<&Manifest> {
        self.manifests.last().context("the image has no manifest")
    }

    /// The digest of the manifest that is the image, and those of the others.
    pub fn digests(&self) -> (Option<String>, Vec<String>) {
        let mut digests: Vec<String> = self.manifests.iter().map(|manifest| manifest.digest.clone()).collect();
        (digests.pop(), digests)
    }

    /// Adds a blob, once.
    pub fn add(&mut self, blob: Blob) {
        if self.blobs.iter().all(|known| known.digest != blob.digest) {
            self.blobs.push(blob);
        }
    }

    /// Adds all of another image, which an index names.
    pub fn join(&mut self, other: Image) {
        other.blobs.into_iter().for_each(|blob| self.add(blob));
        for manifest in other.manifests {
            if self.manifests.iter().all(|known| known.digest != manifest.digest) {
                self.manifests.push(manifest);
            }
        }
        self.platforms.extend(other.platforms);
        self.left_out.extend(other.left_out);
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

    /// The manifest of an image that has none yet.
    pub fn of(config: &Blob, layers: Vec<Descriptor>) -> Result<Self> {
        let config = Descriptor::new(oci::CONFIG, &config.digest, config.size);
        let bytes =
            serde_json::to_vec(&ImageManifest { schema_version: 2, media_type: oci::MANIFEST, config, layers })?;
        Ok(Self::new(oci::MANIFEST, bytes))
    }

    /// The index of images that have none yet.
    pub fn index(manifests: Vec<Descriptor>) -> Result<Self> {
        let media_type = oci::INDEXES[0];
        let bytes = serde_json::to_vec(&ImageIndex { schema_version: 2, media_type, manifests })?;
        Ok(Self::new(media_type, bytes))
    }

    /// What points at it from an index.
    pub fn descriptor(&self, platform: Platform) -> Descriptor {
        let size = self.bytes.len() as u64;
        Descriptor { platform: Some(platform), ..Descriptor::new(&self.media_type, &self.digest, size) }
    }
}

/// What a manifest names by digest.
#[derive(Debug, Clone)]
pub struct Blob {
    /// `sha256:…`
    pub digest: String,
    /// Bytes.
    pub size: u64,
    pub content: Content,
}

/// Where a blob is read from when it is sent.
#[derive(Debug, Clone)]
pub enum Content {
    /// It consists of these, in this order.
    Parts(Vec<Part>),
    /// Another registry has it.
    Remote(Remote),
}

impl Blob {
    /// A blob of which the digest is known.
    pub fn known(digest: &str, part: Part) -> Self {
        Self { digest: digest.to_owned(), size: part.size(), content: Content::Parts(vec![part]) }
    }

    /// Reads the parts through for their digest.
    pub fn of(parts: Vec<Part>) -> Result<Self> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        for part in &parts {
            let mut reader = part.reader().with_context(|| format!("read {part}"))?;
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
            content: Content::Parts(parts),
        })
    }

    /// What it consists of, being on this machine.
    pub fn parts(&self) -> &[Part] {
        match &self.content {
            Content::Parts(parts) => parts,
            Content::Remote(_) => &[],
        }
    }

    /// All of it, for what is small and on this machine.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let parts = self.parts().iter().map(Part::bytes).collect::<Result<Vec<_>>>()?;
        Ok(parts.concat())
    }
}

/// A piece of a blob: bytes in memory, or a stretch of a file that is read when it is sent.
#[derive(Debug, Clone)]
pub enum Part {
    Bytes(Bytes),
    File { origin: Origin, offset: u64, size: u64 },
}

/// A file to read from: opened by its name when it is read, or open already and perhaps without a name.
#[derive(Debug, Clone)]
pub struct Origin {
    name: Arc<Path>,
    open: Option<Arc<File>>,
}

impl Origin {
    /// A file that stays open. `name` is how messages call it.
    pub fn open(name: &Path, file: File) -> Self {
        Self { name: name.into(), open: Some(file.into()) }
    }

    fn file(&self) -> io::Result<Arc<File>> {
        self.open.clone().map_or_else(|| File::open(&self.name).map(Arc::new), Ok)
    }
}

impl Part {
    /// A whole file.
    pub fn file(path: &Path) -> Result<Self> {
        let facts = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self::File { origin: Origin { name: path.into(), open: None }, offset: 0, size: facts.len() })
    }

    /// A whole file that stays open.
    pub fn open(name: &Path, file: File) -> Result<Self> {
        let facts = file.metadata().with_context(|| format!("read {}", name.display()))?;
        Ok(Self::File { origin: Origin::open(name, file), offset: 0, size: facts.len() })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::File { size, .. } => *size,
        }
    }

    /// Reads exactly this part.
    pub fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Part::Bytes(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Part::File { origin, offset, size } => {
                Box::new(Stretch { file: origin.file()?, offset: *offset }.take(*size))
            }
        })
    }

    /// All of it, for what is small.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.reader().and_then(|mut reader| reader.read_to_end(&mut bytes));
        read.with_context(|| format!("read {self}"))?;
        Ok(bytes)
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Part::File { origin, .. } => origin.name.display().fmt(f),
        }
    }
}

/// Reads a file from an offset on. The file has no position of its own: several parts of it are read at once.
struct Stretch {
    file: Arc<File>,
    offset: u64,
}

impl Read for Stretch {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// `sha256:…`
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The digest by the algorithm of another one, if that is known here.
pub fn digest(like: &str, bytes: &[u8]) -> Option<String> {
    match like.split_once(':')?.0 {
        "sha256" => Some(sha256(bytes)),
        "sha512" => Some(format!("sha512:{}", hex::encode(Sha512::digest(bytes)))),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
pub mod tests {
    use super::*;

    /// The entries of a layer: `MODE PATH`, as `tar` reads them.
    pub fn layer_entries(layer: &Blob) -> Vec<String> {
        let bytes: Vec<u8> = layer.bytes().unwrap();
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
