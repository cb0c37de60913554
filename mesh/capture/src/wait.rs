//! Waits until the pod's Envoy has its configuration, before the application starts.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use backon::{ExponentialBuilder, Retryable as _};

use crate::{admin::ask, say};

/// The first pause between two looks, and the longest: an Envoy takes a quarter of a second from its start, or as long as
/// the controller is away.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];
/// How much longer each pause is than the one before: by how much of the time that Envoy took it is noticed late.
const LONGER: f32 = 1.25;
/// After how long it is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits until Envoy says that it is ready; says how long that took.
///
/// # Errors
/// It does not in this time; quotes what it said last.
pub async fn until_ready(admin_port: u16, at_most: Duration) -> Result<String> {
    let start = Instant::now();
    let [shortest, longest] = PAUSES;
    let pauses = ExponentialBuilder::new()
        .with_min_delay(shortest)
        .with_max_delay(longest)
        .with_factor(LONGER)
        .without_max_times()
        .with_total_delay(Some(at_most));
    let mut told = String::new();
    let tell = |error: &anyhow::Error, _| {
        let reason = format!("{error:#}");
        if start.elapsed() >= PATIENCE && reason != told {
            say(&format!("waiting for Envoy: {reason}"));
            told = reason;
        }
    };
    let look = || async { ask(admin_port, "GET /ready") };
    look.retry(pauses).notify(tell).await.with_context(|| {
        format!("Envoy is not ready after {} s, its own log may say why", start.elapsed().as_secs())
    })?;
    Ok(format!("Envoy is ready after {:.1} s", start.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tests::peer::closed;

    #[tokio::test]
    async fn it_gives_up_and_says_what_it_heard_last() {
        let (_closed, port) = closed().unwrap();
        let error = format!("{:#}", until_ready(port, Duration::ZERO).await.unwrap_err());
        let expected = format!(
            "Envoy is not ready after 0 s, its own log may say why: connecting to {port}: Connection refused (os error 111)"
        );
        assert_eq!(error, expected);
    }
}
