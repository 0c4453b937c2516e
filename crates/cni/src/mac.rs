//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address; shown in lower case with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

/// A text that is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ethernet address such as 0a:58:0a:00:00:05")]
pub struct MacError;

impl MacAddress {
    /// Whether the address can belong to one interface: neither a group's nor all zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part = parts.next().ok_or(MacError)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        if parts.next().is_some() {
            return Err(MacError);
        }
        Ok(Self(octets))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r05_shown_in_lower_case_with_colons() {
        for text in ["0A:58:0a:00:00:05", "0a-58-0A-00-00-05"] {
            assert_eq!(
                text.parse::<MacAddress>().unwrap().to_string(),
                "0a:58:0a:00:00:05"
            );
        }
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for text in [
            "",
            "0a:58",
            "0a:58:0a:00:00:05:06",
            "0a:58:0a:00:00:+5",
            "xx:58:0a:00:00:05",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }
}
