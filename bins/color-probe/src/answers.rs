//! Counts and judges what all requests brought. Pure.

use crate::answer::{Answer, Wrong};
use crate::expect::Expect;
use crate::spread::{self, ChiSquared};
use crate::timeline::{Series, Timeline};
use common::Error;
use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::time::Duration;

/// Microseconds that latencies are told apart up to: a minute, longer than any answer is waited for.
const SLOWEST: u64 = 60_000_000;

/// Wrong answers, and reasons for silence, that are told apart.
const KINDS: usize = 1000;

/// Tallies, failures and latencies.
#[derive(Debug, Clone)]
pub struct Answers {
    /// How often each expected colour answered; those that never did are there with 0.
    pub tallies: BTreeMap<String, u64>,
    wrong: Counts<Wrong>,
    silence: Counts<String>,
    /// Microseconds of the requests that brought a colour.
    took: Histogram<u64>,
    /// When what came.
    pub timeline: Timeline,
}

/// Percentiles of the time from a request's start, connection included, to the last byte of its colour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Latency {
    /// The slowest, in milliseconds.
    pub max: f64,
    /// Half were as fast, in milliseconds.
    pub p50: f64,
    /// 90 of 100 were as fast, in milliseconds.
    pub p90: f64,
    /// 99 of 100 were as fast, in milliseconds.
    pub p99: f64,
}

impl Answers {
    /// None yet.
    pub fn new(expect: &Expect) -> anyhow::Result<Self> {
        Ok(Self {
            tallies: expect.colors().map(|color| (color.clone(), 0)).collect(),
            wrong: Counts::new(),
            silence: Counts::new(),
            // Three digits: a latency of 12.3 ms is told from one of 12.4 ms.
            took: Histogram::new_with_max(SLOWEST, 3)?,
            timeline: Timeline::new(),
        })
    }

    /// One more, which came so long after the first request was sent.
    pub fn add(&mut self, answer: Answer, at: Duration, took: Duration) {
        let series = match answer {
            Answer::Color(color) => {
                match self.tallies.get_mut(&color) {
                    Some(count) => *count += 1,
                    None => {
                        self.tallies.insert(color.clone(), 1);
                    }
                }
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.took.saturating_record(micros);
                Series::Color(color)
            }
            Answer::Wrong(wrong) => {
                self.wrong.add(wrong);
                Series::Wrong
            }
            Answer::Silence(reason) => {
                self.silence.add(reason);
                Series::Silence
            }
        };
        self.timeline.add(series, at);
    }

    /// How many brought no colour.
    pub fn errors(&self) -> u64 {
        self.wrong() + self.silence()
    }

    /// How many brought another answer.
    pub fn wrong(&self) -> u64 {
        self.wrong.total()
    }

    /// How many brought no answer.
    pub fn silence(&self) -> u64 {
        self.silence.total()
    }

    /// Why there was no colour, and how often, the most frequent first; last, what is not told apart.
    pub fn reasons(&self) -> Vec<(String, u64)> {
        let mut reasons: Vec<_> = self.wrong.named().chain(self.silence.named()).collect();
        reasons.sort_by_key(|(_, count)| Reverse(*count));
        let others = [("other answers", self.wrong.others), ("other reasons", self.silence.others)];
        reasons
            .extend(others.into_iter().filter(|(_, count)| *count > 0).map(|(what, count)| (what.to_owned(), count)));
        reasons
    }

    /// How many there are in all.
    pub fn total(&self) -> u64 {
        self.errors() + self.tallies.values().sum::<u64>()
    }

    /// How well the colours fit the weights.
    pub fn chi_squared(&self, expect: &Expect) -> ChiSquared {
        ChiSquared::test(expect, &self.tallies)
    }

    /// How long colours took.
    pub fn latency(&self) -> Latency {
        let millis = |micros: u64| micros as f64 / 1000.0;
        let at = |quantile| millis(self.took.value_at_quantile(quantile));
        Latency { max: millis(self.took.max()), p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }

    /// How many colours took how many milliseconds, the fastest first.
    pub fn latencies(&self) -> impl Iterator<Item = (f64, u64)> {
        let recorded = self.took.iter_recorded();
        recorded.map(|step| (step.value_iterated_to() as f64 / 1000.0, step.count_at_value()))
    }

    /// Whether every answer is a colour, and the colours fit the weights.
    ///
    /// # Errors
    /// [`common::Kind::Failed`] with the wrong answer seen most often, with the number of answers if they are too few, or
    /// with the tallies; [`common::Kind::Retry`] if answers never came, and none was wrong.
    pub fn judge(&self, url: &str, expect: &Expect) -> Result<(), Error> {
        let of = |count: u64| format!("{count} of {} requests", self.total());
        if let Some((wrong, count)) = self.wrong.most() {
            return Err(misled(url, wrong, Some(&of(count))));
        }
        if let Some((reason, count)) = self.silence.most() {
            let hint = "a load balancer needs minutes until it knows all targets: run it again";
            return Err(Error::retry(format!("{url} did not answer {}: {reason}", of(count))).hint(hint));
        }
        let (total, fewest) = (self.total(), spread::fewest(expect));
        if total < u64::from(fewest) {
            let message = format!("{total} answers can't tell whether {expect} is kept");
            return Err(Error::failed(message).hint(format!("ask long enough for {fewest}, see --duration")));
        }
        let test = self.chi_squared(expect);
        if test.fits() {
            return Ok(());
        }
        let tallies: Vec<_> = self.tallies.iter().map(|(color, count)| format!("{color} {count}")).collect();
        let message = format!("the answers are not spread as {expect}: {} (p = {:.2e})", tallies.join(", "), test.p);
        Err(Error::failed(message).hint("compare --expect with the weights of the virtual router's route"))
    }
}

/// The error of an answer that is no colour. `of` says how many were like it.
pub fn misled(url: &str, wrong: &Wrong, of: Option<&str>) -> Error {
    let of = of.map(|of| format!(" ({of})")).unwrap_or_default();
    if wrong.is_cut_off() {
        return Error::failed(format!("the front cluster can't reach the back cluster: {url} {wrong}{of}")).hint(
            "let the front cluster's nodes in with sg-open; if they are, see whether the back end's pods are ready, and \
             whether both sides agree on TLS",
        );
    }
    Error::failed(format!("{url} {wrong}, which is none of the expected colours{of}"))
}

/// How often what came. Only the first kinds are told apart: answers may all differ, and a run must not need the more memory
/// the longer it asks.
#[derive(Debug, Clone)]
struct Counts<K> {
    kinds: BTreeMap<K, u64>,
    others: u64,
}

impl<K: Ord + fmt::Display> Counts<K> {
    fn new() -> Self {
        Self { kinds: BTreeMap::new(), others: 0 }
    }

    fn add(&mut self, kind: K) {
        let full = self.kinds.len() >= KINDS;
        match self.kinds.entry(kind) {
            Entry::Occupied(mut count) => *count.get_mut() += 1,
            Entry::Vacant(_) if full => self.others += 1,
            Entry::Vacant(none) => {
                none.insert(1);
            }
        }
    }

    fn total(&self) -> u64 {
        self.kinds.values().sum::<u64>() + self.others
    }

    fn most(&self) -> Option<(&K, u64)> {
        self.kinds.iter().map(|(kind, count)| (kind, *count)).max_by_key(|(_, count)| *count)
    }

    fn named(&self) -> impl Iterator<Item = (String, u64)> {
        self.kinds.iter().map(|(kind, count)| (kind.to_string(), *count))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn answers(of: &[(&str, u16, u32)]) -> Answers {
        let expect = Expect::red_and_blue();
        let mut answers = Answers::new(&expect).unwrap();
        for (body, status, count) in of {
            for millis in 1..=*count {
                answers.add(Answer::of(&expect, *status, body), Duration::ZERO, Duration::from_millis(millis.into()));
            }
        }
        answers
    }

    fn judged(answers: &Answers) -> Result<(), String> {
        answers.judge("http://front/color", &Expect::red_and_blue()).map_err(|error| error.message)
    }

    #[test]
    fn a_color_that_never_answered_is_tallied_as_0() {
        assert_eq!(answers(&[("red", 200, 2)]).tallies, BTreeMap::from([("blue".into(), 0), ("red".into(), 2)]));
    }

    #[test]
    fn percentiles_are_milliseconds_of_colors_only() {
        let latency = answers(&[("red", 200, 100), ("no", 200, 1000)]).latency();
        for (have, want) in [(latency.p50, 50.0), (latency.p90, 90.0), (latency.p99, 99.0), (latency.max, 100.0)] {
            assert!((have - want).abs() < want * 0.001, "{latency:?}");
        }
    }

    #[test]
    fn one_wrong_answer_is_a_failure_and_the_most_frequent_is_quoted() {
        let envoy = "upstream connect error or disconnect/reset before headers";
        for (of, judgement) in [
            (&[("red", 200, 55), ("blue", 200, 45)][..], Ok(())),
            (&[("red", 200, 5), ("blue", 200, 4)], Err("9 answers can't tell whether blue=1,red=1 is kept".to_owned())),
            (
                &[("red", 200, 80), ("blue", 200, 20)],
                Err("the answers are not spread as blue=1,red=1: blue 20, red 80 (p = 1.97e-9)".to_owned()),
            ),
            (
                &[("red", 200, 50), ("blue", 200, 49), ("green", 200, 1)],
                Err("http://front/color answered 200 \"green\", which is none of the expected colours \
                     (1 of 100 requests)"
                    .to_owned()),
            ),
            (
                &[("red", 200, 1), ("x", 404, 1), (envoy, 503, 2)],
                Err(format!(
                    "the front cluster can't reach the back cluster: http://front/color answered 503 \"{envoy}\" \
                     (2 of 4 requests)"
                )),
            ),
        ] {
            assert_eq!(judged(&answers(of)), judgement);
        }
    }

    #[test]
    fn what_never_comes_twice_takes_no_more_memory() {
        let mut answers = answers(&[("red", 200, 1)]);
        for number in 0..=KINDS {
            let body = format!("<html>request {number}</html>");
            let wrong = Answer::of(&Expect::red_and_blue(), 500, &body);
            answers.add(wrong, Duration::ZERO, Duration::ZERO);
        }
        assert_eq!((answers.wrong.kinds.len(), answers.wrong(), answers.total()), (KINDS, 1001, 1002));
        assert_eq!(answers.reasons().last(), Some(&("other answers".to_owned(), 1)));
        assert!(judged(&answers).is_err_and(|error| error.contains("<html>request ")));
    }

    #[test]
    fn silence_is_a_failure() {
        let mut answers = answers(&[("red", 200, 1)]);
        answers.add(Answer::Silence("Connection refused".into()), Duration::ZERO, Duration::ZERO);
        let error = "http://front/color did not answer 1 of 2 requests: Connection refused";
        assert_eq!(judged(&answers), Err(error.to_owned()));
    }
}
