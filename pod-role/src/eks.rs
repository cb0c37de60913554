//! The EKS calls, one function each.

use crate::association::{AGENT, Agent, Association, Associations};
use crate::iam::SETTLING;
use crate::service_account::ServiceAccount;
use anyhow::Result;
use aws_config::SdkConfig;
use aws_sdk_eks::Client;
use aws_sdk_eks::config::http::HttpResponse;
use aws_sdk_eks::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_eks::types::AddonStatus;
use common::aws::{Call, OrAbsent};
use common::{Found, Session};
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Instant;

/// One cluster.
pub struct Eks {
    client: Client,
    cluster: String,
}

impl Eks {
    pub fn new(config: &SdkConfig, cluster: &str) -> Self {
        Self { client: Client::new(config), cluster: cluster.to_owned() }
    }

    /// A service account has one at most.
    pub async fn association(&self, account: &ServiceAccount) -> Result<Option<Association>> {
        let call = self.client.list_pod_identity_associations().cluster_name(&self.cluster);
        let call = call.namespace(account.namespace()).service_account(account.name());
        // A cluster that is gone has none.
        let listed = call.send().await.or_absent(|error| error.is_resource_not_found_exception());
        let listed = listed.call("eks:ListPodIdentityAssociations", account)?;
        let id = listed.and_then(|listed| listed.associations().first()?.association_id().map(str::to_owned));
        match id {
            Some(id) => self.describe(account, id).await,
            None => Ok(None),
        }
    }

    /// All of the cluster.
    pub async fn associations(&self) -> Result<Associations> {
        let call = self.client.list_pod_identity_associations().cluster_name(&self.cluster);
        let listed = call.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
        let listed = listed.or_absent(|error| error.is_resource_not_found_exception());
        let mut found = Associations::new();
        for listed in listed.call("eks:ListPodIdentityAssociations", &self.cluster)?.unwrap_or_default() {
            let (namespace, name) =
                (listed.namespace().unwrap_or_default(), listed.service_account().unwrap_or_default());
            // A name that cannot be given here is not ours.
            let Ok(account) = format!("{namespace}/{name}").parse::<ServiceAccount>() else { continue };
            let association = self.describe(&account, listed.association_id.unwrap_or_default()).await?;
            found.extend(association.map(|association| (account, association)));
        }
        Ok(found)
    }

    async fn describe(&self, account: &ServiceAccount, id: String) -> Result<Option<Association>> {
        let call = self.client.describe_pod_identity_association().cluster_name(&self.cluster);
        let answer = call.association_id(&id).send().await;
        let answer = answer.or_absent(|error| error.is_resource_not_found_exception());
        let answer = answer.call("eks:DescribePodIdentityAssociation", account)?;
        Ok(answer.and_then(|answer| answer.association).map(|found| Association {
            id,
            arn: found.association_arn.unwrap_or_default(),
            role: found.role_arn.unwrap_or_default(),
            session_tags: found.disable_session_tags != Some(true),
            tags: found.tags.unwrap_or_default().into_iter().collect(),
        }))
    }

    pub async fn associate(
        &self,
        session: &Session,
        account: &ServiceAccount,
        role: &str,
        tags: BTreeMap<String, String>,
    ) -> Result<()> {
        let create = async || {
            let call = self.client.create_pod_identity_association().cluster_name(&self.cluster).role_arn(role);
            let call = call.namespace(account.namespace()).service_account(account.name());
            let answer = call.set_tags(Some(tags.clone().into_iter().collect())).send().await;
            answer.or_absent(|error| error.is_resource_in_use_exception())
        };
        settled(session, "eks:CreatePodIdentityAssociation", account, create).await
    }

    pub async fn reassociate(&self, session: &Session, account: &ServiceAccount, id: &str, role: &str) -> Result<()> {
        let update = async || {
            let call = self.client.update_pod_identity_association().cluster_name(&self.cluster).association_id(id);
            call.role_arn(role).disable_session_tags(false).send().await
        };
        settled(session, "eks:UpdatePodIdentityAssociation", account, update).await
    }

    pub async fn tag(&self, account: &ServiceAccount, arn: &str, tags: BTreeMap<String, String>) -> Result<()> {
        let call = self.client.tag_resource().resource_arn(arn).set_tags(Some(tags.into_iter().collect()));
        call.send().await.call("eks:TagResource", account).map(drop)
    }

    pub async fn dissociate(&self, account: &ServiceAccount, id: &str) -> Result<()> {
        let call = self.client.delete_pod_identity_association().cluster_name(&self.cluster).association_id(id);
        let answer = call.send().await.or_absent(|error| error.is_resource_not_found_exception());
        answer.call("eks:DeletePodIdentityAssociation", account).map(drop)
    }

    /// Auto Mode brings the agent along, without an add-on.
    pub async fn agent(&self) -> Result<Agent> {
        let answer = self.client.describe_addon().cluster_name(&self.cluster).addon_name(AGENT).send().await;
        let answer =
            answer.or_absent(|error| error.is_resource_not_found_exception()).call("eks:DescribeAddon", AGENT)?;
        match answer.and_then(|answer| answer.addon).and_then(|addon| addon.status) {
            Some(AddonStatus::Active | AddonStatus::Updating) => Ok(Agent::There),
            Some(status) => Ok(Agent::Troubled(status.to_string())),
            None if self.is_auto().await? => Ok(Agent::There),
            None => Ok(Agent::Absent),
        }
    }

    async fn is_auto(&self) -> Result<bool> {
        let answer = self.client.describe_cluster().name(&self.cluster).send().await;
        let answer = answer.or_absent(|error| error.is_resource_not_found_exception());
        let cluster = answer.call("eks:DescribeCluster", &self.cluster)?.and_then(|answer| answer.cluster);
        Ok(cluster.is_some_and(|cluster| cluster.compute_config().and_then(|it| it.enabled()) == Some(true)))
    }
}

/// Makes a change for which EKS must see the role as it now is: a role that was made, or trusts EKS, since a moment ago is
/// an invalid parameter at first.
async fn settled<T, E>(
    session: &Session,
    action: &'static str,
    account: &ServiceAccount,
    change: impl AsyncFn() -> Result<T, SdkError<E, HttpResponse>>,
) -> Result<()>
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    let started = Instant::now();
    let unseen = |error: &SdkError<E, HttpResponse>| {
        let said = error.as_service_error().map(ProvideErrorMetadata::meta);
        said.is_some_and(|said| {
            let words = said.message().unwrap_or_default();
            said.code() == Some("InvalidParameterException") && words.to_lowercase().contains("role")
        })
    };
    let look = async || match change().await {
        Err(error) if unseen(&error) && started.elapsed() < SETTLING => {
            Ok(Found::NotYet("EKS does not see the role as it is yet".to_owned()))
        }
        answer => answer.call(action, account).map(|_| Found::Ready(())),
    };
    session.wait(format_args!("association of {account}"), look).await
}
