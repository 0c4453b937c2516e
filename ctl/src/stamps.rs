//! Times and UIDs from the system.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use margay_model::time::Timestamp;
use margay_resources::Stamps;

/// The system's clock, and random numbers good for identity, not for secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemStamps;

impl Stamps for SystemStamps {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp::from_epoch(since.unwrap_or_default())
    }

    /// Every hasher's keys derive from the operating system's random numbers and differ.
    fn random(&self) -> [u8; 16] {
        let word = |salt| {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u64(salt);
            u128::from(hasher.finish())
        };
        (word(0) << 64 | word(1)).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ() {
        let drawn: std::collections::BTreeSet<_> =
            (0..1000).map(|_| SystemStamps.random()).collect();
        assert_eq!(drawn.len(), 1000);
        assert!(SystemStamps.now().seconds > 1_700_000_000);
    }
}
