#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::*;
use crate::image::{Part, sha256};
use ::tests::hostile::spoiled;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use tempfile::TempDir;

type Files = BTreeMap<String, Vec<u8>>;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar(files: &Files) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("./{name}"), &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The same files as a folder, a tar and a tar.gz.
fn shapes(files: &Files) -> (TempDir, Vec<PathBuf>) {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("folder");
    for (name, content) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let (plain, packed) = (scratch.path().join("a.tar"), scratch.path().join("a.tar.gz"));
    std::fs::write(&plain, tar(files)).unwrap();
    std::fs::write(&packed, gzip(&tar(files), 6)).unwrap();
    (scratch, vec![folder, plain, packed])
}

fn put(files: &mut Files, kind: &str, content: Vec<u8>) -> String {
    let (digest, size) = (sha256(&content), content.len());
    files.insert(format!("blobs/sha256/{}", &digest[7..]), content);
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
}

fn platform(files: &mut Files, architecture: &str) -> String {
    let config = format!(r#"{{"architecture":"{architecture}","os":"linux"}}"#);
    let config = put(files, "application/vnd.oci.image.config.v1+json", config.into());
    let layer = put(files, "application/vnd.oci.image.layer.v1.tar+gzip", gzip(b"layer", 6));
    let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
    put(files, MANIFEST, manifest.into())
}

/// A layout of an index of two platforms, and its digest.
fn layout() -> (Files, String) {
    let mut files = Files::new();
    let (amd64, arm64) = (platform(&mut files, "amd64"), platform(&mut files, "arm64"));
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{amd64},{arm64}]}}"#);
    let digest = sha256(index.as_bytes());
    let index = put(&mut files, INDEX, index.into());
    files.insert("index.json".into(), format!(r#"{{"schemaVersion":2,"manifests":[{index}]}}"#).into());
    files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    (files, digest)
}

/// A docker archive with one layer, compressed or not.
fn docker(level: Option<u32>) -> Files {
    let layer = tar(&Files::from([("hello".to_owned(), b"hello".to_vec())]));
    let digest = sha256(&layer);
    let config = format!(
        r#"{{"architecture":"arm64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"created":"now"}}"#
    );
    let manifest = r#"[{"Config":"c.json","RepoTags":["web:v1"],"Layers":["l/layer.tar"]}]"#;
    Files::from([
        ("c.json".to_owned(), config.into_bytes()),
        ("l/layer.tar".to_owned(), level.map_or(layer.clone(), |level| gzip(&layer, level))),
        ("manifest.json".to_owned(), manifest.as_bytes().to_vec()),
    ])
}

fn refusal(path: &Path) -> String {
    format!("{:#}", image(path, None).unwrap_err()).replace(&path.display().to_string(), "ARCHIVE")
}

#[test]
fn a_layout_of_any_shape_keeps_its_digests() {
    let (files, digest) = layout();
    let (_scratch, paths) = shapes(&files);
    for path in paths {
        let image = image(&path, None).unwrap();
        assert_eq!(image.top().unwrap().digest, digest, "{path:?}");
        assert_eq!(image.top().unwrap().media_type, INDEX);
        assert_eq!(image.manifests.len(), 3, "the platforms' manifests come before the index");
        assert_eq!(image.blobs.len(), 3, "two configurations, one layer that both have");
        assert_eq!(Vec::from_iter(&image.platforms), ["linux/amd64", "linux/arm64"]);
        for blob in &image.blobs {
            assert_eq!(sha256(&blob.parts[0].bytes().unwrap()), blob.digest, "{path:?}");
        }
    }
}

#[test]
fn a_docker_archive_has_one_digest_however_it_is_packed() {
    let mut digests = Vec::new();
    for level in [None, Some(1), Some(9)] {
        let (_scratch, paths) = shapes(&docker(level));
        for path in paths {
            let image = image(&path, None).unwrap();
            assert_eq!(Vec::from_iter(&image.platforms), ["linux/arm64"]);
            for blob in &image.blobs {
                assert_eq!(sha256(&blob.parts[0].bytes().unwrap()), blob.digest, "{path:?}");
            }
            digests.push(image.top().unwrap().digest.clone());
        }
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn links_of_old_docker_archives_are_followed() {
    let mut files = docker(None);
    let layer = files.remove("l/layer.tar").unwrap();
    files.insert("other/layer.tar".into(), layer);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.tar");
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "l/layer.tar", "../other/layer.tar").unwrap();
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(512);
    bytes.extend(tar(&files));
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(image(&path, None).unwrap().blobs.len(), 2);
}

#[test]
fn of_several_images_the_tag_tells() {
    let mut files = docker(None);
    let two = r#"[{"Config":"none.json","RepoTags":["web:v0"],"Layers":[]},
        {"Config":"c.json","RepoTags":["web:v1"],"Layers":["l/layer.tar"]}]"#;
    files.insert("manifest.json".into(), two.into());
    let (_scratch, paths) = shapes(&files);
    assert_eq!(image(&paths[0], Some("v1")).unwrap().blobs.len(), 2);
    assert_eq!(refusal(&paths[0]), "the archive holds 2 images: web:v0, web:v1");
}

#[test]
fn what_is_damaged_is_named() {
    let layer = sha256(&gzip(b"layer", 6));
    let config = sha256(br#"{"architecture":"amd64","os":"linux"}"#);
    let without = |name: &str| {
        let mut files = layout().0;
        files.remove(name).unwrap();
        files
    };
    let with = |mut files: Files, name: &str, content: &str| {
        files.insert(name.into(), content.into());
        files
    };
    let outside = r#"[{"Config":"../../etc/passwd","RepoTags":null,"Layers":[]}]"#;
    let cases = [
        (Files::from([("x".into(), vec![])]), "ARCHIVE is neither an OCI layout nor a docker archive".to_owned()),
        (without(&format!("blobs/sha256/{}", &layer[7..])), format!("ARCHIVE: lacks {layer}")),
        (
            with(layout().0, &format!("blobs/sha256/{}", &config[7..]), "short"),
            format!("ARCHIVE: {config} has 5 bytes instead of 37"),
        ),
        (with(docker(None), "manifest.json", outside), "ARCHIVE: ../../etc/passwd is not inside".to_owned()),
        (
            with(layout().0, "index.json", r#"{"manifests":[{"mediaType":"x","digest":"md5:1","size":1}]}"#),
            "ARCHIVE: md5:1 is no sha256 digest".to_owned(),
        ),
    ];
    for (files, message) in cases {
        let (_scratch, paths) = shapes(&files);
        for path in paths {
            assert_eq!(refusal(&path), message);
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let text = scratch.path().join("text");
    std::fs::write(&text, "text".repeat(200)).unwrap();
    assert!(refusal(&text).starts_with("ARCHIVE is not a tar, nor a tar.gz"), "{}", refusal(&text));
}

::tests::property! {
    #[test]
    fn spoiled_archives_are_refused_or_whole(bytes in spoiled([
        tar(&layout().0),
        tar(&docker(Some(6))),
        gzip(&tar(&docker(None)), 6),
    ])) {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a.tar");
        std::fs::write(&path, bytes).unwrap();
        if let Ok(image) = image(&path, None) {
            let inside = |path: &Path| path.starts_with(scratch.path()) || image.scratch.iter().any(|s| path.starts_with(s));
            for part in image.blobs.iter().flat_map(|blob| &blob.parts) {
                prop_assert!(!matches!(part, Part::File { path, .. } if !inside(path)), "{} is of another file", part);
            }
            for manifest in &image.manifests {
                prop_assert_eq!(sha256(&manifest.bytes), manifest.digest.as_str());
            }
        }
    }
}
