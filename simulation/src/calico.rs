//! Somebody who assigns addresses out of the same blocks as Calico does: one object after the other, each by
//! compare-and-swap, and now and then not to the end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_ipam_core::{block, handle};
use margay_model::ipam::{Affinity, AffinityState, Attribute, Block, Handle};
use margay_model::key::Owner;
use margay_model::{Cidr, Family, Key, Prefix, json};
use margay_store::{Batch, Outcome, Revision, Store, StoreError, Write};

use crate::network::Client;
use crate::world::{World, clock};

/// The name of a node by its number.
pub fn node_name(number: usize) -> String {
    format!("c{number}")
}

/// Whether a handle is of this writer.
pub fn is_handle(id: &str) -> bool {
    id.starts_with("calico.")
}

/// Assigns and gives back until there are to be no more calls.
pub async fn run(world: Arc<World>, number: usize) {
    let mut writer = Writer {
        store: Client::elsewhere(&world),
        node: node_name(number),
        world: Arc::clone(&world),
    };
    let mut held: Vec<(String, Cidr, IpAddr)> = Vec::new();
    let mut count = 0;
    while !world.is_spent() {
        world.dawdle(Duration::ZERO, Duration::from_secs(4)).await;
        if held.len() < 6 && world.chance(600) {
            count += 1;
            let id = format!("calico.{number}-{count}");
            if let Ok(Some((cidr, address))) = writer.assign(&id).await {
                let verdict = world.auditor().occupy(&writer.node, &id, &[address]);
                world.judge(verdict);
                held.push((id, cidr, address));
            }
        } else if !held.is_empty() {
            let index = world.rng().usize(..held.len());
            let (id, cidr, address) = held.swap_remove(index);
            world.auditor().vacate(&writer.node, &id, &[address]);
            // A failure leaks, as it does there.
            let _ = writer.release(&id, cidr).await;
        }
    }
}

#[derive(Debug)]
struct Writer {
    world: Arc<World>,
    store: Client,
    node: String,
}

impl Writer {
    fn owner(&self) -> Owner {
        Owner::Host(self.node.clone())
    }

    /// Calico dies between two of its writes, too.
    fn dies(&self) -> bool {
        self.world.chance(self.world.shape.kills / 20)
    }

    async fn assign(&mut self, id: &str) -> Result<Option<(Cidr, IpAddr)>, StoreError> {
        let own = Prefix::AffinitiesOf(self.owner(), Family::V4);
        for entry in self.store.list(&own).await?.entries {
            if let Key::Affinity(_, cidr) = entry.key
                && let Some(found) = self.assign_from(id, cidr).await?
            {
                return Ok(Some(found));
            }
        }
        match self.claim().await? {
            Some(cidr) => self.assign_from(id, cidr).await,
            None => Ok(None),
        }
    }

    /// Pending, block, confirmed.
    async fn claim(&mut self) -> Result<Option<Cidr>, StoreError> {
        let (pool, length) = self.world.shape.pools[0].clone();
        let pool: Cidr = pool.parse().unwrap();
        let blocks = 1_u128 << (length - pool.length());
        let start = self.world.rng().u64(..) as u128;
        for turn in 0..blocks {
            let offset = (start + turn) % blocks * (1_u128 << (32 - length));
            let cidr = Cidr::new(pool.nth(offset).unwrap(), length).unwrap();
            if self.store.get(&Key::Block(cidr)).await?.is_some() {
                continue;
            }
            let affinity = Key::Affinity(self.owner(), cidr);
            let pending = json::encode(&Affinity::new(AffinityState::Pending)).unwrap();
            let Some(claimed) = self.create(affinity.clone(), pending).await? else {
                continue;
            };
            if self.dies() {
                return Ok(None);
            }
            let made = block::create(cidr, Some(self.owner().affinity()), clock());
            let made = json::encode(&made).unwrap();
            if self.create(Key::Block(cidr), made).await?.is_none() {
                self.commit(Write::delete(affinity, claimed)).await?;
                continue;
            }
            if self.dies() {
                return Ok(None);
            }
            let confirmed = json::encode(&Affinity::new(AffinityState::Confirmed)).unwrap();
            self.commit(Write::update(affinity, confirmed, claimed))
                .await?;
            return Ok(Some(cidr));
        }
        Ok(None)
    }

    /// Handle, block; and the handle again where the block was changed meanwhile.
    async fn assign_from(
        &mut self,
        id: &str,
        cidr: Cidr,
    ) -> Result<Option<(Cidr, IpAddr)>, StoreError> {
        for _ in 0..20 {
            let Some(entry) = self.store.get(&Key::Block(cidr)).await? else {
                return Ok(None);
            };
            let mut held: Block = serde_json::from_slice(&entry.value).unwrap();
            if held.affinity.as_deref() != Some(&self.owner().affinity()) {
                return Ok(None);
            }
            let attribute = Attribute {
                handle_id: Some(id.to_owned()),
                secondary: [("node".to_owned(), self.node.clone())].into(),
                ..Attribute::default()
            };
            let Some(address) = block::assign_next(&mut held, &attribute, |_| false) else {
                return Ok(None);
            };
            block::written(&mut held);
            self.count(id, cidr, true).await?;
            if self.dies() {
                return Ok(None);
            }
            let value = json::encode(&held).unwrap();
            let write = Write::update(entry.key, value, entry.revision);
            if self.commit(write).await? {
                return Ok(Some((cidr, address)));
            }
            self.count(id, cidr, false).await?;
        }
        Ok(None)
    }

    /// Block, handle.
    async fn release(&mut self, id: &str, cidr: Cidr) -> Result<(), StoreError> {
        for _ in 0..20 {
            let Some(entry) = self.store.get(&Key::Block(cidr)).await? else {
                return Ok(());
            };
            let mut held: Block = serde_json::from_slice(&entry.value).unwrap();
            let given = block::release(&mut held, 0, clock(), |_, attribute| {
                attribute.handle_id.as_deref() == Some(id)
            });
            if given.is_empty() {
                return Ok(());
            }
            block::written(&mut held);
            let write = if block::is_empty(&held) && held.affinity.is_none() {
                Write::delete(entry.key, entry.revision)
            } else {
                let value = json::encode(&held).unwrap();
                Write::update(entry.key, value, entry.revision)
            };
            if self.commit(write).await? {
                if self.dies() {
                    return Ok(());
                }
                return self.count(id, cidr, false).await;
            }
        }
        Ok(())
    }

    async fn count(&mut self, id: &str, cidr: Cidr, up: bool) -> Result<(), StoreError> {
        for _ in 0..20 {
            let key = Key::Handle(id.to_owned());
            let entry = self.store.get(&key).await?;
            let mut counted: Handle = entry.as_ref().map_or_else(Handle::default, |entry| {
                serde_json::from_slice(&entry.value).unwrap()
            });
            let held = counted.block.get(&cidr.to_string()).copied();
            let held = held.unwrap_or_default();
            let now = if up { held + 1 } else { held.saturating_sub(1) };
            handle::set(&mut counted, cidr, now);
            let value = json::encode(&counted).unwrap();
            let write = match entry {
                None if !up => return Ok(()),
                None => Write::create(key, value),
                Some(entry) if handle::is_empty(&counted) => Write::delete(key, entry.revision),
                Some(entry) => Write::update(key, value, entry.revision),
            };
            if self.commit(write).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn create(&mut self, key: Key, value: Vec<u8>) -> Result<Option<Revision>, StoreError> {
        let batch = Batch::of([Write::create(key, value)]);
        Ok(match self.store.commit(&batch).await? {
            Outcome::Committed(revision) => Some(revision),
            Outcome::Conflict(_) => None,
        })
    }

    async fn commit(&mut self, write: Write) -> Result<bool, StoreError> {
        let outcome = self.store.commit(&Batch::of([write])).await?;
        Ok(matches!(outcome, Outcome::Committed(_)))
    }
}
