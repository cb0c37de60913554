//! Finds where an image comes from.

use crate::aws::Ecr;
use crate::image::Image;
use crate::plan::Want;
use crate::repository::RepositoryName;
use crate::{archive, binary, builder, credentials, remote};
use anyhow::{Context, Result};
use common::{Error, Session};
use oci_client::Reference;
use oci_client::secrets::RegistryAuth;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// The flags, of which one at most is given.
#[derive(Debug, clap::Args)]
#[group(id = "source", multiple = false)]
pub struct Source {
    /// Static Linux programs, put on an empty base with CA certificates; the image starts the first. Those for several
    /// architectures make an index
    #[arg(long, value_name = "FILE", num_args = 1..)]
    binary: Vec<PathBuf>,
    /// An OCI layout or a docker archive; a folder, a tar, a tar.gz, or a pipe. - is stdin, with -n
    #[arg(long, value_name = "PATH", requires_if("-", "null_input"))]
    archive: Option<PathBuf>,
    /// Folder with a Dockerfile, built by docker, podman or buildah, whichever is there
    #[arg(long, value_name = "DIR")]
    context: Option<PathBuf>,
    /// Image of another registry, copied with all its platforms; its login is docker's
    #[arg(long, value_name = "REF")]
    image: Option<Reference>,
}

impl Source {
    pub fn is_given(&self) -> bool {
        !self.binary.is_empty() || self.archive.is_some() || self.context.is_some() || self.image.is_some()
    }

    /// Whether it is in a registry, where it may be another one tomorrow.
    pub fn is_remote(&self) -> bool {
        self.image.is_some()
    }

    /// The image, if a source is given. `nodes` is asked only for what is built: it tells what to build for.
    pub async fn image(
        &self,
        session: &Session,
        ecr: &Ecr,
        want: &Want,
        nodes: impl Future<Output = Result<Option<BTreeSet<String>>>>,
    ) -> Result<Option<Image>> {
        if let Some(archive) = &self.archive {
            let (archive, tag) = (archive.clone(), want.tag.clone());
            // On a thread of its own: a pipe may never come to its end, and Ctrl-C must be heard.
            let image = spawn_blocking(move || archive::image(&archive, tag.as_deref()));
            return image.await.context("read the archive")?.map(Some);
        }
        if let Some(folder) = &self.context {
            return builder::image(folder, nodes.await?.as_ref(), &session.stderr).await.map(Some);
        }
        if let Some(name) = &self.image {
            let known = async |digest: &str| ecr.manifest(&want.repository, digest).await;
            let read = remote::image(name, async || login(name, ecr).await, known);
            let late = || Error::retry(format!("read {name}: not done in time")).hint("give it more with --timeout");
            return timeout(session.remaining(), read).await.map_err(|_| late())?.map(Some);
        }
        if self.binary.is_empty() { Ok(None) } else { binary::image(&self.binary).map(Some) }
    }
}

/// The login of an image's registry: docker's; without one, this caller's own where the registry is an ECR.
async fn login(name: &Reference, ecr: &Ecr) -> Result<RegistryAuth> {
    let registry = name.registry().to_owned();
    let found = spawn_blocking(move || credentials::find(&registry)).await.context("find the login")??;
    match (found, RepositoryName::parse(&name.to_string()).region) {
        (Some(login), _) => Ok(login),
        (None, Some(region)) => Ok(ecr.in_region(&region).pass().await?.auth),
        (None, None) => Ok(RegistryAuth::Anonymous),
    }
}
