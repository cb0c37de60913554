//! Sums up an object's problems in the condition that says whether it is in force.

use std::fmt;

use crate::model::{Problem, Reason};

/// Reason of the condition of an object without problems.
const ACTIVE: &str = "Active";

/// What the condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Whether the object is in force.
    pub active: bool,
    /// One word for machines; `None` where there is nothing to say.
    pub reason: Option<Reason>,
    /// Words for people.
    pub message: String,
}

impl Summary {
    /// The first reason decides, and its problems are the message. A problem that only waits for something else comes
    /// after all others.
    pub fn of(problems: &[Problem]) -> Self {
        let reason = problems.iter().map(|problem| problem.reason).min_by_key(|reason| (reason.waits(), *reason));
        let named = problems.iter().filter(|problem| Some(problem.reason) == reason);
        let message = named.map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Self { active: reason.is_none_or(Reason::waits), reason, message }
    }

    /// The condition's status.
    pub fn status(&self) -> &'static str {
        if self.active { "True" } else { "False" }
    }

    /// The condition's reason.
    pub fn reason(&self) -> String {
        self.reason.map_or_else(|| ACTIVE.to_owned(), |reason| reason.to_string())
    }
}

/// The pods that a VirtualNode selects. It prints as `2/3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// Those that callers are sent to.
    pub ready: usize,
    /// All of them.
    pub total: usize,
}

impl PodCounts {
    /// What a VirtualNode waits for. The numbers are not in the words: they are in the status beside them, and change more
    /// often than anything is to be said about it.
    pub fn problem(self) -> Option<Problem> {
        let (reason, path, message) = match self {
            Self { total: 0, .. } => (Reason::NoPods, "spec.podSelector", "selects no pods"),
            Self { ready: 0, .. } => (Reason::PodsNotReady, "", "none of the pods is ready"),
            _ => return None,
        };
        Some(Problem { reason, path: path.to_owned(), message: message.to_owned() })
    }
}

impl fmt::Display for PodCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ready, self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(reason: Reason, path: &str) -> Problem {
        Problem { reason, path: path.to_owned(), message: reason.to_string().to_lowercase() }
    }

    #[test]
    fn the_first_reason_decides() {
        use Reason::{
            BackendNotFound, BackendNotPublished, BackendNotUnderstood, BackendUnavailable, CloudMapNamespaceNotFound,
            CloudMapUnavailable, GatewayNotFound, HostConflict, Invalid, ListenerNotFound, MeshNotFound, MeshUnknown,
            NoPods, NoWeight, NotPublished, PathUndecided, PodsNotReady, ProviderNotActive, ProviderNotFound,
            TargetNotActive, TargetNotFound, Unsupported,
        };
        type Case<'a> = (&'a [(Reason, &'a str)], &'a str, &'a str, &'a str);
        let cases: [Case<'_>; 28] = [
            (&[], "True", "Active", ""),
            (&[(Invalid, "spec.a")], "False", "Invalid", "spec.a: invalid"),
            (&[(Unsupported, "a"), (Invalid, "b"), (Invalid, "c")], "False", "Invalid", "b: invalid; c: invalid"),
            (&[(Unsupported, "a"), (Unsupported, "b")], "False", "Unsupported", "a: unsupported; b: unsupported"),
            (&[(MeshUnknown, "spec.meshRef")], "False", "MeshUnknown", "spec.meshRef: meshunknown"),
            (&[(MeshNotFound, "")], "False", "MeshNotFound", "meshnotfound"),
            (&[(BackendNotFound, "")], "False", "BackendNotFound", "backendnotfound"),
            (&[(GatewayNotFound, "")], "False", "GatewayNotFound", "gatewaynotfound"),
            (&[(ListenerNotFound, "")], "False", "ListenerNotFound", "listenernotfound"),
            (&[(TargetNotActive, "")], "False", "TargetNotActive", "targetnotactive"),
            (&[(PathUndecided, "")], "False", "PathUndecided", "pathundecided"),
            (&[(TargetNotFound, "")], "False", "TargetNotFound", "targetnotfound"),
            (&[(ProviderNotFound, "")], "False", "ProviderNotFound", "providernotfound"),
            (&[(ProviderNotActive, "")], "False", "ProviderNotActive", "providernotactive"),
            (&[(HostConflict, "")], "False", "HostConflict", "hostconflict"),
            (&[(NoWeight, "")], "False", "NoWeight", "noweight"),
            (&[(CloudMapNamespaceNotFound, "")], "False", "CloudMapNamespaceNotFound", "cloudmapnamespacenotfound"),
            (&[(CloudMapUnavailable, "")], "False", "CloudMapUnavailable", "cloudmapunavailable"),
            (&[(NotPublished, "")], "True", "NotPublished", "notpublished"),
            (&[(BackendNotPublished, "")], "True", "BackendNotPublished", "backendnotpublished"),
            (&[(BackendUnavailable, "")], "True", "BackendUnavailable", "backendunavailable"),
            (&[(BackendNotUnderstood, "")], "True", "BackendNotUnderstood", "backendnotunderstood"),
            (&[(NoPods, "")], "True", "NoPods", "nopods"),
            (&[(PodsNotReady, "")], "True", "PodsNotReady", "podsnotready"),
            (&[(NoPods, ""), (BackendNotPublished, "")], "True", "BackendNotPublished", "backendnotpublished"),
            (&[(NoPods, ""), (BackendNotFound, "a")], "False", "BackendNotFound", "a: backendnotfound"),
            (
                &[(BackendNotUnderstood, ""), (CloudMapUnavailable, "")],
                "False",
                "CloudMapUnavailable",
                "cloudmapunavailable",
            ),
            (&[(HostConflict, ""), (NoWeight, ""), (PodsNotReady, "")], "False", "HostConflict", "hostconflict"),
        ];
        for (problems, status, reason, message) in cases {
            let problems: Vec<_> = problems.iter().map(|(reason, path)| problem(*reason, path)).collect();
            let summary = Summary::of(&problems);
            let found = (summary.status(), summary.reason(), summary.message.as_str());
            assert_eq!(found, (status, reason.to_owned(), message), "{problems:?}");
            let heading = format!("\n### {reason}\n");
            let manual = include_str!("../../../../docs/troubleshooting.md");
            assert!(reason == "Active" || manual.contains(&heading), "docs/troubleshooting.md has no {heading:?}");
        }
    }

    #[test]
    fn a_virtual_node_waits_for_its_pods() {
        for (ready, total, text, expected) in [
            (0, 0, "0/0", Some("spec.podSelector: selects no pods")),
            (0, 2, "0/2", Some("none of the pods is ready")),
            (1, 2, "1/2", None),
            (2, 2, "2/2", None),
        ] {
            let counts = PodCounts { ready, total };
            assert_eq!(counts.to_string(), text);
            assert_eq!(counts.problem().map(|problem| problem.to_string()).as_deref(), expected, "{text}");
        }
    }
}
