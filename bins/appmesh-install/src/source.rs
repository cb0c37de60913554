//! Finds where a chart comes from, by what it is called. Looks at the disk for folders, and nowhere else.

use crate::helm::Source;
use crate::mesh::Mesh;
use anyhow::Result;
use common::Error;
use common::app_mesh::CONTROLLER;
use std::path::Path;

/// The chart's name in Amazon's repository.
const NAME: &str = CONTROLLER;

/// The last version of Amazon's chart, of 2025-10-23.
const VERSION: &str = "1.13.3";

/// The flags that name a chart.
#[derive(Debug, Default, clap::Args)]
pub struct ChartFlags {
    /// A folder, a .tgz, oci://REFERENCE or the URL of a chart repository
    #[arg(long, value_name = "CHART")]
    pub chart: Option<String>,
    /// Name of the chart in a repository [default: appmesh-controller]
    #[arg(long, value_name = "NAME")]
    pub chart_name: Option<String>,
    /// Version of the chart in a repository or registry [default: 1.13.3 for appmesh-controller in a repository]
    #[arg(long, value_name = "VERSION")]
    pub chart_version: Option<String>,
}

impl ChartFlags {
    /// Where the chart comes from: the command line wins over the document.
    ///
    /// # Errors
    /// Neither names a chart, it is of no known kind, or no version is known.
    pub fn source(&self, mesh: &Mesh) -> Result<Source> {
        // A name or version in the document belongs to the chart in the document.
        let same = self.chart.is_none() || self.chart == mesh.chart;
        let (name, version) = if same { (&mesh.chart_name, &mesh.version) } else { (&None, &None) };
        let chart = self.chart.as_ref().or(mesh.chart.as_ref());
        let chart =
            chart.ok_or_else(|| Error::input("no chart").hint("give --chart, or mesh.chart in the document"))?;
        let (name, version) =
            (self.chart_name.as_ref().or(name.as_ref()), self.chart_version.as_ref().or(version.as_ref()));
        source(chart, name.map(String::as_str), version.map(String::as_str))
    }
}

/// Tells the four kinds of charts apart.
fn source(chart: &str, name: Option<&str>, version: Option<&str>) -> Result<Source> {
    if chart.starts_with("oci://") {
        let tagged = chart.rsplit_once('/').is_some_and(|(_, last)| last.contains([':', '@']));
        let version = version.filter(|_| !tagged).map(str::to_owned);
        if version.is_none() && !tagged {
            return Err(Error::input(format!("which version of {chart}?")).hint("give --chart-version").into());
        }
        return Ok(Source::Registry { reference: chart.to_owned(), version });
    }
    if chart.starts_with("https://") || chart.starts_with("http://") {
        let name = name.unwrap_or(NAME);
        let version = version
            .or((name == NAME).then_some(VERSION))
            .ok_or_else(|| Error::input(format!("which version of the chart {name}?")).hint("give --chart-version"))?;
        return Ok(Source::Repository { url: chart.to_owned(), name: name.to_owned(), version: version.to_owned() });
    }
    let path = Path::new(chart);
    if path.join("Chart.yaml").is_file() {
        return Ok(Source::Folder(path.to_owned()));
    }
    if path.is_file() {
        return Ok(Source::Tarball(path.to_owned()));
    }
    let hint = "give a folder with a Chart.yaml, a .tgz, oci://REFERENCE or the URL of a chart repository";
    Err(Error::input(format!("there is no chart {chart}")).hint(hint).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_version_belongs_to_its_chart() {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mesh = Mesh { chart: text("oci://r/a"), version: text("1"), ..Mesh::default() };
        for (chart, chart_version, expected) in [
            ("", "", Ok(Some("1"))),
            ("oci://r/a", "", Ok(Some("1"))),
            ("oci://r/a", "2", Ok(Some("2"))),
            ("oci://r/b", "2", Ok(Some("2"))),
            ("oci://r/b", "", Err("which version of oci://r/b?")),
        ] {
            let flags = ChartFlags { chart: text(chart), chart_name: None, chart_version: text(chart_version) };
            let found = flags.source(&mesh).map_err(|error| error.to_string());
            let found = found.map(|source| if let Source::Registry { version, .. } = source { version } else { None });
            assert_eq!(
                found,
                expected.map(|it| it.map(str::to_owned)).map_err(str::to_owned),
                "{chart} {chart_version}"
            );
        }
        let none = ChartFlags::default().source(&Mesh::default());
        assert_eq!(none.map_err(|error| error.to_string()), Err("no chart".to_owned()));
    }

    #[test]
    fn a_chart_is_known_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir(path("c")).unwrap();
        std::fs::write(path("c/Chart.yaml"), "").unwrap();
        std::fs::write(path("c.tgz"), "").unwrap();
        let repository = |name: &str, version: &str| Source::Repository {
            url: "https://r".into(),
            name: name.into(),
            version: version.into(),
        };
        let registry = |reference: &str, version: Option<&str>| Source::Registry {
            reference: reference.into(),
            version: version.map(str::to_owned),
        };
        let cases = [
            (path("c"), None, Some("9"), Ok(Source::Folder(path("c").into()))),
            (path("c.tgz"), None, None, Ok(Source::Tarball(path("c.tgz").into()))),
            ("https://r".into(), None, None, Ok(repository(NAME, VERSION))),
            ("https://r".into(), Some(NAME), Some("1.12.0"), Ok(repository(NAME, "1.12.0"))),
            ("https://r".into(), Some("other"), None, Err("which version of the chart other?")),
            ("oci://r:5000/c".into(), None, Some("1"), Ok(registry("oci://r:5000/c", Some("1")))),
            ("oci://r/c:1".into(), None, Some("2"), Ok(registry("oci://r/c:1", None))),
            ("oci://r:5000/c".into(), None, None, Err("which version of oci://r:5000/c?")),
            ("nowhere".into(), None, None, Err("there is no chart nowhere")),
        ];
        for (chart, name, version, expected) in cases {
            let found = source(&chart, name, version).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{chart}");
        }
    }
}
