//! The JSON document that flows from tool to tool.

use crate::error::Error;
use anyhow::Result;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The version this family of tools reads and writes, as the document's `v`.
const VERSION: u64 = 1;

/// PowerShell begins a file with it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One JSON object. Keys come out sorted and numbers to the digit as they came in, though an exponent gets its sign
/// (`serde_json` with `arbitrary_precision` and without `preserve_order`).
#[derive(Debug, Clone, PartialEq)]
pub struct Document(Map<String, Value>);

impl Default for Document {
    fn default() -> Self {
        Self(Map::from_iter([("v".to_owned(), VERSION.into())]))
    }
}

impl Document {
    /// Reads one or more concatenated JSON objects and unites them. `source` names the input in errors.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind::Input) when there is none, or one is not an object of version 1;
    /// [`Kind::Conflict`](crate::Kind::Conflict) when two disagree.
    pub fn parse(source: &str, input: &[u8]) -> Result<Self> {
        let mut united = Map::new();
        for document in Self::parse_each(source, input)? {
            unite(&mut united, document.0, &mut Vec::new())?;
        }
        Ok(Self(united))
    }

    /// Reads one or more concatenated JSON objects, each for itself. A byte order mark at the start is no part of them.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind::Input) when there is none, or one is not an object of version 1.
    pub fn parse_each(source: &str, input: &[u8]) -> Result<Vec<Self>> {
        let mut documents = Vec::new();
        let input = input.strip_prefix(BYTE_ORDER_MARK).unwrap_or(input);
        for (index, value) in serde_json::Deserializer::from_slice(input).into_iter::<Value>().enumerate() {
            let value = value.map_err(|error| Error::input(format!("{source} is not JSON: {error}")))?;
            let Value::Object(mut object) = value else {
                return Err(Error::input(format!(
                    "{source}: document {} is {}, not an object",
                    index + 1,
                    kind(&value)
                ))
                .into());
            };
            if let Some(v) = object.get("v").filter(|v| v.as_u64() != Some(VERSION)) {
                return Err(Error::input(format!("{source}: v: this tool reads version {VERSION}, not {v}")).into());
            }
            object.insert("v".to_owned(), VERSION.into());
            documents.push(Self(object));
        }
        if documents.is_empty() {
            return Err(Error::input(format!("{source} is empty"))
                .hint("did the tool before this one fail? -n starts from {}")
                .into());
        }
        Ok(documents)
    }

    /// The object at a path. `None` when it is absent.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind::Input) when it, or what stands on the way, is something else.
    pub fn object(&self, path: &[&str]) -> Result<Option<&Map<String, Value>>> {
        let mut map = &self.0;
        for (depth, key) in path.iter().enumerate() {
            match map.get(*key) {
                None => return Ok(None),
                Some(Value::Object(below)) => map = below,
                Some(other) => return Err(no_object(&path[..=depth], other).into()),
            }
        }
        Ok(Some(map))
    }

    /// The value at a path, as a type. `None` when it is absent.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind::Input) naming the full path of what does not fit, e.g. `role.policies[0]`.
    pub fn read<T: DeserializeOwned>(&self, path: &[&str]) -> Result<Option<T>> {
        let Some((last, parents)) = path.split_last() else { return Ok(None) };
        let Some(value) = self.object(parents)?.and_then(|map| map.get(*last)) else { return Ok(None) };
        let read = serde_path_to_error::deserialize(value).map_err(|error| {
            let below = match error.path().to_string() {
                here if here == "." => String::new(),
                below if below.starts_with('[') => below,
                below => format!(".{below}"),
            };
            let why = error.inner().to_string();
            // Names of Rust types are nothing to a reader.
            let why = match why.split_once(", expected struct ") {
                Some((found, _)) => format!("{found}, expected an object"),
                None => why,
            };
            Error::input(format!("{}{below}: {why}", path.join(".")))
        })?;
        Ok(Some(read))
    }

    /// Puts a value at a path, making the objects on the way.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind::Input) when something on the way is not an object.
    pub fn put(&mut self, path: &[&str], value: Value) -> Result<()> {
        let Some((last, parents)) = path.split_last() else { return Ok(()) };
        let mut map = &mut self.0;
        for (depth, key) in parents.iter().enumerate() {
            match map.entry(*key).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(below) => map = below,
                other => return Err(no_object(&path[..=depth], other).into()),
            }
        }
        map.insert((*last).to_owned(), value);
        Ok(())
    }

    /// Removes the value at a path, and the objects on the way that hold nothing else.
    pub fn remove(&mut self, path: &[&str]) {
        fn remove(map: &mut Map<String, Value>, path: &[&str]) {
            match path {
                [] => {}
                [key] => {
                    map.remove(*key);
                }
                [key, below @ ..] => {
                    if let Some(inner) = map.get_mut(*key).and_then(Value::as_object_mut) {
                        remove(inner, below);
                        if inner.is_empty() {
                            map.remove(*key);
                        }
                    }
                }
            }
        }
        remove(&mut self.0, path);
    }

    /// One with this content.
    pub(crate) fn of(content: Map<String, Value>) -> Self {
        Self(content)
    }

    /// The whole object, e.g. as the values of a template.
    pub fn as_object(&self) -> &Map<String, Value> {
        &self.0
    }
}

/// Indented by two spaces, keys sorted, one newline at the end: what `jq -S .` prints.
impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = serde_json::to_string_pretty(&self.0).map_err(|_| std::fmt::Error)?;
        writeln!(f, "{text}")
    }
}

/// Unites `from` into `into`: objects key by key, anything else must be equal.
fn unite(into: &mut Map<String, Value>, from: Map<String, Value>, path: &mut Vec<String>) -> Result<()> {
    for (key, value) in from {
        path.push(key.clone());
        match (into.get_mut(&key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => unite(into, from, path)?,
            (Some(have), value) if *have != value => {
                let place = path.join(".");
                return Err(Error::conflict(format!("documents disagree about {place}: {have} and {value}")).into());
            }
            (Some(_), _) => {}
            (None, value) => {
                into.insert(key, value);
            }
        }
        path.pop();
    }
    Ok(())
}

fn no_object(path: &[&str], found: &Value) -> Error {
    Error::input(format!("{} is {}, not an object", path.join("."), kind(found)))
}

/// What a JSON value is, with its article.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::error::{Kind, classify};
    use ::tests::hostile::spoiled;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Document, (Kind, String)> {
        Document::parse("stdin", text.as_bytes()).map_err(|error| (classify(&error).0, error.to_string()))
    }

    #[test]
    fn what_is_not_one_object_is_refused_with_its_place() {
        for (input, kind, message) in [
            ("", Kind::Input, "stdin is empty"),
            (" \n", Kind::Input, "stdin is empty"),
            ("{", Kind::Input, "stdin is not JSON: EOF while parsing an object at line 1 column 1"),
            ("[]", Kind::Input, "stdin: document 1 is an array, not an object"),
            ("{} 7", Kind::Input, "stdin: document 2 is a number, not an object"),
            (r#"{"v":2}"#, Kind::Input, "stdin: v: this tool reads version 1, not 2"),
            (r#"{"a":{"b":1}} {"a":{"b":2}}"#, Kind::Conflict, "documents disagree about a.b: 1 and 2"),
            (r#"{"a":{"b":1}} {"a":"x"}"#, Kind::Conflict, r#"documents disagree about a: {"b":1} and "x""#),
        ] {
            assert_eq!(parse(input), Err((kind, message.to_owned())), "{input}");
        }
    }

    #[test]
    fn documents_are_united_deeply_and_sorted() {
        let united = parse(r#"{"b":{"y":1,"x":[1,2]}} {"a":null,"b":{"z":"é","x":[1,2]}}"#).unwrap();
        let expected = "{\n  \"a\": null,\n  \"b\": {\n    \"x\": [\n      1,\n      2\n    ],\n    \"y\": 1,\n    \"z\": \"é\"\n  },\n  \"v\": 1\n}\n";
        assert_eq!(united.to_string(), expected);
    }

    #[test]
    fn documents_of_two_clusters_are_read_each_for_itself() {
        let each = |text: &str| Document::parse_each("stdin", text.as_bytes());
        let read: Vec<Document> =
            ["shop", "stock"].map(|name| parse(&format!(r#"{{"cluster":"{name}"}}"#)).unwrap()).to_vec();
        assert_eq!(each(r#"{"cluster":"shop"} {"v":1,"cluster":"stock"}"#).unwrap(), read);
        assert_eq!(each(" ").unwrap_err().to_string(), "stdin is empty");
        let second = each(r#"{} {"v":2}"#).unwrap_err().to_string();
        assert_eq!(second, "stdin: v: this tool reads version 1, not 2");
    }

    #[test]
    fn a_byte_order_mark_is_read_over_at_the_start_alone() {
        assert_eq!(parse("\u{feff}{\"a\": 1}"), parse(r#"{"a": 1}"#));
        assert_eq!(parse("\u{feff}"), parse(""));
        assert!(parse("{}\u{feff}{}").is_err());
    }

    #[test]
    fn numbers_are_kept_to_the_digit() {
        let text = "{\n  \"n\": 123456789012345678901234567890.10,\n  \"v\": 1\n}\n";
        assert_eq!(parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Role {
            #[allow(dead_code, reason = "only its reading is tested")]
            policies: Vec<String>,
            #[allow(dead_code, reason = "only its reading is tested")]
            #[serde(default)]
            inner: Option<Inner>,
        }
        #[derive(Debug, serde::Deserialize)]
        struct Inner {}
        let read = |text: &str| parse(text).unwrap().read::<Role>(&["role"]).unwrap_err().to_string();
        assert_eq!(
            read(r#"{"role":{"policies":["a",1]}}"#),
            "role.policies[1]: invalid type: number, expected a string"
        );
        assert_eq!(
            read(r#"{"role":{"polices":[]}}"#),
            "role.polices: unknown field `polices`, expected `policies` or `inner`"
        );
        assert_eq!(
            read(r#"{"role":{"policies":[],"inner":7}}"#),
            "role.inner: invalid type: number, expected an object"
        );
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let mut doc = parse(r#"{"images":{"web":[]}}"#).unwrap();
        let refused = "images.web is an array, not an object";
        assert_eq!(doc.object(&["images", "web"]).unwrap_err().to_string(), refused);
        assert_eq!(doc.read::<String>(&["images", "web", "uri"]).unwrap_err().to_string(), refused);
        assert_eq!(doc.put(&["images", "web", "uri"], Value::Null).unwrap_err().to_string(), refused);
        assert_eq!(doc.object(&["images", "api"]).unwrap(), None);
    }

    #[test]
    fn removing_leaves_no_empty_parent() {
        let mut doc = parse(r#"{"images":{"a":{}}}"#).unwrap();
        doc.remove(&["images", "a"]);
        assert_eq!(doc, Document::default());
        doc.remove(&["images", "a"]);
        assert_eq!(doc, Document::default());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-e]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_comes_out_goes_in_again(map in prop::collection::btree_map("[a-u]{1,3}", json(), 0..5)) {
            let doc = Document(map.into_iter().chain([("v".to_owned(), VERSION.into())]).collect());
            let text = doc.to_string();
            prop_assert_eq!(parse(&text), Ok(doc.clone()));
            prop_assert_eq!(parse(&format!("{text}{text}")), Ok(doc));
        }
    }

    ::tests::property! {
        #[test]
        fn spoiled_documents_are_refused_or_come_out_as_they_went_in(input in spoiled([
            r#"{"v":1,"cluster":{"name":"c1","region":"us-west-2"},"n":[1.50,1e3,-0,null,true]}"#,
            r#"{"a":{"b":"\u00e9\ud83d\ude00"}} {"a":{"c":123456789012345678901234567890}}"#,
        ])) {
            if let Ok(doc) = Document::parse("stdin", &input) {
                prop_assert_eq!(parse(&doc.to_string()), Ok(doc));
            }
        }
    }
}
