//! `node`.

use std::path::Path;

use anyhow::{Result, bail};
use margay_ipam_core::audit;
use margay_model::Prefix;
use margay_model::ipam::Block;
use margay_model::key::Owner;
use margay_store::Store;

use super::{Streams, bgp};
use crate::agent::{self, Status};
use crate::cli::Node;
use crate::table::framed;

/// Shows what the agent says; `false` when it says nothing.
pub(super) async fn ask(command: &Node, streams: &mut Streams<'_>) -> Result<bool> {
    let Node::Status { socket, .. } = command;
    match agent::status(socket).await {
        Ok(status) => {
            streams.say(&text(&status))?;
            Ok(true)
        }
        Err(error) => {
            streams.warn(&format!("{error:#}"))?;
            Ok(false)
        }
    }
}

/// Shows what the store knows of the node, where the agent does not answer.
///
/// # Errors
/// Always: a node whose agent does not answer is not well.
pub(super) async fn run<S: Store>(
    store: &S,
    command: Node,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let Node::Status { socket, node } = command;
    let node = node.or_else(name_of_this_node).unwrap_or_default();
    let page = store.list(&Prefix::Blocks).await?;
    let owner = Owner::Host(node.clone()).affinity();
    let blocks = page
        .entries
        .iter()
        .filter_map(|entry| serde_json::from_slice(&entry.value).ok());
    let rows: Vec<Vec<String>> = blocks
        .filter(|block: &Block| block.affinity.as_deref() == Some(owner.as_str()))
        .map(|block| {
            let blocks = std::slice::from_ref(&block);
            let (used, lent) = (
                audit::allocations(blocks).count(),
                audit::borrowed(blocks).len(),
            );
            let local = used.saturating_sub(lent);
            vec![
                block.cidr.to_string(),
                node.clone(),
                local.to_string(),
                lent.to_string(),
            ]
        })
        .collect();
    streams.say(&format!(
        "Blocks of {node} in the datastore\n{}",
        framed(&BLOCKS, &rows)
    ))?;
    bail!("the agent at {} does not answer", socket.display());
}

fn text(status: &Status) -> String {
    let ready = if status.ready { "ready" } else { "not ready" };
    let mut out = format!("Margay is running on {} and {ready}.\n", status.node);
    if !status.machine.is_empty() {
        out.push_str(&format!("Machine: {}\n", status.machine));
    }
    if let Some(reason) = &status.cleanup_held {
        out.push_str(&format!(
            "Clean-up is held: {reason}. If they may go, send SIGUSR1 to the agent.\n"
        ));
    }
    let rows: Vec<Vec<String>> = status
        .blocks
        .iter()
        .map(|block| {
            let owner = block.owner.clone().unwrap_or_default();
            vec![
                block.cidr.clone(),
                owner,
                block.local.to_string(),
                block.borrowed.to_string(),
            ]
        })
        .collect();
    out.push_str(&format!("\nBlocks\n{}", framed(&BLOCKS, &rows)));
    let rows: Vec<Vec<String>> = status
        .routes
        .iter()
        .map(|route| {
            let interface = route.interface.clone().unwrap_or_default();
            let via = match route.via {
                Some(via) => via.to_string(),
                None if interface.is_empty() => "blackhole".to_owned(),
                None => String::new(),
            };
            vec![
                route.destination.clone(),
                via,
                interface,
                route.protocol.clone(),
                route.source.clone(),
            ]
        })
        .collect();
    out.push_str(&format!("\nRoutes\n{}", framed(&ROUTES, &rows)));
    let rows: Vec<Vec<String>> = status
        .endpoints
        .iter()
        .map(|endpoint| {
            let addresses = endpoint.addresses.join(",");
            vec![
                endpoint.name.clone(),
                endpoint.interface.clone(),
                addresses,
                endpoint.state.clone(),
            ]
        })
        .collect();
    out.push_str(&format!("\nEndpoints\n{}", framed(&ENDPOINTS, &rows)));
    out.push_str(&bgp::peers(&status.bgp));
    out
}

/// The name that the agent or an installer has written down, else the host's.
fn name_of_this_node() -> Option<String> {
    [NODENAME, HOSTNAME]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(Path::new(path)).ok())
        .map(|text| text.trim().to_lowercase())
        .find(|name| !name.is_empty())
}

const BLOCKS: [&str; 4] = ["CIDR", "OWNER", "LOCAL", "BORROWED"];
const ROUTES: [&str; 5] = ["DESTINATION", "VIA", "INTERFACE", "PROTOCOL", "SOURCE"];
const ENDPOINTS: [&str; 4] = ["NAME", "INTERFACE", "ADDRESSES", "STATE"];
const NODENAME: &str = "/var/lib/calico/nodename";
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
