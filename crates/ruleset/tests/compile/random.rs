//! Any policy of a small world.

use std::collections::BTreeMap;

use margay_model::{Cidr, Family};
use margay_policy::{
    Action, Chains, Delta, Desired, EndpointId, Icmp, Member, Policy, PolicyId, PolicyKind,
    PortRange, Profile, Rule, Set, SetChange, SetId, SetKind, Side, Tier, TierDefault, Workload,
};
use proptest::prelude::*;

fn member() -> impl Strategy<Value = Member> {
    let nets = prop::sample::select(vec![
        "10.0.0.1/32",
        "10.0.0.2/32",
        "10.0.0.3/32",
        "10.0.0.0/31",
        "10.0.0.0/24",
        "fd00::1/128",
        "fd00::2/128",
        "fd00::/120",
    ]);
    nets.prop_map(|net| Member::Net(net.parse().unwrap()))
}

fn port_member() -> impl Strategy<Value = Member> {
    let address = prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "fd00::1"]);
    let protocol = prop::sample::select(vec![6_u8, 17]);
    (address, protocol, 1_u16..5).prop_map(|(address, protocol, port)| Member::Port {
        address: address.parse().unwrap(),
        protocol,
        port,
    })
}

fn net_sets() -> impl Strategy<Value = SetId> {
    (0..3).prop_map(|number| SetId::hash(&format!("n{number}")))
}

fn port_sets() -> impl Strategy<Value = SetId> {
    (0..2).prop_map(|number| SetId::hash(&format!("p{number}")))
}

fn cidr() -> impl Strategy<Value = Cidr> {
    let nets = vec![
        "10.0.0.1/32",
        "10.0.0.0/30",
        "10.0.0.2/31",
        "0.0.0.0/0",
        "fd00::/126",
    ];
    prop::sample::select(nets).prop_map(|net| net.parse().unwrap())
}

fn range() -> impl Strategy<Value = PortRange> {
    (1_u16..6, 0_u16..3).prop_map(|(first, more)| PortRange {
        first,
        last: first + more,
    })
}

fn few<T: Clone + std::fmt::Debug>(
    strategy: impl Strategy<Value = T> + 'static,
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(strategy, 1..=most)]
}

fn side() -> impl Strategy<Value = Side> {
    let addresses = (
        few(cidr(), 2),
        few(cidr(), 2),
        few(net_sets(), 2),
        few(net_sets(), 1),
    );
    let ports = (
        few(range(), 3),
        few(port_sets(), 1),
        few(range(), 2),
        few(port_sets(), 1),
    );
    let service = prop::option::weighted(0.1, port_sets());
    (addresses, ports, service).prop_map(|(addresses, ports, service)| Side {
        nets: addresses.0,
        not_nets: addresses.1,
        sets: addresses.2,
        not_sets: addresses.3,
        ports: ports.0,
        named_ports: ports.1,
        not_ports: ports.2,
        not_named_ports: ports.3,
        service,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop::sample::select(vec![
        Action::Allow,
        Action::Allow,
        Action::Deny,
        Action::Pass,
        Action::Log,
    ]);
    let family = prop::option::weighted(0.2, prop::sample::select(vec![Family::V4, Family::V6]));
    let protocol = prop::option::of(prop::sample::select(vec![6_u8, 17, 1]));
    let not_protocol = prop::option::weighted(0.1, prop::sample::select(vec![6_u8, 17]));
    let icmp = || {
        let icmp = (7_u8..9, prop::option::of(0_u8..2));
        prop::option::weighted(0.1, icmp.prop_map(|(kind, code)| Icmp { kind, code }))
    };
    let sides = (side(), side());
    (
        action,
        family,
        protocol,
        not_protocol,
        icmp(),
        icmp(),
        sides,
    )
        .prop_map(
            |(action, family, protocol, not_protocol, icmp, not_icmp, (source, destination))| {
                Rule {
                    index: 0,
                    action,
                    family,
                    protocol,
                    not_protocol,
                    icmp,
                    not_icmp,
                    source,
                    destination,
                    annotations: BTreeMap::new(),
                }
            },
        )
}

/// A rule such as most are, which can be looked up.
fn plain_rule() -> impl Strategy<Value = Rule> {
    let protocol = prop::option::weighted(0.9, prop::sample::select(vec![6_u8, 17]));
    (net_sets(), protocol, few(range(), 3)).prop_map(|(set, protocol, ports)| {
        let mut rule = Rule {
            index: 0,
            action: Action::Allow,
            family: None,
            protocol,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Side::default(),
            destination: Side::default(),
            annotations: BTreeMap::new(),
        };
        rule.source.sets.push(set);
        if protocol.is_some() {
            rule.destination.ports = ports;
        }
        rule
    })
}

fn id(number: usize) -> PolicyId {
    PolicyId::new(PolicyKind::GlobalNetworkPolicy, None, format!("p{number}"))
}

pub(crate) fn desired() -> impl Strategy<Value = Desired> {
    let net_members = prop::collection::btree_set(member(), 0..5);
    let port_members = prop::collection::btree_set(port_member(), 0..4);
    let sets = (
        prop::collection::vec(net_members, 3),
        prop::collection::vec(port_members, 2),
    );
    let rules = prop_oneof![
        2 => prop::collection::vec(rule(), 0..4),
        1 => prop::collection::vec(plain_rule(), 1..5),
    ];
    let policies = prop::collection::vec((rules, any::<bool>()), 6);
    let profile = prop::collection::vec(rule(), 0..3);
    let tiers = prop::collection::vec(
        (prop::collection::btree_set(0_usize..6, 1..4), any::<bool>()),
        0..4,
    );
    (sets, policies, profile, tiers).prop_map(|((nets, ports), policies, profile, tiers)| {
        let mut desired = Desired::default();
        for (kind, letter, members) in [(SetKind::Nets, 'n', nets), (SetKind::Ports, 'p', ports)] {
            for (number, members) in members.into_iter().enumerate() {
                let set = Set {
                    kind,
                    label: format!("{letter}{number}"),
                    members,
                };
                desired.sets.insert(SetId::hash(&set.label.clone()), set);
            }
        }
        for (number, (rules, _)) in policies.into_iter().enumerate() {
            let rules = numbered(rules);
            let policy = Policy {
                tier: "t".to_owned(),
                ingress: rules,
                egress: Vec::new(),
            };
            desired.policies.insert(id(number), policy);
        }
        let profile = Profile {
            ingress: numbered(profile),
            egress: Vec::new(),
        };
        desired.profiles.insert("profile".to_owned(), profile);
        let tiers = tiers
            .into_iter()
            .enumerate()
            .map(|(number, (policies, deny))| Tier {
                name: format!("t{number}"),
                policies: policies.into_iter().map(id).collect(),
                default: if deny {
                    TierDefault::Deny
                } else {
                    TierDefault::Pass
                },
            });
        let workload = Workload {
            interface: "cali1".to_owned(),
            mac: None,
            addresses: Vec::new(),
            spoofable: Vec::new(),
            chains: Chains {
                ingress: tiers.collect(),
                egress: Vec::new(),
            },
            profiles: vec!["profile".to_owned()],
            qos: None,
            staged: None,
        };
        desired.workloads.insert(endpoint(), workload);
        desired
    })
}

fn numbered(rules: Vec<Rule>) -> Vec<Rule> {
    let rules = rules.into_iter().enumerate();
    rules.map(|(index, rule)| Rule { index, ..rule }).collect()
}

pub(crate) fn endpoint() -> EndpointId {
    "test/a".parse().unwrap()
}

/// The difference from one state to the other.
pub(crate) fn delta(from: &Desired, to: &Desired) -> Delta {
    let mut delta = Delta::default();
    for (id, set) in &to.sets {
        let change = match from.sets.get(id) {
            None => SetChange::New(set.clone()),
            Some(old) => SetChange::Members {
                added: set.members.difference(&old.members).copied().collect(),
                removed: old.members.difference(&set.members).copied().collect(),
            },
        };
        delta.sets.insert(*id, change);
    }
    let changed = |id: &&PolicyId| from.policies.get(*id) != to.policies.get(*id);
    for id in to.policies.keys().filter(changed) {
        delta.policies.insert(id.clone(), to.policies[id].clone());
    }
    delta.profiles.clone_from(&to.profiles);
    if from.workloads != to.workloads {
        delta.workloads.clone_from(&to.workloads);
    }
    delta
}
