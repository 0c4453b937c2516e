//! Carries decisions out over a store: reads, one atomic batch, and again when others were faster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use margay_model::ipam::Attribute;
use margay_model::key::Owner;
use margay_model::resource::pool::AllowedUse;
use margay_model::time::Timestamp;
use margay_model::{Cidr, Family, Key};
use margay_store::{Answer, Batch, Outcome, Read, Snapshot, Store, StoreError, Write};

use crate::block;
use crate::error::IpamError;
use crate::plan::view::View;
use crate::plan::{self, Commit, Demand, Step};

/// An address wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Any address of a family.
    Auto {
        /// The family.
        family: Family,
        /// Names or prefixes of the only pools to use; empty for those whose selectors admit the node.
        pools: Vec<String>,
    },
    /// This address.
    Exact(IpAddr),
}

/// A request for addresses; all of them are assigned, or none.
#[derive(Clone, Debug)]
pub struct Request {
    /// Node that will own what is claimed.
    pub node: String,
    /// Handle under which the addresses can be given back.
    pub handle: String,
    /// Interface in the container. What the same handle and interface hold already is not assigned twice.
    pub interface: String,
    /// Owner facts beside `node` and `timestamp`, which are added: `pod`, `namespace`, …
    pub owner: BTreeMap<String, String>,
    /// The addresses wanted.
    pub wants: Vec<Want>,
    /// What they are for.
    pub purpose: AllowedUse,
    /// Most blocks per family the node may have, beside the cluster's limit.
    pub max_blocks: Option<u32>,
    /// Labels of the workload's namespace, where there is one that has labels.
    pub namespace_labels: Option<BTreeMap<String, String>>,
    /// Blocks that will likely be needed: they are read in the first round trip. Wrong hints cost a read.
    pub hints: Vec<Cidr>,
    /// Addresses that were given back lately: used only where they are asked for, or nothing else is left.
    pub quarantine: BTreeSet<IpAddr>,
    /// The time.
    pub now: Timestamp,
}

impl Request {
    /// The timestamp in the owner facts of what this request assigns, which tells it from what others assign.
    pub fn timestamp(&self) -> String {
        self.now.go_string()
    }
}

/// What an address may not be, beside what the cluster reserves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The only range of any pool from which one may come.
    pub within: Option<Cidr>,
    /// Addresses that somebody else is about to take.
    pub without: Vec<IpAddr>,
}

/// An address that was assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// Its block.
    pub block: Cidr,
    /// Name of its pool; empty when it lies in none any more.
    pub pool: String,
    /// Whether the handle held it before, for the same interface.
    pub held_before: bool,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// These addresses, in the order of the wants, were assigned in one commit with the companion's writes.
    Made {
        /// The addresses.
        assigned: Vec<Assigned>,
        /// Blocks to hint at the next time.
        hints: Vec<Cidr>,
    },
    /// The companion wanted none.
    Stopped,
}

/// Somebody whose reads and writes travel with those of an assignment or a release, so that an address
/// exists if and only if its endpoint does.
pub trait Companion {
    /// Errors of both.
    type Error: From<IpamError>;

    /// Keys to read in the first round trip.
    fn reads(&self) -> Vec<Read>;

    /// Sees what those reads found, once for every attempt; says whether to go on.
    ///
    /// # Errors
    /// What was found forbids to go on; nothing has been written then.
    fn inspect(&mut self, answers: &[Answer]) -> Result<Proceed, Self::Error>;

    /// Writes to commit together with these addresses' assignment (or release).
    ///
    /// # Errors
    /// Nothing has been written then.
    fn writes(&mut self, addresses: &[IpAddr]) -> Result<Vec<Write>, Self::Error>;
}

/// Whether an attempt goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proceed {
    /// It does.
    Go,
    /// There is nothing to do.
    Stop,
}

/// Nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCompanion;

/// The allocator over a store.
#[derive(Clone, Copy, Debug)]
pub struct Allocator<'s, S> {
    pub(crate) store: &'s S,
}

impl Companion for NoCompanion {
    type Error = IpamError;

    fn reads(&self) -> Vec<Read> {
        Vec::new()
    }

    fn inspect(&mut self, _answers: &[Answer]) -> Result<Proceed, IpamError> {
        Ok(Proceed::Go)
    }

    fn writes(&mut self, _addresses: &[IpAddr]) -> Result<Vec<Write>, IpamError> {
        Ok(Vec::new())
    }
}

impl Want {
    /// The family of the address wanted.
    pub fn family(&self) -> Family {
        match self {
            Self::Auto { family, .. } => *family,
            Self::Exact(address) => Family::of(*address),
        }
    }
}

impl<'s, S: Store> Allocator<'s, S> {
    /// An allocator over this store.
    pub fn new(store: &'s S) -> Self {
        Self { store }
    }

    /// Assigns addresses.
    ///
    /// # Errors
    /// [`IpamError`] in the companion's error type, or the companion's own; nothing has been assigned then,
    /// except after [`StoreError::Unknown`], when a release by the handle makes sure.
    pub async fn assign<C: Companion>(
        &self,
        request: &Request,
        companion: &mut C,
    ) -> Result<Assignment, C::Error> {
        let owner = owner_facts(request);
        let demand = demand(request, &owner);
        let mut attempts = Attempts::new(&request.node);
        loop {
            let mut view = View::default();
            let reads = plan::first_reads(&demand, &request.hints);
            if self.begin(&mut view, demand.node, reads, companion).await? == Proceed::Stop {
                return Ok(Assignment::Stopped);
            }
            loop {
                let commit = match plan::next(&view, &demand) {
                    Step::Fail(error) => return Err(error.into()),
                    Step::Commit(commit) => commit,
                    Step::Read(reads) => {
                        let snapshot = self
                            .store
                            .read_many(&reads)
                            .await
                            .map_err(IpamError::from)?;
                        absorb(&mut view, demand.node, &reads, snapshot)?;
                        continue;
                    }
                };
                let addresses: Vec<IpAddr> = commit
                    .assigned
                    .iter()
                    .map(|assigned| assigned.address)
                    .collect();
                let mut writes = commit.writes.clone();
                writes.extend(companion.writes(&addresses)?);
                let batch = Batch { writes };
                if batch.writes.is_empty() {
                    return Ok(Assignment::Made {
                        assigned: commit.assigned,
                        hints: commit.own_blocks,
                    });
                }
                match self.store.commit(&batch).await {
                    Ok(Outcome::Committed(_)) => {
                        return Ok(Assignment::Made {
                            assigned: commit.assigned,
                            hints: commit.own_blocks,
                        });
                    }
                    Ok(Outcome::Conflict(now)) => {
                        attempts.failed(&batch, &now).await?;
                        let mut known = true;
                        for (write, entry) in batch.writes.iter().zip(now) {
                            known &= view.absorb_entry(demand.node, &write.key, entry)?;
                        }
                        if !known {
                            break;
                        }
                    }
                    Err(error @ StoreError::Unknown { .. }) => {
                        if self.took_effect(&commit, &demand).await? {
                            return Ok(Assignment::Made {
                                assigned: commit.assigned,
                                hints: commit.own_blocks,
                            });
                        }
                        return Err(IpamError::from(error).into());
                    }
                    Err(error) => return Err(IpamError::from(error).into()),
                }
            }
        }
    }

    /// Whether [`Allocator::assign`] would succeed now, without writing anything. The companion is asked for its
    /// reads and its opinion, not for writes.
    ///
    /// # Errors
    /// What it would answer.
    pub async fn could_assign<C: Companion>(
        &self,
        request: &Request,
        companion: &mut C,
    ) -> Result<(), C::Error> {
        let owner = owner_facts(request);
        let demand = demand(request, &owner);
        let mut view = View::default();
        let reads = plan::first_reads(&demand, &request.hints);
        self.begin(&mut view, demand.node, reads, companion).await?;
        loop {
            match plan::next(&view, &demand) {
                Step::Fail(error) => return Err(error.into()),
                Step::Commit(_) => return Ok(()),
                Step::Read(reads) => {
                    let snapshot = self.store.read_many(&reads).await;
                    let snapshot = snapshot.map_err(IpamError::from)?;
                    absorb(&mut view, demand.node, &reads, snapshot)?;
                }
            }
        }
    }

    /// Chooses addresses as [`Allocator::assign`] would, and assigns none. Blocks are claimed where the node
    /// needs more, so that no other node is led to the same addresses: an [`Want::Exact`] of what was chosen then
    /// meets nobody but this node's other callers.
    ///
    /// # Errors
    /// As [`Allocator::assign`].
    pub async fn choose(
        &self,
        request: &Request,
        limits: &Limits,
    ) -> Result<Assignment, IpamError> {
        let owner = owner_facts(request);
        let demand = demand(request, &owner);
        let mut attempts = Attempts::new(&request.node);
        loop {
            let mut view = View::default();
            let reads = plan::first_reads(&demand, &request.hints);
            self.begin(&mut view, demand.node, reads, &mut NoCompanion)
                .await?;
            view.reserved = view.reserved.with(limits.without.iter().copied());
            if let Some(range) = limits.within {
                view.reserved = view.reserved.outside(range);
            }
            let commit = loop {
                match plan::next(&view, &demand) {
                    Step::Fail(error) => return Err(error),
                    Step::Commit(commit) => break commit,
                    Step::Read(reads) => {
                        let snapshot = self.store.read_many(&reads).await?;
                        absorb(&mut view, demand.node, &reads, snapshot)?;
                    }
                }
            };
            let batch = Batch {
                writes: commit.claim,
            };
            if !batch.writes.is_empty()
                && let Outcome::Conflict(now) = self.store.commit(&batch).await?
            {
                attempts.failed(&batch, &now).await?;
                continue;
            }
            return Ok(Assignment::Made {
                assigned: commit.assigned,
                hints: commit.own_blocks,
            });
        }
    }

    /// The first round trip: the allocator's reads and the companion's.
    pub(crate) async fn begin<C: Companion>(
        &self,
        view: &mut View,
        node: &str,
        mut reads: Vec<Read>,
        companion: &mut C,
    ) -> Result<Proceed, C::Error> {
        let own = reads.len();
        reads.extend(companion.reads());
        let mut snapshot = self
            .store
            .read_many(&reads)
            .await
            .map_err(IpamError::from)?;
        let theirs = snapshot.answers.split_off(own);
        absorb(view, node, &reads[..own], snapshot)?;
        companion.inspect(&theirs)
    }

    /// Whether a commit whose fate is unknown was applied: an owner's timestamp is as good as a nonce.
    async fn took_effect(&self, commit: &Commit, demand: &Demand<'_>) -> Result<bool, IpamError> {
        // What was held before tells nothing of this commit.
        let assigned = commit.assigned.iter();
        let made: Vec<&Assigned> = assigned.filter(|it| !it.held_before).collect();
        for assigned in &made {
            let Some(entry) = self.store.get(&Key::Block(assigned.block)).await? else {
                return Ok(false);
            };
            let Ok(block) = serde_json::from_slice(&entry.value) else {
                return Ok(false);
            };
            let ours = block::attribute(&block, assigned.address).is_some_and(|attribute| {
                attribute.handle_id.as_deref() == Some(demand.handle)
                    && attribute.secondary == *demand.owner
            });
            if !ours {
                return Ok(false);
            }
        }
        Ok(!made.is_empty())
    }
}

/// What is stored with each address.
fn owner_facts(request: &Request) -> BTreeMap<String, String> {
    let mut owner = request.owner.clone();
    owner.insert("node".to_owned(), request.node.clone());
    owner.insert(TIMESTAMP.to_owned(), request.timestamp());
    if request.interface != FIRST_INTERFACE {
        owner.insert(INTERFACE.to_owned(), request.interface.clone());
    }
    owner
}

fn demand<'a>(request: &'a Request, owner: &'a BTreeMap<String, String>) -> Demand<'a> {
    Demand {
        node: &request.node,
        handle: &request.handle,
        interface: &request.interface,
        owner,
        wants: &request.wants,
        purpose: request.purpose,
        max_blocks: request.max_blocks,
        namespace_labels: request.namespace_labels.as_ref(),
        quarantine: &request.quarantine,
        now: request.now,
    }
}

pub(crate) fn absorb(
    view: &mut View,
    node: &str,
    reads: &[Read],
    snapshot: Snapshot,
) -> Result<(), IpamError> {
    for (read, answer) in reads.iter().zip(snapshot.answers) {
        view.absorb(node, read, answer)?;
    }
    Ok(())
}

/// Counts lost races, and waits a little when there are many, each node for another while.
#[derive(Debug)]
pub(crate) struct Attempts {
    count: u32,
    seed: u64,
}

impl Attempts {
    pub(crate) fn new(node: &str) -> Self {
        let seed = Owner::Host(node.to_owned())
            .affinity()
            .bytes()
            .fold(7u64, |hash, byte| {
                hash.wrapping_mul(31).wrapping_add(u64::from(byte))
            });
        Self { count: 0, seed }
    }

    pub(crate) async fn failed(
        &mut self,
        batch: &Batch,
        now: &[Option<margay_store::Entry>],
    ) -> Result<(), IpamError> {
        self.count += 1;
        if self.count >= MOST_ATTEMPTS {
            let contended = batch
                .writes
                .iter()
                .zip(now)
                .find(|(write, entry)| !write.condition.holds(entry.as_ref()))
                .map_or_else(String::new, |(write, _)| write.key.to_string());
            return Err(IpamError::Contention {
                attempts: self.count,
                contended,
            });
        }
        if self.count > 2 {
            let spread = (self.seed ^ u64::from(self.count).wrapping_mul(0x9e37_79b9)) % 8;
            tokio::time::sleep(Duration::from_millis(1 + spread)).await;
        }
        Ok(())
    }
}

/// Whether an address of a handle is held for this interface of the container: the owner fact `ifname`, which
/// is left out for `eth0`, as writers that know one interface only leave it out.
pub(crate) fn is_for_interface(attribute: &Attribute, interface: &str) -> bool {
    attribute
        .secondary
        .get(INTERFACE)
        .map_or(FIRST_INTERFACE, String::as_str)
        == interface
}

const FIRST_INTERFACE: &str = "eth0";
const INTERFACE: &str = "ifname";
pub(crate) const TIMESTAMP: &str = "timestamp";
const MOST_ATTEMPTS: u32 = 100;
