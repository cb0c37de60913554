#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::*;
use crate::{dot, mermaid, svg};
use mesh_objects::{Source, Workload};
use snapbox::{Data, assert_data_eq};
use std::path::{Path, PathBuf};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testdata").join(name)
}

fn graph_of(files: &[(&str, &str)]) -> Graph {
    let sources: Vec<Source> = files
        .iter()
        .map(|(cluster, file)| format!("{cluster}={}", testdata(file).display()).parse().unwrap())
        .collect();
    Graph::of(&mesh_objects::read_manifests(&sources, b"").unwrap())
}

/// Two clusters whose mesh is whole.
fn whole() -> Graph {
    graph_of(&[("shop", "shop.yaml"), ("stock", "stock.yaml")])
}

/// One whose names no language takes as they are.
fn broken() -> Graph {
    graph_of(&[("a\"b<c>&d`e`#f\\g", "broken.yaml")])
}

/// Compares with the golden files. After a change: `SNAPSHOTS=overwrite`.
#[test]
fn graphs_and_pictures_are_the_golden_ones() {
    for (name, graph) in [("whole", whole()), ("broken", broken())] {
        let json = serde_json::to_string_pretty(&graph).unwrap() + "\n";
        for (ending, text) in [
            ("json", json),
            ("mmd", mermaid::render(&graph)),
            ("dot", dot::render(&graph)),
            ("svg", svg::render(&graph)),
        ] {
            let golden = Data::read_from(&testdata(&format!("{name}.{ending}")), None).raw();
            assert_data_eq!(text, golden);
        }
    }
}

#[test]
fn what_is_broken_is_said_and_nothing_else() {
    assert_eq!(whole().problems().collect::<Vec<_>>(), [""; 0]);
    let cluster = "a\"b<c>&d`e`#f\\g";
    let expected = [
        format!("{cluster}: Mesh orders: Invalid"),
        format!("{cluster}: VirtualGateway shop/ingress: 0/0 pods ready"),
        format!("{cluster}: GatewayRoute shop/lost: no VirtualGateway selects it"),
        format!("{cluster}: VirtualNode shop/web: Unsupported"),
        format!("{cluster}: VirtualNode shop/web: 0/2 pods ready"),
        format!("{cluster}: VirtualRouter shop/api: route none: all weights are 0"),
        format!("{cluster}: VirtualService elsewhere/gone: does not exist"),
        "VirtualService nobody.shop: no given cluster has it".to_owned(),
        "VirtualService nobody.shop: no given cluster has it".to_owned(),
        "VirtualService arn:aws:appmesh:us-west-2:123456789012:mesh/orders/virtualNode/web_shop: not the ARN of a VirtualService".to_owned(),
        "VirtualService {{ peer.apps.api.virtualServices.api }}: not an App Mesh ARN".to_owned(),
        format!("{cluster}: VirtualService ?: neither a reference nor an ARN"),
        format!("{cluster}: BackendGroup shop/all: does not exist"),
        format!("{cluster}: VirtualService shop/gone: does not exist"),
        format!("{cluster}: VirtualNode shop/api: does not exist"),
        "VirtualNode api_shop: no given cluster has it".to_owned(),
    ];
    assert_eq!(broken().problems().collect::<Vec<_>>(), expected);
}

/// Whatever stands in names, the picture is XML, and has all of them.
#[test]
fn an_svg_is_xml() {
    for graph in [whole(), broken()] {
        let svg = svg::render(&graph);
        let document = roxmltree::Document::parse(&svg).unwrap();
        let named = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name(name));
        // Long ones are broken, but nothing of them is lost.
        let shown: String = named("text").filter_map(|node| node.text()).collect();
        let nodes = graph.nodes.iter().flat_map(Node::lines);
        for line in graph.clusters.iter().flat_map(Cluster::lines).chain(nodes) {
            assert!(shown.contains(&line), "{line} is not in {shown}");
        }
        // What a viewer without styles needs.
        for node in named("rect").chain(named("text")).chain(named("path")) {
            assert!(node.has_attribute("fill"), "{node:?}");
        }
        assert!(named("rect").all(|rect| rect.has_attribute("rx")), "{svg}");
    }
}

/// Before the controller has counted, Deployments say how many pods there will be.
#[test]
fn pods_are_those_that_are_ready_or_those_that_are_made() {
    let selector =
        LabelSelector { match_labels: Some([("app".to_owned(), "web".to_owned())].into()), ..Default::default() };
    let node = VirtualNode::new("web", Default::default());
    let made = |workloads: &[(&str, &str, u64)]| {
        let workload = |(namespace, app, replicas): &(&str, &str, u64)| Workload {
            namespace: (*namespace).to_owned(),
            labels: [("app".to_owned(), (*app).to_owned())].into(),
            replicas: *replicas,
        };
        ClusterObjects { workloads: workloads.iter().map(workload).collect(), ..Default::default() }
    };
    let both = [("shop", "web", 2), ("shop", "web", 1), ("shop", "api", 5), ("other", "web", 7)];
    let none = None::<&str>;
    for (selects, status, workloads, fact, problem) in [
        (true, Some("1/2"), &both[..], Some("1/2 pods ready"), none),
        (true, Some("0/2"), &both[..], None, Some("0/2 pods ready")),
        (true, None, &both[..], Some("3 pods"), none),
        (true, None, &[("shop", "web", 1)], Some("1 pod"), none),
        (true, None, &[("shop", "api", 1)], Some("pods unknown"), none),
        (false, None, &both[..], None, none),
    ] {
        let mut node = node.clone();
        node.metadata.namespace = Some("shop".to_owned());
        let found = pods(&node, Some(&selector).filter(|_| selects), status, &made(workloads));
        let expected = (fact.map(ToOwned::to_owned).into_iter().collect(), problem.map(ToOwned::to_owned));
        assert_eq!(found, expected, "{selects} {status:?} {workloads:?}");
    }
}

#[test]
fn a_share_is_rounded_but_not_to_nothing() {
    for (weight, sum, expected) in
        [(0, 0, "0 %"), (0, 5, "0 %"), (1, 1, "100 %"), (1, 3, "33 %"), (2, 3, "67 %"), (1, 1000, "<1 %")]
    {
        assert_eq!(share(weight, sum), expected);
    }
}
