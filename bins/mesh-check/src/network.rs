//! Checks (group 03) the way between the clusters and to the controllers, as far as rules and endpoints tell. Pure.

use crate::finding::{Finding, checks};
use crate::scene::{Rule, Scene, Side, alive};
use common::aws::ec2::is_about_tcp;
use common::aws::network::Apart;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use mesh_api::{MeshObject as _, VirtualNode};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

checks! {
    LINK Error "XM0301" "two VPCs are joined by a peering or a transit gateway";
    GROUPS Warning "XM0302" "what joins two VPCs knows security groups, if rules name groups";
    RULE Error "XM0303" "the nodes of a callee admit its ports from those of a caller in the other cluster";
    PEERING Error "XM0304" "the peering that a rule goes through is active";
    WEBHOOK Error "XM0305" "the webhook's Service has a ready endpoint";
    XDS Error "XM0306" "the Service of Envoys' configuration has a ready endpoint";
    ADDRESSES Error "XM0307" "no two pods of the clusters have one address";
    FAMILIES Error "XM0308" "the pods of both clusters have addresses of one family";
}

/// Everything that is wrong.
pub fn judge(scene: &Scene) -> Vec<Finding> {
    let mut found: Vec<Finding> = scene.sides.iter().flat_map(endpoints).collect();
    found.extend(scene.apart.as_ref().and_then(link));
    if let [one, two, ..] = &scene.sides[..] {
        found.extend(addresses(one, two));
        for (caller, callee) in [(one, two), (two, one)] {
            // What nothing joins needs no rule yet.
            if scene.apart.as_ref().is_none_or(|apart| !apart.links.is_empty()) {
                found.extend(rules(caller, callee));
            }
        }
    }
    found
}

fn link(apart: &Apart) -> Option<Finding> {
    let [(one, _), (two, _)] = &apart.clusters;
    let object = format!("clusters {one} and {two}");
    if apart.links.is_empty() {
        let fix = "peer the VPCs, or attach both to a transit gateway, with routes to each other";
        return Some(LINK.found(object, format!("{apart}, and nothing joins them"), fix));
    }
    let blind = apart.links.iter().all(|link| !link.knows_groups);
    blind.then(|| {
        let found = format!("{}, which does not know security groups", apart.remark());
        GROUPS.found(object, found, "let it: aws ec2 modify-transit-gateway; or open the ports to addresses")
    })
}

/// Whether the controller's Services lead to somebody. One that does not run is another finding.
fn endpoints(side: &Side) -> Vec<Finding> {
    let (Some(controller), Some(slices)) = (side.running(), &side.around.slices) else { return Vec::new() };
    let (namespace, name) = (controller.namespace().unwrap_or_default(), controller.name_any());
    let mut found = Vec::new();
    for (check, end) in [(WEBHOOK, "webhook-service"), (XDS, "xds")] {
        let service = format!("{name}-{end}");
        let of = slices.iter().filter(|slice| slice.labels().get("kubernetes.io/service-name") == Some(&service));
        let mut endpoints = of.flat_map(|slice| &slice.endpoints);
        let ready = endpoints
            .any(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
        if !ready {
            let object = format!("Service {namespace}/{service} of {}", side.label());
            let fix = "does its selector fit the controller's pods? make all -B installs the chart again";
            found.push(check.found(object, "it has no ready endpoint", fix));
        }
    }
    found
}

fn addresses(one: &Side, two: &Side) -> Vec<Finding> {
    let of = |side: &Side| {
        let mut addresses: BTreeMap<IpAddr, String> = BTreeMap::new();
        for pod in side.pods.iter().flatten().filter(|pod| alive(pod) && !in_network_of_node(pod)) {
            addresses.extend(ips(pod).into_iter().map(|ip| (ip, side.object(pod))));
        }
        addresses
    };
    let (ones, twos) = (of(one), of(two));
    let object = format!("clusters {} and {}", one.name, two.name);
    let mut found = Vec::new();
    if let Some((ip, pod)) = ones.iter().find(|(ip, _)| twos.contains_key(ip)) {
        let said = format!("{pod} and {} both have the address {ip}", twos[ip]);
        found.push(ADDRESSES.found(&object, said, "give the VPCs, or the pods' subnets, blocks of their own"));
    }
    let families = |all: &BTreeMap<IpAddr, String>| all.keys().map(IpAddr::is_ipv4).collect::<BTreeSet<_>>();
    let (one, two) = (families(&ones), families(&twos));
    if !one.is_empty() && !two.is_empty() && one.is_disjoint(&two) {
        let said = "the pods of one have addresses of IPv4, those of the other of IPv6";
        found.push(FAMILIES.found(object, said, "clusters of one mesh need one family: make one of them anew"));
    }
    found
}

/// Whether the rules of a cluster let the other's callers in.
fn rules(caller: &Side, callee: &Side) -> Vec<Finding> {
    let (Some(from), Some(to), Some(rules)) = (&caller.groups, &callee.groups, &callee.rules) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut said = BTreeSet::new();
    for (callers, node) in calls(caller, callee) {
        let ports: BTreeSet<u16> = node.spec.listeners.iter().flatten().map(|it| it.port_mapping.port).collect();
        let pods: Vec<&Pod> = callee.pods_of(node).filter(|pod| is_of_node(pod)).collect();
        for port in ports {
            for pod in &pods {
                let Some(own) = groups(callee, pod, to) else { continue };
                for calling in &callers {
                    let Some(theirs) = groups(caller, calling, from) else { continue };
                    let admits = |rule: &&Rule| {
                        own.contains(&rule.group)
                            && is_about_tcp(port, &rule.protocol, rule.ports)
                            && lets_in(rule, theirs, &ips(calling))
                    };
                    let admitting: Vec<&Rule> = rules.iter().filter(admits).collect();
                    let (object, pair) = (format!("port {port} of {}", callee.label()), (port, own, theirs));
                    if admitting.iter().any(|rule| rule.broken.is_none()) || !said.insert(pair) {
                        continue;
                    }
                    if let Some(rule) = admitting.first() {
                        let state = rule.broken.as_deref().unwrap_or_default();
                        let said = format!("rule {} goes through a peering that is {state}", rule.id);
                        found.push(PEERING.found(object, said, "peer the VPCs again, then make all -B"));
                        continue;
                    }
                    let (own, theirs) = (words(own), words(theirs));
                    let said = format!(
                        "no rule of {own} admits {} in {theirs}, which calls {}",
                        caller.label(),
                        node.name_any()
                    );
                    let (to, from) = (&callee.name, &caller.name);
                    let fix =
                        format!("sg-open -n --cluster {to} --from-cluster {from} --port {port}, or PORTS of make all");
                    found.push(RULE.found(object, said, fix));
                }
            }
        }
    }
    found
}

/// The VirtualNodes of one cluster that pods of the other call by ARN, with these pods.
fn calls<'a>(caller: &'a Side, callee: &'a Side) -> Vec<(Vec<&'a Pod>, &'a VirtualNode)> {
    let mut calls = Vec::new();
    for node in &caller.objects.nodes {
        let pods: Vec<&Pod> = caller.pods_of(node).filter(|pod| is_of_node(pod)).collect();
        for backend in node.spec.backends.iter().flatten() {
            let Some(arn) = &backend.virtual_service.virtual_service_arn else { continue };
            let service = callee.objects.services.iter().find(|service| service.arn() == Some(arn));
            let targets = service.into_iter().flat_map(|service| callee.objects.targets(service));
            calls.extend(targets.map(|target| (pods.clone(), target)));
        }
    }
    calls
}

/// The groups of a pod: those of its node.
fn groups<'a>(side: &Side, pod: &Pod, of: &'a BTreeMap<String, BTreeSet<String>>) -> Option<&'a BTreeSet<String>> {
    let name = pod.spec.as_ref()?.node_name.as_ref()?;
    let node = side.nodes.iter().flatten().find(|node| node.name_any() == *name)?;
    let id = node.spec.as_ref()?.provider_id.as_ref()?;
    of.get(id.rsplit('/').next()?)
}

/// Whether a pod has its node's security groups, and not some of its own.
fn is_of_node(pod: &Pod) -> bool {
    !pod.annotations().contains_key("vpc.amazonaws.com/pod-eni")
}

fn in_network_of_node(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

fn ips(pod: &Pod) -> Vec<IpAddr> {
    let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    ips.filter_map(|ip| ip.ip.parse().ok()).collect()
}

fn lets_in(rule: &Rule, groups: &BTreeSet<String>, ips: &[IpAddr]) -> bool {
    let by_group = rule.source.as_ref().is_some_and(|source| groups.contains(source));
    by_group || rule.addresses.as_ref().is_some_and(|block| ips.iter().any(|ip| is_in(*ip, block)))
}

/// Whether an address is in a block, such as `10.0.0.0/8`.
fn is_in(ip: IpAddr, block: &str) -> bool {
    let Some((first, length)) = block.split_once('/') else { return false };
    let (Ok(first), Ok(length)) = (first.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let ((one, of_one), (other, of_other)) = (bits(ip), bits(first));
    let mask = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or_default();
    of_one == of_other && length <= of_one && one & mask == other & mask
}

fn words(groups: &BTreeSet<String>) -> String {
    groups.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
