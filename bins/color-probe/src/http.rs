//! The requests.

use crate::answer::Answer;
use crate::cluster::Cluster;
use crate::direct::{Direct, Idle};
use crate::expect::Expect;
use crate::service::Service;
use crate::target::shown;
use anyhow::{Chain, Result};
use common::{Kind, classify, roots::Distrust};
pub use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::error::Error as StdError;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use url::Url;

/// Longest body that is read: no colour is longer, and an endless answer must end.
pub const LONGEST: usize = 4096;

/// Asks one URL; follows no redirects.
pub struct Http {
    way: Way,
    url: Url,
    /// How long one answer may take.
    patience: Duration,
}

/// What one request brought, and when.
pub struct Asked {
    pub answer: Answer,
    pub began: Instant,
    pub ended: Instant,
}

enum Way {
    /// To the URL itself, through a proxy where the environment says so.
    Direct(Box<Direct>),
    /// Through a cluster's API server to a Service.
    Cluster(Box<(Cluster, Service, HeaderMap)>),
}

impl Http {
    /// Through the API server of the cluster to the Service that the URL names.
    pub fn through(cluster: Cluster, url: Url, headers: &[Header], patience: Duration) -> Result<Self> {
        let service = Service::of(&url).map_err(common::Error::input)?;
        let headers = given(headers).collect();
        Ok(Self { way: Way::Cluster(Box::new((cluster, service, headers))), url, patience })
    }

    /// Without `keep_alive` every request makes a connection of its own, so that a load balancer that spreads
    /// connections and not requests is seen to spread, too.
    pub fn new(url: Url, headers: &[Header], keep_alive: bool, patience: Duration) -> Result<Self> {
        Ok(Self { way: Way::Direct(Box::new(Direct::new(&url, headers, keep_alive)?)), url, patience })
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Asks once, on an idle connection if there is one; `left` may be shorter than the patience.
    ///
    /// # Errors
    /// What another try can't mend: an authority that is not trusted, an API server that refuses.
    pub async fn ask(&self, idle: &Idle, expect: &Expect, left: Duration) -> Result<Asked> {
        let (began, patience) = (Instant::now(), self.patience.min(left));
        let answer = match self.read(idle, after(began, patience)).await {
            Ok(Some((status, body))) => Answer::of(expect, status, &String::from_utf8_lossy(&body)),
            Ok(None) => Answer::Silence(format!("no answer within {:.1} s", patience.as_secs_f64())),
            Err(error) if classify(&error).0 == Kind::Retry => Answer::Silence(error.root_cause().to_string()),
            Err(error) => return Err(error),
        };
        Ok(Asked { answer, began, ended: Instant::now() })
    }

    /// Status and body of one answer; `None` if there is none by then.
    async fn read(&self, idle: &Idle, end: Instant) -> Result<Option<(u16, Vec<u8>)>> {
        match &self.way {
            Way::Direct(direct) => direct.get(idle, end).await.map_err(|error| self.failed(error)),
            Way::Cluster(way) => {
                let (cluster, service, headers) = &**way;
                timeout_at(end, cluster.get(service, &self.url, headers)).await.ok().transpose()
            }
        }
    }

    fn failed(&self, error: Box<dyn StdError + Send + Sync>) -> anyhow::Error {
        let chain = || Chain::new(&*error);
        let reason = chain().last().map(ToString::to_string).unwrap_or_default();
        if let Some(distrust) = chain().find_map(Distrust::of) {
            return common::Error::failed(format!("{}: {reason}", shown(&self.url))).hint(distrust.hint()).into();
        }
        common::Error::retry(reason).into()
    }
}

/// When so much time has passed; a year will do for whoever waits for longer.
pub fn after(begin: Instant, time: Duration) -> Instant {
    begin + time.min(Duration::from_secs(365 * 24 * 60 * 60))
}

/// A header to send; without a value, one that is not to be sent.
pub type Header = (HeaderName, Option<HeaderValue>);

/// Those that are to be sent.
pub fn given(headers: &[Header]) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    headers.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
}

/// `NAME: VALUE`, as curl takes it: `NAME:` is not sent, and `NAME;` is sent empty. The value is marked as a secret, so
/// that nothing prints it.
///
/// # Errors
/// Says why it is none.
pub fn header(text: &str) -> Result<Header, String> {
    let (name, value) = match text.split_once(':') {
        Some((name, value)) => (name, Some(value.trim()).filter(|value| !value.is_empty())),
        None => (text.trim_end().strip_suffix(';').ok_or("it is not NAME: VALUE")?, Some("")),
    };
    let header: HeaderName = name.trim().parse().map_err(|_| format!("{name:?} is no name of a header"))?;
    let value = value.map(HeaderValue::from_str).transpose();
    let mut value = value.map_err(|_| format!("the value of {header} is none"))?;
    value.iter_mut().for_each(|value| value.set_sensitive(true));
    Ok((header, value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_curl_reads_it() {
        for (text, read) in [
            ("Host: shop.example", Ok(("host", Some("shop.example")))),
            ("X-A:b:c", Ok(("x-a", Some("b:c")))),
            ("X-A: b;", Ok(("x-a", Some("b;")))),
            ("X-None:", Ok(("x-none", None))),
            ("X-None: ", Ok(("x-none", None))),
            ("X-Empty;", Ok(("x-empty", Some("")))),
            ("Host", Err("it is not NAME: VALUE")),
            ("X-A;b", Err("it is not NAME: VALUE")),
            (";", Err("\"\" is no name of a header")),
            (": v", Err("\"\" is no name of a header")),
            ("a b: v", Err("\"a b\" is no name of a header")),
            ("a: v\nb: w", Err("the value of a is none")),
        ] {
            let header = header(text);
            let value = |value: &Option<HeaderValue>| value.as_ref().map(|value| value.to_str().unwrap().to_owned());
            let header = header.as_ref().map(|(name, text)| (name.as_str(), value(text)));
            let header = header.as_ref().map(|(name, text)| (*name, text.as_deref()));
            assert_eq!(header.map_err(|error| error.as_str()), read, "{text}");
        }
    }
}
