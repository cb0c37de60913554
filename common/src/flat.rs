//! A document without depth, for whoever reads strings only, such as Terraform's data source `external`.

use crate::{Document, Error};
use anyhow::Result;
use serde_json::{Map, Value};

/// The document as one object of strings. A key is the path of a value, as errors name it: `ingress.rules[0].port`. Texts
/// are as they are, all else is its JSON, and so is what is empty: `97`, `true`, `null`, `[]`.
///
/// # Errors
/// [`Kind::Input`](crate::Kind::Input) when two values have the same path, as in `{"a.b": 1, "a": {"b": 2}}`.
pub fn flat(document: &Document) -> Result<Document> {
    let mut found = Map::new();
    for (key, value) in document.as_object() {
        collect(value, key.clone(), &mut found)?;
    }
    Ok(Document::of(found))
}

fn collect(value: &Value, path: String, found: &mut Map<String, Value>) -> Result<()> {
    let text = match value {
        Value::Object(map) if !map.is_empty() => {
            return map.iter().try_for_each(|(key, value)| collect(value, format!("{path}.{key}"), found));
        }
        Value::Array(items) if !items.is_empty() => {
            let mut items = items.iter().enumerate();
            return items.try_for_each(|(at, value)| collect(value, format!("{path}[{at}]"), found));
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if found.contains_key(&path) {
        return Err(Error::input(format!("{path}: two values have this path")).hint("leave out --flat").into());
    }
    found.insert(path, Value::String(text));
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::json;

    fn flattened(document: &Value) -> Result<Value, String> {
        let document = Document::parse("stdin", document.to_string().as_bytes()).unwrap();
        let flat = flat(&document).map_err(|error| error.to_string())?;
        Ok(serde_json::from_str(&flat.to_string()).unwrap())
    }

    #[test]
    fn every_value_is_a_string_under_its_path() {
        let document = json!({
            "check": {"clusters": ["shop", "stock"], "helm": false, "warnings": []},
            "ingress": {"rules": [{"port": 8080, "of": [["a"], [{"b": null}]]}]},
            "others": {},
            "role": {"arn": "arn:aws:iam::1:role/r", "share": 0.50},
            "é.x": "\"<\u{0}",
        });
        let expected = json!({
            "check.clusters[0]": "shop",
            "check.clusters[1]": "stock",
            "check.helm": "false",
            "check.warnings": "[]",
            "ingress.rules[0].of[0][0]": "a",
            "ingress.rules[0].of[1][0].b": "null",
            "ingress.rules[0].port": "8080",
            "others": "{}",
            "role.arn": "arn:aws:iam::1:role/r",
            "role.share": "0.5",
            "v": "1",
            "é.x": "\"<\u{0}",
        });
        assert_eq!(flattened(&document), Ok(expected));
    }

    #[test]
    fn no_value_hides_another() {
        let refused = Err("a.b: two values have this path".to_owned());
        assert_eq!(flattened(&json!({"a": {"b": 1}, "a.b": 2})), refused);
        assert_eq!(flattened(&json!({"a": [1], "a[0]": {}})), Err("a[0]: two values have this path".to_owned()));
    }
}
