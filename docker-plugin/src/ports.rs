//! Ports of the host that lead to containers; pure.
//!
//! Docker's own proxy and rules serve its bridge networks alone, so a remote driver does this itself. A port is part of
//! the endpoint's record, in the commit that makes the endpoint; what the kernel must do follows from the records of
//! the node's endpoints, all of them, whenever it is asked: [`PortMap::of`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use margay_ipam_core::detach::addresses_of;
use margay_model::resource::endpoint::{WorkloadEndpoint, WorkloadPort};
use margay_model::scalar::Protocol;
use margay_model::{Cidr, Family};
use margay_ruleset::{
    Base, Chain, ChainKind, DataType, Field, Hook, Key, Rule, Set, Side, Statement, Table,
};

use crate::error::{DriverError, Result};
use crate::protocol::PortBinding;

/// The name that published ports have in endpoints' records, so that policy can speak of them.
pub const PUBLISHED: &str = "docker-published";

/// The transports that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// 6.
    Tcp,
    /// 17.
    Udp,
    /// 132.
    Sctp,
}

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The transport.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// The only address of the host at which it leads on; all of the family where `None`.
    pub address: Option<IpAddr>,
}

/// What the kernel must do for the ports of one family: translate the destination of what is sent to a host port, and
/// the source of what a container so sends to itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortMap {
    /// Where each host port leads, IPv4 to IPv4 and IPv6 to IPv6.
    pub forwards: BTreeMap<(bool, HostPort), SocketAddr>,
    /// Host ports that two endpoints claim: the second is left out.
    pub conflicts: Vec<HostPort>,
}

impl Transport {
    /// By the IP protocol's number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The IP protocol's number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
            Self::Sctp => Protocol::Sctp,
        }
    }
}

/// Chooses a host port for each binding that is to be published. `taken` are those of the node's other endpoints.
///
/// # Errors
/// A port is taken, or a binding makes no sense.
pub fn choose(
    bindings: &[PortBinding],
    taken: &BTreeMap<HostPort, String>,
) -> Result<Vec<WorkloadPort>> {
    let mut chosen = Vec::new();
    let mut mine = BTreeSet::new();
    for binding in bindings {
        let malformed = |what: String| DriverError::Malformed(format!("port binding: {what}"));
        let transport = Transport::from_number(binding.proto)
            .ok_or_else(|| malformed(format!("protocol {} has no ports", binding.proto)))?;
        if binding.port == 0 {
            return Err(malformed("container port 0".to_owned()));
        }
        let address = match binding.host_ip.as_str() {
            "" | "0.0.0.0" | "::" => None,
            text => Some(
                text.parse()
                    .map_err(|_| malformed(format!("host address {text:?}")))?,
            ),
        };
        let range: RangeInclusive<u16> = match (binding.host_port, binding.host_port_end) {
            (0, _) => DYNAMIC,
            (first, last) => first..=last.max(first),
        };
        let clashes = |one: &HostPort, port: u16| {
            let same_place = address.is_none() || one.address.is_none() || one.address == address;
            one.transport == transport && one.port == port && same_place
        };
        let first = *range.start();
        let free = range
            .into_iter()
            .find(|port| !taken.keys().chain(&mine).any(|one| clashes(one, *port)));
        let Some(port) = free else {
            let holder = taken.iter().find(|(one, _)| clashes(one, first));
            return Err(DriverError::PortTaken {
                port: first,
                protocol: transport.name(),
                holder: holder.map(|(_, holder)| holder.clone()).unwrap_or_default(),
            });
        };
        mine.insert(HostPort {
            transport,
            port,
            address,
        });
        chosen.push(WorkloadPort {
            name: PUBLISHED.to_owned(),
            protocol: Some(transport.protocol()),
            port: binding.port,
            host_port: port,
            host_ip: address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            ..WorkloadPort::default()
        });
    }
    Ok(chosen)
}

/// The host ports of an endpoint, with the container's.
pub fn published(endpoint: &WorkloadEndpoint) -> impl Iterator<Item = (HostPort, u16)> + '_ {
    endpoint
        .spec
        .ports
        .iter()
        .filter(|port| port.host_port != 0)
        .filter_map(|port| {
            let host = HostPort {
                transport: Transport::from_number(port.protocol.as_ref()?.number()?)?,
                port: port.host_port,
                address: match port.host_ip.as_str() {
                    "" => None,
                    text => Some(text.parse().ok()?),
                },
            };
            Some((host, port.port))
        })
}

impl PortMap {
    /// What follows from a node's endpoints.
    pub fn of<'e>(endpoints: impl IntoIterator<Item = &'e WorkloadEndpoint>) -> Self {
        let mut map = Self::default();
        for endpoint in endpoints {
            for (host, port) in published(endpoint) {
                for address in addresses_of(endpoint) {
                    let v4 = address.is_ipv4();
                    if host.address.is_some_and(|host| host.is_ipv4() != v4) {
                        continue;
                    }
                    let to = SocketAddr::new(address, port);
                    if *map.forwards.entry((v4, host)).or_insert(to) != to {
                        map.conflicts.push(host);
                    }
                }
            }
        }
        map
    }
}

impl PortMap {
    /// The table that does it, `locals` being the host's own addresses: what is sent to one of them from outside or by
    /// the host itself, and the way of a container to itself by the host. It needs no more when it is empty.
    pub fn table(&self, locals: &BTreeSet<IpAddr>) -> Table {
        let mut table = Table::new(TABLE, "ports that containers publish");
        for (v4, name, data) in [
            (true, LOCALS_V4, DataType::Ipv4),
            (false, LOCALS_V6, DataType::Ipv6),
        ] {
            let own = locals.iter().filter(|local| local.is_ipv4() == v4);
            let keys = own.map(|local| Key::of(octets(*local)));
            table.put_set(name, Set::new([data]).with(keys));
        }
        let forwards: Vec<Rule> = self.forwards.iter().map(forward).collect();
        let containers: BTreeSet<IpAddr> = self.forwards.values().map(SocketAddr::ip).collect();
        let loops: Vec<Rule> = containers.into_iter().map(to_itself).collect();
        for (name, hook, priority, rules) in [
            (
                "prerouting",
                Hook::Prerouting,
                DESTINATION_NAT,
                forwards.clone(),
            ),
            ("output", Hook::Output, DESTINATION_NAT, forwards),
            ("postrouting", Hook::Postrouting, SOURCE_NAT, loops),
        ] {
            let base = Base {
                kind: ChainKind::Nat,
                hook,
                priority,
            };
            table.put_chain(name, Chain::base(base, rules));
        }
        table
    }
}

fn forward(((v4, host), to): (&(bool, HostPort), &SocketAddr)) -> Rule {
    let family = if *v4 { Family::V4 } else { Family::V6 };
    let at = match host.address {
        Some(address) => host_prefix(Side::Destination, address),
        None => {
            let locals = if *v4 { LOCALS_V4 } else { LOCALS_V6 };
            Statement::within([Field::Address(Side::Destination, family)], locals)
        }
    };
    Rule::new([
        Statement::Family(family),
        at,
        Statement::protocol(host.transport.number()),
        Statement::is(Field::Port(Side::Destination), host.port.to_be_bytes()),
        Statement::DestinationNat {
            address: to.ip(),
            port: to.port(),
        },
    ])
}

/// A container that is led back to itself must not see its own address as the sender's.
fn to_itself(container: IpAddr) -> Rule {
    Rule::new([
        Statement::Family(Family::of(container)),
        host_prefix(Side::Source, container),
        host_prefix(Side::Destination, container),
        Statement::Masquerade { ports: None },
    ])
}

fn host_prefix(side: Side, address: IpAddr) -> Statement {
    Statement::Prefix {
        side,
        prefix: Cidr::host(address),
        negated: false,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The nftables table of published ports.
pub const TABLE: &str = "margay-docker";
const LOCALS_V4: &str = "locals4";
const LOCALS_V6: &str = "locals6";
/// `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC`.
const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;
/// From which host ports are chosen where none is asked for (RFC 6335, section 6).
const DYNAMIC: RangeInclusive<u16> = 49_152..=65_535;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use margay_model::Metadata;
    use margay_model::resource::endpoint::WorkloadEndpointSpec;

    use super::*;

    fn binding(proto: u8, host_ip: &str, host_port: u16, port: u16) -> PortBinding {
        PortBinding {
            proto,
            port,
            host_ip: host_ip.to_owned(),
            host_port,
            host_port_end: host_port,
        }
    }

    fn endpoint(addresses: &[&str], ports: Vec<WorkloadPort>) -> WorkloadEndpoint {
        let spec = WorkloadEndpointSpec {
            ip_networks: addresses.iter().map(|one| (*one).to_owned()).collect(),
            ports,
            ..WorkloadEndpointSpec::default()
        };
        WorkloadEndpoint::new(Metadata::default(), spec)
    }

    #[test]
    fn a_published_port_leads_to_each_address() {
        let ports = choose(&[binding(6, "", 8080, 80)], &BTreeMap::new()).unwrap();
        assert_eq!((ports[0].host_port, ports[0].port), (8080, 80));
        let map = PortMap::of([&endpoint(&["10.0.0.1/32", "fd00::1/128"], ports)]);
        let to: Vec<String> = map.forwards.values().map(SocketAddr::to_string).collect();
        assert_eq!(to, ["[fd00::1]:80", "10.0.0.1:80"]);
        assert!(map.conflicts.is_empty());
    }

    #[test]
    fn ports_that_nobody_names_are_chosen_and_differ() {
        let any = [
            binding(6, "", 0, 80),
            binding(6, "", 0, 81),
            binding(17, "", 0, 80),
        ];
        let ports = choose(&any, &BTreeMap::new()).unwrap();
        let hosts: Vec<u16> = ports.iter().map(|port| port.host_port).collect();
        assert_eq!(hosts, [49_152, 49_153, 49_152]);
    }

    #[test]
    fn a_taken_port_is_refused_unless_the_range_has_another() {
        let taken = |address: Option<&str>| {
            let host = HostPort {
                transport: Transport::Tcp,
                port: 8080,
                address: address.map(|address| address.parse().unwrap()),
            };
            BTreeMap::from([(host, "e1".to_owned())])
        };
        let error = choose(&[binding(6, "", 8080, 80)], &taken(None)).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("8080/TCP is taken by endpoint e1"),
            "{error}"
        );
        assert!(choose(&[binding(17, "", 8080, 80)], &taken(None)).is_ok());
        let elsewhere = binding(6, "10.1.1.1", 8080, 80);
        assert!(choose(std::slice::from_ref(&elsewhere), &taken(Some("10.1.1.2"))).is_ok());
        assert!(choose(&[elsewhere], &taken(None)).is_err());
        let mut range = binding(6, "", 8080, 80);
        range.host_port_end = 8082;
        assert_eq!(choose(&[range], &taken(None)).unwrap()[0].host_port, 8081);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            binding(1, "", 80, 80),
            binding(6, "here", 80, 80),
            binding(6, "", 80, 0),
        ] {
            let error = choose(&[bad], &BTreeMap::new()).unwrap_err();
            assert!(matches!(error, DriverError::Malformed(_)), "{error}");
        }
    }

    #[test]
    fn the_table_translates_and_lets_containers_reach_themselves() {
        let ports = choose(
            &[binding(6, "", 8080, 80), binding(17, "10.1.1.1", 53, 53)],
            &BTreeMap::new(),
        );
        let map = PortMap::of([&endpoint(&["10.0.0.1/32"], ports.unwrap())]);
        let locals = BTreeSet::from(["172.31.0.1".parse().unwrap()]);
        let table = map.table(&locals);
        let rules = |chain: &str| -> Vec<String> {
            let rules = &table.chains()[chain].rules;
            rules
                .iter()
                .map(|rule| {
                    let words = rule.statements.iter().map(ToString::to_string);
                    words.collect::<Vec<_>>().join(" ")
                })
                .collect()
        };
        let forwards = [
            "meta nfproto ipv4 ip daddr @locals4 meta l4proto tcp th dport 8080 dnat ip to 10.0.0.1:80",
            "meta nfproto ipv4 ip daddr 10.1.1.1/32 meta l4proto udp th dport 53 dnat ip to 10.0.0.1:53",
        ];
        assert_eq!(rules("prerouting"), forwards);
        assert_eq!(rules("output"), forwards);
        let loops =
            "meta nfproto ipv4 ip saddr 10.0.0.1/32 ip daddr 10.0.0.1/32 masquerade fully-random";
        assert_eq!(rules("postrouting"), [loops]);
    }

    #[test]
    fn two_claims_of_a_port_are_told() {
        let ports = choose(&[binding(6, "", 8080, 80)], &BTreeMap::new()).unwrap();
        let one = endpoint(&["10.0.0.1/32"], ports.clone());
        let two = endpoint(&["10.0.0.2/32"], ports);
        let map = PortMap::of([&one, &two]);
        assert_eq!((map.forwards.len(), map.conflicts.len()), (1, 1));
    }
}
