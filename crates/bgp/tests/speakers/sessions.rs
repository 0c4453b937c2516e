//! Sessions coming up, staying up, and going down for the reason that is told.

use std::collections::BTreeMap;
use std::time::Duration;

use margay_bgp::{
    DownReason, Event, Families, MaxPrefixes, OverLimit, PeerConfig, Policy, RangeConfig, Refusal,
    RemoteAs, State, Stop, TimersConfig, TtlMode,
};
use margay_model::scalar::AsNumber;

use crate::net::Net;

fn pair(seed: u64) -> Net {
    let mut net = Net::new(seed);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link(a, b);
    net
}

#[test]
fn of_two_connections_one_stays() {
    let mut collisions = 0;
    for seed in 0..200 {
        let mut net = pair(seed);
        // Both connect at once, or nearly.
        let jitter = Duration::from_millis(3);
        net.configure(0, |config| config.connect_jitter = jitter);
        net.configure(1, |config| config.connect_jitter = jitter);
        net.start_all();
        net.seconds(1);
        assert!(net.is_up(0, 1) && net.is_up(1, 0), "seed {seed}");
        let ups = |net: &Net, node: usize| {
            net.nodes[node]
                .events
                .iter()
                .filter(|e| matches!(e, Event::PeerUp { .. }))
                .count()
        };
        assert_eq!((ups(&net, 0), ups(&net, 1)), (1, 1), "seed {seed}");
        collisions += u64::from(net.status(0, 1).counters.received.open > 1);
        net.seconds(600);
        assert!(net.is_up(0, 1) && net.is_up(1, 0), "seed {seed}");
        assert_eq!(net.status(0, 1).counters.flaps, 0, "seed {seed}");
    }
    assert!(
        collisions > 20,
        "only {collisions} of 200 runs had a collision"
    );
}

#[test]
fn a_dead_peer_is_noticed_by_the_hold_timer() {
    let mut net = pair(1);
    net.start_all();
    net.seconds(2);
    net.cut(0, 1, true);
    net.seconds(80);
    assert!(net.is_up(0, 1));
    net.seconds(40);
    let status = net.status(0, 1);
    assert_ne!(status.state, State::Established);
    assert!(net.nodes[0].events.iter().any(|event| matches!(
        event,
        Event::PeerDown {
            reason: DownReason::HoldTimer,
            ..
        }
    )));
    net.cut(0, 1, false);
    net.seconds(60);
    assert!(net.is_up(0, 1) && net.is_up(1, 0));
    assert_eq!(net.status(0, 1).counters.flaps, 1);
}

#[test]
fn the_smaller_hold_time_counts_and_zero_means_none() {
    let mut net = Net::new(1);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link_with(a, b, |node, peer| {
        peer.timers.hold = Duration::from_secs(if node == 0 { 9 } else { 90 });
    });
    net.start_all();
    net.seconds(60);
    let status = net.status(1, 0);
    assert_eq!(
        (status.hold_time.as_secs(), status.keepalive.as_secs()),
        (9, 3)
    );
    assert!(net.is_up(0, 1));

    let mut net = Net::new(1);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link_with(a, b, |_, peer| peer.timers.hold = Duration::ZERO);
    net.start_all();
    net.seconds(2);
    let before = net.status(0, 1).counters.sent.keepalive;
    net.cut(a, b, true);
    net.seconds(100_000);
    assert!(net.is_up(0, 1));
    assert_eq!(net.status(0, 1).counters.sent.keepalive, before);
}

#[test]
fn a_peer_of_another_as_is_told_and_named() {
    let mut net = Net::new(1);
    let (a, b) = (net.add(64512), net.add(64513));
    net.link_with(a, b, |node, peer| {
        if node == 0 {
            peer.remote_as = RemoteAs::Is(AsNumber(64512));
        }
    });
    net.start_all();
    net.seconds(1);
    assert_eq!(
        net.status(0, 1).last_error.unwrap(),
        "wrong AS 64513, want 64512"
    );
    let told = net.status(1, 0).last_error.unwrap();
    assert_eq!(told, "peer says: OPEN message error: bad peer AS");
    // Tries go on, ever more slowly.
    net.seconds(600);
    let tries = net.nodes[0].events.len();
    assert!((15..80).contains(&tries), "{tries}");
}

#[test]
fn as_numbers_may_be_left_open() {
    for (kind, internal, external) in [
        (RemoteAs::Any, true, true),
        (RemoteAs::Internal, true, false),
        (RemoteAs::External, false, true),
    ] {
        for (asn, expected) in [(64512, internal), (64513, external)] {
            let mut net = Net::new(1);
            let (a, b) = (net.add(64512), net.add(asn));
            net.link_with(a, b, |node, peer| {
                if node == 0 {
                    peer.remote_as = kind;
                }
            });
            net.start_all();
            net.seconds(1);
            assert_eq!(net.is_up(0, 1), expected, "{kind:?} {asn}");
        }
    }
}

#[test]
fn without_a_common_family_there_is_no_session() {
    let mut net = Net::new(1);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link_with(a, b, |node, peer| {
        peer.families = if node == 0 {
            Families::V4
        } else {
            Families::V6
        };
    });
    net.start_all();
    net.seconds(1);
    assert_eq!(
        net.status(0, 1).last_error.unwrap(),
        "no common address family"
    );
    let told = net.nodes[1].events.iter().any(|event| match event {
        Event::PeerFailed { reason, .. } => {
            reason.to_string().contains("unsupported capability")
                || *reason == DownReason::NoCommonFamily
        }
        _ => false,
    });
    assert!(told);
}

#[test]
fn equal_identifiers_within_an_as_are_refused() {
    let mut net = pair(1);
    net.configure(1, |config| config.router_id = "10.0.0.1".parse().unwrap());
    net.start_all();
    net.seconds(1);
    let error = net.status(0, 1).last_error.unwrap();
    assert!(error.contains("bad BGP identifier"), "{error}");
}

#[test]
fn two_passive_peers_never_meet_and_one_suffices() {
    for (passive, expected) in [([true, true], false), ([true, false], true)] {
        let mut net = Net::new(1);
        let (a, b) = (net.add(64512), net.add(64512));
        net.link_with(a, b, |node, peer| peer.passive = passive[node]);
        net.start_all();
        net.seconds(100);
        assert_eq!(net.is_up(0, 1), expected);
        assert_eq!(
            net.status(0, 1).state,
            if expected {
                State::Established
            } else {
                State::Active
            }
        );
    }
}

#[test]
fn peers_come_from_ranges_and_go() {
    let mut net = Net::new(1);
    let reflector = net.add(64512);
    net.configure(reflector, |config| {
        let template = PeerConfig {
            reflector_client: true,
            ..PeerConfig::new("0.0.0.0".parse().unwrap(), RemoteAs::Internal)
        };
        let range = RangeConfig {
            cidr: "10.0.0.0/24".parse().unwrap(),
            limit: 2,
            template,
        };
        config.ranges = BTreeMap::from([("nodes".to_owned(), range)]);
    });
    for _ in 0..3 {
        let node = net.add(64512);
        let address = net.nodes[reflector].address;
        net.configure(node, |config| {
            config.peers.insert(
                "n0".to_owned(),
                PeerConfig::new(address, RemoteAs::Internal),
            );
        });
    }
    net.start_all();
    net.seconds(10);
    let peers = net.speaker(reflector).peers();
    assert_eq!(peers.len(), 2);
    assert!(
        peers
            .iter()
            .all(|peer| peer.dynamic && peer.state == State::Established)
    );
    let full = |event: &Event| {
        matches!(
            event,
            Event::ConnectionRefused {
                reason: Refusal::RangeFull,
                ..
            }
        )
    };
    assert!(net.nodes[reflector].events.iter().any(full));
    // One that goes makes room.
    let gone = (1..=3).find(|node| net.is_up(*node, 0)).unwrap();
    net.kill(gone);
    net.seconds(60);
    assert_eq!(net.speaker(reflector).peers().len(), 2);
    let name = format!("nodes-10.0.0.{}", gone + 1);
    assert!(
        !net.speaker(reflector)
            .peers()
            .iter()
            .any(|peer| *peer.name == *name)
    );
}

#[test]
fn strangers_are_refused() {
    let mut net = Net::new(1);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link(a, b);
    net.configure(a, |config| config.peers.clear());
    net.start_all();
    net.seconds(1);
    let unknown = |event: &Event| {
        matches!(
            event,
            Event::ConnectionRefused {
                reason: Refusal::UnknownPeer,
                ..
            }
        )
    };
    assert!(net.nodes[a].events.iter().any(unknown));
    assert!(!net.is_up(b, a));
}

#[test]
fn texts_travel_with_shutdowns() {
    let mut net = pair(1);
    net.start_all();
    net.seconds(1);
    net.peer(0, 1, |peer| {
        peer.shutdown = Some("maintenance until five".to_owned())
    });
    net.seconds(1);
    let status = net.status(0, 1);
    assert_eq!(
        (status.state, status.last_error.unwrap().as_str()),
        (State::Idle, "shut down by configuration")
    );
    let told = net.status(1, 0).last_error.unwrap();
    assert!(
        told.contains("maintenance until five") || told.contains("refused"),
        "{told}"
    );
    let down = net.nodes[1].events.iter().find_map(|event| match event {
        Event::PeerDown { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    let down = down.unwrap();
    assert!(
        down.contains("hard reset") && down.contains("maintenance until five"),
        "{down}"
    );
    net.peer(0, 1, |peer| peer.shutdown = None);
    net.seconds(60);
    assert!(net.is_up(0, 1));
}

#[test]
fn only_the_session_that_must_is_reset() {
    let mut net = Net::new(1);
    let nodes: Vec<_> = (0..3).map(|_| net.add(64512)).collect();
    net.link(nodes[0], nodes[1]);
    net.link(nodes[0], nodes[2]);
    net.start_all();
    net.seconds(2);
    net.peer(0, 1, |peer| peer.timers.hold = Duration::from_secs(30));
    net.seconds(30);
    assert_eq!(net.status(0, 1).counters.flaps, 1);
    assert_eq!(net.status(0, 1).hold_time.as_secs(), 30);
    assert_eq!(net.status(0, 2).counters.flaps, 0);
    net.peer(0, 2, |peer| {
        peer.import = Some(Policy::reject_all());
        peer.timers = TimersConfig {
            connect_retry: Duration::from_secs(1),
            ..peer.timers
        };
        peer.label = "mesh".to_owned();
    });
    net.seconds(30);
    assert_eq!(net.status(0, 2).counters.flaps, 0);
    net.configure(0, |config| {
        config.peers.remove("n1");
    });
    net.seconds(1);
    assert!(!net.is_up(1, 0));
    let told = net.nodes[1]
        .events
        .iter()
        .rev()
        .find_map(|event| match event {
            Event::PeerDown { reason, .. } => Some(reason.to_string()),
            _ => None,
        });
    assert!(told.unwrap().contains("peer de-configured"));
    assert!(net.is_up(0, 2));
    net.configure(0, |config| config.router_id = "10.9.9.9".parse().unwrap());
    net.seconds(10);
    assert_eq!(net.status(0, 2).counters.flaps, 1);
    assert_eq!(
        net.status(2, 0).router_id,
        Some("10.9.9.9".parse().unwrap())
    );
}

#[test]
fn operators_can_reset() {
    let mut net = pair(1);
    net.start_all();
    net.seconds(2);
    let now = net.now;
    assert!(net.speaker(0).reset(now, "n1"));
    assert!(!net.speaker(0).reset(now, "nobody"));
    net.seconds(20);
    assert!(net.is_up(0, 1));
    assert_eq!(net.status(0, 1).counters.flaps, 1);
}

#[test]
fn a_peer_with_too_many_prefixes_is_stopped_or_cut() {
    for over in [
        OverLimit::Stop {
            restart: Some(Duration::from_secs(60)),
        },
        OverLimit::Discard,
    ] {
        let mut net = Net::new(1);
        let (a, b) = (net.add(64512), net.add(64512));
        net.link_with(a, b, |node, peer| {
            if node == 0 {
                peer.max_prefixes.v4 = Some(MaxPrefixes { limit: 4, over });
            }
        });
        net.start_all();
        net.seconds(2);
        for block in 0..5 {
            net.announce(b, &format!("10.65.{block}.0/24"));
        }
        net.seconds(1);
        let near = |event: &Event| matches!(event, Event::PrefixLimitNear { count: 4, .. });
        assert!(net.nodes[a].events.iter().any(near));
        if over == OverLimit::Discard {
            assert!(net.is_up(a, b));
            assert_eq!(net.nodes[a].fib.len(), 4);
            continue;
        }
        let status = net.status(a, b);
        assert_eq!(status.state, State::Idle);
        assert_eq!(status.last_error.unwrap(), "more than 4 IPv4 prefixes");
        assert!(net.nodes[a].fib.is_empty());
        net.withdraw(b, "10.65.0.0/24");
        net.seconds(50);
        assert!(!net.is_up(a, b));
        net.seconds(60);
        assert!(net.is_up(a, b));
        assert_eq!(net.nodes[a].fib.len(), 4);
    }
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let mut net = Net::new(1);
    let (a, b) = (net.add(64512), net.add(64512));
    net.link_with(a, b, |node, peer| {
        if node == 0 {
            peer.timers.send_hold = Some(Duration::from_secs(30));
        }
    });
    net.start_all();
    net.seconds(2);
    net.stall(a, true);
    net.announce(a, "10.65.0.0/24");
    net.seconds(29);
    assert!(net.is_up(a, b));
    net.seconds(3);
    assert!(net.nodes[a].events.iter().any(|event| matches!(
        event,
        Event::PeerDown {
            reason: DownReason::SendHoldTimer,
            ..
        }
    )));
}

#[test]
fn socket_options_follow_the_distance() {
    let cases = [
        (64512, TtlMode::Auto, (None, None)),
        (64513, TtlMode::Auto, (Some(1), None)),
        (64513, TtlMode::Multihop(3), (Some(3), None)),
        (64513, TtlMode::Security(1), (Some(255), Some(255))),
        (64512, TtlMode::Security(2), (Some(255), Some(254))),
    ];
    for (asn, ttl, expected) in cases {
        let mut net = Net::new(1);
        let (a, b) = (net.add(64512), net.add(asn));
        net.link_with(a, b, |_, peer| peer.ttl = ttl);
        net.start(a, false);
        let (here, there, now) = (net.nodes[a].address, net.nodes[b].address, net.now);
        let (_, options) = net.speaker(a).accept(now, here, there).unwrap();
        assert_eq!((options.ttl, options.min_ttl), expected, "{ttl:?} {asn}");
    }
}

#[test]
fn stopping_with_withdrawal_tells_why() {
    let mut net = pair(1);
    net.start_all();
    net.seconds(2);
    net.announce(0, "10.65.0.0/24");
    net.seconds(1);
    assert!(net.has(1, "10.65.0.0/24"));
    net.stop(0, &Stop::Withdraw("node is drained".to_owned()));
    net.seconds(1);
    assert!(!net.has(1, "10.65.0.0/24"));
    assert!(net.nodes[1].events.iter().any(|event| matches!(
        event,
        Event::PeerDown { reason, kept: false, .. } if reason.to_string().contains("node is drained")
    )));
}
