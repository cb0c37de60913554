//! What admission fills in: `spec.awsName` and `spec.meshRef`.

use anyhow::bail;
use mesh_api::MeshReference;
use serde_json::{Map, Value, json};

/// Fills in a new object's spec. `mesh` is the one that selects its namespace; none for a Mesh itself.
pub fn created(
    kind: &str,
    spec: &mut Map<String, Value>,
    aws_name: Option<String>,
    mesh: Option<MeshReference>,
) -> anyhow::Result<()> {
    if let Some(mesh) = mesh {
        if is_given(spec, "meshRef") {
            bail!("{kind} create may not specify read-only field: spec.meshRef");
        }
        spec.insert("meshRef".to_owned(), json!(mesh));
    }
    if let Some(aws_name) = aws_name.filter(|_| !is_given(spec, "awsName")) {
        spec.insert("awsName".to_owned(), aws_name.into());
    }
    Ok(())
}

/// Fills in what an update leaves out, from the object before: a replaced object need not repeat what the user never
/// wrote.
pub fn updated(spec: &mut Map<String, Value>, old: &Value) {
    for field in ["awsName", "meshRef"] {
        if !is_given(spec, field)
            && let Some(value) = old.get("spec").and_then(|spec| spec.get(field))
        {
            spec.insert(field.to_owned(), value.clone());
        }
    }
}

fn is_given(spec: &Map<String, Value>, field: &str) -> bool {
    spec.get(field).is_some_and(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_new_object_gets_name_and_mesh() {
        let mesh = || Some(MeshReference { name: "m".to_owned(), uid: "1".to_owned() });
        let meshed = json!({ "name": "m", "uid": "1" });
        for (spec, mesh, expected) in [
            (json!({}), None, Ok(json!({ "awsName": "default" }))),
            (json!({ "awsName": null }), None, Ok(json!({ "awsName": "default" }))),
            (json!({ "awsName": "own" }), mesh(), Ok(json!({ "awsName": "own", "meshRef": meshed }))),
            (
                json!({ "meshRef": meshed }),
                mesh(),
                Err("VirtualNode create may not specify read-only field: spec.meshRef".to_owned()),
            ),
        ] {
            let mut spec = object(spec);
            let outcome = created("VirtualNode", &mut spec, Some("default".to_owned()), mesh);
            assert_eq!(outcome.map(|()| Value::Object(spec)).map_err(|error| error.to_string()), expected);
        }
    }

    #[test]
    fn an_update_keeps_what_it_leaves_out() {
        let old = json!({ "spec": { "awsName": "a", "meshRef": { "name": "m", "uid": "1" }, "listeners": [] } });
        for (spec, expected) in [
            (json!({}), json!({ "awsName": "a", "meshRef": { "name": "m", "uid": "1" } })),
            (json!({ "awsName": "b" }), json!({ "awsName": "b", "meshRef": { "name": "m", "uid": "1" } })),
        ] {
            let mut spec = object(spec);
            updated(&mut spec, &old);
            assert_eq!(Value::Object(spec), expected);
        }
    }
}
