//! The store: keys, revisions, conditional batches and watches.
//!
//! A [`Store`] is a small, linearizable, ordered map from [`Key`]s to byte strings with a single
//! revision that every commit raises, as etcd v3 defines it. Backends pass one suite of contract
//! tests; the in-memory store is the reference: deterministic, in one process, for tests and
//! simulations.

use std::future::Future;
use std::time::Duration;

use margay_model::{Key, Prefix};

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod error;
pub mod follow;
pub mod memory;
mod random;
pub mod types;

pub use error::StoreError;
pub use follow::Follower;
pub use memory::Memory;
pub use types::{
    Answer, Batch, Change, Changes, Condition, Entry, LeaseId, Op, Outcome, Page, Read, Revision,
    Snapshot, StoreId, Watch, Write,
};

/// A store. Every call ends within the deadline the backend was opened with.
pub trait Store: Send + Sync {
    /// Performs several reads in one round trip, all of one revision. At most [`MAX_OPS`] reads.
    ///
    /// # Errors
    /// The store cannot be reached, refuses, or does not answer in time.
    fn read_many(
        &self,
        reads: &[Read],
    ) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// Reads one page of a range, at the newest revision or at a given one.
    ///
    /// # Errors
    /// As [`Store::read_many`]; [`StoreError::Compacted`] when the revision asked for is gone.
    fn list_page(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// Applies a batch atomically if all its conditions hold. A backend that loses the answer finds out
    /// by reading back whether the batch was applied; [`StoreError::Unknown`] only when even that fails.
    ///
    /// # Errors
    /// The store cannot be reached, refuses, or does not answer in time.
    fn commit(&self, batch: &Batch) -> impl Future<Output = Result<Outcome, StoreError>> + Send;

    /// Watches a range for changes after revision `after`.
    ///
    /// # Errors
    /// As [`Store::read_many`]. A watch whose start was compacted reports that through [`Watch::next`].
    fn watch(
        &self,
        prefix: &Prefix,
        after: Revision,
    ) -> impl Future<Output = Result<Watch, StoreError>> + Send;

    /// Grants a lease: keys put under it vanish when it is not kept alive for `ttl` (whole seconds).
    ///
    /// # Errors
    /// As [`Store::read_many`].
    fn grant_lease(
        &self,
        ttl: Duration,
    ) -> impl Future<Output = Result<LeaseId, StoreError>> + Send;

    /// Renews a lease; `false` when it has expired or been revoked.
    ///
    /// # Errors
    /// As [`Store::read_many`].
    fn keep_alive(&self, lease: LeaseId) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Ends a lease and deletes its keys. A lease that does not exist is no error.
    ///
    /// # Errors
    /// As [`Store::read_many`].
    fn revoke_lease(&self, lease: LeaseId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads one key.
    ///
    /// # Errors
    /// As [`Store::read_many`].
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<Entry>, StoreError>> + Send {
        async {
            let snapshot = self.read_many(&[Read::Get(key.clone())]).await?;
            Ok(snapshot
                .answers
                .into_iter()
                .next()
                .and_then(Answer::into_entry))
        }
    }

    /// Reads a whole range, page by page, all of one revision.
    ///
    /// # Errors
    /// As [`Store::list_page`].
    fn list(&self, prefix: &Prefix) -> impl Future<Output = Result<Page, StoreError>> + Send {
        self.list_at(prefix, None)
    }

    /// [`Store::list`] at a given revision.
    ///
    /// # Errors
    /// As [`Store::list_page`].
    fn list_at(
        &self,
        prefix: &Prefix,
        at: Option<Revision>,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send {
        async move {
            let mut all = self.list_page(prefix, None, PAGE, at).await?;
            while all.more {
                let page = {
                    let last = all.entries.last().map(|entry| &entry.key);
                    self.list_page(prefix, last, PAGE, Some(all.revision))
                        .await?
                };
                all.more = page.more && !page.entries.is_empty();
                all.entries.extend(page.entries);
            }
            Ok(all)
        }
    }
}

/// Most operations in one batch or one set of reads: etcd's default `--max-txn-ops`.
pub const MAX_OPS: usize = 128;

/// Entries read per round trip by [`Store::list`].
pub const PAGE: usize = 500;
