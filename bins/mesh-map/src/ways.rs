//! Finds a way for each edge that meets no node but its own.
//!
//! Nodes are in columns, and between two columns an edge goes up or down as it likes. What must pass a column does so at a
//! level where that column has no node: between nodes, or below or above all of them. What leads back to the left turns
//! around beside the nodes that it connects.

use crate::layout::{Columns, Layout, Rect, Sizes};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Between two labels, one below another.
pub const LABEL_SPACING: i32 = 2;
/// The end of an edge that leads straight to the right: the arrow's head.
const HEAD: i32 = 10;
/// Between a label and what stands left or right of it.
const LABEL_MARGIN: i32 = 6;
/// How far a turn reaches beside a node.
const TURN: i32 = 7;
/// Half of what an edge needs to be seen by itself.
const CLEARANCE: i32 = 6;
/// Between an edge, or its label, and what it passes.
const DISTANCE: i32 = 2;

/// How an edge goes.
#[derive(Debug, PartialEq)]
pub struct Way {
    /// Where it begins.
    pub start: (i32, i32),
    /// How it goes on.
    pub steps: Vec<Step>,
    /// Where its label is.
    pub label: Option<Rect>,
}

/// A part of a way. It begins and ends horizontally.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Straight to there.
    Line { x: i32 },
    /// A curve to there; its control points are above or below this.
    Curve { control: i32, x: i32, y: i32 },
}

/// What stands in the way, or where another way is, in some columns.
struct Obstacle {
    columns: RangeInclusive<usize>,
    top: i32,
    bottom: i32,
}

/// The way of each edge.
pub fn find(edges: &[(usize, usize)], ranks: &[usize], columns: &Columns, layout: &Layout, sizes: &Sizes) -> Vec<Way> {
    let ends = ends(edges, layout, sizes);
    let mut obstacles = obstacles(ranks, columns, layout, sizes);
    let mut ways: Vec<Way> = Vec::new();
    // The short ones first: what goes a long way goes around them.
    let mut order: Vec<usize> = (0..edges.len()).collect();
    order.sort_by_key(|at| (ranks[edges[*at].0].abs_diff(ranks[edges[*at].1]), *at));
    ways.resize_with(edges.len(), || Way { start: (0, 0), steps: Vec::new(), label: None });
    for at in order {
        let (from, to) = edges[at];
        let (start, end) = ((layout.nodes[from].right(), layout.nodes[from].middle()), (layout.nodes[to].x, ends[at]));
        let (label, passed) = (sizes.labels[at], passed(ranks[from], ranks[to]));
        let back = ranks[from] >= ranks[to];
        let level = passed.map(|passed| {
            let half = label.filter(|_| back).map_or(0, |(_, height)| height / 2).max(CLEARANCE);
            let level = level(&obstacles, &passed, half, i32::midpoint(start.1, end.1));
            obstacles.push(Obstacle { columns: passed.clone(), top: level - half, bottom: level + half });
            (passed, level)
        });
        ways[at] = match level {
            Some((_, level)) if back => around(start, end, level, label),
            Some((passed, level)) => {
                let (enter, leave) = (columns.lefts[*passed.start()], columns.right(*passed.end()));
                let through = [Step::curve(start.0, enter, level), Step::Line { x: leave }];
                straight(start, through, leave, end, label)
            }
            None => straight(start, [], start.0, end, label),
        };
    }
    ways
}

/// The columns that an edge between these ranks must pass.
fn passed(from: usize, to: usize) -> Option<RangeInclusive<usize>> {
    if from >= to {
        return Some(to..=from);
    }
    (to - from > 1).then(|| from + 1..=to - 1)
}

/// A way to the right, with its label at the end.
fn straight<const N: usize>(
    start: (i32, i32),
    through: [Step; N],
    left: i32,
    (x, y): (i32, i32),
    label: Option<(i32, i32)>,
) -> Way {
    let right = x - HEAD - label.map_or(0, |(width, _)| width + LABEL_MARGIN);
    let label = label.map(|(width, height)| Rect { x: right, y: y - height / 2, width, height });
    let steps = through.into_iter().chain([Step::curve(left, right, y), Step::Line { x }]);
    Way { start, steps: steps.collect(), label }
}

/// A way back to the left, with its label in the middle.
fn around(start: (i32, i32), (x, y): (i32, i32), level: i32, label: Option<(i32, i32)>) -> Way {
    let middle = i32::midpoint(start.0, x);
    // A curve comes three quarters as near to its control points as they are far.
    let bend = TURN * 4 / 3;
    let steps = vec![
        Step::Curve { control: start.0 + bend, x: start.0, y: level },
        Step::Line { x: x - HEAD / 2 },
        Step::Curve { control: x - HEAD / 2 - bend, x: x - HEAD / 2, y },
        Step::Line { x },
    ];
    let label = label.map(|(width, height)| Rect { x: middle - width / 2, y: level - height / 2, width, height });
    Way { start, steps, label }
}

/// Where each edge meets the left of its node: labels stand one below another, whoever is higher up first, and what has no
/// label leads to the middle.
fn ends(edges: &[(usize, usize)], layout: &Layout, sizes: &Sizes) -> Vec<i32> {
    let mut ends: Vec<i32> = edges.iter().map(|(_, to)| layout.nodes[*to].middle()).collect();
    let height = |at: usize| sizes.labels[at].map_or(0, |(_, height)| height + LABEL_SPACING);
    let mut labelled: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, (_, to)) in edges.iter().enumerate().filter(|(at, _)| sizes.labels[*at].is_some()) {
        labelled.entry(*to).or_default().push(at);
    }
    for (to, mut edges_to) in labelled {
        edges_to.sort_by_key(|at| layout.nodes[edges[*at].0].middle());
        let mut top = layout.nodes[to].middle() - edges_to.iter().map(|at| height(*at)).sum::<i32>() / 2;
        for at in edges_to {
            ends[at] = top + height(at) / 2;
            top += height(at);
        }
    }
    ends
}

/// The nodes, the borders of the boxes and what stands at their tops.
fn obstacles(ranks: &[usize], columns: &Columns, layout: &Layout, sizes: &Sizes) -> Vec<Obstacle> {
    let nodes = layout.nodes.iter().zip(ranks).map(|(node, rank)| Obstacle {
        columns: *rank..=*rank,
        top: node.y,
        bottom: node.bottom(),
    });
    let borders = layout.clusters.iter().zip(&sizes.titles).flat_map(|(cluster, title)| {
        let inside = |column: &usize| cluster.x <= columns.lefts[*column] && columns.right(*column) <= cluster.right();
        let first = (0..columns.lefts.len()).find(inside).unwrap_or(0);
        let last = (0..columns.lefts.len()).rfind(inside).unwrap_or(0);
        [(cluster.y, cluster.y + title.1), (cluster.bottom(), cluster.bottom())].map(|(top, bottom)| Obstacle {
            columns: first..=last,
            top,
            bottom,
        })
    });
    nodes.chain(borders).collect()
}

/// The free level in some columns that is nearest to the one that is wished for.
fn level(obstacles: &[Obstacle], columns: &RangeInclusive<usize>, half: i32, wish: i32) -> i32 {
    let overlaps = |other: &RangeInclusive<usize>| columns.start() <= other.end() && other.start() <= columns.end();
    let mut taken: Vec<(i32, i32)> = obstacles
        .iter()
        .filter(|obstacle| overlaps(&obstacle.columns))
        .map(|obstacle| (obstacle.top - half - DISTANCE, obstacle.bottom + half + DISTANCE))
        .collect();
    taken.sort_unstable();
    // From the picture's top.
    let mut above = half + DISTANCE;
    let mut best: Option<i32> = None;
    for (top, bottom) in taken.into_iter().chain([(i32::MAX, i32::MAX)]) {
        if above <= top {
            let nearest = wish.clamp(above, top);
            best = best.into_iter().chain([nearest]).min_by_key(|level| level.abs_diff(wish));
        }
        above = above.max(bottom);
    }
    best.unwrap_or(above)
}

impl Step {
    /// A curve that leads on as it began, whether it goes up or down.
    fn curve(from: i32, x: i32, y: i32) -> Self {
        Self::Curve { control: i32::midpoint(from, x), x, y }
    }
}

impl Way {
    /// How far down it leads.
    pub fn bottom(&self) -> i32 {
        let steps = self.steps.iter().map(|step| match step {
            Step::Line { .. } => 0,
            Step::Curve { y, .. } => *y,
        });
        let label = self.label.map_or(0, |label| label.bottom());
        steps.max().unwrap_or(0).max(self.start.1).max(label)
    }
}
