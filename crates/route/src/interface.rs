//! Which interface reaches an address directly.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

/// An interface and the addresses it bears, each with its prefix length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InterfaceAddresses {
    /// The interface's name.
    pub name: String,
    /// Its addresses, unmasked (`10.0.0.5/24`).
    pub addresses: Vec<IpNetwork>,
}

/// The interface on whose link `addr` lies, by the longest prefix; `None` if no subnet holds it.
///
/// An address that an interface itself bears is local, not a neighbour: `None`. Host prefixes
/// (`/32`, `/128`) put nothing on a link. IPv6 link-local addresses are on every link and so on
/// none in particular: `None`.
#[must_use]
pub fn on_link(addr: IpAddr, interfaces: &[InterfaceAddresses]) -> Option<&InterfaceAddresses> {
    if let IpAddr::V6(v6) = addr
        && v6.is_unicast_link_local()
    {
        return None;
    }
    let mut best: Option<(u8, &InterfaceAddresses)> = None;
    for interface in interfaces {
        for network in &interface.addresses {
            if network.ip() == addr {
                return None;
            }
            let host = if network.is_ipv4() { 32 } else { 128 };
            let wider = best.is_none_or(|(length, _)| network.prefix() > length);
            if network.prefix() < host && network.contains(addr) && wider {
                best = Some((network.prefix(), interface));
            }
        }
    }
    best.map(|(_, interface)| interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces() -> Vec<InterfaceAddresses> {
        [
            ("eth0", vec!["10.0.0.5/16", "fe80::5/64", "2001:db8::5/64"]),
            ("eth1", vec!["10.0.7.5/24"]),
            ("lo", vec!["127.0.0.1/8", "192.0.2.1/32"]),
        ]
        .into_iter()
        .map(|(name, addresses)| InterfaceAddresses {
            name: name.to_owned(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        })
        .collect()
    }

    fn found(addr: &str) -> Option<String> {
        on_link(addr.parse().unwrap(), &interfaces()).map(|i| i.name.clone())
    }

    #[test]
    fn the_longest_prefix_wins() {
        assert_eq!(found("10.0.7.9").as_deref(), Some("eth1"));
        assert_eq!(found("10.0.8.9").as_deref(), Some("eth0"));
        assert_eq!(found("2001:db8::9").as_deref(), Some("eth0"));
    }

    #[test]
    fn own_addresses_host_prefixes_and_link_locals_are_on_no_link() {
        assert_eq!(found("10.0.7.5"), None);
        assert_eq!(found("192.0.2.1"), None);
        assert_eq!(found("192.0.2.2"), None);
        assert_eq!(found("fe80::9"), None);
        assert_eq!(found("203.0.113.1"), None);
    }
}
