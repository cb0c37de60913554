//! Says what follows from the findings. Pure.

use crate::Identity;
use crate::finding::{Finding, Severity};
use crate::preflight;
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
    type Have = Vec<Finding>;
    type Change = Change;

    fn plan(&self, have: &Vec<Finding>) -> Result<Vec<Change>> {
        let wrong: Vec<&Finding> = have.iter().filter(|finding| finding.severity == Severity::Error).collect();
        let Some((last, others)) = wrong.split_last() else { return Ok(Vec::new()) };
        let fixes: BTreeSet<&str> = wrong.iter().map(|finding| finding.fix.as_str()).collect();
        let hint = if fixes.len() == 1 { last.fix.as_str() } else { "each of them says what to do" };
        let checks = preflight::CHECKS.len();
        let failed = checks - preflight::passed(have).len();
        let summary = Error::failed(format!("{failed} of {checks} checks failed")).hint(hint);
        let causes =
            others.iter().rfold(anyhow::anyhow!("{last}"), |error, finding| error.context(finding.to_string()));
        Err(causes.context(summary))
    }

    fn plan_delete(&self, _have: &Vec<Finding>) -> Result<Vec<Change>> {
        Ok(Vec::new())
    }

    fn remarks(&self, have: &Vec<Finding>) -> Vec<String> {
        vec![format!("{} of {} checks passed", preflight::passed(have).len(), preflight::CHECKS.len())]
    }
}
