//! The IAM calls, one function each.

use crate::plan::Provider;
use anyhow::Result;
use aws_config::SdkConfig;
use aws_sdk_iam::Client;
use aws_sdk_iam::types::Tag;
use common::aws::{Call, MANAGED_BY, OrAbsent};

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
            ours: provider.tags().iter().any(|tag| (tag.key(), tag.value()) == MANAGED_BY),
            audiences: provider.client_id_list().to_vec(),
        }))
    }

    /// No thumbprint: IAM trusts EKS issuers by the public certificate authorities that signed them.
    pub async fn create(&self, url: &str, audiences: Vec<String>) -> Result<()> {
        let tag = Tag::builder().key(MANAGED_BY.0).value(MANAGED_BY.1).build()?;
        let call = self.0.create_open_id_connect_provider().url(url).set_client_id_list(Some(audiences)).tags(tag);
        let answer = call.send().await.or_absent(|error| error.is_entity_already_exists_exception());
        answer.call("iam:CreateOpenIDConnectProvider", url).map(drop)
    }

    pub async fn add_audience(&self, arn: &str, audience: &str) -> Result<()> {
        let call = self.0.add_client_id_to_open_id_connect_provider().open_id_connect_provider_arn(arn);
        call.client_id(audience).send().await.call("iam:AddClientIDToOpenIDConnectProvider", arn).map(drop)
    }

    pub async fn delete(&self, arn: &str) -> Result<()> {
        let answer = self.0.delete_open_id_connect_provider().open_id_connect_provider_arn(arn).send().await;
        answer
            .or_absent(|error| error.is_no_such_entity_exception())
            .call("iam:DeleteOpenIDConnectProvider", arn)
            .map(drop)
    }
}
