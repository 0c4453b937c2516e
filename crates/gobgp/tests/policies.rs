//! Policies as GoBGP evaluates them decide as ours do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use margay_bgp::policy::{
    Candidate, Interfaces, Owners, PrefixMatch, PrefixOperator, PrefixSet, RouteSource,
};
use margay_bgp::{
    AsPath, Attributes, Community, Condition, LargeCommunity, LocalRoute, NextHop, NextHopMode,
    Operation, PeerConfig, Policy, RemoteAs, Rule, SpeakerConfig, Verdict,
};
use margay_gobgp::api::{CommunityAction, Conditions, DefinedSet, MatchSet, SetPoliciesRequest};
use margay_gobgp::{Policies, peer, policies};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use regex::Regex;

const PREFIXES: [&str; 8] = [
    "10.0.0.0/8",
    "10.65.0.0/16",
    "10.65.4.0/24",
    "10.65.4.0/26",
    "10.65.4.7/32",
    "10.66.0.0/16",
    "fd00::/48",
    "fd00:0:0:1::/64",
];
const ADDRESSES: [&str; 4] = ["10.0.0.2", "10.0.0.3", "10.0.0.9", "fd00::2"];

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefixes() -> impl Strategy<Value = Cidr> {
    select(&PREFIXES[..]).prop_map(cidr)
}

fn addresses() -> impl Strategy<Value = BTreeSet<IpAddr>> {
    vec(select(&ADDRESSES[..]).prop_map(address), 0..3)
        .prop_map(|addresses| addresses.into_iter().collect())
}

fn sets() -> impl Strategy<Value = PrefixSet> {
    vec((prefixes(), 0u8..33, 0u8..66), 0..5).prop_map(|items| {
        let mut set = PrefixSet::default();
        for (prefix, min, more) in items {
            set.insert(prefix, min, min.saturating_add(more));
        }
        set
    })
}

fn simple() -> impl Strategy<Value = Condition> {
    let operators = [
        PrefixOperator::Equal,
        PrefixOperator::NotEqual,
        PrefixOperator::In,
        PrefixOperator::NotIn,
    ];
    let bounds = || proptest::option::of(0u8..40);
    let owners =
        (vec((prefixes(), addresses()), 0..6), addresses()).prop_map(|(by_prefix, reflectors)| {
            Condition::Owner(Arc::new(Owners {
                by_prefix: by_prefix.into_iter().collect(),
                reflectors,
            }))
        });
    prop_oneof![
        (prefixes(), select(operators.to_vec()), bounds(), bounds()).prop_map(
            |(cidr, operator, min, max)| {
                Condition::Prefix(PrefixMatch {
                    cidr,
                    operator,
                    min,
                    max,
                })
            }
        ),
        sets().prop_map(|set| Condition::PrefixSet(Arc::new(set))),
        Just(Condition::Family(Family::V4)),
        Just(Condition::FromPeers),
        Just(Condition::Local),
        (1u32..4).prop_map(Condition::Tag),
        select(&["cali*", "eth0"][..])
            .prop_map(|name| Condition::Interface(Interfaces(name.to_owned()))),
        (0u16..2).prop_map(|low| Condition::Community(Community::new(65000, low))),
        (0u32..2).prop_map(|low| Condition::LargeCommunity(LargeCommunity([65000, 1, low]))),
        vec(65001u32..65003, 0..3).prop_map(|numbers| Condition::AsPathPrefix(
            numbers.into_iter().map(AsNumber).collect()
        )),
        Just(Condition::External),
        Just(Condition::Internal),
        addresses().prop_map(|hops| Condition::NextHop(Arc::new(hops))),
        owners,
    ]
}

fn conditions() -> impl Strategy<Value = Condition> {
    simple().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| Condition::Not(Box::new(one))),
            vec(inner.clone(), 0..3).prop_map(Condition::Any),
            vec(inner, 0..3).prop_map(Condition::All),
        ]
    })
}

fn operations() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (0u16..2).prop_map(|low| Operation::AddCommunity(Community::new(65000, low))),
        (0u16..2).prop_map(|low| Operation::RemoveCommunity(Community::new(65000, low))),
        (0u32..2).prop_map(|low| Operation::AddLargeCommunity(LargeCommunity([65000, 1, low]))),
        (0u32..2).prop_map(|low| Operation::RemoveLargeCommunity(LargeCommunity([65000, 1, low]))),
        (1u32..9).prop_map(Operation::SetLocalPref),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let verdict = || select(&[Verdict::Accept, Verdict::Reject][..]);
    let rule = (
        vec(conditions(), 0..3),
        vec(operations(), 0..3),
        proptest::option::of(verdict()),
    )
        .prop_map(|(conditions, operations, verdict)| Rule {
            name: "rule".into(),
            conditions,
            operations,
            verdict,
        });
    (vec(rule, 0..4), verdict()).prop_map(|(rules, otherwise)| Policy {
        name: "policy".to_owned(),
        rules,
        otherwise,
    })
}

/// A route, and whether it is our own.
#[derive(Debug, Clone)]
struct Given {
    prefix: Cidr,
    own: bool,
    next_hop: IpAddr,
    path: Vec<u32>,
    communities: BTreeSet<u16>,
    large: BTreeSet<u32>,
}

fn given_route() -> impl Strategy<Value = Given> {
    (
        prefixes(),
        any::<bool>(),
        select(&ADDRESSES[..]).prop_map(address),
        vec(65001u32..65003, 0..3),
        vec(0u16..2, 0..2),
        vec(0u32..2, 0..2),
    )
        .prop_map(|(prefix, own, next_hop, path, communities, large)| Given {
            prefix,
            own,
            next_hop,
            path: if own { Vec::new() } else { path },
            communities: communities.into_iter().collect(),
            large: large.into_iter().collect(),
        })
}

impl Given {
    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::local(self.next_hop);
        attributes.next_hop = NextHop::new(self.next_hop);
        attributes.as_path = AsPath::sequence(self.path.iter().copied());
        for low in &self.communities {
            attributes.add_community(Community::new(65000, *low));
        }
        for low in &self.large {
            attributes.add_large_community(LargeCommunity([65000, 1, *low]));
        }
        attributes
    }
}

/// A route in GoBGP's hands.
struct Path<'g> {
    given: &'g Given,
    neighbour: IpAddr,
    as_path: String,
    communities: Vec<String>,
    large: Vec<String>,
}

/// GoBGP: statements in order, all of their conditions, sets as it looks at them.
struct Gobgp<'r>(&'r SetPoliciesRequest);

impl Gobgp<'_> {
    fn takes(&self, policy: &str, path: &mut Path<'_>) -> bool {
        let policy = self.0.policies.iter().find(|one| one.name == policy);
        for statement in &policy.unwrap().statements {
            let conditions = statement.conditions.clone().unwrap_or_default();
            if !self.hold(&conditions, path) {
                continue;
            }
            let actions = statement.actions.clone().unwrap_or_default();
            change(&mut path.communities, actions.community);
            change(&mut path.large, actions.large_community);
            match actions.route_action {
                1 => return true,
                2 => return false,
                _ => {}
            }
        }
        false
    }

    fn hold(&self, conditions: &Conditions, path: &Path<'_>) -> bool {
        let family = match path.given.prefix.family() {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        let families = &conditions.afi_safi_in;
        let hops = &conditions.next_hop_in_list;
        let hop = path.given.next_hop.to_string();
        self.of(&conditions.prefix_set, |set, _| {
            within(set, &path.given.prefix)
        }) && self.of(&conditions.neighbor_set, |set, _| {
            let host = Cidr::host(path.neighbour).to_string();
            set.list.contains(&host)
        }) && self.of(&conditions.as_path_set, |set, _| {
            let mut expressions = set.list.iter();
            expressions.any(|one| Regex::new(one).unwrap().is_match(&path.as_path))
        }) && self.of(&conditions.community_set, |set, kind| {
            matches(set, kind, &path.communities)
        }) && self.of(&conditions.large_community_set, |set, kind| {
            matches(set, kind, &path.large)
        }) && (conditions.route_type == 0 || path.given.own)
            && (hops.is_empty() || hops.contains(&hop))
            && (families.is_empty() || families.iter().any(|one| one.afi == family))
    }

    fn of(&self, wanted: &Option<MatchSet>, holds: impl Fn(&DefinedSet, i32) -> bool) -> bool {
        wanted.as_ref().is_none_or(|wanted| {
            let set = self
                .0
                .defined_sets
                .iter()
                .find(|set| set.name == wanted.name);
            holds(set.unwrap(), wanted.kind)
        })
    }
}

/// The longest prefix of the set that holds the route's alone is looked at.
fn within(set: &DefinedSet, prefix: &Cidr) -> bool {
    let family = cidr(&set.prefixes[0].ip_prefix).family();
    let around = set.prefixes.iter().filter(|item| {
        let around = cidr(&item.ip_prefix);
        assert_eq!(around.family(), family, "a set is of one family");
        around.covers(prefix)
    });
    let longest = around
        .clone()
        .map(|item| cidr(&item.ip_prefix).length())
        .max();
    let length = u32::from(prefix.length());
    around
        .filter(|item| Some(cidr(&item.ip_prefix).length()) == longest)
        .any(|item| (item.mask_length_min..=item.mask_length_max).contains(&length))
}

fn matches(set: &DefinedSet, kind: i32, communities: &[String]) -> bool {
    let there = |one: &String| {
        let expression = Regex::new(one).unwrap();
        communities.iter().any(|other| expression.is_match(other))
    };
    match kind {
        0 => set.list.iter().any(there),
        1 => set.list.iter().all(there),
        _ => !set.list.iter().any(there),
    }
}

fn change(communities: &mut Vec<String>, action: Option<CommunityAction>) {
    let Some(action) = action else {
        return;
    };
    match action.kind {
        0 => communities.extend(action.communities),
        _ => {
            for one in action.communities {
                let expression = match one.starts_with('^') {
                    true => one,
                    false => format!("^{one}$"),
                };
                let expression = Regex::new(&expression).unwrap();
                communities.retain(|other| !expression.is_match(other));
            }
        }
    }
}

/// A speaker with a peer that has the policy in both directions, and another that shares nothing.
fn speaker(policy: Policy, external: bool) -> SpeakerConfig {
    let mut speaker = SpeakerConfig::new(AsNumber(64512), "10.0.0.1".parse().unwrap());
    let asn = if external { 65001 } else { 64512 };
    let mut peer = PeerConfig::new(address("10.0.0.2"), RemoteAs::Is(AsNumber(asn)));
    let policy = Some(Arc::new(policy));
    peer.import.clone_from(&policy);
    peer.export = policy;
    speaker.peers.insert("one".to_owned(), peer);
    let mut other = PeerConfig::new(address("10.0.0.3"), RemoteAs::Is(AsNumber(64512)));
    other.import = Some(Policy::reject_all());
    other.export = Some(Policy::reject_all());
    speaker.peers.insert("other".to_owned(), other);
    speaker
}

/// Own routes, with which tags and interfaces are told apart.
fn own_routes() -> BTreeMap<Cidr, LocalRoute> {
    let routes = PREFIXES.iter().enumerate().map(|(number, prefix)| {
        let mut route = LocalRoute::new(cidr(prefix));
        route.tag = u32::try_from(number % 3).unwrap() + 1;
        route.interface = (number % 2 == 0).then(|| "cali1".into());
        (route.prefix, route)
    });
    routes.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn gobgp_decides_as_we_do(
        policy in policy(),
        given in given_route(),
        external in any::<bool>(),
        import in any::<bool>(),
    ) {
        // Own routes are announced, and never come in.
        let import = import && !given.own;
        let routes = own_routes();
        let made = policies(&speaker(policy.clone(), external), &routes);
        prop_assert!(made.left_out.is_empty(), "{:?}", made.left_out);
        let attributes = given.attributes();
        let source = match given.own {
            true => RouteSource::Local {
                interface: routes[&given.prefix].interface.as_deref(),
                priority: None,
                tag: routes[&given.prefix].tag,
            },
            false => RouteSource::Peer { address: address("10.0.0.2") },
        };
        let ours = policy.takes(&Candidate {
            prefix: given.prefix,
            attributes: &attributes,
            source,
            external,
        });
        let mut as_path: Vec<String> = given.path.iter().map(ToString::to_string).collect();
        if external && !import {
            as_path.insert(0, "64512".to_owned());
        }
        let mut path = Path {
            given: &given,
            neighbour: address("10.0.0.2"),
            as_path: as_path.join(" "),
            communities: attributes.communities.iter().map(ToString::to_string).collect(),
            // A peer that marks its own routes gains nothing.
            large: attributes
                .large_communities
                .iter()
                .map(ToString::to_string)
                .chain((1..9).map(|number| format!("4294967295:77:{number}")))
                .collect(),
        };
        let name = if import { Policies::IMPORT } else { Policies::EXPORT };
        let theirs = Gobgp(&made.request).takes(name, &mut path);
        prop_assert_eq!(ours, theirs);
        if theirs {
            prop_assert!(path.large.iter().all(|one| !one.starts_with("4294967295")));
        }
    }
}

#[test]
fn peers_whose_policies_cannot_be_had_are_left_out_with_the_reason() {
    let with = |conditions: Vec<Condition>, operations: Vec<Operation>| Policy {
        name: "policy".to_owned(),
        rules: vec![Rule::change("rule", conditions, operations)],
        otherwise: Verdict::Accept,
    };
    let cases = [
        (with(vec![Condition::Priority(1)], Vec::new()), "LOCAL_PREF"),
        (
            with(Vec::new(), vec![Operation::ClearCommunities]),
            "communities",
        ),
        (
            with(Vec::new(), vec![Operation::SetMed(None)]),
            "MULTI_EXIT_DISC",
        ),
        (
            with(Vec::new(), vec![Operation::SetNextHop(NextHopMode::Keep)]),
            "nextHopMode",
        ),
        (
            with(Vec::new(), vec![Operation::PrependAs(vec![AsNumber(1)])]),
            "prepend 64512 alone",
        ),
    ];
    for (policy, reason) in cases {
        let made = policies(&speaker(policy, true), &BTreeMap::new());
        assert_eq!(made.left_out.len(), 1);
        assert!(made.left_out["one"].contains(reason), "{:?}", made.left_out);
    }
    let mut config = speaker(with(Vec::new(), Vec::new()), true);
    let template = config.peers["one"].clone();
    assert!(peer(&config, &template).is_ok());
    for (remote, extended, reason) in [
        (RemoteAs::Any, false, "AS"),
        (template.remote_as, true, "IPv6 next hops"),
    ] {
        let one = config.peers.get_mut("one").unwrap();
        one.remote_as = remote;
        one.extended_next_hop = extended;
        let refused = peer(&config, &config.peers["one"]).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn peers_with_one_policy_share_its_statements() {
    let mut config = speaker(Policy::accept_all().as_ref().clone(), false);
    let shared = config.peers["one"].clone();
    let before = policies(&config, &BTreeMap::new()).request.policies;
    for number in 0..9u8 {
        let mut peer = shared.clone();
        peer.address = IpAddr::from([10, 1, 0, number]);
        config.peers.insert(format!("more{number}"), peer);
    }
    let after = policies(&config, &BTreeMap::new()).request.policies;
    let count = |policies: &[margay_gobgp::api::Policy]| -> usize {
        policies.iter().map(|policy| policy.statements.len()).sum()
    };
    assert_eq!(count(&before), count(&after));
}

/// GoBGP looks at the longest prefix of a set alone.
#[test]
fn a_prefix_within_another_hides_nothing_of_it() {
    let mut set = PrefixSet::within([cidr("10.0.0.0/8")]);
    set.insert(cidr("10.65.0.0/16"), 30, 32);
    let within = Condition::PrefixSet(Arc::new(set));
    let policy = Policy {
        name: "policy".to_owned(),
        rules: vec![Rule::new("rule", vec![within], Verdict::Accept)],
        otherwise: Verdict::Reject,
    };
    let made = policies(&speaker(policy, false), &BTreeMap::new());
    for (prefix, taken) in [
        ("10.65.4.0/24", true),
        ("10.65.4.7/32", true),
        ("10.66.0.0/16", true),
        ("fd00::/48", false),
    ] {
        let given = Given {
            prefix: cidr(prefix),
            own: false,
            next_hop: address("10.0.0.2"),
            path: Vec::new(),
            communities: BTreeSet::new(),
            large: BTreeSet::new(),
        };
        let mut path = Path {
            given: &given,
            neighbour: address("10.0.0.2"),
            as_path: String::new(),
            communities: Vec::new(),
            large: Vec::new(),
        };
        let gobgp = Gobgp(&made.request);
        assert_eq!(gobgp.takes(Policies::IMPORT, &mut path), taken, "{prefix}");
    }
}
