//! What leases must do.

use std::time::Duration;

use margay_model::Prefix;

use super::{Harness, changes, committed, key, single_changes};
use crate::types::{Batch, Change, Condition, LeaseId, Op, Write};
use crate::{Store, StoreError};

/// When a lease runs out its keys vanish, watches see it, and it cannot be renewed.
pub async fn keys_vanish_with_their_lease(harness: &impl Harness) {
    let store = harness.client();
    let lease = store.grant_lease(TTL).await.unwrap();
    let now = committed(
        &store,
        [
            leased(1, lease),
            leased(2, lease),
            Write::put(key(3), vec![]),
        ],
    )
    .await;
    assert_eq!(
        store.get(&key(1)).await.unwrap().unwrap().lease,
        Some(lease)
    );
    assert_eq!(store.get(&key(3)).await.unwrap().unwrap().lease, None);
    let mut watch = store.watch(&Prefix::Handles, now).await.unwrap();
    harness.elapse(TTL + TTL).await;
    let mut gone: Vec<_> = single_changes(&mut watch, 2)
        .await
        .into_iter()
        .map(|change| match change {
            Change::Delete(key, _) => key,
            Change::Put(entry) => panic!("{} was put", entry.key),
        })
        .collect();
    gone.sort();
    assert_eq!(gone, [key(1), key(2)]);
    let left = store.list(&Prefix::Handles).await.unwrap().entries;
    assert_eq!(left.len(), 1);
    assert_eq!(store.keep_alive(lease).await, Ok(false));
}

/// A lease that is renewed outlives its time.
pub async fn a_lease_kept_alive_lasts(harness: &impl Harness) {
    let store = harness.client();
    let lease = store.grant_lease(TTL).await.unwrap();
    committed(&store, [leased(1, lease)]).await;
    for _ in 0..4 {
        harness.elapse(TTL / 2).await;
        assert_eq!(store.keep_alive(lease).await, Ok(true));
    }
    assert!(store.get(&key(1)).await.unwrap().is_some());
}

/// Revoking deletes the keys at once, in one revision; what is revoked cannot be renewed.
pub async fn a_revoked_lease_takes_its_keys(harness: &impl Harness) {
    let store = harness.client();
    let lease = store.grant_lease(TTL).await.unwrap();
    let other = store.grant_lease(TTL).await.unwrap();
    assert_ne!(lease, other);
    let now = committed(
        &store,
        [leased(1, lease), leased(2, lease), leased(3, other)],
    )
    .await;
    let mut watch = store.watch(&Prefix::Handles, now).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    let left = store.list(&Prefix::Handles).await.unwrap();
    assert_eq!(left.entries.len(), 1);
    assert_eq!(left.entries[0].key, key(3));
    assert_eq!(changes(&mut watch).await.changes.len(), 2);
    assert_eq!(store.keep_alive(lease).await, Ok(false));
    assert_eq!(store.revoke_lease(lease).await, Ok(()), "twice is no error");
}

/// Writing a leased key without its lease makes it last.
pub async fn a_put_without_the_lease_frees_the_key(harness: &impl Harness) {
    let store = harness.client();
    let lease = store.grant_lease(TTL).await.unwrap();
    committed(&store, [leased(1, lease)]).await;
    committed(&store, [Write::put(key(1), b"free".to_vec())]).await;
    store.revoke_lease(lease).await.unwrap();
    let entry = store.get(&key(1)).await.unwrap().unwrap();
    assert_eq!(
        (entry.value.as_slice(), entry.lease),
        (b"free".as_slice(), None)
    );
}

/// A batch under a lease that does not exist is refused whole.
pub async fn an_unknown_lease_is_refused(harness: &impl Harness) {
    let store = harness.client();
    let batch = Batch::of([Write::put(key(1), vec![]), leased(2, LeaseId(0x7ead))]);
    let refused = store.commit(&batch).await;
    assert!(
        matches!(refused, Err(StoreError::Failed { .. })),
        "{refused:?}"
    );
    assert_eq!(store.get(&key(1)).await, Ok(None));
}

fn leased(number: usize, lease: LeaseId) -> Write {
    Write {
        key: key(number),
        condition: Condition::Any,
        op: Op::Put(b"leased".to_vec(), Some(lease)),
    }
}

/// Longer than the shortest lease that etcd grants.
const TTL: Duration = Duration::from_secs(4);
