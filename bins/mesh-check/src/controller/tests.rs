#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::*;
use crate::testing::{each_finds_its_own, of, sample, secret};
use serde_json::json;

fn deployment(scene: &mut Scene) -> &mut Deployment {
    &mut scene.sides[0].deployments.as_mut().unwrap()[0]
}

fn args(scene: &mut Scene) -> &mut Vec<String> {
    let spec = deployment(scene).spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    spec.containers[0].args.as_mut().unwrap()
}

fn labelled(scene: &mut Scene, version: &str) {
    let labels = deployment(scene).metadata.labels.as_mut().unwrap();
    labels.insert("app.kubernetes.io/version".into(), version.into());
}

#[test]
fn every_check_finds_what_it_is_for() {
    each_finds_its_own(
        CHECKS,
        judge,
        &[
            (
                THERE,
                |it| it.sides[0].deployments = Some(Vec::new()),
                "cluster a: it has App Mesh's kinds, and no controller",
            ),
            (
                ONE,
                |it| {
                    let mut second = deployment(it).clone();
                    second.metadata.namespace = Some("other".into());
                    it.sides[0].deployments.as_mut().unwrap().push(second);
                },
                "several controllers: appmesh-system/appmesh-controller, other/appmesh-controller",
            ),
            (
                OURS,
                |it| {
                    let spec = deployment(it).spec.as_mut().unwrap().template.spec.as_mut().unwrap();
                    spec.containers[0].image =
                        Some("840364872350.dkr.ecr.us-west-2.amazonaws.com/amazon/appmesh-controller:v1".into());
                },
                "amazon/appmesh-controller:v1 needs the App Mesh API",
            ),
            (RUNS, |it| deployment(it).status = None, "none of its 1 replicas is ready"),
            (
                RUNS,
                |it| {
                    deployment(it).spec.as_mut().unwrap().replicas = Some(0);
                    deployment(it).status = None;
                },
                "it is scaled to 0",
            ),
            (
                ALL,
                |it| deployment(it).spec.as_mut().unwrap().replicas = Some(2),
                "1 of 2 replicas are ready, 1 of its present revision",
            ),
            (
                RESTARTS,
                |it| {
                    let pod = &mut it.sides[0].pods.as_mut().unwrap()[1];
                    pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].restart_count = 9;
                },
                "Pod appmesh-system/controller-1 of cluster a: it has restarted 9 times",
            ),
            (LEASE, |it| it.sides[0].around.lease = Some(None), "nobody holds its lease"),
            (
                LEASE,
                |it| {
                    it.sides[0].around.lease =
                        of(json!({"spec": {"holderIdentity": "p", "renewTime": "2026-11-29T11:50:00.000000Z"}}))
                },
                "p holds its lease, and renewed it 600 s ago",
            ),
            (FITS, |it| args(it)[0] = "--cluster-name=z".into(), "it is told --cluster-name=z, and is in a"),
            (FITS, |it| args(it)[1] = "--aws-region=z".into(), "it is told --aws-region=z, and is in r"),
            (
                KINDS,
                |it| drop(it.sides[0].definitions.as_mut().unwrap().remove(0)),
                "CustomResourceDefinition meshes.appmesh.k8s.aws of cluster a: it does not exist",
            ),
            (
                KINDS,
                |it| {
                    let version = &mut it.sides[0].definitions.as_mut().unwrap()[0].spec.versions[0];
                    let schema = version.schema.as_mut().unwrap().open_api_v3_schema.as_mut().unwrap();
                    let spec = schema.properties.as_mut().unwrap().get_mut("spec").unwrap();
                    spec.properties.as_mut().unwrap().remove("egressFilter").unwrap();
                },
                "it has no spec.egressFilter",
            ),
            (WEBHOOKS, |it| it.sides[0].validating = Some(Vec::new()), "there is no webhook vobject.appmesh.k8s.aws"),
            (
                TRUSTED,
                |it| {
                    let webhook = &mut it.sides[0].validating.as_mut().unwrap()[0].webhooks.as_mut().unwrap()[0];
                    webhook.client_config.ca_bundle = None;
                },
                "webhook vobject.appmesh.k8s.aws of cluster a",
            ),
            (
                CERTIFICATE,
                |it| it.sides[0].around.certificate = Some(Some(secret(-3))),
                "its certificate has ended 2 days ago",
            ),
            (
                CERTIFICATE,
                |it| it.sides[0].around.certificate = Some(None),
                "Secret s of cluster a: it holds no certificate",
            ),
            (RENEWED, |it| it.sides[0].around.certificate = Some(Some(secret(5))), "its certificate ends in 5 days"),
            (
                HELM,
                |it| it.sides[0].around.release = Some(Some((4, "pending-upgrade".into()))),
                "revision 4 is pending-upgrade",
            ),
            (
                CLOUD_MAP,
                |it| {
                    let refused = [("operation", "ListServices"), ("outcome", "AccessDeniedException")];
                    let metrics = it.sides[0].around.metrics.as_mut().unwrap();
                    metrics.get_mut("controller-1").unwrap()[2] = sample("cloudmap_calls_total", &refused, 7.0);
                },
                "servicediscovery:ListServices is refused, 7 times so far: AccessDeniedException",
            ),
            (ALIKE, |it| labelled(it, "0.0.1"), "they are 0.0.1 in cluster a, "),
            (
                RELEASE,
                |it| {
                    for side in &mut it.sides {
                        let labels = side.deployments.as_mut().unwrap()[0].metadata.labels.as_mut().unwrap();
                        labels.insert("app.kubernetes.io/version".into(), "0.0.1".into());
                    }
                },
                "they are 0.0.1, these tools are",
            ),
        ],
    );
}
