//! Communities: labels on routes.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A community of four octets, `aa:nn` (RFC 1997).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Community(pub u32);

/// A community of three times four octets, `aa:nn:mm` (RFC 8092).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LargeCommunity(pub [u32; 3]);

/// A community of eight octets, passed on unread (RFC 4360).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtendedCommunity(pub [u8; 8]);

/// A text that is no community.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no community; write {form}")]
pub struct CommunityError {
    text: String,
    form: &'static str,
}

impl Community {
    /// NO_EXPORT: stays within the AS.
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// NO_ADVERTISE: stays here.
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// NO_EXPORT_SUBCONFED: stays within the member AS of a confederation.
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
    /// GRACEFUL_SHUTDOWN: about to go (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
    /// LLGR_STALE: kept beyond its session (RFC 9494 §4.6).
    pub const LLGR_STALE: Self = Self(0xffff_0006);
    /// NO_LLGR: not to be kept beyond its session (RFC 9494 §4.7).
    pub const NO_LLGR: Self = Self(0xffff_0007);

    /// The community `high:low`.
    #[must_use]
    pub const fn new(high: u16, low: u16) -> Self {
        Self((high as u32) << 16 | low as u32)
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [global, first, second] = self.0;
        write!(f, "{global}:{first}:{second}")
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:016x}", u64::from_be_bytes(self.0))
    }
}

impl FromStr for Community {
    type Err = CommunityError;

    /// Reads `aa:nn`, each to 65535.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text
            .split_once(':')
            .and_then(|(high, low)| Some(Self::new(high.parse().ok()?, low.parse().ok()?)));
        parts.ok_or_else(|| CommunityError {
            text: text.to_owned(),
            form: "aa:nn, each to 65535",
        })
    }
}

impl FromStr for LargeCommunity {
    type Err = CommunityError;

    /// Reads `aa:nn:mm`, each to 4294967295.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':').map(str::parse);
        let numbers = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(global)), Some(Ok(first)), Some(Ok(second)), None) => {
                Some(Self([global, first, second]))
            }
            _ => None,
        };
        let form = "aa:nn:mm, each to 4294967295";
        numbers.ok_or_else(|| CommunityError {
            text: text.to_owned(),
            form,
        })
    }
}

impl Serialize for Community {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for LargeCommunity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for ExtendedCommunity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for text in ["64513:100", "0:0", "65535:65281"] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        assert_eq!("65535:65281".parse(), Ok(Community::NO_EXPORT));
        for text in ["1:2:3", "4294967295:0:4294967295"] {
            assert_eq!(text.parse::<LargeCommunity>().unwrap().to_string(), text);
        }
        for text in ["", "1", "65536:1", "1:2:3", "a:b"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
        for text in ["1:2", "1:2:3:4", "4294967296:1:1"] {
            assert!(text.parse::<LargeCommunity>().is_err(), "{text}");
        }
    }
}
