//! Neighbour entries and link-layer addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Six random octets as a locally administered unicast address (IEEE 802 bits: local set,
    /// group clear).
    #[must_use]
    pub fn local(mut octets: [u8; 6]) -> Self {
        octets[0] = (octets[0] | 0x02) & !0x01;
        Self(octets)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl FromStr for Mac {
    type Err = MacParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || MacParseError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(invalid)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        match parts.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(invalid()),
        }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a MAC address: write six octets in hexadecimal, such as 02:00:5e:10:00:01")]
pub struct MacParseError(String);

/// What a neighbour entry says of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum NeighbourKind {
    /// The address is at this MAC, for ever (`NUD_PERMANENT`).
    Permanent(Mac),
    /// The host answers for the address on this interface (`NTF_PROXY`).
    Proxy,
}

/// A neighbour entry that somebody configured; learnt entries are the kernel's own affair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Neighbour {
    /// The interface's name.
    pub interface: String,
    /// The neighbour's address.
    pub address: IpAddr,
    /// What the entry says.
    pub kind: NeighbourKind,
}

impl Neighbour {
    /// A permanent entry.
    #[must_use]
    pub fn permanent(address: IpAddr, mac: Mac, interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            address,
            kind: NeighbourKind::Permanent(mac),
        }
    }

    /// A proxy entry.
    #[must_use]
    pub fn proxy(address: IpAddr, interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            address,
            kind: NeighbourKind::Proxy,
        }
    }

    /// What the kernel holds at most one of.
    #[must_use]
    pub fn key(&self) -> NeighbourKey {
        NeighbourKey {
            interface: self.interface.clone(),
            address: self.address,
            proxy: matches!(self.kind, NeighbourKind::Proxy),
        }
    }
}

/// The identity of a neighbour entry: the proxy table is separate from the cache.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighbourKey {
    interface: String,
    address: IpAddr,
    proxy: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_round_trips() {
        let mac = Mac([0x02, 0x00, 0x5e, 0x10, 0xab, 0x01]);
        assert_eq!(mac.to_string(), "02:00:5e:10:ab:01");
        assert_eq!("02:00:5E:10:AB:01".parse(), Ok(mac));
        assert_eq!("02-00-5e-10-ab-01".parse(), Ok(mac));
    }

    #[test]
    fn malformed_macs_are_refused() {
        for text in [
            "",
            "02:00:5e:10:ab",
            "02:00:5e:10:ab:01:02",
            "2:0:5e:10:ab:1",
            "+2:00:5e:10:ab:01",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn local_macs_are_unicast_and_locally_administered() {
        assert_eq!(Mac::local([0xff; 6]).0[0], 0xfe);
        assert_eq!(Mac::local([0x00; 6]).0[0], 0x02);
    }
}
