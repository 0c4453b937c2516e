//! The embedded backend of the store: one SQLite file shared by the processes of a machine.
//!
//! The file is in WAL mode with `synchronous=FULL`: readers never wait for writers, and what a commit
//! answered survives a power cut. Revisions, conditions, history and watches are those of etcd; history
//! older than [`KEPT_REVISIONS`] revisions is compacted. Leases end by the machine's wall clock, and
//! whoever reads or writes first after their end removes them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use margay_model::{Key, Prefix};
use margay_store::{
    Batch, LeaseId, Outcome, Page, Read, Revision, Snapshot, Store, StoreError, Watch,
};

use crate::file::File;

mod call;
mod error;
mod file;
mod table;
mod watch;

/// A client of one file; clones share its connection.
#[derive(Clone, Debug)]
pub struct Sqlite {
    file: Arc<File>,
}

impl Sqlite {
    /// A client of the file at `path`. Nothing is opened before the first call, which also creates what
    /// is missing: the directory for root alone (0700), the file likewise (0600). Every call ends
    /// within `deadline`.
    pub fn new(path: impl Into<PathBuf>, deadline: Duration) -> Self {
        Self {
            file: Arc::new(File::new(path.into(), deadline)),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Forgets what was before `revision`; reads at it stay possible.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.write("compact", move |tables| tables.compact(revision))
            .await
    }
}

impl Store for Sqlite {
    async fn read_many(&self, reads: &[Read]) -> Result<Snapshot, StoreError> {
        if reads.len() > margay_store::MAX_OPS {
            let reason = format!("{} reads in one call", reads.len());
            return Err(self.file.failed("read", reason));
        }
        let reads = reads.to_vec();
        self.read("read", move |tables| tables.read_many(&reads))
            .await
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let (prefix, after) = (prefix.path(), after.map(Key::path));
        self.read("list", move |tables| {
            tables.list_page(&prefix, after.as_deref(), limit, at)
        })
        .await
    }

    async fn commit(&self, batch: &Batch) -> Result<Outcome, StoreError> {
        if let Some(problem) = batch.problem() {
            return Err(self.file.failed("commit", problem));
        }
        let batch = batch.clone();
        self.write("commit", move |tables| tables.commit(&batch))
            .await
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError> {
        self.start_watch(prefix.path(), after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.write("lease", move |tables| tables.grant(ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.write("keep alive", move |tables| tables.keep_alive(lease))
            .await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.write("revoke", move |tables| tables.revoke(lease))
            .await
    }
}

/// Revisions of history kept for watches and reads at a revision.
pub const KEPT_REVISIONS: i64 = 10_000;

#[cfg(test)]
mod tests;
