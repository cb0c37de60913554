//! The colours that may answer, and how often.

use common::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Weights by colour, as a VirtualRouter has them: only their ratio counts, and 0 means never. At least one is not 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, u32>")]
#[schemars(with = "BTreeMap<String, u32>")]
pub struct Expect(BTreeMap<String, u32>);

impl Expect {
    /// The tutorial's: red and blue to equal parts.
    pub fn red_and_blue() -> Self {
        Self(BTreeMap::from([("blue".to_owned(), 1), ("red".to_owned(), 1)]))
    }

    /// Whether this colour is one of them.
    pub fn has(&self, color: &str) -> bool {
        self.0.contains_key(color)
    }

    /// Whether all colours have the same weight.
    pub fn is_even(&self) -> bool {
        self.0.values().all(|weight| self.0.values().next() == Some(weight))
    }

    /// The colours, sorted.
    pub fn colors(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// A colour's share of all answers, 0 to 1.
    pub fn share(&self, color: &str) -> f64 {
        self.shares().find(|(known, _)| *known == color).map_or(0.0, |(_, share)| share)
    }

    /// Each colour's share of all answers, 0 to 1; the shares add up to 1.
    pub fn shares(&self) -> impl Iterator<Item = (&String, f64)> {
        let total: f64 = self.0.values().map(|weight| f64::from(*weight)).sum();
        self.0.iter().map(move |(color, weight)| (color, f64::from(*weight) / total))
    }
}

impl TryFrom<BTreeMap<String, u32>> for Expect {
    type Error = Error;

    fn try_from(weights: BTreeMap<String, u32>) -> Result<Self, Error> {
        match weights.values().any(|weight| *weight > 0) {
            true => Ok(Self(weights)),
            false => Err(Error::input("no colour has a weight above 0")),
        }
    }
}

impl FromStr for Expect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = BTreeMap::new();
        for part in text.split(',') {
            let (color, weight) = part.split_once('=').ok_or_else(|| format!("{part:?} is not COLOR=WEIGHT"))?;
            let number = weight.trim().parse().map_err(|_| format!("{weight:?} is not a weight, a number from 0"))?;
            let color = color.trim();
            if color.is_empty() {
                return Err(format!("{part:?} names no colour"));
            }
            if weights.insert(color.to_owned(), number).is_some() {
                return Err(format!("{color} is there twice"));
            }
        }
        Self::try_from(weights).map_err(|error| error.message)
    }
}

/// As the flag takes it: `blue=1,red=1`.
impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (color, weight)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{color}={weight}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_as_the_flag_spells_them() {
        for (text, read) in [
            ("red=1,blue=1", Ok("blue=1,red=1")),
            (" red = 9 , blue = 0 ", Ok("blue=0,red=9")),
            ("n/a=1", Ok("n/a=1")),
            ("", Err("\"\" is not COLOR=WEIGHT")),
            ("red", Err("\"red\" is not COLOR=WEIGHT")),
            ("red=1,", Err("\"\" is not COLOR=WEIGHT")),
            ("=1", Err("\"=1\" names no colour")),
            ("red=-1", Err("\"-1\" is not a weight, a number from 0")),
            ("red=1.5", Err("\"1.5\" is not a weight, a number from 0")),
            ("red=1,red=2", Err("red is there twice")),
            ("red=0,blue=0", Err("no colour has a weight above 0")),
        ] {
            let expect = text.parse::<Expect>().map(|expect| expect.to_string());
            assert_eq!(expect.as_deref().map_err(String::as_str), read, "{text}");
        }
    }

    #[test]
    fn shares_add_up_to_one() {
        let expect: Expect = "red=3,blue=1,green=0".parse().unwrap();
        let shares: Vec<_> = expect.shares().map(|(color, share)| (color.as_str(), share)).collect();
        assert_eq!(shares, [("blue", 0.25), ("green", 0.0), ("red", 0.75)]);
    }
}
