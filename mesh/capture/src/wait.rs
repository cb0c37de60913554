//! Waits until the pod's Envoy has its configuration, before the application starts.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use backon::{ExponentialBuilder, Retryable as _};

use crate::{admin::ask, say};

/// The first pause between two looks, and the longest: an Envoy takes a quarter of a second from its start, or as long as
/// the controller is away.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];
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
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    /// Answers one request after the other; gives its port.
    fn admin(answers: &'static [(&str, &str)]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for (status, state) in answers {
                let (mut caller, _) = listener.accept().unwrap();
                assert!(caller.read(&mut [0; 1024]).unwrap() > 0);
                let length = state.len();
                write!(
                    caller,
                    "HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{state}\r\n0\r\n\r\n"
                )
                .unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn it_waits_until_envoy_has_its_configuration() {
        let port = admin(&[
            ("503 Service Unavailable", "PRE_INITIALIZING\n"),
            ("503 Service Unavailable", "INITIALIZING\n"),
            ("200 OK", "LIVE\n"),
        ]);
        let said = until_ready(port, Duration::from_secs(60)).await.unwrap();
        assert!(said.starts_with("Envoy is ready after "), "{said}");
    }

    #[tokio::test]
    async fn it_gives_up_and_says_what_it_heard_last() {
        let port = admin(&[("503 Service Unavailable", "PRE_INITIALIZING\n")]);
        let error = format!("{:#}", until_ready(port, Duration::ZERO).await.unwrap_err());
        let expected = "Envoy is not ready after 0 s, its own log may say why: \
                        GET /ready: HTTP/1.1 503 Service Unavailable: PRE_INITIALIZING";
        assert_eq!(error, expected);
    }
}
