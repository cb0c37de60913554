//! VirtualServices for other clusters: what one routes to, written as instances of a Cloud Map service of type HTTP in
//! the namespace of its nodes, and read there by the controllers whose VirtualNodes name its ARN as a backend.
//!
//! One document is JSON, cut into as many instances as it needs:
//!
//! | instance attribute | value |
//! | --- | --- |
//! | `appmesh.k8s.aws/virtualService` | ARN of the VirtualService |
//! | `appmesh.k8s.aws/cluster` | the cluster that publishes |
//! | `part` | `<index>/<count>` |
//! | `digest` | of the whole document, so that parts of two versions are never joined |
//! | `routes.0` … `routes.3` | up to 1024 characters of JSON each |
//!
//! The instance's id is `<cluster>.<index>`. A document of one part, which is the rule, changes atomically.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use mesh_api::{Arn, MeshMember as _, MeshObject as _, VirtualService, arn::MeshResource};
use serde::Deserialize as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    cloudmap::{Attributes, Instances, ServiceKey},
    identity::Identity,
    problems,
    registrar::{CLUSTER, Registrar, Want},
    routes::{Node, Routes},
    store::Snapshot,
    unserved,
};

const VIRTUAL_SERVICE: &str = "appmesh.k8s.aws/virtualService";
const PART: &str = "part";
const DIGEST: &str = "digest";
/// Characters of one attribute's value, the limit of Cloud Map.
const VALUE: usize = 1024;
/// Attributes with JSON in one instance: Cloud Map takes 5000 characters of keys and values together, and an ARN may
/// take 600 of them.
const VALUES: usize = 4;

/// What is published of this cluster: for each Cloud Map service, its instances.
pub fn desired(snapshot: &Snapshot, identity: &Identity, cluster: &str) -> BTreeMap<ServiceKey, Want> {
    let mut desired = BTreeMap::new();
    for service in &snapshot.virtual_services {
        if service.metadata.deletion_timestamp.is_some() {
            continue;
        }
        for (key, instances) in records(service, snapshot, identity, cluster) {
            desired.insert(key, Want { api_only: true, instances });
        }
    }
    desired
}

/// Takes back what is published of a VirtualService that is being deleted. An error means: not gone yet, call again.
///
/// The objects that said where it was published may be gone already, so this looks in every namespace.
pub async fn forget(registrar: &Registrar, service: &VirtualService) -> anyhow::Result<()> {
    let snapshot = registrar.snapshot();
    let known = arn(service, &snapshot, registrar.identity());
    let Some(arn) = known.or_else(|| service.arn()?.parse().ok()) else { return Ok(()) };
    let namespaces = registrar.namespaces().await?;
    registrar.forget(namespaces.into_iter().map(|namespace| key(namespace, &arn)).collect()).await
}

fn records(
    service: &VirtualService,
    snapshot: &Snapshot,
    identity: &Identity,
    cluster: &str,
) -> Vec<(ServiceKey, Instances)> {
    let Some(arn) = arn(service, snapshot, identity) else { return Vec::new() };
    let Some(routes) = Routes::of(service, snapshot) else { return Vec::new() };
    let instances = encode(&arn, cluster, &routes);
    routes.namespaces().into_iter().map(|namespace| (key(namespace, &arn), instances.clone())).collect()
}

/// The ARN of a VirtualService of this cluster; none before admission has told its mesh.
pub fn arn(service: &VirtualService, snapshot: &Snapshot, identity: &Identity) -> Option<Arn> {
    let mesh = snapshot.mesh(&service.mesh_ref()?.name)?;
    Some(identity.arn(&mesh.aws_name(), MeshResource::VirtualService(service.aws_name())))
}

/// The Cloud Map service that holds what is published under an ARN.
pub fn key(namespace: String, arn: &Arn) -> ServiceKey {
    ServiceKey { namespace, service: service_name(arn) }
}

/// `appmesh.<mesh>.<virtualService>` where that is a name Cloud Map takes (up to 127 characters in labels of up to 63),
/// else a hash of the ARN.
fn service_name(arn: &Arn) -> String {
    let MeshResource::VirtualService(name) = &arn.resource else { return hashed(arn) };
    let plain = format!("appmesh.{}.{name}", arn.mesh);
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if plain.len() <= 127 && plain.split('.').all(label) { plain } else { hashed(arn) }
}

fn hashed(arn: &Arn) -> String {
    format!("appmesh-{}", &hex::encode(Sha256::digest(arn.to_string()))[..40])
}

/// The instances that say what the VirtualService of this ARN routes to.
pub fn encode(arn: &Arn, cluster: &str, routes: &Routes) -> Instances {
    let json = printable(&serde_json::to_string(routes).unwrap_or_default());
    let digest = digest(&json);
    // `printable` leaves ASCII only, so that any byte is a place to cut.
    let values: Vec<&str> = json.as_bytes().chunks(VALUE).filter_map(|cut| std::str::from_utf8(cut).ok()).collect();
    let parts = values.chunks(VALUES);
    let count = parts.len();
    let instance = |(index, values): (usize, &[&str])| {
        let mut attributes = Attributes::from([
            (VIRTUAL_SERVICE.to_owned(), arn.to_string()),
            (CLUSTER.to_owned(), cluster.to_owned()),
            (PART.to_owned(), format!("{index}/{count}")),
            (DIGEST.to_owned(), digest.clone()),
        ]);
        attributes.extend(values.iter().enumerate().map(|(i, value)| (value_key(i), (*value).to_owned())));
        (format!("{cluster}.{index}"), attributes)
    };
    parts.enumerate().map(instance).collect()
}

/// What the VirtualService of this ARN routes to, from the instances of its Cloud Map service; `None` if nobody
/// publishes it. If several clusters do, the one whose id sorts first is heard, everywhere the same.
///
/// # Errors
/// Parts are missing or of two versions (a change is under way), or the document is not understood.
pub fn decode(arn: &Arn, instances: &Instances) -> anyhow::Result<Option<Routes>> {
    let name = arn.to_string();
    let of_arn: Vec<_> = instances.values().filter(|instance| instance.get(VIRTUAL_SERVICE) == Some(&name)).collect();
    let clusters: BTreeSet<_> = of_arn.iter().filter_map(|instance| instance.get(CLUSTER)).collect();
    let Some(cluster) = clusters.first().copied() else { return Ok(None) };
    if clusters.len() > 1 {
        tracing::warn!(%arn, ?clusters, "several clusters publish this VirtualService, hearing the first");
    }
    let parts: Vec<_> = of_arn.into_iter().filter(|instance| instance.get(CLUSTER) == Some(cluster)).collect();
    let read = join(&parts).and_then(|json| read(&json));
    read.map(Some).with_context(|| format!("routes of {arn} published by cluster {cluster}"))
}

/// A field that is not known is an error: a newer controller may mean by it something that this one would get wrong by
/// ignoring it.
fn read(json: &str) -> anyhow::Result<Routes> {
    let written: Value = serde_json::from_str(json)?;
    let routes = Routes::deserialize(&written)?;
    let mut problems = unserved::fields("document", &written, &serde_json::to_value(&routes)?);
    for (index, route) in routes.routes.iter().enumerate() {
        let found = problems::of_route(&route.match_, route.retry_policy.as_ref());
        problems.extend(found.into_iter().map(|problem| format!("document.routes[{index}]{problem}")));
    }
    for (name, node) in &routes.nodes {
        let found = node.health_check.iter().flat_map(problems::of_health_check);
        problems.extend(found.map(|problem| format!("document.nodes.{name}.healthCheck{problem}")));
    }
    let nameless = |node: &Node| node.dns.as_ref().is_some_and(|dns| dns.hostname.is_empty());
    let nameless = routes.nodes.iter().filter(|(_, node)| nameless(node));
    problems.extend(nameless.map(|(name, _)| format!("document.nodes.{name}.dns.hostname: is empty")));
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(routes)
}

fn join(parts: &[&Attributes]) -> anyhow::Result<String> {
    let mut texts = BTreeMap::new();
    let mut expected = (usize::MAX, "");
    for part in parts {
        let place = part.get(PART).and_then(|place| place.split_once('/')).context("part: missing")?;
        let (index, count): (usize, usize) = (place.0.parse().context("part")?, place.1.parse().context("part")?);
        // A document that has shrunk leaves later parts behind for a moment: the first part tells what is whole.
        if index == 0 {
            expected = (count, part.get(DIGEST).context("digest: missing")?.as_str());
        }
        let values = (0..VALUES).map_while(|value| part.get(&value_key(value)));
        texts.insert(index, values.map(String::as_str).collect::<String>());
    }
    ensure!(expected.0 <= texts.len(), "part 0 or a later one is missing");
    let json: String = (0..expected.0).filter_map(|index| texts.get(&index).map(String::as_str)).collect();
    ensure!(digest(&json) == expected.1, "parts of two versions");
    Ok(json)
}

fn value_key(index: usize) -> String {
    format!("routes.{index}")
}

fn digest(json: &str) -> String {
    hex::encode(&Sha256::digest(json)[..8])
}

/// The same JSON in the characters `!` to `~`: all of them are allowed at any place of an attribute's value, a space is
/// not. Outside of strings compact JSON has no other, inside they can be escaped.
fn printable(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    for unit in json.chars() {
        if unit.is_ascii_graphic() {
            printable.push(unit);
        } else {
            let mut pair = [0; 2];
            printable.extend(unit.encode_utf16(&mut pair).iter().map(|half| format!("\\u{half:04x}")));
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{CloudMapDiscovery, Route, Target};
    use ::tests::hostile::spoiled_text;
    use mesh_api::{
        Duration, DurationUnit, HeaderMatchMethod, HttpMethod, HttpRetryPolicy, HttpRouteHeader, HttpRouteMatch,
        HttpTimeout, PortMapping, Protocol, TcpRetryEvent,
    };
    use proptest::{collection, prelude::*};

    const CLUSTER_ID: &str = "7f1c9f0e-6f0f-4c57-9a3e-0d8a4f4bb001";

    fn arn_of(mesh: &str, name: &str) -> Arn {
        format!("arn:aws-us-gov:appmesh:us-gov-west-1:123456789012:mesh/{mesh}/virtualService/{name}").parse().unwrap()
    }

    prop_compose! {
        fn node()(
            port in 1..u16::MAX,
            discovery in proptest::option::of((".{1,64}", ".{1,64}", collection::btree_map(".{1,64}", ".{1,300}", 0..5))),
        ) -> Node {
            let discovery = discovery.map(|(namespace, service, attributes)| CloudMapDiscovery { namespace, service, attributes });
            Node { port, protocol: Protocol::Http, discovery, dns: None, health_check: None }
        }
    }

    prop_compose! {
        fn matched()(
            prefix in "/.{0,200}",
            get in any::<bool>(),
            headers in proptest::option::of(collection::vec(("[a-z-]{1,50}", proptest::option::of(".{1,100}"), any::<Option<bool>>()), 1..3)),
        ) -> HttpRouteMatch {
            let exact = |exact| HeaderMatchMethod { exact: Some(exact), ..HeaderMatchMethod::default() };
            let header = |(name, value, invert): (String, Option<String>, _)| HttpRouteHeader { name, match_: value.map(exact), invert };
            let headers = headers.map(|headers: Vec<_>| headers.into_iter().map(header).collect());
            HttpRouteMatch { prefix: Some(prefix), method: get.then_some(HttpMethod::Get), headers, ..HttpRouteMatch::default() }
        }
    }

    prop_compose! {
        fn tries()(retries in any::<Option<u32>>(), idle in any::<Option<u64>>()) -> (Option<HttpRetryPolicy>, Option<HttpTimeout>) {
            let milliseconds = |value| Duration { unit: DurationUnit::Ms, value };
            let policy = |max_retries| HttpRetryPolicy {
                http_retry_events: None, tcp_retry_events: Some(vec![TcpRetryEvent::ConnectionError]),
                max_retries, per_retry_timeout: milliseconds(250),
            };
            (retries.map(policy), idle.map(|idle| HttpTimeout { idle: Some(milliseconds(idle)), per_request: None }))
        }
    }

    prop_compose! {
        fn routes()(
            port in 1..u16::MAX,
            nodes in collection::btree_map("[a-z]{1,60}_[a-z]{1,60}", node(), 1..20),
            routes in collection::vec((".{1,40}", matched(), tries(), collection::vec((any::<prop::sample::Index>(), 0..=100u32), 1..10)), 0..20),
        ) -> Routes {
            let names: Vec<_> = nodes.keys().cloned().collect();
            let route = |(name, match_, (retry_policy, timeout), targets): (String, _, _, Vec<(prop::sample::Index, u32)>)| {
                let target = |(index, weight): (prop::sample::Index, u32)| Target { node: index.get(&names).clone(), weight };
                Route { name, match_, targets: targets.into_iter().map(target).collect(), retry_policy, timeout }
            };
            Routes {
                listener: PortMapping { port, protocol: Protocol::Http },
                routes: routes.into_iter().map(route).collect(),
                nodes,
            }
        }
    }

    /// The limits of RegisterInstance: botocore's model of 2017-03-14 and the API reference's text.
    fn within_limits(instances: &Instances) {
        for (id, attributes) in instances {
            assert!(id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric() || "_/:.@-".contains(c)), "{id}");
            assert!(attributes.len() <= 30);
            assert!(attributes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() <= 5000);
            for (key, value) in attributes {
                assert!((1..=255).contains(&key.len()) && key.chars().all(|c| c.is_ascii_graphic()), "{key}");
                assert!(value.len() <= 1024 && value.chars().all(|c| c.is_ascii_graphic()), "{value}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn what_is_encoded_is_decoded(routes in routes(), mesh in "[a-zA-Z0-9_-]{1,255}", name in "[a-z0-9.-]{1,255}") {
            let arn = arn_of(&mesh, &name);
            let instances = encode(&arn, CLUSTER_ID, &routes);
            within_limits(&instances);
            prop_assert_eq!(decode(&arn, &instances).unwrap(), Some(routes));
        }

        #[test]
        fn parts_of_two_versions_are_never_joined(old in routes(), new in routes(), done in 0..4usize) {
            let arn = arn_of("m", "s");
            let (old_instances, new_instances) = (encode(&arn, CLUSTER_ID, &old), encode(&arn, CLUSTER_ID, &new));
            let mut mixed = old_instances;
            mixed.extend(new_instances.into_iter().take(done));
            if let Ok(read) = decode(&arn, &mixed) {
                prop_assert!(read.as_ref() == Some(&old) || read.as_ref() == Some(&new));
            }
        }

        #[test]
        fn service_names_are_taken_by_cloud_map(mesh in "[a-zA-Z0-9_-]{1,255}", name in "[a-zA-Z0-9_.-]{1,255}") {
            let name = service_name(&arn_of(&mesh, &name));
            let label = |label: &str| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
            prop_assert!(name.len() <= 127 && name.split('.').all(label), "{}", name);
        }
    }

    fn small(weight: u32) -> Routes {
        let discovery = CloudMapDiscovery {
            namespace: "svc2.svc.local".into(),
            service: "colorapp".into(),
            attributes: [("color".into(), "blue".into())].into(),
        };
        Routes {
            listener: PortMapping { port: 8080, protocol: Protocol::Http },
            routes: vec![Route::of_everything(
                "color-route".into(),
                vec![Target { node: "colorapp-blue_k8multi".into(), weight }],
            )],
            nodes: [(
                "colorapp-blue_k8multi".into(),
                Node {
                    port: 8080,
                    protocol: Protocol::Http,
                    discovery: Some(discovery),
                    dns: None,
                    health_check: None,
                },
            )]
            .into(),
        }
    }

    #[test]
    fn a_small_document_is_one_instance_that_a_person_can_read() {
        let arn = arn_of("k8multi", "colorapp.k8multi.svc.cluster.local");
        let instances = encode(&arn, CLUSTER_ID, &small(1));
        let (id, attributes) = instances.first_key_value().unwrap();
        assert_eq!((instances.len(), id.as_str()), (1, "7f1c9f0e-6f0f-4c57-9a3e-0d8a4f4bb001.0"));
        assert_eq!(
            attributes["routes.0"],
            r#"{"listener":{"port":8080,"protocol":"http"},"routes":[{"name":"color-route","prefix":"/","targets":[{"node":"colorapp-blue_k8multi","weight":1}]}],"nodes":{"colorapp-blue_k8multi":{"port":8080,"protocol":"http","discovery":{"namespace":"svc2.svc.local","service":"colorapp","attributes":{"color":"blue"}}}}}"#
        );
        assert_eq!(service_name(&arn), "appmesh.k8multi.colorapp.k8multi.svc.cluster.local");
    }

    #[test]
    fn the_first_of_several_clusters_is_heard_and_other_arns_are_not() {
        let arn = arn_of("m", "s");
        let mut instances = encode(&arn, "b", &small(2));
        instances.extend(encode(&arn, "a", &small(1)));
        instances.extend(encode(&arn_of("m", "other"), "0", &small(3)));
        assert_eq!(decode(&arn, &instances).unwrap(), Some(small(1)));
        assert_eq!(decode(&arn_of("m", "nobody"), &instances).unwrap(), None);
    }

    #[test]
    fn an_unknown_field_is_an_error_that_names_it() {
        let arn = arn_of("m", "s");
        let json = r#"{"listener":{"port":1,"protocol":"http"},"nodes":{},"retries":[],"routes":[]}"#;
        let mut instances = encode(&arn, "a", &small(1));
        let attributes = instances.get_mut("a.0").unwrap();
        attributes.insert("routes.0".into(), json.into());
        attributes.insert("digest".into(), digest(json));
        assert!(format!("{:#}", decode(&arn, &instances).unwrap_err()).contains("retries"));
    }

    ::tests::property! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn spoiled_records_are_refused_or_routes(
            routes in routes(),
            spoils in collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4),
            words in collection::vec(spoiled_text(["0/1", "0/18446744073709551615", "{}", r#"{"routes":[],"nodes":{}}"#, CLUSTER_ID]), 4),
        ) {
            let arn = arn_of("m", "s");
            let mut instances = encode(&arn, CLUSTER_ID, &routes);
            for (instance, attribute, word) in spoils {
                let instance = instance.index(instances.len());
                let attributes = instances.values_mut().nth(instance).unwrap();
                let attribute = attribute.index(attributes.len());
                *attributes.values_mut().nth(attribute).unwrap() = word.get(&words).clone();
            }
            if let Ok(Some(read)) = decode(&arn, &instances) {
                let again = encode(&arn, CLUSTER_ID, &read);
                prop_assert_eq!(decode(&arn, &again).unwrap(), Some(read));
            }
        }
    }
}
