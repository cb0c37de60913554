//! `ecr-push`: see [`EcrPush`].

mod archive;
mod aws;
mod binary;
mod image;
mod nodes;
mod plan;
mod registry;

use anyhow::Result;
use aws::Ecr;
use common::aws::AwsFlags;
use common::{Error, Flags, Session, Tool};
use plan::{Change, Have, Want};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::ExitCode;

/// Pushes an image to ECR, without a daemon.
///
/// It makes the repository if there is none and sends what the registry lacks, blobs first, the manifest last. The same
/// input gives the same digest everywhere, and an image that is already there costs one question. If the cluster is
/// known, an image that none of its managed nodes can run is refused before anything is sent.
///
///   Reads   cluster (optional)
///   Owns    images.<name> {digest, repository, tag, uri}
///   Calls   ecr:DescribeRepositories ecr:ListTagsForResource ecr:CreateRepository ecr:TagResource ecr:DescribeImages
///           ecr:GetAuthorizationToken ecr:BatchCheckLayerAvailability ecr:InitiateLayerUpload ecr:UploadLayerPart
///           ecr:CompleteLayerUpload ecr:PutImage ecr:BatchDeleteImage ecr:DeleteRepository
///           eks:ListNodegroups eks:DescribeNodegroup
///   Exits   0 done, 1 failed, 2 usage, 3 input, 4 conflict, 5 retry
///
/// Examples:
///   ecr-push -n web --region us-west-2 --binary target/x86_64-unknown-linux-musl/release/web
///   ecr-push -n web --archive web.tar --tag v1 | jq -r .images.web.uri
#[derive(Debug, clap::Parser)]
#[command(name = "ecr-push", version, verbatim_doc_comment)]
struct EcrPush {
    /// The image's name in the document
    name: String,
    /// ECR repository [default: NAME]
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// Tag the image as well; the document always gets the digest
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Static binaries on an empty base, with CA certificates; the first is the entry point
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "archive")]
    binary: Vec<PathBuf>,
    /// An OCI layout or a docker archive, as a folder or a tar
    #[arg(long, value_name = "PATH")]
    archive: Option<PathBuf>,
    /// Push into a repository that crossmesh did not make
    #[arg(long)]
    adopt: bool,
    /// With --delete: remove our repository with every image in it
    #[arg(long, requires = "delete")]
    force: bool,
    #[command(flatten)]
    aws: AwsFlags,
    #[command(flatten)]
    flags: Flags,
}

/// One entry of the `images` key.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pushed {
    /// Digest of the manifest or index, `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// `ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY`
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    /// The tag, when one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    /// What a pod names: `REPOSITORY@DIGEST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
}

impl Tool for EcrPush {
    type Section = Pushed;
    type Want = Want;
    type Have = Have;
    type Change = Change;

    fn flags(&self) -> &Flags {
        &self.flags
    }

    fn key(&self) -> Vec<&str> {
        vec!["images", &self.name]
    }

    async fn want(&self, session: &mut Session, section: Option<Pushed>) -> Result<Want> {
        let image = match &self.archive {
            Some(archive) => Some(archive::read(archive)?),
            None if self.binary.is_empty() => None,
            None => Some(binary::image(&self.binary)?),
        };
        let (known, tag) =
            section.map_or((None, None), |pushed| (Some((pushed.digest, pushed.repository)), pushed.tag));
        let (digest, repository) = known.unwrap_or_default();
        let digest = image.as_ref().map(|image| image.digest.clone()).or(digest);
        if digest.is_none() && !self.flags.delete {
            return Err(Error::usage("no image").hint("give --binary or --archive").into());
        }
        if let Some(image) = image.as_ref().filter(|_| !self.flags.delete) {
            nodes::check(session, &self.aws, image).await?;
        }
        // After the first slash stands what ECR calls the repository; before it, the registry.
        let recorded = repository.and_then(|uri| Some(uri.split_once('/')?.1.to_owned()));
        let name = self.repository.clone().or(recorded).unwrap_or_else(|| self.name.clone());
        let tag = self.tag.clone().or(tag);
        Ok(Want { repository: name, tag, digest, image, adopt: self.adopt, force: self.force })
    }

    async fn observe(&self, session: &Session, want: &Want) -> Result<Have> {
        Ecr::new(session.aws(&self.aws).await?).observe(want).await
    }

    fn plan(want: &Want, have: &Have) -> Result<Vec<Change>> {
        plan::plan(want, have)
    }

    fn plan_delete(want: &Want, have: &Have) -> Result<Vec<Change>> {
        Ok(plan::plan_delete(want, have))
    }

    fn left_alone(want: &Want, have: &Have) -> Vec<String> {
        plan::left_alone(want, have)
    }

    async fn apply(&self, session: &Session, want: &Want, change: Change) -> Result<()> {
        let ecr = Ecr::new(session.aws(&self.aws).await?);
        match change {
            Change::CreateRepository { name } => {
                let arn = ecr.create_repository(&name).await?;
                session.made(arn);
                Ok(())
            }
            Change::Push { .. } | Change::Tag { .. } => {
                let Some(image) = &want.image else { return Err(Error::usage("no image to push").into()) };
                let repository = ecr.repository(&want.repository).await?;
                let repository =
                    repository.ok_or_else(|| Error::retry(format!("repository {} is gone", want.repository)))?;
                let password = ecr.password().await?;
                registry::push(session, &repository.uri, &password, image, want.tag.as_deref()).await
            }
            Change::DeleteImage { digest, .. } => ecr.delete_image(&want.repository, &digest).await,
            Change::DeleteRepository { name, .. } => ecr.delete_repository(&name, want.force).await,
        }
    }

    fn outcome(want: Want, have: Have) -> Pushed {
        let repository = have.repository.map(|repository| repository.uri);
        let uri = repository.as_ref().zip(want.digest.as_ref()).map(|(uri, digest)| format!("{uri}@{digest}"));
        Pushed { digest: want.digest, repository, tag: want.tag, uri }
    }
}

fn main() -> ExitCode {
    common::main::<EcrPush>()
}
