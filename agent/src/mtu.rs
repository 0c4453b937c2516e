//! The MTU that workloads get: the smallest of the machine's, less what encapsulation takes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_model::Family;
use margay_model::resource::pool::EncapMode;
use margay_route::{VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6};
use regex::Regex;

use crate::state::{Pool, Vxlan};

/// An interface as far as its MTU goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpNetwork>,
}

/// What fits into one packet, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mtus {
    /// Through the IPv4 VXLAN device.
    pub vxlan_v4: u32,
    /// Through the IPv6 VXLAN device.
    pub vxlan_v6: u32,
    /// From a workload, however it is carried.
    pub workload: u32,
}

/// What fits; `None` when no interface says anything.
///
/// The interfaces that bear the node's addresses count whatever their names are; others when their
/// names match.
pub fn mtus<'p>(
    carriers: &[Carrier],
    node: &[IpAddr],
    names: &Regex,
    vxlan: &Vxlan,
    pools: impl IntoIterator<Item = &'p Pool>,
) -> Option<Mtus> {
    let counts = |carrier: &&Carrier| {
        names.is_match(&carrier.name)
            || carrier
                .addresses
                .iter()
                .any(|network| node.contains(&network.ip()))
    };
    let host = carriers
        .iter()
        .filter(counts)
        .map(|carrier| carrier.mtu)
        .min()?;
    let less = |overhead: u32| host.saturating_sub(overhead);
    let mut mtus = Mtus {
        vxlan_v4: vxlan.mtu_v4.unwrap_or_else(|| less(VXLAN_OVERHEAD_V4)),
        vxlan_v6: vxlan.mtu_v6.unwrap_or_else(|| less(VXLAN_OVERHEAD_V6)),
        workload: host,
    };
    for pool in pools {
        if pool.ipip != EncapMode::Never {
            mtus.workload = mtus.workload.min(less(IPIP));
        }
        if pool.tunnels() && vxlan.enabled {
            let through = match pool.cidr.family() {
                Family::V4 => mtus.vxlan_v4,
                Family::V6 => mtus.vxlan_v6,
            };
            mtus.workload = mtus.workload.min(through);
        }
    }
    Some(mtus)
}

/// Names of Ethernet, wireless and InfiniBand interfaces: Calico's pattern.
pub const INTERFACES: &str = "^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)";

/// Bytes that IP-in-IP takes of a packet.
const IPIP: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Settings;

    fn carrier(name: &str, mtu: u32, address: &str) -> Carrier {
        Carrier {
            name: name.to_owned(),
            mtu,
            addresses: vec![address.parse().unwrap()],
        }
    }

    fn pool(cidr: &str, ipip: EncapMode, vxlan: EncapMode) -> Pool {
        Pool {
            cidr: cidr.parse().unwrap(),
            ipip,
            vxlan,
            for_tunnels: true,
            nodes: None,
            export: true,
            nat_outgoing: true,
        }
    }

    #[test]
    fn the_smallest_counts_less_the_encapsulation() {
        let names = Regex::new(INTERFACES).unwrap();
        let carriers = [
            carrier("eth0", 9000, "10.0.0.5/24"),
            carrier("enp3s0", 1500, "10.1.0.5/24"),
            carrier("docker0", 1400, "172.17.0.1/16"),
            carrier("uplink", 1450, "10.2.0.5/24"),
        ];
        let never = pool("192.168.0.0/16", EncapMode::Never, EncapMode::Never);
        let ipip = pool("10.8.0.0/16", EncapMode::CrossSubnet, EncapMode::Never);
        let vxlan = pool("10.9.0.0/16", EncapMode::Never, EncapMode::Always);
        let vxlan6 = pool("fd00::/64", EncapMode::Never, EncapMode::Always);
        let of = |vxlan: Vxlan, node: &str, pools: &[Pool]| {
            mtus(&carriers, &[node.parse().unwrap()], &names, &vxlan, pools)
        };
        let usual = Settings::default().vxlan;
        let mtu = |node: &str, pools: &[Pool]| of(usual, node, pools).map(|m| m.workload);
        assert_eq!(mtu("10.0.0.5", std::slice::from_ref(&never)), Some(1500));
        assert_eq!(mtu("10.2.0.5", &[]), Some(1450));
        assert_eq!(mtu("10.0.0.5", &[never.clone(), ipip.clone()]), Some(1480));
        assert_eq!(mtu("10.0.0.5", &[ipip, vxlan.clone()]), Some(1450));
        let pools = std::slice::from_ref(&vxlan);
        let off = Vxlan {
            enabled: false,
            ..usual
        };
        assert_eq!(of(off, "10.0.0.5", pools).unwrap().workload, 1500);
        let told = Vxlan {
            mtu_v4: Some(1350),
            ..usual
        };
        let found = of(told, "10.0.0.5", pools).unwrap();
        assert_eq!(
            (found.workload, found.vxlan_v4, found.vxlan_v6),
            (1350, 1350, 1430)
        );
        assert_eq!(mtu("10.0.0.5", &[never, vxlan6]), Some(1430));
        assert_eq!(mtus(&carriers[2..3], &[], &names, &usual, &[]), None);
    }
}
