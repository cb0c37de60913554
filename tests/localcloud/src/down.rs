//! `down`: ends a cloud and whatever a crashed one left.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use backon::{BlockingRetryable, ConstantBuilder};
use nix::sys::signal::Signal;

use crate::cloud::{self, Holder};
use crate::keeper;
use crate::signals;

/// How often to look whether the keeper let go, and how many times: 20 s, of which a cloud takes less than one.
const PATIENCE: ConstantBuilder = ConstantBuilder::new().with_delay(Duration::from_millis(50)).with_max_times(400);

/// Nothing to do when nothing is there.
pub fn down(state: &Path) -> Result<()> {
    let Some(state) = cloud::find(state) else { return Ok(()) };
    let free = || cloud::lock(&state)?.context("its keeper does not end");
    let _lock = match cloud::lock(&state)? {
        Some(lock) => lock,
        None => {
            let keeper = u32::try_from(Holder::load(&state)?.keeper)?;
            signals::send(keeper, Signal::SIGTERM)?;
            free.retry(PATIENCE).call().or_else(|_| {
                // Without its keeper process 1 ends as well, and with it all the others.
                signals::send(keeper, Signal::SIGKILL)?;
                free.retry(PATIENCE).call()
            })?
        }
    };
    keeper::clear(&state)
}
