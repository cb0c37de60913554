//! An OCI layout: `index.json` names manifests, and they name blobs, all by digest.

use super::choose;
use super::store::Store;
use crate::image::{Blob, Image, Manifest, Part};
use crate::oci::{AnyManifest, Descriptor, Platform};
use anyhow::{Context, Result};

/// An index may name an index; deeper than this is no image. Source: what ECR and Docker accept is two.
const DEPTH: usize = 4;

pub fn image(store: &Store, index: &Part, tag: Option<&str>) -> Result<Image> {
    let index: AnyManifest = serde_json::from_slice(&index.bytes()?).context("read index.json")?;
    let entries = index.manifests.unwrap_or_default();
    let names = |entry: &Descriptor| vec![entry.ref_name().unwrap_or(&entry.digest).to_owned()];
    let mut image = Image::default();
    add(store, choose(&entries, tag, names)?, &mut image, DEPTH)?;
    Ok(image)
}

/// Adds what a descriptor of a manifest names, then the manifest.
fn add(store: &Store, descriptor: &Descriptor, image: &mut Image, depth: usize) -> Result<()> {
    let digest = &descriptor.digest;
    if depth == 0 {
        return Err(store.damaged(format!("{digest}: indexes within indexes")));
    }
    let bytes = blob(store, descriptor)?.ok_or_else(|| store.damaged(format!("lacks the manifest {digest}")))?;
    let manifest = Manifest::new(&descriptor.media_type, bytes.parts.first().context("empty")?.bytes()?);
    if manifest.digest != *digest {
        return Err(store.damaged(format!("the manifest {digest} is damaged: it is {}", manifest.digest)));
    }
    let read: AnyManifest =
        serde_json::from_slice(&manifest.bytes).with_context(|| format!("read the manifest {digest}"))?;
    for child in read.manifests.iter().flatten() {
        add(store, child, image, depth - 1)?;
    }
    if let Some(config) = &read.config {
        let blob = blob(store, config)?.ok_or_else(|| store.damaged(format!("lacks {}", config.digest)))?;
        image.platforms.extend(platform(&blob));
        image.add(blob);
    }
    for layer in read.layers.iter().flatten() {
        match blob(store, layer)? {
            Some(blob) => image.add(blob),
            None if layer.urls.iter().flatten().next().is_some() => {}
            None => return Err(store.damaged(format!("lacks {}", layer.digest))),
        }
    }
    if image.manifests.iter().all(|known| known.digest != manifest.digest) {
        image.manifests.push(manifest);
    }
    Ok(())
}

/// A blob by digest. Its content is not read: the registry refuses what does not have its digest.
fn blob(store: &Store, descriptor: &Descriptor) -> Result<Option<Blob>> {
    let digest = &descriptor.digest;
    let hex =
        digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_hexdigit()));
    let hex = hex.ok_or_else(|| store.damaged(format!("{digest} is no sha256 digest")))?;
    let Some(part) = store.find(&format!("blobs/sha256/{hex}"))? else { return Ok(None) };
    if part.size() != descriptor.size {
        return Err(store.damaged(format!("{digest} has {} bytes instead of {}", part.size(), descriptor.size)));
    }
    Ok(Some(Blob { digest: digest.clone(), size: descriptor.size, parts: vec![part] }))
}

/// What a configuration says it runs on. One of something else than an image says nothing.
pub fn platform(config: &Blob) -> Option<String> {
    let bytes = config.parts.first()?.bytes().ok()?;
    serde_json::from_slice::<Platform>(&bytes).ok()?.name()
}
