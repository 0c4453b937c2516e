//! `bgpkit-parser`, which reads dumps of routers, and tells of errors beside what it reads.
//!
//! - Without path identifiers it takes a first octet of 0 for the begin of one, as dumps do not tell: a
//!   default route is then not read.
//! - It keeps the segments of a confederation in AS4_PATH; they are taken out here (RFC 6793 §6).
//! - It does not know long-lived graceful restart, the N bit of graceful restart, nor enhanced refresh.

mod open;

use bgpkit_parser::models::{
    self, Afi, AsPathSegment, Asn, AsnLength, Attribute, AttributeValue, BgpMessage,
    BgpUpdateMessage, NetworkPrefix, NextHopAddress, Safi,
};
use bytes::Bytes;
use ipnet::IpNet;
use margay_bgp::attribute::{Aggregator, Segment, SegmentKind, UnknownAttribute};
use margay_bgp::message::{Nlri, Update};
use margay_bgp::{
    AsPath, Attributes, Community, ExtendedCommunity, LargeCommunity, NextHop, Origin,
};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};

use crate::{
    Reading, Session, is_outdated, next_hop_of_two, nlri, sort_unique, two_octet_as, two_octet_path,
};

pub use open::{read_open, write_open};

/// Reads a message.
///
/// # Errors
/// Its words.
pub fn read(octets: &[u8], session: Session) -> Result<BgpMessage, String> {
    let mut octets = Bytes::copy_from_slice(octets);
    let length = width(session);
    bgpkit_parser::parser::bgp::parse_bgp_message(&mut octets, session.add_path, &length)
        .map_err(|error| error.to_string())
}

/// Writes a message.
///
/// # Errors
/// Its words.
pub fn write(message: &BgpMessage, session: Session) -> Result<Vec<u8>, String> {
    let written = message.encode(width(session));
    written
        .map(|octets| octets.to_vec())
        .map_err(|error| error.to_string())
}

/// Reads an UPDATE.
///
/// # Errors
/// Its words, or what is no UPDATE.
pub fn read_update(octets: &[u8], session: Session) -> Result<Reading, String> {
    let BgpMessage::Update(update) = read(octets, session)? else {
        return Err("no UPDATE".to_owned());
    };
    let end_of_rib = update.is_end_of_rib();
    let mut reading = Reading {
        withdrawn: prefixes(&update.withdrawn_prefixes)?,
        warnings: update
            .attributes
            .validation_warnings()
            .iter()
            .map(ToString::to_string)
            .collect(),
        ..Reading::default()
    };
    let hop = update.attributes.iter().find_map(|value| match value {
        AttributeValue::NextHop(address) => Some(NextHop::new(*address)),
        _ => None,
    });
    if !update.announced_prefixes.is_empty() {
        let announced = prefixes(&update.announced_prefixes)?;
        reading.announced.push((hop, announced));
    }
    let mut family = Family::V4;
    for value in update.attributes.iter() {
        match value {
            AttributeValue::MpReachNlri(nlri) if nlri.safi == Safi::Unicast => {
                let announced = prefixes(&nlri.prefixes)?;
                if !announced.is_empty() {
                    let hop = nlri.next_hop.as_ref().and_then(next_hop);
                    reading.announced.push((hop, announced));
                }
            }
            AttributeValue::MpUnreachNlri(nlri) if nlri.safi == Safi::Unicast => {
                family = if nlri.is_ipv4() {
                    Family::V4
                } else {
                    Family::V6
                };
                reading.withdrawn.extend(prefixes(&nlri.prefixes)?);
            }
            _ => {}
        }
    }
    reading.end_of_rib = end_of_rib.then_some(family);
    reading.attributes = attributes(&update.attributes)?;
    Ok(reading)
}

/// Writes an UPDATE of routes that are alike; `extended` asks for lengths of two octets everywhere.
///
/// # Errors
/// Its words.
pub fn write_update(update: &Update, session: Session, extended: bool) -> Result<Vec<u8>, String> {
    let (four, six): (Vec<_>, Vec<_>) = update
        .withdrawn
        .iter()
        .partition(|nlri| nlri.prefix.family() == Family::V4);
    let mut written = BgpUpdateMessage {
        withdrawn_prefixes: networks(four, session)?,
        ..BgpUpdateMessage::default()
    };
    let mut values = Vec::new();
    if !six.is_empty() || update.end_of_rib == Some(Family::V6) {
        let prefixes = networks(six, session)?;
        values.push(AttributeValue::MpUnreachNlri(multiprotocol(
            Family::V6,
            None,
            prefixes,
        )));
    }
    for one in &update.announced {
        let prefixes = networks(one.nlri.iter(), session)?;
        let family = one.nlri.first().ok_or("nothing announced")?.prefix.family();
        let hop = one.attributes.next_hop;
        values.extend(attribute_values(&one.attributes, session));
        if family == Family::V4 && hop.family() == Family::V4 {
            values.push(AttributeValue::NextHop(hop.address));
            written.announced_prefixes = prefixes;
        } else {
            let hop = match (hop.address, hop.link_local) {
                (std::net::IpAddr::V4(address), _) => NextHopAddress::Ipv4(address),
                (std::net::IpAddr::V6(address), None) => NextHopAddress::Ipv6(address),
                (std::net::IpAddr::V6(address), Some(local)) => {
                    NextHopAddress::Ipv6LinkLocal(address, local)
                }
            };
            let value = multiprotocol(family, Some(hop), prefixes);
            values.push(AttributeValue::MpReachNlri(value));
        }
    }
    let attribute = |value: AttributeValue| {
        let mut attribute = Attribute::from(value);
        let size = attribute.clone();
        let long = extended || size.encode(width(session)).is_err();
        if long {
            attribute.flag |= models::AttrFlags::EXTENDED;
        }
        attribute
    };
    let mut attributes: Vec<Attribute> = values.into_iter().map(attribute).collect();
    for one in &update.announced {
        attributes.extend(one.attributes.unknown.iter().map(|unknown| Attribute {
            value: AttributeValue::Unknown(models::AttrRaw {
                code: unknown.code,
                bytes: Bytes::from(unknown.value.clone()),
            }),
            flag: models::AttrFlags::from_bits_retain(unknown.flags) | models::AttrFlags::EXTENDED,
        }));
    }
    written.attributes = attributes.into();
    write(&BgpMessage::Update(written), session)
}

/// The path that it makes of both paths of a two-octet peer.
#[must_use]
pub fn merged(short: &AsPath, long: &AsPath) -> AsPath {
    path_from(&models::AsPath::merge_aspath_as4path(
        &path_to(short),
        &path_to(long),
    ))
}

fn width(session: Session) -> AsnLength {
    if session.four_octet_as {
        AsnLength::Bits32
    } else {
        AsnLength::Bits16
    }
}

fn prefixes(list: &[NetworkPrefix]) -> Result<Vec<Nlri>, String> {
    let one = |one: &NetworkPrefix| nlri(one.prefix.addr(), one.prefix.prefix_len(), one.path_id);
    list.iter().map(one).collect()
}

fn networks<'a>(
    list: impl IntoIterator<Item = &'a Nlri>,
    session: Session,
) -> Result<Vec<NetworkPrefix>, String> {
    let one = |one: &Nlri| {
        let path_id = session.add_path.then_some(one.path_id);
        Ok(NetworkPrefix::new(network(&one.prefix)?, path_id))
    };
    list.into_iter().map(one).collect()
}

/// A prefix as the crates for networks have it.
pub(crate) fn network(prefix: &Cidr) -> Result<IpNet, String> {
    IpNet::new(prefix.address(), prefix.length()).map_err(|error| error.to_string())
}

fn afi(family: Family) -> Afi {
    match family {
        Family::V4 => Afi::Ipv4,
        Family::V6 => Afi::Ipv6,
    }
}

fn multiprotocol(
    family: Family,
    next_hop: Option<NextHopAddress>,
    prefixes: Vec<NetworkPrefix>,
) -> models::Nlri {
    models::Nlri {
        afi: afi(family),
        safi: Safi::Unicast,
        next_hop,
        prefixes,
        labeled_prefixes: None,
        link_state_nlris: None,
        flowspec_nlris: None,
    }
}

fn next_hop(address: &NextHopAddress) -> Option<NextHop> {
    match address {
        NextHopAddress::Ipv4(address) => Some(NextHop::new((*address).into())),
        NextHopAddress::Ipv6(address) => Some(next_hop_of_two(*address, None)),
        NextHopAddress::Ipv6LinkLocal(address, second) => {
            Some(next_hop_of_two(*address, Some(*second)))
        }
        // Next hops of VPNs.
        _ => None,
    }
}

fn attributes(read: &models::Attributes) -> Result<Option<Attributes>, String> {
    let (mut origin, mut as4_aggregator) = (None, None);
    let unspecified = std::net::Ipv4Addr::UNSPECIFIED.into();
    let mut attributes = Attributes::local(unspecified);
    for value in read.iter() {
        match value {
            AttributeValue::Origin(value) => {
                origin = Some(match value {
                    models::Origin::IGP => Origin::Igp,
                    models::Origin::EGP => Origin::Egp,
                    models::Origin::INCOMPLETE => Origin::Incomplete,
                });
            }
            AttributeValue::MultiExitDiscriminator(med) => attributes.med = Some(*med),
            AttributeValue::LocalPreference(preference) => {
                attributes.local_pref = Some(*preference);
            }
            AttributeValue::AtomicAggregate => attributes.atomic_aggregate = true,
            AttributeValue::Aggregator { asn, id } => {
                attributes.aggregator = Some(aggregator(*asn, *id));
            }
            AttributeValue::As4Aggregator { asn, id } => {
                as4_aggregator = Some(aggregator(*asn, *id));
            }
            AttributeValue::Communities(list) => {
                list.iter()
                    .map(community)
                    .for_each(|one| attributes.add_community(one));
            }
            AttributeValue::LargeCommunities(list) => {
                for one in list {
                    let [first, second] = one.local_data;
                    let one = LargeCommunity([one.global_admin, first, second]);
                    attributes.add_large_community(one);
                }
            }
            AttributeValue::ExtendedCommunities(_) => {
                let written = Attribute::from(value.clone()).encode(AsnLength::Bits32);
                let written = written.map_err(|error| error.to_string())?;
                let header = if written.first().is_some_and(|flags| flags & 0x10 != 0) {
                    4
                } else {
                    3
                };
                let (list, _) = written.get(header..).unwrap_or_default().as_chunks::<8>();
                let list = list.iter().map(|one| ExtendedCommunity(*one)).collect();
                attributes.extended_communities = sort_unique(list);
            }
            AttributeValue::OriginatorId(id) => attributes.originator_id = Some(*id),
            AttributeValue::Clusters(list) => {
                attributes.cluster_list = list.iter().map(|id| (*id).into()).collect();
            }
            _ => {}
        }
    }
    attributes.unknown = unknown(read);
    let outdated = is_outdated(attributes.aggregator, as4_aggregator);
    if !outdated {
        let long = as4_aggregator;
        attributes.aggregator = attributes.aggregator.map(|short| long.unwrap_or(short));
    }
    let long = read.as4_path().filter(|_| !outdated).map(|long| {
        let own = long.segments.iter().filter(|one| !one.is_confed());
        models::AsPath::from_segments(own.cloned().collect::<Vec<_>>())
    });
    let path = read.as_path().map(|short| match &long {
        Some(long) if !long.is_empty() => models::AsPath::merge_aspath_as4path(short, long),
        _ => short.clone(),
    });
    let (Some(origin), Some(path)) = (origin, path) else {
        return Ok(None);
    };
    Ok(Some(Attributes {
        origin,
        as_path: path_from(&path),
        ..attributes
    }))
}

/// What it does not know, as we pass it on.
fn unknown(read: &models::Attributes) -> Vec<UnknownAttribute> {
    let all = read.clone().into_attributes_iter();
    let unknown = all.filter_map(|attribute| match attribute.value {
        AttributeValue::Unknown(raw) if attribute.flag.bits() & 0xc0 == 0xc0 => {
            Some(UnknownAttribute {
                code: raw.code,
                flags: 0xe0,
                value: raw.bytes.to_vec(),
            })
        }
        _ => None,
    });
    let mut unknown: Vec<_> = unknown.collect();
    unknown.sort_by_key(|attribute| attribute.code);
    unknown
}

fn attribute_values(attributes: &Attributes, session: Session) -> Vec<AttributeValue> {
    let mut values = vec![AttributeValue::Origin(match attributes.origin {
        Origin::Igp => models::Origin::IGP,
        Origin::Egp => models::Origin::EGP,
        Origin::Incomplete => models::Origin::INCOMPLETE,
    })];
    let asn = |asn: AsNumber| Asn::new_32bit(asn.0);
    if session.four_octet_as {
        values.push(AttributeValue::AsPath(path_to(&attributes.as_path)));
        values.extend(attributes.aggregator.map(|one| AttributeValue::Aggregator {
            asn: asn(one.asn),
            id: one.router,
        }));
    } else {
        let (short, long) = two_octet_path(&attributes.as_path);
        values.push(AttributeValue::AsPath(path_to(&short)));
        values.extend(long.map(|long| AttributeValue::As4Path(path_to(&long))));
        if let Some(one) = attributes.aggregator {
            let short = two_octet_as(one.asn);
            let id = one.router;
            values.push(AttributeValue::Aggregator {
                asn: asn(short),
                id,
            });
            if short != one.asn {
                values.push(AttributeValue::As4Aggregator {
                    asn: asn(one.asn),
                    id,
                });
            }
        }
    }
    values.extend(attributes.med.map(AttributeValue::MultiExitDiscriminator));
    values.extend(attributes.local_pref.map(AttributeValue::LocalPreference));
    if attributes.atomic_aggregate {
        values.push(AttributeValue::AtomicAggregate);
    }
    if !attributes.communities.is_empty() {
        let list = attributes.communities.iter().map(|one| match *one {
            Community::NO_EXPORT => models::Community::NoExport,
            Community::NO_ADVERTISE => models::Community::NoAdvertise,
            Community::NO_EXPORT_SUBCONFED => models::Community::NoExportSubConfed,
            Community(number) => {
                let [a, b, c, d] = number.to_be_bytes();
                let asn = Asn::new_16bit(u16::from_be_bytes([a, b]));
                models::Community::Custom(asn, u16::from_be_bytes([c, d]))
            }
        });
        values.push(AttributeValue::Communities(list.collect()));
    }
    if !attributes.large_communities.is_empty() {
        let list = attributes.large_communities.iter();
        let list = list.map(|LargeCommunity([global, first, second])| {
            models::LargeCommunity::new(*global, [*first, *second])
        });
        values.push(AttributeValue::LargeCommunities(list.collect()));
    }
    if !attributes.extended_communities.is_empty() {
        let list = attributes.extended_communities.iter();
        let list = list.map(|one| models::ExtendedCommunity::Raw(one.0));
        values.push(AttributeValue::ExtendedCommunities(list.collect()));
    }
    values.extend(attributes.originator_id.map(AttributeValue::OriginatorId));
    if !attributes.cluster_list.is_empty() {
        let list = attributes.cluster_list.iter().map(|id| u32::from(*id));
        values.push(AttributeValue::Clusters(list.collect()));
    }
    values
}

fn aggregator(asn: Asn, router: std::net::Ipv4Addr) -> Aggregator {
    Aggregator {
        asn: AsNumber(asn.into()),
        router,
    }
}

fn community(community: &models::Community) -> Community {
    match community {
        models::Community::NoExport => Community::NO_EXPORT,
        models::Community::NoAdvertise => Community::NO_ADVERTISE,
        models::Community::NoExportSubConfed => Community::NO_EXPORT_SUBCONFED,
        models::Community::Custom(asn, value) => {
            Community(u32::from(*asn) << 16 | u32::from(*value))
        }
    }
}

fn path_from(path: &models::AsPath) -> AsPath {
    let segments = path.segments.iter().map(|segment| {
        let (kind, numbers) = match segment {
            AsPathSegment::AsSequence(numbers) => (SegmentKind::Sequence, numbers),
            AsPathSegment::AsSet(numbers) => (SegmentKind::Set, numbers),
            AsPathSegment::ConfedSequence(numbers) => (SegmentKind::ConfedSequence, numbers),
            AsPathSegment::ConfedSet(numbers) => (SegmentKind::ConfedSet, numbers),
        };
        let numbers = numbers.iter().map(|asn| AsNumber(u32::from(*asn)));
        Segment {
            kind,
            numbers: numbers.collect(),
        }
    });
    AsPath(segments.collect())
}

fn path_to(path: &AsPath) -> models::AsPath {
    let mut to = models::AsPath::new();
    for segment in &path.0 {
        let numbers = segment.numbers.iter().map(|asn| Asn::new_32bit(asn.0));
        let numbers = numbers.collect();
        to.append_segment(match segment.kind {
            SegmentKind::Sequence => AsPathSegment::AsSequence(numbers),
            SegmentKind::Set => AsPathSegment::AsSet(numbers),
            SegmentKind::ConfedSequence => AsPathSegment::ConfedSequence(numbers),
            SegmentKind::ConfedSet => AsPathSegment::ConfedSet(numbers),
        });
    }
    to
}
