//! Values that cross the store's interface.

use std::collections::HashSet;
use std::fmt;
use std::task::{Context, Poll};

use margay_model::{Key, Prefix};
use tokio::sync::mpsc;

use crate::MAX_OPS;
use crate::error::StoreError;

/// A revision of the store; every commit that writes raises it. 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// Which store revisions belong to. Those of another store, or of one that was made anew from a backup, mean
/// something else, even when they are larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StoreId(pub u64);

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value; empty in answers to [`Read::Keys`].
    pub value: Vec<u8>,
    /// The revision that wrote it last.
    pub revision: Revision,
    /// The lease it vanishes with.
    pub lease: Option<LeaseId>,
}

/// One read of a [`crate::Store::read_many`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// One key.
    Get(Key),
    /// A range with its values.
    List(Prefix),
    /// A range without values.
    Keys(Prefix),
    /// Whether one key exists, and its revision, without the value.
    Exists(Key),
}

/// What one [`Read`] found, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// At most one entry for [`Read::Get`] and [`Read::Exists`].
    pub entries: Vec<Entry>,
}

/// Answers to several reads, of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The store that answered.
    pub store: StoreId,
    /// The store's revision at the time.
    pub revision: Revision,
    /// One answer for each read, in order.
    pub answers: Vec<Answer>,
}

/// Part of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The store that answered.
    pub store: StoreId,
    /// The store's revision at the time, or the one asked for.
    pub revision: Revision,
    /// Entries in key order.
    pub entries: Vec<Entry>,
    /// Whether the range goes on.
    pub more: bool,
}

/// What must hold of a key before a batch is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent,
    /// The key was last written at this revision.
    At(Revision),
    /// Anything.
    Any,
}

/// What a batch does to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a value, under a lease where one is given.
    Put(Vec<u8>, Option<LeaseId>),
    /// Deletes the key; a missing key is no error.
    Delete,
    /// Only checks the condition.
    Check,
}

/// One conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What must hold of it.
    pub condition: Condition,
    /// What is done to it.
    pub op: Op,
}

/// An ordered list of writes, applied all or none. Each key may occur once. The order is such that every
/// prefix of it leaves a safe state, for backends that can only write one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The writes.
    pub writes: Vec<Write>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All writes are applied, at this revision.
    Committed(Revision),
    /// A condition did not hold; nothing was written. What each write's key holds now, in the batch's order.
    Conflict(Vec<Option<Entry>>),
}

/// One change seen by a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key was written.
    Put(Entry),
    /// A key was deleted, at this revision.
    Delete(Key, Revision),
}

/// Changes of one or more revisions, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Everything up to this revision has been delivered.
    pub revision: Revision,
    /// The changes; empty when the store only reports progress.
    pub changes: Vec<Change>,
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    receiver: mpsc::Receiver<Result<Changes, StoreError>>,
}

impl Watch {
    /// A watch fed through the returned sender.
    pub fn channel(capacity: usize) -> (mpsc::Sender<Result<Changes, StoreError>>, Self) {
        let (sender, receiver) = mpsc::channel(capacity);
        (sender, Self { receiver })
    }

    /// The next changes. After an error, or `None`, the watch is over.
    pub async fn next(&mut self) -> Option<Result<Changes, StoreError>> {
        self.receiver.recv().await
    }

    /// [`Watch::next`] for callers that poll several watches at once.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Changes, StoreError>>> {
        self.receiver.poll_recv(context)
    }
}

impl Answer {
    /// The only entry of an answer to [`Read::Get`].
    pub fn into_entry(self) -> Option<Entry> {
        self.entries.into_iter().next()
    }
}

impl Condition {
    /// Whether the condition holds of a key that has this entry, or none.
    pub fn holds(self, entry: Option<&Entry>) -> bool {
        match self {
            Self::Absent => entry.is_none(),
            Self::At(revision) => entry.is_some_and(|entry| entry.revision == revision),
            Self::Any => true,
        }
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a write.
    pub fn push(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Why no store takes this batch: too many writes, or a key that occurs twice.
    pub fn problem(&self) -> Option<String> {
        if self.writes.len() > MAX_OPS {
            let count = self.writes.len();
            return Some(format!(
                "{count} writes in one batch; at most {MAX_OPS} are allowed"
            ));
        }
        let mut seen = HashSet::new();
        let twice = self.writes.iter().find(|write| !seen.insert(&write.key))?;
        Some(format!("{} occurs twice in one batch", twice.key))
    }

    /// A batch of these writes.
    pub fn of(writes: impl IntoIterator<Item = Write>) -> Self {
        Self {
            writes: writes.into_iter().collect(),
        }
    }
}

impl Write {
    /// Creates a key that must not exist.
    pub fn create(key: Key, value: Vec<u8>) -> Self {
        Self {
            key,
            condition: Condition::Absent,
            op: Op::Put(value, None),
        }
    }

    /// Replaces a value read at `revision`.
    pub fn update(key: Key, value: Vec<u8>, revision: Revision) -> Self {
        Self {
            key,
            condition: Condition::At(revision),
            op: Op::Put(value, None),
        }
    }

    /// Writes a value whatever is there.
    pub fn put(key: Key, value: Vec<u8>) -> Self {
        Self {
            key,
            condition: Condition::Any,
            op: Op::Put(value, None),
        }
    }

    /// Deletes a value read at `revision`.
    pub fn delete(key: Key, revision: Revision) -> Self {
        Self {
            key,
            condition: Condition::At(revision),
            op: Op::Delete,
        }
    }

    /// Deletes whatever is there.
    pub fn delete_any(key: Key) -> Self {
        Self {
            key,
            condition: Condition::Any,
            op: Op::Delete,
        }
    }

    /// Requires that a key is unchanged since `revision`.
    pub fn unchanged(key: Key, revision: Revision) -> Self {
        Self {
            key,
            condition: Condition::At(revision),
            op: Op::Check,
        }
    }

    /// Requires that a key does not exist.
    pub fn absent(key: Key) -> Self {
        Self {
            key,
            condition: Condition::Absent,
            op: Op::Check,
        }
    }
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(key, _) => key,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.revision,
            Self::Delete(_, revision) => *revision,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
