//! Says what to change about a repository and its image. Pure.

use crate::image::Image;
use crate::repository::Settings;
use crate::users::{Leaving, User};
use anyhow::Result;
use common::Error;
use common::cluster::Cluster;
use common::plan::Effect;
use std::collections::BTreeSet;
use std::fmt;

/// The image that must be there.
#[derive(Debug, Default)]
pub struct Want {
    /// Name of the repository, without the registry.
    pub repository: String,
    /// Whose registry it is in; the caller's own, if not said.
    pub account: Option<String>,
    /// Where it is; where the caller asks AWS, if not said.
    pub region: Option<String>,
    /// From a source; without one, `digest` must be there already.
    pub image: Option<Image>,
    /// `sha256:…`; none only on `--delete`.
    pub digest: Option<String>,
    /// Digests of the images that it names, being an index: what `--delete` takes with it, though it be gone already.
    pub platforms: Vec<String>,
    /// What must name the digest, too.
    pub tag: Option<String>,
    /// How the repository is made.
    pub settings: Settings,
    /// Whose nodes must be able to run it.
    pub cluster: Option<Cluster>,
    /// Take over what somebody else made.
    pub adopt: bool,
    /// Push into what somebody else made, and leave it theirs.
    pub shared: bool,
    /// Delete images of others, too.
    pub force: bool,
    /// The clusters that no longer need it, with `--delete`.
    pub leaving: Vec<Leaving>,
}

impl Want {
    /// The tag that every image gets, `sha256-0123456789ab`, so that no lifecycle rule for untagged images takes one that
    /// still runs when its other tag has moved on.
    pub fn own_tag(&self) -> Option<String> {
        const LENGTH: usize = 12;
        let (algorithm, hex) = self.digest.as_ref()?.split_once(':')?;
        Some(format!("{algorithm}-{}", hex.get(..LENGTH).unwrap_or(hex)))
    }
}

/// What ECR has.
#[derive(Debug, Clone, Default)]
pub struct Have {
    pub repository: Option<Repository>,
    /// The wanted digest is there.
    pub image: Option<Found>,
    /// Its own tag names it.
    pub is_tagged: bool,
    /// What the wanted tag names.
    pub tagged: Option<String>,
    /// All images of the repository; looked at on `--delete` only.
    pub all: Vec<Listed>,
    /// What the cluster's nodes run, `linux/amd64`; `None` when that is not known.
    pub nodes: Option<BTreeSet<String>>,
}

/// A repository.
#[derive(Debug, Clone)]
pub struct Repository {
    pub arn: String,
    /// `ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME`
    pub uri: String,
    /// Whose it is; none if ours, or if it does not matter.
    pub foreign: Option<String>,
    /// The clusters that run images of it.
    pub users: BTreeSet<User>,
    pub immutable: Immutable,
    pub settings: Settings,
}

/// The tags that a repository does not move from one image to another. `*` in a pattern stands for any text.
#[derive(Debug, Clone, PartialEq)]
pub enum Immutable {
    /// Those that fit a pattern.
    Only(Vec<String>),
    /// All that fit none.
    Except(Vec<String>),
}

impl Immutable {
    fn holds(&self, tag: &str) -> bool {
        match self {
            Self::Only(patterns) => patterns.iter().any(|pattern| fits(pattern, tag)),
            Self::Except(patterns) => !patterns.iter().any(|pattern| fits(pattern, tag)),
        }
    }
}

fn fits(pattern: &str, tag: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == tag,
        Some((start, rest)) => tag.strip_prefix(start).is_some_and(|tag| {
            tag.char_indices().map(|(at, _)| at).chain([tag.len()]).any(|at| fits(rest, &tag[at..]))
        }),
    }
}

/// The image by its digest.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Digests that it names, being an index.
    pub children: Vec<String>,
}

/// One of a repository's images.
#[derive(Debug, Clone)]
pub struct Listed {
    pub digest: String,
    pub tags: Vec<String>,
    /// Digests that it names, being an index.
    pub children: Vec<String>,
}

/// One step.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// Make the repository.
    Create { repository: String },
    /// Tag the repository as ours, and with the cluster.
    Adopt { arn: String, user: Option<User> },
    /// Tag the repository with the cluster.
    Use { repository: String, cluster: String },
    /// Remove the tags of clusters that no longer need it.
    Forget { arn: String, users: Vec<User> },
    /// Send what is missing of the image.
    Push { repository: String, digest: String },
    /// Let a tag name the image.
    Tag { repository: String, tag: String, digest: String },
    /// Remove a tag from the image, which others still name.
    Untag { repository: String, tag: String },
    /// Remove the image.
    DeleteImage { repository: String, digest: String },
    /// Remove what an index named. ECR keeps it for as long as there is the index.
    DeletePlatforms { repository: String, digests: Vec<String> },
    /// Remove the repository.
    DeleteRepository { repository: String, force: bool },
}

impl common::plan::Change for Change {
    fn effect(&self) -> Effect {
        match self {
            Change::Create { .. } | Change::Push { .. } | Change::Tag { .. } => Effect::Add,
            Change::Adopt { .. } | Change::Use { .. } | Change::Forget { .. } => Effect::Change,
            Change::Untag { .. } | Change::DeleteImage { .. } | Change::DeletePlatforms { .. } => Effect::Remove,
            Change::DeleteRepository { .. } => Effect::Remove,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Create { repository } => write!(f, "create repository {repository}"),
            Change::Adopt { arn, .. } => write!(f, "adopt {arn}"),
            Change::Use { repository, cluster } => {
                write!(f, "tag repository {repository} as used by cluster {cluster}")
            }
            Change::Forget { arn, users } => {
                let names: Vec<&str> = users.iter().map(User::name).collect();
                write!(f, "untag {arn} as used by cluster {}", names.join(", "))
            }
            Change::Push { repository, digest } => write!(f, "push {digest} to {repository}"),
            Change::Tag { repository, tag, digest } => write!(f, "tag {digest} as {repository}:{tag}"),
            Change::Untag { repository, tag } => write!(f, "remove tag {repository}:{tag}"),
            Change::DeleteImage { repository, digest } => write!(f, "delete image {digest} from {repository}"),
            Change::DeletePlatforms { repository, digests } => {
                write!(f, "delete platforms {} from {repository}", digests.join(", "))
            }
            Change::DeleteRepository { repository, force: false } => write!(f, "delete repository {repository}"),
            Change::DeleteRepository { repository, force: true } => {
                write!(f, "delete repository {repository} with all its images")
            }
        }
    }
}

impl common::plan::Want for Want {
    type Have = Have;
    type Change = Change;

    /// Pushes what is missing. A repository somebody else made is used as it is when the image is there already, pushed into
    /// only with `--use`, and never changed without `--adopt`.
    fn plan(&self, have: &Self::Have) -> Result<Vec<Self::Change>> {
        runs_somewhere(self, have)?;
        let name = || self.repository.clone();
        let Some(digest) = self.digest.clone() else { return Ok(Vec::new()) };
        let foreign = have.repository.as_ref().and_then(|found| found.foreign.as_ref());
        let foreign = foreign.filter(|_| !self.adopt && !self.shared);
        let retag = self.tag.clone().filter(|_| have.tagged.as_ref() != Some(&digest));
        let mut changes = Vec::new();
        if have.image.is_none() {
            if self.image.is_none() {
                let message = format!("image {digest} is not in repository {}", self.repository);
                return Err(Error::failed(message).hint("push it: --binary, --archive, --context or --image").into());
            }
            changes.push(Change::Push { repository: name(), digest: digest.clone() });
        }
        if let Some(tag) = self.own_tag().filter(|_| !have.is_tagged && foreign.is_none()) {
            changes.push(Change::Tag { repository: name(), tag, digest: digest.clone() });
        }
        if let Some(tag) = retag {
            let immutable = have.repository.as_ref().is_some_and(|found| found.immutable.holds(&tag));
            if let (Some(other), true) = (&have.tagged, immutable) {
                let message = format!("tag {}:{tag} is immutable and names {other}, not {digest}", self.repository);
                return Err(Error::conflict(message).hint("give another --tag").into());
            }
            changes.push(Change::Tag { repository: name(), tag, digest });
        }
        match &have.repository {
            None if self.shared => {
                let error = Error::failed(format!("repository {} does not exist", self.repository));
                return Err(error.hint("whoever owns it makes it; without --use it is made").into());
            }
            None => changes.insert(0, Change::Create { repository: name() }),
            Some(Repository { arn, foreign: Some(_), users, .. }) if self.adopt => {
                let user = self.cluster.as_ref().map(|cluster| User::noted(cluster, users));
                changes.insert(0, Change::Adopt { arn: arn.clone(), user });
            }
            Some(found) => {
                let is_known = |new: &Cluster| found.users.iter().any(|user| user.is(&new.name, &new.arn));
                let unknown = self.cluster.iter().filter(|cluster| !is_known(cluster));
                let unknown = unknown.filter(|_| found.foreign.is_none() && !self.shared);
                changes.extend(unknown.map(|user| Change::Use { repository: name(), cluster: user.name.clone() }));
            }
        }
        if let Some((difference, hint)) =
            have.repository.as_ref().and_then(|found| self.settings.unmet(&found.settings))
        {
            let message = format!("repository {} exists: {difference}", self.repository);
            return Err(Error::conflict(message).hint(hint).into());
        }
        if let Some(whose) = foreign.filter(|_| !changes.is_empty()) {
            let error = Error::conflict(format!("repository {} exists: {whose}", self.repository));
            return Err(error.hint("--use pushes into it, --adopt takes it over").into());
        }
        Ok(changes)
    }

    /// Only from a repository of ours, or one to use; only what nobody else has tagged; our repository when nothing else is
    /// in it. Nothing at all that another cluster may run.
    fn plan_delete(&self, have: &Self::Have) -> Result<Vec<Self::Change>> {
        let repository = self.repository.clone();
        if have.repository.as_ref().is_none_or(|found| found.foreign.is_some()) {
            return Ok(Vec::new());
        }
        if let Some(found) = have.repository.as_ref().filter(|found| others_use(self, found).next().is_some()) {
            let users: Vec<User> = found.users.iter().filter(|user| leaves(self, found, user)).cloned().collect();
            let forget = || Change::Forget { arn: found.arn.clone(), users: users.clone() };
            return Ok((!users.is_empty()).then(forget).into_iter().collect());
        }
        if self.force {
            return Ok(vec![Change::DeleteRepository { repository, force: true }]);
        }
        let mut changes = Vec::new();
        let digest = self.digest.clone().filter(|_| have.image.is_some());
        if others(self, have).next().is_some() {
            let tag = self.tag.clone().filter(|_| digest.is_some() && have.tagged == digest);
            let tags = self.own_tag().filter(|_| have.is_tagged).into_iter().chain(tag);
            return Ok(tags.map(|tag| Change::Untag { repository: repository.clone(), tag }).collect());
        }
        changes.extend(digest.map(|digest| Change::DeleteImage { repository: repository.clone(), digest }));
        let digests: Vec<String> = platforms(self, have).map(|listed| listed.digest.clone()).collect();
        if !digests.is_empty() {
            changes.push(Change::DeletePlatforms { repository: repository.clone(), digests });
        }
        if !self.shared && foreign(self, have).next().is_none() {
            changes.push(Change::DeleteRepository { repository, force: false });
        }
        Ok(changes)
    }

    /// What a person should know: whose repository it is, what of the source is not part of the image, and which nodes cannot
    /// run it.
    fn remarks(&self, have: &Self::Have) -> Vec<String> {
        let foreign = have.repository.iter().filter(|_| !self.adopt).filter_map(|found| found.foreign.as_ref());
        let foreign =
            foreign.map(|whose| format!("repository {} is used, {whose}: --adopt takes it over", self.repository));
        let left_out = self.image.iter().flat_map(|image| &image.left_out).map(|what| format!("left out: {what}"));
        foreign.chain(left_out).chain(runs_elsewhere(self, have)).collect()
    }

    /// What `--delete` leaves, and why.
    fn left_alone(&self, have: &Self::Have) -> Vec<String> {
        let name = &self.repository;
        match &have.repository {
            None => Vec::new(),
            Some(Repository { foreign: Some(whose), .. }) => vec![format!("repository {name}: {whose}")],
            Some(found) if others_use(self, found).next().is_some() => {
                // One that has the name of a cluster that leaves is another of that name.
                let is_named_so = |user: &User| self.leaving.iter().any(|leaving| leaving.name == user.name());
                let told = |user| if is_named_so(user) { user.arn.as_str() } else { user.name() };
                let users: Vec<&str> = others_use(self, found).map(told).collect();
                vec![format!("repository {name}: used by cluster {}", users.join(", "))]
            }
            Some(_) if self.force => Vec::new(),
            Some(_) => {
                let mut left = Vec::new();
                let tags: Vec<_> = others(self, have).cloned().collect();
                if !tags.is_empty() {
                    left.push(format!(
                        "image {}: also tagged {}",
                        self.digest.as_deref().unwrap_or_default(),
                        tags.join(", ")
                    ));
                }
                match foreign(self, have).count() {
                    _ if self.shared => left.push(format!("repository {name}: it is only used")),
                    0 => {}
                    count => {
                        left.push(format!("repository {name}: other images in it: {count}; --force deletes them, too"))
                    }
                }
                left
            }
        }
    }
}

/// An image that no node can run would only fail later, as `exec format error`.
fn runs_somewhere(want: &Want, have: &Have) -> Result<()> {
    let (Some(image), Some(nodes)) = (&want.image, &have.nodes) else { return Ok(()) };
    if image.platforms.is_empty() || nodes.is_empty() || !image.platforms.is_disjoint(nodes) {
        return Ok(());
    }
    let message =
        format!("no node can run the image: it is for {}, the nodes are {}", words(&image.platforms), words(nodes));
    Err(Error::failed(message).hint(format!("build it for {}", words(nodes))).into())
}

/// That some nodes cannot run an image which others can: its pods must not be placed there.
fn runs_elsewhere(want: &Want, have: &Have) -> Option<String> {
    let (image, nodes) = (want.image.as_ref()?, have.nodes.as_ref()?);
    let lacking: Vec<&String> = nodes.difference(&image.platforms).collect();
    if image.platforms.is_disjoint(nodes) || lacking.is_empty() {
        return None;
    }
    Some(format!("the image is for {}: nodes of {} cannot run it", words(&image.platforms), words(lacking)))
}

fn words<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The clusters that go on running images of the repository.
fn others_use<'a>(want: &'a Want, found: &'a Repository) -> impl Iterator<Item = &'a User> {
    found.users.iter().filter(move |user| !leaves(want, found, user))
}

fn leaves(want: &Want, found: &Repository, user: &User) -> bool {
    want.leaving.iter().any(|leaving| leaving.is(user, &found.arn))
}

/// Tags of the wanted image that are not ours.
fn others<'a>(want: &'a Want, have: &'a Have) -> impl Iterator<Item = &'a String> {
    let image = have.all.iter().filter(|listed| Some(&listed.digest) == want.digest.as_ref());
    let own = want.own_tag();
    image.flat_map(|listed| &listed.tags).filter(move |tag| ![&want.tag, &own].contains(&&Some((*tag).clone())))
}

/// What the wanted index names, or named, and nobody else does: no tag, and no other index.
fn platforms<'a>(want: &'a Want, have: &'a Have) -> impl Iterator<Item = &'a Listed> {
    let named = have.image.as_ref().map_or(&want.platforms, |index| &index.children);
    let elsewhere = |digest: &String| {
        let mut others = have.all.iter().filter(|listed| Some(&listed.digest) != want.digest.as_ref());
        others.any(|other| other.children.contains(digest))
    };
    let untagged = have.all.iter().filter(|listed| listed.tags.is_empty() && named.contains(&listed.digest));
    untagged.filter(move |listed| !elsewhere(&listed.digest))
}

/// Images that are not part of the wanted one.
fn foreign<'a>(want: &'a Want, have: &'a Have) -> impl Iterator<Item = &'a Listed> {
    have.all.iter().filter(|listed| {
        let part = platforms(want, have).any(|part| part.digest == listed.digest);
        Some(&listed.digest) != want.digest.as_ref() && !part
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use common::plan::Want as _;

    fn repository(ours: bool, immutable: bool) -> Option<Repository> {
        let foreign = (!ours).then(|| "managed by terraform".to_owned());
        let immutable = if immutable { Immutable::Except(Vec::new()) } else { Immutable::Only(Vec::new()) };
        let (arn, uri) = ("arn:r".into(), "h/r".into());
        Some(Repository { arn, uri, foreign, users: BTreeSet::new(), immutable, settings: Settings::default() })
    }

    fn names(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn want(tag: Option<&str>) -> Want {
        Want {
            repository: "r".into(),
            image: Some(Image { platforms: names(&["linux/amd64"]), ..Image::default() }),
            digest: Some("sha256:a".into()),
            tag: tag.map(Into::into),
            ..Want::default()
        }
    }

    fn lines(changes: Result<Vec<Change>>) -> Vec<String> {
        match changes {
            Ok(changes) => changes.iter().map(ToString::to_string).collect(),
            Err(error) => vec![format!("{}: {error}", common::classify(&error).0.as_str())],
        }
    }

    #[test]
    fn only_what_is_missing_is_made() {
        let there = Some(Found::default());
        let have = |repository, image: Option<Found>, tagged: Option<&str>| Have {
            repository,
            is_tagged: image.is_some(),
            image,
            tagged: tagged.map(Into::into),
            ..Have::default()
        };
        let push = "push sha256:a to r";
        let own = "tag sha256:a as r:sha256-a";
        let untagged = |repository| Have { is_tagged: false, ..have(repository, Some(Found::default()), None) };
        let tag = "tag sha256:a as r:v1";
        let foreign = "conflict: repository r exists: managed by terraform";
        let shared = |tag| Want { shared: true, ..want(tag) };
        let cases: [(Want, Have, &[&str]); 21] = [
            (want(None), untagged(repository(true, false)), &[own]),
            (want(None), untagged(repository(false, false)), &[]),
            (shared(None), untagged(repository(false, false)), &[own]),
            (want(None), Have::default(), &["create repository r", push, own]),
            (want(Some("v1")), Have::default(), &["create repository r", push, own, tag]),
            (want(None), have(repository(true, false), None, None), &[push, own]),
            (want(None), have(repository(true, false), there.clone(), None), &[]),
            (want(Some("v1")), have(repository(true, true), there.clone(), Some("sha256:a")), &[]),
            (want(Some("v1")), have(repository(true, false), there.clone(), Some("sha256:b")), &[tag]),
            (
                want(Some("v1")),
                have(repository(true, true), None, Some("sha256:b")),
                &["conflict: tag r:v1 is immutable and names sha256:b, not sha256:a"],
            ),
            (want(None), have(repository(false, false), there.clone(), None), &[]),
            (want(None), have(repository(false, false), None, None), &[foreign]),
            (want(Some("v1")), have(repository(false, false), there.clone(), None), &[foreign]),
            (
                Want { adopt: true, ..want(None) },
                have(repository(false, false), None, None),
                &["adopt arn:r", push, own],
            ),
            (shared(None), have(repository(false, false), None, None), &[push, own]),
            (shared(Some("v1")), have(repository(false, false), there.clone(), None), &[tag]),
            (shared(None), have(repository(false, false), there.clone(), None), &[]),
            (shared(None), Have::default(), &["failed: repository r does not exist"]),
            (
                Want { settings: Settings { scan_on_push: true, ..Settings::default() }, ..want(None) },
                have(repository(true, false), there.clone(), None),
                &["conflict: repository r exists: it does not scan on push"],
            ),
            (
                Want { image: None, ..want(None) },
                have(repository(true, false), None, None),
                &["failed: image sha256:a is not in repository r"],
            ),
            (Want { image: None, ..want(Some("v1")) }, have(repository(true, false), there, None), &[tag]),
        ];
        for (want, have, changes) in cases {
            assert_eq!(lines(want.plan(&have)), changes, "{want:?} {have:?}");
        }
    }

    #[test]
    fn an_image_has_a_tag_of_its_own() {
        let digest = Some("sha256:0123456789abcdef".to_owned());
        assert_eq!(Want { digest, ..Want::default() }.own_tag().as_deref(), Some("sha256-0123456789ab"));
        assert_eq!(Want::default().own_tag(), None);
    }

    #[test]
    fn a_tag_is_moved_where_the_repository_lets_it() {
        let moved = ["tag sha256:a as r:v1"];
        let refused = ["conflict: tag r:v1 is immutable and names sha256:b, not sha256:a"];
        for (except, pattern, changes) in [
            (true, "v1", &moved),
            (true, "v*", &moved),
            (true, "*", &moved),
            (true, "*1", &moved),
            (true, "v1*", &moved),
            (true, "*v*1*", &moved),
            (true, "v", &refused),
            (true, "v2*", &refused),
            (true, "*2", &refused),
            (true, "v*1*1", &refused),
            (false, "v*", &refused),
            (false, "latest", &moved),
        ] {
            let patterns = vec!["dev-*".to_owned(), pattern.to_owned()];
            let immutable = if except { Immutable::Except(patterns) } else { Immutable::Only(patterns) };
            let repository = repository(true, false).map(|found| Repository { immutable, ..found });
            let (image, tagged) = (Some(Found::default()), Some("sha256:b".to_owned()));
            let have = Have { repository, image, is_tagged: true, tagged, ..Have::default() };
            assert_eq!(lines(want(Some("v1")).plan(&have)), changes, "{pattern} {except}");
        }
    }

    #[test]
    fn an_image_no_node_can_run_is_refused() {
        let refused = "failed: no node can run the image: it is for linux/amd64, the nodes are linux/arm64";
        let mixed = "the image is for linux/amd64: nodes of linux/arm64 cannot run it";
        type Case<'a> = (Option<&'a [&'a str]>, &'a str, &'a [&'a str]);
        let cases: [Case<'_>; 5] = [
            (None, "create repository r", &[]),
            (Some(&[]), "create repository r", &[]),
            (Some(&["linux/amd64"]), "create repository r", &[]),
            (Some(&["linux/amd64", "linux/arm64"]), "create repository r", &[mixed]),
            (Some(&["linux/arm64"]), refused, &[]),
        ];
        for (nodes, first, remarked) in cases {
            let have = Have { nodes: nodes.map(names), ..Have::default() };
            assert_eq!(lines(want(None).plan(&have))[0], first, "{nodes:?}");
            assert_eq!(want(None).remarks(&have), remarked, "{nodes:?}");
        }
    }

    #[test]
    fn deleting_takes_only_what_is_ours() {
        let image = |digest: &str, tags: &[&str], children: &[&str]| Listed {
            digest: format!("sha256:{digest}"),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            children: children.iter().map(|digest| format!("sha256:{digest}")).collect(),
        };
        let have = |ours, all: &[Listed]| Have {
            repository: repository(ours, false),
            image: all.iter().find(|image| image.digest == "sha256:a").map(|a| Found { children: a.children.clone() }),
            is_tagged: all.iter().any(|image| image.tags.iter().any(|tag| tag == OWN)),
            tagged: Some("sha256:a".into()),
            all: all.to_vec(),
            nodes: None,
        };
        const OWN: &str = "sha256-a";
        const GONE: &str = "delete image sha256:a from r";
        const PLATFORMS: &str = "delete platforms sha256:b, sha256:c from r";
        const PLATFORM: &str = "delete platforms sha256:c from r";
        const EMPTY: &str = "delete repository r";
        const FORCE: &str = "delete repository r with all its images";
        const OTHERS: &str = "repository r: other images in it: 1; --force deletes them, too";
        type Lines = &'static [&'static str];
        let (b, c) = (image("b", &[], &[]), image("c", &[], &[]));
        let cases: [(Have, Lines, Lines, Lines); 11] = [
            (Have::default(), &[], &[], &[]),
            (have(false, &[image("a", &[], &[])]), &[], &["repository r: managed by terraform"], &[]),
            (have(true, &[]), &[EMPTY], &[], &[FORCE]),
            (have(true, &[image("a", &["v1", OWN], &[])]), &[GONE, EMPTY], &[], &[FORCE]),
            (
                have(true, &[image("a", &[], &["b", "c"]), b.clone(), c.clone()]),
                &[GONE, PLATFORMS, EMPTY],
                &[],
                &[FORCE],
            ),
            // A run that was killed after it deleted the index.
            (have(true, &[b.clone(), c.clone()]), &[PLATFORMS, EMPTY], &[], &[FORCE]),
            (have(true, std::slice::from_ref(&c)), &[PLATFORM, EMPTY], &[], &[FORCE]),
            (have(true, &[image("a", &[], &[]), image("d", &[], &[])]), &[GONE], &[OTHERS], &[FORCE]),
            // A platform that others name, by a tag or in another index.
            (
                have(true, &[image("a", &[], &["b", "c"]), image("b", &["x"], &[]), c.clone()]),
                &[GONE, PLATFORM],
                &[OTHERS],
                &[FORCE],
            ),
            (
                have(true, &[image("a", &[], &["b", "c"]), b, c, image("d", &["x"], &["b"])]),
                &[GONE, PLATFORM],
                &["repository r: other images in it: 2; --force deletes them, too"],
                &[FORCE],
            ),
            (
                have(true, &[image("a", &["v1", "x", OWN], &[])]),
                &["remove tag r:sha256-a", "remove tag r:v1"],
                &["image sha256:a: also tagged x"],
                &[FORCE],
            ),
        ];
        for (have, changes, left, forced) in cases {
            let gentle = Want { platforms: vec!["sha256:b".into(), "sha256:c".into()], ..want(Some("v1")) };
            assert_eq!(lines(gentle.plan_delete(&have)), changes, "{have:?}");
            assert_eq!(gentle.left_alone(&have), left, "{have:?}");
            assert_eq!(lines((Want { force: true, ..gentle }).plan_delete(&have)), forced, "{have:?}");
        }
    }

    #[test]
    fn only_the_image_is_deleted_from_a_repository_to_use() {
        let want = Want { shared: true, ..want(None) };
        let listed = Listed { digest: "sha256:a".into(), tags: Vec::new(), children: Vec::new() };
        let have = Have {
            repository: repository(true, false),
            image: Some(Found::default()),
            all: vec![listed],
            ..Have::default()
        };
        assert_eq!(lines(want.plan_delete(&have)), ["delete image sha256:a from r"]);
        assert_eq!(want.left_alone(&have), ["repository r: it is only used"]);
        assert_eq!(want.left_alone(&Have::default()), [""; 0]);
    }

    /// `us-west-2/a`
    fn users(places: &[&str]) -> BTreeSet<User> {
        let user = |place: &&str| {
            let (region, name) = place.split_once('/').unwrap();
            User { key: name.into(), arn: format!("arn:aws:eks:{region}:1:cluster/{name}") }
        };
        places.iter().map(user).collect()
    }

    #[test]
    fn what_another_cluster_uses_stays() {
        let used = |places: &[&str]| {
            let (users, arn) = (users(places), "arn:aws:ecr:us-west-2:1:repository/r".to_owned());
            let repository = repository(true, false).map(|found| Repository { users, arn, ..found });
            Have { repository, image: Some(Found::default()), is_tagged: true, ..Have::default() }
        };
        let leaving = |name: &&str| Leaving { name: (*name).to_owned(), region: "us-west-2".into(), account: None };
        let delete = |names: &[&str], force| Want { leaving: names.iter().map(leaving).collect(), force, ..want(None) };
        let forget = "untag arn:aws:ecr:us-west-2:1:repository/r as used by cluster a";
        let all = "delete repository r with all its images";
        let kept = "repository r: used by cluster b";
        let namesake = "repository r: used by cluster arn:aws:eks:us-east-1:1:cluster/a";
        let (a, b, other_a) = ("us-west-2/a", "us-west-2/b", "us-east-1/a");
        for (want, have, changes, left) in [
            (delete(&["a"], true), used(&[a, b]), &[forget][..], &[kept][..]),
            (delete(&["a"], false), used(&[a, b]), &[forget], &[kept]),
            (delete(&["a"], true), used(&[b]), &[], &[kept]),
            (delete(&[], true), used(&[b]), &[], &[kept]),
            (delete(&["a", "b"], true), used(&[a, b]), &[all], &[]),
            (delete(&["a"], true), used(&[a]), &[all], &[]),
            (delete(&["a"], true), used(&[]), &[all], &[]),
            // A cluster of the same name elsewhere is another.
            (delete(&["a"], true), used(&[other_a]), &[], &[namesake]),
            (delete(&["a"], true), used(&[a, other_a]), &[forget], &[namesake]),
        ] {
            assert_eq!(lines(want.plan_delete(&have)), changes, "{want:?}");
            assert_eq!(want.left_alone(&have), left, "{want:?}");
        }
    }

    #[test]
    fn a_cluster_that_uses_the_repository_is_noted_once() {
        let cluster =
            Cluster { name: "a".into(), arn: "arn:aws:eks:us-west-2:1:cluster/a".into(), ..Cluster::default() };
        let want = || Want { cluster: Some(cluster.clone()), ..want(None) };
        let have = |ours, places: &[&str]| {
            let repository = repository(ours, false).map(|found| Repository { users: users(places), ..found });
            Have { repository, image: Some(Found::default()), is_tagged: true, ..Have::default() }
        };
        let noted = "tag repository r as used by cluster a";
        assert_eq!(lines(want().plan(&have(true, &["us-west-2/b"]))), [noted]);
        assert_eq!(lines(want().plan(&have(true, &["us-east-1/a"]))), [noted]);
        assert_eq!(lines(want().plan(&have(true, &["us-west-2/a", "us-west-2/b"]))), [""; 0]);
        assert_eq!(lines(want().plan(&have(false, &[]))), [""; 0]);
        assert_eq!(lines((Want { shared: true, ..want() }).plan(&have(true, &[]))), [""; 0]);
    }
}
