//! Exchanges VirtualServices between clusters: where the requests for one go is written as instances of a Cloud Map service
//! of type HTTP in the namespace of its upstreams, and read there by the controllers whose VirtualNodes name its ARN as a
//! backend.
//!
//! A document is JSON, cut into as many instances as it needs:
//!
//! | instance attribute | value |
//! | --- | --- |
//! | `appmesh.k8s.aws/virtualService` | ARN of the VirtualService |
//! | `appmesh.k8s.aws/cluster` | uid of the cluster that publishes |
//! | `appmesh.k8s.aws/clusterARN` | ARN of that EKS cluster, if it is known |
//! | `version` | of the document; absent is 0, the release before's, which has no `requires` and no `published` either |
//! | `requires` | features that a reader must understand, separated by commas; absent is none |
//! | `published` | time of this content, RFC 3339 |
//! | `part` | `<index>/<count>` |
//! | `digest` | of the whole document, so that parts of two are never joined |
//! | `routes.0` … `routes.3` | up to 1024 characters of JSON each |
//!
//! An instance's id is `<cluster>.<digest>.<index>`. The parts of a new document are registered before those of the old are
//! deregistered, so that readers always find a whole one.
//!
//! Of several documents under one ARN readers hear the newest. One that they do not understand does not make them fall
//! back to an older one: they keep what they last understood.

mod v1;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};

use super::values::{self, MAX_CHARACTERS, MAX_VALUE, MAX_VALUES};
use crate::model::{
    Attributes, ClusterId, Instances, Routing, ServiceKey, VirtualServiceKey,
    endpoint::{CLUSTER, CLUSTER_ARN},
};

const VIRTUAL_SERVICE: &str = "appmesh.k8s.aws/virtualService";
/// The attribute with the version of a document, or of a journal.
pub const VERSION: &str = "version";
const REQUIRES: &str = "requires";
const PUBLISHED: &str = "published";
const PART: &str = "part";
const DIGEST: &str = "digest";

/// The version that is written here, and the newest that is understood.
const NEWEST: u32 = 1;

/// The name of the values that hold the JSON.
const ROUTES: &str = "routes";
/// What is added to an instance later: its place, `<index>/<count>`, and the time.
const RESERVED: usize = PART.len() + "999/999".len() + PUBLISHED.len() + "2026-11-28T12:00:00.000Z".len();

/// What is published under an ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Nothing.
    Missing,
    /// Where requests go.
    Understood(Routing),
    /// Why the newest is not understood.
    NotUnderstood(String),
}

/// The Cloud Map service that holds what is published under an ARN. Its name is `appmesh.<mesh>.<virtualService>` where
/// that is a name Cloud Map takes (up to 127 characters in labels of up to 63), else a hash of the ARN.
pub fn service_key(VirtualServiceKey { namespace, arn }: &VirtualServiceKey) -> ServiceKey {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let names = arn.splitn(6, ':').nth(5).and_then(|resource| resource.strip_prefix("mesh/"));
    let plain = names.and_then(|names| names.split_once("/virtualService/"));
    let plain = plain.map(|(mesh, name)| format!("appmesh.{mesh}.{name}"));
    let plain = plain.filter(|plain| plain.len() <= 127 && plain.split('.').all(label));
    let hashed = || format!("appmesh-{}", &hex::encode(Sha256::digest(arn))[..40]);
    ServiceKey { namespace: namespace.clone(), service: plain.unwrap_or_else(hashed) }
}

/// The instances that say where the requests for the VirtualService of this ARN go. The writer adds the time.
pub fn publication(arn: &str, publisher: &ClusterId, routing: &Routing) -> Instances {
    let json = printable(&v1::encode(routing));
    let digest = digest(&json);
    let mut common = BTreeMap::from([
        (VIRTUAL_SERVICE.to_owned(), arn.to_owned()),
        (CLUSTER.to_owned(), publisher.uid.clone()),
        (VERSION.to_owned(), NEWEST.to_string()),
        (DIGEST.to_owned(), digest.clone()),
    ]);
    common.extend(publisher.arn.clone().map(|arn| (CLUSTER_ARN.to_owned(), arn)));
    let requires: Vec<_> = v1::requires(routing).into_iter().collect();
    if !requires.is_empty() {
        common.insert(REQUIRES.to_owned(), requires.join(","));
    }
    let used: usize = common.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() + RESERVED;
    let keys: usize = (0..MAX_VALUES).map(|index| values::key(ROUTES, index).len()).sum();
    // The longest ARNs leave room for three values and a half.
    let room = MAX_CHARACTERS.saturating_sub(used + keys).clamp(1, MAX_VALUES * MAX_VALUE);
    // `printable` leaves ASCII only, so that any byte is a place to cut.
    let parts: Vec<&[u8]> = json.as_bytes().chunks(room).collect();
    let count = parts.len();
    let instance = |(index, part): (usize, &[u8])| {
        let mut attributes = common.clone();
        attributes.insert(PART.to_owned(), format!("{index}/{count}"));
        attributes.extend(values::cut(ROUTES, part));
        (format!("{}.{digest}.{index}", publisher.uid), Arc::new(attributes.into()))
    };
    parts.into_iter().enumerate().map(instance).collect()
}

/// Adds the time to the instances of a publication: that of the same content, if it is present already, else now. Within
/// one cluster a newer document always has a later time, whatever the clocks of its nodes say. Other instances stay as
/// they are.
pub fn dated(wanted: &Instances, present: &Instances, now: SystemTime) -> Instances {
    let Some(first) = wanted.values().find(|attributes| attributes.contains_key(DIGEST)) else { return wanted.clone() };
    let same = |keys: &'static [&str]| {
        let same = move |attributes: &&Arc<Attributes>| keys.iter().all(|key| attributes.get(key) == first.get(key));
        present.values().filter(same).filter_map(|attributes| published(attributes)).max()
    };
    let later = || same(&[VIRTUAL_SERVICE, CLUSTER]).map_or(now, |last| now.max(last + Duration::from_millis(1)));
    let time = same(&[VIRTUAL_SERVICE, CLUSTER, DIGEST]).unwrap_or_else(later);
    let time = humantime::format_rfc3339_millis(time).to_string();
    let dated =
        |(id, attributes): (&String, &Arc<Attributes>)| (id.clone(), Arc::new(attributes.with(PUBLISHED, &time)));
    wanted.iter().map(dated).collect()
}

fn published(attributes: &Attributes) -> Option<SystemTime> {
    humantime::parse_rfc3339(attributes.get(PUBLISHED)?).ok()
}

/// The ARN of the VirtualService that an instance is part of, if it is part of a publication.
pub fn arn_of(attributes: &Attributes) -> Option<&str> {
    attributes.get(VIRTUAL_SERVICE)
}

/// What the parts of one document have in common. The order is that in which readers prefer documents: the last is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Header<'a> {
    /// Absent is before all times.
    published: Option<SystemTime>,
    /// Of documents of the same time that of the cluster which sorts first is heard, as the release before does.
    cluster: std::cmp::Reverse<&'a str>,
    cluster_arn: Option<&'a str>,
    version: Option<&'a str>,
    requires: Option<&'a str>,
    digest: &'a str,
    count: usize,
}

impl<'a> Header<'a> {
    /// The header and the index of a part.
    fn of(attributes: &'a Attributes) -> Option<(Self, usize)> {
        let get = |key: &str| attributes.get(key);
        let (index, count) = get(PART)?.split_once('/')?;
        let header = Self {
            published: published(attributes),
            cluster: std::cmp::Reverse(get(CLUSTER)?),
            cluster_arn: get(CLUSTER_ARN),
            version: get(VERSION),
            requires: get(REQUIRES),
            digest: get(DIGEST)?,
            count: count.parse().ok()?,
        };
        Some((header, index.parse().ok()?))
    }

    /// Names the cluster for people.
    fn publisher(&self) -> &'a str {
        self.cluster_arn.unwrap_or(self.cluster.0)
    }

    /// Why a document with this header cannot be understood here.
    fn unknown(&self) -> Option<String> {
        let version = self.version.unwrap_or("0");
        if !version.parse().is_ok_and(|version: u32| version <= NEWEST) {
            return Some(format!("is of version {version}, which needs a newer controller here"));
        }
        let required = self.requires.iter().flat_map(|requires| requires.split(',')).map(str::trim);
        let unknown: Vec<_> =
            required.filter(|feature| !feature.is_empty() && !v1::FEATURES.contains(feature)).collect();
        (!unknown.is_empty()).then(|| format!("requires {}, which needs a newer controller here", unknown.join(", ")))
    }
}

/// Reads what the VirtualService of this ARN routes to, from the instances of its Cloud Map service. Also returns the
/// other clusters that publish under this ARN, and are not heard.
pub fn decode<'a>(arn: &str, instances: &'a Instances) -> (Document, BTreeSet<&'a str>) {
    let of_arn: Vec<_> = instances.values().filter(|attributes| arn_of(attributes) == Some(arn)).collect();
    let mut documents: BTreeMap<Header<'a>, BTreeMap<usize, &Attributes>> = BTreeMap::new();
    for (attributes, (header, index)) in of_arn.iter().filter_map(|part| Some((*part, Header::of(part)?))) {
        documents.entry(header).or_default().insert(index, attributes);
    }
    let Some((newest, _)) = documents.last_key_value() else {
        let broken = || Document::NotUnderstood("what is published has no part, digest or cluster".to_owned());
        return (if of_arn.is_empty() { Document::Missing } else { broken() }, BTreeSet::new());
    };
    let incomplete = format!("what cluster {} publishes is not complete", newest.publisher());
    let mut whole = documents.iter().filter_map(|(header, parts)| Some((header, join(header, parts)?)));
    let Some((header, json)) = whole.next_back() else {
        return (Document::NotUnderstood(incomplete), BTreeSet::new());
    };
    let others = documents.keys().filter(|other| other.cluster != header.cluster).map(Header::publisher).collect();
    let problem = |problem: &str| format!("what cluster {} publishes {problem}", header.publisher());
    let document = match header.unknown() {
        Some(unknown) => Document::NotUnderstood(problem(&unknown)),
        None => match v1::decode(&json) {
            Ok(routing) => Document::Understood(routing),
            Err(error) => Document::NotUnderstood(problem(&format!("is broken: {error}"))),
        },
    };
    (document, others)
}

/// A whole document; `None` if parts of it are missing.
fn join(header: &Header<'_>, parts: &BTreeMap<usize, &Attributes>) -> Option<String> {
    if parts.len() != header.count || parts.keys().copied().ne(0..header.count) {
        return None;
    }
    let json: String = parts.values().map(|part| values::join(ROUTES, part)).collect();
    (digest(&json) == header.digest).then_some(json)
}

fn digest(json: &str) -> String {
    hex::encode(&Sha256::digest(json)[..8])
}

/// The same JSON in the characters `!` to `~`: all of them are allowed at any place of an attribute's value, a space is
/// not. Outside of strings compact JSON has no other, inside they can be escaped.
fn printable(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    for unit in json.chars() {
        if unit.is_ascii_graphic() {
            printable.push(unit);
        } else {
            let mut pair = [0; 2];
            printable.extend(unit.encode_utf16(&mut pair).iter().map(|half| format!("\\u{half:04x}")));
        }
    }
    printable
}

#[cfg(test)]
mod tests;
