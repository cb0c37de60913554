//! `--archive`: reads an image that a builder saved.
//!
//! An archive is a folder, a tar or a tar.gz; as a file, through a pipe, or `-`, which is stdin. It holds one of:
//!
//! - An **OCI layout** (`index.json`; image-spec 1.1), of which all digests are kept: what `docker save` has written
//!   since version 25, and `docker buildx build --output type=oci`, podman, buildah, skopeo, crane, ko and cosign write.
//!   Blobs may lie inside descriptors (`data`), be addressed by sha256 or sha512, and be compressed with gzip or zstd.
//! - A **docker archive** (`manifest.json`), as older versions of docker, and kaniko and Bazel, write it. It has no
//!   manifest: it gets one, over its own configuration and its layers as plain tars, so that the digest does not depend
//!   on gzip. Layers packed with zstd stay as they are.
//!
//! One image is taken out of it:
//!
//! - Entries with the same content are one image with several names. Of several images, the one that `tag` names.
//! - Signatures, attestations and SBOMs beside the image are left out. Those that its own index names are part of it.
//! - Several platforms may stand under one index, or side by side in `index.json`, which then is the index.
//! - An index of platforms of which some are not in the archive, as `docker save` leaves it after a pull of one platform,
//!   is cut down to those that are. A single one is taken by itself, as `docker push` does.
//!
//! What is left out is named in [`Image::left_out`].

mod docker;
mod layout;
mod packing;
mod store;
#[cfg(test)]
mod tests;

use crate::image::Image;
use anyhow::Result;
use common::Error;
use std::path::Path;
use store::Store;

/// Reads the image in an archive, of several the one that `tag` names. Layers stay where they are until they are sent.
///
/// # Errors
/// It is neither kind of archive, a part is missing or damaged, or it holds several images and `tag` names none.
pub fn image(path: &Path, tag: Option<&str>) -> Result<Image> {
    let store = Store::open(path)?;
    // Since version 25 docker writes both; the layout has the manifest that docker would push.
    if let Some(index) = store.find("index.json")? {
        return layout::image(&store, &index, tag);
    }
    if let Some(manifest) = store.find("manifest.json")? {
        return docker::image(&store, &manifest, tag);
    }
    let neither = Error::failed(format!("{store} is neither an OCI layout nor a docker archive"));
    Err(neither.hint("it has neither index.json nor manifest.json").into())
}

/// The one image meant by `tag`; `names` gives the names an entry goes by.
fn choose<'a, T>(
    store: &Store,
    entries: &'a [T],
    tag: Option<&str>,
    names: impl Fn(&T) -> Vec<String>,
) -> Result<&'a T> {
    let meant = |name: &String| tag.is_some_and(|tag| name == tag || name.ends_with(&format!(":{tag}")));
    let named: Vec<&T> = entries.iter().filter(|entry| names(entry).iter().any(meant)).collect();
    match (entries, &named[..]) {
        ([only], _) => Ok(only),
        (_, [only]) => Ok(*only),
        ([], _) => Err(store.damaged("it holds no image")),
        _ => {
            let found: Vec<String> = entries.iter().flat_map(names).collect();
            let several = Error::failed(format!("{store} holds {} images: {}", entries.len(), found.join(", ")));
            Err(several.hint("save one image only, or choose one by --tag").into())
        }
    }
}
