//! Pieces of the CRDs' schemas that the derive can't see.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Keeps the fields this schema doesn't know: the API server would drop them silently, so admission could neither refuse
/// them nor warn of them. Pruning starts again at every nested object, so this has to be set on each of them.
pub(crate) fn preserve_unknown_fields(schema: &mut Schema) {
    if schema.get("properties").is_some() {
        schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
    }
}

/// `metav1.Time`
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "nullable": true })
}

/// `metav1.LabelSelector`
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "properties": {
            "matchLabels": {
                "description": "Labels that an object must have, all of them, with these values.",
                "type": "object",
                "additionalProperties": { "type": "string" }
            },
            "matchExpressions": {
                "description": "Requirements that an object's labels must meet, all of them.",
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": { "description": "The label's name.", "type": "string" },
                        "operator": {
                            "description": "`In` or `NotIn` the values, `Exists` or `DoesNotExist`.",
                            "type": "string"
                        },
                        "values": {
                            "description": "For `In` and `NotIn`, and only for these: at least one.",
                            "type": "array",
                            "items": { "type": "string" }
                        }
                    }
                }
            }
        }
    })
}
