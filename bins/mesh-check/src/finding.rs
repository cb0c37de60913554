//! Describes the checks, by their stable codes, and what one of them finds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It will not work.
    Error,
    /// It may not work, or could not be looked at.
    Warning,
}

/// Something that can be wrong. A code keeps its meaning for ever, and is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// `XM` and four digits, the first two of which say the group.
    pub code: &'static str,
    /// What is checked.
    pub about: &'static str,
    /// How bad it is.
    pub severity: Severity,
}

/// What a check found wrong about one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The check's code, such as `XM0102`.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, such as `cluster shop`.
    pub object: String,
    /// What is wrong with it.
    pub found: String,
    /// What to do about it.
    pub fix: String,
}

impl Check {
    /// A finding of this check.
    pub fn found(self, object: impl fmt::Display, found: impl fmt::Display, fix: impl fmt::Display) -> Finding {
        let (object, found, fix) = (object.to_string(), found.to_string(), fix.to_string());
        Finding { code: self.code.to_owned(), severity: self.severity, object, found, fix }
    }
}

/// `XM0102 cluster shop: there is no such cluster: aws eks list-clusters`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, object, found, fix, .. } = self;
        write!(f, "{code} {object}: {found}: {fix}")
    }
}

/// The checks of a group, in order of their codes: `NAME Severity "CODE" "what is so when nothing is wrong";`
macro_rules! checks {
    ($($name:ident $severity:ident $code:literal $about:literal;)+) => {
        $(pub const $name: $crate::finding::Check = $crate::finding::Check {
            code: $code,
            about: $about,
            severity: $crate::finding::Severity::$severity,
        };)+
        /// All of them.
        pub const CHECKS: &[$crate::finding::Check] = &[$($name),+];
    };
}
pub(crate) use checks;
