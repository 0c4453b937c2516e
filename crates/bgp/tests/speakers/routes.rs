//! Routes between speakers: attributes, next hops, policy, several paths.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use margay_bgp::{
    AddPath, Condition, Families, LocalRoute, NextHopMode, Operation, PeerConfig, Policy, Rule,
    Verdict,
};
use margay_model::scalar::AsNumber;

use crate::net::Net;

fn accept(peer: &mut PeerConfig) {
    peer.import = Some(Policy::accept_all());
    peer.export = Some(Policy::accept_all());
}

#[test]
fn external_peers_need_policy() {
    let mut net = Net::new(1);
    let (a, b) = (net.add(64512), net.add(64513));
    net.link(a, b);
    net.start_all();
    net.seconds(2);
    net.announce(a, "10.65.0.0/24");
    net.seconds(1);
    assert_eq!(net.status(a, b).prefixes.v4.advertised, 0);
    net.peer(a, b, accept);
    net.seconds(1);
    assert_eq!(net.status(a, b).prefixes.v4.advertised, 1);
    let received = net.speaker(b).received_routes("n0").unwrap();
    let reason = received[0].rejected.as_deref();
    assert_eq!(reason, Some("no import policy for an external peer"));
    assert!(!net.has(b, "10.65.0.0/24"));
    net.peer(b, a, accept);
    net.seconds(1);
    assert_eq!(net.next_hops(b, "10.65.0.0/24"), ["10.0.0.1"]);
    let best = net.nodes[b].fib.values().next().unwrap();
    assert_eq!(best.attributes.as_path.to_string(), "64512");
    assert_eq!(best.attributes.local_pref, None);
    assert_eq!(net.status(a, b).counters.flaps, 0);
}

#[test]
fn paths_grow_and_loops_are_seen() {
    let mut net = Net::new(1);
    let nodes: Vec<_> = [1, 2, 3].map(|asn| net.add(asn)).to_vec();
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        net.link_with(nodes[a], nodes[b], |_, peer| accept(peer));
    }
    net.start_all();
    net.seconds(2);
    let mut route = LocalRoute::new("10.65.0.0/24".parse().unwrap());
    route.med = Some(50);
    net.announce_route(0, route);
    net.seconds(1);
    let best = &net.nodes[2].fib[&"10.65.0.0/24".parse().unwrap()];
    assert_eq!(best.attributes.as_path.to_string(), "1");
    assert_eq!(
        best.attributes.med,
        Some(50),
        "of the neighbour's own route"
    );
    net.cut(2, 0, true);
    net.seconds(400);
    let best = &net.nodes[2].fib[&"10.65.0.0/24".parse().unwrap()];
    assert_eq!(best.attributes.as_path.to_string(), "2 1");
    assert_eq!(best.attributes.med, None, "another AS's is not passed on");
    net.cut(2, 0, false);
    net.seconds(60);
    // What comes back to its origin is a loop, unless that is allowed.
    net.peer(2, 0, |peer| peer.import = Some(Policy::reject_all()));
    net.seconds(1);
    let looped = |net: &mut Net| {
        let routes = net.speaker(0).received_routes("n2").unwrap();
        routes
            .iter()
            .map(|route| route.rejected.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(looped(&mut net), [Some("our AS is in the path".to_owned())]);
    net.peer(0, 2, |peer| peer.allow_own_as = 1);
    net.seconds(1);
    assert_eq!(looped(&mut net), [None]);
}

#[test]
fn internal_peers_keep_next_hops_and_external_ones_see_ours() {
    // 0 (AS 1) - 1 (AS 2) - 2 (AS 2)
    for (mode, expected) in [
        (NextHopMode::Auto, "10.0.0.1"),
        (NextHopMode::Own, "10.0.0.2"),
        (NextHopMode::Keep, "10.0.0.1"),
    ] {
        let mut net = Net::new(1);
        let nodes: Vec<_> = [1, 2, 2].map(|asn| net.add(asn)).to_vec();
        net.link_with(nodes[0], nodes[1], |_, peer| accept(peer));
        net.link_with(nodes[1], nodes[2], |_, peer| peer.next_hop = mode);
        net.start_all();
        net.seconds(2);
        net.announce(0, "10.65.0.0/24");
        net.seconds(1);
        assert_eq!(net.next_hops(2, "10.65.0.0/24"), [expected], "{mode:?}");
        let best = &net.nodes[2].fib[&"10.65.0.0/24".parse().unwrap()];
        assert_eq!(best.attributes.local_pref, Some(100));
        // What an internal peer says is not said to another.
        net.announce(2, "10.66.0.0/24");
        net.seconds(1);
        assert_eq!(net.next_hops(0, "10.66.0.0/24"), ["10.0.0.2"]);
    }
}

#[test]
fn internal_peers_are_not_told_of_each_other() {
    let mut net = Net::new(1);
    for _ in 0..3 {
        net.add(64512);
    }
    net.link(0, 1);
    net.link(1, 2);
    net.start_all();
    net.seconds(2);
    net.announce(0, "10.65.0.0/24");
    net.seconds(1);
    assert!(net.has(1, "10.65.0.0/24"));
    assert!(!net.has(2, "10.65.0.0/24"));
}

#[test]
fn both_families_travel_on_one_session() {
    let mut net = Net::new(1);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link_with(a, b, |_, peer| peer.families = Families::BOTH);
    net.configure(a, |config| {
        config.address_v6 = Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))
    });
    net.start_all();
    net.seconds(2);
    net.announce(a, "10.65.0.0/24");
    net.announce(a, "fd00:65::/64");
    net.announce(b, "fd00:66::/64");
    net.seconds(1);
    assert_eq!(net.next_hops(b, "10.65.0.0/24"), ["10.0.0.1"]);
    assert_eq!(net.next_hops(b, "fd00:65::/64"), ["fd00::1"]);
    assert!(
        !net.has(a, "fd00:66::/64"),
        "there is no IPv6 address to go to"
    );
    net.withdraw(a, "fd00:65::/64");
    net.seconds(1);
    assert!(!net.has(b, "fd00:65::/64") && net.has(b, "10.65.0.0/24"));
}

#[test]
fn ipv4_goes_by_way_of_ipv6() {
    let mut net = Net::new(1);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link_with(a, b, |_, peer| peer.extended_next_hop = true);
    net.start_all();
    net.seconds(2);
    let mut route = LocalRoute::new("10.65.0.0/24".parse().unwrap());
    route.next_hop = Some("fd00::1".parse().unwrap());
    net.announce_route(a, route);
    net.seconds(1);
    assert_eq!(net.next_hops(b, "10.65.0.0/24"), ["fd00::1"]);
}

#[test]
fn policy_changes_without_a_reset() {
    let mut net = Net::new(1);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link(a, b);
    net.start_all();
    net.seconds(2);
    for block in ["10.65.0.0/24", "10.65.1.0/24", "10.66.0.0/24"] {
        net.announce(a, block);
    }
    net.seconds(1);
    assert_eq!(net.nodes[b].fib.len(), 3);

    let within = |pool: &str| {
        let set = margay_bgp::policy::PrefixSet::within([pool.parse().unwrap()]);
        Arc::new(Policy {
            name: "pools".to_owned(),
            rules: vec![
                Rule::change(
                    "label",
                    Vec::new(),
                    vec![Operation::AddCommunity("64512:7".parse().unwrap())],
                ),
                Rule::new(
                    "pool",
                    vec![Condition::PrefixSet(Arc::new(set))],
                    Verdict::Accept,
                ),
            ],
            otherwise: Verdict::Reject,
        })
    };
    net.peer(a, b, |peer| peer.export = Some(within("10.65.0.0/16")));
    net.seconds(1);
    assert_eq!(net.nodes[b].fib.len(), 2);
    assert!(
        net.nodes[b]
            .fib
            .values()
            .all(|best| best.attributes.communities.len() == 1)
    );
    assert_eq!(net.status(a, b).prefixes.v4.advertised, 2);

    net.peer(b, a, |peer| peer.import = Some(within("10.65.1.0/24")));
    net.seconds(1);
    assert_eq!(net.nodes[b].fib.len(), 1);
    let status = net.status(b, a);
    let counters = status.prefixes.v4;
    assert_eq!(
        (
            counters.received,
            counters.accepted,
            counters.rejected,
            counters.best
        ),
        (2, 1, 1, 1)
    );

    net.peer(a, b, |peer| peer.export = None);
    net.peer(b, a, |peer| peer.import = None);
    net.seconds(1);
    assert_eq!(net.nodes[b].fib.len(), 3);
    assert!(
        net.nodes[b]
            .fib
            .values()
            .all(|best| best.attributes.communities.is_empty())
    );
    assert_eq!(net.status(a, b).counters.flaps, 0);
}

#[test]
fn equal_routes_share_the_traffic() {
    let mut net = Net::new(1);
    for _ in 0..4 {
        net.add(64512);
    }
    for node in 1..4 {
        net.link(0, node);
    }
    net.configure(0, |config| config.multipath = NonZeroUsize::new(2).unwrap());
    net.start_all();
    net.seconds(2);
    for node in 1..4 {
        net.announce(node, "10.96.0.1/32");
    }
    net.seconds(1);
    assert_eq!(net.next_hops(0, "10.96.0.1/32"), ["10.0.0.2", "10.0.0.3"]);
    net.configure(0, |config| config.multipath = NonZeroUsize::new(8).unwrap());
    assert_eq!(net.next_hops(0, "10.96.0.1/32").len(), 3);
    let gone = BTreeMap::from([("10.0.0.3".parse().unwrap(), None)]);
    net.speaker(0).set_next_hops(gone);
    net.announce(0, "10.99.0.0/24");
    assert_eq!(net.next_hops(0, "10.96.0.1/32"), ["10.0.0.2", "10.0.0.4"]);
}

#[test]
fn several_paths_go_to_peers_that_take_them() {
    // 0, 1 and 2 announce the same; 3 reflects up to two paths to 4, and the best to 5.
    let mut net = Net::new(1);
    for _ in 0..6 {
        net.add(64512);
    }
    for node in 0..6 {
        if node == 3 {
            continue;
        }
        net.link_with(3, node, |here, peer| {
            peer.reflector_client = here == 3;
            if node == 4 {
                peer.add_path = if here == 3 {
                    AddPath {
                        receive: false,
                        send: 2,
                    }
                } else {
                    AddPath {
                        receive: true,
                        send: 0,
                    }
                };
            }
        });
    }
    net.configure(4, |config| config.multipath = NonZeroUsize::new(8).unwrap());
    net.start_all();
    net.seconds(2);
    for node in 0..3 {
        net.announce(node, "10.96.0.1/32");
    }
    net.seconds(1);
    assert_eq!(net.next_hops(4, "10.96.0.1/32"), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(net.next_hops(5, "10.96.0.1/32"), ["10.0.0.1"]);
    net.withdraw(0, "10.96.0.1/32");
    net.seconds(1);
    assert_eq!(net.next_hops(4, "10.96.0.1/32"), ["10.0.0.2", "10.0.0.3"]);
    assert_eq!(net.next_hops(5, "10.96.0.1/32"), ["10.0.0.2"]);
    net.withdraw(1, "10.96.0.1/32");
    net.withdraw(2, "10.96.0.1/32");
    net.seconds(1);
    assert!(!net.has(4, "10.96.0.1/32") && !net.has(5, "10.96.0.1/32"));
}

#[test]
fn communities_keep_routes_in() {
    let mut net = Net::new(1);
    let nodes: Vec<_> = [1, 2, 2].map(|asn| net.add(asn)).to_vec();
    net.link_with(nodes[0], nodes[1], |_, peer| accept(peer));
    net.link(nodes[1], nodes[2]);
    net.start_all();
    net.seconds(2);
    let mut route = LocalRoute::new("10.65.0.0/24".parse().unwrap());
    route.communities = vec![margay_bgp::Community::NO_EXPORT];
    net.announce_route(1, route.clone());
    net.seconds(1);
    assert!(net.has(2, "10.65.0.0/24") && !net.has(0, "10.65.0.0/24"));
    route.communities = vec![margay_bgp::Community::NO_ADVERTISE];
    net.announce_route(1, route);
    net.seconds(1);
    assert!(!net.has(2, "10.65.0.0/24") && !net.has(0, "10.65.0.0/24"));
}

#[test]
fn another_as_can_be_claimed() {
    let mut net = Net::new(1);
    let (a, b) = (net.add(1), net.add(2));
    net.link_with(a, b, |node, peer| {
        accept(peer);
        if node == 0 {
            peer.local_as = Some(AsNumber(70000));
        } else {
            peer.remote_as = margay_bgp::RemoteAs::Is(AsNumber(70000));
        }
    });
    net.start_all();
    net.seconds(2);
    net.announce(a, "10.65.0.0/24");
    net.seconds(1);
    let best = net.nodes[b].fib.values().next().unwrap();
    assert_eq!(best.attributes.as_path.to_string(), "70000");
}

#[test]
fn refreshes_bring_everything_again() {
    let mut net = Net::new(1);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link(a, b);
    net.start_all();
    net.seconds(2);
    for block in 0..20 {
        net.announce(a, &format!("10.65.{block}.0/24"));
    }
    net.seconds(1);
    let (changes, before) = (
        net.nodes[b].changes.len(),
        net.status(b, a).counters.received,
    );
    let now = net.now;
    assert!(net.speaker(b).refresh_in(now, "n0"));
    net.announce(b, "10.66.0.0/24");
    net.seconds(1);
    let after = net.status(b, a).counters.received;
    assert_eq!(after.refresh - before.refresh, 2, "begin and end");
    assert!(after.update > before.update);
    assert_eq!(net.nodes[b].fib.len(), 21);
    assert_eq!(
        net.nodes[b].changes.len(),
        changes + 1,
        "nothing else changed"
    );
}

#[test]
fn a_slow_peer_skips_what_changed_again() {
    let mut net = Net::new(1);
    let nodes: Vec<_> = (0..3).map(|_| net.add(64512)).collect();
    net.link(nodes[0], nodes[1]);
    net.link(nodes[0], nodes[2]);
    net.start_all();
    net.seconds(2);
    net.stall(0, true);
    for round in 0..50_u32 {
        let mut route = LocalRoute::new("10.65.0.0/24".parse().unwrap());
        route.med = Some(round);
        net.announce_route(0, route);
        net.announce(0, &format!("10.66.{round}.0/24"));
        net.withdraw(0, &format!("10.66.{round}.0/24"));
    }
    let before = net.status(1, 0).counters.received.update;
    net.stall(0, false);
    net.seconds(1);
    assert_eq!(net.nodes[1].fib.len(), 1);
    let best = net.nodes[1].fib.values().next().unwrap();
    assert_eq!(best.attributes.med, Some(49));
    assert_eq!(net.status(1, 0).counters.received.update - before, 1);
}

/// A peer that moves on before its new group has told it anything still knows what the old one said.
#[test]
fn a_slow_peer_forgets_what_two_groups_ago_told_it() {
    for between in [Between::Move, Between::Refresh] {
        let mut net = Net::new(1);
        let nodes: Vec<_> = (0..3).map(|_| net.add(64512)).collect();
        net.link(nodes[0], nodes[1]);
        net.link_with(nodes[0], nodes[2], |here, peer| {
            peer.reflector_client = here == nodes[0];
        });
        net.start_all();
        net.announce(0, "10.65.0.0/24");
        net.seconds(2);
        assert!(net.has(2, "10.65.0.0/24"));
        net.stall(0, true);
        match between {
            Between::Move => net.peer(0, 2, |peer| peer.reflector_client = false),
            Between::Refresh => {
                let now = net.now;
                assert!(net.speaker(2).refresh_in(now, "n0"));
                net.seconds(1);
            }
        }
        net.peer(0, 2, |peer| peer.export = Some(Policy::reject_all()));
        net.stall(0, false);
        net.seconds(5);
        assert!(net.has(1, "10.65.0.0/24"));
        assert!(!net.has(2, "10.65.0.0/24"), "{between:?}");
    }
}

#[derive(Debug)]
enum Between {
    Move,
    Refresh,
}
