//! Limits on an endpoint's traffic.

use serde_json::Value;

use crate::problem::Problems;

/// Checks the limits against what the API admits.
pub(super) fn check(controls: &Value, problems: &mut Problems) {
    let Some(controls) = controls.as_object() else {
        problems.refuse(controls, "an object");
        return;
    };
    for direction in ["ingress", "egress"] {
        for (suffix, least, most, zero) in LIMITS {
            let name = format!("{direction}{suffix}");
            let Some(value) = controls.get(&name) else {
                continue;
            };
            let number = value.as_i64();
            let fits = number.is_some_and(|n| (least..=most).contains(&n) || zero && n == 0);
            if !fits {
                problems.refuse_field(&name, value, format!("{least} to {most}"));
            }
        }
    }
}

/// Name, least, most, and whether 0 is admitted, too. Bandwidths in bit/s, bursts in bits except
/// `Minburst`, which is in bytes; packets per second.
const LIMITS: [(&str, i64, i64, bool); 7] = [
    ("Bandwidth", 1_000, 1_000_000_000_000_000, false),
    ("Burst", 1_000, 34_359_738_360, false),
    ("Peakrate", 1_010, 1_010_000_000_000_000, false),
    ("Minburst", 1_000, 100_000_000, true),
    ("PacketRate", 1, 10_000, false),
    ("PacketBurst", 1, 10_000, false),
    ("MaxConnections", 1, 4_294_967_295, false),
];
