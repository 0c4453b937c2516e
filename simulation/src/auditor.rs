//! Watches over the rules: after every commit what it touched, and in the end everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_ipam_core::audit::{self, Finding, Inventory};
use margay_ipam_core::detach::addresses_of;
use margay_ipam_core::{block, handle};
use margay_model::ipam::{Affinity, Block, Handle};
use margay_model::key::Owner;
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::{Cidr, Key, Kind};
use margay_store::memory::Memory;
use margay_store::{Batch, Op};

use crate::calico;
use crate::node::Node;

/// The network whose attachments the IPAM plugin alone handles.
pub const ADDRESSES_ONLY: &str = "bridged";

/// Mirrors the store, and knows who is alive.
#[derive(Debug, Default)]
pub struct Auditor {
    inventory: Inventory,
    blocks: BTreeMap<Cidr, Block>,
    affinities: BTreeMap<(Owner, Cidr), Affinity>,
    endpoints: BTreeMap<Key, WorkloadEndpoint>,
    /// Endpoints by address.
    recorded: BTreeMap<IpAddr, BTreeSet<Key>>,
    live: BTreeMap<IpAddr, Life>,
    commits: u64,
}

/// A living user of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Life {
    node: String,
    handle: String,
}

impl Auditor {
    /// Reads what is there before the first commit.
    pub(crate) fn begin(&mut self, memory: &Memory) {
        for (path, value) in memory.dump() {
            if let Some(key) = Key::parse(&path) {
                self.absorb(&key, Some(&value)).unwrap();
            }
        }
    }

    /// Commits seen.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// R1: from now on somebody sends from these addresses.
    ///
    /// # Errors
    /// Another one does, or the addresses are not assigned to the handle.
    pub fn occupy(&mut self, node: &str, handle: &str, addresses: &[IpAddr]) -> Result<(), String> {
        let life = Life {
            node: node.to_owned(),
            handle: handle.to_owned(),
        };
        for address in addresses {
            if let Some(other) = self.live.get(address).filter(|other| **other != life) {
                return Err(format!(
                    "R1: {address} is used by {life:?} and by {other:?}"
                ));
            }
            self.live.insert(*address, life.clone());
            self.check_life(*address)?;
        }
        Ok(())
    }

    /// Nobody on the node sends from these addresses under the handle any more.
    pub fn vacate(&mut self, node: &str, handle: &str, addresses: &[IpAddr]) {
        for address in addresses {
            let held = self.live.get(address);
            if held.is_some_and(|life| life.node == node && life.handle == handle) {
                self.live.remove(address);
            }
        }
    }

    /// Nobody on the node sends under the handle any more.
    pub fn vacate_handle(&mut self, node: &str, handle: &str) {
        self.live
            .retain(|_, life| life.node != node || life.handle != handle);
    }

    /// Nobody on the node lives any more.
    pub fn vacate_node(&mut self, node: &str) {
        self.live.retain(|_, life| life.node != node);
    }

    /// Looks at what a commit did.
    ///
    /// # Errors
    /// The rule that it broke.
    pub fn committed(&mut self, batch: &Batch) -> Result<(), String> {
        self.commits += 1;
        let mut addresses = BTreeSet::new();
        for write in &batch.writes {
            let value = match &write.op {
                Op::Put(value, _) => Some(&value[..]),
                Op::Delete => None,
                Op::Check => continue,
            };
            // Those of the object before, too: what it held may be gone.
            addresses.extend(self.addresses(&write.key));
            self.absorb(&write.key, value)?;
            addresses.extend(self.addresses(&write.key));
        }
        for write in batch.writes.iter().filter(|write| write.op != Op::Check) {
            match &write.key {
                Key::Block(cidr) => self.check_block(*cidr)?,
                Key::Handle(id) => self.check_handle(id)?,
                Key::Affinity(owner, cidr) => self.check_owner(owner, *cidr)?,
                _ => {}
            }
        }
        for address in addresses {
            self.check_life(address)?;
            self.check_record(address)?;
        }
        Ok(())
    }

    /// Looks at everything once nothing happens any more. `collected` says whether GC ran, without which nobody
    /// gives back what the IPAM plugin alone left.
    ///
    /// # Errors
    /// What is left, or what the living lack.
    pub fn at_rest(&self, nodes: &[Node], collected: bool) -> Result<(), String> {
        let mut inventory = self.inventory.clone();
        inventory.blocks = self.blocks.values().cloned().collect();
        let affinities = self.affinities.iter();
        inventory.affinities = affinities
            .map(|((owner, cidr), affinity)| (owner.clone(), *cidr, affinity.clone()))
            .collect();
        for (address, life) in &self.live {
            let users = inventory.used.entry(*address).or_default();
            users.push(life.handle.clone());
        }
        for (address, keys) in &self.recorded {
            for key in keys {
                let users = inventory.used.entry(*address).or_default();
                let handle = handle_of(&self.endpoints[key]);
                if !users.contains(&handle) {
                    users.push(handle);
                }
            }
        }
        let findings = audit::check(&inventory);
        if let Some(finding) = findings
            .iter()
            .find(|finding| !is_excused(finding, collected))
        {
            return Err(format!("at rest (R2, R3): {finding:?}"));
        }
        for node in nodes {
            self.check_node(node)?;
        }
        Ok(())
    }

    /// Each of the node's records has its interface and the other way round, and no release waits.
    fn check_node(&self, node: &Node) -> Result<(), String> {
        let waiting = node.journal.read().map_err(|error| error.to_string())?;
        if !waiting.entries.is_empty() || !waiting.damaged.is_empty() {
            return Err(format!(
                "R4: {} still waits on {}",
                waiting.entries.len(),
                node.name
            ));
        }
        let kernel = node.kernel();
        for endpoint in self.endpoints.values() {
            let spec = &endpoint.spec;
            let name = spec.interface_name.as_deref().unwrap_or_default();
            if spec.node.as_deref() == Some(&node.name) && kernel.interface(name).is_none() {
                return Err(format!(
                    "R2: {} has a record but no interface",
                    endpoint.metadata.name
                ));
            }
        }
        let recorded: BTreeSet<&str> = self
            .endpoints
            .values()
            .filter(|endpoint| endpoint.spec.node.as_deref() == Some(&node.name))
            .filter_map(|endpoint| endpoint.spec.interface_name.as_deref())
            .collect();
        match kernel
            .all()
            .find(|interface| !recorded.contains(&*interface.name))
        {
            // Its container will get its DEL, or lose its namespace.
            Some(interface) if !interface.addresses.is_empty() => {
                Err(format!("R2: {interface:?} on {} has no record", node.name))
            }
            _ => Ok(()),
        }
    }

    /// Takes in what a key holds now.
    fn absorb(&mut self, key: &Key, value: Option<&[u8]>) -> Result<(), String> {
        let damaged = |error: &dyn std::fmt::Display| format!("{key} cannot be read: {error}");
        match key {
            Key::Block(cidr) => {
                self.blocks.remove(cidr);
                if let Some(value) = value {
                    let block = serde_json::from_slice(value).map_err(|error| damaged(&error))?;
                    self.blocks.insert(*cidr, block);
                }
            }
            Key::Handle(id) => {
                self.inventory.handles.remove(id);
                if let Some(value) = value {
                    let held: Handle =
                        serde_json::from_slice(value).map_err(|error| damaged(&error))?;
                    self.inventory.handles.insert(id.clone(), held);
                }
            }
            Key::Affinity(owner, cidr) => {
                self.affinities.remove(&(owner.clone(), *cidr));
                if let Some(value) = value {
                    let held = Affinity::decode(value).map_err(|error| damaged(&error))?;
                    self.affinities.insert((owner.clone(), *cidr), held);
                }
            }
            Key::Resource { kind, name, .. } => match kind {
                Kind::WorkloadEndpoint => {
                    if let Some(before) = self.endpoints.remove(key) {
                        for address in addresses_of(&before) {
                            if let Some(keys) = self.recorded.get_mut(&address) {
                                keys.remove(key);
                            }
                        }
                    }
                    if let Some(value) = value {
                        let held =
                            WorkloadEndpoint::decode(value).map_err(|error| damaged(&error))?;
                        for address in addresses_of(&held) {
                            self.recorded
                                .entry(address)
                                .or_default()
                                .insert(key.clone());
                        }
                        self.endpoints.insert(key.clone(), held);
                    }
                }
                Kind::Node => {
                    self.inventory.nodes.insert(name.clone());
                }
                Kind::IPPool => {
                    let pool =
                        margay_model::resource::pool::IPPool::decode(value.unwrap_or_default());
                    let pool = pool.map_err(|error| damaged(&error))?;
                    let pool = margay_ipam_core::pool::Pool::from_resource(&pool);
                    let pools = &mut self.inventory.pools;
                    pools.retain(|held| Some(&held.name) != pool.as_ref().map(|pool| &pool.name));
                    pools.extend(pool);
                }
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// Addresses that an object speaks of.
    fn addresses(&self, key: &Key) -> Vec<IpAddr> {
        match key {
            Key::Block(cidr) => match self.blocks.get(cidr) {
                Some(held) => block::allocated(held).map(|(address, _)| address).collect(),
                None => Vec::new(),
            },
            Key::Resource { .. } => {
                let endpoint = self.endpoints.get(key);
                endpoint.map(addresses_of).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    fn check_block(&self, cidr: Cidr) -> Result<(), String> {
        let Some(held) = self.blocks.get(&cidr) else {
            return Ok(());
        };
        if let Some(fault) = block::faults(held).first() {
            return Err(format!("block {cidr}: {fault}"));
        }
        if held.cidr != cidr {
            return Err(format!("block {cidr} says that it is {}", held.cidr));
        }
        let overlapping = self
            .blocks
            .keys()
            .find(|other| **other != cidr && other.overlaps(&cidr));
        if let Some(other) = overlapping {
            return Err(format!("blocks {cidr} and {other} overlap"));
        }
        let ids: BTreeSet<&str> = block::allocated(held)
            .filter_map(|(_, attribute)| attribute.handle_id.as_deref())
            .map(handle::id)
            .collect();
        for id in ids {
            self.check_count(id, cidr)?;
        }
        if let Some(owner) = held.affinity.as_deref() {
            let owner = Owner::from_affinity(owner)
                .ok_or_else(|| format!("block {cidr} has the affinity {owner}"))?;
            if !self.affinities.contains_key(&(owner.clone(), cidr)) {
                return Err(format!(
                    "block {cidr} belongs to {owner:?}, who has no affinity"
                ));
            }
        }
        Ok(())
    }

    fn check_handle(&self, id: &str) -> Result<(), String> {
        let Some(held) = self.inventory.handles.get(id) else {
            let holding = self.blocks.values().find(|block| count(block, id) > 0);
            return match holding {
                Some(block) => Err(format!("handle {id} is gone, but holds in {}", block.cidr)),
                None => Ok(()),
            };
        };
        handle::blocks(held).try_for_each(|cidr| self.check_count(id, cidr))
    }

    /// A handle of ours counts exactly what it holds in a block; Calico's may count more.
    fn check_count(&self, id: &str, cidr: Cidr) -> Result<(), String> {
        let held = self.blocks.get(&cidr).map_or(0, |block| count(block, id));
        let said = self.inventory.handles.get(id);
        let said = said.and_then(|said| said.block.get(&cidr.to_string()));
        let said = said.copied().unwrap_or_default();
        if said == held || (said > held && calico::is_handle(id)) {
            return Ok(());
        }
        Err(format!(
            "handle {id} counts {said} in {cidr}, and holds {held}"
        ))
    }

    /// An affinity that went leaves no block behind.
    fn check_owner(&self, owner: &Owner, cidr: Cidr) -> Result<(), String> {
        if self.affinities.contains_key(&(owner.clone(), cidr)) {
            return Ok(());
        }
        let held = self.blocks.get(&cidr);
        let held = held.and_then(|block| block.affinity.as_deref());
        if held == Some(&owner.affinity()) {
            return Err(format!(
                "block {cidr} belongs to {owner:?}, whose affinity is gone"
            ));
        }
        Ok(())
    }

    /// R1: whoever sends from an address holds it.
    fn check_life(&self, address: IpAddr) -> Result<(), String> {
        let Some(life) = self.live.get(&address) else {
            return Ok(());
        };
        match self.holder(address) {
            Some(holder) if holder == life.handle => Ok(()),
            holder => Err(format!(
                "R1: {address} is used by {life:?}, but held by {holder:?}"
            )),
        }
    }

    /// What an endpoint records, its container's handle holds, and no other endpoint records.
    fn check_record(&self, address: IpAddr) -> Result<(), String> {
        let Some(keys) = self.recorded.get(&address) else {
            return Ok(());
        };
        if keys.len() > 1 {
            return Err(format!("R1: {address} is recorded by {keys:?}"));
        }
        let Some(endpoint) = keys.first().and_then(|key| self.endpoints.get(key)) else {
            return Ok(());
        };
        let handle = handle_of(endpoint);
        match self.holder(address) {
            Some(holder) if holder == handle => Ok(()),
            holder => Err(format!(
                "{address} is recorded for {handle}, but held by {holder:?}"
            )),
        }
    }

    fn holder(&self, address: IpAddr) -> Option<&str> {
        // Blocks do not overlap: the last that begins at or before the address is the only one it can lie in.
        let (_, holding) = self.blocks.range(..=Cidr::host(address)).next_back()?;
        let attribute = block::attribute(holding, address)?;
        attribute.handle_id.as_deref().map(handle::id)
    }
}

/// What crashed Calico-like writers leave is theirs, and what the IPAM plugin alone left waits for a GC.
fn is_excused(finding: &Finding, collected: bool) -> bool {
    match finding {
        Finding::HandleCount { handle, .. } | Finding::HandleMissing { handle, .. } => {
            calico::is_handle(handle)
        }
        Finding::NotInUse(allocation) => {
            let handle = allocation.handle.as_deref().unwrap_or_default();
            let waits = !collected && handle.starts_with(&format!("{ADDRESSES_ONLY}."));
            calico::is_handle(handle) || waits
        }
        Finding::AffinityWithoutBlock { owner, .. } => owner.starts_with("host:c"),
        _ => false,
    }
}

fn count(block: &Block, id: &str) -> u64 {
    let attributes = block::allocated(block).map(|(_, attribute)| attribute);
    let ids = attributes.filter_map(|attribute| attribute.handle_id.as_deref());
    ids.filter(|held| handle::id(held) == id).count() as u64
}

/// The handle of an endpoint's container: its profile is its network.
fn handle_of(endpoint: &WorkloadEndpoint) -> String {
    let network = endpoint.spec.profiles.first().map(String::as_str);
    let container = endpoint.spec.container_id.as_deref();
    format!(
        "{}.{}",
        network.unwrap_or_default(),
        container.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use margay_model::ipam::Attribute;
    use margay_model::json;
    use margay_store::Write;

    use super::*;
    use crate::world::clock;

    fn assigned(id: &str) -> (Block, IpAddr) {
        let owner = Owner::Host("n1".to_owned()).affinity();
        let cidr = "10.0.0.0/29".parse().unwrap();
        let mut held = block::create(cidr, Some(owner), clock());
        let attribute = Attribute {
            handle_id: Some(id.to_owned()),
            ..Attribute::default()
        };
        let address = block::assign_next(&mut held, &attribute, |_| false);
        (held, address.unwrap())
    }

    fn writes(held: &Block, id: &str, counted: u64) -> [Write; 3] {
        let mut count = Handle::default();
        handle::set(&mut count, held.cidr, counted);
        let affinity = Key::host_affinity("n1", held.cidr);
        [
            Write::put(affinity, br#"{"state":"confirmed"}"#.to_vec()),
            Write::put(Key::Handle(id.to_owned()), json::encode(&count).unwrap()),
            Write::put(Key::Block(held.cidr), json::encode(held).unwrap()),
        ]
    }

    #[test]
    fn each_part_of_an_assignment_is_missed() {
        let (held, _) = assigned("net.a");
        let all = writes(&held, "net.a", 1);
        let audit = |writes: Vec<Write>| Auditor::default().committed(&Batch { writes });
        audit(all.to_vec()).unwrap();
        for missing in 0..2 {
            let mut some = all.to_vec();
            some.remove(missing);
            assert!(audit(some).is_err(), "without write {missing}");
        }
        assert!(audit(writes(&held, "net.a", 2).to_vec()).is_err());
        // Of Calico, a handle may count more.
        let (theirs, _) = assigned("calico.a");
        audit(writes(&theirs, "calico.a", 2).to_vec()).unwrap();
        let mut torn = held;
        torn.unallocated.push(0);
        assert!(audit(writes(&torn, "net.a", 1).to_vec()).is_err());
    }

    #[test]
    fn r1_the_living_hold_what_they_use_and_nobody_else_does() {
        let mut auditor = Auditor::default();
        let (held, address) = assigned("net.a");
        let batch = Batch::of(writes(&held, "net.a", 1));
        auditor.committed(&batch).unwrap();
        assert!(auditor.occupy("n1", "net.b", &[address]).is_err());
        auditor.vacate("n1", "net.b", &[address]);
        auditor.occupy("n1", "net.a", &[address]).unwrap();
        assert!(auditor.occupy("n2", "net.a", &[address]).is_err());
        let released = Batch::of([
            Write::delete_any(Key::Block(held.cidr)),
            Write::delete_any(Key::Handle("net.a".to_owned())),
        ]);
        assert!(auditor.committed(&released).is_err());
    }
}
