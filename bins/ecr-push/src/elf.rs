//! What a program's ELF header says: whether it runs on an empty base, and on which processor.

use anyhow::{Context, Result};
use common::Error;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{FileKind, ReadCache};
use object::{Endianness, ReadRef};
use std::fs::File;
use std::path::Path;

/// The architecture of a static Linux program, as Go spells it: `amd64`.
///
/// # Errors
/// It is no Linux program, or needs a loader or libraries, which an empty base does not have.
pub fn architecture(path: &Path) -> Result<&'static str> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let data = ReadCache::new(file);
    let program = match FileKind::parse(&data) {
        Ok(FileKind::Elf64) => Program::read::<FileHeader64<Endianness>, _>(&data),
        Ok(FileKind::Elf32) => Program::read::<FileHeader32<Endianness>, _>(&data),
        _ => return Err(Error::failed(format!("{} is not a Linux program (ELF)", path.display())).into()),
    };
    program.with_context(|| format!("read {}", path.display()))?.judge(path)
}

struct Program {
    machine: u16,
    little_endian: bool,
    starts: bool,
    interpreter: Option<String>,
    libraries: bool,
}

impl Program {
    fn read<'data, H: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(data: R) -> Result<Self> {
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

    fn judge(self, path: &Path) -> Result<&'static str> {
        let path = path.display();
        let hint = "link it statically; in Rust: RUSTFLAGS=\"-C target-feature=+crt-static\"";
        if let Some(interpreter) = self.interpreter {
            return Err(Error::failed(format!("{path} is not static: it needs {interpreter}")).hint(hint).into());
        }
        if self.libraries {
            return Err(Error::failed(format!("{path} is not static: it needs shared libraries")).hint(hint).into());
        }
        if !self.starts {
            return Err(Error::failed(format!("{path} is no program: it has no entry point")).into());
        }
        Ok(match (self.machine, self.little_endian) {
            (elf::EM_X86_64, _) => "amd64",
            (elf::EM_AARCH64, true) => "arm64",
            (elf::EM_386, _) => "386",
            (elf::EM_ARM, true) => "arm",
            (elf::EM_PPC64, true) => "ppc64le",
            (elf::EM_RISCV, true) => "riscv64",
            (elf::EM_S390, false) => "s390x",
            (machine, _) => {
                return Err(Error::failed(format!("{path} is for a machine with no name here: {machine}")).into());
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::binary::tests::program;
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
