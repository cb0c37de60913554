//! What to change about a repository and its image. Pure.

use crate::image::Image;
use anyhow::Result;
use common::Error;
use std::fmt;

/// The image that must be there.
#[derive(Debug)]
pub struct Want {
    /// Name of the repository, without the registry.
    pub repository: String,
    /// A tag the image must carry.
    pub tag: Option<String>,
    /// `sha256:…`; unknown only when deleting.
    pub digest: Option<String>,
    /// What to send; absent when only the document's digest is checked.
    pub image: Option<Image>,
    /// May push into a repository of others.
    pub adopt: bool,
    /// May delete a repository with images.
    pub force: bool,
}

/// What ECR has.
#[derive(Debug, Default)]
pub struct Have {
    /// The repository.
    pub repository: Option<Repository>,
    /// The image of the wanted digest and its tags.
    pub tags: Option<Vec<String>>,
    /// Digests of the repository's other images; looked at only for what --delete needs.
    pub others: Vec<String>,
}

/// A repository.
#[derive(Debug, Clone)]
pub struct Repository {
    /// `ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME`
    pub uri: String,
    /// Carries our tag.
    pub ours: bool,
}

/// One step.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// Make the repository.
    CreateRepository { name: String },
    /// Send what is missing.
    Push { repository: String, digest: String },
    /// Give the image its tag.
    Tag { repository: String, digest: String, tag: String },
    /// Remove the image.
    DeleteImage { repository: String, digest: String },
    /// Remove the repository, with so many images.
    DeleteRepository { name: String, images: usize },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::CreateRepository { name } => write!(f, "create repository {name}"),
            Change::Push { repository, digest } => write!(f, "push {repository}@{digest}"),
            Change::Tag { repository, digest, tag } => write!(f, "tag {repository}@{digest} as {tag}"),
            Change::DeleteImage { repository, digest } => write!(f, "delete image {repository}@{digest}"),
            Change::DeleteRepository { name, images: 0 } => write!(f, "delete repository {name}"),
            Change::DeleteRepository { name, images } => {
                write!(f, "delete repository {name} and its {images} image(s)")
            }
        }
    }
}

/// Repository, image, tag.
pub fn plan(want: &Want, have: &Have) -> Result<Vec<Change>> {
    let (name, mut changes) = (&want.repository, Vec::new());
    let Some(digest) = &want.digest else { return Ok(changes) };
    match &have.repository {
        None => changes.push(Change::CreateRepository { name: name.clone() }),
        Some(repository) if !repository.ours && !want.adopt && have.tags.is_none() => {
            let foreign = Error::conflict(format!("repository {name} was not made by crossmesh"));
            return Err(foreign.hint("--adopt pushes into it all the same").into());
        }
        Some(_) => {}
    }
    match &have.tags {
        None if want.image.is_none() => {
            let gone = Error::failed(format!("{name} has no image {digest}"));
            return Err(gone.hint("give --binary or --archive to push it again").into());
        }
        None => changes.push(Change::Push { repository: name.clone(), digest: digest.clone() }),
        Some(tags) => {
            let missing = want.tag.iter().filter(|tag| !tags.contains(tag));
            changes.extend(missing.map(|tag| Change::Tag {
                repository: name.clone(),
                digest: digest.clone(),
                tag: tag.clone(),
            }));
        }
    }
    Ok(changes)
}

/// The image, and our repository when nothing else is in it, or with all that is in it by `--force`.
pub fn plan_delete(want: &Want, have: &Have) -> Vec<Change> {
    let name = &want.repository;
    let Some(repository) = &have.repository else { return Vec::new() };
    let mut changes = Vec::new();
    if let Some(digest) = want.digest.as_ref().filter(|_| have.tags.is_some() && (repository.ours || want.adopt)) {
        changes.push(Change::DeleteImage { repository: name.clone(), digest: digest.clone() });
    }
    if repository.ours && (have.others.is_empty() || want.force) {
        changes.push(Change::DeleteRepository { name: name.clone(), images: have.others.len() });
    }
    changes
}

/// What `plan_delete` leaves, and why.
pub fn left_alone(want: &Want, have: &Have) -> Vec<String> {
    let name = &want.repository;
    match &have.repository {
        Some(repository) if !repository.ours => vec![format!("repository {name}: not made by crossmesh")],
        Some(_) if !have.others.is_empty() && !want.force => {
            vec![format!("repository {name}: holds {} other image(s), --force removes them too", have.others.len())]
        }
        _ => Vec::new(),
    }
}
