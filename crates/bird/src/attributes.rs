//! BGP attributes as BIRD writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_bgp::attribute::{Aggregator, Segment, SegmentKind};
use margay_bgp::{AsPath, Attributes, Community, LargeCommunity, NextHop, Origin};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};

/// Attributes that come line by line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathered {
    lines: Vec<(String, String)>,
}

impl Gathered {
    /// Takes in a line.
    pub(crate) fn take(&mut self, name: &str, value: &str) {
        self.lines.push((name.to_owned(), value.to_owned()));
    }

    /// All of them; an own route has no next hop.
    pub(crate) fn attributes(&self, prefix: &Cidr) -> Attributes {
        let unspecified = match prefix.family() {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let mut attributes = Attributes::local(unspecified);
        for (name, value) in &self.lines {
            read(&mut attributes, name, value);
        }
        attributes
    }
}

fn read(attributes: &mut Attributes, name: &str, value: &str) {
    match name {
        "BGP.origin" => {
            attributes.origin = match value {
                "IGP" => Origin::Igp,
                "EGP" => Origin::Egp,
                _ => Origin::Incomplete,
            };
        }
        "BGP.as_path" => attributes.as_path = as_path(value),
        "BGP.next_hop" => {
            let mut addresses = value.split_whitespace().map(str::parse::<IpAddr>);
            if let Some(Ok(address)) = addresses.next() {
                attributes.next_hop = NextHop::new(address);
            }
            if let Some(Ok(IpAddr::V6(address))) = addresses.next() {
                attributes.next_hop.link_local = Some(address);
            }
        }
        "BGP.med" => attributes.med = value.parse().ok(),
        "BGP.local_pref" => attributes.local_pref = value.parse().ok(),
        "BGP.atomic_aggr" => attributes.atomic_aggregate = true,
        "BGP.aggregator" => attributes.aggregator = aggregator(value),
        "BGP.community" => {
            for numbers in tuples(value) {
                if let [Ok(high), Ok(low)] = numbers.as_slice() {
                    let (high, low) = (u16::try_from(*high), u16::try_from(*low));
                    if let (Ok(high), Ok(low)) = (high, low) {
                        attributes.add_community(Community::new(high, low));
                    }
                }
            }
        }
        "BGP.large_community" => {
            for numbers in tuples(value) {
                if let [Ok(global), Ok(first), Ok(second)] = numbers.as_slice() {
                    attributes.add_large_community(LargeCommunity([*global, *first, *second]));
                }
            }
        }
        "BGP.originator_id" => attributes.originator_id = value.parse().ok(),
        "BGP.cluster_list" => {
            let clusters = value.split_whitespace();
            attributes.cluster_list = clusters.filter_map(|one| one.parse().ok()).collect();
        }
        _ => {}
    }
}

/// `(1,2) (3, 4)`.
fn tuples(text: &str) -> impl Iterator<Item = Vec<Result<u32, std::num::ParseIntError>>> + '_ {
    let tuples = text.split('(').filter_map(|rest| rest.split_once(')'));
    tuples.map(|(inner, _)| inner.split(',').map(|part| part.trim().parse()).collect())
}

/// `64513 {1 2} 3`, with `(` and `)` around numbers of a confederation.
fn as_path(text: &str) -> AsPath {
    let mut segments: Vec<Segment> = Vec::new();
    let mut kind = SegmentKind::Sequence;
    let spaced = ["{", "}", "(", ")"]
        .iter()
        .fold(text.to_owned(), |text, mark| {
            text.replace(mark, &format!(" {mark} "))
        });
    for word in spaced.split_whitespace() {
        kind = match word {
            "{" => SegmentKind::Set,
            "(" => SegmentKind::ConfedSequence,
            "}" | ")" => SegmentKind::Sequence,
            number => {
                let Ok(number) = number.parse().map(AsNumber) else {
                    continue;
                };
                match segments.last_mut() {
                    Some(last) if last.kind == kind => last.numbers.push(number),
                    _ => segments.push(Segment {
                        kind,
                        numbers: vec![number],
                    }),
                }
                continue;
            }
        };
    }
    AsPath(segments)
}

/// `10.0.0.1 AS65001`.
fn aggregator(text: &str) -> Option<Aggregator> {
    let (router, asn) = text.split_once(' ')?;
    Some(Aggregator {
        asn: AsNumber(asn.trim().strip_prefix("AS")?.parse().ok()?),
        router: router.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_sequences_and_sets() {
        for (text, shown) in [
            ("", ""),
            ("64513 65000", "64513 65000"),
            ("1 2 {3 4} 5", "1 2 {3 4} 5"),
        ] {
            let path = as_path(text);
            let plain = path.to_string().replace(',', " ");
            assert_eq!(plain, shown, "{path:?}");
        }
    }

    #[test]
    fn attributes_come_line_by_line() {
        let mut gathered = Gathered::default();
        for (name, value) in [
            ("BGP.origin", "Incomplete"),
            ("BGP.as_path", "64513"),
            ("BGP.next_hop", "fd00::1 fe80::1"),
            ("BGP.med", "7"),
            ("BGP.local_pref", "100"),
            ("BGP.community", "(65000,9) (1,2)"),
            ("BGP.large_community", "(1, 2, 3)"),
            ("BGP.originator_id", "10.0.0.9"),
            ("BGP.cluster_list", "10.0.0.8 10.0.0.7"),
            ("BGP.aggregator", "10.0.0.1 AS65001"),
            ("BGP.unheard_of", "x"),
        ] {
            gathered.take(name, value);
        }
        let read = gathered.attributes(&"fd00:1::/64".parse().unwrap());
        assert_eq!(read.origin, Origin::Incomplete);
        assert_eq!(read.next_hop.link_local, Some("fe80::1".parse().unwrap()));
        let communities: Vec<String> = read.communities.iter().map(ToString::to_string).collect();
        assert_eq!(communities, ["1:2", "65000:9"]);
        assert_eq!(read.large_communities[0].to_string(), "1:2:3");
        assert_eq!(read.cluster_list.len(), 2);
        assert_eq!(read.aggregator.unwrap().asn, AsNumber(65001));
        assert_eq!((read.med, read.local_pref), (Some(7), Some(100)));
    }
}
