//! Limits on an endpoint's traffic.

use std::ops::RangeInclusive;

use crate::problem::Problems;
use crate::scalar::IntOrString;

object! {
    /// Limits on a workload's traffic. What is absent is not limited.
    pub struct QosControls {
        /// Most bandwidth in bit/s to the workload: 1e3 to 1e15.
        "ingressBandwidth" => pub ingress_bandwidth: Option<i64>,
        /// Most bandwidth in bit/s from the workload: 1e3 to 1e15.
        "egressBandwidth" => pub egress_bandwidth: Option<i64>,
        /// Longest burst in bits to the workload: 1e3 to 34359738360.
        "ingressBurst" => pub ingress_burst: Option<i64>,
        /// Longest burst in bits from the workload: 1e3 to 34359738360.
        "egressBurst" => pub egress_burst: Option<i64>,
        /// Highest peak bandwidth in bit/s to the workload: 1.01e3 to 1.01e15.
        "ingressPeakrate" => pub ingress_peakrate: Option<i64>,
        /// Highest peak bandwidth in bit/s from the workload: 1.01e3 to 1.01e15.
        "egressPeakrate" => pub egress_peakrate: Option<i64>,
        /// Longest burst at the peak bandwidth in bytes to the workload: 0, or 1e3 to 1e8.
        "ingressMinburst" => pub ingress_minburst: Option<i64>,
        /// Longest burst at the peak bandwidth in bytes from the workload: 0, or 1e3 to 1e8.
        "egressMinburst" => pub egress_minburst: Option<i64>,
        /// Most packets per second to the workload: 1 to 1e4.
        "ingressPacketRate" => pub ingress_packet_rate: Option<i64>,
        /// Most packets per second from the workload: 1 to 1e4.
        "egressPacketRate" => pub egress_packet_rate: Option<i64>,
        /// Longest burst in packets to the workload: 1 to 1e4.
        "ingressPacketBurst" => pub ingress_packet_burst: Option<i64>,
        /// Longest burst in packets from the workload: 1 to 1e4.
        "egressPacketBurst" => pub egress_packet_burst: Option<i64>,
        /// Most connections to the workload: 1 to 4294967295.
        "ingressMaxConnections" => pub ingress_max_connections: Option<i64>,
        /// Most connections from the workload: 1 to 4294967295.
        "egressMaxConnections" => pub egress_max_connections: Option<i64>,
        /// Code point (RFC 2474) of packets from the workload: 0 to 63, or a name such as `EF`.
        "dscp" => pub dscp: Option<IntOrString>,
    }
}

impl QosControls {
    /// Checks the limits against what the API admits.
    pub fn check(&self, problems: &mut Problems) {
        for (name, value, range) in [
            ("ingressBandwidth", self.ingress_bandwidth, BANDWIDTH),
            ("egressBandwidth", self.egress_bandwidth, BANDWIDTH),
            ("ingressBurst", self.ingress_burst, BURST),
            ("egressBurst", self.egress_burst, BURST),
            ("ingressPeakrate", self.ingress_peakrate, PEAKRATE),
            ("egressPeakrate", self.egress_peakrate, PEAKRATE),
            ("ingressPacketRate", self.ingress_packet_rate, PACKETS),
            ("egressPacketRate", self.egress_packet_rate, PACKETS),
            ("ingressPacketBurst", self.ingress_packet_burst, PACKETS),
            ("egressPacketBurst", self.egress_packet_burst, PACKETS),
            (
                "ingressMaxConnections",
                self.ingress_max_connections,
                CONNECTIONS,
            ),
            (
                "egressMaxConnections",
                self.egress_max_connections,
                CONNECTIONS,
            ),
        ] {
            problems.range(name, value, range);
        }
        for (name, value) in [
            ("ingressMinburst", self.ingress_minburst),
            ("egressMinburst", self.egress_minburst),
        ] {
            problems.range(name, value.filter(|value| *value != 0), MINBURST);
        }
        if let Some(value) = self.dscp.as_ref().filter(|value| !is_code_point(value)) {
            let allowed = format!("0 to 63, {}", CODE_POINTS.join(", "));
            problems.refuse_field("dscp", value, allowed);
        }
    }
}

/// Whether a value is a code point: 0 to 63, or one of the names that RFC 2597, RFC 3246, RFC 5865 and
/// RFC 8622 give.
fn is_code_point(value: &IntOrString) -> bool {
    match value {
        IntOrString::Int(number) => (0..=63).contains(number),
        IntOrString::String(text) => {
            CODE_POINTS.contains(&text.as_str())
                || text.parse::<u8>().is_ok_and(|number| number <= 63)
        }
    }
}

const CODE_POINTS: [&str; 24] = [
    "DF", "EF", "VA", "LE", "AF11", "AF12", "AF13", "AF21", "AF22", "AF23", "AF31", "AF32", "AF33",
    "AF41", "AF42", "AF43", "CS0", "CS1", "CS2", "CS3", "CS4", "CS5", "CS6", "CS7",
];

const BANDWIDTH: RangeInclusive<i64> = 1_000..=1_000_000_000_000_000;
const BURST: RangeInclusive<i64> = 1_000..=34_359_738_360;
const PEAKRATE: RangeInclusive<i64> = 1_010..=1_010_000_000_000_000;
const MINBURST: RangeInclusive<i64> = 1_000..=100_000_000;
const PACKETS: RangeInclusive<i64> = 1..=10_000;
const CONNECTIONS: RangeInclusive<i64> = 1..=4_294_967_295;
