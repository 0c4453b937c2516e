//! How many cases a test takes, and which.

use std::env;

use proptest::test_runner::{RngAlgorithm, TestRng};

/// A number that a variable of the environment may set.
pub(crate) fn variable(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The random numbers of a seed.
pub(crate) fn random_of(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}
