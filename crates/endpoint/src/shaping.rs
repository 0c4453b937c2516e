//! Bandwidth limits: token buckets on a workload's interface and on a device that its packets pass.
//!
//! Packets to a workload wait in a token bucket filter at the root of its host interface. A queue holds only what
//! is sent, so packets from a workload are redirected to a device of kind `ifb` first, and wait in a token bucket
//! filter there; afterwards they go on as if they had just come from the workload's interface. Names and places are
//! Calico's, so that either finds what the other has made.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use margay_model::resource::endpoint::QosControls;
use sha2::{Digest, Sha512};

/// The limits of one endpoint; `None` is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Of packets to the workload.
    pub to: Option<Rate>,
    /// Of packets from the workload.
    pub from: Option<Rate>,
}

/// A rate with the burst by which it may be passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may be sent at once after a pause.
    pub burst: u64,
    /// The rate at which a burst is sent; `None` is as fast as possible.
    pub peak: Option<Peak>,
}

/// The limit on a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may be sent at once; 0 is one packet.
    pub burst: u64,
}

/// A token bucket filter (`sch_tbf`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes per second.
    pub rate: u64,
    /// The bucket's size in bytes.
    pub burst: u32,
    /// How many bytes may wait.
    pub limit: u32,
    /// The second bucket's bytes per second, and size in bytes.
    pub peak: Option<(u64, u32)>,
}

/// What there is of limits in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Our filters, by the interface at whose root they are.
    pub filters: BTreeMap<String, TokenBucket>,
    /// Interfaces whose incoming packets are redirected, and to which device.
    pub redirects: BTreeMap<String, String>,
    /// Devices with a name of ours that packets can be redirected to.
    pub devices: BTreeSet<String>,
}

/// An interface whose limits are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Desired {
    /// Its limits.
    pub bandwidth: Bandwidth,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// One change, in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes a device that packets can be redirected to, unless it is there.
    Create {
        /// Its name.
        device: String,
        /// Its MTU in bytes.
        mtu: u32,
    },
    /// Puts a filter at an interface's root, in the place of what is there.
    Limit {
        /// The interface.
        interface: String,
        /// The filter.
        bucket: TokenBucket,
    },
    /// Redirects what comes in by an interface.
    Redirect {
        /// The interface.
        interface: String,
        /// Where to.
        device: String,
    },
    /// Takes our filter from an interface's root.
    Unlimit {
        /// The interface.
        interface: String,
    },
    /// Ends the redirection of what comes in by an interface.
    Unredirect {
        /// The interface.
        interface: String,
    },
    /// Deletes a device.
    Delete {
        /// Its name.
        device: String,
    },
}

impl Bandwidth {
    /// The limits that a record asks for.
    #[must_use]
    pub fn of(controls: &QosControls) -> Self {
        let rate = |rate, burst, peak, least: Option<i64>| {
            let peak = bytes(peak).map(|rate| Peak {
                rate,
                burst: least
                    .and_then(|bytes| u64::try_from(bytes).ok())
                    .unwrap_or(0),
            });
            bytes(rate).map(|rate| Rate {
                rate,
                burst: bytes(burst).unwrap_or(DEFAULT_BURST),
                peak,
            })
        };
        Self {
            to: rate(
                controls.ingress_bandwidth,
                controls.ingress_burst,
                controls.ingress_peakrate,
                controls.ingress_minburst,
            ),
            from: rate(
                controls.egress_bandwidth,
                controls.egress_burst,
                controls.egress_peakrate,
                controls.egress_minburst,
            ),
        }
    }

    /// Whether there is no limit.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

impl Rate {
    /// The filter for an interface with this MTU.
    ///
    /// A bucket holds at least one packet: nothing would ever pass a smaller one. The longest queue is what is
    /// sent in 25 ms, as Calico has it, yet never less than two of the packets of 64 KiB that segmentation offload
    /// makes. A peak rate that is not above the rate is the rate.
    #[must_use]
    pub fn bucket(&self, mtu: u32) -> TokenBucket {
        let packet = mtu.saturating_add(ETHERNET_HEADER);
        let (rate, burst, peak) = match self.peak {
            Some(peak) if peak.rate <= self.rate => (peak.rate, peak.burst, None),
            peak => (self.rate, self.burst, peak),
        };
        let size = |burst: u64, rate: u64| {
            // The kernel reports a bucket by the time that it lasts, in a number of 32 bits.
            let longest = rate.saturating_mul(LONGEST_SECONDS);
            let burst = u32::try_from(burst.min(longest)).unwrap_or(u32::MAX);
            burst.max(packet)
        };
        let queue = u32::try_from(rate / QUEUES_PER_SECOND).unwrap_or(u32::MAX);
        TokenBucket {
            rate,
            burst: size(burst, rate),
            limit: queue.max(SHORTEST_QUEUE),
            peak: peak.map(|peak| (peak.rate, size(peak.burst, peak.rate))),
        }
    }
}

impl TokenBucket {
    /// Whether a filter that the kernel reports is this one. It reports buckets by the time that they last, in
    /// units of 64 ns, so their sizes come back a little different.
    #[must_use]
    pub fn is(&self, reported: &Self) -> bool {
        let close = |rate: u64, ours: u32, theirs: u32| {
            let unit = rate.saturating_mul(TICK_NANOSECONDS) / NANOSECONDS;
            let slack = u64::from(ours) / 64 + unit.saturating_mul(2) + 1;
            u64::from(ours.abs_diff(theirs)) <= slack
        };
        let peaks = match (self.peak, reported.peak) {
            (None, None) => true,
            (Some((rate, ours)), Some((other, theirs))) => {
                rate == other && close(rate, ours, theirs)
            }
            _ => false,
        };
        peaks
            && self.rate == reported.rate
            && self.limit == reported.limit
            && close(self.rate, self.burst, reported.burst)
    }
}

impl Step {
    /// The interface or device without which it makes no sense.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::Create { device, .. }
            | Self::Redirect { device, .. }
            | Self::Delete { device } => device,
            Self::Limit { interface, .. }
            | Self::Unlimit { interface }
            | Self::Unredirect { interface } => interface,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { device, .. } => write!(f, "make device {device} for a bandwidth limit"),
            Self::Limit { interface, bucket } => {
                let rate = u128::from(bucket.rate) * 8;
                write!(
                    f,
                    "limit {interface} to {rate} bit/s, bursts of {} bytes",
                    bucket.burst
                )
            }
            Self::Redirect { interface, device } => {
                write!(f, "redirect what comes in by {interface} to {device}")
            }
            Self::Unlimit { interface } => write!(f, "lift the bandwidth limit of {interface}"),
            Self::Unredirect { interface } => {
                write!(f, "end the redirection of what comes in by {interface}")
            }
            Self::Delete { device } => write!(f, "delete device {device}: no limit needs it"),
        }
    }
}

/// The name of the device that an interface's packets are redirected to: Calico's prefix, and SHA-512 over the
/// interface's name as far as there is room.
///
/// ```
/// assert_eq!(margay_endpoint::shaping::device("cali12345"), "bwcalice408a044");
/// ```
#[must_use]
pub fn device(interface: &str) -> String {
    let digest = Sha512::digest(interface.as_bytes());
    let mut name = DEVICE_PREFIX.to_owned();
    name.extend(digest.iter().map(|byte| format!("{byte:02x}")));
    name.truncate(MAX_NAME);
    name
}

/// Whether a device of kind `ifb` is one that limits are made with.
#[must_use]
pub fn is_device(name: &str) -> bool {
    name.starts_with(DEVICE_PREFIX)
}

/// What makes the kernel as it should be.
///
/// `desired` has the interfaces whose limits are known, and those without any; `present` are the interfaces that
/// there are. Of an interface that is there and not known nothing is changed: its record may be on its way. What
/// belongs to none is deleted.
#[must_use]
pub fn plan(
    desired: &BTreeMap<String, Desired>,
    present: &BTreeSet<String>,
    observed: &Observed,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut kept: BTreeSet<String> = present
        .iter()
        .filter(|name| !desired.contains_key(*name))
        .map(|name| device(name))
        .collect();
    for (interface, wanted) in desired {
        if !present.contains(interface) {
            continue;
        }
        let (mtu, bandwidth) = (wanted.mtu, wanted.bandwidth);
        let to = bandwidth.to.map(|rate| rate.bucket(mtu));
        steps.extend(limited(interface, to, observed));
        let device = device(interface);
        let redirected = observed.redirects.get(interface) == Some(&device);
        if let Some(rate) = bandwidth.from {
            if !observed.devices.contains(&device) {
                steps.push(Step::Create {
                    device: device.clone(),
                    mtu,
                });
            }
            steps.extend(limited(&device, Some(rate.bucket(mtu)), observed));
            if !redirected || !observed.devices.contains(&device) {
                steps.push(Step::Redirect {
                    interface: interface.clone(),
                    device: device.clone(),
                });
            }
            kept.insert(device);
        } else if redirected {
            steps.push(Step::Unredirect {
                interface: interface.clone(),
            });
        }
    }
    // After nothing is redirected there: what is sent to a device that is gone is lost.
    let unused = observed.devices.difference(&kept);
    steps.extend(unused.map(|device| Step::Delete {
        device: device.clone(),
    }));
    steps
}

fn limited(interface: &str, wanted: Option<TokenBucket>, observed: &Observed) -> Option<Step> {
    let interface = interface.to_owned();
    match (wanted, observed.filters.get(&interface)) {
        (Some(bucket), Some(there)) if bucket.is(there) => None,
        (Some(bucket), _) => Some(Step::Limit { interface, bucket }),
        (None, Some(_)) => Some(Step::Unlimit { interface }),
        (None, None) => None,
    }
}

/// Bits as whole bytes; what is not positive is no limit.
fn bytes(bits: Option<i64>) -> Option<u64> {
    let bits = bits.and_then(|bits| u64::try_from(bits).ok())?;
    (bits >= 8).then_some(bits / 8)
}

/// Calico's, where a record has none: 2^32 bits.
const DEFAULT_BURST: u64 = 1 << 29;
const DEVICE_PREFIX: &str = "bwcali";
/// `IFNAMSIZ` less the terminating zero.
const MAX_NAME: usize = 15;
/// `ETH_HLEN`.
const ETHERNET_HEADER: u32 = 14;
/// 25 ms.
const QUEUES_PER_SECOND: u64 = 40;
const SHORTEST_QUEUE: u32 = 128 * 1024;
/// Below 2^32 units of 64 ns.
const LONGEST_SECONDS: u64 = 250;
/// `PSCHED_SHIFT` (include/net/pkt_sched.h) is 6.
const TICK_NANOSECONDS: u64 = 64;
const NANOSECONDS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn mbit(to: Option<u64>, from: Option<u64>) -> Desired {
        let rate = |mbit: u64| Rate {
            rate: mbit * 125_000,
            burst: 64_000,
            peak: None,
        };
        Desired {
            bandwidth: Bandwidth {
                to: to.map(rate),
                from: from.map(rate),
            },
            mtu: 1_500,
        }
    }

    /// The kernel as it is after the steps.
    fn apply(observed: &mut Observed, steps: &[Step]) {
        for step in steps.iter().cloned() {
            match step {
                Step::Create { device, .. } => assert!(observed.devices.insert(device)),
                Step::Limit { interface, bucket } => {
                    observed.filters.insert(interface, bucket);
                }
                Step::Redirect { interface, device } => {
                    assert!(observed.devices.contains(&device));
                    observed.redirects.insert(interface, device);
                }
                Step::Unlimit { interface } => {
                    assert!(observed.filters.remove(&interface).is_some());
                }
                Step::Unredirect { interface } => {
                    assert!(observed.redirects.remove(&interface).is_some());
                }
                Step::Delete { device } => {
                    assert!(!observed.redirects.values().any(|to| *to == device));
                    observed.filters.remove(&device);
                    assert!(observed.devices.remove(&device));
                }
            }
        }
    }

    #[test]
    fn every_change_leads_to_what_is_desired_and_to_rest() {
        let choices = [
            mbit(None, None),
            mbit(Some(1), None),
            mbit(None, Some(2)),
            mbit(Some(3), Some(4)),
        ];
        let present: BTreeSet<String> = ["cali1".to_owned()].into();
        for before in choices {
            for after in choices {
                let mut observed = Observed::default();
                for wanted in [before, after] {
                    let desired = [("cali1".to_owned(), wanted)].into();
                    let steps = plan(&desired, &present, &observed);
                    apply(&mut observed, &steps);
                    assert_eq!(plan(&desired, &present, &observed), []);
                }
                let filters = [after.bandwidth.to, after.bandwidth.from];
                assert_eq!(observed.filters.len(), filters.iter().flatten().count());
                let redirected = usize::from(after.bandwidth.from.is_some());
                assert_eq!(observed.devices.len(), redirected);
                assert_eq!(observed.redirects.len(), redirected);
            }
        }
    }

    #[test]
    fn devices_go_with_their_interface_and_stay_with_a_stranger() {
        let mut observed = Observed::default();
        let present: BTreeSet<String> = ["cali1".to_owned()].into();
        let desired = [("cali1".to_owned(), mbit(None, Some(1)))].into();
        let steps = plan(&desired, &present, &observed);
        apply(&mut observed, &steps);
        assert_eq!(plan(&BTreeMap::new(), &present, &observed), []);
        observed.redirects.clear();
        let gone = plan(&desired, &BTreeSet::new(), &observed);
        assert_eq!(
            gone,
            [Step::Delete {
                device: device("cali1")
            }]
        );
    }

    #[test]
    fn a_redirect_to_a_lost_device_is_made_anew() {
        let desired = [("cali1".to_owned(), mbit(None, Some(1)))].into();
        let present = ["cali1".to_owned()].into();
        let mut observed = Observed::default();
        let steps = plan(&desired, &present, &observed);
        apply(&mut observed, &steps);
        observed.devices.clear();
        observed.filters.clear();
        let steps = plan(&desired, &present, &observed);
        assert!(matches!(steps[2], Step::Redirect { .. }), "{steps:?}");
    }

    #[test]
    fn records_give_bytes_and_defaults() {
        let controls = QosControls {
            ingress_bandwidth: Some(10_000_000),
            egress_bandwidth: Some(8_000),
            egress_burst: Some(16_000),
            egress_peakrate: Some(16_000),
            egress_minburst: Some(3_000),
            ..QosControls::default()
        };
        let bandwidth = Bandwidth::of(&controls);
        let to = bandwidth.to.unwrap().bucket(1_450);
        assert_eq!((to.rate, to.limit, to.peak), (1_250_000, 131_072, None));
        assert_eq!(to.burst, 1_250_000 * 250);
        let from = bandwidth.from.unwrap().bucket(1_450);
        assert_eq!((from.rate, from.burst), (1_000, 2_000));
        assert_eq!(from.peak, Some((2_000, 3_000)));
        assert!(Bandwidth::of(&QosControls::default()).is_unlimited());
    }

    #[test]
    fn a_bucket_holds_a_packet_and_a_low_peak_is_the_rate() {
        let mut rate = Rate {
            rate: 1_000_000,
            burst: 125,
            peak: None,
        };
        assert_eq!(rate.bucket(9_000).burst, 9_014);
        assert_eq!(rate.bucket(1_500).limit, 131_072);
        rate.peak = Some(Peak {
            rate: 500_000,
            burst: 0,
        });
        let bucket = rate.bucket(1_500);
        assert_eq!(
            (bucket.rate, bucket.burst, bucket.peak),
            (500_000, 1_514, None)
        );
        rate.rate = 125_000_000_000_000;
        rate.burst = u64::MAX;
        let bucket = rate.bucket(1_500);
        assert_eq!((bucket.rate, bucket.peak), (500_000, None));
    }

    #[test]
    fn what_the_kernel_reports_is_told_from_another() {
        let bucket = TokenBucket {
            rate: 1_250_000,
            burst: 100_000,
            limit: 131_072,
            peak: Some((2_500_000, 1_514)),
        };
        let mut reported = bucket;
        reported.burst -= 200;
        reported.peak = Some((2_500_000, 1_513));
        assert!(bucket.is(&reported));
        for other in [
            TokenBucket {
                rate: 1_250_001,
                ..bucket
            },
            TokenBucket {
                burst: 90_000,
                ..bucket
            },
            TokenBucket {
                limit: 131_071,
                ..bucket
            },
            TokenBucket {
                peak: None,
                ..bucket
            },
            TokenBucket {
                peak: Some((2_500_000, 3_028)),
                ..bucket
            },
        ] {
            assert!(!bucket.is(&other), "{other:?}");
        }
    }
}
