//! `irsa-role`: see [`IrsaRole`].

mod aws;
mod plan;
mod policy;
mod service_account;

use anyhow::{Context, Result};
use aws::Iam;
use common::aws::{AwsFlags, MANAGED_BY};
use common::{Error, Flags, Found, Session, Tool};
use plan::{Change, Role, Want};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_account::ServiceAccount;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

/// The service account of the App Mesh controller.
const CONTROLLER: &str = "appmesh-system/appmesh-controller";
/// The inline policy that allows what the controller calls: its name, and the document.
const CONTROLLER_POLICY: (&str, &str) = ("controller", include_str!("../../../policies/controller.json"));

/// Makes the IAM role that a Kubernetes service account may assume.
///
/// The role trusts tokens of these service accounts only, made for STS, and of this cluster only.
/// Annotate the service account with eks.amazonaws.com/role-arn, and its pods get the role's
/// permissions. Trust and policies that have drifted are repaired; policies that others attached are
/// left and named. A role that others made is a conflict, and so is an inline policy of theirs that
/// differs from one wished for by the same name.
///
///   Reads   cluster
///   Owns    role {arn, name, path, permissionsBoundary, policies, policyDocuments,
///           serviceAccounts, tags}
///   Calls   eks:DescribeCluster iam:GetRole iam:ListAttachedRolePolicies iam:ListRolePolicies
///           iam:GetRolePolicy iam:GetPolicy iam:ListPolicies iam:CreateRole iam:TagRole
///           iam:UntagRole iam:UpdateAssumeRolePolicy iam:AttachRolePolicy iam:DetachRolePolicy
///           iam:PutRolePolicy iam:DeleteRolePolicy iam:PutRolePermissionsBoundary
///           iam:ListInstanceProfilesForRole iam:DeleteRole
///   Exits   0 done, 1 failed, 2 usage, 3 input, 4 conflict, 5 retry
///
/// Examples:
///   irsa-role -n --cluster prod --service-account kube-system/ebs-csi \
///     --policy AmazonEBSCSIDriverPolicy
///   oidc-assoc -n --cluster prod | irsa-role --service-account 'jobs/*' --role jobs \
///     --policy-document s3.json
#[derive(Debug, clap::Parser)]
#[command(name = "irsa-role", version, verbatim_doc_comment)]
struct IrsaRole {
    /// Who may assume the role; * and ? stand for any [default: appmesh-system/appmesh-controller]
    #[arg(long = "service-account", value_name = "NAMESPACE/NAME")]
    service_accounts: Vec<ServiceAccount>,
    /// Managed policy, AWS's or your own
    #[arg(long = "policy", value_name = "ARN|NAME")]
    policies: Vec<String>,
    /// Inline policy, named as its file without extension [default for that service account: policies/controller.json]
    #[arg(long = "policy-document", value_name = "FILE")]
    policy_documents: Vec<PathBuf>,
    /// Name of the role [default: CLUSTER-SERVICEACCOUNT]
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// Path of the role, e.g. /mesh/
    #[arg(long)]
    path: Option<String>,
    /// Policy that bounds what the role may ever do
    #[arg(long, value_name = "ARN")]
    permissions_boundary: Option<String>,
    /// Tag of the role
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = plan::tag)]
    tags: Vec<(String, String)>,
    /// Take over a role that others made, and what is on it of the policies wished for
    #[arg(long)]
    adopt: bool,
    #[command(flatten)]
    aws: AwsFlags,
    #[command(flatten)]
    flags: Flags,
}

/// The `role` key.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Role")]
struct Section {
    /// ARN of the role; found, never wished for.
    #[serde(skip_serializing_if = "Option::is_none")]
    arn: Option<String>,
    /// Name of the role.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Path of the role, `/…/`; absent if it is `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// ARN of the policy that bounds the role.
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions_boundary: Option<String>,
    /// Managed policies: ARNs, or names in a wish.
    policies: Vec<String>,
    /// Inline policies by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    policy_documents: BTreeMap<String, Value>,
    /// Who may assume the role.
    service_accounts: Vec<ServiceAccount>,
    /// Tags of the role, beside this tool's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
}

impl Tool for IrsaRole {
    type Section = Section;
    type Want = Want;
    type Have = Option<Role>;
    type Change = Change;

    fn flags(&self) -> &Flags {
        &self.flags
    }

    fn key(&self) -> Vec<&str> {
        vec!["role"]
    }

    async fn want(&self, session: &mut Session, section: Option<Section>) -> Result<Want> {
        let section = section.unwrap_or_default();
        let cluster = session.cluster(&self.aws).await?;
        let default: ServiceAccount = CONTROLLER.parse().map_err(Error::failed)?;
        let given = or(self.service_accounts.clone(), section.service_accounts);
        let service_accounts = unique(or(given, vec![default.clone()]));
        let mut documents = match &self.policy_documents[..] {
            [] => section.policy_documents,
            files => policy::read_all(files)?,
        };
        let mut policies = or(self.policies.clone(), section.policies);
        if policies.is_empty() && documents.is_empty() && service_accounts == [default] {
            let document = serde_json::from_str(CONTROLLER_POLICY.1).context("policies/controller.json")?;
            documents.insert(CONTROLLER_POLICY.0.to_owned(), document);
        }
        // What --delete takes off, the role itself remembers.
        if self.flags.delete {
            policies.clear();
        }
        let iam = Iam::new(session.aws(&self.aws).await?);
        for policy in policies.iter_mut().filter(|policy| !policy.starts_with("arn:")) {
            *policy = iam.resolve(cluster.partition(), policy).await?;
        }
        let name = self.role.clone().or(section.name);
        let want = Want {
            name: name.unwrap_or_else(|| service_account::role_name(&cluster.name, &service_accounts[0])),
            path: self.path.clone().or(section.path),
            trust: policy::trust(&cluster.oidc_provider()?, &service_accounts),
            service_accounts,
            cluster: cluster.arn,
            policies: unique(policies),
            documents,
            boundary: self.permissions_boundary.clone().or(section.permissions_boundary),
            tags: if self.tags.is_empty() { section.tags } else { self.tags.iter().cloned().collect() },
            adopt: self.adopt,
        };
        if let Some(tag) = want.tags.keys().find(|key| *key == MANAGED_BY.0 || key.starts_with("crossmesh:")) {
            return Err(Error::input(format!("role.tags: {tag} is this tool's own")).into());
        }
        Ok(want)
    }

    async fn observe(&self, session: &Session, want: &Want) -> Result<Option<Role>> {
        let iam = Iam::new(session.aws(&self.aws).await?);
        let mut role = iam.role(&want.name).await?;
        if let Some(role) = role.as_mut().filter(|_| self.flags.delete) {
            role.instance_profiles = iam.instance_profiles(&want.name).await?;
        }
        Ok(role)
    }

    fn plan(want: &Want, have: &Option<Role>) -> Result<Vec<Change>> {
        plan::plan(want, have.as_ref())
    }

    fn plan_delete(want: &Want, have: &Option<Role>) -> Result<Vec<Change>> {
        Ok(plan::plan_delete(want, have.as_ref()))
    }

    fn remarks(want: &Want, have: &Option<Role>) -> Vec<String> {
        plan::remarks(want, have.as_ref())
    }

    fn left_alone(want: &Want, have: &Option<Role>) -> Vec<String> {
        plan::left_alone(want, have.as_ref())
    }

    async fn apply(&self, session: &Session, want: &Want, change: Change) -> Result<()> {
        let iam = Iam::new(session.aws(&self.aws).await?);
        match change {
            Change::Create { role, tags } => {
                iam.create(want, tags).await?;
                session.made(format!("role {role}"));
                // A policy can be attached only where IAM knows the role already.
                let unseen = || Found::NotYet("iam:GetRole does not find it".to_owned());
                let there = async || Ok(iam.role(&role).await?.map_or_else(unseen, Found::Ready));
                session.wait(format!("role {role}"), there).await.map(drop)
            }
            Change::Trust { role } => iam.set_trust(&role, &want.trust).await,
            Change::SetBoundary { role, boundary } => iam.set_boundary(&role, &boundary).await,
            Change::Tag { role, tags } => iam.tag(&role, tags).await,
            Change::Attach { role, policy, record } => iam.attach(session, &role, policy, record).await,
            Change::PutInline { role, policy, record, .. } => {
                let document = want.documents.get(&policy).context("an inline policy nobody wished for")?;
                iam.put_inline(session, &role, &policy, document, record).await
            }
            Change::Detach { role, policy } => iam.detach(&role, &policy).await,
            Change::DeleteInline { role, policy } => iam.delete_inline(&role, &policy).await,
            Change::Untag { role, keys } => iam.untag(&role, keys).await,
            Change::Delete { role } => iam.delete(&role).await,
        }
    }

    fn outcome(want: Want, have: Option<Role>) -> Section {
        Section {
            path: have.as_ref().map(|role| role.path.clone()).filter(|path| path != "/"),
            arn: have.map(|role| role.arn),
            name: Some(want.name),
            permissions_boundary: want.boundary,
            policies: want.policies,
            policy_documents: want.documents,
            service_accounts: want.service_accounts,
            tags: want.tags,
        }
    }

    fn planned(want: Want, have: Option<Role>) -> Section {
        Section { arn: Some(plan::arn(&want, have.as_ref())), ..Self::outcome(want, have) }
    }
}

/// What the first list gives, else the second.
fn or<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    if first.is_empty() { second } else { first }
}

/// Without repetitions, in the order given.
fn unique<T: Ord + Clone>(list: Vec<T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    list.into_iter().filter(|one| seen.insert(one.clone())).collect()
}

fn main() -> ExitCode {
    common::main::<IrsaRole>()
}
