//! The in-memory store: the deterministic reference of what a store does.
//!
//! It keeps its whole history, so that reads at a revision and watches from one are exact. Nothing in
//! it happens by itself: time passes when [`Memory::advance`] says so, history goes when
//! [`Memory::compact`] says so, and calls fail when [`Memory::inject`], [`Memory::disturb`] or
//! [`Memory::set_offline`] say so. A [`Memory`] is one client; [`Memory::client`] gives another client of
//! the same data with faults of its own, and a clone is the same client.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use margay_model::{Key, Prefix};

use crate::error::StoreError;
use crate::types::{
    Answer, Batch, LeaseId, Outcome, Page, Read, Revision, Snapshot, StoreId, Watch,
};
use crate::{MAX_OPS, Store};

pub use self::faults::{Disturbance, Fault};
use self::faults::{Faults, pause};
use self::history::History;

mod faults;
mod history;

/// A client of an in-memory store.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    history: Arc<Mutex<History>>,
    faults: Arc<Mutex<Faults>>,
}

impl Memory {
    /// An empty store, at revision 1 as a new etcd is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another client of the same data; this one's faults do not reach it.
    #[must_use]
    pub fn client(&self) -> Self {
        Self {
            history: Arc::clone(&self.history),
            faults: Arc::default(),
        }
    }

    /// Lets time pass: leases that run out end, with their keys.
    pub fn advance(&self, time: Duration) {
        self.history().advance(time);
    }

    /// Forgets what was before `revision`; reads at it stay possible.
    pub fn compact(&self, revision: Revision) {
        self.history().compact(revision);
    }

    /// Goes back to `revision`, as a restored backup does. Running watches break.
    pub fn rewind(&self, revision: Revision) {
        self.history().rewind(revision);
    }

    /// Becomes another store with the same content, as one does that was made anew from a backup of itself.
    /// Running watches break.
    pub fn replace(&self) {
        let mut history = self.history();
        history.id = StoreId(history.id.0 + 1);
        history.break_watches(&unavailable());
    }

    /// Ends all running watches with an error, as a lost connection does.
    pub fn break_watches(&self) {
        self.history().break_watches(&unavailable());
    }

    /// Writes a path that need not be a [`Key`], whatever is there.
    pub fn put_raw(&self, path: &str, value: &[u8]) {
        self.history().put_raw(path, value);
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.history().revision()
    }

    /// All paths and values, in order.
    pub fn dump(&self) -> Vec<(String, Vec<u8>)> {
        self.history().dump()
    }

    /// Queues a fault for this client's next call without one; several are met in order.
    pub fn inject(&self, fault: Fault) {
        self.faults().queue.push_back(fault);
    }

    /// Queues calls that go well, before the next injected fault.
    pub fn spare(&self, calls: usize) {
        let queue: &mut VecDeque<Fault> = &mut self.faults().queue;
        queue.extend(std::iter::repeat_n(Fault::None, calls));
    }

    /// Disturbs this client's calls from now on as the seed decides; `None` ends it.
    pub fn disturb(&self, disturbance: Option<Disturbance>) {
        self.faults().disturb(disturbance);
    }

    /// While `true`, every call of this client fails with [`StoreError::Unavailable`].
    pub fn set_offline(&self, offline: bool) {
        self.faults().offline = offline;
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one call under this client's faults.
    async fn call<T>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut History) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (fault, before, after) = self.faults().draw();
        for _ in 0..before {
            pause().await;
        }
        let result = match fault {
            Fault::None => act(&mut self.history()),
            Fault::Refuse => Err(unavailable()),
            Fault::LoseRequest => Err(lost(operation)),
            Fault::LoseAnswer => act(&mut self.history()).and_then(|_| Err(lost(operation))),
        };
        for _ in 0..after {
            pause().await;
        }
        result
    }
}

impl Store for Memory {
    async fn read_many(&self, reads: &[Read]) -> Result<Snapshot, StoreError> {
        self.call("read", |history| {
            if reads.len() > MAX_OPS {
                return Err(failed("read", format!("{} reads in one call", reads.len())));
            }
            let answers = reads.iter().map(|read| answer(history, read)).collect();
            Ok(Snapshot {
                store: history.id,
                revision: history.revision(),
                answers,
            })
        })
        .await
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.call("list", |history| {
            let revision = at.unwrap_or_else(|| history.revision());
            history.readable(revision)?;
            let (prefix, after) = (prefix.path(), after.map(Key::path));
            let mut entries = history.entries(&prefix, after.as_deref(), revision);
            let found: Vec<_> = entries.by_ref().take(limit).collect();
            let more = entries.next().is_some();
            Ok(Page {
                store: history.id,
                revision,
                entries: found,
                more,
            })
        })
        .await
    }

    async fn commit(&self, batch: &Batch) -> Result<Outcome, StoreError> {
        if let Some(problem) = batch.problem() {
            return Err(failed("commit", problem));
        }
        self.call("commit", |history| history.commit(batch)).await
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError> {
        self.call("watch", |history| Ok(history.watch(prefix, after)))
            .await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.call("lease", |history| Ok(history.grant(ttl))).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.call("keep alive", |history| Ok(history.keep_alive(lease)))
            .await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.call("revoke", |history| {
            history.revoke(lease);
            Ok(())
        })
        .await
    }
}

fn answer(history: &History, read: &Read) -> Answer {
    let newest = history.revision();
    let entries = match read {
        Read::Get(key) | Read::Exists(key) => history.entry(key, newest).into_iter().collect(),
        Read::List(prefix) | Read::Keys(prefix) => {
            history.entries(&prefix.path(), None, newest).collect()
        }
    };
    let mut answer = Answer { entries };
    if matches!(read, Read::Exists(_) | Read::Keys(_)) {
        for entry in &mut answer.entries {
            entry.value.clear();
        }
    }
    answer
}

fn unavailable() -> StoreError {
    StoreError::Unavailable {
        target: TARGET.to_owned(),
        reason: "a fault was injected".to_owned(),
    }
}

fn lost(operation: &'static str) -> StoreError {
    if operation == "commit" {
        return StoreError::Unknown {
            target: TARGET.to_owned(),
            operation,
            reason: "a fault was injected".to_owned(),
        };
    }
    StoreError::Deadline {
        target: TARGET.to_owned(),
        operation,
        after: Duration::ZERO,
    }
}

fn failed(operation: &'static str, reason: String) -> StoreError {
    StoreError::Failed {
        target: TARGET.to_owned(),
        operation,
        reason,
    }
}

const TARGET: &str = "memory";

#[cfg(test)]
mod tests;
