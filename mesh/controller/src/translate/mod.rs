//! Translates Kubernetes' objects into the model, once for all that follows from them: Envoy's configuration, Cloud Map,
//! status. Pure: it asks nobody, and the same objects give the same translation.
//!
//! Every problem is reported with its object and path. Admission refuses by the problems found here, conditions report
//! them, and what has one is left out of the model while the rest goes on.

mod account;
mod backend_group;
mod gateway_match;
mod gateway_route;
mod gateway_target;
mod listener;
mod logging;
pub mod membership;
mod mesh;
mod problems;
mod published;
mod references;
mod registration;
mod retries;
mod route;
mod route_match;
mod tls;
mod virtual_gateway;
mod virtual_node;
mod virtual_router;
mod virtual_service;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use kube::Resource;
use mesh_api::{
    Arn, BackendGroup, GatewayRoute, Mesh, MeshMember, VirtualGateway, VirtualNode, VirtualRouter, VirtualService,
};

use serde_json::{Map, Value, json};

pub use account::owner;
pub use problems::{Check, Place, Problems, check};
pub use registration::{Membership, Registrants};

use crate::{
    cluster::{Object, Snapshot},
    model::{
        Account, ObjectKey, Problem, Proxy, Published, Reason, Routing, ServiceKey, VirtualServiceKey, WorkloadName,
    },
};

/// Every VirtualService of another cluster that was looked up so far.
pub type AllPublished = BTreeMap<VirtualServiceKey, Published>;

/// What comes of the cluster's objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// The workloads, each VirtualNode and VirtualGateway with a mesh.
    pub workloads: BTreeMap<WorkloadName, Translated>,
    /// The workload of each VirtualNode and VirtualGateway.
    pub names: HashMap<ObjectKey, WorkloadName>,
    /// The VirtualNodes whose pods are registered in Cloud Map, and the VirtualGateways.
    pub registrants: Arc<Registrants>,
    /// What this cluster publishes for others.
    pub publications: Vec<Publication>,
    /// What is reported of each object.
    pub reports: BTreeMap<ObjectKey, Report>,
}

impl Translation {
    fn add(&mut self, key: ObjectKey, translated: Option<Translated>) {
        let Some(translated) = translated else { return };
        let name = translated.workload.name().clone();
        self.names.insert(key, name.clone());
        self.workloads.insert(name, translated);
    }

    /// What a person may want to see of it: the workloads, what is published, and what is wrong with each object.
    pub fn json(&self) -> Value {
        let workloads =
            self.workloads.iter().map(|(name, translated)| (name.to_string(), json!(translated.workload.as_ref())));
        let publications = self.publications.iter().map(|publication| {
            let value = json!({ "namespaces": publication.namespaces, "routing": publication.routing.as_ref() });
            (publication.arn.to_string(), value)
        });
        let problems = self.reports.iter().filter(|(_, report)| !report.problems.is_empty());
        let problems = problems.map(|(object, report)| (object.to_string(), json!(report.problems)));
        json!({
            "workloads": workloads.collect::<Map<_, _>>(),
            "publications": publications.collect::<Map<_, _>>(),
            "problems": problems.collect::<Map<_, _>>(),
        })
    }
}

/// A workload, and what must be known before its Envoys can be configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// The workload.
    pub workload: Arc<Proxy>,
    /// The VirtualServices of other clusters that it calls.
    pub published: BTreeSet<VirtualServiceKey>,
    /// The Cloud Map services of its upstreams.
    pub services: BTreeSet<ServiceKey>,
}

/// A VirtualService for other clusters.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// The VirtualService.
    pub object: ObjectKey,
    /// Its ARN.
    pub arn: Arn,
    /// The Cloud Map namespaces it is published in: those of its upstreams.
    pub namespaces: BTreeSet<String>,
    /// Where its requests go.
    pub routing: Arc<Routing>,
}

/// What is reported of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Its ARN, if its mesh is known.
    pub arn: Option<Arn>,
    /// The ARNs of a VirtualRouter's routes, by name.
    pub routes: BTreeMap<String, Arn>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// What a translation is made from.
#[derive(Clone, Copy)]
struct Context<'a> {
    snapshot: &'a Snapshot,
    account: &'a Account,
    published: &'a AllPublished,
    namespaces: &'a published::Namespaces<'a>,
}

/// Translates the cluster.
pub fn translate(snapshot: &Snapshot, account: &Account, published: &AllPublished) -> Translation {
    let namespaces = &published::namespaces(snapshot);
    let context = Context { snapshot, account, published, namespaces };
    let mut translation = Translation::default();
    for mesh in snapshot.meshes.iter() {
        translation.reports.insert(object_key::<Mesh>(mesh), mesh::report(mesh, context));
    }
    for group in snapshot.backend_groups.iter() {
        translation.reports.insert(object_key::<BackendGroup>(group), backend_group::report(group, context));
    }
    for router in snapshot.virtual_routers.iter() {
        translation.reports.insert(object_key::<VirtualRouter>(router), virtual_router::report(router, context));
    }
    let services = virtual_service::translate(context);
    for service in snapshot.virtual_services.iter() {
        // After the routers, for it has their problems too.
        let report = virtual_service::report(service, &services, &translation.reports, context);
        translation.reports.insert(object_key::<VirtualService>(service), report);
    }
    for node in snapshot.virtual_nodes.iter() {
        translation.reports.insert(object_key::<VirtualNode>(node), virtual_node::report(node, &services, context));
        translation.add(object_key::<VirtualNode>(node), virtual_node::translate(node, &services, context));
    }
    for route in snapshot.gateway_routes.iter() {
        let report = gateway_route::report(route, &services, &translation.reports, context);
        translation.reports.insert(object_key::<GatewayRoute>(route), report);
    }
    for gateway in snapshot.virtual_gateways.iter() {
        let key = object_key::<VirtualGateway>(gateway);
        translation.reports.insert(key.clone(), virtual_gateway::report(gateway, context));
        translation.add(key, virtual_gateway::translate(gateway, &services, context));
    }
    translation.registrants = Arc::new(registration::registrants(snapshot));
    translation.publications = virtual_service::publications(&services);
    translation
}

/// The Mesh of an object, or why there is none.
fn mesh_of<'a>(object: &Object<impl MeshMember>, snapshot: &'a Snapshot) -> Result<&'a Object<Mesh>, Problem> {
    let problem = |reason, message| Problem { reason, path: "spec.meshRef".to_owned(), message };
    let Some(reference) = object.mesh_ref() else {
        let message = "is missing, for the object was made before the webhook: delete it and make it again";
        return Err(problem(Reason::MeshUnknown, message.to_owned()));
    };
    let mesh = snapshot.mesh(&reference.name).filter(|mesh| mesh.metadata.uid.as_ref() == Some(&reference.uid));
    mesh.map(AsRef::as_ref).ok_or_else(|| {
        problem(Reason::MeshNotFound, format!("mesh {} of uid {} is gone", reference.name, reference.uid))
    })
}

/// An object's Mesh, by name alone: also while admission has not seen the new Mesh of that name.
fn mesh_named<'a>(object: &Object<impl MeshMember>, snapshot: &'a Snapshot) -> Option<&'a Object<Mesh>> {
    snapshot.mesh(&object.mesh_ref()?.name).map(AsRef::as_ref)
}

/// Names an object.
pub fn object_key<K: Resource<DynamicType = ()>>(object: &K) -> ObjectKey {
    let meta = object.meta();
    ObjectKey {
        kind: K::kind(&()),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}
