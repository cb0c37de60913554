//! Checks (group 01) whether two clusters can be joined, before anything is made. Pure.

use crate::finding::{Finding, checks};
use crate::world::{ClusterView, Fault, Kubernetes, Lookup, World};
use common::cluster::Cluster;

checks! {
    AWS Error "XM0101" "AWS answers, with these credentials";
    EXISTS Error "XM0102" "the cluster exists";
    ACTIVE Error "XM0103" "the cluster is active";
    TWO Error "XM0104" "the clusters are two";
    ACCOUNT Error "XM0105" "the clusters are in one account and region";
    VPC Error "XM0106" "the clusters are in one VPC, if they share its DNS";
    REACHABLE Error "XM0107" "the Kubernetes API answers, and knows the caller";
    RIGHTS Error "XM0108" "the caller may do in the cluster what is needed";
    VERSION Error "XM0109" "the version of Kubernetes is supported";
    NODES Warning "XM0110" "the cluster has ready nodes";
    HELM Error "XM0111" "helm is there, and new enough";
    PROGRAM Error "XM0112" "the images' programs are there, for Linux";
    ARCHITECTURE Error "XM0113" "nodes can run the images";
    NAMESPACE Warning "XM0114" "the namespaces are free, or ours";
    AGENT Error "XM0115" "the agent of EKS Pod Identity is there, if pods get their role by it";
}

/// The oldest minor version of Kubernetes 1 that the controller's chart supports: it needs native sidecars.
const OLDEST: u32 = 30;

/// Everything that is wrong.
pub fn judge(world: &World) -> Vec<Finding> {
    let mut found: Vec<Finding> = world.clusters.iter().flat_map(cluster).collect();
    found.extend(world.clusters.iter().filter_map(agent));
    found.extend(pair(world));
    found.extend(helm(world));
    found.extend(programs(world));
    found
}

fn cluster(view: &ClusterView) -> Vec<Finding> {
    let name = format!("cluster {}", view.name);
    let kubernetes = match &view.lookup {
        Lookup::Refused(fault) => {
            return vec![AWS.found(name, &fault.reason, fault.fix("see aws sts get-caller-identity"))];
        }
        Lookup::Absent(fault) => return vec![EXISTS.found(name, &fault.reason, fault.fix("aws eks list-clusters"))],
        Lookup::Inactive(fault) => {
            return vec![ACTIVE.found(name, &fault.reason, fault.fix("aws eks describe-cluster"))];
        }
        Lookup::Active(_, Err(fault)) => {
            let fix = "is its endpoint open to this machine, and has this caller an access entry?";
            return vec![REACHABLE.found(name, &fault.reason, fault.fix(fix))];
        }
        Lookup::Active(_, Ok(kubernetes)) => kubernetes,
    };
    let mut found = Vec::new();
    let minor = kubernetes.version.split('.').nth(1).and_then(|minor| minor.trim_end_matches('+').parse::<u32>().ok());
    if minor.is_some_and(|minor| minor < OLDEST) {
        let old = format!("Kubernetes {} is older than 1.{OLDEST}", kubernetes.version);
        found.push(VERSION.found(&name, old, "aws eks update-cluster-version"));
    }
    if !kubernetes.denied.is_empty() {
        let denied = format!("the caller may not {}", kubernetes.denied.join(", "));
        let fix = "associate AmazonEKSClusterAdminPolicy with the caller's access entry";
        found.push(RIGHTS.found(&name, denied, fix));
    }
    match &kubernetes.nodes {
        Err(fault) => found.push(NODES.found(&name, &fault.reason, fault.fix("allow the caller to list nodes"))),
        Ok(nodes) if nodes.is_empty() => {
            found.push(NODES.found(&name, "no node is ready", "kubectl get nodes; the pods wait until there is one"));
        }
        Ok(_) => {}
    }
    for (namespace, maker) in &kubernetes.taken {
        let fix = "its objects are used, and nothing of it is removed; or choose another name";
        found.push(NAMESPACE.found(format!("namespace {namespace} of {name}"), format!("made by {maker}"), fix));
    }
    found
}

/// Of a cluster that can be used: all else is said already.
fn agent(view: &ClusterView) -> Option<Finding> {
    active(view)?;
    let (found, fix) = match view.agent.as_ref()? {
        Ok(agent) => agent.problem(&view.name)?,
        Err(fault) => (fault.reason.clone(), fault.fix("aws eks describe-addon").to_owned()),
    };
    Some(AGENT.found(format!("cluster {}", view.name), found, fix))
}

fn pair(world: &World) -> Vec<Finding> {
    let [one, two] = &world.clusters[..] else { return Vec::new() };
    let both = format!("clusters {} and {}", one.name, two.name);
    if one.name == two.name {
        return vec![TWO.found(format!("cluster {}", one.name), "it is named twice", "name two clusters")];
    }
    let (Some(one), Some(two)) = (active(one), active(two)) else { return Vec::new() };
    let place = |cluster: &Cluster| format!("{} {}", cluster.account, cluster.region);
    if place(one) != place(two) {
        let apart = format!("one is in {}, the other in {}", place(one), place(two));
        return vec![ACCOUNT.found(both, apart, "a security group rule and a private namespace join one region only")];
    }
    if one.vpc != two.vpc && world.private_dns {
        let apart = format!("one is in {}, the other in {}", one.vpc, two.vpc);
        let fix = "a private DNS namespace serves one VPC: share an HTTP one, NAMESPACE_TYPE=http";
        return vec![VPC.found(both, apart, fix)];
    }
    Vec::new()
}

fn helm(world: &World) -> Vec<Finding> {
    let fix = "install Helm 3.14 or newer: https://helm.sh/docs/intro/install";
    match &world.helm {
        None => Vec::new(),
        Some(Err(fault)) => vec![HELM.found("helm", &fault.reason, fix)],
        Some(Ok(version)) => {
            let old = common::helm::version(version).is_none_or(|found| found < common::helm::OLDEST);
            old.then(|| HELM.found("helm", format!("{} is too old", version.trim()), fix)).into_iter().collect()
        }
    }
}

fn programs(world: &World) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, read) in &world.programs {
        let object = format!("program {path}");
        let architecture = match read {
            Ok(architecture) => architecture,
            Err(fault) => {
                found.push(PROGRAM.found(object, &fault.reason, "make build; or STATIC=FOLDER, if it is elsewhere"));
                continue;
            }
        };
        for view in &world.clusters {
            let Some(nodes) = kubernetes(view).and_then(|it| it.nodes.as_ref().ok()) else { continue };
            if !nodes.is_empty() && !nodes.contains(architecture) {
                let words = nodes.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let other = format!("it is for {architecture}, the nodes of cluster {} are {words}", view.name);
                found.push(ARCHITECTURE.found(&object, other, format!("build it for {words}, and name STATIC=FOLDER")));
            }
        }
    }
    found
}

fn active(view: &ClusterView) -> Option<&Cluster> {
    if let Lookup::Active(cluster, _) = &view.lookup { Some(cluster) } else { None }
}

fn kubernetes(view: &ClusterView) -> Option<&Kubernetes> {
    if let Lookup::Active(_, Ok(kubernetes)) = &view.lookup { Some(kubernetes.as_ref()) } else { None }
}

impl Fault {
    fn fix<'a>(&'a self, otherwise: &'a str) -> &'a str {
        self.hint.as_deref().unwrap_or(otherwise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Check;
    use pod_role::Agent;
    use std::collections::BTreeSet;

    fn kubernetes() -> Kubernetes {
        Kubernetes {
            version: "1.35".into(),
            denied: Vec::new(),
            nodes: Ok(BTreeSet::from(["amd64".to_owned()])),
            taken: Vec::new(),
            mesh: Ok(None),
        }
    }

    fn view(name: &str, vpc: &str, kubernetes: Result<Kubernetes, Fault>) -> ClusterView {
        let (account, region) = ("1".to_owned(), "r".to_owned());
        let cluster = Cluster { name: name.into(), account, region, vpc: vpc.into(), ..Cluster::default() };
        ClusterView {
            agent: Some(Ok(Agent::There)),
            ..look(name, Lookup::Active(Box::new(cluster), kubernetes.map(Box::new)))
        }
    }

    fn fault(reason: &str) -> Fault {
        Fault { reason: reason.into(), hint: None }
    }

    fn world() -> World {
        World {
            clusters: vec![view("a", "vpc-1", Ok(kubernetes())), view("b", "vpc-1", Ok(kubernetes()))],
            helm: Some(Ok("v3.14.0".into())),
            private_dns: true,
            programs: vec![("feapp".into(), Ok("amd64".into()))],
        }
    }

    fn look(name: &str, lookup: Lookup) -> ClusterView {
        ClusterView { name: name.into(), lookup, agent: None }
    }

    /// One world for each check, with what is wrong in it, and what it says.
    fn worlds() -> Vec<(Check, World, &'static str)> {
        let with = |view: ClusterView| World { clusters: vec![view, world().clusters.remove(1)], ..world() };
        let here = |change: fn(&mut Kubernetes)| {
            let mut kubernetes = kubernetes();
            change(&mut kubernetes);
            with(view("a", "vpc-1", Ok(kubernetes)))
        };
        let mut elsewhere = view("a", "vpc-1", Ok(kubernetes()));
        if let Lookup::Active(cluster, _) = &mut elsewhere.lookup {
            cluster.region = "s".into();
        }
        vec![
            (AWS, with(look("a", Lookup::Refused(fault("denied")))), "cluster a: denied"),
            (EXISTS, with(look("a", Lookup::Absent(fault("there is none")))), "cluster a: there is none"),
            (ACTIVE, with(look("a", Lookup::Inactive(fault("it is CREATING")))), "cluster a: it is CREATING"),
            (TWO, with(view("b", "vpc-1", Ok(kubernetes()))), "cluster b: it is named twice"),
            (ACCOUNT, with(elsewhere), "clusters a and b: one is in 1 s, the other in 1 r"),
            (VPC, with(view("a", "vpc-2", Ok(kubernetes()))), "clusters a and b: one is in vpc-2, the other in vpc-1"),
            (REACHABLE, with(view("a", "vpc-1", Err(fault("timed out")))), "cluster a: timed out"),
            (
                RIGHTS,
                here(|it| it.denied = vec!["patch secrets".into()]),
                "cluster a: the caller may not patch secrets",
            ),
            (VERSION, here(|it| it.version = "1.29+".into()), "cluster a: Kubernetes 1.29+ is older than 1.30"),
            (NODES, here(|it| it.nodes = Ok(BTreeSet::new())), "cluster a: no node is ready"),
            (HELM, World { helm: Some(Ok("v3.13.9".into())), ..world() }, "helm: v3.13.9 is too old"),
            (PROGRAM, World { programs: vec![("f".into(), Err(fault("no ELF")))], ..world() }, "program f: no ELF"),
            (
                ARCHITECTURE,
                World { programs: vec![("f".into(), Ok("arm64".into()))], ..world() },
                "program f: it is for arm64, the nodes of cluster a are amd64",
            ),
            (
                NAMESPACE,
                here(|it| it.taken = vec![("k8multi".into(), "kubectl".into())]),
                "namespace k8multi of cluster a: made by kubectl",
            ),
            (
                AGENT,
                with(ClusterView { agent: Some(Ok(Agent::Absent)), ..view("a", "vpc-1", Ok(kubernetes())) }),
                "cluster a: cluster a has no add-on eks-pod-identity-agent: pods get no credentials until it has one: \
                 aws eks create-addon --cluster-name a --addon-name eks-pod-identity-agent",
            ),
        ]
    }

    #[test]
    fn every_check_finds_what_it_is_for_and_nothing_else_does() {
        let worlds = worlds();
        assert!(worlds.iter().map(|(check, ..)| check).eq(CHECKS), "a world for each check");
        for (check, world, text) in &worlds {
            let found = judge(world);
            let codes: BTreeSet<&str> = found.iter().map(|finding| finding.code.as_str()).collect();
            assert_eq!(codes, BTreeSet::from([check.code]), "{found:?}");
            let words = found[0].to_string();
            assert!(words.starts_with(&format!("{} {text}", check.code)), "{words}");
            assert_eq!(found[0].severity, check.severity);
        }
        assert_eq!(judge(&world()), Vec::new());
    }

    #[test]
    fn it_does_not_stop_at_the_first() {
        let clusters =
            vec![look("a", Lookup::Absent(fault("there is none"))), view("b", "vpc-1", Err(fault("timed out")))];
        let world = World { clusters, helm: Some(Err(fault("not found"))), ..world() };
        let codes: Vec<String> = judge(&world).into_iter().map(|finding| finding.code).collect();
        assert_eq!(codes, ["XM0102", "XM0107", "XM0111"]);
    }

    #[test]
    fn an_http_namespace_serves_two_vpcs() {
        let clusters = vec![view("a", "vpc-1", Ok(kubernetes())), view("b", "vpc-2", Ok(kubernetes()))];
        assert_eq!(judge(&World { clusters, private_dns: false, ..world() }), Vec::new());
    }

    #[test]
    fn one_cluster_alone_is_no_pair() {
        let mut world = world();
        world.clusters.truncate(1);
        assert_eq!(judge(&world), Vec::new());
    }
}
