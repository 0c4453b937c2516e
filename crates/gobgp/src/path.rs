//! Paths: own routes on their way to GoBGP, and what it tells of others.

use std::net::IpAddr;

use margay_bgp::attribute::{Segment, SegmentKind};
use margay_bgp::{AsPath, Attributes, Community, LargeCommunity, LocalRoute, NextHop, Origin};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};
use prost::Message;
use prost_types::Any;

use crate::api;

/// An own route as a path. GoBGP puts its own address on a session where the next hop is unspecified.
#[must_use]
pub fn own_path(route: &LocalRoute) -> api::Path {
    let family = route.prefix.family();
    let nlri = pack(
        "IPAddressPrefix",
        &api::IpAddressPrefix {
            prefix_len: u32::from(route.prefix.length()),
            prefix: route.prefix.address().to_string(),
        },
    );
    let unspecified = match family {
        Family::V4 => "0.0.0.0",
        Family::V6 => "::",
    };
    let next_hop = route
        .next_hop
        .map_or_else(|| unspecified.to_owned(), |address| address.to_string());
    let origin = match route.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    let mut pattrs = vec![pack("OriginAttribute", &api::OriginAttribute { origin })];
    pattrs.push(match family {
        Family::V4 => pack("NextHopAttribute", &api::NextHopAttribute { next_hop }),
        Family::V6 => pack(
            "MpReachNLRIAttribute",
            &api::MpReachNlriAttribute {
                family: Some(api::Family::of(family)),
                next_hops: vec![next_hop],
                nlris: vec![nlri.clone()],
            },
        ),
    });
    let number = |number| api::NumberAttribute { number };
    pattrs.extend(
        route
            .med
            .map(|med| pack("MultiExitDiscAttribute", &number(med))),
    );
    let preference = route.local_pref;
    pattrs.extend(preference.map(|value| pack("LocalPrefAttribute", &number(value))));
    if !route.communities.is_empty() {
        let communities = route.communities.iter().map(|community| community.0);
        let communities = communities.collect();
        let attribute = api::CommunitiesAttribute { communities };
        pattrs.push(pack("CommunitiesAttribute", &attribute));
    }
    if !route.large_communities.is_empty() {
        let communities = route.large_communities.iter();
        let communities = communities
            .map(
                |LargeCommunity([global, first, second])| api::LargeCommunity {
                    global_admin: *global,
                    local_data1: *first,
                    local_data2: *second,
                },
            )
            .collect();
        let attribute = api::LargeCommunitiesAttribute { communities };
        pattrs.push(pack("LargeCommunitiesAttribute", &attribute));
    }
    api::Path {
        nlri: Some(nlri),
        pattrs,
        family: Some(api::Family::of(family)),
        ..api::Path::default()
    }
}

/// The prefix of a path; `None` if it is no unicast prefix.
#[must_use]
pub fn prefix(path: &api::Path) -> Option<Cidr> {
    let nlri = path.nlri.as_ref()?;
    if name(nlri) != "IPAddressPrefix" {
        return None;
    }
    let read = api::IpAddressPrefix::decode(nlri.value.as_slice()).ok()?;
    let length = u8::try_from(read.prefix_len).ok()?;
    Cidr::new(read.prefix.parse().ok()?, length)
}

/// The attributes of a path; those that are not known are passed over.
#[must_use]
pub fn attributes(path: &api::Path) -> Attributes {
    let unspecified = match path.family.as_ref().and_then(api::Family::read) {
        Some(Family::V6) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    };
    let mut read = Attributes::local(unspecified);
    for attribute in &path.pattrs {
        // What cannot be read is as if it were not there.
        let _ = take(&mut read, attribute);
    }
    read
}

fn take(read: &mut Attributes, attribute: &Any) -> Result<(), prost::DecodeError> {
    let value = attribute.value.as_slice();
    match name(attribute) {
        "OriginAttribute" => {
            read.origin = match api::OriginAttribute::decode(value)?.origin {
                0 => Origin::Igp,
                1 => Origin::Egp,
                _ => Origin::Incomplete,
            };
        }
        "AsPathAttribute" => {
            let segments = api::AsPathAttribute::decode(value)?.segments;
            read.as_path = AsPath(segments.into_iter().filter_map(segment).collect());
        }
        "NextHopAttribute" => {
            let told = api::NextHopAttribute::decode(value)?.next_hop;
            if let Ok(address) = told.parse() {
                read.next_hop = NextHop::new(address);
            }
        }
        "MpReachNLRIAttribute" => {
            let told = api::MpReachNlriAttribute::decode(value)?.next_hops;
            let mut told = told.iter().map(|text| text.parse::<IpAddr>());
            if let Some(Ok(address)) = told.next() {
                read.next_hop = NextHop::new(address);
            }
            if let Some(Ok(IpAddr::V6(address))) = told.next() {
                read.next_hop.link_local = Some(address);
            }
        }
        "MultiExitDiscAttribute" => read.med = Some(api::NumberAttribute::decode(value)?.number),
        "LocalPrefAttribute" => {
            read.local_pref = Some(api::NumberAttribute::decode(value)?.number);
        }
        "AtomicAggregateAttribute" => read.atomic_aggregate = true,
        "CommunitiesAttribute" => {
            for community in api::CommunitiesAttribute::decode(value)?.communities {
                read.add_community(Community(community));
            }
        }
        "LargeCommunitiesAttribute" => {
            for community in api::LargeCommunitiesAttribute::decode(value)?.communities {
                read.add_large_community(LargeCommunity([
                    community.global_admin,
                    community.local_data1,
                    community.local_data2,
                ]));
            }
        }
        "OriginatorIdAttribute" => {
            read.originator_id = api::OriginatorIdAttribute::decode(value)?.id.parse().ok();
        }
        "ClusterListAttribute" => {
            let ids = api::ClusterListAttribute::decode(value)?.ids;
            read.cluster_list = ids.iter().filter_map(|id| id.parse().ok()).collect();
        }
        _ => {}
    }
    Ok(())
}

fn segment(told: api::AsSegment) -> Option<Segment> {
    let kind = match told.kind {
        1 => SegmentKind::Set,
        2 => SegmentKind::Sequence,
        3 => SegmentKind::ConfedSequence,
        4 => SegmentKind::ConfedSet,
        _ => return None,
    };
    let numbers: Vec<AsNumber> = told.numbers.into_iter().map(AsNumber).collect();
    (!numbers.is_empty()).then_some(Segment { kind, numbers })
}

fn pack(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("{TYPES}{name}"),
        value: message.encode_to_vec(),
    }
}

/// The name of a message without its package.
fn name(any: &Any) -> &str {
    any.type_url.rsplit('.').next().unwrap_or_default()
}

const TYPES: &str = "type.googleapis.com/apipb.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_routes_come_back_as_they_went() {
        for (text, hop) in [("192.168.1.0/26", "0.0.0.0"), ("fd00:10::/122", "::")] {
            let route = LocalRoute {
                med: Some(5),
                local_pref: Some(200),
                origin: Origin::Incomplete,
                communities: vec!["65000:7".parse().unwrap()],
                large_communities: vec!["65000:1:2".parse().unwrap()],
                ..LocalRoute::new(text.parse().unwrap())
            };
            let path = own_path(&route);
            assert_eq!(prefix(&path), Some(route.prefix));
            let read = attributes(&path);
            assert_eq!(read.next_hop.to_string(), hop);
            assert_eq!((read.med, read.local_pref), (Some(5), Some(200)));
            assert_eq!(read.origin, Origin::Incomplete);
            assert_eq!(read.communities, route.communities);
            assert_eq!(read.large_communities, route.large_communities);
        }
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let path = api::Path {
            nlri: Some(Any {
                type_url: format!("{TYPES}IPAddressPrefix"),
                value: vec![0xff; 4],
            }),
            pattrs: vec![Any {
                type_url: format!("{TYPES}AsPathAttribute"),
                value: vec![0xff; 4],
            }],
            ..api::Path::default()
        };
        assert_eq!(prefix(&path), None);
        assert!(attributes(&path).as_path.is_empty());
    }
}
