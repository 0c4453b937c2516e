//! Whether a batch whose answer was lost has been applied.
//!
//! The keys are read in one linearizable transaction, and then:
//!
//! 1. *Applied*, when every put key holds exactly the batch's value and lease, all written by one
//!    revision that no condition knew, and every deleted key is gone. Values name their owner, so that
//!    nobody else writes the same bytes to all of the keys in one transaction; whoever did so left what
//!    the batch asked for.
//! 2. *Untouched*, when every condition holds and the batch writes a key under a condition: had it been
//!    applied, that key would have another revision. It may be sent again, and a straggler of the first
//!    attempt does no harm: of both only one can find the conditions true. A batch without conditions is
//!    sent again too; it asks for no more than that its values were written once during the call.
//! 3. Otherwise a condition is broken. A key that the batch replaces at revision R tells by whom: its
//!    version that followed R is the batch's value, or it is not, and then the batch was not applied and
//!    never will be, for R does not come back. The versions are walked back through etcd's history.
//! 4. Where that history is compacted or no key is replaced, nothing is claimed: the outcome is unknown.

use etcd_client::{GetOptions, Txn, TxnOp};
use margay_store::{Batch, Condition, Entry, Op, Revision, StoreError, Write};

use crate::call::Call;
use crate::decode;
use crate::fault::Fault;

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It was applied, at this revision.
    Applied(Revision),
    /// It was not, and all its conditions hold.
    Untouched,
    /// It was not and will not be; what each key holds.
    Refused(Vec<Option<Entry>>),
    /// It cannot be told.
    Unclear(String),
}

pub(crate) async fn read_back(call: &Call<'_>, batch: &Batch) -> Result<Verdict, StoreError> {
    let reads: Vec<_> = batch
        .writes
        .iter()
        .map(|write| TxnOp::get(write.key.path(), None))
        .collect();
    let txn = &Txn::new().and_then(reads);
    let response = call
        .run(|member| {
            let txn = txn.clone();
            async move { member.kv().txn(txn).await.map_err(Fault::from) }
        })
        .await?;
    let revision = decode::revision(response.header());
    let ranges = decode::ranges(response.op_responses());
    let found = ranges.map(|entries| entries.into_iter().next()).collect();
    judge(call, batch, found, revision).await
}

/// Judges by what the keys hold at a revision.
pub(crate) async fn judge(
    call: &Call<'_>,
    batch: &Batch,
    found: Vec<Option<Entry>>,
    revision: Revision,
) -> Result<Verdict, StoreError> {
    if let Some(applied) = applied(batch, &found, revision) {
        return Ok(Verdict::Applied(applied));
    }
    if batch
        .writes
        .iter()
        .zip(&found)
        .all(|(write, found)| holds(write.condition, found.as_ref()))
    {
        return Ok(Verdict::Untouched);
    }
    for (write, now) in batch.writes.iter().zip(&found) {
        let (Condition::At(known), Op::Put(value, _)) = (write.condition, &write.op) else {
            continue;
        };
        match follower(call, write, now.clone(), known, revision).await? {
            Follower::None | Follower::Lost => {}
            Follower::Entry(entry) if entry.value == *value => {
                return Ok(Verdict::Applied(entry.revision));
            }
            Follower::Entry(_) | Follower::Deleted => return Ok(Verdict::Refused(found)),
        }
    }
    Ok(Verdict::Unclear(
        "the keys have changed since, and history does not tell by whom".to_owned(),
    ))
}

fn applied(batch: &Batch, found: &[Option<Entry>], revision: Revision) -> Option<Revision> {
    let mut written: Option<Revision> = None;
    let mut deleted = false;
    for (write, found) in batch.writes.iter().zip(found) {
        match (&write.op, found) {
            (Op::Check, _) => {}
            (Op::Delete, None) => deleted = true,
            (Op::Put(value, lease), Some(entry))
                if entry.value == *value
                    && entry.lease == *lease
                    && write.condition != Condition::At(entry.revision)
                    && written.is_none_or(|written| written == entry.revision) =>
            {
                written = Some(entry.revision);
            }
            _ => return None,
        }
    }
    written.or_else(|| deleted.then_some(revision))
}

fn holds(condition: Condition, found: Option<&Entry>) -> bool {
    match condition {
        Condition::Any => true,
        Condition::Absent => found.is_none(),
        Condition::At(revision) => found.is_some_and(|entry| entry.revision == revision),
    }
}

/// What followed a known version of a key.
enum Follower {
    /// Nothing yet.
    None,
    Entry(Entry),
    Deleted,
    /// History does not reach so far.
    Lost,
}

/// Walks a key's versions back to the one that followed `known`.
async fn follower(
    call: &Call<'_>,
    write: &Write,
    now: Option<Entry>,
    known: Revision,
    revision: Revision,
) -> Result<Follower, StoreError> {
    // A deleted key has no revision to walk back from: its history is halved until the walk can begin.
    let mut later = match now {
        Some(entry) => entry,
        None => match at(call, write, known).await? {
            Err(lost) => return Ok(lost),
            Ok(None) => return Ok(Follower::Lost),
            Ok(Some(_)) => {
                let (mut low, mut high) = (known, revision);
                let mut last = None;
                while high.0 - low.0 > 1 {
                    let middle = Revision(low.0 + (high.0 - low.0) / 2);
                    match at(call, write, middle).await? {
                        Err(lost) => return Ok(lost),
                        Ok(None) => high = middle,
                        Ok(Some(entry)) => {
                            low = middle;
                            last = Some(entry);
                        }
                    }
                }
                match last.filter(|entry| entry.revision > known) {
                    Some(entry) => entry,
                    None => return Ok(Follower::Deleted),
                }
            }
        },
    };
    if later.revision <= known {
        return Ok(Follower::None);
    }
    for _ in 0..LONGEST_WALK {
        match at(call, write, Revision(later.revision.0 - 1)).await? {
            Err(lost) => return Ok(lost),
            Ok(Some(entry)) if entry.revision > known => later = entry,
            Ok(Some(_)) => return Ok(Follower::Entry(later)),
            // It was created anew, so that it was deleted before.
            Ok(None) => return Ok(Follower::Lost),
        }
    }
    Ok(Follower::Lost)
}

/// What a key held at a revision, or that history does not reach so far.
async fn at(
    call: &Call<'_>,
    write: &Write,
    revision: Revision,
) -> Result<Result<Option<Entry>, Follower>, StoreError> {
    let (path, options) = (
        &write.key.path(),
        &GetOptions::new().with_revision(revision.0),
    );
    let read = call
        .run(|member| {
            let (path, options) = (path.clone(), options.clone());
            async move {
                member
                    .kv()
                    .get(path, Some(options))
                    .await
                    .map_err(Fault::from)
            }
        })
        .await;
    match read {
        Ok(response) => Ok(Ok(response.kvs().first().and_then(decode::entry))),
        Err(StoreError::Compacted { .. }) => Ok(Err(Follower::Lost)),
        Err(error) => Err(error),
    }
}

/// Versions of one key that are looked at.
const LONGEST_WALK: usize = 16;
