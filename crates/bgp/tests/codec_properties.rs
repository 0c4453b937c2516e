//! What is written is read back, and nothing that is read panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use margay_bgp::attribute::{Aggregator, Segment, SegmentKind, UnknownAttribute};
use margay_bgp::message::{self, Context, Message, Nlri, Open};
use margay_bgp::{
    AddPath, AsPath, Attributes, Capability, Community, ExtendedCommunity, Families,
    LargeCommunity, NextHop, Origin, Output, PeerConfig, RemoteAs, Speaker, SpeakerConfig,
};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn asn() -> impl Strategy<Value = AsNumber> {
    prop_oneof![1..65536_u32, 65536..=u32::MAX].prop_map(AsNumber)
}

fn path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![4 => Just(SegmentKind::Sequence), 1 => Just(SegmentKind::Set)];
    let segment = (kind, vec(asn(), 1..6)).prop_map(|(kind, numbers)| Segment { kind, numbers });
    vec(segment, 0..4).prop_map(AsPath)
}

fn attributes(family: Family) -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![
        Just(Origin::Igp),
        Just(Origin::Egp),
        Just(Origin::Incomplete)
    ];
    let first = (
        origin,
        path(),
        any::<u32>(),
        of(any::<u32>()),
        of(any::<u32>()),
        any::<bool>(),
        of((asn(), any::<u32>())),
    );
    let second = (
        vec(any::<u32>(), 0..8),
        vec(any::<[u32; 3]>(), 0..4),
        vec(any::<[u8; 8]>(), 0..4),
        of(any::<u32>()),
        vec(any::<u32>(), 0..4),
        of(vec(any::<u8>(), 0..300)),
    );
    (first, second).prop_map(move |(first, second)| {
        let (origin, as_path, hop, med, local_pref, atomic_aggregate, aggregator) = first;
        let (communities, large, extended, originator, clusters, unknown) = second;
        let address = match family {
            Family::V4 => IpAddr::V4(hop.into()),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(u128::from(hop) | 0xfd00_u128 << 112)),
        };
        let mut attributes = Attributes {
            origin,
            as_path,
            next_hop: NextHop::new(address),
            med,
            local_pref,
            atomic_aggregate,
            aggregator: aggregator.map(|(asn, router)| Aggregator {
                asn,
                router: Ipv4Addr::from(router),
            }),
            originator_id: originator.map(Ipv4Addr::from),
            cluster_list: clusters.into_iter().map(Ipv4Addr::from).collect(),
            unknown: unknown
                .map(|value| UnknownAttribute {
                    code: 201,
                    flags: 0xe0,
                    value,
                })
                .into_iter()
                .collect(),
            ..Attributes::local(address)
        };
        communities
            .into_iter()
            .for_each(|c| attributes.add_community(Community(c)));
        large
            .into_iter()
            .for_each(|c| attributes.add_large_community(LargeCommunity(c)));
        attributes.extended_communities = extended.into_iter().map(ExtendedCommunity).collect();
        attributes.extended_communities.sort();
        attributes.extended_communities.dedup();
        attributes
    })
}

fn nlri(family: Family) -> impl Strategy<Value = Vec<Nlri>> {
    let one = (any::<u128>(), 0..=family.width(), any::<u32>()).prop_map(
        move |(bits, length, path_id)| {
            let address = match family {
                Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(bits >> 96).unwrap())),
                Family::V6 => IpAddr::V6(bits.into()),
            };
            Nlri {
                prefix: Cidr::new(address, length).unwrap(),
                path_id,
            }
        },
    );
    vec(one, 1..600)
}

/// All UPDATEs of a stream, read and put together.
fn read(octets: &[u8], context: &Context) -> (Vec<Nlri>, Vec<(Attributes, Vec<Nlri>)>) {
    let (mut withdrawn, mut announced) = (Vec::new(), Vec::new());
    let mut rest = octets;
    while let Some(size) = message::frame(rest).unwrap() {
        let (one, others) = rest.split_at(size);
        let Message::Update(update) = message::decode(one, context).unwrap() else {
            panic!("no UPDATE");
        };
        assert_eq!(update.findings, []);
        withdrawn.extend(update.withdrawn);
        announced.extend(update.announced.into_iter().map(|a| (a.attributes, a.nlri)));
        rest = others;
    }
    assert!(rest.is_empty());
    (withdrawn, announced)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn routes_come_back(
        (family, attributes, list) in prop_oneof![Just(Family::V4), Just(Family::V6)]
            .prop_flat_map(|family| (Just(family), attributes(family), nlri(family))),
        four_octet_as in any::<bool>(),
        add_path in any::<bool>(),
    ) {
        let context = Context {
            external: false,
            four_octet_as,
            families: Families::BOTH,
            add_path: Families { v4: add_path, v6: add_path },
            extended_next_hop: false,
        };
        let list: Vec<_> = list
            .into_iter()
            .map(|nlri| Nlri { path_id: if add_path { nlri.path_id } else { 0 }, ..nlri })
            .collect();
        let mut octets = Vec::new();
        message::announcements(&mut octets, &context, family, &attributes, &list).unwrap();
        let (_, announced) = read(&octets, &context);
        let prefixes: Vec<_> = announced.iter().flat_map(|(_, nlri)| nlri.clone()).collect();
        prop_assert_eq!(&prefixes, &list);
        for (back, _) in announced {
            if four_octet_as {
                prop_assert_eq!(back, attributes.clone());
            } else {
                // Segments may be joined where AS4_PATH takes over; numbers and the rest stay.
                let numbers = |attributes: &Attributes| attributes.as_path.numbers().collect::<Vec<_>>();
                prop_assert_eq!(numbers(&back), numbers(&attributes));
                let same = Attributes { as_path: attributes.as_path.clone(), ..back };
                prop_assert_eq!(same, attributes.clone());
            }
        }
        octets.clear();
        message::withdrawals(&mut octets, &context, family, &list);
        prop_assert_eq!(read(&octets, &context).0, list);
    }

    #[test]
    fn any_octets_are_read_without_panic(octets in vec(any::<u8>(), 0..200), kind in 1..6_u8) {
        let mut framed = vec![0xff; 16];
        framed.extend(u16::try_from(19 + octets.len()).unwrap().to_be_bytes());
        framed.push(kind);
        framed.extend(&octets);
        for external in [true, false] {
            let context = Context { external, families: Families::BOTH, ..Context::NONE };
            let _ = message::decode(&framed, &context);
            let _ = message::decode(&octets, &context);
        }
    }
}

/// A generator that needs no state but a number.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap()
}

/// A speaker hears messages that were right before some octets changed. It never panics, it
/// survives to speak with the next, and its counts stay right.
#[test]
fn mutated_messages_hurt_nobody() {
    let mut config = SpeakerConfig::new(AsNumber(64512), "10.0.0.1".parse().unwrap());
    let mut peer = PeerConfig::new("10.0.0.2".parse().unwrap(), RemoteAs::Internal);
    (peer.passive, peer.families) = (true, Families::BOTH);
    peer.add_path = AddPath {
        receive: true,
        send: 2,
    };
    peer.timers.error_wait = Duration::ZERO;
    peer.timers.error_wait_max = Duration::ZERO;
    config.peers.insert("peer".to_owned(), peer);
    let mut speaker = Speaker::new(config, Duration::ZERO, 1, false);

    let context = Context {
        external: false,
        four_octet_as: true,
        families: Families::BOTH,
        ..Context::NONE
    };
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let mut attributes = Attributes::local("10.0.0.2".parse().unwrap());
    attributes.as_path = AsPath::sequence([65001, 70000]);
    attributes.communities = vec![Community(7), Community::NO_LLGR];
    attributes.cluster_list = vec![Ipv4Addr::new(9, 9, 9, 9)];
    let four: Vec<_> = (0..10_u8)
        .map(|n| Nlri {
            prefix: format!("10.65.{n}.0/26").parse().unwrap(),
            path_id: 0,
        })
        .collect();
    let six = [Nlri {
        prefix: "fd00:65::/64".parse().unwrap(),
        path_id: 0,
    }];
    let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = Vec::new();
        write(&mut octets);
        corpus.push(octets);
    };
    add(&|out| message::announcements(out, &context, Family::V4, &attributes, &four).unwrap());
    let mut sixth = attributes.clone();
    sixth.next_hop = NextHop::new("fd00::2".parse().unwrap());
    add(&|out| message::announcements(out, &context, Family::V6, &sixth, &six).unwrap());
    add(&|out| message::withdrawals(out, &context, Family::V4, &four));
    add(&|out| message::withdrawals(out, &context, Family::V6, &six));
    add(&|out| message::end_of_rib(out, Family::V6));
    let open = Open {
        asn: AsNumber(64512),
        hold_time: 90,
        router_id: "10.0.0.2".parse().unwrap(),
        capabilities: vec![
            Capability::Multiprotocol(Family::V4),
            Capability::Multiprotocol(Family::V6),
            Capability::FourOctetAs(AsNumber(64512)),
            Capability::EnhancedRefresh,
        ],
    };
    add(&|out| message::encode_open(out, &open));

    let [local, remote]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
    let (mut state, mut now, mut sessions) = (0x9e37_79b9_7f4a_7c15_u64, Duration::ZERO, 0);
    let mut connection = None;
    for _ in 0..ROUNDS {
        now += Duration::from_millis(1);
        let id = match connection {
            Some(id) => id,
            None => {
                speaker.tick(now);
                let Ok((id, _)) = speaker.accept(now, local, remote) else {
                    speaker.poll(now);
                    continue;
                };
                let mut hello = corpus.last().unwrap().clone();
                message::keepalive(&mut hello);
                speaker.received(now, id, &hello);
                sessions += 1;
                connection = Some(id);
                id
            }
        };
        let mut octets = corpus[random(&mut state) % corpus.len()].clone();
        for _ in 0..random(&mut state) % 4 {
            let place = 16 + random(&mut state) % (octets.len() - 16);
            octets[place] = u8::try_from(random(&mut state) % 256).unwrap();
        }
        if random(&mut state).is_multiple_of(5) {
            let cut = 19 + random(&mut state) % (octets.len() - 18);
            octets.truncate(cut);
            // A length that fits, so that the cut is seen.
            let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
            octets[16..18].copy_from_slice(&length);
        }
        speaker.received(now, id, &octets);
        for output in speaker.poll(now) {
            match output {
                Output::Close { .. } => connection = None,
                Output::Transmit(id) => {
                    let mut out = Vec::new();
                    while speaker.transmit(now, id, &mut out) {}
                }
                _ => {}
            }
        }
    }
    assert!(sessions > 100, "{sessions}");
    let status = speaker.peers().remove(0);
    assert!(
        status.counters.treated_as_withdraw > 100,
        "{:?}",
        status.counters
    );
    let received = speaker.received_routes("peer").unwrap();
    let counted = status.prefixes.v4.received + status.prefixes.v6.received;
    assert_eq!(usize::try_from(counted).unwrap(), received.len());
    let accepted = received
        .iter()
        .filter(|route| route.rejected.is_none())
        .count();
    let counted = status.prefixes.v4.accepted + status.prefixes.v6.accepted;
    assert_eq!(usize::try_from(counted).unwrap(), accepted);
}

const ROUNDS: usize = 60_000;
