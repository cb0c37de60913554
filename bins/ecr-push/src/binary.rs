//! `--binary`: static programs on an empty base.

use crate::image::{Blob, Image, Manifest, Part};
use crate::layer::Layer;
use crate::oci::{self, Config, Descriptor, Execution, Platform, RootFs};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Error, elf};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

/// An image of two layers: the base, the same in every image, and the programs, each as `/NAME`. It starts the first.
/// Programs for several architectures make such an image for each, under one index.
///
/// # Errors
/// A program is not static, two have the same name, or an architecture lacks one.
pub fn image(programs: &[PathBuf]) -> Result<Image> {
    let base = base()?;
    let mut architectures: BTreeMap<&str, Vec<Program>> = BTreeMap::new();
    for path in programs {
        architectures
            .entry(elf::architecture(path).map_err(|unfit| unfit.of(path))?)
            .or_default()
            .push(Program { name: name(path)?, path });
    }
    complete(&architectures)?;
    let mut images = Vec::new();
    for (architecture, programs) in &architectures {
        images.push((Platform::linux(architecture), single(architecture, &base, programs)?));
    }
    match images.pop() {
        Some((_, only)) if images.is_empty() => Ok(only),
        last => index(images.into_iter().chain(last)),
    }
}

/// A program, and how it is called in the image.
struct Program<'a> {
    name: &'a str,
    path: &'a Path,
}

/// Checks that every architecture has the same programs. A single one may be called as its architecture is.
fn complete(architectures: &BTreeMap<&str, Vec<Program>>) -> Result<()> {
    let all: BTreeSet<&str> = architectures.values().flatten().map(|program| program.name).collect();
    for (architecture, programs) in architectures {
        let names: BTreeSet<&str> = programs.iter().map(|program| program.name).collect();
        let mut repeated =
            programs.iter().enumerate().filter(|(at, it)| programs[..*at].iter().any(|one| one.name == it.name));
        if let Some((_, Program { name, .. })) = repeated.next() {
            return Err(Error::usage(format!("two programs would be /{name}, both for {architecture}")).into());
        }
        let alone = architectures.values().all(|programs| programs.len() == 1);
        if let Some(name) = all.difference(&names).next().filter(|_| !alone) {
            let hint = "give the same programs for every architecture, under the same file names";
            return Err(Error::usage(format!("there is no {name} for {architecture}")).hint(hint).into());
        }
    }
    Ok(())
}

/// The image for one architecture.
fn single(architecture: &str, base: &Blob, programs: &[Program]) -> Result<Image> {
    let mut layer = Layer::default();
    for Program { name, path } in programs {
        layer = layer.file(name, 0o755, Part::file(path)?);
    }
    let entry = format!("/{}", programs.first().context("no program")?.name);
    assemble(architecture, entry, vec![base.clone(), layer.blob()?])
}

/// The index of images, in the order of their platforms.
fn index(images: impl Iterator<Item = (Platform, Image)>) -> Result<Image> {
    let (mut whole, mut descriptors) = (Image::default(), Vec::new());
    for (platform, image) in images {
        descriptors.push(image.top()?.descriptor(platform));
        whole.join(image);
    }
    whole.manifests.push(Manifest::index(descriptors)?);
    Ok(whole)
}

fn name(path: &Path) -> Result<&str> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.ok_or_else(|| Error::usage(format!("{} has no file name to take", path.display())))?)
}

/// What a static program may look for: the certificate authorities, where Linux programs look first, and /tmp.
/// The authorities are Mozilla's, of the version in Cargo.lock: never those of the machine that builds.
fn base() -> Result<Blob> {
    let pem: String = TLS_SERVER_ROOT_CERTS.iter().map(|certificate| pem(certificate)).collect();
    Layer::default()
        .folder("etc/", 0o755)
        .folder("etc/ssl/", 0o755)
        .folder("etc/ssl/certs/", 0o755)
        .file("etc/ssl/certs/ca-certificates.crt", 0o644, Part::Bytes(pem.into()))
        .folder("tmp/", 0o1777)
        .blob()
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned() + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

fn assemble(architecture: &str, entry: String, layers: Vec<Blob>) -> Result<Image> {
    let config = serde_json::to_vec(&Config {
        architecture,
        config: Execution { entrypoint: vec![entry] },
        os: "linux",
        rootfs: RootFs {
            diff_ids: layers.iter().map(|layer| layer.digest.clone()).collect(),
            kind: "layers".to_owned(),
        },
    })?;
    let config = Blob::of(vec![Part::Bytes(config.into())])?;
    let descriptors = layers.iter().map(|layer| Descriptor::new(oci::LAYER, &layer.digest, layer.size));
    let manifest = Manifest::of(&config, descriptors.collect())?;
    let mut image = Image { platforms: BTreeSet::from([format!("linux/{architecture}")]), ..Image::default() };
    layers.into_iter().chain([config]).for_each(|blob| image.add(blob));
    image.manifests.push(manifest);
    Ok(image)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::image::tests::layer_entries;
    use ::tests::elf::program;
    use serde_json::{Value, json};

    fn write(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn the_same_program_is_the_same_image_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "hello", &program(62, None));
        let image = image(&[path]).unwrap();
        assert_eq!(image.platforms, BTreeSet::from(["linux/amd64".to_owned()]));
        let config = String::from_utf8(image.blobs[2].bytes().unwrap()).unwrap();
        assert!(config.starts_with(r#"{"architecture":"amd64","config":{"Entrypoint":["/hello"]},"os":"linux","#));
        let base = ["40755 etc/", "40755 etc/ssl/", "40755 etc/ssl/certs/", "644 etc/ssl/certs/ca-certificates.crt"];
        assert_eq!(layer_entries(&image.blobs[0])[..4], base.map(|line| line.replace("40755", "755")));
        assert_eq!(layer_entries(&image.blobs[0])[4], "1777 tmp/");
        assert_eq!(layer_entries(&image.blobs[1]), ["755 hello"]);
        // Changes only with a new version of webpki-root-certs (the first), or of this tool (then every image of every
        // user is pushed anew: is that worth it?).
        let digests = [&image.blobs[0].digest, &image.blobs[1].digest, &image.top().unwrap().digest];
        let expected = [
            "sha256:393748afc0bed4d3bf4cde51cf2cc8c6b0d14bbe138e48a32b52cf263375eca5",
            "sha256:9883a367512f68dc4bec023b2ea8da3130f397b6dfdb8985eba041b6fac7ee73",
            "sha256:6684ca8eb3d35651f8b641c48d8d824a6328c5557f4b9632849ade277d1ef49b",
        ];
        assert_eq!(digests, expected);
    }

    #[test]
    fn programs_for_several_architectures_make_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let build = |architecture: &str, machine| {
            std::fs::create_dir(folder.path().join(architecture)).unwrap();
            let write = |name: &str| write(folder.path(), &format!("{architecture}/{name}"), &program(machine, None));
            [write("web"), write("helper")]
        };
        let ([arm_web, arm_helper], [web, helper]) = (build("aarch64", 183), build("x86_64", 62));
        let whole = image(&[arm_web.clone(), arm_helper.clone(), web.clone(), helper.clone()]).unwrap();
        assert_eq!(whole.platforms, BTreeSet::from(["linux/amd64".to_owned(), "linux/arm64".to_owned()]));
        assert_eq!(whole.blobs.len(), 5, "one base, and a layer and a configuration each");
        let top: Value = serde_json::from_slice(&whole.top().unwrap().bytes).unwrap();
        assert_eq!(top["mediaType"], oci::INDEXES[0]);
        let parts = [(&[web.clone(), helper][..], "amd64"), (&[arm_web.clone(), arm_helper], "arm64")];
        for (at, (programs, architecture)) in parts.into_iter().enumerate() {
            let part = image(programs).unwrap();
            let manifest = part.top().unwrap();
            let named = json!({"mediaType": oci::MANIFEST, "digest": manifest.digest, "size": manifest.bytes.len(),
                "platform": {"architecture": architecture, "os": "linux"}});
            assert_eq!((&top["manifests"][at], &whole.manifests[at].digest), (&named, &manifest.digest));
        }
        assert_eq!((top["manifests"].as_array().unwrap().len(), whole.manifests.len()), (2, 3));
        // Whichever is given first.
        let (forth, back) = (image(&[web.clone(), arm_web.clone()]).unwrap(), image(&[arm_web, web.clone()]).unwrap());
        assert_eq!(forth.top().unwrap().digest, back.top().unwrap().digest);
        // A single one may be called as its architecture is.
        let other = write(folder.path(), "web-arm64", &program(183, None));
        let entries = image(&[web, other]).unwrap().blobs.iter().filter_map(entrypoint).collect::<Vec<_>>();
        assert_eq!(entries, ["/web", "/web-arm64"]);
    }

    fn entrypoint(blob: &Blob) -> Option<String> {
        let config: Value = serde_json::from_slice(&blob.bytes().unwrap()).ok()?;
        Some(config["config"]["Entrypoint"][0].as_str()?.to_owned())
    }

    #[test]
    fn what_would_not_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let amd64 = write(folder.path(), "a", &program(62, None));
        let arm64 = write(folder.path(), "b", &program(183, None));
        let more = write(folder.path(), "c", &program(62, None));
        let dynamic = write(folder.path(), "f", &program(62, Some("/lib64/ld-linux-x86-64.so.2")));
        let script = write(folder.path(), "d", b"#!/bin/sh\n");
        let other = write(folder.path(), "e", &program(9999, None));
        for (programs, message) in [
            (vec![&amd64, &arm64, &more], "there is no b for amd64"),
            (vec![&amd64, &amd64], "two programs would be /a, both for amd64"),
            (vec![&dynamic], "f is not static: it needs /lib64/ld-linux-x86-64.so.2"),
            (vec![&script], "d is not a Linux program (ELF)"),
            (vec![&other], "e is for a machine with no name here: 9999"),
        ] {
            let programs: Vec<PathBuf> = programs.into_iter().cloned().collect();
            let error = image(&programs).unwrap_err().to_string();
            assert!(error.ends_with(message), "{error}");
        }
    }
}
