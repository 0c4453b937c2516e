//! Limits on an endpoint's traffic.

use serde_json::Value;

use crate::problem::Problems;

/// Checks the limits against what the API admits.
pub(super) fn check(controls: &Value, problems: &mut Problems) {
    let Some(controls) = controls.as_object() else {
        problems.refuse(controls, "an object");
        return;
    };
    if let Some(value) = controls.get("dscp").filter(|value| !is_code_point(value)) {
        let allowed = format!("0 to 63, {}", CODE_POINTS.join(", "));
        problems.refuse_field("dscp", value, allowed);
    }
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

/// Whether a value is a code point (RFC 2474): 0 to 63, or one of the names that RFC 2597, RFC 3246,
/// RFC 5865 and RFC 8622 give.
fn is_code_point(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_u64().is_some_and(|number| number <= 63),
        Value::String(text) => {
            CODE_POINTS.contains(&text.as_str())
                || text.parse::<u8>().is_ok_and(|number| number <= 63)
        }
        _ => false,
    }
}

const CODE_POINTS: [&str; 24] = [
    "DF", "EF", "VA", "LE", "AF11", "AF12", "AF13", "AF21", "AF22", "AF23", "AF31", "AF32", "AF33",
    "AF41", "AF42", "AF43", "CS0", "CS1", "CS2", "CS3", "CS4", "CS5", "CS6", "CS7",
];

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
