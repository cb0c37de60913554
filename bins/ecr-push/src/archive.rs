//! An image from an OCI layout or a docker archive, each as a folder or as a tar (gzip is fine). What is already in
//! registry form keeps its digests.

use crate::image::{Blob, Image, Manifest, digest};
use anyhow::{Context, Result};
use bytes::Bytes;
use common::Error;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Files by their path inside the archive.
type Files = BTreeMap<String, Bytes>;

const GZIP: &[u8] = b"\x1f\x8b";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Reads the archive.
pub fn read(path: &Path) -> Result<Image> {
    let place = path.display();
    let files = if path.is_dir() { folder(path) } else { tarball(path) };
    let files = files.map_err(|error| Error::failed(format!("read {place}: {error:#}")))?;
    let image = if files.contains_key("index.json") {
        layout(&files)
    } else if files.contains_key("manifest.json") {
        docker(&files)
    } else {
        return Err(Error::failed(format!("{place} is neither an OCI layout nor a docker archive"))
            .hint("it holds no index.json and no manifest.json")
            .into());
    };
    image.with_context(|| format!("read {place}"))
}

fn folder(top: &Path) -> Result<Files> {
    let mut files = Files::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(top)?.to_string_lossy().into_owned();
                files.insert(name, std::fs::read(&path)?.into());
            }
        }
    }
    Ok(files)
}

fn tarball(path: &Path) -> Result<Files> {
    let bytes = std::fs::read(path)?;
    let reader: Box<dyn Read> = if bytes.starts_with(GZIP) {
        Box::new(flate2::read::GzDecoder::new(bytes.as_slice()))
    } else {
        Box::new(bytes.as_slice())
    };
    let mut files = Files::new();
    let mut links = Vec::new();
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                files.insert(name, content.into());
            }
            // docker save links layers that images share.
            tar::EntryType::Symlink | tar::EntryType::Link => {
                if let Some(target) = entry.link_name()? {
                    links.push((name, target.to_string_lossy().trim_start_matches("../").to_owned()));
                }
            }
            _ => {}
        }
    }
    for (name, target) in links {
        if let Some(content) = files.get(&target).cloned() {
            files.insert(name, content);
        }
    }
    Ok(files)
}

/// <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>
fn layout(files: &Files) -> Result<Image> {
    let index = files.get("index.json").context("no index.json")?;
    let parsed: Value = serde_json::from_slice(index).context("index.json")?;
    let tops = parsed["manifests"].as_array().context("index.json names no manifests")?;
    let mut image =
        Image { digest: String::new(), blobs: Vec::new(), manifests: Vec::new(), architectures: Vec::new() };
    match tops.as_slice() {
        [] => return Err(Error::failed("index.json names no manifests").into()),
        [top] => collect(files, top, &mut image)?,
        // One image for each platform, and the layout's own index above them.
        tops => {
            for top in tops {
                collect(files, top, &mut image)?;
            }
            let media_type = parsed["mediaType"].as_str().unwrap_or(OCI_INDEX).to_owned();
            image.manifests.push(Manifest { blob: Blob::new(index.clone()), media_type });
        }
    }
    let top = image.manifests.last().context("index.json names no image")?;
    image.digest = top.blob.digest.clone();
    Ok(image)
}

/// Adds what a descriptor names, the parts before the whole.
fn collect(files: &Files, descriptor: &Value, image: &mut Image) -> Result<()> {
    let manifest = blob(files, descriptor)?;
    let parsed: Value =
        serde_json::from_slice(&manifest.bytes).with_context(|| format!("manifest {}", manifest.digest))?;
    let media_type =
        descriptor["mediaType"].as_str().or(parsed["mediaType"].as_str()).unwrap_or(OCI_MANIFEST).to_owned();
    if let Some(children) = parsed["manifests"].as_array() {
        for child in children {
            collect(files, child, image)?;
        }
    } else {
        let config = blob(files, &parsed["config"])?;
        let platform: Value = serde_json::from_slice(&config.bytes).unwrap_or_default();
        // Attestations are images of the architecture "unknown".
        let architecture = platform["architecture"].as_str().filter(|architecture| *architecture != "unknown");
        image.architectures.extend(architecture.map(str::to_owned));
        for layer in parsed["layers"].as_array().into_iter().flatten() {
            let layer = blob(files, layer)?;
            if !image.blobs.iter().any(|known| known.digest == layer.digest) {
                image.blobs.push(layer);
            }
        }
        image.blobs.push(config);
    }
    image.manifests.push(Manifest { blob: manifest, media_type });
    Ok(())
}

/// The file a descriptor names, whose digest must be what the descriptor says.
fn blob(files: &Files, descriptor: &Value) -> Result<Blob> {
    let wanted = descriptor["digest"].as_str().context("a descriptor without a digest")?;
    let path = format!("blobs/{}", wanted.replacen(':', "/", 1));
    let bytes = files.get(&path).with_context(|| format!("{path} is missing"))?;
    let blob = Blob::new(bytes.clone());
    if blob.digest != wanted {
        return Err(Error::failed(format!("{path} is damaged: its digest is {}", blob.digest)).into());
    }
    Ok(blob)
}

/// What `docker save` wrote before it wrote OCI layouts.
fn docker(files: &Files) -> Result<Image> {
    let index: Value =
        serde_json::from_slice(files.get("manifest.json").context("no manifest.json")?).context("manifest.json")?;
    let [only] = index.as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err(Error::failed("the archive holds several images").hint("save one image at a time").into());
    };
    let file = |name: &Value| {
        let name = name.as_str().context("manifest.json names no file")?;
        files.get(name).with_context(|| format!("{name} is missing"))
    };
    let config = Blob::new(file(&only["Config"])?.clone());
    let mut blobs = Vec::new();
    let mut layers = Vec::new();
    for name in only["Layers"].as_array().context("manifest.json names no layers")? {
        let layer = Blob::new(file(name)?.clone());
        let kind = if layer.bytes.starts_with(GZIP) { "tar+gzip" } else { "tar" };
        let media_type = format!("application/vnd.oci.image.layer.v1.{kind}");
        layers.push(json!({"mediaType": media_type, "digest": layer.digest, "size": layer.bytes.len()}));
        if !blobs.iter().any(|known: &Blob| known.digest == layer.digest) {
            blobs.push(layer);
        }
    }
    let parsed: Value = serde_json::from_slice(&config.bytes).context("the image's configuration")?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.bytes.len()},
        "layers": layers,
    }))?;
    let architectures = parsed["architecture"].as_str().map(str::to_owned).into_iter().collect();
    blobs.push(config);
    let digest = digest(&manifest);
    let manifest = Manifest { blob: Blob::new(manifest), media_type: OCI_MANIFEST.to_owned() };
    Ok(Image { digest, blobs, manifests: vec![manifest], architectures })
}
