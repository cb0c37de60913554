//! Where an image comes from.

use crate::image::Image;
use crate::{archive, binary, builder};
use anyhow::{Context, Result};
use common::Stderr;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tokio::task::spawn_blocking;

/// The flags, of which one at most is given.
#[derive(Debug, clap::Args)]
#[group(id = "source", multiple = false)]
pub struct Source {
    /// Static Linux programs, put on an empty base with CA certificates; the image starts the first
    #[arg(long, value_name = "FILE", num_args = 1..)]
    binary: Vec<PathBuf>,
    /// An OCI layout or a docker archive; a folder, a tar, a tar.gz, or a pipe. - is stdin, with -n
    #[arg(long, value_name = "PATH", requires_if("-", "null_input"))]
    archive: Option<PathBuf>,
    /// Folder with a Dockerfile, built by docker, podman or buildah, whichever is there
    #[arg(long, value_name = "DIR")]
    context: Option<PathBuf>,
}

impl Source {
    pub fn is_given(&self) -> bool {
        !self.binary.is_empty() || self.archive.is_some() || self.context.is_some()
    }

    /// The image, if a source is given. `nodes` is asked only for what is built: it tells what to build for.
    pub async fn image(
        &self,
        tag: Option<&str>,
        nodes: impl Future<Output = Result<Option<BTreeSet<String>>>>,
        stderr: &Stderr,
    ) -> Result<Option<Image>> {
        if let Some(archive) = &self.archive {
            let (archive, tag) = (archive.clone(), tag.map(str::to_owned));
            // On a thread of its own: a pipe may never come to its end, and Ctrl-C must be heard.
            let image = spawn_blocking(move || archive::image(&archive, tag.as_deref()));
            return image.await.context("read the archive")?.map(Some);
        }
        if let Some(folder) = &self.context {
            return builder::image(folder, nodes.await?.as_ref(), stderr).await.map(Some);
        }
        if self.binary.is_empty() { Ok(None) } else { binary::image(&self.binary).map(Some) }
    }
}
