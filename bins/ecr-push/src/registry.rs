//! Sends an image to a registry: only the blobs it lacks, several at a time, and the manifest when all of them are
//! there, so that a run that was killed leaves no half image.

use crate::image::{Blob, Image, Manifest};
use anyhow::{Context, Result};
use backon::{ExponentialBuilder, Retryable};
use common::{Error, Session};
use futures::{StreamExt, TryStreamExt, stream};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

/// Blobs sent at a time.
const PARALLEL: usize = 4;

/// Sends the image to `HOST/REPOSITORY`.
pub async fn push(session: &Session, uri: &str, password: &str, image: &Image, tag: Option<&str>) -> Result<()> {
    let by_digest =
        |digest: &str| format!("{uri}@{digest}").parse::<Reference>().with_context(|| format!("name {uri}@{digest}"));
    let reference = by_digest(&image.digest)?;
    let client = Client::new(ClientConfig { protocol: ClientProtocol::Https, ..ClientConfig::default() });
    let auth = RegistryAuth::Basic("AWS".to_owned(), password.to_owned());
    client.store_auth_if_needed(reference.resolve_registry(), &auth).await;

    let total = image.blobs.iter().map(|blob| blob.bytes.len() as u64).sum();
    let bar = session.stderr.bar(total, "{msg} {bytes}/{total_bytes} {wide_bar} {eta}").with_message(uri.to_owned());
    stream::iter(&image.blobs)
        .map(|blob| async {
            send(&client, &reference, blob).await?;
            bar.inc(blob.bytes.len() as u64);
            anyhow::Ok(())
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    for manifest in &image.manifests {
        put(uri, password, manifest, &manifest.blob.digest).await?;
    }
    if let (Some(tag), Some(top)) = (tag, image.manifests.last()) {
        put(uri, password, top, tag).await?;
    }
    bar.finish_and_clear();
    Ok(())
}

async fn send(client: &Client, reference: &Reference, blob: &Blob) -> Result<()> {
    let attempt = || async {
        if client.blob_exists(reference, &blob.digest).await? {
            return Ok(());
        }
        client.push_blob(reference, blob.bytes.clone(), &blob.digest).await.map(drop)
    };
    let sent = attempt.retry(ExponentialBuilder::default().with_max_times(4)).when(passes).await;
    sent.map_err(|error| {
        let what = format!("send {} to {}", blob.digest, reference.repository());
        let error = anyhow::Error::new(error);
        error.context(Error::retry(what).hint("run it again: what was sent stays"))
    })
}

/// Whether the same request may work a moment later: the network, 429 and 5xx.
fn passes(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code == 429 || *code >= 500,
        _ => false,
    }
}

/// Puts a manifest under a tag or its digest. Done here: oci-client panics when a registry that names no location (as
/// ECR) is given a digest.
async fn put(uri: &str, password: &str, manifest: &Manifest, reference: &str) -> Result<()> {
    let (host, repository) = uri.split_once('/').with_context(|| format!("{uri} names no registry"))?;
    let http = reqwest::Client::new();
    let url = format!("https://{host}/v2/{repository}/manifests/{reference}");
    let attempt = || async {
        let request = http.put(&url).basic_auth("AWS", Some(password)).header("Content-Type", &manifest.media_type);
        let answer = request.body(manifest.blob.bytes.clone()).send().await?;
        let status = answer.status();
        Ok::<_, reqwest::Error>((status, answer.text().await?))
    };
    let answer = attempt.retry(ExponentialBuilder::default().with_max_times(4)).await;
    let (status, text) = answer.map_err(|error| {
        anyhow::Error::new(error).context(Error::retry(format!("put manifest {repository}:{reference}")))
    })?;
    // ECR says so when a tag or digest already names this very image.
    if status.is_success() || text.contains("ImageAlreadyExistsException") {
        return Ok(());
    }
    let refused = format!("put manifest {repository}:{reference}: {status}: {text}");
    Err(if status.is_server_error() { Error::retry(refused) } else { Error::failed(refused) }.into())
}
