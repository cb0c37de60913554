//! An OCI layout: `index.json` names manifests, and they name blobs, all by digest.

use super::choose;
use super::packing::Packing;
use super::store::Store;
use crate::image::{Blob, Image, Manifest, Part, digest, sha256};
use crate::oci::{AnyManifest, DOCKER_MANIFEST, Descriptor, INDEXES, NAMES, Platform};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::Error;
use serde_json::Value;
use std::collections::BTreeSet;

/// An index may name an index; deeper than this is no image. Source: what ECR and Docker accept is two.
const DEPTH: usize = 4;

/// The annotation by which cosign tells an image from what belongs to it, and how its values begin.
const COSIGN: (&str, &str) = ("kind", "dev.cosignproject.cosign/");
/// The annotations by which BuildKit says what an attestation is, and which image it is about.
const ATTESTATION: (&str, &str) = ("vnd.docker.reference.type", "vnd.docker.reference.digest");

/// A manifest that `index.json` names, with all the names it goes by there.
struct Entry {
    descriptor: Descriptor,
    names: BTreeSet<String>,
}

/// How much of an image an archive holds.
enum Held {
    Whole(Image),
    /// All but what has this digest, or more.
    Lacks(String),
}

pub fn image(store: &Store, list: &Part, tag: Option<&str>) -> Result<Image> {
    let manifest = Manifest::new(INDEXES[0], list.bytes()?);
    let read: AnyManifest =
        serde_json::from_slice(&manifest.bytes).with_context(|| format!("{store}: read index.json"))?;
    let all = entries(read.manifests.unwrap_or_default());
    let (mut images, mut beside): (Vec<Entry>, Vec<Entry>) =
        all.into_iter().partition(|entry| is_image(store, &entry.descriptor));
    if images.is_empty() {
        // An artifact by itself is welcome.
        std::mem::swap(&mut images, &mut beside);
    }
    let held = if are_platforms(&images) {
        let platforms = images.into_iter().map(|entry| entry.descriptor).collect();
        index(store, manifest, platforms, DEPTH)?
    } else {
        let names = |entry: &Entry| match entry.names.is_empty() {
            true => vec![entry.descriptor.digest.clone()],
            false => entry.names.iter().cloned().collect(),
        };
        held(store, &choose(store, &images, tag, names)?.descriptor, DEPTH)?
    };
    let mut image = match held {
        Held::Whole(image) => image,
        Held::Lacks(digest) => return Err(store.damaged(format!("lacks {digest}"))),
    };
    let beside = beside.iter().map(|entry| format!("{} beside the image: it is none", entry.descriptor.digest));
    image.left_out.extend(beside);
    if let Some(top) = image.manifests.last_mut() {
        // Registries name a manifest by its sha256, whatever the layout does.
        top.digest = sha256(&top.bytes);
    }
    Ok(image)
}

/// Each manifest once.
fn entries(descriptors: Vec<Descriptor>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for descriptor in descriptors {
        let names = NAMES.iter().filter_map(|name| descriptor.annotation(name)).map(str::to_owned).collect();
        match entries.iter_mut().find(|known| known.descriptor.digest == descriptor.digest) {
            Some(known) => known.names.extend(names),
            None => entries.push(Entry { descriptor, names }),
        }
    }
    entries
}

/// Whether it is an image, or an index of such: not a signature, an attestation or another artifact.
fn is_image(store: &Store, descriptor: &Descriptor) -> bool {
    if let Some(kind) = descriptor.annotation(COSIGN.0).and_then(|kind| kind.strip_prefix(COSIGN.1)) {
        return kind.starts_with("image");
    }
    if is_attestation(descriptor) || descriptor.artifact_type.is_some() {
        return false;
    }
    let content = blob(store, descriptor).ok().flatten().and_then(|blob| blob.bytes().ok());
    let Some(read) = content.and_then(|bytes| serde_json::from_slice::<AnyManifest>(&bytes).ok()) else { return true };
    let layers = read.layers.unwrap_or_default();
    // A layer is a tar of some kind; cosign's manifests say in no other way that they are none of an image.
    let has_layers = layers.is_empty() || layers.iter().any(|layer| layer.media_type.contains("tar"));
    read.artifact_type.is_none() && read.subject.is_none() && has_layers
}

fn is_attestation(descriptor: &Descriptor) -> bool {
    let nowhere = descriptor.platform.as_ref().is_some_and(|platform| platform.name().is_none());
    nowhere || descriptor.annotation(ATTESTATION.0).is_some()
}

/// Whether they are one image, for a platform each, under the same name or none.
fn are_platforms(images: &[Entry]) -> bool {
    let platforms: BTreeSet<_> = images.iter().filter_map(|entry| entry.descriptor.platform.as_ref()).collect();
    let names: BTreeSet<_> = images.iter().map(|entry| &entry.names).collect();
    images.len() > 1 && platforms.len() == images.len() && names.len() == 1
}

/// What the archive holds of a manifest and all that it names.
fn held(store: &Store, descriptor: &Descriptor, depth: usize) -> Result<Held> {
    let named = &descriptor.digest;
    if depth == 0 {
        return Err(store.damaged(format!("{named}: indexes within indexes")));
    }
    let Some(blob) = blob(store, descriptor)? else { return Ok(Held::Lacks(named.clone())) };
    let bytes = blob.bytes()?;
    let found = digest(named, &bytes).unwrap_or_default();
    if found != *named {
        return Err(store.damaged(format!("the manifest {named} is damaged: it is {found}")));
    }
    let read: AnyManifest =
        serde_json::from_slice(&bytes).with_context(|| format!("{store}: read the manifest {named}"))?;
    // What it says itself counts, as it does for a registry.
    let media_type = read.media_type.unwrap_or_else(|| descriptor.media_type.clone());
    let manifest = Manifest { digest: named.clone(), media_type, bytes: bytes.into() };
    match (read.manifests, read.config, read.layers) {
        (Some(children), ..) => index(store, manifest, children, depth),
        (None, None, None) => Err(store.damaged(format!("{named} is neither a manifest nor an index"))),
        (None, config, layers) => single(store, manifest, config, layers.unwrap_or_default()),
    }
}

/// An image for one platform.
fn single(store: &Store, manifest: Manifest, config: Option<Descriptor>, layers: Vec<Descriptor>) -> Result<Held> {
    let mut image = Image::default();
    if let Some(config) = config {
        let Some(blob) = blob(store, &config)? else { return Ok(Held::Lacks(config.digest)) };
        image.platforms.extend(Platform::of(&blob.bytes()?));
        image.add(blob);
    }
    for layer in layers {
        match blob(store, &layer)? {
            Some(blob) if manifest.media_type == DOCKER_MANIFEST && is_zstd(store, &layer, &blob)? => {
                let what = format!("{}: layer {} is compressed with zstd", manifest.digest, layer.digest);
                let error = Error::failed(format!("{store}: {what}, which a docker schema 2 manifest has no word for"));
                return Err(error.hint("save it with OCI media types: docker buildx build --output type=oci,…").into());
            }
            Some(blob) => image.add(blob),
            None if layer.urls.iter().flatten().next().is_some() => {}
            None => return Ok(Held::Lacks(layer.digest)),
        }
    }
    image.manifests.push(manifest);
    Ok(Held::Whole(image))
}

fn is_zstd(store: &Store, layer: &Descriptor, blob: &Blob) -> Result<bool> {
    let Some(part) = blob.parts().first() else { return Ok(false) };
    let packing = part.reader().and_then(Packing::of).with_context(|| format!("{store}: read {}", layer.digest))?.0;
    Ok(packing == Packing::Zstd || layer.media_type.ends_with("zstd"))
}

/// An index, byte for byte when all that it names is there; else one of the images that are there, with what is about
/// them; of a single one no index, but the image itself.
fn index(store: &Store, index: Manifest, children: Vec<Descriptor>, depth: usize) -> Result<Held> {
    let (mut there, mut lacking) = (Vec::new(), Vec::new());
    for child in children {
        match held(store, &child, depth - 1)? {
            Held::Whole(image) => there.push((child, image)),
            Held::Lacks(digest) => lacking.push((child, digest)),
        }
    }
    let digests = |there: &[(Descriptor, Image)]| there.iter().map(|(child, _)| child.digest.clone()).collect();
    if let Some((_, digest)) = lacking.first() {
        let all: BTreeSet<String> = digests(&there);
        there.retain(|(child, _)| child.annotation(ATTESTATION.1).is_none_or(|about| all.contains(about)));
        if there.iter().all(|(child, _)| is_attestation(child)) {
            return Ok(Held::Lacks(digest.clone()));
        }
    }
    let left_out = lacking.iter().map(|(child, digest)| format!("{}: the archive lacks {digest}", title(child)));
    let mut image = Image { left_out: left_out.collect(), ..Image::default() };
    let is_alone = there.len() == 1 && !lacking.is_empty();
    let kept = digests(&there);
    there.into_iter().for_each(|(_, part)| image.join(part));
    if !is_alone {
        image.manifests.push(cut_down(index, &kept)?);
    }
    Ok(Held::Whole(image))
}

/// The index without what is not kept.
fn cut_down(index: Manifest, kept: &BTreeSet<String>) -> Result<Manifest> {
    let mut value: Value = serde_json::from_slice(&index.bytes)?;
    let Some(entries) = value["manifests"].as_array_mut() else { return Ok(index) };
    let all = entries.len();
    entries.retain(|entry| entry["digest"].as_str().is_some_and(|digest| kept.contains(digest)));
    if entries.len() == all {
        return Ok(index);
    }
    Ok(Manifest::new(&index.media_type, serde_json::to_vec(&value)?))
}

fn title(descriptor: &Descriptor) -> String {
    let platform = descriptor.platform.as_ref().and_then(Platform::name);
    let kind = descriptor.annotation(ATTESTATION.0);
    platform.or(kind.map(str::to_owned)).unwrap_or_else(|| descriptor.digest.clone())
}

/// A blob by digest, from its file or from its descriptor. The content of a file is not read: the registry refuses what
/// does not have its digest.
fn blob(store: &Store, descriptor: &Descriptor) -> Result<Option<Blob>> {
    let named = &descriptor.digest;
    let file = file_name(named).ok_or_else(|| store.damaged(format!("{named} is no sha256 or sha512 digest")))?;
    let part = match (store.find(&file)?, &descriptor.data) {
        (Some(part), _) => part,
        (None, Some(data)) => {
            let bytes = STANDARD.decode(data).unwrap_or_default();
            if digest(named, &bytes).as_ref() != Some(named) {
                return Err(store.damaged(format!("{named} is not what the data in its descriptor is")));
            }
            Part::Bytes(bytes.into())
        }
        (None, None) => return Ok(None),
    };
    if part.size() != descriptor.size {
        return Err(store.damaged(format!("{named} has {} bytes instead of {}", part.size(), descriptor.size)));
    }
    Ok(Some(Blob::known(named, part)))
}

/// Where a layout keeps what has this digest.
fn file_name(digest: &str) -> Option<String> {
    let (algorithm, hex) = digest.split_once(':')?;
    let length = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => return None,
    };
    let is_hex = hex.len() == length && hex.bytes().all(|c| c.is_ascii_hexdigit());
    is_hex.then(|| format!("blobs/{algorithm}/{hex}"))
}
