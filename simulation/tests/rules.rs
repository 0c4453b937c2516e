//! R1–R4 over many simulated clusters.
//!
//! Each seed is a cluster of its own. A seed that breaks a rule is printed; `MARGAY_SIMULATION_SEED=<seed>` runs
//! that one alone and prints what happened before. `MARGAY_SIMULATION_OPERATIONS` is how many calls of plugins are
//! made in all, 1,000,000 unless given; `MARGAY_SIMULATION_FIRST` the first of the seeds, 1 unless given.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use margay_simulation::run;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("the variable holds a number"))
}

#[test]
fn r1_r2_r3_r4_hold_whatever_fails() {
    if let Some(seed) = number("MARGAY_SIMULATION_SEED") {
        let report = run(seed, OF_SEED, true).unwrap_or_else(|violation| panic!("{violation}"));
        println!("seed {seed}: {report:?}");
        return;
    }
    let operations = number("MARGAY_SIMULATION_OPERATIONS").unwrap_or(1_000_000);
    let first = number("MARGAY_SIMULATION_FIRST").unwrap_or(1);
    let last = first + operations.div_ceil(OF_SEED);
    let (next, made, commits) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let broken = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last || !broken.lock().unwrap().is_empty() {
                        return;
                    }
                    match run(seed, OF_SEED, false) {
                        Ok(report) => {
                            made.fetch_add(report.operations, Ordering::Relaxed);
                            commits.fetch_add(report.commits, Ordering::Relaxed);
                        }
                        Err(violation) => {
                            broken.lock().unwrap().insert(seed, violation);
                        }
                    }
                }
            });
        }
    });
    if let Some((seed, violation)) = broken.into_inner().unwrap().pop_first() {
        panic!("{violation}: MARGAY_SIMULATION_SEED={seed} shows how it came to that");
    }
    let (made, commits) = (made.into_inner(), commits.into_inner());
    println!("{made} operations and {commits} commits from seed {first} on: all rules held");
    assert!(made >= operations, "{made}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let seeds = [3, 7];
    for seed in seeds {
        assert_eq!(run(seed, 2_000, false), run(seed, 2_000, false));
    }
}

/// Calls of plugins of one cluster.
const OF_SEED: u64 = 10_000;
