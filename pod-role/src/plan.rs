//! Says what to change about a role. Pure.
//!
//! IAM does not tell who attached a policy. So a role of ours remembers in its tags what this tool put on it: that,
//! and only that, is taken off again when it is no longer wished for.

use crate::association::{self, Agent, Associations};
use crate::policy::same;
use crate::service_account::ServiceAccount;
use anyhow::Result;
use common::Error;
use common::arn::Arn;
use common::plan::Effect;
use common::tags::{ASSOCIATION_TAG, CLUSTER_TAG, INLINE_TAG, MANAGED_BY, OUR_TAGS, POLICY_TAG, foreign};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// What is left of a tag's 128 characters for a policy's name. A longer name is cut; its ARN is the tag's value.
const LONGEST_NAME: usize = 100;
/// How much of a SHA-256 tells two policies of one name, or two service accounts, apart, in hexadecimal digits.
const DIGEST: usize = 8;
/// Characters of a tag's value. It takes no comma, which a policy's name may have. Source: IAM, `Tag`.
const LONGEST_VALUE: usize = 256;

/// How the pods of a service account prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// By tokens of the cluster's issuer, which IAM knows as an identity provider.
    Issuer,
    /// To EKS, which knows the role by an association: EKS Pod Identity.
    Pods,
}

/// The role the service accounts need.
#[derive(Debug, Clone)]
pub struct Want {
    /// Name of the role.
    pub name: String,
    /// `/…/`; `None` takes it wherever it is.
    pub path: Option<String>,
    /// ARN of the cluster.
    pub cluster: String,
    /// How they prove who they are.
    pub identity: Identity,
    /// Who may assume it.
    pub service_accounts: Vec<ServiceAccount>,
    /// The trust policy that says so.
    pub trust: Value,
    /// ARNs of the managed policies.
    pub policies: Vec<String>,
    /// Inline policies by name.
    pub documents: BTreeMap<String, Value>,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
    /// Tags the user wishes for.
    pub tags: BTreeMap<String, String>,
    /// Take over a role, and policies on it, that others made.
    pub adopt: bool,
}

impl Want {
    /// The cluster's name, the end of its ARN.
    pub fn cluster_name(&self) -> &str {
        self.cluster.rsplit('/').next().unwrap_or_default()
    }

    /// The service accounts that must have an association.
    pub fn associated(&self) -> &[ServiceAccount] {
        match self.identity {
            Identity::Issuer => &[],
            Identity::Pods => &self.service_accounts,
        }
    }
}

/// The role IAM has.
#[derive(Debug, Clone, Default)]
pub struct Role {
    /// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`
    pub arn: String,
    /// `/` or `/…/`
    pub path: String,
    /// The trust policy; null if it cannot be read.
    pub trust: Value,
    /// ARNs of the managed policies.
    pub attached: Vec<String>,
    /// Inline policies by name.
    pub inline: BTreeMap<String, Value>,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
    /// All its tags.
    pub tags: BTreeMap<String, String>,
    /// Names of the instance profiles that hold it; looked up for `--delete` only.
    pub instance_profiles: Vec<String>,
    /// Service accounts that others gave it by an association, of those that are looked at.
    pub lent: Vec<ServiceAccount>,
}

impl Role {
    /// The service accounts that it remembers to have an association.
    pub fn associated(&self) -> Vec<ServiceAccount> {
        let remembered = self.tags.iter().filter(|(key, _)| key.starts_with(ASSOCIATION_TAG));
        remembered.filter_map(|(_, account)| account.parse().ok()).collect()
    }
}

/// One step.
#[derive(Debug, PartialEq)]
#[allow(missing_docs, reason = "its text says it")]
pub enum Change {
    Create { role: String, tags: BTreeMap<String, String> },
    Trust { role: String },
    SetBoundary { role: String, boundary: String },
    Tag { role: String, tags: BTreeMap<String, String> },
    Attach { role: String, policy: String, record: Option<String> },
    PutInline { role: String, policy: String, record: String, new: bool },
    Detach { role: String, policy: String },
    DeleteInline { role: String, policy: String },
    Untag { role: String, keys: Vec<String> },
    Delete { role: String },
    Associate { account: ServiceAccount, role: String, record: Option<String> },
    TagAssociation { account: ServiceAccount, arn: String, tags: BTreeMap<String, String> },
    Reassociate { account: ServiceAccount, id: String, role: String },
    Dissociate { account: ServiceAccount, id: String },
}

impl common::plan::Change for Change {
    fn effect(&self) -> Effect {
        match self {
            Change::Create { .. } | Change::Attach { .. } | Change::PutInline { new: true, .. } => Effect::Add,
            Change::Associate { .. } => Effect::Add,
            Change::Trust { .. } | Change::SetBoundary { .. } | Change::PutInline { .. } => Effect::Change,
            Change::Tag { .. } | Change::Untag { .. } => Effect::Change,
            Change::TagAssociation { .. } | Change::Reassociate { .. } => Effect::Change,
            Change::Detach { .. } | Change::DeleteInline { .. } | Change::Delete { .. } => Effect::Remove,
            Change::Dissociate { .. } => Effect::Remove,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Create { role, .. } => write!(f, "create role {role}"),
            Change::Trust { role } => write!(f, "put the trust policy of role {role} right"),
            Change::SetBoundary { role, boundary } => write!(f, "bound role {role} by {boundary}"),
            Change::Tag { role, tags } => write!(f, "tag role {role} {}", pairs(tags)),
            Change::Attach { role, policy, .. } => write!(f, "attach {policy} to role {role}"),
            Change::PutInline { role, policy, .. } => write!(f, "put inline policy {policy} on role {role}"),
            Change::Detach { role, policy } => write!(f, "detach {policy} from role {role}"),
            Change::DeleteInline { role, policy } => write!(f, "delete inline policy {policy} of role {role}"),
            Change::Untag { role, keys } => write!(f, "untag role {role} {}", keys.join(" ")),
            Change::Delete { role } => write!(f, "delete role {role}"),
            Change::Associate { account, role, .. } => write!(f, "associate {account} with {role}"),
            Change::TagAssociation { account, tags, .. } => {
                write!(f, "tag the association of {account} {}", pairs(tags))
            }
            Change::Reassociate { account, .. } => write!(f, "put the association of {account} right"),
            Change::Dissociate { account, .. } => write!(f, "delete the association of {account}"),
        }
    }
}

fn pairs(tags: &BTreeMap<String, String>) -> String {
    let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    tags.join(" ")
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// It has no `=`.
pub fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What there is in IAM and EKS.
#[derive(Debug)]
pub struct Have {
    pub role: Option<Role>,
    pub associations: Associations,
    pub agent: Agent,
}

impl common::plan::Want for Want {
    type Have = Have;
    type Change = Change;

    fn plan(&self, have: &Have) -> Result<Vec<Change>> {
        let role = have.role.as_ref();
        let mut changes = plan(self, role)?;
        // What is forgotten must be gone.
        let end = changes.iter().position(|change| matches!(change, Change::Untag { .. })).unwrap_or(changes.len());
        changes.splice(end..end, association::plan(self, &arn(self, role), &have.associations)?);
        Ok(changes)
    }

    fn plan_delete(&self, have: &Have) -> Result<Vec<Change>> {
        let role = have.role.as_ref();
        let associations = association::plan_delete(&arn(self, role), &have.associations);
        Ok(associations.into_iter().chain(plan_delete(self, role)).collect())
    }

    fn remarks(&self, have: &Have) -> Vec<String> {
        let on_role = remarks(self, have.role.as_ref());
        let on_associations = association::remarks(self, &have.agent, &have.associations);
        on_role.into_iter().chain(on_associations).collect()
    }

    fn left_alone(&self, have: &Have) -> Vec<String> {
        left_alone(self, have.role.as_ref())
    }
}

/// Refuses tags of a role that are this tool's own, or that IAM takes for one, for it does not tell keys apart by their case.
///
/// # Errors
/// [`Kind::Input`](common::Kind::Input) that names the key.
pub fn check_tags(tags: &BTreeMap<String, String>) -> Result<()> {
    let mut seen = BTreeMap::new();
    for key in tags.keys() {
        let folded = key.to_lowercase();
        if folded == MANAGED_BY.0 || folded.starts_with(OUR_TAGS) {
            return Err(Error::input(format!("role.tags: {key} is this tool's own")).into());
        }
        if let Some(same) = seen.insert(folded, key) {
            return Err(Error::input(format!("role.tags: {same} and {key} are one key for IAM")).into());
        }
    }
    Ok(())
}

/// The ARN of the role, which IAM composes of the account, the path and the name when it is made.
pub fn arn(want: &Want, have: Option<&Role>) -> String {
    if let Some(role) = have {
        return role.arn.clone();
    }
    let (partition, account) = Arn::parse(&want.cluster).map_or(("aws", ""), |arn| (arn.partition, arn.account));
    let resource = format!("role{}{}", want.path.as_deref().unwrap_or("/"), want.name);
    Arn::of_iam(partition, account, &resource).to_string()
}

/// What makes the role fit. Policies that others put on it stay.
fn plan(want: &Want, have: Option<&Role>) -> Result<Vec<Change>> {
    if let Some(role) = have {
        usable(want, role)?;
    }
    let nothing = Role::default();
    let (role, name) = (have.unwrap_or(&nothing), || want.name.clone());
    let wanted = records(want, role);
    let mut changes = Vec::new();

    let mut tags = tags(want, role);
    tags.retain(|key, value| role.tags.get(key) != Some(value));
    if have.is_none() {
        changes.push(Change::Create { role: name(), tags });
    } else {
        // Remembered before it is done: a run that dies in between leaves nothing of ours that we do not know.
        if !tags.is_empty() {
            changes.push(Change::Tag { role: name(), tags });
        }
        if !same(&want.trust, &role.trust) {
            changes.push(Change::Trust { role: name() });
        }
        if let Some(boundary) = want.boundary.clone().filter(|boundary| role.boundary.as_ref() != Some(boundary)) {
            changes.push(Change::SetBoundary { role: name(), boundary });
        }
    }
    let missing = want.policies.iter().filter(|policy| !role.attached.contains(policy));
    changes.extend(missing.map(|policy| Change::Attach {
        role: name(),
        policy: policy.clone(),
        record: wanted.iter().find(|(_, arn)| *arn == policy).map(|(key, _)| key.clone()),
    }));
    let wrong =
        want.documents.iter().filter(|(name, document)| !role.inline.get(*name).is_some_and(|i| same(i, document)));
    changes.extend(wrong.map(|(policy, _)| Change::PutInline {
        role: name(),
        policy: policy.clone(),
        record: format!("{INLINE_TAG}{policy}"),
        new: !role.inline.contains_key(policy),
    }));

    // What we put there for an earlier wish.
    let (attached, inline) = ours(role);
    let unwanted = attached.iter().filter(|policy| !want.policies.contains(policy));
    changes.extend(unwanted.map(|policy| Change::Detach { role: name(), policy: policy.clone() }));
    let unwanted = inline.iter().filter(|policy| !want.documents.contains_key(*policy));
    changes.extend(unwanted.map(|policy| Change::DeleteInline { role: name(), policy: policy.clone() }));
    let keys: Vec<String> = remembered(role).filter(|key| !wanted.contains_key(*key)).cloned().collect();
    if !keys.is_empty() {
        changes.push(Change::Untag { role: name(), keys });
    }
    Ok(changes)
}

/// Takes off what we put on, and deletes the role unless others use it.
fn plan_delete(want: &Want, have: Option<&Role>) -> Vec<Change> {
    let Some(role) = have.filter(|role| not_ours(want, role).is_none()) else { return Vec::new() };
    let name = || want.name.clone();
    let (attached, inline) = ours(role);
    let mut changes: Vec<Change> = attached.into_iter().map(|policy| Change::Detach { role: name(), policy }).collect();
    changes.extend(inline.into_iter().map(|policy| Change::DeleteInline { role: name(), policy }));
    let keys: Vec<String> = remembered(role).cloned().collect();
    if others(role).is_empty() {
        changes.push(Change::Delete { role: name() });
    } else if !keys.is_empty() {
        changes.push(Change::Untag { role: name(), keys });
    }
    changes
}

/// What others have to do with the role, one line each.
fn left_alone(want: &Want, have: Option<&Role>) -> Vec<String> {
    let Some(role) = have else { return Vec::new() };
    match not_ours(want, role) {
        Some(why) => vec![format!("role {}: {why}", want.name)],
        None => others(role).into_iter().map(|user| format!("role {}: {user}", want.name)).collect(),
    }
}

/// What is on the role that is neither wished for nor ours.
fn remarks(want: &Want, have: Option<&Role>) -> Vec<String> {
    let Some(role) = have else { return Vec::new() };
    let (attached, inline) = ours(role);
    let others = role.attached.iter().filter(|policy| !attached.contains(policy) && !want.policies.contains(policy));
    let others_inline =
        role.inline.keys().filter(|policy| !inline.contains(policy) && !want.documents.contains_key(*policy));
    let bound = role.boundary.iter().filter(|_| want.boundary.is_none());
    others
        .map(|policy| format!("role {} also has {policy}, which others attached", want.name))
        .chain(others_inline.map(|policy| format!("role {} also has the inline policy {policy} of others", want.name)))
        .chain(bound.map(|policy| format!("role {} is bounded by {policy}, which is not asked for", want.name)))
        .collect()
}

/// Refuses a role that is not ours to change.
pub fn usable(want: &Want, role: &Role) -> Result<()> {
    if let Some(path) = want.path.as_ref().filter(|path| **path != role.path) {
        let have = &role.path;
        return Err(Error::conflict(format!("role {} has the path {have}, not {path}", want.name))
            .hint("a role's path is for life: choose another name with --role, or leave --path out")
            .into());
    }
    if want.adopt {
        return Ok(());
    }
    if let Some(why) = not_ours(want, role) {
        return Err(Error::conflict(format!("role {} exists: {why}", want.name))
            .hint("take it over with --adopt, or choose another name with --role")
            .into());
    }
    let theirs = |name: &str| !role.tags.contains_key(&format!("{INLINE_TAG}{name}"));
    let differs = |name: &str, document| role.inline.get(name).is_some_and(|inline| !same(inline, document));
    match want.documents.iter().find(|(name, document)| theirs(name) && differs(name, document)) {
        Some((name, _)) => {
            Err(Error::conflict(format!("role {} has another inline policy {name} of others", want.name))
                .hint("replace it with --adopt, or give the file another name")
                .into())
        }
        None => Ok(()),
    }
}

/// Why the role is not ours; `None` if it is.
fn not_ours(want: &Want, role: &Role) -> Option<String> {
    foreign(role.tags.get(MANAGED_BY.0).map(String::as_str)).or_else(|| {
        let cluster = role.tags.get(CLUSTER_TAG).filter(|cluster| **cluster != want.cluster)?;
        Some(format!("made for {cluster}"))
    })
}

/// The tags the role must have. A policy that was there before us is not remembered as ours, unless we adopt.
fn tags(want: &Want, role: &Role) -> BTreeMap<String, String> {
    let mut tags = want.tags.clone();
    tags.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    tags.insert(CLUSTER_TAG.to_owned(), want.cluster.clone());
    let there = |key: &str, value: &str| match key.strip_prefix(INLINE_TAG) {
        Some(name) => role.inline.contains_key(name),
        None => role.attached.iter().any(|policy| policy == value),
    };
    tags.extend(records(want, role).into_iter().filter(|(key, value)| want.adopt || !there(key, value)));
    tags
}

/// How we remember the policies wished for. One that no tag can hold is not remembered, and so never taken off. A tag
/// that remembers another policy of that name, of another account or path, is left to it.
fn records(want: &Want, role: &Role) -> BTreeMap<String, String> {
    let mut records: BTreeMap<String, String> =
        want.documents.keys().map(|name| (format!("{INLINE_TAG}{name}"), String::new())).collect();
    records.extend(want.associated().iter().filter_map(record_of));
    for arn in want.policies.iter().filter(|arn| arn.len() <= LONGEST_VALUE && !arn.contains(',')) {
        let known = role.tags.iter().find(|(key, value)| key.starts_with(POLICY_TAG) && *value == arn);
        let new = || {
            let name: String = arn.rsplit('/').next().unwrap_or(arn).chars().take(LONGEST_NAME).collect();
            let plain = format!("{POLICY_TAG}{name}");
            if role.tags.contains_key(&plain) || records.contains_key(&plain) {
                format!("{plain}-{}", &hex::encode(Sha256::digest(arn))[..DIGEST])
            } else {
                plain
            }
        };
        let key = known.map_or_else(new, |(key, _)| key.clone());
        records.insert(key, arn.clone());
    }
    records
}

/// How we remember that a service account has an association: the tag and its value.
pub fn record_of(account: &ServiceAccount) -> Option<(String, String)> {
    let account = account.to_string();
    let digest = &hex::encode(Sha256::digest(&account))[..DIGEST];
    (account.len() <= LONGEST_VALUE).then(|| (format!("{ASSOCIATION_TAG}{digest}"), account))
}

/// The tags of a role that remember what we put on it.
fn remembered(role: &Role) -> impl Iterator<Item = &String> {
    let ours = [POLICY_TAG, INLINE_TAG, ASSOCIATION_TAG];
    role.tags.keys().filter(move |key| ours.iter().any(|start| key.starts_with(start)))
}

/// What we put on the role and is still there: ARNs of managed policies, names of inline ones.
fn ours(role: &Role) -> (Vec<String>, Vec<String>) {
    let attached = role.tags.iter().filter(|(key, _)| key.starts_with(POLICY_TAG)).map(|(_, arn)| arn);
    let inline = role.tags.keys().filter_map(|key| key.strip_prefix(INLINE_TAG));
    (
        attached.filter(|arn| role.attached.contains(arn)).cloned().collect(),
        inline.filter(|name| role.inline.contains_key(*name)).map(str::to_owned).collect(),
    )
}

/// Who else uses the role.
fn others(role: &Role) -> Vec<String> {
    let (attached, inline) = ours(role);
    let policies = role.attached.iter().filter(|policy| !attached.contains(policy));
    let documents = role.inline.keys().filter(|policy| !inline.contains(policy));
    policies
        .map(|policy| format!("others attached {policy}"))
        .chain(documents.map(|policy| format!("others put the inline policy {policy} on it")))
        .chain(role.instance_profiles.iter().map(|profile| format!("the instance profile {profile} holds it")))
        .chain(role.lent.iter().map(|account| format!("others associated {account} with it")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const A: &str = "arn:aws:iam::aws:policy/A";
    const B: &str = "arn:aws:iam::aws:policy/service-role/B";
    const CLUSTER: &str = "arn:aws:eks:us-west-2:1:cluster/c1";

    fn want() -> Want {
        Want {
            name: "mesh".into(),
            path: None,
            cluster: CLUSTER.into(),
            identity: Identity::Issuer,
            service_accounts: Vec::new(),
            trust: json!({"Statement": []}),
            policies: vec![A.into()],
            documents: BTreeMap::from([("doc".into(), json!({"a": 1}))]),
            boundary: None,
            tags: BTreeMap::from([("team".into(), "x".into())]),
            adopt: false,
        }
    }

    #[test]
    fn tags_that_iam_takes_for_one_are_refused() {
        for (keys, expected) in [
            (&["team", "Owner"][..], None),
            (&["Managed-By"], Some("role.tags: Managed-By is this tool's own")),
            (&["CrossMesh:policy/A"], Some("role.tags: CrossMesh:policy/A is this tool's own")),
            (&["Team", "team"], Some("role.tags: Team and team are one key for IAM")),
        ] {
            let tags = keys.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect();
            let refused = check_tags(&tags).err().map(|error| error.to_string());
            assert_eq!(refused.as_deref(), expected, "{keys:?}");
        }
    }

    /// What `want` leads to.
    fn made() -> Role {
        let tags = [
            ("managed-by", "crossmesh"),
            (CLUSTER_TAG, CLUSTER),
            ("crossmesh:policy/A", A),
            ("crossmesh:inline/doc", ""),
            ("team", "x"),
        ];
        Role {
            arn: "arn:aws:iam::1:role/mesh".into(),
            path: "/".into(),
            trust: json!({"Statement": []}),
            attached: vec![A.into()],
            inline: want().documents,
            boundary: None,
            tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            instance_profiles: Vec::new(),
            lent: Vec::new(),
        }
    }

    fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
        change(&mut value);
        value
    }

    fn words(changes: Vec<Change>) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_is_missing_or_wrong_is_changed() {
        let cases: [(&str, Want, Option<Role>, &[&str]); 21] = [
            (
                "none",
                want(),
                None,
                &[
                    "create role mesh",
                    "attach arn:aws:iam::aws:policy/A to role mesh",
                    "put inline policy doc on role mesh",
                ],
            ),
            ("as wished", want(), Some(made()), &[]),
            (
                "trust edited",
                want(),
                Some(with(made(), |role| role.trust = json!({"Statement": [{}, {"Effect": "Allow"}]}))),
                &["put the trust policy of role mesh right"],
            ),
            (
                "policy detached",
                want(),
                Some(with(made(), |role| role.attached.clear())),
                &["attach arn:aws:iam::aws:policy/A to role mesh"],
            ),
            (
                "inline policy edited",
                want(),
                Some(with(made(), |role| role.inline = BTreeMap::from([("doc".into(), json!({}))]))),
                &["put inline policy doc on role mesh"],
            ),
            (
                "inline policy deleted",
                want(),
                Some(with(made(), |role| role.inline.clear())),
                &["put inline policy doc on role mesh"],
            ),
            ("policy of others", want(), Some(with(made(), |role| role.attached.push(B.into()))), &[]),
            (
                "wish dropped",
                with(want(), |want| want.policies = vec![B.into()]),
                Some(made()),
                &[
                    "tag role mesh crossmesh:policy/B=arn:aws:iam::aws:policy/service-role/B",
                    "attach arn:aws:iam::aws:policy/service-role/B to role mesh",
                    "detach arn:aws:iam::aws:policy/A from role mesh",
                    "untag role mesh crossmesh:policy/A",
                ],
            ),
            (
                "inline wish dropped",
                with(want(), |want| want.documents.clear()),
                Some(made()),
                &["delete inline policy doc of role mesh", "untag role mesh crossmesh:inline/doc"],
            ),
            (
                "boundary",
                with(want(), |want| want.boundary = Some("arn:b".into())),
                Some(made()),
                &["bound role mesh by arn:b"],
            ),
            (
                "boundary replaced",
                with(want(), |want| want.boundary = Some("arn:b".into())),
                Some(with(made(), |role| role.boundary = Some("arn:c".into()))),
                &["bound role mesh by arn:b"],
            ),
            ("boundary of others", want(), Some(with(made(), |role| role.boundary = Some("arn:b".into()))), &[]),
            (
                "tag edited",
                want(),
                Some(with(made(), |role| role.tags.insert("team".into(), "y".into()).into_iter().for_each(drop))),
                &["tag role mesh team=x"],
            ),
            (
                "tags removed, but who made it",
                want(),
                Some(with(made(), |role| role.tags.retain(|key, _| key == "managed-by"))),
                &["tag role mesh crossmesh:cluster=arn:aws:eks:us-west-2:1:cluster/c1 team=x"],
            ),
            (
                "wished for, but put there by others",
                want(),
                Some(with(made(), |role| drop(role.tags.remove("crossmesh:inline/doc")))),
                &[],
            ),
            (
                "all at once",
                want(),
                Some(with(made(), |role| {
                    role.trust = Value::Null;
                    role.attached.clear();
                    role.inline.clear();
                    role.tags.remove("team");
                })),
                &[
                    "tag role mesh team=x",
                    "put the trust policy of role mesh right",
                    "attach arn:aws:iam::aws:policy/A to role mesh",
                    "put inline policy doc on role mesh",
                ],
            ),
            (
                "another inline policy of others, adopted",
                with(want(), |want| want.adopt = true),
                Some(with(made(), |role| {
                    role.tags.remove("crossmesh:inline/doc");
                    role.inline = BTreeMap::from([("doc".into(), json!({"a": 2}))]);
                })),
                &["tag role mesh crossmesh:inline/doc=", "put inline policy doc on role mesh"],
            ),
            (
                "wished for, but attached by others",
                want(),
                Some(with(made(), |role| drop(role.tags.remove("crossmesh:policy/A")))),
                &[],
            ),
            (
                "adopted",
                with(want(), |want| want.adopt = true),
                Some(with(made(), |role| role.tags.clear())),
                &["tag role mesh crossmesh:cluster=arn:aws:eks:us-west-2:1:cluster/c1 crossmesh:inline/doc= \
                   crossmesh:policy/A=arn:aws:iam::aws:policy/A managed-by=crossmesh team=x"],
            ),
            (
                "remembered, then killed before it was attached",
                want(),
                Some(with(made(), |role| role.attached.clear())),
                &["attach arn:aws:iam::aws:policy/A to role mesh"],
            ),
            (
                "path",
                with(want(), |want| want.path = Some("/x/".into())),
                Some(with(made(), |role| role.path = "/x/".into())),
                &[],
            ),
        ];
        for (case, want, have, changes) in cases {
            assert_eq!(words(plan(&want, have.as_ref()).unwrap()), changes, "{case}");
        }
    }

    #[test]
    fn what_is_not_ours_is_a_conflict() {
        let tagged = |key: &str, value: &str| with(made(), |role| drop(role.tags.insert(key.into(), value.into())));
        let cases = [
            (want(), with(made(), |role| role.tags.clear()), "role mesh exists: not made by crossmesh"),
            (want(), tagged("managed-by", "terraform"), "role mesh exists: managed by terraform"),
            (want(), tagged(CLUSTER_TAG, "arn:c2"), "role mesh exists: made for arn:c2"),
            (with(want(), |want| want.path = Some("/x/".into())), made(), "role mesh has the path /, not /x/"),
            (
                want(),
                with(made(), |role| {
                    role.tags.remove("crossmesh:inline/doc");
                    role.inline = BTreeMap::from([("doc".into(), json!({"a": 2}))]);
                }),
                "role mesh has another inline policy doc of others",
            ),
        ];
        for (want, have, message) in cases {
            let error = plan(&want, Some(&have)).unwrap_err();
            assert_eq!((common::classify(&error).0, error.to_string()), (common::Kind::Conflict, message.to_owned()));
        }
    }

    #[test]
    fn only_ours_is_deleted() {
        let off: &[&str] =
            &["detach arn:aws:iam::aws:policy/A from role mesh", "delete inline policy doc of role mesh"];
        let all = [off, &["delete role mesh"]].concat();
        let kept = [off, &["untag role mesh crossmesh:inline/doc crossmesh:policy/A"]].concat();
        let cases: [(Option<Role>, &[&str], &[&str]); 8] = [
            (None, &[], &[]),
            (Some(made()), &all, &[]),
            (Some(with(made(), |role| role.tags.clear())), &[], &["role mesh: not made by crossmesh"]),
            (
                Some(with(made(), |role| drop(role.tags.insert(CLUSTER_TAG.into(), "arn:c2".into())))),
                &[],
                &["role mesh: made for arn:c2"],
            ),
            (
                Some(with(made(), |role| role.attached.push(B.into()))),
                &kept,
                &["role mesh: others attached arn:aws:iam::aws:policy/service-role/B"],
            ),
            (
                Some(with(made(), |role| drop(role.inline.insert("theirs".into(), json!({}))))),
                &kept,
                &["role mesh: others put the inline policy theirs on it"],
            ),
            (
                Some(with(made(), |role| role.instance_profiles.push("node".into()))),
                &kept,
                &["role mesh: the instance profile node holds it"],
            ),
            (
                Some(with(made(), |role| role.lent.push("a/b".parse().unwrap()))),
                &kept,
                &["role mesh: others associated a/b with it"],
            ),
        ];
        for (have, changes, left) in cases {
            assert_eq!(words(plan_delete(&want(), have.as_ref())), changes, "{have:?}");
            assert_eq!(left_alone(&want(), have.as_ref()), left, "{have:?}");
        }
    }

    #[test]
    fn a_role_remembers_who_is_associated_with_it() {
        const TAG: &str = "crossmesh:association/c14cddc0";
        let pods = with(want(), |want| {
            want.identity = Identity::Pods;
            want.service_accounts = vec!["a/b".parse().unwrap()];
        });
        let lent = with(made(), |role| drop(role.tags.insert(TAG.into(), "a/b".into())));
        assert_eq!(words(plan(&pods, Some(&made())).unwrap()), [format!("tag role mesh {TAG}=a/b")]);
        assert_eq!(words(plan(&pods, Some(&lent)).unwrap()), [""; 0]);
        assert_eq!(words(plan(&want(), Some(&lent)).unwrap()), [format!("untag role mesh {TAG}")]);
        assert_eq!((lent.associated(), made().associated()), (pods.service_accounts.clone(), Vec::new()));
    }

    #[test]
    fn what_no_tag_can_hold_is_not_remembered() {
        let long = format!("arn:aws:iam::1:policy/{}/x", "p".repeat(300));
        let odd = "arn:aws:iam::1:policy/a,b".to_owned();
        let want = with(want(), |want| want.policies = vec![A.into(), long, odd]);
        let keys: Vec<String> = records(&want, &Role::default()).into_keys().collect();
        assert_eq!(keys, ["crossmesh:inline/doc", "crossmesh:policy/A"]);
    }

    #[test]
    fn policies_of_one_name_are_remembered_apart() {
        const THEIRS: &str = "arn:aws:iam::1:policy/A";
        let (tag, untag) = ("crossmesh:policy/A-f515a9ac", "untag role mesh crossmesh:policy/A");
        let both = with(want(), |want| want.policies.push(THEIRS.into()));
        let remember = format!("tag role mesh {tag}={THEIRS}");
        let attach = format!("attach {THEIRS} to role mesh");
        assert_eq!(words(plan(&both, Some(&made())).unwrap()), [remember.as_str(), &attach]);
        let there = with(made(), |role| {
            role.tags.insert(tag.into(), THEIRS.into());
            role.attached.push(THEIRS.into());
        });
        assert_eq!(words(plan(&both, Some(&there)).unwrap()), [""; 0]);

        // The first is remembered until it is off, though the second has its name.
        let second = with(want(), |want| want.policies = vec![THEIRS.into()]);
        let detach = "detach arn:aws:iam::aws:policy/A from role mesh";
        assert_eq!(words(plan(&second, Some(&made())).unwrap()), [&remember, &attach, detach, untag]);
        assert_eq!(words(plan(&second, Some(&there)).unwrap()), [detach, untag]);
        let off = words(plan_delete(&both, Some(&there)));
        assert!(off.iter().any(|change| change.contains(A)) && off.iter().any(|change| change.contains(THEIRS)));
    }

    #[test]
    fn policies_of_others_are_named() {
        let have = with(made(), |role| role.attached.push(B.into()));
        let remark = "role mesh also has arn:aws:iam::aws:policy/service-role/B, which others attached";
        assert_eq!(remarks(&want(), Some(&have)), [remark]);
        let have = with(made(), |role| drop(role.inline.insert("theirs".into(), json!({}))));
        assert_eq!(remarks(&want(), Some(&have)), ["role mesh also has the inline policy theirs of others"]);
        let have = with(made(), |role| role.boundary = Some("arn:b".into()));
        assert_eq!(remarks(&want(), Some(&have)), ["role mesh is bounded by arn:b, which is not asked for"]);
        assert_eq!(remarks(&want(), Some(&made())), [""; 0]);
    }

    #[test]
    fn the_arn_is_known_before_the_role_is_made() {
        let cluster = "arn:aws-cn:eks:cn-north-1:123:cluster/c".to_owned();
        let named = |path: Option<&str>| Want {
            name: "mesh".into(),
            path: path.map(str::to_owned),
            cluster: cluster.clone(),
            ..want()
        };
        assert_eq!(arn(&named(None), None), "arn:aws-cn:iam::123:role/mesh");
        assert_eq!(arn(&named(Some("/a/")), None), "arn:aws-cn:iam::123:role/a/mesh");
        let there = Role { arn: "arn:there".into(), ..Role::default() };
        assert_eq!(arn(&named(None), Some(&there)), "arn:there");
    }
}
