//! The contract: what every backend must do, as tests that run against any of them.
//!
//! A backend's test file gives a [`Harness`] and calls [`crate::contract_tests!`], which makes one test
//! of each function of [`reads`], [`writes`], [`watches`] and [`leases`].

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "test code, though it is compiled for the tests of other crates"
)]

use std::future::Future;
use std::time::Duration;

use margay_model::Key;

use crate::Store;
use crate::types::{Batch, Changes, Outcome, Revision, Watch, Write};

pub mod leases;
pub mod reads;
pub mod watches;
pub mod writes;

/// A fresh, empty store, and the powers over it that no [`Store`] has.
pub trait Harness: Send + Sync {
    /// The backend's client.
    type Store: Store + Clone + 'static;

    /// A client; each call gives another one of the same data.
    fn client(&self) -> Self::Store;

    /// Writes a path that need not be a [`Key`].
    fn put_raw(&self, path: &str, value: &[u8]) -> impl Future<Output = ()> + Send;

    /// Forgets what was before a revision.
    fn compact(&self, revision: Revision) -> impl Future<Output = ()> + Send;

    /// Lets time pass, for leases.
    fn elapse(&self, time: Duration) -> impl Future<Output = ()> + Send;
}

/// Makes a test of each function of the contract: `contract_tests!(fresh)`, where `fresh` is an
/// `async fn() -> impl Harness`.
#[macro_export]
macro_rules! contract_tests {
    ($fresh:ident) => {
        $crate::contract_tests! { $fresh;
            reads: a_key_reads_as_written, values_may_be_empty_or_large, several_reads_in_one_call,
                reads_beyond_the_limit_are_refused, pages_are_of_one_revision, long_lists_are_whole,
                other_paths_are_skipped, ranges_end_where_their_prefix_does, history_can_be_read,
                compacted_history_is_reported;
            writes: a_create_needs_absence, an_update_needs_its_revision, a_delete_needs_its_revision,
                an_unconditional_write_always_applies, a_conflict_tells_what_each_key_holds,
                a_batch_applies_all_or_nothing, checks_alone_write_nothing,
                a_batch_mixes_checks_and_writes, deleting_nothing_raises_no_revision,
                improper_batches_are_refused, concurrent_increments_lose_nothing,
                only_one_of_many_creates;
            watches: changes_come_in_order, a_batch_arrives_whole, a_watch_sees_its_range_only,
                a_watch_from_now_sees_what_follows, watches_are_independent,
                a_compacted_start_is_reported, a_kept_start_survives_compaction,
                watches_skip_other_paths, many_changes_arrive;
            leases: keys_vanish_with_their_lease, a_lease_kept_alive_lasts,
                a_revoked_lease_takes_its_keys, a_put_without_the_lease_frees_the_key,
                an_unknown_lease_is_refused;
        }
    };
    ($fresh:ident; $($module:ident: $($name:ident),+;)+) => {
        $(mod $module {
            $(#[tokio::test]
            async fn $name() {
                let harness = super::$fresh().await;
                $crate::contract::$module::$name(&harness).await;
            })+
        })+
    };
}

/// A handle's key, in order of its number.
fn key(number: usize) -> Key {
    Key::Handle(format!("h{number:05}"))
}

async fn committed(store: &impl Store, writes: impl IntoIterator<Item = Write>) -> Revision {
    match store.commit(&Batch::of(writes)).await {
        Ok(Outcome::Committed(revision)) => revision,
        other => panic!("not committed: {other:?}"),
    }
}

async fn conflict(
    store: &impl Store,
    writes: impl IntoIterator<Item = Write>,
) -> Vec<Option<crate::Entry>> {
    match store.commit(&Batch::of(writes)).await {
        Ok(Outcome::Conflict(found)) => found,
        other => panic!("no conflict: {other:?}"),
    }
}

/// The next changes that are not mere progress.
async fn changes(watch: &mut Watch) -> Changes {
    loop {
        match next(watch).await {
            Some(Ok(changes)) if changes.changes.is_empty() => {}
            Some(Ok(changes)) => return changes,
            other => panic!("the watch ended: {other:?}"),
        }
    }
}

async fn next(watch: &mut Watch) -> Option<Result<Changes, crate::StoreError>> {
    tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("changes within the time")
}

/// The next single changes, however they are grouped.
async fn single_changes(watch: &mut Watch, count: usize) -> Vec<crate::Change> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(changes(watch).await.changes);
    }
    all
}

const PATIENCE: Duration = Duration::from_secs(30);
