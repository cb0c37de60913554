//! Looks at this machine: Helm, and the images' programs.

use crate::world::Fault;
use anyhow::{Context, Result};
use common::Error;
use std::fs::File;
use std::io::Read;
use std::time::Duration;
use tokio::process::Command;

/// How long Helm may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `helm version` says.
pub async fn helm() -> Result<String, Fault> {
    version().await.map_err(|error| Fault::of(&error))
}

async fn version() -> Result<String> {
    let mut command = Command::new("helm");
    command.args(["version", "--template", "{{.Version}}"]).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.context("helm does not answer")?;
    let output = output.context("run helm")?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::failed(format!("helm version: {}", output.status)).into())
}

/// The architecture a Linux program is for, as Go spells it.
pub fn architecture(path: &str) -> Result<String, Fault> {
    let read = || -> Result<[u8; 20]> {
        let mut header = [0; 20];
        File::open(path).context("open it")?.read_exact(&mut header).context("read it")?;
        Ok(header)
    };
    let header = read().map_err(|error| Fault::of(&error))?;
    machine(&header).map(str::to_owned).map_err(|reason| Fault { reason, hint: None })
}

/// What the start of an ELF file says. Source: elf(5).
fn machine(header: &[u8; 20]) -> Result<&'static str, String> {
    if !header.starts_with(b"\x7fELF") {
        return Err("it is not a Linux program (ELF)".to_owned());
    }
    let bytes = [header[18], header[19]];
    let little_endian = header[5] == 1;
    match if little_endian { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) } {
        62 => Ok("amd64"),
        183 => Ok("arm64"),
        other => Err(format!("it is for a processor of the unknown kind {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_says_what_it_is_for() {
        let header = |machine: u8| {
            let mut header = [0; 20];
            header[..6].copy_from_slice(b"\x7fELF\x02\x01");
            header[18] = machine;
            header
        };
        assert_eq!(machine(&header(62)), Ok("amd64"));
        assert_eq!(machine(&header(183)), Ok("arm64"));
        assert_eq!(machine(&header(8)), Err("it is for a processor of the unknown kind 8".to_owned()));
        assert_eq!(machine(&[0; 20]), Err("it is not a Linux program (ELF)".to_owned()));
    }
}
