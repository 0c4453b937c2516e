//! Deleting a pool.

use std::time::Duration;

use margay_ipam_core::{Allocator, audit};
use margay_model::Cidr;
use margay_model::resource::pool::IPPool;
use margay_store::{Batch, Outcome, Revision, Store, Write};

use super::{Deleted, Note};
use crate::client::{Client, MOST_ATTEMPTS};
use crate::error::{Id, ResourceError};
use crate::object::Stamps;

impl<S: Store, T: Stamps> Client<'_, S, T> {
    /// Disables the pool, waits for assignments that are under way, gives up its blocks, deletes it.
    pub(super) async fn delete_pool(
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
}

const PAUSE: Duration = Duration::from_millis(500);
