//! Shares what the pipeline knows with those who only read it.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use futures::{FutureExt as _, future::BoxFuture};
use mesh_api::Arn;
use serde_json::{Value, json};
use tonic::Status as GrpcStatus;

use super::{endpoints::Endpoints, places};
use crate::{
    cloudmap::{Leaving, Writer, describe, service_key},
    cluster::{Pod, PodKey, Pods, Snapshot},
    model::{ClusterId, ObjectKey, ServiceKey, VirtualServiceKey, WorkloadName},
    status::{CloudMap, CloudMapResource, PodCounts, Registration, Removal},
    translate::{
        Translation,
        membership::{self, Member},
    },
    xds::{Identify, auth::Caller},
};

/// What is known now.
#[derive(Default)]
pub struct State {
    /// The cluster's objects.
    pub snapshot: Arc<Snapshot>,
    /// What comes of them.
    pub translation: Arc<Translation>,
    /// Where pods are reached.
    pub endpoints: Endpoints,
}

/// What is known. Cloning is cheap, every clone sees the same.
#[derive(Clone, Default)]
pub struct Known(Arc<RwLock<State>>);

impl Known {
    /// Reads it.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it.
    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods of a VirtualNode or VirtualGateway.
    pub fn count_pods(&self, of: &ObjectKey) -> PodCounts {
        self.read().endpoints.count(of)
    }

    /// The translation, for people who look for the reason of something.
    pub fn translation(&self) -> Value {
        self.read().translation.json()
    }

    /// How many endpoints there are by service, of this cluster and of others.
    pub fn endpoints(&self) -> Value {
        json!(self.read().endpoints.summary())
    }
}

/// Identifies Envoys by their pods.
pub struct Workloads {
    /// The pods.
    pub pods: Pods,
    /// The workloads.
    pub known: Known,
}

impl Identify for Workloads {
    fn workload(&self, caller: &Caller, claimed: &str) -> Result<WorkloadName, GrpcStatus> {
        let pod = self.pods.get(&caller.namespace, &caller.pod);
        let pod = pod.filter(|pod| pod.uid == caller.uid);
        // The copy of the cluster may be a moment behind.
        let pod = pod.ok_or_else(|| GrpcStatus::unavailable("this pod is not known yet"))?;
        let known = self.known.read();
        let labels = pod.labels.to_map();
        let member = membership::of_pod(&known.snapshot, &caller.namespace, &caller.pod, &labels);
        let selected = selected(&known.translation, member, caller);
        if let Ok(own) = &selected
            && own.to_string() == claimed
        {
            return Ok((*own).clone());
        }
        // What delivers progressively moves selectors from one pod to the next. An Envoy stays what it was injected for.
        if pod.injected_for.as_deref() == Some(claimed) {
            let of_namespace = known.translation.names.iter().filter(|(key, _)| key.namespace == caller.namespace);
            let mut names = of_namespace.map(|(_, name)| name);
            if let Some(name) = names.find(|name| name.to_string() == claimed) {
                return Ok(name.clone());
            }
        }
        Err(GrpcStatus::permission_denied(format!("this pod is {}, not {claimed}", selected?)))
    }
}

/// The workload that a pod is by what selects it.
fn selected<'a>(
    translation: &'a Translation,
    member: anyhow::Result<Option<Member<'_>>>,
    caller: &Caller,
) -> Result<&'a WorkloadName, GrpcStatus> {
    let member = member.map_err(|error| GrpcStatus::permission_denied(format!("{error:#}")))?;
    let member = member.ok_or_else(|| {
        GrpcStatus::permission_denied(format!("no VirtualNode or VirtualGateway selects pod {}", caller.pod))
    })?;
    let own = translation.names.get(&member.key());
    own.ok_or_else(|| GrpcStatus::unavailable(format!("the mesh of {} is not known yet", member.key())))
}

/// Tells status what Cloud Map has.
pub struct Registrations {
    /// What is to be registered.
    pub known: Known,
    /// What is registered.
    pub writer: Arc<Writer>,
    /// The region of the account.
    pub region: String,
    /// This cluster.
    pub id: ClusterId,
}

impl Registrations {
    async fn remove(&self, resource: &CloudMapResource) -> anyhow::Result<Removal> {
        let keys: BTreeSet<ServiceKey> = match resource {
            CloudMapResource::Service(key) => [key.clone()].into(),
            // The objects that say where it was published may be gone already, so this looks in every namespace.
            CloudMapResource::Publication(arn) => {
                // Nothing is published where a name does not say which namespace it is.
                let key = |(namespace, namesakes)| {
                    (namesakes == 1).then(|| service_key(&VirtualServiceKey { namespace, arn: arn.to_string() }))
                };
                self.writer.namespaces().await?.into_iter().filter_map(key).collect()
            }
        };
        match self.writer.forget(&keys).await {
            Ok(()) => Ok(Removal::Done),
            Err(error) if error.is::<Leaving>() => Ok(Removal::Pending),
            Err(error) => Err(error),
        }
    }
}

impl CloudMap for Registrations {
    fn namespaces(&self) -> BoxFuture<'_, Result<BTreeSet<String>, String>> {
        let names = self.writer.namespaces();
        names.map(|names| names.map(|names| names.into_keys().collect()).map_err(|error| describe(&error))).boxed()
    }

    fn remove<'a>(&'a self, resource: &'a CloudMapResource) -> BoxFuture<'a, Result<Removal, String>> {
        Self::remove(self, resource).map(|removed| removed.map_err(|error| describe(&error))).boxed()
    }

    fn refusal(&self, arn: &Arn) -> Option<String> {
        let translation = self.known.read().translation.clone();
        let publication = translation.publications.iter().find(|publication| publication.arn == *arn)?;
        places(publication).find_map(|key| self.writer.registered(&key)?.trouble.clone())
    }

    fn registration(&self, pod: &Pod) -> Option<Registration> {
        let known = self.known.read();
        let Some((service, id)) = known.endpoints.registration(&pod.key()) else {
            // Whether it is found is nobody's question once no VirtualNode would have it registered: it does not stay what it
            // was when its containers were not ready.
            let memberships = known.translation.registrants.memberships(pod, &self.region, &self.id);
            let is_free = memberships.iter().all(|membership| membership.instance.is_none());
            let free = Registration { registered: Some(true), error: None };
            return (is_free && pod.containers_ready && pod.gate.is_some()).then_some(free);
        };
        let there = self.writer.registered(service);
        let registered = there.as_ref().and_then(|there| Some(there.instances.as_ref()?.contains(id)));
        Some(Registration { registered, error: there.and_then(|there| there.trouble.clone()) })
    }

    fn beside(&self, pod: &Pod) -> Vec<PodKey> {
        let known = self.known.read();
        let key = pod.key();
        let there = known.endpoints.registration(&key).and_then(|(service, _)| self.writer.registered(service));
        let found = there.as_ref().and_then(|there| there.instances.as_ref());
        let mut beside = known.endpoints.beside(&key);
        beside.retain(|id, _| found.is_some_and(|found| found.contains(*id)));
        beside.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cloudmap::fake::Fake,
        cluster::{GATE, Object, WORKLOAD_VARIABLE},
        model::Account,
        translate::{AllPublished, translate},
    };
    use mesh_api::{Mesh, VirtualGateway, VirtualNode};
    use serde_json::from_value;

    fn object<K: serde::de::DeserializeOwned + crate::cluster::kinds::Selecting>(
        kind: &str,
        name: &str,
        app: &str,
    ) -> Arc<Object<K>> {
        let object = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind,
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"podSelector": {"matchLabels": {"app": app}}, "meshRef": {"name": "m", "uid": "m"}}});
        Arc::new(Object::new(from_value(object).unwrap()))
    }

    #[tokio::test]
    async fn a_pod_that_nobody_would_register_waits_for_nothing() {
        let account = Account { partition: "aws".into(), region: "us-west-2".into(), account: "123456789012".into() };
        let mesh = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "spec": {},
            "metadata": {"name": "m", "uid": "m"}});
        let node = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "VirtualNode",
            "metadata": {"name": "front", "namespace": "shop", "uid": "front"},
            "spec": {"podSelector": {"matchLabels": {"app": "front"}}, "meshRef": {"name": "m", "uid": "m"},
                "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
                "serviceDiscovery": {"awsCloudMap": {"namespaceName": "n", "serviceName": "front"}}}});
        let snapshot = Snapshot {
            meshes: [Arc::new(Object::<Mesh>::new(from_value(mesh).unwrap()))].into_iter().collect(),
            virtual_nodes: [Arc::new(Object::<VirtualNode>::new(from_value(node).unwrap()))].into_iter().collect(),
            ..Snapshot::default()
        };
        let known = Known::default();
        known.write().translation = translate(&snapshot, &account, &AllPublished::new()).into();
        let id = ClusterId { uid: "here".into(), arn: None };
        let writer = Writer::new(Fake::new(&["n"]).client(), id.clone());
        let registrations = Registrations { known, writer, region: account.region, id };
        let pods = Pods::default();
        for (case, app, ready, gate, expected) in [
            ("of a VirtualNode", "front", "True", true, None),
            ("of none any more", "other", "True", true, Some(true)),
            ("of none, and broken", "other", "False", true, None),
            ("of none, or of one that is not known yet", "other", "True", false, None),
        ] {
            let mut conditions = vec![json!({"type": "ContainersReady", "status": ready})];
            conditions.extend(gate.then(|| json!({"type": GATE, "status": "False", "reason": "ContainersNotReady"})));
            let pod = json!({"metadata": {"name": "p", "namespace": "shop", "uid": "p", "labels": {"app": app}},
                "spec": {"containers": [], "readinessGates": [{"conditionType": GATE}]},
                "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "conditions": conditions}});
            pods.apply(from_value(pod).unwrap());
            let registration = registrations.registration(&pods.get("shop", "p").unwrap());
            assert_eq!(registration.and_then(|found| found.registered), expected, "{case}");
        }
    }

    #[test]
    fn an_envoy_is_what_its_pod_is() {
        let mesh = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "spec": {},
            "metadata": {"name": "m", "uid": "m"}});
        let snapshot = Snapshot {
            meshes: [Arc::new(Object::<Mesh>::new(from_value(mesh).unwrap()))].into_iter().collect(),
            virtual_nodes: [object::<VirtualNode>("VirtualNode", "front", "front")].into_iter().collect(),
            virtual_gateways: [object::<VirtualGateway>("VirtualGateway", "ingress", "ingress")].into_iter().collect(),
            ..Snapshot::default()
        };
        let account = Account { partition: "aws".into(), region: "us-west-2".into(), account: "123456789012".into() };
        let known = Known::default();
        known.write().translation = translate(&snapshot, &account, &AllPublished::new()).into();
        known.write().snapshot = snapshot.into();
        let pods = Pods::default();
        for (name, app) in [("front-1", "front"), ("ingress-1", "ingress"), ("other-1", "other")] {
            let pod = json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": app}}});
            pods.apply(from_value(pod).unwrap());
        }
        // Injected for what selects them no more, or for what is gone.
        for (name, injected_for) in [("moved-1", "front_shop"), ("lost-1", "gone_shop")] {
            let env = json!([{"name": WORKLOAD_VARIABLE, "value": format!("mesh/m/virtualNode/{injected_for}")}]);
            let pod = json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": "ingress"}},
                "spec": {"containers": [{"name": "envoy", "env": env}]}});
            pods.apply(from_value(pod).unwrap());
        }
        let workloads = Workloads { pods, known };
        let (node, gateway) = ("mesh/m/virtualNode/front_shop", "mesh/m/virtualGateway/ingress_shop");
        for (pod, uid, claimed, expected) in [
            ("front-1", "front-1", node, Ok(node)),
            ("ingress-1", "ingress-1", gateway, Ok(gateway)),
            ("ingress-1", "ingress-1", node, Err(tonic::Code::PermissionDenied)),
            ("front-1", "front-1", gateway, Err(tonic::Code::PermissionDenied)),
            ("moved-1", "moved-1", node, Ok(node)),
            ("moved-1", "moved-1", gateway, Ok(gateway)),
            ("lost-1", "lost-1", node, Err(tonic::Code::PermissionDenied)),
            ("lost-1", "lost-1", "mesh/m/virtualNode/gone_shop", Err(tonic::Code::PermissionDenied)),
            ("other-1", "other-1", gateway, Err(tonic::Code::PermissionDenied)),
            ("ingress-1", "another", gateway, Err(tonic::Code::Unavailable)),
            ("ingress-2", "ingress-2", gateway, Err(tonic::Code::Unavailable)),
        ] {
            let caller = Caller { namespace: "shop".to_owned(), pod: pod.to_owned(), uid: uid.to_owned() };
            let found = workloads.workload(&caller, claimed).map(|name| name.to_string());
            assert_eq!(found.as_deref().map_err(|status| status.code()), expected, "{pod} {uid} {claimed}");
        }
    }
}
