//! Network prefixes in canonical form.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An IPv4 or IPv6 prefix whose host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(IpNetwork);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "ipv4")]
    V4,
    /// IPv6.
    #[serde(rename = "ipv6")]
    V6,
}

/// A text that is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an IP prefix such as 10.0.0.0/16 or fd00::/64")]
pub struct CidrError {
    text: String,
}

impl Cidr {
    /// The prefix of `length` bits that contains `address`; `None` when `length` exceeds the family's width.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let network = IpNetwork::new(address, length).ok()?;
        Some(Self::from(network))
    }

    /// The prefix that holds this one address: /32 or /128.
    pub fn host(address: IpAddr) -> Self {
        Self(IpNetwork::from(address))
    }

    /// The first address of the prefix.
    pub fn address(&self) -> IpAddr {
        self.0.ip()
    }

    /// The prefix length in bits.
    pub fn length(&self) -> u8 {
        self.0.prefix()
    }

    /// The family.
    pub fn family(&self) -> Family {
        Family::of(self.address())
    }

    /// Whether `address` lies in the prefix.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    /// Whether every address of `other` lies in this prefix.
    pub fn covers(&self, other: &Self) -> bool {
        self.length() <= other.length() && self.contains(other.address())
    }

    /// Whether the two prefixes share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Number of addresses, saturating at `u128::MAX` for ::/0.
    pub fn size(&self) -> u128 {
        let bits = self.family().width() - self.length();
        1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX)
    }

    /// The address `offset` after the first; `None` outside the prefix.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        if offset >= self.size() {
            return None;
        }
        Some(Family::address(
            self.family(),
            bits(self.address()).checked_add(offset)?,
        ))
    }

    /// How far `address` is from the first address; `None` outside the prefix.
    pub fn offset(&self, address: IpAddr) -> Option<u128> {
        self.contains(address)
            .then(|| bits(address) - bits(self.address()))
    }

    /// The underlying network value.
    pub fn network(&self) -> IpNetwork {
        self.0
    }

    /// The form used in keys: `10.65.3.64-26` (IPv6 colons are kept).
    pub fn key_form(&self) -> String {
        format!("{}-{}", self.address(), self.length())
    }

    /// Reads [`Cidr::key_form`].
    pub fn from_key_form(text: &str) -> Option<Self> {
        let (address, length) = text.rsplit_once('-')?;
        Self::new(address.parse().ok()?, length.parse().ok()?)
    }
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Address width in bits: 32 or 128.
    pub fn width(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// `ipv4` or `ipv6`, as keys spell it.
    pub fn key_form(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    fn address(self, value: u128) -> IpAddr {
        match self {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "an IPv4 address has 32 bits"
            )]
            Self::V4 => IpAddr::V4((value as u32).into()),
            Self::V6 => IpAddr::V6(value.into()),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl From<IpNetwork> for Cidr {
    fn from(network: IpNetwork) -> Self {
        // invariant: the length came from a valid network of the same family.
        Self(IpNetwork::new(network.network(), network.prefix()).unwrap_or(network))
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `a.b.c.d/n`, masking host bits; a bare address is its host prefix.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpNetwork>()
            .map(Self::from)
            .map_err(|_| CidrError {
                text: text.to_owned(),
            })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length())
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_masked() {
        let cidr: Cidr = "10.65.3.77/26".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.65.3.64/26");
        assert_eq!(cidr.key_form(), "10.65.3.64-26");
        assert_eq!(
            Cidr::from_key_form("fd00:65::40-122").unwrap().to_string(),
            "fd00:65::40/122"
        );
        assert_eq!("10.0.0.9".parse::<Cidr>().unwrap().length(), 32);
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
    }

    #[test]
    fn arithmetic() {
        let cidr: Cidr = "fd00::/122".parse().unwrap();
        assert_eq!(cidr.size(), 64);
        assert_eq!(cidr.nth(63).unwrap().to_string(), "fd00::3f");
        assert_eq!(cidr.nth(64), None);
        assert_eq!(cidr.offset("fd00::11".parse().unwrap()), Some(17));
        assert_eq!("::/0".parse::<Cidr>().unwrap().size(), u128::MAX);
        let pool: Cidr = "10.0.0.0/8".parse().unwrap();
        assert!(pool.covers(&"10.1.0.0/16".parse().unwrap()));
        assert!("10.1.0.0/16".parse::<Cidr>().unwrap().overlaps(&pool));
        assert!(!pool.overlaps(&"11.0.0.0/8".parse().unwrap()));
    }
}
