//! The object `runtimeConfig`: arguments for the capabilities that a configuration declares.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::args::RequestedAddress;
use crate::error::Error;
use crate::mac::MacAddress;

/// The capabilities' arguments; absent ones are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeConfig {
    /// `ips`: addresses asked for.
    pub ips: Vec<RequestedAddress>,
    /// `mac`: the Ethernet address asked for.
    pub mac: Option<MacAddress>,
    /// `portMappings`.
    pub port_mappings: Vec<PortMapping>,
    /// `bandwidth`.
    pub bandwidth: Option<Bandwidth>,
    /// `ipRanges`: one set of ranges for each address wanted.
    pub ip_ranges: Vec<Vec<IpRange>>,
    /// `dns`.
    pub dns: Option<RuntimeDns>,
    /// Everything else, as it stands.
    pub other: Map<String, Value>,
}

/// A port of the node that leads to a port of the container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Port on the node; 0 for none.
    #[serde(default)]
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`, in any case; empty means tcp.
    #[serde(default)]
    pub protocol: String,
    /// Address of the node on which the port is opened; empty for all.
    #[serde(default, rename = "hostIP")]
    pub host_ip: String,
}

/// Limits of traffic; 0 for no limit. Named from the container's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bandwidth {
    /// Rate towards the container, in bits per second.
    pub ingress_rate: u64,
    /// Burst towards the container, in bits.
    pub ingress_burst: u64,
    /// Rate from the container, in bits per second.
    pub egress_rate: u64,
    /// Burst from the container, in bits.
    pub egress_burst: u64,
}

/// A range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpRange {
    /// The prefix.
    pub subnet: IpNetwork,
    /// First address to use.
    #[serde(default)]
    pub range_start: Option<IpAddr>,
    /// Last address to use.
    #[serde(default)]
    pub range_end: Option<IpAddr>,
    /// Address of the gateway.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

/// A resolver's settings as a runtime gives them; the names differ from a result's `dns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RuntimeDns {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

impl RuntimeConfig {
    /// Reads the object.
    ///
    /// # Errors
    /// Code 7 naming the key and its value.
    pub fn parse(raw: &Map<String, Value>) -> Result<Self, Error> {
        let mut config = Self::default();
        for (key, value) in raw {
            if value.is_null() {
                continue;
            }
            let path = format!("runtimeConfig.{key}");
            match key.as_str() {
                "ips" => config.ips = addresses(&path, value)?,
                "mac" => config.mac = mac(&path, value)?,
                "portMappings" => {
                    config.port_mappings = typed(
                        &path,
                        value,
                        "give a list of hostPort, containerPort, protocol and hostIP",
                    )?;
                }
                "bandwidth" => {
                    config.bandwidth = Some(typed(
                        &path,
                        value,
                        "give ingressRate, ingressBurst, egressRate and egressBurst as numbers",
                    )?);
                }
                "ipRanges" => {
                    config.ip_ranges = typed(
                        &path,
                        value,
                        "give a list of lists of subnet, rangeStart, rangeEnd and gateway",
                    )?;
                }
                "dns" => {
                    config.dns = Some(typed(
                        &path,
                        value,
                        "give lists servers, searches and options",
                    )?);
                }
                _ => {
                    config.other.insert(key.clone(), value.clone());
                }
            }
        }
        Ok(config)
    }
}

/// A list of addresses, each with or without a prefix length.
pub(crate) fn addresses(path: &str, value: &Value) -> Result<Vec<RequestedAddress>, Error> {
    let remedy = "give a list of addresses such as [\"10.0.0.5\"]";
    let fault = |part: &Value| Error::invalid_key(path, part, remedy);
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list
            .iter()
            .map(|one| {
                one.as_str()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| fault(one))
            })
            .collect(),
        other => Err(fault(other)),
    }
}

fn mac(path: &str, value: &Value) -> Result<Option<MacAddress>, Error> {
    match value.as_str() {
        Some("") => Ok(None),
        text => text
            .and_then(|text| text.parse().ok())
            .map(Some)
            .ok_or_else(|| Error::invalid_key(path, value, "give one such as 0a:58:0a:00:00:05")),
    }
}

fn typed<T: DeserializeOwned>(path: &str, value: &Value, remedy: &str) -> Result<T, Error> {
    T::deserialize(value)
        .map_err(|source| Error::invalid_key(path, value, remedy).with_details(source.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::code;

    fn parse(text: &str) -> Result<RuntimeConfig, Error> {
        RuntimeConfig::parse(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn k02_all_typed_capabilities_and_the_rest() {
        let config = parse(
            r#"{"ips":["10.0.0.5/24"],"mac":"0a:58:0a:00:00:05",
                "portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"TCP","hostIP":""}],
                "bandwidth":{"ingressRate":1000,"ingressBurst":34359738367},
                "ipRanges":[[{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.5"}]],
                "dns":{"servers":["10.0.0.2"],"searches":["a"],"options":["ndots:5"]},
                "io.kubernetes.cri.pod-annotations":{"a":"b"},"deviceID":null}"#,
        )
        .unwrap();
        assert_eq!(config.ips[0].prefix, Some(24));
        assert_eq!(config.port_mappings[0].container_port, 8080);
        assert_eq!(config.bandwidth.unwrap().ingress_burst, (1 << 35) - 1);
        assert_eq!(
            config.ip_ranges[0][0].range_start,
            Some("10.1.0.5".parse().unwrap())
        );
        assert_eq!(config.dns.unwrap().searches, ["a"]);
        assert_eq!(config.other["io.kubernetes.cri.pod-annotations"]["a"], "b");
        assert!(!config.other.contains_key("deviceID"));
    }

    #[test]
    fn k03_unusable_capability_names_key_and_value() {
        for (text, key) in [
            (r#"{"ips":["10.0.0.300"]}"#, "runtimeConfig.ips"),
            (r#"{"ips":"10.0.0.3"}"#, "runtimeConfig.ips"),
            (r#"{"mac":"x"}"#, "runtimeConfig.mac"),
            (
                r#"{"portMappings":[{"hostPort":70000}]}"#,
                "runtimeConfig.portMappings",
            ),
            (
                r#"{"bandwidth":{"ingressRate":-1}}"#,
                "runtimeConfig.bandwidth",
            ),
            (
                r#"{"ipRanges":[{"subnet":"10.0.0.0/8"}]}"#,
                "runtimeConfig.ipRanges",
            ),
            (r#"{"dns":[1]}"#, "runtimeConfig.dns"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(error.msg.contains(key), "{}", error.msg);
        }
    }
}
