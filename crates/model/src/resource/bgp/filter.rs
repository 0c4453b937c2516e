//! Filters on routes that BGP sessions exchange.

use crate::kind::Kind;
use crate::resource::{Resource, Spec};
use crate::scalar::AsNumber;

/// Rules on routes; the first that matches decides.
pub type BGPFilter = Resource<BGPFilterSpec>;

words! {
    /// How a route's prefix is compared.
    pub enum MatchOperator {
        /// It is the same.
        Equal = "Equal",
        /// It is another.
        NotEqual = "NotEqual",
        /// It lies within, or is the same.
        In = "In",
        /// It does not lie within.
        NotIn = "NotIn",
    }
}

words! {
    /// Where a route comes from.
    pub enum FilterSource {
        /// From BGP peers.
        RemotePeers = "RemotePeers",
    }
}

words! {
    /// What kind of session a rule is for.
    pub enum PeerType {
        /// With another AS.
        External = "eBGP",
        /// Within the AS.
        Internal = "iBGP",
    }
}

words! {
    /// What happens to a route.
    pub enum FilterAction {
        /// It is taken.
        Accept = "Accept",
        /// It is dropped.
        Reject = "Reject",
    }
}

object! {
    /// Specification of a [`BGPFilter`].
    pub struct BGPFilterSpec {
        /// Rules for IPv4 routes to peers.
        "exportV4" => pub export_v4: Vec<FilterRule>,
        /// Rules for IPv4 routes from peers.
        "importV4" => pub import_v4: Vec<FilterRule>,
        /// Rules for IPv6 routes to peers.
        "exportV6" => pub export_v6: Vec<FilterRule>,
        /// Rules for IPv6 routes from peers.
        "importV6" => pub import_v6: Vec<FilterRule>,
    }
}

object! {
    /// What to do with routes of a description. All that is given must match.
    pub struct FilterRule {
        /// A prefix to compare with.
        "cidr" => pub cidr: String,
        /// Prefix lengths of the route.
        "prefixLength" => pub prefix_length: Option<PrefixLengths>,
        /// Where the route comes from.
        "source" => pub source: Option<FilterSource>,
        /// The route's interface, a name or a pattern.
        "interface" => pub interface: String,
        /// How the prefix is compared.
        "matchOperator" => pub match_operator: Option<MatchOperator>,
        /// What kind of session the rule is for.
        "peerType" => pub peer_type: Option<PeerType>,
        /// A community of the route.
        "communities" => pub communities: Option<CommunityMatch>,
        /// The first AS numbers of the route's path.
        "asPathPrefix" => pub as_path_prefix: Vec<AsNumber>,
        /// The route's priority.
        "priority" => pub priority: Option<i64>,
        /// What happens to the route.
        "action" => pub action: FilterAction,
        /// Changes to a route that is accepted, in order.
        "operations" => pub operations: Vec<FilterOperation>,
    }
}

object! {
    /// A range of prefix lengths.
    pub struct PrefixLengths {
        /// The shortest.
        "min" => pub min: Option<i64>,
        /// The longest.
        "max" => pub max: Option<i64>,
    }
}

object! {
    /// Communities to look for.
    pub struct CommunityMatch {
        /// One community.
        "values" => pub values: Vec<String>,
    }
}

object! {
    /// A change to a route: one of the three.
    pub struct FilterOperation {
        /// Adds a community.
        "addCommunity" => pub add_community: Option<AddCommunity>,
        /// Adds AS numbers before the path.
        "prependASPath" => pub prepend_as_path: Option<PrependAsPath>,
        /// Sets the priority.
        "setPriority" => pub set_priority: Option<SetPriority>,
    }
}

object! {
    /// Adds a community.
    pub struct AddCommunity {
        /// `aa:nn` or `aa:nn:mm`.
        "value" => pub value: String,
    }
}

object! {
    /// Adds AS numbers before the path.
    pub struct PrependAsPath {
        /// The AS numbers.
        "prefix" => pub prefix: Vec<AsNumber>,
    }
}

object! {
    /// Sets the priority.
    pub struct SetPriority {
        /// The priority.
        "value" => pub value: Option<i64>,
    }
}

impl Spec for BGPFilterSpec {
    const KIND: Kind = Kind::BGPFilter;
}
