//! A docker archive: `manifest.json` names a configuration and layers by file, without digests.

use super::choose;
use super::packing::{Packing, gunzip, temporary};
use super::store::Store;
use crate::image::{Blob, Image, Manifest, Part};
use crate::oci::{Descriptor, LAYER, LAYER_ZSTD, Platform};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::Path;

/// An image in `manifest.json`. Lists without entries are written as `null`, or not at all.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

pub fn image(store: &Store, list: &Part, tag: Option<&str>) -> Result<Image> {
    let list: Vec<Saved> =
        serde_json::from_slice(&list.bytes()?).with_context(|| format!("{store}: read manifest.json"))?;
    let list = merged(list);
    let saved = choose(store, &list, tag, |saved| match &saved.repo_tags {
        Some(tags) if !tags.is_empty() => tags.clone(),
        _ => vec![saved.config.clone()],
    })?;
    let config = Blob::of(vec![store.get(&saved.config)?])?;
    let facts = config.bytes()?;
    let platforms = Platform::of(&facts).into_iter().collect();
    let facts: Config = serde_json::from_slice(&facts).with_context(|| format!("{store}: read {}", saved.config))?;
    let digests = facts.rootfs.and_then(|rootfs| rootfs.diff_ids).unwrap_or_default();
    let names = saved.layers.as_deref().unwrap_or_default();
    if digests.len() != names.len() {
        return Err(store.damaged(format!("{} layers, {} digests of layers", names.len(), digests.len())));
    }

    let mut image = Image { platforms, ..Image::default() };
    let mut descriptors = Vec::new();
    for (name, digest) in names.iter().zip(digests) {
        let (media_type, layer) = layer(store, name, &digest)?;
        descriptors.push(Descriptor::new(media_type, &layer.digest, layer.size));
        image.add(layer);
    }
    image.manifests.push(Manifest::of(&config, descriptors)?);
    image.add(config);
    Ok(image)
}

/// One image may be listed once for each of its names.
fn merged(list: Vec<Saved>) -> Vec<Saved> {
    let mut merged: Vec<Saved> = Vec::new();
    for saved in list {
        let same = |known: &&mut Saved| (&known.config, &known.layers) == (&saved.config, &saved.layers);
        match merged.iter_mut().find(same) {
            Some(known) => known.repo_tags.get_or_insert_default().extend(saved.repo_tags.unwrap_or_default()),
            None => merged.push(saved),
        }
    }
    merged
}

/// A layer and its media type: the plain tar, of which the configuration has the digest, or what zstd made of it, which
/// has another. The registry refuses what does not have its digest.
fn layer(store: &Store, name: &str, digest: &str) -> Result<(&'static str, Blob)> {
    let part = store.get(name)?;
    let (packing, _) = part.reader().and_then(Packing::of).with_context(|| format!("{store}: read {name}"))?;
    let part = match packing {
        Packing::Plain => part,
        Packing::Gzip => {
            let tar = part.reader().map_err(Into::into).and_then(|reader| temporary(gunzip(reader)));
            Part::open(Path::new(name), tar.with_context(|| format!("{store}: unpack {name}"))?)?
        }
        Packing::Zstd => return Ok((LAYER_ZSTD, Blob::of(vec![part])?)),
        Packing::Other(packing) => {
            return Err(store.damaged(format!("{name} is compressed with {packing}, which no image may be")));
        }
    };
    Ok((LAYER, Blob::known(digest, part)))
}
