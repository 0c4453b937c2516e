//! An answer for people.

use std::fmt::Write as _;

use super::{Answer, End, Route};

/// The answer as lines of text.
pub fn text(answer: &Answer) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{text}");
    };
    let (source, destination) = (end(&answer.source), end(&answer.destination));
    line(format!("{source} -> {destination}, {}", answer.protocol));
    line(format!("Verdict: {}", answer.verdict));
    line(format!("Decided by: {}", answer.decided_by));
    if let Some(advice) = &answer.advice {
        line(format!("To do: {advice}"));
    }
    let mut reached = true;
    for stage in &answer.stages {
        let condition = match &stage.condition {
            Some(condition) => format!(", {condition}"),
            None => String::new(),
        };
        let late = if reached { "" } else { " (not reached)" };
        line(String::new());
        line(format!(
            "Node {}, {} of {}{condition}: {}{late}",
            stage.node, stage.direction, stage.place, stage.verdict
        ));
        for step in &stage.steps {
            line(format!("  {step}"));
        }
        if let Some(staged) = &stage.staged {
            line(format!(
                "  with staged policies it would be {}:",
                staged.verdict
            ));
            for step in &staged.steps {
                line(format!("    {step}"));
            }
        }
        reached &= !stage.denies();
    }
    line(String::new());
    for text in route(&answer.route) {
        line(text);
    }
    for note in &answer.notes {
        line(format!("Note: {note}"));
    }
    out
}

fn end(end: &End) -> String {
    let node = match &end.node {
        Some(node) if !end.host => format!(" on node {node}"),
        _ => String::new(),
    };
    format!("{} ({}){node}", end.name, end.address)
}

fn route(route: &Route) -> Vec<String> {
    let mut lines = vec![format!("Route: {}", route.way)];
    let pool = route.pool.as_deref().unwrap_or("none");
    let block = match (&route.block, &route.block_owner) {
        (Some(block), Some(owner)) => format!("{block} of node {owner}"),
        (Some(block), None) => format!("{block} of no node"),
        (None, _) => "none".to_owned(),
    };
    let nat = if route.nat_outgoing {
        "; the source becomes the node's address (natOutgoing)"
    } else {
        ""
    };
    lines.push(format!(
        "  pool {pool}, block {block}, encapsulation {}{nat}",
        route.encapsulation
    ));
    let mtu = &route.mtu;
    let mut words = match mtu.overhead {
        0 => "that of the interface it leaves by".to_owned(),
        bytes => format!("that of the interface it leaves by, less {bytes}"),
    };
    if let Some(configured) = mtu.configured {
        words = format!("{configured}, as configured");
    }
    if let Some(workloads) = mtu.workloads {
        let _ = write!(words, "; workloads of this node have {workloads}");
    }
    lines.push(format!("MTU: {words}"));
    lines
}
