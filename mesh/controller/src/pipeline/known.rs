//! Shares what the pipeline knows with those who only read it.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use futures::{FutureExt as _, future::BoxFuture};
use serde_json::{Value, json};
use tonic::Status as GrpcStatus;

use super::endpoints::Endpoints;
use crate::{
    cloudmap::{Leaving, Writer, describe, service_key},
    cluster::{Pod, Pods, Snapshot},
    model::{ServiceKey, VirtualServiceKey, WorkloadName},
    status::{CloudMap, CloudMapResource, PodCounts, Registration, Removal},
    translate::{Translation, membership},
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

    /// The pods of a VirtualNode.
    pub fn count_pods(&self, namespace: &str, name: &str) -> PodCounts {
        self.read().endpoints.count(namespace, name)
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
        let pod = pod.filter(|pod| pod.metadata.uid.as_ref() == Some(&caller.uid));
        // The copy of the cluster may be a moment behind.
        let pod = pod.ok_or_else(|| GrpcStatus::unavailable("this pod is not known yet"))?;
        let known = self.known.read();
        let node = membership::virtual_node_of_pod(&known.snapshot, &caller.namespace, &caller.pod, pod.labels());
        let node = node.map_err(|error| GrpcStatus::permission_denied(format!("{error:#}")))?;
        let node =
            node.ok_or_else(|| GrpcStatus::permission_denied(format!("no VirtualNode selects pod {}", caller.pod)))?;
        let key = (caller.namespace.clone(), node.metadata.name.clone().unwrap_or_default());
        let own = known.translation.virtual_nodes.get(&key);
        let own = own.ok_or_else(|| GrpcStatus::unavailable("the mesh of this VirtualNode is not known yet"))?;
        if own.to_string() != claimed {
            return Err(GrpcStatus::permission_denied(format!("this pod is {own}, not {claimed}")));
        }
        Ok(own.clone())
    }
}

/// Tells status what Cloud Map has.
pub struct Registrations {
    /// What is to be registered.
    pub known: Known,
    /// What is registered.
    pub writer: Arc<Writer>,
}

impl Registrations {
    async fn remove(&self, resource: &CloudMapResource) -> anyhow::Result<Removal> {
        let keys: BTreeSet<ServiceKey> = match resource {
            CloudMapResource::Service(key) => [key.clone()].into(),
            // The objects that say where it was published may be gone already, so this looks in every namespace.
            CloudMapResource::Publication(arn) => {
                let key = |namespace| service_key(&VirtualServiceKey { namespace, arn: arn.to_string() });
                self.writer.namespaces().await?.into_iter().map(key).collect()
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
        self.writer.namespaces().map(|names| names.map_err(|error| describe(&error))).boxed()
    }

    fn remove<'a>(&'a self, resource: &'a CloudMapResource) -> BoxFuture<'a, Result<Removal, String>> {
        Self::remove(self, resource).map(|removed| removed.map_err(|error| describe(&error))).boxed()
    }

    fn registration(&self, pod: &Pod) -> Option<Registration> {
        let known = self.known.read();
        let (service, id) = known.endpoints.registration(&pod.key())?;
        let there = self.writer.registered(service);
        let registered = there.as_ref().and_then(|there| Some(there.instances.as_ref()?.contains(id)));
        Some(Registration { registered, error: there.and_then(|there| there.trouble.clone()) })
    }
}
