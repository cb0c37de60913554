//! Renders a graph in Graphviz's language.

use crate::graph::Graph;
use std::fmt::{self, Write as _};

/// Renders the graph as a digraph.
pub fn render(graph: &Graph) -> String {
    let mut text = String::new();
    // Writing into a string can't fail.
    let _ = write(graph, &mut text);
    text
}

fn write(graph: &Graph, to: &mut String) -> fmt::Result {
    writeln!(to, "digraph mesh {{")?;
    writeln!(to, "  rankdir=LR")?;
    writeln!(to, "  graph [fontname=\"sans-serif\", style=rounded, color=gray]")?;
    writeln!(to, "  node [fontname=\"sans-serif\", fontsize=11, shape=box, style=rounded]")?;
    writeln!(to, "  edge [fontname=\"sans-serif\", fontsize=10]")?;
    for (at, cluster) in graph.clusters.iter().enumerate() {
        let style = if cluster.problems.is_empty() { "" } else { "; color=red; fontcolor=red" };
        writeln!(to, "  subgraph cluster_{at} {{")?;
        writeln!(to, "    label={}{style}", quoted(&cluster.lines()))?;
        nodes(graph, Some(at), "    ", to)?;
        writeln!(to, "  }}")?;
    }
    nodes(graph, None, "  ", to)?;
    for edge in &graph.edges {
        let label = (!edge.labels.is_empty()).then(|| format!("label={}", quoted(&edge.labels)));
        let across = edge.across.then(|| "style=bold".to_owned());
        let broken = edge.broken.then(|| "color=red, fontcolor=red".to_owned());
        let attributes: Vec<String> = label.into_iter().chain(across).chain(broken).collect();
        let attributes = if attributes.is_empty() { String::new() } else { format!(" [{}]", attributes.join(", ")) };
        writeln!(to, "  n{} -> n{}{attributes}", edge.from, edge.to)?;
    }
    writeln!(to, "}}")
}

fn nodes(graph: &Graph, cluster: Option<usize>, indent: &str, to: &mut String) -> fmt::Result {
    for (id, node) in graph.nodes_of(cluster) {
        let broken = if node.is_broken() { ", color=red, fontcolor=red" } else { "" };
        writeln!(to, "{indent}n{id} [label={}{broken}]", quoted(&node.lines()))?;
    }
    Ok(())
}

fn quoted(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| escaped(line)).collect();
    format!("\"{}\"", lines.join("\\n"))
}

/// A text within quotes. Graphviz reads HTML's entities there, too.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '&' => "&amp;".to_owned(),
        c if c.is_control() => " ".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}
