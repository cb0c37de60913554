//! Follows references from one object to another.

use mesh_api::Reference;

use super::problems::Problems;
use crate::model::Reason;

/// The namespace and name of the object meant, seen from an object of `namespace`.
pub fn seen_from<'a>(namespace: &'a str, reference: &'a Reference) -> (&'a str, &'a str) {
    (reference.namespace_or(namespace), &reference.name)
}

/// Notes that the object meant does not exist.
pub fn missing(reason: Reason, kind: &str, (namespace, name): (&str, &str), path: String, problems: &mut Problems) {
    problems.add(reason, path, format!("{kind} {namespace}/{name} does not exist"));
}
