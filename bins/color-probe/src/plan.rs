//! Says what to ask. Pure.

use crate::answers::Answers;
use crate::cluster::Cluster;
use crate::expect::Expect;
use crate::span::Span;
use crate::spread;
use crate::target::shown;
use anyhow::Result;
use common::Error;
use common::plan::Effect;
use std::fmt;
use std::time::Duration;
use url::Url;

/// The answers that are wanted.
#[derive(Debug, Clone)]
pub struct Want {
    /// What is asked; none when the key is only to be dropped.
    pub url: Option<Url>,
    /// The cluster through which it is asked.
    pub cluster: Option<Cluster>,
    /// The colours that may answer.
    pub expect: Expect,
    /// When it is enough.
    pub until: Until,
    /// Until `--timeout` has passed.
    pub left: Duration,
    /// Requests at a time.
    pub concurrency: u32,
    /// Requests a second at most; none: as many as are answered.
    pub rate: Option<u32>,
    /// How long one answer may take.
    pub patience: Span,
    /// Whether connections are used again.
    pub keep_alive: bool,
}

/// When it is enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Until {
    /// After so many requests.
    Count(u32),
    /// After so long; what is under way then still counts.
    Time(Span),
}

impl Until {
    /// Flags beat the document, and either of them its other.
    ///
    /// # Errors
    /// The document has both.
    pub fn of(flags: (Option<u32>, Option<Span>), doc: (Option<u32>, Option<Span>), default: u32) -> Result<Self> {
        match (flags, doc) {
            ((Some(count), _), _) | ((None, None), (Some(count), None)) => Ok(Self::Count(count)),
            ((None, Some(time)), _) | ((None, None), (None, Some(time))) => Ok(Self::Time(time)),
            ((None, None), (None, None)) => Ok(Self::Count(default)),
            ((None, None), (Some(_), Some(_))) => {
                Err(Error::input("probe.duration: there is probe.count, too").hint("give one of them").into())
            }
        }
    }

    pub fn count(self) -> Option<u32> {
        if let Self::Count(count) = self { Some(count) } else { None }
    }

    pub fn time(self) -> Option<Span> {
        if let Self::Time(time) = self { Some(time) } else { None }
    }
}

/// The one step: asking.
#[derive(Debug, PartialEq)]
pub struct Ask {
    pub url: Url,
    pub until: Until,
    /// The kubeconfig's context through whose API server it is asked.
    pub context: Option<String>,
}

impl common::plan::Change for Ask {
    fn effect(&self) -> Effect {
        Effect::Wait
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = shown(&self.url);
        match self.until {
            Until::Count(count) => write!(f, "ask {url} {count} times")?,
            Until::Time(time) => write!(f, "ask {url} for {time}")?,
        }
        match &self.context {
            Some(context) => write!(f, " through the API server of context {context}"),
            None => Ok(()),
        }
    }
}

impl common::plan::Want for Want {
    type Have = Option<Answers>;
    type Change = Ask;

    /// Every run asks once.
    fn plan(&self, asked: &Option<Answers>) -> Result<Vec<Ask>> {
        let fewest = spread::fewest(&self.expect);
        if let Some(count) = self.until.count().filter(|count| *count < fewest) {
            let message = format!("{count} requests can't tell whether {} is kept", self.expect);
            return Err(Error::usage(message).hint(format!("ask at least {fewest} times, see --count")).into());
        }
        if let Some(time) = self.until.time().filter(|time| time.0 >= self.left) {
            let message = format!("{time} is not over before --timeout has passed");
            return Err(Error::usage(message).hint("give it more with --timeout").into());
        }
        let url = self.url.clone().filter(|_| asked.is_none());
        let context = self.cluster.as_ref().map(|cluster| cluster.context().to_owned());
        Ok(url.map(|url| Ask { url, until: self.until, context }).into_iter().collect())
    }

    /// Nothing was made.
    fn plan_delete(&self, _have: &Option<Answers>) -> Result<Vec<Ask>> {
        Ok(Vec::new())
    }
}

/// What the flags refuse, the document must not bring in.
pub fn within(field: &str, number: Option<u32>, most: u32) -> Result<Option<u32>> {
    match number {
        Some(0) => Err(Error::input(format!("probe.{field}: 0 is not at least 1")).into()),
        Some(number) if number > most => Err(Error::input(format!("probe.{field}: {number} is over {most}")).into()),
        _ => Ok(number),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
pub mod tests {
    use super::*;
    use common::plan::Want as _;

    fn span(text: &str) -> Span {
        text.parse().unwrap()
    }

    /// Red and blue, so often or so long.
    pub fn want(until: Until) -> Want {
        Want {
            url: Some(Url::parse("http://front/color").unwrap()),
            cluster: None,
            expect: Expect::red_and_blue(),
            until,
            left: Duration::from_secs(300),
            concurrency: 1,
            rate: None,
            patience: span("20s"),
            keep_alive: false,
        }
    }

    #[test]
    fn every_run_asks_once() {
        let asked = Some(Answers::new(&Expect::red_and_blue()).unwrap());
        for (until, step) in [
            (Until::Count(200), "ask http://front/color 200 times"),
            (Until::Time(span("90s")), "ask http://front/color for 1m 30s"),
        ] {
            let steps: Vec<_> = want(until).plan(&None).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(steps, [step]);
            assert_eq!(want(until).plan(&asked).unwrap(), []);
        }
    }

    #[test]
    fn what_can_not_tell_anything_is_refused() {
        let even = "ask at least 10 times, see --count";
        for (until, refused) in [
            (Until::Count(10), None),
            (Until::Count(9), Some(("9 requests can't tell whether blue=1,red=1 is kept", even))),
            (Until::Time(span("299s")), None),
            (
                Until::Time(span("5m")),
                Some(("5m is not over before --timeout has passed", "give it more with --timeout")),
            ),
        ] {
            let error = want(until).plan(&None).err();
            let told = error.as_ref().map(|error| (error.to_string(), common::classify(error)));
            let expected = refused.map(|(message, hint)| (message.to_owned(), (common::Kind::Usage, Some(hint))));
            assert_eq!(told, expected, "{until:?}");
        }
    }

    #[test]
    fn a_flag_beats_what_the_document_says_of_either() {
        let time = Some(span("1s"));
        for (flags, doc, until) in [
            ((None, None), (None, None), Some(Until::Count(7))),
            ((Some(1), None), (Some(2), None), Some(Until::Count(1))),
            ((Some(1), None), (None, time), Some(Until::Count(1))),
            ((None, time), (Some(2), None), Some(Until::Time(span("1s")))),
            ((None, None), (Some(2), None), Some(Until::Count(2))),
            ((None, None), (None, time), Some(Until::Time(span("1s")))),
            ((Some(1), None), (Some(2), time), Some(Until::Count(1))),
            ((None, None), (Some(2), time), None),
        ] {
            assert_eq!(Until::of(flags, doc, 7).ok(), until, "{flags:?} {doc:?}");
        }
    }
}
