//! Places a graph in columns: whoever calls stands to the left of whoever is called.
//!
//! Clusters that share no column stand beside each other, others one below another. All nodes of a column are equally wide,
//! so that what leads up or down between two columns meets none.

use crate::graph::Graph;
use crate::ranks::ranks;
use crate::ways::{self, Way};
use std::ops::RangeInclusive;

/// Between the picture's edge and a box, and between boxes.
const MARGIN: i32 = 16;
/// Between a box and what is in it.
const PADDING: i32 = 16;
/// Between two nodes of a column: as high as a label with some room.
const SPACING: i32 = 20;
/// Between columns of one cluster, without labels.
const GAP: i32 = 44;
/// Between columns where a box ends or begins.
const BORDER_GAP: i32 = 2 * PADDING + MARGIN + 8;
/// What a label needs between columns, beside its width.
const LABEL_ROOM: i32 = 52;

/// Width and height.
pub type Size = (i32, i32);

/// A rectangle in the picture.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rect {
    pub x: i32,
    pub y: i32,
    pub width: i32,
    pub height: i32,
}

/// How large things are that are to be placed.
pub struct Sizes {
    /// Of what stands at the top of each cluster's box.
    pub titles: Vec<Size>,
    /// Of each node.
    pub nodes: Vec<Size>,
    /// Of each edge's label, if it has one.
    pub labels: Vec<Option<Size>>,
}

/// Where everything is.
#[derive(Debug, Default)]
pub struct Layout {
    /// The whole picture.
    pub size: Size,
    /// The box of each cluster.
    pub clusters: Vec<Rect>,
    /// Each node.
    pub nodes: Vec<Rect>,
    /// Each edge.
    pub ways: Vec<Way>,
}

/// Where the columns are.
#[derive(Debug)]
pub struct Columns {
    /// The left edge of each.
    pub lefts: Vec<i32>,
    /// The width of each.
    pub widths: Vec<i32>,
}

/// Nodes that stand together: those of a cluster, or of none.
struct Group {
    cluster: Option<usize>,
    columns: RangeInclusive<usize>,
    title: Size,
    /// The nodes of each of its columns.
    nodes: Vec<Vec<usize>>,
}

impl Group {
    fn of(graph: &Graph, cluster: Option<usize>, ranks: &[usize], title: Size) -> Self {
        let nodes: Vec<usize> = graph.nodes_of(cluster).map(|(id, _)| id).collect();
        let first = nodes.iter().map(|id| ranks[*id]).min().unwrap_or(0);
        let last = nodes.iter().map(|id| ranks[*id]).max().unwrap_or(0);
        let column = |rank| nodes.iter().copied().filter(|id| ranks[*id] == rank).collect();
        Self { cluster, columns: first..=last, title, nodes: (first..=last).map(column).collect() }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.columns.start() <= other.columns.end() && other.columns.start() <= self.columns.end()
    }

    fn height(&self, sizes: &Sizes) -> i32 {
        let columns = self.nodes.iter().map(|column| stack_height(column, sizes));
        2 * PADDING + self.title.1 + columns.max().unwrap_or(0)
    }
}

fn stack_height(column: &[usize], sizes: &Sizes) -> i32 {
    let heights: i32 = column.iter().map(|id| sizes.nodes[*id].1 + SPACING).sum();
    (heights - SPACING).max(0)
}

/// Places all of the graph.
pub fn layout(graph: &Graph, mut sizes: Sizes) -> Layout {
    let edges: Vec<(usize, usize)> = graph.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let ranks = ranks(graph.nodes.len(), &edges);
    make_room_for_labels(&edges, &mut sizes);
    let clusters = (0..graph.clusters.len()).map(|at| Group::of(graph, Some(at), &ranks, sizes.titles[at]));
    let others = Group::of(graph, None, &ranks, (0, 0));
    let groups: Vec<Group> = clusters.chain(Some(others).filter(|others| !others.nodes[0].is_empty())).collect();
    let columns = columns(&edges, &sizes, &ranks, &groups);

    let mut layout = Layout {
        clusters: vec![Rect::default(); graph.clusters.len()],
        nodes: vec![Rect::default(); graph.nodes.len()],
        ..Layout::default()
    };
    let mut top = MARGIN;
    for band in bands(groups) {
        let height = band.iter().map(|group| group.height(&sizes)).max().unwrap_or(0);
        for group in band {
            layout.place(group, &columns, (top, height), &sizes, &|layout, id| {
                callers_height(&edges, layout, &ranks, id)
            });
        }
        top += height + MARGIN;
    }
    layout.ways = ways::find(&edges, &ranks, &columns, &layout, &sizes);
    let right = (0..columns.lefts.len()).map(|column| columns.right(column)).max().unwrap_or(0);
    let bottom = layout.ways.iter().map(|way| way.bottom() + MARGIN / 2).max().unwrap_or(0);
    layout.size = (right + PADDING + MARGIN, bottom.max(top));
    layout
}

impl Layout {
    /// Places a group, which has the band's height below its top.
    fn place(
        &mut self,
        group: Group,
        columns: &Columns,
        (top, height): (i32, i32),
        sizes: &Sizes,
        order: &dyn Fn(&Self, usize) -> i32,
    ) {
        if let Some(at) = group.cluster {
            let (left, right) = (columns.lefts[*group.columns.start()], columns.right(*group.columns.end()));
            let (x, width) = (left - PADDING, right - left + 2 * PADDING);
            self.clusters[at] = Rect { x, y: top, width, height };
        }
        let room = height - 2 * PADDING - group.title.1;
        for (column, mut nodes) in group.columns.zip(group.nodes) {
            nodes.sort_by_key(|id| (order(self, *id), *id));
            let mut y = top + PADDING + group.title.1 + (room - stack_height(&nodes, sizes)) / 2;
            for id in nodes {
                let height = sizes.nodes[id].1;
                self.nodes[id] = Rect { x: columns.lefts[column], y, width: columns.widths[column], height };
                y += height + SPACING;
            }
        }
    }
}

/// Labels stand one below another to the left of the node that their edges lead to.
fn make_room_for_labels(edges: &[(usize, usize)], sizes: &mut Sizes) {
    let mut heights = vec![0; sizes.nodes.len()];
    for ((_, to), label) in edges.iter().zip(&sizes.labels) {
        heights[*to] += label.map_or(0, |(_, height)| height + ways::LABEL_SPACING);
    }
    for (size, height) in sizes.nodes.iter_mut().zip(heights) {
        size.1 = size.1.max(height);
    }
}

fn columns(edges: &[(usize, usize)], sizes: &Sizes, ranks: &[usize], groups: &[Group]) -> Columns {
    let count = groups.iter().map(|group| group.columns.end() + 1).max().unwrap_or(1);
    let borders = |column: usize| {
        groups.iter().any(|group| *group.columns.end() == column || *group.columns.start() == column + 1)
    };
    let mut gaps: Vec<i32> = (0..count).map(|column| if borders(column) { BORDER_GAP } else { GAP }).collect();
    let mut widths = vec![0; count];
    for (id, rank) in ranks.iter().enumerate() {
        widths[*rank] = widths[*rank].max(sizes.nodes[id].0);
    }
    for ((_, to), label) in edges.iter().zip(&sizes.labels) {
        if let (Some(gap), Some((width, _))) = (ranks[*to].checked_sub(1).map(|column| &mut gaps[column]), label) {
            *gap = (*gap).max(width + LABEL_ROOM);
        }
    }
    for group in groups {
        let last = *group.columns.end();
        let inner: i32 = group.columns.clone().map(|column| widths[column] + gaps[column]).sum();
        widths[last] += (group.title.0 - (inner - gaps[last])).max(0);
    }
    let place = |left: &mut i32, (width, gap): (&i32, &i32)| {
        let here = *left;
        *left += width + gap;
        Some(here)
    };
    let lefts = widths.iter().zip(&gaps).scan(MARGIN + PADDING, place).collect();
    Columns { lefts, widths }
}

/// Groups that stand beside each other, from top to bottom.
fn bands(groups: Vec<Group>) -> Vec<Vec<Group>> {
    let mut bands: Vec<Vec<Group>> = Vec::new();
    for group in groups {
        match bands.iter_mut().find(|band| band.iter().all(|other| !other.overlaps(&group))) {
            Some(band) => band.push(group),
            None => bands.push(vec![group]),
        }
    }
    // Callers first, so that their height is known when the others are placed.
    bands.iter_mut().for_each(|band| band.sort_by_key(|group| *group.columns.start()));
    bands
}

/// How far down the callers of a node are on average, of those that are placed.
fn callers_height(edges: &[(usize, usize)], layout: &Layout, ranks: &[usize], id: usize) -> i32 {
    let callers = edges.iter().filter(|(from, to)| *to == id && ranks[*from] < ranks[id]);
    let middles: Vec<i32> =
        callers.map(|(from, _)| layout.nodes[*from].middle()).filter(|middle| *middle > 0).collect();
    let count = i32::try_from(middles.len()).unwrap_or(i32::MAX);
    middles.iter().sum::<i32>().checked_div(count).unwrap_or(i32::MAX)
}

impl Columns {
    /// The right edge of a column.
    pub fn right(&self, column: usize) -> i32 {
        self.lefts[column] + self.widths[column]
    }
}

impl Rect {
    /// Half way down.
    pub fn middle(&self) -> i32 {
        self.y + self.height / 2
    }

    /// Its right edge.
    pub fn right(&self) -> i32 {
        self.x + self.width
    }

    /// Its lower edge.
    pub fn bottom(&self) -> i32 {
        self.y + self.height
    }
}

#[cfg(test)]
mod tests;
