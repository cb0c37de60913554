//! Holds the folders to what they may import of each other, as ARCHITECTURE.md has it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What each folder or file of `src` may import of the crate. All may count (`metrics`).
const MAY_IMPORT: [(&str, &[&str]); 16] = [
    ("packed", &[]),
    ("model", &["packed"]),
    ("metrics", &[]),
    ("log", &[]),
    ("http", &["metrics"]),
    ("cluster", &["metrics", "packed"]),
    ("tls", &["cluster", "metrics"]),
    ("translate", &["cluster", "model"]),
    ("envoy", &["model"]),
    ("xds", &["envoy", "metrics", "model", "tls"]),
    ("cloudmap", &["metrics", "model"]),
    ("admission", &["cluster", "envoy", "model", "tls", "translate"]),
    ("status", &["cluster", "metrics", "model", "translate"]),
    ("dry_run", &["cluster", "envoy", "model", "translate"]),
    ("pipeline", &["cloudmap", "cluster", "envoy", "metrics", "model", "status", "translate", "xds"]),
    (
        "run",
        &[
            "admission",
            "cloudmap",
            "cluster",
            "envoy",
            "http",
            "log",
            "metrics",
            "model",
            "pipeline",
            "status",
            "tls",
            "xds",
        ],
    ),
];

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|entry| sources(&entry)).filter(|path| path.extension().is_some_and(|is| is == "rs")).collect()
}

/// The parts of the crate that a source names: `crate::part`, also in a group.
fn imports(source: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, _) in source.match_indices("crate::") {
        let before = source[..at].chars().next_back();
        let rest = &source[at + "crate::".len()..];
        // `$crate` is of a macro, and another crate's name may end alike.
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    found.insert(word(group[start..index].trim_start()));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.insert(word(group[start..index].trim_start()));
                    start = index + 1;
                }
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn folders_import_only_what_they_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut checked = BTreeSet::from(["lib".to_owned(), "main".to_owned()]);
    for (part, allowed) in MAY_IMPORT {
        let path = root.join(part);
        let path = if path.is_dir() { path } else { root.join(format!("{part}.rs")) };
        let files = sources(&path);
        assert!(!files.is_empty(), "{part}: no sources");
        for file in files {
            let imports = imports(&fs::read_to_string(&file).unwrap());
            let other = imports.iter().filter(|other| *other != part && !allowed.contains(&other.as_str()));
            let other: Vec<_> = other.collect();
            assert!(other.is_empty(), "{} imports {other:?}, and {part} may not", file.display());
        }
        checked.insert(part.to_owned());
    }
    let parts = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let parts: BTreeSet<_> = parts.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(parts, checked, "a part of the crate has no row above");
}

#[test]
fn imports_are_found() {
    let source = "use crate::{a::{B, C}, d,\n    e::f};\nfn x() { crate::g::h(); other_crate::i() }\n$crate::j";
    assert_eq!(imports(source), ["a", "d", "e", "g"].map(str::to_owned).into());
}
