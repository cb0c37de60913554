//! Says what to change about an installed controller. Pure.

use crate::chart::Chart;
use crate::release::{self, Release};
use crate::values::{ASSOCIATED_ROLE, ROLE};
use anyhow::Result;
use common::Error;
use common::kube::apply::{self, Manifest, Observed, Step};
use common::kube::object::ObjectRef;
use common::plan::Effect;
use serde_json::{Map, Value, json};
use std::fmt;

/// The field manager that server-side apply records.
pub const MANAGER: &str = "appmesh-install";

/// Names of the installation.
#[derive(Debug, Clone)]
pub struct Target {
    /// Namespace of the controller.
    pub namespace: String,
    /// The Helm release.
    pub release: String,
    /// The controller's service account.
    pub service_account: String,
}

/// What the cluster has.
#[derive(Debug, Default)]
pub struct Have {
    /// One entry for each manifest.
    pub objects: Vec<Observed>,
    /// The newest revision of the release.
    pub release: Option<Release>,
    /// What the release installed and what has become of it; looked up when it is ours to repair.
    pub installed: (Vec<Manifest>, Vec<Observed>),
    /// Why the controller does not answer; nothing when it does.
    pub silent: Option<String>,
    /// Custom resource definitions of the group; looked up for a deletion only.
    pub definitions: Vec<Definition>,
    /// What else lives in the namespace; looked up for a deletion only.
    pub others: Vec<String>,
}

/// A custom resource definition that is there.
#[derive(Debug)]
pub struct Definition {
    /// Which one.
    pub object: ObjectRef,
    /// As it is.
    pub observed: Observed,
    /// Some of the objects it still defines.
    pub objects: Vec<String>,
}

impl Definition {
    fn why_left(&self) -> Option<String> {
        if !self.observed.managed_by(MANAGER) {
            return Some(format!("made by {}", self.observed.makers()));
        }
        (!self.objects.is_empty()).then(|| format!("there is still {}", self.objects.join(", ")))
    }
}

/// One step.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// Towards a manifest: definitions, namespace, service account.
    Apply(Step),
    /// Put aside a revision whose run of Helm was killed.
    Recover { release: String, revision: u32, status: String },
    /// Install the chart.
    Install { release: String, chart: String },
    /// Upgrade the release. With `force` over fields that others set.
    Upgrade { release: String, why: Vec<String>, force: bool },
    /// Wait until the controller's webhook answers.
    AwaitAnswer { reason: Option<String> },
    /// Uninstall the release.
    Uninstall { release: String },
    /// Remove an object and wait until it is gone.
    Delete(ObjectRef),
}

impl common::plan::Change for Change {
    fn effect(&self) -> Effect {
        match self {
            Change::Apply(step) => step.effect(),
            Change::Install { .. } => Effect::Add,
            Change::Recover { .. } | Change::Upgrade { .. } => Effect::Change,
            Change::AwaitAnswer { .. } => Effect::Wait,
            Change::Uninstall { .. } | Change::Delete(_) => Effect::Remove,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Apply(step) => step.fmt(f),
            Change::Recover { release, revision, status } => {
                write!(f, "recover release {release}: revision {revision} was left {status}")
            }
            Change::Install { release, chart } => write!(f, "install release {release}: chart {chart}"),
            Change::Upgrade { release, why, .. } => write!(f, "upgrade release {release}: {}", why.join(", ")),
            Change::AwaitAnswer { reason: Some(reason) } => write!(f, "wait for the controller: {reason}"),
            Change::AwaitAnswer { reason: None } => write!(f, "wait for the controller"),
            Change::Uninstall { release } => write!(f, "uninstall release {release}"),
            Change::Delete(object) => write!(f, "delete {object}"),
        }
    }
}

impl Target {
    /// The controller's namespace.
    pub fn namespace(&self) -> ObjectRef {
        ObjectRef::new("v1", "Namespace", &self.namespace)
    }

    /// The controller's service account.
    pub fn service_account(&self) -> ObjectRef {
        ObjectRef::new("v1", "ServiceAccount", &self.service_account).within(&self.namespace)
    }

    /// Everything the chart needs before it: its definitions, the namespace, the service account of the role.
    pub fn manifests(&self, definitions: Vec<Value>, role: Option<&str>) -> Vec<Manifest> {
        let definitions =
            definitions.into_iter().filter_map(|body| Some(Manifest { object: ObjectRef::of(&body)?, body }));
        let plain = |object: ObjectRef| {
            let mut body =
                json!({"apiVersion": object.api_version, "kind": object.kind, "metadata": {"name": object.name}});
            if let Some(namespace) = &object.namespace {
                body["metadata"]["namespace"] = namespace.as_str().into();
            }
            Manifest { object, body }
        };
        let (namespace, mut account) = (plain(self.namespace()), plain(self.service_account()));
        if let Some(role) = role {
            account.body["metadata"]["annotations"] = json!({ROLE: role});
        }
        definitions.chain([namespace, account]).collect()
    }
}

/// Definitions, namespace and service account first, then the release where chart or values differ, then the webhook.
pub fn plan(
    target: &Target,
    manifests: &[Manifest],
    chart: &Chart,
    values: &Map<String, Value>,
    have: &Have,
    adopt: bool,
) -> Result<Vec<Change>> {
    let steps = apply::plan(manifests, &have.objects, MANAGER, adopt)?;
    let (again, steps) = made_again(steps);
    let mut changes: Vec<Change> = steps.into_iter().map(Change::Apply).collect();
    let release = target.release.clone();
    match &have.release {
        None => changes.push(Change::Install { release, chart: format!("{} {}", chart.name, chart.version) }),
        Some(found) if found.ours() || adopt => {
            let drift = drift(have, adopt)?;
            let mut why = found.differs(chart, values);
            if !found.ours() {
                why.insert(0, "adopt what somebody else installed".to_owned());
            }
            if found.pending() {
                let (revision, status) = (found.revision, found.status.clone());
                changes.push(Change::Recover { release: release.clone(), revision, status });
            } else if found.status == "uninstalling" {
                changes.push(Change::Uninstall { release: release.clone() });
            }
            let force = adopt || !drift.is_empty();
            for step in drift {
                match step {
                    Step::AwaitEnd(_) => changes.push(Change::Apply(step)),
                    step => why.push(step.to_string()),
                }
            }
            if !why.is_empty() {
                changes.push(Change::Upgrade { release, why, force });
            }
        }
        Some(found) => {
            let why = found.differs(chart, values);
            if !why.is_empty() {
                let message = format!("release {release} was {}: {}", found.origin(), why.join(", "));
                return Err(Error::conflict(message).hint("--adopt takes it over").into());
            }
        }
    }
    changes.extend(again.into_iter().map(Change::Apply));
    if !changes.is_empty() || have.silent.is_some() {
        changes.push(Change::AwaitAnswer { reason: have.silent.clone() });
    }
    Ok(changes)
}

/// The steps for definitions that are being deleted, and all others. Such a definition ends when its objects have, which may
/// wait for the controller to let them go: so it is made again after the release.
fn made_again(steps: Vec<Step>) -> (Vec<Step>, Vec<Step>) {
    let ends = |step: &Step| match step {
        Step::AwaitEnd(object) if object.kind == "CustomResourceDefinition" => Some(object.clone()),
        _ => None,
    };
    let ending: Vec<ObjectRef> = steps.iter().filter_map(ends).collect();
    steps.into_iter().partition(|step| match step {
        Step::AwaitEnd(object) | Step::Create(object) | Step::AwaitReady(object) => ending.contains(object),
        Step::Configure(..) | Step::Adopt(..) => false,
    })
}

/// Refuses to take its role and its images from an installation of ours, as who starts from nothing would not expect.
///
/// # Errors
/// [`Kind::Conflict`](common::Kind::Conflict) that names the values.
pub fn keeps_its_own(target: &Target, values: &Map<String, Value>, have: &Have) -> Result<()> {
    fn own(have: &Map<String, Value>, want: Option<&Map<String, Value>>, path: &str, lost: &mut Vec<String>) {
        for (key, value) in have {
            let (path, wanted) = (format!("{path}{key}"), want.and_then(|want| want.get(key)));
            match value {
                Value::Object(below) => own(below, wanted.and_then(Value::as_object), &format!("{path}."), lost),
                _ if wanted.is_none() && [ROLE, ASSOCIATED_ROLE, "repository"].contains(&key.as_str()) => {
                    lost.push(path)
                }
                _ => {}
            }
        }
    }
    let mut lost = Vec::new();
    if let Some(release) = have.release.as_ref().filter(|release| release.ours()) {
        own(&release.values, Some(values), "", &mut lost);
    }
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!("release {} would lose its {}", target.release, lost.join(" and its "));
    let hint = "give its document instead of -n, such as build/CLUSTER/mesh.json, or take them away with --reset";
    Err(Error::conflict(message).hint(hint).into())
}

/// How what was installed has changed since, in the words of the steps that an upgrade of the release takes.
fn drift(have: &Have, adopt: bool) -> Result<Vec<Step>> {
    let (manifests, observed) = &have.installed;
    let mut steps = apply::plan(manifests, observed, release::MANAGER, adopt)?;
    steps.retain(|step| matches!(step, Step::Create(_) | Step::Configure(..) | Step::AwaitEnd(_)));
    Ok(steps)
}

/// Definitions that define nothing any more, then the release, the service account and the namespace, if they are ours: once
/// there are no definitions, nobody can make an object whose finalizer only the controller removes. A controller that
/// somebody still needs is a conflict.
pub fn plan_delete(target: &Target, manifests: &[Manifest], have: &Have) -> Result<Vec<Change>> {
    let unused = have.definitions.iter().filter(|definition| definition.why_left().is_none());
    let mut changes: Vec<Change> = unused.map(|definition| Change::Delete(definition.object.clone())).collect();
    if have.release.as_ref().is_some_and(Release::ours) {
        let served: Vec<&str> = have.definitions.iter().flat_map(|it| &it.objects).map(String::as_str).collect();
        if !served.is_empty() {
            let message = format!("release {} still serves {}", target.release, served.join(", "));
            let hint = "delete them first (kubectl delete): only the running controller removes their finalizers";
            return Err(Error::conflict(message).hint(hint).into());
        }
        changes.push(Change::Uninstall { release: target.release.clone() });
    }
    let present = manifests.iter().zip(&have.objects).rev().filter(|(_, observed)| observed.live.is_some());
    let ours = present.filter(|(manifest, observed)| why_left(target, manifest, observed, have).is_none());
    changes.extend(ours.map(|(manifest, _)| Change::Delete(manifest.object.clone())));
    Ok(changes)
}

/// What `plan_delete` leaves, and why.
pub fn left_alone(target: &Target, manifests: &[Manifest], have: &Have) -> Vec<String> {
    let mut left = Vec::new();
    if let Some(release) = have.release.as_ref().filter(|release| !release.ours()) {
        left.push(format!("release {}: {}", target.release, release.origin()));
    }
    let definitions = have.definitions.iter().filter_map(|it| Some(format!("{}: {}", it.object, it.why_left()?)));
    left.extend(definitions);
    let found = manifests.iter().zip(&have.objects);
    let kept = found.filter_map(|(manifest, it)| Some((&manifest.object, why_left(target, manifest, it, have)?)));
    left.extend(kept.map(|(object, why)| format!("{object}: {why}")));
    left
}

fn why_left(target: &Target, manifest: &Manifest, observed: &Observed, have: &Have) -> Option<String> {
    if observed.live.is_some() && !observed.managed_by(MANAGER) {
        return Some(format!("made by {}", observed.makers()));
    }
    let full = manifest.object == target.namespace() && !have.others.is_empty();
    full.then(|| format!("it holds {}", have.others.join(", ")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use common::{Kind, classify};

    fn target() -> Target {
        Target { namespace: "ns".into(), release: "mesh".into(), service_account: "sa".into() }
    }

    fn chart(version: &str) -> Chart {
        let (name, digest) = ("mesh".to_owned(), "d".to_owned());
        Chart { name, version: version.into(), digest, ..Chart::default() }
    }

    fn release(status: &str, ours: bool) -> Release {
        let owner = ours.then(|| ("managed-by".to_owned(), "crossmesh".to_owned()));
        Release {
            revision: 2,
            status: status.into(),
            labels: owner.into_iter().collect(),
            chart: ("mesh".into(), "1.0.0".into()),
            description: release::description(&chart("1.0.0")),
            writer: "helm".into(),
            ..Release::default()
        }
    }

    fn present(manifests: &[Manifest], manager: &str) -> Vec<Observed> {
        let observed = |manifest: &Manifest| {
            let mut live = manifest.body.clone();
            live["metadata"]["managedFields"] = json!([{"manager": manager}]);
            live["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
            Observed { applied: Some(live.clone()), live: Some(live), ..Observed::default() }
        };
        manifests.iter().map(observed).collect()
    }

    fn words(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    fn definition() -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "meshes"}})
    }

    #[test]
    fn an_empty_cluster_gets_everything_in_order() {
        let manifests = target().manifests(vec![definition()], Some("arn:role"));
        assert_eq!(manifests[2].body["metadata"]["annotations"]["eks.amazonaws.com/role-arn"], "arn:role");
        let have = Have { objects: vec![Observed::default(); 3], ..Have::default() };
        let expected = [
            "create CustomResourceDefinition meshes",
            "wait for CustomResourceDefinition meshes",
            "create Namespace ns",
            "create ServiceAccount ns/sa",
            "install release mesh: chart mesh 1.0.0",
            "wait for the controller",
        ];
        assert_eq!(words(&plan(&target(), &manifests, &chart("1.0.0"), &Map::new(), &have, false).unwrap()), expected);
        assert_eq!(words(&plan_delete(&target(), &manifests, &have).unwrap()), [""; 0]);
    }

    #[test]
    fn a_definition_that_ends_may_need_the_controller_for_it() {
        let manifests = target().manifests(vec![definition()], None);
        let mut objects = present(&manifests, MANAGER);
        objects[0].live.as_mut().unwrap()["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let have = Have { objects, ..Have::default() };
        let expected = [
            "install release mesh: chart mesh 1.0.0",
            "wait for the end of CustomResourceDefinition meshes",
            "create CustomResourceDefinition meshes",
            "wait for the controller",
        ];
        assert_eq!(words(&plan(&target(), &manifests, &chart("1.0.0"), &Map::new(), &have, false).unwrap()), expected);
    }

    #[test]
    fn a_release_is_only_touched_where_it_differs() {
        let manifests = target().manifests(vec![definition()], None);
        let refusal = "release mesh was installed by somebody else, with helm: chart mesh 1.0.0 → mesh 1.1.0";
        let adoption = "upgrade release mesh: adopt what somebody else installed, chart mesh 1.0.0 → mesh 1.1.0";
        let upgrade = "upgrade release mesh: chart mesh 1.0.0 → mesh 1.1.0";
        let wait = "wait for the controller";
        type Case<'a> = (Release, &'a str, Option<&'a str>, bool, &'a [&'a str]);
        let cases: [Case<'_>; 9] = [
            (release("deployed", true), "1.0.0", None, false, &[]),
            (release("deployed", false), "1.0.0", None, false, &[]),
            (release("deployed", true), "1.0.0", Some("x"), false, &["wait for the controller: x"]),
            (release("deployed", true), "1.1.0", None, false, &[upgrade, wait]),
            (release("deployed", false), "1.1.0", None, false, &[refusal]),
            (release("deployed", false), "1.1.0", None, true, &[adoption, wait]),
            (
                release("deployed", false),
                "1.0.0",
                None,
                true,
                &["upgrade release mesh: adopt what somebody else installed", wait],
            ),
            (
                release("pending-upgrade", true),
                "1.0.0",
                None,
                false,
                &[
                    "recover release mesh: revision 2 was left pending-upgrade",
                    "upgrade release mesh: revision 2 is pending-upgrade",
                    wait,
                ],
            ),
            (
                release("uninstalling", true),
                "1.0.0",
                None,
                false,
                &["uninstall release mesh", "upgrade release mesh: revision 2 is uninstalling", wait],
            ),
        ];
        for (release, version, silent, adopt, expected) in cases {
            let case = format!("{release:?} {version} {silent:?} {adopt}");
            let objects = present(&manifests, MANAGER);
            let have = Have { objects, release: Some(release), silent: silent.map(str::to_owned), ..Have::default() };
            let changes = plan(&target(), &manifests, &chart(version), &Map::new(), &have, adopt);
            let found = changes.map_or_else(
                |error| {
                    assert_eq!(classify(&error).0, Kind::Conflict);
                    vec![error.to_string()]
                },
                |changes| words(&changes),
            );
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn what_became_of_the_release_is_put_right() {
        let object = ObjectRef::new("apps/v1", "Deployment", "mesh").within("ns");
        let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 1}});
        let contents = [Manifest { object, body }];
        let status = json!({"availableReplicas": 1, "updatedReplicas": 1, "replicas": 1});
        let seen = |replicas: u32, claims: &[(&str, &str)]| {
            let object = |replicas: u32| {
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": replicas}, "status": status,
                    "metadata": {"managedFields": [{"manager": "helm"}]}})
            };
            let claim = |(manager, field): &(&str, &str)| apply::Claim {
                manager: (*manager).to_owned(),
                declared: false,
                field: (*field).to_owned(),
            };
            let (live, applied) = (Some(object(replicas)), Some(object(1)));
            vec![Observed { live, applied, claims: claims.iter().map(claim).collect(), ..Observed::default() }]
        };
        let wait = "wait for the controller";
        type Case<'a> = (Vec<Observed>, bool, bool, &'a [&'a str]);
        let cases: [Case<'_>; 7] = [
            (seen(1, &[]), true, false, &[]),
            // Helm 3 updates, and so is another manager of the same name.
            (
                seen(3, &[("helm", "spec.replicas")]),
                true,
                false,
                &["upgrade release mesh: configure Deployment ns/mesh: spec.replicas 3 → 1", wait],
            ),
            (
                seen(3, &[("kubectl", "spec.replicas")]),
                true,
                false,
                &["upgrade release mesh: configure Deployment ns/mesh: spec.replicas 3 → 1", wait],
            ),
            (vec![Observed::default()], true, false, &["upgrade release mesh: create Deployment ns/mesh", wait]),
            (
                seen(3, &[("hpa", "spec.replicas")]),
                true,
                false,
                &["Deployment ns/mesh: others hold spec.replicas (hpa): spec.replicas 3 → 1"],
            ),
            (
                seen(3, &[("hpa", "spec.replicas")]),
                true,
                true,
                &["upgrade release mesh: configure Deployment ns/mesh: spec.replicas 3 → 1", wait],
            ),
            // What is not ours is not looked into.
            (Vec::new(), false, false, &[]),
        ];
        for (observed, ours, adopt, expected) in cases {
            let case = format!("{observed:?} {ours} {adopt}");
            let installed = if observed.is_empty() { (Vec::new(), observed) } else { (contents.to_vec(), observed) };
            let have = Have { installed, release: Some(release("deployed", ours)), ..Have::default() };
            let changes = plan(&target(), &[], &chart("1.0.0"), &Map::new(), &have, adopt);
            if let Ok([Change::Upgrade { force, .. }, ..]) = changes.as_deref() {
                assert!(force, "{case}");
            }
            let found = changes.map_or_else(|error| vec![error.to_string()], |changes| words(&changes));
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn only_ours_and_only_what_nobody_uses_is_deleted() {
        let manifests = target().manifests(Vec::new(), None);
        let meshes = ObjectRef::of(&definition()).unwrap();
        let have = |manager: &str, ours: bool, objects: &[&str], others: &[&str]| Have {
            objects: present(&manifests, manager),
            release: Some(release("deployed", ours)),
            definitions: vec![Definition {
                object: meshes.clone(),
                observed: present(&[Manifest { object: meshes.clone(), body: definition() }], manager).remove(0),
                objects: objects.iter().map(|it| (*it).to_owned()).collect(),
            }],
            others: others.iter().map(|it| (*it).to_owned()).collect(),
            ..Have::default()
        };
        let all = have(MANAGER, true, &[], &[]);
        let expected = [
            "delete CustomResourceDefinition meshes",
            "uninstall release mesh",
            "delete ServiceAccount ns/sa",
            "delete Namespace ns",
        ];
        assert_eq!(words(&plan_delete(&target(), &manifests, &all).unwrap()), expected);
        assert_eq!(left_alone(&target(), &manifests, &all), [""; 0]);

        let shared = have(MANAGER, false, &["Mesh k8multi"], &["Pod other"]);
        assert_eq!(words(&plan_delete(&target(), &manifests, &shared).unwrap()), ["delete ServiceAccount ns/sa"]);
        let left = [
            "release mesh: installed by somebody else, with helm",
            "CustomResourceDefinition meshes: there is still Mesh k8multi",
            "Namespace ns: it holds Pod other",
        ];
        assert_eq!(left_alone(&target(), &manifests, &shared), left);

        let served = have(MANAGER, true, &["Mesh k8multi", "Mesh theirs"], &[]);
        let refused = plan_delete(&target(), &manifests, &served).unwrap_err();
        assert_eq!(classify(&refused).0, Kind::Conflict);
        assert_eq!(refused.to_string(), "release mesh still serves Mesh k8multi, Mesh theirs");

        let foreign = have("kubectl-create", true, &[], &[]);
        assert_eq!(words(&plan_delete(&target(), &manifests, &foreign).unwrap()), ["uninstall release mesh"]);
        let left = [
            "CustomResourceDefinition meshes: made by kubectl-create",
            "Namespace ns: made by kubectl-create",
            "ServiceAccount ns/sa: made by kubectl-create",
        ];
        assert_eq!(left_alone(&target(), &manifests, &foreign), left);
    }

    #[test]
    fn from_nothing_a_role_and_images_are_not_taken_away() {
        let values = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let role = r#""podAnnotations": {"eks.amazonaws.com/role-arn": "arn:role", "a": "b"}"#;
        let image = r#""init": {"image": {"repository": "r", "tag": "t"}}, "log": {"level": "debug"}"#;
        let judged = |ours, wish: &str| {
            let values_there = values(&format!("{{{role}, {image}}}"));
            let release = Some(Release { values: values_there, ..release("deployed", ours) });
            let have = Have { release, ..Have::default() };
            keeps_its_own(&target(), &values(wish), &have).map_err(|error| (classify(&error).0, error.to_string()))
        };
        let lost = |what: &str| Err((Kind::Conflict, format!("release mesh would lose its {what}")));
        assert_eq!(judged(true, &format!("{{{role}, {image}}}")), Ok(()));
        assert_eq!(judged(true, &format!("{{{role}}}")), lost("init.image.repository"));
        assert_eq!(judged(true, &format!("{{{image}}}")), lost("podAnnotations.eks.amazonaws.com/role-arn"));
        let both = "init.image.repository and its podAnnotations.eks.amazonaws.com/role-arn";
        assert_eq!(judged(true, "{}"), lost(both));
        assert_eq!(judged(false, "{}"), Ok(()));
        assert!(keeps_its_own(&target(), &Map::new(), &Have::default()).is_ok());
    }
}
