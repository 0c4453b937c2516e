//! Routes of any kind, for properties.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_bgp::attribute::{Aggregator, Segment, SegmentKind, UnknownAttribute};
use margay_bgp::message::Nlri;
use margay_bgp::{
    AsPath, Attributes, Community, ExtendedCommunity, LargeCommunity, NextHop, Origin,
};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

/// AS numbers of two octets and of four.
pub(crate) fn asn() -> impl Strategy<Value = AsNumber> {
    prop_oneof![1..65536_u32, 65536..=u32::MAX].prop_map(AsNumber)
}

/// Paths of sequences and sets.
pub(crate) fn path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![4 => Just(SegmentKind::Sequence), 1 => Just(SegmentKind::Set)];
    let segment = (kind, vec(asn(), 1..6)).prop_map(|(kind, numbers)| Segment { kind, numbers });
    vec(segment, 0..4).prop_map(AsPath)
}

/// Attributes with a next hop of a family.
pub(crate) fn attributes(family: Family) -> impl Strategy<Value = Attributes> {
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

/// A prefix of a family, with a path identifier.
pub(crate) fn one_nlri(family: Family) -> impl Strategy<Value = Nlri> {
    (any::<u128>(), 0..=family.width(), any::<u32>()).prop_map(move |(bits, length, path_id)| {
        let address = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(bits >> 96).unwrap())),
            Family::V6 => IpAddr::V6(bits.into()),
        };
        Nlri {
            prefix: Cidr::new(address, length).unwrap(),
            path_id,
        }
    })
}
