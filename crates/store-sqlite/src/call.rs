//! Calls: the work on a thread that may block, and the caller within its deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use margay_store::{Revision, StoreError};
use rusqlite::TransactionBehavior;

use crate::Sqlite;
use crate::error::Fault;
use crate::table::Tables;

impl Sqlite {
    /// Runs `act` in a read transaction, after leases that have ended are gone.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&Tables<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = Arc::clone(&self.file);
        self.run(operation, move |until, stage| {
            file.with(until, |connection, id| {
                stage.still_wanted()?;
                let transaction = connection.transaction()?;
                let tables = Tables::of(&transaction, id)?;
                if !tables.has_ended_leases()? {
                    return act(&tables);
                }
                drop(transaction);
                let write = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                Tables::of(&write, id)?.end_leases()?;
                write.commit()?;
                let transaction = connection.transaction()?;
                act(&Tables::of(&transaction, id)?)
            })
        })
        .await
    }

    /// Runs `act` in a write transaction, after leases that have ended are gone.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut Tables<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = Arc::clone(&self.file);
        self.run(operation, move |until, stage| {
            let (result, revision) = file.with(until, |connection, id| {
                stage.still_wanted()?;
                let transaction =
                    connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let mut tables = Tables::of(&transaction, id)?;
                tables.end_leases()?;
                let result = act(&mut tables)?;
                let revision = tables.revision();
                stage.committing()?;
                transaction.commit()?;
                file.copy_back(connection);
                Ok((result, revision))
            })?;
            file.announce(revision);
            Ok(result)
        })
        .await
    }

    /// Runs blocking work, and gives up on it at the deadline. Work that has not begun to commit by then
    /// does not commit any more; of a commit under way the outcome is unknown.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(Instant, &Stage) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let deadline = self.file.deadline;
        let until = Instant::now() + deadline;
        let stage = Arc::new(Stage::default());
        let theirs = Arc::clone(&stage);
        let task = tokio::task::spawn_blocking(move || work(until, &theirs));
        let error = |fault: Fault| fault.into_error(self.file.path(), operation, deadline);
        match tokio::time::timeout(deadline, task).await {
            Ok(Ok(result)) => result.map_err(error),
            Ok(Err(lost)) => Err(error(Fault::Refused(lost.to_string()))),
            Err(_) if stage.abandon() => Err(error(Fault::Late)),
            Err(_) => Err(StoreError::Unknown {
                target: self.file.path().display().to_string(),
                operation,
                reason: format!("the disk has not finished it within {deadline:?}"),
            }),
        }
    }
}

impl crate::file::File {
    /// Wakes this client's watches.
    pub(crate) fn announce(&self, revision: Revision) {
        self.news.send_if_modified(|known| {
            let newer = *known != revision;
            *known = revision;
            newer
        });
    }
}

/// How far a call's work is, shared between the worker and the caller.
#[derive(Debug, Default)]
pub(crate) struct Stage(AtomicU8);

impl Stage {
    /// The worker asks before it begins.
    fn still_wanted(&self) -> Result<(), Fault> {
        match self.0.load(Ordering::Acquire) {
            ABANDONED => Err(Fault::Late),
            _ => Ok(()),
        }
    }

    /// The worker begins to commit, unless the caller has left.
    fn committing(&self) -> Result<(), Fault> {
        match self.step(COMMITTING) {
            true => Ok(()),
            false => Err(Fault::Late),
        }
    }

    /// The caller leaves; `true` when nothing can be committed any more.
    fn abandon(&self) -> bool {
        self.step(ABANDONED)
    }

    fn step(&self, to: u8) -> bool {
        self.0
            .compare_exchange(WORKING, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

const WORKING: u8 = 0;
const COMMITTING: u8 = 1;
const ABANDONED: u8 = 2;
