//! Checks (group 07) the controllers: their Deployments, their certificates, and whether they fit the cluster. Pure.

use crate::finding::{Finding, checks};
use crate::scene::{Scene, Side, ready};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::ResourceExt as _;
use std::collections::{BTreeMap, BTreeSet};
use x509_parser::parse_x509_certificate;
use x509_parser::pem::parse_x509_pem;

checks! {
    THERE Error "XM0701" "a controller is there";
    ONE Error "XM0702" "it is the only one";
    OURS Error "XM0703" "it is not Amazon's, which needs the App Mesh API";
    RUNS Error "XM0704" "a replica of it is ready";
    ALL Warning "XM0705" "all replicas are ready, and of its present revision";
    RESTARTS Warning "XM0706" "no replica restarts again and again";
    LEASE Error "XM0707" "a replica leads";
    FITS Error "XM0708" "it is told the cluster and the region that it is in";
    ALIKE Warning "XM0709" "the controllers of all clusters are of one version";
    RELEASE Warning "XM0710" "it is of these tools' version";
    KINDS Error "XM0711" "the kinds are those of this release";
    WEBHOOKS Error "XM0712" "the webhooks are there";
    TRUSTED Error "XM0713" "the API server trusts the webhooks' certificate";
    CERTIFICATE Error "XM0714" "the certificate is there, and valid";
    RENEWED Warning "XM0715" "the certificate was renewed in time";
    HELM Error "XM0716" "its Helm release is deployed";
    CLOUD_MAP Error "XM0717" "Cloud Map does not refuse what it asks";
}

/// How often a replica may have restarted.
const MANY_RESTARTS: i32 = 5;

/// Seconds after which a lease that nobody renewed is nobody's. The controller renews it each two seconds; the rest is for
/// clocks that differ.
const RENEWS_WITHIN: i64 = 60;

/// Days before its end by which a certificate is renewed. The controller does it 30 days before, cert-manager by default
/// too.
const DAYS: i64 = 14;

const DAY: i64 = 86_400;

/// Everything that is wrong.
pub fn judge(scene: &Scene) -> Vec<Finding> {
    let mut found: Vec<Finding> = scene.sides.iter().flat_map(|side| of_side(side, scene)).collect();
    let versions: BTreeMap<String, &str> =
        scene.sides.iter().filter_map(|side| Some((side.label(), version(side.controller()?)?))).collect();
    let different: BTreeSet<&str> = versions.values().copied().collect();
    if let [version] = different.iter().collect::<Vec<_>>()[..]
        && *version != env!("CARGO_PKG_VERSION")
    {
        let said = format!("they are {version}, these tools are {}", env!("CARGO_PKG_VERSION"));
        found.push(RELEASE.found("controllers", said, "make all -B installs this release: docs/upgrading.md"));
    }
    if different.len() > 1 {
        let said: Vec<String> = versions.iter().map(|(side, version)| format!("{version} in {side}")).collect();
        let fix = "upgrade the older: what a newer one publishes, it may not understand; docs/upgrading.md";
        found.push(ALIKE.found("controllers", format!("they are {}", said.join(", ")), fix));
    }
    found
}

fn of_side(side: &Side, scene: &Scene) -> Vec<Finding> {
    if side.deployments.is_none() {
        return Vec::new();
    }
    let mut found = definitions(side);
    let all = side.controllers();
    let Some(controller) = all.first().copied() else {
        let fix = "make all -B, or appmesh-install, installs it";
        found.push(THERE.found(side.label(), "it has App Mesh's kinds, and no controller for them", fix));
        return found;
    };
    let object = side.object(controller);
    if all.len() > 1 {
        let names: Vec<String> =
            all.iter().map(|it| format!("{}/{}", it.namespace().unwrap_or_default(), it.name_any())).collect();
        let said = format!("there are several controllers: {}", names.join(", "));
        found.push(ONE.found(side.label(), said, "helm uninstall all but one: each writes what the others write"));
    }
    let images = controller.spec.iter().flat_map(|spec| spec.template.spec.iter()).flat_map(|spec| &spec.containers);
    let of_amazon =
        |image: &str| image.starts_with("public.ecr.aws/appmesh/") || image.contains("/amazon/appmesh-controller");
    if let Some(image) = images.filter_map(|it| it.image.as_deref()).find(|image| of_amazon(image)) {
        let fix = "make all ADOPT=yes takes its release over: docs/migrating.md";
        found.push(OURS.found(&object, format!("{image} needs the App Mesh API, which AWS has ended"), fix));
        return found;
    }
    found.extend(replicas(side, controller));
    found.extend(certificate(side, scene, &object));
    found.extend(fits(side, &object));
    if let Some(Some((revision, state))) =
        side.around.release.as_ref().filter(|release| release.as_ref().is_some_and(|it| it.1 != "deployed"))
    {
        let name = format!("{}/{}", controller.namespace().unwrap_or_default(), controller.name_any());
        let fix = "make all -B goes on with it; helm history shows the revisions";
        found.push(HELM.found(
            format!("release {name} of {}", side.label()),
            format!("revision {revision} is {state}"),
            fix,
        ));
    }
    if side.running().is_some() {
        found.extend(lease(side, controller, scene));
        found.extend(cloud_map(side, &object));
    }
    found
}

fn version(controller: &Deployment) -> Option<&str> {
    controller.labels().get("app.kubernetes.io/version").map(String::as_str)
}

fn replicas(side: &Side, controller: &Deployment) -> Vec<Finding> {
    let object = side.object(controller);
    let namespace = controller.namespace().unwrap_or_default();
    let wanted = controller.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = controller.status.as_ref();
    let updated = status.and_then(|status| status.updated_replicas).unwrap_or_default();
    let look = format!("kubectl -n {namespace} get pods; kubectl -n {namespace} describe pods");
    let mut found = Vec::new();
    let ready = ready(controller);
    if wanted == 0 {
        let fix = format!("kubectl -n {namespace} scale deployment {} --replicas 2", controller.name_any());
        found.push(RUNS.found(&object, "it is scaled to 0: pods that are to have a sidecar are refused", fix));
    } else if ready == 0 {
        let said = format!("none of its {wanted} replicas is ready: pods that are to have a sidecar are refused");
        found.push(RUNS.found(&object, said, look));
    } else if ready < wanted || updated < wanted {
        let said = format!("{ready} of {wanted} replicas are ready, {updated} of its present revision");
        found.push(ALL.found(&object, said, look));
    }
    for pod in side.controller_pods() {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let restarts = statuses.map(|status| status.restart_count).max().unwrap_or_default();
        if restarts >= MANY_RESTARTS {
            let fix = format!("kubectl -n {namespace} logs {} --previous", pod.name_any());
            found.push(RESTARTS.found(side.object(pod), format!("it has restarted {restarts} times"), fix));
        }
    }
    found
}

fn lease(side: &Side, controller: &Deployment, scene: &Scene) -> Option<Finding> {
    let lease = side.around.lease.as_ref()?;
    let object = side.object(controller);
    let fix = "none writes to Cloud Map: kubectl -n appmesh-system logs deploy/appmesh-controller";
    let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    let Some(holder) = holder else { return Some(LEASE.found(object, "nobody holds its lease", fix)) };
    let renewed = spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0.as_second());
    let ago = scene.now.as_second() - renewed.unwrap_or_default();
    (ago > RENEWS_WITHIN)
        .then(|| LEASE.found(object, format!("{holder} holds its lease, and renewed it {ago} s ago"), fix))
}

/// Whether it is told where it is: what it registers carries the cluster's ARN.
fn fits(side: &Side, object: &str) -> Vec<Finding> {
    let Some(facts) = &side.facts else { return Vec::new() };
    let mut found = Vec::new();
    for (option, value, own) in [("cluster-name", "clusterName", &facts.name), ("aws-region", "region", &facts.region)]
    {
        if let Some(told) = side.options(option).next().filter(|told| !told.is_empty() && told != own) {
            let said = format!("it is told --{option}={told}, and is in {own}");
            found.push(FITS.found(object, said, format!("make all -B sets {value} of the chart")));
        }
    }
    found
}

/// The certificate, and whether the API server trusts it.
fn certificate(side: &Side, scene: &Scene, controller: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let name = side.options("certificate-secret").next().unwrap_or_default();
    let object = format!("Secret {name} of {}", side.label());
    let Some(secret) = &side.around.certificate else { return webhooks(side, controller, None) };
    let data = secret.as_ref().and_then(|secret| secret.data.as_ref());
    let part = |name: &str| data.and_then(|data| data.get(name));
    found.extend(webhooks(side, controller, part("ca.crt")));
    let fix = "delete the Secret: the controller makes it anew; or does cert-manager work?";
    let Some(end) = part("tls.crt").and_then(end) else {
        // One that does not run yet makes none.
        if side.running().is_some() {
            found.push(CERTIFICATE.found(object, "it holds no certificate", fix));
        }
        return found;
    };
    let left = (end - scene.now.as_second()) / DAY;
    if end <= scene.now.as_second() {
        found.push(CERTIFICATE.found(object, format!("its certificate has ended {} days ago", -left), fix));
    } else if left < DAYS {
        found.push(RENEWED.found(object, format!("its certificate ends in {left} days, and was not renewed"), fix));
    }
    found
}

/// When a certificate ends, in seconds since 1970.
fn end(pem: &ByteString) -> Option<i64> {
    let (_, pem) = parse_x509_pem(&pem.0).ok()?;
    let (_, certificate) = parse_x509_certificate(&pem.contents).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn webhooks(side: &Side, controller: &str, authority: Option<&ByteString>) -> Vec<Finding> {
    let (Some(mutating), Some(validating)) = (&side.mutating, &side.validating) else { return Vec::new() };
    let mut found = Vec::new();
    let ours = |name: &str| name.ends_with(".appmesh.k8s.aws");
    let mutating = mutating.iter().flat_map(|it| it.webhooks.iter().flatten()).map(|it| (&it.name, &it.client_config));
    let validating =
        validating.iter().flat_map(|it| it.webhooks.iter().flatten()).map(|it| (&it.name, &it.client_config));
    let known: BTreeMap<&String, _> = mutating.chain(validating).filter(|(name, _)| ours(name)).collect();
    for name in ["mobject.appmesh.k8s.aws", "mpod.appmesh.k8s.aws", "vobject.appmesh.k8s.aws"] {
        let Some(config) = known.get(&name.to_owned()) else {
            let fix = "make all -B, or appmesh-install, installs the chart again";
            found.push(WEBHOOKS.found(controller, format!("there is no webhook {name}"), fix));
            continue;
        };
        // A bundle may have others beside it.
        let trusts = |authority: &ByteString| {
            config.ca_bundle.as_ref().is_some_and(|bundle| {
                let wanted = authority.0.trim_ascii();
                !wanted.is_empty() && bundle.0.windows(wanted.len()).any(|window| window == wanted)
            })
        };
        if authority.is_some_and(|authority| !trusts(authority)) && side.running().is_some() {
            let said = "its caBundle is not the authority of the controller's certificate";
            let fix = "the controller, or cert-manager, writes it: what does its log say?";
            found.push(TRUSTED.found(format!("webhook {name} of {}", side.label()), said, fix));
        }
    }
    found
}

/// Whether the kinds have all fields that the types here have.
fn definitions(side: &Side) -> Vec<Finding> {
    let Some(found) = &side.definitions else { return Vec::new() };
    let mut problems = Vec::new();
    for wanted in mesh_api::crds::all() {
        let name = wanted.name_any();
        let object = format!("CustomResourceDefinition {name} of {}", side.label());
        let fix = "appmesh-install, or make all -B, applies the kinds of this release; Helm alone never does";
        let Some(live) = found.iter().find(|live| live.name_any() == name) else {
            problems.push(KINDS.found(object, "it does not exist", fix));
            continue;
        };
        let schema = |definition: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
            let version = definition.spec.versions.iter().find(|version| version.name == "v1beta2" && version.served)?;
            version.schema.as_ref()?.open_api_v3_schema.clone()
        };
        let (Some(wanted), Some(live)) = (schema(&wanted), schema(live)) else {
            problems.push(KINDS.found(object, "it has no version v1beta2", fix));
            continue;
        };
        let mut missing = Vec::new();
        lacking("", &wanted, &live, &mut missing);
        if let [first, rest @ ..] = &missing[..] {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more fields", rest.len()) };
            problems.push(KINDS.found(object, format!("it has no {first}{more}"), fix));
        }
    }
    problems
}

/// The fields of a schema that another lacks, each without those within it.
fn lacking(path: &str, wanted: &JSONSchemaProps, live: &JSONSchemaProps, missing: &mut Vec<String>) {
    for (name, wanted) in wanted.properties.iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match live.properties.as_ref().and_then(|properties| properties.get(name)) {
            Some(live) => lacking(&path, wanted, live, missing),
            None => missing.push(path),
        }
    }
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray::Schema;
    if let (Some(Schema(wanted)), Some(Schema(live))) = (&wanted.items, &live.items) {
        lacking(&format!("{path}[]"), wanted, live, missing);
    }
}

/// Calls of Cloud Map that were refused each time.
fn cloud_map(side: &Side, object: &str) -> Vec<Finding> {
    let mut calls: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    let metrics = side.around.metrics.iter().flat_map(|metrics| metrics.values().flatten());
    for sample in metrics.filter(|sample| sample.name == "appmesh_controller_cloudmap_calls_total") {
        let label = |name: &str| sample.labels.get(name).map_or("", String::as_str);
        *calls.entry(label("operation")).or_default().entry(label("outcome")).or_default() += sample.value;
    }
    let mut found = Vec::new();
    for (operation, outcomes) in calls {
        let denied = outcomes.iter().find(|(outcome, _)| outcome.starts_with("AccessDenied"));
        if let Some((outcome, count)) = denied.filter(|_| !outcomes.contains_key("ok")) {
            let said = format!("servicediscovery:{operation} is refused, {count} times so far: {outcome}");
            found.push(CLOUD_MAP.found(object, said, "make all -B gives its role policies/controller.json"));
        }
    }
    found
}

#[cfg(test)]
mod tests;
