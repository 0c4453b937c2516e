//! Requests for tunnels' devices and forwarding entries, and for MTUs.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnetwork::IpNetwork;
use margay_route::{FdbEntry, Mac, Vxlan};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::encode::{Request, family, request};

/// `RTM_NEWLINK`: a VXLAN device without learning, up, over the interface of index `parent`.
pub(crate) fn create_vxlan(vxlan: &Vxlan, parent: u32) -> Request {
    let local = match vxlan.local {
        IpAddr::V4(v4) => InfoVxlan::Local(v4),
        IpAddr::V6(v6) => InfoVxlan::Local6(v6),
    };
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(vxlan.name.clone()),
        LinkAttribute::Address(vxlan.mac.0.to_vec()),
        LinkAttribute::Mtu(vxlan.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vec![
                InfoVxlan::Id(vxlan.vni),
                InfoVxlan::Link(parent),
                local,
                InfoVxlan::Learning(false),
                InfoVxlan::Port(vxlan.port),
            ])),
        ]),
    ];
    request(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// `RTM_SETLINK`: an interface up, with this MTU, and this MAC address if one is given.
pub(crate) fn amend_link(index: u32, mac: Option<Mac>, mtu: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
        .attributes
        .extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    request(RouteNetlinkMessage::SetLink(message), 0)
}

/// `RTM_SETLINK`: only an MTU.
pub(crate) fn set_mtu(index: u32, mtu: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::Mtu(mtu)];
    request(RouteNetlinkMessage::SetLink(message), 0)
}

/// `RTM_DELADDR`.
pub(crate) fn delete_address(index: u32, address: IpNetwork) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip());
    message.header.prefix_len = address.prefix();
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address.ip())];
    request(RouteNetlinkMessage::DelAddress(message), 0)
}

/// `RTM_NEWNEIGH` for a bridge's family: the entry, in the place of any for its MAC address.
pub(crate) fn set_fdb(entry: &FdbEntry, index: u32) -> Request {
    let mut message = fdb(entry, index);
    message.header.state = NeighbourState::Permanent;
    request(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// `RTM_DELNEIGH` for a bridge's family.
pub(crate) fn delete_fdb(entry: &FdbEntry, index: u32) -> Request {
    request(RouteNetlinkMessage::DelNeighbour(fdb(entry, index)), 0)
}

/// `RTM_GETNEIGH` for a bridge's family, to be dumped: of one device.
pub(crate) fn list_fdb(index: u32) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    request(RouteNetlinkMessage::GetNeighbour(message), 0)
}

/// `RTM_GETNSID`: by which number the socket's namespace knows another.
pub(crate) fn get_nsid(namespace: BorrowedFd<'_>) -> Request {
    let mut message = NsidMessage::default();
    let descriptor = u32::try_from(namespace.as_raw_fd()).unwrap_or(u32::MAX);
    message.attributes = vec![NsidAttribute::Fd(descriptor)];
    request(RouteNetlinkMessage::GetNsId(message), 0)
}

fn fdb(entry: &FdbEntry, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    // The device itself, not a bridge that it might be part of.
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()),
        NeighbourAttribute::Destination(entry.destination.into()),
    ];
    message
}
