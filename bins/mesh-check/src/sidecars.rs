//! Checks (group 06) the Envoys of the mesh's pods. Pure.

use crate::finding::{Finding, checks};
use crate::scene::{ENVOY, INIT, Sample, Scene, Side, WORKLOAD};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use kube::ResourceExt as _;
use mesh_api::MeshObject as _;
use std::collections::BTreeMap;

checks! {
    PULLED Error "XM0601" "the sidecars' images could be pulled";
    REDIRECTED Error "XM0602" "the traffic of every pod is redirected into its sidecar";
    RESTARTS Error "XM0603" "no Envoy restarts again and again";
    READY Error "XM0604" "every Envoy is ready";
    MEMORY Warning "XM0605" "no Envoy was stopped for want of memory";
    NATIVE Warning "XM0606" "every sidecar is a native one";
    IMAGE Warning "XM0607" "every sidecar has the image that the chart names";
    CAPTURE Warning "XM0608" "every pod's traffic is redirected by the program that the chart names";
    FOR Error "XM0609" "every Envoy is for the object that selects its pod";
    CONNECTED Warning "XM0610" "every ready Envoy is connected to a controller";
    ACCEPTED Warning "XM0611" "Envoys have rejected no configuration";
}

/// How often an Envoy may have restarted.
const MANY_RESTARTS: i32 = 5;

/// Seconds that an Envoy may take until it is ready.
const STARTS_WITHIN: i64 = 60;

/// Reasons of a container whose image is not there.
const NOT_PULLED: [&str; 4] = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"];

/// Everything that is wrong.
pub fn judge(scene: &Scene) -> Vec<Finding> {
    let mut found = Vec::new();
    for side in &scene.sides {
        for pod in side.envoys() {
            found.extend(of_pod(side, pod, scene));
        }
        found.extend(by_metrics(side));
    }
    found
}

fn of_pod(side: &Side, pod: &Pod, scene: &Scene) -> Vec<Finding> {
    let object = side.object(pod);
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let logs = |container: &str| format!("kubectl -n {namespace} logs {name} -c {container}");
    let mut found = Vec::new();
    // A VirtualGateway's Envoy is its pod's own.
    let injected = container(pod, INIT).is_some();
    for (container, status) in [INIT, ENVOY].iter().filter_map(|name| Some((*name, status(pod, name)?))) {
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
        let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
        if NOT_PULLED.contains(&reason) {
            let said = format!("its container {container} has no image {}: {reason}", status.image);
            found.push(PULLED.found(
                &object,
                said,
                "may its node pull it? ecr-push copies it into the account's registry",
            ));
            return found;
        }
    }
    let envoy = status(pod, ENVOY);
    // What redirects waits for an Envoy before it, so that it also fails where that one does not become ready.
    let envoy_fails = envoy.is_some_and(|envoy| !envoy.ready && has_begun(envoy));
    if let Some(code) = status(pod, INIT).and_then(failed).filter(|_| !envoy_fails) {
        let said = format!("its container {INIT} ended with {code}");
        found.push(REDIRECTED.found(&object, said, logs(INIT)));
        return found;
    }
    if let Some(status) = envoy {
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
        let loops = waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"));
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0.as_second());
        let due = started.is_some_and(|started| scene.now.as_second() - started > STARTS_WITHIN);
        if loops || status.restart_count >= MANY_RESTARTS {
            let said = format!("its Envoy has restarted {} times", status.restart_count);
            found.push(RESTARTS.found(&object, said, logs(ENVOY) + " --previous"));
        } else if !status.ready && due {
            let fix = logs(ENVOY) + "; is port 15010 of the controller open to it?";
            found.push(READY.found(&object, "its Envoy is not ready", fix));
        }
        let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        if last.is_some_and(|last| last.reason.as_deref() == Some("OOMKilled")) {
            let fix = "raise sidecar.resources.limits.memory of the chart, or annotate appmesh.k8s.aws/memoryLimit";
            found.push(MEMORY.found(&object, "its Envoy was stopped for want of memory", fix));
        }
    }
    let restart = format!("kubectl rollout restart what made it, in namespace {namespace}");
    if injected && let Some(envoy) = container(pod, ENVOY) {
        if envoy.restart_policy.as_deref() != Some("Always") {
            let said = "its Envoy is a container beside the others: it may start after them, and end before";
            found.push(NATIVE.found(&object, said, &restart));
        }
        for (check, container, option) in
            [(IMAGE, Some(envoy), "sidecar-image"), (CAPTURE, container(pod, INIT), "init-image")]
        {
            let wanted = side.options(option).next();
            let image = container.and_then(|container| container.image.as_deref());
            if let (Some(wanted), Some(image)) = (wanted, image)
                && wanted != image
            {
                found.push(check.found(&object, format!("it has {image}, the chart names {wanted}"), &restart));
            }
        }
    }
    found.extend(foreign(side, pod).map(|said| FOR.found(object, said, restart)));
    found
}

/// The object that a pod's Envoy was made for, if another one selects the pod.
fn foreign(side: &Side, pod: &Pod) -> Option<String> {
    let variables = container(pod, ENVOY)?.env.iter().flatten();
    let made_for = variables.into_iter().find(|it| it.name == WORKLOAD)?.value.as_deref()?;
    let (_, name) = made_for.split_once("/virtualNode/")?;
    let selecting = side.objects.nodes.iter().find(|node| {
        node.namespace() == pod.namespace()
            && mesh_objects::selects(node.spec.pod_selector.as_ref(), Some(pod.labels()), false)
    })?;
    let own = selecting.aws_name();
    (own != name).then(|| format!("its Envoy is for VirtualNode {name}, and {own} selects the pod"))
}

fn by_metrics(side: &Side) -> Vec<Finding> {
    let (Some(metrics), Some(controller)) = (&side.around.metrics, side.running()) else { return Vec::new() };
    let mut found = Vec::new();
    let object = side.object(controller);
    let all = || metrics.values().flatten();
    let connected: f64 = all().filter(|it| it.name == "appmesh_controller_xds_streams").map(|it| it.value).sum();
    let ready = side.envoys().filter(|pod| status(pod, ENVOY).is_some_and(|status| status.ready)).count();
    // Of one replica alone nobody knows what is connected to the others.
    let whole = usize::try_from(crate::scene::ready(controller)).is_ok_and(|ready| metrics.len() >= ready);
    if whole && (connected as usize) < ready {
        let said = format!("{connected} Envoys are connected to it, and {ready} are ready");
        let fix = "those keep the configuration that they have: is port 15010 open to them? their logs say why";
        found.push(CONNECTED.found(&object, said, fix));
    }
    let mut rejected: BTreeMap<&str, f64> = BTreeMap::new();
    for Sample { labels, value, .. } in all().filter(|it| it.name == "appmesh_controller_xds_nacks_total") {
        *rejected.entry(labels.get("type").map_or("", String::as_str)).or_default() += value;
    }
    for (kind, count) in rejected.into_iter().filter(|(_, count)| *count > 0.0) {
        let said = format!("Envoys have rejected {count} responses of type {kind} since it started");
        let fix = "the controller's log names the Envoy and its reason; it keeps what it had before";
        found.push(ACCEPTED.found(&object, said, fix));
    }
    found
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers.iter().flatten().chain(&spec.containers).find(|container| container.name == name)
}

fn status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    all.into_iter().find(|status| status.name == name)
}

/// Whether a container was started, and does not only wait for those before it.
fn has_begun(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    status.restart_count > 0 || state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

/// The exit code of a container that failed, now or the last time.
fn failed(status: &ContainerStatus) -> Option<i32> {
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let code = ended.or(before)?.exit_code;
    (code != 0).then_some(code)
}

#[cfg(test)]
mod tests;
