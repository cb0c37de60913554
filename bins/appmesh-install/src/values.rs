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

/// What one `--set` or `--set-json` says: values at their places.
#[derive(Debug, Clone)]
pub struct Settings(Vec<Setting>);

#[derive(Debug, Clone)]
struct Setting {
    /// The flag that says so.
    flag: &'static str,
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

/// Why a list is refused.
const NO_LISTS: &str = "lists are for --set-json KEY=JSON, or mesh.values of the document";

/// Reads `KEY=VALUE[,KEY=VALUE…]` as `helm --set` does: dots separate keys, commas one from the next; `\` takes what follows
/// as it stands; `true`, `false`, `null` in any case and integers are what they look like, all else is text. Lists are not
/// read. Source: helm.sh/helm/v3/pkg/strvals/parser.go.
///
/// # Errors
/// It is not of that form.
pub fn settings(text: &str) -> Result<Settings, String> {
    let (mut settings, mut rest) = (Vec::new(), text);
    while !rest.is_empty() || settings.is_empty() {
        let path;
        (path, rest) = keys(rest)?;
        if rest.starts_with('{') {
            return Err(format!("{}: {NO_LISTS}", path.join(".")));
        }
        let mut value = String::new();
        let mut chars = rest.chars();
        while let Some(c) = chars.next() {
            match c {
                ',' => break,
                '\\' => value.extend(chars.next()),
                c => value.push(c),
            }
        }
        rest = chars.as_str();
        settings.push(Setting { flag: "--set", path, value: typed(value) });
    }
    Ok(Settings(settings))
}

/// Reads `KEY=JSON[,KEY=JSON…]` as `helm --set-json` does. No JSON at all is `null`.
///
/// # Errors
/// It is not of that form.
pub fn json_settings(text: &str) -> Result<Settings, String> {
    let (mut settings, mut rest) = (Vec::new(), text);
    while !rest.is_empty() || settings.is_empty() {
        let path;
        (path, rest) = keys(rest)?;
        rest = rest.trim_start();
        let mut value = Value::Null;
        if !rest.is_empty() && !rest.starts_with(',') {
            let mut json = serde_json::Deserializer::from_str(rest).into_iter();
            let read = json.next().unwrap_or(Ok(Value::Null));
            value = read.map_err(|error| format!("{}: not JSON: {error}", path.join(".")))?;
            rest = rest[json.byte_offset()..].trim_start();
        }
        rest = match rest.strip_prefix(',') {
            Some(next) => next,
            None if rest.is_empty() => rest,
            None => return Err(format!("{}: after the JSON stands {rest:?}, and no comma", path.join("."))),
        };
        settings.push(Setting { flag: "--set-json", path, value });
    }
    Ok(Settings(settings))
}

/// The keys up to the `=`, and what stands after it.
fn keys(text: &str) -> Result<(Vec<String>, &str), String> {
    let (mut path, mut part) = (Vec::new(), String::new());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => part.extend(chars.next()),
            '.' => path.push(std::mem::take(&mut part)),
            '[' => return Err(format!("{text}: {NO_LISTS}")),
            ',' => break,
            '=' => {
                path.push(part);
                let is_whole = !path.iter().any(String::is_empty);
                return if is_whole { Ok((path, chars.as_str())) } else { Err(format!("{text} has an empty key")) };
            }
            c => part.push(c),
        }
    }
    path.push(part);
    Err(format!("{:?} has no value: expected KEY=VALUE, and \\, for a comma in a value", path.join(".")))
}

fn typed(text: String) -> Value {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    match text.as_str() {
        _ if is("true") => true.into(),
        _ if is("false") => false.into(),
        _ if is("null") => Value::Null,
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

/// The tutorial's values, over them the `given` ones, the images of the document and the settings, in their order.
///
/// # Errors
/// The document has no such image, or what stands on the way of a value is not an object.
pub fn resolve<'a>(
    document: &Document,
    facts: Facts<'_>,
    given: Map<String, Value>,
    images: &[ImageFlag],
    settings: impl IntoIterator<Item = &'a Settings>,
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
    for setting in settings.into_iter().flat_map(|settings| &settings.0) {
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
    let Setting { flag, path, value } = setting;
    let Some((last, parents)) = path.split_last() else { return Ok(()) };
    let mut map = values;
    for (depth, part) in parents.iter().enumerate() {
        let next = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
        map = next.as_object_mut().ok_or_else(|| {
            Error::input(format!("{flag} {}: {} is not an object", path.join("."), path[..=depth].join(".")))
        })?;
    }
    map.insert(last.clone(), value.clone());
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
        put(values, &Setting { flag: "--image", path, value: value.into() })?;
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
            let (images, settings) = ([image_flag(image).unwrap()], [settings("n=1,n=2").unwrap()]);
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

    /// What `--set` and `--set-json` make of nothing.
    const SET: [(&str, &str); 24] = [
        ("a=1", r#"{"a": 1}"#),
        ("a=-1", r#"{"a": -1}"#),
        ("a.b=true", r#"{"a": {"b": true}}"#),
        ("a=False,b=TRUE,c=trueish", r#"{"a": false, "b": true, "c": "trueish"}"#),
        ("a.b=x=y", r#"{"a": {"b": "x=y"}}"#),
        (r"a\.b/c=007", r#"{"a.b/c": "007"}"#),
        ("a=", r#"{"a": ""}"#),
        ("a=,b=1", r#"{"a": "", "b": 1}"#),
        ("a=0", r#"{"a": 0}"#),
        ("a=1.5", r#"{"a": "1.5"}"#),
        ("a=99999999999999999999", r#"{"a": "99999999999999999999"}"#),
        ("a=1,b.c=2,b.d=3,", r#"{"a": 1, "b": {"c": 2, "d": 3}}"#),
        (r"a=1\,2,b=3", r#"{"a": "1,2", "b": 3}"#),
        (r"a=x\\y\z\", r#"{"a": "x\\yz"}"#),
        (r"a=\{1\,2},b=\true", r#"{"a": "{1,2}", "b": true}"#),
        ("a= x , b=1", r#"{"a": " x ", " b": 1}"#),
        (r"a\,b=1,a\=c=2,a\[0]=3", r#"{"a,b": 1, "a=c": 2, "a[0]": 3}"#),
        ("a=b]{,b{=1", r#"{"a": "b]{", "b{": 1}"#),
        ("a=é,b=1", r#"{"a": "é", "b": 1}"#),
        ("a=1,a=2", r#"{"a": 2}"#),
        ("a=2021-01-01", r#"{"a": "2021-01-01"}"#),
        ("a=1_000", r#"{"a": "1_000"}"#),
        ("a=+5", r#"{"a": 5}"#),
        ("a=0x10", r#"{"a": "0x10"}"#),
    ];
    const SET_JSON: [(&str, &str); 8] = [
        (r#"t=[{"operator":"Exists"}]"#, r#"{"t": [{"operator": "Exists"}]}"#),
        (r#"a.b={"c":1},a.d="x,y""#, r#"{"a": {"b": {"c": 1}, "d": "x,y"}}"#),
        (r#"a= {"b":1} ,c=[1, 2],d=false"#, r#"{"a": {"b": 1}, "c": [1, 2], "d": false}"#),
        (r#"n\.s={"kubernetes.io/os":"linux"}"#, r#"{"n.s": {"kubernetes.io/os": "linux"}}"#),
        (r#"a={"b":1},a={"c":2}"#, r#"{"a": {"c": 2}}"#),
        ("a=1,", r#"{"a": 1}"#),
        ("a=1.5", r#"{"a": 1.5}"#),
        ("a= true", r#"{"a": true}"#),
    ];

    fn read(flag: &str, text: &str) -> Result<Settings, String> {
        if flag == "--set" { settings(text) } else { json_settings(text) }
    }

    /// The cases of both flags.
    fn cases() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        let of = |flag| move |(text, expected)| (flag, text, expected);
        SET.into_iter().map(of("--set")).chain(SET_JSON.into_iter().map(of("--set-json")))
    }

    #[test]
    fn settings_are_read_as_helm_reads_them() {
        let null = [("--set", "a=NULL", r#"{"a": null}"#), ("--set-json", "a=null,b=", r#"{"a": null, "b": null}"#)];
        for (flag, text, expected) in cases().chain(null) {
            let mut values = Map::new();
            for setting in read(flag, text).unwrap().0 {
                put(&mut values, &setting).unwrap();
            }
            assert_eq!(Value::Object(values), serde_json::from_str::<Value>(expected).unwrap(), "{flag} {text}");
        }
        let no_value = |key: &str| format!("{key:?} has no value: expected KEY=VALUE, and \\, for a comma in a value");
        for (flag, text, expected) in [
            ("--set", "", no_value("")),
            ("--set", "a.b", no_value("a.b")),
            ("--set", "a=1,2", no_value("2")),
            ("--set", "a=1,,b=2", no_value("")),
            ("--set", "=1", "=1 has an empty key".to_owned()),
            ("--set", "a..b=1", "a..b=1 has an empty key".to_owned()),
            ("--set", "a[0]=1", format!("a[0]=1: {NO_LISTS}")),
            ("--set", "b=1,a={1,2}", format!("a: {NO_LISTS}")),
            ("--set-json", "a", no_value("a")),
            ("--set-json", "a[0]=1", format!("a[0]=1: {NO_LISTS}")),
            ("--set-json", "a.b=x", "a.b: not JSON: expected value at line 1 column 1".to_owned()),
            ("--set-json", "a=1 b=2", "a: after the JSON stands \"b=2\", and no comma".to_owned()),
        ] {
            assert_eq!(read(flag, text).map(drop), Err(expected), "{flag} {text}");
        }
        for (flag, place) in [("--set", "a.b"), ("--set-json", "a.b.c")] {
            let mut values = Map::from_iter([("a".to_owned(), json!(1))]);
            let error = put(&mut values, &read(flag, &format!("{place}=1")).unwrap().0[0]).unwrap_err();
            assert_eq!(error.to_string(), format!("{flag} {place}: a is not an object"));
        }
    }

    #[test]
    fn helm_reads_settings_so() {
        let Some(helm) = crate::helm::of_tests() else { return };
        let chart = tempfile::tempdir().unwrap();
        std::fs::create_dir(chart.path().join("templates")).unwrap();
        for (file, text) in [
            ("Chart.yaml", "apiVersion: v2\nname: a\nversion: 1.0.0\n"),
            ("values.yaml", "{}\n"),
            ("templates/a.yaml", "v: {{ .Values | toJson }}\n"),
        ] {
            std::fs::write(chart.path().join(file), text).unwrap();
        }
        for (flag, text, expected) in cases() {
            let rendered =
                std::process::Command::new(&helm).args(["template", flag, text, "a"]).arg(chart.path()).output();
            let rendered = rendered.unwrap();
            let (said, error) = (String::from_utf8_lossy(&rendered.stdout), String::from_utf8_lossy(&rendered.stderr));
            let (_, values) = said.split_once("v: ").unwrap_or_else(|| panic!("{flag} {text}: {error}"));
            let [values, expected] = [values, expected].map(|it| serde_json::from_str::<Value>(it).unwrap());
            assert_eq!(values, expected, "{flag} {text}");
        }
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
