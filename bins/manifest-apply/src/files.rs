//! The manifests of a run: read, filled in, put in order.

use crate::plan::order;
use crate::template;
use anyhow::{Context, Result};
use common::Error;
use common::kube::apply::Manifest;
use common::kube::object::{ObjectRef, Objects, unknown};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where manifests come from and what is filled in.
pub struct Source<'a> {
    /// Files, or folders of files.
    pub files: &'a [String],
    /// Bare words and what replaces them.
    pub words: &'a BTreeMap<String, String>,
    /// The values of templates.
    pub document: &'a Value,
    /// Only the objects' names matter: what the document lacks stays empty, words need not occur.
    pub names_only: bool,
}

impl Source<'_> {
    /// All objects of all files.
    ///
    /// # Errors
    /// A file cannot be read, is not YAML, names what the document lacks; a word occurs nowhere.
    pub fn read(&self) -> Result<Vec<Value>> {
        let (mut objects, mut used) = (Vec::new(), BTreeSet::new());
        for file in self.files {
            for path in expand(Path::new(file))? {
                let name = path.display().to_string();
                let text =
                    std::fs::read_to_string(&path).map_err(|error| Error::input(format!("read {name}: {error}")))?;
                let text = template::replace_words(&text, self.words, &mut used);
                let text = template::fill(&name, &text, self.document, self.names_only)?;
                objects.extend(template::objects(&name, &text)?);
            }
        }
        match self.words.keys().find(|word| !used.contains(*word)) {
            Some(word) if !self.names_only => Err(Error::input(format!("the word {word} occurs in no file")).into()),
            _ => Ok(objects),
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
    names_only: bool,
) -> Result<Vec<Manifest>> {
    let coming = coming_kinds(&bodies);
    let mut manifests: Vec<Manifest> = Vec::new();
    for mut body in bodies {
        let mut object = ObjectRef::of(&body).ok_or_else(|| nameless(&body))?;
        let namespaced = match objects.namespaced(&object).await? {
            Some(namespaced) => namespaced,
            None => match coming.get(&(object.group().to_owned(), object.kind.clone())) {
                Some(namespaced) => *namespaced,
                // What cannot exist needs no namespace.
                None if names_only => object.namespace.is_some(),
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

/// A file is itself; a folder its `.yaml`, `.yml` and `.json` files, by name.
fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| Error::input(format!("read {}: {error}", path.display())))?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files
        .retain(|file| file.extension().is_some_and(|kind| ["yaml", "yml", "json"].iter().any(|known| kind == *known)));
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

    #[test]
    fn folders_are_read_by_name_and_words_must_occur() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        file("b.yaml", "{b: WORD}");
        file("a.yml", "{a: '{{ n }}'}");
        file("notes.txt", "no");
        let files = [folder.path().display().to_string()];
        let read = |words: &[(&str, &str)], document: Value, names_only| {
            let words = words.iter().map(|(word, value)| ((*word).to_owned(), (*value).to_owned())).collect();
            Source { files: &files, words: &words, document: &document, names_only }.read()
        };
        assert_eq!(read(&[("WORD", "x")], json!({"n": 1}), false).unwrap(), [json!({"a": "1"}), json!({"b": "x"})]);
        assert_eq!(
            read(&[("W", "x")], json!({"n": 1}), false).unwrap_err().to_string(),
            "the word W occurs in no file"
        );
        assert_eq!(read(&[("W", "x")], json!({}), true).unwrap(), [json!({"a": ""}), json!({"b": "WORD"})]);
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
