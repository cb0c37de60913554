//! The chart ships the CRDs that the types generate, and these explain themselves.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};

#[test]
fn the_charts_crds_are_generated() {
    let committed = include_str!("../../../charts/appmesh-controller/crds/crds.yaml");
    assert!(
        committed == serde_saphyr::to_string_multiple(&mesh_api::crds::all()).unwrap(),
        "run: cargo run -p mesh-api --example crds > charts/appmesh-controller/crds/crds.yaml"
    );
}

/// `kubectl explain` has something to say of every field.
#[test]
fn every_field_is_explained() {
    fn unexplained(schema: &JSONSchemaProps, path: &str, found: &mut Vec<String>) {
        for (name, field) in schema.properties.iter().flatten() {
            let path = format!("{path}.{name}");
            if field.description.as_deref().unwrap_or_default().is_empty() {
                found.push(path.clone());
            }
            unexplained(field, &path, found);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            unexplained(items, &format!("{path}[]"), found);
        }
    }
    let mut found = Vec::new();
    for crd in mesh_api::crds::all() {
        for version in &crd.spec.versions {
            let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()).unwrap();
            unexplained(&schema.properties.as_ref().unwrap()["spec"], &crd.spec.names.kind, &mut found);
        }
    }
    assert_eq!(found, Vec::<String>::new());
}
