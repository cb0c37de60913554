//! What somebody may send to do harm, for the tests of whatever reads it: something well-formed, spoiled.
//!
//! These tests are called `spoiled_…` and defined by [`property!`](crate::property). `make test` gives each a few
//! hundred random inputs; `make fuzz` builds them with `--cfg fuzzing` and lets libFuzzer look for inputs that reach new
//! code.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

#[cfg(fuzzing)]
pub mod fuzz;

/// Defines a test as `proptest!` does: random inputs here, libFuzzer's in a build for fuzzing.
#[cfg(not(fuzzing))]
#[macro_export]
macro_rules! property {
    ($($definition:tt)*) => { ::proptest::proptest! { $($definition)* } };
}

/// What parsers stumble over.
const SPOILERS: &[&str] = &[
    "\0",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "/",
    "../",
    "\\",
    "%",
    "%zz",
    "{{",
    "}}",
    "{%",
    "&a [*a, *a]",
    "!!x ",
    "- ",
    "\n",
    " ",
    "\u{202e}",
    "é",
    "-1",
    "1e999",
    "99999999999999999999999999",
    "null",
    "true",
];

/// Times a spoiler is repeated: deeper than what reads it may recurse.
const DEEP: usize = 1000;

/// One of these, with up to six places cut out, repeated, overwritten or filled with what parsers stumble over.
pub fn spoiled<T: AsRef<[u8]>>(samples: impl IntoIterator<Item = T>) -> impl Strategy<Value = Vec<u8>> {
    let samples: Vec<Vec<u8>> = samples.into_iter().map(|sample| sample.as_ref().to_vec()).collect();
    let spoiler = (0..6_u8, any::<Index>(), any::<Index>(), any::<u8>(), select(SPOILERS));
    (select(samples), vec(spoiler, 0..6)).prop_map(|(mut text, spoilers)| {
        for (how, from, length, byte, word) in spoilers {
            let from = from.index(text.len() + 1);
            let until = from + length.index(text.len() - from + 1);
            match how {
                0 => drop(text.drain(from..until)),
                1 => drop(text.splice(until..until, text[from..until].to_vec())),
                2 => drop(text.splice(from..until, word.bytes())),
                3 => drop(text.splice(from..from, word.bytes())),
                4 => drop(text.splice(from..from, word.repeat(DEEP).into_bytes())),
                _ => text[from..until].iter_mut().take(1).for_each(|there| *there = byte),
            }
        }
        text
    })
}

/// [`spoiled`], as text.
pub fn spoiled_text<T: AsRef<[u8]>>(samples: impl IntoIterator<Item = T>) -> impl Strategy<Value = String> {
    spoiled(samples).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
