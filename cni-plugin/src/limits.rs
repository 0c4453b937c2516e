//! Limits on an endpoint's traffic: what a pod's annotations and the runtime ask for.

use std::collections::BTreeMap;

use margay_cni::Bandwidth;
use margay_cni::error::{Error, code};
use margay_model::problem::Problems;
use margay_model::resource::endpoint::QosControls;
use margay_model::scalar::IntOrString;

/// Reads annotations: Calico's, and for what they leave out of bandwidth those of Kubernetes.
///
/// # Errors
/// Code 7 naming the annotation and what is allowed.
pub(crate) fn annotated(annotations: &BTreeMap<String, String>) -> Result<QosControls, Error> {
    let mut controls = QosControls::default();
    for (name, field) in [
        (KUBERNETES_INGRESS, "ingressBandwidth"),
        (KUBERNETES_EGRESS, "egressBandwidth"),
    ] {
        if let Some(value) = annotations.get(name) {
            set(&mut controls, field, value).ok_or_else(|| unusable(name, value, QUANTITY))?;
            check(&controls, name, value)?;
        }
    }
    for (name, value) in annotations {
        let Some(field) = name.strip_prefix(PREFIX) else {
            continue;
        };
        set(&mut controls, field, value).ok_or_else(|| unusable(name, value, QUANTITY))?;
        check(&controls, name, value)?;
    }
    Ok(controls)
}

/// Limits as a pod and the runtime ask for them; the pod's count first.
///
/// # Errors
/// Code 7 when the capability `bandwidth` asks for what is not allowed.
pub(crate) fn merged(
    annotated: QosControls,
    asked: Option<Bandwidth>,
) -> Result<Option<QosControls>, Error> {
    let mut controls = annotated;
    let asked = asked.unwrap_or_default();
    let bits = |value: u64| i64::try_from(value).ok().filter(|value| *value > 0);
    if controls.ingress_bandwidth.is_none() && asked.ingress_rate > 0 {
        controls.ingress_bandwidth = bits(asked.ingress_rate).or(Some(i64::MAX));
        controls.ingress_burst = bits(asked.ingress_burst.min(LONGEST_BURST));
    }
    if controls.egress_bandwidth.is_none() && asked.egress_rate > 0 {
        controls.egress_bandwidth = bits(asked.egress_rate).or(Some(i64::MAX));
        controls.egress_burst = bits(asked.egress_burst.min(LONGEST_BURST));
    }
    let mut problems = Problems::new();
    controls.check(&mut problems);
    problems.into_result().map_err(|problems| {
        fault(format!(
            "runtimeConfig.bandwidth cannot be used: {problems}"
        ))
    })?;
    Ok((controls != QosControls::default()).then_some(controls))
}

fn set(controls: &mut QosControls, field: &str, value: &str) -> Option<()> {
    let place = match field {
        "ingressBandwidth" => &mut controls.ingress_bandwidth,
        "egressBandwidth" => &mut controls.egress_bandwidth,
        "ingressBurst" => &mut controls.ingress_burst,
        "egressBurst" => &mut controls.egress_burst,
        "ingressPeakrate" => &mut controls.ingress_peakrate,
        "egressPeakrate" => &mut controls.egress_peakrate,
        "ingressMinburst" => &mut controls.ingress_minburst,
        "egressMinburst" => &mut controls.egress_minburst,
        "ingressPacketRate" => &mut controls.ingress_packet_rate,
        "egressPacketRate" => &mut controls.egress_packet_rate,
        "ingressPacketBurst" => &mut controls.ingress_packet_burst,
        "egressPacketBurst" => &mut controls.egress_packet_burst,
        "ingressMaxConnections" => &mut controls.ingress_max_connections,
        "egressMaxConnections" => &mut controls.egress_max_connections,
        "dscp" => {
            controls.dscp = Some(match value.parse() {
                Ok(number) => IntOrString::Int(number),
                Err(_) => IntOrString::String(value.to_owned()),
            });
            return Some(());
        }
        // Not one of ours.
        _ => return Some(()),
    };
    *place = Some(quantity(value)?);
    Some(())
}

fn check(controls: &QosControls, name: &str, value: &str) -> Result<(), Error> {
    let mut problems = Problems::new();
    controls.check(&mut problems);
    problems
        .into_result()
        .map_err(|problems| unusable(name, value, &problems.to_string()))
}

/// A number as Kubernetes writes resources: decimal digits with at most one point, and a suffix out of
/// `k M G T P E` (powers of 1000) or `Ki Mi Gi Ti Pi Ei` (of 1024). A fraction that is left is rounded up.
fn quantity(text: &str) -> Option<i64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > MOST_DIGITS {
        return None;
    }
    let base: u128 = if suffix.ends_with('i') { 1024 } else { 1000 };
    let power = match suffix.trim_end_matches('i') {
        "" if suffix.is_empty() => 0,
        "k" if base == 1000 => 1,
        "K" if base == 1024 => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return None,
    };
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let value = digits.checked_mul(base.pow(power))?.div_ceil(scale);
    i64::try_from(value).ok()
}

fn unusable(name: &str, value: &str, allowed: &str) -> Error {
    fault(format!(
        "annotation {name}: {value:?} cannot be used; {allowed}"
    ))
}

fn fault(text: String) -> Error {
    Error::new(code::INVALID_CONFIG, text)
}

const PREFIX: &str = "qos.projectcalico.org/";
const KUBERNETES_INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const KUBERNETES_EGRESS: &str = "kubernetes.io/egress-bandwidth";
const QUANTITY: &str = "give a number, which may end with k, M, G, Ki, Mi or Gi";
/// Runtimes give up to 2^35 - 1 bits where no burst was asked for; the model admits a little less.
const LONGEST_BURST: u64 = 34_359_738_360;
const MOST_DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<QosControls, Error> {
        let pairs = pairs.iter();
        annotated(
            &pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, value) in [
            ("0", Some(0)),
            ("1500", Some(1_500)),
            ("10M", Some(10_000_000)),
            ("1.5M", Some(1_500_000)),
            (".5G", Some(500_000_000)),
            ("1Ki", Some(1_024)),
            ("2Gi", Some(2_147_483_648)),
            ("1.0001k", Some(1_001)),
            ("9E", Some(9_000_000_000_000_000_000)),
            ("10E", None),
            ("", None),
            (".", None),
            ("M", None),
            ("-1", None),
            ("1K", None),
            ("1ki", None),
            ("1i", None),
            ("1Mb", None),
            ("1.2.3", None),
            ("10 M", None),
        ] {
            assert_eq!(quantity(text), value, "{text}");
        }
    }

    #[test]
    fn calicos_annotations_count_before_those_of_kubernetes() {
        let controls = read(&[
            ("kubernetes.io/ingress-bandwidth", "1M"),
            ("kubernetes.io/egress-bandwidth", "2M"),
            ("qos.projectcalico.org/ingressBandwidth", "3M"),
            ("qos.projectcalico.org/ingressBurst", "1M"),
            ("qos.projectcalico.org/egressMaxConnections", "20"),
            ("qos.projectcalico.org/dscp", "EF"),
            ("qos.projectcalico.org/of-a-later-day", "x"),
            ("example.org/other", "x"),
        ])
        .unwrap();
        assert_eq!(controls.ingress_bandwidth, Some(3_000_000));
        assert_eq!(controls.egress_bandwidth, Some(2_000_000));
        assert_eq!(controls.ingress_burst, Some(1_000_000));
        assert_eq!(controls.egress_max_connections, Some(20));
        assert!(controls.dscp.is_some());
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (name, value) in [
            ("kubernetes.io/ingress-bandwidth", "fast"),
            ("kubernetes.io/egress-bandwidth", "999"),
            ("qos.projectcalico.org/ingressPacketRate", "20k"),
            ("qos.projectcalico.org/egressMaxConnections", "0"),
            ("qos.projectcalico.org/dscp", "64"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(error.msg.contains(name), "{error}");
        }
    }

    #[test]
    fn the_runtimes_limits_fill_in_what_the_pod_leaves_out() {
        let asked = Bandwidth {
            ingress_rate: 1_000_000,
            ingress_burst: (1 << 35) - 1,
            egress_rate: 2_000_000,
            egress_burst: 0,
        };
        let annotated = read(&[("qos.projectcalico.org/egressBandwidth", "5M")]).unwrap();
        let controls = merged(annotated, Some(asked)).unwrap().unwrap();
        assert_eq!(controls.ingress_bandwidth, Some(1_000_000));
        assert_eq!(controls.ingress_burst, Some(34_359_738_360));
        assert_eq!(controls.egress_bandwidth, Some(5_000_000));
        assert_eq!(controls.egress_burst, None);
        let none = Some(Bandwidth::default());
        assert_eq!(merged(QosControls::default(), none).unwrap(), None);
        assert_eq!(merged(QosControls::default(), None).unwrap(), None);
        let slow = Bandwidth {
            ingress_rate: 10,
            ..Bandwidth::default()
        };
        let error = merged(QosControls::default(), Some(slow)).unwrap_err();
        assert!(error.msg.contains("runtimeConfig.bandwidth"), "{error}");
    }
}
