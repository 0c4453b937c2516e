//! What has been read in one attempt.

use std::collections::{BTreeMap, BTreeSet};

use margay_model::ipam::{Affinity, AffinityState, Block, Handle, IpamConfig};
use margay_model::key::Owner;
use margay_model::resource::cluster::Node;
use margay_model::resource::pool::{IPPool, IPReservation};
use margay_model::{Cidr, Family, Key, Kind, Prefix};
use margay_store::{Answer, Entry, Read, Revision};

use crate::block;
use crate::error::IpamError;
use crate::pool::Pool;
use crate::reservation::Reservations;

/// What is known of the store.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The cluster's settings.
    pub config: IpamConfig,
    /// Reserved addresses.
    pub reserved: Reservations,
    /// Labels of the node; `None` when the node does not exist.
    pub node_labels: Option<BTreeMap<String, String>>,
    /// All pools, in key order.
    pub pools: Vec<Pool>,
    /// The node's affinities.
    pub affinities: BTreeMap<Cidr, (AffinityState, Revision)>,
    /// The handle, where it exists.
    pub handle: Option<(Handle, Revision)>,
    blocks: BTreeMap<Cidr, Held>,
    keys_known: BTreeSet<Family>,
    foreign_affinities: BTreeMap<Key, Option<Revision>>,
}

/// What is known of a block.
#[derive(Clone, Debug)]
pub enum Slot {
    /// Nothing.
    Unknown,
    /// It does not exist.
    Absent,
    /// It exists; its value has not been read.
    Present,
    /// Its value.
    Read(Box<Block>),
    /// Its value cannot be used, for this reason.
    Damaged(String),
}

#[derive(Clone, Debug)]
enum Held {
    Absent,
    Present,
    Read(Box<Block>, Revision),
    Damaged(String),
}

/// The reads that every operation on addresses begins with.
pub fn common_reads(node: &str, handle: &str) -> Vec<Read> {
    vec![
        Read::Get(Key::IpamConfig),
        Read::List(Prefix::Resources(Kind::IPReservation)),
        Read::Get(Key::resource(Kind::Node, node)),
        Read::List(Prefix::Resources(Kind::IPPool)),
        Read::Get(Key::Handle(handle.to_owned())),
    ]
}

impl View {
    /// Takes in the answer to a read.
    ///
    /// # Errors
    /// The configuration or the handle is damaged. Damaged blocks and pools are passed over.
    pub fn absorb(&mut self, node: &str, read: &Read, answer: Answer) -> Result<(), IpamError> {
        match read {
            Read::Get(key) | Read::Exists(key) if matches!(read, Read::Exists(_)) => {
                if let Key::Block(cidr) = key {
                    let held = if answer.entries.is_empty() {
                        Held::Absent
                    } else {
                        Held::Present
                    };
                    self.blocks.insert(*cidr, held);
                }
            }
            Read::Get(key) | Read::Exists(key) => {
                self.absorb_entry(node, key, answer.into_entry())?;
            }
            Read::Keys(Prefix::BlocksOf(family)) => {
                self.keys_known.insert(*family);
                for entry in answer.entries {
                    if let Key::Block(cidr) = entry.key {
                        self.blocks
                            .entry(cidr)
                            .and_modify(|held| {
                                if matches!(held, Held::Absent) {
                                    *held = Held::Present;
                                }
                            })
                            .or_insert(Held::Present);
                    }
                }
            }
            Read::List(Prefix::Resources(Kind::IPPool)) => {
                self.pools = answer
                    .entries
                    .iter()
                    .filter_map(|entry| IPPool::decode(&entry.value).ok())
                    .filter_map(|pool| Pool::from_resource(&pool))
                    .collect();
            }
            Read::List(Prefix::Resources(Kind::IPReservation)) => {
                let reservations: Vec<IPReservation> = answer
                    .entries
                    .iter()
                    .filter_map(|entry| IPReservation::decode(&entry.value).ok())
                    .collect();
                self.reserved = Reservations::parse(
                    reservations
                        .iter()
                        .flat_map(|reservation| &reservation.spec.reserved_cidrs)
                        .map(String::as_str),
                );
            }
            Read::List(Prefix::AffinitiesOf(..)) => {
                for entry in answer.entries {
                    let key = entry.key.clone();
                    self.absorb_entry(node, &key, Some(entry))?;
                }
            }
            Read::List(_) | Read::Keys(_) => {}
        }
        Ok(())
    }

    /// Takes in what one key holds now; `false` when the key means nothing here.
    ///
    /// # Errors
    /// As [`View::absorb`].
    pub fn absorb_entry(
        &mut self,
        node: &str,
        key: &Key,
        entry: Option<Entry>,
    ) -> Result<bool, IpamError> {
        let damaged = |reason: String| IpamError::Damaged {
            key: Box::new(key.clone()),
            reason,
        };
        match key {
            Key::IpamConfig => {
                self.config = match &entry {
                    None => IpamConfig::default(),
                    Some(entry) => serde_json::from_slice(&entry.value)
                        .map_err(|error| damaged(error.to_string()))?,
                };
            }
            Key::Resource {
                kind: Kind::Node, ..
            } => {
                self.node_labels = entry
                    .map(|entry| Node::decode(&entry.value))
                    .transpose()
                    .map_err(|error| damaged(error.to_string()))?
                    .map(|node| node.metadata.labels);
            }
            Key::Handle(_) => {
                self.handle = entry
                    .map(|entry| {
                        serde_json::from_slice(&entry.value).map(|handle| (handle, entry.revision))
                    })
                    .transpose()
                    .map_err(|error| damaged(error.to_string()))?;
            }
            Key::Block(cidr) => {
                self.blocks.insert(*cidr, held(entry));
            }
            Key::Affinity(Owner::Host(host), cidr) if host == node => {
                // An affinity that cannot be read is one that is not to be relied on.
                match entry {
                    None => self.affinities.remove(cidr),
                    Some(entry) => {
                        let state = Affinity::decode(&entry.value)
                            .map_or(AffinityState::Pending, |affinity| affinity.state);
                        self.affinities.insert(*cidr, (state, entry.revision))
                    }
                };
            }
            Key::Affinity(..) => {
                self.foreign_affinities
                    .insert(key.clone(), entry.map(|entry| entry.revision));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What is known of a block.
    pub fn slot(&self, cidr: Cidr) -> Slot {
        match self.blocks.get(&cidr) {
            None if self.keys_known(cidr.family()) => Slot::Absent,
            None => Slot::Unknown,
            Some(Held::Absent) => Slot::Absent,
            Some(Held::Present) => Slot::Present,
            Some(Held::Read(block, _)) => Slot::Read(block.clone()),
            Some(Held::Damaged(reason)) => Slot::Damaged(reason.clone()),
        }
    }

    /// The revision at which a block was read.
    pub fn block_revision(&self, cidr: Cidr) -> Option<Revision> {
        match self.blocks.get(&cidr) {
            Some(Held::Read(_, revision)) => Some(*revision),
            _ => None,
        }
    }

    /// Whether the keys of all blocks of the family are known.
    pub fn keys_known(&self, family: Family) -> bool {
        self.keys_known.contains(&family)
    }

    /// Blocks of the family that exist, in address order.
    pub fn existing(&self, family: Family) -> impl Iterator<Item = Cidr> {
        self.blocks
            .iter()
            .filter(move |(cidr, held)| cidr.family() == family && !matches!(held, Held::Absent))
            .map(|(cidr, _)| *cidr)
    }

    /// The revision of somebody else's affinity: `None` when it was not read, `Some(None)` when it does
    /// not exist.
    pub fn foreign_affinity(&self, key: &Key) -> Option<Option<Revision>> {
        self.foreign_affinities.get(key).copied()
    }
}

fn held(entry: Option<Entry>) -> Held {
    let Some(entry) = entry else {
        return Held::Absent;
    };
    let block: Block = match serde_json::from_slice(&entry.value) {
        Ok(block) => block,
        Err(error) => return Held::Damaged(error.to_string()),
    };
    if block.deleted {
        return Held::Damaged("it is marked as deleted".to_owned());
    }
    match block::faults(&block).first() {
        Some(fault) => Held::Damaged(fault.clone()),
        None => Held::Read(Box::new(block), entry.revision),
    }
}
