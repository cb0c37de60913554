//! A packaged chart: what of it decides what gets installed. Pure.

use anyhow::{Context, Result};
use common::Error;
use common::kube::manifest;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;

/// How much of the SHA-256 goes into the revision's description, in hexadecimal digits.
const DIGEST: usize = 40;

/// Annotation of a chart that names the value which takes the cluster's name. Amazon's chart has such a value too, but
/// what its controller does with it needs a permission that the role has not.
const CLUSTER_NAME: &str = "crossmesh/cluster-name";
/// Annotation of a chart that names the value which takes the ids of Cloud Map namespaces by their names.
const NAMESPACES: &str = "crossmesh/cloudmap-namespaces";

/// The content of a chart.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// From `Chart.yaml`.
    pub name: String,
    /// From `Chart.yaml`.
    pub version: String,
    /// The value that takes the cluster's name, if it has one.
    pub cluster_name: Option<String>,
    /// The value that takes the ids of Cloud Map namespaces by their names, if there is one.
    pub namespaces: Option<String>,
    /// `templates/…`, by their path in the chart.
    pub templates: BTreeMap<String, Vec<u8>>,
    /// The custom resource definitions under `crds/`.
    pub definitions: Vec<Value>,
    /// Of everything but the definitions, which Helm does not upgrade.
    pub digest: String,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    version: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Chart {
    /// Reads a `.tgz` as `helm package` and `helm pull` make it: one folder with everything in it.
    ///
    /// # Errors
    /// It is no such archive, or its `Chart.yaml` or definitions are not what they should be.
    pub fn read(tgz: impl Read) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut archive = tar::Archive::new(GzDecoder::new(tgz));
        for entry in archive.entries().context("read the chart's archive")? {
            let mut entry = entry.context("read the chart's archive")?;
            let path = entry.path().context("read the chart's archive")?.to_string_lossy().into_owned();
            let Some((_, path)) = path.split_once('/').map(|(top, path)| (top.to_owned(), path.to_owned())) else {
                continue;
            };
            if entry.header().entry_type().is_file() {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).with_context(|| format!("read {path} of the chart"))?;
                files.insert(path, content);
            }
        }
        Self::from_files(files)
    }

    fn from_files(files: BTreeMap<String, Vec<u8>>) -> Result<Self> {
        let metadata = files.get("Chart.yaml").ok_or_else(|| Error::failed("the chart has no Chart.yaml"))?;
        let mut metadata: Metadata = serde_saphyr::from_slice(metadata).context("read Chart.yaml")?;
        let mut hash = Sha256::new();
        let mut definitions = Vec::new();
        let mut templates = BTreeMap::new();
        for (path, content) in files {
            if path.starts_with("crds/") {
                definitions.extend(definitions_of(&path, &content)?);
                continue;
            }
            // Lengths keep what belongs to one file from passing for another's.
            hash.update(format!("{}:{path}{}:", path.len(), content.len()));
            hash.update(&content);
            if path.starts_with("templates/") {
                templates.insert(path, content);
            }
        }
        let mut digest = hex::encode(hash.finalize());
        digest.truncate(DIGEST);
        let [cluster_name, namespaces] = [CLUSTER_NAME, NAMESPACES].map(|key| metadata.annotations.remove(key));
        let Metadata { name, version, .. } = metadata;
        Ok(Self { name, version, cluster_name, namespaces, templates, definitions, digest })
    }
}

fn definitions_of(path: &str, content: &[u8]) -> Result<Vec<Value>> {
    if ![".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end)) {
        return Ok(Vec::new());
    }
    let content = manifest::decode(path, content).and_then(|text| manifest::read(path, &text, &mut |_| None));
    let objects = content.with_context(|| Error::failed(format!("read {path} of the chart")))?.objects;
    Ok(objects.into_iter().filter(|object| object["kind"] == "CustomResourceDefinition").collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn tgz(files: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, format!("mesh/{path}"), content.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn a_chart_is_what_its_files_say() {
        let metadata = ("Chart.yaml", "name: mesh\nversion: 1.2.3\n");
        let files = [
            metadata,
            ("values.yaml", "a: 1"),
            ("templates/a.yaml", "x"),
            ("crds/all.yaml", "---\nkind: CustomResourceDefinition\nmetadata: {name: a}\n---\nkind: Other\n"),
            ("crds/README.md", "[not yaml"),
        ];
        let chart = Chart::read(tgz(&files).as_slice()).unwrap();
        assert_eq!((chart.name.as_str(), chart.version.as_str()), ("mesh", "1.2.3"));
        assert_eq!(chart.templates, [("templates/a.yaml".to_owned(), b"x".to_vec())].into());
        assert_eq!((chart.definitions.len(), &chart.cluster_name), (1, &None));
        assert_eq!(chart.digest.len(), DIGEST);

        let again = Chart::read(tgz(&files).as_slice()).unwrap();
        let other = Chart::read(tgz(&[metadata, ("values.yaml", "a: 2"), files[2], files[3]]).as_slice()).unwrap();
        let only_definitions = Chart::read(tgz(&[metadata, files[1], files[2]]).as_slice()).unwrap();
        assert_eq!(again.digest, chart.digest);
        assert_eq!(only_definitions.digest, chart.digest);
        assert_ne!(other.digest, chart.digest);
    }

    #[test]
    fn our_chart_takes_the_clusters_name_and_namespaces() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/appmesh-controller");
        let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
        let chart = Chart::read(tgz(&[("Chart.yaml", &read("Chart.yaml"))]).as_slice()).unwrap();
        let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
        assert_eq!(values[chart.cluster_name.unwrap()], "", "a value that there is");
        assert_eq!(values[chart.namespaces.unwrap()], serde_json::json!({}), "a value that there is");
    }

    #[test]
    fn what_is_no_chart_is_refused() {
        let error = |bytes: &[u8]| format!("{:#}", Chart::read(bytes).unwrap_err());
        assert_eq!(error(&tgz(&[("values.yaml", "")])), "the chart has no Chart.yaml");
        assert!(error(b"no archive").starts_with("read the chart's archive"));
    }
}
