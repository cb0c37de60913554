//! The files of an archive, by name: of a folder, or of a tar where they lie.

use super::packing::{Packing, gunzip, temporary};
use crate::image::{Origin, Part};
use anyhow::{Context, Result};
use common::Error;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{IsTerminal, Read, Seek};
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use tar::{Archive, EntryType};

/// More links than this one after the other are a circle. Source: Linux, `MAXSYMLINKS`.
const LINKS: usize = 40;

pub struct Store {
    name: String,
    files: Files,
}

enum Files {
    Folder(PathBuf),
    Tar(BTreeMap<PathBuf, Entry>),
}

enum Entry {
    File(Part),
    /// Names another entry, as seen from the folder it is in; with a leading slash, from the top.
    Link(PathBuf),
}

impl Store {
    /// Opens a folder, a tar or a tar.gz; `-` is stdin. What cannot be read at any place, a pipe or a tar.gz, is copied
    /// into a temporary file first.
    pub fn open(path: &Path) -> Result<Self> {
        let (name, file) = if path == Path::new("-") {
            ("stdin".to_owned(), stdin()?)
        } else {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("open {name}"))?;
            (name, file)
        };
        if file.metadata().with_context(|| format!("read {name}"))?.is_dir() {
            let root = path.canonicalize().with_context(|| format!("open {name}"))?;
            return Ok(Self { name, files: Files::Folder(root) });
        }
        let tar = random_access(file, &name)?;
        Ok(Self { files: Files::Tar(index(tar, &name)?), name })
    }

    /// A file, if it is there. A name that leads out of the archive is an error.
    pub fn find(&self, name: &str) -> Result<Option<Part>> {
        let outside = || self.damaged(format!("{name} is not inside"));
        let path = Path::new(name);
        if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(outside());
        }
        match &self.files {
            Files::Tar(entries) => Ok(follow(entries, path)),
            Files::Folder(root) => {
                let path = root.join(path);
                if !path.is_file() {
                    return Ok(None);
                }
                let real = path.canonicalize().with_context(|| format!("open {}", path.display()))?;
                if !real.starts_with(root) {
                    return Err(outside());
                }
                Part::file(&real).map(Some)
            }
        }
    }

    /// A file that must be there.
    pub fn get(&self, name: &str) -> Result<Part> {
        self.find(name)?.ok_or_else(|| self.damaged(format!("lacks {name}")))
    }

    /// An error about what this archive holds.
    pub fn damaged(&self, what: impl fmt::Display) -> anyhow::Error {
        Error::failed(format!("{self}: {what}")).into()
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Stdin as a file like any other.
fn stdin() -> Result<File> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Error::usage("stdin is a terminal").hint("pipe an archive in, or name a file").into());
    }
    Ok(stdin.as_fd().try_clone_to_owned().context("open stdin")?.into())
}

/// The tar as a file that can be read at any place: itself, or a copy of what comes through a pipe or is packed.
fn random_access(mut file: File, name: &str) -> Result<File> {
    let read = || format!("read {name}");
    let (packing, start) = Packing::of(&mut file).with_context(read)?;
    if start.is_empty() {
        let empty = Error::failed(format!("{name} is empty"));
        return Err(empty.hint("see whether the program that writes it failed").into());
    }
    let seekable = file.metadata().with_context(read)?.is_file();
    let all = start.as_slice().chain(&file);
    match packing {
        Packing::Gzip => temporary(gunzip(all)).with_context(|| format!("unpack {name}")),
        Packing::Zstd | Packing::Other(_) => {
            let packed = Error::failed(format!("{name} is not a tar, nor a tar.gz: it is compressed with {packing}"));
            Err(packed.hint("unpack it first; a pipe will do").into())
        }
        Packing::Plain if seekable => {
            file.rewind().with_context(read)?;
            Ok(file)
        }
        Packing::Plain => temporary(all).with_context(read),
    }
}

/// Where each file of a tar lies.
fn index(tar: File, name: &str) -> Result<BTreeMap<PathBuf, Entry>> {
    let read = || format!("read {name}");
    let mut archive = Archive::new(tar.try_clone().with_context(read)?);
    let origin = Origin::open(Path::new(name), tar);
    let mut entries = BTreeMap::new();
    for entry in archive.entries_with_seek().with_context(read)? {
        let entry = entry.with_context(|| format!("{name} is not a tar, nor a tar.gz"))?;
        let here = plain(&entry.path()?);
        let target = entry.link_name()?;
        match (entry.header().entry_type(), target) {
            (EntryType::Regular | EntryType::Continuous, _) => {
                let (origin, offset, size) = (origin.clone(), entry.raw_file_position(), entry.size());
                entries.insert(here, Entry::File(Part::File { origin, offset, size }));
            }
            (EntryType::Link, Some(target)) => {
                entries.insert(here, Entry::Link(Path::new("/").join(target)));
            }
            (EntryType::Symlink, Some(target)) => {
                entries.insert(here, Entry::Link(target.into_owned()));
            }
            _ => {}
        }
    }
    Ok(entries)
}

/// The file that a path leads to, by way of links to files and to folders, as if the tar were unpacked. Old versions of
/// docker repeat a layer by a link, before or after what it names.
fn follow(entries: &BTreeMap<PathBuf, Entry>, path: &Path) -> Option<Part> {
    let mut here = PathBuf::new();
    let mut links = 0;
    let mut ahead: Vec<Component> = path.components().rev().collect();
    while let Some(step) = ahead.pop() {
        match step {
            Component::Normal(name) => here.push(name),
            Component::ParentDir => {
                here.pop();
            }
            Component::RootDir => here.clear(),
            Component::CurDir | Component::Prefix(_) => {}
        }
        if let (Component::Normal(_), Some(Entry::Link(target))) = (step, entries.get(&here)) {
            links += 1;
            if links > LINKS {
                return None;
            }
            here.pop();
            ahead.extend(target.components().rev());
        }
    }
    match entries.get(&here)? {
        Entry::File(part) => Some(part.clone()),
        Entry::Link(_) => None,
    }
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
