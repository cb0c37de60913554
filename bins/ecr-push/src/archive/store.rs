//! The files of an archive, by name: of a folder, or of a tar where they lie.

use crate::image::Part;
use anyhow::{Context, Result};
use common::Error;
use flate2::read::MultiGzDecoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, EntryType};
use tempfile::TempDir;

/// First bytes of a gzip stream. Source: RFC 1952, 2.3.1.
pub const GZIP: [u8; 2] = [0x1f, 0x8b];

pub struct Store {
    name: String,
    files: Files,
    /// Holds the tar out of a tar.gz.
    pub scratch: Option<TempDir>,
}

enum Files {
    Folder(PathBuf),
    Tar(BTreeMap<PathBuf, Part>),
}

impl Store {
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let root = path.canonicalize().with_context(|| format!("open {name}"))?;
        if root.is_dir() {
            return Ok(Self { name, files: Files::Folder(root), scratch: None });
        }
        let mut file = File::open(&root).with_context(|| format!("open {name}"))?;
        let mut magic = Vec::new();
        (&mut file).take(2).read_to_end(&mut magic).with_context(|| format!("read {name}"))?;
        file.rewind()?;
        if magic != GZIP {
            return Ok(Self { files: Files::Tar(index(&root, file, &name)?), name, scratch: None });
        }
        let scratch = tempfile::tempdir().context("make a temporary folder")?;
        let tar = scratch.path().join("archive.tar");
        gunzip(file, &tar).with_context(|| format!("unpack {name}"))?;
        let files = Files::Tar(index(&tar, File::open(&tar)?, &name)?);
        Ok(Self { name, files, scratch: Some(scratch) })
    }

    /// A file, if it is there. A name that leads out of the archive is an error.
    pub fn find(&self, name: &str) -> Result<Option<Part>> {
        let outside = || Error::failed(format!("{}: {name} is not inside", self.name));
        let path = Path::new(name);
        if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(outside().into());
        }
        match &self.files {
            Files::Tar(files) => Ok(files.get(&plain(path)).cloned()),
            Files::Folder(root) => {
                let path = root.join(path);
                if !path.is_file() {
                    return Ok(None);
                }
                let real = path.canonicalize().with_context(|| format!("open {}", path.display()))?;
                if !real.starts_with(root) {
                    return Err(outside().into());
                }
                Part::file(&real).map(Some)
            }
        }
    }

    /// A file that must be there.
    pub fn get(&self, name: &str) -> Result<Part> {
        Ok(self.find(name)?.ok_or_else(|| Error::failed(format!("{} lacks {name}", self.name)))?)
    }

    /// An error about what this archive holds.
    pub fn damaged(&self, what: impl std::fmt::Display) -> anyhow::Error {
        Error::failed(format!("{}: {what}", self.name)).into()
    }
}

pub fn gunzip(from: impl Read, to: &Path) -> Result<()> {
    let mut file = File::create(to).with_context(|| format!("create {}", to.display()))?;
    std::io::copy(&mut MultiGzDecoder::new(BufReader::new(from)), &mut file)?;
    Ok(())
}

/// Where each file of a tar lies. Links, by which old versions of docker repeat a layer, become what they name.
fn index(path: &Path, file: File, name: &str) -> Result<BTreeMap<PathBuf, Part>> {
    let mut files = BTreeMap::new();
    let mut links = Vec::new();
    let mut archive = Archive::new(file);
    let entries = archive.entries_with_seek().with_context(|| format!("read {name}"))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("{name} is not a tar, nor a tar.gz"))?;
        let here = plain(&entry.path()?);
        let target = entry.link_name()?;
        match (entry.header().entry_type(), target) {
            (EntryType::Regular | EntryType::Continuous, _) => {
                let part = Part::File { path: path.into(), offset: entry.raw_file_position(), size: entry.size() };
                files.insert(here, part);
            }
            (EntryType::Link, Some(target)) => links.push((here, plain(&target))),
            (EntryType::Symlink, Some(target)) => {
                let beside = here.parent().map(|folder| folder.join(&target)).unwrap_or_default();
                links.push((here, plain(&beside)));
            }
            _ => {}
        }
    }
    for (here, target) in links {
        if let Some(part) = files.get(&target).cloned() {
            files.insert(here, part);
        }
    }
    Ok(files)
}

/// Without `.` and `..`, and never above the top.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            _ => {}
        }
    }
    plain
}
