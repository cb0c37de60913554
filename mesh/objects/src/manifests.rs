//! Reads manifests into clusters.

use crate::ClusterObjects;
use anyhow::{Context as _, Result};
use common::Error;
use common::kube::manifest;
use serde_json::Value;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The cluster of manifests that are given without one.
const UNNAMED: &str = "manifests";

/// The endings of manifests in a folder, as kubectl knows them.
const FORMATS: [&str; 3] = ["yaml", "yml", "json"];

/// Manifests for one cluster: `NAME=FILE`, or `FILE`; a file may be a folder of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    cluster: String,
    file: String,
}

impl Source {
    /// Whether the manifests are on stdin.
    pub fn is_stdin(&self) -> bool {
        self.file == "-"
    }

    /// What the manifests are called in words.
    pub fn name(&self) -> &str {
        if self.is_stdin() { "stdin" } else { &self.file }
    }

    /// The cluster that the manifests are for.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The objects of a file, or of all manifests in a folder; `-` is `stdin`.
    ///
    /// # Errors
    /// One cannot be read, or is no manifest.
    pub fn objects(&self, stdin: &[u8]) -> Result<Vec<Value>> {
        if self.is_stdin() {
            return objects(self.name(), stdin);
        }
        let mut all = Vec::new();
        for path in files(Path::new(&self.file))? {
            let name = path.display().to_string();
            let bytes = std::fs::read(&path).map_err(|error| Error::input(format!("read {name}: {error}")))?;
            all.extend(objects(&name, &bytes)?);
        }
        Ok(all)
    }
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (cluster, file) = match text.split_once('=') {
            Some((cluster, file)) if !cluster.is_empty() && !cluster.contains('/') => (cluster, file),
            _ => (UNNAMED, text),
        };
        Ok(Self { cluster: cluster.to_owned(), file: file.to_owned() })
    }
}

fn objects(name: &str, bytes: &[u8]) -> Result<Vec<Value>> {
    Ok(manifest::read(name, &manifest::decode(name, bytes)?, &mut |_| None)?.objects)
}

/// A file is itself; a folder its `.yaml`, `.yml` and `.json` files, by name.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| Error::input(format!("read {}: {error}", path.display())))?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|format| FORMATS.iter().any(|known| format == *known)));
    files.sort();
    if files.is_empty() {
        return Err(Error::input(format!("{} holds no .yaml, .yml or .json file", path.display())).into());
    }
    Ok(files)
}

/// The clusters of the manifests, in the order in which they are first named.
///
/// # Errors
/// A file cannot be read, or holds what is no manifest.
pub fn read(sources: &[Source], stdin: &[u8]) -> Result<Vec<ClusterObjects>> {
    let mut clusters: Vec<ClusterObjects> = Vec::new();
    for source in sources {
        let at = clusters.iter().position(|cluster| cluster.name == source.cluster).unwrap_or_else(|| {
            clusters.push(ClusterObjects::new(&source.cluster));
            clusters.len() - 1
        });
        for object in source.objects(stdin)? {
            clusters[at].add(object).with_context(|| format!("read {}", source.name()))?;
        }
    }
    Ok(clusters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_name_its_cluster() {
        for (text, cluster, file) in [
            ("web.yaml", UNNAMED, "web.yaml"),
            ("shop=web.yaml", "shop", "web.yaml"),
            ("shop=a=b.yaml", "shop", "a=b.yaml"),
            ("./a=b.yaml", UNNAMED, "./a=b.yaml"),
            ("=b.yaml", UNNAMED, "=b.yaml"),
            ("shop=-", "shop", "-"),
        ] {
            let expected = Source { cluster: cluster.to_owned(), file: file.to_owned() };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }
}
