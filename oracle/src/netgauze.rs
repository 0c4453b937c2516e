//! `netgauze-bgp-pkt`, which reads strictly: a message with an error in it is no message.
//!
//! - Prefixes that begin or end in multicast addresses are an error to it.
//! - It does not know segments of confederations.
//! - It reads meanings into extended communities and loses octets of some, see [`keeps`].
//! - It does not know OPENs with parameters of more than 255 octets (RFC 9072).
//! - It leaves AS_PATH and AS4_PATH as they are: they are put together here where both are as long.

mod attributes;
mod open;

use std::collections::HashMap;
use std::net::IpAddr;

use margay_bgp::message::{Nlri, Update};
use margay_bgp::{ExtendedCommunity, NextHop};
use margay_model::Family;
use netgauze_bgp_pkt::BgpMessage;
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
use crate::{Reading, Session, next_hop_of_two, nlri};
use attributes::{attribute_values, attributes};

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
