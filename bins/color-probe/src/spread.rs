//! Whether tallies fit weights: Pearson's χ² test. Pure.

use crate::expect::Expect;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::function::gamma::checked_gamma_ur;
use std::collections::BTreeMap;

/// Below this the tallies are taken as uneven: answers drawn by the weights are mistaken for uneven once in a thousand
/// runs. With two even colours of 100 answers that is 67:33 and beyond.
const SIGNIFICANCE: f64 = 0.001;

/// Fewest answers that each colour must be expected to give, below which χ² says nothing (Cochran's rule).
const FEWEST: f64 = 5.0;

/// How well tallies fit weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChiSquared {
    /// Colours of a weight above 0, less one.
    pub degrees_of_freedom: u32,
    /// Probability of tallies as far off as these, or farther, when the weights are kept.
    pub p: f64,
    /// Sum of (seen - expected)² / expected.
    pub statistic: f64,
}

impl ChiSquared {
    /// Tests tallies, which hold every colour of `expect` and no other.
    pub fn test(expect: &Expect, tallies: &BTreeMap<String, u64>) -> Self {
        let total: f64 = tallies.values().map(|seen| *seen as f64).sum();
        let mut statistic = 0.0;
        let mut possible: u32 = 0;
        for (color, share) in expect.shares() {
            let seen = tallies.get(color).map_or(0.0, |seen| *seen as f64);
            let expected = share * total;
            if share > 0.0 {
                possible += 1;
            }
            if expected > 0.0 {
                statistic += (seen - expected).powi(2) / expected;
            } else if seen > 0.0 {
                statistic = f64::INFINITY;
            }
        }
        let degrees_of_freedom = possible.saturating_sub(1);
        Self { degrees_of_freedom, p: p(statistic, degrees_of_freedom), statistic }
    }

    /// To the digits that mean something to a reader of the document.
    pub fn rounded(self) -> Self {
        let round = |number: f64| (number * 1e4).round() / 1e4;
        Self { p: round(self.p), statistic: round(self.statistic), ..self }
    }

    /// Whether the weights explain the tallies.
    pub fn fits(&self) -> bool {
        self.p >= SIGNIFICANCE
    }
}

/// The χ² distribution's upper tail. It has no tail where nothing can vary, and none beyond infinity.
fn p(statistic: f64, degrees_of_freedom: u32) -> f64 {
    if statistic == f64::INFINITY {
        return 0.0;
    }
    checked_gamma_ur(f64::from(degrees_of_freedom) / 2.0, statistic / 2.0).unwrap_or(1.0)
}

/// Fewest answers from which the test can tell anything.
pub fn fewest(expect: &Expect) -> u32 {
    let smallest = expect.shares().map(|(_, share)| share).filter(|share| *share > 0.0).fold(1.0, f64::min);
    if smallest < 1.0 { (FEWEST / smallest).ceil() as u32 } else { 1 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn test(expect: &str, seen: &[(&str, u64)]) -> ChiSquared {
        let tallies = seen.iter().map(|(color, seen)| ((*color).to_owned(), *seen)).collect();
        ChiSquared::test(&expect.parse().unwrap(), &tallies)
    }

    /// Critical values of the χ² distribution at 0.001: 10.828, 13.816 and 16.266 for 1, 2 and 3 degrees of freedom
    /// (NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.4).
    #[test]
    fn the_tail_is_that_of_the_tables() {
        for (statistic, degrees, expected) in [
            (10.828, 1, 0.001),
            (13.816, 2, 0.001),
            (16.266, 3, 0.001),
            (3.841, 1, 0.05),
            (5.991, 2, 0.05),
            (0.0, 1, 1.0),
            (0.0, 0, 1.0),
            (f64::INFINITY, 0, 0.0),
        ] {
            let p = p(statistic, degrees);
            assert!((p - expected).abs() < expected * 0.001 + f64::EPSILON, "{statistic} {degrees}: {p}");
        }
    }

    #[test]
    fn what_chance_explains_fits() {
        for (expect, seen, statistic, fits) in [
            ("red=1,blue=1", &[("red", 50), ("blue", 50)][..], 0.0, true),
            ("red=1,blue=1", &[("red", 55), ("blue", 45)], 1.0, true),
            ("red=1,blue=1", &[("red", 66), ("blue", 34)], 10.24, true),
            ("red=1,blue=1", &[("red", 67), ("blue", 33)], 11.56, false),
            ("red=1,blue=1", &[("red", 80), ("blue", 20)], 36.0, false),
            ("red=1,blue=1", &[("red", 100), ("blue", 0)], 100.0, false),
            ("red=50,blue=50", &[("red", 55), ("blue", 45)], 1.0, true),
            ("red=4,blue=1", &[("red", 80), ("blue", 20)], 0.0, true),
            ("red=4,blue=1", &[("red", 50), ("blue", 50)], 56.25, false),
            ("red=1,blue=1,green=1", &[("red", 30), ("blue", 30), ("green", 30)], 0.0, true),
            ("red=1,blue=1,green=1", &[("red", 45), ("blue", 45), ("green", 0)], 45.0, false),
            ("red=1", &[("red", 7)], 0.0, true),
            ("red=1,blue=0", &[("red", 7), ("blue", 0)], 0.0, true),
            ("red=1,blue=0", &[("red", 700), ("blue", 1)], f64::INFINITY, false),
            ("red=1,blue=1", &[("red", 0), ("blue", 0)], 0.0, true),
        ] {
            let test = test(expect, seen);
            assert_eq!((test.statistic, test.fits()), (statistic, fits), "{expect} {seen:?}");
        }
    }

    #[test]
    fn rare_colors_need_many_answers() {
        for (expect, least) in
            [("red=1,blue=1", 10), ("red=9,blue=1", 50), ("red=99,blue=1", 500), ("red=1", 1), ("red=5,blue=0", 1)]
        {
            assert_eq!(fewest(&expect.parse().unwrap()), least, "{expect}");
        }
    }
}
