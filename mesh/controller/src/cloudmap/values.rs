//! Cuts what is longer than an attribute's value may be into several values, and joins them again.

use crate::model::Attributes;

/// Characters of one attribute's value, a limit of RegisterInstance.
pub const MAX_VALUE: usize = 1024;
/// Characters of one instance's keys and values, a limit of RegisterInstance.
pub const MAX_CHARACTERS: usize = 5000;
/// Attributes with long values in one instance: as many as [`MAX_CHARACTERS`] leaves room for.
pub const MAX_VALUES: usize = 4;

/// The key of one of the values of this name.
pub fn key(name: &str, index: usize) -> String {
    format!("{name}.{index}")
}

/// The attributes that hold a text of this name. It is ASCII, so that any byte is a place to cut.
pub fn cut(name: &str, text: &[u8]) -> impl Iterator<Item = (String, String)> {
    let values = text.chunks(MAX_VALUE).map(String::from_utf8_lossy).enumerate();
    values.map(move |(index, value)| (key(name, index), value.into_owned()))
}

/// The text of this name that attributes hold.
pub fn join(name: &str, attributes: &Attributes) -> String {
    (0..).map_while(|index| attributes.get(&key(name, index))).collect()
}
