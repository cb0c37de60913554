//! EKS Pod Identity: what to change about associations, and whether anything gives pods their credentials. Pure.

use crate::plan::{Change, Role, Want, record_of};
use crate::service_account::ServiceAccount;
use anyhow::Result;
use common::Error;
use common::arn::Arn;
use common::tags::{MANAGED_BY, foreign};
use std::collections::{BTreeMap, BTreeSet};

/// An association of a service account, as EKS has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Association {
    /// `a-…`
    pub id: String,
    /// `arn:PARTITION:eks:REGION:ACCOUNT:podidentityassociation/CLUSTER/ID`
    pub arn: String,
    /// ARN of the role.
    pub role: String,
    /// Whether sessions carry the tags that the trust policy asks for.
    pub session_tags: bool,
    /// All its tags.
    pub tags: BTreeMap<String, String>,
}

/// The associations by service account.
pub type Associations = BTreeMap<ServiceAccount, Association>;

/// The add-on whose agent hands out the credentials.
pub const AGENT: &str = "eks-pod-identity-agent";

/// The agent on the nodes.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Agent {
    /// It is there, or nobody asked.
    #[default]
    There,
    /// The cluster has no such add-on, and is not in Auto Mode, which brings the agent along.
    Absent,
    /// The add-on is in this state.
    Troubled(String),
}

impl Association {
    /// Whose it is, in words; `None` if it is ours.
    pub fn foreign(&self) -> Option<String> {
        foreign(self.tags.get(MANAGED_BY.0).map(String::as_str))
    }

    fn fits(&self, role: &str) -> bool {
        self.role == role && self.session_tags
    }
}

/// What gives the service accounts the role, and takes it from those that are not wished for any more.
///
/// # Errors
/// [`Kind::Conflict`](common::Kind::Conflict) when others gave one of them another role.
pub fn plan(want: &Want, role: &str, have: &Associations) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for account in want.associated() {
        let Some(found) = have.get(account) else {
            let record = record_of(account).map(|(key, _)| key);
            changes.push(Change::Associate { account: account.clone(), role: role.to_owned(), record });
            continue;
        };
        let theirs = found.foreign().filter(|_| !want.adopt);
        if let Some(whose) = &theirs
            && !found.fits(role)
        {
            let message = format!("service account {account} has an association with {}: {whose}", found.role);
            return Err(Error::conflict(message).hint("take it over with --adopt, or delete it").into());
        }
        let mut tags = tags(want);
        tags.retain(|key, value| found.tags.get(key) != Some(value));
        if theirs.is_none() && !tags.is_empty() {
            changes.push(Change::TagAssociation { account: account.clone(), arn: found.arn.clone(), tags });
        }
        if !found.fits(role) {
            let (account, id) = (account.clone(), found.id.clone());
            changes.push(Change::Reassociate { account, id, role: role.to_owned() });
        }
    }
    let unwanted = have.iter().filter(|(account, _)| !want.associated().contains(account));
    changes.extend(ours(role, unwanted));
    Ok(changes)
}

/// Takes the role from the service accounts that got it from us.
pub fn plan_delete(role: &str, have: &Associations) -> Vec<Change> {
    ours(role, have.iter()).collect()
}

impl Agent {
    /// What is wrong with it, and the command for it; nothing if it is there.
    pub fn problem(&self, cluster: &str) -> Option<(String, String)> {
        let call = |call: &str| format!("aws eks {call} --cluster-name {cluster} --addon-name {AGENT}");
        match self {
            Self::There => None,
            Self::Absent => Some((
                format!("cluster {cluster} has no add-on {AGENT}: pods get no credentials until it has one"),
                call("create-addon"),
            )),
            Self::Troubled(state) => Some((
                format!("the add-on {AGENT} of cluster {cluster} is {state}"),
                call("describe-addon") + " --query addon.health",
            )),
        }
    }
}

/// The agent, and associations of others that are used.
pub fn remarks(want: &Want, agent: &Agent, have: &Associations) -> Vec<String> {
    let about = agent.problem(want.cluster_name()).map(|(problem, fix)| format!("{problem}: {fix}"));
    let used = want.associated().iter().filter(|_| !want.adopt).filter_map(|account| {
        let whose = have.get(account)?.foreign()?;
        Some(format!("the association of {account} is used, {whose}: --adopt takes it over"))
    });
    about.into_iter().chain(used).collect()
}

/// The service accounts to look up: those wished for, and those that the role remembers.
pub fn concerned(want: &Want, role: Option<&Role>) -> BTreeSet<ServiceAccount> {
    let remembered = role.map(Role::associated).unwrap_or_default();
    want.associated().iter().cloned().chain(remembered).collect()
}

/// The tags an association must have.
pub fn tags(want: &Want) -> BTreeMap<String, String> {
    let mut tags = want.tags.clone();
    tags.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    tags
}

/// The deletion of those that are ours and give this role, whose path is not known once it is gone.
fn ours<'a>(
    role: &str,
    associations: impl Iterator<Item = (&'a ServiceAccount, &'a Association)>,
) -> impl Iterator<Item = Change> {
    associations
        .filter(move |(_, found)| found.foreign().is_none() && is_same(&found.role, role))
        .map(|(account, found)| Change::Dissociate { account: account.clone(), id: found.id.clone() })
}

/// Whether two ARNs are of one role: an account has one of a name, whatever its path.
fn is_same(one: &str, other: &str) -> bool {
    let parts = |arn| Arn::parse(arn).map(|arn| (arn.account, arn.resource.rsplit('/').next()));
    parts(one) == parts(other)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::plan::Identity;
    use common::Kind;
    use serde_json::Value;

    const ROLE: &str = "arn:aws:iam::1:role/mesh";
    const OTHER: &str = "arn:aws:iam::1:role/other";

    fn want(identity: Identity, accounts: &[&str]) -> Want {
        Want {
            name: "mesh".into(),
            path: None,
            cluster: "arn:aws:eks:us-west-2:1:cluster/c1".into(),
            identity,
            service_accounts: accounts.iter().map(|account| account.parse().unwrap()).collect(),
            trust: Value::Null,
            policies: Vec::new(),
            documents: BTreeMap::new(),
            boundary: None,
            tags: BTreeMap::from([("team".into(), "x".into())]),
            adopt: false,
        }
    }

    fn association(role: &str, tags: &[(&str, &str)]) -> Association {
        Association {
            id: "a-1".into(),
            arn: "arn:a-1".into(),
            role: role.into(),
            session_tags: true,
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn words(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_is_missing_or_wrong_is_changed() {
        const OURS: &[(&str, &str)] = &[("managed-by", "crossmesh"), ("team", "x")];
        const THEIRS: &[(&str, &str)] = &[("managed-by", "terraform")];
        let silent = Association { session_tags: false, ..association(ROLE, OURS) };
        let pods = || want(Identity::Pods, &["a/b"]);
        let adopting = || Want { adopt: true, ..pods() };
        let cases: [(&str, Want, Option<Association>, &[&str]); 12] = [
            ("none", pods(), None, &["associate a/b with arn:aws:iam::1:role/mesh"]),
            ("as wished", pods(), Some(association(ROLE, OURS)), &[]),
            ("another role", pods(), Some(association(OTHER, OURS)), &["put the association of a/b right"]),
            ("no session tags", pods(), Some(silent), &["put the association of a/b right"]),
            ("untagged", pods(), Some(association(ROLE, &OURS[..1])), &["tag the association of a/b team=x"]),
            ("of others, with this role", pods(), Some(association(ROLE, THEIRS)), &[]),
            (
                "of others, adopted",
                adopting(),
                Some(association(ROLE, THEIRS)),
                &["tag the association of a/b managed-by=crossmesh team=x"],
            ),
            (
                "of others, with another role, adopted",
                adopting(),
                Some(association(OTHER, THEIRS)),
                &["tag the association of a/b managed-by=crossmesh team=x", "put the association of a/b right"],
            ),
            (
                "not wished for any more",
                want(Identity::Issuer, &["a/b"]),
                Some(association(ROLE, OURS)),
                &["delete the association of a/b"],
            ),
            ("not wished for, of others", want(Identity::Issuer, &["a/b"]), Some(association(ROLE, THEIRS)), &[]),
            ("not wished for, with another role", want(Identity::Issuer, &[]), Some(association(OTHER, OURS)), &[]),
            ("nothing wished for", want(Identity::Issuer, &["a/b"]), None, &[]),
        ];
        for (case, want, found, changes) in cases {
            let have: Associations = found.into_iter().map(|found| ("a/b".parse().unwrap(), found)).collect();
            assert_eq!(words(&plan(&want, ROLE, &have).unwrap()), changes, "{case}");
        }
    }

    #[test]
    fn another_role_that_others_gave_is_a_conflict() {
        let have = Associations::from([("a/b".parse().unwrap(), association(OTHER, &[]))]);
        let error = plan(&want(Identity::Pods, &["a/b"]), ROLE, &have).unwrap_err();
        let message = format!("service account a/b has an association with {OTHER}: not made by crossmesh");
        assert_eq!((common::classify(&error).0, error.to_string()), (Kind::Conflict, message));
    }

    #[test]
    fn only_ours_is_deleted() {
        const OURS: &[(&str, &str)] = &[("managed-by", "crossmesh")];
        let have = Associations::from([
            ("a/b".parse().unwrap(), association(ROLE, OURS)),
            ("a/c".parse().unwrap(), association(OTHER, OURS)),
            ("a/d".parse().unwrap(), association(ROLE, &[])),
            ("a/e".parse().unwrap(), association("arn:aws:iam::1:role/a/path/mesh", OURS)),
            ("a/f".parse().unwrap(), association("arn:aws:iam::2:role/mesh", OURS)),
        ]);
        let gone = ["delete the association of a/b", "delete the association of a/e"];
        assert_eq!(words(&plan_delete(ROLE, &have)), gone);
    }

    #[test]
    fn what_pods_lack_is_told_with_the_command() {
        let want = want(Identity::Pods, &["a/b"]);
        let told = |agent| remarks(&want, &agent, &Associations::new());
        assert_eq!(told(Agent::There), [""; 0]);
        assert!(
            told(Agent::Absent)[0]
                .ends_with("aws eks create-addon --cluster-name c1 --addon-name eks-pod-identity-agent")
        );
        assert!(told(Agent::Troubled("DEGRADED".into()))[0].contains(" is DEGRADED: aws eks describe-addon "));
        let have = Associations::from([("a/b".parse().unwrap(), association(ROLE, &[]))]);
        let used = "the association of a/b is used, not made by crossmesh: --adopt takes it over";
        assert_eq!(remarks(&want, &Agent::There, &have), [used]);
    }
}
