//! Routes of our own.

use std::net::IpAddr;
use std::sync::Arc;

use margay_model::Cidr;

use crate::attribute::{Attributes, Community, LargeCommunity, Origin};

/// A route that this speaker originates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRoute {
    /// The prefix.
    pub prefix: Cidr,
    /// The next hop to announce; this speaker itself when absent.
    pub next_hop: Option<IpAddr>,
    /// ORIGIN.
    pub origin: Origin,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Communities.
    pub communities: Vec<Community>,
    /// Large communities.
    pub large_communities: Vec<LargeCommunity>,
    /// The interface the route points to, for policy.
    pub interface: Option<Arc<str>>,
    /// The route's kernel priority, for policy.
    pub priority: Option<u32>,
    /// A mark for policy, such as what kind of route this is.
    pub tag: u32,
}

impl LocalRoute {
    /// A route by way of this speaker, with nothing else said.
    #[must_use]
    pub fn new(prefix: Cidr) -> Self {
        Self {
            prefix,
            next_hop: None,
            origin: Origin::Igp,
            local_pref: None,
            med: None,
            communities: Vec::new(),
            large_communities: Vec::new(),
            interface: None,
            priority: None,
            tag: 0,
        }
    }

    /// The route's attributes; the next hop is unspecified where it is this speaker.
    pub(crate) fn attributes(&self) -> Attributes {
        let unspecified = match self.prefix.family() {
            margay_model::Family::V4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            margay_model::Family::V6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        let mut attributes = Attributes {
            origin: self.origin,
            local_pref: self.local_pref,
            med: self.med,
            communities: self.communities.clone(),
            large_communities: self.large_communities.clone(),
            ..Attributes::local(self.next_hop.unwrap_or(unspecified))
        };
        attributes.canonicalize();
        attributes
    }
}
