//! `node`.

use std::path::Path;

use anyhow::{Result, bail};
use margay_ipam_core::audit;
use margay_model::ipam::Block;
use margay_model::key::Owner;
use margay_model::membership::Membership;
use margay_model::{Key, Prefix};
use margay_resources::Stamps;
use margay_store::{Answer, Batch, Condition, Op, Outcome, Read, Store, Write};

use super::{Streams, bgp};
use crate::agent::{self, Status};
use crate::cli::Node;
use crate::stamps::SystemStamps;
use crate::table::framed;

/// Shows what the agent says; `false` when it says nothing.
pub(super) async fn ask(command: &Node, streams: &mut Streams<'_>) -> Result<bool> {
    let Node::Status { socket, .. } = command else {
        return Ok(false);
    };
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

/// Declares a node gone, or shows what the store knows of this one, where its agent does not answer.
///
/// # Errors
/// The node cannot be declared gone, or the store failed; and where the agent does not answer, always: such a node
/// is not well.
pub(super) async fn run<S: Store>(
    store: &S,
    command: Node,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let (socket, node) = match command {
        Node::Status { socket, node } => (socket, node),
        Node::Gone { name, revoke } => return gone(store, &name, revoke, streams).await,
    };
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

/// Writes that a node is gone, or that it is not. Its agents' successors read it and act.
async fn gone<S: Store>(
    store: &S,
    name: &str,
    revoke: bool,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let key = Key::Membership(name.to_owned());
    let lease = Key::NodeLease(name.to_owned());
    let reads = [Read::Get(key.clone()), Read::Exists(lease.clone())];
    let mut answers = store.read_many(&reads).await?.answers.into_iter();
    let Some(entry) = answers.next().and_then(Answer::into_entry) else {
        bail!(
            "no agent of Margay has run on node {name:?}, or what it held is given back already; for a node of \
             other programs see margayctl ipam check and release"
        );
    };
    if !revoke
        && answers
            .next()
            .is_some_and(|answer| !answer.entries.is_empty())
    {
        bail!("the agent of node {name} runs; stop it first, and wait half a minute");
    }
    let mut membership: Membership = serde_json::from_slice(&entry.value)?;
    membership.gone = (!revoke).then(|| SystemStamps.now().rfc3339());
    let mut batch = Batch::of([Write::update(
        key,
        serde_json::to_vec(&membership)?,
        entry.revision,
    )]);
    if !revoke {
        batch.push(Write {
            key: lease,
            condition: Condition::Absent,
            op: Op::Check,
        });
    }
    if let Outcome::Conflict(_) = store.commit(&batch).await? {
        bail!("node {name} has just changed; look again");
    }
    if revoke {
        streams.say(&format!("Node {name} is not gone.\n"))
    } else {
        streams.say(&format!(
            "Node {name} is declared gone. In a minute an agent gives back its endpoints, addresses and blocks, and \
             deletes its Node resource; its log tells what.\n"
        ))
    }
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
    if let Some(reason) = &status.gone_held {
        out.push_str(&format!(
            "Clean-up after nodes is held: {reason}. If they are, send SIGUSR1 to the agent.\n"
        ));
    }
    if let Some(reason) = &status.policy_refused {
        out.push_str(&format!(
            "Policy is not that of the datastore; what was in force stays: {reason}\n"
        ));
    }
    if let Some(reason) = &status.policy_held {
        out.push_str(&format!(
            "Policy stays as it was: {reason}. If they may go, send SIGUSR1 to the agent.\n"
        ));
    }
    for problem in &status.policy_problems {
        out.push_str(&format!("Policy: {problem}\n"));
    }
    for finding in &status.other_rules {
        out.push_str(&format!(
            "Rules of another program may drop workloads' packets: {finding}\n"
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
pub(super) const NODENAME: &str = "/var/lib/calico/nodename";
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
