//! `bgpkit-parser`, which reads dumps of routers, and tells of errors beside what it reads.
//!
//! - Without path identifiers it takes a first octet of 0 for the begin of one, as dumps do not tell: a
//!   default route is then not read.
//! - It keeps the segments of a confederation in AS4_PATH; they are taken out here (RFC 6793 §6).
//! - It does not know long-lived graceful restart, the N bit of graceful restart, nor enhanced refresh.

mod attributes;
mod open;

use bgpkit_parser::models::{
    self, Afi, AsnLength, Attribute, AttributeValue, BgpMessage, BgpUpdateMessage, NetworkPrefix,
    NextHopAddress, Safi,
};
use bytes::Bytes;
use ipnet::IpNet;
use margay_bgp::message::{Nlri, Update};
use margay_bgp::{AsPath, NextHop};
use margay_model::{Cidr, Family};

use crate::{Reading, Session, next_hop_of_two, nlri};
use attributes::{attribute_values, attributes, path_from, path_to};

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
