//! Ports of hosts that no policy can close.

use std::net::IpAddr;

use margay_model::Cidr;
use margay_model::scalar::Protocol;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The ports that stay open on host endpoints, so that a wrong policy locks nobody out.
///
/// They come first in the chains of [`Host`](crate::Host) that have them. Without connection tracking
/// replies have to be let through as well: what comes from an outbound port, and what leaves from an
/// inbound one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failsafes {
    /// Of the host's own: `failsafeInboundHostPorts`.
    pub inbound: Vec<Failsafe>,
    /// Of others, for the host: `failsafeOutboundHostPorts`.
    pub outbound: Vec<Failsafe>,
}

/// A port that stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failsafe {
    /// The protocol number (IANA).
    pub protocol: u8,
    /// The destination port.
    pub port: u16,
    /// Where the other side is; anywhere when `None`.
    pub net: Option<Cidr>,
}

/// A text that names no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no failsafe port such as tcp:22, tcp:10.0.0.0/8:22 or udp:[fd00::/8]:53")]
pub struct FailsafeError {
    text: String,
}

impl Failsafe {
    /// Whether it keeps a packet's way open; `other` is the other side's address.
    pub fn covers(&self, protocol: u8, port: u16, other: IpAddr) -> bool {
        self.protocol == protocol
            && self.port == port
            && self.net.is_none_or(|net| net.contains(other))
    }

    /// Reads a list as the environment has it: `tcp:22,udp:68`; nothing, or `none`, is none.
    ///
    /// # Errors
    /// An item of the list is no port.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, FailsafeError> {
        let items = text.split(',').map(str::trim);
        items
            .filter(|item| !item.is_empty() && !item.eq_ignore_ascii_case("none"))
            .map(Self::parse)
            .collect()
    }

    /// Reads a list as a FelixConfiguration has it: objects with `protocol`, `port` and `net`.
    ///
    /// # Errors
    /// The value is no list, or an item of it is no port.
    pub fn from_value(value: &Value) -> Result<Vec<Self>, FailsafeError> {
        let read = |item: &Value| {
            Self::read(item).ok_or_else(|| FailsafeError {
                text: item.to_string(),
            })
        };
        match value.as_array() {
            Some(items) => items.iter().map(read).collect(),
            None => Err(FailsafeError {
                text: value.to_string(),
            }),
        }
    }

    fn read(item: &Value) -> Option<Self> {
        let net = match item["net"].as_str() {
            None | Some("") => None,
            Some(net) => Some(net.parse().ok()?),
        };
        Some(Self {
            protocol: with_ports(item["protocol"].as_str().unwrap_or("tcp"))?,
            port: u16::try_from(item["port"].as_u64()?).ok()?,
            net,
        })
    }

    fn parse(text: &str) -> Result<Self, FailsafeError> {
        let read = || {
            let (front, port) = text.rsplit_once(':').unwrap_or(("", text));
            let (protocol, net) = front.split_once(':').unwrap_or((front, ""));
            let protocol = if protocol.is_empty() { "tcp" } else { protocol };
            let net = net
                .strip_prefix('[')
                .map_or(net, |net| net.trim_end_matches(']'));
            let net = match net {
                "" => None,
                net => Some(net.parse().ok()?),
            };
            Some(Self {
                protocol: with_ports(protocol)?,
                port: port.parse().ok()?,
                net,
            })
        };
        read().ok_or_else(|| FailsafeError {
            text: text.to_owned(),
        })
    }
}

impl Default for Failsafes {
    /// Calico's: SSH, DHCP, DNS, BGP, etcd, Typha and Kubernetes' API.
    fn default() -> Self {
        let list = |ports: &[(u8, u16)]| {
            let failsafe = |(protocol, port): &(u8, u16)| Failsafe {
                protocol: *protocol,
                port: *port,
                net: None,
            };
            ports.iter().map(failsafe).collect()
        };
        Self {
            inbound: list(&INBOUND),
            outbound: list(&OUTBOUND),
        }
    }
}

fn with_ports(protocol: &str) -> Option<u8> {
    let protocol = Protocol::parse(protocol);
    protocol.number().filter(|_| protocol.has_ports())
}

const TCP: u8 = 6;
const UDP: u8 = 17;

const INBOUND: [(u8, u16); 9] = [
    (TCP, 22),
    (UDP, 68),
    (TCP, 179),
    (TCP, 2379),
    (TCP, 2380),
    (TCP, 5473),
    (TCP, 6443),
    (TCP, 6666),
    (TCP, 6667),
];

const OUTBOUND: [(u8, u16); 9] = [
    (UDP, 53),
    (UDP, 67),
    (TCP, 179),
    (TCP, 2379),
    (TCP, 2380),
    (TCP, 5473),
    (TCP, 6443),
    (TCP, 6666),
    (TCP, 6667),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn failsafe(protocol: u8, port: u16, net: Option<&str>) -> Failsafe {
        Failsafe {
            protocol,
            port,
            net: net.map(|net| net.parse().unwrap()),
        }
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(
            Failsafe::parse_list("tcp:22, udp:10.0.0.0/8:53,tcp:[fd00::/8]:179, 80"),
            Ok(vec![
                failsafe(TCP, 22, None),
                failsafe(UDP, 53, Some("10.0.0.0/8")),
                failsafe(TCP, 179, Some("fd00::/8")),
                failsafe(TCP, 80, None),
            ])
        );
        assert_eq!(Failsafe::parse_list("none"), Ok(vec![]));
        assert_eq!(Failsafe::parse_list(""), Ok(vec![]));
        for text in ["tcp", "icmp:1", "tcp:x:22", "tcp:70000"] {
            assert!(Failsafe::parse_list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn configurations_are_read() {
        let value = serde_json::json!([
            {"protocol": "tcp", "port": 22},
            {"protocol": "udp", "port": 68, "net": "10.0.0.0/8"},
        ]);
        assert_eq!(
            Failsafe::from_value(&value),
            Ok(vec![
                failsafe(TCP, 22, None),
                failsafe(UDP, 68, Some("10.0.0.0/8"))
            ])
        );
        for value in [
            serde_json::json!({}),
            serde_json::json!([{"protocol": "tcp"}]),
            serde_json::json!([{"protocol": "tcp", "port": 70000}]),
            serde_json::json!([{"protocol": "tcp", "port": 1, "net": "x"}]),
        ] {
            assert!(Failsafe::from_value(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn networks_limit() {
        let ssh = failsafe(TCP, 22, Some("10.0.0.0/8"));
        assert!(ssh.covers(TCP, 22, "10.1.2.3".parse().unwrap()));
        assert!(!ssh.covers(TCP, 22, "11.1.2.3".parse().unwrap()));
        assert!(!ssh.covers(UDP, 22, "10.1.2.3".parse().unwrap()));
    }
}
