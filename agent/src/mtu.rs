//! The MTU that workloads get: the smallest of the machine's, less what encapsulation takes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_model::Family;
use margay_model::resource::pool::EncapMode;
use regex::Regex;

use crate::state::Pool;

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

/// The workloads' MTU in bytes; `None` when no interface says anything.
///
/// The interfaces that bear the node's addresses count whatever their names are; others when their
/// names match.
pub fn workload_mtu<'p>(
    carriers: &[Carrier],
    node: &[IpAddr],
    names: &Regex,
    pools: impl IntoIterator<Item = &'p Pool>,
) -> Option<u32> {
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
    let overhead = pools.into_iter().map(overhead).max().unwrap_or(0);
    Some(host.saturating_sub(overhead))
}

/// Bytes that a pool's encapsulation adds to a packet.
fn overhead(pool: &Pool) -> u32 {
    let vxlan = match pool.cidr.family() {
        Family::V4 => VXLAN,
        Family::V6 => VXLAN_V6,
    };
    let ipip = if pool.ipip == EncapMode::Never {
        0
    } else {
        IPIP
    };
    let vxlan = if pool.vxlan == EncapMode::Never {
        0
    } else {
        vxlan
    };
    ipip.max(vxlan)
}

/// Names of Ethernet, wireless and InfiniBand interfaces: Calico's pattern.
pub const INTERFACES: &str = "^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)";

const IPIP: u32 = 20;
const VXLAN: u32 = 50;
const VXLAN_V6: u32 = 70;

#[cfg(test)]
mod tests {
    use super::*;

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
        let mtu = |node: &str, pools: &[Pool]| {
            workload_mtu(&carriers, &[node.parse().unwrap()], &names, pools)
        };
        assert_eq!(mtu("10.0.0.5", std::slice::from_ref(&never)), Some(1500));
        assert_eq!(mtu("10.2.0.5", &[]), Some(1450));
        assert_eq!(mtu("10.0.0.5", &[never.clone(), ipip.clone()]), Some(1480));
        assert_eq!(mtu("10.0.0.5", &[ipip, vxlan]), Some(1450));
        assert_eq!(mtu("10.0.0.5", &[never, vxlan6]), Some(1430));
        assert_eq!(workload_mtu(&carriers[2..3], &[], &names, &[]), None);
    }
}
