//! Says what server-side apply would change about an object, and whether it may. Pure.

use super::readiness::unready;
use super::reference::ObjectRef;
use crate::Error;
use crate::plan::{Effect, UNKNOWN, has_unknown, unknown};
use anyhow::Result;
use serde_json::Value;
use std::fmt;

/// An object as it is wanted.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Which one.
    pub object: ObjectRef,
    /// All of it; null when only its name is known.
    pub body: Value,
}

/// Managers of the verbs of kubectl that only ever change what is there.
const HANDS: [&str; 7] = [
    "kubectl-annotate",
    "kubectl-edit",
    "kubectl-label",
    "kubectl-patch",
    "kubectl-rollout",
    "kubectl-set",
    "kubectl-taint",
];

/// The manager of Kubernetes' own controllers, the horizontal autoscaler among them.
const CONTROLLERS: &str = "kube-controller-manager";
/// And under which it fills in the rules of an aggregated ClusterRole.
const AGGREGATION: &str = "clusterrole-aggregation-controller";

/// kubectl apply: whoever keeps a file will set the value again.
const FROM_A_FILE: &str = "kubectl-client-side-apply";

/// An object before and after.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// As it is; `None` when it does not exist.
    pub live: Option<Value>,
    /// As applying would make it; `None` when it does not exist or is on its way out.
    pub applied: Option<Value>,
    /// The fields that others hold with other values.
    pub claims: Vec<Claim>,
    /// The fields that a controller sets to other values, which an apply leaves to it, one line each.
    pub left: Vec<String>,
}

/// Another manager's hold on a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Name of the field manager, e.g. `kubectl` or `helm`.
    pub manager: String,
    /// By server-side apply, not by an update.
    pub declared: bool,
    /// Such as `spec.replicas`.
    pub field: String,
}

impl Claim {
    /// Every verb of kubectl that updates names its manager `kubectl` or `kubectl-VERB`: a hand at work, not a
    /// controller or a tool that would set the value again.
    fn by_hand(&self) -> bool {
        !self.declared && self.manager.starts_with("kubectl") && self.manager != FROM_A_FILE
    }
}

/// `spec.replicas (kubectl)`
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.field, self.manager)
    }
}

/// One leaf that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    path: String,
    from: Option<Value>,
    to: Option<Value>,
    secret: bool,
}

/// `spec.replicas 2 → 1`
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.secret {
            return write!(f, "{} (secret)", self.path);
        }
        write!(f, "{} {} → {}", self.path, brief(self.from.as_ref()), brief(self.to.as_ref()))
    }
}

/// What to do about one object.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// It is as it should be. Holds who made it when that was not us.
    Keep(Option<String>),
    /// It does not exist.
    Create,
    /// It is being deleted: wait for its end, then create it.
    Replace,
    /// It differs.
    Configure(Vec<Difference>),
    /// It differs, and is not ours to change; why.
    Refuse(String),
}

/// One step towards a manifest.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Make the object.
    Create(ObjectRef),
    /// Change it.
    Configure(ObjectRef, Vec<Difference>),
    /// Make it ours as it is. Holds who made it.
    Adopt(ObjectRef, String),
    /// Let its deletion end first.
    AwaitEnd(ObjectRef),
    /// Wait until it works.
    AwaitReady(ObjectRef),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create(object) => write!(f, "create {object}"),
            Step::Configure(object, differences) => write!(f, "configure {object}: {}", list(differences)),
            Step::Adopt(object, makers) => write!(f, "adopt {object}, made by {makers}"),
            Step::AwaitEnd(object) => write!(f, "wait for the end of {object}"),
            Step::AwaitReady(object) => write!(f, "wait for {object}"),
        }
    }
}

impl Step {
    /// How it counts in the total of a plan.
    pub fn effect(&self) -> Effect {
        match self {
            Step::Create(_) => Effect::Add,
            Step::Configure(..) | Step::Adopt(..) => Effect::Change,
            Step::AwaitEnd(_) | Step::AwaitReady(_) => Effect::Wait,
        }
    }
}

/// Create what is missing, configure what differs, and with `adopt` make what others made ours, in the manifests' order;
/// then wait for what does not work yet. Custom resource definitions are waited for before anything else is made, which
/// may need them.
///
/// # Errors
/// [`Kind::Conflict`](crate::Kind::Conflict) that names all that is not ours to change, unless `adopt`.
pub fn plan(manifests: &[Manifest], have: &[Observed], manager: &str, adopt: bool) -> Result<Vec<Step>> {
    let (mut steps, mut definitions, mut waits, mut refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let ending = manifests.iter().zip(have).filter(|(manifest, it)| manifest.object.kind == "Namespace" && it.ends());
    let ending: Vec<&str> = ending.map(|(manifest, _)| manifest.object.name.as_str()).collect();
    for (Manifest { object, body }, observed) in manifests.iter().zip(have) {
        let defines = object.kind == "CustomResourceDefinition";
        if !defines {
            steps.append(&mut definitions);
        }
        // What is still seen in a namespace that ends will have gone with it.
        let gone = object.namespace.as_ref().is_some_and(|namespace| ending.contains(&namespace.as_str()));
        match if gone { Decision::Create } else { observed.decide(manager, adopt) } {
            Decision::Keep(Some(makers)) if adopt => steps.push(Step::Adopt(object.clone(), makers)),
            Decision::Keep(_) => {}
            Decision::Create => steps.push(Step::Create(object.clone())),
            Decision::Replace => steps.extend([Step::AwaitEnd(object.clone()), Step::Create(object.clone())]),
            Decision::Configure(differences) => steps.push(Step::Configure(object.clone(), differences)),
            Decision::Refuse(why) => refused.push(format!("{object}: {why}")),
        }
        // The dry run counts a change as a new generation, which no controller has seen yet.
        let after = observed.applied.as_ref().filter(|_| !gone).unwrap_or(body);
        if unready(after).is_some() {
            let waits = if defines { &mut definitions } else { &mut waits };
            waits.push(Step::AwaitReady(object.clone()));
        }
    }
    if !refused.is_empty() {
        return Err(Error::conflict(refused.join("; ")).hint("--adopt takes them over").into());
    }
    steps.extend(definitions.into_iter().chain(waits));
    Ok(steps)
}

/// What is known only after the plan was applied, fields that are left to a controller, and objects that others made, need no change and are not adopted; one line each.
pub fn remarks(manifests: &[Manifest], have: &[Observed], manager: &str, adopt: bool) -> Vec<String> {
    let mut found = Vec::new();
    for (Manifest { object, body }, observed) in manifests.iter().zip(have) {
        found.extend(unknown(body).iter().map(|path| format!("{object}: {path} {UNKNOWN}")));
        found.extend(observed.left.iter().map(|left| format!("{object}: {left}")));
        match observed.decide(manager, false) {
            Decision::Keep(Some(maker)) if !adopt => found.push(format!("{object}: made by {maker}, used as it is")),
            _ => {}
        }
    }
    found
}

/// A manifest without the fields that a controller sets on the live object, such as the replicas that an autoscaler
/// chose, and where that makes a difference, a line each. To apply them would start a fight that nobody wins.
pub fn yielded(mut want: Value, live: &Value) -> (Value, Vec<String>) {
    let mut left = Vec::new();
    for entry in managed_fields(live) {
        let manager = entry["manager"].as_str().unwrap_or_default();
        // kubectl scale is a hand, which does not set the value again.
        let sets = match entry["subresource"].as_str() {
            Some("scale") => !manager.starts_with("kubectl"),
            None => [CONTROLLERS, AGGREGATION].contains(&manager),
            _ => false,
        };
        if !sets {
            continue;
        }
        let mut fields = Vec::new();
        leaves(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
        for path in fields {
            let Some(wanted) = remove(&mut want, &path) else { continue };
            let set = path.iter().try_fold(live, |value, name| value.get(name));
            if set != Some(&wanted) {
                let value = if live["kind"] == "Secret" { "as it is".to_owned() } else { brief(set) };
                left.push(format!("{} stays {value}, for {manager} sets it", path.join(".")));
            }
        }
    }
    (want, left)
}

/// A manifest that can be tried on the live object: what is known only after the plan was applied stays as it is there.
/// With the places of what is not known, as JSON pointers.
pub fn without_unknown(mut want: Value, live: &Value) -> (Value, Vec<(String, Value)>) {
    fn take(want: &mut Value, live: Option<&Value>, at: &str, taken: &mut Vec<(String, Value)>) {
        match want {
            Value::String(text) if text.contains(UNKNOWN) => {
                let as_it_is = live.cloned().unwrap_or_default();
                taken.push((at.to_owned(), std::mem::replace(want, as_it_is)));
            }
            Value::Object(map) => {
                for (key, value) in map {
                    let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                    take(value, live.and_then(|live| live.get(key)), &at, taken);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter_mut().enumerate() {
                    take(value, live.and_then(|live| live.get(index)), &format!("{at}/{index}"), taken);
                }
            }
            _ => {}
        }
    }
    let mut taken = Vec::new();
    if has_unknown(&want) {
        take(&mut want, Some(live), "", &mut taken);
    }
    (want, taken)
}

/// An object as applying would make it, with what is not known at its places.
pub fn with_unknown(mut applied: Value, taken: &[(String, Value)]) -> Value {
    for (at, unknown) in taken {
        if let Some(value) = applied.pointer_mut(at) {
            value.clone_from(unknown);
        }
    }
    applied
}

/// What each manager of an object's fields holds of it.
pub(super) fn managed_fields(live: &Value) -> impl Iterator<Item = &Value> {
    live.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten()
}

/// The paths to the fields of an entry of `managedFields`. Items of lists are no business of a scaler.
fn leaves<'a>(fields: &'a Value, path: &mut Vec<&'a str>, found: &mut Vec<Vec<&'a str>>) {
    for (key, inner) in fields.as_object().into_iter().flatten() {
        let Some(name) = key.strip_prefix("f:") else { continue };
        path.push(name);
        match inner.as_object().filter(|inner| !inner.is_empty()) {
            Some(_) => leaves(inner, path, found),
            None => found.push(path.clone()),
        }
        path.pop();
    }
}

fn remove(object: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(object, |value, name| value.get_mut(name))?;
    parent.as_object_mut()?.remove(*last)
}

impl Observed {
    /// Whether `manager` has ever applied the object.
    pub fn managed_by(&self, manager: &str) -> bool {
        self.managers().contains(&manager)
    }

    /// Whether it is being deleted.
    fn ends(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.pointer("/metadata/deletionTimestamp").is_some())
    }

    /// What to do about it. What somebody else made, or another manager holds, is not changed unless `adopt`; what a
    /// hand changed about an object of ours is put right.
    pub fn decide(&self, manager: &str, adopt: bool) -> Decision {
        let Some(live) = &self.live else { return Decision::Create };
        let Some(applied) = self.applied.as_ref().filter(|_| !self.ends()) else { return Decision::Replace };
        let ours = self.managed_by(manager) || self.only_hands();
        let differences = differences(live, applied);
        if differences.is_empty() {
            return Decision::Keep((!ours).then(|| self.makers()));
        }
        // Helm 3 holds what it set as an update, and asks as who applies: that is the same one.
        let by_others = self.claims.iter().filter(|claim| !claim.by_hand() && claim.manager != manager);
        let held: Vec<String> = by_others.map(ToString::to_string).collect();
        if adopt || ours && held.is_empty() {
            return Decision::Configure(differences);
        }
        let what = list(&differences);
        Decision::Refuse(if ours {
            format!("others hold {}: {what}", held.join(", "))
        } else {
            format!("made by {}: {what}", self.makers())
        })
    }

    /// Whether hands took over all that its maker had set, and with it the record of who that was: a label changed by
    /// kubectl is enough for a namespace of one label.
    fn only_hands(&self) -> bool {
        let mut entries = self.entries().peekable();
        entries.peek().is_some()
            && entries.all(|entry| {
                let name = entry["manager"].as_str().unwrap_or_default();
                HANDS.contains(&name) || name == "kubectl" && entry["operation"] == "Update"
            })
    }

    /// Who made it, as far as it says.
    pub fn makers(&self) -> String {
        let mut makers = self.managers();
        makers.dedup();
        if makers.is_empty() { "somebody else".to_owned() } else { makers.join(", ") }
    }

    fn managers(&self) -> Vec<&str> {
        self.entries().filter_map(|entry| entry["manager"].as_str()).collect()
    }

    /// Who manages its fields. Controllers that only report (`status`) made nothing.
    fn entries(&self) -> impl Iterator<Item = &Value> {
        self.live.iter().flat_map(managed_fields).filter(|entry| entry["subresource"] != "status")
    }
}

/// The leaves that differ, but for what the API server counts itself and what controllers report.
pub fn differences(live: &Value, applied: &Value) -> Vec<Difference> {
    let secret = live["kind"] == "Secret";
    let mut found = Vec::new();
    compare(Some(live), Some(applied), &mut String::new(), &mut found);
    let counted = ["metadata.managedFields", "metadata.resourceVersion", "metadata.generation", "status"];
    found.retain(|difference| !counted.iter().any(|prefix| below(&difference.path, prefix)));
    for difference in &mut found {
        // The annotation of kubectl apply holds the whole object.
        difference.secret = secret && !below(&difference.path, "metadata.labels");
    }
    found
}

/// What holds a deleted object: finalizers, what a namespace says of its content, and what is not as it should be.
pub fn held_by(live: &Value) -> Option<String> {
    let finalizers = ["/metadata/finalizers", "/spec/finalizers"].iter().filter_map(|at| live.pointer(at)?.as_array());
    let mut finalizers: Vec<&str> = finalizers.flatten().filter_map(Value::as_str).collect();
    // The garbage collector's own and the namespace controller's: they say nothing about who is waited for.
    let owns = finalizers.contains(&"foregroundDeletion");
    finalizers.retain(|finalizer| !["foregroundDeletion", "kubernetes"].contains(finalizer));
    let conditions = live.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let telling = conditions.filter(|condition| match condition["status"].as_str() {
        Some("True") => condition["type"].as_str().is_some_and(|kind| kind.starts_with("Namespace")),
        Some("False") => !finalizers.is_empty(),
        _ => false,
    });
    let mut reasons: Vec<String> =
        telling.filter_map(|condition| Some(condition["message"].as_str()?.to_owned())).collect();
    if !finalizers.is_empty() {
        reasons.insert(0, format!("held by {}", finalizers.join(", ")));
    }
    if reasons.is_empty() && owns {
        reasons.push("what it owns is still there".to_owned());
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// As many as a line can hold: a definition of another version differs in hundreds of places.
fn list(differences: &[Difference]) -> String {
    const MANY: usize = 8;
    let mut words: Vec<String> = differences.iter().take(MANY).map(ToString::to_string).collect();
    if differences.len() > MANY {
        words.push(format!("and {} more", differences.len() - MANY));
    }
    words.join(", ")
}

fn below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn compare(from: Option<&Value>, to: Option<&Value>, path: &mut String, found: &mut Vec<Difference>) {
    let length = path.len();
    match (from, to) {
        // Most of it, and told at once.
        (old, new) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                compare(old.get(key), new.get(key), path, found);
                path.truncate(length);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                path.push_str(&format!("[{index}]"));
                compare(old.get(index), new.get(index), path, found);
                path.truncate(length);
            }
        }
        (old, new) => {
            let (from, to) = (old.cloned(), new.cloned());
            found.push(Difference { path: path.clone(), from, to, secret: false });
        }
    }
}

/// A value in a line: as much of it as a reader needs to know it again.
fn brief(value: Option<&Value>) -> String {
    const LONG: usize = 100;
    let text = match value {
        None => return "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    match text.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const US: &str = "manifest-apply";

    fn live(manager: &str, spec: &Value) -> Value {
        let fields = json!([{"manager": manager, "operation": "Apply"}, {"manager": "kcm", "subresource": "status"}]);
        json!({"kind": "Deployment", "metadata": {"managedFields": fields, "resourceVersion": "1"}, "spec": spec})
    }

    #[test]
    fn what_is_not_known_yet_is_tried_as_it_is_and_differs() {
        let want = json!({"spec": {"arn": UNKNOWN, "list": [{"image": format!("{UNKNOWN}@x")}], "n/m": UNKNOWN, "new": UNKNOWN, "port": 1}});
        let live = json!({"spec": {"arn": "arn:a", "list": [{"image": "i"}], "n/m": "b", "port": 1}});
        let (known, taken) = without_unknown(want.clone(), &live);
        let tried = json!({"spec": {"arn": "arn:a", "list": [{"image": "i"}], "n/m": "b", "new": null, "port": 1}});
        assert_eq!(known, tried);
        let found = differences(&live, &with_unknown(live.clone(), &taken));
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "spec.arn arn:a → (known after apply)",
                "spec.list[0].image i → (known after apply)@x",
                "spec.n/m b → (known after apply)",
            ]
        );
        assert_eq!(without_unknown(live.clone(), &live), (live.clone(), Vec::new()));
    }

    #[test]
    fn what_is_ours_is_repaired_and_what_is_not_is_refused() {
        let claim =
            |manager: &str, declared| Claim { manager: manager.into(), declared, field: "spec.replicas".into() };
        let (two, one) = (json!({"replicas": 2}), json!({"replicas": 1}));
        let cases = [
            (US, &one, vec![], false, "keep"),
            ("helm", &one, vec![], false, "keep helm"),
            (US, &two, vec![], false, "spec.replicas 2 → 1"),
            (US, &two, vec![claim("kubectl", false)], false, "spec.replicas 2 → 1"),
            (US, &two, vec![claim("kubectl-edit", false)], false, "spec.replicas 2 → 1"),
            (
                US,
                &two,
                vec![claim("kubectl-client-side-apply", false)],
                false,
                "others hold spec.replicas (kubectl-client-side-apply): spec.replicas 2 → 1",
            ),
            (US, &two, vec![claim("kubectl", true)], false, "others hold spec.replicas (kubectl): spec.replicas 2 → 1"),
            (US, &two, vec![claim("hpa", false)], false, "others hold spec.replicas (hpa): spec.replicas 2 → 1"),
            (US, &two, vec![claim("hpa", false)], true, "spec.replicas 2 → 1"),
            ("helm", &two, vec![], false, "made by helm: spec.replicas 2 → 1"),
            ("kubectl-create", &two, vec![], false, "made by kubectl-create: spec.replicas 2 → 1"),
            ("kubectl-label", &two, vec![claim("kubectl-label", false)], false, "spec.replicas 2 → 1"),
            ("helm", &two, vec![], true, "spec.replicas 2 → 1"),
        ];
        for (manager, spec, claims, adopt, expected) in cases {
            let case = format!("{manager} {spec} {claims:?} {adopt}");
            let applied = Some(json!({"kind": "Deployment", "metadata": {"resourceVersion": "2"}, "spec": one}));
            let decision =
                Observed { live: Some(live(manager, spec)), applied, claims, left: Vec::new() }.decide(US, adopt);
            let text = match decision {
                Decision::Keep(None) => "keep".to_owned(),
                Decision::Keep(Some(maker)) => format!("keep {maker}"),
                Decision::Create => "create".to_owned(),
                Decision::Replace => "replace".to_owned(),
                Decision::Configure(differences) => list(&differences),
                Decision::Refuse(why) => why,
            };
            assert_eq!(text, expected, "{case}");
        }
        assert_eq!(Observed::default().decide(US, false), Decision::Create);
        let mut deleted = live(US, &one);
        deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let going = Observed { live: Some(deleted), ..Observed::default() };
        assert_eq!(going.decide(US, false), Decision::Replace);
    }

    #[test]
    fn a_scaler_is_not_fought() {
        let (scaled, revised) =
            (json!({"f:spec": {"f:replicas": {}}}), json!({"f:metadata": {"f:annotations": {".": {}, "f:r/v": {}}}}));
        let want =
            json!({"metadata": {"annotations": {"r/v": "1", "mine": "2"}}, "spec": {"replicas": 2, "paused": true}});
        let live = |replicas: i64, manager: &str, subresource: &Value, fields: &Value| {
            let entry =
                json!({"manager": manager, "operation": "Update", "subresource": subresource, "fieldsV1": fields});
            json!({"metadata": {"annotations": {"r/v": "7"}, "managedFields": [entry]}, "spec": {"replicas": replicas}})
        };
        let (scale, object) = (json!("scale"), json!(null));
        let stays = |manager: &str| vec![format!("spec.replicas stays 5, for {manager} sets it")];
        for (live, path, left) in [
            (live(5, CONTROLLERS, &scale, &scaled), "/spec/replicas", stays(CONTROLLERS)),
            (live(5, CONTROLLERS, &object, &scaled), "/spec/replicas", stays(CONTROLLERS)),
            (live(5, AGGREGATION, &object, &scaled), "/spec/replicas", stays(AGGREGATION)),
            (live(5, "keda", &scale, &scaled), "/spec/replicas", stays("keda")),
            (live(2, CONTROLLERS, &scale, &scaled), "/spec/replicas", vec![]),
            (
                live(2, CONTROLLERS, &object, &revised),
                "/metadata/annotations/r~1v",
                vec![format!("metadata.annotations.r/v stays 7, for {CONTROLLERS} sets it")],
            ),
        ] {
            let (mut yielded, found) = yielded(want.clone(), &live);
            assert_eq!((yielded.pointer(path), &found), (None, &left), "{live}");
            // Put back, nothing else is missing.
            let (parent, name) = path.rsplit_once('/').unwrap_or_default();
            if let (Some(parent), Some(value)) = (yielded.pointer_mut(parent), want.pointer(path)) {
                parent[name.replace("~1", "/")] = value.clone();
            }
            assert_eq!(yielded, want, "{live}");
        }
        for (manager, subresource, fields) in [
            ("kubectl", &scale, &scaled),
            ("keda", &object, &scaled),
            (CONTROLLERS, &json!("status"), &scaled),
            (CONTROLLERS, &object, &json!({"f:spec": {"f:other": {}}})),
            (US, &object, &scaled),
        ] {
            let live = live(5, manager, subresource, fields);
            assert_eq!(yielded(want.clone(), &live), (want.clone(), vec![]), "{live}");
        }
    }

    #[test]
    fn a_difference_is_named_by_its_path() {
        let cases = [
            (json!({"a": [1, {"b": "x"}]}), json!({"a": [1, {"b": "y"}]}), "a[1].b x → y"),
            (json!({"a": [1, 2]}), json!({"a": [1]}), "a[1] 2 → none"),
            (
                json!([]),
                json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
                "[0] none → 0, [1] none → 1, [2] none → 2, [3] none → 3, [4] none → 4, [5] none → 5, [6] none → 6, \
                 [7] none → 7, and 2 more",
            ),
            (json!({}), json!({"a": {"b": true}}), r#"a none → {"b":true}"#),
            (json!({"status": 1, "metadata": {"generation": 1}}), json!({"metadata": {"generation": 2}}), ""),
            (
                json!({"kind": "Secret", "data": {"p": "eA=="}}),
                json!({"kind": "Secret", "data": {"p": "eQ=="}}),
                "data.p (secret)",
            ),
        ];
        for (old, new, expected) in cases {
            assert_eq!(list(&differences(&old, &new)), expected, "{old} {new}");
        }
    }

    #[test]
    fn what_hangs_is_named() {
        let mesh = json!({"metadata": {"finalizers": ["finalizers.appmesh.k8s.aws/mesh-members"]}});
        assert_eq!(held_by(&mesh).as_deref(), Some("held by finalizers.appmesh.k8s.aws/mesh-members"));
        let node = json!({"metadata": {"finalizers": ["a/b"]}, "status": {"conditions": [
            {"type": "VirtualNodeActive", "status": "False", "message": "servicediscovery:ListNamespaces: denied"},
        ]}});
        assert_eq!(held_by(&node).as_deref(), Some("held by a/b; servicediscovery:ListNamespaces: denied"));
        let namespace = json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"conditions": [
            {"type": "NamespaceContentRemaining", "status": "True", "message": "Some resources are remaining: pods."},
        ]}});
        assert_eq!(held_by(&namespace).as_deref(), Some("Some resources are remaining: pods."));
        let deployment = json!({"metadata": {"finalizers": ["foregroundDeletion"]}});
        assert_eq!(held_by(&deployment).as_deref(), Some("what it owns is still there"));
    }

    fn manifest(version: &str, kind: &str) -> Manifest {
        let object = ObjectRef::new(version, kind, "a");
        Manifest { body: json!({"apiVersion": version, "kind": kind, "spec": {}}), object }
    }

    fn words(steps: Result<Vec<Step>>) -> Vec<String> {
        steps.map_or_else(|error| vec![error.to_string()], |steps| steps.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_missing_is_made_in_order_and_waited_for() {
        let mut manifests = [
            manifest("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            manifest("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            manifest("appmesh.k8s.aws/v1beta2", "Mesh"),
            manifest("v1", "ConfigMap"),
        ];
        manifests[1].object.name = "b".to_owned();
        let expected = [
            "create CustomResourceDefinition a",
            "create CustomResourceDefinition b",
            "wait for CustomResourceDefinition a",
            "wait for CustomResourceDefinition b",
            "create Mesh a",
            "create ConfigMap a",
            "wait for Mesh a",
        ];
        assert_eq!(words(plan(&manifests, &vec![Observed::default(); 4], US, false)), expected);
    }

    #[test]
    fn what_a_namespace_takes_with_it_is_made_again() {
        let mut manifests = [manifest("v1", "Namespace"), manifest("v1", "ConfigMap")];
        manifests[1].object.namespace = Some("a".into());
        let mut ending = live(US, &json!({}));
        ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let still = Some(live(US, &json!({})));
        let have = [
            Observed { live: Some(ending), ..Observed::default() },
            Observed { live: still.clone(), applied: still, ..Observed::default() },
        ];
        let expected = ["wait for the end of Namespace a", "create Namespace a", "create ConfigMap a/a"];
        assert_eq!(words(plan(&manifests, &have, US, false)), expected);
    }

    #[test]
    fn what_is_there_is_only_changed_where_it_differs() {
        let manifests = [manifest("apps/v1", "Deployment"), manifest("v1", "ConfigMap")];
        let ready = json!({"availableReplicas": 1, "updatedReplicas": 1, "replicas": 1});
        let observed = |index: usize, manager: &str, status: &Value, spec: &Value| {
            let mut live = live(manager, &json!({}));
            live["apiVersion"] = manifests[index].body["apiVersion"].clone();
            live["kind"] = manifests[index].body["kind"].clone();
            live["status"] = status.clone();
            let mut applied = live.clone();
            applied["spec"] = spec.clone();
            Observed { live: Some(live), applied: Some(applied), ..Observed::default() }
        };
        let (same, other) = (json!({}), json!({"x": 1}));
        let cases: [(&str, &Value, &Value, bool, &[&str]); 7] = [
            ("helm", &ready, &same, false, &[]),
            ("helm", &ready, &same, true, &["adopt ConfigMap a, made by helm"]),
            (US, &ready, &same, false, &[]),
            (US, &json!({}), &same, false, &["wait for Deployment a"]),
            (US, &ready, &other, false, &["configure ConfigMap a: spec.x none → 1"]),
            ("helm", &ready, &other, false, &["ConfigMap a: made by helm: spec.x none → 1"]),
            ("helm", &ready, &other, true, &["configure ConfigMap a: spec.x none → 1"]),
        ];
        for (manager, status, spec, adopt, expected) in cases {
            let have = [observed(0, US, status, &same), observed(1, manager, &json!({}), spec)];
            assert_eq!(words(plan(&manifests, &have, US, adopt)), expected, "{manager} {status} {spec} {adopt}");
        }
        let mut have = [observed(0, US, &ready, &same), observed(1, "helm", &json!({}), &same)];
        have[0].left = vec!["x stays 1".to_owned()];
        let left = "Deployment a: x stays 1";
        assert_eq!(remarks(&manifests, &have, US, false), [left, "ConfigMap a: made by helm, used as it is"]);
        assert_eq!(remarks(&manifests, &have, US, true), [left]);
    }
}
