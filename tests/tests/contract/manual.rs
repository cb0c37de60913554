//! `docs/tools`: a page for each tool, made of its help and of the JSON Schema of its key.

use serde_json::Value;
use std::fmt::Write as _;
use tests::{TOOLS, VIEWS, root, run};

/// After a change: `SNAPSHOTS=overwrite cargo test --workspace --test contract`.
#[test]
fn every_tool_has_its_page() {
    let mut index = "# The tools\n\nA page for each, made of its help and of the schema of its key.\n\n".to_owned();
    for tool in TOOLS.iter().chain(VIEWS) {
        assert_eq!(printed(tool, "--version"), format!("{tool} {}\n", env!("CARGO_PKG_VERSION")));
        let help = printed(tool, "--help");
        let about = help.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        let sentence = about.split(". ").next().unwrap_or_default().trim_end_matches('.');
        writeln!(index, "- [{tool}]({tool}.md): {sentence}.").unwrap();
        let mut page = format!("# {tool}\n\n```text\n{}\n```\n", help.trim_end());
        if TOOLS.contains(tool) {
            let schema: Value = serde_json::from_str(&printed(tool, "--schema")).unwrap();
            let key = schema["description"].as_str().unwrap().trim_end_matches('.');
            writeln!(page, "\n## {key}\n\n| field | type | what it is |\n| --- | --- | --- |").unwrap();
            fields(&schema, &schema, "", &mut page);
        }
        compare(&page, &format!("docs/tools/{tool}.md"));
    }
    compare(&index, "docs/tools/README.md");
}

fn printed(tool: &str, flag: &str) -> String {
    let output = run(tool, [flag], b"").expect(tool);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()), "{tool} {flag}");
    String::from_utf8(output.stdout).unwrap()
}

fn compare(text: &str, file: &str) {
    snapbox::assert_data_eq!(text, snapbox::Data::read_from(&root().join(file), None).raw());
}

/// A row for each property of an object, and of the objects in it.
fn fields(whole: &Value, object: &Value, path: &str, page: &mut String) {
    for (name, schema) in object["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let (kind, inner) = shape(whole, schema);
        let description = schema["description"].as_str().or_else(|| resolved(whole, schema)["description"].as_str());
        let description = description.unwrap_or_else(|| panic!("{path} has no description")).replace('|', "\\|");
        writeln!(page, "| `{path}` | {kind} | {} |", description.replace('\n', " ")).unwrap();
        if let Some((below, object)) = inner {
            fields(whole, object, &format!("{path}{below}"), page);
        }
    }
}

/// What a value is in words, and if there are objects in it where and which.
fn shape<'a>(whole: &'a Value, schema: &'a Value) -> (String, Option<(&'static str, &'a Value)>) {
    let schema = resolved(whole, schema);
    if let Some(values) = schema["oneOf"].as_array() {
        let values: Vec<String> =
            values.iter().map(|value| format!("`{}`", value["const"].as_str().unwrap())).collect();
        return (values.join(", "), None);
    }
    if schema["properties"].is_object() {
        return ("object".to_owned(), Some(("", schema)));
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect();
    let (of, below, items) = match kinds.as_slice() {
        ["array"] => ("list of", "[]", &schema["items"]),
        ["object"] => ("object of", ".NAME", &schema["additionalProperties"]),
        [] => return ("any value".to_owned(), None),
        _ => return (kinds.join(" or "), None),
    };
    let (kind, inner) = shape(whole, items);
    (format!("{of} {kind}"), inner.map(|(deeper, object)| (if deeper.is_empty() { below } else { deeper }, object)))
}

/// The schema itself, without references and without the alternative of null.
fn resolved<'a>(whole: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(place) = schema["$ref"].as_str() {
        return resolved(whole, whole.pointer(place.trim_start_matches('#')).unwrap());
    }
    match schema["anyOf"].as_array() {
        Some(either) => resolved(whole, either.iter().find(|one| one["type"] != "null").unwrap()),
        None => schema,
    }
}
