//! The IAM calls, one function each.

use crate::plan::Provider;
use anyhow::Result;
use aws_config::SdkConfig;
use aws_sdk_iam::Client;
use aws_sdk_iam::types::{Role, Tag};
use common::aws::{Call, OrAbsent};
use common::tags::{MANAGED_BY, foreign};
use percent_encoding::percent_decode_str;

pub struct Iam(Client);

impl Iam {
    pub fn new(config: &SdkConfig) -> Self {
        Self(Client::new(config))
    }

    pub async fn provider(&self, arn: &str) -> Result<Option<Provider>> {
        let answer = self.0.get_open_id_connect_provider().open_id_connect_provider_arn(arn).send().await;
        let provider =
            answer.or_absent(|error| error.is_no_such_entity_exception()).call("iam:GetOpenIDConnectProvider", arn)?;
        Ok(provider.map(|provider| Provider {
            foreign: foreign(provider.tags().iter().find(|tag| tag.key() == MANAGED_BY.0).map(Tag::value)),
            audiences: provider.client_id_list().to_vec(),
            trusting: Vec::new(),
        }))
    }

    /// The roles whose trust policy names a provider.
    pub async fn trusting(&self, provider: &str) -> Result<Vec<String>> {
        let named = format!("\"{provider}\"");
        let trusts = |role: &Role| {
            // IAM gives documents back URL-encoded.
            let document = percent_decode_str(role.assume_role_policy_document().unwrap_or_default());
            document.decode_utf8_lossy().contains(&named)
        };
        let roles = self.0.list_roles().into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
        let roles = roles.call("iam:ListRoles", provider)?;
        Ok(roles.into_iter().filter(trusts).map(|role| role.role_name).collect())
    }

    /// No thumbprint: IAM trusts EKS issuers by the public certificate authorities that signed them.
    pub async fn create(&self, url: &str, audiences: Vec<String>) -> Result<()> {
        let call = self.0.create_open_id_connect_provider().url(url).set_client_id_list(Some(audiences)).tags(tag()?);
        let answer = call.send().await.or_absent(|error| error.is_entity_already_exists_exception());
        answer.call("iam:CreateOpenIDConnectProvider", url).map(drop)
    }

    pub async fn add_audience(&self, arn: &str, audience: &str) -> Result<()> {
        let call = self.0.add_client_id_to_open_id_connect_provider().open_id_connect_provider_arn(arn);
        call.client_id(audience).send().await.call("iam:AddClientIDToOpenIDConnectProvider", arn).map(drop)
    }

    pub async fn adopt(&self, arn: &str) -> Result<()> {
        let call = self.0.tag_open_id_connect_provider().open_id_connect_provider_arn(arn).tags(tag()?);
        call.send().await.call("iam:TagOpenIDConnectProvider", arn).map(drop)
    }

    pub async fn delete(&self, arn: &str) -> Result<()> {
        let answer = self.0.delete_open_id_connect_provider().open_id_connect_provider_arn(arn).send().await;
        answer
            .or_absent(|error| error.is_no_such_entity_exception())
            .call("iam:DeleteOpenIDConnectProvider", arn)
            .map(drop)
    }
}

fn tag() -> Result<Tag> {
    Ok(Tag::builder().key(MANAGED_BY.0).value(MANAGED_BY.1).build()?)
}
