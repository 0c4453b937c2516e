//! Scalar types of the API: numbers and texts with a syntax of their own.

mod duration;
mod port;
mod protocol;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use duration::{GoDuration, GoDurationError};
pub use port::Port;
pub use protocol::Protocol;

/// A set of words, each a value of a field.
pub trait Word {
    /// The words of the set.
    const ALLOWED: &'static [&'static str];

    /// The text of this word, which may lie outside the set.
    fn text(&self) -> &str;
}

words! {
    /// What a rule does with a packet it matches.
    pub enum Action {
        /// Accepts it, and ends the evaluation of all tiers.
        Allow = "Allow",
        /// Drops it.
        Deny = "Deny",
        /// Logs it and goes on with the next rule.
        Log = "Log",
        /// Goes on with the next tier, or with the profiles.
        Pass = "Pass",
    }
}

words! {
    /// A switch.
    pub enum Switch {
        /// On.
        Enabled = "Enabled",
        /// Off.
        Disabled = "Disabled",
    }
}

words! {
    /// From which severity on something is logged.
    pub enum LogSeverity {
        /// Everything.
        Trace = "Trace",
        /// What developers need.
        Debug = "Debug",
        /// What operators like to see.
        Info = "Info",
        /// What may become an error.
        Warning = "Warning",
        /// Errors.
        Error = "Error",
        /// What ends the program.
        Fatal = "Fatal",
    }
}

/// A number, or a text that stands for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A text.
    String(String),
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}

/// An AS number (RFC 6793). Written as a number; read also from `"64512"` and `"1.10"` (RFC 5396).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AsNumber(pub u32);

impl AsNumber {
    /// Reads a decimal or dotted text.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('.') {
            None => text.parse().ok().map(Self),
            Some((high, low)) => {
                let (high, low) = (high.parse::<u16>().ok()?, low.parse::<u16>().ok()?);
                Some(Self(u32::from(high) << 16 | u32::from(low)))
            }
        }
    }
}

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for AsNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for AsNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = IntOrString::deserialize(deserializer)?;
        let number = match &value {
            IntOrString::Int(number) => u32::try_from(*number).ok().map(Self),
            IntOrString::String(text) => Self::parse(text),
        };
        number.ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{value} is no AS number: 0 to 4294967295, or two numbers to 65535 around a dot"
            ))
        })
    }
}

/// Writes an order as Go does: without a fraction where it is whole.
pub(crate) fn order<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        None => serializer.serialize_none(),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole and within the integer range"
        )]
        Some(order) if order.fract() == 0.0 && order.abs() < 1e18 => {
            serializer.serialize_i64(*order as i64)
        }
        Some(order) => serializer.serialize_f64(*order),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numbers() {
        for (json, number) in [("64512", 64512), ("\"64512\"", 64512), ("\"1.10\"", 65546)] {
            let parsed: AsNumber = serde_json::from_str(json).unwrap();
            assert_eq!(parsed, AsNumber(number), "{json}");
            assert_eq!(serde_json::to_string(&parsed).unwrap(), number.to_string());
        }
        for json in ["-1", "4294967296", "\"1.65536\"", "\"x\"", "1.5"] {
            assert!(serde_json::from_str::<AsNumber>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn words_outside_the_set_are_kept() {
        let action: Action = serde_json::from_str("\"Permit\"").unwrap();
        assert_eq!(action, Action::Other("Permit".into()));
        assert_eq!(serde_json::to_string(&action).unwrap(), "\"Permit\"");
        assert_eq!(Action::from("Pass"), Action::Pass);
    }
}
