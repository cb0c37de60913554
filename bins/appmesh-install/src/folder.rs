//! Reads the folder of a chart as Helm does: without what its `.helmignore` names.

use crate::chart::Files;
use anyhow::{Context, Result};
use common::Error;
use common::kube::manifest::BYTE_ORDER_MARK;
use globset::{GlobBuilder, GlobMatcher};
use std::path::Path;
use walkdir::WalkDir;

/// Names in the folder, one in a line, what Helm passes over.
const IGNORE: &str = ".helmignore";

/// What Helm passes over in any case.
const ALWAYS: &str = "templates/.?*";

/// The most that Helm takes for a chart, in bytes.
/// <https://github.com/helm/helm/blob/v4.3.1/pkg/chart/loader/archive/archive.go>
const LARGEST: u64 = 100 << 20;

/// The files of a chart.
///
/// # Errors
/// A file cannot be read, is neither a file nor a folder, or Helm does not understand the `.helmignore`.
pub fn read(folder: &Path) -> Result<Files> {
    let rules = Rules::read(folder)?;
    let name = |path: &Path| path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned();
    let found = WalkDir::new(folder).min_depth(1).follow_links(true).into_iter();
    let found = found.filter_entry(|entry| !rules.ignore(&name(entry.path()), entry.file_type().is_dir()));
    let (mut files, mut size) = (Files::new(), 0);
    for entry in found {
        let entry = entry.context("read the chart's folder")?;
        let path = entry.path();
        if entry.file_type().is_dir() {
            continue;
        }
        let described = || format!("read {}", path.display());
        let metadata = entry.metadata().with_context(described)?;
        if !metadata.is_file() {
            return Err(Error::failed("it is no file")).with_context(described);
        }
        size += metadata.len();
        if size > LARGEST {
            let hint = format!("{IGNORE} names what is not the chart's");
            return Err(Error::failed("the chart is larger than Helm takes").hint(hint)).with_context(described);
        }
        files.insert(name(path), std::fs::read(path).with_context(described)?);
    }
    Ok(files)
}

/// A `.helmignore`.
struct Rules(Vec<Rule>);

/// A line of it.
struct Rule {
    pattern: GlobMatcher,
    /// It names what is not passed over, and thereby everything else.
    negated: bool,
    /// It is about folders only.
    folders: bool,
    /// It is about whole paths, not only the last name in them.
    paths: bool,
}

impl Rules {
    fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(IGNORE);
        let described = || format!("read {}", file.display());
        let text = if file.exists() { std::fs::read_to_string(&file).with_context(described)? } else { String::new() };
        let lines = text.trim_start_matches(BYTE_ORDER_MARK).lines().chain([ALWAYS]).map(str::trim);
        let rules = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Rule::new);
        Ok(Self(rules.collect::<Result<_>>().with_context(described)?))
    }

    /// Whether Helm passes over this path.
    fn ignore(&self, path: &str, is_folder: bool) -> bool {
        let last = path.rsplit('/').next().unwrap_or(path);
        self.0.iter().any(|rule| {
            let matches = rule.pattern.is_match(if rule.paths { path } else { last });
            if rule.folders && !is_folder { rule.negated } else { matches != rule.negated }
        })
    }
}

impl Rule {
    fn new(line: &str) -> Result<Self> {
        if line.contains("**") {
            return Err(Error::failed(format!("{line}: Helm knows no **")).into());
        }
        let (negated, rest) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
        let (folders, rest) = rest.strip_suffix('/').map_or((false, rest), |rest| (true, rest));
        let paths = rest.contains('/');
        // To Helm, braces are letters.
        let pattern = rest.strip_prefix('/').unwrap_or(rest).replace('{', r"\{").replace('}', r"\}");
        let pattern = GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build();
        let pattern = pattern.with_context(|| format!("read the pattern {line}"))?.compile_matcher();
        Ok(Self { pattern, negated, folders, paths })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use std::process::Command;

    const FILES: [&str; 12] = [
        ".git/config",
        "Chart.yaml",
        "README.md",
        "a{b}.txt",
        "crds/all.yaml",
        "crds/kustomization.yaml",
        "deep/down/kustomization.yaml",
        "deep/down/notes.txt",
        "templates/.hidden.yaml",
        "templates/a.yaml",
        "templates/tests/b.yaml",
        "values.yaml",
    ];

    fn chart(ignore: Option<&str>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for path in FILES {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::fs::write(folder.path().join("Chart.yaml"), "apiVersion: v2\nname: c\nversion: 1.0.0\n").unwrap();
        if let Some(ignore) = ignore {
            std::fs::write(folder.path().join(IGNORE), ignore).unwrap();
        }
        folder
    }

    /// Which of the files above are not read.
    fn missing(folder: &Path) -> Vec<&'static str> {
        let files = read(folder).unwrap();
        FILES.into_iter().filter(|path| !files.contains_key(*path)).collect()
    }

    const CASES: [(&str, &[&str]); 12] = [
        ("", &[]),
        ("# values.yaml\n\n  README.md  \n", &["README.md"]),
        ("\u{feff}README.md", &["README.md"]),
        ("kustomization.yaml", &["crds/kustomization.yaml", "deep/down/kustomization.yaml"]),
        ("crds/kustomization.yaml", &["crds/kustomization.yaml"]),
        ("/kustomization.yaml\n/README.md", &["README.md"]),
        ("down/\nREADME.md/\n.git/", &[".git/config", "deep/down/kustomization.yaml", "deep/down/notes.txt"]),
        ("deep/*", &["deep/down/kustomization.yaml", "deep/down/notes.txt"]),
        ("*.txt\n*/a.yam?", &["a{b}.txt", "deep/down/notes.txt", "templates/a.yaml"]),
        ("a{b}.txt\n{README.md,values.yaml}", &["a{b}.txt"]),
        ("[^a-z]EADME.md\n\\values.yaml", &["README.md", "values.yaml"]),
        ("README.md\n!*", &["README.md"]),
    ];

    #[test]
    fn what_helmignore_names_is_not_read() {
        assert_eq!(missing(chart(None).path()), ["templates/.hidden.yaml"]);
        for (ignore, expected) in CASES {
            let mut expected = expected.to_vec();
            expected.push("templates/.hidden.yaml");
            expected.sort_unstable();
            assert_eq!(missing(chart(Some(ignore)).path()), expected, "{ignore:?}");
        }
    }

    #[test]
    fn helm_passes_over_the_same() {
        let Some(helm) = crate::helm::of_tests() else { return };
        for (ignore, _) in CASES.into_iter().chain([("!values.yaml", &[][..]), ("!*.yaml\n!templates/", &[])]) {
            let (folder, packed) = (chart(Some(ignore)), tempfile::tempdir().unwrap());
            let package = Command::new(&helm).arg("package").arg(folder.path()).arg("-d").arg(packed.path()).output();
            let package = package.unwrap();
            let ours = read(folder.path()).unwrap();
            let Some(archive) = std::fs::read_dir(packed.path()).unwrap().next() else {
                assert!(!ours.contains_key("Chart.yaml"), "{ignore:?}: {package:?}");
                continue;
            };
            let theirs = crate::chart::unpack(std::fs::File::open(archive.unwrap().path()).unwrap()).unwrap();
            assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{ignore:?}");
        }
    }

    #[test]
    fn links_are_followed_and_what_is_no_file_is_refused() {
        let folder = chart(None);
        let path = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink(path("values.yaml"), path("link.yaml")).unwrap();
        std::os::unix::fs::symlink(path("deep"), path("linked")).unwrap();
        let files = read(folder.path()).unwrap();
        assert!(files.contains_key("link.yaml") && files.contains_key("linked/down/notes.txt"));
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        let error = format!("{:#}", read(folder.path()).unwrap_err());
        assert_eq!(error, format!("read {}: it is no file", path("socket").display()));
    }

    #[test]
    fn a_line_that_helm_does_not_understand_is_quoted() {
        for (line, expected) in [("a/**", "a/**: Helm knows no **"), ("a[", "read the pattern a[: error parsing glob")]
        {
            let folder = chart(Some(line));
            let error = format!("{:#}", read(folder.path()).unwrap_err());
            let file = folder.path().join(IGNORE);
            assert!(error.starts_with(&format!("read {}: {expected}", file.display())), "{error}");
        }
    }
}
