//! The addresses of this node's tunnels' devices: assigned, recorded, given back.
//!
//! An address and the node's record of it are one commit. Handle, owner facts and fields are those of
//! Calico's nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use margay_ipam_core::allocator::Proceed;
use margay_ipam_core::{
    Allocator, Assignment, Companion, IpamError, Release, ReleaseCompanion, Request, Want,
};
use margay_model::resource::cluster::Node;
use margay_model::resource::pool::AllowedUse;
use margay_model::{Cidr, Family, Key, Kind};
use margay_store::{Answer, Read, Revision, Store, Write};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::identity;
use crate::report::Status;
use crate::state::{Settings, State};

/// Of which pools the addresses are to be; a family without pools has no address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Whether anything is known yet.
    known: bool,
    v4: BTreeMap<String, Cidr>,
    v6: BTreeMap<String, Cidr>,
    /// What the node's record says.
    recorded: [Option<IpAddr>; 2],
}

impl Wish {
    /// What store and settings ask for.
    pub fn of(state: &State, settings: &Settings) -> Self {
        let node = state.nodes().get(state.node());
        let pools = |family: Family| {
            let Some(node) = node.filter(|node| {
                let handled = family == Family::V4 || settings.ipv6;
                handled && settings.vxlan.enabled && node.of(family).is_some()
            }) else {
                return BTreeMap::new();
            };
            let pools = state.pools().iter().filter(|(_, pool)| {
                pool.tunnels()
                    && pool.for_tunnels
                    && pool.cidr.family() == family
                    && pool
                        .nodes
                        .as_ref()
                        .is_none_or(|nodes| nodes.matches(&node.labels))
            });
            pools
                .map(|(name, pool)| (name.clone(), pool.cidr))
                .collect()
        };
        let recorded = |family| node.and_then(|node| node.tunnel(family).address);
        Self {
            known: node.is_some(),
            v4: pools(Family::V4),
            v6: pools(Family::V6),
            recorded: [recorded(Family::V4), recorded(Family::V6)],
        }
    }

    fn pools(&self, family: Family) -> &BTreeMap<String, Cidr> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn recorded(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.recorded[0],
            Family::V6 => self.recorded[1],
        }
    }
}

/// Keeps them.
#[derive(Debug)]
pub struct Keeper<S> {
    store: S,
    node: String,
    status: watch::Sender<Status>,
}

/// Why an address could not be had or given back.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error("the record of this node is gone")]
    Unregistered,
    #[error("the record of this node cannot be used: {0}")]
    Record(String),
}

impl<S: Store> Keeper<S> {
    /// For a node of a store; `status` shows what goes wrong.
    pub fn new(store: S, node: String, status: watch::Sender<Status>) -> Self {
        Self {
            store,
            node,
            status,
        }
    }

    /// Works until `stop` changes.
    pub async fn run(self, mut wish: watch::Receiver<Wish>, mut stop: watch::Receiver<bool>) {
        loop {
            let now = wish.borrow_and_update().clone();
            let mut pause = AGAIN;
            for family in [Family::V4, Family::V6] {
                if !now.known {
                    break;
                }
                if let Err(failed) = self.see_to(family, &now).await {
                    let reason = format!("the address of the {family} VXLAN device: {failed}");
                    warn!("{reason}");
                    self.status
                        .send_modify(|status| status.last_error = Some(reason));
                    pause = RETRY;
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                changed = wish.changed() => if changed.is_err() { return },
                _ = stop.changed() => return,
            }
        }
    }

    async fn see_to(&self, family: Family, wish: &Wish) -> Result<(), Failure> {
        let pools = wish.pools(family);
        if pools.is_empty() {
            // Without a trace of an address there is nothing to give back.
            return match wish.recorded(family) {
                Some(_) => self.give_back(family).await,
                None => Ok(()),
            };
        }
        let recorded = wish.recorded(family);
        let fits = recorded.filter(|address| pools.values().any(|pool| pool.contains(*address)));
        if let Some(address) = fits
            && self.stands(family, address).await?
        {
            return Ok(());
        }
        let address = self.assign(family, pools).await?;
        if !pools.values().any(|pool| pool.contains(address)) {
            self.give_back(family).await?;
            self.assign(family, pools).await?;
        }
        Ok(())
    }

    /// Whether an address is assigned under the handle.
    async fn stands(&self, family: Family, address: IpAddr) -> Result<bool, Failure> {
        let name = handle(&self.node, family);
        let counted = self.store.get(&Key::Handle(name.clone())).await;
        let Some(entry) = counted.map_err(IpamError::from)? else {
            return Ok(false);
        };
        let Ok(counted) = serde_json::from_slice(&entry.value) else {
            return Ok(false);
        };
        let holding = |cidr: &Cidr| cidr.contains(address);
        let Some(cidr) = margay_ipam_core::handle::blocks(&counted).find(holding) else {
            return Ok(false);
        };
        let block = self.store.get(&Key::Block(cidr)).await;
        let Some(entry) = block.map_err(IpamError::from)? else {
            return Ok(false);
        };
        let Ok(block) = serde_json::from_slice(&entry.value) else {
            return Ok(false);
        };
        let attribute = margay_ipam_core::block::attribute(&block, address);
        let held = attribute.and_then(|held| held.handle_id.as_deref());
        Ok(held.map(margay_ipam_core::handle::id) == Some(name.as_str()))
    }

    /// The address that the handle holds, or a new one; the record says it afterwards.
    async fn assign(
        &self,
        family: Family,
        pools: &BTreeMap<String, Cidr>,
    ) -> Result<IpAddr, Failure> {
        let kind = match family {
            Family::V4 => "vxlanTunnelAddress",
            Family::V6 => "vxlanV6TunnelAddress",
        };
        let request = Request {
            node: self.node.clone(),
            handle: handle(&self.node, family),
            interface: "eth0".to_owned(),
            owner: BTreeMap::from([("type".to_owned(), kind.to_owned())]),
            wants: vec![Want::Auto {
                family,
                pools: pools.keys().cloned().collect(),
            }],
            purpose: AllowedUse::Tunnel,
            max_blocks: None,
            namespace_labels: None,
            hints: Vec::new(),
            quarantine: Default::default(),
            now: identity::now(),
        };
        let mut record = Record::new(&self.node, family);
        let made = Allocator::new(&self.store)
            .assign(&request, &mut record)
            .await?;
        let Assignment::Made { assigned, .. } = made else {
            return Err(Failure::Unregistered);
        };
        let given = assigned.first().ok_or(Failure::Unregistered)?;
        if !given.held_before {
            info!(address = %given.address, pool = given.pool, "an address for the {family} VXLAN device is assigned");
        }
        Ok(given.address)
    }

    async fn give_back(&self, family: Family) -> Result<(), Failure> {
        let release = Release {
            node: self.node.clone(),
            handle: handle(&self.node, family),
            interface: None,
            hints: Vec::new(),
            timestamp: None,
            now: identity::now(),
        };
        let mut record = Record::new(&self.node, family);
        record.clear = true;
        let released = Allocator::new(&self.store)
            .release(&release, &mut record)
            .await?;
        for address in released.addresses {
            info!(%address, "the address of the {family} VXLAN device is given back");
        }
        Ok(())
    }
}

/// The node's record, which is to say the address.
struct Record {
    key: Key,
    family: Family,
    /// Whether it is to say none.
    clear: bool,
    found: Option<(Node, Revision)>,
}

impl Record {
    fn new(node: &str, family: Family) -> Self {
        Self {
            key: Key::resource(Kind::Node, node),
            family,
            clear: false,
            found: None,
        }
    }
}

impl Companion for Record {
    type Error = Failure;

    fn reads(&self) -> Vec<Read> {
        vec![Read::Get(self.key.clone())]
    }

    fn inspect(&mut self, answers: &[Answer]) -> Result<Proceed, Failure> {
        let Some(entry) = answers.first().and_then(|answer| answer.entries.first()) else {
            return Err(Failure::Unregistered);
        };
        let node =
            Node::decode(&entry.value).map_err(|error| Failure::Record(error.to_string()))?;
        self.found = Some((node, entry.revision));
        Ok(Proceed::Go)
    }

    fn writes(&mut self, addresses: &[IpAddr]) -> Result<Vec<Write>, Failure> {
        let Some((node, revision)) = &self.found else {
            return Err(Failure::Unregistered);
        };
        let mut new = node.clone();
        let field = match self.family {
            Family::V4 => &mut new.spec.ipv4_vxlan_tunnel_addr,
            Family::V6 => &mut new.spec.ipv6_vxlan_tunnel_addr,
        };
        *field = (!self.clear)
            .then(|| addresses.first().map(ToString::to_string))
            .flatten();
        if new == *node {
            return Ok(Vec::new());
        }
        let value = new
            .encode()
            .map_err(|error| Failure::Record(error.to_string()))?;
        Ok(vec![Write::update(self.key.clone(), value, *revision)])
    }
}

impl ReleaseCompanion for Record {}

fn handle(node: &str, family: Family) -> String {
    match family {
        Family::V4 => format!("vxlan-tunnel-addr-{node}"),
        Family::V6 => format!("vxlan-v6-tunnel-addr-{node}"),
    }
}

/// Between two looks when nothing is known to have changed.
const AGAIN: Duration = Duration::from_secs(60);
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use margay_model::ipam;
    use margay_store::memory::Memory;
    use serde_json::{Value, json};

    use super::*;

    const NODE: &str = "/calico/resources/v3/projectcalico.org/nodes/n1";

    fn keeper(store: &Memory) -> Keeper<Memory> {
        Keeper::new(
            store.clone(),
            "n1".to_owned(),
            watch::Sender::new(Status::default()),
        )
    }

    fn pool(store: &Memory, name: &str, cidr: &str) {
        let value = json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": name}, "spec": {"cidr": cidr, "vxlanMode": "Always"}});
        store.put_raw(
            &format!("/calico/resources/v3/projectcalico.org/ippools/{name}"),
            value.to_string().as_bytes(),
        );
    }

    fn wish(pools: &[(&str, &str)], recorded: Option<IpAddr>) -> Wish {
        Wish {
            known: true,
            v4: pools
                .iter()
                .map(|(name, cidr)| ((*name).to_owned(), cidr.parse().unwrap()))
                .collect(),
            v6: BTreeMap::new(),
            recorded: [recorded, None],
        }
    }

    async fn field(store: &Memory) -> Option<IpAddr> {
        let key = Key::resource(Kind::Node, "n1");
        let entry = store.get(&key).await.unwrap().unwrap();
        let node: Value = serde_json::from_slice(&entry.value).unwrap();
        assert_eq!(node["spec"]["novel"], json!(1), "unknown fields survive");
        let text = node["spec"]["ipv4VXLANTunnelAddr"].as_str()?;
        Some(text.parse().unwrap())
    }

    #[tokio::test]
    async fn an_address_is_assigned_once_moved_with_its_pool_and_given_back() {
        let store = Memory::new();
        let node = json!({"kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "n1"},
            "spec": {"bgp": {"ipv4Address": "10.0.0.1/24"}, "novel": 1}});
        store.put_raw(NODE, node.to_string().as_bytes());
        pool(&store, "one", "10.65.0.0/24");
        pool(&store, "two", "10.66.0.0/24");
        let keeper = keeper(&store);
        let one = wish(&[("one", "10.65.0.0/24")], None);
        keeper.see_to(Family::V4, &one).await.unwrap();
        let first = field(&store).await.unwrap();
        assert!(first.to_string().starts_with("10.65.0."));
        let revision = store.revision();
        let block = Key::Block(Cidr::new(first, 26).unwrap());
        let block = store.get(&block).await.unwrap().unwrap();
        let block: ipam::Block = serde_json::from_slice(&block.value).unwrap();
        let attribute = &block.attributes[0];
        assert_eq!(attribute.handle_id.as_deref(), Some("vxlan-tunnel-addr-n1"));
        assert_eq!(attribute.secondary["type"], "vxlanTunnelAddress");
        assert_eq!(attribute.secondary["node"], "n1");
        // Once more changes nothing.
        let known = wish(&[("one", "10.65.0.0/24")], Some(first));
        keeper.see_to(Family::V4, &known).await.unwrap();
        assert_eq!(
            (store.revision(), field(&store).await),
            (revision, Some(first))
        );
        // A record that was emptied is filled again with the same address.
        store.put_raw(NODE, node.to_string().as_bytes());
        keeper.see_to(Family::V4, &one).await.unwrap();
        assert_eq!(field(&store).await, Some(first));
        // Another pool.
        let two = wish(&[("two", "10.66.0.0/24")], Some(first));
        keeper.see_to(Family::V4, &two).await.unwrap();
        let second = field(&store).await.unwrap();
        assert!(second.to_string().starts_with("10.66.0."));
        // None.
        keeper
            .see_to(Family::V4, &wish(&[], Some(second)))
            .await
            .unwrap();
        assert_eq!(field(&store).await, None);
    }

    #[tokio::test]
    async fn a_node_without_record_gets_no_address() {
        let store = Memory::new();
        pool(&store, "one", "10.65.0.0/24");
        let one = wish(&[("one", "10.65.0.0/24")], None);
        assert!(keeper(&store).see_to(Family::V4, &one).await.is_err());
    }
}
