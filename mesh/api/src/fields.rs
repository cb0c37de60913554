//! Lists the fields of the API, so that what a user misspelled can be told from what is part of it.

/// Each field without fields of its own: its kind and its path in the spec.
const FIELDS: &str = include_str!("fields.txt");

/// The fields without fields of their own, by kind and path, such as `listeners[].portMapping.port`.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    FIELDS.lines().filter_map(|line| line.split_once(' '))
}

/// Whether the specs of a kind have a field of that path, such as `spec.listeners[0].tls`.
pub fn has(kind: &str, path: &str) -> bool {
    let path = without_indices(path.strip_prefix("spec.").unwrap_or(path));
    let is_or_contains = |field: &str| {
        field.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    all().any(|(of, field)| of == kind && is_or_contains(field))
}

/// The same path for all elements of its lists.
fn without_indices(path: &str) -> String {
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |path, part| path + "[" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_known_by_its_kind_and_path() {
        for (kind, path, expected) in [
            ("VirtualNode", "spec.listeners[0].tls", true),
            ("VirtualNode", "spec.listeners[12].tls.mode", true),
            ("VirtualNode", "spec.listeners", true),
            ("VirtualNode", "spec.listeners[0].tls.mod", false),
            ("VirtualNode", "spec.listeners[0].tls.mode.strict", false),
            ("VirtualNode", "spec.listener", false),
            ("VirtualRouter", "spec.listeners[0].tls", false),
            ("VirtualRouter", "spec.routes[1].grpcRoute", true),
            ("VirtualRouter", "spec.routes[1].httpRoute.action.weightedTargets[3].port", true),
            ("Mesh", "spec.egressFilter.type", true),
            ("Mesh", "spec.type", false),
        ] {
            assert_eq!(has(kind, path), expected, "{kind} {path}");
        }
        assert_eq!(all().count(), 328);
    }
}
