//! What is held under a container's handle, and what is held for nobody.

use std::net::IpAddr;

use margay_cni::error::{Error, code};
use margay_cni::{Attachment, ValidAttachments};
use margay_ipam_core::audit::{Allocation, allocations};
use margay_ipam_core::{Allocator, NoCompanion, Release, block, handle};
use margay_journal::Quarantine;
use margay_model::ipam::{Block, Handle};
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::time::Timestamp;
use margay_model::{Key, Kind, Prefix};
use margay_plugin::{Level, log};
use margay_store::{Answer, Read, Store};

use crate::{from_ipam, from_store};

/// Checks that each address is assigned, and under this handle; `answer` is what the handle's key holds.
///
/// # Errors
/// Code 111 for the first address that is not.
pub async fn check_addresses<S: Store>(
    store: &S,
    id: &str,
    answer: Option<Answer>,
    addresses: &[IpAddr],
) -> Result<(), Error> {
    let failed = |what: String| Error::new(code::CHECK_FAILED, what);
    let entry = answer
        .and_then(Answer::into_entry)
        .ok_or_else(|| failed(format!("handle {id} holds no address")))?;
    let counted: Handle = serde_json::from_slice(&entry.value)
        .map_err(|error| failed(format!("{} is damaged: {error}", entry.key)))?;
    let reads = handle::blocks(&counted)
        .map(|cidr| Read::Get(Key::Block(cidr)))
        .collect();
    let blocks = read_blocks(store, reads).await?;
    for address in addresses {
        let held = blocks
            .iter()
            .find_map(|held| block::attribute(held, *address));
        let holder = held
            .and_then(|attribute| attribute.handle_id.as_deref())
            .map(handle::id);
        if holder != Some(id) {
            let holder = holder.unwrap_or("nobody");
            return Err(failed(format!(
                "address {address} is assigned to {holder}, not to {id}"
            )));
        }
    }
    Ok(())
}

/// Endpoints of workloads on a node, as far as they can be read.
///
/// # Errors
/// The store cannot be read.
pub async fn recorded<S: Store>(store: &S, node: &str) -> Result<Vec<WorkloadEndpoint>, Error> {
    let page = store
        .list(&Prefix::Resources(Kind::WorkloadEndpoint))
        .await
        .map_err(|error| from_store(&error))?;
    let entries = page.entries.iter();
    Ok(entries
        .filter_map(|entry| WorkloadEndpoint::decode(&entry.value).ok())
        .filter(|endpoint| endpoint.spec.node.as_deref() == Some(node))
        .collect())
}

/// The attachment that an endpoint records; `None` where it is no container's.
pub fn attachment_of(endpoint: &WorkloadEndpoint) -> Option<Attachment> {
    Some(Attachment {
        container_id: endpoint.spec.container_id.clone()?,
        ifname: endpoint.spec.endpoint.clone()?,
    })
}

/// Gives back what is held on the node for containers of the network that are not on the list, newcomers
/// excepted. Goes on after failures and returns them.
///
/// # Errors
/// The store cannot be read.
pub async fn give_back_leaks<S: Store>(
    store: &S,
    node: &str,
    network: &str,
    valid: &ValidAttachments,
    began: Timestamp,
    quarantine: &Quarantine,
) -> Result<Vec<Error>, Error> {
    let mut failures = Vec::new();
    for allocation in held(store).await? {
        if is_leaked(&allocation, node, network, valid, began) {
            match give_back(store, node, &allocation, began).await {
                Ok(addresses) => quarantine.admit(&addresses),
                Err(failed) => failures.push(failed),
            }
        }
    }
    Ok(failures)
}

/// Whether something assigned then is old enough not to belong to a call that runs beside this one.
pub fn is_old(at: Timestamp, began: Timestamp) -> bool {
    at.seconds + NEWCOMER <= began.seconds
}

/// What all blocks hold: an address may be borrowed from another node's block, and a block may be nobody's.
async fn held<S: Store>(store: &S) -> Result<Vec<Allocation>, Error> {
    let page = store.list(&Prefix::Blocks).await;
    let entries = page.map_err(|error| from_store(&error))?.entries;
    let blocks = entries
        .iter()
        .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
        .collect::<Vec<Block>>();
    Ok(allocations(&blocks).collect())
}

async fn read_blocks<S: Store>(store: &S, reads: Vec<Read>) -> Result<Vec<Block>, Error> {
    let mut blocks = Vec::new();
    for reads in reads.chunks(margay_store::MAX_OPS) {
        let snapshot = store
            .read_many(reads)
            .await
            .map_err(|error| from_store(&error))?;
        let entries = snapshot.answers.into_iter().filter_map(Answer::into_entry);
        blocks
            .extend(entries.filter_map(|entry| serde_json::from_slice::<Block>(&entry.value).ok()));
    }
    Ok(blocks)
}

/// Whether an address is held for a container of the network that is on no list.
fn is_leaked(
    allocation: &Allocation,
    node: &str,
    network: &str,
    valid: &ValidAttachments,
    began: Timestamp,
) -> bool {
    let Some(container) = container_of(allocation, network) else {
        return false;
    };
    let ifname = allocation
        .owner
        .get("ifname")
        .map_or("eth0", String::as_str);
    let at = allocation
        .owner
        .get("timestamp")
        .and_then(|text| Timestamp::parse_go_string(text));
    allocation.owner.get("node").map(String::as_str) == Some(node)
        && !valid.keeps(container, ifname)
        && at.is_some_and(|at| is_old(at, began))
}

async fn give_back<S: Store>(
    store: &S,
    node: &str,
    allocation: &Allocation,
    now: Timestamp,
) -> Result<Vec<IpAddr>, Error> {
    let handle = allocation.handle.clone().unwrap_or_default();
    log(
        Level::Info,
        &format!("GC gives back {} of {handle}", allocation.address),
    );
    let ifname = allocation
        .owner
        .get("ifname")
        .map_or("eth0", String::as_str);
    let request = Release {
        node: node.to_owned(),
        handle,
        interface: Some(ifname.to_owned()),
        timestamp: None,
        hints: vec![allocation.block],
        now,
    };
    let released = Allocator::new(store)
        .release(&request, &mut NoCompanion)
        .await;
    released
        .map(|released| released.addresses)
        .map_err(|error| from_ipam(&error))
}

fn container_of<'a>(allocation: &'a Allocation, network: &str) -> Option<&'a str> {
    let rest = allocation.handle.as_deref()?.strip_prefix(network)?;
    rest.strip_prefix('.')
}

/// Seconds for which something assigned is left alone.
const NEWCOMER: u64 = 60;
