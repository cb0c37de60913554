//! The requests.

use crate::answer::Answer;
use crate::expect::Expect;
use anyhow::{Context as _, Result};
use common::proxy::{Proxies, Proxy};
use common::roots;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Url};
use std::error::Error;
use std::time::{Duration, Instant};

/// Longest body that is read: no colour is longer, and an endless answer must end.
const LONGEST: usize = 4096;

/// Asks one URL, through a proxy where the environment says so; follows no redirects.
pub struct Http {
    client: Client,
    url: Url,
    /// How long one answer may take.
    patience: Duration,
}

impl Http {
    /// Without `keep_alive` every request makes a connection of its own, so that a load balancer that spreads
    /// connections and not requests is seen to spread, too.
    pub fn new(url: Url, headers: HeaderMap, keep_alive: bool, patience: Duration) -> Result<Self> {
        let proxies = Proxies::from_environment()?;
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .proxy(reqwest::Proxy::custom(move |url| proxies.of_url(url.as_str()).map(Proxy::url)))
            .default_headers(headers)
            // One connection of HTTP/2 would carry all requests, and name the URL's host whatever `Host` says.
            .http1_only()
            // The resolver of the machine has no memory of its own for names that were not there yet.
            .no_hickory_dns();
        let trusted = roots::trusted().into_iter().map(|authority| Certificate::from_der(&authority));
        let client =
            client.tls_certs_only(trusted.collect::<reqwest::Result<Vec<_>>>().context("read the machine's CAs")?);
        let client = if keep_alive { client } else { client.pool_max_idle_per_host(0) };
        Ok(Self { client: client.build().context("set up the HTTP client")?, url, patience })
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Asks once, and says how long it took; `left` may be shorter than the patience.
    pub async fn ask(&self, expect: &Expect, left: Duration) -> (Answer, Duration) {
        let (started, patience) = (Instant::now(), self.patience.min(left));
        let answer = match self.read(patience).await {
            Ok((status, body)) => Answer::of(expect, status, &String::from_utf8_lossy(&body)),
            Err(error) => Answer::Silence(reason(&error, patience)),
        };
        (answer, started.elapsed())
    }

    async fn read(&self, patience: Duration) -> reqwest::Result<(u16, Vec<u8>)> {
        let mut response = self.client.get(self.url.clone()).timeout(patience).send().await?;
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

/// `NAME: VALUE`, as curl takes it. The value is marked as a secret, so that nothing prints it.
///
/// # Errors
/// Says why it is none.
pub fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| "it is not NAME: VALUE".to_owned())?;
    let header: HeaderName = name.trim().parse().map_err(|_| format!("{name:?} is no name of a header"))?;
    let mut value = HeaderValue::from_str(value.trim()).map_err(|_| format!("the value of {header} is none"))?;
    value.set_sensitive(true);
    Ok((header, value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_curl_reads_it() {
        for (text, read) in [
            ("Host: shop.example", Ok(("host", "shop.example"))),
            ("X-A:b:c", Ok(("x-a", "b:c"))),
            ("X-Empty:", Ok(("x-empty", ""))),
            ("Host", Err("it is not NAME: VALUE")),
            (": v", Err("\"\" is no name of a header")),
            ("a b: v", Err("\"a b\" is no name of a header")),
            ("a: v\nb: w", Err("the value of a is none")),
        ] {
            let header = header(text);
            let header = header.as_ref().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
            assert_eq!(header.map_err(|error| error.as_str()), read, "{text}");
        }
    }
}
