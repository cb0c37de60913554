//! Fills templates in from the document. Pure.

use anyhow::Result;
use common::Error;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, State, UndefinedBehavior, filters};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Instructions a template may take: far more than any manifest needs, and no endless loop has.
const FUEL: u64 = 200_000;

/// The endings of a template's name, last of all (`web.yaml.j2`) or before the format's (`web.j2.yaml`).
const ENDINGS: [&str; 4] = ["j2", "jinja", "jinja2", "tmpl"];

/// Whether the name of a file says that it is a template.
pub fn is_named_so(file: &Path) -> bool {
    let ends = |name: &Path| name.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
    ends(file) || file.file_stem().is_some_and(|stem| ends(Path::new(stem)))
}

/// The name of a file without the ending that makes it a template: of `web.yaml.j2`, `web.yaml`.
pub fn without_ending(file: &Path) -> &Path {
    match file.file_stem() {
        Some(stem) if file.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)) => {
            Path::new(stem)
        }
        _ => file,
    }
}

/// Fills `{{ … }}` in from the document. Templates see values only: no file, no environment, no command.
///
/// # Errors
/// A template is wrong, or names what the document lacks; unless `lenient`, which leaves it empty.
pub fn fill(file: &str, text: &str, document: &Value, lenient: bool) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_debug(true);
    environment.set_fuel(Some(FUEL));
    // The last line of a file may be a block's.
    environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_undefined_behavior(if lenient { UndefinedBehavior::Chainable } else { UndefinedBehavior::Strict });
    environment.add_filter("tojson", json);
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

/// Jinja's `tojson`. Minijinja's own makes `null` of what is missing; here that ends as it does in a filter of texts.
fn json(
    state: &mut State<'_, '_>,
    value: minijinja::Value,
    indent: Option<minijinja::Value>,
    named: Kwargs,
) -> Result<minijinja::Value, minijinja::Error> {
    if value.is_undefined() {
        return state.apply_filter("upper", &[value]);
    }
    filters::tojson(&value, indent, named)
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

/// An expression in double braces, in a file that is no template, for which the document has a value: such as
/// `images.web.uri`. A bare word, which may be anybody's, is none.
pub fn forgotten<'a>(text: &'a str, document: &Value) -> Option<&'a str> {
    let expressions = text.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0.trim()));
    let known = |path: &&str| {
        let found = path.split('.').try_fold(document, |value, key| value.get(key));
        path.contains('.') && found.is_some_and(|value| !value.is_object() && !value.is_array())
    };
    expressions.into_iter().find(known)
}

/// The expression that the document holds nothing for: minijinja quotes it, and else knows where it stands.
fn undefined(error: &minijinja::Error) -> Option<&str> {
    let quoted = error.detail().and_then(|detail| detail.split_once("` is undefined")?.0.rsplit_once('`'));
    let standing = || error.template_source()?.get(error.range()?);
    quoted.map(|(_, name)| name).or_else(standing)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use ::tests::hostile::spoiled_text;
    use common::kube::manifest;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_template_is_known_by_its_name() {
        for (name, template, without) in [
            ("web.yaml.j2", true, "web.yaml"),
            ("a/web.yml.jinja2", true, "web.yml"),
            ("web.j2.yaml", true, "web.j2.yaml"),
            ("web.tmpl.json", true, "web.tmpl.json"),
            ("web.jinja", true, "web"),
            ("web.yaml", false, "web.yaml"),
            ("j2.yaml", false, "j2.yaml"),
            ("templates.d/web.yaml", false, "templates.d/web.yaml"),
            ("web", false, "web"),
        ] {
            assert_eq!((is_named_so(Path::new(name)), without_ending(Path::new(name))), (template, Path::new(without)));
        }
    }

    #[test]
    fn a_template_keeps_its_end_and_what_is_raw() {
        let fill = |text: &str| fill("f.yaml", text, &json!({"n": 1}), false).unwrap();
        assert_eq!(fill("a: |\n  {{ n }}\n"), "a: |\n  1\n");
        assert_eq!(
            fill("a: '{% raw %}{{namespace}} ${#x}{% endraw %} {{ n }} {{ \"{{\" }}'"),
            "a: '{{namespace}} ${#x} 1 {{'"
        );
    }

    #[test]
    fn any_value_lands_safely_in_yaml_as_json() {
        for value in [
            json!("it's \"so\": yes # no <&> {{ x }} \\ \u{e9}\n- a"),
            json!("- *a: &b !c"),
            json!("no"),
            json!(""),
            json!(null),
            json!(1.5),
            json!({"a: b": ["#", {"c": "\t'"}], "d": true}),
        ] {
            let document = json!({"value": value});
            let text = "a: {{ value | tojson }} # said\nb: [{{ value | tojson }}, 1]\n";
            let filled = fill("f.yaml", text, &document, false).unwrap();
            let read = manifest::read("f.yaml", &filled, &mut |_| None).unwrap().objects;
            assert_eq!(read, [json!({"a": value, "b": [value, 1]})], "{filled}");
        }
        let lacking = fill("f.yaml", "{{ images.b | tojson }}", &json!({"images": {}}), false).unwrap_err();
        assert_eq!(lacking.to_string(), "f.yaml:1: the document has no images.b");
        assert_eq!(fill("f.yaml", "a: {{ b.c | tojson }}", &json!({}), true).unwrap(), "a: ");
    }

    #[test]
    fn only_what_the_document_has_was_forgotten() {
        let document = json!({"images": {"web": {"uri": "u"}}, "namespace": {"id": "ns-1"}});
        for (text, expected) in [
            ("image: '{{ images.web.uri }}'", Some("images.web.uri")),
            ("image: {{images.web.uri}}", Some("images.web.uri")),
            ("{{namespace}} {{ images.web }} {{ images.app.uri }} {{ .Values.x }} {{ request.object }}", None),
            ("{{ images.web.uri", None),
        ] {
            assert_eq!(forgotten(text, &document), expected, "{text}");
        }
    }

    #[test]
    fn what_the_document_lacks_is_named() {
        let document = json!({"images": {"a": {"uri": "u"}}, "n": 1});
        let fill = |text: &str, lenient| fill("f.yaml", text, &document, lenient).map_err(|error| error.to_string());
        assert_eq!(fill("x: {{ images.a.uri }}\n", false), Ok("x: u\n".into()));
        assert_eq!(fill("\nx: {{ images.b.uri }}", false), Err("f.yaml:2: the document has no images.b".into()));
        assert_eq!(fill("{{ peer.apps.c.arn }}", false), Err("f.yaml:1: the document has no peer".into()));
        let second = fill("a: {{ n }} {{ images.a.tag | upper }}", false);
        assert_eq!(second, Err("f.yaml:1: the document has no images.a.tag".into()));
        assert_eq!(fill("x: {{ peer.apps.c.arn }}\n", true), Ok("x: \n".into()));
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

    /// Loops within loops: a small text that would grow without end.
    const LOOPS: &str = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}";

    #[test]
    fn what_grows_without_end_is_refused() {
        let endless = fill("f.yaml", LOOPS, &json!({}), false).unwrap_err().to_string();
        assert_eq!(endless, "f.yaml:1: engine ran out of fuel");
    }

    ::tests::property! {
        #[test]
        fn spoiled_templates_end_and_read_the_document_only(text in spoiled_text([
            "image: {{ images.a.uri }}\nn: {% for x in range(3) %}{{ x * n }}{% endfor %}\n",
            "{% if n == 1 %}{{ images | tojson | upper }}{% endif %}---\nkind: List\nitems: [{a: 1}, &b {c: *b}]\n",
            "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(images['a']['uri'][::-1]) }}",
            "{% include '/etc/passwd' %}{% import '/etc/passwd' as p %}{% set x %}{{ p }}{% endset %}",
            LOOPS,
        ])) {
            let document = json!({"images": {"a": {"uri": "u"}}, "n": 1});
            for lenient in [false, true] {
                let filled = fill("f.yaml", &text, &document, lenient).unwrap_or_default();
                prop_assert!(!filled.contains("root:x:0:0"), "{}", filled);
            }
        }
    }
}
