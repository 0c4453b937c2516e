//! What is written is read back, and nothing that is read panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_bgp::attribute::{Aggregator, Segment, SegmentKind, UnknownAttribute};
use margay_bgp::message::{self, Context, Message, Nlri};
use margay_bgp::{
    AsPath, Attributes, Community, ExtendedCommunity, Families, LargeCommunity, NextHop, Origin,
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
