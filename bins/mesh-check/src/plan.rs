//! Says what follows from the findings. Pure.

use crate::checks::{GROUPS, Report, wanted};
use crate::finding::{Finding, Severity};
use crate::section::Identity;
use anyhow::Result;
use common::Error;
use common::cluster::Cluster;
use common::namespace::NamespaceType;
use common::plan::Effect;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;

/// What is checked.
pub struct Want {
    /// The cluster.
    pub cluster: String,
    /// Manifests to check in place of clusters.
    pub files: Vec<String>,
    /// The beginnings of the codes of those checks that are asked for; all, if there are none.
    pub only: Vec<String>,
    /// What EKS says of it, if it can be used.
    pub facts: Option<Cluster>,
    /// Those to join it with.
    pub clusters: Vec<String>,
    /// Whether Helm is needed.
    pub helm: bool,
    /// Where the names they share are found.
    pub namespace_type: Option<NamespaceType>,
    /// How pods get their role.
    pub identity: Option<Identity>,
    /// The images' programs.
    pub programs: Vec<String>,
}

impl Want {
    /// Whether a check of a mesh that stands is asked for.
    pub fn of_a_mesh(&self) -> bool {
        GROUPS.iter().any(|(group, _)| *group != "01" && wanted(group, &self.only))
    }
}

/// A check changes nothing.
pub struct Change(pub Infallible);

impl fmt::Display for Change {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl common::plan::Change for Change {
    fn effect(&self) -> Effect {
        match self.0 {}
    }
}

impl common::plan::Want for Want {
    type Have = Report;
    type Change = Change;

    const LOOKS: bool = true;

    fn plan(&self, have: &Report) -> Result<Vec<Change>> {
        let wrong: Vec<&Finding> = have.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
        let Some((last, others)) = wrong.split_last() else { return Ok(Vec::new()) };
        let fixes: BTreeSet<&str> = wrong.iter().map(|finding| finding.fix.as_str()).collect();
        let hint = if fixes.len() == 1 { last.fix.as_str() } else { "each of them says what to do" };
        let checks = have.checked.len();
        let failed = wrong.iter().map(|finding| &finding.code).collect::<BTreeSet<_>>().len();
        let summary = Error::failed(format!("{failed} of {checks} checks failed")).hint(hint);
        if have.shown {
            return Err(summary.into());
        }
        let causes =
            others.iter().rfold(anyhow::anyhow!("{last}"), |error, finding| error.context(finding.to_string()));
        Err(causes.context(summary))
    }

    fn plan_delete(&self, _have: &Report) -> Result<Vec<Change>> {
        Ok(Vec::new())
    }

    fn remarks(&self, have: &Report) -> Vec<String> {
        vec![format!("{} of {} checks passed", have.passed().len(), have.checked.len())]
    }
}
