//! OPEN: who a speaker is and what it can do (RFC 4271 §4.2, RFC 5492, RFC 9072).

use std::net::Ipv4Addr;

use margay_model::scalar::AsNumber;

use super::capability::Capability;
use super::wire::Reader;
use super::{Code, Notification};

/// An OPEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS, four octets if it has that capability.
    pub asn: AsNumber,
    /// The hold time in seconds it proposes: 0, or 3 and more.
    pub hold_time: u16,
    /// The sender's BGP identifier.
    pub router_id: Ipv4Addr,
    /// What it can do.
    pub capabilities: Vec<Capability>,
}

impl Open {
    pub(super) fn decode(body: &[u8]) -> Result<Self, Notification> {
        let malformed = || Notification::new(Code::Open, 0);
        let mut reader = Reader::new(body);
        let version = reader.u8().ok_or_else(malformed)?;
        if version != VERSION {
            let ours = u16::from(VERSION).to_be_bytes();
            return Err(Notification::with_data(Code::Open, 1, ours));
        }
        let short_as = reader.u16().ok_or_else(malformed)?;
        let hold_time = reader.u16().ok_or_else(malformed)?;
        let router_id = reader.ipv4().ok_or_else(malformed)?;
        let capabilities = parameters(reader)?;

        let long_as = capabilities.iter().find_map(|capability| match capability {
            Capability::FourOctetAs(asn) => Some(*asn),
            _ => None,
        });
        let asn = long_as.unwrap_or_else(|| AsNumber(u32::from(short_as)));
        if asn.0 == 0 || (long_as.is_none() && asn == AS_TRANS) {
            return Err(Notification::new(Code::Open, 2));
        }
        if router_id.is_unspecified() {
            return Err(Notification::new(Code::Open, 3));
        }
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::with_data(
                Code::Open,
                6,
                hold_time.to_be_bytes(),
            ));
        }
        Ok(Self {
            asn,
            hold_time,
            router_id,
            capabilities,
        })
    }
}

/// Reads the optional parameters, of which only capabilities are known.
fn parameters(mut reader: Reader<'_>) -> Result<Vec<Capability>, Notification> {
    let malformed = || Notification::new(Code::Open, 0);
    let mut length = usize::from(reader.u8().ok_or_else(malformed)?);
    // RFC 9072: a first parameter of type 255 tells that lengths have two octets.
    let mut extended = false;
    let mut peek = reader;
    if length != 0 && peek.u8() == Some(EXTENDED) {
        length = usize::from(peek.u16().ok_or_else(malformed)?);
        reader = peek;
        extended = true;
    }
    if reader.len() != length {
        return Err(malformed());
    }
    let mut capabilities = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u8().ok_or_else(malformed)?;
        let size = if extended {
            reader.u16()
        } else {
            reader.u8().map(u16::from)
        };
        let size = usize::from(size.ok_or_else(malformed)?);
        let value = reader.bytes(size).ok_or_else(malformed)?;
        if kind != CAPABILITIES {
            return Err(Notification::new(Code::Open, 4));
        }
        Capability::decode_all(value, &mut capabilities).ok_or_else(malformed)?;
    }
    Ok(capabilities)
}

/// The number that stands for any AS of more than two octets (RFC 6793).
pub const AS_TRANS: AsNumber = AsNumber(23456);
pub(super) const VERSION: u8 = 4;
pub(super) const CAPABILITIES: u8 = 2;
pub(super) const EXTENDED: u8 = 255;
