//! What commits must do.

use margay_model::Prefix;

use super::{Harness, committed, conflict, key};
use crate::types::{Batch, Condition, Op, Outcome, Revision, Write};
use crate::{MAX_OPS, Store, StoreError};

/// A create applies to a missing key only; the conflict tells what is there.
pub async fn a_create_needs_absence(harness: &impl Harness) {
    let store = harness.client();
    let revision = committed(&store, [Write::create(key(1), b"a".to_vec())]).await;
    let found = conflict(&store, [Write::create(key(1), b"b".to_vec())]).await;
    let entry = found[0].as_ref().unwrap();
    assert_eq!(
        (entry.value.as_slice(), entry.revision),
        (b"a".as_slice(), revision)
    );
    committed(&store, [Write::delete(key(1), revision)]).await;
    committed(&store, [Write::create(key(1), b"c".to_vec())]).await;
}

/// An update applies to the revision that was read only.
pub async fn an_update_needs_its_revision(harness: &impl Harness) {
    let store = harness.client();
    let missing = conflict(&store, [Write::update(key(1), vec![], Revision(1))]).await;
    assert_eq!(missing, [None]);
    let first = committed(&store, [Write::create(key(1), b"a".to_vec())]).await;
    let second = committed(&store, [Write::update(key(1), b"b".to_vec(), first)]).await;
    let found = conflict(&store, [Write::update(key(1), b"c".to_vec(), first)]).await;
    let entry = found[0].as_ref().unwrap();
    assert_eq!(
        (entry.value.as_slice(), entry.revision),
        (b"b".as_slice(), second)
    );
    assert_eq!(store.get(&key(1)).await.unwrap().unwrap().value, b"b");
}

/// A delete applies to the revision that was read only.
pub async fn a_delete_needs_its_revision(harness: &impl Harness) {
    let store = harness.client();
    let first = committed(&store, [Write::create(key(1), b"a".to_vec())]).await;
    let second = committed(&store, [Write::put(key(1), b"b".to_vec())]).await;
    let found = conflict(&store, [Write::delete(key(1), first)]).await;
    assert_eq!(found[0].as_ref().unwrap().revision, second);
    committed(&store, [Write::delete(key(1), second)]).await;
    assert_eq!(store.get(&key(1)).await, Ok(None));
    assert_eq!(
        conflict(&store, [Write::delete(key(1), second)]).await,
        [None]
    );
}

/// Without a condition a write creates, replaces and deletes.
pub async fn an_unconditional_write_always_applies(harness: &impl Harness) {
    let store = harness.client();
    for value in [b"a", b"b"] {
        committed(&store, [Write::put(key(1), value.to_vec())]).await;
        assert_eq!(store.get(&key(1)).await.unwrap().unwrap().value, value);
    }
    committed(&store, [Write::delete_any(key(1))]).await;
    assert_eq!(store.get(&key(1)).await, Ok(None));
}

/// A conflict tells what each key of the batch holds, in the batch's order, and nothing is written.
pub async fn a_conflict_tells_what_each_key_holds(harness: &impl Harness) {
    let store = harness.client();
    let one = committed(&store, [Write::create(key(1), b"one".to_vec())]).await;
    let two = committed(&store, [Write::create(key(2), b"two".to_vec())]).await;
    let found = conflict(
        &store,
        [
            Write::put(key(3), b"new".to_vec()),
            Write::unchanged(key(2), two),
            Write::create(key(4), b"new".to_vec()),
            Write::update(key(1), b"new".to_vec(), two),
        ],
    )
    .await;
    let found: Vec<_> = found
        .into_iter()
        .map(|entry| entry.map(|e| (e.key, e.value, e.revision)))
        .collect();
    let expected = [
        None,
        Some((key(2), b"two".to_vec(), two)),
        None,
        Some((key(1), b"one".to_vec(), one)),
    ];
    assert_eq!(found, expected);
    assert_eq!(store.list(&Prefix::Handles).await.unwrap().revision, two);
}

/// Of a batch all writes appear at one revision, or none.
pub async fn a_batch_applies_all_or_nothing(harness: &impl Harness) {
    let store = harness.client();
    let old = committed(&store, [Write::create(key(0), b"old".to_vec())]).await;
    let revision = committed(
        &store,
        (1..MAX_OPS)
            .map(|n| Write::create(key(n), vec![7]))
            .chain([Write::delete(key(0), old)]),
    )
    .await;
    let all = store.list(&Prefix::Handles).await.unwrap();
    assert_eq!(all.entries.len(), MAX_OPS - 1);
    assert!(all.entries.iter().all(|entry| entry.revision == revision));
    let last = key(MAX_OPS - 1);
    let batch = (200..210)
        .map(|n| Write::create(key(n), vec![]))
        .chain([Write::create(last, vec![])]);
    conflict(&store, batch).await;
    let same = store.list(&Prefix::Handles).await.unwrap();
    assert_eq!(same, all);
}

/// A batch of checks commits at the current revision, or conflicts, and never writes.
pub async fn checks_alone_write_nothing(harness: &impl Harness) {
    let store = harness.client();
    let one = committed(&store, [Write::create(key(1), b"one".to_vec())]).await;
    let checks = [Write::unchanged(key(1), one), Write::absent(key(2))];
    assert_eq!(committed(&store, checks).await, one);
    let two = committed(&store, [Write::create(key(2), b"two".to_vec())]).await;
    let found = conflict(
        &store,
        [Write::unchanged(key(1), one), Write::absent(key(2))],
    )
    .await;
    let revisions: Vec<_> = found.iter().flatten().map(|entry| entry.revision).collect();
    assert_eq!(revisions, [one, two]);
    assert_eq!(committed(&store, []).await, two);
}

/// Checks guard the writes of the same batch.
pub async fn a_batch_mixes_checks_and_writes(harness: &impl Harness) {
    let store = harness.client();
    let guard = committed(&store, [Write::create(key(1), b"1".to_vec())]).await;
    let batch = |value: &[u8]| {
        [
            Write::unchanged(key(1), guard),
            Write::put(key(2), value.to_vec()),
        ]
    };
    committed(&store, batch(b"a")).await;
    committed(&store, [Write::put(key(1), b"2".to_vec())]).await;
    conflict(&store, batch(b"b")).await;
    assert_eq!(store.get(&key(2)).await.unwrap().unwrap().value, b"a");
}

/// A deletion of a missing key is no error, and no write either.
pub async fn deleting_nothing_raises_no_revision(harness: &impl Harness) {
    let store = harness.client();
    let revision = committed(&store, [Write::create(key(1), vec![])]).await;
    let writes = [
        Write::delete_any(key(2)),
        Write {
            key: key(3),
            condition: Condition::Absent,
            op: Op::Delete,
        },
    ];
    assert_eq!(committed(&store, writes).await, revision);
}

/// A batch that is too long, or names a key twice, is refused before anything is written.
pub async fn improper_batches_are_refused(harness: &impl Harness) {
    let store = harness.client();
    let long = Batch::of((0..=MAX_OPS).map(|n| Write::create(key(n), vec![])));
    let twice = Batch::of([Write::create(key(1), vec![]), Write::delete_any(key(1))]);
    for batch in [long, twice] {
        let refused = store.commit(&batch).await;
        assert!(
            matches!(refused, Err(StoreError::Failed { .. })),
            "{refused:?}"
        );
    }
    assert!(
        store
            .list(&Prefix::Handles)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}

/// Tasks that read, add one and commit at the revision they read lose no addition.
pub async fn concurrent_increments_lose_nothing<H: Harness>(harness: &H) {
    const TASKS: u64 = 8;
    const EACH: u64 = 10;
    committed(&harness.client(), [Write::create(key(1), b"0".to_vec())]).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = harness.client();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    let mut entry = store.get(&key(1)).await.unwrap().unwrap();
                    loop {
                        let count: u64 =
                            std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                        let value = (count + 1).to_string().into_bytes();
                        let batch = Batch::of([Write::update(key(1), value, entry.revision)]);
                        match store.commit(&batch).await.unwrap() {
                            Outcome::Committed(_) => break,
                            Outcome::Conflict(found) => entry = found[0].clone().unwrap(),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let entry = harness.client().get(&key(1)).await.unwrap().unwrap();
    assert_eq!(entry.value, (TASKS * EACH).to_string().into_bytes());
}

/// Of clients that create the same key at once, one succeeds.
pub async fn only_one_of_many_creates<H: Harness>(harness: &H) {
    let tasks: Vec<_> = (0..8_u8)
        .map(|n| {
            let store = harness.client();
            let batch = Batch::of([Write::create(key(1), vec![n])]);
            tokio::spawn(async move { store.commit(&batch).await.unwrap() })
        })
        .collect();
    let mut winners = Vec::new();
    let mut seen = Vec::new();
    for (number, task) in (0..).zip(tasks) {
        match task.await.unwrap() {
            Outcome::Committed(_) => winners.push(vec![number]),
            Outcome::Conflict(found) => seen.push(found[0].clone().unwrap().value),
        }
    }
    assert_eq!(winners.len(), 1);
    assert!(seen.iter().all(|value| *value == winners[0]));
}
