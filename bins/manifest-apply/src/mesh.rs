//! Finds what keeps a Mesh: it goes only after all that belongs to it.

use anyhow::Result;
use common::app_mesh::{GROUP, MEMBERS, VERSION};
use common::kube::content;
use common::kube::object::{ObjectRef, Objects};
use serde_json::Value;

/// Some of the objects that belong to a mesh, but for those that `is_known` knows.
///
/// # Errors
/// The API server's.
pub async fn members(objects: &Objects, mesh: &str, is_known: impl Fn(&ObjectRef) -> bool) -> Result<Vec<String>> {
    let belong = |object: &Value| object.pointer("/spec/meshRef/name").is_some_and(|name| name == mesh);
    let mut found = Vec::new();
    for (kind, plural) in MEMBERS {
        let kind = (GROUP, VERSION, kind, plural);
        found.extend(content::of_kind(&objects.client(), kind, belong, &is_known).await?);
    }
    found.truncate(content::NAMED);
    Ok(found)
}
