//! Deleting a resource, with what depends on it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use margay_ipam_core::Allocator;
use margay_ipam_core::audit;
use margay_ipam_core::release::Address;
use margay_model::ipam::Block;
use margay_model::names::EndpointName;
use margay_model::policy_names;
use margay_model::resource::cluster::Node;
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::resource::pool::IPPool;
use margay_model::{Cidr, Key, Kind, Prefix};
use margay_store::{Batch, Entry, Outcome, Read, Revision, Store, Write};
use serde_json::Value;

use super::{BUILTIN, Client, MOST_ATTEMPTS, is_builtin};
use crate::error::{Id, ResourceError};
use crate::object::Stamps;

/// What a deletion did beside deleting the resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// What the user should know, in the order it happened.
    pub notes: Vec<Note>,
}

/// Something a deletion did, or found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A deleted pool's addresses are still assigned; who has them keeps them.
    InUse {
        /// The pool's prefix.
        pool: Cidr,
        /// How many addresses.
        addresses: u128,
    },
    /// Another resource was deleted along.
    AlsoDeleted(Id),
    /// Addresses of a deleted node were given back.
    Released(Vec<IpAddr>),
}

impl<S: Store, T: Stamps> Client<'_, S, T> {
    /// Deletes a resource: where `revision` is given, only if it was last written then. A pool is disabled
    /// and its blocks are given up first; a node takes along what belongs to it alone.
    ///
    /// # Errors
    /// [`ResourceError::DoesNotExist`], [`ResourceError::UpdateConflict`], [`ResourceError::Refused`] for what
    /// must stay, or the store failed. A pool or a node whose deletion was interrupted can be deleted again.
    pub async fn delete(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
        revision: Option<Revision>,
    ) -> Result<Deleted, ResourceError> {
        let id = Id::new(kind, namespace, name);
        if is_builtin(&id) {
            return Err(id.refused(DELETE, BUILTIN));
        }
        match kind {
            Kind::ClusterInformation => Err(id.refused(DELETE, "every cluster has one")),
            Kind::Tier if PROTECTED_TIERS.contains(&name) => {
                Err(id.refused(DELETE, "every cluster has this tier"))
            }
            Kind::Tier => self.delete_tier(&id, revision).await,
            Kind::IPPool => self.delete_pool(&id, revision).await,
            Kind::Node => self.delete_node(&id, revision).await,
            _ => self.delete_entries(&id, revision).await,
        }
    }

    /// Deletes what is stored under the names the resource may have.
    async fn delete_entries(
        &self,
        id: &Id,
        revision: Option<Revision>,
    ) -> Result<Deleted, ResourceError> {
        for _ in 0..MOST_ATTEMPTS {
            let found = self.matching(id).await?;
            if found.is_empty() {
                return Err(id.missing());
            }
            if revision.is_some_and(|asked| found.iter().all(|entry| entry.revision != asked)) {
                return Err(id.conflict());
            }
            let writes = found
                .into_iter()
                .map(|entry| Write::delete(entry.key, entry.revision));
            if self.committed(id, Batch::of(writes)).await? {
                return Ok(Deleted::default());
            }
        }
        Err(id.conflict())
    }

    /// The stored forms of the resource; a name in the other form may be another policy's.
    async fn matching(&self, id: &Id) -> Result<Vec<Entry>, ResourceError> {
        let mut entries = self.entries(id).await?;
        entries.retain(|entry| {
            if entry.key == id.key(&id.name) {
                return true;
            }
            let fields: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
            let tier = fields["spec"]["tier"].as_str().unwrap_or_default();
            serde_json::from_value(fields["metadata"].clone())
                .is_ok_and(|metadata| policy_names::given(&metadata, tier) == id.name)
        });
        Ok(entries)
    }

    async fn delete_tier(
        &self,
        id: &Id,
        revision: Option<Revision>,
    ) -> Result<Deleted, ResourceError> {
        let reads = POLICIES.map(|kind| Read::List(Prefix::Resources(kind)));
        let snapshot = self.store.read_many(&reads).await.map_err(id.store())?;
        let entries = snapshot.answers.iter().flat_map(|answer| &answer.entries);
        let members: Vec<String> = entries
            .filter(|entry| {
                let fields: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
                fields["spec"]["tier"] == id.name.as_str()
            })
            .filter_map(|entry| match &entry.key {
                Key::Resource {
                    kind,
                    namespace,
                    name,
                } => Some(Id::new(*kind, namespace.as_deref(), name).to_string()),
                _ => None,
            })
            .collect();
        if !members.is_empty() {
            let shown = members
                .iter()
                .take(SHOWN)
                .cloned()
                .collect::<Vec<_>>()
                .join(", ");
            let more = match members.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let reason = format!("it holds policies: {shown}{more}; delete or move them first");
            return Err(id.refused(DELETE, reason));
        }
        self.delete_entries(id, revision).await
    }

    /// Disables the pool, waits for assignments that are under way, gives up its blocks, deletes it.
    async fn delete_pool(
        &self,
        id: &Id,
        revision: Option<Revision>,
    ) -> Result<Deleted, ResourceError> {
        let (disabled, cidr) = self.disable_pool(id, revision).await?;
        let mut deleted = Deleted::default();
        if let Some(cidr) = cidr {
            tokio::time::sleep(PAUSE).await;
            let allocator = Allocator::new(self.store);
            allocator
                .release_affinities_within(cidr)
                .await
                .map_err(id.ipam())?;
            let addresses: u128 = self
                .blocks(id)
                .await?
                .iter()
                .filter(|block| cidr.covers(&block.cidr))
                .map(|block| audit::allocations(std::slice::from_ref(block)).count() as u128)
                .sum();
            if addresses > 0 {
                deleted.notes.push(Note::InUse {
                    pool: cidr,
                    addresses,
                });
            }
        }
        let batch = Batch::of([Write::delete(id.key(&id.name), disabled)]);
        if self.committed(id, batch).await? {
            return Ok(deleted);
        }
        Err(id.conflict())
    }

    /// The pool's revision once it is disabled, and its prefix, if that can be read.
    async fn disable_pool(
        &self,
        id: &Id,
        revision: Option<Revision>,
    ) -> Result<(Revision, Option<Cidr>), ResourceError> {
        for _ in 0..MOST_ATTEMPTS {
            let entry = self.entry(id).await?;
            if revision.is_some_and(|asked| asked != entry.revision) {
                return Err(id.conflict());
            }
            let Ok(mut pool) = IPPool::decode(&entry.value) else {
                return Ok((entry.revision, None));
            };
            let cidr = pool.spec.cidr.parse().ok();
            if pool.spec.disabled {
                return Ok((entry.revision, cidr));
            }
            pool.spec.disabled = true;
            let value = pool.encode().map_err(|error| ResourceError::Damaged {
                key: Box::new(entry.key.clone()),
                reason: error.to_string(),
            })?;
            let batch = Batch::of([Write::update(entry.key, value, entry.revision)]);
            match self.store.commit(&batch).await.map_err(id.store())? {
                Outcome::Committed(revision) => return Ok((revision, cidr)),
                Outcome::Conflict(_) => {}
            }
        }
        Err(id.conflict())
    }

    /// Deletes a node with its endpoints, addresses, blocks, peers and configurations. The node itself goes
    /// last, so that an interrupted deletion can be repeated.
    async fn delete_node(
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

    async fn blocks(&self, id: &Id) -> Result<Vec<Block>, ResourceError> {
        let page = self.store.list(&Prefix::Blocks).await.map_err(id.store())?;
        let blocks = page.entries.iter();
        Ok(blocks
            .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
            .collect())
    }

    async fn entry(&self, id: &Id) -> Result<Entry, ResourceError> {
        let found = self
            .store
            .get(&id.key(&id.name))
            .await
            .map_err(id.store())?;
        found.ok_or_else(|| id.missing())
    }

    async fn committed(&self, id: &Id, batch: Batch) -> Result<bool, ResourceError> {
        let outcome = self.store.commit(&batch).await.map_err(id.store())?;
        Ok(matches!(outcome, Outcome::Committed(_)))
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

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { pool, addresses } => write!(
                f,
                "{addresses} addresses of {pool} are still assigned; their owners keep them until they end"
            ),
            Self::AlsoDeleted(id) => write!(f, "deleted {id} with it"),
            Self::Released(addresses) => write!(f, "gave back {} addresses", addresses.len()),
        }
    }
}

const DELETE: &str = "delete";
const PAUSE: Duration = Duration::from_millis(500);
const PROTECTED_TIERS: [&str; 3] = ["default", "kube-admin", "kube-baseline"];
const SHOWN: usize = 5;

const POLICIES: [Kind; 4] = [
    Kind::GlobalNetworkPolicy,
    Kind::NetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
];

const TUNNEL_FIELDS: [&str; 5] = [
    "/bgp/ipv4IPIPTunnelAddr",
    "/ipv4VXLANTunnelAddr",
    "/ipv6VXLANTunnelAddr",
    "/wireguard/interfaceIPv4Address",
    "/wireguard/interfaceIPv6Address",
];
