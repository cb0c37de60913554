use super::*;
use crate::graph::{Cluster, Edge, Kind, Node};
use crate::ways::Step;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Who calls whom, the cluster of each node, the label of each edge, and the height of each node.
type Drawing = (BTreeSet<(usize, usize)>, Vec<Option<usize>>, Vec<Option<Size>>, Vec<i32>);

const NODES: usize = 9;
const CLUSTERS: usize = 3;

fn drawings() -> impl Strategy<Value = Drawing> {
    let label = prop::option::weighted(0.3, (20..120_i32, 1..4_i32).prop_map(|(width, lines)| (width, lines * 16 + 4)));
    (
        prop::collection::btree_set((0..NODES, 0..NODES), 0..20),
        prop::collection::vec(prop::option::weighted(0.9, 0..CLUSTERS), NODES),
        prop::collection::vec(label, 20),
        prop::collection::vec(42..120_i32, NODES),
    )
}

fn drawn((edges, clusters, labels, heights): &Drawing) -> (Graph, Layout) {
    let node = |cluster: &Option<usize>| Node {
        cluster: *cluster,
        kind: Kind::VirtualNode,
        name: String::new(),
        facts: Vec::new(),
        problems: Vec::new(),
    };
    let edge =
        |(from, to): &(usize, usize)| Edge { from: *from, to: *to, labels: vec![], across: false, broken: false };
    let cluster = || Cluster { name: String::new(), meshes: Vec::new(), problems: Vec::new() };
    let graph = Graph {
        clusters: (0..CLUSTERS).map(|_| cluster()).collect(),
        nodes: clusters.iter().map(node).collect(),
        edges: edges.iter().filter(|(from, to)| from != to).map(edge).collect(),
    };
    let sizes = Sizes {
        titles: vec![(120, 42); CLUSTERS],
        nodes: heights.iter().map(|height| (60, *height)).collect(),
        labels: labels.iter().take(graph.edges.len()).copied().collect(),
    };
    let layout = layout(&graph, sizes);
    (graph, layout)
}

fn overlap(one: &Rect, other: &Rect) -> bool {
    one.x < other.right() && other.x < one.right() && one.y < other.bottom() && other.y < one.bottom()
}

fn within(inner: &Rect, outer: &Rect) -> bool {
    outer.x <= inner.x && outer.y <= inner.y && inner.right() <= outer.right() && inner.bottom() <= outer.bottom()
}

/// Points along a way, close together.
fn points(way: &Way) -> Vec<Rect> {
    let (mut x, mut y) = way.start;
    let mut points = Vec::new();
    for step in &way.steps {
        let (control, to) = match step {
            Step::Line { x: to } => (i32::midpoint(x, *to), (*to, y)),
            Step::Curve { control, x, y } => (*control, (*x, *y)),
        };
        for at in 0..=64 {
            let t = f64::from(at) / 64.0;
            let mix = |from: i32, first: i32, second: i32, to: i32| {
                let [from, first, second, to] = [from, first, second, to].map(f64::from);
                let s = 1.0 - t;
                let sum = s * s * s * from + 3.0 * s * s * t * first + 3.0 * s * t * t * second + t * t * t * to;
                sum.round() as i32
            };
            points.push(Rect { x: mix(x, control, control, to.0), y: mix(y, y, to.1, to.1), width: 0, height: 0 });
        }
        (x, y) = to;
    }
    points
}

proptest! {
    #[test]
    fn nothing_hides_anything(drawing in drawings()) {
        let (graph, layout) = drawn(&drawing);
        let picture = Rect { x: 0, y: 0, width: layout.size.0, height: layout.size.1 };
        prop_assert_eq!((layout.nodes.len(), layout.ways.len()), (graph.nodes.len(), graph.edges.len()));
        for (at, cluster) in layout.clusters.iter().enumerate() {
            prop_assert!(within(cluster, &picture), "{cluster:?} in {picture:?}");
            prop_assert!(layout.clusters[..at].iter().all(|other| !overlap(cluster, other)), "{:?}", &layout.clusters);
        }
        for (at, node) in layout.nodes.iter().enumerate() {
            prop_assert!(within(node, &picture) && node.width > 0, "{node:?} in {picture:?}");
            prop_assert!(layout.nodes[..at].iter().all(|other| !overlap(node, other)), "{:?}", &layout.nodes);
            for (other, cluster) in layout.clusters.iter().enumerate() {
                let (inside, outside) = (within(node, cluster), !overlap(node, cluster));
                prop_assert!(if graph.nodes[at].cluster == Some(other) { inside } else { outside }, "{node:?} {cluster:?}");
            }
        }
        let labels: Vec<&Rect> = layout.ways.iter().filter_map(|way| way.label.as_ref()).collect();
        for (at, label) in labels.iter().enumerate() {
            prop_assert!(labels[..at].iter().all(|other| !overlap(label, other)), "{labels:?}");
        }
        for (way, edge) in layout.ways.iter().zip(&graph.edges) {
            let (from, to) = (&layout.nodes[edge.from], &layout.nodes[edge.to]);
            let points = points(way);
            prop_assert_eq!(way.start, (from.right(), from.middle()));
            let end = points.last().copied().unwrap_or_default();
            prop_assert!(end.x == to.x && (to.y..=to.bottom()).contains(&end.y), "{end:?} at {to:?}");
            for point in &points {
                prop_assert!(within(point, &picture), "{way:?} in {picture:?}");
                let behind = layout.nodes.iter().find(|node| overlap(point, node));
                prop_assert!(behind.is_none(), "{way:?} of {edge:?} meets {behind:?}");
            }
            if let Some(label) = &way.label {
                prop_assert!(within(label, &picture), "{label:?} in {picture:?}");
                let behind = layout.nodes.iter().find(|node| overlap(label, node));
                prop_assert!(behind.is_none(), "{label:?} of {edge:?} meets {behind:?}");
            }
        }
    }
}
