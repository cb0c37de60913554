//! `--image`: reads an image from another registry, with all its platforms.
//!
//! Manifests are read at once: what they say decides what is to do. What the repository has already is not asked of the
//! other registry, which may count the manifests it gives (Docker Hub's pull limit). Blobs are read as they are sent on.

use crate::client::{client, distrust, is_unanswered};
use crate::image::{Blob, Content, Image, Manifest, Part, digest, sha256};
use crate::oci::{AnyManifest, Descriptor, INDEXES, MANIFEST, MANIFESTS, Platform, platforms};
use crate::registry::{PARALLEL, pauses, status};
use anyhow::{Context, Result};
use backon::Retryable;
use bytes::Bytes;
use common::Error;
use futures::future::LocalBoxFuture;
use futures::stream::try_unfold;
use futures::{Stream, StreamExt, TryStreamExt};
use http::HeaderValue;
use oci_client::client::{Client, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use std::fmt;
use std::net::IpAddr;

/// An index may name an index; deeper than this is no image. Source: what ECR and Docker accept is two.
const DEPTH: usize = 4;

/// A configuration is read for its platform unless it is larger than any is. Source: registries refuse a manifest of more
/// than 4 MiB.
const CONFIG: u64 = 4 << 20;

/// A repository of another registry.
#[derive(Clone)]
pub struct Remote {
    client: Client,
    /// Where it is asked.
    host: String,
    /// The name it goes by.
    registry: String,
    repository: String,
    anonymous: bool,
}

/// Reads an image, its blobs excepted. `login` is asked for when the registry is; `known` gives the manifests that need not
/// be read.
///
/// # Errors
/// There is no such image, or it may not be read; the registry cannot be reached, or gives what is no image.
pub async fn image(
    name: &Reference,
    login: impl AsyncFnOnce() -> Result<RegistryAuth>,
    known: impl AsyncFn(&str) -> Result<Option<Manifest>>,
) -> Result<Image> {
    if let Some(digest) = name.digest()
        && let Some(manifest) = known(digest).await?
    {
        return Ok(Image::there(manifest));
    }
    let remote = Remote::new(name, &login().await?).await.with_context(|| format!("read {name}"))?;
    let read = async {
        let digest = match name.digest() {
            Some(digest) => digest.to_owned(),
            None => remote.digest(name).await?,
        };
        remote.read(Descriptor::new("", &digest, 0), &known, DEPTH).await
    };
    let mut image = read.await.with_context(|| format!("read {name}"))?;
    if let Some(top) = image.manifests.last_mut() {
        // ECR names a manifest by its sha256.
        top.digest = sha256(&top.bytes);
    }
    Ok(image)
}

impl Remote {
    async fn new(name: &Reference, login: &RegistryAuth) -> Result<Self> {
        // Docker Hub's registry has another name than Docker Hub.
        let host = if name.registry() == "docker.io" { "registry-1.docker.io" } else { name.registry() }.to_owned();
        let protocol = if is_loopback(&host) { ClientProtocol::Http } else { ClientProtocol::Https };
        let client = client(&host, protocol, true)?;
        let anonymous = *login == RegistryAuth::Anonymous;
        let (registry, repository) = (name.registry().to_owned(), name.repository().to_owned());
        let remote = Self { client, host, registry, repository, anonymous };
        let reference = remote.reference("latest");
        let auth = || remote.client.auth(&reference, login, RegistryOperation::Pull);
        let token = auth.retry(pauses()).when(is_transient).await.map_err(|error| remote.judged(error))?;
        // It becomes a header without further question.
        if token.is_some_and(|token| HeaderValue::from_str(&token).is_err()) {
            return Err(Error::failed(format!("{} gave a token that is none", remote.registry)).into());
        }
        Ok(remote)
    }

    /// The digest that a name has there.
    async fn digest(&self, name: &Reference) -> Result<String> {
        let reference = self.reference(name.tag().unwrap_or("latest"));
        let ask = || self.client.fetch_manifest_digest(&reference, &RegistryAuth::Anonymous);
        ask.retry(pauses()).when(is_transient).await.map_err(|error| self.judged(error))
    }

    /// Reads a manifest and all that it names.
    fn read<'a>(
        &'a self,
        descriptor: Descriptor,
        known: &'a impl AsyncFn(&str) -> Result<Option<Manifest>>,
        depth: usize,
    ) -> LocalBoxFuture<'a, Result<Image>> {
        let read = async move {
            let named = &descriptor.digest;
            if depth == 0 {
                return Err(Error::failed(format!("{named}: indexes within indexes")).into());
            }
            if let Some(manifest) = known(named).await? {
                return Ok(Image::there(manifest));
            }
            let (manifest, read) = self.manifest(named).await?;
            let Some(children) = read.manifests else { return self.single(manifest, read, descriptor.platform).await };
            let parts = futures::stream::iter(children.clone()).map(|child| self.read(child, known, depth - 1));
            let parts: Vec<Image> = parts.buffered(PARALLEL).try_collect().await?;
            let mut image = Image::default();
            parts.into_iter().for_each(|part| image.join(part));
            image.platforms.extend(platforms(&children));
            image.manifests.push(manifest);
            Ok(image)
        };
        Box::pin(read)
    }

    /// Reads a manifest by its digest.
    async fn manifest(&self, named: &str) -> Result<(Manifest, AnyManifest)> {
        let reference = Reference::with_digest(self.host.clone(), self.repository.clone(), named.to_owned());
        let ask = || self.client.pull_manifest_raw(&reference, &RegistryAuth::Anonymous, &MANIFESTS);
        let answer = ask.retry(pauses()).when(is_transient).await.map_err(|error| self.judged(error));
        let (bytes, _) = answer.with_context(|| format!("read the manifest {named}"))?;
        let found = digest(named, &bytes).unwrap_or_default();
        if found != *named {
            return Err(Error::failed(format!("the manifest {named} is damaged: it is {found}")).into());
        }
        let read: AnyManifest = serde_json::from_slice(&bytes).with_context(|| format!("read the manifest {named}"))?;
        let is_index = read.manifests.is_some();
        let usual = if is_index { INDEXES[0] } else { MANIFEST };
        let media_type = read.media_type.clone().unwrap_or_else(|| usual.to_owned());
        let is_any = is_index || read.config.is_some() || read.layers.is_some();
        if !is_any || !MANIFESTS.contains(&media_type.as_str()) {
            return Err(Error::failed(format!("{named} is a manifest that ECR does not keep: {media_type}")).into());
        }
        Ok((Manifest { digest: named.to_owned(), media_type, bytes }, read))
    }

    /// An image for one platform. Where the index does not say for which, its configuration does.
    async fn single(&self, manifest: Manifest, read: AnyManifest, platform: Option<Platform>) -> Result<Image> {
        let mut image = Image::default();
        if let (Some(config), None) = (&read.config, platform)
            && config.size <= CONFIG
        {
            let bytes = self.small(&config.digest).await.with_context(|| format!("read {}", config.digest))?;
            image.platforms.extend(Platform::of(&bytes));
            image.add(Blob::of(vec![Part::Bytes(bytes)])?);
        }
        let blobs = read.config.into_iter().chain(read.layers.unwrap_or_default());
        // What may not be distributed has addresses of its own, and stays there.
        for named in blobs.filter(|named| named.urls.iter().flatten().next().is_none()) {
            image.add(Blob { digest: named.digest, size: named.size, content: Content::Remote(self.clone()) });
        }
        image.manifests.push(manifest);
        Ok(image)
    }

    async fn small(&self, digest: &str) -> Result<Bytes> {
        let ask = async || self.blob(digest).await?.try_collect::<Vec<_>>().await;
        let pieces = ask.retry(pauses()).when(is_transient).await.map_err(|error| self.judged(error))?;
        Ok(pieces.concat().into())
    }

    /// Opens a blob. What is not what its digest says ends with an error before the last of it is given.
    pub async fn blob(
        &self,
        digest: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, OciDistributionError>> + Send + 'static, OciDistributionError> {
        let stream = self.client.pull_blob_stream(&self.reference("latest"), digest).await?;
        Ok(last_held_back(stream.map_err(Into::into)))
    }

    /// The repository, for a client that knows them by an image in it.
    pub fn reference(&self, tag: &str) -> Reference {
        Reference::with_tag(self.host.clone(), self.repository.clone(), tag.to_owned())
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the registry said, and what to do about it.
    pub fn judged(&self, error: OciDistributionError) -> anyhow::Error {
        use OciErrorCode::{BlobUnknown, Denied, ManifestUnknown, NameUnknown, NotFound, Unauthorized};
        let host = &self.registry;
        let said = |codes: &[OciErrorCode]| codes.iter().any(|code| has_code(&error, code));
        let refused = matches!(error, OciDistributionError::AuthenticationFailure(_));
        let judgement = if is_damaged(&error) {
            Error::failed(format!("{host}: it is not what its digest says"))
        } else if refused || matches!(status(&error), Some(401 | 403)) || said(&[Denied, Unauthorized]) {
            let hint = match self.anonymous {
                true => format!("if there is such an image, it needs a login: docker login {host}"),
                false => format!("if there is such an image, the login of {host} may not read it"),
            };
            Error::failed(format!("{host} refused it")).hint(hint)
        } else if status(&error) == Some(404) || said(&[BlobUnknown, ManifestUnknown, NameUnknown, NotFound]) {
            Error::failed(format!("{host} has no such image"))
        } else if is_limit(&error) {
            let login = if self.anonymous { ", or log in, which raises the limit" } else { "" };
            Error::retry(format!("{host} asks to come back later")).hint(format!("run it again later{login}"))
        } else if let Some(distrust) = distrust(&error) {
            Error::failed(format!("the certificate of {host} is not trusted")).hint(distrust.hint())
        } else if matches!(&error, OciDistributionError::RequestError(error) if error.is_connect()) {
            let hint = "check its name, and that this machine may reach it";
            Error::retry(format!("cannot reach {host}")).hint(hint)
        } else if is_transient(&error) {
            Error::retry(format!("{host} did not give it")).hint("run it again: it sends only what is missing")
        } else {
            Error::failed(format!("{host} gave an answer that is no registry's"))
        };
        words(error).context(judgement)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

/// Gives the last piece only when the stream has come to its end without an error: a request of a given length is
/// complete with its last byte, and what comes after that is not heard.
fn last_held_back<E: Send>(
    stream: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static {
    try_unfold((stream.fuse(), None), async |(mut stream, mut held): (_, Option<Bytes>)| {
        while let Some(piece) = stream.try_next().await? {
            if let Some(given) = held.replace(piece) {
                return Ok(Some((given, (stream, held))));
            }
        }
        Ok(held.take().map(|last| (last, (stream, None))))
    })
}

/// Docker, too, asks its own machine without TLS.
fn is_loopback(host: &str) -> bool {
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the same request may work a little later.
pub fn is_transient(error: &OciDistributionError) -> bool {
    match (status(error), error) {
        (Some(status), _) => matches!(status, 408 | 429 | 500..),
        (None, OciDistributionError::RequestError(_)) => is_unanswered(error),
        (None, OciDistributionError::IoError(_)) => !is_damaged(error),
        _ => is_limit(error),
    }
}

/// Whether the registry gives no more for now.
fn is_limit(error: &OciDistributionError) -> bool {
    status(error) == Some(429) || has_code(error, &OciErrorCode::Toomanyrequests)
}

fn has_code(error: &OciDistributionError, code: &OciErrorCode) -> bool {
    matches!(error, OciDistributionError::RegistryError { envelope, .. }
        if envelope.errors.iter().any(|error| error.code == *code))
}

fn is_damaged(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::DigestError(_) => true,
        OciDistributionError::IoError(error) => error.get_ref().is_some_and(|inner| inner.is::<DigestError>()),
        _ => false,
    }
}

/// The error without addresses: what a registry redirects to is signed, and opens the blob to whoever reads it.
fn words(error: OciDistributionError) -> anyhow::Error {
    match error {
        OciDistributionError::RequestError(error) => error.without_url().into(),
        OciDistributionError::ServerError { code, message, .. } => {
            anyhow::anyhow!("HTTP status {code}: {}", message.lines().next().unwrap_or_default())
        }
        OciDistributionError::RegistryError { envelope, .. } => anyhow::anyhow!("{envelope}"),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests;
