//! A Helm release as Helm keeps it: a Secret of labels and a packed record. Pure.

use crate::chart::Chart;
use crate::plan::Target;
use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::Error;
use common::kube::apply::{Manifest, differences};
use common::kube::manifest;
use common::kube::object::ObjectRef;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Read;

/// The release's label that says who installed it.
pub const OWNER: (&str, &str) = ("managed-by", "crossmesh");
/// The field manager of what Helm applies.
pub const MANAGER: &str = "helm";
/// What a revision of ours is described as, before its chart's digest. Labels would not do: a hand's upgrade keeps them.
const DESCRIPTION: &str = "crossmesh: chart ";

/// One revision.
#[derive(Debug, Clone, Default)]
pub struct Release {
    /// Counts from 1.
    pub revision: u32,
    /// `deployed`, `failed`, `pending-upgrade`, ….
    pub status: String,
    /// Labels of its Secret.
    pub labels: BTreeMap<String, String>,
    /// What `helm history` tells of it.
    pub description: String,
    /// The program that wrote it, such as `helm` or `terraform-provider-helm`.
    pub writer: String,
    /// Name and version of the chart.
    pub chart: (String, String),
    /// Its templates, by path.
    pub templates: BTreeMap<String, Vec<u8>>,
    /// The values that were given, without the chart's defaults.
    pub values: Map<String, Value>,
    /// What was installed, in YAML.
    pub manifest: String,
}

#[derive(Deserialize)]
struct Record {
    chart: ChartRecord,
    #[serde(default)]
    config: Option<Map<String, Value>>,
    #[serde(default)]
    manifest: String,
    #[serde(default)]
    info: Info,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Info {
    description: String,
}

#[derive(Deserialize)]
struct ChartRecord {
    metadata: Metadata,
    #[serde(default)]
    templates: Option<Vec<File>>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct File {
    name: String,
    data: String,
}

impl Release {
    /// Unpacks a revision: labels, and base64 of gzip of JSON. Source: helm.sh/helm/v4/pkg/storage/driver.
    ///
    /// # Errors
    /// It is not what Helm writes.
    pub fn read(labels: BTreeMap<String, String>, writer: String, packed: &[u8]) -> Result<Self> {
        let zipped = BASE64_STANDARD.decode(packed).context("the release is not base64")?;
        let mut record = Vec::new();
        GzDecoder::new(zipped.as_slice()).read_to_end(&mut record).context("unpack the release")?;
        let record: Record = serde_json::from_slice(&record).context("read the release")?;
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let templates = record.chart.templates.unwrap_or_default().into_iter();
        let templates = templates.map(|file| Ok((file.name, BASE64_STANDARD.decode(file.data)?)));
        Ok(Self {
            revision: label("version").parse().context("the release has no revision")?,
            status: label("status"),
            chart: (record.chart.metadata.name, record.chart.metadata.version),
            templates: templates.collect::<Result<_>>().context("read the release's templates")?,
            values: record.config.unwrap_or_default(),
            manifest: record.manifest,
            description: record.info.description,
            labels,
            writer,
        })
    }

    /// Whether we installed it.
    pub fn ours(&self) -> bool {
        self.labels.get(OWNER.0).is_some_and(|owner| owner == OWNER.1)
    }

    /// Who installed it when we did not, as far as it says.
    pub fn origin(&self) -> String {
        format!("installed by somebody else, with {}", self.writer)
    }

    /// Whether a run of Helm was at it and has not ended.
    pub fn pending(&self) -> bool {
        self.status.starts_with("pending-")
    }

    /// How it differs from what is wanted; nothing when it does not.
    pub fn differs(&self, chart: &Chart, values: &Map<String, Value>) -> Vec<String> {
        let mut found = Vec::new();
        if self.status != "deployed" {
            found.push(format!("revision {} is {}", self.revision, self.status));
        }
        let (name, version) = &self.chart;
        if (name, version) != (&chart.name, &chart.version) {
            found.push(format!("chart {name} {version} → {} {}", chart.name, chart.version));
        } else if !self.templates.iter().eq(chart.templates()) || self.digest().is_some_and(|it| it != chart.digest) {
            found.push(format!("chart {name} {version} has other content"));
        }
        let (have, want) = (json!({"values": self.values}), json!({"values": values}));
        found.extend(differences(&plain(have), &plain(want)).iter().map(ToString::to_string));
        // The defaults of its chart may be others, which nothing else shows.
        if found.is_empty() && self.ours() && self.digest().is_none() {
            found.push(format!("revision {} is by another hand", self.revision));
        }
        found
    }

    /// The digest of its chart, if the revision is ours.
    fn digest(&self) -> Option<&str> {
        self.description.strip_prefix(DESCRIPTION)
    }

    /// What was installed, as Helm applies it: with its label and annotations.
    ///
    /// # Errors
    /// The manifest is not YAML.
    pub fn manifests(&self, target: &Target) -> Result<Vec<Manifest>> {
        let content = manifest::read("manifest", &self.manifest, &mut |_| None);
        let content = content.context(Error::failed("read the release's manifest"))?;
        let mut manifests = Vec::new();
        for mut body in content.objects {
            let Some(object) = ObjectRef::of(&body) else { continue };
            let metadata = &mut body["metadata"];
            metadata["labels"]["app.kubernetes.io/managed-by"] = "Helm".into();
            metadata["annotations"]["meta.helm.sh/release-name"] = target.release.as_str().into();
            metadata["annotations"]["meta.helm.sh/release-namespace"] = target.namespace.as_str().into();
            let object = if object.namespace.is_none() { object.within(&target.namespace) } else { object };
            manifests.push(Manifest { object, body });
        }
        Ok(manifests)
    }
}

/// How to describe a revision of this chart.
pub fn description(chart: &Chart) -> String {
    format!("{DESCRIPTION}{}", chart.digest)
}

/// Helm's numbers are floats: `1.50` comes back as `1.5`.
fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (None, Some(float)) => json!(float),
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, plain(value))).collect(),
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn packed(record: &Value) -> String {
        let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
        zip.write_all(record.to_string().as_bytes()).unwrap();
        BASE64_STANDARD.encode(zip.finish().unwrap())
    }

    fn labels(status: &str) -> BTreeMap<String, String> {
        [("version", "3"), ("status", status), ("managed-by", "crossmesh")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    fn release(status: &str) -> Release {
        let record = json!({
            "chart": {"metadata": {"name": "mesh", "version": "1.0.0"}, "templates": [{"name": "templates/a", "data": "eA=="}]},
            "config": {"region": "us-west-2", "n": 1.5},
            "manifest": "---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: mesh\n",
            "info": {"description": "crossmesh: chart d"},
        });
        Release::read(labels(status), "helm".to_owned(), packed(&record).as_bytes()).unwrap()
    }

    #[test]
    fn a_release_differs_where_chart_or_values_do() {
        let chart = Chart {
            name: "mesh".into(),
            version: "1.0.0".into(),
            files: [("templates/a".to_owned(), b"x".to_vec())].into(),
            digest: "d".into(),
            ..Chart::default()
        };
        let values: Map<String, Value> = serde_json::from_str(r#"{"region": "us-west-2", "n": 1.50}"#).unwrap();
        let mut elsewhere = values.clone();
        elsewhere.insert("region".into(), "eu-west-1".into());
        let newer = Chart { version: "1.1.0".into(), ..chart.clone() };
        let edited = Chart { files: [("templates/a".to_owned(), b"y".to_vec())].into(), ..chart.clone() };
        let defaults = Chart { digest: "e".into(), ..chart.clone() };
        type Case<'a> = (&'a str, &'a Chart, &'a Map<String, Value>, &'a [&'a str]);
        let cases: [Case<'_>; 6] = [
            ("deployed", &chart, &values, &[]),
            ("failed", &chart, &values, &["revision 3 is failed"]),
            ("deployed", &newer, &values, &["chart mesh 1.0.0 → mesh 1.1.0"]),
            ("deployed", &edited, &values, &["chart mesh 1.0.0 has other content"]),
            ("deployed", &defaults, &values, &["chart mesh 1.0.0 has other content"]),
            ("deployed", &chart, &elsewhere, &["values.region us-west-2 → eu-west-1"]),
        ];
        for (status, chart, values, expected) in cases {
            assert_eq!(release(status).differs(chart, values), expected, "{status} {chart:?} {values:?}");
        }
        let by_hand = Release { description: "Upgrade complete".into(), ..release("deployed") };
        assert_eq!(by_hand.differs(&chart, &values), ["revision 3 is by another hand"]);
        let theirs = Release { labels: BTreeMap::new(), ..by_hand };
        assert_eq!(theirs.differs(&chart, &values), [""; 0]);
    }

    #[test]
    fn a_release_says_what_it_installed() {
        let release = release("deployed");
        assert!(release.ours() && !release.pending());
        let target = Target { namespace: "ns".into(), release: "r".into(), service_account: "sa".into() };
        let manifests = release.manifests(&target).unwrap();
        assert_eq!(manifests.len(), 1);
        let Manifest { object, body } = &manifests[0];
        assert_eq!(object.to_string(), "Deployment ns/mesh");
        assert_eq!(body["metadata"]["labels"], json!({"app.kubernetes.io/managed-by": "Helm"}));
        assert_eq!(body["metadata"]["annotations"]["meta.helm.sh/release-name"], "r");
        assert_eq!(body["metadata"]["annotations"]["meta.helm.sh/release-namespace"], "ns");
    }
}
