//! Whatever happens, in the end every speaker knows exactly what its peers tell it, and the table
//! is as if everything had happened in order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_bgp::policy::{Owners, PrefixSet};
use margay_bgp::{AddPath, Condition, LocalRoute, Policy, Rule, Verdict};
use margay_model::Cidr;
use proptest::prelude::*;

use crate::net::Net;

#[derive(Debug, Clone)]
enum Act {
    Announce(usize, u8, Option<u32>),
    Withdraw(usize, u8),
    Stall(usize, bool),
    Reset(usize, usize),
    Refresh(usize, usize),
    Policy(usize, usize, bool),
    Client(usize, bool),
    Restart(usize),
    Pass(u16),
}

fn acts(nodes: usize) -> impl Strategy<Value = Vec<Act>> {
    let node = 0..nodes;
    let act = prop_oneof![
        6 => (node.clone(), 0..12_u8, proptest::option::of(0..4_u32)).prop_map(|(n, p, m)| Act::Announce(n, p, m)),
        4 => (node.clone(), 0..12_u8).prop_map(|(n, p)| Act::Withdraw(n, p)),
        2 => (node.clone(), any::<bool>()).prop_map(|(n, s)| Act::Stall(n, s)),
        1 => (node.clone(), node.clone()).prop_map(|(a, b)| Act::Reset(a, b)),
        1 => (node.clone(), node.clone()).prop_map(|(a, b)| Act::Refresh(a, b)),
        1 => (node.clone(), node.clone(), any::<bool>()).prop_map(|(a, b, x)| Act::Policy(a, b, x)),
        1 => (1..nodes, any::<bool>()).prop_map(|(n, c)| Act::Client(n, c)),
        1 => node.prop_map(Act::Restart),
        5 => (0..3000_u16).prop_map(Act::Pass),
    ];
    proptest::collection::vec(act, 1..60)
}

/// What a session's sender says it announced, and what its receiver says it got.
fn check_sessions(net: &mut Net) {
    let nodes = net.nodes.len();
    for sender in 0..nodes {
        for receiver in 0..nodes {
            let names = (format!("n{receiver}"), format!("n{sender}"));
            let Some(told) = net.speaker(sender).advertised_routes(&names.0) else {
                continue;
            };
            let heard = net.speaker(receiver).received_routes(&names.1).unwrap();
            let told: BTreeMap<_, _> = told
                .into_iter()
                .map(|route| {
                    assert!(!route.queued);
                    ((route.prefix, route.path_id), route.attributes)
                })
                .collect();
            let heard: BTreeMap<_, _> = heard
                .into_iter()
                .map(|route| ((route.prefix, route.path_id), route.attributes))
                .collect();
            assert_eq!(told, heard, "from {sender} to {receiver}");
        }
    }
}

/// A prefix of 10.65.0.0/24: prefixes that lie within each other are likely.
fn prefix() -> impl Strategy<Value = Cidr> {
    (0..8_u8, 26..=32_u8)
        .prop_map(|(last, length)| Cidr::new([10, 65, 0, last * 32].into(), length).unwrap())
}

/// What a node takes of another: prefixes of pools from their owner, which may be the other or not.
fn import(pools: &BTreeSet<Cidr>, owners: &BTreeMap<Cidr, bool>) -> Arc<Policy> {
    let other: IpAddr = "10.0.0.2".parse().unwrap();
    let by_prefix = owners.iter().map(|(prefix, its)| {
        let owners = its.then_some(other);
        (*prefix, owners.into_iter().collect())
    });
    let owners = Owners {
        by_prefix: by_prefix.collect(),
        reflectors: BTreeSet::new(),
    };
    let conditions = vec![
        Condition::PrefixSet(Arc::new(PrefixSet::within(pools.iter().copied()))),
        Condition::Owner(Arc::new(owners)),
    ];
    Arc::new(Policy {
        name: "import".to_owned(),
        rules: vec![Rule::new("owner", conditions, Verdict::Accept)],
        otherwise: Verdict::Reject,
    })
}

/// How many cases are tried: `PROPTEST_CASES`, or few.
fn cases() -> u32 {
    let told = std::env::var("PROPTEST_CASES").ok();
    told.map_or(96, |told| told.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// Node 0 reflects for some of the others; 1 and 2 also peer with each other.
    #[test]
    fn adjacent_tables_agree(seed in 0..1000_u64, add_path in any::<bool>(), acts in acts(5)) {
        let mut net = Net::new(seed);
        for _ in 0..5 {
            net.add(64512);
        }
        for node in 1..5 {
            net.link_with(0, node, |here, peer| {
                peer.reflector_client = here == 0 && node % 2 == 0;
                if add_path && node > 2 {
                    peer.add_path = AddPath { receive: true, send: 2 };
                }
            });
        }
        net.link(1, 2);
        net.start_all();
        net.seconds(2);
        let mut own: Vec<BTreeMap<u8, Option<u32>>> = vec![BTreeMap::new(); 5];
        for act in acts {
            match act {
                Act::Announce(node, prefix, med) => {
                    own[node].insert(prefix, med);
                    let mut route = LocalRoute::new(format!("10.65.{prefix}.0/24").parse().unwrap());
                    route.med = med;
                    net.announce_route(node, route);
                }
                Act::Withdraw(node, prefix) => {
                    own[node].remove(&prefix);
                    net.withdraw(node, &format!("10.65.{prefix}.0/24"));
                }
                Act::Stall(node, stalled) => net.stall(node, stalled),
                Act::Reset(a, b) => {
                    let now = net.now;
                    net.speaker(a).reset(now, &format!("n{b}"));
                }
                Act::Refresh(a, b) => {
                    let now = net.now;
                    net.speaker(a).refresh_in(now, &format!("n{b}"));
                }
                Act::Policy(a, b, reject) => {
                    let name = format!("n{b}");
                    net.configure(a, |config| {
                        if let Some(peer) = config.peers.get_mut(&name) {
                            peer.export = reject.then(Policy::reject_all);
                        }
                    });
                }
                Act::Client(node, client) => {
                    net.peer(0, node, |peer| peer.reflector_client = client);
                }
                Act::Restart(node) => {
                    net.stall(node, false);
                    net.kill(node);
                    net.seconds(1);
                    net.start(node, true);
                    for (prefix, med) in own[node].clone() {
                        let mut route =
                            LocalRoute::new(format!("10.65.{prefix}.0/24").parse().unwrap());
                        route.med = med;
                        net.announce_route(node, route);
                    }
                }
                Act::Pass(millis) => net.run(Duration::from_millis(millis.into())),
            }
        }
        for node in 0..5 {
            net.stall(node, false);
        }
        net.seconds(1000);
        for (a, b) in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2)] {
            prop_assert!(net.is_up(a, b) && net.is_up(b, a), "{a} {b}");
        }
        check_sessions(&mut net);
        // Every own route is in its speaker's table, and in no FIB is a route nobody has.
        for (node, own) in own.iter().enumerate() {
            for prefix in own.keys() {
                let prefix = format!("10.65.{prefix}.0/24");
                prop_assert!(net.has(node, &prefix));
                prop_assert!(net.next_hops(node, &prefix).is_empty(), "own before others'");
            }
        }
        for node in 0..5 {
            let prefixes: Vec<_> = net.nodes[node].fib.keys().copied().collect();
            for prefix in prefixes {
                let known = (0..12_u8).any(|number| {
                    format!("10.65.{number}.0/24") == prefix.to_string()
                        && own.iter().any(|own| own.contains_key(&number))
                });
                prop_assert!(known, "{prefix} at {node}");
            }
        }
    }

    /// Only routes within what changed of a policy are weighed anew, and the result is as if all had been.
    #[test]
    fn a_changed_policy_leaves_what_the_whole_import_would(
        seed in 0..1000_u64,
        routes in prop::collection::btree_set(prefix(), 1..24),
        changes in prop::collection::vec((prefix(), 0..4_u8), 1..24),
    ) {
        let mut net = Net::new(seed);
        net.add(64512);
        net.add(64512);
        net.link(0, 1);
        let mut pools = BTreeSet::from(["10.65.0.0/25".parse().unwrap()]);
        let mut owners = BTreeMap::new();
        net.peer(0, 1, |peer| peer.import = Some(import(&pools, &owners)));
        net.start_all();
        for prefix in routes {
            net.announce_route(1, LocalRoute::new(prefix));
        }
        net.seconds(5);
        for (prefix, what) in changes {
            match what {
                0 => {
                    owners.remove(&prefix);
                }
                1 | 2 => {
                    owners.insert(prefix, what == 1);
                }
                _ => {
                    if !pools.remove(&prefix) {
                        pools.insert(prefix);
                    }
                }
            }
            let policy = import(&pools, &owners);
            net.peer(0, 1, |peer| peer.import = Some(policy));
        }
        net.seconds(5);
        let seen = |net: &mut Net| {
            let received = net.speaker(0).received_routes("n1").unwrap();
            let received = received.into_iter().map(|route| (route.prefix, route.rejected));
            let fib: Vec<Cidr> = net.nodes[0].fib.keys().copied().collect();
            let counted = net.speaker(0).peers()[0].prefixes.v4.accepted;
            (received.collect::<BTreeMap<_, _>>(), fib, counted)
        };
        let changed = seen(&mut net);
        // The peer announces everything again, and each is weighed by the policy as it is now.
        let now = net.now;
        prop_assert!(net.speaker(0).refresh_in(now, "n1"));
        net.seconds(5);
        prop_assert_eq!(changed, seen(&mut net));
    }
}
