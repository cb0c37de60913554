//! The manifests of a run: read, filled in, put in order.

use crate::plan::order;
use crate::template;
use crate::words::Words;
use anyhow::{Context, Result};
use common::Error;
use common::kube::apply::Manifest;
use common::kube::manifest;
use common::kube::object::{ObjectRef, Objects, unknown};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The endings of manifests in a folder, as kubectl knows them.
const FORMATS: [&str; 3] = ["yaml", "yml", "json"];

/// What makes a file a template.
const HOW: &str = "{{ … }} is filled in with --template, or where a file's name ends in .j2";

/// Where manifests come from and what is filled in.
pub struct Source<'a> {
    /// Files, or folders of files.
    pub files: &'a [String],
    /// All files are templates, whatever their names.
    pub template: bool,
    /// Bare words and what replaces them.
    pub words: &'a BTreeMap<String, String>,
    /// The values of templates.
    pub document: &'a Value,
    /// Only the objects' names matter: what the document lacks stays empty, words need not occur.
    pub names_only: bool,
}

impl Source<'_> {
    /// All objects of all files. What is no template is taken as it stands, but for the words.
    ///
    /// # Errors
    /// A file cannot be read, is no manifest, names what the document lacks; a word occurs nowhere.
    pub fn read(&self) -> Result<manifest::Content> {
        let (mut all, mut words) = (manifest::Content::default(), Words::new(self.words));
        for file in self.files {
            for path in expand(Path::new(file))? {
                let name = path.display().to_string();
                let bytes = std::fs::read(&path).map_err(|error| Error::input(format!("read {name}: {error}")))?;
                let mut text = manifest::decode(&name, &bytes)?;
                let template = self.template || template::is_named_so(&path);
                if template {
                    text = template::fill(&name, &text, self.document, self.names_only)?;
                } else if let Some(expression) = template::forgotten(&text, self.document) {
                    all.remarks.push(format!("{name}: {{{{ {expression} }}}} stays as it is: {HOW}"));
                }
                let read = manifest::read(&name, &text, &mut |scalar| words.replace(scalar));
                let read =
                    read.map_err(|error| if template || !text.contains("{{") { error } else { hinted(error) })?;
                all.objects.extend(read.objects);
                all.remarks.extend(read.remarks);
            }
        }
        match words.missing() {
            Some(word) if !self.names_only => Err(Error::input(format!("the word {word} occurs in no file")).into()),
            _ => Ok(all),
        }
    }
}

/// Braces that are not YAML may have been meant for a template.
fn hinted(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(error) if error.hint.is_none() => error.hint(HOW).into(),
        Ok(error) => error.into(),
        Err(error) => error,
    }
}

/// Kinds that the cluster does not have and may lack: their objects do not exist, and are in the namespace they say.
#[derive(Debug, Clone, Copy)]
pub enum Unknown {
    /// Any: there is nothing of them to delete.
    Any,
    /// Those of a group that is yet to be defined.
    Of(Option<&'static str>),
}

impl Unknown {
    fn may_be(self, object: &ObjectRef) -> bool {
        match self {
            Self::Any => true,
            Self::Of(group) => group == Some(object.group()),
        }
    }
}

/// Gives every object its namespace (the given one where it says none) and puts them in order.
///
/// # Errors
/// An object has no name, is there twice, or the cluster does not know its kind.
pub async fn manifests(
    objects: &Objects,
    bodies: Vec<Value>,
    namespace: &str,
    unknown_kinds: Unknown,
) -> Result<Vec<Manifest>> {
    let coming = coming_kinds(&bodies);
    let mut manifests: Vec<Manifest> = Vec::new();
    for mut body in bodies {
        let mut object = ObjectRef::of(&body).ok_or_else(|| nameless(&body))?;
        let namespaced = match objects.namespaced(&object).await? {
            Some(namespaced) => namespaced,
            None => match coming.get(&(object.group().to_owned(), object.kind.clone())) {
                Some(namespaced) => *namespaced,
                None if unknown_kinds.may_be(&object) => object.namespace.is_some(),
                None => {
                    let hint = "install what defines it before: appmesh-install does for appmesh.k8s.aws";
                    return Err(Error::failed(unknown(&object)).hint(hint)).context(format!("apply {object}"));
                }
            },
        };
        object.namespace = namespaced.then(|| object.namespace.unwrap_or_else(|| namespace.to_owned()));
        if let Some(metadata) = body["metadata"].as_object_mut() {
            metadata.remove("namespace");
            metadata
                .extend(object.namespace.iter().map(|namespace| ("namespace".to_owned(), namespace.as_str().into())));
        }
        if manifests.iter().any(|other| other.object == object) {
            return Err(Error::input(format!("{object} is there twice")).into());
        }
        manifests.push(Manifest { object, body });
    }
    order(&mut manifests);
    Ok(manifests)
}

/// The kinds that definitions among the objects bring, and whether they live in namespaces.
fn coming_kinds(bodies: &[Value]) -> BTreeMap<(String, String), bool> {
    let definitions = bodies.iter().filter(|body| body["kind"] == "CustomResourceDefinition").map(|body| &body["spec"]);
    let kinds = definitions.filter_map(|spec| {
        let kind = (spec["group"].as_str()?.to_owned(), spec["names"]["kind"].as_str()?.to_owned());
        Some((kind, spec["scope"] == "Namespaced"))
    });
    kinds.collect()
}

fn nameless(body: &Value) -> Error {
    let missing = ["/apiVersion", "/kind", "/metadata/name"]
        .into_iter()
        .find(|at| body.pointer(at).and_then(Value::as_str).is_none_or(str::is_empty));
    let missing = missing.unwrap_or_default().trim_start_matches('/').replace('/', ".");
    Error::input(format!("an object has no {missing}: {}", body["kind"].as_str().unwrap_or("of unknown kind")))
}

/// A file is itself; a folder its `.yaml`, `.yml` and `.json` files, templates of them included, by name.
fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| Error::input(format!("read {}: {error}", path.display())))?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| {
        let format = template::without_ending(file).extension();
        format.is_some_and(|format| FORMATS.iter().any(|known| format == *known))
    });
    files.sort();
    if files.is_empty() {
        return Err(Error::input(format!("{} holds no .yaml, .yml or .json file", path.display())).into());
    }
    Ok(files)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::json;

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::write(folder.join(name), text).unwrap();
    }

    /// The objects and the remarks, or the error and its hint.
    type Outcome = Result<(Vec<Value>, Vec<String>), (String, Option<String>)>;

    /// What is read of files.
    fn read(files: &[String], template: bool, words: &[(&str, &str)], document: &Value, names_only: bool) -> Outcome {
        let words = words.iter().map(|(word, value)| ((*word).to_owned(), (*value).to_owned())).collect();
        let read = Source { files, template, words: &words, document, names_only }.read();
        read.map(|read| (read.objects, read.remarks)).map_err(|error| {
            let hint = error.downcast_ref::<Error>().and_then(|error| error.hint.clone());
            (error.to_string(), hint)
        })
    }

    #[test]
    fn folders_are_read_by_name_and_words_must_occur() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "c.json", r#"{"c": "x-WORD WORD"}"#);
        write(folder.path(), "b.yaml", "{b: WORD}");
        write(folder.path(), "a.yml.j2", "{a: '{{ n }}'}");
        write(folder.path(), "notes.txt", "no");
        write(folder.path(), "notes.j2", "no");
        let files = [folder.path().display().to_string()];
        let read = |words, document, names_only| {
            read(&files, false, words, &document, names_only).map(|read| read.0).map_err(|error| error.0)
        };
        let expected = vec![json!({"a": "1"}), json!({"b": 256}), json!({"c": "x-WORD 0400"})];
        assert_eq!(read(&[("WORD", "0400")], json!({"n": 1}), false), Ok(expected));
        assert_eq!(read(&[("W", "x")], json!({"n": 1}), false), Err("the word W occurs in no file".to_owned()));
        let expected = vec![json!({"a": ""}), json!({"b": "WORD"}), json!({"c": "x-WORD WORD"})];
        assert_eq!(read(&[("W", "x")], json!({}), true), Ok(expected));
    }

    #[test]
    fn what_is_no_template_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let document = json!({"namespace": {"id": "ns-1"}, "n": 1});
        let text = "a: |\n  {{namespace}} {{ n }} {% raw %} ${#x}\n  {# y #}\n# {{ z }} {%\nb: '{{ namespace.id }}'\n";
        let (plain, flow) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
        write(folder.path(), "a.yaml", text);
        write(folder.path(), "b.yaml", "a: {{ n }}");
        let (plain, flow) = ([plain.display().to_string()], [flow.display().to_string()]);
        let untouched = json!({"a": "{{namespace}} {{ n }} {% raw %} ${#x}\n{# y #}\n", "b": "{{ namespace.id }}"});
        let remark = format!("{}: {{{{ namespace.id }}}} stays as it is: {HOW}", plain[0]);
        assert_eq!(read(&plain, false, &[], &document, false), Ok((vec![untouched.clone()], vec![remark])));
        assert_eq!(read(&plain, false, &[("n", "2")], &json!({}), true), Ok((vec![untouched], Vec::new())));
        assert_eq!(read(&flow, true, &[], &document, false), Ok((vec![json!({"a": 1})], Vec::new())));
        let (_, hint) = read(&flow, false, &[], &document, false).unwrap_err();
        assert_eq!(hint.as_deref(), Some(HOW));
    }

    #[test]
    fn what_a_nameless_object_lacks_is_said() {
        for (body, expected) in [
            (json!({"kind": "Pod", "metadata": {"name": "a"}}), "an object has no apiVersion: Pod"),
            (
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": ""}}),
                "an object has no metadata.name: Pod",
            ),
        ] {
            assert_eq!(nameless(&body).to_string(), expected);
        }
    }

    #[test]
    fn a_definition_brings_its_kind() {
        let bodies = [json!({"kind": "CustomResourceDefinition",
            "spec": {"group": "g", "names": {"kind": "K"}, "scope": "Namespaced"}})];
        assert_eq!(coming_kinds(&bodies), [(("g".to_owned(), "K".to_owned()), true)].into());
    }
}
