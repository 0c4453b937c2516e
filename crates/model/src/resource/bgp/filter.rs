//! Filters on routes that BGP sessions exchange.

use super::configuration::COMMUNITY;
use crate::cidr::{Cidr, Family};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;
use crate::resource::{Resource, Spec};
use crate::scalar::AsNumber;
use crate::syntax::{is_community, is_interface_pattern};

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

impl FilterRule {
    fn check(&self, family: Family, problems: &mut Problems) {
        problems.word("action", &self.action);
        problems.optional_word("source", self.source.as_ref());
        problems.optional_word("matchOperator", self.match_operator.as_ref());
        problems.optional_word("peerType", self.peer_type.as_ref());
        self.prefix_fits(family, problems);
        let interface = &self.interface;
        let fits = interface.is_empty() || is_interface_pattern(interface);
        let allowed = "at most 15 of A-Z, a-z, 0-9, _, ., - and *";
        problems.require(fits, "interface", interface, allowed);
        if let Some(communities) = &self.communities {
            problems.field("communities", |problems| {
                let count = communities.values.len();
                problems.require(count == 1, "values", format!("{count} items"), "one item");
                problems.items("values", &communities.values, |problems, value| {
                    if !is_community(value) {
                        problems.refuse(value, COMMUNITY);
                    }
                });
            });
        }
        problems.range("priority", self.priority, PRIORITY);
        let operations = &self.operations;
        problems.at_most("operations", operations.len(), MOST_OPERATIONS);
        if !operations.is_empty() && self.action != FilterAction::Accept {
            problems.refuse_field("operations", "given", "none where the action is not Accept");
        }
        problems.items("operations", operations, |problems, operation| {
            operation.check(problems);
        });
    }

    fn prefix_fits(&self, family: Family, problems: &mut Problems) {
        let given = !self.cidr.is_empty();
        if given {
            let cidr = self.cidr.parse::<Cidr>();
            let allowed = format!("an {family} prefix");
            let fits = cidr.is_ok_and(|cidr| cidr.family() == family);
            problems.require(fits, "cidr", &self.cidr, allowed);
        }
        if given != self.match_operator.is_some() {
            let found = self
                .match_operator
                .as_ref()
                .map_or("", MatchOperator::as_str);
            problems.refuse_field("matchOperator", found, "given exactly where cidr is");
        }
        let Some(lengths) = &self.prefix_length else {
            return;
        };
        problems.require(
            given,
            "prefixLength",
            "given",
            "none where cidr is not given",
        );
        problems.field("prefixLength", |problems| {
            let width = i64::from(family.width());
            problems.range("min", lengths.min, 0..=width);
            problems.range("max", lengths.max, 0..=width);
            if let (Some(min), Some(max)) = (lengths.min, lengths.max) {
                problems.require(min <= max, "min", min, format!("at most max, {max}"));
            }
        });
    }
}

impl FilterOperation {
    fn check(&self, problems: &mut Problems) {
        let given = [
            self.add_community.is_some(),
            self.prepend_as_path.is_some(),
            self.set_priority.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() != 1 {
            problems.refuse("", "one of addCommunity, prependASPath and setPriority");
        }
        if let Some(AddCommunity { value, .. }) = &self.add_community {
            problems.field("addCommunity", |problems| {
                problems.require(is_community(value), "value", value, COMMUNITY);
            });
        }
        if let Some(PrependAsPath { prefix, .. }) = &self.prepend_as_path {
            problems.field("prependASPath", |problems| {
                let count = prefix.len();
                let fits = (1..=MOST_OPERATIONS).contains(&count);
                problems.require(
                    fits,
                    "prefix",
                    format!("{count} items"),
                    "1 to 10 AS numbers",
                );
            });
        }
        if let Some(SetPriority { value, .. }) = &self.set_priority {
            problems.field("setPriority", |problems| match value {
                None => problems.refuse_field("value", "", "1 to 2147483646"),
                value => problems.range("value", *value, PRIORITY),
            });
        }
    }
}

impl Spec for BGPFilterSpec {
    const KIND: Kind = Kind::BGPFilter;

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        for (name, rules, family) in [
            ("exportV4", &spec.export_v4, Family::V4),
            ("importV4", &spec.import_v4, Family::V4),
            ("exportV6", &spec.export_v6, Family::V6),
            ("importV6", &spec.import_v6, Family::V6),
        ] {
            problems.items(name, rules, |problems, rule| rule.check(family, problems));
        }
    }
}

const PRIORITY: std::ops::RangeInclusive<i64> = 1..=2_147_483_646;
const MOST_OPERATIONS: usize = 10;
