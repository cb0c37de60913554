//! Reads from a program's ELF header whether it runs on an empty base, and on which processor.

use crate::Error;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{FileKind, ReadCache};
use object::{Endianness, ReadRef};
use std::fs::File;
use std::io;
use std::path::Path;

/// Why a file is no program for an empty base, as what is said of it.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It is not there, or may not be read.
    #[error("cannot be opened: {0}")]
    Closed(#[from] io::Error),
    /// It is something else: a script, a program of another system.
    #[error("is not a Linux program (ELF)")]
    Foreign,
    /// Its headers contradict each other.
    #[error("cannot be read: {0}")]
    Broken(#[from] object::read::Error),
    /// It needs a loader, or libraries, which an empty base does not have.
    #[error("is not static: it needs {0}")]
    Dynamic(String),
    /// It is a library, or a part of a program.
    #[error("is no program: it has no entry point")]
    NoEntry,
    /// It is for a processor that no image names.
    #[error("is for a machine with no name here: {0}")]
    Machine(u16),
}

impl Unfit {
    /// The same of this file, as an error with what to do.
    pub fn of(&self, path: &Path) -> Error {
        let error = Error::failed(format!("{} {self}", path.display()));
        match self {
            Self::Dynamic(_) => error.hint("link it statically; in Rust: RUSTFLAGS=\"-C target-feature=+crt-static\""),
            _ => error,
        }
    }
}

/// The architecture of a static Linux program, as Go spells it: `amd64`.
///
/// # Errors
/// It is no Linux program, or needs a loader or libraries, which an empty base does not have.
pub fn architecture(path: &Path) -> Result<&'static str, Unfit> {
    let data = ReadCache::new(File::open(path)?);
    let program = match FileKind::parse(&data) {
        Ok(FileKind::Elf64) => Program::read::<FileHeader64<Endianness>, _>(&data),
        Ok(FileKind::Elf32) => Program::read::<FileHeader32<Endianness>, _>(&data),
        _ => return Err(Unfit::Foreign),
    };
    program?.judge()
}

struct Program {
    machine: u16,
    little_endian: bool,
    starts: bool,
    interpreter: Option<String>,
    libraries: bool,
}

impl Program {
    fn read<'data, H: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(
        data: R,
    ) -> Result<Self, object::read::Error> {
        let header = H::parse(data)?;
        let endian = header.endian()?;
        let kind = header.e_type(endian);
        let mut program = Self {
            machine: header.e_machine(endian),
            little_endian: header.is_little_endian(),
            starts: [elf::ET_EXEC, elf::ET_DYN].contains(&kind) && header.e_entry(endian).into() != 0,
            interpreter: None,
            libraries: false,
        };
        for segment in header.program_headers(endian, data)? {
            if let Some(path) = segment.interpreter(endian, data)? {
                program.interpreter = Some(String::from_utf8_lossy(path).into_owned());
            }
            for entry in segment.dynamic(endian, data)?.unwrap_or_default() {
                program.libraries |= entry.tag(endian) == elf::DT_NEEDED;
            }
        }
        Ok(program)
    }

    fn judge(self) -> Result<&'static str, Unfit> {
        if let Some(interpreter) = self.interpreter {
            return Err(Unfit::Dynamic(interpreter));
        }
        if self.libraries {
            return Err(Unfit::Dynamic("shared libraries".to_owned()));
        }
        if !self.starts {
            return Err(Unfit::NoEntry);
        }
        Ok(match (self.machine, self.little_endian) {
            (elf::EM_X86_64, _) => "amd64",
            (elf::EM_AARCH64, true) => "arm64",
            (elf::EM_386, _) => "386",
            (elf::EM_ARM, true) => "arm",
            (elf::EM_PPC64, true) => "ppc64le",
            (elf::EM_RISCV, true) => "riscv64",
            (elf::EM_S390, false) => "s390x",
            (machine, _) => return Err(Unfit::Machine(machine)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tests::elf::program;
    use ::tests::hostile::spoiled;
    use proptest::prelude::*;

    ::tests::property! {
        #[test]
        fn spoiled_programs_are_refused_or_named(bytes in spoiled([program(62, None), program(183, Some("/lib/ld.so"))])) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            let named = architecture(file.path());
            prop_assert!(named.is_err() || named.unwrap().bytes().all(|c| c.is_ascii_alphanumeric()));
        }
    }
}
