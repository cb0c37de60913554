//! Packs files into images, each a tar that is an OCI layout and a docker archive at once: one layer, the same bytes for the
//! same files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::pins::{ENVOY_IMAGE, PAUSE_IMAGE};
use super::python;

/// Part of the images' identity: changes when this module packs differently.
pub const FORMAT: &str = "1";

/// Envoy's own uid in the upstream image is 101; sidecars run as any other.
const PASSWD: &str = "root:x:0:0:root:/root:/usr/sbin/nologin\nenvoy:x:101:101::/home/envoy:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nenvoy:x:101:\nnogroup:x:65534:\n";

/// Something in an image: its path without the leading slash, and what is there.
enum Entry {
    Program(String, PathBuf),
    File(String, PathBuf),
    Text(&'static str, &'static str),
    /// A folder anybody may write in.
    Shared(&'static str),
}

/// Writes `pause.tar` and `envoy.tar` into `folder`.
pub fn pack_all(bin: &Path, environment: &Path, folder: &Path) -> Result<()> {
    let pause = [Entry::Program("pause".into(), bin.join("pause"))];
    pack(&folder.join("pause.tar"), PAUSE_IMAGE, "/pause", &pause)?;

    let envoy = bin.join("envoy");
    let mut entries = vec![
        Entry::Text("etc/passwd", PASSWD),
        Entry::Text("etc/group", GROUP),
        Entry::File("etc/ssl/certs/ca-certificates.crt".into(), python::authorities(environment)?),
        Entry::Shared("tmp"),
    ];
    entries.extend(
        libraries(&envoy)?
            .into_iter()
            .map(|path| Entry::Program(path.display().to_string().trim_start_matches('/').to_owned(), path)),
    );
    entries.push(Entry::Program("usr/local/bin/envoy".into(), envoy));
    pack(&folder.join("envoy.tar"), ENVOY_IMAGE, "/usr/local/bin/envoy", &entries)
}

/// The loader and the shared libraries a program needs, where they are here and where the loader looks for them.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("running ldd")?;
    ensure!(output.status.success(), "ldd {}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(paths_in(&String::from_utf8_lossy(&output.stdout)))
}

/// The paths in ldd's output: `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)`.
fn paths_in(ldd: &str) -> BTreeSet<PathBuf> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

/// Writes one image.
fn pack(to: &Path, name: &str, entrypoint: &str, entries: &[Entry]) -> Result<()> {
    let (layer_file, layer) = layer(entries, to)?;
    let configuration = serde_json::to_vec(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": [entrypoint], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [&layer.digest]},
    }))?;
    let configured = Blob::of(&configuration);
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": configured.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
    }))?;
    let manifested = Blob::of(&manifest);
    let mut described = manifested.descriptor("application/vnd.oci.image.manifest.v1+json");
    described["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [described]});
    let docker = json!([{"Config": configured.path(), "RepoTags": [name], "Layers": [layer.path()]}]);

    let file = File::create(to).with_context(|| format!("creating {}", to.display()))?;
    let mut tar = Builder::new(BufWriter::new(file));
    let small = [
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), serde_json::to_vec(&index)?),
        ("manifest.json".to_owned(), serde_json::to_vec(&docker)?),
        (configured.path(), configuration),
        (manifested.path(), manifest),
    ];
    for (path, bytes) in small {
        tar.append_data(&mut header(EntryType::Regular, 0o644, bytes.len() as u64), path, bytes.as_slice())?;
    }
    tar.append_data(&mut header(EntryType::Regular, 0o644, layer.size), layer.path(), File::open(&layer_file)?)?;
    tar.into_inner()?.flush()?;
    fs::remove_file(&layer_file).with_context(|| format!("removing {}", layer_file.display()))
}

/// The one layer, in a file beside `to`.
fn layer(entries: &[Entry], to: &Path) -> Result<(PathBuf, Blob)> {
    let path = to.with_extension("layer");
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    let mut tar = Builder::new(Hashing { inner: BufWriter::new(file), hash: Sha256::new(), size: 0 });
    for entry in entries {
        match entry {
            Entry::Program(name, from) => append(&mut tar, name, from, 0o755)?,
            Entry::File(name, from) => append(&mut tar, name, from, 0o644)?,
            Entry::Text(name, text) => {
                tar.append_data(&mut header(EntryType::Regular, 0o644, text.len() as u64), name, text.as_bytes())?
            }
            Entry::Shared(name) => {
                tar.append_data(&mut header(EntryType::Directory, 0o1777, 0), name, std::io::empty())?
            }
        }
    }
    let mut hashing = tar.into_inner()?;
    hashing.flush()?;
    let blob = Blob { digest: format!("sha256:{}", hex::encode(hashing.hash.finalize())), size: hashing.size };
    Ok((path, blob))
}

fn append(tar: &mut Builder<impl Write>, name: &str, from: &Path, mode: u32) -> Result<()> {
    let file = File::open(from).with_context(|| format!("opening {}", from.display()))?;
    let size = file.metadata()?.len();
    tar.append_data(&mut header(EntryType::Regular, mode, size), name, file)
        .with_context(|| format!("packing {}", from.display()))
}

/// Root's, and of no particular time.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Content by its hash.
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn of(bytes: &[u8]) -> Self {
        Self { digest: format!("sha256:{}", hex::encode(Sha256::digest(bytes))), size: bytes.len() as u64 }
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({"mediaType": kind, "digest": self.digest, "size": self.size})
    }
}

/// Hashes and counts what is written through it.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// As Go and OCI call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn files(tar: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(File::open(tar).unwrap());
        let read = |entry: std::io::Result<tar::Entry<'_, File>>| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn every_blob_is_what_its_name_says() {
        let folder = tempfile::tempdir().unwrap();
        let tar = folder.path().join("x.tar");
        pack(&tar, "docker.io/x/x:1", "/sh", &[Entry::Program("sh".into(), "/bin/sh".into()), Entry::Shared("tmp")])
            .unwrap();
        let files = files(&tar);
        let blobs: Vec<_> =
            files.iter().filter_map(|(path, bytes)| Some((path.strip_prefix("blobs/sha256/")?, bytes))).collect();
        assert_eq!(blobs.len(), 3);
        for (name, bytes) in blobs {
            assert_eq!(name, hex::encode(Sha256::digest(bytes)));
        }
        let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert!(files.contains_key(docker[0]["Layers"][0].as_str().unwrap()));
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "docker.io/x/x:1");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_same_files_give_the_same_image() {
        let folder = tempfile::tempdir().unwrap();
        let entries = [Entry::Text("etc/passwd", PASSWD), Entry::Program("sh".into(), "/bin/sh".into())];
        for name in ["a.tar", "b.tar"] {
            pack(&folder.path().join(name), "x:1", "/sh", &entries).unwrap();
        }
        assert_eq!(fs::read(folder.path().join("a.tar")).unwrap(), fs::read(folder.path().join("b.tar")).unwrap());
    }

    #[test]
    fn libraries_and_loader_are_found() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected: BTreeSet<PathBuf> =
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from).into();
        assert_eq!(paths_in(ldd), expected);
        assert!(libraries(Path::new("/bin/sh")).unwrap().len() >= 2);
    }
}
