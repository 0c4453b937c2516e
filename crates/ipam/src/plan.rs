//! What to read next, or what to write: the allocator's decisions, without I/O.
//!
//! A [`View`] holds what has been read in this attempt. [`next`] either names reads that are still
//! missing, or the one batch that assigns everything asked for, or the reason why nothing can be had.

pub mod draft;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_model::ipam::AffinityState;
use margay_model::key::Owner;
use margay_model::resource::pool::AllowedUse;
use margay_model::time::Timestamp;
use margay_model::{Cidr, Family, Key, Prefix};
use margay_store::{Read, Write};

use crate::allocator::{Assigned, Want};
use crate::error::{IpamError, PoolRefusal, Refusal};
use crate::pool::{Chooser, Pool};
use crate::{block, candidates, handle};
use draft::Draft;
use view::{Slot, View};

/// Who wants addresses, and which.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    /// Node that will own what is claimed.
    pub node: &'a str,
    /// Handle under which the addresses can be given back.
    pub handle: &'a str,
    /// Interface in the container.
    pub interface: &'a str,
    /// Owner facts stored with each address (`node`, `timestamp`, `pod`, `namespace`, …).
    pub owner: &'a BTreeMap<String, String>,
    /// The addresses wanted; all are assigned, or none.
    pub wants: &'a [Want],
    /// What they are for.
    pub purpose: AllowedUse,
    /// Most blocks per family the node may have, beside the cluster's limit.
    pub max_blocks: Option<u32>,
    /// Labels of the workload's namespace, where there is one that has labels.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
    /// Addresses that were given back lately, to be used last.
    pub quarantine: &'a BTreeSet<IpAddr>,
    /// The time.
    pub now: Timestamp,
}

/// A decision.
#[derive(Clone, Debug)]
pub enum Step {
    /// These reads are missing.
    Read(Vec<Read>),
    /// This batch does it.
    Commit(Commit),
    /// It cannot be done.
    Fail(IpamError),
}

/// A batch, and what it gives.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The writes, ordered so that each prefix of them is a safe state.
    pub writes: Vec<Write>,
    /// Those of the writes that only make blocks the node's own, without an address taken from them; empty
    /// where it needs no further block.
    pub claim: Vec<Write>,
    /// The addresses, in the order of the wants.
    pub assigned: Vec<Assigned>,
    /// The node's blocks from which it took addresses now, to be read first the next time.
    pub own_blocks: Vec<Cidr>,
}

/// The reads that every assignment begins with. `hints` are blocks that will likely be needed.
pub fn first_reads(demand: &Demand<'_>, hints: &[Cidr]) -> Vec<Read> {
    let owner = Owner::Host(demand.node.to_owned());
    let mut reads = view::common_reads(demand.node, demand.handle);
    for family in [Family::V4, Family::V6] {
        if demand.wants.iter().any(|want| want.family() == family) {
            reads.push(Read::List(Prefix::AffinitiesOf(owner.clone(), family)));
        }
    }
    reads.extend(
        hints
            .iter()
            .take(MOST_HINTS)
            .map(|cidr| Read::Get(Key::Block(*cidr))),
    );
    reads
}

/// Decides.
pub fn next(view: &View, demand: &Demand<'_>) -> Step {
    if view.node_labels.is_none() {
        return Step::Fail(IpamError::UnknownNode {
            node: demand.node.to_owned(),
        });
    }
    let mut draft = Draft::new(view, demand);
    if let Some(reads) = unread_of_handle(view) {
        return Step::Read(reads);
    }
    for want in demand.wants {
        if draft.adopt(want) {
            continue;
        }
        let placed = match want {
            Want::Exact(address) => exact(view, demand, &mut draft, *address),
            Want::Auto { family, pools } => auto(view, demand, &mut draft, *family, pools),
        };
        match placed {
            Ok(()) => {}
            Err(Stop::Read(reads)) => return Step::Read(reads),
            Err(Stop::Fail(error)) => return Step::Fail(error),
        }
    }
    match draft.finish() {
        Ok(commit) => Step::Commit(commit),
        Err(error) => Step::Fail(error),
    }
}

enum Stop {
    Read(Vec<Read>),
    Fail(IpamError),
}

/// The blocks that the handle names and that have not been read: they may hold what is wanted already.
fn unread_of_handle(view: &View) -> Option<Vec<Read>> {
    let (held, _) = view.handle.as_ref()?;
    let reads: Vec<Read> = handle::blocks(held)
        .filter(|cidr| matches!(view.slot(*cidr), Slot::Unknown | Slot::Present))
        .map(|cidr| Read::Get(Key::Block(cidr)))
        .take(READ_AT_ONCE)
        .collect();
    (!reads.is_empty()).then_some(reads)
}

/// Assigns one particular address. Its block is claimed for the node when it does not exist yet.
fn exact(
    view: &View,
    demand: &Demand<'_>,
    draft: &mut Draft<'_>,
    address: IpAddr,
) -> Result<(), Stop> {
    let holding: Vec<&Pool> = view
        .pools
        .iter()
        .filter(|pool| pool.cidr.contains(address))
        .collect();
    let usable = holding
        .iter()
        .find(|pool| pool.refusal_when_asked(demand.purpose).is_none());
    let Some(pool) = usable else {
        let refusals = holding
            .iter()
            .filter_map(|pool| Some(pool.refuse(pool.refusal_when_asked(demand.purpose)?)))
            .collect();
        return Err(Stop::Fail(IpamError::AddressInNoPool { address, refusals }));
    };
    let Some(cidr) = pool.block_of(address) else {
        return Err(Stop::Fail(IpamError::AddressInNoPool {
            address,
            refusals: Vec::new(),
        }));
    };
    match draft.slot(cidr) {
        Slot::Unknown | Slot::Present => {
            return Err(Stop::Read(vec![Read::Get(Key::Block(cidr))]));
        }
        Slot::Damaged(reason) => {
            return Err(Stop::Fail(IpamError::Damaged {
                key: Box::new(Key::Block(cidr)),
                reason,
            }));
        }
        Slot::Absent => draft.claim(cidr),
        Slot::Read(held) if view.config.strict_affinity && !draft.is_own(&held) => {
            let owner = held.affinity.unwrap_or_else(|| "nobody".to_owned());
            return Err(Stop::Fail(IpamError::ForeignBlock {
                address,
                block: cidr,
                owner,
            }));
        }
        Slot::Read(_) => draft.confirm(cidr),
    }
    if draft.assign_exact(cidr, address, &pool.name) {
        return Ok(());
    }
    let holder = draft.holder(cidr, address);
    Err(Stop::Fail(IpamError::AddressTaken { address, holder }))
}

/// Assigns any address of the family.
fn auto(
    view: &View,
    demand: &Demand<'_>,
    draft: &mut Draft<'_>,
    family: Family,
    asked: &[String],
) -> Result<(), Stop> {
    let (pools, mut refusals) = eligible(view, demand, family, asked).map_err(Stop::Fail)?;
    let fail = |refusals: Vec<PoolRefusal>| {
        let node = demand.node.to_owned();
        Err(Stop::Fail(IpamError::NoAddress {
            family,
            node,
            refusals,
        }))
    };
    if pools.is_empty() {
        return fail(refusals);
    }
    if from_own_blocks(view, draft, family, &pools, |draft, cidr, pool| {
        draft.assign_rested(cidr, pool)
    })? {
        return Ok(());
    }
    let limit = block_limit(view, demand);
    if !demand.quarantine.is_empty() {
        // Rather a fresh block than an address that was just given back; but where none is found at first
        // sight, the pool is nearly used up.
        let may_claim = view.config.auto_allocate_blocks;
        if may_claim && draft.own_blocks(family) < limit as usize {
            for pool in &pools {
                if let Some(cidr) = probed_block(view, demand, draft, pool)? {
                    draft.claim(cidr);
                    if draft.assign_next(cidr, &pool.name) {
                        return Ok(());
                    }
                }
            }
        }
        if from_own_blocks(view, draft, family, &pools, |draft, cidr, pool| {
            draft.assign_next(cidr, pool)
        })? {
            return Ok(());
        }
    }
    if draft.own_blocks(family) >= limit as usize {
        refusals.extend(
            pools
                .iter()
                .map(|pool| pool.refuse(Refusal::BlockLimit { limit })),
        );
        return fail(refusals);
    }
    let may_claim = view.config.auto_allocate_blocks;
    if may_claim {
        for pool in &pools {
            if let Some(cidr) = fresh_block(view, demand, draft, pool)? {
                draft.claim(cidr);
                if draft.assign_next(cidr, &pool.name) {
                    return Ok(());
                }
            }
        }
    }
    if from_foreign_blocks(view, demand, draft, family, &pools, may_claim)? {
        return Ok(());
    }
    refusals.extend(
        pools
            .iter()
            .map(|pool| pool.refuse(exhausted(view, pool, may_claim))),
    );
    fail(refusals)
}

fn exhausted(view: &View, pool: &Pool, may_claim: bool) -> Refusal {
    if !may_claim && view.config.strict_affinity {
        return Refusal::ClaimingDisabled;
    }
    if view.config.strict_affinity {
        return Refusal::Strict {
            blocks: pool.blocks(),
        };
    }
    Refusal::Full {
        addresses: pool.cidr.size(),
        reserved: view.reserved.count_within(&pool.cidr),
    }
}

/// The pools to use, in order, and why each other pool of the family is left out.
fn eligible<'v>(
    view: &'v View,
    demand: &Demand<'_>,
    family: Family,
    asked: &[String],
) -> Result<(Vec<&'v Pool>, Vec<PoolRefusal>), IpamError> {
    let of_family: Vec<&Pool> = view
        .pools
        .iter()
        .filter(|pool| pool.cidr.family() == family)
        .collect();
    let mut refusals = Vec::new();
    let mut chosen = Vec::new();
    if !asked.is_empty() {
        for text in asked {
            let found = of_family
                .iter()
                .find(|pool| names(pool, text))
                .ok_or_else(|| IpamError::NoSuchPool {
                    asked: text.clone(),
                    known: of_family
                        .iter()
                        .map(|pool| format!("{} ({})", pool.name, pool.cidr))
                        .collect(),
                })?;
            match found.refusal_when_asked(demand.purpose) {
                Some(refusal) => refusals.push(found.refuse(refusal)),
                None => chosen.push(*found),
            }
        }
        for pool in of_family {
            if !asked.iter().any(|text| names(pool, text)) {
                refusals.push(pool.refuse(Refusal::NotRequested));
            }
        }
        return Ok((chosen, refusals));
    }
    let no_labels = BTreeMap::new();
    let chooser = Chooser {
        node_labels: view.node_labels.as_ref().unwrap_or(&no_labels),
        namespace_labels: demand.namespace_labels,
        purpose: demand.purpose,
    };
    for pool in of_family {
        match pool.refusal(&chooser) {
            Some(refusal) => refusals.push(pool.refuse(refusal)),
            None => chosen.push(pool),
        }
    }
    Ok((chosen, refusals))
}

fn names(pool: &Pool, text: &str) -> bool {
    pool.name == text || text.contains('/') && text.parse() == Ok(pool.cidr)
}

/// Takes an address, by `assign`, from a block the node has already. Blocks that have been read come first; the others
/// are asked for only when those are full.
fn from_own_blocks(
    view: &View,
    draft: &mut Draft<'_>,
    family: Family,
    pools: &[&Pool],
    assign: impl Fn(&mut Draft<'_>, Cidr, &str) -> bool,
) -> Result<bool, Stop> {
    let mut own: Vec<(Cidr, &Pool)> = Vec::new();
    for pool in pools {
        own.extend(
            draft
                .own(family)
                .filter(|cidr| pool.cidr.covers(cidr) && !view.reserved.excludes(cidr))
                .map(|cidr| (cidr, *pool)),
        );
    }
    let mut unread = Vec::new();
    for (cidr, pool) in &own {
        match draft.slot(*cidr) {
            Slot::Unknown | Slot::Present => unread.push(Read::Get(Key::Block(*cidr))),
            Slot::Read(block) if !draft.is_own(&block) => draft.drop_stale(*cidr),
            Slot::Read(_) => {
                if assign(draft, *cidr, &pool.name) {
                    draft.confirm(*cidr);
                    return Ok(true);
                }
            }
            Slot::Absent | Slot::Damaged(_) => {}
        }
    }
    if !unread.is_empty() {
        unread.truncate(READ_AT_ONCE);
        return Err(Stop::Read(unread));
    }
    // An affinity whose block was never made: make it now.
    for (cidr, pool) in own {
        if matches!(draft.slot(cidr), Slot::Absent) && view.config.auto_allocate_blocks {
            draft.claim(cidr);
            if draft.assign_next(cidr, &pool.name) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A block of the pool that does not exist, among the few that are probed, from a place that depends on the
/// node.
fn probed_block(
    view: &View,
    demand: &Demand<'_>,
    draft: &Draft<'_>,
    pool: &Pool,
) -> Result<Option<Cidr>, Stop> {
    let mut unknown = Vec::new();
    let range = view.reserved.range_within(pool.cidr, pool.block_size);
    for cidr in candidates::blocks(range, pool.block_size, demand.node).take(PROBES) {
        match draft.slot(cidr) {
            Slot::Absent => return Ok(Some(cidr)),
            Slot::Unknown => unknown.push(Read::Exists(Key::Block(cidr))),
            Slot::Present | Slot::Read(_) | Slot::Damaged(_) => {}
        }
    }
    if unknown.is_empty() {
        return Ok(None);
    }
    Err(Stop::Read(unknown))
}

/// A block of the pool that does not exist. Only when all that are probed exist are the keys of all blocks
/// read, never their values.
fn fresh_block(
    view: &View,
    demand: &Demand<'_>,
    draft: &Draft<'_>,
    pool: &Pool,
) -> Result<Option<Cidr>, Stop> {
    let family = pool.cidr.family();
    if let Some(cidr) = probed_block(view, demand, draft, pool)? {
        return Ok(Some(cidr));
    }
    if pool.blocks() <= PROBES as u128 {
        return Ok(None);
    }
    if !view.keys_known(family) {
        return Err(Stop::Read(vec![Read::Keys(Prefix::BlocksOf(family))]));
    }
    let range = view.reserved.range_within(pool.cidr, pool.block_size);
    Ok(candidates::blocks(range, pool.block_size, demand.node)
        .find(|cidr| matches!(draft.slot(*cidr), Slot::Absent)))
}

/// Takes over an empty block of another node, or else borrows an address where that is allowed.
fn from_foreign_blocks(
    view: &View,
    demand: &Demand<'_>,
    draft: &mut Draft<'_>,
    family: Family,
    pools: &[&Pool],
    may_claim: bool,
) -> Result<bool, Stop> {
    if !view.keys_known(family) {
        return Err(Stop::Read(vec![Read::Keys(Prefix::BlocksOf(family))]));
    }
    let mut foreign = Vec::new();
    for pool in pools {
        let within: Vec<Cidr> = view
            .existing(family)
            .filter(|cidr| pool.cidr.covers(cidr) && !view.reserved.excludes(cidr))
            .collect();
        if within.is_empty() {
            continue;
        }
        let first = candidates::blocks(pool.cidr, pool.block_size, demand.node).next();
        let turn = within
            .iter()
            .position(|cidr| Some(*cidr) >= first)
            .unwrap_or_default();
        foreign.extend(
            within[turn..]
                .iter()
                .chain(&within[..turn])
                .map(|cidr| (*cidr, *pool)),
        );
    }
    let unread: Vec<Read> = foreign
        .iter()
        .filter(|(cidr, _)| matches!(draft.slot(*cidr), Slot::Present | Slot::Unknown))
        .map(|(cidr, _)| Read::Get(Key::Block(*cidr)))
        .take(READ_AT_ONCE)
        .collect();
    if !unread.is_empty() {
        return Err(Stop::Read(unread));
    }
    let mut borrowable = None;
    for (cidr, pool) in foreign {
        let Slot::Read(held) = draft.slot(cidr) else {
            continue;
        };
        if draft.is_own(&held) {
            continue;
        }
        if may_claim && block::is_empty(&held) && claimed_long_ago(&held, demand.now) {
            let owner = held.affinity.as_deref().and_then(Owner::from_affinity);
            if matches!(owner, Some(Owner::Virtual(_))) {
                continue;
            }
            if let Some(owner) = owner {
                let key = Key::Affinity(owner, cidr);
                let Some(revision) = view.foreign_affinity(&key) else {
                    return Err(Stop::Read(vec![Read::Get(key)]));
                };
                draft.take_over(cidr, Some((key, revision)));
            } else {
                draft.take_over(cidr, None);
            }
            if draft.assign_next(cidr, &pool.name) {
                return Ok(true);
            }
            continue;
        }
        if borrowable.is_none() && block::has_room(&held, &view.reserved) {
            borrowable = Some((cidr, pool));
        }
    }
    match borrowable {
        Some((cidr, pool)) if !view.config.strict_affinity => {
            Ok(draft.assign_next(cidr, &pool.name))
        }
        _ => Ok(false),
    }
}

/// Whether an empty block was claimed so long ago that its owner has surely given up using it at once.
fn claimed_long_ago(block: &margay_model::ipam::Block, now: Timestamp) -> bool {
    block
        .affinity_claim_time
        .as_deref()
        .and_then(Timestamp::parse_rfc3339)
        .is_none_or(|at| at.seconds + RECLAIM_AFTER <= now.seconds)
}

fn block_limit(view: &View, demand: &Demand<'_>) -> u32 {
    let cluster = Some(view.config.max_blocks_per_host).filter(|limit| *limit > 0);
    match (cluster, demand.max_blocks) {
        (Some(cluster), Some(request)) => cluster.min(request),
        (Some(limit), None) | (None, Some(limit)) => limit,
        (None, None) => DEFAULT_BLOCK_LIMIT,
    }
}

/// State in which an affinity counts: anything else is about to come or go.
pub(crate) fn is_confirmed(state: AffinityState) -> bool {
    state == AffinityState::Confirmed
}

const DEFAULT_BLOCK_LIMIT: u32 = 20;
const MOST_HINTS: usize = 32;
const PROBES: usize = 24;
const READ_AT_ONCE: usize = 48;
/// Seconds for which an empty block is left to the node that claimed it.
const RECLAIM_AFTER: u64 = 60;
