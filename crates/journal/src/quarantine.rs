//! Addresses of this node that were given back lately, to be used last.
//!
//! A file with one line each, the address and the seconds since the machine started. It is a wish, not a
//! promise: where it cannot be written or read, or loses a line, an address is only used sooner.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Journal;

/// The addresses that one node gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    file: PathBuf,
}

impl Quarantine {
    /// That of plugins with this state directory.
    pub fn below(state_dir: &Path) -> Self {
        Self {
            file: state_dir.join(FILE),
        }
    }

    /// That of the plugins that write this journal.
    pub fn beside(journal: &Journal) -> Self {
        let state_dir = journal.directory().parent();
        Self::below(state_dir.unwrap_or_else(|| Path::new(".")))
    }

    /// Notes addresses that were just given back.
    pub fn admit(&self, addresses: &[IpAddr]) {
        let (Some(now), false) = (since_boot(), addresses.is_empty()) else {
            return;
        };
        let _ = self.write(addresses, now);
    }

    /// The addresses given back less than `span` ago.
    pub fn held(&self, span: Duration) -> BTreeSet<IpAddr> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        match since_boot() {
            Some(now) if !text.is_empty() => young(&text, now, span)
                .filter_map(|line| Some(parse(line)?.0))
                .collect(),
            _ => BTreeSet::new(),
        }
    }

    fn write(&self, addresses: &[IpAddr], now: Duration) -> io::Result<()> {
        let mut lines: String = addresses
            .iter()
            .map(|address| format!("{address} {}\n", now.as_secs()))
            .collect();
        if fs::metadata(&self.file).is_ok_and(|found| found.len() > LONGEST) {
            let text = fs::read_to_string(&self.file)?;
            let kept: String = young(&text, now, LONGEST_SPAN)
                .map(|line| format!("{line}\n"))
                .collect();
            lines.insert_str(0, &kept);
            return fs::write(&self.file, lines);
        }
        let mut file = File::options().create(true).append(true).open(&self.file)?;
        file.write_all(lines.as_bytes())
    }
}

/// Lines that are younger than `span`. One of the future was written before the machine last started.
fn young(text: &str, now: Duration, span: Duration) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(move |line| parse(line).is_some_and(|(_, at)| at <= now && now - at < span))
}

fn parse(line: &str) -> Option<(IpAddr, Duration)> {
    let (address, seconds) = line.split_once(' ')?;
    Some((
        address.parse().ok()?,
        Duration::from_secs(seconds.parse().ok()?),
    ))
}

/// The time since the machine started, sleep included: no setting of a clock changes it.
fn since_boot() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds = text.split(['.', ' ']).next()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Name of the file below a state directory.
const FILE: &str = "quarantine";
/// Bytes above which old lines are dropped.
const LONGEST: u64 = 16 * 1024;
/// No quarantine is longer.
const LONGEST_SPAN: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn i10_an_address_is_held_for_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::below(dir.path());
        let minute = Duration::from_secs(60);
        assert!(quarantine.held(minute).is_empty());
        quarantine.admit(&[address(1), "fd00::1".parse().unwrap()]);
        quarantine.admit(&[]);
        quarantine.admit(&[address(2)]);
        assert_eq!(
            quarantine.held(minute),
            [address(1), address(2), "fd00::1".parse().unwrap()].into()
        );
        assert!(quarantine.held(Duration::ZERO).is_empty());
        fs::write(
            dir.path().join(FILE),
            "torn\n10.0.0.1\n10.0.0.2 999999999\n",
        )
        .unwrap();
        assert!(quarantine.held(minute).is_empty());
    }

    #[test]
    fn old_lines_are_dropped_from_a_long_file() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::below(dir.path());
        let hour = Duration::from_secs(2 * 3600);
        let many: Vec<IpAddr> = (0..200).map(address).collect();
        for _ in 0..10 {
            quarantine.write(&many, hour).unwrap();
        }
        quarantine
            .write(&[address(7)], hour + LONGEST_SPAN)
            .unwrap();
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(text, "10.0.0.7 10800\n");
    }
}
