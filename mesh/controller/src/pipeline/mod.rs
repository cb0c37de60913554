//! Joins the parts: what changes in the cluster or in Cloud Map is translated once, and what follows from it goes to
//! Envoys, Cloud Map and status.
//!
//! Two paths lead through here. A change of an object is translated with all others, and what it changes is passed on. A
//! change of a pod, or of an instance of another cluster, touches the endpoints of the Cloud Map services it is in, and
//! nothing else. Only workloads with a connected Envoy have a configuration, and only what they need of other clusters is
//! looked up.

mod endpoints;
mod known;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use known::{Known, Registrations, Workloads};

use crate::{
    cloudmap::{Answer, Lookup, Pollers, Want, Writer, publication, service_key},
    cluster::{Cluster, PodChange, PodKey},
    envoy::{self, Configuration, Resource, Resources},
    metrics::Metrics,
    model::{
        Account, ClusterId, Instances, ObjectKey, Proxy, ServiceKey, Upstream, VirtualServiceKey, WorkloadName,
        endpoint,
    },
    status::Status,
    translate::{AllPublished, Publication, Translated, translate},
    xds::{Cache, Snapshot},
};
use endpoints::Touched;

/// A burst of changes of objects is one translation: of those in this time, or in twice the time that the last one took.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Changes of pods, or answers, that are handled together at most.
const BATCH: usize = 1024;

/// What is joined.
pub struct Pipeline {
    /// The account whose mesh is served here.
    pub account: Account,
    /// This cluster.
    pub id: ClusterId,
    /// What all Envoys have in common.
    pub settings: envoy::Settings,
    /// The cluster's objects and pods.
    pub cluster: Cluster,
    /// What connected Envoys have.
    pub cache: Arc<Cache>,
    /// Writes to Cloud Map.
    pub writer: Arc<Writer>,
    /// Reads from Cloud Map.
    pub pollers: Pollers,
    /// Writes to Kubernetes.
    pub status: Arc<Status>,
    /// What is counted.
    pub metrics: Metrics,
    /// What is known, for those who only read it.
    pub known: Known,
    /// What was passed on.
    pub passed: Passed,
}

/// Where changes come from.
pub struct Inputs {
    /// Pods.
    pub pods: mpsc::UnboundedReceiver<PodChange>,
    /// What was looked up.
    pub answers: mpsc::Receiver<(Lookup, Answer)>,
    /// Cloud Map services in which something was registered.
    pub registered: mpsc::UnboundedReceiver<ServiceKey>,
    /// Whether this replica leads.
    pub leader: watch::Receiver<bool>,
}

/// What was passed on, so that only what differs is passed on again.
#[derive(Default)]
pub struct Passed {
    /// How long the last translation took.
    took: Duration,
    published: AllPublished,
    /// The services of this cluster's own pods.
    services: BTreeSet<ServiceKey>,
    publications: BTreeMap<ServiceKey, Publication>,
    foreign: BTreeSet<ServiceKey>,
    connected: BTreeSet<WorkloadName>,
    leads: bool,
    lookups: BTreeSet<Lookup>,
    /// Whether connected Envoys need one of them.
    urgent: bool,
    configurations: HashMap<WorkloadName, (Arc<Proxy>, Arc<Configuration>)>,
    shared: envoy::Shared,
    /// Encoded endpoints, by service: several workloads call the same upstream.
    endpoints: HashMap<ServiceKey, Vec<(String, Upstream, Arc<Resource>)>>,
}

/// The Cloud Map services that hold a publication.
fn places(publication: &Publication) -> impl Iterator<Item = ServiceKey> {
    let arn = publication.arn.to_string();
    let namespaces = publication.namespaces.iter().cloned();
    namespaces.map(move |namespace| service_key(&VirtualServiceKey { namespace, arn: arn.clone() }))
}

impl Pipeline {
    /// Passes on everything that there is, so that the first Envoy that connects finds its workload known.
    pub fn prepare(&mut self) {
        self.objects_changed(StdInstant::now());
    }

    /// Passes on what changes, until `stop`.
    pub async fn run(mut self, mut inputs: Inputs, stop: CancellationToken) {
        let (mut objects, mut connections) = (self.cluster.changed(), self.cache.connections());
        // Something may have changed since it was prepared.
        objects.mark_changed();
        self.passed.leads = *inputs.leader.borrow_and_update();
        self.sweep();
        let work = async {
            let (mut pods, mut answers, mut registered) = (Vec::new(), Vec::new(), Vec::new());
            // When a burst of changes of objects began.
            let mut burst: Option<Instant> = None;
            loop {
                let due = burst.unwrap_or_else(Instant::now) + DEBOUNCE.max(self.passed.took * 2);
                tokio::select! {
                    biased;
                    alive = connections.changed() => {
                        if alive.is_err() { return }
                        self.connections_changed();
                    }
                    // A sender that is gone leads no more, and ends with this.
                    Ok(()) = inputs.leader.changed() => {
                        self.passed.leads = *inputs.leader.borrow_and_update();
                        self.follow();
                        self.sweep();
                    }
                    count = inputs.pods.recv_many(&mut pods, BATCH) => {
                        if count == 0 { return }
                        self.pods_changed(pods.drain(..).map(|change| change.key).collect());
                    }
                    count = inputs.answers.recv_many(&mut answers, BATCH) => {
                        if count == 0 { return }
                        self.answered(answers.drain(..));
                    }
                    count = inputs.registered.recv_many(&mut registered, BATCH) => {
                        if count == 0 { return }
                        self.registered(registered.drain(..).collect());
                    }
                    alive = objects.changed(), if burst.is_none() => {
                        if alive.is_err() { return }
                        burst = Some(Instant::now());
                    }
                    () = sleep_until(due), if burst.is_some() => {
                        objects.mark_unchanged();
                        burst.take().into_iter().for_each(|began| self.objects_changed(began.into_std()));
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// Translates the cluster and passes on what differs.
    fn objects_changed(&mut self, changed: StdInstant) {
        let started = StdInstant::now();
        let snapshot = Arc::new(self.cluster.snapshot());
        let translation = Arc::new(translate(&snapshot, &self.account, &self.passed.published));
        self.passed.took = started.elapsed();
        self.metrics.translations.observe(self.passed.took.as_secs_f64());
        let before = {
            let mut known = self.known.write();
            known.snapshot = snapshot.clone();
            std::mem::replace(&mut known.translation, translation.clone())
        };
        let services = translation.registrants.services();
        let before_services = std::mem::replace(&mut self.passed.services, services.clone());
        let other_nodes = before.registrants != translation.registrants;
        if other_nodes {
            self.pods_changed(self.cluster.pods.all().iter().map(|pod| pod.key()).collect());
        }
        // After the pods, so that nothing looks as if it had none, and what moves to another service stays where it was
        // until it is there.
        let new = services.iter().filter(|service| other_nodes || !before_services.contains(*service));
        let new = new.map(|service| (service.clone(), Some(self.want(service))));
        self.writer.set(new.chain(before_services.difference(&services).map(|gone| (gone.clone(), None))));
        self.publish(&translation.publications);
        // After the writer, which status asks to remove what is wanted no more.
        self.status.objects_changed(snapshot, translation);
        self.follow();
        self.configure(self.passed.connected.clone(), changed);
        self.passed.shared.forget();
    }

    /// Passes on the pods that have come, changed or gone.
    fn pods_changed(&mut self, pods: BTreeSet<PodKey>) {
        let changed = StdInstant::now();
        let mut touched = Touched::default();
        {
            let mut known = self.known.write();
            let registrants = known.translation.registrants.clone();
            for key in &pods {
                let pod = self.cluster.pods.get(&key.0, &key.1);
                let (ready, memberships) = pod.as_ref().map_or_else(Default::default, |pod| {
                    let memberships = registrants.memberships(pod, &self.account.region, &self.id);
                    (!pod.addresses().is_empty(), memberships)
                });
                known.endpoints.set_pod(key, ready, memberships, &mut touched);
            }
        }
        let registered = touched.services.intersection(&self.passed.services);
        self.writer.set(registered.map(|service| (service.clone(), Some(self.want(service)))));
        if self.passed.leads && self.call_elsewhere(&touched.owners) {
            self.follow();
        }
        self.status.pods_changed(touched.owners);
        self.status.gates_changed(pods);
        self.endpoints_changed(&touched.services, changed);
    }

    /// Takes in what was looked up.
    fn answered(&mut self, answers: impl Iterator<Item = (Lookup, Answer)>) {
        let changed = StdInstant::now();
        let (mut services, mut published) = (BTreeSet::new(), false);
        for (lookup, answer) in answers.filter(|(lookup, _)| self.passed.lookups.contains(lookup)) {
            match (lookup, answer) {
                (Lookup::Instances(key), Answer::Instances(instances)) => {
                    self.known.write().endpoints.set_remote(&key, Some(instances));
                    services.insert(key);
                }
                (Lookup::Published(key), Answer::Published(found)) => {
                    published |= self.passed.published.insert(key, found.clone()) != Some(found);
                }
                (Lookup::Instances(_), Answer::Published(_)) | (Lookup::Published(_), Answer::Instances(_)) => {}
            }
        }
        if published {
            self.objects_changed(changed);
        }
        self.endpoints_changed(&services, changed);
    }

    /// Passes on that something was registered, and notices services that this cluster shares with others.
    fn registered(&mut self, services: BTreeSet<ServiceKey>) {
        let pods: BTreeSet<PodKey> = {
            let known = self.known.read();
            let instances = services.iter().flat_map(|service| known.endpoints.local(service).into_values());
            instances.filter_map(|attributes| endpoint::pod_of(&attributes)).collect()
        };
        self.status.gates_changed(pods);
        let published = services.iter().filter_map(|service| self.passed.publications.get(service));
        self.status.publications_changed(published.map(|publication| publication.object.clone()));
        if self.writer.foreign() != self.passed.foreign {
            self.follow();
        }
    }

    /// Configures workloads whose first Envoy has connected, and forgets those whose last has gone. One that has gone and
    /// come again since has nothing in the cache any more, though it was connected before too.
    fn connections_changed(&mut self) {
        let new = self.cache.waiting();
        self.passed.connected = self.cache.connected();
        let Passed { connected, configurations, shared, .. } = &mut self.passed;
        configurations.retain(|name, _| connected.contains(name));
        shared.forget();
        self.follow();
        self.configure(new, StdInstant::now());
    }

    /// What Cloud Map is to hold of this cluster's pods in a service.
    fn want(&self, service: &ServiceKey) -> Want {
        let known = self.known.read();
        let nodes = known.translation.registrants.nodes_of(service);
        Want { instances: known.endpoints.local(service), nodes, ..Want::default() }
    }

    /// Has Cloud Map hold what other clusters may read.
    fn publish(&mut self, publications: &[Publication]) {
        let mut wanted = BTreeMap::new();
        for publication in publications {
            wanted.extend(places(publication).map(|key| (key, publication.clone())));
        }
        let gone = self.passed.publications.keys().filter(|key| !wanted.contains_key(*key));
        let changed = wanted.iter().filter(|(key, new)| self.passed.publications.get(*key) != Some(*new));
        let changed = changed.map(|(key, Publication { arn, routing, .. })| {
            let instances = publication(&arn.to_string(), &self.id, routing);
            let after = routing.services().cloned().collect();
            (key.clone(), Some(Want { api_only: true, instances, after, ..Want::default() }))
        });
        self.writer.set(gone.map(|key| (key.clone(), None)).chain(changed));
        self.passed.publications = wanted;
    }

    /// As the leader, has removed what earlier ones have left of VirtualServices that are published elsewhere now, or no
    /// more.
    fn sweep(&self) {
        if !self.passed.leads {
            return;
        }
        let translation = self.known.read().translation.clone();
        let services = translation.reports.iter().filter(|(object, _)| object.kind == "VirtualService");
        let arns: BTreeSet<String> =
            services.filter_map(|(_, report)| Some(report.arn.as_ref()?.to_string())).collect();
        if !arns.is_empty() {
            let writer = self.writer.clone();
            tokio::spawn(async move { writer.sweep(&arns).await });
        }
    }

    /// Whether one of these VirtualNodes and VirtualGateways calls a VirtualService of another cluster.
    fn call_elsewhere(&self, owners: &BTreeSet<ObjectKey>) -> bool {
        let translation = &self.known.read().translation;
        let workloads = owners.iter().filter_map(|owner| translation.workloads.get(translation.names.get(owner)?));
        workloads.into_iter().any(|translated| !translated.published.is_empty())
    }

    /// Looks up what connected workloads need of other clusters, and nothing else. The leader reports of all that have
    /// pods whether somebody publishes what they call, though their Envoys may be connected to another replica.
    fn follow(&mut self) {
        let translation = self.known.read().translation.clone();
        self.passed.foreign = self.writer.foreign();
        let Passed { connected, services, foreign, .. } = &self.passed;
        let mut lookups = BTreeSet::new();
        for translated in connected.iter().filter_map(|name| translation.workloads.get(name)) {
            lookups.extend(translated.published.iter().cloned().map(Lookup::Published));
            // What this cluster has registered itself is known here.
            let elsewhere = translated.services.iter().filter(|key| !services.contains(*key) || foreign.contains(*key));
            lookups.extend(elsewhere.cloned().map(Lookup::Instances));
        }
        let urgent = !lookups.is_empty();
        if self.passed.leads {
            let known = self.known.read();
            let with_pods = translation.names.iter().filter(|(owner, _)| known.endpoints.count(owner).total > 0);
            let workloads = with_pods.filter_map(|(_, workload)| translation.workloads.get(workload));
            lookups
                .extend(workloads.flat_map(|translated| translated.published.iter().cloned().map(Lookup::Published)));
        }
        if (&lookups, urgent) == (&self.passed.lookups, self.passed.urgent) {
            return;
        }
        let mut forgotten = BTreeSet::new();
        for ended in self.passed.lookups.difference(&lookups) {
            match ended {
                Lookup::Instances(key) => {
                    self.known.write().endpoints.set_remote(key, None);
                    forgotten.insert(key.clone());
                }
                Lookup::Published(key) => drop(self.passed.published.remove(key)),
            }
        }
        self.pollers.follow(&lookups, urgent);
        (self.passed.lookups, self.passed.urgent) = (lookups, urgent);
        self.endpoints_changed(&forgotten, StdInstant::now());
    }

    /// Configures the workloads that call one of these services.
    fn endpoints_changed(&mut self, services: &BTreeSet<ServiceKey>, changed: StdInstant) {
        if services.is_empty() {
            return;
        }
        self.passed.endpoints.retain(|key, _| !services.contains(key));
        let translation = self.known.read().translation.clone();
        let calls = |name: &&WorkloadName| {
            translation.workloads.get(*name).is_some_and(|translated| !translated.services.is_disjoint(services))
        };
        let callers = self.passed.connected.iter().filter(calls).cloned().collect();
        self.configure(callers, changed);
    }

    /// Gives connected workloads what they are to have now. One that needs something which has not been looked up yet
    /// keeps what it has.
    fn configure(&mut self, workloads: BTreeSet<WorkloadName>, changed: StdInstant) {
        let known = self.known.clone();
        let known = known.read();
        for name in workloads {
            let Some(Translated { workload, published, services }) = known.translation.workloads.get(&name) else {
                continue;
            };
            let is_known = |key: &ServiceKey| {
                let is_sought = || self.passed.lookups.contains(&Lookup::Instances(key.clone()));
                known.endpoints.is_looked_up(key) || (self.passed.services.contains(key) && !is_sought())
            };
            if !published.iter().all(|key| self.passed.published.contains_key(key)) || !services.iter().all(is_known) {
                continue;
            }
            let configuration = self.passed.configuration(&name, workload, self.settings);
            let upstreams = configuration.upstreams.iter();
            let endpoints: Resources = upstreams
                .map(|(cluster, upstream)| {
                    let all = |service: &ServiceKey| known.endpoints.all(service);
                    (cluster.clone(), self.passed.endpoints(cluster, upstream, all))
                })
                .collect();
            let snapshot = Snapshot {
                secrets: configuration.secrets.clone(),
                clusters: configuration.clusters.clone(),
                endpoints,
                listeners: configuration.listeners.clone(),
                routes: configuration.routes.clone(),
                refusal: workload.refusal(),
                changed,
            };
            self.cache.set(&name, Arc::new(snapshot));
        }
    }
}

impl Passed {
    /// The configuration of a workload, encoded if it is another than before.
    fn configuration(
        &mut self,
        name: &WorkloadName,
        workload: &Arc<Proxy>,
        settings: envoy::Settings,
    ) -> Arc<Configuration> {
        match self.configurations.get(name) {
            Some((before, configuration)) if before == workload => configuration.clone(),
            _ => {
                let mut configuration = envoy::encode(workload, settings);
                let Configuration { secrets, clusters, .. } = &mut configuration;
                for resources in [secrets, clusters] {
                    self.shared.share(resources);
                }
                let configuration = Arc::new(configuration);
                self.configurations.insert(name.clone(), (workload.clone(), configuration.clone()));
                configuration
            }
        }
    }

    /// The endpoints of a cluster, encoded if nobody else has asked for the same since they changed.
    fn endpoints(
        &mut self,
        cluster: &str,
        upstream: &Upstream,
        instances: impl Fn(&ServiceKey) -> Instances,
    ) -> Arc<Resource> {
        let Some(discovery) = upstream.discovery.cloud_map() else {
            return envoy::endpoint::encode(cluster, upstream, &Instances::new());
        };
        let encoded = self.endpoints.entry(discovery.key.clone()).or_default();
        if let Some((_, _, resource)) = encoded.iter().find(|(name, of, _)| name == cluster && of == upstream) {
            return resource.clone();
        }
        let resource = envoy::endpoint::encode(cluster, upstream, &instances(&discovery.key));
        encoded.push((cluster.to_owned(), upstream.clone(), resource.clone()));
        resource
    }
}
