//! Resolves the scalars of YAML 1.1 by the tables of go-yaml v2, which kubectl and Helm read with.
//!
//! These tables are neither those of the YAML 1.1 specification (no base 60, no `0777` beyond octal digits) nor those of
//! YAML 1.2: `yes` is a boolean, `0400` and `0o400` are 256, `089` and `1e3` are floats, `1_000` is an integer, and
//! timestamps stay text. Source: go.yaml.in/yaml/v2, resolve.go.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Number, Value};

/// The prefix of the tags that YAML itself defines.
const TAG: &str = "tag:yaml.org,2002:";

/// Limits of what go-yaml holds in an integer: int64, else uint64, which only a number without a sign can need.
const INTEGERS: (i128, i128, i128) = (i64::MIN as i128, i64::MAX as i128, u64::MAX as i128);

/// A resolved scalar.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// `~`, `null`, or nothing.
    Null,
    /// Such as `yes`.
    Boolean(bool),
    /// Within int64 or uint64.
    Integer(i128),
    /// Also `.inf` and `.nan`.
    Float(f64),
    /// All else.
    Text(String),
}

impl Scalar {
    /// Resolves a scalar as it is written: `plain` when it has neither quotes nor a block's indicator.
    ///
    /// # Errors
    /// The text is not what its tag says.
    pub fn resolve(tag: Option<&str>, text: &str, plain: bool) -> Result<Self, String> {
        let Some(tag) = tag else {
            return Ok(if plain { Self::of_plain(text) } else { Self::Text(text.to_owned()) });
        };
        let text_itself = || Self::Text(text.to_owned());
        let known = tag.strip_prefix(TAG).unwrap_or_default();
        let resolved = match (known, Self::of_plain(text)) {
            ("bool", found @ Self::Boolean(_)) | ("int", found @ Self::Integer(_)) => found,
            ("null", found @ Self::Null) | ("float", found @ Self::Float(_)) => found,
            ("float", Self::Integer(number)) if number <= INTEGERS.1 => Self::Float(number as f64),
            ("timestamp", Self::Text(_)) if is_date(text) => text_itself(),
            ("bool" | "int" | "null" | "float" | "timestamp", _) => return Err(format!("{text:?} is no {known}")),
            ("binary", _) => Self::Text(binary(text).ok_or("invalid base64 after !!binary")?),
            _ => text_itself(),
        };
        Ok(resolved)
    }

    fn of_plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Self::Boolean(true),
            "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
                Self::Boolean(false)
            }
            ".nan" | ".NaN" | ".NAN" => Self::Float(f64::NAN),
            ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Self::Float(f64::INFINITY),
            "-.inf" | "-.Inf" | "-.INF" => Self::Float(f64::NEG_INFINITY),
            _ => number(text).unwrap_or_else(|| Self::Text(text.to_owned())),
        }
    }

    /// As a value of JSON.
    ///
    /// # Errors
    /// JSON has no such number.
    pub fn into_value(self) -> Result<Value, String> {
        match self {
            Self::Null => Ok(Value::Null),
            Self::Boolean(yes) => Ok(yes.into()),
            Self::Integer(number) => match i64::try_from(number) {
                Ok(number) => Ok(number.into()),
                Err(_) => float(number as f64),
            },
            Self::Float(number) => float(number),
            Self::Text(text) => Ok(text.into()),
        }
    }

    /// As the key of an object.
    ///
    /// # Errors
    /// kubectl does not take it for a key.
    pub fn into_key(self) -> Result<String, String> {
        match self {
            Self::Null => Err("a key is null".to_owned()),
            Self::Boolean(yes) => Ok(yes.to_string()),
            Self::Integer(number) if number > INTEGERS.1 => Err(format!("the key {number} is too large")),
            Self::Integer(number) => Ok(number.to_string()),
            Self::Float(number) => Ok(float_key(number)),
            Self::Text(text) => Ok(text),
        }
    }
}

/// A number of JSON as kubectl sends it on: an integer where it is one and int64 holds it, else a float, written in full
/// below 1e21.
///
/// # Errors
/// JSON has no infinity.
pub fn float(number: f64) -> Result<Value, String> {
    let plain = number.to_string();
    if let Ok(integer) = plain.parse::<i64>() {
        return Ok(integer.into());
    }
    let text = match number.abs() {
        size if size != 0.0 && !(1e-6..1e21).contains(&size) => format!("{number:e}"),
        _ => plain,
    };
    text.parse::<Number>().map(Value::Number).map_err(|_| format!("{number} is no number in JSON"))
}

/// The text of a float that is a key: go-yaml cuts it to 32 bits and writes it as C's `%g` would.
fn float_key(number: f64) -> String {
    let number = number as f32;
    if number.is_nan() {
        return ".nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    match scientific.split_once('e').map(|(digits, exponent)| (digits, exponent.parse::<i32>().unwrap_or_default())) {
        Some((digits, exponent)) if !(-4..6).contains(&exponent) => {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => number.to_string(),
    }
}

fn number(text: &str) -> Option<Scalar> {
    match text.as_bytes().first()? {
        b'.' => finite(&between_digits(text)),
        b'+' | b'-' | b'0'..=b'9' => {
            let digits = text.replace('_', "");
            integer(&digits).map(Scalar::Integer).or_else(|| finite(&digits)).or_else(|| signed_binary(&digits))
        }
        _ => None,
    }
}

/// Without the underscores that stand between digits; a float that begins with its point may have no other.
fn between_digits(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let apart = (0..bytes.len()).all(|at| bytes[at] != b'_' || at > 0 && digit(at - 1) && digit(at + 1));
    if apart { text.replace('_', "") } else { text.to_owned() }
}

/// By Go's rules: `0x`, `0b` and `0o` or a leading zero choose the base.
fn integer(text: &str) -> Option<i128> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let prefix = unsigned.get(..2).filter(|_| unsigned.len() > 2).map(str::to_ascii_lowercase);
    let (radix, digits) = match prefix.as_deref() {
        Some("0x") => (16, &unsigned[2..]),
        Some("0o") => (8, &unsigned[2..]),
        Some("0b") => (2, &unsigned[2..]),
        _ if unsigned.len() > 1 && unsigned.starts_with('0') => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    // The standard library would take one more sign.
    let number =
        digits.chars().all(|digit| digit.is_digit(radix)).then(|| i128::from_str_radix(digits, radix).ok())??;
    let number = if text.starts_with('-') { -number } else { number };
    let largest = if unsigned.len() < text.len() { INTEGERS.1 } else { INTEGERS.2 };
    (INTEGERS.0..=largest).contains(&number).then_some(number)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`; what is too large for a float is text.
fn finite(text: &str) -> Option<Scalar> {
    let shaped = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let number = shaped.then(|| text.parse::<f64>().ok())??;
    number.is_finite().then_some(Scalar::Float(number))
}

/// `0b-1`, which is no number to anybody else.
fn signed_binary(text: &str) -> Option<Scalar> {
    let digits = match text.strip_prefix("-0b") {
        Some(digits) => format!("-{digits}"),
        None => text.strip_prefix("0b")?.to_owned(),
    };
    i64::from_str_radix(&digits, 2).ok().map(|number| Scalar::Integer(number.into()))
}

/// Whether it begins as every timestamp does.
fn is_date(text: &str) -> bool {
    text.split_once('-').is_some_and(|(year, _)| year.len() == 4 && year.bytes().all(|digit| digit.is_ascii_digit()))
}

fn binary(text: &str) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(text.replace(['\r', '\n'], "")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars_are_read_as_kubectl_reads_them() {
        for (text, expected) in [
            ("0400", json!(256)),
            ("0123", json!(83)),
            ("0o17", json!(15)),
            ("0O17", json!(15)),
            ("0x1F", json!(31)),
            ("-0x1f", json!(-31)),
            ("0b101", json!(5)),
            ("0b-1", json!(-1)),
            ("1e3", json!(1000)),
            ("1E+3", json!(1000)),
            ("089", json!(89)),
            ("0123.5", json!(123.5)),
            (".5", json!(0.5)),
            (".5_0", json!(0.5)),
            ("._5", json!("._5")),
            ("5.", json!(5)),
            ("1.10", json!(1.1)),
            ("1_000", json!(1000)),
            ("_1", json!("_1")),
            ("1.5e-7", json!(1.5e-7)),
            ("0.0", json!(0)),
            ("-0", json!(0)),
            ("1e400", json!("1e400")),
            ("9223372036854775807", json!(i64::MAX)),
            ("18446744073709551615", Value::Number("18446744073709552000".parse().unwrap())),
            ("1e21", Value::Number("1e21".parse().unwrap())),
            ("100000000000000000000", Value::Number("100000000000000000000".parse().unwrap())),
            ("-9223372036854775809", Value::Number("-9223372036854776000".parse().unwrap())),
            ("0x", json!("0x")),
            ("0x1G", json!("0x1G")),
            ("0b", json!("0b")),
            ("+", json!("+")),
            ("--", json!("--")),
            ("+-1", json!("+-1")),
            ("1:30", json!("1:30")),
            ("12:30:45", json!("12:30:45")),
            ("2001-01-01", json!("2001-01-01")),
            ("2001-12-14t21:59:43.10-05:00", json!("2001-12-14t21:59:43.10-05:00")),
            ("infinity", json!("infinity")),
            ("nan", json!("nan")),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("n", json!(false)),
            ("oN", json!("oN")),
            ("~", json!(null)),
            ("nULL", json!("nULL")),
            ("", json!(null)),
            ("<<", json!("<<")),
            ("=", json!("=")),
        ] {
            let read = Scalar::resolve(None, text, true).unwrap().into_value().unwrap();
            assert_eq!(read, expected, "{text}");
            assert_eq!(Scalar::resolve(None, text, false).unwrap().into_value().unwrap(), json!(text), "quoted {text}");
        }
        for text in [".inf", "-.INF", ".nan"] {
            assert!(Scalar::resolve(None, text, true).unwrap().into_value().is_err(), "{text}");
        }
    }

    #[test]
    fn tags_choose_the_type_and_refuse_what_is_none() {
        for (tag, text, expected) in [
            ("str", "0400", Some(json!("0400"))),
            ("str", "", Some(json!(""))),
            ("int", "3", Some(json!(3))),
            ("int", "x", None),
            ("int", "3.5", None),
            ("float", "3", Some(json!(3))),
            ("bool", "on", Some(json!(true))),
            ("bool", "1", None),
            ("null", "", Some(json!(null))),
            ("null", "x", None),
            ("binary", "aGFs\nbG8=", Some(json!("hallo"))),
            ("binary", "?", None),
            ("timestamp", "2001-01-01", Some(json!("2001-01-01"))),
            ("timestamp", "now", None),
            ("map", "x", Some(json!("x"))),
        ] {
            for plain in [true, false] {
                let tag = format!("{TAG}{tag}");
                let read = Scalar::resolve(Some(&tag), text, plain).and_then(Scalar::into_value).ok();
                assert_eq!(read, expected, "{tag} {text}");
            }
        }
        assert_eq!(Scalar::resolve(Some("!mine"), "0400", true), Ok(Scalar::Text("0400".to_owned())));
    }

    #[test]
    fn keys_become_text() {
        for (text, expected) in [
            ("on", Some("true")),
            ("0400", Some("256")),
            ("3.10", Some("3.1")),
            ("1e3", Some("1000")),
            ("1e6", Some("1e+06")),
            ("1234567.5", Some("1.2345675e+06")),
            ("0.00001", Some("1e-05")),
            ("1e400", Some("1e400")),
            ("1e39", Some(".inf")),
            (".nan", Some(".nan")),
            ("2001-01-01", Some("2001-01-01")),
            ("~", None),
            ("18446744073709551615", None),
        ] {
            let key = Scalar::resolve(None, text, true).unwrap().into_key().ok();
            assert_eq!(key.as_deref(), expected, "{text}");
        }
    }
}
