//! The table of all checks, by their groups. Pure.

use crate::finding::{Check, Finding};
use crate::{controller, identity, network, objects, preflight, sidecars, state};
use std::collections::BTreeSet;

/// Checks of one subject: the two digits of their codes, and the checks.
pub type Group = (&'static str, &'static [Check]);

/// All checks. Group 01 is what must be so before anything is made, the others are about a mesh that stands.
pub const GROUPS: [Group; 7] = [
    ("01", preflight::CHECKS),
    ("02", identity::CHECKS),
    ("03", network::CHECKS),
    ("04", objects::CHECKS),
    ("05", state::CHECKS),
    ("06", sidecars::CHECKS),
    ("07", controller::CHECKS),
];

/// All checks, in order of their codes.
pub fn all() -> impl Iterator<Item = &'static Check> {
    GROUPS.iter().flat_map(|(_, checks)| *checks)
}

/// The checks that are asked for: those whose code begins with one of these; all if there are none.
pub fn chosen(only: &[String]) -> impl Iterator<Item = &'static Check> {
    all().filter(|check| only.is_empty() || only.iter().any(|prefix| check.code.starts_with(prefix)))
}

/// Whether a group has a check that is asked for.
pub fn wanted(group: &str, only: &[String]) -> bool {
    chosen(only).any(|check| &check.code[2..4] == group)
}

/// The findings, what was looked at, and what could not be.
#[derive(Debug, Default)]
pub struct Report {
    /// All that is wrong.
    pub findings: Vec<Finding>,
    /// Codes of the checks that had something to look at.
    pub checked: BTreeSet<&'static str>,
    /// What could not be looked at, a line each.
    pub unseen: Vec<String>,
    /// Whether a person has been shown all findings, a line each.
    pub shown: bool,
}

impl Report {
    /// The codes that found nothing.
    pub fn passed(&self) -> BTreeSet<String> {
        let clean = self.checked.iter().filter(|code| self.findings.iter().all(|finding| finding.code != **code));
        clean.map(|code| (*code).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn codes_are_of_their_group_and_in_order() {
        for (group, checks) in GROUPS {
            for (index, check) in checks.iter().enumerate() {
                assert_eq!(check.code, format!("XM{group}{:02}", index + 1), "{}", check.about);
            }
        }
        assert!(all().count() >= 60);
    }

    #[test]
    fn a_prefix_chooses() {
        let count = |only: &[&str]| chosen(&only.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).count();
        assert_eq!(count(&[]), all().count());
        assert_eq!(
            (count(&["XM01"]), count(&["XM0101"]), count(&["XM0101", "XM0102"])),
            (preflight::CHECKS.len(), 1, 2)
        );
        assert_eq!(count(&["XM09"]), 0);
        assert!(wanted("04", &["XM0401".to_owned()]) && !wanted("05", &["XM0401".to_owned()]));
    }

    #[test]
    fn every_code_has_its_place_in_the_manual() {
        let manual = include_str!("../../../docs/troubleshooting.md");
        for check in all() {
            let warns = if check.severity == Severity::Warning { " (warning)" } else { "" };
            let heading = format!("\n### {}{warns}\n\n", check.code);
            assert!(manual.contains(&heading), "docs/troubleshooting.md has no {heading:?}");
        }
    }
}
