//! Tells how a file is compressed, and unpacks gzip.

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

/// A compression, as the first bytes of a file tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// None that is known.
    Plain,
    Gzip,
    Zstd,
    /// One that images do not have.
    Other(&'static str),
}

/// First bytes. Sources: RFC 1952, 2.3.1; RFC 8878, 3.1.1; the formats of xz and bzip2.
const MAGIC: [(&[u8], Packing); 4] = [
    (&[0x1f, 0x8b], Packing::Gzip),
    (&[0x28, 0xb5, 0x2f, 0xfd], Packing::Zstd),
    (b"\xfd7zXZ\0", Packing::Other("xz")),
    (b"BZh91AY", Packing::Other("bzip2")),
];

/// As many bytes as tell.
const ENOUGH: u64 = 7;

impl Packing {
    /// Reads the first bytes, which it returns, too: a pipe gives them once.
    pub fn of(file: impl Read) -> io::Result<(Self, Vec<u8>)> {
        let mut start = Vec::new();
        file.take(ENOUGH).read_to_end(&mut start)?;
        let known = MAGIC.iter().find(|(magic, _)| start.starts_with(magic));
        Ok((known.map_or(Packing::Plain, |(_, packing)| *packing), start))
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Packing::Plain => "nothing",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
            Packing::Other(name) => name,
        })
    }
}

pub fn gunzip(packed: impl Read) -> impl Read {
    MultiGzDecoder::new(BufReader::new(packed))
}

/// A copy in a temporary file, which has no name and so goes with the process, however that ends.
pub fn temporary(mut content: impl Read) -> Result<File> {
    let mut file = tempfile::tempfile().context("make a temporary file")?;
    io::copy(&mut content, &mut file).context("copy it into a temporary file")?;
    file.rewind()?;
    Ok(file)
}
