//! Gives addresses back: by handle, or by address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_model::ipam::{Attribute, Block, Handle};
use margay_model::key::Owner;
use margay_model::time::Timestamp;
use margay_model::{Cidr, Family, Key, Prefix};
use margay_store::{Batch, Outcome, Read, Store, Write};

use crate::allocator::{
    Allocator, Attempts, Companion, Proceed, TIMESTAMP, absorb, is_for_interface,
};
use crate::error::IpamError;
use crate::plan::draft::encode;
use crate::plan::view::{Slot, View, common_reads};
use crate::{block, handle};

/// What to give back.
#[derive(Clone, Debug)]
pub struct Release {
    /// Node on whose behalf; its empty blocks in pools that no longer select it are given up with it.
    pub node: String,
    /// Only addresses of this handle are given back.
    pub handle: String,
    /// Only addresses held for this interface of the container; all of the handle's where `None`.
    pub interface: Option<String>,
    /// Only addresses with this timestamp in their owner facts: those that one certain request assigned.
    pub timestamp: Option<String>,
    /// Blocks that will likely be needed.
    pub hints: Vec<Cidr>,
    /// The time.
    pub now: Timestamp,
}

/// What was given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// The addresses, in order; empty when there were none.
    pub addresses: Vec<IpAddr>,
}

/// One address to give back, and what must be true of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The handle it must have.
    pub handle: Option<String>,
    /// The sequence number it must have been assigned at.
    pub sequence_number: Option<u64>,
}

/// What became of addresses that were to be given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleasedAddresses {
    /// Given back.
    pub released: Vec<IpAddr>,
    /// Not assigned, so nothing was to be done.
    pub free: Vec<IpAddr>,
    /// Held by another handle, or assigned anew since: left alone.
    pub changed: Vec<IpAddr>,
}

/// A [`Companion`] of a release.
pub trait ReleaseCompanion: Companion {
    /// Addresses to look for even where the handle does not name their block; asked after
    /// [`Companion::inspect`].
    fn also(&self) -> Vec<IpAddr> {
        Vec::new()
    }
}

impl ReleaseCompanion for crate::NoCompanion {}

impl<S: Store> Allocator<'_, S> {
    /// Gives back the addresses of a handle, in one commit with the companion's writes. A handle that does
    /// not exist is no error.
    ///
    /// # Errors
    /// [`IpamError`] in the companion's error type, or the companion's own.
    pub async fn release<C: ReleaseCompanion>(
        &self,
        request: &Release,
        companion: &mut C,
    ) -> Result<Released, C::Error> {
        let mut attempts = Attempts::new(&request.node);
        loop {
            let mut view = View::default();
            let mut reads = common_reads(&request.node, &request.handle);
            let owner = Owner::Host(request.node.clone());
            for family in [Family::V4, Family::V6] {
                reads.push(Read::List(Prefix::AffinitiesOf(owner.clone(), family)));
            }
            reads.extend(
                request
                    .hints
                    .iter()
                    .map(|cidr| Read::Get(Key::Block(*cidr))),
            );
            if self
                .begin(&mut view, &request.node, reads, companion)
                .await?
                == Proceed::Stop
            {
                return Ok(Released::default());
            }
            let blocks = self
                .read_blocks(&mut view, request, &companion.also())
                .await?;
            let (mut writes, released) = plan(&view, request, &blocks)?;
            writes.extend(companion.writes(&released.addresses)?);
            if writes.is_empty() {
                return Ok(released);
            }
            let batch = Batch { writes };
            match self.store.commit(&batch).await.map_err(IpamError::from)? {
                Outcome::Committed(_) => return Ok(released),
                Outcome::Conflict(now) => attempts.failed(&batch, &now).await?,
            }
        }
    }

    /// Gives back single addresses, whoever holds them unless a handle or sequence number is required.
    ///
    /// # Errors
    /// The store failed, an object is damaged, or others kept changing the blocks.
    pub async fn release_addresses(
        &self,
        addresses: &[Address],
        now: Timestamp,
    ) -> Result<ReleasedAddresses, IpamError> {
        let mut done = ReleasedAddresses::default();
        let cidrs = self
            .holding_blocks(addresses.iter().map(|wanted| wanted.address))
            .await?;
        for (cidr, group) in cidrs {
            let wanted: Vec<&Address> = addresses
                .iter()
                .filter(|wanted| group.contains(&wanted.address))
                .collect();
            self.release_in_block(cidr, &wanted, now, &mut done).await?;
        }
        let told: BTreeSet<IpAddr> = done
            .released
            .iter()
            .chain(&done.free)
            .chain(&done.changed)
            .copied()
            .collect();
        done.free.extend(
            addresses
                .iter()
                .map(|wanted| wanted.address)
                .filter(|address| !told.contains(address)),
        );
        Ok(done)
    }

    /// Who holds each of these addresses; those that nobody holds are left out.
    ///
    /// # Errors
    /// The store failed, or a block is damaged.
    pub async fn holders(
        &self,
        addresses: &[IpAddr],
    ) -> Result<BTreeMap<IpAddr, Attribute>, IpamError> {
        let mut holders = BTreeMap::new();
        for (cidr, group) in self.holding_blocks(addresses.iter().copied()).await? {
            let Some(entry) = self.store.get(&Key::Block(cidr)).await? else {
                continue;
            };
            let held: Block = decode(&entry)?;
            holders.extend(group.into_iter().filter_map(|address| {
                let attribute = block::attribute(&held, address)?;
                Some((address, attribute.clone()))
            }));
        }
        Ok(holders)
    }

    /// Ends an owner's claim to a block: an empty block is deleted with the affinity, one in use is left to
    /// nobody.
    ///
    /// # Errors
    /// As [`Allocator::release_addresses`].
    pub async fn release_affinity(&self, owner: &Owner, cidr: Cidr) -> Result<(), IpamError> {
        let affinity = Key::Affinity(owner.clone(), cidr);
        let mut attempts = Attempts::new(&owner.affinity());
        loop {
            let reads = [Read::Get(affinity.clone()), Read::Get(Key::Block(cidr))];
            let mut answers = self.store.read_many(&reads).await?.answers.into_iter();
            let held = answers.next().and_then(margay_store::Answer::into_entry);
            let stored = answers.next().and_then(margay_store::Answer::into_entry);
            let mut batch = Batch::new();
            if let Some(entry) = stored {
                let mut block: Block = decode(&entry)?;
                if block.affinity.as_deref() == Some(owner.affinity().as_str()) {
                    if block::is_empty(&block) {
                        batch.push(Write::delete(entry.key, entry.revision));
                    } else {
                        block.affinity = None;
                        block::written(&mut block);
                        let value = encode(&entry.key, &block)?;
                        batch.push(Write::update(entry.key, value, entry.revision));
                    }
                }
            }
            if let Some(entry) = held {
                batch.push(Write::delete(entry.key, entry.revision));
            }
            if batch.writes.is_empty() {
                return Ok(());
            }
            match self.store.commit(&batch).await? {
                Outcome::Committed(_) => return Ok(()),
                Outcome::Conflict(now) => attempts.failed(&batch, &now).await?,
            }
        }
    }

    /// Ends all of a node's claims.
    ///
    /// # Errors
    /// As [`Allocator::release_addresses`].
    pub async fn release_node_affinities(&self, node: &str) -> Result<(), IpamError> {
        let owner = Owner::Host(node.to_owned());
        for entry in self
            .store
            .list(&Prefix::Affinities(owner.clone()))
            .await?
            .entries
        {
            if let Key::Affinity(_, cidr) = entry.key {
                self.release_affinity(&owner, cidr).await?;
            }
        }
        Ok(())
    }

    /// Ends all claims to blocks within a prefix, such as a pool that is about to be deleted.
    ///
    /// # Errors
    /// As [`Allocator::release_addresses`].
    pub async fn release_affinities_within(&self, pool: Cidr) -> Result<(), IpamError> {
        for entry in self.store.list(&Prefix::HostAffinities).await?.entries {
            if let Key::Affinity(owner, cidr) = entry.key
                && pool.covers(&cidr)
            {
                self.release_affinity(&owner, cidr).await?;
            }
        }
        Ok(())
    }

    /// Reads the blocks that the handle names, and those that hold the other addresses looked for.
    async fn read_blocks(
        &self,
        view: &mut View,
        request: &Release,
        also: &[IpAddr],
    ) -> Result<BTreeSet<Cidr>, IpamError> {
        let mut wanted: BTreeSet<Cidr> = view
            .handle
            .iter()
            .flat_map(|(held, _)| handle::blocks(held))
            .collect();
        for address in also {
            if !wanted.iter().any(|cidr| cidr.contains(*address)) {
                wanted.extend(view.pools.iter().find_map(|pool| pool.block_of(*address)));
            }
        }
        let missing: Vec<Read> = wanted
            .iter()
            .filter(|cidr| matches!(view.slot(**cidr), Slot::Unknown | Slot::Present))
            .map(|cidr| Read::Get(Key::Block(*cidr)))
            .collect();
        for reads in missing.chunks(margay_store::MAX_OPS) {
            let snapshot = self.store.read_many(reads).await?;
            absorb(view, &request.node, reads, snapshot)?;
        }
        Ok(wanted)
    }

    /// Groups addresses by the blocks that exist and hold them.
    async fn holding_blocks(
        &self,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Result<BTreeMap<Cidr, Vec<IpAddr>>, IpamError> {
        let addresses: Vec<IpAddr> = addresses.collect();
        let mut groups: BTreeMap<Cidr, Vec<IpAddr>> = BTreeMap::new();
        for family in [Family::V4, Family::V6] {
            if !addresses
                .iter()
                .any(|address| Family::of(*address) == family)
            {
                continue;
            }
            let reads = [Read::Keys(Prefix::BlocksOf(family))];
            let snapshot = self.store.read_many(&reads).await?;
            let existing: Vec<Cidr> = snapshot
                .answers
                .into_iter()
                .flat_map(|answer| answer.entries)
                .filter_map(|entry| match entry.key {
                    Key::Block(cidr) => Some(cidr),
                    _ => None,
                })
                .collect();
            for address in addresses
                .iter()
                .filter(|address| Family::of(**address) == family)
            {
                if let Some(cidr) = existing.iter().find(|cidr| cidr.contains(*address)) {
                    groups.entry(*cidr).or_default().push(*address);
                }
            }
        }
        Ok(groups)
    }

    async fn release_in_block(
        &self,
        cidr: Cidr,
        wanted: &[&Address],
        now: Timestamp,
        done: &mut ReleasedAddresses,
    ) -> Result<(), IpamError> {
        let mut attempts = Attempts::new(&cidr.to_string());
        loop {
            let reads = [Read::Get(Key::Block(cidr)), Read::Get(Key::IpamConfig)];
            let mut answers = self.store.read_many(&reads).await?.answers.into_iter();
            let Some(entry) = answers.next().and_then(margay_store::Answer::into_entry) else {
                return Ok(());
            };
            let cooldown = match answers.next().and_then(margay_store::Answer::into_entry) {
                None => 0,
                Some(config) => {
                    decode::<margay_model::ipam::IpamConfig>(&config)?.ip_cooldown_seconds
                }
            };
            let mut held: Block = decode(&entry)?;
            let (mut free, mut changed) = (Vec::new(), Vec::new());
            let mut chosen = BTreeMap::new();
            for want in wanted {
                match block::attribute(&held, want.address) {
                    None => free.push(want.address),
                    Some(attribute) if attribute.released_at.is_some() => free.push(want.address),
                    Some(attribute) if !unchanged(&held, want, attribute) => {
                        changed.push(want.address)
                    }
                    Some(attribute) => {
                        chosen.insert(want.address, attribute.handle_id.clone());
                    }
                }
            }
            let mut batch = Batch::new();
            if !chosen.is_empty() {
                block::release(&mut held, cooldown, now, |address, _| {
                    chosen.contains_key(&address)
                });
                let handles: BTreeSet<String> = chosen.values().flatten().cloned().collect();
                batch = self.block_and_handles(&entry, held, handles).await?;
            }
            let outcome = if batch.writes.is_empty() {
                Outcome::Committed(entry.revision)
            } else {
                self.store.commit(&batch).await?
            };
            match outcome {
                Outcome::Committed(_) => {
                    done.released.extend(chosen.into_keys());
                    done.free.extend(free);
                    done.changed.extend(changed);
                    return Ok(());
                }
                Outcome::Conflict(now) => attempts.failed(&batch, &now).await?,
            }
        }
    }

    /// The writes for a block that changed and the handles whose counts follow from it.
    async fn block_and_handles(
        &self,
        entry: &margay_store::Entry,
        mut held: Block,
        handles: BTreeSet<String>,
    ) -> Result<Batch, IpamError> {
        let mut batch = Batch::new();
        block::written(&mut held);
        batch.push(block_write(entry.key.clone(), &held, entry.revision)?);
        let reads: Vec<Read> = handles
            .iter()
            .map(|id| Read::Get(Key::Handle(id.clone())))
            .collect();
        for answer in self.store.read_many(&reads).await?.answers {
            let Some(entry) = answer.into_entry() else {
                continue;
            };
            let mut counted: Handle = decode(&entry)?;
            let Key::Handle(id) = &entry.key else {
                continue;
            };
            handle::set(&mut counted, held.cidr, held_by(&held, id));
            batch.push(handle_write(entry.key.clone(), &counted, entry.revision)?);
        }
        Ok(batch)
    }
}

/// The writes that give back what is meant, from blocks that have been read.
fn plan(
    view: &View,
    request: &Release,
    blocks: &BTreeSet<Cidr>,
) -> Result<(Vec<Write>, Released), IpamError> {
    let mut writes = Vec::new();
    let mut affinities = Vec::new();
    let mut released = Released::default();
    let mut counted = view
        .handle
        .as_ref()
        .map(|(held, _)| held.clone())
        .unwrap_or_default();
    for cidr in blocks {
        let (Slot::Read(mut held), Some(revision)) = (view.slot(*cidr), view.block_revision(*cidr))
        else {
            if matches!(view.slot(*cidr), Slot::Absent) {
                handle::set(&mut counted, *cidr, 0);
            }
            continue;
        };
        let addresses = block::release(
            &mut held,
            view.config.ip_cooldown_seconds,
            request.now,
            |_, attribute| {
                is_of(attribute, &request.handle)
                    && request
                        .interface
                        .as_deref()
                        .is_none_or(|interface| is_for_interface(attribute, interface))
                    && request
                        .timestamp
                        .as_ref()
                        .is_none_or(|at| attribute.secondary.get(TIMESTAMP) == Some(at))
            },
        );
        handle::set(&mut counted, *cidr, held_by(&held, &request.handle));
        if addresses.is_empty() {
            continue;
        }
        released.addresses.extend(addresses);
        block::written(&mut held);
        if let Some(write) = give_up(view, request, &held) {
            affinities.push(write);
            writes.push(Write::delete(Key::Block(*cidr), revision));
        } else {
            writes.push(block_write(Key::Block(*cidr), &held, revision)?);
        }
    }
    released.addresses.sort();
    writes.extend(affinities);
    if let Some((held, revision)) = &view.handle
        && (counted != *held || handle::is_empty(held))
    {
        writes.push(handle_write(
            Key::Handle(request.handle.clone()),
            &counted,
            *revision,
        )?);
    }
    Ok((writes, released))
}

/// The end of the node's affinity for an empty block, where no pool selects the node for it any more.
fn give_up(view: &View, request: &Release, held: &Block) -> Option<Write> {
    let own =
        held.affinity.as_deref() == Some(Owner::Host(request.node.clone()).affinity().as_str());
    if !own || !block::is_empty(held) {
        return None;
    }
    let (_, revision) = view.affinities.get(&held.cidr)?;
    let labels = view.node_labels.as_ref()?;
    let selected = view
        .pools
        .iter()
        .filter(|pool| pool.cidr.covers(&held.cidr))
        .any(|pool| pool.selects_node(labels).unwrap_or(true));
    (!selected).then(|| Write::delete(Key::host_affinity(&request.node, held.cidr), *revision))
}

fn unchanged(held: &Block, want: &Address, attribute: &Attribute) -> bool {
    let handle_matches = want
        .handle
        .as_deref()
        .is_none_or(|handle| is_of(attribute, handle));
    let sequence_matches = want.sequence_number.is_none_or(|number| {
        held.cidr
            .offset(want.address)
            .and_then(|ordinal| {
                held.sequence_number_for_allocation
                    .get(&ordinal.to_string())
            })
            .is_some_and(|held| *held == number)
    });
    handle_matches && sequence_matches
}

fn is_of(attribute: &Attribute, id: &str) -> bool {
    attribute.handle_id.as_deref().map(handle::id) == Some(id)
}

fn held_by(block: &Block, id: &str) -> u64 {
    block::allocated(block)
        .filter(|(_, attribute)| is_of(attribute, id))
        .count() as u64
}

fn block_write(
    key: Key,
    held: &Block,
    revision: margay_store::Revision,
) -> Result<Write, IpamError> {
    if block::is_empty(held) && held.affinity.is_none() {
        return Ok(Write::delete(key, revision));
    }
    let value = encode(&key, held)?;
    Ok(Write::update(key, value, revision))
}

fn handle_write(
    key: Key,
    counted: &Handle,
    revision: margay_store::Revision,
) -> Result<Write, IpamError> {
    if handle::is_empty(counted) {
        return Ok(Write::delete(key, revision));
    }
    let value = encode(&key, counted)?;
    Ok(Write::update(key, value, revision))
}

fn decode<T: serde::de::DeserializeOwned>(entry: &margay_store::Entry) -> Result<T, IpamError> {
    serde_json::from_slice(&entry.value).map_err(|error| IpamError::Damaged {
        key: Box::new(entry.key.clone()),
        reason: error.to_string(),
    })
}
