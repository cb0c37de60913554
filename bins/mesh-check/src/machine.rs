//! Looks at this machine: Helm, and the images' programs.

use crate::world::Fault;
use anyhow::{Context, Result};
use common::{Error, elf, helm};
use std::path::Path;
use std::time::Duration;

/// How long Helm may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `helm version` says.
pub async fn helm() -> Result<String, Fault> {
    version().await.map_err(|error| Fault::of(&error))
}

async fn version() -> Result<String> {
    let version = helm::command().args(helm::ASK_VERSION).output();
    let output = tokio::time::timeout(PATIENCE, version).await.context("helm does not answer")?;
    let output = output.context("run helm")?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::failed(format!("helm version: {}", output.status)).into())
}

/// The architecture a program of an image is for, as Go spells it.
pub fn architecture(path: &str) -> Result<String, Fault> {
    let found = elf::architecture(Path::new(path));
    found.map(str::to_owned).map_err(|unfit| Fault { reason: format!("it {unfit}"), hint: None })
}
