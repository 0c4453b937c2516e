use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use margay_model::{Key, Prefix};

use super::{Disturbance, Fault, Memory};
use crate::contract::Harness;
use crate::types::{Batch, Outcome, Revision, Write};
use crate::{Store, StoreError};

impl Harness for Memory {
    type Store = Self;

    fn client(&self) -> Self {
        let client = Self::client(self);
        let seed = CLIENTS.fetch_add(1, Ordering::Relaxed);
        client.disturb(Some(Disturbance {
            seed,
            pauses: 3,
            ..Disturbance::default()
        }));
        client
    }

    async fn put_raw(&self, path: &str, value: &[u8]) {
        Self::put_raw(self, path, value);
    }

    async fn compact(&self, revision: Revision) {
        Self::compact(self, revision);
    }

    async fn elapse(&self, time: Duration) {
        self.advance(time);
    }
}

/// Gives each client pauses of its own, so that tasks interleave.
static CLIENTS: AtomicU64 = AtomicU64::new(0);

async fn fresh() -> Memory {
    Memory::new()
}

mod contract {
    use super::fresh;
    crate::contract_tests!(fresh);
}

fn handle(id: &str) -> Key {
    Key::Handle(id.to_owned())
}

#[tokio::test]
async fn faults_apply_or_do_not_as_named() {
    let store = Memory::new();
    let create = |id: &str| Batch::of([Write::create(handle(id), vec![])]);
    store.inject(Fault::Refuse);
    store.inject(Fault::LoseRequest);
    store.spare(1);
    store.inject(Fault::LoseAnswer);
    let refused = store.commit(&create("a")).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
    let lost = store.commit(&create("b")).await;
    assert!(matches!(lost, Err(StoreError::Unknown { .. })), "{lost:?}");
    assert!(matches!(
        store.commit(&create("c")).await,
        Ok(Outcome::Committed(_))
    ));
    let unanswered = store.commit(&create("d")).await;
    assert!(
        matches!(unanswered, Err(StoreError::Unknown { .. })),
        "{unanswered:?}"
    );
    let paths: Vec<_> = store.dump().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, [handle("c").path(), handle("d").path()]);
}

#[tokio::test]
async fn clients_have_faults_of_their_own() {
    let (one, two) = (Memory::new(), Memory::new());
    let other = one.client();
    one.set_offline(true);
    assert!(matches!(
        one.list(&Prefix::Ipam).await,
        Err(StoreError::Unavailable { .. })
    ));
    assert!(other.list(&Prefix::Ipam).await.is_ok());
    assert!(two.list(&Prefix::Ipam).await.is_ok());
    one.set_offline(false);
    assert!(one.list(&Prefix::Ipam).await.is_ok());
}

#[tokio::test]
async fn the_same_seed_disturbs_the_same_calls() {
    let run = async |seed| {
        let store = Memory::new();
        store.disturb(Some(Disturbance {
            seed,
            refuse: 100,
            lose_request: 100,
            lose_answer: 100,
            pauses: 2,
        }));
        let mut outcomes = Vec::new();
        for number in 0..100 {
            let batch = Batch::of([Write::put(handle(&number.to_string()), vec![])]);
            outcomes.push(store.commit(&batch).await);
        }
        (outcomes, store.dump())
    };
    let first = run(7).await;
    assert_eq!(first, run(7).await);
    assert_ne!(first, run(8).await);
    assert!(first.0.iter().any(Result::is_err));
}

#[tokio::test]
async fn rewinding_restores_what_was() {
    let store = Memory::new();
    store.put_raw("/calico/ipam/v2/handle/a", b"1");
    let kept = store.revision();
    store.put_raw("/calico/ipam/v2/handle/a", b"2");
    store.put_raw("/calico/ipam/v2/handle/b", b"2");
    let mut watch = store
        .watch(&Prefix::Handles, store.revision())
        .await
        .unwrap();
    store.rewind(kept);
    assert!(matches!(
        watch.next().await,
        Some(Err(StoreError::Unavailable { .. }))
    ));
    let page = store.list(&Prefix::Handles).await.unwrap();
    assert_eq!(page.revision, kept);
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.entries[0].value, b"1");
}
