//! `ecr-push`: see [`EcrPush`].

mod archive;
mod aws;
mod binary;
mod builder;
mod client;
mod credentials;
mod image;
mod layer;
mod nodes;
mod oci;
mod plan;
mod pushed;
mod registry;
mod remote;
mod repository;
mod source;
mod users;

use anyhow::{Context, Result};
use aws::Ecr;
use common::arn::Arn;
use common::aws::AwsFlags;
use common::{Error, Session, Tool};
use oci_client::client::ClientProtocol;
use plan::{Change, Have, Want};
use pushed::Pushed;
use registry::Registry;
use repository::{RepositoryName, Settings};
use source::Source;
use std::collections::BTreeSet;
use std::process::ExitCode;
use tokio::time::timeout;
use users::Leaving;

/// Pushes an image to ECR, without a daemon.
///
/// The image comes from static programs (--binary), from an OCI layout or a
/// docker archive (--archive), is built by docker, podman or buildah (--context),
/// or is copied from another registry (--image), for nodes that cannot reach it
/// or are held up by its pull limit. The same input makes the same digest
/// everywhere; what the registry has is not sent again. Every image is also
/// tagged with the start of its digest, sha256-0123456789ab, out of reach of
/// lifecycle rules for untagged ones. The repository is made when it is missing,
/// and tagged with the clusters that use it: --delete by one of them leaves it to
/// the others. One that somebody else made is a conflict unless --adopt or --use.
/// When a cluster is known, an image that none of its nodes can run is refused.
/// Without a source, the image of the document must be there. An image of another
/// ECR needs ecr:GetDownloadUrlForLayer there.
///
///   Reads   cluster
///   Owns    images.NAME {digest, platforms, repository, settings, tag, uri}
///   Calls   ecr:DescribeRepositories ecr:ListTagsForResource ecr:BatchGetImage
///           ecr:CreateRepository ecr:TagResource ecr:UntagResource
///           ecr:GetAuthorizationToken ecr:BatchCheckLayerAvailability
///           ecr:InitiateLayerUpload ecr:UploadLayerPart ecr:CompleteLayerUpload
///           ecr:PutImage ecr:DescribeImages ecr:BatchDeleteImage
///           ecr:DeleteRepository eks:DescribeCluster eks:ListNodegroups
///           eks:DescribeNodegroup
///   Exits   0 done, 1 failed, 2 usage, 3 input, 4 conflict, 5 retry
///
/// Examples:
///   ecr-push web -n --region us-west-2 --repository shop/web \
///     --binary target/release/web | jq -r .images.web.uri
///   ecr-push web --archive web.tar --tag v1 < cluster.json |
///     manifest-apply web --file web.yaml
///   ecr-push envoy -n --cluster shop --image envoyproxy/envoy:v1.40.0 |
///     jq -r .images.envoy.uri
#[derive(Debug, clap::Parser)]
#[command(name = "ecr-push", version, verbatim_doc_comment)]
struct EcrPush {
    /// Name of the image: the key is images.NAME
    #[arg(default_value_if("schema", "true", "NAME"))]
    name: String,
    /// ECR repository [default: images.NAME.repository of the document, then NAME]
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// Also name the image by a tag
    #[arg(long)]
    tag: Option<String>,
    #[command(flatten)]
    source: Source,
    /// Take over a repository that somebody else made
    #[arg(long)]
    adopt: bool,
    /// Push into a repository that somebody else made, and leave it theirs; --delete takes only the image from it
    #[arg(long = "use", conflicts_with_all = ["adopt", "force"])]
    shared: bool,
    #[command(flatten)]
    settings: Settings,
    /// With --delete: also delete the other images of the repository
    #[arg(long, requires = "delete")]
    force: bool,
    /// With --delete: another cluster that no longer needs the image, of the same account and region as --cluster; repeatable
    #[arg(long, value_name = "NAME", requires = "delete")]
    and_cluster: Vec<String>,
    #[command(flatten)]
    aws: AwsFlags,
}

impl EcrPush {
    /// The registry of the repository. Its address knows best in which region it is, wherever the cluster is.
    async fn ecr(&self, session: &Session, want: &Want) -> Result<Ecr> {
        let region = want.region.clone().or(self.aws.region.clone());
        let config = session.aws(&AwsFlags { region, ..self.aws.clone() }).await?;
        Ok(Ecr::new(&config, want.account.as_deref()))
    }

    /// The clusters that no longer need the image. They may be gone already: what the document does not know of them is
    /// that they are where AWS is asked.
    async fn leaving(&self, session: &Session) -> Result<Vec<Leaving>> {
        let known: Option<String> = session.doc.read(&["cluster", "name"])?;
        let known = known.filter(|name| !name.is_empty());
        let arn: Option<String> = session.doc.read(&["cluster", "arn"])?;
        let mut leaving = Vec::new();
        for name in self.aws.cluster.as_ref().or(known.as_ref()).into_iter().chain(&self.and_cluster) {
            let arn = arn.as_deref().filter(|_| known.as_ref() == Some(name)).and_then(Arn::parse);
            let (region, account) = match arn {
                Some(Arn { region, account, .. }) => (region.to_owned(), Some(account.to_owned())),
                None => (session.aws(&self.aws).await?.region().map(ToString::to_string).unwrap_or_default(), None),
            };
            leaving.push(Leaving { name: name.clone(), region, account });
        }
        Ok(leaving)
    }

    async fn nodes(&self, session: &Session, want: &Want) -> Result<Option<BTreeSet<String>>> {
        let Some(cluster) = &want.cluster else { return Ok(None) };
        nodes::platforms(&session.aws(&self.aws).await?, cluster).await
    }

    async fn push(&self, session: &Session, ecr: &Ecr, want: &Want) -> Result<()> {
        let image = want.image.as_ref().context("there is no image to push")?;
        let registry = Registry::new(&want.repository, ClientProtocol::Https, async || ecr.pass().await);
        let bar = session.stderr.bar(0, "{bytes}/{total_bytes} {wide_bar} {bytes_per_sec}");
        let late = || {
            Error::retry(format!("push to {}: not done in time", want.repository)).hint("give it more with --timeout")
        };
        let sent = timeout(session.remaining(), registry.push(image, &bar)).await.map_err(|_| late())??;
        session.made(format!("image {}@{}", want.repository, image.top()?.digest));
        session.stderr.line(format_args!("sent {}", sent.of(image.blobs.len())));
        Ok(())
    }
}

impl Tool for EcrPush {
    type Section = Pushed;
    type Want = Want;

    fn key(&self) -> Vec<&str> {
        vec!["images", &self.name]
    }

    async fn want(&self, session: &mut Session, section: Option<Pushed>) -> Result<Want> {
        let section = section.unwrap_or_default();
        let repository = self.repository.as_deref().or(section.repository.as_deref()).unwrap_or(&self.name);
        let RepositoryName { account, region, name } = RepositoryName::parse(repository);
        let mut want = Want {
            repository: name,
            account,
            region,
            tag: self.tag.clone().or(section.tag),
            settings: self.settings.clone().or(section.settings),
            adopt: self.adopt,
            shared: self.shared,
            force: self.force,
            ..Want::default()
        };
        let cluster = self.aws.cluster.clone().or(session.doc.read(&["cluster", "name"])?);
        if session.flags.delete {
            want.leaving = self.leaving(session).await?;
        }
        if cluster.is_some() && self.source.is_given() && !session.flags.delete {
            want.cluster = Some(session.cluster(&self.aws).await?);
        }
        let ecr = self.ecr(session, &want).await?;
        // What a name stands for elsewhere may have changed since it was pushed.
        let goes = session.flags.delete && self.source.is_remote() && section.digest.is_some();
        if !goes {
            want.image = self.source.image(session, &ecr, &want, self.nodes(session, &want)).await?;
        }
        (want.digest, want.platforms) = match &want.image {
            Some(image) => image.digests(),
            None => (section.digest, section.platforms),
        };
        if want.digest.is_none() && !session.flags.delete {
            let hint = format!("give a source, such as --binary, or images.{}.digest in the document", self.name);
            return Err(Error::input("no image").hint(hint).into());
        }
        Ok(want)
    }

    async fn observe(&self, session: &Session, want: &Want) -> Result<Have> {
        let ecr = self.ecr(session, want).await?;
        let name = &want.repository;
        let image = async {
            let Some((digest, tag)) = want.digest.as_ref().zip(want.own_tag()) else { return Ok((None, false)) };
            ecr.image(name, digest, &tag).await
        };
        let tagged = async {
            let Some(tag) = &want.tag else { return Ok(None) };
            ecr.tagged(name, tag).await
        };
        let all = async { if session.flags.delete { ecr.images(name).await } else { Ok(Vec::new()) } };
        let (repository, (image, is_tagged), tagged, all, nodes) =
            tokio::try_join!(ecr.repository(name, !want.shared), image, tagged, all, self.nodes(session, want))?;
        let (image, tagged) = (image.as_ref().map(aws::found), tagged.map(|manifest| manifest.digest));
        Ok(Have { repository, image, is_tagged, tagged, all, nodes })
    }

    async fn apply(&self, session: &Session, want: &Want, change: Change) -> Result<()> {
        let ecr = self.ecr(session, want).await?;
        match change {
            Change::Create { repository } => {
                if ecr.create(&repository, &want.settings, want.cluster.as_ref()).await? {
                    session.made(format!("repository {repository}"));
                    return Ok(());
                }
                // As when two clusters' runs make it at the same time: both use it.
                ecr.note(&repository, want.cluster.as_ref()).await
            }
            Change::Adopt { arn, user } => ecr.adopt(&arn, user.as_ref()).await,
            Change::Use { repository, .. } => ecr.note(&repository, want.cluster.as_ref()).await,
            Change::Forget { arn, users } => ecr.forget(&arn, &users).await,
            Change::Push { .. } => self.push(session, &ecr, want).await,
            Change::Tag { repository, tag, digest } => {
                let manifest = match &want.image {
                    Some(image) => image.top()?.clone(),
                    None => ecr.manifest(&repository, &digest).await?.context("the image is gone")?,
                };
                ecr.tag(&repository, &tag, &manifest).await
            }
            Change::Untag { repository, tag } => ecr.untag(&repository, &tag).await,
            Change::DeleteImage { repository, digest } => ecr.delete_images(&repository, &[digest]).await,
            Change::DeletePlatforms { repository, digests } => ecr.delete_images(&repository, &digests).await,
            Change::DeleteRepository { repository, force } => ecr.delete_repository(&repository, force).await,
        }
    }

    fn outcome(want: Want, have: Have) -> Pushed {
        Pushed::found(want, have)
    }

    fn planned(want: Want, have: Have) -> Pushed {
        Pushed::planned(want, have)
    }
}

fn main() -> ExitCode {
    common::main::<EcrPush>()
}
