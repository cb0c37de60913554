//! Marks in AWS what is ours.

/// The tag that says a thing is ours, and its value.
pub const MANAGED_BY: (&str, &str) = ("managed-by", "crossmesh");

/// Whose a thing with this value of that tag is, in words; `None` if it is ours.
pub fn foreign(manager: Option<&str>) -> Option<String> {
    match manager {
        Some(ours) if ours == MANAGED_BY.1 => None,
        Some(manager) => Some(format!("managed by {manager}")),
        None => Some("not made by crossmesh".to_owned()),
    }
}
