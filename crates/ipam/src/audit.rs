//! How full pools are, and whether blocks, handles, affinities and endpoints agree. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_model::ipam::{Affinity, AffinityState, Block, Handle};
use margay_model::key::Owner;
use margay_model::{Cidr, Key};
use serde::Serialize;

use crate::pool::Pool;
use crate::reservation::Reservations;
use crate::{block, handle};

/// How full a range is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The pool's or block's prefix.
    pub cidr: Cidr,
    /// Number of addresses.
    pub total: u128,
    /// Assigned addresses.
    pub in_use: u128,
    /// Reserved addresses.
    pub reserved: u128,
    /// For a block, its owner (`host:<node>`), and for a pool its name.
    pub owner: Option<String>,
    /// The pool's blocks, in address order; empty for a block.
    pub blocks: Vec<Self>,
}

impl Usage {
    /// Addresses that can still be assigned.
    pub fn free(&self) -> u128 {
        self.total.saturating_sub(self.in_use)
    }
}

/// An address used by another node than the one its block belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Borrowed {
    /// The address.
    pub address: IpAddr,
    /// Its block.
    pub block: Cidr,
    /// The block's owner (`host:<node>`), if any.
    pub owner: Option<String>,
    /// The node that uses it.
    pub borrower: String,
    /// Its handle.
    pub handle: Option<String>,
}

/// An allocated address, with whom it was allocated for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allocation {
    /// The address.
    pub address: IpAddr,
    /// Its block.
    pub block: Cidr,
    /// Its handle.
    pub handle: Option<String>,
    /// Owner facts.
    pub owner: BTreeMap<String, String>,
    /// The sequence number at which it was assigned.
    pub sequence_number: Option<u64>,
}

/// Everything a check needs.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Pools.
    pub pools: Vec<Pool>,
    /// Blocks that could be read.
    pub blocks: Vec<Block>,
    /// Handles by id.
    pub handles: BTreeMap<String, Handle>,
    /// Affinities.
    pub affinities: Vec<(Owner, Cidr, Affinity)>,
    /// Addresses that somebody uses, with a description of the user: endpoints, and nodes' tunnels.
    pub used: BTreeMap<IpAddr, Vec<String>>,
    /// Names of the nodes.
    pub nodes: BTreeSet<String>,
    /// Objects that could not be read, with the reason.
    pub unreadable: Vec<(Key, String)>,
}

/// One thing that does not agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "camelCase")]
pub enum Finding {
    /// Assigned, but nobody uses it: a leak.
    NotInUse(Allocation),
    /// Used, but not assigned: it may be given to somebody else.
    NotAllocated {
        /// The address.
        address: IpAddr,
        /// Who uses it.
        users: Vec<String>,
    },
    /// Used by several.
    Duplicate {
        /// The address.
        address: IpAddr,
        /// Who uses it.
        users: Vec<String>,
    },
    /// Used, but in no pool.
    OutsidePools {
        /// The address.
        address: IpAddr,
        /// Who uses it.
        users: Vec<String>,
    },
    /// A handle names a block in which it holds another number of addresses.
    HandleCount {
        /// The handle.
        handle: String,
        /// The block.
        block: Cidr,
        /// What the handle says.
        said: u64,
        /// What the block says.
        held: u64,
    },
    /// Addresses carry a handle that does not exist.
    HandleMissing {
        /// The handle.
        handle: String,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// A block breaks its own rules.
    BlockFault {
        /// The block.
        block: Cidr,
        /// What is wrong.
        fault: String,
    },
    /// A block lies in no pool.
    BlockOutsidePools {
        /// The block.
        block: Cidr,
    },
    /// A confirmed affinity has no block, or a block of another owner.
    AffinityWithoutBlock {
        /// Whose affinity.
        owner: String,
        /// The block.
        block: Cidr,
    },
    /// A block's owner has no affinity for it.
    BlockWithoutAffinity {
        /// The block's owner.
        owner: String,
        /// The block.
        block: Cidr,
    },
    /// A block belongs to a node that does not exist.
    OrphanBlock {
        /// The node.
        node: String,
        /// The block.
        block: Cidr,
    },
    /// An object cannot be read.
    Unreadable {
        /// Its key.
        key: String,
        /// Why.
        reason: String,
    },
}

/// Usage of every pool, in order, and of blocks that lie in none (under the owner `None`).
pub fn usage(pools: &[Pool], blocks: &[Block], reserved: &Reservations) -> Vec<Usage> {
    pools
        .iter()
        .map(|pool| {
            let mut within: Vec<Usage> = blocks
                .iter()
                .filter(|block| pool.cidr.covers(&block.cidr))
                .map(|block| Usage {
                    cidr: block.cidr,
                    total: block.cidr.size(),
                    in_use: block.allocations.iter().flatten().count() as u128,
                    reserved: reserved.count_within(&block.cidr),
                    owner: block.affinity.clone(),
                    blocks: Vec::new(),
                })
                .collect();
            within.sort_by_key(|usage| usage.cidr);
            Usage {
                cidr: pool.cidr,
                total: pool.cidr.size(),
                in_use: within.iter().map(|usage| usage.in_use).sum(),
                reserved: reserved.count_within(&pool.cidr),
                owner: Some(pool.name.clone()),
                blocks: within,
            }
        })
        .collect()
}

/// Addresses used by other nodes than those their blocks belong to.
pub fn borrowed(blocks: &[Block]) -> Vec<Borrowed> {
    let mut borrowed = Vec::new();
    for held in blocks {
        for (address, attribute) in block::allocated(held) {
            let Some(node) = attribute.secondary.get("node") else {
                continue;
            };
            let owner = Owner::Host(node.clone()).affinity();
            if held.affinity.as_deref() != Some(owner.as_str()) {
                borrowed.push(Borrowed {
                    address,
                    block: held.cidr,
                    owner: held.affinity.clone(),
                    borrower: node.clone(),
                    handle: attribute.handle_id.clone(),
                });
            }
        }
    }
    borrowed
}

/// All allocations, in address order within each block.
pub fn allocations(blocks: &[Block]) -> impl Iterator<Item = Allocation> {
    blocks.iter().flat_map(|held| {
        block::allocated(held)
            .filter(|(_, attribute)| attribute.released_at.is_none())
            .map(|(address, attribute)| Allocation {
                address,
                block: held.cidr,
                handle: attribute.handle_id.clone(),
                owner: attribute.secondary.clone(),
                sequence_number: held.cidr.offset(address).and_then(|ordinal| {
                    held.sequence_number_for_allocation
                        .get(&ordinal.to_string())
                        .copied()
                }),
            })
    })
}

/// Everything that does not agree, in a fixed order.
pub fn check(inventory: &Inventory) -> Vec<Finding> {
    let mut findings: Vec<Finding> = inventory
        .unreadable
        .iter()
        .map(|(key, reason)| Finding::Unreadable {
            key: key.to_string(),
            reason: reason.clone(),
        })
        .collect();
    check_addresses(inventory, &mut findings);
    check_handles(inventory, &mut findings);
    check_blocks(inventory, &mut findings);
    findings
}

fn check_addresses(inventory: &Inventory, findings: &mut Vec<Finding>) {
    let mut allocated = BTreeSet::new();
    for allocation in allocations(&inventory.blocks) {
        allocated.insert(allocation.address);
        if !inventory.used.contains_key(&allocation.address) && !is_windows_reserve(&allocation) {
            findings.push(Finding::NotInUse(allocation));
        }
    }
    for (address, users) in &inventory.used {
        let (address, users) = (*address, users.clone());
        if users.len() > 1 {
            findings.push(Finding::Duplicate {
                address,
                users: users.clone(),
            });
        }
        if !inventory
            .pools
            .iter()
            .any(|pool| pool.cidr.contains(address))
        {
            findings.push(Finding::OutsidePools { address, users });
        } else if !allocated.contains(&address) {
            findings.push(Finding::NotAllocated { address, users });
        }
    }
}

fn check_handles(inventory: &Inventory, findings: &mut Vec<Finding>) {
    let mut held: BTreeMap<(String, Cidr), u64> = BTreeMap::new();
    let mut homeless: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for allocation in allocations(&inventory.blocks) {
        let Some(id) = allocation.handle.as_deref().map(handle::id) else {
            continue;
        };
        *held.entry((id.to_owned(), allocation.block)).or_default() += 1;
        if !inventory.handles.contains_key(id) {
            homeless
                .entry(id.to_owned())
                .or_default()
                .push(allocation.address);
        }
    }
    for (handle, addresses) in homeless {
        findings.push(Finding::HandleMissing { handle, addresses });
    }
    for (id, counted) in &inventory.handles {
        for cidr in handle::blocks(counted) {
            let said = counted
                .block
                .get(&cidr.to_string())
                .copied()
                .unwrap_or_default();
            let held = held.get(&(id.clone(), cidr)).copied().unwrap_or_default();
            if said != held {
                findings.push(Finding::HandleCount {
                    handle: id.clone(),
                    block: cidr,
                    said,
                    held,
                });
            }
        }
    }
}

fn check_blocks(inventory: &Inventory, findings: &mut Vec<Finding>) {
    let claims: BTreeSet<(String, Cidr)> = inventory
        .affinities
        .iter()
        .map(|(owner, cidr, _)| (owner.affinity(), *cidr))
        .collect();
    let owned: BTreeSet<(String, Cidr)> = inventory
        .blocks
        .iter()
        .filter_map(|held| Some((held.affinity.clone()?, held.cidr)))
        .collect();
    for held in &inventory.blocks {
        findings.extend(
            block::faults(held)
                .into_iter()
                .map(|fault| Finding::BlockFault {
                    block: held.cidr,
                    fault,
                }),
        );
        if !inventory
            .pools
            .iter()
            .any(|pool| pool.cidr.covers(&held.cidr))
        {
            findings.push(Finding::BlockOutsidePools { block: held.cidr });
        }
        let Some(owner) = &held.affinity else {
            continue;
        };
        if !claims.contains(&(owner.clone(), held.cidr)) {
            findings.push(Finding::BlockWithoutAffinity {
                owner: owner.clone(),
                block: held.cidr,
            });
        }
        if let Some(Owner::Host(node)) = Owner::from_affinity(owner)
            && !inventory.nodes.contains(&node)
        {
            findings.push(Finding::OrphanBlock {
                node,
                block: held.cidr,
            });
        }
    }
    for (owner, cidr, affinity) in &inventory.affinities {
        if affinity.state == AffinityState::Confirmed && !owned.contains(&(owner.affinity(), *cidr))
        {
            findings.push(Finding::AffinityWithoutBlock {
                owner: owner.affinity(),
                block: *cidr,
            });
        }
    }
}

fn is_windows_reserve(allocation: &Allocation) -> bool {
    allocation.handle.as_deref() == Some("windows-reserved-ipam-handle")
}
