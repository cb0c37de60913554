//! `--archive`: an OCI layout or a docker archive; a folder, a tar or a tar.gz.

mod docker;
mod layout;
mod store;
#[cfg(test)]
mod tests;

use crate::image::Image;
use anyhow::Result;
use common::Error;
use std::path::Path;
use store::Store;

/// The image in an archive. Of several, the one that `tag` names.
///
/// An OCI layout keeps its digests. A docker archive has no manifest: it gets one, over its own configuration and its
/// layers as plain tars, whatever they were compressed with.
///
/// # Errors
/// It is neither, a part is missing or damaged, or it holds several images and `tag` names none.
pub fn image(path: &Path, tag: Option<&str>) -> Result<Image> {
    let store = Store::open(path)?;
    // Since version 25 docker writes both; the layout has the manifest that docker would push.
    let mut image = if let Some(index) = store.find("index.json")? {
        layout::image(&store, &index, tag)?
    } else if let Some(manifest) = store.find("manifest.json")? {
        docker::image(&store, &manifest, tag)?
    } else {
        let what = format!("{} is neither an OCI layout nor a docker archive", path.display());
        return Err(Error::failed(what).hint("it has neither index.json nor manifest.json").into());
    };
    image.scratch.extend(store.scratch);
    Ok(image)
}

/// The one image meant by `tag`; `names` gives the names an entry goes by.
fn choose<'a, T>(entries: &'a [T], tag: Option<&str>, names: impl Fn(&T) -> Vec<String>) -> Result<&'a T> {
    if let [only] = entries {
        return Ok(only);
    }
    let meant = |name: &String| tag.is_some_and(|tag| name == tag || name.ends_with(&format!(":{tag}")));
    if let Some(entry) = entries.iter().find(|entry| names(entry).iter().any(meant)) {
        return Ok(entry);
    }
    let found: Vec<String> = entries.iter().flat_map(names).collect();
    let message = format!("the archive holds {} images: {}", entries.len(), found.join(", "));
    Err(Error::failed(message).hint("save one image only, or choose one by --tag").into())
}
