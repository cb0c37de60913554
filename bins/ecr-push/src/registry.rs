//! The registry side of ECR: what the OCI distribution specification says about a push.

use crate::client::{client, distrust, is_unanswered};
use crate::image::{Blob, Content, Image, Manifest, Part};
use crate::remote;
use anyhow::{Context, Result};
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use common::Error;
use common::aws::{lacking, permit};
use futures::future::join_all;
use futures::stream::{BoxStream, try_unfold};
use futures::{Stream, StreamExt, TryStreamExt};
use http::HeaderValue;
use indicatif::{HumanBytes, ProgressBar};
use oci_client::client::{Client, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use std::future::ready;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Blobs under way at once. Source: docker's `max-concurrent-uploads` is 5, containerd's 3.
pub const PARALLEL: usize = 4;

/// Bytes read from a file at once.
const CHUNK: usize = 512 << 10;

/// What IAM calls the registry's requests. Source: "IAM permissions for pushing an image" of ECR's user guide.
const LOOK: &str = "ecr:BatchCheckLayerAvailability";
const SEND: &str = "ecr:InitiateLayerUpload, ecr:UploadLayerPart and ecr:CompleteLayerUpload";
const PUT: &str = "ecr:PutImage";

/// What lets a push in.
pub struct Pass {
    /// Of the registry.
    pub host: String,
    pub auth: RegistryAuth,
}

/// One repository of a registry. `T` gives a pass, and another when that one ends half way.
pub struct Registry<T> {
    repository: String,
    protocol: ClientProtocol,
    pass: T,
}

/// What a push had to send.
#[derive(Debug, Default, PartialEq)]
pub struct Sent {
    pub blobs: usize,
    pub bytes: u64,
    /// Blobs that the registry took over from another of its repositories.
    pub mounted: usize,
}

impl Sent {
    /// In words, out of so many blobs.
    pub fn of(&self, all: usize) -> String {
        let (blobs, size) = (self.blobs, HumanBytes(self.bytes));
        let mounted = match self.mounted {
            0 => String::new(),
            mounted => format!(", {mounted} taken over within the registry"),
        };
        format!("{blobs} of {all} blobs, {size}{mounted}")
    }
}

/// One attempt to send a blob failed.
enum Fault {
    /// It could not be read.
    Source(OciDistributionError),
    /// It was not taken.
    Target(OciDistributionError),
}

impl<T: AsyncFn() -> Result<Pass>> Registry<T> {
    pub fn new(repository: &str, protocol: ClientProtocol, pass: T) -> Self {
        Self { repository: repository.to_owned(), protocol, pass }
    }

    /// Sends the blobs that are missing, then the manifests, the one that is the image last.
    ///
    /// # Errors
    /// What the registry said, after retries of what may pass. A pass that ends is renewed as long as the one before
    /// was good for something.
    pub async fn push(&self, image: &Image, bar: &ProgressBar) -> Result<Sent> {
        let (mut sent, mut before) = (Sent::default(), usize::MAX);
        loop {
            let login = self.log_in().await?;
            let missing = login.missing(image).await?;
            let fewer = missing.len() < before;
            before = missing.len();
            let done = login.push(missing, &image.manifests, bar, &mut sent).await;
            if fewer && done.as_ref().is_err_and(has_ended) {
                continue;
            }
            bar.finish_and_clear();
            return done.map(|()| sent);
        }
    }

    async fn log_in(&self) -> Result<Login> {
        let Pass { host, auth } = (self.pass)().await?;
        let client = |whole| client(&host, self.protocol.clone(), whole);
        let (whole, pieces, repository) = (client(true)?, client(false)?, self.repository.clone());
        let login = Login { whole, pieces, host, repository, mounts: true.into() };
        for client in [&login.whole, &login.pieces] {
            client.store_auth_if_needed(&login.host, &auth).await;
        }
        // Once for all blobs, and for both at once: else the client asks how to log in for each of them. If that fails, so do
        // they, and are tried again.
        let any = login.reference("latest");
        let ways = [RegistryOperation::Pull, RegistryOperation::Push].map(|way| login.whole.auth(&any, &auth, way));
        join_all(ways).await;
        Ok(login)
    }
}

/// A repository of a registry that a pass has opened.
struct Login {
    /// Sends a blob in one piece: one request, as docker does.
    whole: Client,
    /// Sends it in pieces, for a registry or a proxy that refuses the other.
    pieces: Client,
    host: String,
    repository: String,
    /// Whether it may still be asked to take blobs over from other repositories: until it refuses one.
    mounts: AtomicBool,
}

impl Login {
    /// `sent` grows by each blob that has arrived.
    async fn push(
        &self,
        missing: Vec<&Blob>,
        manifests: &[Manifest],
        bar: &ProgressBar,
        sent: &mut Sent,
    ) -> Result<()> {
        bar.set_length(bar.position() + missing.iter().map(|blob| blob.size).sum::<u64>());
        let uploads = futures::stream::iter(missing).map(|blob| self.send(blob, bar)).buffer_unordered(PARALLEL);
        let arrived = uploads.try_for_each(|blob| {
            sent.blobs += blob.blobs;
            sent.bytes += blob.bytes;
            sent.mounted += blob.mounted;
            ready(Ok(()))
        });
        arrived.await?;
        for manifest in manifests {
            self.put(manifest).await?;
        }
        Ok(())
    }

    async fn missing<'a>(&self, image: &'a Image) -> Result<Vec<&'a Blob>> {
        let looks = futures::stream::iter(&image.blobs).map(async |blob| {
            let reference = self.reference(&blob.digest);
            let look = || self.whole.blob_exists(&reference, &blob.digest);
            let there = look.retry(pauses()).when(transient).await.map_err(|error| judged(error, LOOK));
            let there = there.with_context(|| format!("look for {} in {}", blob.digest, self.repository))?;
            anyhow::Ok((!there).then_some(blob))
        });
        looks.buffered(PARALLEL).try_filter_map(|missing| ready(Ok(missing))).try_collect().await
    }

    /// Sends a blob, or has it taken over.
    async fn send(&self, blob: &Blob, bar: &ProgressBar) -> Result<Sent> {
        if self.mount(blob).await {
            bar.inc(blob.size);
            return Ok(Sent { mounted: 1, ..Sent::default() });
        }
        let send = || async {
            match self.attempt(&self.whole, blob, bar).await {
                Err(Fault::Target(error)) if wants_pieces(&error) => self.attempt(&self.pieces, blob, bar).await,
                answer => answer,
            }
        };
        let may_pass = |fault: &Fault| match (fault, &blob.content) {
            (Fault::Target(error), _) => transient(error),
            (Fault::Source(error), Content::Remote(_)) => remote::is_transient(error),
            (Fault::Source(_), Content::Parts(_)) => false,
        };
        let sent = send.retry(pauses()).when(may_pass).await.map_err(|fault| match (fault, &blob.content) {
            (Fault::Target(error), _) => judged(error, SEND),
            (Fault::Source(error), Content::Remote(remote)) => remote.judged(error),
            (Fault::Source(error), Content::Parts(_)) => anyhow::Error::new(error).context("read it"),
        });
        sent.with_context(|| format!("send {} to {}", blob.digest, self.repository))?;
        Ok(Sent { blobs: 1, bytes: blob.size, mounted: 0 })
    }

    /// Has the registry take a blob over from another of its repositories, if it does so.
    async fn mount(&self, blob: &Blob) -> bool {
        let Content::Remote(source) = &blob.content else { return false };
        if source.host() != self.host || !self.mounts.load(Relaxed) {
            return false;
        }
        let (here, there) = (self.reference(&blob.digest), source.reference("latest"));
        let is_mounted = self.whole.mount_blob(&here, &there, &blob.digest).await.is_ok();
        self.mounts.store(is_mounted, Relaxed);
        is_mounted
    }

    async fn attempt(&self, client: &Client, blob: &Blob, bar: &ProgressBar) -> Result<(), Fault> {
        let sent = Arc::new(AtomicU64::new(0));
        // An error of the source ends the request, which then knows it only as its own.
        let unread = Arc::new(Mutex::new(None));
        let content = open(blob).await.map_err(Fault::Source)?;
        let content = content.map_err({
            let unread = unread.clone();
            move |error| {
                *lock(&unread) = Some(error);
                OciDistributionError::GenericError(None)
            }
        });
        let content = content.inspect_ok({
            let (sent, bar) = (sent.clone(), bar.clone());
            move |bytes| {
                sent.fetch_add(bytes.len() as u64, Relaxed);
                bar.inc(bytes.len() as u64);
            }
        });
        let reference = self.reference(&blob.digest);
        let answer = client.push_blob_stream(&reference, content, &blob.digest, Some(blob.size)).await;
        if answer.is_err() {
            bar.dec(sent.load(Relaxed));
        }
        let unread = lock(&unread).take();
        unread.map_or_else(|| answer.map(drop).map_err(Fault::Target), |error| Err(Fault::Source(error)))
    }

    async fn put(&self, manifest: &Manifest) -> Result<()> {
        let reference = self.reference(&manifest.digest);
        let kind = HeaderValue::from_str(&manifest.media_type).context("media type of the manifest")?;
        let put = || self.whole.push_manifest_raw(&reference, manifest.bytes.clone(), kind.clone());
        let done = put.retry(pauses()).when(transient).await.map_err(|error| judged(error, PUT));
        done.with_context(|| format!("put {} into {}", manifest.digest, self.repository)).map(drop)
    }

    /// By digest, but told to the client as a tag: given a digest, oci-client 0.18 panics at an answer without
    /// `Location`, and ECR's has none.
    fn reference(&self, digest: &str) -> Reference {
        Reference::with_tag(self.host.clone(), self.repository.clone(), digest.to_owned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a blob, to be read as it is sent.
async fn open(blob: &Blob) -> Result<BoxStream<'static, Result<Bytes, OciDistributionError>>, OciDistributionError> {
    Ok(match &blob.content {
        Content::Parts(parts) => {
            futures::stream::iter(parts.clone()).flat_map(pieces).map_err(OciDistributionError::from).boxed()
        }
        Content::Remote(remote) => remote.blob(&blob.digest).await?.boxed(),
    })
}

/// Reads a part piece by piece, each on a thread that may block.
fn pieces(part: Part) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let part = Arc::new(part);
    try_unfold(None::<Box<dyn Read + Send>>, move |reader| {
        let part = part.clone();
        let next = move || {
            let mut reader = reader.map_or_else(|| part.reader(), Ok)?;
            let mut piece = Vec::with_capacity(CHUNK);
            reader.by_ref().take(CHUNK as u64).read_to_end(&mut piece)?;
            Ok((!piece.is_empty()).then(|| (Bytes::from(piece), Some(reader))))
        };
        async { tokio::task::spawn_blocking(next).await? }
    })
}

/// At most five tries over some seconds.
pub fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default().with_min_delay(Duration::from_millis(200)).with_max_times(4).with_jitter()
}

/// Whether the same request may work a little later. 404 is one: a repository just made, or an upload the registry
/// has forgotten. 401 is one, too: oci-client goes on without the pass when its own first request fails.
fn transient(error: &OciDistributionError) -> bool {
    match status(error) {
        Some(status) => matches!(status, 401 | 404 | 408 | 429 | 500..),
        None => is_unanswered(error),
    }
}

pub fn status(error: &OciDistributionError) -> Option<u16> {
    match error {
        OciDistributionError::RequestError(error) => error.status().map(|status| status.as_u16()),
        OciDistributionError::ServerError { code, .. } => Some(*code),
        OciDistributionError::UnauthorizedError { .. } => Some(401),
        _ => None,
    }
}

/// Whether the registry refused it in these words. Source of the words used here: ECR's answers, and the error codes
/// of the OCI distribution specification.
fn says(error: &OciDistributionError, words: &str) -> bool {
    matches!(error, OciDistributionError::ServerError { code: 400..500, message, .. } if message.to_lowercase().contains(&words.to_lowercase()))
}

/// The pass was good and is not any more.
fn ended(error: &OciDistributionError) -> bool {
    says(error, "token has expired")
}

fn has_ended(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref()).any(ended)
}

/// Whether the registry, or a proxy before it, does not take a blob in one request.
fn wants_pieces(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::SpecViolationError(_) => true,
        OciDistributionError::ServerError { code, .. } => matches!(code, 405 | 411 | 413 | 501),
        _ => false,
    }
}

/// `action` is what the request needs; where the registry says it better, its word counts.
fn judged(error: OciDistributionError, action: &str) -> anyhow::Error {
    let said = error.to_string();
    let judgement = if ended(&error) {
        Error::retry("the registry's token ended").hint("run it again: it sends only what is missing")
    } else if says(&error, "DIGEST_INVALID") {
        Error::failed("it is not what its digest says").hint("the archive is damaged, or was changed meanwhile")
    } else if matches!(status(&error), Some(401 | 403)) || lacking(&said).is_some() {
        Error::failed("the registry refused it").hint(permit(&said, action))
    } else if let Some(distrust) = distrust(&error) {
        Error::failed("the registry's certificate is not trusted").hint(distrust.hint())
    } else if transient(&error) {
        Error::retry("the registry did not take it").hint("run it again: it sends only what is missing")
    } else {
        Error::failed("the registry refused it")
    };
    anyhow::Error::new(error).context(judgement)
}

#[cfg(test)]
pub mod tests;
