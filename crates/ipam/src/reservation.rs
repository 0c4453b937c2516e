//! Addresses that are never assigned automatically.

use std::net::IpAddr;

use margay_model::Cidr;

/// The union of all reservations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations {
    ranges: Vec<Cidr>,
    only: Option<Cidr>,
}

impl Reservations {
    /// Reads prefixes and addresses; texts that are neither reserve nothing.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            ranges: texts
                .into_iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
            only: None,
        }
    }

    /// The same, and more addresses.
    #[must_use]
    pub fn with(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.ranges.extend(addresses.into_iter().map(Cidr::host));
        self
    }

    /// The same, and everything outside `range`.
    #[must_use]
    pub fn outside(mut self, range: Cidr) -> Self {
        self.only = Some(range);
        self
    }

    /// Whether the address is reserved.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.only.is_some_and(|range| !range.contains(address))
            || self.ranges.iter().any(|range| range.contains(address))
    }

    /// Whether all of `cidr` lies outside the only range that may be used.
    pub fn excludes(&self, cidr: &Cidr) -> bool {
        self.only.is_some_and(|range| !range.overlaps(cidr))
    }

    /// The part of a pool in which blocks of prefix length `size` may be looked for: the smallest whole number of
    /// blocks that holds all that may be used.
    pub fn range_within(&self, pool: Cidr, size: u8) -> Cidr {
        let inside = self.only.filter(|range| pool.covers(range));
        let whole = inside.and_then(|range| Cidr::new(range.address(), range.length().min(size)));
        whole.unwrap_or(pool)
    }

    /// How many addresses of `cidr` are reserved, where reservations do not overlap each other.
    pub fn count_within(&self, cidr: &Cidr) -> u128 {
        let mut within: Vec<&Cidr> = self
            .ranges
            .iter()
            .filter(|range| range.overlaps(cidr))
            .collect();
        within.sort_by_key(|range| range.length());
        let mut counted: Vec<&Cidr> = Vec::new();
        let mut total = 0u128;
        for range in within {
            if counted.iter().any(|wider| wider.covers(range)) {
                continue;
            }
            total = total.saturating_add(range.size().min(cidr.size()));
            counted.push(range);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_reservations_count_once() {
        let reserved =
            Reservations::parse(["10.0.0.0/29", "10.0.0.4", "not an address", "fd00::/64"]);
        assert!(reserved.contains("10.0.0.7".parse().unwrap()));
        assert!(!reserved.contains("10.0.0.8".parse().unwrap()));
        assert_eq!(reserved.count_within(&"10.0.0.0/26".parse().unwrap()), 8);
        assert_eq!(reserved.count_within(&"10.0.0.0/30".parse().unwrap()), 4);
    }
}
