//! Configured neighbour entries: listed, set, deleted.

use std::net::IpAddr;

use margay_route::{Mac, Neighbour, NeighbourKind};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::link::Interfaces;
use crate::message;
use crate::socket::Netlink;

impl Netlink {
    /// Permanent and proxy entries of both families: all, or those of one interface.
    ///
    /// # Errors
    /// [`Error::List`].
    pub async fn neighbours(
        &self,
        interface: Option<u32>,
        interfaces: &Interfaces,
    ) -> Result<Vec<Neighbour>> {
        let mut neighbours = Vec::new();
        for (v4, proxy) in [(true, false), (false, false), (true, true), (false, true)] {
            let request = message::list_neighbours(v4, proxy, interface);
            let answers = match self.dump(request).await {
                Ok(answers) => answers,
                Err(source) if source.errno() == Some(Errno::EAFNOSUPPORT) => continue,
                Err(source) => {
                    return Err(Error::List {
                        what: "neighbours",
                        source,
                    });
                }
            };
            neighbours.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(neighbour) => decode(neighbour, interfaces),
                _ => None,
            }));
        }
        if let Some(index) = interface {
            let name = interfaces.name(index);
            neighbours.retain(|neighbour| neighbour.interface == name);
        }
        Ok(neighbours)
    }

    pub(crate) async fn set_neighbour(
        &self,
        neighbour: &Neighbour,
        interfaces: &Interfaces,
    ) -> Result<()> {
        let index = index(neighbour, interfaces)?;
        let request = message::set_neighbour(neighbour, index);
        self.change(request)
            .await
            .map_err(|source| Error::SetNeighbour {
                address: neighbour.address,
                ifname: neighbour.interface.clone(),
                source,
            })
    }
}

fn index(neighbour: &Neighbour, interfaces: &Interfaces) -> Result<u32> {
    let name = &neighbour.interface;
    let link = interfaces.by_name(name);
    link.map(|link| link.index)
        .ok_or_else(|| Error::LinkMissing { name: name.clone() })
}

/// A configured entry from `RTM_NEWNEIGH`; `None` for what the kernel learnt.
fn decode(message: &NeighbourMessage, interfaces: &Interfaces) -> Option<Neighbour> {
    let header = &message.header;
    let proxy = header.flags.contains(NeighbourFlags::Proxy);
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(octets) => {
                mac = <[u8; 6]>::try_from(octets.as_slice()).ok().map(Mac);
            }
            _ => {}
        }
    }
    let kind = match (proxy, header.state, mac) {
        (true, _, _) => NeighbourKind::Proxy,
        (false, NeighbourState::Permanent, Some(mac)) => NeighbourKind::Permanent(mac),
        _ => return None,
    };
    Some(Neighbour {
        interface: interfaces.name(header.ifindex),
        address: address?,
        kind,
    })
}
