//! Waiting for a fact, never for a while.

use crate::Session;
use crate::error::Error;
use anyhow::Result;
use backon::{BackoffBuilder, ExponentialBuilder};
use std::fmt::Display;
use std::time::Duration;

/// The longest time that anybody waits: clocks do not count for ever.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Reads a time to wait, such as `90s`. Longer than a year is as good as a year.
pub(crate) fn patience(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text).map(|time| time.min(LONGEST))
}

/// What a look at the world found.
pub enum Found<T> {
    /// What was waited for.
    Ready(T),
    /// Not yet, because of this. Its first line is told meanwhile; lines after it, such as a log, only when time runs out.
    NotYet(String),
}

/// Pauses up to this long are not cut short: what is done in an instant needs nobody who watches it.
const UNWATCHED: Duration = Duration::from_millis(250);

impl Session {
    /// Looks until the answer is [`Found::Ready`], at 50 ms, then ever more seldom up to every 2 s.
    ///
    /// # Errors
    /// The look's own error at once, or [`Kind::Retry`](crate::Kind::Retry) when `--timeout` has passed, with the
    /// reason last seen.
    pub async fn wait<T>(&self, what: impl Display, look: impl AsyncFnMut() -> Result<Found<T>>) -> Result<T> {
        self.watch(what, look, std::future::pending).await
    }

    /// [`Session::wait`] that also looks whenever `changed` ends. It may be dropped and called again at any moment.
    ///
    /// # Errors
    /// As those of [`Session::wait`].
    pub async fn watch<T>(
        &self,
        what: impl Display,
        mut look: impl AsyncFnMut() -> Result<Found<T>>,
        mut changed: impl AsyncFnMut(),
    ) -> Result<T> {
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(50))
            .with_factor(1.5)
            .with_max_delay(Duration::from_secs(2))
            .without_max_times()
            .build();
        let mut told = String::new();
        loop {
            let reason = match look().await? {
                Found::Ready(value) => return Ok(value),
                Found::NotYet(reason) => reason,
            };
            let pause = pauses.next().unwrap_or(Duration::from_secs(2));
            if self.remaining() < pause {
                let late = Error::retry(format!(
                    "{what}: not ready after {}: {}",
                    humantime::format_duration(self.flags.timeout),
                    reason.lines().collect::<Vec<_>>().join("; ")
                ));
                return Err(late.hint("run it again, or give it more time with --timeout").into());
            }
            let brief = reason.lines().next().unwrap_or_default();
            if brief != told && pause > Duration::from_millis(500) {
                self.stderr.line(format_args!("waiting for {what}: {brief}"));
                brief.clone_into(&mut told);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = changed(), if pause > UNWATCHED => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_longer_than_a_clock_counts() {
        for (text, expected) in [("90s", Ok(90)), ("500000000000y", Ok(LONGEST.as_secs())), ("soon", Err(()))] {
            assert_eq!(patience(text).map(|time| time.as_secs()).map_err(drop), expected, "{text}");
        }
    }
}
