//! How many connections are taken from each source.
//!
//! A token bucket for each source, as the generic cell rate algorithm has it (ITU-T I.371): all that is kept of
//! a source is when its bucket will be full again. A source is an address where somebody is expected, else
//! an IPv4 address or an IPv6 /64, since whoever has one of those has all of its addresses. What expected
//! peers may do does not depend on what others do; the memory that others take is bounded.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use margay_bgp::SpeakerConfig;
use margay_model::{Cidr, Family};

/// Where peers are expected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Peers with a configuration of their own.
    peers: BTreeSet<IpAddr>,
    /// Ranges of peers without one.
    ranges: Vec<Cidr>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is taken.
    Take,
    /// It is one too many.
    Refuse {
        /// Whether nobody was told of this source within the last while.
        tell: bool,
    },
}

/// What the sources did.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// Of expected peers: no more than there are.
    peers: HashMap<IpAddr, Bucket>,
    /// Of others: no more than [`SOURCES_MAX`].
    others: HashMap<Cidr, Bucket>,
    /// Of those for whom there is no room.
    rest: Bucket,
    /// When buckets that are full were last forgotten.
    swept: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// When it is full.
    full: Duration,
    /// Until when nobody is told of refusals.
    quiet: Duration,
}

impl Expected {
    pub(crate) fn of(config: &SpeakerConfig) -> Self {
        let peers = config.peers.values();
        let ranges = config.ranges.values();
        Self {
            peers: peers.map(|peer| peer.address).collect(),
            ranges: ranges.map(|range| range.cidr).collect(),
        }
    }
}

impl Admission {
    /// Whether a connection from `address` is taken at `now`, which never goes backwards.
    pub(crate) fn admit(&mut self, now: Duration, address: IpAddr, expected: &Expected) -> Verdict {
        let address = address.to_canonical();
        if expected.peers.contains(&address) {
            if self.peers.len() >= expected.peers.len() {
                self.peers.retain(|peer, _| expected.peers.contains(peer));
            }
            return self.peers.entry(address).or_default().take(now);
        }
        let in_range = expected.ranges.iter().any(|range| range.contains(address));
        let source = source(address, in_range);
        if !self.others.contains_key(&source) && self.others.len() >= SOURCES_MAX {
            self.sweep(now);
        }
        if self.others.len() < SOURCES_MAX || self.others.contains_key(&source) {
            self.others.entry(source).or_default().take(now)
        } else {
            self.rest.take(now)
        }
    }

    /// Forgets those that did nothing for long; looks for them now and then only.
    fn sweep(&mut self, now: Duration) {
        if now < self.swept + SWEEP {
            return;
        }
        self.swept = now;
        self.others
            .retain(|_, bucket| bucket.full > now || bucket.quiet > now);
    }
}

impl Bucket {
    fn take(&mut self, now: Duration) -> Verdict {
        let full = self.full.max(now);
        if full > now + INTERVAL * (BURST - 1) {
            let tell = self.quiet <= now;
            if tell {
                self.quiet = now + QUIET;
            }
            return Verdict::Refuse { tell };
        }
        self.full = full + INTERVAL;
        Verdict::Take
    }
}

/// What is taken together with an address.
fn source(address: IpAddr, in_range: bool) -> Cidr {
    let length = match Family::of(address) {
        Family::V6 if !in_range => 64,
        family => family.width(),
    };
    Cidr::new(address, length).unwrap_or_else(|| Cidr::host(address))
}

/// So many connections are taken at once.
pub(crate) const BURST: u32 = 16;
/// One more is taken after so long.
pub(crate) const INTERVAL: Duration = Duration::from_millis(250);
/// So many unexpected sources are told apart.
const SOURCES_MAX: usize = 4096;
/// Between two looks for sources that can be forgotten.
const SWEEP: Duration = Duration::from_secs(1);
/// So long nobody is told again of refusals of a source.
const QUIET: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expected(peers: &[&str], ranges: &[&str]) -> Expected {
        Expected {
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// How many of `count` connections at one moment are taken.
    fn taken(admission: &mut Admission, now: Duration, address: &str, count: u32) -> u32 {
        let nobody = Expected::default();
        let address = address.parse().unwrap();
        let take = |_: &u32| admission.admit(now, address, &nobody) == Verdict::Take;
        u32::try_from((0..count).filter(take).count()).unwrap()
    }

    #[test]
    fn a_burst_is_taken_and_then_one_after_another() {
        let mut admission = Admission::default();
        assert_eq!(taken(&mut admission, at(0), "10.0.0.9", 1000), BURST);
        assert_eq!(taken(&mut admission, at(249), "10.0.0.9", 10), 0);
        assert_eq!(taken(&mut admission, at(250), "10.0.0.9", 10), 1);
        assert_eq!(taken(&mut admission, at(60_000), "10.0.0.9", 1000), BURST);
        // Another address is another source; an address of the same /64 is not.
        assert_eq!(taken(&mut admission, at(60_000), "10.0.0.8", 20), BURST);
        assert_eq!(taken(&mut admission, at(60_000), "fd00::1", 10), 10);
        assert_eq!(taken(&mut admission, at(60_000), "fd00::2", 10), BURST - 10);
        assert_eq!(
            taken(&mut admission, at(60_000), "fd00:0:0:1::2", 20),
            BURST
        );
        // As a socket of both families shows an IPv4 address.
        assert_eq!(taken(&mut admission, at(60_000), "::ffff:10.0.0.8", 1), 0);
    }

    #[test]
    fn refusals_of_a_source_are_told_once_in_a_while() {
        let mut admission = Admission::default();
        let address: IpAddr = "10.0.0.9".parse().unwrap();
        let mut told = 0;
        for millis in (0..120_000).step_by(5) {
            let verdict = admission.admit(at(millis), address, &Expected::default());
            told += u32::from(verdict == Verdict::Refuse { tell: true });
        }
        assert_eq!(told, 2);
    }

    #[test]
    fn expected_peers_of_one_network_do_not_share() {
        let peers: Vec<String> = (1..=200).map(|host| format!("fd00::{host:x}")).collect();
        let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
        let known = expected(&peers, &["fd01::/64"]);
        let mut admission = Admission::default();
        taken(&mut admission, at(0), "fd00::ffff", 1000);
        for peer in &peers {
            let verdict = admission.admit(at(0), peer.parse().unwrap(), &known);
            assert_eq!(verdict, Verdict::Take, "{peer}");
        }
        for host in 1..100 {
            let address = format!("fd01::{host:x}").parse().unwrap();
            assert_eq!(admission.admit(at(0), address, &known), Verdict::Take);
        }
        // Peers that are expected no more are forgotten.
        let fewer = expected(&peers[..1], &[]);
        admission.admit(at(0), peers[0].parse().unwrap(), &fewer);
        assert_eq!(admission.peers.len(), 1);
    }

    #[test]
    fn many_sources_take_bounded_memory_and_are_forgotten() {
        let mut admission = Admission::default();
        let nobody = Expected::default();
        for number in 0..20_000_u32 {
            let address = IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            admission.admit(at(0), address, &nobody);
        }
        assert_eq!(admission.others.len(), SOURCES_MAX);
        // Those without room share what is left, and nobody else does.
        assert_eq!(taken(&mut admission, at(0), "192.0.2.1", 10), 0);
        let known = expected(&["192.0.2.7"], &[]);
        let peer = "192.0.2.7".parse().unwrap();
        assert_eq!(admission.admit(at(0), peer, &known), Verdict::Take);
        assert_eq!(taken(&mut admission, at(2_000), "192.0.2.1", 20), BURST);
        assert_eq!(admission.others.len(), 1);
    }

    /// Times of connections of two sources and of an expected peer, in order.
    fn connections() -> impl Strategy<Value = Vec<(u64, usize)>> {
        prop::collection::vec((0..2_000_u64, 0..3_usize), 1..400).prop_map(|mut all| {
            all.sort_unstable();
            all
        })
    }

    const SOURCES: [&str; 3] = ["10.0.0.9", "fd00::9", "10.0.0.2"];

    fn verdicts(all: &[(u64, usize)]) -> Vec<(u64, usize, bool)> {
        let known = expected(&["10.0.0.2"], &[]);
        let mut admission = Admission::default();
        let verdict = |(millis, source): &(u64, usize)| {
            let address = SOURCES[*source].parse().unwrap();
            let taken = admission.admit(at(*millis), address, &known) == Verdict::Take;
            (*millis, *source, taken)
        };
        all.iter().map(verdict).collect()
    }

    proptest! {
        #[test]
        fn no_source_exceeds_its_rate_in_any_window(all in connections()) {
            let verdicts = verdicts(&all);
            for source in 0..3 {
                let taken = verdicts.iter().filter(|(_, of, taken)| *of == source && *taken);
                let taken: Vec<u64> = taken.map(|(millis, _, _)| *millis).collect();
                for (first, from) in taken.iter().enumerate() {
                    for (last, to) in taken.iter().enumerate().skip(first) {
                        let most = u64::from(BURST) + (to - from) / 250;
                        prop_assert!((last - first + 1) as u64 <= most);
                    }
                }
            }
        }

        #[test]
        fn what_one_source_gets_does_not_depend_on_others(all in connections()) {
            let together = verdicts(&all);
            for source in 0..3 {
                let alone: Vec<_> = all.iter().copied().filter(|(_, of)| *of == source).collect();
                let of = |(_, of, _): &&(u64, usize, bool)| *of == source;
                let among: Vec<_> = together.iter().filter(of).copied().collect();
                prop_assert_eq!(verdicts(&alone), among);
            }
        }

        #[test]
        fn whoever_keeps_to_the_rate_is_always_taken(
            gaps in prop::collection::vec(250..2_000_u64, 1..100)
        ) {
            let mut now = 0;
            let times: Vec<_> = gaps.iter().map(|gap| { now += gap; (now, 0) }).collect();
            prop_assert!(verdicts(&times).iter().all(|(_, _, taken)| *taken));
        }
    }
}
