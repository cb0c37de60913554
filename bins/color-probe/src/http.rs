//! The requests.

use crate::answer::Answer;
use crate::expect::Expect;
use anyhow::{Context as _, Result};
use reqwest::{Client, Url};
use std::error::Error;
use std::time::{Duration, Instant};

/// How long one answer may take. A front end in the mesh answers or gives up within Envoy's 15 s.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Longest body that is read: no colour is longer, and an endless answer must end.
const LONGEST: usize = 4096;

/// Asks over plain connections: no proxy, no redirects, names looked up as by every program of this machine.
pub struct Http(Client);

impl Http {
    /// Without `keep_alive` every request makes a connection of its own, so that a load balancer that spreads
    /// connections and not requests is seen to spread, too.
    pub fn new(url: &Url, keep_alive: bool) -> Result<Self> {
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // The resolver of the machine has no memory of its own for names that were not there yet.
            .no_hickory_dns();
        // Where no TLS is spoken, a machine without CA certificates will do.
        let client = if url.scheme() == "https" { client } else { client.tls_certs_only([]) };
        let client = if keep_alive { client } else { client.pool_max_idle_per_host(0) };
        client.build().context("set up the HTTP client").map(Self)
    }

    /// Asks once, and says how long it took.
    pub async fn ask(&self, url: &Url, expect: &Expect, patience: Duration) -> (Answer, Duration) {
        let started = Instant::now();
        let answer = match self.read(url, patience).await {
            Ok((status, body)) => Answer::of(expect, status, &String::from_utf8_lossy(&body)),
            Err(error) => Answer::Silence(reason(&error, patience)),
        };
        (answer, started.elapsed())
    }

    async fn read(&self, url: &Url, patience: Duration) -> reqwest::Result<(u16, Vec<u8>)> {
        let mut response = self.0.get(url.clone()).timeout(patience).send().await?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST {
                break;
            }
        }
        Ok((response.status().as_u16(), body))
    }
}

/// The innermost cause: `Connection refused (os error 111)`, not the client's layers around it.
fn reason(error: &reqwest::Error, patience: Duration) -> String {
    if error.is_timeout() {
        return format!("no answer within {:.1} s", patience.as_secs_f64());
    }
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
