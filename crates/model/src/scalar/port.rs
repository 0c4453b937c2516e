//! Ports: a number, a range or a name.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::IntOrString;

/// A port of a rule: JSON `80`, `"1000:2000"` or `"http"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// Ports from `first` to `last`, both included; one port when they are equal.
    Range {
        /// The lowest.
        first: u16,
        /// The highest, not below `first`.
        last: u16,
    },
    /// A port that the endpoints name themselves.
    Named(String),
}

impl Port {
    /// One port.
    pub fn single(port: u16) -> Self {
        Self::Range {
            first: port,
            last: port,
        }
    }

    /// Reads a number or a range; any other text is a name.
    pub fn parse(text: &str) -> Self {
        let range = match text.split_once(':') {
            None => text.parse().ok().map(|port| (port, port)),
            Some((first, last)) => first.parse().ok().zip(last.parse().ok()),
        };
        match range {
            Some((first, last)) if first <= last => Self::Range { first, last },
            _ => Self::Named(text.to_owned()),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { first, last } if first == last => first.fmt(f),
            Self::Range { first, last } => write!(f, "{first}:{last}"),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Range { first, last } if first == last => serializer.serialize_u16(*first),
            _ => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match IntOrString::deserialize(deserializer)? {
            IntOrString::String(text) => Ok(Self::parse(&text)),
            IntOrString::Int(number) => u16::try_from(number)
                .map(Self::single)
                .map_err(|_| serde::de::Error::custom(format!("{number} is no port: 0 to 65535"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (json, again) in [
            ("80", "80"),
            ("\"80\"", "80"),
            ("\"7000:7010\"", "\"7000:7010\""),
            ("\"80:80\"", "80"),
            ("\"http\"", "\"http\""),
            ("\"9:8\"", "\"9:8\""),
            ("\"70000\"", "\"70000\""),
        ] {
            let port: Port = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&port).unwrap(), again, "{json}");
        }
        assert_eq!(Port::parse("9:8"), Port::Named("9:8".into()));
        assert!(serde_json::from_str::<Port>("65536").is_err());
    }
}
