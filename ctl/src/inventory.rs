//! Everything in the store that says something about addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use margay_ipam_core::audit::Inventory;
use margay_ipam_core::pool::Pool;
use margay_ipam_core::reservation::Reservations;
use margay_model::ipam::{Affinity, IpamConfig};
use margay_model::resource::cluster::Node;
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::resource::pool::{IPPool, IPReservation};
use margay_model::{Key, Kind, Prefix, Resource};
use margay_resources::{Id, tunnel_addresses};
use margay_store::{Entry, Store};

/// What is stored about addresses.
#[derive(Clone, Debug, Default)]
pub struct Stock {
    /// Pools, blocks, handles, affinities, nodes, and who uses which address.
    pub inventory: Inventory,
    /// Addresses that are never assigned automatically.
    pub reserved: Reservations,
    /// The allocator's configuration.
    pub config: IpamConfig,
}

/// Reads everything. The lists are read one after the other: what changes meanwhile may seem not to agree.
/// Endpoints are read before blocks, so that a new address is never seen without its block.
///
/// # Errors
/// The store failed.
pub async fn read<S: Store>(store: &S) -> Result<Stock> {
    let mut stock = Stock::default();
    let inventory = &mut stock.inventory;
    for entry in resources(store, Kind::WorkloadEndpoint).await? {
        let Some(endpoint) = read_one(&entry, WorkloadEndpoint::decode, inventory) else {
            continue;
        };
        let user = Id::of(Kind::WorkloadEndpoint, &endpoint.metadata).to_string();
        for network in &endpoint.spec.ip_networks {
            let address = network.split('/').next().and_then(|text| text.parse().ok());
            uses(&mut inventory.used, address, &user);
        }
    }
    for entry in resources(store, Kind::Node).await? {
        if let Key::Resource { name, .. } = &entry.key {
            inventory.nodes.insert(name.clone());
        }
        let Some(node) = read_one(&entry, Node::decode, inventory) else {
            continue;
        };
        let user = format!("tunnel of {}", Id::of(Kind::Node, &node.metadata));
        for address in tunnel_addresses(&node) {
            uses(&mut inventory.used, Some(address), &user);
        }
    }
    for entry in resources(store, Kind::IPPool).await? {
        let pool = read_one(&entry, IPPool::decode, inventory);
        inventory
            .pools
            .extend(pool.as_ref().and_then(Pool::from_resource));
    }
    let mut reserved = Vec::new();
    for entry in resources(store, Kind::IPReservation).await? {
        let found: Option<IPReservation> = read_one(&entry, Resource::decode, inventory);
        reserved.extend(
            found
                .into_iter()
                .flat_map(|found| found.spec.reserved_cidrs),
        );
    }
    stock.reserved = Reservations::parse(reserved.iter().map(String::as_str));
    for entry in store.list(&Prefix::Ipam).await?.entries {
        read_ipam(entry, &mut stock);
    }
    Ok(stock)
}

fn read_ipam(entry: Entry, stock: &mut Stock) {
    let inventory = &mut stock.inventory;
    match &entry.key {
        Key::Block(_) => {
            let block = read_one(&entry, |value| serde_json::from_slice(value), inventory);
            inventory.blocks.extend(block);
        }
        Key::Affinity(owner, cidr) => {
            let affinity = read_one(&entry, Affinity::decode, inventory);
            let found = affinity.map(|affinity| (owner.clone(), *cidr, affinity));
            inventory.affinities.extend(found);
        }
        Key::Handle(id) => {
            let handle = read_one(&entry, |value| serde_json::from_slice(value), inventory);
            inventory
                .handles
                .extend(handle.map(|handle| (id.clone(), handle)));
        }
        Key::IpamConfig => {
            let config = read_one(&entry, |value| serde_json::from_slice(value), inventory);
            stock.config = config.unwrap_or_default();
        }
        _ => {}
    }
}

async fn resources<S: Store>(store: &S, kind: Kind) -> Result<Vec<Entry>> {
    Ok(store.list(&Prefix::Resources(kind)).await?.entries)
}

/// Decodes an entry, or notes that it cannot be read.
fn read_one<T>(
    entry: &Entry,
    decode: impl FnOnce(&[u8]) -> Result<T, serde_json::Error>,
    inventory: &mut Inventory,
) -> Option<T> {
    match decode(&entry.value) {
        Ok(value) => Some(value),
        Err(error) => {
            inventory
                .unreadable
                .push((entry.key.clone(), error.to_string()));
            None
        }
    }
}

fn uses(used: &mut BTreeMap<IpAddr, Vec<String>>, address: Option<IpAddr>, user: &str) {
    if let Some(address) = address {
        used.entry(address).or_default().push(user.to_owned());
    }
}
