//! Renders a graph as Mermaid, which Markdown on many sites shows as a picture.

use crate::graph::{Graph, Node};
use std::fmt::{self, Write as _};

/// The style of what is broken.
const BROKEN: &str = "fill:#fff0f0,stroke:#c00,color:#900";

/// Renders the graph as a flowchart.
pub fn render(graph: &Graph) -> String {
    let mut text = String::new();
    // Writing into a string can't fail.
    let _ = write(graph, &mut text);
    text
}

fn write(graph: &Graph, to: &mut String) -> fmt::Result {
    writeln!(to, "flowchart LR")?;
    for (at, cluster) in graph.clusters.iter().enumerate() {
        writeln!(to, "  subgraph c{at}[\"{}\"]", lines(&cluster.lines()))?;
        for (id, node) in graph.nodes_of(Some(at)) {
            writeln!(to, "    n{id}[\"{}\"]", lines(&node.lines()))?;
        }
        writeln!(to, "  end")?;
    }
    for (id, node) in graph.nodes_of(None) {
        writeln!(to, "  n{id}[\"{}\"]", lines(&node.lines()))?;
    }
    for edge in &graph.edges {
        let arrow = if edge.across { "==>" } else { "-->" };
        let label = if edge.labels.is_empty() { String::new() } else { format!("|\"{}\"|", lines(&edge.labels)) };
        writeln!(to, "  n{} {arrow}{label} n{}", edge.from, edge.to)?;
    }
    let list = |of: &mut dyn Iterator<Item = String>| of.collect::<Vec<_>>().join(",");
    let clusters = graph.clusters.iter().enumerate().filter(|(_, cluster)| !cluster.problems.is_empty());
    let nodes = graph.nodes.iter().enumerate().filter(|(_, node)| Node::is_broken(node));
    let broken = list(&mut clusters.map(|(at, _)| format!("c{at}")).chain(nodes.map(|(id, _)| format!("n{id}"))));
    if !broken.is_empty() {
        writeln!(to, "  classDef broken {BROKEN}")?;
        writeln!(to, "  class {broken} broken")?;
    }
    let edges = graph.edges.iter().enumerate().filter(|(_, edge)| edge.broken);
    let edges = list(&mut edges.map(|(at, _)| at.to_string()));
    if !edges.is_empty() {
        writeln!(to, "  linkStyle {edges} stroke:#c00")?;
    }
    Ok(())
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("<br/>")
}

/// A text within quotes, where HTML counts, and a backtick begins Markdown.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '#' | '&' | '<' | '>' | '`' | '\\' => format!("#{};", u32::from(c)),
        c if c.is_control() => " ".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}
