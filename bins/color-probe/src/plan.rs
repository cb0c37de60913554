//! What to ask. Pure.

use crate::expect::Expect;
use crate::spread;
use anyhow::Result;
use common::Error;
use reqwest::Url;
use std::fmt;

/// The answers that are wanted.
#[derive(Debug, Clone)]
pub struct Want {
    /// What is asked; none when the key is only to be dropped.
    pub url: Option<Url>,
    /// The colours that may answer.
    pub expect: Expect,
    /// Requests in all.
    pub count: u32,
    /// Requests at a time.
    pub concurrency: u32,
    /// Whether connections are used again.
    pub keep_alive: bool,
}

/// The one step: asking.
#[derive(Debug, PartialEq)]
pub struct Ask {
    pub url: Url,
    pub count: u32,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ask {} {} times", self.url, self.count)
    }
}

/// Every run asks once.
pub fn plan(want: &Want, asked: bool) -> Result<Vec<Ask>> {
    let fewest = spread::fewest(&want.expect);
    if want.count < fewest {
        let message = format!("{} requests can't tell whether {} is kept", want.count, want.expect);
        return Err(Error::usage(message).hint(format!("ask at least {fewest} times, see --count")).into());
    }
    let url = want.url.clone().filter(|_| !asked);
    Ok(url.map(|url| Ask { url, count: want.count }).into_iter().collect())
}

/// What the flags refuse, the document must not bring in.
pub fn at_least_one(field: &str, number: u32) -> Result<u32> {
    if number == 0 {
        return Err(Error::input(format!("probe.{field}: 0 is not at least 1")).into());
    }
    Ok(number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn want(count: u32) -> Want {
        let url = Some(Url::parse("http://front/color").unwrap());
        Want { url, expect: Expect::red_and_blue(), count, concurrency: 1, keep_alive: false }
    }

    #[test]
    fn every_run_asks_once() {
        let steps: Vec<_> = plan(&want(200), false).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(steps, ["ask http://front/color 200 times"]);
        assert_eq!(plan(&want(200), true).unwrap(), []);
    }

    #[test]
    fn too_few_requests_are_refused() {
        assert!(plan(&want(10), false).is_ok());
        let error = plan(&want(9), false).unwrap_err();
        assert_eq!(error.to_string(), "9 requests can't tell whether blue=1,red=1 is kept");
        assert_eq!(common::classify(&error), (common::Kind::Usage, Some("ask at least 10 times, see --count")));
    }
}
