//! Recorded answers of BIRD 2.0.12, and what is read in them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use margay_bgp::{
    BestReason, Capability, NextHopMode, PeerConfig, RemoteAs, Source, SpeakerConfig, State,
};
use margay_bird::{Entry, Replies, Reply, protocols, routes, view};
use margay_model::scalar::AsNumber;
use proptest::prelude::*;

fn reply(text: &str) -> Reply {
    let mut replies = Replies::default().push(text.as_bytes()).unwrap();
    assert_eq!(replies.len(), 1);
    replies.remove(0)
}

fn entries(text: &str) -> Vec<Entry> {
    routes(&reply(text))
}

fn speaker() -> SpeakerConfig {
    let mut speaker = SpeakerConfig::new(AsNumber(64512), "172.31.9.2".parse().unwrap());
    speaker.address_v4 = Some("172.31.9.2".parse().unwrap());
    for (name, address, asn) in [
        ("Mesh_172_31_9_3", "172.31.9.3", 64513),
        ("Node_172_31_9_77", "172.31.9.77", 64512),
    ] {
        let peer = PeerConfig::new(address.parse().unwrap(), RemoteAs::Is(AsNumber(asn)));
        speaker.peers.insert(name.to_owned(), peer);
    }
    speaker
}

#[test]
fn sessions_are_told_with_state_capabilities_and_numbers() {
    let told = protocols(&reply(include_str!("recorded/protocols.txt")));
    let peers = view::peers(&speaker(), &told);
    let [up, down] = peers.as_slice() else {
        panic!("{peers:?}");
    };
    assert_eq!(
        (&*up.name, up.state),
        ("Mesh_172_31_9_3", State::Established)
    );
    assert_eq!(up.since, Duration::from_secs(1_795_587_457));
    assert_eq!(
        (up.asn, up.router_id),
        (Some(AsNumber(64513)), "172.31.9.3".parse().ok())
    );
    assert_eq!(up.local_address, "172.31.9.2".parse().ok());
    assert_eq!((up.hold_time.as_secs(), up.keepalive.as_secs()), (90, 30));
    let v4 = up.prefixes.v4;
    assert_eq!(
        (
            v4.received,
            v4.accepted,
            v4.rejected,
            v4.best,
            v4.advertised
        ),
        (2, 1, 1, 1, 2)
    );
    assert!(up.families.v4 && !up.families.v6);
    assert_eq!(up.last_error, None);
    assert!(
        up.remote_capabilities
            .contains(&Capability::FourOctetAs(AsNumber(64513)))
    );
    let restart = |capability: &Capability| {
        matches!(capability, Capability::GracefulRestart { time: 120, restarted: true, families, .. }
            if families.len() == 1 && families[0].forwarding)
    };
    assert!(
        up.local_capabilities.iter().any(restart),
        "{:?}",
        up.local_capabilities
    );
    assert_eq!((&*down.name, down.state), ("Node_172_31_9_77", State::Idle));
    assert!(!down.families.v4);
}

#[test]
fn a_session_that_does_not_come_up_tells_why() {
    let text = "1002-Node_172_31_9_77 BGP        ---        start  2026-11-25T06:17:36Z  Connect       Socket: No route to host\n\
                1006-  BGP state:          Connect\n     Neighbor address: 172.31.9.77\n     Neighbor AS:      64512\n     \
                Local AS:         64512\n     Last error:       Socket: No route to host\n   Channel ipv4\n     \
                State:          DOWN\n0000 \n";
    let peers = view::peers(&speaker(), &protocols(&reply(text)));
    assert_eq!(peers[0].state, State::Connect);
    assert_eq!(
        peers[0].last_error.as_deref(),
        Some("Socket: No route to host")
    );
}

#[test]
fn the_table_has_own_routes_and_those_of_peers() {
    let table = view::table(entries(include_str!("recorded/routes.txt")), &speaker());
    let shown: Vec<_> = table
        .iter()
        .map(|entry| (entry.prefix.to_string(), entry.reason))
        .collect();
    assert_eq!(
        shown,
        [
            ("192.168.1.0/26".to_owned(), Some(BestReason::Local)),
            ("192.168.2.0/26".to_owned(), Some(BestReason::OnlyPath)),
            ("192.168.9.9/32".to_owned(), Some(BestReason::Local)),
        ]
    );
    let learned = &table[1].paths[0];
    assert!(matches!(&learned.source, Source::Peer { name, .. } if &**name == "Mesh_172_31_9_3"));
    assert_eq!(learned.attributes.as_path.to_string(), "64513");
    assert_eq!(learned.attributes.next_hop.to_string(), "172.31.9.3");
    assert_eq!(learned.attributes.large_communities[0].to_string(), "1:2:3");
}

#[test]
fn routes_that_are_as_good_are_told_so() {
    let text = "1007-Table master4:\n \
        192.168.2.0/26       unicast [Mesh_172_31_9_3 2026-11-25T06:17:38Z] * (100) [AS65001i]\n \
        \tvia 172.31.9.3 on eth0\n1008-\tType: BGP univ\n1012-\tBGP.as_path: 65001\n \tBGP.local_pref: 100\n\
        1007-                     unreachable [Node_172_31_9_77 2026-11-25T06:17:38Z from 172.31.9.78] (100/?) [AS65001i]\n\
        1008-\tType: BGP univ\n1012-\tBGP.as_path: 65001\n \tBGP.local_pref: 100\n\
        1007-10.0.0.0/8           unicast [margay_kernel4 2026-11-25T06:17:38Z] * (10)\n \
        \tvia 172.31.9.3 on eth0\n0000 \n";
    let told = entries(text);
    assert_eq!(told.len(), 3);
    assert!(told[1].unreachable && !told[1].best);
    assert_eq!(told[1].prefix, told[0].prefix);
    let mut speaker = speaker();
    for peer in speaker.peers.values_mut() {
        peer.remote_as = RemoteAs::External;
    }
    let table = view::table(told.clone(), &speaker);
    assert_eq!(
        table.len(),
        1,
        "the machine's own routes are no routes of BGP"
    );
    assert!(table[0].paths[0].multipath && !table[0].paths[1].multipath);
    let mut told = told;
    told[1].unreachable = false;
    assert!(view::table(told, &speaker)[0].paths[1].multipath);
}

#[test]
fn what_a_peer_announces_is_told_with_what_is_not_taken() {
    let announced = entries(include_str!("recorded/import.txt"));
    let taken = entries(include_str!("recorded/taken.txt"));
    let received = view::received(announced, &taken);
    let shown: Vec<_> = received
        .iter()
        .map(|route| (route.prefix.to_string(), route.rejected.is_none()))
        .collect();
    assert_eq!(
        shown,
        [
            ("192.168.2.0/26".to_owned(), true),
            ("192.168.3.0/26".to_owned(), false)
        ]
    );
}

#[test]
fn what_a_peer_is_told_is_as_it_leaves() {
    let mut speaker = speaker();
    let peer = speaker.peers.get_mut("Mesh_172_31_9_3").unwrap();
    peer.next_hop = NextHopMode::Auto;
    let peer = peer.clone();
    let told = view::advertised(
        entries(include_str!("recorded/export.txt")),
        &speaker,
        &peer,
    );
    assert_eq!(told.len(), 2);
    let block = &told[1].attributes;
    assert_eq!(block.as_path.to_string(), "64512 2 3");
    assert_eq!(block.next_hop.to_string(), "172.31.9.2");
    assert_eq!(told[0].attributes.local_pref, None);
}

proptest! {
    #[test]
    fn whatever_comes_is_read_without_harm(
        octets in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0usize..6000,
        recorded in prop_oneof![
            Just(include_str!("recorded/protocols.txt")),
            Just(include_str!("recorded/routes.txt")),
        ],
    ) {
        let at = cut.min(recorded.len());
        let mut text = recorded.as_bytes().to_vec();
        text.splice(at..at, octets);
        if let Ok(replies) = Replies::default().push(&text) {
            for reply in replies {
                let _ = view::peers(&speaker(), &protocols(&reply));
                let _ = view::table(routes(&reply), &speaker());
            }
        }
    }
}
