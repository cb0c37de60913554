//! A length of time, as flags and documents spell it: `90s`, `1m 30s`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time above 0, such as `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = humantime::parse_duration(text).map_err(|error| format!("{text:?} is no time: {error}"))?;
        if time.is_zero() { Err(format!("{text:?} is no time at all")) } else { Ok(Self(time)) }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for (text, read) in [
            ("20s", Ok("20s")),
            ("90s", Ok("1m 30s")),
            ("1m 30s", Ok("1m 30s")),
            ("250ms", Ok("250ms")),
            ("0s", Err("\"0s\" is no time at all")),
            ("5", Err("\"5\" is no time: time unit needed, for example 5sec or 5ms")),
        ] {
            let span = text.parse::<Span>().map(|span| span.to_string());
            assert_eq!(span.as_deref().map_err(String::as_str), read, "{text}");
        }
    }
}
