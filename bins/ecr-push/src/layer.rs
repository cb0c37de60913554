//! A layer, written the same way everywhere: entries by name, no times, no owners but root, not compressed.
//!
//! Not compressed, because a compressor's next release would change every digest, and because compressing costs more
//! than hashing: a 20 MB program is hashed in 15 ms, so a push of what is there already is over at once. The price is
//! paid once, when a blob that is not there yet is sent.

use crate::image::{Blob, Part};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::collections::BTreeMap;
use tar::{EntryType, Header};

/// A tar's unit. Source: POSIX pax, ustar interchange format.
const BLOCK: u64 = 512;

/// A layer in the making: entries by path, parents before what is in them.
#[derive(Default)]
pub struct Layer(BTreeMap<String, Entry>);

struct Entry {
    kind: EntryType,
    mode: u32,
    content: Part,
}

impl Layer {
    /// Adds a folder; `path` ends with a slash.
    pub fn folder(mut self, path: &str, mode: u32) -> Self {
        let content = Part::Bytes(Bytes::new());
        self.0.insert(path.to_owned(), Entry { kind: EntryType::Directory, mode, content });
        self
    }

    /// Adds a file.
    pub fn file(mut self, path: &str, mode: u32, content: Part) -> Self {
        self.0.insert(path.to_owned(), Entry { kind: EntryType::Regular, mode, content });
        self
    }

    /// The tar of it. Files stay where they are: only the headers are in memory.
    pub fn blob(self) -> Result<Blob> {
        let mut parts = Vec::new();
        for (path, entry) in self.0 {
            let size = entry.content.size();
            let mut header = Header::new_ustar();
            header.set_path(&path).with_context(|| format!("put {path} into a layer"))?;
            header.set_entry_type(entry.kind);
            header.set_mode(entry.mode);
            header.set_size(size);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_cksum();
            parts.push(Part::Bytes(Bytes::copy_from_slice(header.as_bytes())));
            parts.push(entry.content);
            parts.push(zeros(size.next_multiple_of(BLOCK) - size));
        }
        parts.push(zeros(2 * BLOCK));
        parts.retain(|part| part.size() > 0);
        Blob::of(parts)
    }
}

fn zeros(count: u64) -> Part {
    static ZEROS: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];
    Part::Bytes(Bytes::from_static(&ZEROS[..count as usize]))
}
