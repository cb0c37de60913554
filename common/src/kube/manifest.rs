//! Reads manifests as kubectl does.
//!
//! Accepted:
//! - UTF-8, and UTF-16 with a byte order mark; a mark at the start of a document is no part of it;
//! - JSON, one object after another, and YAML in documents that lines of `---` part;
//! - YAML 1.1 as go-yaml v2 reads it, which is kubectl's and Helm's reader: `scalar` has the table of numbers, booleans
//!   and nulls, `yaml` has anchors, merge keys, duplicate keys and keys that are not text;
//! - lists of any kind (`items`), lists within lists, and items that leave their kind to their list.
//!
//! Refused, as by kubectl: an anchor that holds itself, a key that is a collection, a number that JSON does not have,
//! `%YAML`, text after `---` on its line, metadata of the wrong type (`namespace: 2048`). Refused, though kubectl reads
//! something: `{a:}`, `[?a]` and `[!a, b]`, where it is something that nobody means; an alias as a key without a space
//! before its colon; infinity as the value of a key that comes again, and so does not count.
//!
//! Accepted, though kubectl fails: lists within lists; a byte order mark after the first `---`; a tab that
//! begins a block; `?` within a word of a flow collection; `\/` in double quotes. U+0085, U+2028 and U+2029 break no lines.

mod scalar;
mod yaml;

use crate::Error;
use anyhow::Result;
use serde_json::Value;
use yaml::{Note, document};

/// Some editors begin a file with it.
pub const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The objects of a file, and what its author should know about them, one line each.
#[derive(Debug, Default, PartialEq)]
pub struct Content {
    /// Lists are taken apart, empty documents left out.
    pub objects: Vec<Value>,
    /// Such as a key that is there twice.
    pub remarks: Vec<String>,
}

/// The text of a file.
///
/// # Errors
/// It is neither UTF-8 nor UTF-16 with a byte order mark.
pub fn decode(file: &str, bytes: &[u8]) -> Result<String> {
    let wide = |unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes[2..].as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().copied().map(unit).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty())
    };
    let text = match bytes {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes).ok_or(1),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes).ok_or(1),
        _ => std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|error| 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count()),
    };
    let text = text.map_err(|line| Error::input(format!("{file}:{line}: neither UTF-8 nor UTF-16")))?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).map(str::to_owned).unwrap_or(text))
}

/// Reads the objects of a file's text. `edit` may give another text for a scalar that is no key, as if that stood there.
///
/// # Errors
/// The text is not a manifest; the message names file, line and column.
pub fn read(file: &str, text: &str, edit: &mut dyn FnMut(&str) -> Option<String>) -> Result<Content> {
    let mut content = Content::default();
    let mut documents = 0;
    let mut take = |mut read: yaml::Document, lines: usize| {
        documents += 1;
        let remark = |note: Note| format!("{file}:{}:{}: {}", note.line + lines, note.column, note.text);
        content.remarks.extend(read.notes.drain(..).map(remark));
        if !matches!(read.value, Value::Null | Value::Object(_)) {
            return Err(Error::input(format!("{file}: document {documents} is not an object")));
        }
        let before = content.objects.len();
        take_apart(read.value, &mut content.objects).map_err(|what| Error::input(format!("{file}: {what}")))?;
        content.objects[before..].iter().try_for_each(|object| {
            misplaced_type(object).map_or(Ok(()), |what| {
                Err(Error::input(format!("{file}: {what}")).hint("put it in quotes: only text may stand there"))
            })
        })
    };
    let rest = json(text, edit, |value| take(yaml::Document { value, notes: Vec::new() }, 0))?;
    let skipped = lines_of(&text[..text.len() - rest.len()]);
    for Part { text, lines } in parts(rest).map_err(|(line, separator)| {
        Error::input(format!("{file}:{}: no text but a comment may follow ---: {separator}", line + skipped))
    })? {
        let lines = lines + skipped;
        let read = document(&text, edit).map_err(|note| {
            // Nothing of the text, which may hold what is no log's business.
            let what = note.text.replace(char::is_control, " ");
            Error::input(format!("{file}:{}:{}: not YAML: {what}", note.line + lines, note.column))
        })?;
        take(read, lines)?;
    }
    Ok(content)
}

fn lines_of(text: &str) -> usize {
    text.matches('\n').count()
}

/// Takes the JSON objects at the start of a text, and returns the rest, which is YAML. As soon as two are read, nothing
/// but JSON may follow.
fn json<'a>(
    text: &'a str,
    edit: &mut dyn FnMut(&str) -> Option<String>,
    mut take: impl FnMut(Value) -> Result<(), Error>,
) -> Result<&'a str, Error> {
    let (mut rest, mut count) = (text, 0);
    while rest.trim_start().starts_with('{') || count > 0 {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let value = match stream.next() {
            Some(Ok(value)) => value,
            None => return Ok(""),
            Some(Err(error)) if count > 1 => return Err(Error::input(format!("after {count} JSON objects: {error}"))),
            Some(Err(_)) => break,
        };
        rest = &rest[stream.byte_offset()..];
        count += 1;
        take(edited(value, edit)?)?;
    }
    // What is left of the line that the JSON ends on.
    let space = rest.len() - rest.trim_start().len();
    Ok(if count == 0 { rest } else { &rest[rest[..space].find('\n').map_or(space, |end| end + 1)..] })
}

/// With numbers as kubectl sends them, and texts as `edit` has them.
fn edited(value: Value, edit: &mut dyn FnMut(&str) -> Option<String>) -> Result<Value, Error> {
    Ok(match value {
        Value::Number(number) => match number.as_i64() {
            Some(integer) => integer.into(),
            None => scalar::float(number.as_f64().unwrap_or(f64::INFINITY)).map_err(Error::input)?,
        },
        Value::String(text) => edit(&text).unwrap_or(text).into(),
        Value::Array(items) => items.into_iter().map(|item| edited(item, edit)).collect::<Result<_, _>>()?,
        Value::Object(object) => {
            let fields = object.into_iter().map(|(key, value)| Ok((key, edited(value, edit)?)));
            Value::Object(fields.collect::<Result<_, Error>>()?)
        }
        other => other,
    })
}

/// A document of a text, and how many lines stand before it.
#[derive(Debug, Default, PartialEq)]
struct Part {
    text: String,
    lines: usize,
}

/// The documents of a YAML text. kubectl parts them itself, line by line, before it reads any. `Err` holds the line and
/// what follows the `---` on it.
fn parts(text: &str) -> Result<Vec<Part>, (usize, &str)> {
    let (mut parts, mut part) = (Vec::new(), Part::default());
    for (number, line) in text.lines().enumerate() {
        let unmarked = line.trim_start_matches(BYTE_ORDER_MARK);
        if let Some(rest) = unmarked.strip_prefix("---") {
            if !rest.trim().is_empty() && !rest.trim_start().starts_with('#') {
                return Err((number + 1, rest.trim()));
            }
            parts.push(std::mem::replace(&mut part, Part { text: String::new(), lines: number + 1 }));
            continue;
        }
        part.text.push_str(if part.text.is_empty() { unmarked } else { line });
        part.text.push('\n');
    }
    parts.push(part);
    parts.retain(|part| !part.text.trim().is_empty());
    Ok(parts)
}

/// Adds the object, or instead of a list its items: of any depth, in their order. kubectl takes whatever has `items` for a
/// list.
fn take_apart(document: Value, objects: &mut Vec<Value>) -> Result<(), String> {
    let Value::Object(mut list) = document else { return Ok(()) };
    let items = match list.remove("items") {
        None => {
            objects.push(Value::Object(list));
            return Ok(());
        }
        Some(Value::Null) => return Ok(()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err("items is not a list".to_owned()),
    };
    let text = |field: &str| list.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let of_items = kind.strip_suffix("List").unwrap_or(kind);
    for (index, mut item) in items.into_iter().enumerate() {
        let Some(object) = item.as_object_mut() else {
            return Err(format!("items[{index}] of a {kind} is not an object"));
        };
        if !of_items.is_empty() && !object.contains_key("kind") && !object.contains_key("apiVersion") {
            object.insert("kind".to_owned(), of_items.into());
            object.insert("apiVersion".to_owned(), version.into());
        }
        take_apart(item, objects)?;
    }
    Ok(())
}

/// Says what of an object's metadata has another type than text. The API server would see it too, but by then a namespace
/// that is a number counts as none, and the object goes to the default one.
fn misplaced_type(object: &Value) -> Option<String> {
    const TEXTS: [&str; 6] = ["name", "generateName", "namespace", "uid", "resourceVersion", "selfLink"];
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let subject = format!("{} {name}", object["kind"].as_str().unwrap_or("object"));
    let say = |place: String, value: &Value, wanted: &str| {
        Some(format!("{}: {place} is {}, not {wanted}", subject.trim_end(), type_of(value)))
    };
    let is_text = |value: &Value| value.is_string() || value.is_null();
    let top = ["apiVersion", "kind"].iter().find(|field| !is_text(&object[**field]));
    if let Some(field) = top {
        return say((*field).to_owned(), &object[*field], "text");
    }
    if !metadata.is_object() && !metadata.is_null() {
        return say("metadata".to_owned(), metadata, "an object");
    }
    if let Some(field) = TEXTS.iter().find(|field| !is_text(&metadata[**field])) {
        return say(format!("metadata.{field}"), &metadata[*field], "text");
    }
    for field in ["labels", "annotations"] {
        match &metadata[field] {
            Value::Null => {}
            Value::Object(entries) => {
                if let Some((key, value)) = entries.iter().find(|(_, value)| !is_text(value)) {
                    return say(format!("metadata.{field}.{key}"), value, "text");
                }
            }
            other => return say(format!("metadata.{field}"), other, "an object"),
        }
    }
    None
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use ::tests::hostile::spoiled_text;
    use proptest::prelude::*;
    use serde_json::json;

    fn objects(text: &str) -> Result<Vec<Value>, String> {
        read("f.yaml", text, &mut |_| None).map(|content| content.objects).map_err(|error| error.to_string())
    }

    #[test]
    fn files_are_decoded_by_their_byte_order_mark() {
        for (bytes, expected) in [
            (b"a\xc3\xa9".as_slice(), Ok("a\u{e9}")),
            (b"\xef\xbb\xbfa", Ok("a")),
            (b"\xff\xfea\0\xe9\0", Ok("a\u{e9}")),
            (b"\xfe\xff\0a", Ok("a")),
            (b"a\n\xe9", Err("f.yaml:2: neither UTF-8 nor UTF-16")),
            (b"\xff\xfea", Err("f.yaml:1: neither UTF-8 nor UTF-16")),
            (b"", Ok("")),
        ] {
            let decoded = decode("f.yaml", bytes).map_err(|error| error.to_string());
            assert_eq!(decoded.as_deref().map_err(String::as_str), expected, "{bytes:?}");
        }
    }

    #[test]
    fn documents_are_parted_as_kubectl_parts_them() {
        for (text, expected) in [
            ("---\n# only words\n---\na: 1\n---\nb: \"8080\"\n", vec![json!({"a": 1}), json!({"b": "8080"})]),
            ("a: 1\r\n--- # next\r\nb: |\r\n  x\r\n", vec![json!({"a": 1}), json!({"b": "x\n"})]),
            ("a: |\n  x\n  ---\n", vec![json!({"a": "x\n---\n"})]),
            ("a: |\n  x", vec![json!({"a": "x\n"})]),
            (
                "---\n\u{feff}a: 1\n---\n\u{feff}b: 2\n\u{feff}---\nc: 3",
                vec![json!({"a": 1}), json!({"b": 2}), json!({"c": 3})],
            ),
            ("{\"a\": 1.0}\n{\"b\": [1e3, 1.5, \"yes\"]}", vec![json!({"a": 1}), json!({"b": [1000, 1.5, "yes"]})]),
            ("{\"a\": 0}\n---\n{b: 0400}\n", vec![json!({"a": 0}), json!({"b": 256})]),
            ("{a: 0400}", vec![json!({"a": 256})]),
            ("a: 1\n...\n---\nb: 2\n", vec![json!({"a": 1}), json!({"b": 2})]),
            ("null\n---\n~\n", vec![]),
            (" \n", vec![]),
        ] {
            assert_eq!(objects(text), Ok(expected), "{text:?}");
        }
        for (text, expected) in [
            ("- 1", "f.yaml: document 1 is not an object"),
            ("a: 1\n---\nno\n", "f.yaml: document 2 is not an object"),
            ("a: 1\n--- b: 2\n", "f.yaml:2: no text but a comment may follow ---: b: 2"),
            ("{\"a\": 1}\n\n--- x\n", "f.yaml:3: no text but a comment may follow ---: x"),
            ("{\"a\": 1}{\"b\": 2}\nc: 3", "after 2 JSON objects: expected value at line 2 column 1"),
        ] {
            assert_eq!(objects(text), Err(expected.to_owned()), "{text:?}");
        }
        for (text, place) in [("a: [1", "1:4"), ("a: 1\n---\nb:\n  c: 1\n d: 2", "5:2"), ("{\"a\": 1}\nb: *x", "2:4")] {
            let error = objects(text).unwrap_err();
            assert!(error.starts_with(&format!("f.yaml:{place}: not YAML: ")), "{error}");
        }
    }

    #[test]
    fn lists_are_taken_apart() {
        let named = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        let (typed, bare) = (named("Pod", "a"), json!({"metadata": {"name": "b"}}));
        let list = |kind: &str, items: &Value| json!({"apiVersion": "v1", "kind": kind, "items": items});
        let allowed = json!({"apiVersion": "v1", "kind": "AllowList", "spec": {"items": [1]}});
        for (document, expected) in [
            (list("List", &json!([typed.clone()])), vec![typed.clone()]),
            (list("ConfigMapList", &json!([bare, typed])), vec![named("ConfigMap", "b"), typed.clone()]),
            (list("List", &json!([list("PodList", &json!([bare])), typed])), vec![named("Pod", "b"), typed.clone()]),
            (list("List", &json!(null)), vec![]),
            (list("List", &json!([])), vec![]),
            (allowed.clone(), vec![allowed]),
        ] {
            assert_eq!(objects(&document.to_string()), Ok(expected), "{document}");
        }
        assert_eq!(objects("items: {}"), Err("f.yaml: items is not a list".to_owned()));
        assert_eq!(objects("kind: List\nitems: [1]"), Err("f.yaml: items[0] of a List is not an object".to_owned()));
    }

    #[test]
    fn metadata_of_another_type_is_refused() {
        for (object, expected) in [
            ("{kind: Pod, metadata: {name: c, namespace: 2048}}", "Pod c: metadata.namespace is a number, not text"),
            ("{kind: Pod, metadata: {name: 5}}", "Pod: metadata.name is a number, not text"),
            ("{kind: Pod, metadata: {name: y}}", "Pod: metadata.name is a boolean, not text"),
            ("{metadata: {labels: {v: 1.10}}}", "object: metadata.labels.v is a number, not text"),
            ("{metadata: {annotations: {v: on}}}", "object: metadata.annotations.v is a boolean, not text"),
            ("{metadata: {labels: [a]}}", "object: metadata.labels is a list, not an object"),
            ("{metadata: [a]}", "object: metadata is a list, not an object"),
            ("{apiVersion: 1}", "object: apiVersion is a number, not text"),
        ] {
            assert_eq!(objects(object), Err(format!("f.yaml: {expected}")), "{object}");
            let listed = format!("{{kind: List, items: [{object}]}}");
            assert_eq!(objects(&listed).err(), Some(format!("f.yaml: {expected}")), "{listed}");
        }
        assert!(objects("{metadata: {name: a, namespace: , labels: {a: }}}").is_ok());
    }

    #[test]
    fn a_remark_names_its_place() {
        let read = read("f.yaml", "a: 1\n---\nb: 1\nb: 2\n", &mut |_| None).unwrap();
        assert_eq!(read.remarks, ["f.yaml:4:1: the key b is there twice, and the last counts"]);
    }

    ::tests::property! {
        #[test]
        fn spoiled_manifests_end(text in spoiled_text([
            "a: &a [1, !!str 0400, 'x']\nb: {<<: *a, c: |+\n  d\n\n}\n--- # e\n? f\n: >-\n  g\n",
            "{\"kind\": \"List\", \"items\": [{\"a\": 1.5e3}]}\n{\"b\": null}\n",
            "kind: List\nitems: [{a: 1}, &b {c: *b}]\n",
        ])) {
            if let Ok(read) = read("f.yaml", &text, &mut |_| None) {
                prop_assert!(read.objects.iter().all(Value::is_object));
            }
        }
    }
}
