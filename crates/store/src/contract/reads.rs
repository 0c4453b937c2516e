//! What reads must do.

use margay_model::{Key, Kind, Prefix};

use super::{Harness, committed, key};
use crate::types::{Read, Revision, Write};
use crate::{MAX_OPS, PAGE, Store, StoreError};

/// A value reads back with the revision of its commit, and a missing key reads as none.
pub async fn a_key_reads_as_written(harness: &impl Harness) {
    let store = harness.client();
    assert_eq!(store.get(&key(1)).await, Ok(None));
    let revision = committed(&store, [Write::create(key(1), b"one".to_vec())]).await;
    let entry = harness.client().get(&key(1)).await.unwrap().unwrap();
    assert_eq!(entry.key, key(1));
    assert_eq!(entry.value, b"one");
    assert_eq!(entry.revision, revision);
    assert_eq!(entry.lease, None);
    let second = committed(&store, [Write::put(key(2), b"two".to_vec())]).await;
    assert!(second > revision);
    let entry = store.get(&key(1)).await.unwrap().unwrap();
    assert_eq!(
        entry.revision, revision,
        "another key's write changes nothing"
    );
}

/// An empty value is a value; a value of some hundred kilobytes is kept whole.
pub async fn values_may_be_empty_or_large(harness: &impl Harness) {
    let store = harness.client();
    let large: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    committed(&store, [Write::create(key(1), Vec::new())]).await;
    committed(&store, [Write::create(key(2), large.clone())]).await;
    assert_eq!(store.get(&key(1)).await.unwrap().unwrap().value, b"");
    assert_eq!(store.get(&key(2)).await.unwrap().unwrap().value, large);
    assert_eq!(store.list(&Prefix::Handles).await.unwrap().entries.len(), 2);
}

/// Answers come in the order of the reads, all of one revision.
pub async fn several_reads_in_one_call(harness: &impl Harness) {
    let store = harness.client();
    let empty = store.read_many(&[]).await.unwrap();
    assert!(empty.answers.is_empty());
    let first = committed(&store, [Write::create(key(1), b"one".to_vec())]).await;
    let last = committed(
        &store,
        [
            Write::create(key(3), b"three".to_vec()),
            Write::create(key(2), b"two".to_vec()),
            Write::create(Key::IpamConfig, b"{}".to_vec()),
        ],
    )
    .await;
    assert!(empty.revision < first);
    let reads = [
        Read::Exists(key(2)),
        Read::Get(key(9)),
        Read::List(Prefix::Handles),
        Read::Keys(Prefix::Ipam),
        Read::Exists(key(9)),
        Read::Get(key(1)),
        Read::List(Prefix::Blocks),
    ];
    let snapshot = store.read_many(&reads).await.unwrap();
    assert_eq!(snapshot.revision, last);
    let page = harness.client().list(&Prefix::Handles).await.unwrap();
    assert_eq!(snapshot.store, empty.store);
    assert_eq!(snapshot.store, page.store, "for every client");
    let found: Vec<Vec<_>> = snapshot
        .answers
        .iter()
        .map(|answer| {
            answer
                .entries
                .iter()
                .map(|entry| (&entry.key, entry.value.as_slice(), entry.revision))
                .collect()
        })
        .collect();
    let (one, two, three) = (&key(1), &key(2), &key(3));
    let expected: Vec<Vec<(&Key, &[u8], Revision)>> = vec![
        vec![(two, b"", last)],
        vec![],
        vec![
            (one, b"one", first),
            (two, b"two", last),
            (three, b"three", last),
        ],
        vec![
            (&Key::IpamConfig, b"", last),
            (one, b"", first),
            (two, b"", last),
            (three, b"", last),
        ],
        vec![],
        vec![(one, b"one", first)],
        vec![],
    ];
    assert_eq!(found, expected);
}

/// The most reads allowed work, and one more is refused.
pub async fn reads_beyond_the_limit_are_refused(harness: &impl Harness) {
    let store = harness.client();
    let mut reads: Vec<_> = (0..MAX_OPS).map(|n| Read::Get(key(n))).collect();
    let snapshot = store.read_many(&reads).await.unwrap();
    assert_eq!(snapshot.answers.len(), MAX_OPS);
    reads.push(Read::Get(key(MAX_OPS)));
    let refused = store.read_many(&reads).await;
    assert!(
        matches!(refused, Err(StoreError::Failed { .. })),
        "{refused:?}"
    );
}

/// Pages at the revision of the first one do not see later writes.
pub async fn pages_are_of_one_revision(harness: &impl Harness) {
    let store = harness.client();
    let base = committed(&store, (0..10).map(|n| Write::create(key(n), vec![1]))).await;
    let page = store
        .list_page(&Prefix::Handles, None, 4, None)
        .await
        .unwrap();
    assert_eq!(page.revision, base);
    assert!(page.more);
    let keys: Vec<_> = page.entries.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, [key(0), key(1), key(2), key(3)]);
    committed(
        &store,
        [
            Write::put(key(4), vec![2]),
            Write::delete_any(key(5)),
            Write::create(key(10), vec![2]),
        ],
    )
    .await;
    let page = store
        .list_page(&Prefix::Handles, Some(&key(3)), 6, Some(base))
        .await
        .unwrap();
    assert_eq!(page.revision, base);
    assert!(!page.more, "the page that ends the range says so");
    let rest: Vec<_> = page
        .entries
        .into_iter()
        .map(|entry| (entry.key, entry.value))
        .collect();
    let expected: Vec<_> = (4..10).map(|n| (key(n), vec![1])).collect();
    assert_eq!(rest, expected);
    let after_all = store
        .list_page(&Prefix::Handles, Some(&key(10)), 6, None)
        .await
        .unwrap();
    assert!(after_all.entries.is_empty() && !after_all.more);
}

/// A list longer than several pages is whole and in order.
pub async fn long_lists_are_whole(harness: &impl Harness) {
    let store = harness.client();
    let total = 2 * PAGE + 7;
    let numbers: Vec<_> = (0..total).collect();
    for chunk in numbers.chunks(MAX_OPS) {
        committed(
            &store,
            chunk
                .iter()
                .map(|n| Write::create(key(*n), n.to_string().into())),
        )
        .await;
    }
    let all = store.list(&Prefix::Handles).await.unwrap();
    assert!(!all.more);
    assert_eq!(all.entries.len(), total);
    for (number, entry) in all.entries.iter().enumerate() {
        assert_eq!(entry.key, key(number));
        assert_eq!(entry.value, number.to_string().into_bytes());
    }
    let answers = store
        .read_many(&[Read::List(Prefix::Handles)])
        .await
        .unwrap()
        .answers;
    assert_eq!(answers[0].entries, all.entries);
}

/// Paths that are no keys are left out, even when they would fill pages.
pub async fn other_paths_are_skipped(harness: &impl Harness) {
    let store = harness.client();
    for number in 0..7 {
        harness
            .put_raw(&format!("{BLOCKS}ipv4/block/10.0.0.{number}"), b"{}")
            .await;
    }
    harness
        .put_raw(&format!("{BLOCKS}ipv4/block/\u{fffd}"), b"")
        .await;
    let block = Key::Block("10.0.1.0/26".parse().unwrap());
    committed(&store, [Write::create(block.clone(), b"{}".to_vec())]).await;
    let all = store.list(&Prefix::Blocks).await.unwrap();
    assert_eq!(all.entries.len(), 1);
    let page = store
        .list_page(&Prefix::Blocks, None, 1, None)
        .await
        .unwrap();
    assert_eq!(
        page.entries[0].key, block,
        "a page holds keys while there are any"
    );
    let page = store
        .list_page(&Prefix::Blocks, Some(&block), 1, None)
        .await
        .unwrap();
    assert!(page.entries.is_empty() && !page.more);
    let reads = [Read::List(Prefix::Blocks), Read::Keys(Prefix::Blocks)];
    for answer in store.read_many(&reads).await.unwrap().answers {
        assert_eq!(answer.entries.len(), 1);
    }
}

/// A range holds what its prefix begins, in the order of the paths' bytes, and nothing else.
pub async fn ranges_end_where_their_prefix_does(harness: &impl Harness) {
    let store = harness.client();
    let policy =
        |namespace: &str, name: &str| Key::namespaced(Kind::NetworkPolicy, namespace, name);
    let keys = [
        policy("a", "a"),
        policy("a", "a-b"),
        policy("a", "a.b"),
        policy("a", "z"),
        policy("a-b", "a"),
        policy("ab", "a"),
        policy("b", "a"),
    ];
    committed(
        &store,
        keys.iter()
            .rev()
            .map(|key| Write::create(key.clone(), vec![])),
    )
    .await;
    let listed = async |prefix| -> Vec<Key> {
        let page = store.list(&prefix).await.unwrap();
        page.entries.into_iter().map(|entry| entry.key).collect()
    };
    let mut sorted = keys.to_vec();
    sorted.sort_by_key(Key::path);
    assert_eq!(listed(Prefix::Resources(Kind::NetworkPolicy)).await, sorted);
    let in_a = listed(Prefix::Namespace(Kind::NetworkPolicy, "a".into())).await;
    assert_eq!(in_a, keys[..4]);
    let named = listed(Prefix::NamesFrom(
        Kind::NetworkPolicy,
        "a".into(),
        "a-".into(),
    ))
    .await;
    assert_eq!(named, [policy("a", "a-b")]);
    assert!(listed(Prefix::Margay).await.is_empty());
}

/// A revision that is kept can be read; one to come cannot.
pub async fn history_can_be_read(harness: &impl Harness) {
    let store = harness.client();
    let first = committed(&store, [Write::create(key(1), b"1".to_vec())]).await;
    let second = committed(&store, [Write::put(key(1), b"2".to_vec())]).await;
    let third = committed(&store, [Write::delete_any(key(1))]).await;
    for (revision, values) in [
        (Revision(first.0 - 1), vec![]),
        (first, vec![b"1".to_vec()]),
        (second, vec![b"2".to_vec()]),
        (third, vec![]),
    ] {
        let page = store
            .list_page(&Prefix::Handles, None, 9, Some(revision))
            .await
            .unwrap();
        let found: Vec<_> = page.entries.into_iter().map(|entry| entry.value).collect();
        assert_eq!(found, values, "at {revision}");
    }
    let future = Revision(third.0 + 5);
    let page = store
        .list_page(&Prefix::Handles, None, 9, Some(future))
        .await;
    assert!(matches!(page, Err(StoreError::Failed { .. })), "{page:?}");
}

/// A revision that is compacted is reported as such, and the one compacted to can be read.
pub async fn compacted_history_is_reported(harness: &impl Harness) {
    let store = harness.client();
    let first = committed(&store, [Write::create(key(1), b"1".to_vec())]).await;
    let second = committed(&store, [Write::put(key(1), b"2".to_vec())]).await;
    committed(&store, [Write::put(key(1), b"3".to_vec())]).await;
    harness.compact(second).await;
    let page = store
        .list_page(&Prefix::Handles, None, 9, Some(first))
        .await;
    let Err(StoreError::Compacted { asked, .. }) = page else {
        panic!("not reported: {page:?}");
    };
    assert_eq!(asked, first);
    let page = store
        .list_page(&Prefix::Handles, None, 9, Some(second))
        .await
        .unwrap();
    assert_eq!(page.entries[0].value, b"2");
    assert_eq!(store.get(&key(1)).await.unwrap().unwrap().value, b"3");
}

const BLOCKS: &str = "/calico/ipam/v2/assignment/";
