//! Attributes shared by all routes that bear the same.

use std::collections::HashSet;
use std::sync::Arc;

use crate::attribute::Attributes;

/// All attributes in use, each once.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    known: HashSet<Arc<Attributes>>,
    sweep_at: usize,
}

impl Interner {
    /// The shared value equal to `attributes`.
    pub(crate) fn intern(&mut self, attributes: Attributes) -> Arc<Attributes> {
        if let Some(known) = self.known.get(&attributes) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = (self.known.len() * 2).max(SWEEP_MIN);
        }
        let shared = Arc::new(attributes);
        self.known.insert(Arc::clone(&shared));
        shared
    }
}

const SWEEP_MIN: usize = 1024;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn equal_attributes_are_one_and_unused_ones_go() {
        let mut interner = Interner::default();
        let make = |address: u32| Attributes::local(Ipv4Addr::from(address).into());
        let first = interner.intern(make(1));
        assert!(Arc::ptr_eq(&first, &interner.intern(make(1))));
        for address in 0..10_000 {
            interner.intern(make(address));
        }
        assert!(
            interner.known.len() <= SWEEP_MIN,
            "{}",
            interner.known.len()
        );
        assert!(Arc::ptr_eq(&first, &interner.intern(make(1))));
    }
}
