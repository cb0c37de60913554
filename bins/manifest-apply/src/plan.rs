//! Says what to change about the objects of an application. Pure.

use crate::app::App;
use anyhow::Result;
use common::app_mesh::GROUP;
use common::kube::apply::{self, Manifest, Observed, Step};
use common::kube::object::{ObjectRef, Objects};
use common::kube::readiness;
use common::plan::{Effect, Place};
use std::collections::BTreeMap;
use std::fmt;

/// The field manager that server-side apply records.
pub const MANAGER: &str = "manifest-apply";

/// The application, resolved.
pub struct Want {
    pub app: App,
    pub manifests: Vec<Manifest>,
    pub adopt: bool,
    /// Only App Mesh objects are waited for.
    pub no_wait: bool,
    pub objects: Objects,
}

impl common::plan::Want for Want {
    type Have = Have;
    type Change = Change;

    const PLACE: Place = Place::Cluster;

    fn plan(&self, have: &Have) -> Result<Vec<Change>> {
        plan(&self.manifests, have, self.adopt, self.no_wait)
    }

    fn plan_delete(&self, have: &Have) -> Result<Vec<Change>> {
        Ok(plan_delete(&self.manifests, have))
    }

    fn remarks(&self, have: &Have) -> Vec<String> {
        apply::remarks(&self.manifests, &have.objects, MANAGER, self.adopt)
    }

    fn left_alone(&self, have: &Have) -> Vec<String> {
        left_alone(&self.manifests, have)
    }
}

/// What the cluster has: one entry for each manifest.
#[derive(Debug, Default)]
pub struct Have {
    /// In the order of the manifests.
    pub objects: Vec<Observed>,
    /// What else lives in a namespace, under a definition or in a mesh that is to be deleted.
    pub others: BTreeMap<ObjectRef, Vec<String>>,
}

/// One step.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// Towards a manifest.
    Apply(Step),
    /// Remove these, of one kind, and wait until they are gone.
    Delete(Vec<ObjectRef>),
}

impl common::plan::Change for Change {
    fn effect(&self) -> Effect {
        match self {
            Change::Apply(step) => step.effect(),
            Change::Delete(_) => Effect::Remove,
        }
    }

    fn entries(&self) -> Vec<String> {
        match self {
            Change::Apply(step) => vec![step.to_string()],
            Change::Delete(objects) => objects.iter().map(|object| format!("delete {object}")).collect(),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Apply(step) => step.fmt(f),
            Change::Delete(objects) => {
                let places: Vec<String> = objects.iter().map(ObjectRef::place).collect();
                write!(f, "delete {} {}", objects.first().map_or("", |object| &object.kind), places.join(", "))
            }
        }
    }
}

/// Namespaces and custom resource definitions come before what lives in them; the rest keeps its order.
pub fn order(manifests: &mut [Manifest]) {
    manifests.sort_by_key(|manifest| match manifest.object.kind.as_str() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        _ => 2,
    });
}

/// Create what is missing, configure what differs, wait for what does not work yet; with `no_wait` only for that which
/// the outcome or another manifest needs.
fn plan(manifests: &[Manifest], have: &Have, adopt: bool, no_wait: bool) -> Result<Vec<Change>> {
    let needed = |object: &ObjectRef| object.group() == GROUP || object.kind == "CustomResourceDefinition";
    let mut steps = apply::plan(manifests, &have.objects, MANAGER, adopt)?;
    steps.retain(|step| !matches!(step, Step::AwaitReady(object) if no_wait && !needed(object)));
    Ok(steps.into_iter().map(Change::Apply).collect())
}

/// The namespace to remember: the default, if an object is in it and so may rely on it; else that of the first object.
pub fn namespace(manifests: &[Manifest], default: String) -> String {
    let mut used = manifests.iter().filter_map(|manifest| manifest.object.namespace.as_ref());
    match used.next() {
        Some(first) if *first != default && used.all(|other| *other != default) => first.clone(),
        _ => default,
    }
}

/// In reverse order, kind by kind, what we applied.
fn plan_delete(manifests: &[Manifest], have: &Have) -> Vec<Change> {
    let ours =
        manifests.iter().zip(&have.objects).filter(|(manifest, observed)| why_left(manifest, observed, have).is_none());
    let mut groups: Vec<Vec<ObjectRef>> = Vec::new();
    for (Manifest { object, .. }, _) in ours.filter(|(_, observed)| observed.live.is_some()).rev() {
        match groups.last_mut().filter(|group| group.last().is_some_and(|last| last.kind == object.kind)) {
            Some(group) => group.push(object.clone()),
            None => groups.push(vec![object.clone()]),
        }
    }
    groups.into_iter().map(Change::Delete).collect()
}

/// What `plan_delete` leaves, and why.
fn left_alone(manifests: &[Manifest], have: &Have) -> Vec<String> {
    let found = manifests.iter().zip(&have.objects);
    let left = found.filter_map(|(manifest, observed)| Some((&manifest.object, why_left(manifest, observed, have)?)));
    left.map(|(object, why)| format!("{object}: {why}")).collect()
}

/// The ARNs of the virtual services, by their names; of two of one name the second goes by `NAMESPACE/NAME`. What stands
/// for the ARN of one that has none yet is `missing`.
pub fn virtual_services(manifests: &[Manifest], have: &Have, missing: Option<&str>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (Manifest { object, .. }, observed) in manifests.iter().zip(&have.objects) {
        let arn = observed.live.as_ref().and_then(|live| live.pointer("/status/virtualServiceARN")?.as_str());
        let arn = arn.or(missing.filter(|_| object.kind == "VirtualService"));
        if let Some(arn) = arn.filter(|_| object.group() == GROUP) {
            let name = if found.contains_key(&object.name) { object.place() } else { object.name.clone() };
            found.insert(name, arn.to_owned());
        }
    }
    found
}

/// Where the first service with a load balancer answers: `http://HOST:PORT`.
pub fn endpoint(have: &Have) -> Option<String> {
    let services = have.objects.iter().filter_map(|observed| observed.live.as_ref());
    services.filter(|live| live["kind"] == "Service").find_map(|service| {
        let host = readiness::load_balancer(service)?;
        let port = service.pointer("/spec/ports/0")?;
        let secure = port["port"] == 443 || port["name"] == "https";
        Some(format!("{}://{host}:{}", if secure { "https" } else { "http" }, port["port"]))
    })
}

fn why_left(manifest: &Manifest, observed: &Observed, have: &Have) -> Option<String> {
    let object = &manifest.object;
    if observed.live.is_some() && !observed.managed_by(MANAGER) {
        return Some(format!("made by {}", observed.makers()));
    }
    let others = have.others.get(object).filter(|others| !others.is_empty())?.join(", ");
    match object.kind.as_str() {
        "Namespace" | "Mesh" => Some(format!("it holds {others}")),
        "CustomResourceDefinition" => Some(format!("there is still {others}")),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn manifest(kind: &str, name: &str) -> Manifest {
        let version = match kind {
            "Deployment" => "apps/v1",
            "CustomResourceDefinition" => "apiextensions.k8s.io/v1",
            "Mesh" | "VirtualService" => "appmesh.k8s.aws/v1beta2",
            _ => "v1",
        };
        let object = ObjectRef::new(version, kind, name);
        Manifest { body: json!({"apiVersion": version, "kind": kind, "spec": {}}), object }
    }

    fn observed(manifest: &Manifest, manager: &str, status: &Value) -> Observed {
        let mut live = manifest.body.clone();
        live["metadata"] = json!({"managedFields": [{"manager": manager}]});
        live["status"] = status.clone();
        Observed { live: Some(live), ..Observed::default() }
    }

    fn words(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn namespaces_and_definitions_come_first() {
        let mut manifests =
            ["Mesh", "Deployment", "CustomResourceDefinition", "Namespace"].map(|kind| manifest(kind, "a"));
        order(&mut manifests);
        let kinds = manifests.map(|manifest| manifest.object.kind);
        assert_eq!(kinds, ["Namespace", "CustomResourceDefinition", "Mesh", "Deployment"]);
    }

    #[test]
    fn the_namespace_of_all_is_remembered() {
        for (namespaces, expected) in [
            (vec![None, Some("a"), Some("b")], "a"),
            (vec![Some("a"), Some("default")], "default"),
            (vec![Some("default")], "default"),
            (vec![None], "default"),
        ] {
            let with = |namespace: Option<&str>| {
                let mut manifest = manifest("ConfigMap", "c");
                manifest.object.namespace = namespace.map(str::to_owned);
                manifest
            };
            let manifests: Vec<Manifest> = namespaces.iter().copied().map(with).collect();
            assert_eq!(namespace(&manifests, "default".to_owned()), expected, "{namespaces:?}");
        }
    }

    #[test]
    fn without_waiting_only_what_others_need_is_waited_for() {
        let manifests = ["CustomResourceDefinition", "VirtualService", "Deployment"].map(|kind| manifest(kind, "a"));
        let have = Have { objects: vec![Observed::default(); 3], ..Have::default() };
        let waits = |no_wait| {
            let plan = words(&plan(&manifests, &have, false, no_wait).unwrap());
            plan.into_iter().filter(|word| word.starts_with("wait")).collect::<Vec<_>>()
        };
        let needed = ["wait for CustomResourceDefinition a", "wait for VirtualService a"];
        assert_eq!(waits(true), needed);
        assert_eq!(waits(false), [needed[0], needed[1], "wait for Deployment a"]);
    }

    #[test]
    fn what_others_made_is_left() {
        let manifests = [manifest("Namespace", "n"), manifest("ConfigMap", "mine"), manifest("ConfigMap", "theirs")];
        let have = |others: &[&str]| Have {
            objects: vec![
                observed(&manifests[0], MANAGER, &json!({})),
                observed(&manifests[1], MANAGER, &json!({})),
                observed(&manifests[2], "kubectl-create", &json!({})),
            ],
            others: [(manifests[0].object.clone(), others.iter().map(|other| (*other).to_owned()).collect())].into(),
        };
        let missing = Have { objects: vec![Observed::default(); 3], ..Have::default() };
        assert_eq!(words(&plan_delete(&manifests, &missing)), [""; 0]);
        assert_eq!(words(&plan_delete(&manifests, &have(&[]))), ["delete ConfigMap mine", "delete Namespace n"]);
        let full = have(&["Pod other"]);
        assert_eq!(words(&plan_delete(&manifests, &full)), ["delete ConfigMap mine"]);
        assert_eq!(
            left_alone(&manifests, &full),
            ["Namespace n: it holds Pod other", "ConfigMap theirs: made by kubectl-create"]
        );
    }

    #[test]
    fn a_definition_that_others_use_is_left() {
        let manifests = [manifest("CustomResourceDefinition", "colors"), manifest("ConfigMap", "colors")];
        let have = |others: &[&str]| Have {
            objects: manifests.iter().map(|manifest| observed(manifest, MANAGER, &json!({}))).collect(),
            others: [(manifests[0].object.clone(), others.iter().map(|other| (*other).to_owned()).collect())].into(),
        };
        let (unused, used) = (have(&[]), have(&["Color a/red"]));
        let all = ["delete ConfigMap colors", "delete CustomResourceDefinition colors"];
        assert_eq!(words(&plan_delete(&manifests, &unused)), all);
        assert_eq!(words(&plan_delete(&manifests, &used)), all[..1]);
        assert_eq!(left_alone(&manifests, &used), ["CustomResourceDefinition colors: there is still Color a/red"]);
    }

    #[test]
    fn the_outcome_is_read_from_what_is_there() {
        let manifests = [manifest("VirtualService", "colorapp"), manifest("Service", "front")];
        let mut objects = vec![
            observed(&manifests[0], MANAGER, &json!({"virtualServiceARN": "arn:x"})),
            observed(&manifests[1], MANAGER, &json!({"loadBalancer": {"ingress": [{"hostname": "lb"}]}})),
        ];
        objects[1].live.as_mut().unwrap()["spec"] = json!({"ports": [{"port": 8080}]});
        let have = Have { objects, ..Have::default() };
        let named = |arn: &str| [("colorapp".to_owned(), arn.to_owned())].into();
        assert_eq!(virtual_services(&manifests, &have, None), named("arn:x"));
        assert_eq!(virtual_services(&manifests, &have, Some("later")), named("arn:x"));
        let nothing = Have { objects: vec![Observed::default(); 2], ..Have::default() };
        assert_eq!(virtual_services(&manifests, &nothing, None), BTreeMap::new());
        assert_eq!(virtual_services(&manifests, &nothing, Some("later")), named("later"));
        assert_eq!(endpoint(&have).as_deref(), Some("http://lb:8080"));
    }
}
