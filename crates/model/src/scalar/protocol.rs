//! IP protocols by name or number.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::IntOrString;

/// An IP protocol: JSON `"TCP"` or a number. Names are read in any case and written as the API spells them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the protocol of that name")]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
    IcmpV6,
    Sctp,
    UdpLite,
    /// A protocol number.
    Number(u8),
    /// A name that is none of the API's.
    Other(String),
}

impl Protocol {
    /// Reads a name or a number.
    pub fn parse(text: &str) -> Self {
        NAMES
            .iter()
            .find(|(_, name, _)| name.eq_ignore_ascii_case(text))
            .map(|(protocol, ..)| protocol.clone())
            .or_else(|| text.parse().ok().map(Self::Number))
            .unwrap_or_else(|| Self::Other(text.to_owned()))
    }

    /// The protocol number (IANA); `None` for an unknown name.
    pub fn number(&self) -> Option<u8> {
        match self {
            Self::Number(number) => Some(*number),
            named => NAMES
                .iter()
                .find_map(|(protocol, _, number)| (protocol == named).then_some(*number)),
        }
    }

    /// Whether the protocol has ports that rules can match: TCP, UDP and SCTP.
    pub fn has_ports(&self) -> bool {
        matches!(self.number(), Some(6 | 17 | 132))
    }

    /// Whether it is one that the API admits.
    pub fn is_valid(&self) -> bool {
        !matches!(self, Self::Number(0) | Self::Other(_))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Other(name) => name.fmt(f),
            named => NAMES
                .iter()
                .find(|(protocol, ..)| protocol == named)
                .map_or(Ok(()), |(_, name, _)| f.write_str(name)),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u8(*number),
            named => serializer.collect_str(named),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match IntOrString::deserialize(deserializer)? {
            IntOrString::String(text) => Ok(Self::parse(&text)),
            IntOrString::Int(number) => u8::try_from(number).map(Self::Number).map_err(|_| {
                serde::de::Error::custom(format!("{number} is no IP protocol: 1 to 255"))
            }),
        }
    }
}

const NAMES: [(Protocol, &str, u8); 6] = [
    (Protocol::Tcp, "TCP", 6),
    (Protocol::Udp, "UDP", 17),
    (Protocol::Icmp, "ICMP", 1),
    (Protocol::IcmpV6, "ICMPv6", 58),
    (Protocol::Sctp, "SCTP", 132),
    (Protocol::UdpLite, "UDPLite", 136),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (json, again) in [
            ("\"TCP\"", "\"TCP\""),
            ("\"tcp\"", "\"TCP\""),
            ("\"icmpv6\"", "\"ICMPv6\""),
            ("47", "47"),
            ("\"47\"", "47"),
            ("\"GRE\"", "\"GRE\""),
        ] {
            let protocol: Protocol = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&protocol).unwrap(), again, "{json}");
        }
        assert_eq!(Protocol::UdpLite.number(), Some(136));
        assert!(Protocol::Number(132).has_ports());
        assert!(!Protocol::UdpLite.has_ports());
        assert!(!Protocol::Other("GRE".into()).is_valid());
    }
}
