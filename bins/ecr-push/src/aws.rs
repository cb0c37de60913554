//! The ECR calls, one function each.

use crate::image::Manifest;
use crate::oci::{AnyManifest, INDEXES, MANIFESTS};
use crate::plan::{Found, Immutable, Listed, Repository};
use crate::registry::Pass;
use crate::repository::Settings;
use crate::users::User;
use anyhow::{Context, Result};
use aws_config::SdkConfig;
use aws_sdk_ecr::Client;
use aws_sdk_ecr::config::Region;
use aws_sdk_ecr::types::{
    self, EncryptionConfiguration, EncryptionType, ImageFailureCode, ImageIdentifier, ImageScanningConfiguration,
    ImageTagMutability, Tag,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::Error;
use common::aws::{Call, OrAbsent};
use common::cluster::Cluster;
use common::tags::{MANAGED_BY, USER_TAG, foreign};
use oci_client::secrets::RegistryAuth;
use std::collections::BTreeSet;

/// A registry.
pub struct Ecr {
    client: Client,
    /// Whose it is; the caller's own, if not said.
    account: Option<String>,
}

impl Ecr {
    pub fn new(config: &SdkConfig, account: Option<&str>) -> Self {
        Self { client: Client::new(config), account: account.map(str::to_owned) }
    }

    /// The caller's own, elsewhere.
    pub fn in_region(&self, region: &str) -> Self {
        let config = self.client.config().to_builder().region(Region::new(region.to_owned())).build();
        Self { client: Client::from_conf(config), account: None }
    }

    /// A repository. Whose it is, is looked at only if it matters.
    pub async fn repository(&self, name: &str, whose: bool) -> Result<Option<Repository>> {
        let call = self.client.describe_repositories().repository_names(name);
        let answer = call.set_registry_id(self.account.clone()).send().await;
        let answer = answer.or_absent(|error| error.is_repository_not_found_exception());
        let Some(found) = answer.call("ecr:DescribeRepositories", name)? else { return Ok(None) };
        let found =
            found.repositories.unwrap_or_default().pop().context("ecr:DescribeRepositories answered nothing")?;
        let (immutable, settings) = (immutable(&found), settings(&found));
        let arn = found.repository_arn.context("the repository has no ARN")?;
        let mut users = BTreeSet::new();
        let foreign = if whose {
            let answer = self.client.list_tags_for_resource().resource_arn(&arn).send().await;
            let answer = answer.or_absent(|error| error.is_repository_not_found_exception());
            let Some(tags) = answer.call("ecr:ListTagsForResource", name)? else { return Ok(None) };
            users.extend(tags.tags().iter().filter_map(|tag| {
                Some(User { key: tag.key().strip_prefix(USER_TAG)?.to_owned(), arn: tag.value().to_owned() })
            }));
            foreign(tags.tags().iter().find(|tag| tag.key() == MANAGED_BY.0).map(Tag::value))
        } else {
            None
        };
        Ok(Some(Repository {
            arn,
            uri: found.repository_uri.context("the repository has no URI")?,
            foreign,
            users,
            immutable,
            settings,
        }))
    }

    /// The manifest with a digest.
    pub async fn manifest(&self, repository: &str, digest: &str) -> Result<Option<Manifest>> {
        self.get(repository, ImageIdentifier::builder().image_digest(digest).build()).await
    }

    /// The manifest with a digest, and whether its own tag names it. One call in the steady state.
    pub async fn image(&self, repository: &str, digest: &str, own_tag: &str) -> Result<(Option<Manifest>, bool)> {
        match self.tagged(repository, own_tag).await? {
            Some(manifest) if manifest.digest == digest => Ok((Some(manifest), true)),
            _ => Ok((self.manifest(repository, digest).await?, false)),
        }
    }

    /// The manifest that a tag names.
    pub async fn tagged(&self, repository: &str, tag: &str) -> Result<Option<Manifest>> {
        self.get(repository, ImageIdentifier::builder().image_tag(tag).build()).await
    }

    async fn get(&self, repository: &str, id: ImageIdentifier) -> Result<Option<Manifest>> {
        let call = self
            .client
            .batch_get_image()
            .set_registry_id(self.account.clone())
            .repository_name(repository)
            .image_ids(id);
        let answer = call.set_accepted_media_types(Some(MANIFESTS.map(str::to_owned).to_vec())).send().await;
        let answer = answer.or_absent(|error| error.is_repository_not_found_exception());
        let Some(answer) = answer.call("ecr:BatchGetImage", repository)? else { return Ok(None) };
        if let Some(failure) =
            answer.failures().iter().find(|failure| failure.failure_code() != Some(&ImageFailureCode::ImageNotFound))
        {
            let reason = failure.failure_reason().unwrap_or("no reason given");
            return Err(Error::failed(format!("ecr:BatchGetImage {repository}: {reason}")).into());
        }
        let Some(image) = answer.images.unwrap_or_default().pop() else { return Ok(None) };
        let bytes = Bytes::from(image.image_manifest.context("the image has no manifest")?);
        let digest = image.image_id.and_then(|id| id.image_digest).context("the image has no digest")?;
        Ok(Some(Manifest { digest, media_type: image.image_manifest_media_type.unwrap_or_default(), bytes }))
    }

    /// Every image, with its tags and what it names.
    pub async fn images(&self, repository: &str) -> Result<Vec<Listed>> {
        let answer = self
            .client
            .describe_images()
            .set_registry_id(self.account.clone())
            .repository_name(repository)
            .into_paginator()
            .items()
            .send();
        let answer = answer.try_collect().await.or_absent(|error| error.is_repository_not_found_exception());
        let images = answer.call("ecr:DescribeImages", repository)?.unwrap_or_default();
        let mut listed = Vec::new();
        for image in images {
            let is_index = image.image_manifest_media_type().is_some_and(|kind| INDEXES.contains(&kind));
            let Some(digest) = image.image_digest else { continue };
            let index = if is_index { self.manifest(repository, &digest).await? } else { None };
            let children = index.as_ref().map(|index| found(index).children).unwrap_or_default();
            listed.push(Listed { digest, tags: image.image_tags.unwrap_or_default(), children });
        }
        Ok(listed)
    }

    /// Makes a repository of ours, for a cluster if one is known; false if somebody has made it meanwhile.
    pub async fn create(&self, repository: &str, settings: &Settings, user: Option<&Cluster>) -> Result<bool> {
        let scanning = ImageScanningConfiguration::builder().scan_on_push(true).build();
        let encryption = EncryptionConfiguration::builder().encryption_type(EncryptionType::Kms);
        let encryption = settings.kms_key.as_ref().map(|key| encryption.kms_key(key).build()).transpose()?;
        let user = user.map(|cluster| User::noted(cluster, &BTreeSet::new()));
        let call = self.client.create_repository().set_registry_id(self.account.clone());
        let call = call.repository_name(repository).set_tags(Some(tags(user.as_ref())?));
        let call = call.set_image_scanning_configuration(settings.scan_on_push.then_some(scanning));
        let answer = call.set_encryption_configuration(encryption).send().await;
        let answer = answer.or_absent(|error| error.is_repository_already_exists_exception());
        Ok(answer.call("ecr:CreateRepository", repository)?.is_some())
    }

    /// Makes a repository ours, for a cluster if one is known.
    pub async fn adopt(&self, arn: &str, user: Option<&User>) -> Result<()> {
        let call = self.client.tag_resource().resource_arn(arn).set_tags(Some(tags(user)?));
        call.send().await.call("ecr:TagResource", arn).map(drop)
    }

    /// Notes that a cluster uses a repository, if it is ours.
    pub async fn note(&self, repository: &str, user: Option<&Cluster>) -> Result<()> {
        let found = self.repository(repository, true).await?;
        match found.filter(|found| found.foreign.is_none()).zip(user) {
            Some((found, user)) => self.adopt(&found.arn, Some(&User::noted(user, &found.users))).await,
            None => Ok(()),
        }
    }

    /// Forgets that clusters use a repository.
    pub async fn forget(&self, arn: &str, users: &[User]) -> Result<()> {
        let keys = users.iter().map(|user| format!("{USER_TAG}{}", user.key)).collect();
        let answer = self.client.untag_resource().resource_arn(arn).set_tag_keys(Some(keys)).send().await;
        let answer = answer.or_absent(|error| error.is_repository_not_found_exception());
        answer.call("ecr:UntagResource", arn).map(drop)
    }

    /// What opens the registry for twelve hours: every one that the caller may use, in its region.
    pub async fn pass(&self) -> Result<Pass> {
        let answer =
            self.client.get_authorization_token().send().await.call("ecr:GetAuthorizationToken", "registry")?;
        let data = answer.authorization_data.unwrap_or_default().pop();
        let data = data.context("ecr:GetAuthorizationToken gave none")?;
        let host = data.proxy_endpoint().and_then(|url| url.strip_prefix("https://"));
        let token = data.authorization_token().and_then(|token| String::from_utf8(STANDARD.decode(token).ok()?).ok());
        let login = token.as_deref().and_then(|token| token.split_once(':'));
        let (host, (user, password)) = host.zip(login).context("ecr:GetAuthorizationToken gave an unknown shape")?;
        let host = match (&self.account, host.split_once('.')) {
            (Some(account), Some((_, domain))) => format!("{account}.{domain}"),
            _ => host.to_owned(),
        };
        Ok(Pass { host, auth: RegistryAuth::Basic(user.to_owned(), password.to_owned()) })
    }

    /// Lets a tag name a manifest that is there.
    pub async fn tag(&self, repository: &str, tag: &str, manifest: &Manifest) -> Result<()> {
        let text = String::from_utf8(manifest.bytes.to_vec()).context("the manifest is no text")?;
        let call = self
            .client
            .put_image()
            .set_registry_id(self.account.clone())
            .repository_name(repository)
            .image_tag(tag)
            .image_digest(&manifest.digest);
        let call = call.image_manifest(text).image_manifest_media_type(&manifest.media_type);
        let answer = call.send().await.or_absent(|error| error.is_image_already_exists_exception());
        let immutable = answer.as_ref().err().and_then(|error| error.as_service_error());
        let immutable = immutable.is_some_and(|error| error.is_image_tag_already_exists_exception());
        let answer = answer.call("ecr:PutImage", format!("{repository}:{tag}")).map(drop);
        if immutable {
            let error = Error::conflict(format!("tag {repository}:{tag} is immutable and names another image"));
            return answer.context(error.hint("give another --tag"));
        }
        answer
    }

    pub async fn untag(&self, repository: &str, tag: &str) -> Result<()> {
        self.remove(repository, vec![ImageIdentifier::builder().image_tag(tag).build()]).await
    }

    pub async fn delete_images(&self, repository: &str, digests: &[String]) -> Result<()> {
        let id = |digest| ImageIdentifier::builder().image_digest(digest).build();
        self.remove(repository, digests.iter().map(id).collect()).await
    }

    /// What is gone, or what another index names, is no error.
    async fn remove(&self, repository: &str, ids: Vec<ImageIdentifier>) -> Result<()> {
        let answer = self
            .client
            .batch_delete_image()
            .set_registry_id(self.account.clone())
            .repository_name(repository)
            .set_image_ids(Some(ids))
            .send()
            .await;
        let answer = answer.or_absent(|error| error.is_repository_not_found_exception());
        let Some(answer) = answer.call("ecr:BatchDeleteImage", repository)? else { return Ok(()) };
        for failure in answer.failures() {
            match failure.failure_code() {
                Some(ImageFailureCode::ImageNotFound | ImageFailureCode::ImageReferencedByManifestList) => {}
                _ => {
                    let reason = failure.failure_reason().unwrap_or("no reason given");
                    return Err(Error::failed(format!("ecr:BatchDeleteImage {repository}: {reason}")).into());
                }
            }
        }
        Ok(())
    }

    pub async fn delete_repository(&self, repository: &str, force: bool) -> Result<()> {
        let answer = self
            .client
            .delete_repository()
            .set_registry_id(self.account.clone())
            .repository_name(repository)
            .force(force)
            .send()
            .await;
        let answer = answer.or_absent(|error| error.is_repository_not_found_exception());
        answer.call("ecr:DeleteRepository", repository).map(drop)
    }
}

/// What the image names, being an index.
pub fn found(manifest: &Manifest) -> Found {
    let read = serde_json::from_slice::<AnyManifest>(&manifest.bytes).ok();
    let children = read.and_then(|read| read.manifests).unwrap_or_default();
    Found { children: children.into_iter().map(|child| child.digest).collect() }
}

fn settings(repository: &types::Repository) -> Settings {
    Settings {
        kms_key: repository.encryption_configuration().and_then(|it| it.kms_key()).map(str::to_owned),
        scan_on_push: repository.image_scanning_configuration().is_some_and(|it| it.scan_on_push()),
    }
}

fn immutable(repository: &types::Repository) -> Immutable {
    use ImageTagMutability::{Immutable as All, ImmutableWithExclusion, MutableWithExclusion};
    let filters = repository.image_tag_mutability_exclusion_filters().iter();
    let filters = filters.map(|filter| filter.filter().to_owned()).collect();
    match repository.image_tag_mutability {
        Some(All) => Immutable::Except(Vec::new()),
        Some(ImmutableWithExclusion) => Immutable::Except(filters),
        Some(MutableWithExclusion) => Immutable::Only(filters),
        _ => Immutable::Only(Vec::new()),
    }
}

fn tags(user: Option<&User>) -> Result<Vec<Tag>> {
    let ours = (MANAGED_BY.0.to_owned(), MANAGED_BY.1);
    let user = user.map(|user| (format!("{USER_TAG}{}", user.key), user.arn.as_str()));
    let tag = |(key, value)| Ok(Tag::builder().key(key).value(value).build()?);
    std::iter::once(ours).chain(user).map(tag).collect()
}
