//! Timestamps in the two forms that stored objects use, from seconds and nanoseconds since 1970.

/// A point in time: seconds and nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: u64,
    /// Nanoseconds within the second, below 10^9.
    pub nanos: u32,
}

impl Timestamp {
    /// From a duration since the epoch.
    pub fn from_epoch(since: std::time::Duration) -> Self {
        Self {
            seconds: since.as_secs(),
            nanos: since.subsec_nanos(),
        }
    }

    /// Nanoseconds since the epoch, the value that starts a block's sequence number.
    pub fn unix_nanos(&self) -> u64 {
        self.seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::from(self.nanos))
    }

    /// RFC 3339 in UTC with second precision: `2026-11-23T00:26:06Z`.
    pub fn rfc3339(&self) -> String {
        let civil = Civil::from(self.seconds);
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second
        )
    }

    /// Go's `time.Time.String()` in UTC: `2026-11-23 00:26:06.5 +0000 UTC`, trailing zeros of the fraction cut.
    pub fn go_string(&self) -> String {
        let civil = Civil::from(self.seconds);
        let fraction = format!("{:09}", self.nanos);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{dot}{fraction} +0000 UTC",
            civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second
        )
    }

    /// Reads [`Timestamp::go_string`]; `None` for any other text.
    pub fn parse_go_string(text: &str) -> Option<Self> {
        let (date, clock) = text.strip_suffix(" +0000 UTC")?.split_once(' ')?;
        Self::parse_rfc3339(&format!("{date}T{clock}Z"))
    }

    /// Reads RFC 3339 in UTC (`…Z`), with or without a fraction; `None` for any other text.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let body = text.strip_suffix('Z')?;
        let (date, clock) = body.split_once('T')?;
        let mut date = date.splitn(3, '-').map(str::parse::<u64>);
        let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut clock = clock.splitn(3, ':').map(str::parse::<u64>);
        let (hour, minute, second) = (
            clock.next()?.ok()?,
            clock.next()?.ok()?,
            clock.next()?.ok()?,
        );
        if !(1970..=9999).contains(&year)
            || !(1..=12).contains(&month)
            || !(1..=31).contains(&day)
            || hour > 23
            || minute > 59
            || second > 60
            || fraction.len() > 9
        {
            return None;
        }
        let nanos = if fraction.is_empty() {
            0
        } else {
            format!("{fraction:0<9}").parse().ok()?
        };
        let seconds =
            days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        Some(Self { seconds, nanos })
    }
}

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl From<u64> for Civil {
    /// Proleptic Gregorian calendar; the year is counted from March so that the leap day is the last.
    fn from(seconds: u64) -> Self {
        let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: of_year - (153 * march_month + 2) / 5 + 1,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let (era, year_of_era) = (year / 400, year % 400);
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_forms() {
        let time = Timestamp {
            seconds: 1_795_393_566,
            nanos: 500_666_257,
        };
        assert_eq!(time.go_string(), "2026-11-23 00:26:06.500666257 +0000 UTC");
        assert_eq!(Timestamp::parse_go_string(&time.go_string()), Some(time));
        assert_eq!(time.rfc3339(), "2026-11-23T00:26:06Z");
        let time = Timestamp {
            seconds: 1_795_395_471,
            nanos: 6_020_700,
        };
        assert_eq!(time.go_string(), "2026-11-23 00:57:51.0060207 +0000 UTC");
    }

    #[test]
    fn there_and_back() {
        for seconds in (0..4_000_000_000).step_by(86_399 * 7) {
            let time = Timestamp { seconds, nanos: 0 };
            assert_eq!(Timestamp::parse_rfc3339(&time.rfc3339()), Some(time));
        }
        assert_eq!(
            Timestamp::parse_rfc3339("2024-02-29T12:00:00.25Z").map(|t| t.nanos),
            Some(250_000_000)
        );
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }
}
