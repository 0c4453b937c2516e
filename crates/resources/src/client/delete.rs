//! Deleting a resource, with what depends on it.

mod node;
mod pool;

use std::fmt;
use std::net::IpAddr;

use margay_model::ipam::Block;
use margay_model::policy_names;
use margay_model::{Cidr, Key, Kind, Prefix};
use margay_store::{Batch, Entry, Outcome, Read, Revision, Store, Write};
use serde_json::Value;

use super::{BUILTIN, Client, MOST_ATTEMPTS, is_builtin};
use crate::error::{Id, ResourceError};
use crate::object::Stamps;

pub use self::node::tunnel_addresses;

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
const PROTECTED_TIERS: [&str; 3] = ["default", "kube-admin", "kube-baseline"];
const SHOWN: usize = 5;

const POLICIES: [Kind; 4] = [
    Kind::GlobalNetworkPolicy,
    Kind::NetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
];
