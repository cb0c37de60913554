//! Holds what stands under the document's `images.NAME`.

use crate::plan::{Have, Want};
use crate::repository::Settings;
use common::plan::UNKNOWN;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `images.NAME` key.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pushed {
    /// `sha256:…` of the image, or of the index of its platforms. Without a source it must be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Digests of the images that an index names; read-only. --delete takes them with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// `ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME`. In input, `NAME` is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Of the repository, decided when it is made.
    #[serde(default, skip_serializing_if = "Settings::is_default")]
    pub settings: Settings,
    /// A tag that names the image, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// `REPOSITORY@DIGEST`, what a pod names; read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

impl Pushed {
    /// What describes the image that is there.
    pub fn found(want: Want, have: Have) -> Self {
        let repository = have.repository.map(|repository| repository.uri);
        let uri = repository.as_ref().zip(want.digest.as_ref()).map(|(uri, digest)| format!("{uri}@{digest}"));
        let platforms = have.image.map(|image| image.children).unwrap_or_default();
        Self { digest: want.digest, platforms, repository, settings: want.settings, tag: want.tag, uri }
    }

    /// What will describe the image that is yet to be pushed.
    pub fn planned(want: Want, have: Have) -> Self {
        let made = have.repository.is_none().then(|| format!("{UNKNOWN}/{}", want.repository));
        let platforms = if have.image.is_none() { want.platforms.clone() } else { Vec::new() };
        let mut section = Self::found(want, have);
        if let Some(repository) = made {
            section.uri = section.digest.as_ref().map(|digest| format!("{repository}@{digest}"));
            section.repository = Some(repository);
        }
        section.platforms.extend(platforms);
        section
    }
}
