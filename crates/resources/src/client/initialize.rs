//! What every cluster's store holds from the beginning.

use margay_model::resource::Spec;
use margay_model::resource::cluster::{ClusterInformationSpec, TierSpec};
use margay_model::resource::pool::{IPPool, IPPoolSpec};
use margay_model::{Key, Kind, Metadata, Prefix, Resource};
use margay_store::{Batch, Condition, Outcome, Read, Store, Write};
use serde_json::json;

use super::{Client, MOST_ATTEMPTS};
use crate::error::{Id, ResourceError};
use crate::object::Stamps;

impl<S: Store, T: Stamps> Client<'_, S, T> {
    /// Writes the ClusterInformation and the three tiers that always exist, where they are missing; what is
    /// there stays as it is.
    ///
    /// # Errors
    /// The store failed.
    pub async fn ensure_initialized(&self) -> Result<(), ResourceError> {
        let id = Id::new(Kind::ClusterInformation, None, DEFAULT);
        let mut wanted = vec![self.new_value::<ClusterInformationSpec>(
            DEFAULT,
            json!({"clusterGUID": hex(self.stamps.random()), "datastoreReady": true}),
        )?];
        for (name, order, action) in TIERS {
            let spec = json!({"order": order, "defaultAction": action});
            wanted.push(self.new_value::<TierSpec>(name, spec)?);
        }
        let reads: Vec<Read> = wanted
            .iter()
            .map(|write| Read::Exists(write.key.clone()))
            .collect();
        for _ in 0..MOST_ATTEMPTS {
            let snapshot = self.store.read_many(&reads).await.map_err(id.store())?;
            let missing = wanted.iter().zip(&snapshot.answers);
            let missing = missing.filter(|(_, answer)| answer.entries.is_empty());
            let batch = Batch::of(missing.map(|(write, _)| write.clone()));
            if batch.writes.is_empty() {
                return Ok(());
            }
            let outcome = self.store.commit(&batch).await.map_err(id.store())?;
            if matches!(outcome, Outcome::Committed(_)) {
                return Ok(());
            }
        }
        Err(id.conflict())
    }

    /// Creates the cluster's first pools, unless it has, or ever had, a pool. Gives those created.
    ///
    /// # Errors
    /// [`ResourceError::Invalid`], or the store failed.
    pub async fn ensure_default_pools(
        &self,
        v4: Option<IPPoolSpec>,
        v6: Option<IPPoolSpec>,
    ) -> Result<Vec<IPPool>, ResourceError> {
        let id = Id::new(Kind::IPPool, None, "");
        let wanted = [(DEFAULT_V4, v4), (DEFAULT_V6, v6)];
        let mut pools = Vec::new();
        for (name, spec) in wanted {
            let Some(spec) = spec else { continue };
            let mut pool = IPPool::new(Metadata::named(name), spec);
            self.stamp(&mut pool.metadata);
            pool.set_defaults();
            let id = Id::of(Kind::IPPool, &pool.metadata);
            pool.validate().map_err(|problems| id.invalid(problems))?;
            pools.push(pool);
        }
        if pools.is_empty() {
            return Ok(pools);
        }
        let reads = [
            Read::Exists(Key::PoolMarker),
            Read::Keys(Prefix::Resources(Kind::IPPool)),
        ];
        for _ in 0..MOST_ATTEMPTS {
            let snapshot = self.store.read_many(&reads).await.map_err(id.store())?;
            if snapshot
                .answers
                .iter()
                .any(|answer| !answer.entries.is_empty())
            {
                return Ok(Vec::new());
            }
            let mut batch = Batch::of([self.pool_marker(Condition::Absent)]);
            for pool in &pools {
                let value = encoded(pool)?;
                batch.push(Write::create(pool.key(), value));
            }
            match self.store.commit(&batch).await.map_err(id.store())? {
                Outcome::Conflict(_) => {}
                Outcome::Committed(revision) => {
                    for pool in &mut pools {
                        pool.metadata.resource_version = Some(revision.to_string());
                    }
                    return Ok(pools);
                }
            }
        }
        Err(id.conflict())
    }

    /// The write that creates a global resource of this specification.
    fn new_value<P: Spec + Send + Sync>(
        &self,
        name: &str,
        spec: serde_json::Value,
    ) -> Result<Write, ResourceError> {
        let key = Key::resource(P::KIND, name);
        let spec = serde_json::from_value::<P>(spec).map_err(|error| ResourceError::Damaged {
            key: Box::new(key.clone()),
            reason: error.to_string(),
        })?;
        let mut resource = Resource::new(Metadata::named(name), spec);
        self.stamp(&mut resource.metadata);
        Ok(Write::create(key, encoded(&resource)?))
    }
}

fn encoded<P: Spec>(resource: &Resource<P>) -> Result<Vec<u8>, ResourceError> {
    resource.encode().map_err(|error| ResourceError::Damaged {
        key: Box::new(resource.key()),
        reason: error.to_string(),
    })
}

fn hex(bytes: [u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name, order and default action of the tiers that always exist.
const TIERS: [(&str, u32, &str); 3] = [
    ("default", 1_000_000, "Deny"),
    ("kube-admin", 1_000, "Pass"),
    ("kube-baseline", 10_000_000, "Pass"),
];

const DEFAULT: &str = "default";
const DEFAULT_V4: &str = "default-ipv4-ippool";
const DEFAULT_V6: &str = "default-ipv6-ippool";
