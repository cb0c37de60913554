//! Takes programs out of the archive that their project releases. Its digest is pinned; where it cannot be had, they are built.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha512};
use tempfile::NamedTempFile;

use super::cache::Cache;
use super::pins::{Archive, Program};

/// How long a host may take to answer at all, and how long it may be silent.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);

/// Puts each program into its place; `tell` hears how much there is to download.
pub async fn get(
    cache: &Cache,
    archive: &Archive<'_>,
    programs: &[(&Program, &PathBuf)],
    tell: &dyn Fn(&str),
) -> Result<()> {
    let scratch = cache.scratch()?;
    let file = download(archive.url, archive.sha512, scratch.path(), tell).await?;
    let programs = programs.iter().map(|(program, place)| (program.name, place.as_path()));
    take(file.path(), archive.folder, programs.collect(), cache).with_context(|| format!("unpacking {}", archive.url))
}

/// A file of this content in `folder`, or nothing.
async fn download(url: &str, sha512: &str, folder: &Path, tell: &dyn Fn(&str)) -> Result<NamedTempFile> {
    let client = reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE).build()?;
    let mut answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status)?;
    let size = answer.content_length().map(|bytes| format!(", {} MB", bytes.div_ceil(1_000_000)));
    tell(&format!("downloading {url}{}", size.unwrap_or_default()));
    let mut file = NamedTempFile::new_in(folder)?;
    let mut hash = Sha512::new();
    while let Some(chunk) = answer.chunk().await.with_context(|| format!("reading {url}"))? {
        hash.update(&chunk);
        file.write_all(&chunk)?;
    }
    let found = hex::encode(hash.finalize());
    ensure!(found == sha512, "{url} is another file than expected: its SHA-512 is {found}");
    Ok(file)
}

fn take(archive: &Path, folder: &str, mut programs: Vec<(&str, &Path)>, cache: &Cache) -> Result<()> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(archive)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(index) = programs.iter().position(|(name, _)| path == Path::new(folder).join(name)) else { continue };
        let (name, place) = programs.swap_remove(index);
        cache.publish(place, |folder| Ok(entry.unpack(folder.join(name)).map(drop)?))?;
        if programs.is_empty() {
            return Ok(());
        }
    }
    let missing: Vec<_> = programs.iter().map(|(name, _)| *name).collect();
    bail!("no {} in the archive", missing.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use axum::Router;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tokio::net::TcpListener;

    use super::super::pins;
    use super::*;

    /// An archive with two programs in `server/bin`.
    fn archive() -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, content) in [("server/bin/kubelet", "a kubelet"), ("server/bin/kubectl", "a kubectl")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            archive.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    /// Gets programs from a server that has this archive.
    async fn got(names: &[&str], sha512: Option<&str>) -> (tempfile::TempDir, Result<()>) {
        let (content, folder) = (archive(), tempfile::tempdir().unwrap());
        let digest = hex::encode(Sha512::digest(&content));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let router = Router::new().route("/", axum::routing::get(async || content));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let cache = Cache::open(folder.path()).unwrap();
        let programs = pins::PROGRAMS.iter().filter(|program| names.contains(&program.name));
        let places: Vec<_> = programs.map(|program| (program, folder.path().join(program.name))).collect();
        let programs: Vec<_> = places.iter().map(|(program, place)| (*program, place)).collect();
        let archive = Archive { machine: "any", url: &url, folder: "server/bin", sha512: sha512.unwrap_or(&digest) };
        let got = get(&cache, &archive, &programs, &|_| {}).await;
        server.abort();
        (folder, got)
    }

    #[tokio::test]
    async fn programs_come_out_of_the_archive_and_can_be_run() {
        let (folder, got) = got(&["kubelet", "kubectl"], None).await;
        got.unwrap();
        for name in ["kubelet", "kubectl"] {
            let program = folder.path().join(name).join(name);
            assert_eq!(fs::read_to_string(&program).unwrap(), format!("a {name}"));
            assert_eq!(program.metadata().unwrap().permissions().mode() & 0o111, 0o111);
        }
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn another_file_than_the_pinned_one_is_not_unpacked() {
        let (folder, got) = got(&["kubelet"], Some("00")).await;
        let error = format!("{:#}", got.unwrap_err());
        assert!(error.contains("is another file than expected: its SHA-512 is "), "{error}");
        assert!(!folder.path().join("kubelet").exists());
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named() {
        let (_folder, got) = got(&["kubelet", "etcd"], None).await;
        let error = format!("{:#}", got.unwrap_err());
        assert!(error.ends_with("/: no etcd in the archive"), "{error}");
    }
}
