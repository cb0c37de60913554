//! Configures the pods of a VirtualGateway, which run Envoy themselves.

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{
    annotations::SidecarOverrides,
    inject::{Injected, list, mount, object},
    sidecar::{SIDECAR, Sidecar, drain_gateway, envoy, startup_probe, tool_container},
};
use crate::{envoy::bootstrap::TOKEN_FOLDER, model::WorkloadName};

/// The sysctl that lets a user other than root listen on ports from this number on.
const UNPRIVILEGED_PORTS: &str = "net.ipv4.ip_unprivileged_port_start";

/// Whether a pod was configured before.
pub fn is_configured(pod: &Value) -> bool {
    pod["spec"]["containers"].as_array().into_iter().flatten().any(has_token)
}

/// Whether a container is an Envoy that was configured here.
pub fn has_token(container: &Value) -> bool {
    let mut mounts = container["volumeMounts"].as_array().into_iter().flatten();
    mounts.any(|mount| mount["mountPath"] == TOKEN_FOLDER)
}

/// The pod with its Envoy configured, and what its author should know. What the author gave the Envoy stays, but for its
/// arguments and, unless it keeps its image, its image and command. `ca` is the authority of the xDS server's certificate.
pub fn configure(
    pod: &Value,
    gateway: &WorkloadName,
    overrides: SidecarOverrides,
    keeps_image: bool,
    sidecar: &Sidecar,
    ca: &str,
) -> anyhow::Result<Injected> {
    let mut pod = pod.clone();
    let in_nodes_network = pod["spec"]["hostNetwork"] == true;
    let spec = pod.get_mut("spec").and_then(Value::as_object_mut).context("the pod has no spec")?;
    let Some(own) = list(spec, "containers")?.iter().find(|container| container["name"] == SIDECAR) else {
        let warning = format!("this is a pod of {gateway}, but it has no container named {SIDECAR} to be configured");
        return Ok(Injected { pod, warnings: [overrides.warnings, vec![warning]].concat() });
    };
    let given = own.get("resources").filter(|given| given.as_object().is_some_and(|given| !given.is_empty())).cloned();
    let mounts = mount(list(spec, "volumes")?, &overrides, sidecar)?;
    list(spec, "initContainers")?.push(tool_container(&overrides, sidecar, given));
    let mut wanted = envoy(gateway, &overrides, sidecar, ca, mounts);
    wanted["lifecycle"] = drain_gateway(sidecar);
    wanted["startupProbe"] = startup_probe(sidecar);
    for container in list(spec, "containers")?.iter_mut().filter(|container| container["name"] == SIDECAR) {
        let container = container.as_object_mut().context("a container is no object")?;
        overlay(container, wanted.as_object().into_iter().flatten(), keeps_image)?;
    }
    if !in_nodes_network {
        allow_low_ports(spec)?;
    }
    Ok(Injected { pod, warnings: overrides.warnings })
}

/// Gives a container what an Envoy needs and its author did not give it.
fn overlay<'a>(
    container: &mut Map<String, Value>,
    wanted: impl Iterator<Item = (&'a String, &'a Value)>,
    keeps_image: bool,
) -> anyhow::Result<()> {
    for (field, value) in wanted {
        match field.as_str() {
            // It is no sidecar, and what it may use is up to its author.
            "name" | "resources" | "restartPolicy" => {}
            "image" | "imagePullPolicy" if keeps_image => {}
            "image" | "imagePullPolicy" | "args" => drop(container.insert(field.clone(), value.clone())),
            "command" if !keeps_image => drop(container.insert(field.clone(), value.clone())),
            "ports" => {
                let ports = list(container, field)?;
                if !ports.iter().any(|port| port["containerPort"] == value[0]["containerPort"]) {
                    ports.extend(value.as_array().cloned().unwrap_or_default());
                }
            }
            "env" => list(container, field)?.extend(value.as_array().cloned().unwrap_or_default()),
            "volumeMounts" => {
                let mounts = list(container, field)?;
                let used: Vec<_> = mounts.iter().map(|mount| mount["mountPath"].clone()).collect();
                let free = |mount: &&Value| !used.contains(&mount["mountPath"]);
                mounts.extend(value.as_array().into_iter().flatten().filter(free).cloned());
            }
            _ => drop(container.entry(field).or_insert_with(|| value.clone())),
        }
    }
    Ok(())
}

/// Lets Envoy's user listen on port 80. In its node's network that would be the node's to decide.
fn allow_low_ports(spec: &mut Map<String, Value>) -> anyhow::Result<()> {
    let sysctls = list(object(spec, "securityContext")?, "sysctls")?;
    if !sysctls.iter().any(|sysctl| sysctl["name"] == UNPRIVILEGED_PORTS) {
        sysctls.push(json!({ "name": UNPRIVILEGED_PORTS, "value": "0" }));
    }
    Ok(())
}
