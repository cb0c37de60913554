//! What admission fills in: `spec.awsName`, `spec.meshRef` and `spec.virtualGatewayRef`, and a name that is to be
//! generated.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

/// Fields that are admission's to fill in, or the name.
pub const FILLED_IN: [&str; 3] = ["awsName", "meshRef", "virtualGatewayRef"];

/// The characters of a generated name's end, as the API server has them: no vowels, for they would make words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How many there are.
const SUFFIX: usize = 5;
/// Characters of a generated name before that.
const LONGEST_PREFIX: usize = 58;

/// Names an object by its `generateName`. The API server would do so only after admission, and `awsName` is made from the
/// name. It refuses a name that another object has, and the caller tries again, as when it had chosen that name itself.
///
/// # Errors
/// The object has neither name nor `generateName`.
pub fn generated_name(object: &mut Value) -> anyhow::Result<String> {
    let prefix = object["metadata"]["generateName"].as_str().filter(|prefix| !prefix.is_empty());
    let prefix = prefix.context("metadata.name: is missing")?;
    let mut name: String = prefix.chars().take(LONGEST_PREFIX).collect();
    name.extend((0..SUFFIX).filter_map(|_| fastrand::choice(ALPHABET)).map(|byte| char::from(*byte)));
    object["metadata"]["name"] = name.clone().into();
    Ok(name)
}

/// Fills in a new object's spec. `references` are those that users may not give, by their fields.
pub fn created(
    kind: &str,
    spec: &mut Map<String, Value>,
    aws_name: Option<String>,
    references: &[(&str, Value)],
) -> anyhow::Result<()> {
    for (field, reference) in references {
        if is_given(spec, field) {
            bail!("{kind} create may not specify read-only field: spec.{field}");
        }
        spec.insert((*field).to_owned(), reference.clone());
    }
    if let Some(aws_name) = aws_name.filter(|_| !is_given(spec, "awsName")) {
        spec.insert("awsName".to_owned(), aws_name.into());
    }
    Ok(())
}

/// Fills in what an update leaves out, from the object before: a replaced object need not repeat what the user never
/// wrote.
pub fn updated(spec: &mut Map<String, Value>, old: &Value) {
    for field in FILLED_IN {
        if !is_given(spec, field)
            && let Some(value) = old.get("spec").and_then(|spec| spec.get(field))
        {
            spec.insert(field.to_owned(), value.clone());
        }
    }
}

fn is_given(spec: &Map<String, Value>, field: &str) -> bool {
    spec.get(field).is_some_and(|value| !value.is_null() && value != "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_new_object_gets_name_and_mesh() {
        let meshed = json!({ "name": "m", "uid": "1" });
        let mesh = || vec![("meshRef", meshed.clone())];
        let gateway = || [mesh(), vec![("virtualGatewayRef", json!({ "name": "g" }))]].concat();
        for (spec, references, expected) in [
            (json!({}), vec![], Ok(json!({ "awsName": "default" }))),
            (json!({ "awsName": null }), vec![], Ok(json!({ "awsName": "default" }))),
            (json!({ "awsName": "" }), vec![], Ok(json!({ "awsName": "default" }))),
            (json!({ "awsName": "own" }), mesh(), Ok(json!({ "awsName": "own", "meshRef": meshed }))),
            (
                json!({ "meshRef": meshed }),
                mesh(),
                Err("VirtualNode create may not specify read-only field: spec.meshRef".to_owned()),
            ),
            (
                json!({}),
                gateway(),
                Ok(json!({ "awsName": "default", "meshRef": meshed, "virtualGatewayRef": { "name": "g" } })),
            ),
            (
                json!({ "virtualGatewayRef": {} }),
                gateway(),
                Err("VirtualNode create may not specify read-only field: spec.virtualGatewayRef".to_owned()),
            ),
        ] {
            let mut spec = object(spec);
            let outcome = created("VirtualNode", &mut spec, Some("default".to_owned()), &references);
            assert_eq!(outcome.map(|()| Value::Object(spec)).map_err(|error| error.to_string()), expected);
        }
    }

    #[test]
    fn a_name_is_generated() {
        let long = "x".repeat(100);
        for (given, prefix) in [("canary-", "canary-"), (long.as_str(), &long[..58])] {
            let mut object = json!({ "metadata": { "generateName": given } });
            let name = generated_name(&mut object).unwrap();
            assert_eq!(object["metadata"]["name"], name.as_str());
            let end = name.strip_prefix(prefix).unwrap();
            assert!(end.len() == 5 && end.bytes().all(|byte| ALPHABET.contains(&byte)), "{name}");
        }
        let error = generated_name(&mut json!({ "metadata": {} })).unwrap_err();
        assert_eq!(error.to_string(), "metadata.name: is missing");
    }

    #[test]
    fn an_update_keeps_what_it_leaves_out() {
        let old = json!({ "spec": { "awsName": "a", "meshRef": { "name": "m", "uid": "1" }, "listeners": [] } });
        for (spec, expected) in [
            (json!({}), json!({ "awsName": "a", "meshRef": { "name": "m", "uid": "1" } })),
            (json!({ "awsName": "" }), json!({ "awsName": "a", "meshRef": { "name": "m", "uid": "1" } })),
            (json!({ "awsName": "b" }), json!({ "awsName": "b", "meshRef": { "name": "m", "uid": "1" } })),
        ] {
            let mut spec = object(spec);
            updated(&mut spec, &old);
            assert_eq!(Value::Object(spec), expected);
        }
    }
}
