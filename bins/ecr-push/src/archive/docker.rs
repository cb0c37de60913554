//! A docker archive: `manifest.json` names a configuration and layers by file, without digests.

use super::choose;
use super::layout::platform;
use super::store::{GZIP, Store, gunzip};
use crate::binary::manifest;
use crate::image::{Blob, Image, Part};
use crate::oci::RootFs;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::io::Read;
use tempfile::TempDir;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

pub fn image(store: &Store, list: &Part, tag: Option<&str>) -> Result<Image> {
    let list: Vec<Saved> = serde_json::from_slice(&list.bytes()?).context("read manifest.json")?;
    let saved = choose(&list, tag, |saved| saved.repo_tags.clone().unwrap_or_else(|| vec![saved.config.clone()]))?;
    let config = Blob::of(vec![store.get(&saved.config)?])?;
    let facts: Config = serde_json::from_slice(&config.parts.first().context("empty")?.bytes()?)
        .with_context(|| format!("read {}", saved.config))?;
    let digests = facts.rootfs.diff_ids;
    if digests.len() != saved.layers.len() {
        return Err(store.damaged(format!("{} layers, {} digests of layers", saved.layers.len(), digests.len())));
    }

    let mut image = Image { platforms: platform(&config).into_iter().collect(), ..Image::default() };
    let mut layers = Vec::new();
    for (name, digest) in saved.layers.iter().zip(digests) {
        let part = unpacked(store.get(name)?, &mut image.scratch).with_context(|| format!("unpack {name}"))?;
        // The configuration's digest of a layer is that of its plain tar; the registry refuses what does not have it.
        layers.push(Blob { digest, size: part.size(), parts: vec![part] });
    }
    image.manifests.push(manifest(&config, &layers)?);
    layers.into_iter().chain([config]).for_each(|blob| image.add(blob));
    Ok(image)
}

/// The layer as a plain tar.
fn unpacked(layer: Part, scratch: &mut Vec<TempDir>) -> Result<Part> {
    let mut magic = Vec::new();
    layer.reader()?.take(2).read_to_end(&mut magic)?;
    if magic != GZIP {
        return Ok(layer);
    }
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    let tar = folder.path().join("layer.tar");
    scratch.push(folder);
    gunzip(layer.reader()?, &tar)?;
    Part::file(&tar)
}
