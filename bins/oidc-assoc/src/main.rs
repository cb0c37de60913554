//! `oidc-assoc`: see [`OidcAssoc`].

mod aws;
mod plan;

use anyhow::Result;
use aws::Iam;
use common::aws::AwsFlags;
use common::{Found, Session, Tool};
use plan::{Change, Provider, Want};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The audience of the tokens that EKS projects into pods for AWS. A name and no address: the same in every partition.
const STS_AUDIENCE: &str = "sts.amazonaws.com";

/// How long a server of IAM may list a role that is gone.
const LISTED: Duration = Duration::from_secs(10);

/// Registers a cluster's OIDC issuer as an identity provider in IAM.
///
/// With it, IAM believes the service account tokens of the cluster, and a role
/// may trust one of its service accounts (see irsa-role). A provider that others
/// made is used: a missing audience is added, nothing else of it changes, and
/// --delete leaves it, as it does one that roles still trust. Only the issuer
/// matters: a private API endpoint is never asked.
///
///   Reads   cluster
///   Owns    oidc {arn, audiences, url}
///   Calls   eks:DescribeCluster iam:GetOpenIDConnectProvider
///           iam:CreateOpenIDConnectProvider iam:TagOpenIDConnectProvider
///           iam:AddClientIDToOpenIDConnectProvider
///           iam:ListRoles iam:DeleteOpenIDConnectProvider
///   Exits   0 done, 1 failed, 2 usage, 3 input, 4 conflict, 5 retry
///
/// Examples:
///   oidc-assoc -n --cluster prod --region us-west-2
///   oidc-assoc -n --cluster prod |
///     irsa-role --service-account kube-system/ebs-csi-controller-sa \
///     --policy AmazonEBSCSIDriverPolicy
#[derive(Debug, clap::Parser)]
#[command(name = "oidc-assoc", version, verbatim_doc_comment)]
struct OidcAssoc {
    /// Take over a provider that others made, so that --delete removes it
    #[arg(long)]
    adopt: bool,
    #[command(flatten)]
    aws: AwsFlags,
}

/// The `oidc` key.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Oidc {
    /// ARN of the provider; read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    arn: Option<String>,
    /// Audiences (client ids) that must be allowed. Others that are allowed already stay.
    #[serde(default)]
    audiences: Vec<String>,
    /// The issuer; read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl Tool for OidcAssoc {
    type Section = Oidc;
    type Want = Want;

    fn key(&self) -> Vec<&str> {
        vec!["oidc"]
    }

    async fn want(&self, session: &mut Session, section: Option<Oidc>) -> Result<Want> {
        let cluster = session.own_cluster(&self.aws).await?;
        let audiences = section.map(|oidc| oidc.audiences).filter(|audiences| !audiences.is_empty());
        Ok(Want {
            arn: cluster.oidc_provider()?,
            audiences: audiences.unwrap_or_else(|| vec![STS_AUDIENCE.to_owned()]),
            url: cluster.issuer,
            adopt: self.adopt,
        })
    }

    async fn observe(&self, session: &Session, want: &Want) -> Result<Option<Provider>> {
        let iam = Iam::new(&session.aws(&self.aws).await?);
        let mut provider = iam.provider(&want.arn).await?;
        if let Some(ours) = provider.as_mut().filter(|it| session.flags.delete && it.foreign.is_none()) {
            ours.trusting = trusting(session, &iam, &want.arn).await?;
        }
        Ok(provider)
    }

    async fn apply(&self, session: &Session, want: &Want, change: Change) -> Result<()> {
        let iam = Iam::new(&session.aws(&self.aws).await?);
        match change {
            Change::Create { url, audiences } => {
                iam.create(&url, audiences).await?;
                session.made(&want.arn);
                Ok(())
            }
            Change::Adopt { arn } => iam.adopt(&arn).await,
            Change::AddAudience { arn, audience } => iam.add_audience(&arn, &audience).await,
            Change::Delete { arn } => iam.delete(&arn).await,
        }
    }

    fn outcome(want: Want, _have: Option<Provider>) -> Oidc {
        Oidc { arn: Some(want.arn), audiences: want.audiences, url: Some(want.url) }
    }
}

/// The roles that trust a provider, but for those whose removal is planned before.
async fn trusting(session: &Session, iam: &Iam, provider: &str) -> Result<Vec<String>> {
    let (planned, started) = (session.doc.planned_removals()?, Instant::now());
    let look = async || {
        let mut roles = iam.trusting(provider).await?;
        roles.retain(|role| !planned.contains(&format!("delete role {role}")));
        if roles.is_empty() || session.flags.plan || started.elapsed() > LISTED {
            return Ok(Found::Ready(roles));
        }
        Ok(Found::NotYet(format!("IAM lists {}", roles.join(", "))))
    };
    session.wait(format_args!("the end of the roles that trust {provider}"), look).await
}

fn main() -> ExitCode {
    common::main::<OidcAssoc>()
}
