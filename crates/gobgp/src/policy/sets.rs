//! Sets that statements refer to by name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_bgp::policy::{Owners, PrefixMatch, PrefixOperator, PrefixSet};
use margay_model::{Cidr, Family};

use super::{ANY, matching};
use crate::api::{DefinedSet, MatchSet, Prefix};

/// Sets by their content, so that equal ones are one.
#[derive(Debug, Default)]
pub(super) struct Sets {
    names: BTreeMap<(i32, Vec<String>), String>,
}

impl Sets {
    /// Prefixes of a family; `None` where there is none.
    ///
    /// GoBGP looks at the longest prefix of a set alone that holds a route's. So each has with it what the
    /// prefixes around it hold.
    pub(super) fn prefixes(&mut self, set: &PrefixSet, family: Family) -> Option<MatchSet> {
        let own: BTreeMap<&Cidr, (u8, u8)> = set
            .iter()
            .filter(|(prefix, _)| prefix.family() == family)
            .collect();
        let mut items = BTreeSet::new();
        for prefix in own.keys() {
            let around = (0..=prefix.length()).filter_map(|length| {
                let outer = Cidr::new(prefix.address(), length)?;
                own.get(&outer)
            });
            for (min, max) in around {
                let (min, max) = ((*min).max(prefix.length()), (*max).min(family.width()));
                if min <= max {
                    items.insert(format!("{prefix} {min} {max}"));
                }
            }
            // One that holds nothing must hide those around it all the same: they were added to it.
        }
        if items.is_empty() {
            return None;
        }
        Some(matching(
            self.name(PREFIX, items.into_iter().collect()),
            ANY,
        ))
    }

    pub(super) fn neighbours(&mut self, addresses: impl Iterator<Item = IpAddr>) -> MatchSet {
        let list = addresses.map(|address| Cidr::host(address).to_string());
        matching(self.name(NEIGHBOUR, list.collect()), ANY)
    }

    pub(super) fn communities<const N: usize>(&mut self, list: [String; N]) -> MatchSet {
        let list = list.into_iter().map(|one| format!("^{one}$")).collect();
        matching(self.name(COMMUNITY, list), ANY)
    }

    pub(super) fn large(&mut self, list: impl IntoIterator<Item = String>, kind: i32) -> MatchSet {
        let list = list.into_iter().map(|one| format!("^{one}$")).collect();
        matching(self.name(LARGE_COMMUNITY, list), kind)
    }

    pub(super) fn path(&mut self, expression: &str) -> MatchSet {
        matching(self.name(AS_PATH, vec![expression.to_owned()]), ANY)
    }

    fn name(&mut self, kind: i32, list: Vec<String>) -> String {
        let number = self.names.len();
        let name = self.names.entry((kind, list));
        name.or_insert_with(|| format!("margay-{number}")).clone()
    }

    /// All sets.
    pub(super) fn into_messages(self) -> Vec<DefinedSet> {
        let set = |((defined_type, list), name): ((i32, Vec<String>), String)| {
            let prefixes = match defined_type {
                PREFIX => list.iter().filter_map(|item| range(item)).collect(),
                _ => Vec::new(),
            };
            DefinedSet {
                defined_type,
                name,
                list: if defined_type == PREFIX {
                    Vec::new()
                } else {
                    list
                },
                prefixes,
            }
        };
        self.names.into_iter().map(set).collect()
    }
}

fn range(item: &str) -> Option<Prefix> {
    let mut words = item.split(' ');
    Some(Prefix {
        ip_prefix: words.next()?.to_owned(),
        mask_length_min: words.next()?.parse().ok()?,
        mask_length_max: words.next()?.parse().ok()?,
    })
}

/// The set of prefixes that a comparison is with, and whether they are those that are not meant.
pub(super) fn comparison(comparison: &PrefixMatch) -> (PrefixSet, bool) {
    let cidr = comparison.cidr;
    let width = cidr.family().width();
    let bounded = comparison.min.is_some() || comparison.max.is_some();
    let min = comparison.min.unwrap_or_else(|| cidr.length());
    let max = comparison.max.unwrap_or(width);
    let mut set = PrefixSet::default();
    let (equal, inverse) = match comparison.operator {
        PrefixOperator::Equal => (true, false),
        PrefixOperator::NotEqual => (true, true),
        PrefixOperator::In => (false, false),
        PrefixOperator::NotIn => (false, true),
    };
    if !equal {
        set.insert(cidr, min, max);
    } else if !bounded || (min..=max).contains(&cidr.length()) {
        set.insert(cidr, cidr.length(), cidr.length());
    }
    (set, inverse)
}

/// Prefixes by how deep they lie within others, the outermost first: all of a depth, and those of each
/// owner.
pub(super) fn owners(owners: &Owners) -> Vec<(PrefixSet, BTreeMap<BTreeSet<IpAddr>, PrefixSet>)> {
    let depth = |prefix: &Cidr| {
        let around = (0..prefix.length()).filter_map(|length| Cidr::new(prefix.address(), length));
        around
            .filter(|outer| owners.by_prefix.contains_key(outer))
            .count()
    };
    let mut depths: BTreeMap<usize, BTreeMap<BTreeSet<IpAddr>, Vec<Cidr>>> = BTreeMap::new();
    for (prefix, addresses) in &owners.by_prefix {
        let of_depth = depths.entry(depth(prefix)).or_default();
        of_depth.entry(addresses.clone()).or_default().push(*prefix);
    }
    let sets = depths.into_values().map(|groups| {
        let all = groups.values().flatten().copied();
        let all = PrefixSet::within(all);
        let groups = groups.into_iter();
        let groups = groups.map(|(addresses, list)| (addresses, PrefixSet::within(list)));
        (all, groups.collect())
    });
    sets.collect()
}

const PREFIX: i32 = 0;
const NEIGHBOUR: i32 = 1;
const AS_PATH: i32 = 3;
const COMMUNITY: i32 = 4;
const LARGE_COMMUNITY: i32 = 6;
