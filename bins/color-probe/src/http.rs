//! The requests.

use crate::answer::Answer;
use crate::cluster::Cluster;
use crate::expect::Expect;
use crate::service::Service;
use anyhow::{Chain, Context as _, Result};
use common::proxy::{Proxies, Proxy};
use common::{Kind, classify, roots};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Url};
use std::time::{Duration, Instant};

/// Longest body that is read: no colour is longer, and an endless answer must end.
pub const LONGEST: usize = 4096;

/// Asks one URL; follows no redirects.
pub struct Http {
    way: Way,
    url: Url,
    /// How long one answer may take.
    patience: Duration,
}

enum Way {
    /// To the URL itself, through a proxy where the environment says so.
    Direct(Client),
    /// Through a cluster's API server to a Service.
    Cluster(Box<(Cluster, Service, HeaderMap)>),
}

impl Http {
    /// Through the API server of the cluster to the Service that the URL names.
    pub fn through(cluster: Cluster, url: Url, headers: HeaderMap, patience: Duration) -> Result<Self> {
        let service = Service::of(&url).map_err(common::Error::input)?;
        Ok(Self { way: Way::Cluster(Box::new((cluster, service, headers))), url, patience })
    }

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
        Ok(Self { way: Way::Direct(client.build().context("set up the HTTP client")?), url, patience })
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Asks once, and says how long it took; `left` may be shorter than the patience.
    ///
    /// # Errors
    /// What another try can't mend: an authority that is not trusted, an API server that refuses.
    pub async fn ask(&self, expect: &Expect, left: Duration) -> Result<(Answer, Duration)> {
        let (started, patience) = (Instant::now(), self.patience.min(left));
        let answer = match tokio::time::timeout(patience, self.read()).await {
            Ok(Ok((status, body))) => Answer::of(expect, status, &String::from_utf8_lossy(&body)),
            Ok(Err(error)) if classify(&error).0 == Kind::Retry => Answer::Silence(error.root_cause().to_string()),
            Ok(Err(error)) => return Err(error),
            Err(_) => Answer::Silence(format!("no answer within {:.1} s", patience.as_secs_f64())),
        };
        Ok((answer, started.elapsed()))
    }

    async fn read(&self) -> Result<(u16, Vec<u8>)> {
        match &self.way {
            Way::Direct(client) => read(client, &self.url).await.map_err(|error| self.failed(error)),
            Way::Cluster(way) => {
                let (cluster, service, headers) = &**way;
                cluster.get(service, &self.url, headers).await
            }
        }
    }

    fn failed(&self, error: reqwest::Error) -> anyhow::Error {
        let issuer = Chain::new(&error).any(roots::is_unknown_issuer);
        let error = anyhow::Error::new(error);
        let reason = error.root_cause();
        if issuer {
            return common::Error::failed(format!("{}: {reason}", self.url)).hint(roots::hint()).into();
        }
        common::Error::retry(reason).into()
    }
}

async fn read(client: &Client, url: &Url) -> reqwest::Result<(u16, Vec<u8>)> {
    let mut response = client.get(url.clone()).send().await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST {
            break;
        }
    }
    Ok((response.status().as_u16(), body))
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
