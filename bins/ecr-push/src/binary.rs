//! An image of static binaries on an empty base. Same files, same digest, wherever it is built.

use crate::image::{Blob, Image, Manifest};
use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::Error;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Where programs look for certificate authorities on most distributions, and rustls and Go everywhere.
const CA_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
/// Fixed fields of an ELF header: <https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// `e_machine`.
const MACHINES: [(u16, &str); 2] = [(62, "amd64"), (183, "arm64")];
/// `p_type` of the program header that names a dynamic linker.
const PT_INTERP: u32 = 3;

/// Each file goes to `/NAME`; the first is the entry point.
pub fn image(files: &[PathBuf]) -> Result<Image> {
    let mut layer = Layer::default();
    layer.folder("etc", 0o755)?;
    layer.folder("etc/ssl", 0o755)?;
    layer.folder("etc/ssl/certs", 0o755)?;
    layer.file(CA_BUNDLE, 0o644, authorities().as_bytes())?;
    layer.folder("tmp", 0o1777)?;
    let (mut entry, mut architecture) = (None, None);
    for file in files {
        let bytes = std::fs::read(file).map_err(|error| Error::failed(format!("read {}: {error}", file.display())))?;
        let its = architecture_of(file, &bytes)?;
        if *architecture.get_or_insert(its) != its {
            return Err(Error::usage(format!("{} is not of the first binary's architecture", file.display())).into());
        }
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{} has no plain file name", file.display()))?;
        entry.get_or_insert_with(|| format!("/{name}"));
        layer.file(name, 0o755, &bytes)?;
    }
    let (Some(entry), Some(architecture)) = (entry, architecture) else { return Err(Error::usage("no binary").into()) };
    // Not compressed: within a region, sending bytes is quicker than squeezing them, and a look at an image that is
    // there already costs a hash and no more.
    let layer = Blob::new(layer.0.into_inner().context("write the layer")?);
    let config = Blob::new(serde_json::to_vec(&json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [entry], "Env": [format!("SSL_CERT_FILE=/{CA_BUNDLE}")], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }))?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.bytes.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.digest, "size": layer.bytes.len()}],
    });
    let manifest = Manifest {
        blob: Blob::new(serde_json::to_vec(&manifest)?),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
    };
    Ok(Image {
        digest: manifest.blob.digest.clone(),
        blobs: vec![layer, config],
        manifests: vec![manifest],
        architectures: vec![architecture.to_owned()],
    })
}

/// Mozilla's certificate authorities as this tool was built with, in PEM.
fn authorities() -> String {
    let blocks = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|certificate| {
        let text = BASE64_STANDARD.encode(certificate);
        let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    });
    blocks.collect()
}

/// The architecture of a static ELF binary.
fn architecture_of(file: &Path, bytes: &[u8]) -> Result<&'static str> {
    let place = file.display();
    if !bytes.starts_with(MAGIC) {
        return Err(Error::failed(format!("{place} is not a 64-bit Linux binary")).into());
    }
    let machine = u16::from_le_bytes(field(bytes, 18)?);
    let known = MACHINES.iter().find(|(number, _)| *number == machine);
    let (_, architecture) =
        known.ok_or_else(|| Error::failed(format!("{place} is for an unknown machine ({machine})")))?;
    let start = usize::try_from(u64::from_le_bytes(field(bytes, 32)?))?;
    let (size, count) = (u16::from_le_bytes(field(bytes, 54)?), u16::from_le_bytes(field(bytes, 56)?));
    for index in 0..usize::from(count) {
        let header = start + index * usize::from(size);
        if u32::from_le_bytes(field(bytes, header)?) == PT_INTERP {
            let offset = usize::try_from(u64::from_le_bytes(field(bytes, header + 8)?))?;
            let linker: Vec<u8> = bytes.iter().skip(offset).take_while(|byte| **byte != 0).copied().collect();
            let dynamic =
                Error::failed(format!("{place} is not static: it wants {}", String::from_utf8_lossy(&linker)));
            return Err(dynamic
                .hint("Rust: RUSTFLAGS='-C target-feature=+crt-static' and --target; Go: CGO_ENABLED=0")
                .into());
        }
    }
    Ok(architecture)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let found = at.checked_add(N).and_then(|end| bytes.get(at..end)).context("a truncated ELF file")?;
    Ok(found.try_into()?)
}

/// A tar whose bytes depend on nothing but what is in it: no times, owner root.
struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(tar::EntryType::Directory, &format!("{path}/"), mode, &[])
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.entry(tar::EntryType::Regular, path, mode, bytes)
    }

    fn entry(&mut self, kind: tar::EntryType, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        header.set_mtime(0);
        self.0.append_data(&mut header, path, bytes).with_context(|| format!("add /{path} to the layer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and one program header, of the given type.
    fn elf(machine: u16, kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(MAGIC);
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes[72..80].copy_from_slice(&120u64.to_le_bytes());
        bytes.extend(b"/lib64/ld-linux-x86-64.so.2\0");
        bytes
    }

    #[test]
    fn only_static_linux_binaries_are_taken() {
        let say = |bytes: &[u8]| match architecture_of(Path::new("web"), bytes) {
            Ok(architecture) => architecture.to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(say(&elf(62, 1)), "amd64");
        assert_eq!(say(&elf(183, 1)), "arm64");
        assert_eq!(say(&elf(8, 1)), "web is for an unknown machine (8)");
        assert_eq!(say(&elf(62, PT_INTERP)), "web is not static: it wants /lib64/ld-linux-x86-64.so.2");
        assert_eq!(say(b"#!/bin/sh"), "web is not a 64-bit Linux binary");
        assert_eq!(say(&elf(62, 1)[..70]), "a truncated ELF file");
    }

    #[test]
    fn the_same_files_give_the_same_digest() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("web");
        std::fs::write(&file, elf(62, 1)).unwrap();
        let first = image(std::slice::from_ref(&file)).unwrap();
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(image(&[file]).unwrap().digest, first.digest);
        assert_eq!(first.architectures, ["amd64"]);
    }
}
