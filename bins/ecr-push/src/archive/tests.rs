#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::*;
use crate::image::{Blob, digest, sha256};
use crate::oci::DOCKER_MANIFEST;
use ::tests::hostile::spoiled;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsRawFd;
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

/// Adds a blob; its descriptor.
fn put(files: &mut Files, kind: &str, content: impl Into<Vec<u8>>) -> Value {
    let content = content.into();
    let (digest, size) = (sha256(&content), content.len());
    files.insert(blob(&digest), content);
    json!({"mediaType": kind, "digest": digest, "size": size})
}

/// Where a layout keeps a digest.
fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// A descriptor with one more field.
fn with(mut descriptor: Value, field: &str, value: Value) -> Value {
    descriptor[field] = value;
    descriptor
}

fn index_of(manifests: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string().into()
}

fn manifest_of(kind: &str, config: &Value, layers: &[Value]) -> String {
    json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}).to_string()
}

/// The image of a platform, of a configuration and a layer.
fn platform(files: &mut Files, architecture: &str) -> Value {
    let config = format!(r#"{{"architecture":"{architecture}","os":"linux"}}"#);
    let config = put(files, "application/vnd.oci.image.config.v1+json", config);
    let layer = put(files, "application/vnd.oci.image.layer.v1.tar+gzip", gzip(b"layer", 6));
    let manifest = put(files, MANIFEST, manifest_of(MANIFEST, &config, &[layer]));
    with(manifest, "platform", json!({"architecture": architecture, "os": "linux"}))
}

/// What BuildKit says of how an image was built.
fn attestation(files: &mut Files, about: &Value) -> Value {
    let config = put(files, "application/vnd.oci.image.config.v1+json", r#"{"architecture":"unknown","os":"unknown"}"#);
    let layer = put(files, "application/vnd.in-toto+json", about.to_string());
    let manifest = put(files, MANIFEST, manifest_of(MANIFEST, &config, &[layer]));
    let kind =
        json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": about["digest"]});
    let nowhere = json!({"architecture": "unknown", "os": "unknown"});
    with(with(manifest, "platform", nowhere), "annotations", kind)
}

fn list(files: &mut Files, manifests: &[Value]) {
    files.insert("index.json".into(), json!({"schemaVersion": 2, "manifests": manifests}).to_string().into());
    files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
}

/// A layout of an index of two platforms, and its digest.
fn layout() -> (Files, String) {
    let mut files = Files::new();
    let platforms = [platform(&mut files, "amd64"), platform(&mut files, "arm64")];
    let index = put(&mut files, INDEX, index_of(&platforms));
    list(&mut files, std::slice::from_ref(&index));
    (files, text(&index["digest"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The image of a layout, which must be complete: every digest is what it says, all that a manifest names comes before.
fn read(files: &Files, tag: Option<&str>) -> Result<Image> {
    let (_scratch, paths) = shapes(files);
    let image = image(&paths[1], tag)?;
    for blob in &image.blobs {
        assert_eq!(digest(&blob.digest, &blob.bytes().unwrap()).as_ref(), Some(&blob.digest));
    }
    let mut known: Vec<&str> = image.blobs.iter().map(|blob| blob.digest.as_str()).collect();
    for manifest in &image.manifests {
        let value: Value = serde_json::from_slice(&manifest.bytes).unwrap();
        let lists = ["layers", "manifests"].iter().filter_map(|list| value[list].as_array()).flatten();
        for named in lists.chain(value.get("config")) {
            assert!(known.contains(&named["digest"].as_str().unwrap()), "{named} is not there before {value}");
        }
        known.push(&manifest.digest);
    }
    Ok(image)
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

/// A tar with links: `(name, content or target)`.
fn tar_of(entries: &[(&str, Entry)]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, entry) in entries {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(0);
        match entry {
            Entry::File(content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, &content[..]).unwrap();
            }
            Entry::Link(kind, target) => {
                header.set_entry_type(*kind);
                builder.append_link(&mut header, name, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

#[derive(Clone)]
enum Entry {
    File(Vec<u8>),
    Link(::tar::EntryType, &'static str),
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
            assert_eq!(sha256(&blob.bytes().unwrap()), blob.digest, "{path:?}");
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
                assert_eq!(sha256(&blob.bytes().unwrap()), blob.digest, "{path:?}");
            }
            digests.push(image.top().unwrap().digest.clone());
        }
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn links_lead_to_files_wherever_they_stand() {
    let mut files = docker(None);
    let content = files.remove("l/layer.tar").unwrap();
    let size = content.len() as u64;
    let layer = Entry::File(content);
    let rest: Vec<(&str, Entry)> =
        files.iter().map(|(name, content)| (name.as_str(), Entry::File(content.clone()))).collect();
    let (soft, hard) = (::tar::EntryType::Symlink, ::tar::EntryType::Link);
    let link = |name, kind, target| (name, Entry::Link(kind, target));
    let file = |name| (name, layer.clone());
    let found: [Vec<(&str, Entry)>; 7] = [
        vec![link("l/layer.tar", soft, "../other/layer.tar"), file("other/layer.tar")],
        vec![file("other/layer.tar"), link("l/layer.tar", hard, "other/layer.tar")],
        vec![link("l/layer.tar", hard, "./other/layer.tar"), file("other/layer.tar")],
        vec![link("l/layer.tar", soft, "/a/x"), link("a/x", soft, "../b/x"), link("b/x", hard, "c"), file("c")],
        vec![link("l", soft, "other"), file("other/layer.tar")],
        // What `..` means depends on where the link to the folder leads.
        vec![link("l", soft, "a/b"), link("a/b/layer.tar", soft, "../x"), file("a/x")],
        vec![link("l/layer.tar", soft, "../../../../top"), file("top")],
    ];
    let lost: [Vec<(&str, Entry)>; 4] = [
        vec![],
        vec![link("l/layer.tar", soft, "layer.tar")],
        vec![link("l/layer.tar", soft, "../m/layer.tar"), link("m/layer.tar", soft, "../l/layer.tar")],
        vec![link("l/layer.tar", soft, "/etc/passwd")],
    ];
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.tar");
    let write = |links: Vec<(&str, Entry)>| std::fs::write(&path, tar_of(&[links, rest.clone()].concat())).unwrap();
    for links in found {
        write(links);
        assert_eq!(image(&path, None).unwrap().blobs[0].size, size);
    }
    for links in lost {
        write(links);
        assert_eq!(refusal(&path), "ARCHIVE: lacks l/layer.tar");
    }
}

/// Reads what another thread writes into a pipe, as bash does for `<(docker save …)`.
fn piped(content: Vec<u8>) -> Result<Image> {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
    let written = std::thread::spawn(move || writer.write_all(&content));
    let image = image(&path, None);
    drop(reader);
    // It stops early where nobody reads to the end.
    let _unread = written.join().unwrap();
    image
}

#[test]
fn a_pipe_is_read_as_a_file_is() {
    for files in [layout().0, docker(Some(6))] {
        let expected = read(&files, None).unwrap();
        for content in [tar(&files), gzip(&tar(&files), 6)] {
            let image = piped(content).unwrap();
            assert_eq!(image.top().unwrap().digest, expected.top().unwrap().digest);
            for (blob, expected) in image.blobs.iter().zip(&expected.blobs) {
                assert_eq!(blob.bytes().unwrap(), expected.bytes().unwrap());
            }
        }
    }
    let refused = |content| format!("{:#}", piped(content).unwrap_err());
    assert!(refused(Vec::new()).ends_with(" is empty"), "{}", refused(Vec::new()));
    let zstd = refused(vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0]);
    assert!(zstd.ends_with(" is not a tar, nor a tar.gz: it is compressed with zstd"), "{zstd}");
}

#[test]
fn of_several_images_the_tag_tells() {
    let mut files = docker(None);
    let two = r#"[{"Config":"none.json","RepoTags":["web:v0"],"Layers":[]},
        {"Config":"c.json","RepoTags":["web:v1"],"Layers":["l/layer.tar"]}]"#;
    files.insert("manifest.json".into(), two.into());
    assert_eq!(read(&files, Some("v1")).unwrap().blobs.len(), 2);
    let (_scratch, paths) = shapes(&files);
    assert_eq!(refusal(&paths[0]), "ARCHIVE holds 2 images: web:v0, web:v1");
    // One tag of two repositories does not tell.
    files.insert("manifest.json".into(), two.replace("web:v0", "shop:v1").into());
    let error = read(&files, Some("v1")).unwrap_err().to_string();
    assert!(error.ends_with(" holds 2 images: shop:v1, web:v1"), "{error}");

    let mut files = Files::new();
    let name =
        |manifest: Value, name: &str| with(manifest, "annotations", json!({"org.opencontainers.image.ref.name": name}));
    let (one, other) = (platform(&mut files, "amd64"), platform(&mut files, "arm64"));
    list(&mut files, &[name(one.clone(), "v1"), name(other.clone(), "docker.io/library/web:v2")]);
    assert_eq!(read(&files, Some("v1")).unwrap().top().unwrap().digest, text(&one["digest"]));
    assert_eq!(read(&files, Some("v2")).unwrap().top().unwrap().digest, text(&other["digest"]));
    let error = read(&files, None).unwrap_err().to_string();
    assert!(error.ends_with(" holds 2 images: v1, docker.io/library/web:v2"), "{error}");
    list(&mut files, &[]);
    let error = read(&files, None).unwrap_err().to_string();
    assert!(error.ends_with(": it holds no image"), "{error}");
}

#[test]
fn one_image_may_have_several_names() {
    let mut files = Files::new();
    let one = platform(&mut files, "amd64");
    let name = |name: &str| with(one.clone(), "annotations", json!({"io.containerd.image.name": name}));
    list(&mut files, &[name("docker.io/library/web:v1"), name("docker.io/library/web:latest")]);
    for tag in [None, Some("v1"), Some("v3")] {
        assert_eq!(read(&files, tag).unwrap().top().unwrap().digest, text(&one["digest"]), "{tag:?}");
    }

    let mut files = docker(None);
    let once = read(&files, None).unwrap().top().unwrap().digest.clone();
    let saved = |tag: &str| json!({"Config": "c.json", "RepoTags": [tag], "Layers": ["l/layer.tar"]});
    files.insert("manifest.json".into(), json!([saved("web:v1"), saved("web:latest")]).to_string().into());
    assert_eq!(read(&files, None).unwrap().top().unwrap().digest, once);
}

#[test]
fn an_image_may_have_no_layers() {
    for layers in [json!([]), Value::Null] {
        for rootfs in [r#"{"diff_ids":[],"type":"layers"}"#, r#"{"diff_ids":null}"#, r#"{"type":"layers"}"#, "null"] {
            let mut files = docker(None);
            let saved = json!([{"Config": "c.json", "RepoTags": [], "Layers": layers}]);
            files.insert("manifest.json".into(), saved.to_string().into());
            files.insert(
                "c.json".into(),
                format!(r#"{{"architecture":"arm64","os":"linux","rootfs":{rootfs}}}"#).into(),
            );
            let image = read(&files, None).unwrap();
            assert_eq!((image.blobs.len(), image.platforms.len()), (1, 1), "{layers} {rootfs}");
        }
    }
    let mut files = Files::new();
    let config = put(&mut files, "application/vnd.oci.image.config.v1+json", "{}");
    let manifest = put(&mut files, MANIFEST, json!({"config": config, "layers": null}).to_string());
    list(&mut files, &[manifest]);
    assert_eq!(read(&files, None).unwrap().blobs.len(), 1);
}

#[test]
fn platforms_that_are_not_there_are_left_out_and_named() {
    let digest = |descriptor: &Value| text(&descriptor["digest"]);
    let mut files = Files::new();
    let (amd64, arm64) = (platform(&mut files, "amd64"), platform(&mut files, "arm64"));
    let s390x = platform(&mut files, "s390x");
    let (about_amd64, about_arm64) = (attestation(&mut files, &amd64), attestation(&mut files, &arm64));
    let config = |architecture: &str| sha256(format!(r#"{{"architecture":"{architecture}","os":"linux"}}"#).as_bytes());
    // What the index names, what is not there, the platforms and manifests of what is taken, what is told.
    type Case<'a> = (Vec<&'a Value>, Vec<String>, &'a [&'a str], usize, Vec<String>);
    let lacks = |title: &str, digest: String| format!("{title}: the archive lacks {digest}");
    let cases: Vec<Case> = vec![
        (vec![&amd64, &arm64], vec![], &["linux/amd64", "linux/arm64"], 3, vec![]),
        (vec![&amd64, &about_amd64], vec![], &["linux/amd64"], 3, vec![]),
        // By itself, and so with the digest that `docker push` gives it.
        (vec![&amd64, &arm64], vec![digest(&arm64)], &["linux/amd64"], 1, vec![lacks("linux/arm64", digest(&arm64))]),
        (
            vec![&amd64, &about_amd64],
            vec![digest(&about_amd64)],
            &["linux/amd64"],
            1,
            vec![lacks("attestation-manifest", digest(&about_amd64))],
        ),
        // What is about an image that is not there goes with it.
        (
            vec![&amd64, &about_amd64, &arm64, &about_arm64],
            vec![digest(&arm64)],
            &["linux/amd64"],
            3,
            vec![lacks("linux/arm64", digest(&arm64))],
        ),
        // docker keeps a manifest whose layers it has not pulled.
        (
            vec![&amd64, &arm64, &s390x],
            vec![config("arm64")],
            &["linux/amd64", "linux/s390x"],
            3,
            vec![lacks("linux/arm64", config("arm64"))],
        ),
    ];
    for (named, gone, platforms, manifests, told) in cases {
        let mut files = files.clone();
        let index = put(&mut files, INDEX, index_of(&named.iter().copied().cloned().collect::<Vec<_>>()));
        list(&mut files, std::slice::from_ref(&index));
        gone.iter().for_each(|digest| drop(files.remove(&blob(digest)).unwrap()));
        let image = read(&files, None).unwrap();
        assert_eq!(Vec::from_iter(&image.platforms), platforms, "{gone:?}");
        assert_eq!((image.manifests.len(), &image.left_out), (manifests, &told), "{gone:?}");
        let top = image.top().unwrap();
        let expected = if gone.is_empty() {
            digest(&index)
        } else if manifests == 1 {
            digest(&amd64)
        } else {
            sha256(&top.bytes)
        };
        assert_eq!(top.digest, expected);
        assert_eq!(top.media_type, if manifests == 1 { MANIFEST } else { INDEX });
    }

    // Nothing that could run is there.
    let index = put(&mut files, INDEX, index_of(&[amd64.clone(), about_amd64]));
    list(&mut files, &[index]);
    files.remove(&blob(&digest(&amd64))).unwrap();
    let error = read(&files, None).unwrap_err().to_string();
    assert!(error.ends_with(&format!(": lacks {}", digest(&amd64))), "{error}");
}

#[test]
fn platforms_may_stand_side_by_side() {
    let mut files = Files::new();
    let (amd64, arm64) = (platform(&mut files, "amd64"), platform(&mut files, "arm64"));
    list(&mut files, &[amd64.clone(), arm64.clone()]);
    let image = read(&files, None).unwrap();
    assert_eq!(image.top().unwrap().bytes, files["index.json"]);
    assert_eq!((image.manifests.len(), image.top().unwrap().media_type.as_str()), (3, INDEX));
    // Two of one platform are two images.
    list(&mut files, &[amd64.clone(), with(arm64, "platform", amd64["platform"].clone())]);
    assert!(read(&files, None).is_err());
}

#[test]
fn what_is_beside_the_image_is_left_out_and_named() {
    let mut files = Files::new();
    let one = platform(&mut files, "amd64");
    let cosign = |manifest: Value, kind: &str| {
        with(manifest, "annotations", json!({"kind": format!("dev.cosignproject.cosign/{kind}")}))
    };
    let config = put(&mut files, "application/vnd.oci.image.config.v1+json", "{}");
    let payload = put(&mut files, "application/vnd.dev.cosign.simplesigning.v1+json", "signed");
    let signature = put(&mut files, MANIFEST, manifest_of(MANIFEST, &config, &[payload]));
    let empty = put(&mut files, "application/vnd.oci.empty.v1+json", "{}");
    let about =
        json!({"schemaVersion": 2, "artifactType": "application/x", "subject": one, "config": empty, "layers": []});
    let about = put(&mut files, MANIFEST, about.to_string());
    let said = attestation(&mut files, &one);
    for beside in [cosign(signature.clone(), "sigs"), signature.clone(), about, said] {
        for image in [one.clone(), cosign(one.clone(), "image")] {
            list(&mut files, &[beside.clone(), image]);
            let image = read(&files, None).unwrap();
            assert_eq!(image.top().unwrap().digest, text(&one["digest"]), "{beside}");
            assert_eq!(image.left_out, [format!("{} beside the image: it is none", text(&beside["digest"]))]);
        }
    }
    // By itself it is what is meant.
    list(&mut files, &[cosign(signature.clone(), "sigs")]);
    assert_eq!(read(&files, None).unwrap().top().unwrap().digest, text(&signature["digest"]));
}

#[test]
fn a_blob_may_lie_in_its_descriptor() {
    let inline = |mut files: Files, data: &str| {
        let config =
            json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2, "data": data});
        let manifest = put(&mut files, MANIFEST, manifest_of(MANIFEST, &config, &[]));
        list(&mut files, &[manifest]);
        read(&files, None)
    };
    let image = inline(Files::new(), &STANDARD.encode("{}")).unwrap();
    assert_eq!(image.blobs[0].bytes().unwrap(), b"{}");
    for damaged in [STANDARD.encode("[]"), "?".to_owned()] {
        let error = inline(Files::new(), &damaged).unwrap_err().to_string();
        assert!(error.ends_with(" is not what the data in its descriptor is"), "{error}");
    }
}

#[test]
fn digests_may_be_sha512() {
    let mut files = Files::new();
    let sha512 = |files: &mut Files, kind: &str, content: &[u8]| {
        let digest = digest("sha512:", content).unwrap();
        files.insert(blob(&digest), content.to_vec());
        json!({"mediaType": kind, "digest": digest, "size": content.len()})
    };
    let config =
        sha512(&mut files, "application/vnd.oci.image.config.v1+json", br#"{"architecture":"amd64","os":"linux"}"#);
    let layer = sha512(&mut files, "application/vnd.oci.image.layer.v1.tar", b"layer");
    let manifest = manifest_of(MANIFEST, &config, std::slice::from_ref(&layer));
    let top = sha512(&mut files, MANIFEST, manifest.as_bytes());
    list(&mut files, &[top]);
    let image = read(&files, None).unwrap();
    assert_eq!(image.top().unwrap().digest, sha256(manifest.as_bytes()), "what a registry calls it");
    assert_eq!(image.blobs[1].digest, text(&layer["digest"]));
    assert_eq!(Vec::from_iter(&image.platforms), ["linux/amd64"]);
}

#[test]
fn zstd_is_for_oci() {
    let packed = b"\x28\xb5\x2f\xfd packed".to_vec();
    let mut files = docker(None);
    files.insert("l/layer.tar".into(), packed.clone());
    let image = read(&files, None).unwrap();
    let manifest: Value = serde_json::from_slice(&image.top().unwrap().bytes).unwrap();
    assert_eq!(manifest["mediaType"], MANIFEST);
    let layer = json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": sha256(&packed), "size": packed.len()});
    assert_eq!(manifest["layers"], json!([layer]));

    let config = put(&mut files, "application/vnd.docker.container.image.v1+json", "{}");
    for kind in ["application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.docker.image.rootfs.diff.tar.zstd"] {
        let layer = put(&mut files, kind, packed.clone());
        let manifest = put(&mut files, MANIFEST, manifest_of(MANIFEST, &config, std::slice::from_ref(&layer)));
        list(&mut files, &[manifest]);
        assert_eq!(read(&files, None).unwrap().blobs.len(), 2);
        let manifest = put(&mut files, DOCKER_MANIFEST, manifest_of(DOCKER_MANIFEST, &config, &[layer]));
        list(&mut files, &[manifest]);
        let error = read(&files, None).unwrap_err().to_string();
        let end = format!(
            "layer {} is compressed with zstd, which a docker schema 2 manifest has no word for",
            sha256(&packed)
        );
        assert!(error.ends_with(&end), "{error}");
    }
    let mut files = docker(None);
    files.insert("l/layer.tar".into(), b"\xfd7zXZ\0".to_vec());
    let error = read(&files, None).unwrap_err().to_string();
    assert!(error.ends_with("l/layer.tar is compressed with xz, which no image may be"), "{error}");
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
    let add = |mut files: Files, name: &str, content: &str| {
        files.insert(name.into(), content.into());
        files
    };
    let outside = r#"[{"Config":"../../etc/passwd","RepoTags":null,"Layers":[]}]"#;
    let cases = [
        (Files::from([("x".into(), vec![])]), "ARCHIVE is neither an OCI layout nor a docker archive".to_owned()),
        (without(&format!("blobs/sha256/{}", &layer[7..])), format!("ARCHIVE: lacks {layer}")),
        (
            add(layout().0, &format!("blobs/sha256/{}", &config[7..]), "short"),
            format!("ARCHIVE: {config} has 5 bytes instead of 37"),
        ),
        (add(docker(None), "manifest.json", outside), "ARCHIVE: ../../etc/passwd is not inside".to_owned()),
        (
            add(layout().0, "index.json", r#"{"manifests":[{"mediaType":"x","digest":"md5:1","size":1}]}"#),
            "ARCHIVE: md5:1 is no sha256 or sha512 digest".to_owned(),
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
            for part in image.blobs.iter().flat_map(Blob::parts) {
                prop_assert!(part.to_string() == path.display().to_string() || part.to_string() == "l/layer.tar", "{} is of another file", part);
            }
            for manifest in &image.manifests {
                prop_assert_eq!(digest(&manifest.digest, &manifest.bytes), Some(manifest.digest.clone()));
            }
        }
    }
}
