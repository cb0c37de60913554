//! Waiting for facts. Every wait has a limit, and names the log to read when it is reached.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use backon::{ConstantBuilder, Retryable};
use tokio::net::TcpStream;

/// How often a fact is looked at. Only while starting up: an idle cloud waits for nothing this way.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(5);

/// Repeats `look` until it succeeds. `fact` says what is waited for, `log` names the program it hangs on.
pub async fn until<T, F>(fact: &str, log: &str, limit: Duration, look: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let patience = ConstantBuilder::default().with_delay(PAUSE).without_max_times();
    let once = || async {
        tokio::time::timeout(LOOK, look()).await.unwrap_or_else(|_| Err(anyhow!("no answer within {LOOK:?}")))
    };
    let last = std::sync::Mutex::new(None);
    let keep = |error: &anyhow::Error, _| {
        if let Ok(mut last) = last.lock() {
            *last = Some(format!("{error:#}"));
        }
    };
    match tokio::time::timeout(limit, once.retry(patience).notify(keep)).await {
        Ok(done) => done,
        Err(_) => {
            let why = last.lock().ok().and_then(|mut last| last.take()).unwrap_or_else(|| "no answer".to_owned());
            Err(anyhow!(why))
                .with_context(|| format!("{fact}: not so after {} s, see `localcloud logs {log}`", limit.as_secs()))
        }
    }
}

/// Waits until something listens at `address`.
pub async fn listening(address: &str, log: &str, limit: Duration) -> Result<()> {
    until(&format!("{log} listens at {address}"), log, limit, || async {
        TcpStream::connect(address).await.map(drop).with_context(|| format!("connecting to {address}"))
    })
    .await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_the_fact() {
        let looks = std::sync::atomic::AtomicU32::new(0);
        let look = || async {
            match looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Err(anyhow!("not yet")),
                n => Ok(n),
            }
        };
        assert_eq!(until("fact", "aws", Duration::from_secs(5), look).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_limit_names_the_fact_the_log_and_the_reason() {
        let look = || async { Err::<(), _>(anyhow!("connection refused")) };
        let error = until("etcd answers", "c1-etcd", Duration::from_millis(250), look).await.unwrap_err();
        let said = format!("{error:#}");
        assert!(
            said.contains("etcd answers")
                && said.contains("localcloud logs c1-etcd")
                && said.ends_with("connection refused"),
            "{said}"
        );
    }
}
