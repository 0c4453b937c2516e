//! The plan of an endpoint: what the applier sets, in the order in which it sets it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_route::{
    GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Mac, Neighbour, PROTOCOL_BOOT, Route, Scope,
};
use serde::Serialize;

use crate::{Expected, Mark, is_valid_interface_name};

/// What is known of an endpoint before anything is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointSpec {
    /// The host end's name.
    pub host_name: String,
    /// The container end's name.
    pub container_name: String,
    /// The container end's MAC, chosen by the caller ([`Mac::local`] over random octets).
    pub container_mac: Mac,
    /// The MTU of both ends; `None` leaves the kernel's 1500.
    pub mtu: Option<u32>,
    /// Transmit and receive queues of both ends; 1 unless asked.
    pub queues: u32,
    /// The endpoint's addresses, of either family or both; prefix lengths are ignored.
    pub addresses: Vec<IpAddr>,
    /// Destinations routed through the gateway instead of everything.
    pub routes: Vec<IpNetwork>,
    /// Route everything through the gateway although `routes` names destinations.
    pub include_default_routes: bool,
    /// Whether the container may forward packets.
    pub allow_ip_forwarding: bool,
    /// Whose it is.
    pub mark: Mark,
}

/// Everything that makes an endpoint work, as a value.
///
/// One message creates the pair, its peer directly inside the container's namespace with name, MAC
/// and MTU set. Nothing waits for duplicate address detection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointPlan {
    /// The pair.
    pub veth: VethPair,
    /// What is set inside the container.
    pub container: Side,
    /// What is set on the host.
    pub host: Side,
}

/// The pair of interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VethPair {
    /// The host end's name.
    pub host_name: String,
    /// The host end's MAC. It is part of the creating message, so the kernel counts it as set by
    /// a user, and udev's `MACAddressPolicy=persistent` leaves it alone.
    pub host_mac: Mac,
    /// The container end's name.
    pub container_name: String,
    /// The container end's MAC.
    pub container_mac: Mac,
    /// The MTU of both ends.
    pub mtu: Option<u32>,
    /// Transmit and receive queues of both ends.
    pub queues: u32,
    /// The host end's alias.
    pub mark: Mark,
}

/// What is set at one end, in this order: kernel settings while the interface is down, then
/// interfaces up, addresses, neighbours, routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Kernel settings.
    pub sysctls: Vec<Sysctl>,
    /// Interfaces to bring up.
    pub up: Vec<String>,
    /// Addresses of the endpoint's interface.
    pub addresses: Vec<Address>,
    /// Permanent neighbour entries.
    pub neighbours: Vec<Neighbour>,
    /// Routes, each after those it needs.
    pub routes: Vec<Route>,
}

/// A kernel setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sysctl {
    /// The path below `/proc/sys`.
    pub path: String,
    /// The value.
    pub value: String,
    /// Whether a kernel without this setting (IPv6 switched off) is as good.
    pub optional: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Address {
    /// The address with its prefix length, unmasked.
    pub network: IpNetwork,
    /// Universe or link.
    pub scope: Scope,
    /// Usable at once, without duplicate address detection (`IFA_F_NODAD`).
    pub nodad: bool,
}

impl EndpointPlan {
    /// The plan of an endpoint.
    ///
    /// # Errors
    /// [`SpecError`] if the kernel could not hold what the specification asks.
    pub fn new(spec: &EndpointSpec) -> Result<Self, SpecError> {
        for name in [&spec.host_name, &spec.container_name] {
            if !is_valid_interface_name(name) {
                return Err(SpecError::Name { name: name.clone() });
            }
        }
        if let Some(mtu) = spec.mtu.filter(|mtu| !MTU_RANGE.contains(mtu)) {
            return Err(SpecError::Mtu { mtu });
        }
        let v6 = spec.addresses.iter().any(IpAddr::is_ipv6);
        if v6 && spec.mtu.is_some_and(|mtu| mtu < MIN_MTU_V6) {
            return Err(SpecError::MtuForV6 {
                mtu: spec.mtu.unwrap_or_default(),
            });
        }
        Ok(Self {
            veth: VethPair {
                host_name: spec.host_name.clone(),
                host_mac: GATEWAY_MAC,
                container_name: spec.container_name.clone(),
                container_mac: spec.container_mac,
                mtu: spec.mtu,
                queues: spec.queues.max(1),
                mark: spec.mark.clone(),
            },
            container: container_side(spec, v6),
            host: host_side(spec, v6),
        })
    }

    /// What CHECK expects of the endpoint that this plan makes.
    #[must_use]
    pub fn expected(&self) -> Expected {
        Expected::of(self)
    }
}

/// The container's routes: `169.254.1.1` on the link (IPv4), then each destination through its
/// family's gateway. Destinations of a family without an address are left out: they would have no
/// gateway.
#[must_use]
pub fn container_routes(spec: &EndpointSpec) -> Vec<Route> {
    let mut routes = Vec::new();
    let dev = spec.container_name.as_str();
    for v4 in [true, false] {
        if !spec.addresses.iter().any(|address| address.is_ipv4() == v4) {
            continue;
        }
        let gateway: IpAddr = if v4 {
            GATEWAY_V4.into()
        } else {
            GATEWAY_V6.into()
        };
        if v4 {
            routes.push(Route::on_link(host_network(gateway), dev, PROTOCOL_BOOT));
        }
        let mut destinations: Vec<IpNetwork> = spec
            .routes
            .iter()
            .copied()
            .filter(|dst| dst.is_ipv4() == v4)
            .collect();
        if spec.routes.is_empty() || spec.include_default_routes {
            destinations.push(default_network(v4));
        }
        for dst in destinations {
            let route = Route::via(dst, gateway, dev, PROTOCOL_BOOT);
            if !routes.contains(&route) {
                routes.push(route);
            }
        }
    }
    routes
}

fn container_side(spec: &EndpointSpec, v6: bool) -> Side {
    let dev = spec.container_name.as_str();
    let v4 = spec.addresses.iter().any(IpAddr::is_ipv4);
    let forwarding = if spec.allow_ip_forwarding { "1" } else { "0" };
    let mut sysctls = Vec::new();
    if v4 {
        sysctls.push(required("net/ipv4/ip_forward".to_owned(), forwarding));
    }
    if v6 {
        // Runtimes switch IPv6 off in fresh namespaces; an address alone would be refused.
        for scope in ["all", "default", "lo", dev] {
            sysctls.push(required(format!("net/ipv6/conf/{scope}/disable_ipv6"), "0"));
        }
        sysctls.push(required(format!("net/ipv6/conf/{dev}/accept_dad"), "0"));
        sysctls.push(required(
            "net/ipv6/conf/all/forwarding".to_owned(),
            forwarding,
        ));
    }
    // Routers and addresses come from us alone, never from an advertisement.
    sysctls.push(Sysctl {
        path: format!("net/ipv6/conf/{dev}/accept_ra"),
        value: "0".to_owned(),
        optional: !v6,
    });
    let mut neighbours = Vec::new();
    if v4 {
        neighbours.push(Neighbour::permanent(GATEWAY_V4.into(), GATEWAY_MAC, dev));
    }
    if v6 {
        neighbours.push(Neighbour::permanent(GATEWAY_V6.into(), GATEWAY_MAC, dev));
    }
    Side {
        sysctls,
        up: vec!["lo".to_owned(), dev.to_owned()],
        addresses: spec
            .addresses
            .iter()
            .map(|address| endpoint_address(*address))
            .collect(),
        neighbours,
        routes: container_routes(spec),
    }
}

fn host_side(spec: &EndpointSpec, v6: bool) -> Side {
    let dev = spec.host_name.as_str();
    let pod_neighbour = |ip: &IpAddr| Neighbour::permanent(*ip, spec.container_mac, dev);
    let pod_route = |ip: &IpAddr| Route::on_link(host_network(*ip), dev, PROTOCOL_BOOT);
    let mut addresses = Vec::new();
    if v6 {
        addresses.push(Address {
            network: with_prefix(GATEWAY_V6.into(), 64),
            scope: Scope::Link,
            nodad: true,
        });
    }
    Side {
        sysctls: host_sysctls(spec, v6),
        up: vec![dev.to_owned()],
        addresses,
        neighbours: spec.addresses.iter().map(pod_neighbour).collect(),
        routes: spec.addresses.iter().map(pod_route).collect(),
    }
}

/// The host end's settings.
///
/// Calico also sets `route_localnet=1`. It is left at 0 here: it lets packets to and from
/// 127.0.0.0/8 in and out of the interface, and with that exposes services bound to the loopback
/// address to any workload that routes or translates its way there. Nothing in the dataplane needs
/// it. `rp_filter` stays as the administrator has it: the ruleset checks source addresses.
fn host_sysctls(spec: &EndpointSpec, v6: bool) -> Vec<Sysctl> {
    let dev = spec.host_name.as_str();
    let mut sysctls = Vec::new();
    if spec.addresses.iter().any(IpAddr::is_ipv4) {
        sysctls.push(required(format!("net/ipv4/conf/{dev}/proxy_arp"), "1"));
        sysctls.push(required(format!("net/ipv4/conf/{dev}/forwarding"), "1"));
        // The kernel otherwise answers a proxied request after up to 0.8 s.
        sysctls.push(required(format!("net/ipv4/neigh/{dev}/proxy_delay"), "0"));
    }
    // 1 is "none": the kernel makes no link-local address of its own, so the gateway's is the
    // only one, and an endpoint without IPv6 has none.
    let mut ipv6 = vec![("accept_ra", "0"), ("addr_gen_mode", "1")];
    if v6 {
        ipv6.extend([
            ("accept_dad", "0"),
            ("disable_ipv6", "0"),
            ("proxy_ndp", "1"),
            ("forwarding", "1"),
        ]);
    }
    sysctls.extend(ipv6.into_iter().map(|(key, value)| Sysctl {
        path: format!("net/ipv6/conf/{dev}/{key}"),
        value: value.to_owned(),
        optional: !v6,
    }));
    sysctls
}

/// An endpoint that the kernel could not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A name no interface can have.
    #[error(
        "\"{name}\" cannot name an interface: use 1 to 15 printable characters without '/', ':' and '%'"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// An MTU out of range.
    #[error("mtu {mtu} is out of range: a veth pair takes 68 to 65535")]
    Mtu {
        /// The MTU in bytes.
        mtu: u32,
    },
    /// An MTU with which the kernel switches IPv6 off.
    #[error("mtu {mtu} is too small for IPv6, which needs 1280")]
    MtuForV6 {
        /// The MTU in bytes.
        mtu: u32,
    },
}

fn required(path: String, value: &str) -> Sysctl {
    Sysctl {
        path,
        value: value.to_owned(),
        optional: false,
    }
}

fn endpoint_address(address: IpAddr) -> Address {
    Address {
        network: host_network(address),
        scope: Scope::Universe,
        nodad: address.is_ipv6(),
    }
}

fn host_network(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

fn default_network(v4: bool) -> IpNetwork {
    let unspecified = if v4 {
        IpAddr::from([0_u8; 4])
    } else {
        IpAddr::from([0_u8; 16])
    };
    with_prefix(unspecified, 0)
}

fn with_prefix(address: IpAddr, prefix: u8) -> IpNetwork {
    // A prefix out of range cannot occur: callers pass 0 and 64.
    IpNetwork::new(address, prefix).unwrap_or_else(|_| IpNetwork::from(address))
}

const MTU_RANGE: std::ops::RangeInclusive<u32> = 68..=65_535;
const MIN_MTU_V6: u32 = 1_280;

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(addresses: &[&str]) -> EndpointSpec {
        EndpointSpec {
            host_name: "cali2f648c3dc3f".to_owned(),
            container_name: "eth0".to_owned(),
            container_mac: Mac([0x02, 0, 0, 0, 0, 1]),
            mtu: Some(1450),
            queues: 1,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            routes: Vec::new(),
            include_default_routes: false,
            allow_ip_forwarding: false,
            mark: Mark::new("calinet", "0123", "eth0"),
        }
    }

    fn settings(side: &Side) -> Vec<String> {
        side.sysctls
            .iter()
            .map(|s| format!("{}={}", s.path, s.value))
            .collect()
    }

    #[test]
    fn a_v4_endpoint_has_the_link_local_gateway_and_a_host_route() {
        let plan = EndpointPlan::new(&spec(&["192.168.224.192"])).unwrap();
        let gateway = IpAddr::V4(GATEWAY_V4);
        assert_eq!(
            plan.container.routes,
            vec![
                Route::on_link("169.254.1.1/32".parse().unwrap(), "eth0", PROTOCOL_BOOT),
                Route::via("0.0.0.0/0".parse().unwrap(), gateway, "eth0", PROTOCOL_BOOT),
            ]
        );
        assert_eq!(
            plan.host.routes,
            vec![Route::on_link(
                "192.168.224.192/32".parse().unwrap(),
                "cali2f648c3dc3f",
                PROTOCOL_BOOT
            )]
        );
        assert_eq!(
            settings(&plan.container),
            ["net/ipv4/ip_forward=0", "net/ipv6/conf/eth0/accept_ra=0"]
        );
        assert_eq!(
            settings(&plan.host),
            [
                "net/ipv4/conf/cali2f648c3dc3f/proxy_arp=1",
                "net/ipv4/conf/cali2f648c3dc3f/forwarding=1",
                "net/ipv4/neigh/cali2f648c3dc3f/proxy_delay=0",
                "net/ipv6/conf/cali2f648c3dc3f/accept_ra=0",
                "net/ipv6/conf/cali2f648c3dc3f/addr_gen_mode=1",
            ]
        );
        assert!(plan.host.addresses.is_empty());
        let v6 = plan
            .host
            .sysctls
            .iter()
            .filter(|s| s.path.starts_with("net/ipv6"));
        assert!(v6.into_iter().all(|s| s.optional));
    }

    #[test]
    fn loopback_services_stay_unreachable() {
        let plan = EndpointPlan::new(&spec(&["10.65.0.2", "2001:db8::2"])).unwrap();
        let all = serde_json::to_string(&plan).unwrap();
        assert!(!all.contains("route_localnet") && !all.contains("rp_filter"));
    }

    #[test]
    fn a_v6_endpoint_waits_for_no_duplicate_address_detection() {
        let plan = EndpointPlan::new(&spec(&["2001:db8::2"])).unwrap();
        assert_eq!(
            plan.container.addresses[0].network,
            "2001:db8::2/128".parse().unwrap()
        );
        assert_eq!(
            plan.host.addresses,
            vec![Address {
                network: "fe80::ecee:eeff:feee:eeee/64".parse().unwrap(),
                scope: Scope::Link,
                nodad: true,
            }]
        );
        assert!(plan.container.addresses.iter().all(|address| address.nodad));
        assert!(settings(&plan.container).contains(&"net/ipv6/conf/eth0/accept_dad=0".to_owned()));
        assert!(
            !settings(&plan.host)
                .iter()
                .any(|s| s.starts_with("net/ipv4"))
        );
        assert_eq!(
            plan.container.neighbours,
            vec![Neighbour::permanent(GATEWAY_V6.into(), GATEWAY_MAC, "eth0")]
        );
    }

    #[test]
    fn custom_routes_take_the_place_of_the_default() {
        let mut spec = spec(&["10.65.0.2"]);
        spec.routes = vec![
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ];
        let destinations = |spec: &EndpointSpec| -> Vec<String> {
            container_routes(spec)
                .iter()
                .map(|route| route.dst.to_string())
                .collect()
        };
        assert_eq!(destinations(&spec), ["169.254.1.1/32", "10.0.0.0/8"]);
        spec.include_default_routes = true;
        assert_eq!(
            destinations(&spec),
            ["169.254.1.1/32", "10.0.0.0/8", "0.0.0.0/0"]
        );
    }

    #[test]
    fn impossible_endpoints_are_refused() {
        let name = EndpointSpec {
            container_name: "eth/0".to_owned(),
            ..spec(&["10.65.0.2"])
        };
        assert_eq!(
            EndpointPlan::new(&name),
            Err(SpecError::Name {
                name: "eth/0".to_owned()
            })
        );
        let small = EndpointSpec {
            mtu: Some(1000),
            ..spec(&["2001:db8::2"])
        };
        assert_eq!(
            EndpointPlan::new(&small),
            Err(SpecError::MtuForV6 { mtu: 1000 })
        );
        let large = EndpointSpec {
            mtu: Some(70_000),
            ..spec(&["10.65.0.2"])
        };
        assert_eq!(
            EndpointPlan::new(&large),
            Err(SpecError::Mtu { mtu: 70_000 })
        );
    }
}
