//! Tells from an object alone that applying a manifest once more would change nothing. Pure.

use super::apply::managed_fields;
use serde_json::Value;

/// Whether the object is as `manager` applied this manifest.
///
/// The API server keeps which fields a manager applied last, and takes a field from it as soon as anybody sets another
/// value. So a manager that has the fields of the manifest and no others, all with the manifest's values, would apply what
/// is there. It may be so without being told so here: of a value that the API server writes in another way, or fills in
/// where it replaces the whole, only a dry run knows. Source: kubernetes.io, Server-Side Apply; FieldsV1 of metav1.
pub fn is_applied(live: &Value, want: &Value, manager: &str) -> bool {
    let ours = |entry: &&Value| {
        entry["manager"] == manager && entry["operation"] == "Apply" && entry.get("subresource").is_none()
    };
    let Some(entry) = managed_fields(live).find(ours) else { return false };
    let mut want = want.clone();
    // What names an object is nobody's field.
    for (at, names) in [("", ["apiVersion", "kind"]), ("/metadata", ["name", "namespace"])] {
        if let Some(map) = want.pointer_mut(at).and_then(Value::as_object_mut) {
            map.retain(|key, _| !names.contains(&key.as_str()));
        }
    }
    entry["apiVersion"] == live["apiVersion"] && holds(&entry["fieldsV1"], &want, live)
}

/// Whether these fields are those of `want`, with the values of `live`.
fn holds(fields: &Value, want: &Value, live: &Value) -> bool {
    let Some(fields) = fields.as_object() else { return false };
    // Beside what is in it, a thing can be held itself.
    let within: Vec<(&String, &Value)> = fields.iter().filter(|(key, _)| *key != ".").collect();
    match (want, live) {
        _ if within.is_empty() => want == live,
        (Value::Object(want), Value::Object(live)) => {
            let held = |key: &str, fields| {
                let name = key.strip_prefix("f:")?;
                Some(holds(fields, want.get(name)?, live.get(name)?))
            };
            within.len() == want.len() && within.iter().all(|(key, fields)| held(key, fields) == Some(true))
        }
        (Value::Array(want), Value::Array(live)) => {
            let places: Option<Vec<usize>> = want.iter().map(|item| place(&within, item, live)).collect();
            // The order of the manifest's items is part of what is applied.
            within.len() == want.len() && places.is_some_and(|places| places.is_sorted_by(|one, next| one < next))
        }
        _ => false,
    }
}

/// Where in `live` is the item of a list that is merged item by item, if these fields hold it.
fn place(fields: &[(&String, &Value)], want: &Value, live: &[Value]) -> Option<usize> {
    // The key may have a default, such as a port's protocol, which the manifest leaves out.
    let names = |key: &Value| match key {
        Value::Object(key) => key.iter().all(|(name, value)| want.get(name).is_none_or(|wanted| wanted == value)),
        value => value == want,
    };
    let is = |key: &Value, item: &Value| match key {
        Value::Object(key) => key.iter().all(|(name, value)| item.get(name) == Some(value)),
        value => value == item,
    };
    let keys = fields.iter().filter_map(|(field, within)| {
        let key = field.strip_prefix("k:").or_else(|| field.strip_prefix("v:"))?;
        Some((serde_json::from_str::<Value>(key).ok()?, *within))
    });
    let (key, within) = only(keys.filter(|(key, _)| names(key)))?;
    let (place, item) = only(live.iter().enumerate().filter(|(_, item)| is(&key, item)))?;
    holds(within, want, item).then_some(place)
}

/// The only item, if there is one and no other.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    items.next().filter(|_| items.next().is_none())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::json;

    const US: &str = "manifest-apply";

    fn manifest() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "namespace": "n", "labels": {"team": "us"}, "finalizers": ["x/y"]},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "a"}}, "template": {"spec": {
                "containers": [{"name": "app", "image": "i", "args": ["-v"], "ports": [{"containerPort": 80}]}],
                "volumes": [{"name": "tmp", "emptyDir": {}}]}}}})
    }

    /// As the API server has it: with defaults, what others added, and what each manager applied.
    fn live() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"team": "us", "theirs": "1"}, "finalizers": ["x/y"],
                "managedFields": [
                    {"manager": "helm", "operation": "Apply", "apiVersion": "apps/v1",
                     "fieldsV1": {"f:metadata": {"f:labels": {"f:theirs": {}}}}},
                    {"manager": US, "operation": "Apply", "apiVersion": "apps/v1", "fieldsV1": {
                        "f:metadata": {"f:labels": {"f:team": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
                        "f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {"f:spec": {
                            "f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}},
                            "f:volumes": {"k:{\"name\":\"tmp\"}": {".": {}, "f:name": {}, "f:emptyDir": {}}}}}}}},
                ]},
            "spec": {"replicas": 1, "paused": false, "selector": {"matchLabels": {"app": "a"}}, "template": {"spec": {
                "containers": [
                    {"name": "injected", "image": "j"},
                    {"name": "app", "image": "i", "args": ["-v"], "ports": [{"containerPort": 80, "protocol": "TCP"}]},
                ],
                "volumes": [{"name": "tmp", "emptyDir": {}}]}}},
            "status": {"replicas": 1}})
    }

    #[test]
    fn what_was_applied_and_left_alone_is_as_it_was_applied() {
        assert!(is_applied(&live(), &manifest(), US));
        assert!(!is_applied(&live(), &manifest(), "helm"));
        assert!(!is_applied(&live(), &manifest(), "somebody"));
        assert!(!is_applied(&json!({}), &manifest(), US));
    }

    /// The object with another value at a JSON pointer, or with none.
    fn with(mut object: Value, at: &str, value: Option<Value>) -> Value {
        let (parent, key) = at.rsplit_once('/').unwrap();
        match (object.pointer_mut(parent).unwrap(), value) {
            (Value::Object(parent), Some(value)) => drop(parent.insert(key.to_owned(), value)),
            (Value::Object(parent), None) => drop(parent.remove(key)),
            (items, value) => items[key.parse::<usize>().unwrap()] = value.unwrap(),
        }
        object
    }

    #[test]
    fn a_manifest_that_was_changed_is_not() {
        for (at, value) in [
            ("/metadata/labels/team", json!("them")),
            ("/metadata/labels/new", json!("1")),
            ("/metadata/labels", json!({})),
            ("/metadata/finalizers", json!(["x/y", "x/z"])),
            ("/metadata/finalizers", json!([])),
            ("/spec/replicas", json!(2)),
            ("/spec/replicas", Value::Null),
            ("/spec/selector/matchLabels/tier", json!("web")),
            ("/spec/template/spec/containers/0/image", json!("k")),
            ("/spec/template/spec/containers/0/args", json!(["-v", "-v"])),
            ("/spec/template/spec/containers/0/ports/0/protocol", json!("UDP")),
            ("/spec/template/spec/containers/0/ports", json!([{"containerPort": 80}, {"containerPort": 81}])),
            ("/spec/template/spec/containers", json!([])),
            ("/spec/template/spec/volumes/0", json!({"name": "tmp"})),
        ] {
            assert!(!is_applied(&live(), &with(manifest(), at, Some(value.clone())), US), "{at} {value}");
        }
        assert!(!is_applied(&live(), &with(manifest(), "/spec/replicas", None), US));
    }

    #[test]
    fn what_somebody_else_changed_is_not() {
        // The API server takes a changed field from whoever had it.
        let taken = with(live(), "/metadata/managedFields/1/fieldsV1/f:spec/f:replicas", None);
        assert!(!is_applied(&taken, &manifest(), US));
        for (at, value) in [
            ("/spec/replicas", json!(2)),
            ("/spec/template/spec/containers/1/image", json!("k")),
            // Twice the same key, as some lists may have: which of them was applied?
            ("/spec/template/spec/containers/0/name", json!("app")),
            ("/metadata/managedFields/1/operation", json!("Update")),
            ("/metadata/managedFields/1/apiVersion", json!("apps/v1beta1")),
            ("/metadata/managedFields/1/subresource", json!("scale")),
        ] {
            assert!(!is_applied(&with(live(), at, Some(value)), &manifest(), US), "{at}");
        }
    }

    #[test]
    fn the_order_of_items_is_applied_too() {
        let at = "/spec/template/spec";
        let items = |object: &Value, more: &[Value]| {
            let there = object.pointer(at).unwrap()["containers"].as_array().unwrap();
            Some(Value::Array(there.iter().chain(more).cloned().collect()))
        };
        let (more, containers) = ([json!({"name": "more"})], format!("{at}/containers"));
        let fields = "/metadata/managedFields/1/fieldsV1/f:spec/f:template/f:spec/f:containers/k:{\"name\":\"more\"}";
        let live = with(live(), fields, Some(json!({".": {}, "f:name": {}})));
        let live = with(live.clone(), &containers, items(&live, &more));
        let want = with(manifest(), &containers, items(&manifest(), &more));
        assert!(is_applied(&live, &want, US));
        let mut other = want;
        other.pointer_mut(&containers).and_then(Value::as_array_mut).unwrap().reverse();
        assert!(!is_applied(&live, &other, US));
    }
}
