//! Finds the fields that a user wrote and the controller would ignore.

use serde_json::Value;

/// The fields of `written` that are missing in `understood`, its round trip through the types, sorted, each by its path, such
/// as `spec.listeners[0].tls`. A field that is null was not written.
pub fn fields(root: &str, written: &Value, understood: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    collect(root.to_owned(), written, understood, &mut paths);
    paths.sort();
    paths
}

fn collect(path: String, written: &Value, understood: &Value, paths: &mut Vec<String>) {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            for (name, value) in written.iter().filter(|(_, value)| !value.is_null()) {
                let path = format!("{path}.{name}");
                match understood.get(name) {
                    Some(understood) => collect(path, value, understood, paths),
                    None => paths.push(path),
                }
            }
        }
        (Value::Array(written), Value::Array(understood)) => {
            for (index, (value, understood)) in written.iter().zip(understood).enumerate() {
                collect(format!("{path}[{index}]"), value, understood, paths);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_types_do_not_hold_is_named() {
        for (written, understood, expected) in [
            (json!({ "a": 1, "b": { "c": [] } }), json!({ "a": 1, "b": { "c": [] } }), vec![]),
            (json!({ "a": null }), json!({}), vec![]),
            (json!({ "a": {}, "b": 1 }), json!({ "b": 1 }), vec!["spec.a"]),
            (
                json!({ "l": [{ "p": 1 }, { "p": 1, "tls": { "mode": "STRICT" } }], "x": 0 }),
                json!({ "l": [{ "p": 1 }, { "p": 1 }] }),
                vec!["spec.l[1].tls", "spec.x"],
            ),
        ] {
            assert_eq!(fields("spec", &written, &understood), expected);
        }
    }
}
