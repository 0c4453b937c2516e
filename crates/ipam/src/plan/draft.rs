//! The batch under construction.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_model::ipam::{Affinity, AffinityState, Attribute, Block, Handle};
use margay_model::json;
use margay_model::key::Owner;
use margay_model::{Cidr, Family, Key};
use margay_store::{Revision, Write};

use super::view::{Slot, View};
use super::{Commit, Demand};
use crate::allocator::{Assigned, Want, is_for_interface};
use crate::error::IpamError;
use crate::{block, handle};

/// Working copies of what will be written.
#[derive(Debug)]
pub struct Draft<'v> {
    view: &'v View,
    demand: Demand<'v>,
    attribute: Attribute,
    blocks: BTreeMap<Cidr, Block>,
    /// Blocks that become the node's own, as they are before anything of them is assigned.
    claimed: BTreeMap<Cidr, Block>,
    affinities: BTreeMap<Cidr, Option<AffinityState>>,
    given_up: Vec<(Key, Revision)>,
    assigned: Vec<Assigned>,
}

impl<'v> Draft<'v> {
    /// Nothing yet.
    pub fn new(view: &'v View, demand: &Demand<'v>) -> Self {
        Self {
            view,
            demand: demand.clone(),
            attribute: Attribute {
                handle_id: Some(demand.handle.to_owned()),
                secondary: demand.owner.clone(),
                ..Attribute::default()
            },
            blocks: BTreeMap::new(),
            claimed: BTreeMap::new(),
            affinities: BTreeMap::new(),
            given_up: Vec::new(),
            assigned: Vec::new(),
        }
    }

    /// What is known of a block, with what this draft did to it. Addresses whose cooldown is over count
    /// as free.
    pub fn slot(&self, cidr: Cidr) -> Slot {
        if let Some(block) = self.blocks.get(&cidr) {
            return Slot::Read(Box::new(block.clone()));
        }
        match self.view.slot(cidr) {
            Slot::Read(mut block) => {
                block::collect(
                    &mut block,
                    self.view.config.ip_cooldown_seconds,
                    self.demand.now,
                );
                Slot::Read(block)
            }
            slot => slot,
        }
    }

    /// Whether a block belongs to the node.
    pub fn is_own(&self, block: &Block) -> bool {
        block.affinity.as_deref() == Some(self.affinity_text().as_str())
    }

    /// The node's blocks of the family, as its affinities name them and this draft claims them.
    pub fn own(&self, family: Family) -> impl Iterator<Item = Cidr> + use<> {
        let mut own: BTreeSet<Cidr> = self.view.affinities.keys().copied().collect();
        for (cidr, state) in &self.affinities {
            if state.is_some() {
                own.insert(*cidr);
            } else {
                own.remove(cidr);
            }
        }
        own.into_iter().filter(move |cidr| cidr.family() == family)
    }

    /// How many blocks of the family the node has.
    pub fn own_blocks(&self, family: Family) -> usize {
        self.own(family).count()
    }

    /// Makes a block that does not exist, and the node's affinity for it.
    pub fn claim(&mut self, cidr: Cidr) {
        let affinity = Some(self.affinity_text());
        self.make_own(cidr, block::create(cidr, affinity, self.demand.now));
    }

    /// Makes sure that the affinity of an own block is confirmed.
    pub fn confirm(&mut self, cidr: Cidr) {
        let held = self.view.affinities.get(&cidr);
        if held.is_some_and(|(state, _)| !super::is_confirmed(*state)) {
            self.affinities.insert(cidr, Some(AffinityState::Confirmed));
        }
    }

    /// Forgets an affinity whose block belongs to somebody else.
    pub fn drop_stale(&mut self, cidr: Cidr) {
        self.affinities.insert(cidr, None);
    }

    /// Makes an existing empty block the node's own, ending the other owner's affinity where it has one.
    pub fn take_over(&mut self, cidr: Cidr, former: Option<(Key, Option<Revision>)>) {
        let Slot::Read(mut block) = self.slot(cidr) else {
            return;
        };
        block.affinity = Some(self.affinity_text());
        block.affinity_claim_time = Some(self.demand.now.rfc3339());
        self.make_own(cidr, *block);
        if let Some((key, Some(revision))) = former {
            self.given_up.push((key, revision));
        }
    }

    /// Assigns the next free address of a block that was read or claimed.
    pub fn assign_next(&mut self, cidr: Cidr, pool: &str) -> bool {
        self.assign_where(cidr, pool, |_| true)
    }

    /// Assigns the next free address that is not in quarantine.
    pub fn assign_rested(&mut self, cidr: Cidr, pool: &str) -> bool {
        let quarantine = self.demand.quarantine;
        self.assign_where(cidr, pool, |address| !quarantine.contains(&address))
    }

    fn assign_where(&mut self, cidr: Cidr, pool: &str, suits: impl Fn(IpAddr) -> bool) -> bool {
        let Slot::Read(mut block) = self.slot(cidr) else {
            return false;
        };
        let refused = |address| self.view.reserved.contains(address) || !suits(address);
        let Some(address) = block::assign_next(&mut block, &self.attribute, refused) else {
            return false;
        };
        self.keep(cidr, *block, address, pool);
        true
    }

    /// Assigns one particular address of a block that was read or claimed.
    pub fn assign_exact(&mut self, cidr: Cidr, address: IpAddr, pool: &str) -> bool {
        let Slot::Read(mut block) = self.slot(cidr) else {
            return false;
        };
        if !block::assign_exact(&mut block, address, &self.attribute) {
            return false;
        }
        self.keep(cidr, *block, address, pool);
        true
    }

    /// Counts an address that the handle holds for the interface already, from an attempt that was cut short.
    pub fn adopt(&mut self, want: &Want) -> bool {
        let Some((counted, _)) = &self.view.handle else {
            return false;
        };
        for cidr in handle::blocks(counted) {
            let Slot::Read(held) = self.view.slot(cidr) else {
                continue;
            };
            let found = block::allocated(&held).find(|(address, attribute)| {
                let wanted = match want {
                    Want::Auto { family, .. } => Family::of(*address) == *family,
                    Want::Exact(exact) => exact == address,
                };
                wanted
                    && attribute.released_at.is_none()
                    && attribute.handle_id.as_deref().map(handle::id) == Some(self.demand.handle)
                    && is_for_interface(attribute, self.demand.interface)
                    && !self
                        .assigned
                        .iter()
                        .any(|assigned| assigned.address == *address)
            });
            if let Some((address, _)) = found {
                let pool = self
                    .view
                    .pools
                    .iter()
                    .find(|pool| pool.cidr.contains(address));
                self.assigned.push(Assigned {
                    address,
                    block: cidr,
                    pool: pool.map(|pool| pool.name.clone()).unwrap_or_default(),
                    held_before: true,
                });
                return true;
            }
        }
        false
    }

    /// Who holds an address, in words.
    pub fn holder(&self, cidr: Cidr, address: IpAddr) -> String {
        let Slot::Read(block) = self.slot(cidr) else {
            return "somebody".to_owned();
        };
        match block::attribute(&block, address) {
            Some(Attribute {
                released_at: Some(at),
                ..
            }) => {
                format!("nobody, but cools down since {at}")
            }
            Some(Attribute {
                handle_id: Some(handle),
                ..
            }) => format!("handle {handle}"),
            _ => "somebody without a handle".to_owned(),
        }
    }

    /// The batch.
    ///
    /// # Errors
    /// A stored object has no JSON form.
    pub fn finish(self) -> Result<Commit, IpamError> {
        let affinity_text = self.affinity_text();
        let affinities = self.affinity_writes()?;
        let given_up: Vec<Write> = self
            .given_up
            .iter()
            .map(|(key, revision)| Write::delete(key.clone(), *revision))
            .collect();
        let mut claim = Vec::new();
        if !self.claimed.is_empty() {
            claim.clone_from(&affinities);
            for (cidr, block) in &self.claimed {
                claim.push(self.block_write(*cidr, block.clone())?);
            }
            claim.extend(given_up.iter().cloned());
        }
        let mut writes = Vec::from_iter(self.handle_write()?);
        writes.extend(affinities);
        let mut own_blocks = Vec::new();
        for (cidr, block) in &self.blocks {
            if block.affinity.as_deref() == Some(affinity_text.as_str()) {
                own_blocks.push(*cidr);
            }
            writes.push(self.block_write(*cidr, block.clone())?);
        }
        writes.extend(given_up);
        Ok(Commit {
            writes,
            claim,
            assigned: self.assigned,
            own_blocks,
        })
    }

    fn make_own(&mut self, cidr: Cidr, block: Block) {
        self.claimed.insert(cidr, block.clone());
        self.blocks.insert(cidr, block);
        self.affinities.insert(cidr, Some(AffinityState::Confirmed));
    }

    fn block_write(&self, cidr: Cidr, mut block: Block) -> Result<Write, IpamError> {
        block::written(&mut block);
        let key = Key::Block(cidr);
        let value = encode(&key, &block)?;
        Ok(match self.view.block_revision(cidr) {
            None => Write::create(key, value),
            Some(revision) => Write::update(key, value, revision),
        })
    }

    fn affinity_writes(&self) -> Result<Vec<Write>, IpamError> {
        let mut writes = Vec::new();
        for (cidr, state) in &self.affinities {
            let key = Key::host_affinity(self.demand.node, *cidr);
            let held = self
                .view
                .affinities
                .get(cidr)
                .map(|(_, revision)| *revision);
            match (state, held) {
                (Some(state), held) => {
                    let value = encode(&key, &Affinity::new(*state))?;
                    writes.push(match held {
                        None => Write::create(key, value),
                        Some(revision) => Write::update(key, value, revision),
                    });
                }
                (None, Some(revision)) => writes.push(Write::delete(key, revision)),
                (None, None) => {}
            }
        }
        Ok(writes)
    }

    fn keep(&mut self, cidr: Cidr, block: Block, address: IpAddr, pool: &str) {
        self.blocks.insert(cidr, block);
        self.assigned.push(Assigned {
            address,
            block: cidr,
            pool: pool.to_owned(),
            held_before: false,
        });
    }

    fn handle_write(&self) -> Result<Option<Write>, IpamError> {
        if self.assigned.is_empty() {
            return Ok(None);
        }
        let key = Key::Handle(self.demand.handle.to_owned());
        let (mut counted, revision) = match &self.view.handle {
            None => (Handle::default(), None),
            Some((counted, revision)) => (counted.clone(), Some(*revision)),
        };
        // What is held already is answered again, and the handle written anew for it: a release that was sent
        // before, and may still be on its way, is too late then.
        for assigned in self
            .assigned
            .iter()
            .filter(|assigned| !assigned.held_before)
        {
            handle::increment(&mut counted, assigned.block, 1);
        }
        let value = encode(&key, &counted)?;
        Ok(Some(match revision {
            None => Write::create(key, value),
            Some(revision) => Write::update(key, value, revision),
        }))
    }

    fn affinity_text(&self) -> String {
        Owner::Host(self.demand.node.to_owned()).affinity()
    }
}

pub(crate) fn encode<T: serde::Serialize>(key: &Key, value: &T) -> Result<Vec<u8>, IpamError> {
    json::encode(value).map_err(|error| IpamError::Damaged {
        key: Box::new(key.clone()),
        reason: error.to_string(),
    })
}
