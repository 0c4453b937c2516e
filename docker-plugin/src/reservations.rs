//! Addresses between two calls; pure.
//!
//! Docker asks for an address first, and says only in the next call which endpoint it is for. In between the address
//! is reserved here and nowhere else: it is assigned in the commit that records the endpoint, or not at all. In the
//! same way an address whose endpoint is deleted is kept from others until Docker has given it back, so that this
//! last call cannot undo what somebody else was just promised.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// What this process has promised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations {
    until: BTreeMap<IpAddr, Duration>,
    /// Addresses given back, with the time until which they are used last.
    resting: BTreeMap<IpAddr, Duration>,
}

impl Reservations {
    /// Keeps an address until it is released, or for [`LONGEST`] if Docker never comes back. Times are since any
    /// fixed moment.
    pub fn keep(&mut self, address: IpAddr, now: Duration) {
        self.until.insert(address, now + LONGEST);
    }

    /// Lets go; whether the address was kept.
    pub fn release(&mut self, address: IpAddr) -> bool {
        self.until.remove(&address).is_some()
    }

    /// The addresses kept at a time.
    pub fn kept(&mut self, now: Duration) -> Vec<IpAddr> {
        self.until.retain(|_, until| *until > now);
        self.until.keys().copied().collect()
    }

    /// Notes that nobody has an address any more.
    pub fn rest(&mut self, address: IpAddr, now: Duration) {
        self.resting.insert(address, now + REST);
    }

    /// The addresses that others may still send to, at a time.
    pub fn resting(&mut self, now: Duration) -> BTreeSet<IpAddr> {
        self.resting.retain(|_, until| *until > now);
        self.resting.keys().copied().collect()
    }
}

/// Docker's calls follow each other in milliseconds; it gives one up after 30 s.
pub const LONGEST: Duration = Duration::from_secs(120);

/// As long as the network plugins let one rest.
const REST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_rests_for_a_minute() {
        let mut reservations = Reservations::default();
        let one = IpAddr::from([10, 0, 0, 1]);
        reservations.rest(one, Duration::from_secs(1));
        assert_eq!(reservations.resting(Duration::from_secs(60)), [one].into());
        assert!(reservations.resting(Duration::from_secs(61)).is_empty());
    }

    #[test]
    fn what_nobody_comes_back_for_is_free_again() {
        let mut reservations = Reservations::default();
        let one = IpAddr::from([10, 0, 0, 1]);
        let two = IpAddr::from([10, 0, 0, 2]);
        reservations.keep(one, Duration::ZERO);
        reservations.keep(two, Duration::from_secs(60));
        assert_eq!(reservations.kept(Duration::from_secs(119)), [one, two]);
        assert_eq!(reservations.kept(Duration::from_secs(120)), [two]);
        assert!(!reservations.release(one));
        assert!(reservations.release(two));
        assert!(reservations.kept(Duration::from_secs(120)).is_empty());
    }
}
