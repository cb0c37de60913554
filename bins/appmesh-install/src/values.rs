//! The chart's values: the document's, the images', those on the command line. Pure.

use anyhow::Result;
use common::{Document, Error};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The tag of an image that has none: only the digest behind it counts, and an always-pull tag (`latest`) it must not be.
const NO_TAG: &str = "pinned";

/// The annotation of a service account that names its role; of a pod, it says which one that was.
pub const ROLE: &str = "eks.amazonaws.com/role-arn";

/// The annotation of a pod that says which role its service account had by EKS Pod Identity.
pub const ASSOCIATED_ROLE: &str = "crossmesh/pod-identity-role-arn";

/// The role of the controller's service account.
#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    /// The service account names it, by its ARN: see irsa-role.
    Annotated(String),
    /// EKS knows it: see pod-identity.
    Associated(String),
}

impl Role {
    /// The document's, for a service account `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// What stands under `role` is none.
    pub fn of(document: &Document, account: &str) -> Result<Option<Self>> {
        let arn: Option<String> = document.read(&["role", "arn"])?;
        let associations: Option<Map<String, Value>> = document.read(&["role", "associations"])?;
        let associated = associations.is_some_and(|associations| associations.contains_key(account));
        Ok(arn.map(if associated { Self::Associated } else { Self::Annotated }))
    }

    /// What the service account must name.
    pub fn annotation(&self) -> Option<&str> {
        match self {
            Self::Annotated(arn) => Some(arn),
            Self::Associated(_) => None,
        }
    }
}

/// What ecr-push leaves under `images.NAME`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Image {
    repository: String,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default)]
    digest: Option<String>,
}

/// `PREFIX=IMAGE`: the values under `PREFIX` take the document's `images.IMAGE`.
#[derive(Debug, Clone)]
pub struct ImageFlag {
    /// Such as `init.image`.
    pub prefix: String,
    /// Such as `capture`.
    pub image: String,
}

/// One `--set KEY=VALUE`.
#[derive(Debug, Clone)]
pub struct Setting {
    path: Vec<String>,
    value: Value,
}

/// Reads `PREFIX=IMAGE`.
///
/// # Errors
/// A part is missing.
pub fn image_flag(text: &str) -> Result<ImageFlag, String> {
    match text.split_once('=') {
        Some((prefix, image)) if !prefix.is_empty() && !image.is_empty() => {
            Ok(ImageFlag { prefix: prefix.to_owned(), image: image.to_owned() })
        }
        _ => Err("expected VALUES_PREFIX=IMAGE, e.g. init.image=capture".to_owned()),
    }
}

/// Reads `KEY=VALUE` as Helm does: dots separate keys (`\.` is a dot), `true`, `false`, `null` and integers are what
/// they look like, all else is text. Lists are not read.
///
/// # Errors
/// It is not of that form.
pub fn setting(text: &str) -> Result<Setting, String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let mut path = vec![String::new()];
    let mut chars = key.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => path.last_mut().into_iter().for_each(|part| part.extend(chars.next())),
            '.' => path.push(String::new()),
            '[' | '{' | ',' => return Err("lists go into mesh.values of the document".to_owned()),
            c => path.last_mut().into_iter().for_each(|part| part.push(c)),
        }
    }
    if path.iter().any(String::is_empty) {
        return Err(format!("{key} has an empty part"));
    }
    if value.starts_with('{') {
        return Err("lists go into mesh.values of the document".to_owned());
    }
    Ok(Setting { path, value: typed(value) })
}

fn typed(text: &str) -> Value {
    match text {
        "true" => true.into(),
        "false" => false.into(),
        "null" => Value::Null,
        // As in Helm, 007 is text.
        _ if text.len() > 1 && text.starts_with('0') => text.into(),
        _ => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
    }
}

/// What is known besides the document's values.
pub struct Facts<'a> {
    /// The cluster's region.
    pub region: Option<String>,
    /// The chart's value that takes the cluster's name, and the name.
    pub cluster_name: Option<(String, String)>,
    /// The chart's value that takes ids of Cloud Map namespaces by their names, and name and id of the document's.
    pub namespace: Option<(String, (String, String))>,
    /// The controller's service account.
    pub service_account: &'a str,
    /// Its role.
    pub role: Option<&'a Role>,
}

/// The tutorial's values, over them the `given` ones, the images of the document and the settings.
///
/// # Errors
/// The document has no such image, or what stands on the way of a value is not an object.
pub fn resolve(
    document: &Document,
    facts: Facts<'_>,
    given: Map<String, Value>,
    images: &[ImageFlag],
    settings: &[Setting],
) -> Result<Map<String, Value>> {
    let Facts { region, cluster_name, namespace, service_account, role } = facts;
    let mut values = Map::new();
    values.extend(region.map(|region| ("region".to_owned(), region.into())));
    values.extend(cluster_name.map(|(key, name)| (key, name.into())));
    values.insert("serviceAccount".to_owned(), json!({"create": false, "name": service_account}));
    merge(&mut values, given);
    for ImageFlag { prefix, image } in images {
        let found = document.read(&["images", image])?;
        let found = found.ok_or_else(|| {
            Error::input(format!("the document has no images.{image}")).hint(format!("run ecr-push {image} before"))
        })?;
        put_image(&mut values, prefix, &found)?;
    }
    if let Some((key, (name, id))) = namespace {
        merge(&mut values, Map::from_iter([(key, json!({name: id}))]));
    }
    if let Some(role) = role {
        // A pod keeps what its service account had when it was made: another role, or way to it, needs another pod.
        let (key, arn, other) = match role {
            Role::Annotated(arn) => (ROLE, arn, ASSOCIATED_ROLE),
            Role::Associated(arn) => (ASSOCIATED_ROLE, arn, ROLE),
        };
        merge(&mut values, Map::from_iter([("podAnnotations".to_owned(), json!({key: arn}))]));
        values.get_mut("podAnnotations").and_then(Value::as_object_mut).map(|annotations| annotations.remove(other));
    }
    for setting in settings {
        put(&mut values, setting)?;
    }
    Ok(values)
}

/// Puts values over others, key by key.
fn merge(values: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (values.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(over)) => merge(below, over),
            (_, value) => drop(values.insert(key, value)),
        }
    }
}

/// Puts one value at its place.
fn put(values: &mut Map<String, Value>, setting: &Setting) -> Result<()> {
    let Some((last, parents)) = setting.path.split_last() else { return Ok(()) };
    let mut map = values;
    for part in parents {
        let next = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
        map = next.as_object_mut().ok_or_else(|| Error::input(format!("values: {part} is not an object")))?;
    }
    map.insert(last.clone(), setting.value.clone());
    Ok(())
}

/// Puts an image at `PREFIX.repository` and `PREFIX.tag`, pinned by its digest: the charts write `repository:tag`.
fn put_image(values: &mut Map<String, Value>, prefix: &str, image: &Image) -> Result<()> {
    let tag = match (&image.tag, &image.digest) {
        (tag, Some(digest)) => format!("{}@{digest}", tag.as_deref().unwrap_or(NO_TAG)),
        (Some(tag), None) => tag.clone(),
        (None, None) => return Err(Error::input("an image needs a digest or a tag").into()),
    };
    for (field, value) in [("repository", image.repository.as_str()), ("tag", &tag)] {
        let path = prefix.split('.').chain([field]).map(str::to_owned).collect();
        put(values, &Setting { path, value: value.into() })?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn an_association_needs_no_annotation() {
        let role =
            |text: &str, account: &str| Role::of(&Document::parse("test", text.as_bytes()).unwrap(), account).unwrap();
        let associated = r#"{"role": {"arn": "arn", "associations": {"ns/sa": "a-1"}}}"#;
        for (text, account, expected) in [
            ("{}", "ns/sa", None),
            (r#"{"role": {"arn": "arn"}}"#, "ns/sa", Some(Role::Annotated("arn".to_owned()))),
            (associated, "ns/sa", Some(Role::Associated("arn".to_owned()))),
            (associated, "ns/other", Some(Role::Annotated("arn".to_owned()))),
        ] {
            assert_eq!(role(text, account), expected, "{text} {account}");
        }
    }

    #[test]
    fn later_values_win() {
        let document = br#"{"images": {"c": {"repository": "r", "tag": "v1"}}}"#;
        let document = Document::parse("test", document).unwrap();
        let given = json!({"region": "given", "image": {"tag": "given", "pullPolicy": "Always"}, "n": 1,
            "podAnnotations": {"a": "b", ROLE: "old"}, "namespaces": {"a.b": "ns-old", "c": "ns-other"}});
        let given = given.as_object().cloned().unwrap();
        let resolve = |image: &str, role: Role| {
            let (images, settings) = ([image_flag(image).unwrap()], [setting("n=2").unwrap()]);
            let cluster_name = Some(("clusterName".to_owned(), "c1".to_owned()));
            let namespace = Some(("namespaces".to_owned(), ("a.b".to_owned(), "ns-1".to_owned())));
            let facts = Facts {
                region: Some("r1".to_owned()),
                cluster_name,
                namespace,
                service_account: "sa",
                role: Some(&role),
            };
            resolve(&document, facts, given.clone(), &images, &settings)
        };
        let expected = json!({"clusterName": "c1", "image": {"pullPolicy": "Always", "repository": "r", "tag": "v1"},
            "n": 2, "namespaces": {"a.b": "ns-1", "c": "ns-other"}, "podAnnotations": {"a": "b", ROLE: "arn"}, "region": "given", "serviceAccount": {"create": false, "name": "sa"}});
        let annotated = || Role::Annotated("arn".to_owned());
        assert_eq!(Value::Object(resolve("image=c", annotated()).unwrap()), expected);
        let associated = resolve("image=c", Role::Associated("arn".to_owned())).unwrap();
        assert_eq!(associated["podAnnotations"], json!({"a": "b", ASSOCIATED_ROLE: "arn"}));
        assert_eq!(resolve("image=d", annotated()).unwrap_err().to_string(), "the document has no images.d");
    }

    #[test]
    fn settings_are_read_as_helm_reads_them() {
        for (text, expected) in [
            ("a=1", json!({"a": 1})),
            ("a.b=true", json!({"a": {"b": true}})),
            ("a.b=x=y", json!({"a": {"b": "x=y"}})),
            (r"a\.b/c=007", json!({"a.b/c": "007"})),
            ("a=", json!({"a": ""})),
            ("a=0", json!({"a": 0})),
            ("a=null", json!({"a": null})),
            ("a=1.5", json!({"a": "1.5"})),
        ] {
            let mut values = Map::new();
            put(&mut values, &setting(text).unwrap()).unwrap();
            assert_eq!(Value::Object(values), expected, "{text}");
        }
        for wrong in ["a", "=1", "a..b=1", "a[0]=1", "a={1,2}"] {
            assert!(setting(wrong).is_err(), "{wrong}");
        }
        let mut values = Map::from_iter([("a".to_owned(), json!(1))]);
        assert_eq!(put(&mut values, &setting("a.b=1").unwrap()).unwrap_err().to_string(), "values: a is not an object");
    }

    #[test]
    fn values_are_merged_key_by_key() {
        let map = |value: Value| value.as_object().cloned().unwrap();
        let mut values = map(json!({"a": {"b": 1, "c": [1]}, "d": 1}));
        merge(&mut values, map(json!({"a": {"c": [2], "e": 2}, "d": {"f": 1}})));
        assert_eq!(Value::Object(values), json!({"a": {"b": 1, "c": [2], "e": 2}, "d": {"f": 1}}));
    }

    #[test]
    fn images_are_pinned_by_digest() {
        for (image, tag) in [
            (json!({"repository": "r", "tag": "v1", "digest": "sha256:a", "uri": "u"}), "v1@sha256:a"),
            (json!({"repository": "r", "digest": "sha256:a"}), "pinned@sha256:a"),
            (json!({"repository": "r", "tag": "v1"}), "v1"),
        ] {
            let mut values = Map::new();
            put_image(&mut values, "init.image", &serde_json::from_value(image).unwrap()).unwrap();
            assert_eq!(Value::Object(values), json!({"init": {"image": {"repository": "r", "tag": tag}}}));
        }
    }
}
