//! Which addresses a call asks of our own IPAM.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use margay_cni::error::{Error, code};
use margay_cni::{IpRange, NetConf, Request};
use margay_ipam_core::{Request as AddressRequest, Want};
use margay_journal::Quarantine;
use margay_model::resource::pool::AllowedUse;
use margay_model::time::Timestamp;
use margay_model::{Cidr, Family};
use serde_json::{Map, Value};

use crate::hints::state_dir;
use crate::number;

/// Values of `ipam.type` that mean our own IPAM.
pub const OWN_IPAM_TYPES: &[&str] = &["margay-ipam", "calico-ipam"];

/// The part of a configuration below `ipam`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSettings {
    /// Whether an IPv4 address is assigned.
    pub ipv4: bool,
    /// Whether an IPv6 address is assigned.
    pub ipv6: bool,
    /// The only IPv4 pools to use, by name or prefix; empty for all that select the node.
    pub ipv4_pools: Vec<String>,
    /// The only IPv6 pools to use.
    pub ipv6_pools: Vec<String>,
    /// For how long an address that was given back is used last.
    pub quarantine: Duration,
}

impl AddressSettings {
    /// Reads `ipam`, whose types have been checked.
    ///
    /// # Errors
    /// Code 7 for a switch that is neither true nor false, or when no family is left.
    pub fn read(ipam: &Map<String, Value>) -> Result<Self, Error> {
        let settings = Self {
            ipv4: switch(ipam, "assign_ipv4", true)?,
            ipv6: switch(ipam, "assign_ipv6", false)?,
            ipv4_pools: texts(ipam, "ipv4_pools"),
            ipv6_pools: texts(ipam, "ipv6_pools"),
            quarantine: number(ipam, "quarantine_seconds")
                .map_or(QUARANTINE, |seconds| Duration::from_secs(seconds.into())),
        };
        if !settings.ipv4 && !settings.ipv6 {
            return Err(Error::new(
                code::INVALID_CONFIG,
                "keys \"ipam.assign_ipv4\" and \"ipam.assign_ipv6\" are both false; set one of them to \"true\"",
            ));
        }
        Ok(settings)
    }

    /// One address of each family that is switched on.
    fn wants(&self) -> Vec<Want> {
        let mut wants = Vec::new();
        if self.ipv4 {
            wants.push(Want::Auto {
                family: Family::V4,
                pools: self.ipv4_pools.clone(),
            });
        }
        if self.ipv6 {
            wants.push(Want::Auto {
                family: Family::V6,
                pools: self.ipv6_pools.clone(),
            });
        }
        wants
    }
}

/// What the call asks of the allocator: the addresses requested by capability, arguments or `CNI_ARGS`, else
/// one out of each set of the capability `ipRanges`, else one of each family.
///
/// # Errors
/// Code 7 naming the key that cannot be used.
pub fn request(
    call: &Request,
    node: &str,
    hints: Vec<Cidr>,
    now: Timestamp,
) -> Result<AddressRequest, Error> {
    let requested = call.requested_addresses()?;
    let quarantine = match &requested[..] {
        [] => quarantine(call.conf.raw()).held(settings(&call.conf)?.quarantine),
        _ => BTreeSet::new(),
    };
    let ranges = call.conf.runtime_config()?.ip_ranges;
    let wants = if !requested.is_empty() {
        requested
            .iter()
            .map(|requested| Want::Exact(requested.address))
            .collect()
    } else if !ranges.is_empty() {
        ranges
            .iter()
            .map(|set| within(set))
            .collect::<Result<_, _>>()?
    } else {
        settings(&call.conf)?.wants()
    };
    let mut owner = BTreeMap::new();
    if let Some((namespace, pod)) = call.args.pod() {
        owner.insert("namespace".to_owned(), namespace.to_owned());
        owner.insert("pod".to_owned(), pod.to_owned());
    }
    Ok(AddressRequest {
        node: node.to_owned(),
        handle: format!("{}.{}", call.conf.name(), call.container_id),
        interface: call.ifname.clone(),
        owner,
        wants,
        purpose: AllowedUse::Workload,
        max_blocks: None,
        namespace_labels: None,
        hints,
        quarantine,
        now,
    })
}

/// The node's addresses that were given back lately.
pub fn quarantine(conf: &Map<String, Value>) -> Quarantine {
    Quarantine::below(Path::new(state_dir(conf)))
}

/// An address out of one set of ranges. They can be honoured where each is a whole pool: blocks are handed to
/// nodes from pools, not from parts of them.
fn within(set: &[IpRange]) -> Result<Want, Error> {
    let refuse = |value: String, why: &str| {
        Error::new(
            code::INVALID_CONFIG,
            format!(
                "key \"runtimeConfig.ipRanges\": {value} {why}; give whole pools, or ask for one address by \
                 the capability \"ips\""
            ),
        )
    };
    let Some(first) = set.first() else {
        return Err(refuse("[]".to_owned(), "has no range"));
    };
    let family = Family::of(first.subnet.ip());
    let mut pools = Vec::new();
    for range in set {
        let subnet = range.subnet;
        let parts = [
            ("rangeStart", range.range_start),
            ("rangeEnd", range.range_end),
            ("gateway", range.gateway),
        ];
        for (part, address) in parts {
            if let Some(address) = address {
                return Err(refuse(format!("{part} {address}"), "cannot be honoured"));
            }
        }
        if Family::of(subnet.ip()) != family {
            return Err(refuse(subnet.to_string(), "is not of the set's family"));
        }
        if subnet.ip() != subnet.network() {
            return Err(refuse(subnet.to_string(), "has bits beyond its prefix"));
        }
        pools.push(subnet.to_string());
    }
    Ok(Want::Auto { family, pools })
}

fn settings(conf: &NetConf) -> Result<AddressSettings, Error> {
    let empty = Map::new();
    AddressSettings::read(conf.ipam()?.map_or(&empty, |ipam| ipam.raw))
}

fn switch(ipam: &Map<String, Value>, key: &str, default: bool) -> Result<bool, Error> {
    match ipam.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.is_empty() => Ok(default),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(Error::invalid_key(
            &format!("ipam.{key}"),
            other,
            "give \"true\" or \"false\"",
        )),
    }
}

fn texts(ipam: &Map<String, Value>, key: &str) -> Vec<String> {
    let list = ipam.get(key).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// How long an address rests unless the configuration says otherwise.
const QUARANTINE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(ipam: Value) -> Result<AddressSettings, Error> {
        AddressSettings::read(ipam.as_object().unwrap())
    }

    #[test]
    fn ipv4_alone_is_the_default() {
        let settings = read(json!({"type": "calico-ipam"})).unwrap();
        assert!(settings.ipv4 && !settings.ipv6);
        let settings = read(json!({"assign_ipv4": "false", "assign_ipv6": true})).unwrap();
        assert!(!settings.ipv4 && settings.ipv6);
    }

    fn ranges(sets: Value) -> Result<Vec<Want>, Error> {
        let sets: Vec<Vec<IpRange>> = serde_json::from_value(sets).unwrap();
        sets.iter().map(|set| within(set)).collect()
    }

    #[test]
    fn k02_ranges_that_are_pools_are_honoured() {
        let wants = ranges(json!([
            [{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.7.0/24"}],
            [{"subnet": "fd00::/64"}]
        ]));
        let auto = |family, pools: &[&str]| Want::Auto {
            family,
            pools: pools.iter().map(|&pool| pool.to_owned()).collect(),
        };
        assert_eq!(
            wants.unwrap(),
            [
                auto(Family::V4, &["10.0.0.0/24", "10.0.7.0/24"]),
                auto(Family::V6, &["fd00::/64"])
            ]
        );
    }

    #[test]
    fn k03_ranges_that_cannot_be_honoured_are_told() {
        for (sets, word) in [
            (json!([[]]), "[]"),
            (
                json!([[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9"}]]),
                "rangeStart 10.0.0.9",
            ),
            (
                json!([[{"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.9"}]]),
                "rangeEnd 10.0.0.9",
            ),
            (
                json!([[{"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}]]),
                "gateway 10.0.0.1",
            ),
            (
                json!([[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]]),
                "fd00::/64",
            ),
            (json!([[{"subnet": "10.0.0.1/24"}]]), "10.0.0.1/24"),
        ] {
            let error = ranges(sets).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(
                error.msg.contains(word) && error.msg.contains("runtimeConfig.ipRanges"),
                "{error}"
            );
        }
    }

    #[test]
    fn nonsense_is_told() {
        let error = read(json!({"assign_ipv4": "maybe"})).unwrap_err();
        assert_eq!(error.code, code::INVALID_CONFIG);
        assert!(
            error.msg.contains("ipam.assign_ipv4") && error.msg.contains("maybe"),
            "{error}"
        );
        assert!(read(json!({"assign_ipv4": "false"})).is_err());
    }
}
