//! Renders a graph as SVG.
//!
//! Everything is said by attributes: not every viewer knows styles. The picture has a background of its own, so that it can
//! be read on a dark page, too.

use crate::graph::{Edge, Graph, Kind};
use crate::layout::{Layout, Rect, Size, Sizes, layout};
use crate::text;
use crate::ways::{Step, Way};
use std::fmt::{self, Write as _};

/// The height of a line of text.
const LINE: i32 = 16;
/// Between a node's border and its text.
const INSET: i32 = 10;
/// The most characters of a line.
const LONGEST: usize = 36;

const FONTS: &str = "system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif";
const TEXT: &str = "#1f2328";
const GREY: &str = "#59636e";
const BLUE: &str = "#0969da";
const RED: &str = "#cf222e";

/// The arrows' heads, each with its colour.
const ARROWS: [(&str, &str); 3] = [("arrow", GREY), ("across", BLUE), ("broken", RED)];

/// A line of text, broken where it is too long for a box.
struct Line {
    text: String,
    size: u8,
    bold: bool,
    colour: &'static str,
}

impl Line {
    fn all(text: &str, size: u8, bold: bool, colour: &'static str) -> Vec<Self> {
        text::broken(text, LONGEST).into_iter().map(|text| Self { text, size, bold, colour }).collect()
    }

    fn width(&self) -> i32 {
        text::width(&self.text, self.size, self.bold)
    }

    fn write(&self, x: i32, y: i32, anchor: &str, to: &mut String) -> fmt::Result {
        let bold = if self.bold { " font-weight=\"600\"" } else { "" };
        let Self { size, colour, .. } = self;
        let text = escaped(&self.text);
        writeln!(to, "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\"{bold} fill=\"{colour}\"{anchor}>{text}</text>")
    }
}

/// Renders the graph as a picture of its own.
pub fn render(graph: &Graph) -> String {
    let mut text = String::new();
    // Writing into a string can't fail.
    let _ = write(graph, &mut text);
    text
}

fn write(graph: &Graph, to: &mut String) -> fmt::Result {
    let titles: Vec<Vec<Line>> = (0..graph.clusters.len()).map(|at| title(graph, at)).collect();
    let nodes: Vec<Vec<Line>> = (0..graph.nodes.len()).map(|id| node(graph, id)).collect();
    let labels: Vec<Vec<Line>> = graph.edges.iter().map(label).collect();
    let sizes = Sizes {
        titles: titles.iter().map(|lines| size(lines, 0, INSET)).collect(),
        nodes: nodes.iter().map(|lines| size(lines, 2 * INSET, INSET)).collect(),
        labels: labels.iter().map(|lines| (!lines.is_empty()).then(|| size(lines, 12, 4))).collect(),
    };
    let Layout { size: (width, height), clusters, nodes: places, ways } = layout(graph, sizes);
    let area = format!("width=\"{width}\" height=\"{height}\"");
    writeln!(
        to,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" {area} viewBox=\"0 0 {width} {height}\" font-family=\"{FONTS}\">"
    )?;
    let names: Vec<String> = graph.clusters.iter().map(|cluster| escaped(&cluster.name)).collect();
    writeln!(to, "<title>The mesh of {}</title>\n<defs>", names.join(", "))?;
    for (id, colour) in ARROWS {
        let place = "viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerUnits=\"userSpaceOnUse\" markerWidth=\"9\" markerHeight=\"9\"";
        let head = format!("<path d=\"M0 0L8 4L0 8z\" fill=\"{colour}\"/>");
        writeln!(to, "<marker id=\"{id}\" {place} orient=\"auto\">{head}</marker>")?;
    }
    writeln!(to, "</defs>\n<rect {area} rx=\"12\" fill=\"#fff\"/>")?;
    for ((cluster, place), lines) in graph.clusters.iter().zip(&clusters).zip(&titles) {
        let stroke = if cluster.problems.is_empty() { "#b7c0cb" } else { RED };
        rect(place, 10, "#f5f7fa", stroke, to)?;
        text_block(lines, (place.x + 16, place.y + INSET), "", to)?;
    }
    for (edge, way) in graph.edges.iter().zip(&ways) {
        path(edge, way, to)?;
    }
    for ((node, place), lines) in graph.nodes.iter().zip(&places).zip(&nodes) {
        let (fill, stroke) = if node.is_broken() { ("#fff0ee", RED) } else { ("#fff", colour(node.kind)) };
        rect(place, 6, fill, stroke, to)?;
        let top = place.middle() - block_height(lines) / 2;
        text_block(lines, (place.x + INSET, top), "", to)?;
    }
    for ((edge, way), lines) in graph.edges.iter().zip(&ways).zip(&labels) {
        if let Some(place) = &way.label {
            rect(place, 8, "#fff", stroke(edge).0, to)?;
            let middle = (place.x + place.width / 2, place.y + 2);
            text_block(lines, middle, " text-anchor=\"middle\"", to)?;
        }
    }
    writeln!(to, "</svg>")
}

/// The name of a cluster, and what else stands at the top of its box.
fn title(graph: &Graph, at: usize) -> Vec<Line> {
    let cluster = &graph.clusters[at];
    let meshes = cluster.meshes.iter().flat_map(|mesh| Line::all(&format!("mesh {mesh}"), 12, false, GREY));
    let problems = cluster.problems.iter().flat_map(|problem| Line::all(problem, 12, true, RED));
    Line::all(&cluster.name, 14, true, TEXT).into_iter().chain(meshes).chain(problems).collect()
}

/// What stands in a node.
fn node(graph: &Graph, id: usize) -> Vec<Line> {
    let node = &graph.nodes[id];
    let kind = Line::all(&node.kind.to_string(), 11, false, colour(node.kind));
    let facts = node.facts.iter().flat_map(|fact| Line::all(fact, 12, false, GREY));
    let problems = node.problems.iter().flat_map(|problem| Line::all(problem, 12, true, RED));
    kind.into_iter().chain(Line::all(&node.name, 12, true, TEXT)).chain(facts).chain(problems).collect()
}

fn label(edge: &Edge) -> Vec<Line> {
    let colour = if edge.broken { RED } else { TEXT };
    edge.labels.iter().flat_map(|label| Line::all(label, 11, false, colour)).collect()
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::VirtualGateway | Kind::GatewayRoute => "#1a7f37",
        Kind::VirtualService | Kind::BackendGroup => "#0550ae",
        Kind::VirtualRouter => "#8250df",
        Kind::VirtualNode => "#424a53",
    }
}

/// An edge's colour, and what else there is to its line.
fn stroke(edge: &Edge) -> (&'static str, &'static str) {
    match edge {
        Edge { broken: true, .. } => {
            (RED, " stroke-width=\"1.5\" stroke-dasharray=\"5 3\" marker-end=\"url(#broken)\"")
        }
        Edge { across: true, .. } => (BLUE, " stroke-width=\"2\" marker-end=\"url(#across)\""),
        _ => (GREY, " stroke-width=\"1.3\" marker-end=\"url(#arrow)\""),
    }
}

fn path(edge: &Edge, way: &Way, to: &mut String) -> fmt::Result {
    let (x, mut at) = way.start;
    write!(to, "<path d=\"M{x} {at}")?;
    for step in &way.steps {
        match step {
            Step::Line { x } => write!(to, "H{x}")?,
            Step::Curve { control, x, y } => {
                write!(to, "C{control} {at} {control} {y} {x} {y}")?;
                at = *y;
            }
        }
    }
    let (colour, rest) = stroke(edge);
    writeln!(to, "\" fill=\"none\" stroke=\"{colour}\"{rest}/>")
}

fn rect(place: &Rect, radius: u8, fill: &str, stroke: &str, to: &mut String) -> fmt::Result {
    let Rect { x, y, width, height } = place;
    write!(to, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{radius}\"")?;
    writeln!(to, " fill=\"{fill}\" stroke=\"{stroke}\"/>")
}

fn block_height(lines: &[Line]) -> i32 {
    i32::try_from(lines.len()).unwrap_or(i32::MAX / LINE).saturating_mul(LINE)
}

/// The room that lines of text need, with so much beside and above them.
fn size(lines: &[Line], beside: i32, above: i32) -> Size {
    let longest = lines.iter().map(Line::width).max().unwrap_or(0);
    (longest.saturating_add(beside), block_height(lines).saturating_add(above))
}

/// Lines one below another, from there on.
fn text_block(lines: &[Line], (x, top): (i32, i32), anchor: &str, to: &mut String) -> fmt::Result {
    let mut bottom = top;
    for line in lines {
        bottom += LINE;
        line.write(x, bottom - 4, anchor, to)?;
    }
    Ok(())
}

/// A text of XML, which has no control characters.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => " ".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}
