//! Commits, and what is done when their answer is lost.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use margay_store::{Batch, Condition, Entry, Op, Outcome, Revision, StoreError, Write};

use crate::call::{Call, Member};
use crate::decode;
use crate::fault::Fault;
use crate::readback::{self, Verdict};

/// What one attempt was told.
struct Told {
    revision: Revision,
    applied: bool,
    /// What the keys hold, when it was not applied.
    found: Vec<Option<Entry>>,
}

pub(crate) async fn commit(call: &Call<'_>, batch: &Batch) -> Result<Outcome, StoreError> {
    let txn = &transaction(batch);
    // Whether an earlier attempt may have been applied.
    let mut doubtful = false;
    loop {
        let attempt = |member: Member| {
            let txn = txn.clone();
            async move {
                let response = member.kv().txn(txn).await.map_err(Fault::from)?;
                let applied = response.succeeded();
                let ranges = decode::ranges(response.op_responses());
                Ok(Told {
                    revision: decode::revision(response.header()),
                    applied,
                    found: ranges.map(|entries| entries.into_iter().next()).collect(),
                })
            }
        };
        // Another endpoint is tried at once only while nothing was sent.
        let unsent = |fault: &Fault| matches!(fault, Fault::Unreached(_));
        match call.round(attempt, unsent).await {
            Ok(told) if told.applied => return Ok(Outcome::Committed(told.revision)),
            Ok(told) if !doubtful => return Ok(Outcome::Conflict(told.found)),
            Ok(told) => match readback::judge(call, batch, told.found, told.revision).await {
                Ok(Verdict::Applied(revision)) => return Ok(Outcome::Committed(revision)),
                Ok(Verdict::Refused(found)) => return Ok(Outcome::Conflict(found)),
                // The conditions hold again; once more.
                Ok(Verdict::Untouched) => {}
                Ok(Verdict::Unclear(reason)) => return Err(call.unknown(reason)),
                Err(error) => return Err(call.unknown(error.to_string())),
            },
            Err(exhausted) if exhausted.maybe_applied => {
                doubtful = true;
                let reason = exhausted.fault.reason().to_owned();
                match readback::read_back(call, batch).await {
                    Ok(Verdict::Applied(revision)) => return Ok(Outcome::Committed(revision)),
                    Ok(Verdict::Refused(found)) => return Ok(Outcome::Conflict(found)),
                    Ok(Verdict::Untouched) if call.again(&exhausted).await => {}
                    Ok(Verdict::Untouched) => return Err(call.unknown(reason)),
                    Ok(Verdict::Unclear(why)) => {
                        return Err(call.unknown(format!("{reason}; {why}")));
                    }
                    Err(_) => return Err(call.unknown(reason)),
                }
            }
            Err(exhausted) if doubtful => {
                return Err(call.unknown(exhausted.fault.reason().to_owned()));
            }
            Err(exhausted) => return Err(call.error(exhausted)),
        }
    }
}

fn transaction(batch: &Batch) -> Txn {
    let compares: Vec<_> = batch.writes.iter().filter_map(compare).collect();
    let writes: Vec<_> = batch.writes.iter().filter_map(write).collect();
    let reads: Vec<_> = batch
        .writes
        .iter()
        .map(|write| TxnOp::get(write.key.path(), None))
        .collect();
    Txn::new().when(compares).and_then(writes).or_else(reads)
}

fn compare(write: &Write) -> Option<Compare> {
    match write.condition {
        Condition::Any => None,
        Condition::Absent => Some(Compare::version(write.key.path(), CompareOp::Equal, 0)),
        Condition::At(revision) => Some(Compare::mod_revision(
            write.key.path(),
            CompareOp::Equal,
            revision.0,
        )),
    }
}

fn write(write: &Write) -> Option<TxnOp> {
    let path = write.key.path();
    match &write.op {
        Op::Put(value, lease) => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            Some(TxnOp::put(path, value.clone(), options))
        }
        Op::Delete => Some(TxnOp::delete(path, None)),
        Op::Check => None,
    }
}
