//! Lists the fields of App Mesh's API, which the types are compared with.

/// Each field without fields of its own: its kind and its path in the spec.
const FIELDS: &str = include_str!("fields.txt");

/// The fields without fields of their own, by kind and path, such as `listeners[].portMapping.port`.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    FIELDS.lines().filter_map(|line| line.split_once(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_has_its_kind() {
        assert!(all().any(|field| field == ("VirtualNode", "listeners[].portMapping.port")));
        assert_eq!(all().count(), 328);
    }
}
