//! What watches must do.

use margay_model::{Key, Prefix};

use super::{Harness, changes, committed, key, next, single_changes};
use crate::types::{Change, Revision, Write};
use crate::{Store, StoreError};

/// Every change arrives once, in order, from the revision asked for, deletions included.
pub async fn changes_come_in_order(harness: &impl Harness) {
    let store = harness.client();
    let r1 = committed(&store, [Write::create(key(1), b"1".to_vec())]).await;
    let r2 = committed(&store, [Write::put(key(1), b"2".to_vec())]).await;
    let mut watch = store.watch(&Prefix::Handles, r1).await.unwrap();
    let r3 = committed(&store, [Write::delete_any(key(1))]).await;
    let r4 = committed(&store, [Write::create(key(1), b"4".to_vec())]).await;
    let seen: Vec<_> = single_changes(&mut watch, 3)
        .await
        .into_iter()
        .map(plain)
        .collect();
    let expected = [
        (key(1), Some(b"2".to_vec()), r2),
        (key(1), None, r3),
        (key(1), Some(b"4".to_vec()), r4),
    ];
    assert_eq!(seen, expected);
}

/// The changes of one commit arrive together, in the batch's order.
pub async fn a_batch_arrives_whole(harness: &impl Harness) {
    let store = harness.client();
    let old = committed(&store, [Write::create(key(2), vec![])]).await;
    let mut watch = store.watch(&Prefix::Handles, old).await.unwrap();
    let revision = committed(
        &store,
        [
            Write::create(key(3), b"x".to_vec()),
            Write::delete(key(2), old),
            Write::create(Key::IpamConfig, b"elsewhere".to_vec()),
            Write::create(key(1), b"y".to_vec()),
        ],
    )
    .await;
    let seen = changes(&mut watch).await;
    assert_eq!(seen.revision, revision);
    let seen: Vec<_> = seen.changes.into_iter().map(plain).collect();
    let expected = [
        (key(3), Some(b"x".to_vec()), revision),
        (key(2), None, revision),
        (key(1), Some(b"y".to_vec()), revision),
    ];
    assert_eq!(seen, expected);
}

/// Changes outside the range do not arrive.
pub async fn a_watch_sees_its_range_only(harness: &impl Harness) {
    let store = harness.client();
    let start = store.read_many(&[]).await.unwrap().revision;
    let mut watch = store.watch(&Prefix::Blocks, start).await.unwrap();
    let block = Key::Block("10.0.0.0/26".parse().unwrap());
    committed(&store, [Write::create(key(1), vec![])]).await;
    let revision = committed(&store, [Write::create(block.clone(), vec![])]).await;
    let seen: Vec<_> = changes(&mut watch)
        .await
        .changes
        .into_iter()
        .map(plain)
        .collect();
    assert_eq!(seen, [(block, Some(vec![]), revision)]);
}

/// What was there before the revision asked for does not arrive.
pub async fn a_watch_from_now_sees_what_follows(harness: &impl Harness) {
    let store = harness.client();
    let now = committed(&store, [Write::create(key(1), vec![])]).await;
    let mut watch = harness.client().watch(&Prefix::Calico, now).await.unwrap();
    let later = committed(&store, [Write::put(key(2), b"v".to_vec())]).await;
    let seen = changes(&mut watch).await;
    assert!(seen.revision >= later);
    let seen: Vec<_> = seen.changes.into_iter().map(plain).collect();
    assert_eq!(seen, [(key(2), Some(b"v".to_vec()), later)]);
}

/// Two watches see the same; ending one does not end the other.
pub async fn watches_are_independent(harness: &impl Harness) {
    let store = harness.client();
    let now = store.read_many(&[]).await.unwrap().revision;
    let mut one = store.watch(&Prefix::Handles, now).await.unwrap();
    let mut two = store.watch(&Prefix::Handles, now).await.unwrap();
    committed(&store, [Write::create(key(1), vec![])]).await;
    assert_eq!(
        changes(&mut one).await.changes,
        changes(&mut two).await.changes
    );
    drop(one);
    committed(&store, [Write::create(key(2), vec![])]).await;
    assert_eq!(changes(&mut two).await.changes[0].key(), &key(2));
}

/// A watch that would have missed changes says so, and ends.
pub async fn a_compacted_start_is_reported(harness: &impl Harness) {
    let store = harness.client();
    let first = committed(&store, [Write::create(key(1), vec![])]).await;
    committed(&store, [Write::delete_any(key(1))]).await;
    let last = committed(&store, [Write::create(key(2), vec![])]).await;
    harness.compact(last).await;
    for start in [Revision(0), first, Revision(last.0 - 1)] {
        let mut watch = store.watch(&Prefix::Handles, start).await.unwrap();
        let told = next(&mut watch).await;
        let Some(Err(StoreError::Compacted { asked, oldest })) = told else {
            panic!("a watch from {start} was told {told:?}");
        };
        assert_eq!(asked, start);
        assert!(oldest == last || oldest == Revision(0));
        assert!(next(&mut watch).await.is_none());
    }
}

/// A watch from the revision compacted to misses nothing.
pub async fn a_kept_start_survives_compaction(harness: &impl Harness) {
    let store = harness.client();
    let first = committed(&store, [Write::create(key(1), vec![])]).await;
    let second = committed(&store, [Write::delete_any(key(1))]).await;
    harness.compact(first).await;
    let mut watch = store.watch(&Prefix::Handles, first).await.unwrap();
    let seen: Vec<_> = changes(&mut watch)
        .await
        .changes
        .into_iter()
        .map(plain)
        .collect();
    assert_eq!(seen, [(key(1), None, second)]);
}

/// Paths that are no keys do not arrive, and do not end the watch.
pub async fn watches_skip_other_paths(harness: &impl Harness) {
    let store = harness.client();
    let now = store.read_many(&[]).await.unwrap().revision;
    let mut watch = store.watch(&Prefix::Blocks, now).await.unwrap();
    harness
        .put_raw("/calico/ipam/v2/assignment/ipv4/block/nonsense", b"{")
        .await;
    let block = Key::Block("10.0.0.0/26".parse().unwrap());
    let revision = committed(&store, [Write::create(block.clone(), vec![])]).await;
    let seen: Vec<_> = changes(&mut watch)
        .await
        .changes
        .into_iter()
        .map(plain)
        .collect();
    assert_eq!(seen, [(block, Some(vec![]), revision)]);
}

/// A reader that is late loses nothing.
pub async fn many_changes_arrive(harness: &impl Harness) {
    const COUNT: usize = 300;
    let store = harness.client();
    let now = store.read_many(&[]).await.unwrap().revision;
    let mut watch = store.watch(&Prefix::Handles, now).await.unwrap();
    for number in 0..COUNT {
        committed(&store, [Write::put(key(number), vec![])]).await;
    }
    let seen = single_changes(&mut watch, COUNT).await;
    let keys: Vec<_> = seen.iter().map(|change| change.key().clone()).collect();
    assert_eq!(keys, (0..COUNT).map(key).collect::<Vec<_>>());
    assert!(seen.is_sorted_by_key(Change::revision));
}

fn plain(change: Change) -> (Key, Option<Vec<u8>>, Revision) {
    match change {
        Change::Put(entry) => (entry.key, Some(entry.value), entry.revision),
        Change::Delete(key, revision) => (key, None, revision),
    }
}
