//! The ECR calls, one function each.

use crate::plan::{Have, Repository, Want};
use anyhow::{Context, Result};
use aws_config::SdkConfig;
use aws_sdk_ecr::Client;
use aws_sdk_ecr::types::{ImageIdentifier, Tag};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::aws::{Call, MANAGED_BY, OrAbsent};

pub struct Ecr(Client);

impl Ecr {
    pub fn new(config: &SdkConfig) -> Self {
        Self(Client::new(config))
    }

    pub async fn observe(&self, want: &Want) -> Result<Have> {
        let Some(repository) = self.repository(&want.repository).await? else { return Ok(Have::default()) };
        let images = self.images(&want.repository).await?;
        let (mut tags, mut others) = (None, Vec::new());
        for (digest, its_tags) in images {
            if Some(&digest) == want.digest.as_ref() { tags = Some(its_tags) } else { others.push(digest) }
        }
        Ok(Have { repository: Some(repository), tags, others })
    }

    pub async fn repository(&self, name: &str) -> Result<Option<Repository>> {
        let answer = self.0.describe_repositories().repository_names(name).send().await;
        let answer = answer
            .or_absent(|error| error.is_repository_not_found_exception())
            .call("ecr:DescribeRepositories", name)?;
        let Some(found) = answer.and_then(|answer| answer.repositories?.into_iter().next()) else { return Ok(None) };
        let uri = found.repository_uri.with_context(|| format!("repository {name} has no URI"))?;
        let arn = found.repository_arn.with_context(|| format!("repository {name} has no ARN"))?;
        let tags =
            self.0.list_tags_for_resource().resource_arn(arn).send().await.call("ecr:ListTagsForResource", name)?;
        let ours = tags.tags().iter().any(|tag| (tag.key(), tag.value()) == MANAGED_BY);
        Ok(Some(Repository { uri, ours }))
    }

    /// Digests and tags of all images.
    async fn images(&self, name: &str) -> Result<Vec<(String, Vec<String>)>> {
        let mut pages = self.0.describe_images().repository_name(name).into_paginator().items().send();
        let mut images = Vec::new();
        while let Some(image) = pages.next().await {
            let image = image.call("ecr:DescribeImages", name)?;
            images.extend(image.image_digest.map(|digest| (digest, image.image_tags.unwrap_or_default())));
        }
        Ok(images)
    }

    /// The ARN of the new repository.
    pub async fn create_repository(&self, name: &str) -> Result<String> {
        let tag = Tag::builder().key(MANAGED_BY.0).value(MANAGED_BY.1).build()?;
        let answer = self.0.create_repository().repository_name(name).tags(tag).send().await;
        let answer = answer
            .or_absent(|error| error.is_repository_already_exists_exception())
            .call("ecr:CreateRepository", name)?;
        Ok(answer.and_then(|answer| answer.repository?.repository_arn).unwrap_or_else(|| name.to_owned()))
    }

    /// The registry's password, valid for 12 hours; the user is `AWS`.
    pub async fn password(&self) -> Result<String> {
        let answer =
            self.0.get_authorization_token().send().await.call("ecr:GetAuthorizationToken", "of this registry")?;
        let token = answer.authorization_data().first().and_then(|data| data.authorization_token());
        let token = BASE64_STANDARD.decode(token.context("ecr:GetAuthorizationToken answered without a token")?)?;
        let (_, password) = std::str::from_utf8(&token)?.split_once(':').context("the token is not USER:PASSWORD")?;
        Ok(password.to_owned())
    }

    pub async fn delete_image(&self, name: &str, digest: &str) -> Result<()> {
        let image = ImageIdentifier::builder().image_digest(digest).build();
        let answer = self.0.batch_delete_image().repository_name(name).image_ids(image).send().await;
        answer.or_absent(|error| error.is_repository_not_found_exception()).call("ecr:BatchDeleteImage", name).map(drop)
    }

    pub async fn delete_repository(&self, name: &str, force: bool) -> Result<()> {
        let answer = self.0.delete_repository().repository_name(name).force(force).send().await;
        answer.or_absent(|error| error.is_repository_not_found_exception()).call("ecr:DeleteRepository", name).map(drop)
    }
}
