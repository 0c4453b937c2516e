//! Graceful restart: no route is lost that is still forwarded, and none is kept that is not.

use std::time::Duration;

use margay_bgp::{Event, RestartState, Stop};

use crate::net::Net;

const BLOCK: &str = "10.65.0.0/24";

/// Whether a prefix went from a node's FIB since a time.
fn lost_since(net: &Net, node: usize, since: Duration) -> bool {
    net.nodes[node]
        .changes
        .iter()
        .any(|(time, _, there)| *time > since && !there)
}

fn pair() -> Net {
    let mut net = Net::new(3);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link(a, b);
    net.start_all();
    net.seconds(2);
    net.announce(a, BLOCK);
    net.announce(b, "10.66.0.0/24");
    net.seconds(1);
    net
}

#[test]
fn a_restart_loses_nothing() {
    let stops: [Option<Stop>; 2] = [None, Some(Stop::KeepForwarding)];
    for stop in stops {
        let mut net = pair();
        let since = net.now;
        match &stop {
            None => net.kill(0),
            Some(how) => net.stop(0, how),
        }
        net.seconds(2);
        assert_eq!(net.status(1, 0).restart.v4, RestartState::Waiting);
        assert!(net.nodes[1].fib[&BLOCK.parse().unwrap()].stale);
        let kept = |event: &Event| matches!(event, Event::PeerDown { kept: true, .. });
        assert!(net.nodes[1].events.iter().any(kept));
        let started = net.now;
        net.start(0, true);
        net.announce(0, BLOCK);
        net.seconds(20);
        assert!(net.is_up(1, 0));
        assert_eq!(net.status(1, 0).restart.v4, RestartState::None);
        assert!(!lost_since(&net, 1, since), "{:?}", net.nodes[1].changes);
        assert!(!net.nodes[1].fib[&BLOCK.parse().unwrap()].stale);
        let converged = net.nodes[0].converged.unwrap() - started;
        assert!(converged < Duration::from_secs(8), "{converged:?}");
    }
}

#[test]
fn what_is_not_announced_again_goes() {
    let mut net = pair();
    net.announce(0, "10.65.1.0/24");
    net.seconds(1);
    net.kill(0);
    net.seconds(2);
    net.start(0, true);
    net.announce(0, BLOCK);
    net.seconds(20);
    assert!(net.has(1, BLOCK));
    assert!(!net.has(1, "10.65.1.0/24"));
}

#[test]
fn a_peer_that_lost_its_forwarding_is_not_trusted() {
    let mut net = pair();
    net.kill(0);
    net.seconds(2);
    let since = net.now;
    net.start(0, false);
    net.seconds(8);
    assert!(net.is_up(1, 0));
    assert!(lost_since(&net, 1, since));
    assert!(!net.has(1, BLOCK));
}

#[test]
fn a_peer_that_does_not_come_back_is_given_up() {
    let mut net = pair();
    net.kill(0);
    net.seconds(119);
    assert!(net.has(1, BLOCK));
    net.seconds(3);
    assert!(!net.has(1, BLOCK));
}

#[test]
fn the_helper_bounds_the_time() {
    let mut net = pair();
    net.peer(1, 0, |peer| {
        peer.graceful_restart.helper_time = Duration::from_secs(10)
    });
    net.seconds(20);
    net.announce(0, BLOCK);
    net.seconds(1);
    assert!(net.has(1, BLOCK));
    net.kill(0);
    net.seconds(12);
    assert!(!net.has(1, BLOCK));
}

#[test]
fn two_restarts_in_a_row_lose_nothing() {
    let mut net = pair();
    let since = net.now;
    net.kill(0);
    net.seconds(2);
    net.start(0, true);
    // It comes up, and dies before it has announced anything.
    while !net.is_up(1, 0) {
        net.run(Duration::from_millis(1));
    }
    net.kill(0);
    net.seconds(2);
    net.start(0, true);
    net.announce(0, BLOCK);
    net.seconds(20);
    assert!(net.has(1, BLOCK));
    assert!(!lost_since(&net, 1, since));
}

#[test]
fn a_broken_wire_keeps_routes_and_a_cease_for_good_does_not() {
    let mut net = pair();
    let since = net.now;
    net.cut(0, 1, true);
    net.seconds(130);
    // The hold timer ended the session; both sides said that NOTIFICATIONs do not end forwarding.
    assert!(!net.is_up(1, 0));
    assert!(net.has(1, BLOCK));
    net.cut(0, 1, false);
    net.seconds(40);
    assert!(net.is_up(1, 0) && net.has(1, BLOCK));
    assert!(!lost_since(&net, 1, since));
    net.stop(0, &Stop::Withdraw("gone".to_owned()));
    net.seconds(1);
    assert!(!net.has(1, BLOCK));
}

#[test]
fn without_agreement_nothing_is_kept() {
    let mut net = Net::new(3);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link_with(a, b, |node, peer| peer.graceful_restart.enabled = node == 1);
    net.start_all();
    net.seconds(2);
    net.announce(a, BLOCK);
    net.seconds(1);
    net.kill(a);
    net.seconds(1);
    assert!(!net.has(b, BLOCK));
}

#[test]
fn own_routes_do_not_wait_for_peers() {
    // 0 restarts; 1 is up, 2 never comes.
    let mut net = Net::new(3);
    for _ in 0..3 {
        net.add(64512);
    }
    net.link_with(0, 1, |here, peer| peer.reflector_client = here == 0);
    net.link(0, 2);
    net.start(1, false);
    net.announce(1, "10.66.0.0/24");
    net.start(0, true);
    net.announce(0, BLOCK);
    net.seconds(3);
    assert!(net.is_up(1, 0));
    assert!(net.has(1, BLOCK), "announced before the wait is over");
    assert_eq!(net.nodes[0].converged, None);
    assert!(!net.status(1, 0).end_of_rib.v4);
    net.seconds(8);
    let converged = net.nodes[0].converged.unwrap();
    assert!(converged <= Duration::from_secs(10), "{converged:?}");
    assert!(net.status(1, 0).end_of_rib.v4);
}

#[test]
fn a_restarting_reflector_keeps_its_clients_routes() {
    let mut net = Net::new(3);
    for _ in 0..4 {
        net.add(64512);
    }
    for client in 1..4 {
        net.link_with(0, client, |here, peer| peer.reflector_client = here == 0);
    }
    net.start_all();
    net.seconds(2);
    for client in 1..4 {
        net.announce(client, &format!("10.65.{client}.0/24"));
    }
    net.seconds(1);
    let since = net.now;
    net.kill(0);
    net.seconds(3);
    net.start(0, true);
    net.seconds(30);
    for client in 1..4 {
        assert_eq!(net.nodes[client].fib.len(), 3);
        assert!(!lost_since(&net, client, since), "{client}");
        assert!(net.nodes[client].fib.values().all(|best| !best.stale));
    }
}

#[test]
fn last_resorts_are_kept_long_and_used_last() {
    let day = Duration::from_secs(86_400);
    let mut net = Net::new(3);
    for _ in 0..3 {
        net.add(64512);
    }
    for peer in [0, 1] {
        net.link_with(peer, 2, |_, peer| {
            peer.graceful_restart.long_lived = Some(day)
        });
    }
    net.start_all();
    net.seconds(2);
    let mut preferred = margay_bgp::LocalRoute::new(BLOCK.parse().unwrap());
    preferred.local_pref = Some(200);
    net.announce_route(0, preferred);
    let mut fleeting = margay_bgp::LocalRoute::new("10.65.1.0/24".parse().unwrap());
    fleeting.communities = vec![margay_bgp::Community::NO_LLGR];
    net.announce_route(0, fleeting);
    net.seconds(1);
    net.kill(0);
    net.seconds(200);
    assert_eq!(net.status(2, 0).restart.v4, RestartState::LongLived);
    assert_eq!(net.next_hops(2, BLOCK), ["10.0.0.1"]);
    assert!(!net.has(2, "10.65.1.0/24"));
    net.announce(1, BLOCK);
    net.seconds(1);
    assert_eq!(
        net.next_hops(2, BLOCK),
        ["10.0.0.2"],
        "whatever its preference"
    );
    net.withdraw(1, BLOCK);
    net.seconds(86_000);
    assert_eq!(net.next_hops(2, BLOCK), ["10.0.0.1"]);
    net.seconds(1000);
    assert!(!net.has(2, BLOCK));
}
