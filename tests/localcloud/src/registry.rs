//! The region's registries of the internet, Docker Hub and registry.k8s.io: Debian's docker-registry over a folder that
//! holds the images of `parts::Parts::images`.
//!
//! The folder is written in the registry's own layout (distribution's filesystem driver, version 2), once, beside the
//! images, and served read only, so that any number of clouds share it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::gateway::DOCKER_PORT;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The registry's configuration file.
pub fn configuration(root: &Path) -> String {
    format!(
        r#"version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: "{root}"
  cache:
    blobdescriptor: inmemory
  maintenance:
    uploadpurging:
      enabled: false
    readonly:
      enabled: true
http:
  addr: 127.0.0.1:{DOCKER_PORT}
"#,
        root = root.display()
    )
}

/// The folder with all images of a folder of archives, made unless it is there. A new archive makes a new folder.
pub fn stock(images: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(images).with_context(|| format!("reading {}", images.display()))?;
    let mut archives: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    archives.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    archives.sort();
    let mut key = Sha256::new();
    for path in &archives {
        let meta = fs::metadata(path)?;
        let modified = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        key.update(format!("{} {} {}\n", path.display(), meta.len(), modified.as_nanos()));
    }
    let done = images.join(format!("registry-{}", &hex::encode(key.finalize())[..12]));
    if done.exists() {
        return Ok(done);
    }
    let half = tempfile::tempdir_in(images)?;
    let store = Store { root: half.path().join("docker/registry/v2") };
    for path in &archives {
        store.add(path).with_context(|| format!("stocking {}", path.display()))?;
    }
    match fs::rename(half.path(), &done) {
        // Another cloud was quicker; the folder goes with its guard.
        Err(_) if done.exists() => {}
        renamed => renamed?,
    }
    Ok(done)
}

struct Store {
    root: PathBuf,
}

impl Store {
    /// Adds the first image of a docker archive, under the name it has there. Where the archive is an OCI layout as well
    /// the image keeps its digest.
    fn add(&self, archive: &Path) -> Result<()> {
        let mut blobs = HashMap::new();
        let mut indexes = HashMap::new();
        for entry in tar::Archive::new(File::open(archive)?).entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            if name == "index.json" || name == "manifest.json" {
                indexes.insert(name, serde_json::from_reader::<_, Value>(entry)?);
            } else {
                blobs.insert(name, self.blob(&mut entry)?);
            }
        }
        let blob = |name: &Value| {
            let name = name.as_str().unwrap_or_default();
            blobs.get(name).with_context(|| format!("{} holds no {name}", archive.display()))
        };
        let listed = &indexes.get("manifest.json").context("it is no docker archive")?[0];
        let (repository, tag) = repository(listed["RepoTags"][0].as_str().context("it has no name")?)?;
        let manifest = match indexes.get("index.json") {
            Some(index) => fs::read(self.data(&named(&index["manifests"][0])?))?,
            None => {
                let layers = listed["Layers"].as_array().map(Vec::as_slice).unwrap_or_default();
                let layers = layers.iter().map(|name| Ok(blob(name)?.descriptor(LAYER))).collect::<Result<Vec<_>>>()?;
                let config = blob(&listed["Config"])?.descriptor(CONFIG);
                serde_json::to_vec(
                    &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}),
                )?
            }
        };
        let parsed: Value = serde_json::from_slice(&manifest)?;
        let layers = parsed["layers"].as_array().into_iter().flatten();
        for part in std::iter::once(&parsed["config"]).chain(layers) {
            self.link(repository, &format!("_layers/sha256/{}", named(part)?), &named(part)?)?;
        }
        let digest = self.blob(&mut manifest.as_slice())?.digest;
        for place in [
            format!("revisions/sha256/{digest}"),
            format!("tags/{tag}/current"),
            format!("tags/{tag}/index/sha256/{digest}"),
        ] {
            self.link(repository, &format!("_manifests/{place}"), &digest)?;
        }
        Ok(())
    }

    fn data(&self, digest: &str) -> PathBuf {
        self.root.join("blobs/sha256").join(&digest[..2]).join(digest).join("data")
    }

    /// Stores what `content` reads under its digest.
    fn blob(&self, content: &mut impl Read) -> Result<Blob> {
        fs::create_dir_all(&self.root)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
        let mut hashed = Hashed { file: file.as_file_mut(), hash: Sha256::new() };
        let size = io::copy(content, &mut hashed)?;
        let digest = hex::encode(hashed.hash.finalize());
        let data = self.data(&digest);
        data.parent().map(fs::create_dir_all).transpose()?;
        file.persist(&data)?;
        Ok(Blob { digest, size })
    }

    fn link(&self, repository: &str, place: &str, digest: &str) -> Result<()> {
        let folder = self.root.join("repositories").join(repository).join(place);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join("link"), format!("sha256:{digest}"))?)
    }
}

#[derive(Debug)]
struct Blob {
    /// 64 hex digits.
    digest: String,
    size: u64,
}

impl Blob {
    fn descriptor(&self, kind: &str) -> Value {
        json!({"mediaType": kind, "digest": format!("sha256:{}", self.digest), "size": self.size})
    }
}

/// Repository and tag of an image's name: `docker.io/envoyproxy/envoy:v1` has `envoyproxy/envoy` and `v1`.
fn repository(name: &str) -> Result<(&str, &str)> {
    let parts = name.rsplit_once(':').and_then(|(path, tag)| Some((path.split_once('/')?.1, tag)));
    parts.with_context(|| format!("{name} is not HOST/REPOSITORY:TAG"))
}

/// The hex digits of a descriptor's digest.
fn named(descriptor: &Value) -> Result<String> {
    let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
    digest.filter(|digest| digest.len() == 64).map(str::to_owned).with_context(|| format!("no digest in {descriptor}"))
}

struct Hashed<'a> {
    file: &'a mut File,
    hash: Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn archive(path: &Path, files: &[(&str, &[u8])]) {
        let mut tar = tar::Builder::new(File::create(path).unwrap());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, *content).unwrap();
        }
        tar.finish().unwrap();
    }

    fn link(root: &Path, place: &str) -> String {
        fs::read_to_string(root.join("docker/registry/v2/repositories").join(place).join("link")).unwrap()
    }

    #[test]
    fn archives_of_both_kinds_become_a_registry_once() {
        let folder = tempfile::tempdir().unwrap();
        let list =
            br#"[{"Config": "config.json", "RepoTags": ["registry.k8s.io/pause:3.10"], "Layers": ["layer.tar"]}]"#;
        archive(
            &folder.path().join("pause.tar"),
            &[("config.json", b"{}"), ("layer.tar", b"bytes"), ("manifest.json", list)],
        );
        let digest = |content: &[u8]| hex::encode(Sha256::digest(content));
        let manifest =
            format!(r#"{{"schemaVersion": 2, "config": {{"digest": "sha256:{}"}}, "layers": []}}"#, digest(b"{}"));
        let index = format!(r#"{{"manifests": [{{"digest": "sha256:{}"}}]}}"#, digest(manifest.as_bytes()));
        let blob = |content: &[u8]| format!("blobs/sha256/{}", digest(content));
        let list = br#"[{"Config": "x", "RepoTags": ["docker.io/envoyproxy/envoy:v1.40.0"], "Layers": []}]"#;
        let files = [
            (blob(b"{}"), &b"{}"[..]),
            (blob(manifest.as_bytes()), manifest.as_bytes()),
            ("index.json".to_owned(), index.as_bytes()),
            ("manifest.json".to_owned(), &list[..]),
        ];
        archive(&folder.path().join("envoy.tar"), &files.each_ref().map(|(name, content)| (name.as_str(), *content)));

        let root = stock(folder.path()).unwrap();
        let tag = link(&root, "envoyproxy/envoy/_manifests/tags/v1.40.0/current");
        assert_eq!(tag, format!("sha256:{}", digest(manifest.as_bytes())), "an OCI manifest keeps its digest");
        let pause = link(&root, "pause/_manifests/tags/3.10/current");
        let data =
            fs::read(root.join(format!("docker/registry/v2/blobs/sha256/{}/{}/data", &pause[7..9], &pause[7..])))
                .unwrap();
        let data: Value = serde_json::from_slice(&data).unwrap();
        assert_eq!(data["layers"][0]["digest"], format!("sha256:{}", digest(b"bytes")));
        assert_eq!(data["layers"][0]["size"].to_string(), "5");
        assert_eq!(stock(folder.path()).unwrap(), root);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing half done stays");
    }
}
