//! Watches.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use margay_model::Prefix;
use margay_store::{Change, Changes, Revision, StoreError, Watch};
use tokio::sync::mpsc;

use crate::call::Cluster;
use crate::decode;
use crate::fault::Fault;

pub(crate) async fn start(
    cluster: Arc<Cluster>,
    prefix: &Prefix,
    after: Revision,
) -> Result<Watch, StoreError> {
    // From `after` itself, not from the next: etcd reports a start as compacted only when it lies before
    // the revision compacted to, though deletions at that one may be gone. What is not after is dropped.
    let options = WatchOptions::new()
        .with_range(decode::range_end(prefix.path().into_bytes()))
        .with_start_revision(after.0.max(1))
        .with_progress_notify();
    let (path, options) = (&prefix.path(), &options);
    let call = cluster.call("watch");
    let (stream, first) = call
        .run(|member| {
            let (path, options) = (path.clone(), options.clone());
            async move {
                let stream = member.watch().watch(path, Some(options)).await;
                let mut stream = stream.map_err(Fault::from)?;
                let first = stream.message().await.map_err(Fault::from)?;
                let Some(first) = first else {
                    return Err(Fault::Unanswered("the watch ended at once".to_owned()));
                };
                if first.canceled() && first.compact_revision() == 0 {
                    let reason = first.cancel_reason().to_owned();
                    return Err(match reason.contains("permission") {
                        true => Fault::Denied(reason),
                        false => Fault::Unanswered(reason),
                    });
                }
                Ok((stream, first))
            }
        })
        .await?;
    let target = cluster.target().to_owned();
    let (sender, watch) = Watch::channel(CHANNEL);
    tokio::spawn(feed(stream, first, after, target, sender));
    Ok(watch)
}

async fn feed(
    mut stream: WatchStream,
    first: WatchResponse,
    after: Revision,
    target: String,
    sender: mpsc::Sender<Result<Changes, StoreError>>,
) {
    let mut response = first;
    loop {
        match changes(&response, after, &target) {
            Ok(all) => {
                for changes in all {
                    if sender.send(Ok(changes)).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                // A reader that is gone needs no error.
                sender.send(Err(error)).await.ok();
                return;
            }
        }
        response = match unless(sender.closed(), stream.message()).await {
            None => return,
            Some(Ok(Some(response))) => response,
            Some(ended) => {
                let reason = match ended {
                    Err(error) => Fault::from(error).reason().to_owned(),
                    Ok(_) => "etcd ended the watch".to_owned(),
                };
                sender
                    .send(Err(StoreError::Unavailable { target, reason }))
                    .await
                    .ok();
                return;
            }
        };
    }
}

/// A response's changes, one item for each revision. An empty one tells how far the watch is; etcd sends
/// it only to a watch that has caught up.
fn changes(
    response: &WatchResponse,
    after: Revision,
    target: &str,
) -> Result<Vec<Changes>, StoreError> {
    if response.compact_revision() != 0 {
        return Err(StoreError::Compacted {
            asked: after,
            oldest: Revision(response.compact_revision()),
        });
    }
    if response.canceled() {
        return Err(StoreError::Unavailable {
            target: target.to_owned(),
            reason: format!("etcd cancelled the watch: {}", response.cancel_reason()),
        });
    }
    if response.events().is_empty() {
        if response.created() {
            return Ok(Vec::new());
        }
        return Ok(vec![Changes {
            revision: decode::revision(response.header()),
            changes: Vec::new(),
        }]);
    }
    let mut all: Vec<Changes> = Vec::new();
    for event in response.events() {
        let Some(pair) = event.kv() else { continue };
        let revision = Revision(pair.mod_revision());
        if revision <= after {
            continue;
        }
        let change = match event.event_type() {
            EventType::Put => decode::entry(pair).map(Change::Put),
            EventType::Delete => decode::key(pair).map(|key| Change::Delete(key, revision)),
        };
        let Some(change) = change else { continue };
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
    Ok(all)
}

/// Awaits `work`, or `None` when `end` comes first.
async fn unless<T>(end: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    let (mut end, mut work) = (pin!(end), pin!(work));
    poll_fn(|context| {
        if end.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// Revisions that a watch's reader may be late before etcd is asked for no more.
const CHANNEL: usize = 64;
