//! A chart: what of it decides what gets installed, and what of it Helm needs.

use anyhow::{Context, Result};
use common::Error;
use common::kube::manifest::{self, BYTE_ORDER_MARK};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde_json::{Map, Value, json};
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

/// Name and version of a chart, and what else it says of itself.
const METADATA: &str = "Chart.yaml";
/// What `helm package` does not take as it is. The second concerns Helm only while it fetches what the chart depends on.
const WRITTEN_ANEW: [&str; 2] = [METADATA, "Chart.lock"];
/// Where definitions are in a chart.
const DEFINITIONS: &str = "crds/";

/// What is in a chart, by path.
pub type Files = BTreeMap<String, Vec<u8>>;

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
    /// Everything but the definitions, without byte order marks.
    pub files: Files,
    /// The custom resource definitions under `crds/`.
    pub definitions: Vec<Value>,
    /// Of the files, the same for a folder and what `helm package` makes of it.
    pub digest: String,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    version: String,
    #[serde(default)]
    dependencies: Vec<Value>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Unpacks a `.tgz` as `helm package` and `helm pull` make it: one folder with everything in it.
///
/// # Errors
/// It is no such archive.
pub fn unpack(tgz: impl Read) -> Result<Files> {
    let mut files = Files::new();
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
    Ok(files)
}

impl Chart {
    /// Reads what the files say.
    ///
    /// # Errors
    /// There is no `Chart.yaml`, Helm would not take its name or version, a chart that it depends on is not there, or it or
    /// definitions are not what they should be.
    pub fn read(files: Files) -> Result<Self> {
        let (mut definitions, mut kept) = (Vec::new(), Files::new());
        for (path, mut content) in files {
            if path.starts_with(DEFINITIONS) {
                definitions.extend(definitions_of(&path, &content)?);
                continue;
            }
            if content.starts_with(BYTE_ORDER_MARK.as_bytes()) {
                content.drain(..BYTE_ORDER_MARK.len());
            }
            kept.insert(path, content);
        }
        let described = kept.get(METADATA).ok_or_else(|| Error::failed("the chart has no Chart.yaml"))?;
        let mut metadata: Metadata = serde_saphyr::from_slice(described).context("read Chart.yaml")?;
        let digest = digest(described, &kept)?;
        if metadata.name.is_empty() || metadata.name.contains('/') {
            return Err(Error::failed(format!("Chart.yaml: the name {:?} is none for a chart", metadata.name)).into());
        }
        if !is_version(&metadata.version) {
            let error = Error::failed(format!("Chart.yaml: the version {:?} is none", metadata.version));
            return Err(error.hint("name one such as 1.2.3").into());
        }
        if !metadata.dependencies.is_empty() && !kept.keys().any(|path| path.starts_with("charts/")) {
            let error = Error::failed("the chart depends on others, which are not in its charts/");
            return Err(error.hint("fetch them: helm dependency build").into());
        }
        let [cluster_name, namespaces] = [CLUSTER_NAME, NAMESPACES].map(|key| metadata.annotations.remove(key));
        let Metadata { name, version, .. } = metadata;
        Ok(Self { name, version, cluster_name, namespaces, digest, files: kept, definitions })
    }

    /// `templates/…`, by their path in the chart.
    pub fn templates(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.files.iter().filter(|(path, _)| path.starts_with("templates/"))
    }

    /// A `.tgz` for Helm, without the definitions: those are applied without it, would take it as long as everything else, and
    /// would be kept in each revision.
    ///
    /// # Errors
    /// A path is none that an archive can have.
    pub fn pack(&self) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, content) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len().try_into()?);
            header.set_mode(0o644);
            let added = archive.append_data(&mut header, format!("chart/{path}"), content.as_slice());
            added.with_context(|| format!("pack {path} of the chart"))?;
        }
        Ok(archive.into_inner()?.finish()?)
    }
}

/// Whether Helm takes this for a version: up to three numbers, and what may follow them.
fn is_version(text: &str) -> bool {
    let numbers = text.strip_prefix('v').unwrap_or(text).split(['-', '+']).next().unwrap_or_default();
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    numbers.split('.').count() <= 3 && numbers.split('.').all(number)
}

/// Helm writes `Chart.yaml` anew when it packs a chart, without what is empty.
fn digest(metadata: &[u8], files: &Files) -> Result<String> {
    let mut metadata: Map<String, Value> = serde_saphyr::from_slice(metadata).context("read Chart.yaml")?;
    metadata.retain(|_, value| ![json!(null), json!(""), json!(false), json!([]), json!({})].contains(value));
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(&metadata)?);
    for (path, content) in files.iter().filter(|(path, _)| !WRITTEN_ANEW.contains(&path.as_str())) {
        // Lengths keep what belongs to one file from passing for another's.
        hash.update(format!("{}:{path}{}:", path.len(), content.len()));
        hash.update(content);
    }
    let mut digest = hex::encode(hash.finalize());
    digest.truncate(DIGEST);
    Ok(digest)
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

    const MESH: (&str, &str) = ("Chart.yaml", "name: mesh\nversion: 1.2.3\n");

    fn files(files: &[(&str, &str)]) -> Files {
        files.iter().map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec())).collect()
    }

    fn chart(content: &[(&str, &str)]) -> Chart {
        Chart::read(files(content)).unwrap()
    }

    #[test]
    fn a_chart_is_what_its_files_say() {
        let content = [
            MESH,
            ("values.yaml", "a: 1"),
            ("templates/a.yaml", "\u{feff}x"),
            ("crds/all.yaml", "---\nkind: CustomResourceDefinition\nmetadata: {name: a}\n---\nkind: Other\n"),
            ("crds/README.md", "[not yaml"),
        ];
        let read = chart(&content);
        assert_eq!((read.name.as_str(), read.version.as_str()), ("mesh", "1.2.3"));
        assert!(read.templates().eq(&files(&[("templates/a.yaml", "x")])));
        assert_eq!((read.definitions.len(), &read.cluster_name), (1, &None));
        assert_eq!(read.digest.len(), DIGEST);

        let other = chart(&[MESH, ("values.yaml", "a: 2"), content[2], content[3]]);
        assert_eq!(chart(&content).digest, read.digest);
        assert_eq!(chart(&content[..3]).digest, read.digest, "definitions are applied by themselves");
        assert_ne!(other.digest, read.digest);
        for (metadata, same) in [
            ("# ours\nversion: '1.2.3'\nname: \"mesh\"\nicon: ''\nkeywords: []\ndeprecated: false", true),
            ("name: mesh\nversion: 1.2.3\nappVersion: '2'", false),
            ("name: mesh\nversion: 1.2.3\nannotations: {a: b}", false),
        ] {
            let other = chart(&[("Chart.yaml", metadata), content[1], content[2], ("Chart.lock", "")]);
            assert_eq!(other.digest == read.digest, same, "{metadata}");
        }
    }

    #[test]
    fn helm_gets_everything_but_the_definitions() {
        let long = format!("files/{}", "a".repeat(200));
        let content = [MESH, ("crds/all.yaml", ""), (&long, "x"), ("charts/other/crds/all.yaml", "")];
        let expected = files(&[MESH, content[2], content[3]]);
        assert_eq!(unpack(chart(&content).pack().unwrap().as_slice()).unwrap(), expected);
    }

    #[test]
    fn our_chart_takes_the_clusters_name_and_namespaces() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/appmesh-controller");
        let chart = Chart::read(crate::folder::read(folder.as_ref()).unwrap()).unwrap();
        let values: Value = serde_saphyr::from_slice(&chart.files["values.yaml"]).unwrap();
        assert_eq!(values[chart.cluster_name.unwrap()], "", "a value that there is");
        assert_eq!(values[chart.namespaces.unwrap()], serde_json::json!({}), "a value that there is");
    }

    #[test]
    fn what_is_no_chart_is_refused() {
        let error = |content: &[(&str, &str)]| format!("{:#}", Chart::read(files(content)).unwrap_err());
        assert_eq!(error(&[("values.yaml", "")]), "the chart has no Chart.yaml");
        for version in ["abc", "1.2.3.4", "1..2", "''", "1.x"] {
            let metadata = format!("name: a\nversion: {version}");
            let expected = format!("Chart.yaml: the version {:?} is none", version.trim_matches('\''));
            assert_eq!(error(&[("Chart.yaml", &metadata)]), expected);
        }
        for version in ["1", "v1.2", "'1.2.3-rc.1+build-7'"] {
            chart(&[("Chart.yaml", &format!("name: a\nversion: {version}"))]);
        }
        let named = [("Chart.yaml", "name: a/b\nversion: 1.0.0")];
        assert_eq!(error(&named), "Chart.yaml: the name \"a/b\" is none for a chart");
        let depends = ("Chart.yaml", "name: a\nversion: 1.0.0\ndependencies: [{name: b}]");
        assert_eq!(error(&[depends]), "the chart depends on others, which are not in its charts/");
        assert_eq!(chart(&[depends, ("charts/b-1.0.0.tgz", "")]).name, "a");
        let error = unpack(b"no archive".as_slice()).unwrap_err();
        assert!(format!("{error:#}").starts_with("read the chart's archive"));
    }
}
