//! Keeps where pods are reached: ready pods of this cluster, and instances that other clusters have registered.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    cluster::PodKey,
    model::{
        Attributes, Instances, ObjectKey, ServiceKey,
        endpoint::{MESH, VIRTUAL_NODE, pod_of},
    },
    status::PodCounts,
    translate::Membership,
};

/// What a pod is to the mesh.
#[derive(Default)]
struct Member {
    ready: bool,
    memberships: Vec<Membership>,
}

/// Where pods are reached.
#[derive(Default)]
pub struct Endpoints {
    members: HashMap<PodKey, Member>,
    counts: HashMap<ObjectKey, PodCounts>,
    local: HashMap<ServiceKey, Instances>,
    remote: HashMap<ServiceKey, Instances>,
}

/// The mesh and name of the VirtualNode that an instance is of.
fn node(attributes: &Attributes) -> [Option<&str>; 2] {
    [MESH, VIRTUAL_NODE].map(|key| attributes.get(key))
}

/// What a change has touched.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Cloud Map services whose instances of this cluster are others now.
    pub services: BTreeSet<ServiceKey>,
    /// VirtualNodes and VirtualGateways that have other numbers of pods now.
    pub owners: BTreeSet<ObjectKey>,
}

impl Endpoints {
    /// Replaces what is known of a pod; one that is gone is of nothing.
    pub fn set_pod(&mut self, key: &PodKey, ready: bool, memberships: Vec<Membership>, touched: &mut Touched) {
        let before = self.members.remove(key).unwrap_or_default();
        if before.ready == ready && before.memberships == memberships {
            self.members.insert(key.clone(), before);
            return;
        }
        for Membership { of, instance } in before.memberships {
            let counts = self.counts.entry((*of).clone()).or_default();
            counts.total -= 1;
            counts.ready -= usize::from(before.ready);
            touched.owners.insert((*of).clone());
            let Some((service, id, _)) = instance else { continue };
            let instances = self.local.entry((*service).clone()).or_default();
            // The address may be another pod's by now.
            if instances.get(&id).is_some_and(|attributes| pod_of(attributes).as_ref() == Some(key)) {
                instances.remove(&id);
                touched.services.insert((*service).clone());
            }
        }
        for Membership { of, instance } in &memberships {
            let counts = self.counts.entry((**of).clone()).or_default();
            counts.total += 1;
            counts.ready += usize::from(ready);
            touched.owners.insert((**of).clone());
            if let Some((service, id, attributes)) = instance {
                self.local.entry((**service).clone()).or_default().insert(id.clone(), attributes.clone());
                touched.services.insert((**service).clone());
            }
        }
        if !memberships.is_empty() {
            self.members.insert(key.clone(), Member { ready, memberships });
        }
    }

    /// Replaces what other clusters have registered in a service; `None` while that is not looked up.
    pub fn set_remote(&mut self, service: &ServiceKey, instances: Option<Instances>) {
        match instances {
            Some(instances) => self.remote.insert(service.clone(), instances),
            None => self.remote.remove(service),
        };
    }

    /// The instances that this cluster has in a service.
    pub fn local(&self, service: &ServiceKey) -> Instances {
        self.local.get(service).cloned().unwrap_or_default()
    }

    /// Whether it is known what other clusters have in a service.
    pub fn is_looked_up(&self, service: &ServiceKey) -> bool {
        self.remote.contains_key(service)
    }

    /// All instances of a service, of this cluster and of others.
    pub fn all(&self, service: &ServiceKey) -> Instances {
        let mut instances = self.remote.get(service).cloned().unwrap_or_default();
        instances.extend(self.local(service));
        instances
    }

    /// What a pod is registered as, if it is to be.
    pub fn registration(&self, pod: &PodKey) -> Option<(&ServiceKey, &str)> {
        let memberships = self.members.get(pod)?.memberships.iter();
        memberships
            .filter_map(|membership| membership.instance.as_ref())
            .map(|(key, id, _)| (&**key, id.as_str()))
            .next()
    }

    /// The other pods of the same VirtualNode that are to be registered beside it, by id.
    pub fn beside(&self, pod: &PodKey) -> BTreeMap<&str, PodKey> {
        let Some((service, own)) = self.registration(pod) else { return BTreeMap::new() };
        let instances = self.local.get(service).into_iter().flatten();
        let of_own = instances.clone().find(|(id, _)| *id == own).map(|(_, attributes)| node(attributes));
        let others = instances.filter(|(id, attributes)| *id != own && of_own == Some(node(attributes)));
        others.filter_map(|(id, attributes)| Some((id.as_str(), pod_of(attributes)?))).collect()
    }

    /// The pods of a VirtualNode or VirtualGateway.
    pub fn count(&self, of: &ObjectKey) -> PodCounts {
        self.counts.get(of).copied().unwrap_or_default()
    }

    /// How many endpoints each service has, for people who look for the reason of something.
    pub fn summary(&self) -> BTreeMap<String, (usize, usize)> {
        let mut summary: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (service, instances) in &self.local {
            summary.entry(service.to_string()).or_default().0 = instances.len();
        }
        for (service, instances) in &self.remote {
            summary.entry(service.to_string()).or_default().1 = instances.len();
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::endpoint::{NAMESPACE, POD};
    use std::sync::Arc;

    fn service() -> ServiceKey {
        ServiceKey { namespace: "shop.local".to_owned(), service: "stock".to_owned() }
    }

    fn pod(name: &str) -> PodKey {
        ("shop".to_owned(), name.to_owned())
    }

    fn stock() -> ObjectKey {
        ObjectKey { kind: "VirtualNode".into(), namespace: "shop".to_owned(), name: "stock".to_owned() }
    }

    fn member(name: &str, address: Option<&str>) -> Vec<Membership> {
        let attributes = Attributes::from([(NAMESPACE, "shop"), (POD, name)]);
        let instance = |address: &str| (Arc::new(service()), address.to_owned(), Arc::new(attributes.clone()));
        vec![Membership { of: Arc::new(stock()), instance: address.map(instance) }]
    }

    fn set(endpoints: &mut Endpoints, name: &str, address: Option<&str>) -> Touched {
        let mut touched = Touched::default();
        endpoints.set_pod(&pod(name), address.is_some(), member(name, address), &mut touched);
        touched
    }

    #[test]
    fn pods_come_and_go() {
        let mut endpoints = Endpoints::default();
        let owners = BTreeSet::from([stock()]);
        let touched = set(&mut endpoints, "a", None);
        assert_eq!(touched, Touched { services: BTreeSet::new(), owners: owners.clone() });
        assert_eq!(endpoints.count(&stock()), PodCounts { ready: 0, total: 1 });
        let touched = set(&mut endpoints, "a", Some("10.0.0.1"));
        assert_eq!(touched, Touched { services: [service()].into(), owners });
        assert_eq!(set(&mut endpoints, "a", Some("10.0.0.1")), Touched::default());
        assert_eq!(endpoints.count(&stock()), PodCounts { ready: 1, total: 1 });
        assert_eq!(endpoints.registration(&pod("a")), Some((&service(), "10.0.0.1")));

        let mut gone = Touched::default();
        endpoints.set_pod(&pod("a"), false, Vec::new(), &mut gone);
        assert_eq!(gone.services, [service()].into());
        assert!(endpoints.local(&service()).is_empty() && endpoints.registration(&pod("a")).is_none());
        assert_eq!(endpoints.count(&stock()), PodCounts { ready: 0, total: 0 });
    }

    #[test]
    fn pods_of_one_virtual_node_are_beside_each_other() {
        let mut endpoints = Endpoints::default();
        for (name, address, node) in [("a", "10.0.0.1", "red"), ("b", "10.0.0.2", "red"), ("c", "10.0.0.3", "blue")] {
            let mut members = member(name, Some(address));
            if let Some((.., attributes)) = &mut members[0].instance {
                *attributes = Arc::new(attributes.with(VIRTUAL_NODE, node));
            }
            endpoints.set_pod(&pod(name), true, members, &mut Touched::default());
        }
        assert_eq!(endpoints.beside(&pod("a")), BTreeMap::from([("10.0.0.2", pod("b"))]));
        assert_eq!(endpoints.beside(&pod("c")), BTreeMap::new());
        assert_eq!(endpoints.beside(&pod("nobody")), BTreeMap::new());
    }

    #[test]
    fn an_address_that_went_to_another_pod_stays() {
        let mut endpoints = Endpoints::default();
        set(&mut endpoints, "a", Some("10.0.0.1"));
        set(&mut endpoints, "b", Some("10.0.0.1"));
        endpoints.set_pod(&pod("a"), false, Vec::new(), &mut Touched::default());
        assert_eq!(pod_of(&endpoints.local(&service())["10.0.0.1"]), Some(pod("b")));
    }

    #[test]
    fn instances_of_other_clusters_are_added() {
        let mut endpoints = Endpoints::default();
        set(&mut endpoints, "a", Some("10.0.0.1"));
        assert!(!endpoints.is_looked_up(&service()));
        endpoints.set_remote(&service(), Some([("10.1.0.1".to_owned(), Arc::default())].into()));
        let ids: Vec<_> = endpoints.all(&service()).into_keys().collect();
        assert_eq!(
            (ids, endpoints.is_looked_up(&service())),
            (vec!["10.0.0.1".to_owned(), "10.1.0.1".to_owned()], true)
        );
        endpoints.set_remote(&service(), None);
        assert_eq!(endpoints.all(&service()).len(), 1);
    }
}
