//! Path attributes of a route, decoded.

mod as_path;
mod community;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_model::Family;
use margay_model::scalar::AsNumber;
use serde::Serialize;

pub(crate) use as_path::SEGMENT_MAX;
pub use as_path::{AsPath, Segment, SegmentKind};
pub use community::{Community, CommunityError, ExtendedCommunity, LargeCommunity};

/// Where a route came into BGP (RFC 4271 §5.1.1); less is better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// From within the AS.
    #[default]
    Igp,
    /// By the EGP of old.
    Egp,
    /// By other means, such as redistribution.
    Incomplete,
}

/// The address that packets go to next (RFC 4271 §5.1.3, RFC 4760 §3, RFC 8950).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct NextHop {
    /// A global address, of either family; or a link-local one where the peer has no other.
    pub address: IpAddr,
    /// The link-local IPv6 address beside it (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
}

/// The last aggregator of a route (RFC 4271 §5.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Aggregator {
    /// Its AS.
    pub asn: AsNumber,
    /// Its BGP identifier.
    pub router: Ipv4Addr,
}

/// An attribute this speaker does not know, passed on because it is optional and transitive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct UnknownAttribute {
    /// The type code.
    pub code: u8,
    /// The flags' octet as it is sent on: optional, transitive, partial.
    pub flags: u8,
    /// The value.
    pub value: Vec<u8>,
}

/// The path attributes of a route.
///
/// Values are canonical: communities sorted and without repetition, unknown attributes by code, so
/// that equal attributes are equal values. Routes share them by `Arc`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, with four-octet numbers.
    pub as_path: AsPath,
    /// NEXT_HOP, or the next hop of MP_REACH_NLRI.
    pub next_hop: NextHop,
    /// MULTI_EXIT_DISC; less is better.
    pub med: Option<u32>,
    /// LOCAL_PREF; more is better, and 100 when absent.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<Community>,
    /// LARGE_COMMUNITY (RFC 8092).
    pub large_communities: Vec<LargeCommunity>,
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub extended_communities: Vec<ExtendedCommunity>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST, the last cluster first (RFC 4456).
    pub cluster_list: Vec<Ipv4Addr>,
    /// What is passed on unread.
    pub unknown: Vec<UnknownAttribute>,
}

impl NextHop {
    /// A next hop without a link-local companion.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self {
            address,
            link_local: None,
        }
    }

    /// The family of the address.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// Whether the address means nothing beyond its link.
    #[must_use]
    pub fn is_link_local(&self) -> bool {
        matches!(self.address, IpAddr::V6(address) if address.is_unicast_link_local())
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Origin {
    /// The attribute's value.
    pub(crate) fn octet(self) -> u8 {
        match self {
            Self::Igp => 0,
            Self::Egp => 1,
            Self::Incomplete => 2,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igp => "IGP",
            Self::Egp => "EGP",
            Self::Incomplete => "incomplete",
        })
    }
}

impl Attributes {
    /// The attributes of a route of our own: origin IGP, an empty path and nothing else.
    #[must_use]
    pub fn local(next_hop: IpAddr) -> Self {
        Self {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop: NextHop::new(next_hop),
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Vec::new(),
            large_communities: Vec::new(),
            extended_communities: Vec::new(),
            originator_id: None,
            cluster_list: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// The local preference in force: 100 when the attribute is absent.
    #[must_use]
    pub fn preference(&self) -> u32 {
        self.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
    }

    /// Whether the route bears the community.
    #[must_use]
    pub fn has_community(&self, community: Community) -> bool {
        self.communities.binary_search(&community).is_ok()
    }

    /// Adds a community.
    pub fn add_community(&mut self, community: Community) {
        insert_sorted(&mut self.communities, community);
    }

    /// Adds a large community.
    pub fn add_large_community(&mut self, community: LargeCommunity) {
        insert_sorted(&mut self.large_communities, community);
    }

    /// Brings lists into canonical order.
    pub(crate) fn canonicalize(&mut self) {
        sort_unique(&mut self.communities);
        sort_unique(&mut self.large_communities);
        sort_unique(&mut self.extended_communities);
        self.unknown.sort_by_key(|attribute| attribute.code);
    }
}

fn insert_sorted<T: Ord>(list: &mut Vec<T>, item: T) {
    if let Err(place) = list.binary_search(&item) {
        list.insert(place, item);
    }
}

fn sort_unique<T: Ord>(list: &mut Vec<T>) {
    if !list.is_sorted_by(|one, next| one < next) {
        list.sort();
        list.dedup();
    }
}

/// The local preference of a route without one.
pub const DEFAULT_LOCAL_PREF: u32 = 100;
