//! Path attributes, as `bgpkit-parser` has them.

use bgpkit_parser::models::{self, AsPathSegment, Asn, AsnLength, Attribute, AttributeValue};
use margay_bgp::attribute::{Aggregator, Segment, SegmentKind, UnknownAttribute};
use margay_bgp::{AsPath, Attributes, Community, ExtendedCommunity, LargeCommunity, Origin};
use margay_model::scalar::AsNumber;

use crate::{Session, is_outdated, sort_unique, two_octet_as, two_octet_path};

/// Reads the attributes but for the next hop; `None` without ORIGIN or AS_PATH.
pub(super) fn attributes(read: &models::Attributes) -> Result<Option<Attributes>, String> {
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

/// The attributes but for the next hop.
pub(super) fn attribute_values(attributes: &Attributes, session: Session) -> Vec<AttributeValue> {
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

pub(super) fn path_from(path: &models::AsPath) -> AsPath {
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

pub(super) fn path_to(path: &AsPath) -> models::AsPath {
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
