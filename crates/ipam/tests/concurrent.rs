//! Many nodes at once, with lost requests and answers: no two endpoints share an address, and nothing leaks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use common::{node, pool, release, request, want};
use margay_ipam_core::{Allocator, Assignment, IpamError, NoCompanion};
use margay_model::ipam::{Affinity, Block, Handle};
use margay_model::{Cidr, Family, Key};
use margay_store::memory::{Disturbance, Memory};

type Live = Rc<RefCell<BTreeMap<String, String>>>;

/// A small deterministic generator (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// One node: adds and removes endpoints at random, as a runtime does that repeats failed calls.
async fn run(memory: Memory, name: String, seed: u64, steps: u32, live: Live) {
    let mut dice = Dice(seed | 1);
    let allocator = Allocator::new(&memory);
    let mut mine: Vec<(String, Vec<String>)> = Vec::new();
    let mut hints = Vec::new();
    for step in 0..steps {
        if mine.is_empty() || dice.below(5) < 3 {
            let handle = format!("net.{name}-{step}");
            let wants = if dice.below(4) == 0 {
                vec![want(Family::V4), want(Family::V6)]
            } else {
                vec![want(Family::V4)]
            };
            let mut asked = request(&name, &handle, wants);
            asked.hints.clone_from(&hints);
            asked.now.seconds += u64::from(step);
            asked.now.nanos = step;
            match allocator.assign(&asked, &mut NoCompanion).await {
                Ok(Assignment::Made {
                    assigned,
                    hints: fresh,
                }) => {
                    hints = fresh;
                    let addresses: Vec<String> = assigned
                        .iter()
                        .map(|assigned| assigned.address.to_string())
                        .collect();
                    for address in &addresses {
                        let before = live.borrow_mut().insert(address.clone(), handle.clone());
                        assert_eq!(before, None, "{address} of {handle}, seed {seed}");
                    }
                    mine.push((handle, addresses));
                }
                Ok(Assignment::Stopped) => unreachable!("nobody stops it"),
                Err(
                    IpamError::Store(_)
                    | IpamError::NoAddress { .. }
                    | IpamError::Contention { .. },
                ) => {
                    free(&allocator, &name, &handle).await;
                }
                Err(error) => panic!("{error}, seed {seed}"),
            }
        } else {
            let index = usize::try_from(dice.below(mine.len() as u64)).unwrap();
            let (handle, addresses) = mine.swap_remove(index);
            for address in addresses {
                live.borrow_mut().remove(&address);
            }
            free(&allocator, &name, &handle).await;
        }
    }
    for (handle, addresses) in mine {
        for address in addresses {
            live.borrow_mut().remove(&address);
        }
        free(&allocator, &name, &handle).await;
    }
}

async fn free(allocator: &Allocator<'_, Memory>, node: &str, handle: &str) {
    for _ in 0..1_000 {
        if allocator
            .release(&release(node, handle), &mut NoCompanion)
            .await
            .is_ok()
        {
            return;
        }
    }
    panic!("{handle} could not be released");
}

/// Every stored object is sound, and nothing is assigned.
fn audit(memory: &Memory, seed: u64) {
    for (path, value) in memory.dump() {
        match Key::parse(&path) {
            Some(Key::Block(cidr)) => {
                let block: Block = serde_json::from_slice(&value).unwrap();
                assert_eq!(block.cidr, cidr);
                assert_eq!(
                    margay_ipam_core::block::faults(&block),
                    Vec::<String>::new()
                );
                assert!(
                    margay_ipam_core::block::is_empty(&block),
                    "{path} leaks, seed {seed}"
                );
            }
            Some(Key::Handle(id)) => {
                let handle: Handle = serde_json::from_slice(&value).unwrap();
                panic!("handle {id} leaks: {handle:?}, seed {seed}");
            }
            Some(Key::Affinity(_, cidr)) => {
                Affinity::decode(&value).unwrap();
                let block = Key::Block(cidr).path();
                assert!(
                    memory.dump().iter().any(|(key, _)| *key == block),
                    "{path}, seed {seed}"
                );
            }
            _ => {}
        }
    }
}

fn simulate(seed: u64, cidr: &str, block_size: u8, nodes: u32, steps: u32) {
    let memory = Memory::new();
    pool(&memory, "four", cidr, |spec| {
        spec.block_size = Some(block_size)
    });
    pool(&memory, "six", "fd00::/112", |_| {});
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let live: Live = Rc::default();
    let tasks = tokio::task::LocalSet::new();
    for n in 0..nodes {
        let name = format!("n{n}");
        node(&memory, &name, &[]);
        let client = memory.client();
        client.disturb(Some(Disturbance {
            seed: seed.wrapping_mul(1_000).wrapping_add(u64::from(n)),
            refuse: 10,
            lose_request: 10,
            lose_answer: 10,
            pauses: 3,
        }));
        let live = Rc::clone(&live);
        tasks.spawn_local(run(client, name, seed ^ (u64::from(n) << 32), steps, live));
    }
    runtime.block_on(tasks);
    assert!(live.borrow().is_empty());
    audit(&memory, seed);
}

#[test]
fn room_for_all() {
    for seed in 1..=20 {
        simulate(seed, "10.0.0.0/20", 26, 8, 60);
    }
}

#[test]
fn fewer_blocks_than_nodes() {
    for seed in 1..=20 {
        simulate(seed, "10.0.0.0/26", 28, 8, 60);
    }
}

#[test]
fn eight_nodes_get_four_hundred_different_addresses_from_seven_blocks() {
    let memory = Memory::new();
    pool(&memory, "four", "10.0.0.0/23", |_| {});
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let all: Rc<RefCell<Vec<String>>> = Rc::default();
    let tasks = tokio::task::LocalSet::new();
    for n in 0..8 {
        node(&memory, &format!("n{n}"), &[]);
        for pod in 0..50 {
            let client = memory.client();
            client.disturb(Some(Disturbance {
                seed: n * 100 + pod,
                refuse: 0,
                lose_request: 0,
                lose_answer: 0,
                pauses: 2,
            }));
            let all = Rc::clone(&all);
            tasks.spawn_local(async move {
                let asked = request(
                    &format!("n{n}"),
                    &format!("net.{n}-{pod}"),
                    vec![want(Family::V4)],
                );
                let made = Allocator::new(&client)
                    .assign(&asked, &mut NoCompanion)
                    .await
                    .unwrap();
                let Assignment::Made { assigned, .. } = made else {
                    panic!("stopped")
                };
                all.borrow_mut().push(assigned[0].address.to_string());
            });
        }
    }
    runtime.block_on(tasks);
    let mut all = all.borrow().clone();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 400);
    let inside: Cidr = "10.0.0.0/23".parse().unwrap();
    assert!(
        all.iter()
            .all(|address| inside.contains(address.parse().unwrap()))
    );
}
