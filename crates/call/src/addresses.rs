//! Which addresses a call asks of our own IPAM.

use std::collections::BTreeMap;

use margay_cni::error::{Error, code};
use margay_cni::{NetConf, Request};
use margay_ipam_core::{Request as AddressRequest, Want};
use margay_model::resource::pool::AllowedUse;
use margay_model::time::Timestamp;
use margay_model::{Cidr, Family};
use serde_json::{Map, Value};

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
/// one of each family.
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
    let wants = if requested.is_empty() {
        settings(&call.conf)?.wants()
    } else {
        requested
            .iter()
            .map(|requested| Want::Exact(requested.address))
            .collect()
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
        now,
    })
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
