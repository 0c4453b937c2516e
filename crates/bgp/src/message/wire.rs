//! Reading octets without ever reading past the end; families and prefixes on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_model::{Cidr, Family};

/// Octets that are read from the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    octets: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(octets: &'a [u8]) -> Self {
        Self { octets }
    }

    /// The next `count` octets; `None`, and nothing read, if there are fewer.
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.octets.split_at_checked(count)?;
        self.octets = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[octet]| octet)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn ipv4(&mut self) -> Option<Ipv4Addr> {
        self.array::<4>().map(Ipv4Addr::from)
    }

    pub(super) fn ipv6(&mut self) -> Option<Ipv6Addr> {
        self.array::<16>().map(Ipv6Addr::from)
    }

    /// A prefix as NLRI has it: its length in bits, then as many octets as that takes
    /// (RFC 4271 §4.3). Bits beyond the length mean nothing.
    pub(super) fn prefix(&mut self, family: Family) -> Option<Cidr> {
        let length = self.u8()?;
        if length > family.width() {
            return None;
        }
        let octets = self.bytes(usize::from(length).div_ceil(8))?;
        let address = match family {
            Family::V4 => IpAddr::V4(padded::<4>(octets)?.into()),
            Family::V6 => IpAddr::V6(padded::<16>(octets)?.into()),
        };
        Cidr::new(address, length)
    }

    /// What is not read yet.
    pub(super) fn rest(self) -> &'a [u8] {
        self.octets
    }

    pub(super) fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.octets.len()
    }
}

/// Writes a prefix as NLRI has it.
pub(super) fn write_prefix(out: &mut Vec<u8>, prefix: &Cidr) {
    out.push(prefix.length());
    let count = usize::from(prefix.length()).div_ceil(8);
    match prefix.address() {
        IpAddr::V4(address) => out.extend(address.octets().iter().take(count)),
        IpAddr::V6(address) => out.extend(address.octets().iter().take(count)),
    }
}

/// The family's address family identifier (IANA).
pub(super) fn afi(family: Family) -> u16 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}

/// The family of an AFI and SAFI; `None` for all but IPv4 and IPv6 unicast.
pub(super) fn family(afi: u16, safi: u8) -> Option<Family> {
    match (afi, safi) {
        (1, UNICAST) => Some(Family::V4),
        (2, UNICAST) => Some(Family::V6),
        _ => None,
    }
}

fn padded<const N: usize>(octets: &[u8]) -> Option<[u8; N]> {
    let mut whole = [0; N];
    whole.get_mut(..octets.len())?.copy_from_slice(octets);
    Some(whole)
}

/// The subsequent address family identifier of unicast.
pub(super) const UNICAST: u8 = 1;
