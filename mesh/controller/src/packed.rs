//! Keeps small maps in one piece: a large mesh has tens of thousands of them, and they rarely change.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A map of strings to strings, sorted by key. What a BTreeMap of Strings takes three to four times the memory for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PackedMap {
    /// Each key and its value, one after the other.
    text: Box<str>,
    /// Where each of them ends.
    ends: Box<[u32]>,
}

impl PackedMap {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|(present, value)| (present == key).then_some(value))
    }

    /// Whether it has no key.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether there is such a key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let mut begin = 0;
        let mut next = move |end: u32| {
            let end = end as usize;
            let text = self.text.get(begin..end).unwrap_or_default();
            begin = end;
            text
        };
        self.ends.as_chunks().0.iter().map(move |&[key, value]| (next(key), next(value)))
    }

    /// A copy with one more key, or another value of one.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        self.iter().filter(|(present, _)| *present != key).chain([(key, value)]).collect()
    }

    /// As a map that can be changed.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> From<BTreeMap<K, V>> for PackedMap {
    fn from(map: BTreeMap<K, V>) -> Self {
        let texts = || map.iter().flat_map(|(key, value)| [key.as_ref(), value.as_ref()]);
        let mut end = 0;
        let ends = texts().map(|text| {
            end += text.len();
            // 4 GB in one object are more than Kubernetes and Cloud Map take by far.
            u32::try_from(end).unwrap_or(u32::MAX)
        });
        Self { ends: ends.collect(), text: texts().collect() }
    }
}

/// The last value of a key counts.
impl<K: AsRef<str> + Ord, V: AsRef<str>> FromIterator<(K, V)> for PackedMap {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        entries.into_iter().collect::<BTreeMap<K, V>>().into()
    }
}

impl<K: AsRef<str> + Ord, V: AsRef<str>, const N: usize> From<[(K, V); N]> for PackedMap {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl fmt::Debug for PackedMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for PackedMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for PackedMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::<String, String>::deserialize(deserializer)?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    #[test]
    fn a_key_has_its_last_value() {
        let map = PackedMap::from([("b", "1"), ("a", ""), ("b", "2")]);
        assert_eq!(map.iter().collect::<Vec<_>>(), [("a", ""), ("b", "2")]);
        assert_eq!((map.get("a"), map.get("b"), map.get("c")), (Some(""), Some("2"), None));
        assert_eq!(map.with("a", "x").with("c", "y"), PackedMap::from([("a", "x"), ("b", "2"), ("c", "y")]));
        assert_eq!(format!("{map:?}"), r#"{"a": "", "b": "2"}"#);
    }

    proptest! {
        #[test]
        fn it_is_as_a_map_of_strings(entries in vec((".{0,4}", ".{0,8}"), 0..40)) {
            let map: BTreeMap<String, String> = entries.iter().cloned().collect();
            let packed: PackedMap = entries.iter().cloned().collect();
            prop_assert_eq!(packed.to_map(), map.clone());
            for (key, value) in &map {
                prop_assert_eq!(packed.get(key), Some(value.as_str()));
            }
            let written = serde_json::to_string(&packed).unwrap();
            prop_assert_eq!(&written, &serde_json::to_string(&map).unwrap());
            prop_assert_eq!(serde_json::from_str::<PackedMap>(&written).unwrap(), packed);
        }
    }
}
