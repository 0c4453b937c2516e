//! What other implementations of BGP make of messages, in the words of our own.
//!
//! [`bgpkit`] and [`netgauze`] each read messages into `margay-bgp`'s values and write messages from
//! them. Nothing here decides anything: what each of them cannot say is named beside the function.
//! The tests hold `margay-bgp` against both.

pub mod bgpkit;
pub mod netgauze;

use std::net::{IpAddr, Ipv6Addr};

use margay_bgp::attribute::{Aggregator, Segment, SegmentKind};
use margay_bgp::message::{AS_TRANS, Announcement, Context, Nlri, Update};
use margay_bgp::{AsPath, Attributes, Families, NextHop};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};

/// What a session agreed on. Both families are in use, and IPv4 routes may have IPv6 next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Whether AS numbers have four octets.
    pub four_octet_as: bool,
    /// Whether prefixes of both families have path identifiers.
    pub add_path: bool,
}

/// An UPDATE as somebody else reads it.
#[derive(Debug, Default)]
pub struct Reading {
    /// Prefixes withdrawn.
    pub withdrawn: Vec<Nlri>,
    /// Prefixes announced, those of the last field first; each with its next hop, if there is one.
    pub announced: Vec<(Option<NextHop>, Vec<Nlri>)>,
    /// The attributes but for the next hop; `None` without ORIGIN or AS_PATH.
    pub attributes: Option<Attributes>,
    /// The family whose routes have all been sent.
    pub end_of_rib: Option<Family>,
    /// What is complained of.
    pub warnings: Vec<String>,
}

impl Session {
    /// For our own codec; the peer is internal, so that every attribute counts.
    #[must_use]
    pub fn context(self) -> Context {
        Context {
            external: false,
            four_octet_as: self.four_octet_as,
            families: Families::BOTH,
            add_path: Families {
                v4: self.add_path,
                v6: self.add_path,
            },
            extended_next_hop: true,
        }
    }
}

impl Reading {
    /// The UPDATE; `None` where routes lack what they need.
    #[must_use]
    pub fn update(&self) -> Option<Update> {
        let announced = self.announced.iter().map(|(next_hop, nlri)| {
            Some(Announcement {
                attributes: Attributes {
                    next_hop: (*next_hop)?,
                    ..self.attributes.clone()?
                },
                nlri: nlri.clone(),
            })
        });
        Some(Update {
            withdrawn: self.withdrawn.clone(),
            announced: announced.collect::<Option<_>>()?,
            end_of_rib: self.end_of_rib,
            findings: Vec::new(),
        })
    }

    /// All prefixes, sorted.
    #[must_use]
    pub fn prefixes(&self) -> Vec<Nlri> {
        let announced = self.announced.iter().flat_map(|(_, nlri)| nlri);
        let mut all: Vec<_> = announced.chain(&self.withdrawn).copied().collect();
        all.sort();
        all
    }
}

/// A path whose neighbouring sequences are one: where a segment ends says nothing.
#[must_use]
pub fn joined(path: &AsPath) -> AsPath {
    let mut joined: Vec<Segment> = Vec::new();
    for segment in &path.0 {
        match joined.last_mut() {
            Some(last)
                if last.kind == SegmentKind::Sequence && segment.kind == SegmentKind::Sequence =>
            {
                last.numbers.extend(&segment.numbers);
            }
            _ => joined.push(segment.clone()),
        }
    }
    AsPath(joined)
}

/// The path in two octets, and in four beside it where that loses numbers (RFC 6793 §4.2.2).
#[must_use]
pub fn two_octet_path(path: &AsPath) -> (AsPath, Option<AsPath>) {
    let mut short = path.clone();
    for number in short.0.iter_mut().flat_map(|segment| &mut segment.numbers) {
        *number = two_octet_as(*number);
    }
    let lost = short != *path;
    (short, lost.then(|| path.clone()))
}

/// The number in two octets, or the one that stands for longer ones.
#[must_use]
pub fn two_octet_as(asn: AsNumber) -> AsNumber {
    if asn.0 > u32::from(u16::MAX) {
        AS_TRANS
    } else {
        asn
    }
}

/// Whether a real AS in AGGREGATOR shows that the attributes of four octets beside it are old
/// (RFC 6793 §4.2.3), which no other codec looks at.
fn is_outdated(short: Option<Aggregator>, long: Option<Aggregator>) -> bool {
    long.is_some() && short.is_some_and(|short| short.asn != AS_TRANS)
}

/// A next hop of one IPv6 address or two, of which the second counts if it is link-local
/// (RFC 2545 §3), and alone where the first is unspecified.
fn next_hop_of_two(address: Ipv6Addr, second: Option<Ipv6Addr>) -> NextHop {
    let link_local = second.filter(Ipv6Addr::is_unicast_link_local);
    match link_local {
        Some(local) if address.is_unspecified() => NextHop::new(IpAddr::V6(local)),
        link_local => NextHop {
            address: IpAddr::V6(address),
            link_local,
        },
    }
}

/// A prefix; bits beyond its length are cleared.
fn nlri(address: IpAddr, length: u8, path_id: Option<u32>) -> Result<Nlri, String> {
    let prefix = Cidr::new(address, length).ok_or("a prefix is too long")?;
    Ok(Nlri {
        prefix,
        path_id: path_id.unwrap_or(0),
    })
}

/// Brings lists into our order.
fn sort_unique<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list.dedup();
    list
}
