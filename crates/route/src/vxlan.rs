//! VXLAN tunnels: the device, where its frames go, and the planner of devices.
//!
//! Names, MAC addresses and numbers are Calico's, so that nodes of either kind reach each other.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;
use sha1::{Digest, Sha1};

use crate::Mac;

/// A VXLAN device that should exist (RFC 7348, without learning: every destination is configured).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vxlan {
    /// Its name: [`VXLAN_V4`] or [`VXLAN_V6`].
    pub name: String,
    /// The network's identifier, 24 bits.
    pub vni: u32,
    /// UDP port of the outer packets.
    pub port: u16,
    /// The interface by which outer packets leave.
    pub parent: String,
    /// Source address of outer packets; its family is the device's.
    pub local: IpAddr,
    /// MAC address of the device, by which other nodes know it.
    pub mac: Mac,
    /// MTU in bytes of what goes inside.
    pub mtu: u32,
    /// The device's own address, a host prefix.
    pub address: IpAddr,
}

/// A device under one of our tunnels' names, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObservedVxlan {
    /// Its name.
    pub name: String,
    /// What cannot be changed while it exists; `None` if it is no VXLAN device.
    pub fixed: Option<Fixed>,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<IpNetwork>,
}

/// What of a VXLAN device cannot be changed while it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fixed {
    /// The network's identifier.
    pub vni: u32,
    /// UDP port of the outer packets.
    pub port: u16,
    /// The interface by which outer packets leave.
    pub parent: Option<String>,
    /// Source address of outer packets.
    pub local: Option<IpAddr>,
    /// Whether destinations are learnt from traffic.
    pub learning: bool,
}

/// One change of a tunnel's device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum DeviceStep {
    /// Make it, up, with its MAC address and MTU, without addresses.
    Create(Vxlan),
    /// Set its MAC address and MTU, and bring it up.
    Amend {
        /// The device.
        name: String,
        /// The MAC address.
        mac: Mac,
        /// The MTU in bytes.
        mtu: u32,
    },
    /// Give it an address.
    AddAddress {
        /// The device.
        name: String,
        /// The address, a host prefix.
        address: IpNetwork,
    },
    /// Take an address from it.
    RemoveAddress {
        /// The device.
        name: String,
        /// The address.
        address: IpNetwork,
    },
    /// Delete it.
    Delete {
        /// The device.
        name: String,
    },
}

/// Where a VXLAN device sends frames for a MAC address: an entry of its forwarding database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct FdbEntry {
    /// The device's name.
    pub interface: String,
    /// The MAC address of the device at the other end.
    pub mac: Mac,
    /// The other node's address, to which outer packets go.
    pub destination: IpAddr,
}

impl Vxlan {
    /// The device's own address as a host prefix.
    #[must_use]
    pub fn host_prefix(&self) -> IpNetwork {
        IpNetwork::from(self.address)
    }

    fn fixed(&self) -> Fixed {
        Fixed {
            vni: self.vni,
            port: self.port,
            parent: Some(self.parent.clone()),
            local: Some(self.local),
            learning: false,
        }
    }

    fn amend(&self) -> DeviceStep {
        DeviceStep::Amend {
            name: self.name.clone(),
            mac: self.mac,
            mtu: self.mtu,
        }
    }
}

/// The MAC address of a node's VXLAN device where its record names none: `66` and the first five
/// bytes of the SHA-1 of the node's name, for IPv6 of the name with `-v6` behind it.
#[must_use]
pub fn vtep_mac(node: &str, ipv4: bool) -> Mac {
    let mut hash = Sha1::new();
    hash.update(node);
    if !ipv4 {
        hash.update("-v6");
    }
    let digest = hash.finalize();
    Mac([0x66, digest[0], digest[1], digest[2], digest[3], digest[4]])
}

/// The steps from the devices that are there to those that should be. `observed` are the devices
/// named [`VXLAN_V4`] and [`VXLAN_V6`], whoever made them: both names are reserved.
///
/// A device whose numbers, parent or source differ is made anew; all else is changed in place.
/// Link-local addresses are the kernel's affair.
#[must_use]
pub fn plan_vxlan(desired: &[Vxlan], observed: &[ObservedVxlan]) -> Vec<DeviceStep> {
    let mut steps = Vec::new();
    for device in observed {
        let wanted = desired.iter().find(|wanted| wanted.name == device.name);
        if wanted.is_none_or(|wanted| device.fixed != Some(wanted.fixed())) {
            let name = device.name.clone();
            steps.push(DeviceStep::Delete { name });
        }
    }
    for wanted in desired {
        let there = observed
            .iter()
            .find(|device| device.name == wanted.name && device.fixed == Some(wanted.fixed()));
        let own = wanted.host_prefix();
        let add = DeviceStep::AddAddress {
            name: wanted.name.clone(),
            address: own,
        };
        let Some(device) = there else {
            steps.extend([DeviceStep::Create(wanted.clone()), add]);
            continue;
        };
        if device.mac != Some(wanted.mac) || device.mtu != wanted.mtu || !device.up {
            steps.push(wanted.amend());
        }
        if !device.addresses.contains(&own) {
            steps.push(add);
        }
        let strange = device
            .addresses
            .iter()
            .filter(|address| **address != own && !is_link_local(address.ip()));
        steps.extend(strange.map(|address| DeviceStep::RemoveAddress {
            name: wanted.name.clone(),
            address: *address,
        }));
    }
    steps
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Name of the device over IPv4.
pub const VXLAN_V4: &str = "vxlan.calico";
/// Name of the device over IPv6.
pub const VXLAN_V6: &str = "vxlan-v6.calico";
/// The network's identifier where nothing else is said.
pub const VXLAN_VNI: u32 = 4096;
/// The UDP port where nothing else is said (RFC 7348, section 5).
pub const VXLAN_PORT: u16 = 4789;
/// Bytes that VXLAN over IPv4 takes of a packet: outer IP 20, UDP 8, VXLAN 8, inner Ethernet 14.
pub const VXLAN_OVERHEAD_V4: u32 = 50;
/// Bytes that VXLAN over IPv6 takes of a packet: outer IP 40, UDP 8, VXLAN 8, inner Ethernet 14.
pub const VXLAN_OVERHEAD_V6: u32 = 70;

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Vxlan {
        Vxlan {
            name: VXLAN_V4.to_owned(),
            vni: VXLAN_VNI,
            port: VXLAN_PORT,
            parent: "eth0".to_owned(),
            local: "10.0.0.1".parse().unwrap(),
            mac: vtep_mac("n1", true),
            mtu: 1450,
            address: "192.168.1.1".parse().unwrap(),
        }
    }

    fn device(of: &Vxlan) -> ObservedVxlan {
        ObservedVxlan {
            name: of.name.clone(),
            fixed: Some(of.fixed()),
            mac: Some(of.mac),
            mtu: of.mtu,
            up: true,
            addresses: vec![of.host_prefix()],
        }
    }

    #[test]
    fn mac_addresses_follow_from_the_nodes_name() {
        // printf %s node-1 | sha1sum; printf %s node-1-v6 | sha1sum
        assert_eq!(vtep_mac("node-1", true).to_string(), "66:b3:68:28:39:8e");
        assert_eq!(vtep_mac("node-1", false).to_string(), "66:24:ac:63:df:6c");
    }

    #[test]
    fn a_device_that_is_right_is_left_alone() {
        let wanted = wanted();
        let mut there = device(&wanted);
        there.addresses.push("fe80::1/64".parse().unwrap());
        assert_eq!(plan_vxlan(&[wanted], &[there]), []);
        assert_eq!(plan_vxlan(&[], &[]), []);
    }

    #[test]
    fn what_can_be_changed_is_changed_in_place() {
        let wanted = wanted();
        let mut there = device(&wanted);
        there.mtu = 1400;
        there.addresses = vec!["192.168.9.9/32".parse().unwrap()];
        let name = wanted.name.clone();
        assert_eq!(
            plan_vxlan(std::slice::from_ref(&wanted), &[there]),
            [
                wanted.amend(),
                DeviceStep::AddAddress {
                    name: name.clone(),
                    address: wanted.host_prefix(),
                },
                DeviceStep::RemoveAddress {
                    name,
                    address: "192.168.9.9/32".parse().unwrap(),
                },
            ]
        );
    }

    #[test]
    fn other_numbers_or_kinds_are_made_anew() {
        let wanted = wanted();
        let mut other_port = device(&wanted);
        other_port.fixed = Some(Fixed {
            port: 8472,
            ..wanted.fixed()
        });
        let mut no_vxlan = device(&wanted);
        no_vxlan.fixed = None;
        for there in [other_port, no_vxlan] {
            let steps = plan_vxlan(std::slice::from_ref(&wanted), &[there]);
            assert_eq!(
                steps,
                [
                    DeviceStep::Delete {
                        name: wanted.name.clone()
                    },
                    DeviceStep::Create(wanted.clone()),
                    DeviceStep::AddAddress {
                        name: wanted.name.clone(),
                        address: wanted.host_prefix(),
                    },
                ]
            );
        }
    }

    #[test]
    fn what_is_not_wanted_goes() {
        let there = device(&wanted());
        let name = there.name.clone();
        assert_eq!(plan_vxlan(&[], &[there]), [DeviceStep::Delete { name }]);
    }
}
