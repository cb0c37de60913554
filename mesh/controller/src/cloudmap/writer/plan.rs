//! Plans the steps that bring a Cloud Map service to what this cluster wants. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::model::{Attributes, ClusterId, Instances, endpoint};

/// One step from what is to what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add or replace.
    Register(String, Arc<Attributes>),
    /// Remove.
    Deregister(String),
}

/// A change that Cloud Map has not done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// The instance is new.
    Adding(Arc<Attributes>),
    /// Until it is done, the instance is found with the attributes it had.
    Replacing(Arc<Attributes>),
    /// The instance is leaving.
    Removing,
}

/// What this cluster wants of a service.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// By id.
    pub instances: &'a Instances,
    /// The VirtualNodes that they are of, by mesh and name.
    pub nodes: &'a BTreeSet<(String, String)>,
    /// Whether the instances are one document: what was there before goes when all of them are there.
    pub whole: bool,
}

/// The steps: first what is missing or different, then what is this cluster's and not wanted any more, but for what `keep`
/// names. An instance that is being changed is left alone until that is done.
pub fn plan(
    wanted: Wanted<'_>,
    present: &Instances,
    pending: &BTreeMap<String, Pending>,
    cluster: &ClusterId,
    mut keep: impl FnMut(&str, &Attributes) -> bool,
) -> Vec<Change> {
    let missing = wanted.instances.iter().filter(|(id, attributes)| {
        !pending.contains_key(*id) && !present.get(*id).is_some_and(|present| same(attributes, present))
    });
    let mut changes: Vec<_> =
        missing.map(|(id, attributes)| Change::Register(id.clone(), attributes.clone())).collect();
    if wanted.whole && !(changes.is_empty() && wanted.instances.keys().all(|id| !pending.contains_key(id))) {
        return changes;
    }
    let unwanted = present.iter().filter(|(id, attributes)| {
        let ours = endpoint::is_of(attributes, cluster) || endpoint::is_left(attributes, wanted.nodes);
        ours && !wanted.instances.contains_key(*id) && !pending.contains_key(*id) && !keep(id, attributes)
    });
    changes.extend(unwanted.map(|(id, _)| Change::Deregister(id.clone())));
    changes
}

/// Whether an instance has the attributes that are wanted. Cloud Map adds some of its own, such as AWS_INIT_HEALTH_STATUS.
pub fn same(wanted: &Attributes, present: &Attributes) -> bool {
    let given = present.iter().filter(|(key, _)| wanted.contains_key(key) || !key.starts_with("AWS_"));
    wanted.iter().eq(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::endpoint::{CLUSTER, CLUSTER_ARN, MESH, VIRTUAL_NODE};

    fn instances(of: &[(&str, &[(&str, &str)])]) -> Instances {
        let attributes = |given: &[(&str, &str)]| -> Attributes {
            given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        of.iter().map(|(id, given)| ((*id).to_owned(), Arc::new(attributes(given)))).collect()
    }

    fn here() -> ClusterId {
        ClusterId { uid: "here".to_owned(), arn: Some("arn:here".to_owned()) }
    }

    fn nodes() -> BTreeSet<(String, String)> {
        [("shop".to_owned(), "front_shop".to_owned())].into()
    }

    fn deregister(id: &str) -> Change {
        Change::Deregister(id.to_owned())
    }

    #[test]
    fn plans() {
        let ours = |color| [(CLUSTER, "here"), ("color", color)];
        let want = instances(&[("10.0.0.1", &ours("red"))]);
        let register = || vec![Change::Register("10.0.0.1".to_owned(), want["10.0.0.1"].clone())];
        for (case, have, expected) in [
            ("nothing there", instances(&[]), register()),
            ("as wanted", want.clone(), vec![]),
            (
                "as wanted, with what Cloud Map adds",
                instances(&[(
                    "10.0.0.1",
                    &[(CLUSTER, "here"), ("color", "red"), ("AWS_INIT_HEALTH_STATUS", "HEALTHY")],
                )]),
                vec![],
            ),
            ("another value", instances(&[("10.0.0.1", &ours("blue"))]), register()),
            (
                "one attribute too many",
                instances(&[("10.0.0.1", &[(CLUSTER, "here"), ("color", "red"), ("version", "1")])]),
                register(),
            ),
            (
                "an address that went from one node to another is replaced, never removed",
                instances(&[("10.0.0.1", &ours("blue")), ("10.0.0.2", &ours("red"))]),
                register().into_iter().chain([deregister("10.0.0.2")]).collect(),
            ),
            (
                "others' instances stay: another cluster's and upstream's",
                instances(&[
                    ("10.0.0.1", &ours("red")),
                    ("10.0.0.3", &[(CLUSTER, "there"), ("color", "red")]),
                    ("10.0.0.4", &[("color", "red")]),
                ]),
                vec![],
            ),
            (
                "what Amazon's controller has left of the same VirtualNode goes, and of another stays",
                instances(&[
                    ("10.0.0.1", &ours("red")),
                    ("10.0.0.3", &[(CLUSTER, "there"), (MESH, "shop"), (VIRTUAL_NODE, "front_shop")]),
                    ("10.0.0.4", &[(MESH, "shop"), (VIRTUAL_NODE, "front_shop")]),
                    ("10.0.0.5", &[(MESH, "shop"), (VIRTUAL_NODE, "back_shop")]),
                    ("10.0.0.6", &[(MESH, "other"), (VIRTUAL_NODE, "front_shop")]),
                ]),
                vec![deregister("10.0.0.4")],
            ),
            (
                "those of a cluster of the same ARN, which this one replaces, go",
                instances(&[
                    ("10.0.0.1", &ours("red")),
                    ("10.0.0.5", &[(CLUSTER, "before"), (CLUSTER_ARN, "arn:here")]),
                    ("10.0.0.6", &[(CLUSTER, "there"), (CLUSTER_ARN, "arn:there")]),
                ]),
                vec![deregister("10.0.0.5")],
            ),
        ] {
            let wanted = Wanted { instances: &want, nodes: &nodes(), whole: false };
            assert_eq!(plan(wanted, &have, &BTreeMap::new(), &here(), |_, _| false), expected, "{case}");
        }
    }

    #[test]
    fn an_instance_that_is_being_changed_is_left_alone() {
        let want = instances(&[("1", &[(CLUSTER, "here")]), ("2", &[(CLUSTER, "here"), ("color", "red")])]);
        let have = instances(&[("2", &[(CLUSTER, "here")]), ("3", &[(CLUSTER, "here")])]);
        let adding = Pending::Adding(want["1"].clone());
        let replacing = Pending::Replacing(want["2"].clone());
        let pending = BTreeMap::from([
            ("1".to_owned(), adding),
            ("2".to_owned(), replacing),
            ("3".to_owned(), Pending::Removing),
        ]);
        let wanted = Wanted { instances: &want, nodes: &nodes(), whole: false };
        assert_eq!(plan(wanted, &have, &pending, &here(), |_, _| false), []);
    }

    #[test]
    fn what_is_kept_is_not_removed() {
        let have = instances(&[("1", &[(CLUSTER, "here")]), ("2", &[(CLUSTER, "here")])]);
        let wanted = Wanted { instances: &Instances::new(), nodes: &nodes(), whole: false };
        let changes = plan(wanted, &have, &BTreeMap::new(), &here(), |id, _| id == "1");
        assert_eq!(changes, [deregister("2")]);
    }

    #[test]
    fn a_document_goes_when_all_of_the_next_is_there() {
        let part = [(CLUSTER, "here")];
        let want = instances(&[("new.0", &part), ("new.1", &part)]);
        let old = || instances(&[("old.0", &part)]);
        let with = |ids: &[&str]| {
            let new = want.iter().filter(|(id, _)| ids.contains(&id.as_str()));
            old().into_iter().chain(new.map(|(id, attributes)| (id.clone(), attributes.clone()))).collect::<Instances>()
        };
        let steps = |have: &[&str], adding: &[&str]| {
            let pending = adding.iter().map(|id| ((*id).to_owned(), Pending::Adding(want[*id].clone()))).collect();
            let wanted = Wanted { instances: &want, nodes: &nodes(), whole: true };
            plan(wanted, &with(have), &pending, &here(), |_, _| false)
        };
        let register = |id: &str| Change::Register(id.to_owned(), want[id].clone());
        assert_eq!(steps(&[], &[]), [register("new.0"), register("new.1")]);
        assert_eq!(steps(&["new.0"], &[]), [register("new.1")]);
        assert_eq!(steps(&["new.0", "new.1"], &["new.1"]), []);
        assert_eq!(steps(&["new.0", "new.1"], &[]), [deregister("old.0")]);
    }
}
