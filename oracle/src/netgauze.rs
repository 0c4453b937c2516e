//! `netgauze-bgp-pkt`, which reads strictly: a message with an error in it is no message.
//!
//! - Prefixes that begin or end in multicast addresses are an error to it.
//! - It does not know segments of confederations.
//! - It reads meanings into extended communities and loses octets of some, see [`keeps`].
//! - It does not know OPENs with parameters of more than 255 octets (RFC 9072).
//! - It leaves AS_PATH and AS4_PATH as they are: they are put together here where both are as long.

mod open;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use margay_bgp::attribute::{Aggregator, Segment, SegmentKind, UnknownAttribute};
use margay_bgp::message::{Nlri, Update};
use margay_bgp::{
    AsPath, Attributes, Community, ExtendedCommunity, LargeCommunity, NextHop, Origin,
};
use margay_model::Family;
use margay_model::scalar::AsNumber;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::community;
use netgauze_bgp_pkt::nlri::{Ipv4Unicast, Ipv4UnicastAddress, Ipv6Unicast, Ipv6UnicastAddress};
use netgauze_bgp_pkt::path_attribute::{self as attribute, MpReach, MpUnreach};
use netgauze_bgp_pkt::path_attribute::{PathAttribute, PathAttributeValue as Value};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_iana::address_family::AddressType;
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;

use crate::bgpkit::network;
use crate::{
    Reading, Session, is_outdated, next_hop_of_two, nlri, sort_unique, two_octet_as, two_octet_path,
};

pub use open::{read_open, write_open};

/// Reads a message.
///
/// # Errors
/// Its words.
pub fn read(octets: &[u8], session: Session) -> Result<BgpMessage, String> {
    let families = [AddressType::Ipv4Unicast, AddressType::Ipv6Unicast];
    let add_path = families.map(|family| (family, session.add_path));
    let mut context = BgpParsingContext::new(
        session.four_octet_as,
        HashMap::new(),
        HashMap::from(add_path),
        true,
        true,
        true,
        true,
    );
    BgpMessage::parse(&mut SliceReader::new(octets), &mut context).map_err(|e| e.to_string())
}

/// Writes a message.
///
/// # Errors
/// Its words.
pub fn write(message: &BgpMessage) -> Result<Vec<u8>, String> {
    let mut written = Vec::new();
    message.write(&mut written).map_err(|e| e.to_string())?;
    Ok(written)
}

/// Whether it writes an extended community as it read it: not what is reserved in those of EVPN and
/// in opaque ones, nor a Source AS (RFC 6514 §7), of which it makes a Route Target.
#[must_use]
pub fn keeps(community: &ExtendedCommunity) -> bool {
    !matches!(
        community.0,
        [0x06, ..] | [0x03, 0x09 | 0x0d, ..] | [0x00 | 0x02, 0x09, ..]
    )
}

/// Reads an UPDATE.
///
/// # Errors
/// Its words, or what is no UPDATE, or paths of different lengths.
pub fn read_update(octets: &[u8], session: Session) -> Result<Reading, String> {
    let BgpMessage::Update(update) = read(octets, session)? else {
        return Err("no UPDATE".to_owned());
    };
    let mut reading = Reading {
        withdrawn: four(update.withdraw_routes())?,
        ..Reading::default()
    };
    let values = || update.path_attributes().iter().map(PathAttribute::value);
    let announced = four(update.nlri())?;
    if !announced.is_empty() {
        let hop = values().find_map(|value| match value {
            Value::NextHop(hop) => Some(NextHop::new(hop.next_hop().into())),
            _ => None,
        });
        reading.announced.push((hop, announced));
    }
    for value in values() {
        match value {
            Value::MpReach(reach) => {
                let (hop, announced) = match reach {
                    MpReach::Ipv4Unicast {
                        next_hop,
                        next_hop_local,
                        nlri,
                    } => {
                        let hop = match next_hop {
                            IpAddr::V4(_) => NextHop::new(*next_hop),
                            IpAddr::V6(address) => next_hop_of_two(*address, *next_hop_local),
                        };
                        (hop, four(nlri)?)
                    }
                    MpReach::Ipv6Unicast {
                        next_hop_global,
                        next_hop_local,
                        nlri,
                    } => (
                        next_hop_of_two(*next_hop_global, *next_hop_local),
                        six(nlri)?,
                    ),
                    _ => continue,
                };
                if !announced.is_empty() {
                    reading.announced.push((Some(hop), announced));
                }
            }
            Value::MpUnreach(MpUnreach::Ipv4Unicast { nlri }) => {
                reading.withdrawn.extend(four(nlri)?);
            }
            Value::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => {
                reading.withdrawn.extend(six(nlri)?);
            }
            _ => {}
        }
    }
    reading.end_of_rib = match update.end_of_rib() {
        Some(AddressType::Ipv4Unicast) => Some(Family::V4),
        Some(AddressType::Ipv6Unicast) => Some(Family::V6),
        _ => None,
    };
    // It names the family also where other attributes stand beside (RFC 4724 §2 has none).
    reading.end_of_rib = reading
        .end_of_rib
        .filter(|_| update.path_attributes().len() <= 1);
    reading.attributes = attributes(&update)?;
    Ok(reading)
}

/// Writes an UPDATE of routes that are alike; `extended` asks for lengths of two octets everywhere.
///
/// # Errors
/// Its words.
pub fn write_update(update: &Update, session: Session, extended: bool) -> Result<Vec<u8>, String> {
    let (v4, v6): (Vec<_>, Vec<_>) = update
        .withdrawn
        .iter()
        .partition(|nlri| nlri.prefix.family() == Family::V4);
    let mut values = Vec::new();
    if !v6.is_empty() || update.end_of_rib == Some(Family::V6) {
        let nlri = six_to(v6, session)?;
        values.push((0x80, Value::MpUnreach(MpUnreach::Ipv6Unicast { nlri })));
    }
    let mut announced = Vec::new().into_boxed_slice();
    for one in &update.announced {
        let family = one.nlri.first().ok_or("nothing announced")?.prefix.family();
        let hop = one.attributes.next_hop;
        values.extend(attribute_values(&one.attributes, session));
        match (family, hop.address) {
            (Family::V4, IpAddr::V4(address)) => {
                values.push((0x40, Value::NextHop(attribute::NextHop::new(address))));
                announced = four_to(&one.nlri, session)?;
            }
            (Family::V4, next_hop) => {
                let reach = MpReach::Ipv4Unicast {
                    next_hop,
                    next_hop_local: hop.link_local,
                    nlri: four_to(&one.nlri, session)?,
                };
                values.push((0x80, Value::MpReach(reach)));
            }
            (Family::V6, IpAddr::V6(next_hop_global)) => {
                let reach = MpReach::Ipv6Unicast {
                    next_hop_global,
                    next_hop_local: hop.link_local,
                    nlri: six_to(&one.nlri, session)?,
                };
                values.push((0x80, Value::MpReach(reach)));
            }
            (Family::V6, IpAddr::V4(_)) => return Err("IPv6 by way of IPv4".to_owned()),
        }
    }
    let attributes: Result<Vec<_>, String> = values
        .into_iter()
        .map(|(flags, value)| {
            let bit = |place: u8| flags & place != 0;
            let make = |extended| {
                let made =
                    PathAttribute::from(bit(0x80), bit(0x40), bit(0x20), extended, value.clone());
                made.map_err(|(_, error)| error.to_string())
            };
            // Four octets of flags, code and length.
            let long = extended || make(true)?.len() > 4 + usize::from(u8::MAX);
            make(long)
        })
        .collect();
    let update = BgpUpdateMessage::new(four_to(v4, session)?, attributes?, announced);
    write(&BgpMessage::Update(update))
}

fn four(list: &[Ipv4UnicastAddress]) -> Result<Vec<Nlri>, String> {
    let one = |one: &Ipv4UnicastAddress| {
        let network = one.network().address();
        nlri(network.addr().into(), network.prefix_len(), one.path_id())
    };
    list.iter().map(one).collect()
}

fn six(list: &[Ipv6UnicastAddress]) -> Result<Vec<Nlri>, String> {
    let one = |one: &Ipv6UnicastAddress| {
        let network = one.network().address();
        nlri(network.addr().into(), network.prefix_len(), one.path_id())
    };
    list.iter().map(one).collect()
}

fn four_to<'a>(
    list: impl IntoIterator<Item = &'a Nlri>,
    session: Session,
) -> Result<Box<[Ipv4UnicastAddress]>, String> {
    let one = |one: &Nlri| match network(&one.prefix)? {
        ipnet::IpNet::V4(net) => {
            let net = Ipv4Unicast::from_net(net).map_err(|error| format!("{error:?}"))?;
            let path_id = session.add_path.then_some(one.path_id);
            Ok(Ipv4UnicastAddress::new(path_id, net))
        }
        ipnet::IpNet::V6(net) => Err(format!("{net} is not of IPv4")),
    };
    list.into_iter().map(one).collect()
}

fn six_to<'a>(
    list: impl IntoIterator<Item = &'a Nlri>,
    session: Session,
) -> Result<Box<[Ipv6UnicastAddress]>, String> {
    let one = |one: &Nlri| match network(&one.prefix)? {
        ipnet::IpNet::V6(net) => {
            let net = Ipv6Unicast::from_net(net).map_err(|error| format!("{error:?}"))?;
            let path_id = session.add_path.then_some(one.path_id);
            Ok(Ipv6UnicastAddress::new(path_id, net))
        }
        ipnet::IpNet::V4(net) => Err(format!("{net} is not of IPv6")),
    };
    list.into_iter().map(one).collect()
}

fn attributes(update: &BgpUpdateMessage) -> Result<Option<Attributes>, String> {
    let (mut origin, mut path, mut as4_path, mut as4_aggregator) = (None, None, None, None);
    let mut attributes = Attributes::local(Ipv4Addr::UNSPECIFIED.into());
    for one in update.path_attributes() {
        match one.value() {
            Value::Origin(value) => {
                origin = Some(match value {
                    attribute::Origin::IGP => Origin::Igp,
                    attribute::Origin::EGP => Origin::Egp,
                    attribute::Origin::Incomplete => Origin::Incomplete,
                });
            }
            Value::AsPath(attribute::AsPath::As2PathSegments(segments)) => {
                let segments = segments.iter().map(|segment| {
                    let numbers = segment.as_numbers().iter().map(|n| u32::from(*n));
                    segment_from(segment.segment_type(), numbers)
                });
                path = Some(AsPath(segments.collect()));
            }
            Value::AsPath(attribute::AsPath::As4PathSegments(segments)) => {
                path = Some(four_octet_path(segments));
            }
            Value::As4Path(long) => as4_path = Some(four_octet_path(long.segments())),
            Value::MultiExitDiscriminator(med) => attributes.med = Some(med.metric()),
            Value::LocalPreference(preference) => {
                attributes.local_pref = Some(preference.metric());
            }
            Value::AtomicAggregate(_) => attributes.atomic_aggregate = true,
            Value::Aggregator(value) => {
                attributes.aggregator = Some(match value {
                    attribute::Aggregator::As2Aggregator(one) => Aggregator {
                        asn: AsNumber(u32::from(*one.asn())),
                        router: one.origin(),
                    },
                    attribute::Aggregator::As4Aggregator(one) => Aggregator {
                        asn: AsNumber(*one.asn()),
                        router: one.origin(),
                    },
                });
            }
            Value::Communities(list) => {
                let list = list.communities().iter();
                list.for_each(|one| attributes.add_community(Community(one.value())));
            }
            Value::LargeCommunities(list) => {
                for one in list.communities() {
                    let numbers = [one.global_admin(), one.local_data1(), one.local_data2()];
                    attributes.add_large_community(LargeCommunity(numbers));
                }
            }
            Value::ExtendedCommunities(list) => {
                let list = list.communities().iter().map(|one| {
                    let mut written = Vec::new();
                    one.write(&mut written).map_err(|error| error.to_string())?;
                    let octets = written.try_into();
                    octets
                        .map(ExtendedCommunity)
                        .map_err(|other| format!("no extended community: {other:?}"))
                });
                attributes.extended_communities = sort_unique(list.collect::<Result<_, _>>()?);
            }
            Value::Originator(originator) => attributes.originator_id = Some(originator.id()),
            Value::ClusterList(list) => {
                let list = list.cluster_list().iter();
                attributes.cluster_list = list.map(attribute::ClusterId::id).collect();
            }
            // It has no value of its own for AS4_AGGREGATOR.
            Value::UnknownAttribute(unknown) if unknown.code() == 18 => {
                if let [a, b, c, d, router @ ..] = unknown.value()
                    && let Ok(router) = <[u8; 4]>::try_from(router)
                {
                    as4_aggregator = Some(Aggregator {
                        asn: AsNumber(u32::from_be_bytes([*a, *b, *c, *d])),
                        router: router.into(),
                    });
                }
            }
            Value::UnknownAttribute(unknown) if one.optional() && one.transitive() => {
                attributes.unknown.push(UnknownAttribute {
                    code: unknown.code(),
                    flags: 0xe0,
                    value: unknown.value().to_vec(),
                });
            }
            _ => {}
        }
    }
    attributes.unknown.sort_by_key(|attribute| attribute.code);
    let outdated = is_outdated(attributes.aggregator, as4_aggregator);
    if !outdated {
        let long = as4_aggregator;
        attributes.aggregator = attributes.aggregator.map(|short| long.unwrap_or(short));
    }
    let (Some(origin), Some(short)) = (origin, path) else {
        return Ok(None);
    };
    let as_path = match as4_path.filter(|_| !outdated) {
        Some(long) if long.length() == short.length() => long,
        Some(_) => return Err("the paths are not as long".to_owned()),
        None => short,
    };
    Ok(Some(Attributes {
        origin,
        as_path,
        ..attributes
    }))
}

fn attribute_values(attributes: &Attributes, session: Session) -> Vec<(u8, Value)> {
    let origin = match attributes.origin {
        Origin::Igp => attribute::Origin::IGP,
        Origin::Egp => attribute::Origin::EGP,
        Origin::Incomplete => attribute::Origin::Incomplete,
    };
    let mut values = vec![(0x40, Value::Origin(origin))];
    let long = |path: &AsPath| {
        let segments = path.0.iter().map(|segment| {
            let numbers: Vec<u32> = segment.numbers.iter().map(|asn| asn.0).collect();
            attribute::As4PathSegment::new(segment_to(segment.kind), numbers)
        });
        segments.collect::<Vec<_>>()
    };
    if session.four_octet_as {
        let path = attribute::AsPath::as4_path_segments(long(&attributes.as_path));
        values.push((0x40, Value::AsPath(path)));
        values.extend(attributes.aggregator.map(|one| {
            let value = attribute::As4Aggregator::new(one.asn.0, one.router);
            let value = attribute::Aggregator::As4Aggregator(value);
            (0xc0, Value::Aggregator(value))
        }));
    } else {
        let short_as = |asn: AsNumber| u16::try_from(two_octet_as(asn).0).unwrap_or(0);
        let (short, lost) = two_octet_path(&attributes.as_path);
        let short = short.0.iter().map(|segment| {
            let numbers: Vec<u16> = segment.numbers.iter().map(|asn| short_as(*asn)).collect();
            attribute::As2PathSegment::new(segment_to(segment.kind), numbers)
        });
        let path = attribute::AsPath::as2_path_segments(short.collect::<Vec<_>>());
        values.push((0x40, Value::AsPath(path)));
        values.extend(lost.map(|path| {
            let path = attribute::As4Path::new(long(&path));
            (0xc0, Value::As4Path(path))
        }));
        if let Some(one) = attributes.aggregator {
            let value = attribute::As2Aggregator::new(short_as(one.asn), one.router);
            let value = attribute::Aggregator::As2Aggregator(value);
            values.push((0xc0, Value::Aggregator(value)));
            if two_octet_as(one.asn) != one.asn {
                let mut value = one.asn.0.to_be_bytes().to_vec();
                value.extend(one.router.octets());
                let value = attribute::UnknownAttribute::new(18, value);
                values.push((0xc0, Value::UnknownAttribute(value)));
            }
        }
    }
    values.extend(attributes.med.map(|med| {
        let med = attribute::MultiExitDiscriminator::new(med);
        (0x80, Value::MultiExitDiscriminator(med))
    }));
    values.extend(attributes.local_pref.map(|preference| {
        let preference = attribute::LocalPreference::new(preference);
        (0x40, Value::LocalPreference(preference))
    }));
    if attributes.atomic_aggregate {
        values.push((0x40, Value::AtomicAggregate(attribute::AtomicAggregate)));
    }
    if !attributes.communities.is_empty() {
        let list = attributes.communities.iter();
        let list = list.map(|one| community::Community::new(one.0));
        let list = attribute::Communities::new(list.collect::<Vec<_>>());
        values.push((0xc0, Value::Communities(list)));
    }
    if !attributes.large_communities.is_empty() {
        let list = attributes.large_communities.iter();
        let list = list.map(|LargeCommunity([global, first, second])| {
            community::LargeCommunity::new(*global, *first, *second)
        });
        let list = attribute::LargeCommunities::new(list.collect::<Vec<_>>());
        values.push((0xc0, Value::LargeCommunities(list)));
    }
    if !attributes.extended_communities.is_empty() {
        let list = attributes.extended_communities.iter().map(|one| {
            let [code, sub_type, value @ ..] = one.0;
            let value = community::UnknownExtendedCommunity::new(code, sub_type, value);
            community::ExtendedCommunity::Unknown(value)
        });
        let list = attribute::ExtendedCommunities::new(list.collect::<Vec<_>>());
        values.push((0xc0, Value::ExtendedCommunities(list)));
    }
    values.extend(attributes.originator_id.map(|id| {
        let originator = attribute::Originator::new(id);
        (0x80, Value::Originator(originator))
    }));
    if !attributes.cluster_list.is_empty() {
        let list = attributes.cluster_list.iter();
        let list = list.map(|id| attribute::ClusterId::new(*id));
        let list = attribute::ClusterList::new(list.collect::<Vec<_>>());
        values.push((0x80, Value::ClusterList(list)));
    }
    values.extend(attributes.unknown.iter().map(|unknown| {
        let value = attribute::UnknownAttribute::new(unknown.code, unknown.value.clone());
        (unknown.flags, Value::UnknownAttribute(value))
    }));
    values
}

fn four_octet_path(segments: &[attribute::As4PathSegment]) -> AsPath {
    let segments = segments.iter().map(|segment| {
        let numbers = segment.as_numbers().iter().copied();
        segment_from(segment.segment_type(), numbers)
    });
    AsPath(segments.collect())
}

fn segment_from(kind: attribute::AsPathSegmentType, numbers: impl Iterator<Item = u32>) -> Segment {
    Segment {
        kind: match kind {
            attribute::AsPathSegmentType::AsSet => SegmentKind::Set,
            attribute::AsPathSegmentType::AsSequence => SegmentKind::Sequence,
        },
        numbers: numbers.map(AsNumber).collect(),
    }
}

/// It has no segments of confederations; none are given to it.
fn segment_to(kind: SegmentKind) -> attribute::AsPathSegmentType {
    match kind {
        SegmentKind::Set | SegmentKind::ConfedSet => attribute::AsPathSegmentType::AsSet,
        SegmentKind::Sequence | SegmentKind::ConfedSequence => {
            attribute::AsPathSegmentType::AsSequence
        }
    }
}
