//! Tunnels' devices: observed, changed; and their forwarding entries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_route::{DeviceStep, FdbEntry, Fixed, Mac, ObservedVxlan, VXLAN_V4, VXLAN_V6, Vxlan};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoVxlan, LinkInfo};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::link::{Interfaces, Link};
use crate::message;
use crate::socket::Netlink;

/// What makes a VXLAN device, as the kernel reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VxlanInfo {
    /// The network's identifier.
    pub vni: u32,
    /// UDP port of the outer packets.
    pub port: u16,
    /// Index of the interface by which outer packets leave; 0 if there is none.
    pub parent: u32,
    /// Source address of outer packets.
    pub local: Option<IpAddr>,
    /// Whether destinations are learnt from traffic.
    pub learning: bool,
}

/// The devices named as our tunnels are, whoever made them.
#[must_use]
pub fn observe(interfaces: &Interfaces) -> Vec<ObservedVxlan> {
    let names = [VXLAN_V4, VXLAN_V6].into_iter();
    let found = names.filter_map(|name| interfaces.by_name(name));
    found.map(|link| observed(link, interfaces)).collect()
}

/// Carries out one step.
///
/// # Errors
/// The parent is missing, or the kernel refused.
pub async fn apply(netlink: &Netlink, step: &DeviceStep) -> Result<()> {
    match step {
        DeviceStep::Create(vxlan) => create(netlink, vxlan).await,
        DeviceStep::Amend { name, mac, mtu } => {
            let index = index(netlink, name).await?;
            let request = message::amend_link(index, Some(*mac), *mtu);
            netlink
                .change(request)
                .await
                .map_err(|source| Error::SetLink {
                    name: name.clone(),
                    source,
                })
        }
        DeviceStep::AddAddress { name, address } => {
            let address = margay_endpoint::Address {
                network: *address,
                scope: margay_route::Scope::Universe,
                nodad: true,
            };
            let index = index(netlink, name).await?;
            netlink.add_address(index, name, &address).await
        }
        DeviceStep::RemoveAddress { name, address } => {
            let index = index(netlink, name).await?;
            let request = message::delete_address(index, *address);
            match netlink.change(request).await {
                Err(source) if source.errno() != Some(Errno::EADDRNOTAVAIL) => {
                    Err(Error::DeleteAddress {
                        address: *address,
                        ifname: name.clone(),
                        source,
                    })
                }
                _ => Ok(()),
            }
        }
        DeviceStep::Delete { name } => match netlink.link(name).await? {
            Some(link) => netlink.delete_link(link.index, name).await.map(|_| ()),
            None => Ok(()),
        },
    }
}

/// The forwarding entries of our tunnels' devices.
///
/// # Errors
/// [`Error::List`].
pub(crate) async fn forwarding(
    netlink: &Netlink,
    interfaces: &Interfaces,
) -> Result<Vec<FdbEntry>> {
    let mut entries = Vec::new();
    for name in [VXLAN_V4, VXLAN_V6] {
        let device = interfaces.by_name(name);
        let Some(link) = device.filter(|link| link.vxlan.is_some()) else {
            continue;
        };
        let answers = match netlink.dump(message::list_fdb(link.index)).await {
            Ok(answers) => answers,
            // It has just gone.
            Err(source) if source.errno() == Some(Errno::ENODEV) => continue,
            Err(source) => {
                return Err(Error::List {
                    what: "forwarding entries",
                    source,
                });
            }
        };
        entries.extend(answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(entry) if entry.header.ifindex == link.index => {
                decode(entry, name)
            }
            _ => None,
        }));
    }
    Ok(entries)
}

/// From the kind's data of a link.
pub(crate) fn info(data: &[InfoVxlan]) -> VxlanInfo {
    let mut info = VxlanInfo::default();
    for attribute in data {
        match attribute {
            InfoVxlan::Id(vni) => info.vni = *vni,
            InfoVxlan::Port(port) => info.port = *port,
            InfoVxlan::Link(index) => info.parent = *index,
            InfoVxlan::Local(v4) => info.local = Some(IpAddr::V4(*v4)),
            InfoVxlan::Local6(v6) => info.local = Some(IpAddr::V6(*v6)),
            InfoVxlan::Learning(learning) => info.learning = *learning,
            _ => {}
        }
    }
    info
}

/// The data of a VXLAN device among a link's, if it is one.
pub(crate) fn data(infos: &[LinkInfo]) -> Option<VxlanInfo> {
    infos.iter().find_map(|part| match part {
        LinkInfo::Data(netlink_packet_route::link::InfoData::Vxlan(data)) => Some(info(data)),
        _ => None,
    })
}

fn observed(link: &Link, interfaces: &Interfaces) -> ObservedVxlan {
    let fixed = link.vxlan.as_ref().map(|vxlan| Fixed {
        vni: vxlan.vni,
        port: vxlan.port,
        parent: interfaces
            .by_index(vxlan.parent)
            .map(|parent| parent.name.clone()),
        local: vxlan.local,
        learning: vxlan.learning,
    });
    ObservedVxlan {
        name: link.name.clone(),
        fixed,
        mac: link.mac,
        mtu: link.mtu,
        up: link.up,
        addresses: link.addresses.clone(),
    }
}

async fn create(netlink: &Netlink, vxlan: &Vxlan) -> Result<()> {
    let parent = index(netlink, &vxlan.parent).await?;
    netlink
        .change(message::create_vxlan(vxlan, parent))
        .await
        .map_err(|source| Error::CreateVxlan {
            name: vxlan.name.clone(),
            source,
        })
}

async fn index(netlink: &Netlink, name: &str) -> Result<u32> {
    let link = netlink.link(name).await?;
    link.map(|link| link.index)
        .ok_or_else(|| Error::LinkMissing {
            name: name.to_owned(),
        })
}

fn decode(message: &NeighbourMessage, interface: &str) -> Option<FdbEntry> {
    let (mut mac, mut destination) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(octets) => {
                mac = <[u8; 6]>::try_from(octets.as_slice()).ok().map(Mac);
            }
            // The family is the bridge's, so the address comes as octets.
            NeighbourAttribute::Destination(NeighbourAddress::Other(octets)) => {
                destination = address(octets);
            }
            _ => {}
        }
    }
    Some(FdbEntry {
        interface: interface.to_owned(),
        mac: mac?,
        destination: destination?,
    })
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let octets = <[u8; 16]>::try_from(octets).ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(octets)))
}
