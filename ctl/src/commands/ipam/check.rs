//! `ipam check`.

use anyhow::{Context, Result};
use margay_ipam_core::audit::{self, Allocation, Finding};
use margay_model::Kind;
use margay_model::resource::cluster::ClusterInformation;
use margay_resources::{Client, ResourceError};
use margay_store::Store;
use serde_json::{Value, json};

use crate::inventory::Stock;
use crate::output;
use crate::stamps::SystemStamps;

/// What was looked at and what was found, for people.
pub(super) fn text(stock: &Stock, findings: &[Finding], all: bool) -> String {
    let inventory = &stock.inventory;
    let allocations: Vec<Allocation> = audit::allocations(&inventory.blocks).collect();
    let mut out = format!(
        "Checking IPAM for inconsistencies...\n\
         Found {} IP pools, {} IPAM blocks, {} handles and {} nodes.\n\
         Found {} allocated addresses, {} addresses in use.\n",
        inventory.pools.len(),
        inventory.blocks.len(),
        inventory.handles.len(),
        inventory.nodes.len(),
        allocations.len(),
        inventory.used.len(),
    );
    if all {
        for allocation in &allocations {
            let users = inventory.used.get(&allocation.address);
            let users = users.map_or_else(|| "nobody".to_owned(), |users| users.join(", "));
            out.push_str(&format!("  {} in use by {users}\n", allocation.address));
        }
    }
    for finding in findings {
        out.push_str(&format!("  {}\n", line(finding)));
    }
    if findings.is_empty() {
        out.push_str("Check complete; found no problems.\n");
    }
    out
}

fn line(finding: &Finding) -> String {
    match finding {
        Finding::NotInUse(allocation) => {
            let handle = allocation.handle.as_deref().unwrap_or("no handle");
            let node = allocation
                .owner
                .get("node")
                .map_or("no node", String::as_str);
            format!(
                "{} is assigned ({handle}, {node}), but nobody uses it",
                allocation.address
            )
        }
        Finding::NotAllocated { address, users } => {
            format!(
                "{address} is used by {}, but not assigned",
                users.join(", ")
            )
        }
        Finding::Duplicate { address, users } => {
            format!("{address} is used by several: {}", users.join(", "))
        }
        Finding::OutsidePools { address, users } => {
            format!(
                "{address} is used by {}, but lies in no pool",
                users.join(", ")
            )
        }
        Finding::HandleCount {
            handle,
            block,
            said,
            held,
        } => {
            format!("handle {handle} claims {said} addresses of {block}, and has {held}")
        }
        Finding::HandleMissing { handle, addresses } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("handle {handle} of {} does not exist", addresses.join(", "))
        }
        Finding::BlockFault { block, fault } => format!("block {block}: {fault}"),
        Finding::BlockOutsidePools { block } => format!("block {block} lies in no pool"),
        Finding::AffinityWithoutBlock { owner, block } => {
            format!("{owner} claims block {block}, which does not exist or belongs to another")
        }
        Finding::BlockWithoutAffinity { owner, block } => {
            format!("block {block} belongs to {owner}, which does not claim it")
        }
        Finding::OrphanBlock { node, block } => {
            format!("block {block} belongs to node {node}, which does not exist")
        }
        Finding::Unreadable { key, reason } => format!("{key} cannot be read: {reason}"),
    }
}

/// What the datastore says of the cluster.
pub(super) async fn information<S: Store>(client: &Client<'_, S, SystemStamps>) -> Result<Value> {
    let found: Result<ClusterInformation, _> =
        client.get(Kind::ClusterInformation, None, "default").await;
    match found {
        Ok(information) => Ok(output::value(&information, false)?),
        Err(ResourceError::DoesNotExist { .. }) => Ok(json!({})),
        Err(error) => Err(error.into()),
    }
}

/// What was found, for machines.
pub(super) async fn report<S: Store>(
    client: &Client<'_, S, SystemStamps>,
    stock: &Stock,
    findings: &[Finding],
) -> Result<String> {
    let information = information(client).await?;
    let allocations: Vec<Allocation> = audit::allocations(&stock.inventory.blocks).collect();
    let report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "clusterGUID": information["spec"]["clusterGUID"],
        "datastoreLocked": information["spec"]["datastoreReady"] == false,
        "allocations": allocations,
        "findings": findings,
    });
    serde_json::to_string_pretty(&report).context("writing JSON")
}
