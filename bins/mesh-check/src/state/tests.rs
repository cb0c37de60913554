#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::*;
use crate::testing::{ARN, each_finds_its_own, of, scene};
use serde_json::json;

fn namespace(scene: &mut Scene) -> &mut Namespace {
    &mut scene.cloud_map.as_mut().unwrap().namespaces[0]
}

fn instances<'a>(scene: &'a mut Scene, service: &str) -> &'a mut BTreeMap<String, Attributes> {
    namespace(scene).services.get_mut(service).unwrap()
}

fn document(cluster: &str, digest: &str, part: &str) -> Attributes {
    let pairs = [(VIRTUAL_SERVICE, ARN), (CLUSTER, cluster), (DIGEST, digest), (PART, part)];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[test]
fn every_check_finds_what_it_is_for() {
    each_finds_its_own(
        CHECKS,
        judge,
        &[
            (
                NAMESPACE,
                |it| namespace(it).name = "other".into(),
                "VirtualNode web/front of cluster a: there is no Cloud Map namespace shared",
            ),
            (
                ONE,
                |it| {
                    let second = Namespace { id: "ns-2".into(), ..namespace(it).clone() };
                    it.cloud_map.as_mut().unwrap().namespaces.push(second);
                },
                "the controller may not guess: ns-1, ns-2",
            ),
            (
                VPC,
                |it| namespace(it).vpcs = Some(vec!["vpc-9".into()]),
                "ns-1 of cluster a is seen in vpc-9, not in vpc-1",
            ),
            (SERVICE, |it| drop(namespace(it).services.remove("front")), "namespace shared has no service front"),
            (
                REGISTERED,
                |it| instances(it, "red").clear(),
                "Pod web/red of cluster b: it is ready, and no instance of service red",
            ),
            (
                ADDRESS,
                |it| drop(instances(it, "red").get_mut("i-1").unwrap().insert(IPV4.into(), "10.0.2.8".into())),
                "it is registered at 10.0.2.8 8080",
            ),
            (
                LEFT,
                |it| {
                    let left = instances(it, "red")["i-1"].clone().into_iter();
                    let left = left
                        .map(|(key, value)| (key.clone(), if key == POD { "gone".into() } else { value }))
                        .collect();
                    instances(it, "red").insert("i-2".into(), left);
                },
                "Cloud Map service red.shared: it has pods of cluster b that are no more: web/gone",
            ),
            (
                GONE,
                |it| {
                    let other = "arn:aws:eks:r:1:cluster/old".to_owned();
                    instances(it, "front")
                        .insert("i-3".into(), Attributes::from([(CLUSTER_ARN.into(), other.clone())]));
                    it.cloud_map.as_mut().unwrap().gone.insert(other);
                },
                "1 instances are of cluster old, which is no more: cloudmap-ns -n --cluster CLUSTER --name shared --forget-cluster old",
            ),
            (
                GONE,
                |it| {
                    let other = "arn:aws:eks:r:1:cluster/old".to_owned();
                    instances(it, "front")
                        .insert("i-3".into(), Attributes::from([(CLUSTER_ARN.into(), other.clone())]));
                    let cloud_map = it.cloud_map.as_mut().unwrap();
                    cloud_map.gone.insert(other);
                    cloud_map.namespaces[0].vpcs = None;
                },
                "--name shared --type http --forget-cluster old",
            ),
            (
                PUBLISHED,
                |it| instances(it, "documents").clear(),
                "VirtualService web/color of cluster b: cluster a calls it",
            ),
            (
                WHOLE,
                |it| drop(instances(it, "documents").insert("d-0".into(), document("uid-b", "d", "0/2"))),
                "of what is published of it only 1 instances",
            ),
            (
                AGREED,
                |it| drop(instances(it, "documents").insert("e-0".into(), document("uid-c", "e", "0/1"))),
                "2 clusters publish it, and not the same",
            ),
            (
                GATE,
                |it| {
                    let pod = &mut it.sides[1].pods.as_mut().unwrap()[0];
                    let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
                    conditions[2] =
                        of(json!({"type": GATE_CONDITION, "status": "False", "message": "AccessDenied: no"}));
                },
                "it waits for its registration: AccessDenied: no",
            ),
            (
                QUOTA,
                |it| instances(it, "front").extend((0..950).map(|id| (id.to_string(), Attributes::new()))),
                "it has 950 instances of at most 1000",
            ),
        ],
    );
}

#[test]
fn a_pod_may_take_a_moment_to_be_registered() {
    let mut scene = scene();
    instances(&mut scene, "red").clear();
    let pod = &mut scene.sides[1].pods.as_mut().unwrap()[0];
    pod.status.as_mut().unwrap().conditions.as_mut().unwrap()[0] =
        of(json!({"type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-11-29T11:59:50Z"}));
    assert_eq!(judge(&scene), Vec::new());
}

#[test]
fn the_controller_is_told_which_namespace_is_meant() {
    let mut scene = scene();
    let second = Namespace { id: "ns-2".into(), services: BTreeMap::new(), ..namespace(&mut scene).clone() };
    scene.cloud_map.as_mut().unwrap().namespaces.push(second);
    for side in &mut scene.sides {
        let spec = side.deployments.as_mut().unwrap()[0].spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        spec.containers[0].args.as_mut().unwrap().push("--cloudmap-namespace=shared=ns-1".into());
    }
    assert_eq!(judge(&scene), Vec::new());
}
