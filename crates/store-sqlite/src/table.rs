//! What a transaction reads and writes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use margay_model::Key;
use margay_store::{
    Answer, Batch, Change, Changes, Condition, Entry, LeaseId, Op, Outcome, Page, Read, Revision,
    Snapshot, StoreError, StoreId,
};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::KEPT_REVISIONS;
use crate::error::Fault;

/// The tables inside one transaction.
#[derive(Debug)]
pub(crate) struct Tables<'a> {
    transaction: &'a Transaction<'a>,
    store: StoreId,
    revision: Revision,
    compacted: Revision,
    last_lease: i64,
}

type Put = (String, Option<Vec<u8>>, Option<LeaseId>);

impl<'a> Tables<'a> {
    pub(crate) fn of(transaction: &'a Transaction<'a>, store: StoreId) -> Result<Self, Fault> {
        let mut meta =
            transaction.prepare_cached("SELECT revision, compacted, last_lease FROM meta")?;
        let (revision, compacted, last_lease) =
            meta.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(Self {
            transaction,
            store,
            revision: Revision(revision),
            compacted: Revision(compacted),
            last_lease,
        })
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn read_many(&self, reads: &[Read]) -> Result<Snapshot, Fault> {
        let answers = reads
            .iter()
            .map(|read| self.answer(read))
            .collect::<Result<_, Fault>>()?;
        Ok(Snapshot {
            store: self.store,
            revision: self.revision,
            answers,
        })
    }

    pub(crate) fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Fault> {
        let revision = at.unwrap_or(self.revision);
        self.kept(revision)?;
        if revision > self.revision {
            return Err(Fault::Refused(format!("revision {revision} is to come")));
        }
        let sql = if revision == self.revision {
            RANGE
        } else {
            RANGE_AT
        };
        let mut statement = self.transaction.prepare_cached(sql)?;
        // A path ends before what its prefix's last byte raised by one begins.
        let end = range_end(prefix);
        let start = after.unwrap_or("");
        let mut rows = if revision == self.revision {
            statement.query(params![prefix, end, start])?
        } else {
            statement.query(params![prefix, end, start, revision.0])?
        };
        let mut entries = Vec::new();
        let mut more = false;
        while let Some(row) = rows.next()? {
            let Some(entry) = entry(row)? else { continue };
            if entries.len() == limit {
                more = true;
                break;
            }
            entries.push(entry);
        }
        Ok(Page {
            store: self.store,
            revision,
            entries,
            more,
        })
    }

    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<Outcome, Fault> {
        for write in &batch.writes {
            let holds = match write.condition {
                Condition::Any => continue,
                Condition::Absent => self.modified(&write.key)?.is_none(),
                Condition::At(revision) => self.modified(&write.key)? == Some(revision),
            };
            if !holds {
                let found = batch.writes.iter();
                let found = found
                    .map(|write| self.get(&write.key))
                    .collect::<Result<_, _>>()?;
                return Ok(Outcome::Conflict(found));
            }
        }
        let mut puts = Vec::new();
        for write in &batch.writes {
            match &write.op {
                Op::Put(value, lease) => {
                    if let Some(lease) =
                        lease.filter(|lease| lease.0 <= 0 || !self.has_lease(*lease))
                    {
                        return Err(Fault::Refused(format!("there is no lease {}", lease.0)));
                    }
                    puts.push((write.key.path(), Some(value.clone()), *lease));
                }
                Op::Delete => puts.push((write.key.path(), None, None)),
                Op::Check => {}
            }
        }
        self.apply(&puts)?;
        if self.revision.0 - self.compacted.0 > KEPT_REVISIONS + COMPACTION_STEP {
            self.compact(Revision(self.revision.0 - KEPT_REVISIONS))?;
        }
        Ok(Outcome::Committed(self.revision))
    }

    pub(crate) fn compact(&mut self, revision: Revision) -> Result<(), Fault> {
        let revision = revision.min(self.revision);
        if revision <= self.compacted {
            return Ok(());
        }
        self.run(
            "DELETE FROM log WHERE rev <= ?1 AND EXISTS (SELECT 1 FROM log AS newer
             WHERE newer.key = log.key AND newer.rev > log.rev AND newer.rev <= ?1)",
            params![revision.0],
        )?;
        self.run(
            "DELETE FROM log WHERE rev <= ?1 AND value IS NULL",
            params![revision.0],
        )?;
        self.run("UPDATE meta SET compacted = ?1", params![revision.0])?;
        self.compacted = revision;
        Ok(())
    }

    /// The changes of a range after a revision, one item for each revision, at most some hundred; and the
    /// revision up to which they are all.
    pub(crate) fn changes(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<(Vec<Changes>, Revision), Fault> {
        self.kept(after)?;
        let mut last = self.transaction.prepare_cached(
            "SELECT max(rev) FROM (SELECT rev FROM log WHERE rev > ?1 ORDER BY rev LIMIT ?2)",
        )?;
        let last: Option<i64> = last.query_row(params![after.0, WATCH_ROWS], |row| row.get(0))?;
        let Some(last) = last else {
            return Ok((Vec::new(), self.revision));
        };
        let mut statement = self.transaction.prepare_cached(
            "SELECT key, value, rev, lease FROM log
             WHERE rev > ?1 AND rev <= ?2 ORDER BY rev, seq",
        )?;
        let mut rows = statement.query(params![after.0, last])?;
        let mut all: Vec<Changes> = Vec::new();
        while let Some(row) = rows.next()? {
            let path = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            if !path.starts_with(prefix) {
                continue;
            }
            let Some(key) = Key::parse(path) else {
                continue;
            };
            let revision = Revision(row.get(2)?);
            let change = match row.get(1)? {
                Some(value) => Change::Put(Entry {
                    key,
                    value,
                    revision,
                    lease: lease(row)?,
                }),
                None => Change::Delete(key, revision),
            };
            match all
                .last_mut()
                .filter(|changes| changes.revision == revision)
            {
                Some(changes) => changes.changes.push(change),
                None => all.push(Changes {
                    revision,
                    changes: vec![change],
                }),
            }
        }
        Ok((all, Revision(last)))
    }

    pub(crate) fn grant(&mut self, ttl: Duration) -> Result<LeaseId, Fault> {
        self.last_lease += 1;
        self.run("UPDATE meta SET last_lease = ?1", params![self.last_lease])?;
        let ttl = milliseconds(ttl);
        let end = now().saturating_add(ttl);
        self.run(
            "INSERT INTO lease VALUES (?1, ?2, ?3)",
            params![self.last_lease, end, ttl],
        )?;
        Ok(LeaseId(self.last_lease))
    }

    pub(crate) fn keep_alive(&mut self, lease: LeaseId) -> Result<bool, Fault> {
        let renewed = self.run(
            "UPDATE lease SET expires_at_unix_ms = ?2 + ttl_ms WHERE id = ?1",
            params![lease.0, now()],
        )?;
        Ok(renewed == 1)
    }

    pub(crate) fn revoke(&mut self, lease: LeaseId) -> Result<(), Fault> {
        let paths: Vec<String> = {
            let mut held = self
                .transaction
                .prepare_cached("SELECT key FROM kv WHERE lease = ?1 ORDER BY key")?;
            held.query_map([lease.0], |row| row.get(0))?
                .collect::<Result<_, _>>()?
        };
        let puts: Vec<Put> = paths.into_iter().map(|path| (path, None, None)).collect();
        self.apply(&puts)?;
        self.run("DELETE FROM lease WHERE id = ?1", params![lease.0])?;
        Ok(())
    }

    pub(crate) fn has_ended_leases(&self) -> Result<bool, Fault> {
        let mut first = self
            .transaction
            .prepare_cached("SELECT min(expires_at_unix_ms) FROM lease")?;
        let first: Option<i64> = first.query_row([], |row| row.get(0))?;
        Ok(first.is_some_and(|end| end <= now()))
    }

    /// Revokes leases whose time is over, in the order in which it ran out.
    pub(crate) fn end_leases(&mut self) -> Result<(), Fault> {
        if !self.has_ended_leases()? {
            return Ok(());
        }
        let ended: Vec<i64> = {
            let mut ended = self.transaction.prepare_cached(
                "SELECT id FROM lease WHERE expires_at_unix_ms <= ?1
                 ORDER BY expires_at_unix_ms, id",
            )?;
            ended
                .query_map([now()], |row| row.get(0))?
                .collect::<Result<_, _>>()?
        };
        ended
            .into_iter()
            .try_for_each(|lease| self.revoke(LeaseId(lease)))
    }

    /// Writes all at one revision. Deletions of what is not there write nothing.
    fn apply(&mut self, puts: &[Put]) -> Result<(), Fault> {
        let revision = self.revision.0 + 1;
        let mut seq = 0_i64;
        for (path, value, lease) in puts {
            let lease = lease.map(|lease| lease.0);
            match value {
                Some(value) => self.run(
                    "INSERT INTO kv VALUES (?1, ?2, ?3, ?3, ?4) ON CONFLICT(key) DO UPDATE
                     SET value = excluded.value, mod_rev = excluded.mod_rev, lease = excluded.lease",
                    params![path, value, revision, lease],
                )?,
                None if self.run("DELETE FROM kv WHERE key = ?1", params![path])? == 0 => continue,
                None => 1,
            };
            self.run(
                "INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5)",
                params![revision, seq, path, value, lease],
            )?;
            seq += 1;
        }
        if seq > 0 {
            self.revision = Revision(revision);
            self.run("UPDATE meta SET revision = ?1", params![revision])?;
        }
        Ok(())
    }

    fn answer(&self, read: &Read) -> Result<Answer, Fault> {
        let mut entries = match read {
            Read::Get(key) | Read::Exists(key) => self.get(key)?.into_iter().collect(),
            Read::List(prefix) | Read::Keys(prefix) => {
                self.list_page(&prefix.path(), None, usize::MAX, None)?
                    .entries
            }
        };
        if matches!(read, Read::Exists(_) | Read::Keys(_)) {
            for entry in &mut entries {
                entry.value = Vec::new();
            }
        }
        Ok(Answer { entries })
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, Fault> {
        let mut statement = self
            .transaction
            .prepare_cached("SELECT key, value, mod_rev, lease FROM kv WHERE key = ?1")?;
        Ok(statement
            .query_row([key.path()], entry)
            .optional()?
            .flatten())
    }

    fn modified(&self, key: &Key) -> Result<Option<Revision>, Fault> {
        let mut statement = self
            .transaction
            .prepare_cached("SELECT mod_rev FROM kv WHERE key = ?1")?;
        let found = statement
            .query_row([key.path()], |row| row.get(0))
            .optional()?;
        Ok(found.map(Revision))
    }

    fn has_lease(&self, lease: LeaseId) -> bool {
        let found = self
            .transaction
            .prepare_cached("SELECT 1 FROM lease WHERE id = ?1");
        found
            .and_then(|mut found| found.exists([lease.0]))
            .unwrap_or(false)
    }

    fn kept(&self, revision: Revision) -> Result<(), Fault> {
        if revision >= self.compacted {
            return Ok(());
        }
        Err(Fault::Store(StoreError::Compacted {
            asked: revision,
            oldest: self.compacted,
        }))
    }

    fn run(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<usize, Fault> {
        Ok(self.transaction.prepare_cached(sql)?.execute(values)?)
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Option<Entry>> {
    let Some(key) = Key::parse(row.get_ref(0)?.as_str()?) else {
        return Ok(None);
    };
    Ok(Some(Entry {
        key,
        value: row.get(1)?,
        revision: Revision(row.get(2)?),
        lease: lease(row)?,
    }))
}

fn lease(row: &Row<'_>) -> rusqlite::Result<Option<LeaseId>> {
    Ok(row.get::<_, Option<i64>>(3)?.map(LeaseId))
}

/// The first path after all that begin with `prefix`. Prefixes end in ASCII, so that raising the last
/// byte makes a text.
fn range_end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    let raised = end
        .pop()
        .and_then(|last| char::from_u32(u32::from(last) + 1));
    end.push(raised.unwrap_or(char::MAX));
    end
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    milliseconds(since)
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

const RANGE: &str = "SELECT key, value, mod_rev, lease FROM kv
    WHERE key >= ?1 AND key < ?2 AND key > ?3 ORDER BY key";

const RANGE_AT: &str = "SELECT key, value, rev, lease FROM log AS version
    WHERE key >= ?1 AND key < ?2 AND key > ?3 AND value IS NOT NULL
    AND rev = (SELECT max(rev) FROM log WHERE key = version.key AND rev <= ?4) ORDER BY key";

/// Revisions by which history grows beyond what is kept, before it is compacted.
const COMPACTION_STEP: i64 = 1000;

/// Rows of history after which a watch's read stops, at the end of a revision.
const WATCH_ROWS: i64 = 500;
