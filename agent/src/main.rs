//! The resident of a node: registers it, keeps its routes and endpoints right, reports.

fn main() {}
