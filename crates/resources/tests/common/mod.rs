//! Times and UIDs that tests can foresee.

use std::sync::atomic::{AtomicU64, Ordering};

use margay_model::time::Timestamp;
use margay_resources::Stamps;

/// One moment, and the numbers from 0 as UIDs.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Stamps for Counter {
    fn now(&self) -> Timestamp {
        Timestamp {
            seconds: 1_795_393_566,
            nanos: 0,
        }
    }

    fn random(&self) -> [u8; 16] {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed)).to_be_bytes()
    }
}
