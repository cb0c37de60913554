//! Translates BackendGroups: the VirtualServices that a VirtualNode calls by them.

use kube::ResourceExt as _;
use mesh_api::{BackendGroup, Reference, VirtualNode};

use super::{
    Context, Report,
    problems::{Check, Place, Problems, check},
    references,
};
use crate::{
    cluster::{Object, Snapshot},
    model::Reason,
};

/// The name that stands for every VirtualService of a namespace.
const ALL: &str = "*";

impl Check for BackendGroup {
    fn check(&self, _: Place<'_>, _: &mut Problems) {}
}

/// The VirtualServices that a node calls by its groups: the group's place in the spec, namespace and name.
pub fn members(node: &VirtualNode, snapshot: &Snapshot) -> Vec<(usize, String, String)> {
    let own = node.namespace().unwrap_or_default();
    let groups = node.spec.backend_groups.iter().flatten().enumerate();
    groups
        .flat_map(|(index, reference)| match references::seen_from(&own, reference) {
            (namespace, ALL) => {
                let all = snapshot.virtual_services.of_namespace(namespace);
                all.map(|service| (index, namespace.to_owned(), service.name_any())).collect::<Vec<_>>()
            }
            (namespace, name) => {
                let group = snapshot.backend_groups.get(namespace, name);
                let members = group.into_iter().flat_map(|group| group.spec.virtual_services.iter().flatten());
                let member = |reference: &Reference| {
                    let (namespace, name) = references::seen_from(namespace, reference);
                    (index, namespace.to_owned(), name.to_owned())
                };
                members.map(member).collect()
            }
        })
        .collect()
}

/// Notes groups of a node that do not exist.
pub fn missing(node: &VirtualNode, snapshot: &Snapshot, problems: &mut Problems) {
    let own = node.namespace().unwrap_or_default();
    for (index, reference) in node.spec.backend_groups.iter().flatten().enumerate() {
        let (namespace, name) = references::seen_from(&own, reference);
        if name != ALL && snapshot.backend_groups.get(namespace, name).is_none() {
            let path = format!("spec.backendGroups[{index}]");
            references::missing(Reason::BackendNotFound, "backendgroup", (namespace, name), path, problems);
        }
    }
}

/// What is reported of a BackendGroup.
pub fn report(group: &Object<BackendGroup>, context: Context<'_>) -> Report {
    let Context { snapshot, account, .. } = context;
    let mut problems = Problems::default();
    if let Err(problem) = super::mesh_of(group, snapshot) {
        return Report { problems: vec![problem], ..Report::default() };
    }
    let own = group.namespace().unwrap_or_default();
    for (index, reference) in group.spec.virtual_services.iter().flatten().enumerate() {
        let service = references::seen_from(&own, reference);
        if snapshot.virtual_services.get(service.0, service.1).is_none() {
            let path = format!("spec.virtualservices[{index}]");
            references::missing(Reason::BackendNotFound, "virtualservice", service, path, &mut problems);
        }
    }
    let found = check(group, Place { account, mesh: None });
    Report { problems: [found, problems.into_vec()].concat(), ..Report::default() }
}
