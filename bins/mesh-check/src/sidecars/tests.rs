#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::*;
use crate::testing::{each_finds_its_own, of, sample, scene};
use serde_json::{Value, json};

fn pod(scene: &mut Scene) -> &mut Pod {
    &mut scene.sides[1].pods.as_mut().unwrap()[0]
}

/// Changes the status of a container, the first of which is Envoy's.
fn set(scene: &mut Scene, at: usize, change: Value) {
    let statuses = pod(scene).status.as_mut().unwrap().init_container_statuses.as_mut().unwrap();
    let mut status = serde_json::to_value(&statuses[at]).unwrap();
    status.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    statuses[at] = of(status);
}

fn containers(scene: &mut Scene) -> &mut Vec<Container> {
    pod(scene).spec.as_mut().unwrap().init_containers.as_mut().unwrap()
}

fn metric(scene: &mut Scene, at: usize, changed: Sample) {
    scene.sides[1].around.metrics.as_mut().unwrap().get_mut("controller-1").unwrap()[at] = changed;
}

#[test]
fn every_check_finds_what_it_is_for() {
    each_finds_its_own(
        CHECKS,
        judge,
        &[
            (
                PULLED,
                |it| set(it, 0, json!({"ready": false, "state": {"waiting": {"reason": "ImagePullBackOff"}}})),
                "its container envoy has no image x",
            ),
            (
                REDIRECTED,
                |it| set(it, 1, json!({"state": {"terminated": {"exitCode": 2}}})),
                "its container proxyinit ended with 2",
            ),
            (RESTARTS, |it| set(it, 0, json!({"restartCount": 7})), "its Envoy has restarted 7 times"),
            (
                RESTARTS,
                |it| {
                    set(
                        it,
                        0,
                        json!({"ready": false, "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}),
                    )
                },
                "its Envoy has restarted 1 times",
            ),
            (
                RESTARTS,
                |it| {
                    set(
                        it,
                        0,
                        json!({"ready": false, "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}),
                    );
                    set(it, 1, json!({"ready": false, "lastState": {"terminated": {"exitCode": 1}}}));
                },
                "its Envoy has restarted 4 times",
            ),
            (
                REDIRECTED,
                |it| {
                    set(it, 0, json!({"ready": false, "state": {"waiting": {"reason": "PodInitializing"}}}));
                    set(it, 1, json!({"ready": false, "state": {"terminated": {"exitCode": 1}}}));
                },
                "its container proxyinit ended with 1",
            ),
            (READY, |it| set(it, 0, json!({"ready": false})), "Pod web/red of cluster b: its Envoy is not ready"),
            (
                READY,
                |it| {
                    set(it, 0, json!({"ready": false}));
                    set(it, 1, json!({"ready": false, "lastState": {"terminated": {"exitCode": 1}}}));
                },
                "Pod web/red of cluster b: its Envoy is not ready",
            ),
            (
                MEMORY,
                |it| set(it, 0, json!({"lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}})),
                "for want of memory",
            ),
            (NATIVE, |it| containers(it)[0].restart_policy = None, "its Envoy is a container beside the others"),
            (IMAGE, |it| containers(it)[0].image = Some("envoy:0".into()), "it has envoy:0, the chart names envoy:1"),
            (
                CAPTURE,
                |it| containers(it)[1].image = Some("capture:0".into()),
                "it has capture:0, the chart names capture:1",
            ),
            (
                FOR,
                |it| containers(it)[0].env = of(json!([{"name": WORKLOAD, "value": "mesh/m/virtualNode/blue_web"}])),
                "its Envoy is for VirtualNode blue_web, and red_web selects the pod",
            ),
            (
                CONNECTED,
                |it| metric(it, 0, sample("xds_streams", &[], 0.0)),
                "0 Envoys are connected to it, and 1 are ready",
            ),
            (
                ACCEPTED,
                |it| metric(it, 1, sample("xds_nacks_total", &[("type", "lds")], 3.0)),
                "rejected 3 responses of type lds",
            ),
        ],
    );
}

#[test]
fn a_pod_that_has_just_started_may_take_its_time() {
    let mut scene = scene();
    set(&mut scene, 0, json!({"ready": false}));
    pod(&mut scene).status.as_mut().unwrap().start_time = of(json!("2026-11-29T11:59:30Z"));
    assert_eq!(judge(&scene), Vec::new());
}
