//! What a rule asks of a route.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};

use crate::attribute::{Community, LargeCommunity};

/// What must hold for a rule to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The prefix compares so.
    Prefix(PrefixMatch),
    /// The prefix lies in a set.
    PrefixSet(Arc<PrefixSet>),
    /// The prefix is of this family.
    Family(Family),
    /// The route came from a BGP peer.
    FromPeers,
    /// The route is one of our own.
    Local,
    /// The route is one of our own and bears this tag.
    Tag(u32),
    /// The route's interface has such a name; a route without an interface has none.
    Interface(Interfaces),
    /// The route bears the community.
    Community(Community),
    /// The route bears the large community.
    LargeCommunity(LargeCommunity),
    /// The AS path starts with these numbers.
    AsPathPrefix(Vec<AsNumber>),
    /// The route's kernel priority: that of our own route, or what its LOCAL_PREF stands for.
    Priority(u32),
    /// The session the rule is evaluated for is external (eBGP).
    External,
    /// The session the rule is evaluated for is internal (iBGP).
    Internal,
    /// The next hop is one of these.
    NextHop(Arc<BTreeSet<IpAddr>>),
    /// The route is announced by the owner of its prefix, or by a reflector with the owner as next
    /// hop.
    Owner(Arc<Owners>),
    /// The condition does not hold.
    Not(Box<Self>),
    /// One of these holds.
    Any(Vec<Self>),
    /// All of these hold.
    All(Vec<Self>),
}

/// How a prefix compares with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixMatch {
    /// What the route's prefix is compared with.
    pub cidr: Cidr,
    /// How.
    pub operator: PrefixOperator,
    /// The shortest prefix length that is meant; the length of `cidr` when absent.
    pub min: Option<u8>,
    /// The longest prefix length that is meant; the family's width when absent.
    pub max: Option<u8>,
}

/// How prefixes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixOperator {
    /// It is the same.
    Equal,
    /// It is another.
    NotEqual,
    /// It lies within, or is the same.
    In,
    /// It does not lie within.
    NotIn,
}

/// A set of prefixes, each with the lengths that are meant within it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixSet {
    pub(super) by_prefix: BTreeMap<Cidr, (u8, u8)>,
    lengths: [BTreeSet<u8>; 2],
}

/// A name of an interface, or a pattern with `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interfaces(pub String);

/// Who may announce which prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    /// The addresses of the owner of each prefix; more specific prefixes of an owner are its own.
    pub by_prefix: BTreeMap<Cidr, BTreeSet<IpAddr>>,
    /// Peers that may pass on what others own.
    pub reflectors: BTreeSet<IpAddr>,
}

impl PrefixMatch {
    /// A comparison without bounds of the length.
    #[must_use]
    pub fn new(operator: PrefixOperator, cidr: Cidr) -> Self {
        Self {
            cidr,
            operator,
            min: None,
            max: None,
        }
    }

    /// Whether `prefix` compares so; prefixes of another family are different and outside.
    #[must_use]
    pub fn holds(&self, prefix: &Cidr) -> bool {
        let bounded = self.min.is_some() || self.max.is_some();
        let min = self.min.unwrap_or_else(|| self.cidr.length());
        let max = self.max.unwrap_or_else(|| self.cidr.family().width());
        let fits = !bounded || (min..=max).contains(&prefix.length());
        let family = prefix.family() == self.cidr.family();
        match self.operator {
            PrefixOperator::Equal => *prefix == self.cidr && fits,
            PrefixOperator::NotEqual => !(*prefix == self.cidr && fits),
            PrefixOperator::In => family && self.cidr.covers(prefix) && fits,
            PrefixOperator::NotIn => !(family && self.cidr.covers(prefix) && fits),
        }
    }
}

impl PrefixSet {
    /// A set of prefixes with everything within them.
    #[must_use]
    pub fn within(prefixes: impl IntoIterator<Item = Cidr>) -> Self {
        let mut set = Self::default();
        for prefix in prefixes {
            set.insert(prefix, prefix.length(), prefix.family().width());
        }
        set
    }

    /// A set of prefixes and nothing else.
    #[must_use]
    pub fn exactly(prefixes: impl IntoIterator<Item = Cidr>) -> Self {
        let mut set = Self::default();
        for prefix in prefixes {
            set.insert(prefix, prefix.length(), prefix.length());
        }
        set
    }

    /// Adds the prefixes of `min` to `max` bits within `prefix`, in place of earlier bounds of it.
    pub fn insert(&mut self, prefix: Cidr, min: u8, max: u8) {
        self.by_prefix.insert(prefix, (min, max));
        self.lengths[slot(prefix.family())].insert(prefix.length());
    }

    /// The prefixes, each with the shortest and the longest length that is meant within it.
    pub fn iter(&self) -> impl Iterator<Item = (&Cidr, (u8, u8))> {
        self.by_prefix
            .iter()
            .map(|(prefix, bounds)| (prefix, *bounds))
    }

    /// Whether `prefix` lies in the set.
    #[must_use]
    pub fn contains(&self, prefix: &Cidr) -> bool {
        ancestors(&self.lengths[slot(prefix.family())], prefix).any(|ancestor| {
            let bounds = self.by_prefix.get(&ancestor);
            bounds.is_some_and(|(min, max)| (*min..=*max).contains(&prefix.length()))
        })
    }
}

impl Interfaces {
    /// Whether the name fits the pattern.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        fits(self.0.as_bytes(), name.as_bytes())
    }
}

impl Owners {
    /// Whether a route for `prefix` by way of `next_hop` may come from the peer at `peer`.
    #[must_use]
    pub fn allow(&self, prefix: &Cidr, next_hop: IpAddr, peer: IpAddr) -> bool {
        let owner = (0..=prefix.length())
            .rev()
            .find_map(|length| self.by_prefix.get(&Cidr::new(prefix.address(), length)?));
        owner.is_some_and(|addresses| {
            addresses.contains(&next_hop)
                && (addresses.contains(&peer) || self.reflectors.contains(&peer))
        })
    }
}

/// The prefixes of the given lengths that cover `prefix`, the longest first.
fn ancestors<'a>(lengths: &'a BTreeSet<u8>, prefix: &'a Cidr) -> impl Iterator<Item = Cidr> + 'a {
    lengths
        .range(..=prefix.length())
        .rev()
        .filter_map(|length| Cidr::new(prefix.address(), *length))
}

fn slot(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Whether `name` fits a pattern in which `*` stands for any octets.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => {
            (0..=name.len()).any(|skip| fits(rest, name.get(skip..).unwrap_or_default()))
        }
        Some((letter, rest)) => name
            .split_first()
            .is_some_and(|(first, name)| first == letter && fits(rest, name)),
    }
}
