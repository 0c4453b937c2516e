//! The names of pools in Docker's database.
//!
//! Docker keeps what it is answered for a pool, and names it in every request for an address. The names say all that
//! there is to know, so nothing has to be remembered; those of Calico's plugin are understood, for networks that it
//! made.

use std::fmt;
use std::str::FromStr;

use margay_model::{Cidr, Family};

/// From where addresses are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolId {
    /// Any pool that the node may use.
    Any(Family),
    /// One pool, or a range of it.
    Pool {
        /// The pool's name.
        name: String,
        /// The only part of it to use.
        range: Option<Cidr>,
    },
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(Family::V4) => f.write_str(ANY_V4),
            Self::Any(Family::V6) => f.write_str(ANY_V6),
            Self::Pool { name, range: None } => f.write_str(name),
            Self::Pool {
                name,
                range: Some(range),
            } => write!(f, "{name}/{range}"),
        }
    }
}

impl FromStr for PoolId {
    type Err = BadPoolId;

    fn from_str(text: &str) -> Result<Self, BadPoolId> {
        let bad = || BadPoolId {
            text: text.to_owned(),
        };
        Ok(match text {
            ANY_V4 => Self::Any(Family::V4),
            ANY_V6 => Self::Any(Family::V6),
            _ => match text.split_once('/') {
                None if text.is_empty() => return Err(bad()),
                None => Self::Pool {
                    name: text.to_owned(),
                    range: None,
                },
                Some(("", _)) => return Err(bad()),
                Some((name, range)) => Self::Pool {
                    name: name.to_owned(),
                    range: Some(range.parse().map_err(|_| bad())?),
                },
            },
        })
    }
}

/// A text that names no pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pool id {text:?} is not one of this driver's")]
pub struct BadPoolId {
    text: String,
}

const ANY_V4: &str = "CalicoPoolIPv4";
const ANY_V6: &str = "CalicoPoolIPv6";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in [
            "CalicoPoolIPv4",
            "CalicoPoolIPv6",
            "default-ipv4-ippool",
            "default-ipv4-ippool/192.168.3.0/24",
            "six/fd80:24e2:f998:72d6::/64",
        ] {
            assert_eq!(text.parse::<PoolId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "/192.168.0.0/16", "pool/", "pool/anything"] {
            assert!(text.parse::<PoolId>().is_err(), "{text}");
        }
    }
}
