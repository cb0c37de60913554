//! Tells which versions of Helm are new enough.

/// The oldest Helm that installs the chart, by major and minor: `helm upgrade --labels` of what exists already works from
/// here on.
pub const OLDEST: (u32, u32) = (3, 14);

/// Major and minor of `v3.14.0`, as `helm version` says it.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().trim_start_matches('v').split(['.', '+', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (text, expected) in
            [("v3.14.0", Some((3, 14))), ("v4.3\n", Some((4, 3))), ("v3.9.4+gdbc6d8e", Some((3, 9))), ("", None)]
        {
            assert_eq!(version(text), expected, "{text}");
        }
        assert!((3, 9) < OLDEST && (3, 20) > OLDEST && (4, 0) > OLDEST);
    }
}
