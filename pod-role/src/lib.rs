//! The IAM role of pods, which irsa-role and pod-identity make each in its own way.
//!
//! They own the same key and share everything but how pods prove who they are: a tool is a [`Provider`] with its manual and
//! an [`Identity`], and [`PodRole`] makes a [`Tool`] of it. So the one goes on with the other's document, and undoes what
//! the other did.

mod association;
mod eks;
mod iam;
mod plan;
mod policy;
mod service_account;

pub use association::{AGENT, Agent};
pub use plan::{Identity, Role};
pub use policy::same as same_policy;

use anyhow::{Context, Result};
use association::Associations;
use aws_config::SdkConfig;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use common::aws::AwsFlags;
use common::plan::UNKNOWN;
use common::{Error, Found, Session, Tool};
use eks::Eks;
use iam::Iam;
use plan::{Change, Have, Want};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_account::ServiceAccount;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The service account of the App Mesh controller.
const CONTROLLER: &str = "appmesh-system/appmesh-controller";
/// The inline policy that allows what the controller calls: its name, and the document.
const CONTROLLER_POLICY: (&str, &str) = ("controller", include_str!("../../policies/controller.json"));

/// A tool that makes the role: its manual and its flags.
pub trait Provider: clap::Parser {
    /// How pods prove who they are.
    const IDENTITY: Identity;

    /// The flags, flattened into the tool's own.
    fn args(&self) -> &Args;
}

/// The flags of such a tool.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Who may assume the role [default: appmesh-system/appmesh-controller]
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
    /// Take over a role that others made, and what belongs to it of what is asked for
    #[arg(long)]
    adopt: bool,
    #[command(flatten)]
    aws: AwsFlags,
}

/// The [`Tool`] that a [`Provider`] is.
#[derive(Debug)]
pub struct PodRole<P>(P);

impl<P: Provider> clap::Parser for PodRole<P> {}

impl<P: Provider> CommandFactory for PodRole<P> {
    fn command() -> Command {
        P::command()
    }

    fn command_for_update() -> Command {
        P::command_for_update()
    }
}

impl<P: Provider> FromArgMatches for PodRole<P> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        P::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// The `role` key.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Role")]
pub struct Section {
    /// ARN of the role; read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    arn: Option<String>,
    /// Ids of the EKS Pod Identity associations, by service account; read-only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    associations: BTreeMap<String, String>,
    /// Name of the role.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Path of the role, `/…/`; absent if it is `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// ARN of the policy that bounds the role.
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions_boundary: Option<String>,
    /// Managed policies: ARNs; names will do in input.
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

impl<P: Provider> Tool for PodRole<P> {
    type Section = Section;
    type Want = Want;

    fn key(&self) -> Vec<&str> {
        vec!["role"]
    }

    async fn want(&self, session: &mut Session, section: Option<Section>) -> Result<Want> {
        let args = self.0.args();
        let section = section.unwrap_or_default();
        let cluster = session.own_cluster(&args.aws).await?;
        let default: ServiceAccount = CONTROLLER.parse().map_err(Error::failed)?;
        let given = or(args.service_accounts.clone(), section.service_accounts);
        let service_accounts = unique(or(given, vec![default.clone()]));
        let trust = match P::IDENTITY {
            Identity::Issuer => policy::trust(&cluster.oidc_provider()?, &service_accounts),
            Identity::Pods => {
                if let Some(several) = service_accounts.iter().find(|account| account.is_pattern()) {
                    let message = format!("role.serviceAccounts: {several} stands for several, an association for one");
                    return Err(Error::input(message).hint("name each of them, or use irsa-role").into());
                }
                policy::trust_in_pods(&cluster.arn, &service_accounts)
            }
        };
        let mut documents = match &args.policy_documents[..] {
            [] => section.policy_documents,
            files => policy::read_all(files)?,
        };
        let mut policies = or(args.policies.clone(), section.policies);
        if policies.is_empty() && documents.is_empty() && service_accounts == [default] {
            let document = serde_json::from_str(CONTROLLER_POLICY.1).context("policies/controller.json")?;
            documents.insert(CONTROLLER_POLICY.0.to_owned(), document);
        }
        // What --delete takes off, the role itself remembers.
        if session.flags.delete {
            policies.clear();
        }
        let iam = Iam::new(&session.aws(&args.aws).await?);
        for policy in policies.iter_mut().filter(|policy| !policy.starts_with("arn:")) {
            *policy = iam.resolve(cluster.partition(), policy).await?;
        }
        let name = args.role.clone().or(section.name);
        let want = Want {
            name: name.unwrap_or_else(|| service_account::role_name(&cluster.name, &service_accounts[0])),
            path: args.path.clone().or(section.path),
            identity: P::IDENTITY,
            trust,
            service_accounts,
            cluster: cluster.arn,
            policies: unique(policies),
            documents,
            boundary: args.permissions_boundary.clone().or(section.permissions_boundary),
            tags: if args.tags.is_empty() { section.tags } else { args.tags.iter().cloned().collect() },
            adopt: args.adopt,
        };
        plan::check_tags(&want.tags)?;
        Ok(want)
    }

    async fn observe(&self, session: &Session, want: &Want) -> Result<Have> {
        let (iam, eks) = (self.iam(session).await?, self.eks(session, want).await?);
        let delete = session.flags.delete;
        let mut role = iam.role(&want.name).await?;
        let mut associations = Associations::new();
        if delete && role.is_none() && want.identity == Identity::Pods {
            // A role that is gone does not tell to whom it was given.
            associations = eks.associations().await?;
        } else {
            for account in association::concerned(want, role.as_ref()) {
                let found = eks.association(&account).await?;
                associations.extend(found.map(|found| (account, found)));
            }
        }
        if let Some(role) = role.as_mut() {
            let lent = associations.iter().filter(|(_, it)| it.role == role.arn && it.foreign().is_some());
            role.lent = lent.map(|(account, _)| account.clone()).collect();
            if delete {
                role.instance_profiles = iam.instance_profiles(&want.name).await?;
            }
        }
        let agent = if delete || want.associated().is_empty() { Agent::There } else { eks.agent().await? };
        Ok(Have { role, associations, agent })
    }

    async fn apply(&self, session: &Session, want: &Want, change: Change) -> Result<()> {
        let (iam, eks) = (self.iam(session).await?, self.eks(session, want).await?);
        match change {
            Change::Create { role, tags } => {
                iam.create(want, tags).await?;
                // A policy can be attached only where IAM knows the role already.
                let unseen = || Found::NotYet("iam:GetRole does not find it".to_owned());
                let there = async || Ok(iam.role(&role).await?.map_or_else(unseen, Found::Ready));
                // Somebody else may have made one of that name meanwhile.
                plan::usable(want, &session.wait(format!("role {role}"), there).await?)?;
                session.made(format!("role {role}"));
                Ok(())
            }
            Change::Trust { role } => iam.set_trust(&role, &want.trust).await,
            Change::SetBoundary { role, boundary } => iam.set_boundary(&role, &boundary).await,
            Change::Tag { role, tags } => iam.tag(&role, tags).await,
            Change::Attach { role, policy, record } => iam.attach(session, &role, policy, record).await,
            Change::PutInline { role, policy, record, .. } => {
                let document = want.documents.get(&policy).context("an inline policy that nobody asked for")?;
                iam.put_inline(session, &role, &policy, document, record).await
            }
            Change::Detach { role, policy } => iam.detach(&role, &policy).await,
            Change::DeleteInline { role, policy } => iam.delete_inline(&role, &policy).await,
            Change::Untag { role, keys } => iam.untag(&role, keys).await,
            Change::Delete { role } => iam.delete(session, &role).await,
            Change::Associate { account, role, record } => {
                eks.associate(session, &account, &role, association::tags(want)).await?;
                session.made(format!("association of {account}"));
                match record {
                    Some(record) => iam.tag(&want.name, [(record, account.to_string())].into()).await,
                    None => Ok(()),
                }
            }
            Change::TagAssociation { account, arn, tags } => eks.tag(&account, &arn, tags).await,
            Change::Reassociate { account, id, role } => eks.reassociate(session, &account, &id, &role).await,
            Change::Dissociate { account, id } => eks.dissociate(&account, &id).await,
        }
    }

    fn outcome(want: Want, have: Have) -> Section {
        let mut associations = BTreeMap::new();
        for account in want.associated() {
            let id = have.associations.get(account).map_or_else(|| UNKNOWN.to_owned(), |found| found.id.clone());
            associations.insert(account.to_string(), id);
        }
        Section {
            path: have.role.as_ref().map(|role| role.path.clone()).filter(|path| path != "/"),
            arn: have.role.map(|role| role.arn),
            associations,
            name: Some(want.name),
            permissions_boundary: want.boundary,
            policies: want.policies,
            policy_documents: want.documents,
            service_accounts: want.service_accounts,
            tags: want.tags,
        }
    }

    fn planned(want: Want, have: Have) -> Section {
        Section { arn: Some(plan::arn(&want, have.role.as_ref())), ..Self::outcome(want, have) }
    }
}

impl<P: Provider> PodRole<P> {
    async fn iam(&self, session: &Session) -> Result<Iam> {
        Ok(Iam::new(&session.aws(&self.0.args().aws).await?))
    }

    async fn eks(&self, session: &Session, want: &Want) -> Result<Eks> {
        Ok(Eks::new(&session.aws(&self.0.args().aws).await?, want.cluster_name()))
    }
}

/// What hands out credentials on a cluster's nodes.
///
/// # Errors
/// EKS does not answer.
pub async fn agent(config: &SdkConfig, cluster: &str) -> Result<Agent> {
    Eks::new(config, cluster).agent().await
}

/// The role that a service account has by an association, if it has one.
///
/// # Errors
/// EKS does not answer.
pub async fn association(config: &SdkConfig, cluster: &str, namespace: &str, name: &str) -> Result<Option<String>> {
    let account: ServiceAccount = format!("{namespace}/{name}").parse().map_err(Error::failed)?;
    Ok(Eks::new(config, cluster).association(&account).await?.map(|association| association.role))
}

/// A role with everything on it; `None` if there is none of that name.
///
/// # Errors
/// IAM does not answer.
pub async fn role(config: &SdkConfig, name: &str) -> Result<Option<Role>> {
    Iam::new(config).role(name).await
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
