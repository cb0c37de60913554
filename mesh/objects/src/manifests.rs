//! Reads manifests into clusters.

use crate::ClusterObjects;
use anyhow::{Context as _, Result};
use common::Error;
use common::kube::manifest;
use serde_json::Value;
use std::convert::Infallible;
use std::str::FromStr;

/// The cluster of manifests that are given without one.
const UNNAMED: &str = "manifests";

/// Manifests for one cluster: `NAME=FILE`, or `FILE`.
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

    /// The objects of a file; `-` is `stdin`.
    ///
    /// # Errors
    /// It cannot be read, or is no manifest.
    pub fn objects(&self, stdin: &[u8]) -> Result<Vec<Value>> {
        let name = self.name();
        let read = if self.is_stdin() { Ok(stdin.to_vec()) } else { std::fs::read(name) };
        let bytes = read.map_err(|error| Error::input(format!("read {name}: {error}")))?;
        Ok(manifest::read(name, &manifest::decode(name, &bytes)?, &mut |_| None)?.objects)
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
