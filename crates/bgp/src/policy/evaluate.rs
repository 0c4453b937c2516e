//! The evaluation of a policy on a route.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use margay_model::Cidr;

use super::{Condition, Operation, Policy, Rule, Verdict, priority_of_preference};
use crate::attribute::Attributes;
use crate::config::NextHopMode;

/// Where a route comes from, as policy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteSource<'a> {
    /// A BGP peer.
    Peer {
        /// The peer's address.
        address: IpAddr,
    },
    /// This speaker.
    Local {
        /// The interface the route points to.
        interface: Option<&'a str>,
        /// The route's kernel priority.
        priority: Option<u32>,
        /// The route's tag.
        tag: u32,
    },
}

/// A route on its way through a policy.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The prefix.
    pub prefix: Cidr,
    /// The attributes before the policy.
    pub attributes: &'a Attributes,
    /// Where the route comes from.
    pub source: RouteSource<'a>,
    /// Whether the session is external.
    pub external: bool,
}

/// What a policy makes of a route.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "lives for a moment on the stack")]
pub(crate) enum Outcome<'a> {
    /// The route is taken, with these attributes.
    Accept {
        attributes: Cow<'a, Attributes>,
        /// The next hop the policy chose.
        next_hop: Option<NextHopMode>,
    },
    /// The route is dropped by the named rule, or by the policy's end.
    Reject(Option<Arc<str>>),
}

impl Policy {
    /// Whether the policy takes a route, whatever it makes of its attributes.
    #[must_use]
    pub fn takes(&self, route: &Candidate<'_>) -> bool {
        matches!(self.evaluate(route), Outcome::Accept { .. })
    }

    /// Evaluates the policy.
    pub(crate) fn evaluate<'a>(&self, route: &Candidate<'a>) -> Outcome<'a> {
        let mut attributes = Cow::Borrowed(route.attributes);
        let mut next_hop = None;
        for rule in &self.rules {
            if !rule.holds(route, &attributes) {
                continue;
            }
            if rule.verdict == Some(Verdict::Reject) {
                return Outcome::Reject(Some(Arc::clone(&rule.name)));
            }
            for operation in &rule.operations {
                match operation {
                    Operation::SetNextHop(mode) => next_hop = Some(*mode),
                    other => other.apply(attributes.to_mut()),
                }
            }
            if rule.verdict == Some(Verdict::Accept) {
                return Outcome::Accept {
                    attributes,
                    next_hop,
                };
            }
        }
        match self.otherwise {
            Verdict::Accept => Outcome::Accept {
                attributes,
                next_hop,
            },
            Verdict::Reject => Outcome::Reject(None),
        }
    }
}

impl Rule {
    fn holds(&self, route: &Candidate<'_>, attributes: &Attributes) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.holds(route, attributes))
    }
}

impl Condition {
    /// Whether the condition holds for the route with the attributes it has by now.
    fn holds(&self, route: &Candidate<'_>, attributes: &Attributes) -> bool {
        match self {
            Self::Prefix(comparison) => comparison.holds(&route.prefix),
            Self::PrefixSet(set) => set.contains(&route.prefix),
            Self::Family(family) => route.prefix.family() == *family,
            Self::FromPeers => matches!(route.source, RouteSource::Peer { .. }),
            Self::Local => matches!(route.source, RouteSource::Local { .. }),
            Self::Tag(wanted) => {
                matches!(route.source, RouteSource::Local { tag, .. } if tag == *wanted)
            }
            Self::Interface(names) => match route.source {
                RouteSource::Local {
                    interface: Some(name),
                    ..
                } => names.holds(name),
                _ => false,
            },
            Self::Community(community) => attributes.has_community(*community),
            Self::LargeCommunity(community) => attributes
                .large_communities
                .binary_search(community)
                .is_ok(),
            Self::AsPathPrefix(numbers) => attributes.as_path.starts_with(numbers),
            Self::Priority(wanted) => priority(route.source, attributes) == Some(*wanted),
            Self::External => route.external,
            Self::Internal => !route.external,
            Self::NextHop(addresses) => addresses.contains(&attributes.next_hop.address),
            Self::Owner(owners) => match route.source {
                RouteSource::Peer { address } => {
                    owners.allow(&route.prefix, attributes.next_hop.address, address)
                }
                RouteSource::Local { .. } => true,
            },
            Self::Not(condition) => !condition.holds(route, attributes),
            Self::Any(conditions) => conditions.iter().any(|c| c.holds(route, attributes)),
            Self::All(conditions) => conditions.iter().all(|c| c.holds(route, attributes)),
        }
    }
}

impl Operation {
    fn apply(&self, attributes: &mut Attributes) {
        match self {
            Self::AddCommunity(community) => attributes.add_community(*community),
            Self::AddLargeCommunity(community) => attributes.add_large_community(*community),
            Self::RemoveCommunity(community) => {
                attributes.communities.retain(|other| other != community);
            }
            Self::RemoveLargeCommunity(community) => {
                attributes
                    .large_communities
                    .retain(|other| other != community);
            }
            Self::ClearCommunities => {
                attributes.communities.clear();
                attributes.large_communities.clear();
            }
            Self::PrependAs(numbers) => attributes.as_path.prepend(numbers),
            Self::SetLocalPref(value) => attributes.local_pref = Some(*value),
            Self::SetPriority(value) => {
                attributes.local_pref = Some(priority_of_preference(*value));
            }
            Self::SetMed(value) => attributes.med = *value,
            Self::SetNextHop(_) => {}
        }
    }
}

fn priority(source: RouteSource<'_>, attributes: &Attributes) -> Option<u32> {
    match source {
        RouteSource::Local {
            priority: Some(priority),
            ..
        } => Some(priority),
        _ => attributes.local_pref.map(priority_of_preference),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use margay_model::Family;
    use margay_model::scalar::AsNumber;

    use super::*;
    use crate::attribute::{AsPath, Community, LargeCommunity};
    use crate::policy::{Interfaces, Owners, PrefixMatch, PrefixOperator, PrefixSet};

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn attributes() -> Attributes {
        let mut attributes = Attributes::local("10.0.0.2".parse().unwrap());
        attributes.add_community("65000:7".parse().unwrap());
        attributes.add_large_community("65000:1:2".parse().unwrap());
        attributes.as_path = AsPath::sequence([65001, 65002]);
        attributes.local_pref = Some(2_147_483_647 - 1024);
        attributes
    }

    const PEER: RouteSource<'static> = RouteSource::Peer {
        address: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)),
    };
    const LOCAL: RouteSource<'static> = RouteSource::Local {
        interface: Some("cali12"),
        priority: Some(512),
        tag: 3,
    };

    fn holds(condition: &Condition, prefix: &str, source: RouteSource<'_>) -> bool {
        let attributes = attributes();
        let route = Candidate {
            prefix: cidr(prefix),
            attributes: &attributes,
            source,
            external: true,
        };
        condition.holds(&route, &attributes)
    }

    #[test]
    fn prefixes_compare_as_the_operators_say() {
        use PrefixOperator::{Equal, In, NotEqual, NotIn};
        let cases = [
            (Equal, None, None, "10.65.0.0/16", true),
            (Equal, None, None, "10.65.0.0/17", false),
            (NotEqual, None, None, "10.65.0.0/16", false),
            (NotEqual, None, None, "10.66.0.0/16", true),
            (In, None, None, "10.65.4.0/26", true),
            (In, None, None, "10.65.0.0/16", true),
            (In, None, None, "10.0.0.0/8", false),
            (In, Some(16), Some(26), "10.65.4.0/27", false),
            (In, Some(24), None, "10.65.0.0/16", false),
            (In, None, Some(26), "10.65.4.0/26", true),
            (NotIn, None, None, "10.65.4.0/26", false),
            (NotIn, None, Some(24), "10.65.4.0/26", true),
            (NotIn, None, None, "10.66.0.0/16", true),
            (In, None, None, "fd00::/64", false),
            (NotIn, None, None, "fd00::/64", true),
        ];
        for (operator, min, max, prefix, expected) in cases {
            let comparison = PrefixMatch {
                cidr: cidr("10.65.0.0/16"),
                operator,
                min,
                max,
            };
            assert_eq!(
                comparison.holds(&cidr(prefix)),
                expected,
                "{comparison:?} {prefix}"
            );
        }
    }

    #[test]
    fn conditions_look_at_all_of_a_route() {
        let pools = Arc::new(PrefixSet::within([cidr("10.65.0.0/16"), cidr("fd00::/48")]));
        let block = "10.65.4.0/26";
        let community: Community = "65000:7".parse().unwrap();
        let large: LargeCommunity = "65000:1:2".parse().unwrap();
        let cases = [
            (Condition::PrefixSet(Arc::clone(&pools)), block, PEER, true),
            (Condition::PrefixSet(pools), "10.66.4.0/26", PEER, false),
            (Condition::Family(Family::V6), block, PEER, false),
            (Condition::FromPeers, block, PEER, true),
            (Condition::FromPeers, block, LOCAL, false),
            (Condition::Local, block, LOCAL, true),
            (Condition::Tag(3), block, LOCAL, true),
            (Condition::Tag(4), block, LOCAL, false),
            (
                Condition::Interface(Interfaces("cali*".into())),
                block,
                LOCAL,
                true,
            ),
            (
                Condition::Interface(Interfaces("*1*".into())),
                block,
                LOCAL,
                true,
            ),
            (
                Condition::Interface(Interfaces("eth*".into())),
                block,
                LOCAL,
                false,
            ),
            (
                Condition::Interface(Interfaces("*".into())),
                block,
                PEER,
                false,
            ),
            (Condition::Community(community), block, PEER, true),
            (Condition::LargeCommunity(large), block, PEER, true),
            (
                Condition::AsPathPrefix(vec![AsNumber(65001)]),
                block,
                PEER,
                true,
            ),
            (
                Condition::AsPathPrefix(vec![AsNumber(65002)]),
                block,
                PEER,
                false,
            ),
            (Condition::Priority(1024), block, PEER, true),
            (Condition::Priority(512), block, LOCAL, true),
            (Condition::External, block, PEER, true),
            (Condition::Internal, block, PEER, false),
            (
                Condition::Not(Box::new(Condition::Internal)),
                block,
                PEER,
                true,
            ),
            (
                Condition::Any(vec![Condition::Internal, Condition::External]),
                block,
                PEER,
                true,
            ),
            (
                Condition::All(vec![Condition::Internal, Condition::External]),
                block,
                PEER,
                false,
            ),
        ];
        for (condition, prefix, source, expected) in cases {
            assert_eq!(
                holds(&condition, prefix, source),
                expected,
                "{condition:?} {prefix}"
            );
        }
    }

    #[test]
    fn a_block_comes_from_its_owner_or_through_a_reflector() {
        let [owner, other, reflector] =
            ["10.0.0.2", "10.0.0.3", "10.0.0.9"].map(|text| text.parse::<IpAddr>().unwrap());
        let owners = Owners {
            by_prefix: BTreeMap::from([(cidr("10.65.4.0/26"), BTreeSet::from([owner]))]),
            reflectors: BTreeSet::from([reflector]),
        };
        let block = cidr("10.65.4.0/26");
        assert!(owners.allow(&block, owner, owner));
        assert!(owners.allow(&cidr("10.65.4.9/32"), owner, reflector));
        assert!(!owners.allow(&block, other, other));
        assert!(!owners.allow(&block, owner, other));
        assert!(!owners.allow(&block, other, reflector));
        assert!(!owners.allow(&cidr("10.65.0.0/16"), owner, owner));
    }

    #[test]
    fn the_first_verdict_decides_and_changes_add_up() {
        let before = attributes();
        let route = Candidate {
            prefix: cidr("10.65.4.0/26"),
            attributes: &before,
            source: PEER,
            external: true,
        };
        let late = "65000:9".parse().unwrap();
        let mut policy = Policy {
            name: "test".to_owned(),
            rules: vec![
                Rule::new("never", vec![Condition::Internal], Verdict::Reject),
                Rule::change(
                    "label",
                    Vec::new(),
                    vec![
                        Operation::ClearCommunities,
                        Operation::AddCommunity(late),
                        Operation::PrependAs(vec![AsNumber(1), AsNumber(2)]),
                        Operation::SetPriority(512),
                        Operation::SetNextHop(NextHopMode::Keep),
                    ],
                ),
                Rule::new(
                    "labelled",
                    vec![Condition::Community(late)],
                    Verdict::Accept,
                ),
            ],
            otherwise: Verdict::Reject,
        };
        let Outcome::Accept {
            attributes,
            next_hop,
        } = policy.evaluate(&route)
        else {
            panic!("rejected");
        };
        assert_eq!(attributes.communities, [late]);
        assert_eq!(attributes.as_path.to_string(), "1 2 65001 65002");
        assert_eq!(attributes.local_pref, Some(2_147_483_135));
        assert_eq!(next_hop, Some(NextHopMode::Keep));
        policy.rules.pop();
        assert_eq!(policy.evaluate(&route), Outcome::Reject(None));
        policy
            .rules
            .push(Rule::new("all", Vec::new(), Verdict::Reject));
        assert_eq!(policy.evaluate(&route), Outcome::Reject(Some("all".into())));
    }
}
