//! All versions of all keys, the leases, and the running watches.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use margay_model::{Key, Prefix};
use tokio::sync::mpsc;

use super::failed;
use crate::error::StoreError;
use crate::types::{
    Batch, Change, Changes, Condition, Entry, LeaseId, Op, Outcome, Revision, StoreId, Watch,
};

#[derive(Debug)]
pub(super) struct History {
    pub(super) id: StoreId,
    revision: Revision,
    compacted: Revision,
    keys: BTreeMap<String, Vec<Version>>,
    /// Paths written by each revision, in the order of the batch.
    log: BTreeMap<Revision, Vec<String>>,
    now: Duration,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: i64,
    watchers: Vec<Watcher>,
}

#[derive(Clone, Debug)]
struct Version {
    revision: Revision,
    /// `None` is a deletion.
    value: Option<Vec<u8>>,
    lease: Option<LeaseId>,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    ends: Duration,
    paths: BTreeSet<String>,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    /// Changes up to here are not wanted.
    after: Revision,
    sender: mpsc::Sender<Result<Changes, StoreError>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            id: StoreId(1),
            revision: Revision(1),
            compacted: Revision(0),
            keys: BTreeMap::new(),
            log: BTreeMap::new(),
            now: Duration::ZERO,
            leases: BTreeMap::new(),
            last_lease: 0,
            watchers: Vec::new(),
        }
    }
}

impl History {
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn readable(&self, revision: Revision) -> Result<(), StoreError> {
        if revision < self.compacted {
            return Err(StoreError::Compacted {
                asked: revision,
                oldest: self.compacted,
            });
        }
        if revision > self.revision {
            return Err(failed("list", format!("revision {revision} is to come")));
        }
        Ok(())
    }

    pub(super) fn entry(&self, key: &Key, at: Revision) -> Option<Entry> {
        let version = self.version(&key.path(), at)?;
        Some(version.entry(key.clone(), version.value.clone()?))
    }

    /// Entries of a range in order; paths that are no keys are left out.
    pub(super) fn entries<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&str>,
        at: Revision,
    ) -> impl Iterator<Item = Entry> + 'a {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_owned()),
            _ => Bound::Included(prefix.to_owned()),
        };
        self.keys
            .range((start, Bound::Unbounded))
            .take_while(move |(path, _)| path.starts_with(prefix))
            .filter_map(move |(path, versions)| {
                let version = newest(versions, at)?;
                let value = version.value.clone()?;
                Some(version.entry(Key::parse(path)?, value))
            })
    }

    pub(super) fn dump(&self) -> Vec<(String, Vec<u8>)> {
        self.keys
            .iter()
            .filter_map(|(path, versions)| Some((path.clone(), versions.last()?.value.clone()?)))
            .collect()
    }

    pub(super) fn commit(&mut self, batch: &Batch) -> Result<Outcome, StoreError> {
        let holds = batch.writes.iter().all(|write| {
            let found = self.entry(&write.key, self.revision);
            match write.condition {
                Condition::Any => true,
                Condition::Absent => found.is_none(),
                Condition::At(revision) => found.is_some_and(|entry| entry.revision == revision),
            }
        });
        if !holds {
            let found = batch.writes.iter();
            let found = found.map(|write| self.entry(&write.key, self.revision));
            return Ok(Outcome::Conflict(found.collect()));
        }
        let mut writes = Vec::new();
        for write in &batch.writes {
            match &write.op {
                Op::Put(value, lease) => {
                    if let Some(lease) = lease.filter(|lease| !self.leases.contains_key(lease)) {
                        return Err(failed("commit", format!("no lease {}", lease.0)));
                    }
                    writes.push((write.key.path(), Some(value.clone()), *lease));
                }
                Op::Delete => writes.push((write.key.path(), None, None)),
                Op::Check => {}
            }
        }
        Ok(Outcome::Committed(self.apply(writes)))
    }

    pub(super) fn put_raw(&mut self, path: &str, value: &[u8]) {
        self.apply(vec![(path.to_owned(), Some(value.to_vec()), None)]);
    }

    pub(super) fn compact(&mut self, revision: Revision) {
        let revision = revision.min(self.revision);
        if revision <= self.compacted {
            return;
        }
        self.compacted = revision;
        self.log = self.log.split_off(&Revision(revision.0 + 1));
        self.keys.retain(|_, versions| {
            let old = versions.partition_point(|version| version.revision <= revision);
            versions.drain(..old.saturating_sub(1));
            let gone = |version: &Version| version.value.is_none() && version.revision <= revision;
            if versions.first().is_some_and(gone) {
                versions.remove(0);
            }
            !versions.is_empty()
        });
    }

    pub(super) fn rewind(&mut self, revision: Revision) {
        self.log.split_off(&Revision(revision.0 + 1));
        self.keys.retain(|_, versions| {
            versions.retain(|version| version.revision <= revision);
            !versions.is_empty()
        });
        self.revision = revision;
        self.compacted = self.compacted.min(revision);
        self.break_watches(&super::unavailable());
    }

    pub(super) fn break_watches(&mut self, error: &StoreError) {
        for watcher in self.watchers.drain(..) {
            // A watcher that is full or gone sees its watch end, which says as much.
            watcher.sender.try_send(Err(error.clone())).ok();
        }
    }

    pub(super) fn watch(&mut self, prefix: &Prefix, after: Revision) -> Watch {
        let (sender, watch) = Watch::channel(BACKLOG);
        let mut watcher = Watcher {
            prefix: prefix.path(),
            after,
            sender,
        };
        if after < self.compacted {
            let error = StoreError::Compacted {
                asked: after,
                oldest: self.compacted,
            };
            watcher.sender.try_send(Err(error)).ok();
            return watch;
        }
        let missed = self.log.range((Bound::Excluded(after), Bound::Unbounded));
        let alive = missed
            .map(|(revision, _)| *revision)
            .collect::<Vec<_>>()
            .into_iter()
            .all(|revision| self.tell(&mut watcher, revision));
        if alive {
            self.watchers.push(watcher);
        }
        watch
    }

    pub(super) fn grant(&mut self, ttl: Duration) -> LeaseId {
        self.last_lease += 1;
        let id = LeaseId(self.last_lease);
        let lease = Lease {
            ttl,
            ends: self.now + ttl,
            paths: BTreeSet::new(),
        };
        self.leases.insert(id, lease);
        id
    }

    pub(super) fn keep_alive(&mut self, id: LeaseId) -> bool {
        let now = self.now;
        let Some(lease) = self.leases.get_mut(&id) else {
            return false;
        };
        lease.ends = now + lease.ttl;
        true
    }

    pub(super) fn revoke(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            let paths = lease.paths.into_iter();
            self.apply(paths.map(|path| (path, None, None)).collect());
        }
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
        let over = self.leases.iter();
        let mut over: Vec<_> = over
            .filter(|(_, lease)| lease.ends <= self.now)
            .map(|(id, lease)| (lease.ends, *id))
            .collect();
        over.sort_unstable();
        for (_, id) in over {
            self.revoke(id);
        }
    }

    /// Writes all at one revision, and tells the watchers. Deletions of what is not there write nothing.
    fn apply(&mut self, writes: Vec<(String, Option<Vec<u8>>, Option<LeaseId>)>) -> Revision {
        let revision = Revision(self.revision.0 + 1);
        let mut paths = Vec::new();
        for (path, value, lease) in writes {
            let before = self.version(&path, self.revision);
            let held = before.and_then(|version| version.lease);
            if value.is_none() && before.is_none_or(|version| version.value.is_none()) {
                continue;
            }
            if let Some(lease) = held.and_then(|held| self.leases.get_mut(&held)) {
                lease.paths.remove(&path);
            }
            if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
                lease.paths.insert(path.clone());
            }
            let version = Version {
                revision,
                value,
                lease,
            };
            self.keys.entry(path.clone()).or_default().push(version);
            paths.push(path);
        }
        if paths.is_empty() {
            return self.revision;
        }
        self.revision = revision;
        self.log.insert(revision, paths);
        let mut watchers = std::mem::take(&mut self.watchers);
        watchers.retain_mut(|watcher| self.tell(watcher, revision));
        self.watchers = watchers;
        revision
    }

    /// Sends one revision's changes; `false` when the watch is over.
    fn tell(&self, watcher: &mut Watcher, revision: Revision) -> bool {
        if revision <= watcher.after {
            return !watcher.sender.is_closed();
        }
        let paths = self.log.get(&revision).into_iter().flatten();
        let changes: Vec<_> = paths
            .filter(|path| path.starts_with(&watcher.prefix))
            .filter_map(|path| {
                let version = self.version(path, revision)?;
                let key = Key::parse(path)?;
                Some(match version.value.clone() {
                    Some(value) => Change::Put(version.entry(key, value)),
                    None => Change::Delete(key, revision),
                })
            })
            .collect();
        if changes.is_empty() {
            return !watcher.sender.is_closed();
        }
        let changes = Changes { revision, changes };
        watcher.sender.try_send(Ok(changes)).is_ok()
    }

    fn version(&self, path: &str, at: Revision) -> Option<&Version> {
        newest(self.keys.get(path)?, at)
    }
}

impl Version {
    fn entry(&self, key: Key, value: Vec<u8>) -> Entry {
        Entry {
            key,
            value,
            revision: self.revision,
            lease: self.lease,
        }
    }
}

fn newest(versions: &[Version], at: Revision) -> Option<&Version> {
    let count = versions.partition_point(|version| version.revision <= at);
    versions.get(count.checked_sub(1)?)
}

/// Changes that a watch may lag behind before it is ended; its owner resumes from where it was.
const BACKLOG: usize = 1 << 16;
