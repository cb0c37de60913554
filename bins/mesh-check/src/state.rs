//! Checks (group 05) what the clusters share in Cloud Map: pods as instances, and VirtualServices that are published. Pure.

use crate::finding::{Finding, checks};
use crate::scene::{Attributes, CloudMap, Namespace, Scene, Side, holds};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use mesh_api::{AwsCloudMapServiceDiscovery, MeshObject as _, VirtualNode};
use std::collections::{BTreeMap, BTreeSet};

checks! {
    NAMESPACE Error "XM0501" "the Cloud Map namespace of every VirtualNode exists";
    ONE Error "XM0502" "the controllers know which namespace is meant, where several have its name";
    VPC Warning "XM0503" "a namespace with DNS is seen in the clusters' VPCs";
    SERVICE Error "XM0504" "the Cloud Map service of every VirtualNode exists";
    REGISTERED Error "XM0505" "every ready pod of a VirtualNode is registered";
    ADDRESS Error "XM0506" "an instance has the address of its pod and the port of its VirtualNode";
    LEFT Warning "XM0507" "every instance of a cluster is a ready pod";
    GONE Warning "XM0508" "no instance is of a cluster that is no more";
    PUBLISHED Error "XM0509" "every VirtualService that another cluster calls is published";
    WHOLE Error "XM0510" "what is published is whole";
    AGREED Warning "XM0511" "clusters that publish one VirtualService publish the same";
    GATE Error "XM0512" "no pod whose containers are ready waits for its registration";
    QUOTA Warning "XM0513" "no Cloud Map service is near its quota of instances";
}

/// The readiness gate of registered pods.
const GATE_CONDITION: &str = "conditions.appmesh.k8s.aws/aws-cloudmap-healthy";

/// Seconds that a pod may be ready and not be registered.
const SETTLES_WITHIN: i64 = 30;

/// The most instances of a service, and how many of them are many. Source: Cloud Map quotas.
const MOST_INSTANCES: usize = 1000;
const MANY_INSTANCES: usize = 900;

/// The attributes of instances. Source: the controller's `model/endpoint.rs` and `cloudmap/exchange`.
pub const POD: &str = "k8s.io/pod";
const POD_NAMESPACE: &str = "k8s.io/namespace";
pub const CLUSTER: &str = "appmesh.k8s.aws/cluster";
pub const CLUSTER_ARN: &str = "appmesh.k8s.aws/clusterARN";
const IPV4: &str = "AWS_INSTANCE_IPV4";
const IPV6: &str = "AWS_INSTANCE_IPV6";
const PORT: &str = "AWS_INSTANCE_PORT";
const VIRTUAL_SERVICE: &str = "appmesh.k8s.aws/virtualService";
const PART: &str = "part";
const DIGEST: &str = "digest";

/// Everything that is wrong.
pub fn judge(scene: &Scene) -> Vec<Finding> {
    let mut found: Vec<Finding> = scene.sides.iter().flat_map(|side| gates(side, scene)).collect();
    let Some(cloud_map) = &scene.cloud_map else { return found };
    for side in &scene.sides {
        for node in &side.objects.nodes {
            found.extend(of_node(side, node, cloud_map, scene));
        }
        found.extend(left(side, cloud_map));
    }
    for namespace in &cloud_map.namespaces {
        found.extend(of_namespace(namespace, &cloud_map.gone));
    }
    found.extend(published(scene, cloud_map));
    found
}

/// Pods that the controller could not register.
fn gates(side: &Side, scene: &Scene) -> Vec<Finding> {
    let mut found = Vec::new();
    for pod in side.objects.nodes.iter().flat_map(|node| side.pods_of(node)) {
        let gated = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
        let gated = gated.into_iter().any(|gate| gate.condition_type == GATE_CONDITION);
        if !gated || holds(pod, GATE_CONDITION) || !is_settled(pod, scene) {
            continue;
        }
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let gate = conditions.into_iter().find(|condition| condition.type_ == GATE_CONDITION);
        let why = gate.and_then(|gate| gate.message.clone()).filter(|message| !message.is_empty());
        let why = why.unwrap_or_else(|| "the controller has not registered it".to_owned());
        let fix = "its message is Cloud Map's; kubectl -n appmesh-system logs deploy/appmesh-controller";
        found.push(GATE.found(side.object(pod), format!("it waits for its registration: {why}"), fix));
    }
    found
}

fn of_node(side: &Side, node: &VirtualNode, cloud_map: &CloudMap, scene: &Scene) -> Vec<Finding> {
    let Some(discovery) = discovery(node).filter(|_| node.metadata.deletion_timestamp.is_none()) else {
        return Vec::new();
    };
    let (object, name) = (side.object(node), &discovery.namespace_name);
    let namespace = match meant(side, name, cloud_map) {
        Ok(namespace) => namespace,
        Err(Meant::None) => {
            let fix = format!("cloudmap-ns -n --cluster {} --name {name}; or is it NAMESPACE of make all?", side.name);
            return vec![NAMESPACE.found(object, format!("there is no Cloud Map namespace {name}"), fix)];
        }
        Err(Meant::Several(ids)) => {
            let found =
                format!("several Cloud Map namespaces are named {name}, and the controller may not guess: {ids}");
            let fix = "make all -B tells it the id: cloudMapNamespaces of the chart";
            return vec![ONE.found(object, found, fix)];
        }
    };
    let mut found = Vec::new();
    let vpc = side.facts.as_ref().map(|facts| &facts.vpc);
    if let (Some(vpcs), Some(vpc)) = (&namespace.vpcs, vpc)
        && !vpcs.is_empty()
        && !vpcs.contains(vpc)
    {
        let said = format!("{} of {} is seen in {}, not in {vpc}", namespace.id, side.label(), vpcs.join(", "));
        found.push(VPC.found(
            format!("Cloud Map namespace {name}"),
            said,
            "share one of type HTTP: NAMESPACE_TYPE=http",
        ));
    }
    let Some(instances) = namespace.services.get(&discovery.service_name) else {
        let said = format!("namespace {name} has no service {}", discovery.service_name);
        let fix = "the controller makes it: does it run, and what does its log say of CreateService?";
        found.push(SERVICE.found(object, said, fix));
        return found;
    };
    let port = node.spec.listeners.iter().flatten().next().map(|listener| listener.port_mapping.port.to_string());
    for pod in side.pods_of(node).filter(|pod| is_settled(pod, scene)) {
        let of_pod = instances.values().filter(|instance| is_of(instance, pod, side));
        let of_pod: Vec<&Attributes> = of_pod.collect();
        if of_pod.is_empty() {
            let said = format!("it is ready, and no instance of service {}", discovery.service_name);
            let fix = "the controller registers it: does it run, and what does its log say of RegisterInstance?";
            found.push(REGISTERED.found(side.object(pod), said, fix));
        }
        let ips: Vec<&str> =
            pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten()).map(|ip| ip.ip.as_str()).collect();
        let wrong = |instance: &&Attributes| {
            let address = [IPV4, IPV6].iter().filter_map(|key| instance.get(*key));
            let elsewhere = address.into_iter().any(|address| !ips.contains(&address.as_str()));
            elsewhere || (instance.contains_key(PORT) && instance.get(PORT) != port.as_ref())
        };
        if let Some(instance) = of_pod.into_iter().find(wrong) {
            let at = [IPV4, IPV6, PORT].iter().filter_map(|key| instance.get(*key).map(String::as_str));
            let said = format!("it is registered at {}", at.collect::<Vec<_>>().join(" "));
            found.push(ADDRESS.found(side.object(pod), said, "delete the pod; the controller registers the next anew"));
        }
    }
    found
}

/// Instances of this cluster that no pod stands behind.
fn left(side: &Side, cloud_map: &CloudMap) -> Vec<Finding> {
    let (Some(uid), Some(pods)) = (&side.uid, &side.pods) else { return Vec::new() };
    let known: BTreeSet<(String, String)> =
        pods.iter().map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any())).collect();
    let mut found = Vec::new();
    for namespace in &cloud_map.namespaces {
        for (service, instances) in &namespace.services {
            let ours = instances.values().filter(|it| it.get(CLUSTER) == Some(uid));
            let names = ours.filter_map(|it| Some((it.get(POD_NAMESPACE)?.clone(), it.get(POD)?.clone())));
            let left: BTreeSet<String> =
                names.filter(|name| !known.contains(name)).map(|(space, name)| format!("{space}/{name}")).collect();
            if !left.is_empty() {
                let names = left.into_iter().collect::<Vec<_>>().join(", ");
                let said = format!("it has pods of {} that are no more: {names}", side.label());
                let fix = "the controller deregisters them: does it run?";
                found.push(LEFT.found(format!("Cloud Map service {service}.{}", namespace.name), said, fix));
            }
        }
    }
    found
}

fn of_namespace(namespace: &Namespace, gone: &BTreeSet<String>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut clusters: BTreeMap<&String, usize> = BTreeMap::new();
    for (service, instances) in &namespace.services {
        if instances.len() >= MANY_INSTANCES {
            let said = format!("it has {} instances of at most {MOST_INSTANCES}", instances.len());
            let fix = "give some of its VirtualNodes another serviceName: this quota cannot be raised";
            found.push(QUOTA.found(format!("Cloud Map service {service}.{}", namespace.name), said, fix));
        }
        for arn in instances.values().filter_map(|it| it.get(CLUSTER_ARN)).filter(|arn| gone.contains(*arn)) {
            *clusters.entry(arn).or_default() += 1;
        }
    }
    for (arn, count) in clusters {
        let cluster = arn.rsplit_once('/').map_or(arn.as_str(), |(_, name)| name);
        let said = format!("{count} instances are of cluster {cluster}, which is no more");
        let of_type = if namespace.vpcs.is_none() { " --type http" } else { "" };
        let name = &namespace.name;
        let fix = format!("cloudmap-ns -n --cluster CLUSTER --name {name}{of_type} --forget-cluster {cluster}");
        found.push(GONE.found(format!("Cloud Map namespace {}", namespace.name), said, fix));
    }
    found
}

/// The parts of a document: those there are, and of how many.
type Parts = (BTreeSet<String>, String);

fn published(scene: &Scene, cloud_map: &CloudMap) -> Vec<Finding> {
    let mut found = Vec::new();
    // By the ARN, then the cluster that publishes, then the digest.
    let mut documents: BTreeMap<&String, BTreeMap<&String, BTreeMap<&String, Parts>>> = BTreeMap::new();
    for instance in cloud_map.namespaces.iter().flat_map(|it| it.services.values()).flat_map(|it| it.values()) {
        let (Some(arn), Some(cluster)) = (instance.get(VIRTUAL_SERVICE), instance.get(CLUSTER)) else { continue };
        let (Some(digest), Some(part)) = (instance.get(DIGEST), instance.get(PART)) else { continue };
        let Some((index, count)) = part.split_once('/') else { continue };
        let of = documents.entry(arn).or_default().entry(cluster).or_default();
        let parts = of.entry(digest).or_insert_with(|| (BTreeSet::new(), count.to_owned()));
        parts.0.insert(index.to_owned());
    }
    for side in &scene.sides {
        let Some(uid) = &side.uid else { continue };
        for service in &side.objects.services {
            let Some(arn) = service.arn().map(str::to_owned) else { continue };
            let callers = scene.sides.iter().filter(|other| other.name != side.name && calls(other, &arn));
            let names: Vec<String> = callers.map(Side::label).collect();
            let by_cloud_map = side.objects.targets(service).into_iter().any(|node| discovery(node).is_some());
            let there = documents.get(&arn).is_some_and(|clusters| clusters.contains_key(uid));
            if !names.is_empty() && by_cloud_map && !there {
                let said = format!("{} calls it, and its cluster does not publish it", names.join(" and "));
                let fix = "the controller publishes it: does it run, and is the VirtualService READY?";
                found.push(PUBLISHED.found(side.object(service), said, fix));
            }
        }
    }
    for (arn, clusters) in documents {
        let object = format!("VirtualService {arn}");
        let whole = |(parts, count): &Parts| count.parse() == Ok(parts.len());
        for documents in clusters.values().filter(|documents| !documents.values().any(whole)) {
            let parts: usize = documents.values().map(|(parts, _)| parts.len()).sum();
            let said =
                format!("of what is published of it only {parts} instances are there, which are no whole document");
            found.push(WHOLE.found(&object, said, "its cluster's controller publishes it again: does it run?"));
        }
        let digests: BTreeSet<&&String> = clusters.values().flat_map(BTreeMap::keys).collect();
        if clusters.len() > 1 && digests.len() > 1 {
            let said = format!("{} clusters publish it, and not the same: callers hear the newest", clusters.len());
            found.push(AGREED.found(
                &object,
                said,
                "apply the same manifests in these clusters, or in one of them only",
            ));
        }
    }
    found
}

/// Whether pods of a cluster call a VirtualService by its ARN.
fn calls(side: &Side, arn: &str) -> bool {
    let backends = side.objects.nodes.iter().flat_map(|node| node.spec.backends.iter().flatten());
    backends.into_iter().any(|backend| backend.virtual_service.virtual_service_arn.as_deref() == Some(arn))
}

fn discovery(node: &VirtualNode) -> Option<&AwsCloudMapServiceDiscovery> {
    node.spec.service_discovery.as_ref()?.aws_cloud_map.as_ref()
}

/// Why it is not known which namespace is meant.
enum Meant {
    None,
    Several(String),
}

/// The namespace that a cluster's controller takes for one of that name.
fn meant<'a>(side: &Side, name: &str, cloud_map: &'a CloudMap) -> Result<&'a Namespace, Meant> {
    let named: Vec<&Namespace> = cloud_map.namespaces.iter().filter(|namespace| namespace.name == name).collect();
    let told = side.options("cloudmap-namespace").find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
    match (&named[..], told) {
        (_, Some(id)) => named.into_iter().find(|namespace| namespace.id == id).ok_or(Meant::None),
        ([], None) => Err(Meant::None),
        ([namespace], None) => Ok(namespace),
        (several, None) => {
            let ids: Vec<&str> = several.iter().map(|namespace| namespace.id.as_str()).collect();
            Err(Meant::Several(ids.join(", ")))
        }
    }
}

/// Whether an instance is a pod of this cluster. Amazon's controller names no cluster.
fn is_of(instance: &Attributes, pod: &Pod, side: &Side) -> bool {
    instance.get(POD) == Some(&pod.name_any())
        && instance.get(POD_NAMESPACE) == pod.metadata.namespace.as_ref()
        && instance.get(CLUSTER).is_none_or(|uid| side.uid.as_ref().is_none_or(|own| own == uid))
}

/// Whether a pod's containers have been ready for long enough.
fn is_settled(pod: &Pod, scene: &Scene) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.into_iter().filter(|it| it.type_ == "ContainersReady" && it.status == "True");
    ready.any(|condition| {
        let since = condition.last_transition_time.as_ref().map_or(0, |time| time.0.as_second());
        scene.now.as_second() - since > SETTLES_WITHIN
    })
}

#[cfg(test)]
mod tests;
