//! Deleting a node, with what belongs to it alone.

use std::net::IpAddr;

use margay_ipam_core::release::Address;
use margay_ipam_core::{Allocator, audit};
use margay_model::names::EndpointName;
use margay_model::resource::cluster::Node;
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::{Key, Kind, Prefix};
use margay_store::{Batch, Entry, Revision, Store, Write};
use serde_json::Value;

use super::{Deleted, Note};
use crate::client::Client;
use crate::error::{Id, ResourceError};
use crate::object::Stamps;

impl<S: Store, T: Stamps> Client<'_, S, T> {
    /// Deletes a node with its endpoints, addresses, blocks, peers and configurations. The node itself goes
    /// last, so that an interrupted deletion can be repeated.
    pub(super) async fn delete_node(
        &self,
        id: &Id,
        revision: Option<Revision>,
    ) -> Result<Deleted, ResourceError> {
        let entry = self.entry(id).await?;
        if revision.is_some_and(|asked| asked != entry.revision) {
            return Err(id.conflict());
        }
        let mut notes = Vec::new();
        let node = Node::decode(&entry.value).unwrap_or_default();
        let mut addresses = tunnel_addresses(&node);
        let endpoints = self.endpoints_of(id).await?;
        for endpoint in &endpoints {
            let spec = WorkloadEndpoint::decode(&endpoint.value)
                .unwrap_or_default()
                .spec;
            addresses.extend(spec.ip_networks.iter().filter_map(|net| host_address(net)));
        }
        self.delete_all(id, endpoints, &mut notes).await?;
        self.release_of_node(id, &addresses, &mut notes).await?;
        let allocator = Allocator::new(self.store);
        allocator
            .release_node_affinities(&id.name)
            .await
            .map_err(id.ipam())?;
        let host = Batch::of([Write::delete_any(Key::IpamHost(id.name.clone()))]);
        self.committed(id, host).await?;
        let own = format!("node.{}", id.name);
        let mut others = self.naming(id, Kind::BGPPeer).await?;
        for kind in [Kind::FelixConfiguration, Kind::BGPConfiguration] {
            let key = Key::resource(kind, &own);
            others.extend(self.store.get(&key).await.map_err(id.store())?);
        }
        others.extend(self.naming(id, Kind::HostEndpoint).await?);
        self.delete_all(id, others, &mut notes).await?;
        let mut deleted = self.delete_entries(id, None).await?;
        deleted.notes = notes;
        Ok(deleted)
    }

    /// The node's workload endpoints.
    async fn endpoints_of(&self, id: &Id) -> Result<Vec<Entry>, ResourceError> {
        let prefix = Prefix::Resources(Kind::WorkloadEndpoint);
        let page = self.store.list(&prefix).await.map_err(id.store())?;
        let on_node = |entry: &Entry| {
            let Key::Resource { name, .. } = &entry.key else {
                return false;
            };
            EndpointName::parse(name).is_some_and(|parts| parts.node == id.name)
        };
        Ok(page.entries.into_iter().filter(on_node).collect())
    }

    /// Resources of a kind whose `spec.node` is this node.
    async fn naming(&self, id: &Id, kind: Kind) -> Result<Vec<Entry>, ResourceError> {
        let page = self
            .store
            .list(&Prefix::Resources(kind))
            .await
            .map_err(id.store())?;
        let names_it = |entry: &Entry| {
            let fields: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
            fields["spec"]["node"] == id.name.as_str()
        };
        Ok(page.entries.into_iter().filter(names_it).collect())
    }

    /// Gives back the node's addresses: those its objects name, and those assigned in its name. An address
    /// that is assigned to another node by now stays.
    async fn release_of_node(
        &self,
        id: &Id,
        named: &[IpAddr],
        notes: &mut Vec<Note>,
    ) -> Result<(), ResourceError> {
        let blocks = self.blocks(id).await?;
        let leaving: Vec<Address> = audit::allocations(&blocks)
            .filter(|allocation| match allocation.owner.get("node") {
                Some(node) => *node == id.name,
                None => named.contains(&allocation.address),
            })
            .map(|allocation| Address {
                address: allocation.address,
                handle: allocation.handle,
                sequence_number: allocation.sequence_number,
            })
            .collect();
        if leaving.is_empty() {
            return Ok(());
        }
        let allocator = Allocator::new(self.store);
        let done = allocator
            .release_addresses(&leaving, self.stamps.now())
            .await
            .map_err(id.ipam())?;
        notes.push(Note::Released(done.released));
        Ok(())
    }

    /// Deletes entries whatever their revision, and notes which were deleted.
    async fn delete_all(
        &self,
        id: &Id,
        entries: Vec<Entry>,
        notes: &mut Vec<Note>,
    ) -> Result<(), ResourceError> {
        for chunk in entries.chunks(margay_store::MAX_OPS) {
            let writes = chunk
                .iter()
                .map(|entry| Write::delete_any(entry.key.clone()));
            self.committed(id, Batch::of(writes)).await?;
            notes.extend(chunk.iter().filter_map(|entry| match &entry.key {
                Key::Resource {
                    kind,
                    namespace,
                    name,
                } => Some(Note::AlsoDeleted(Id::new(
                    *kind,
                    namespace.as_deref(),
                    name,
                ))),
                _ => None,
            }));
        }
        Ok(())
    }
}

/// The addresses of a node's tunnel devices.
pub fn tunnel_addresses(node: &Node) -> Vec<IpAddr> {
    let Ok(spec) = serde_json::to_value(&node.spec) else {
        return Vec::new();
    };
    TUNNEL_FIELDS
        .iter()
        .filter_map(|path| host_address(spec.pointer(path)?.as_str()?))
        .collect()
}

/// The address of a text that is an address or a host prefix.
fn host_address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

const TUNNEL_FIELDS: [&str; 5] = [
    "/bgp/ipv4IPIPTunnelAddr",
    "/ipv4VXLANTunnelAddr",
    "/ipv6VXLANTunnelAddr",
    "/wireguard/interfaceIPv4Address",
    "/wireguard/interfaceIPv6Address",
];
