//! What the allocator assigns, refuses and releases, over the in-memory store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{NOW, addresses, node, pool, release, request, want};
use margay_ipam_core::release::Address;
use margay_ipam_core::{
    Allocator, Assignment, IpamError, Limits, NoCompanion, Refusal, Request, Want,
};
use margay_model::ipam::{Affinity, AffinityState, Attribute, Block, IpamConfig};
use margay_model::key::Owner;
use margay_model::resource::pool::{AllowedUse, AssignmentMode, IPReservation, IPReservationSpec};
use margay_model::{Cidr, Family, Key, Metadata, Prefix, json};
use margay_store::memory::{Fault, Memory};
use margay_store::{
    Batch, LeaseId, Outcome, Page, Read, Revision, Snapshot, Store, StoreError, Watch,
};

fn cluster() -> Memory {
    let memory = Memory::new();
    pool(&memory, "pool-a", "192.168.0.0/16", |_| {});
    pool(&memory, "pool-six", "fd00:10::/64", |_| {});
    node(&memory, "n1", &[("rack", "r1")]);
    node(&memory, "n2", &[("rack", "r2")]);
    memory
}

fn configure(memory: &Memory, change: impl FnOnce(&mut IpamConfig)) {
    let mut config = IpamConfig::default();
    change(&mut config);
    memory.put_raw(&Key::IpamConfig.path(), &json::encode(&config).unwrap());
}

async fn assign(memory: &Memory, request: &Request) -> Result<Assignment, IpamError> {
    Allocator::new(memory)
        .assign(request, &mut NoCompanion)
        .await
}

async fn block(memory: &Memory, cidr: Cidr) -> Option<Block> {
    let entry = memory.get(&Key::Block(cidr)).await.unwrap()?;
    Some(serde_json::from_slice(&entry.value).unwrap())
}

async fn blocks(memory: &Memory) -> Vec<Block> {
    let page = memory.list(&Prefix::Blocks).await.unwrap();
    page.entries
        .iter()
        .map(|entry| serde_json::from_slice(&entry.value).unwrap())
        .collect()
}

fn refusals(result: Result<Assignment, IpamError>) -> Vec<Refusal> {
    match result {
        Err(IpamError::NoAddress { refusals, .. }) => refusals
            .into_iter()
            .map(|refusal| refusal.refusal)
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_block_is_claimed_and_used_in_order() {
    let memory = cluster();
    let first = addresses(assign(&memory, &request("n1", "h1", vec![want(Family::V4)])).await);
    let second = addresses(assign(&memory, &request("n1", "h2", vec![want(Family::V4)])).await);
    let [held] = &blocks(&memory).await[..] else {
        panic!("one block is expected")
    };
    assert_eq!(held.affinity.as_deref(), Some("host:n1"));
    assert_eq!(first, [held.cidr.nth(0).unwrap().to_string()]);
    assert_eq!(second, [held.cidr.nth(1).unwrap().to_string()]);
    let affinity = memory
        .get(&Key::host_affinity("n1", held.cidr))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(affinity.value, br#"{"state":"confirmed","deleted":false}"#);
    let handle = memory
        .get(&Key::Handle("h1".into()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        String::from_utf8(handle.value).unwrap(),
        format!(r#"{{"block":{{"{}":1}},"deleted":false}}"#, held.cidr)
    );
}

#[tokio::test]
async fn both_families_or_none() {
    let memory = cluster();
    let both = vec![want(Family::V4), want(Family::V6)];
    let got = addresses(assign(&memory, &request("n1", "h1", both.clone())).await);
    assert!(
        got[0].starts_with("192.168.") && got[1].starts_with("fd00:10::"),
        "{got:?}"
    );
    let memory = cluster();
    pool(&memory, "pool-six", "fd00:10::/64", |spec| {
        spec.disabled = true
    });
    let before = memory.dump();
    assert_eq!(
        refusals(assign(&memory, &request("n1", "h1", both)).await),
        [Refusal::Disabled]
    );
    assert_eq!(memory.dump(), before);
}

#[tokio::test]
async fn every_pool_says_why_not() {
    let memory = Memory::new();
    node(&memory, "n1", &[("rack", "r1")]);
    let asked = request("n1", "h", vec![want(Family::V4)]);
    assert_eq!(refusals(assign(&memory, &asked).await), []);
    pool(&memory, "a-off", "10.0.0.0/24", |spec| spec.disabled = true);
    pool(&memory, "b-rack", "10.0.1.0/24", |spec| {
        spec.node_selector = Some("rack == 'r2'".into())
    });
    pool(&memory, "c-tunnel", "10.0.2.0/24", |spec| {
        spec.allowed_uses = vec![AllowedUse::Tunnel]
    });
    pool(&memory, "d-manual", "10.0.3.0/24", |spec| {
        spec.assignment_mode = Some(AssignmentMode::Manual);
    });
    pool(&memory, "e-namespace", "10.0.4.0/24", |spec| {
        spec.namespace_selector = Some("team == 'x'".into());
    });
    let error = assign(&memory, &asked).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no IPv4 address for node n1: pool a-off (10.0.0.0/24) is disabled; \
         pool b-rack (10.0.1.0/24) does not select this node (nodeSelector \"rack == 'r2'\"); \
         pool c-tunnel (10.0.2.0/24) is not for use as Workload (allowedUses); \
         pool d-manual (10.0.3.0/24) is used only when asked for (assignmentMode Manual); \
         pool e-namespace (10.0.4.0/24) does not select the namespace (namespaceSelector \"team == 'x'\")"
    );
    let manual = Want::Auto {
        family: Family::V4,
        pools: vec!["d-manual".into()],
    };
    let got = addresses(assign(&memory, &request("n1", "h", vec![manual])).await);
    assert!(got[0].starts_with("10.0.3."), "{got:?}");
    let by_cidr = Want::Auto {
        family: Family::V4,
        pools: vec!["10.0.1.0/24".into()],
    };
    let got = addresses(assign(&memory, &request("n1", "h2", vec![by_cidr])).await);
    assert!(got[0].starts_with("10.0.1."), "{got:?}");
    let unknown = Want::Auto {
        family: Family::V4,
        pools: vec!["nosuch".into()],
    };
    let error = assign(&memory, &request("n1", "h3", vec![unknown]))
        .await
        .unwrap_err();
    assert!(matches!(error, IpamError::NoSuchPool { .. }), "{error}");
}

#[tokio::test]
async fn an_unregistered_node_gets_nothing() {
    let memory = cluster();
    let error = assign(&memory, &request("ghost", "h", vec![want(Family::V4)]))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        IpamError::UnknownNode {
            node: "ghost".into()
        }
    );
}

#[tokio::test]
async fn reserved_addresses_are_never_given_out() {
    let memory = Memory::new();
    pool(&memory, "p", "10.0.0.0/29", |spec| {
        spec.block_size = Some(29)
    });
    node(&memory, "n1", &[]);
    let reservation = IPReservation::new(
        Metadata::named("r"),
        IPReservationSpec {
            reserved_cidrs: vec!["10.0.0.0/30".into(), "10.0.0.7".into()],
            ..IPReservationSpec::default()
        },
    );
    memory.put_raw(&reservation.key().path(), &reservation.encode().unwrap());
    for expected in ["10.0.0.4", "10.0.0.5", "10.0.0.6"] {
        let asked = request("n1", expected, vec![want(Family::V4)]);
        assert_eq!(addresses(assign(&memory, &asked).await), [expected]);
    }
    assert_eq!(
        refusals(assign(&memory, &request("n1", "h", vec![want(Family::V4)])).await),
        [Refusal::Full {
            addresses: 8,
            reserved: 5
        }]
    );
    let exact = Want::Exact("10.0.0.1".parse().unwrap());
    assert_eq!(
        addresses(assign(&memory, &request("n1", "h", vec![exact])).await),
        ["10.0.0.1"]
    );
}

#[tokio::test]
async fn requested_addresses() {
    let memory = cluster();
    let exact = |text: &str| vec![Want::Exact(text.parse().unwrap())];
    let asked = request("n1", "h1", exact("192.168.7.9"));
    assert_eq!(addresses(assign(&memory, &asked).await), ["192.168.7.9"]);
    let held = block(&memory, "192.168.7.0/26".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(held.affinity.as_deref(), Some("host:n1"));
    let error = assign(&memory, &request("n2", "h2", exact("192.168.7.9")))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "192.168.7.9 is assigned already to handle h1"
    );
    assert_eq!(
        addresses(assign(&memory, &asked).await),
        ["192.168.7.9"],
        "its own again"
    );
    let error = assign(&memory, &request("n1", "h3", exact("172.16.0.1")))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "172.16.0.1 lies in no enabled pool");
    let other = request("n2", "h4", exact("192.168.7.10"));
    assert_eq!(
        addresses(assign(&memory, &other).await),
        ["192.168.7.10"],
        "borrowed"
    );
    configure(&memory, |config| config.strict_affinity = true);
    let error = assign(&memory, &request("n2", "h5", exact("192.168.7.11")))
        .await
        .unwrap_err();
    assert!(matches!(error, IpamError::ForeignBlock { .. }), "{error}");
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_address() {
    let memory = cluster();
    let asked = request("n1", "h1", vec![want(Family::V4)]);
    let first = addresses(assign(&memory, &asked).await);
    let before = memory.revision();
    let Assignment::Made { assigned, .. } = assign(&memory, &asked).await.unwrap() else {
        panic!("stopped")
    };
    assert!(assigned[0].held_before);
    assert_eq!([assigned[0].address.to_string()], first[..]);
    let written = Revision(before.0 + 1);
    assert_eq!(memory.revision(), written, "the handle is written anew");
    // What a call assigned is told from what another one did.
    let mut later = asked.clone();
    later.now.seconds += 1;
    assert_eq!(addresses(assign(&memory, &later).await), first);
    let mut of_one = release("n1", "h1");
    of_one.timestamp = Some(later.timestamp());
    let allocator = Allocator::new(&memory);
    let nothing = allocator.release(&of_one, &mut NoCompanion).await.unwrap();
    assert!(nothing.addresses.is_empty());
    let other = Request {
        interface: "eth1".into(),
        ..asked.clone()
    };
    let second = addresses(assign(&memory, &other).await);
    assert_ne!(
        first, second,
        "another interface of the container has another address"
    );
    let mut of_eth1 = release("n1", "h1");
    of_eth1.interface = Some("eth1".into());
    let allocator = Allocator::new(&memory);
    let released = allocator.release(&of_eth1, &mut NoCompanion).await.unwrap();
    assert_eq!(released.addresses[0].to_string(), second[0]);
    assert_eq!(addresses(assign(&memory, &asked).await), first);
    of_one.timestamp = Some(asked.timestamp());
    let given_back = allocator.release(&of_one, &mut NoCompanion).await.unwrap();
    assert_eq!([given_back.addresses[0].to_string()], first[..]);
}

#[tokio::test]
async fn i10_an_address_given_back_lately_is_used_last() {
    let memory = Memory::new();
    pool(&memory, "p", "10.0.0.0/28", |spec| {
        spec.block_size = Some(30)
    });
    node(&memory, "n1", &[]);
    let held = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let mut asked = request("n1", "h0", vec![want(Family::V4)]);
    let first = addresses(assign(&memory, &asked).await).remove(0);
    let block: Cidr = format!("{first}/30").parse().unwrap();
    let all: Vec<String> = (0..4).map(|n| block.nth(n).unwrap().to_string()).collect();
    asked.quarantine = held(&[&all[1], &all[2]]);
    asked.handle = "h1".to_owned();
    assert_eq!(
        addresses(assign(&memory, &asked).await),
        [&*all[3]],
        "the others rest"
    );
    asked.handle = "h2".to_owned();
    let next = addresses(assign(&memory, &asked).await).remove(0);
    assert!(!all.contains(&next), "rather a fresh block: {next}");
    let mut exact = request("n1", "h3", vec![Want::Exact(all[2].parse().unwrap())]);
    exact.quarantine.clone_from(&asked.quarantine);
    assert_eq!(
        addresses(assign(&memory, &exact).await),
        [&*all[2]],
        "asked for"
    );
    // No fresh block is left: better used too early than not at all.
    for n in 0..11 {
        let handle = format!("other{n}");
        addresses(
            assign(
                &memory,
                &Request {
                    handle,
                    ..asked.clone()
                },
            )
            .await,
        );
    }
    asked.handle = "h4".to_owned();
    assert_eq!(addresses(assign(&memory, &asked).await), [&*all[1]]);
}

/// A store whose commits are still on their way when their sender has gone.
struct InFlight {
    memory: Memory,
    sent: std::sync::Mutex<Option<Batch>>,
}

impl Store for InFlight {
    async fn read_many(&self, reads: &[Read]) -> Result<Snapshot, StoreError> {
        self.memory.read_many(reads).await
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.memory.list_page(prefix, after, limit, at).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Outcome, StoreError> {
        *self.sent.lock().unwrap() = Some(batch.clone());
        Err(StoreError::Unknown {
            target: "a slow network".to_owned(),
            operation: "commit",
            reason: "no answer yet".to_owned(),
        })
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError> {
        self.memory.watch(prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.memory.grant_lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.memory.keep_alive(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.memory.revoke_lease(lease).await
    }
}

#[tokio::test]
async fn r1_a_release_still_on_its_way_does_not_take_what_a_repeated_request_got() {
    let memory = cluster();
    let wanted = request("n1", "net.c", vec![want(Family::V4)]);
    let first = addresses(assign(&memory, &wanted).await);
    let slow = InFlight {
        memory: memory.clone(),
        sent: std::sync::Mutex::default(),
    };
    let released = Allocator::new(&slow)
        .release(&release("n1", "net.c"), &mut NoCompanion)
        .await;
    assert!(released.is_err(), "{released:?}");
    assert_eq!(addresses(assign(&memory, &wanted).await), first);
    let late = slow.sent.lock().unwrap().take().unwrap();
    let outcome = memory.commit(&late).await.unwrap();
    assert!(matches!(outcome, Outcome::Conflict(_)), "{outcome:?}");
    assert_eq!(addresses(assign(&memory, &wanted).await), first);
}

#[tokio::test]
async fn full_blocks_lead_to_new_ones_up_to_the_limit() {
    let memory = Memory::new();
    pool(&memory, "p", "10.0.0.0/24", |spec| {
        spec.block_size = Some(30)
    });
    node(&memory, "n1", &[]);
    configure(&memory, |config| {
        config.strict_affinity = true;
        config.max_blocks_per_host = 2;
    });
    for n in 0..8 {
        addresses(
            assign(
                &memory,
                &request("n1", &format!("h{n}"), vec![want(Family::V4)]),
            )
            .await,
        );
    }
    assert_eq!(blocks(&memory).await.len(), 2);
    assert_eq!(
        refusals(assign(&memory, &request("n1", "h9", vec![want(Family::V4)])).await),
        [Refusal::BlockLimit { limit: 2 }]
    );
}

#[tokio::test]
async fn no_pool_left_means_borrowing_or_an_answer() {
    let memory = Memory::new();
    pool(&memory, "p", "10.0.0.0/29", |spec| {
        spec.block_size = Some(30)
    });
    for name in ["n1", "n2", "n3"] {
        node(&memory, name, &[]);
    }
    for name in ["n1", "n2"] {
        addresses(assign(&memory, &request(name, name, vec![want(Family::V4)])).await);
    }
    configure(&memory, |config| config.strict_affinity = true);
    let asked = request("n3", "h", vec![want(Family::V4)]);
    assert_eq!(
        refusals(assign(&memory, &asked).await),
        [Refusal::Strict { blocks: 2 }]
    );
    configure(&memory, |_| {});
    for n in 0..6 {
        let asked = request("n3", &format!("h{n}"), vec![want(Family::V4)]);
        addresses(assign(&memory, &asked).await);
    }
    assert_eq!(
        refusals(assign(&memory, &request("n3", "last", vec![want(Family::V4)])).await),
        [Refusal::Full {
            addresses: 8,
            reserved: 0
        }]
    );
    assert!(
        memory
            .list(&Prefix::Affinities(Owner::Host("n3".into())))
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    let borrowed = margay_ipam_core::audit::borrowed(&blocks(&memory).await);
    assert_eq!(borrowed.len(), 6);
    assert!(borrowed.iter().all(|borrowed| borrowed.borrower == "n3"));
}

#[tokio::test]
async fn an_empty_foreign_block_is_taken_over_after_a_minute() {
    let memory = Memory::new();
    pool(&memory, "p", "10.0.0.0/30", |spec| {
        spec.block_size = Some(30)
    });
    for name in ["n1", "n2"] {
        node(&memory, name, &[]);
    }
    configure(&memory, |config| config.strict_affinity = true);
    addresses(assign(&memory, &request("n1", "h1", vec![want(Family::V4)])).await);
    Allocator::new(&memory)
        .release(&release("n1", "h1"), &mut NoCompanion)
        .await
        .unwrap();
    let mut asked = request("n2", "h2", vec![want(Family::V4)]);
    asked.now.seconds += 59;
    assert_eq!(
        refusals(assign(&memory, &asked).await),
        [Refusal::Strict { blocks: 1 }]
    );
    asked.now.seconds += 1;
    addresses(assign(&memory, &asked).await);
    let [held] = &blocks(&memory).await[..] else {
        panic!("one block is expected")
    };
    assert_eq!(held.affinity.as_deref(), Some("host:n2"));
    assert_eq!(
        memory
            .get(&Key::host_affinity("n1", held.cidr))
            .await
            .unwrap(),
        None
    );
    assert!(
        memory
            .get(&Key::host_affinity("n2", held.cidr))
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn switched_off_claiming_is_said() {
    let memory = cluster();
    configure(&memory, |config| {
        config.strict_affinity = true;
        config.auto_allocate_blocks = false;
    });
    assert_eq!(
        refusals(assign(&memory, &request("n1", "h", vec![want(Family::V4)])).await),
        [Refusal::ClaimingDisabled]
    );
}

#[tokio::test]
async fn half_made_claims_are_completed_or_dropped() {
    let memory = cluster();
    let lone: Cidr = "192.168.5.0/26".parse().unwrap();
    let pending = json::encode(&Affinity::new(AffinityState::Pending)).unwrap();
    memory.put_raw(&Key::host_affinity("n1", lone).path(), &pending);
    let got = addresses(assign(&memory, &request("n1", "h1", vec![want(Family::V4)])).await);
    assert_eq!(
        got,
        ["192.168.5.0"],
        "an affinity without its block: the block is made"
    );
    let entry = memory
        .get(&Key::host_affinity("n1", lone))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        Affinity::decode(&entry.value).unwrap().state,
        AffinityState::Confirmed
    );
    memory.put_raw(&Key::host_affinity("n2", lone).path(), b"");
    let got = addresses(assign(&memory, &request("n2", "h2", vec![want(Family::V4)])).await);
    assert!(!got[0].starts_with("192.168.5."), "the block belongs to n1");
    assert_eq!(
        memory.get(&Key::host_affinity("n2", lone)).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_damaged_block_is_left_alone() {
    let memory = cluster();
    let got = addresses(assign(&memory, &request("n1", "h1", vec![want(Family::V4)])).await);
    let cidr = Cidr::new(got[0].parse().unwrap(), 26).unwrap();
    memory.put_raw(&Key::Block(cidr).path(), b"{\"cidr\":");
    let again = addresses(assign(&memory, &request("n1", "h2", vec![want(Family::V4)])).await);
    assert!(!cidr.contains(again[0].parse().unwrap()));
    assert_eq!(
        memory.get(&Key::Block(cidr)).await.unwrap().unwrap().value,
        b"{\"cidr\":"
    );
}

#[tokio::test]
async fn released_addresses_come_last() {
    let memory = cluster();
    let allocator = Allocator::new(&memory);
    let first = addresses(assign(&memory, &request("n1", "h1", vec![want(Family::V4)])).await);
    let released = allocator
        .release(&release("n1", "h1"), &mut NoCompanion)
        .await
        .unwrap();
    assert_eq!(released.addresses[0].to_string(), first[0]);
    assert_eq!(memory.get(&Key::Handle("h1".into())).await.unwrap(), None);
    let again = allocator
        .release(&release("n1", "h1"), &mut NoCompanion)
        .await
        .unwrap();
    assert!(again.addresses.is_empty());
    for n in 0..63 {
        let got = addresses(
            assign(
                &memory,
                &request("n1", &format!("x{n}"), vec![want(Family::V4)]),
            )
            .await,
        );
        assert_ne!(got, first);
    }
    assert_eq!(
        addresses(assign(&memory, &request("n1", "y", vec![want(Family::V4)])).await),
        first
    );
}

#[tokio::test]
async fn a_block_of_a_pool_that_left_the_node_goes_with_its_last_address() {
    let memory = cluster();
    let got = addresses(assign(&memory, &request("n1", "h1", vec![want(Family::V4)])).await);
    let cidr = Cidr::new(got[0].parse().unwrap(), 26).unwrap();
    pool(&memory, "pool-a", "192.168.0.0/16", |spec| {
        spec.node_selector = Some("rack == 'r2'".into())
    });
    Allocator::new(&memory)
        .release(&release("n1", "h1"), &mut NoCompanion)
        .await
        .unwrap();
    assert_eq!(memory.get(&Key::Block(cidr)).await.unwrap(), None);
    assert_eq!(
        memory.get(&Key::host_affinity("n1", cidr)).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn release_by_address_spares_what_changed_hands() {
    let memory = cluster();
    let allocator = Allocator::new(&memory);
    let one = addresses(assign(&memory, &request("n1", "h1", vec![want(Family::V4)])).await);
    let two = addresses(assign(&memory, &request("n1", "h2", vec![want(Family::V4)])).await);
    let of = |text: &str, handle: Option<&str>| Address {
        address: text.parse().unwrap(),
        handle: handle.map(str::to_owned),
        sequence_number: None,
    };
    let wrong_number = Address {
        sequence_number: Some(1),
        ..of(&two[0], None)
    };
    let done = allocator
        .release_addresses(
            &[
                of(&one[0], Some("h1")),
                wrong_number,
                of("192.168.255.255", None),
            ],
            NOW,
        )
        .await
        .unwrap();
    assert_eq!(done.released, [one[0].parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(done.changed, [two[0].parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(done.free.len(), 1);
    assert_eq!(memory.get(&Key::Handle("h1".into())).await.unwrap(), None);
    assert!(
        memory
            .get(&Key::Handle("h2".into()))
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn affinities_are_released_with_or_without_addresses() {
    let memory = cluster();
    let allocator = Allocator::new(&memory);
    let got = addresses(assign(&memory, &request("n1", "h1", vec![want(Family::V4)])).await);
    let cidr = Cidr::new(got[0].parse().unwrap(), 26).unwrap();
    allocator.release_node_affinities("n1").await.unwrap();
    assert_eq!(block(&memory, cidr).await.unwrap().affinity, None);
    allocator
        .release(&release("n1", "h1"), &mut NoCompanion)
        .await
        .unwrap();
    assert_eq!(
        block(&memory, cidr).await,
        None,
        "an empty block of nobody goes"
    );
    addresses(assign(&memory, &request("n1", "h1", vec![want(Family::V6)])).await);
    allocator
        .release(&release("n1", "h1"), &mut NoCompanion)
        .await
        .unwrap();
    allocator
        .release_affinities_within("fd00:10::/64".parse().unwrap())
        .await
        .unwrap();
    assert!(blocks(&memory).await.is_empty());
    assert!(
        memory
            .list(&Prefix::HostAffinities)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}

#[tokio::test]
async fn cooling_addresses_wait() {
    let memory = Memory::new();
    pool(&memory, "p", "10.0.0.0/30", |spec| {
        spec.block_size = Some(30)
    });
    node(&memory, "n1", &[]);
    configure(&memory, |config| config.ip_cooldown_seconds = 60);
    let allocator = Allocator::new(&memory);
    for n in 0..4 {
        addresses(
            assign(
                &memory,
                &request("n1", &format!("h{n}"), vec![want(Family::V4)]),
            )
            .await,
        );
    }
    allocator
        .release(&release("n1", "h2"), &mut NoCompanion)
        .await
        .unwrap();
    let mut asked = request("n1", "next", vec![want(Family::V4)]);
    assert!(matches!(
        assign(&memory, &asked).await,
        Err(IpamError::NoAddress { .. })
    ));
    asked.now.seconds += 60;
    assert_eq!(addresses(assign(&memory, &asked).await), ["10.0.0.2"]);
}

#[tokio::test]
async fn an_answer_that_got_lost_is_found_again() {
    let memory = cluster();
    let client = memory.client();
    client.spare(2);
    client.inject(Fault::LoseAnswer);
    let got = addresses(assign(&client, &request("n1", "h1", vec![want(Family::V4)])).await);
    let held = &blocks(&memory).await[0];
    let allocations: Vec<_> = margay_ipam_core::block::allocated(held).collect();
    assert_eq!(allocations.len(), 1);
    assert_eq!(allocations[0].0.to_string(), got[0]);
}

/// Counts the round trips of an operation, and the values it reads.
#[derive(Debug)]
struct Counting {
    memory: Memory,
    reads: AtomicUsize,
    commits: AtomicUsize,
    bytes: AtomicUsize,
}

impl Counting {
    fn new(memory: &Memory) -> Self {
        Self {
            memory: memory.client(),
            reads: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    fn taken(&self) -> (usize, usize) {
        (
            self.reads.swap(0, Ordering::Relaxed),
            self.commits.swap(0, Ordering::Relaxed),
        )
    }
}

impl Store for Counting {
    async fn read_many(&self, reads: &[Read]) -> Result<Snapshot, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let snapshot = self.memory.read_many(reads).await?;
        let bytes = snapshot
            .answers
            .iter()
            .flat_map(|answer| &answer.entries)
            .map(|entry| entry.value.len() + entry.key.path().len())
            .sum();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(snapshot)
    }

    async fn list_page(
        &self,
        _prefix: &Prefix,
        _after: Option<&Key>,
        _limit: usize,
        _at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        panic!("the allocator never lists page by page")
    }

    async fn commit(&self, batch: &Batch) -> Result<Outcome, StoreError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.memory.commit(batch).await
    }

    async fn watch(&self, _prefix: &Prefix, _after: Revision) -> Result<Watch, StoreError> {
        panic!("the allocator never watches")
    }

    async fn grant_lease(&self, _ttl: Duration) -> Result<LeaseId, StoreError> {
        panic!("the allocator needs no lease")
    }

    async fn keep_alive(&self, _lease: LeaseId) -> Result<bool, StoreError> {
        panic!("the allocator needs no lease")
    }

    async fn revoke_lease(&self, _lease: LeaseId) -> Result<(), StoreError> {
        panic!("the allocator needs no lease")
    }
}

#[tokio::test]
async fn an_assignment_is_one_read_and_one_commit() {
    let memory = cluster();
    let store = Counting::new(&memory);
    let allocator = Allocator::new(&store);
    let mut asked = request("n1", "h0", vec![want(Family::V4), want(Family::V6)]);
    let made = allocator.assign(&asked, &mut NoCompanion).await.unwrap();
    assert_eq!(store.taken().1, 1, "a claim is one commit too");
    let Assignment::Made { hints, .. } = made else {
        panic!("stopped")
    };
    assert_eq!(hints.len(), 2);
    asked.hints = hints.clone();
    asked.handle = "h1".into();
    allocator.assign(&asked, &mut NoCompanion).await.unwrap();
    assert_eq!(store.taken(), (1, 1));
    let mut back = release("n1", "h1");
    back.hints = hints;
    allocator.release(&back, &mut NoCompanion).await.unwrap();
    assert_eq!(store.taken(), (1, 1));
}

#[tokio::test]
async fn a_claim_among_many_blocks_reads_few_bytes() {
    let memory = cluster();
    let pool: Cidr = "192.168.0.0/16".parse().unwrap();
    for (n, cidr) in margay_ipam_core::candidates::blocks(pool, 26, "n1")
        .take(157)
        .enumerate()
    {
        let owner = format!("busy-{}", n % 40);
        let mut full = margay_ipam_core::block::create(cidr, Some(format!("host:{owner}")), NOW);
        for pod in 0..64 {
            let attribute = Attribute {
                handle_id: Some(format!("k8s-pod-network.{n:032x}{pod:032x}")),
                ..Attribute::default()
            };
            margay_ipam_core::block::assign_next(&mut full, &attribute, |_| false).unwrap();
        }
        memory.put_raw(&Key::Block(cidr).path(), &json::encode(&full).unwrap());
        let confirmed = json::encode(&Affinity::new(AffinityState::Confirmed)).unwrap();
        memory.put_raw(&Key::host_affinity(owner, cidr).path(), &confirmed);
    }
    let store = Counting::new(&memory);
    let made = Allocator::new(&store)
        .assign(
            &request("n1", "h", vec![want(Family::V4)]),
            &mut NoCompanion,
        )
        .await
        .unwrap();
    assert!(matches!(made, Assignment::Made { .. }));
    let bytes = store.bytes.load(Ordering::Relaxed);
    assert!(
        bytes < 20_000,
        "{bytes} bytes were read to claim a block among 10,000 addresses"
    );
}

async fn choose(memory: &Memory, node: &str, limits: &Limits) -> Result<Assignment, IpamError> {
    let request = request(node, "unassigned", vec![want(Family::V4)]);
    Allocator::new(memory).choose(&request, limits).await
}

#[tokio::test]
async fn what_is_chosen_is_not_assigned_but_its_block_is_claimed() {
    let memory = cluster();
    let limits = Limits::default();
    let first = addresses(choose(&memory, "n1", &limits).await);
    let [held] = &blocks(&memory).await[..] else {
        panic!("one block is expected")
    };
    assert_eq!(held.affinity.as_deref(), Some("host:n1"));
    assert!(margay_ipam_core::block::is_empty(held));
    assert!(
        memory
            .list(&Prefix::Handles)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    // Again, and by another node: nobody is led to the same address but the node itself.
    assert_eq!(addresses(choose(&memory, "n1", &limits).await), first);
    assert_ne!(addresses(choose(&memory, "n2", &limits).await), first);
    let exact = Want::Exact(first[0].parse().unwrap());
    let assigned = assign(&memory, &request("n1", "h", vec![exact])).await;
    assert_eq!(addresses(assigned), first);
    assert_ne!(addresses(choose(&memory, "n1", &limits).await), first);
}

#[tokio::test]
async fn what_others_are_about_to_take_is_not_chosen() {
    let memory = cluster();
    let mut limits = Limits::default();
    for _ in 0..70 {
        let chosen = addresses(choose(&memory, "n1", &limits).await);
        let chosen = chosen[0].parse().unwrap();
        assert!(!limits.without.contains(&chosen), "{chosen} twice");
        limits.without.push(chosen);
    }
    assert_eq!(blocks(&memory).await.len(), 2);
}

#[tokio::test]
async fn a_range_limits_addresses_and_claims() {
    let memory = cluster();
    for (range, count) in [("192.168.3.0/28", 16), ("192.168.77.128/25", 128)] {
        let range: Cidr = range.parse().unwrap();
        let mut limits = Limits {
            within: Some(range),
            without: Vec::new(),
        };
        for _ in 0..count {
            let chosen = addresses(choose(&memory, "n1", &limits).await);
            let chosen = chosen[0].parse().unwrap();
            assert!(
                range.contains(chosen) && !limits.without.contains(&chosen),
                "{chosen}"
            );
            limits.without.push(chosen);
        }
        let refused = choose(&memory, "n1", &limits).await;
        assert!(
            matches!(refused, Err(IpamError::NoAddress { .. })),
            "{refused:?}"
        );
    }
    let all = blocks(&memory).await;
    let claimed: Vec<String> = all.iter().map(|block| block.cidr.to_string()).collect();
    assert_eq!(
        claimed,
        ["192.168.3.0/26", "192.168.77.128/26", "192.168.77.192/26"]
    );
}
