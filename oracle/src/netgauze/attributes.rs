//! Path attributes, as `netgauze-bgp-pkt` has them.

use std::net::Ipv4Addr;

use margay_bgp::attribute::{Aggregator, Segment, SegmentKind, UnknownAttribute};
use margay_bgp::{AsPath, Attributes, Community, ExtendedCommunity, LargeCommunity, Origin};
use margay_model::scalar::AsNumber;
use netgauze_bgp_pkt::community;
use netgauze_bgp_pkt::path_attribute::{self as attribute, PathAttributeValue as Value};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_parse_utils::WritablePdu;

use crate::{Session, is_outdated, sort_unique, two_octet_as, two_octet_path};

/// Reads the attributes but for the next hop; `None` without ORIGIN or AS_PATH.
pub(super) fn attributes(update: &BgpUpdateMessage) -> Result<Option<Attributes>, String> {
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

/// The attributes but for the next hop, with their flags.
pub(super) fn attribute_values(attributes: &Attributes, session: Session) -> Vec<(u8, Value)> {
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
