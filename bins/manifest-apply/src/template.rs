//! From a file's text to objects: bare words, templates, YAML. Pure.

use anyhow::Result;
use common::Error;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::Value;
use serde_saphyr::{MessageFormatter, UserMessageFormatter};
use std::collections::{BTreeMap, BTreeSet};

/// Instructions a template may take: far more than any manifest needs, and no endless loop has.
const FUEL: u64 = 200_000;

/// Replaces whole words: `ECR_IMAGE_PREFIX`, `colorapp-service-ARN`. Letters, digits, `_` and `-` make a word, so
/// `colorapp` is not replaced within `colorapp-service-ARN`. Words that occur are added to `used`.
pub fn replace_words(text: &str, words: &BTreeMap<String, String>, used: &mut BTreeSet<String>) -> String {
    let of_a_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word_ends = rest.find(|c| !of_a_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_ends);
        match words.get(word) {
            Some(value) => {
                used.insert(word.to_owned());
                out.push_str(value);
            }
            None => out.push_str(word),
        }
        let next_word = after.find(of_a_word).unwrap_or(after.len());
        out.push_str(&after[..next_word]);
        rest = &after[next_word..];
    }
    out
}

/// Fills `{{ … }}` in from the document. Templates see values only: no file, no environment, no command.
///
/// # Errors
/// A template is wrong, or names what the document lacks; unless `lenient`, which leaves it empty.
pub fn fill(file: &str, text: &str, document: &Value, lenient: bool) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_debug(true);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_undefined_behavior(if lenient { UndefinedBehavior::Chainable } else { UndefinedBehavior::Strict });
    environment.render_named_str(file, text, values(document)).map_err(|error| {
        let place = error.line().map_or(file.to_owned(), |line| format!("{file}:{line}"));
        if error.kind() != ErrorKind::UndefinedError {
            let detail = error.detail().map_or(String::new(), |detail| format!(": {detail}"));
            return Error::input(format!("{place}: {}{detail}", error.kind())).into();
        }
        let name = undefined(&error).unwrap_or("a value");
        let hint = if name.starts_with("peer") {
            "give the other side's document with --from"
        } else {
            "run the tool that owns this key before, or put the value into the document"
        };
        Error::input(format!("{place}: the document has no {name}")).hint(hint).into()
    })
}

/// Numbers are exact in the document; a template sees them as integers or floats, or as their text when neither holds
/// them.
fn values(json: &Value) -> minijinja::Value {
    match json {
        Value::Null => ().into(),
        Value::Bool(yes) => (*yes).into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => integer.into(),
            (None, Some(float)) if float.to_string() == number.to_string() => float.into(),
            _ => number.to_string().into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(values).collect(),
        Value::Object(map) => {
            let map: BTreeMap<String, minijinja::Value> =
                map.iter().map(|(key, value)| (key.clone(), values(value))).collect();
            minijinja::Value::from_object(map)
        }
    }
}

/// The expression that the document holds nothing for: minijinja quotes it, and else knows where it stands.
fn undefined(error: &minijinja::Error) -> Option<&str> {
    let quoted = error.detail().and_then(|detail| detail.split_once("` is undefined")?.0.rsplit_once('`'));
    let standing = || error.template_source()?.get(error.range()?);
    quoted.map(|(_, name)| name).or_else(standing)
}

/// The objects of a YAML (or JSON) text of any number of documents; lists are taken apart, empty documents skipped.
///
/// # Errors
/// It is not YAML, or a document is not an object.
pub fn objects(file: &str, text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        let at = error.location().map_or(String::new(), |at| format!(":{}:{}", at.line(), at.column()));
        // Without the lines around it, which may hold what is no log's business.
        let what = UserMessageFormatter.format_message(error.without_snippet());
        Error::input(format!("{file}{at}: not YAML: {}", what.replace(char::is_control, " ")))
    })?;
    let mut objects = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        match document {
            Value::Null => {}
            Value::Object(mut object) => {
                let list = object.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
                match object.get_mut("items") {
                    Some(Value::Array(items)) if list => objects.append(items),
                    _ => objects.push(Value::Object(object)),
                }
            }
            _ => return Err(Error::input(format!("{file}: document {} is not an object", index + 1)).into()),
        }
    }
    Ok(objects)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use ::tests::hostile::spoiled_text;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn only_whole_words_are_replaced() {
        let words: BTreeMap<String, String> =
            [("ECR_IMAGE_PREFIX", "ecr/p"), ("colorapp-service-ARN", "arn:x"), ("app", "APP"), ("unused", "")]
                .map(|(word, value)| (word.into(), value.into()))
                .into();
        let mut used = BTreeSet::new();
        for (text, expected) in [
            ("image: ECR_IMAGE_PREFIX/colorapp\n", "image: ecr/p/colorapp\n"),
            ("virtualServiceARN: colorapp-service-ARN", "virtualServiceARN: arn:x"),
            ("MY_ECR_IMAGE_PREFIX ECR_IMAGE_PREFIXES", "MY_ECR_IMAGE_PREFIX ECR_IMAGE_PREFIXES"),
            ("{app: app, a: feapp}", "{APP: APP, a: feapp}"),
            ("é app é", "é APP é"),
            ("", ""),
        ] {
            assert_eq!(replace_words(text, &words, &mut used), expected);
        }
        assert_eq!(used.into_iter().collect::<Vec<_>>(), ["ECR_IMAGE_PREFIX", "app", "colorapp-service-ARN"]);
    }

    #[test]
    fn what_the_document_lacks_is_named() {
        let document = json!({"images": {"a": {"uri": "u"}}, "n": 1});
        let fill = |text: &str, lenient| fill("f.yaml", text, &document, lenient).map_err(|error| error.to_string());
        assert_eq!(fill("x: {{ images.a.uri }}\n", false), Ok("x: u".into()));
        assert_eq!(fill("\nx: {{ images.b.uri }}", false), Err("f.yaml:2: the document has no images.b".into()));
        assert_eq!(fill("{{ peer.apps.c.arn }}", false), Err("f.yaml:1: the document has no peer".into()));
        let second = fill("a: {{ n }} {{ images.a.tag | upper }}", false);
        assert_eq!(second, Err("f.yaml:1: the document has no images.a.tag".into()));
        assert_eq!(fill("x: {{ peer.apps.c.arn }}\n", true), Ok("x: ".into()));
        assert_eq!(fill("{% if n == 1 %}one{% endif %}", false), Ok("one".into()));
        for forbidden in [
            "{% include '/etc/passwd' %}",
            "{% import '/etc/passwd' as p %}",
            "{% extends '/etc/passwd' %}",
            "{{ range }",
            "{{ env('HOME') }}",
            "{{ open('/etc/passwd') }}",
            "{{ images.__class__ }}",
        ] {
            for lenient in [false, true] {
                let filled = fill(forbidden, lenient);
                assert!(filled.is_err() || filled == Ok(String::new()), "{forbidden}: {filled:?}");
            }
            assert!(fill(forbidden, false).is_err(), "{forbidden}");
        }
    }

    /// Loops within loops, and anchors within anchors: small texts that would grow without end.
    const BOMBS: [&str; 2] = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\n\
         d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e]\n\
         g: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f]\nh: [*g, *g, *g, *g, *g, *g, *g, *g, *g]\n",
    ];

    #[test]
    fn what_grows_without_end_is_refused() {
        let [loops, anchors] = BOMBS;
        let endless = fill("f.yaml", loops, &json!({}), false).unwrap_err().to_string();
        assert_eq!(endless, "f.yaml:1: engine ran out of fuel");
        let huge = objects("f.yaml", anchors).unwrap_err().to_string();
        assert!(huge.starts_with("f.yaml:") && huge.contains("not YAML"), "{huge}");
    }

    ::tests::property! {
        #[test]
        fn spoiled_templates_end_and_read_the_document_only(text in spoiled_text([
            "image: {{ images.a.uri }}\nn: {% for x in range(3) %}{{ x * n }}{% endfor %}\n",
            "{% if n == 1 %}{{ images | tojson | upper }}{% endif %}---\nkind: List\nitems: [{a: 1}, &b {c: *b}]\n",
            "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(images['a']['uri'][::-1]) }}",
            "{% include '/etc/passwd' %}{% import '/etc/passwd' as p %}{% set x %}{{ p }}{% endset %}",
            BOMBS[0],
            BOMBS[1],
        ])) {
            let document = json!({"images": {"a": {"uri": "u"}}, "n": 1});
            for lenient in [false, true] {
                let filled = fill("f.yaml", &text, &document, lenient).unwrap_or_default();
                prop_assert!(!filled.contains("root:x:0:0"), "{}", filled);
                let _refused_or_read = objects("f.yaml", &filled);
            }
        }
    }

    #[test]
    fn documents_become_objects() {
        let names = |text: &str| -> Result<Vec<Value>, String> {
            objects("f.yaml", text).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(
            names("---\n# only words\n---\na: 1\n---\nb: \"8080\"\n"),
            Ok(vec![json!({"a": 1}), json!({"b": "8080"})])
        );
        assert_eq!(names("kind: List\nitems: [{a: 1}, {b: 2}]"), Ok(vec![json!({"a": 1}), json!({"b": 2})]));
        assert_eq!(names("- 1"), Err("f.yaml: document 1 is not an object".into()));
        for (text, place) in [("a: 1\na: 2", "2:1"), ("a:\n  b: 1\n c: 2", "3:2"), ("a: [1", "1:4")] {
            let error = names(text).unwrap_err();
            assert!(error.starts_with(&format!("f.yaml:{place}: not YAML: ")), "{error}");
        }
    }
}
