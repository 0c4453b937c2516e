use std::collections::BTreeMap;
use std::time::Duration;

use margay_model::{Key, Prefix};

use super::{Event, Follower, Options, Update};
use crate::memory::{Disturbance, Fault, Memory};
use crate::types::{Batch, Outcome, Revision, Write};
use crate::{Store, StoreError};

fn key(number: usize) -> Key {
    Key::Handle(format!("h{number:03}"))
}

async fn commit(store: &Memory, writes: impl IntoIterator<Item = Write>) -> Revision {
    match store.commit(&Batch::of(writes)).await {
        Ok(Outcome::Committed(revision)) => revision,
        other => panic!("{other:?}"),
    }
}

async fn fill(store: &Memory, count: usize) -> Revision {
    commit(store, (0..count).map(|n| Write::put(key(n), vec![]))).await
}

fn follow(store: &Memory) -> Follower<Memory> {
    Follower::new(store.client(), [Prefix::Handles], Options::default())
}

/// Updates as (key, value or none).
fn plain(updates: &[Update]) -> Vec<(Key, Option<Vec<u8>>)> {
    let plain = updates.iter().map(|update| match update {
        Update::Put(entry) => (entry.key.clone(), Some(entry.value.clone())),
        Update::Delete(key) => (key.clone(), None),
    });
    plain.collect()
}

async fn synced(follower: &mut Follower<Memory>) -> Vec<(Key, Option<Vec<u8>>)> {
    match follower.next().await {
        Event::Synced { updates, .. } => plain(&updates),
        other => panic!("{other:?}"),
    }
}

async fn changed(follower: &mut Follower<Memory>) -> Vec<(Key, Option<Vec<u8>>)> {
    match follower.next().await {
        Event::Changed { updates, .. } => plain(&updates),
        other => panic!("{other:?}"),
    }
}

/// Whether the follower says nothing for a (paused) minute.
async fn silent(follower: &mut Follower<Memory>) -> bool {
    tokio::time::timeout(Duration::from_secs(60), follower.next())
        .await
        .is_err()
}

#[tokio::test(start_paused = true)]
async fn a_list_then_changes() {
    let store = Memory::new();
    fill(&store, 2).await;
    let mut follower = follow(&store);
    assert_eq!(
        synced(&mut follower).await,
        [(key(0), Some(vec![])), (key(1), Some(vec![]))]
    );
    commit(
        &store,
        [Write::delete_any(key(0)), Write::put(key(2), b"x".to_vec())],
    )
    .await;
    let expected = [(key(0), None), (key(2), Some(b"x".to_vec()))];
    assert_eq!(changed(&mut follower).await, expected);
    assert_eq!(follower.revision(), store.revision());
    assert!(silent(&mut follower).await);
}

#[tokio::test(start_paused = true)]
async fn several_ranges_are_listed_at_one_revision() {
    let store = Memory::new();
    fill(&store, 1).await;
    commit(&store, [Write::put(Key::PoolMarker, vec![])]).await;
    let prefixes = [Prefix::Handles, Prefix::Margay];
    let mut follower = Follower::new(store.client(), prefixes, Options::default());
    let keys: Vec<_> = synced(&mut follower)
        .await
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, [key(0), Key::PoolMarker]);
    commit(&store, [Write::delete_any(Key::PoolMarker)]).await;
    assert_eq!(changed(&mut follower).await, [(Key::PoolMarker, None)]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_many_ranges_is_one_outage() {
    let store = Memory::new();
    let prefixes = [
        Prefix::Handles,
        Prefix::Margay,
        Prefix::Blocks,
        Prefix::HostAffinities,
    ];
    let mut follower = Follower::new(store.client(), prefixes, Options::default());
    synced(&mut follower).await;
    assert!(silent(&mut follower).await);
    store.break_watches();
    assert!(matches!(
        follower.next().await,
        Event::Lost(StoreError::Unavailable { .. })
    ));
    assert_eq!(synced(&mut follower).await, []);
    assert!(silent(&mut follower).await, "not one outage for each range");
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_resumes_where_it_was() {
    let store = Memory::new();
    fill(&store, 1).await;
    let client = store.client();
    let mut follower = Follower::new(client.clone(), [Prefix::Handles], Options::default());
    synced(&mut follower).await;
    assert!(silent(&mut follower).await);
    client.set_offline(true);
    store.break_watches();
    assert!(matches!(
        follower.next().await,
        Event::Lost(StoreError::Unavailable { .. })
    ));
    commit(&store, [Write::put(key(5), vec![])]).await;
    assert!(silent(&mut follower).await, "an outage is told once");
    client.set_offline(false);
    assert_eq!(synced(&mut follower).await, [], "back, without a new list");
    assert_eq!(changed(&mut follower).await, [(key(5), Some(vec![]))]);
}

#[tokio::test(start_paused = true)]
async fn compaction_brings_the_differences_only() {
    let store = Memory::new();
    fill(&store, 5).await;
    let client = store.client();
    let mut follower = Follower::new(client.clone(), [Prefix::Handles], Options::default());
    synced(&mut follower).await;
    assert!(silent(&mut follower).await);
    client.set_offline(true);
    store.break_watches();
    assert!(matches!(follower.next().await, Event::Lost(_)));
    commit(
        &store,
        [Write::delete_any(key(1)), Write::put(key(2), b"2".to_vec())],
    )
    .await;
    let last = commit(&store, [Write::put(key(9), b"9".to_vec())]).await;
    store.compact(last);
    client.set_offline(false);
    let expected = vec![
        (key(2), Some(b"2".to_vec())),
        (key(9), Some(b"9".to_vec())),
        (key(1), None),
    ];
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        match follower.next().await {
            Event::Synced { updates, .. } => seen.extend(plain(&updates)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, expected);
    commit(&store, [Write::delete_any(key(9))]).await;
    assert_eq!(changed(&mut follower).await, [(key(9), None)]);
}

#[tokio::test(start_paused = true)]
async fn an_older_store_is_held_until_it_is_newer_or_accepted() {
    for accept in [true, false] {
        let store = Memory::new();
        let old = fill(&store, 3).await;
        for number in 0..5 {
            commit(&store, [Write::put(key(number), b"new".to_vec())]).await;
        }
        let known = store.revision();
        let mut follower = follow(&store);
        synced(&mut follower).await;
        assert!(silent(&mut follower).await);
        store.rewind(old);
        assert!(matches!(follower.next().await, Event::Lost(_)));
        assert_eq!(
            follower.next().await,
            Event::Regressed { known, found: old }
        );
        assert!(
            silent(&mut follower).await,
            "it is told once, and nothing is applied"
        );
        if accept {
            follower.accept();
            let updates = synced(&mut follower).await;
            let gone: Vec<_> = updates
                .iter()
                .filter(|(_, value)| value.is_none())
                .collect();
            assert_eq!(gone, [&(key(3), None), &(key(4), None)]);
            assert_eq!(updates.len(), 5);
        } else {
            while store.revision() < known {
                commit(&store, [Write::put(key(0), b"again".to_vec())]).await;
            }
            let updates = synced(&mut follower).await;
            assert!(updates.contains(&(key(3), None)), "{updates:?}");
        }
        commit(&store, [Write::put(key(7), vec![])]).await;
        assert_eq!(changed(&mut follower).await, [(key(7), Some(vec![]))]);
    }
}

#[tokio::test(start_paused = true)]
async fn r9_another_store_is_held_while_it_lacks_anything_however_new_it_is() {
    let store = Memory::new();
    fill(&store, 12).await;
    let mut follower = follow(&store);
    synced(&mut follower).await;
    assert!(silent(&mut follower).await);
    // What is complete is taken, and told whole: equal revisions mean nothing.
    store.replace();
    assert!(matches!(follower.next().await, Event::Lost(_)));
    assert_eq!(synced(&mut follower).await.len(), 12);
    assert!(silent(&mut follower).await);
    // Restored from an older backup, and grown since beyond the revision that was known.
    let client = store.client();
    commit(&client, [Write::delete_any(key(5))]).await;
    assert_eq!(changed(&mut follower).await, [(key(5), None)]);
    let backup = store.revision();
    commit(&client, [Write::put(key(5), b"back".to_vec())]).await;
    changed(&mut follower).await;
    store.rewind(backup);
    store.replace();
    for _ in 0..9 {
        commit(&client, [Write::put(key(1), b"on".to_vec())]).await;
    }
    assert!(matches!(follower.next().await, Event::Lost(_)));
    assert_eq!(follower.next().await, Event::Replaced { lacking: 1 });
    assert!(silent(&mut follower).await);
    follower.accept();
    let updates = synced(&mut follower).await;
    assert!(updates.contains(&(key(5), None)), "{updates:?}");
    commit(&client, [Write::put(key(7), vec![])]).await;
    assert_eq!(changed(&mut follower).await, [(key(7), Some(vec![]))]);
}

/// A follower that knows 30 entries, and a store that has lost 20 of them and its history.
async fn shrunken() -> (Memory, Follower<Memory>) {
    let store = Memory::new();
    fill(&store, 30).await;
    let client = store.client();
    let mut follower = Follower::new(client.clone(), [Prefix::Handles], Options::default());
    synced(&mut follower).await;
    assert!(silent(&mut follower).await);
    client.set_offline(true);
    store.break_watches();
    assert!(matches!(follower.next().await, Event::Lost(_)));
    let last = commit(&store, (10..30).map(|n| Write::delete_any(key(n)))).await;
    store.compact(last);
    client.set_offline(false);
    // The watch opens, and then tells that it is compacted.
    assert_eq!(synced(&mut follower).await, []);
    let shrunk = Event::Shrunk {
        prefix: Prefix::Handles,
        before: 30,
        after: 10,
    };
    assert_eq!(follower.next().await, shrunk);
    assert!(silent(&mut follower).await);
    (store, follower)
}

#[tokio::test(start_paused = true)]
async fn a_shrunken_list_waits_for_the_operator() {
    let (store, mut follower) = shrunken().await;
    follower.accept();
    assert_eq!(
        synced(&mut follower).await,
        (10..30).map(|n| (key(n), None)).collect::<Vec<_>>()
    );
    commit(&store, [Write::put(key(1), b"1".to_vec())]).await;
    assert_eq!(
        changed(&mut follower).await,
        [(key(1), Some(b"1".to_vec()))]
    );
}

#[tokio::test(start_paused = true)]
async fn a_shrunken_list_goes_on_when_the_entries_come_back() {
    let (store, mut follower) = shrunken().await;
    commit(
        &store,
        (10..30).map(|n| Write::put(key(n), b"back".to_vec())),
    )
    .await;
    let back: Vec<_> = (10..30).map(|n| (key(n), Some(b"back".to_vec()))).collect();
    assert_eq!(synced(&mut follower).await, back);
}

#[tokio::test(start_paused = true)]
async fn a_restart_compares_with_what_was_known() {
    let store = Memory::new();
    let known: Vec<_> = (0..30).map(|n| (key(n), Revision(2))).collect();
    commit(&store, [Write::put(Key::PoolMarker, vec![])]).await;
    let mut follower = follow(&store).with_known(Revision(2), known.clone());
    let held = follower.next().await;
    assert!(
        matches!(
            held,
            Event::Shrunk {
                before: 30,
                after: 0,
                ..
            }
        ),
        "{held:?}"
    );
    let mut follower = follow(&store).with_known(Revision(9), known);
    let held = follower.next().await;
    assert!(
        matches!(
            held,
            Event::Regressed {
                known: Revision(9),
                ..
            }
        ),
        "{held:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn small_ranges_may_empty_and_accept_without_cause_does_nothing() {
    let store = Memory::new();
    let known: Vec<_> = (0..9).map(|n| (key(n), Revision(1))).collect();
    let mut follower = follow(&store).with_known(Revision(1), known);
    follower.accept();
    assert_eq!(synced(&mut follower).await.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_follower_may_be_interrupted_at_any_time() {
    let store = Memory::new();
    fill(&store, 3).await;
    let client = store.client();
    client.inject(Fault::LoseRequest);
    let mut follower = Follower::new(client, [Prefix::Handles], Options::default());
    let mut events = Vec::new();
    while events.len() < 2 {
        // Shorter than any pause: only a follower that keeps its place comes to an end.
        let step = tokio::time::timeout(Duration::from_millis(1), follower.next());
        if let Ok(event) = step.await {
            events.push(event);
        }
    }
    assert!(matches!(events[0], Event::Lost(_)));
    assert!(matches!(&events[1], Event::Synced { updates, .. } if updates.len() == 3));
}

#[tokio::test(start_paused = true)]
async fn under_random_faults_the_follower_ends_up_with_the_store() {
    for seed in 0..60 {
        let store = Memory::new();
        let client = store.client();
        client.disturb(Some(Disturbance {
            seed,
            refuse: 150,
            lose_request: 100,
            lose_answer: 100,
            pauses: 2,
        }));
        let options = Options {
            seed,
            ..Options::default()
        };
        let mut follower = Follower::new(client, [Prefix::Handles], options);
        let mut model: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
        for round in 0..80_usize {
            let number = (round * 7 + usize::try_from(seed).unwrap()) % 9;
            let write = match round % 3 {
                0 => Write::delete_any(key(number)),
                _ => Write::put(key(number), vec![u8::try_from(round).unwrap()]),
            };
            commit(&store, [write]).await;
            match round % 16 {
                5 => store.break_watches(),
                11 => store.compact(store.revision()),
                _ => {}
            }
            let wait = Duration::from_millis(u64::try_from(round % 4).unwrap() * 200);
            while let Ok(event) = tokio::time::timeout(wait, follower.next()).await {
                apply(&mut model, event);
            }
        }
        while let Ok(event) = tokio::time::timeout(Duration::from_secs(120), follower.next()).await
        {
            apply(&mut model, event);
        }
        let truth = store.list(&Prefix::Handles).await.unwrap().entries;
        let truth: BTreeMap<_, _> = truth.into_iter().map(|e| (e.key, e.value)).collect();
        assert_eq!(model, truth, "seed {seed}");
    }
}

fn apply(model: &mut BTreeMap<Key, Vec<u8>>, event: Event) {
    match event {
        Event::Synced { updates, .. } | Event::Changed { updates, .. } => {
            for update in updates {
                match update {
                    Update::Put(entry) => model.insert(entry.key, entry.value),
                    Update::Delete(key) => model.remove(&key),
                };
            }
        }
        Event::Lost(_) => {}
        held => panic!("{held:?}"),
    }
}
