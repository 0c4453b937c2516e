//! Durations as Go writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::Absent;

/// A duration in the syntax of Go's `time` package: read from `90s`, `1.5h` or `1h30m`, written `1m30s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoDuration {
    nanos: i64,
}

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no duration such as 90s, 1m30s or 500ms")]
pub struct GoDurationError {
    text: String,
}

impl GoDuration {
    /// A number of whole seconds.
    pub const fn from_secs(seconds: u32) -> Self {
        Self {
            nanos: seconds as i64 * 1_000_000_000,
        }
    }

    /// Length in nanoseconds; may be negative.
    pub fn as_nanos(self) -> i64 {
        self.nanos
    }

    /// The same as a standard duration; `None` when negative.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.nanos).ok().map(Duration::from_nanos)
    }
}

impl FromStr for GoDuration {
    type Err = GoDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text)
            .map(|nanos| Self { nanos })
            .ok_or_else(|| GoDurationError {
                text: text.to_owned(),
            })
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        let nanos = self.nanos.unsigned_abs();
        let (unit, size) = match nanos {
            0 => return f.write_str("0s"),
            1..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            1_000_000..1_000_000_000 => ("ms", 1_000_000),
            _ => ("s", 1_000_000_000),
        };
        let mut whole = nanos / size;
        if unit == "s" {
            let (hours, minutes) = (whole / 3_600, whole / 60 % 60);
            if hours > 0 {
                write!(f, "{hours}h")?;
            }
            if whole >= 60 {
                write!(f, "{minutes}m")?;
            }
            whole %= 60;
        }
        write!(f, "{whole}")?;
        let width = size.ilog10() as usize;
        let fraction = format!("{:0width$}", nanos % size);
        let fraction = fraction.trim_end_matches('0');
        if width > 0 && !fraction.is_empty() {
            write!(f, ".{fraction}")?;
        }
        f.write_str(unit)
    }
}

impl Absent for GoDuration {
    fn absent(&self) -> bool {
        false
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total += nanos(number, *size)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// `number` times `size`; digits beyond a nanosecond are cut.
fn nanos(number: &str, size: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 19 || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?);
    let part: i128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    Some(whole * size + part * size / scale)
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        for (text, again) in [
            ("90s", "1m30s"),
            ("0s", "0s"),
            ("0", "0s"),
            ("10m", "10m0s"),
            ("1h", "1h0m0s"),
            ("1.5h", "1h30m0s"),
            ("50ms", "50ms"),
            ("1500ms", "1.5s"),
            ("1.000000001s", "1.000000001s"),
            ("250us", "250µs"),
            ("7ns", "7ns"),
            ("-2m3s", "-2m3s"),
            ("86400s", "24h0m0s"),
        ] {
            assert_eq!(
                text.parse::<GoDuration>().unwrap().to_string(),
                again,
                "{text}"
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "1",
            "s",
            "-",
            "1d",
            ".s",
            "1.2.3s",
            "1s2",
            "99999999999h",
            "1 s",
        ] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
    }
}
